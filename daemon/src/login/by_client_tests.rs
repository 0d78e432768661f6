//! Logins without a person, at a scripted provider.

use super::*;
use crate::provider::Flow;

fn client() -> Plan {
    let mut plan = plan();
    plan.flow = Some(LoginFlow::ClientCredentials);
    plan.client_secret = Some(ClientSecret::new("hush".into()));
    plan
}

/// A server for machines alone: no page, no PKCE.
fn machines(request: &Request, _: usize) -> Answer {
    match request.url.strip_prefix(ISSUER) {
        Some("/.well-known/oauth-authorization-server") => {
            Ok(json(200, &format!(r#"{{"issuer":"{ISSUER}","token_endpoint":"{ISSUER}/token"}}"#)))
        }
        Some("/token") => Ok(json(200, r#"{"access_token":"at-1","expires_in":3600,"token_type":"Bearer","scope":"read"}"#)),
        _ => Ok(json(404, "{}")),
    }
}

#[tokio::test]
async fn a_client_gets_a_token_for_itself_and_nobody_is_asked() {
    let mut login = start(client(), machines);
    assert!(matches!(login.progress.recv().await, Some(Progress::Exchanging)));
    let provider = login.provider.clone();
    let outcome = login.end().await.unwrap();
    assert_eq!((outcome.account.as_deref(), outcome.subject), (Some("client-1"), None));
    assert!(outcome.definition.client_credentials && outcome.definition.redirect_uri.is_none());
    assert_eq!(outcome.response.access_token.expose(), "at-1");
    let requests = provider.seen.lock().unwrap();
    let asked = requests.last().unwrap();
    assert_eq!(form(asked), [("grant_type".into(), "client_credentials".into()), ("scope".into(), "read".to_owned())]);
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn the_providers_flow_decides_unless_another_is_asked_for() {
    let mut plan = Plan { flow: None, ..client() };
    plan.provider.quirks.flow = Some(Flow::ClientCredentials);
    assert!(start(plan, machines).end().await.is_ok());

    let mut plan = Plan { flow: Some(LoginFlow::Code), ..client() };
    plan.provider.quirks.flow = Some(Flow::ClientCredentials);
    start(plan, good).opened().await;
    let error = start(Plan { flow: None, ..client() }, machines).end().await.unwrap_err();
    assert!(error.error_description.contains("authorization_endpoint") || error.error_description.contains("S256"), "{error:?}");
}

#[tokio::test]
async fn a_client_without_a_secret_is_told_how_to_store_one() {
    let error = start(Plan { client_secret: None, ..client() }, machines).end().await.unwrap_err();
    assert_eq!(error.error, ErrorCode::Conflict);
    assert!(error.hint.unwrap().contains("mcp-authctl provider set-secret example"));
}

#[tokio::test]
async fn a_client_that_is_refused_is_told_so() {
    let refusing = |request: &Request, n: usize| match request.url.ends_with("/token") {
        true => Ok(json(401, r#"{"error":"invalid_client","error_description":"hush is wrong"}"#)),
        false => machines(request, n),
    };
    let error = start(client(), refusing).end().await.unwrap_err();
    assert_eq!(error.error, ErrorCode::Conflict);
    assert!(error.error_description.contains("invalid_client") && error.hint.unwrap().contains("set-secret"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_since_nothing_is_used_up() {
    let shaky = |request: &Request, n: usize| match (request.url.ends_with("/token"), n) {
        (true, 1) => Err(TransportError::Lost { host: "as.example".into(), reason: "reset".into() }),
        (true, 2) => Err(TransportError::NotSent { host: "as.example".into(), reason: "refused".into() }),
        _ => machines(request, n),
    };
    assert!(start(client(), shaky).end().await.is_ok());
}

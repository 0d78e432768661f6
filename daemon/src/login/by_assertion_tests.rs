//! Logins where a JWT of somebody else is enough, at scripted servers: what goes to whom, and what goes to nobody.

use super::*;
use crate::grant::record::{AssertionSource, TokenSource};
use crate::login::bearer::{Bearer, IdentityProvider, Token};
use crate::oauth::jwt::Jwt;
use crate::oauth::jwt_bearer::GRANT_TYPE;
use crate::oauth::samples::{header, jwt};
use crate::oauth::text::clean;

const IDP: &str = "https://idp.example";
const LATER: i64 = NOW.0 / 1000 + 300;

fn workload(changes: Value) -> Bearer {
    let mut claims = json!({ "iss": "https://cluster", "sub": "build", "aud": ISSUER, "exp": LATER });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    Bearer { token: Token::Given(signed("JWT", &claims)), identity_provider: None }
}

fn signed(kind: &str, claims: &Value) -> Jwt {
    Jwt::read(&text(kind, claims)).unwrap()
}

fn text(kind: &str, claims: &Value) -> String {
    jwt(&json!({ "alg": "ES256", "typ": kind }).to_string(), &claims.to_string())
}

fn with(bearer: Bearer) -> Remote {
    Remote {
        bearer: Some(bearer),
        given: given("client-1", None, None),
        asked: Some(vec!["read".into()]),
        without_refresh: true,
        ..remote()
    }
}

/// A server for machines alone: no page, no PKCE, no registration.
fn machines() -> World {
    let metadata = json!({ "issuer": ISSUER, "token_endpoint": format!("{ISSUER}/token") });
    honest().with(AS_METADATA, 200, metadata)
}

/// The world, and an identity provider in it that makes such ID-JAGs.
fn vouching(world: World, changes: Value) -> World {
    let mut claims = json!({ "iss": IDP, "sub": "u1", "aud": ISSUER, "client_id": "client-1", "exp": LATER });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let answer = json!({
        "access_token": text("oauth-id-jag+jwt", &claims), "token_type": "N_A",
        "issued_token_type": "urn:ietf:params:oauth:token-type:id-jag",
    });
    world.with(&format!("{IDP}/token"), 200, answer)
}

fn person(world: &Arc<World>, claims: Value) -> Bearer {
    let provider = Provider { issuer: Some(IDP.into()), client_id: Some("at-idp".into()), ..Provider::unknown("okta") };
    let endpoints = crate::provider::Endpoints { token: Some(format!("{IDP}/token")), ..provider.endpoints.clone() };
    let one = IdentityProvider {
        provider: Provider { endpoints, ..provider },
        configured: true,
        definition: None,
        secret: None,
        transport: world.clone(),
        turns: Arc::new(tokio::sync::Semaphore::new(1)),
    };
    Bearer { token: Token::Given(signed("JWT", &claims)), identity_provider: Some(one) }
}

async fn run(world: &Arc<World>, remote: Remote) -> Result<Outcome, ErrorBody> {
    let (_paste, pasted) = mpsc::channel(1);
    let progress = |step| {
        if let Progress::Registered(_, kept) = step {
            kept.send(()).unwrap();
        }
    };
    login::run(plan(remote), world.clone(), Arc::new(Still), progress, pasted).await
}

#[tokio::test]
async fn a_workload_gets_its_token_by_one_request_that_holds_its_jwt() {
    let world = Arc::new(machines());
    let outcome = run(&world, with(workload(json!({})))).await.unwrap();
    assert_eq!((outcome.account.as_deref(), outcome.subject), (Some("build"), None));
    assert_eq!(outcome.definition.assertion.as_deref(), Some(&AssertionSource::Workload(TokenSource::Given)));
    assert!(outcome.definition.redirect_uri.is_none() && !outcome.definition.client_credentials);
    let sent = world.token_request();
    let expected = [("grant_type", GRANT_TYPE), ("scope", "read"), ("resource", "https://mcp.example"), ("client_id", "client-1")];
    for (name, value) in expected {
        assert_eq!(sent[name], value);
    }
    assert_eq!(
        (sent.len(), sent["assertion"].as_str()),
        (5, text("JWT", &json!({ "iss": "https://cluster", "sub": "build", "aud": ISSUER, "exp": LATER })).as_str())
    );
    assert_eq!(world.asked(&format!("{ISSUER}/register")), 0);
}

#[tokio::test]
async fn a_server_that_names_another_authorization_server_does_not_get_the_workloads_jwt() {
    let evil = "https://evil.example";
    let metadata = json!({ "issuer": evil, "token_endpoint": format!("{evil}/token") });
    let world = machines().with(PRM, 200, resource(json!({ "authorization_servers": [evil] }))).with(
        &format!("{evil}/.well-known/oauth-authorization-server"),
        200,
        metadata,
    );
    let world = Arc::new(world);
    let error = run(&world, with(workload(json!({})))).await.unwrap_err();
    assert!(error.error_description.contains(&format!("is made for {}, not for {evil}", clean(ISSUER))), "{error}");
    assert_eq!((error.error, world.asked(&format!("{evil}/token"))), (ErrorCode::Conflict, 0));
}

#[tokio::test]
async fn an_answer_that_is_an_error_ends_it_at_the_first_request() {
    for (code, expected) in [
        ("invalid_grant", ErrorCode::LoginRequired),
        ("unauthorized_client", ErrorCode::Conflict),
        ("invalid_scope", ErrorCode::Conflict),
        ("unsupported_grant_type", ErrorCode::ProviderUnreachable),
    ] {
        let world = Arc::new(machines().with(&format!("{ISSUER}/token"), 400, json!({ "error": code })));
        let error = run(&world, with(workload(json!({})))).await.unwrap_err();
        assert_eq!((error.error, world.asked(&format!("{ISSUER}/token"))), (expected, 1), "{code}: {error}");
        assert!(error.hint.is_some(), "{code}");
    }
}

#[tokio::test]
async fn without_a_client_that_is_known_none_is_made() {
    let world = Arc::new(honest());
    let error = run(&world, Remote { given: None, ..with(workload(json!({}))) }).await.unwrap_err();
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("--client-id ID")), "{error:?}");
    assert_eq!(world.asked(&format!("{ISSUER}/register")) + world.asked(&format!("{ISSUER}/token")), 0);
}

fn id_token(changes: Value) -> Value {
    let mut claims = json!({ "iss": IDP, "aud": "at-idp", "sub": "u1", "email": "u1@corp.example", "exp": LATER });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims
}

#[tokio::test]
async fn an_id_token_goes_to_the_identity_provider_and_what_it_makes_of_it_to_the_server() {
    let world = Arc::new(vouching(machines(), json!({ "resource": "https://mcp.example" })));
    let remote = Remote { given: given("client-1", Some("hush-hush"), None), ..with(person(&world, id_token(json!({})))) };
    let outcome = run(&world, remote).await.unwrap();
    assert_eq!((outcome.account.as_deref(), outcome.subject.as_deref()), (Some("u1@corp.example"), Some("u1")));
    let seen = world.seen.lock().unwrap();
    let at = |url: String| seen.iter().filter(move |request| request.url == url).collect::<Vec<_>>();
    let (exchange, bearer) = (at(format!("{IDP}/token")), at(format!("{ISSUER}/token")));
    assert_eq!((exchange.len(), bearer.len()), (1, 1));
    let asked: HashMap<_, _> = form(exchange[0]).into_iter().collect();
    assert_eq!((asked["audience"].as_str(), asked["resource"].as_str(), asked["scope"].as_str()), (ISSUER, "https://mcp.example", "read"));
    assert_eq!((asked["client_id"].as_str(), header(exchange[0], "authorization")), ("at-idp", None), "our secret is not for it");
    assert!(header(bearer[0], "authorization").is_some_and(|value| value.starts_with("Basic ")));
    let id_token = text("JWT", &id_token(json!({})));
    for request in seen.iter().filter(|request| !request.url.starts_with(IDP)) {
        assert!(request.body.as_ref().is_none_or(|body| !body.0.contains(&id_token)), "{}", request.url);
    }
    let source = outcome.definition.assertion.as_deref().unwrap();
    assert_eq!(source.to_string(), "the identity provider okta, by a token that was given once");
}

#[tokio::test]
async fn what_is_not_as_it_must_be_goes_no_further() {
    let good = json!({});
    let table = [
        (id_token(json!({ "iss": "https://other.example" })), good.clone(), "`iss`", 0),
        (id_token(json!({ "aud": "another" })), good.clone(), "is made for another, not for at-idp", 0),
        (id_token(json!({ "exp": 7 })), good, "ended at", 0),
        (id_token(json!({})), json!({ "aud": "https://other.example" }), "its ID-JAG is made for https://other.example", 1),
        (id_token(json!({})), json!({ "client_id": "client-2" }), "`client_id`", 1),
        (id_token(json!({})), json!({ "resource": "https://other.example" }), "`resource`", 1),
    ];
    for (claims, jag, told, exchanges) in table {
        let world = Arc::new(vouching(machines(), jag));
        let error = run(&world, with(person(&world, claims))).await.unwrap_err();
        assert!(error.error_description.contains(told), "{error} instead of {told}");
        let counts = (world.asked(&format!("{IDP}/token")), world.asked(&format!("{ISSUER}/token")));
        assert_eq!(counts, (exchanges, 0), "{told}");
    }
}

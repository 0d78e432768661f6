//! Logins at a remote server as the client itself: what is asked, how it is proved, and what it means when it is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_proto::LoginFlow;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as P256, EcdsaKeyPair};

use super::*;

/// A server for machines: no page, no PKCE, no registration.
fn machines(methods: Value) -> World {
    let changes = json!({
        "authorization_endpoint": null, "registration_endpoint": null, "code_challenge_methods_supported": null,
        "token_endpoint_auth_methods_supported": methods, "scopes_supported": ["read", "offline_access"],
    });
    honest().with(PRM, 200, resource(json!({ "scopes_supported": ["read"] }))).with(AS_METADATA, 200, metadata(changes))
}

fn own(remote: Remote) -> Plan {
    Plan { flow: Some(LoginFlow::ClientCredentials), ..plan(remote) }
}

/// The login and what it told; nobody is led anywhere.
async fn log_in(world: World, plan: Plan) -> (Result<Outcome, ErrorBody>, Underway) {
    let mut login = start(world, plan);
    assert!(login.opened().await.is_none(), "a page was opened");
    let end = std::mem::replace(&mut login.end, tokio::spawn(async { unreachable!() })).await.unwrap();
    (end, login)
}

/// A private key as PEM.
fn key() -> String {
    let der = EcdsaKeyPair::generate_pkcs8(&P256, &SystemRandom::new()).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

#[tokio::test]
async fn a_client_gets_a_token_for_itself_by_its_secret_and_for_this_server() {
    for (methods, by_basic) in [
        (json!(["client_secret_basic"]), true),
        (json!(["client_secret_post"]), false),
        (json!(null), true),
        // A server of the first version, without metadata, is said to have public clients alone.
        (json!(["none"]), true),
    ] {
        let remote = Remote { given: given("me", Some("hush"), None), ..remote() };
        let (outcome, login) = log_in(machines(methods.clone()), own(remote)).await;
        let outcome = outcome.unwrap();
        let sent = login.world.token_request();
        assert_eq!((sent["grant_type"].as_str(), sent["scope"].as_str()), ("client_credentials", "read"));
        assert_eq!(sent["resource"], "https://mcp.example", "byte for byte");
        assert_eq!(sent.get("client_secret").map(String::as_str), (!by_basic).then_some("hush"), "{methods}");
        let definition = &outcome.definition;
        assert!(definition.client_credentials && definition.userinfo_endpoint.is_none(), "{definition:?}");
        assert_eq!((definition.server.as_deref(), definition.issuer.as_deref()), (Some(SERVER), Some(ISSUER)));
        let auth = if by_basic { ClientAuth::ClientSecretBasic } else { ClientAuth::ClientSecretPost };
        assert_eq!((definition.client_auth, outcome.account.as_deref()), (Some(auth), Some("me")));
        assert_eq!((login.chosen.as_slice(), login.kept.len()), (&[(ClientKind::Given, "me".to_owned())][..], 1));
        assert_eq!(login.world.asked(&format!("{ISSUER}/register")), 0);
    }
}

#[tokio::test]
async fn a_client_with_a_key_signs_for_the_issuer_and_the_key_stays_here() {
    let remote = Remote { given: given("me", Some(&key()), Some(ClientAuth::PrivateKeyJwt)), ..remote() };
    let (outcome, login) = log_in(machines(json!(["private_key_jwt"])), own(remote)).await;
    assert_eq!(outcome.unwrap().definition.client_auth, Some(ClientAuth::PrivateKeyJwt));
    let sent = login.world.token_request();
    let claims = URL_SAFE_NO_PAD.decode(sent["client_assertion"].split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["iss"], &claims["sub"], &claims["aud"]), (&json!("me"), &json!("me"), &json!(ISSUER)));
    assert!(!sent.contains_key("client_secret") && login.kept[0].auth == Some(ClientAuth::PrivateKeyJwt));
    // The next login needs nothing more.
    let before = Some(Before { issuer: Some(ISSUER.into()), client_id: Some("me".into()), scopes: vec!["read".into()], bound: false });
    let again = Remote { registrations: login.kept, before, ..super::remote() };
    let (outcome, login) = log_in(machines(json!(["private_key_jwt"])), own(again)).await;
    assert!(outcome.is_ok() && login.kept.is_empty() && login.world.token_request().contains_key("client_assertion"));
}

#[tokio::test]
async fn a_step_up_asks_for_both_and_never_for_a_refresh_token() {
    let challenge = Some(Challenge { scopes: Some(vec!["write".into()]), ..Challenge::default() });
    let before = Some(Before { issuer: Some(ISSUER.into()), client_id: Some("me".into()), scopes: vec!["read".into()], bound: false });
    let registrations = vec![Registration::given(ISSUER, "me", Some(ClientSecret::new("hush".into())), NOW)];
    let remote = Remote { challenge, challenged_by_server: true, before, registrations, ..remote() };
    let (outcome, login) = log_in(machines(json!(["client_secret_basic"])), own(remote)).await;
    assert_eq!((outcome.unwrap().requested_scopes, login.world.token_request()["scope"].as_str()), (list("read write"), "read write"));
}

fn list(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn a_server_that_names_a_known_issuer_gets_no_token_of_a_client_that_was_given_for_another_server() {
    let registrations = vec![Registration::given(ISSUER, "me", Some(ClientSecret::new("hush".into())), NOW)];
    let (outcome, login) = log_in(machines(json!(null)), own(Remote { registrations, ..remote() })).await;
    let error = outcome.unwrap_err();
    assert!(error.error_description.contains("none is known here"), "{error}");
    assert!(error.hint.unwrap().starts_with(&format!("mcp-authctl login {SERVER} --client-credentials --client-id ID")));
    assert_eq!(login.world.asked(&format!("{ISSUER}/token")), 0);
}

#[tokio::test]
async fn whoever_has_nothing_to_show_or_the_wrong_thing_is_told_before_anything_is_sent() {
    let pem = key();
    for (client, quirk, said, hint) in [
        (given("me", None, None), None, "neither a secret nor a private key", "--client-id 'me' --client-secret-file FILE"),
        (given("me", Some("hush"), None), Some(ClientAuth::PrivateKeyJwt), "not a private key", "--private-key-file FILE"),
        (given("me", Some(&pem), None), Some(ClientAuth::ClientSecretPost), "which is never sent", "[providers.mcp.example]"),
    ] {
        let mut plan = own(Remote { given: client, ..remote() });
        plan.provider.quirks.client_auth = quirk;
        let (outcome, login) = log_in(machines(json!(null)), plan).await;
        let error = outcome.unwrap_err();
        assert!(error.error_description.contains(said) && error.hint.as_ref().unwrap().contains(hint), "{error} ({:?})", error.hint);
        assert_eq!((error.error, login.world.asked(&format!("{ISSUER}/token")), login.kept.len()), (ErrorCode::Conflict, 0, 0));
    }
}

#[tokio::test]
async fn what_a_server_refuses_a_client_is_told_with_what_helps_and_the_client_is_not_kept() {
    for (status, code, said, hint) in [
        (401, "invalid_client", "invalid_client", "compare the client id and the secret with what https://as.example/tenant1 has"),
        (400, "unauthorized_client", "unauthorized_client", "allow this client the grant type client_credentials"),
        (400, "invalid_request", "invalid_request", "allow this client the grant type client_credentials"),
        (400, "unsupported_grant_type", "gives no tokens to clients that ask for themselves", "without --client-credentials"),
        (400, "invalid_scope", "invalid_scope", "--scope SCOPE"),
        (400, "invalid_target", "invalid_target", "RFC 8707"),
        (400, "invalid_grant", "rejected the grant", "compare the client id"),
    ] {
        let refusing =
            machines(json!(null)).with(&format!("{ISSUER}/token"), status, json!({ "error": code, "error_description": "hush" }));
        let (outcome, login) = log_in(refusing, own(Remote { given: given("me", Some("hush-hush"), None), ..remote() })).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.error, login.kept.len()), (ErrorCode::Conflict, 0), "{code}");
        let told = error.hint.unwrap();
        assert!(error.error_description.contains(said) && told.contains(hint), "{code}: {} ({told})", error.error_description);
        assert!(!error.error_description.contains("hush-hush"), "{code}");
    }
    let down = machines(json!(null)).with(&format!("{ISSUER}/token"), 502, json!({}));
    let (outcome, _) = log_in(down, own(Remote { given: given("me", Some("hush"), None), ..remote() })).await;
    assert_eq!(outcome.unwrap_err().error, ErrorCode::ProviderUnreachable);
}

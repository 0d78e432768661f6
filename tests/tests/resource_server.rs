//! The model MCP server as an OAuth resource server: whose token is taken, and every token, caller and page that is not.

#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_tests::{HttpAnswer, Key, ModelServer, Room, Signer, get, unsigned};
use serde_json::{Value, json};
use url::Url;

const PING: &str = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;

/// A model server, and the key that its issuer is said to sign with. No daemon is needed to be refused.
struct Place {
    signer: Signer,
    server: ModelServer,
    _room: Room,
}

impl Place {
    fn new() -> Self {
        let room = Room::with_config("");
        let signer = Signer::before(&room);
        Self { server: ModelServer::start(&room, &signer), signer, _room: room }
    }

    fn key(&self) -> &Key {
        self.signer.key()
    }

    /// A token signed by the issuer's key, which differs from a good one in these claims; `null` takes one away.
    fn token(&self, changes: &Value) -> String {
        self.key().sign(&self.key().header(), &changed(self.server.claims(), changes))
    }

    fn try_token(&self, token: &str) -> HttpAnswer {
        self.server.initialize(&[("authorization", &format!("Bearer {token}"))])
    }

    /// A session of the login that these claims tell.
    #[track_caller]
    fn session(&self, token: &str) -> String {
        let answer = self.try_token(token);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("mcp-session-id").unwrap().to_owned()
    }

    fn ping(&self, token: &str, session: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        self.server.post(&[("authorization", &bearer), ("mcp-session-id", session)], &serde_json::from_str(PING).unwrap()).status
    }

    fn send(&self, method: &str, token: &str, session: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("mcp-session-id", session), ("accept", "text/event-stream")];
        let mut connection = self.server.connect();
        connection.send(method, "/mcp", &headers, "").unwrap();
        connection.status().unwrap()
    }
}

fn changed(mut whole: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => whole.as_object_mut().unwrap().remove(name),
            value => whole.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    whole
}

#[track_caller]
fn refused(what: &str, answer: &HttpAnswer, status: u16, error: &str) {
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    let challenge = answer.header("www-authenticate").unwrap_or_else(|| panic!("{what}: no challenge: {answer:?}"));
    assert!(challenge.starts_with("Bearer ") && challenge.contains(r#"scope="mcp:tools""#), "{what}: {challenge}");
    assert!(challenge.contains(r#"resource_metadata="http://127.0.0.1:"#), "{what}: {challenge}");
    let told = challenge.split_once("error=\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
    assert_eq!(told, error, "{what}: {challenge}");
}

#[test]
fn whoever_brings_no_token_is_led_to_the_metadata() {
    let place = Place::new();
    let answer = place.server.initialize(&[]);
    refused("none", &answer, 401, "");
    let challenge = answer.header("www-authenticate").unwrap();
    let url = challenge.split_once("resource_metadata=\"").unwrap().1.split('"').next().unwrap();
    assert!(url.ends_with("/.well-known/oauth-protected-resource/mcp"), "the path of the resource comes last: {url}");
    let metadata = get(&Url::parse(url).unwrap(), &[]).json();
    assert_eq!(metadata["resource"], place.server.url, "what was asked for is what it is about");
    assert_eq!(metadata["authorization_servers"], json!(["http://127.0.0.1:8731"]));
    assert_eq!(metadata["scopes_supported"], json!(["mcp:tools"]));
    let good = place.token(&json!({}));
    for empty in ["", "Bearer", "Bearer ", "Basic", "DPoP"] {
        refused(empty, &place.server.initialize(&[("authorization", empty)]), 401, "");
    }
    refused("Basic", &place.server.initialize(&[("authorization", &format!("Basic {good}"))]), 401, "");
    let (once, twice) = (format!("Bearer {good}"), format!("Bearer {good}"));
    refused("twice", &place.server.initialize(&[("authorization", &once), ("authorization", &twice)]), 401, "");
    for target in [format!("/mcp?access_token={good}"), format!("/mcp?token={good}")] {
        let headers = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        let answer = place.server.connect().request("POST", &target, &headers, PING).unwrap();
        refused("in the query", &answer, 401, "");
    }
}

#[test]
fn a_good_token_is_taken_however_it_is_written() {
    let place = Place::new();
    for changes in
        [json!({}), json!({ "aud": [place.server.url, "other"] }), json!({ "scope": "openid mcp:tools other" }), json!({ "nbf": 1 })]
    {
        let answer = place.try_token(&place.token(&changes));
        assert_eq!(answer.status, 200, "{changes}: {answer:?}");
    }
    let media_type = changed(place.key().header(), &json!({ "typ": "application/at+JWT" }));
    assert_eq!(place.try_token(&place.key().sign(&media_type, &place.server.claims())).status, 200);
    let token = place.token(&json!({}));
    assert_eq!(place.server.initialize(&[("authorization", &format!("bearer {token}"))]).status, 200);
}

#[test]
fn a_token_that_the_issuer_did_not_sign_as_an_access_token_is_refused() {
    let place = Place::new();
    let (key, claims, header) = (place.key(), place.server.claims(), place.key().header());
    let good = key.sign(&header, &claims);
    let signature = good.rsplit('.').next().unwrap();
    let with = |changes: Value| key.sign(&changed(header.clone(), &changes), &claims);
    let (other, twin) = (Key::named("another"), Key::named("the-issuers"));
    let others_jwk = other.jwks()["keys"][0].clone();
    let hs256 = unsigned(&changed(header.clone(), &json!({ "alg": "HS256" })), &claims);
    let mac = hmac_sha256(key.public(), hs256.as_bytes());
    let mut attacks = vec![
        ("no JWT", "zQaT9qz".to_owned()),
        ("dots", "..".to_owned()),
        ("no signature", format!("{}.", unsigned(&header, &claims))),
        ("no third part", unsigned(&header, &claims)),
        ("a fourth part", format!("{good}.{signature}")),
        ("alg none", format!("{}.", unsigned(&changed(header.clone(), &json!({ "alg": "none" })), &claims))),
        ("alg none, signed", with(json!({ "alg": "none" }))),
        ("alg NONE", format!("{}.", unsigned(&changed(header.clone(), &json!({ "alg": "NoNe" })), &claims))),
        ("the public key as a secret", format!("{hs256}.{}", URL_SAFE_NO_PAD.encode(mac))),
        ("alg ES384", with(json!({ "alg": "ES384" }))),
        ("alg RS256", with(json!({ "alg": "RS256" }))),
        ("no alg", with(json!({ "alg": null }))),
        ("an ID token", with(json!({ "typ": "JWT" }))),
        ("no typ", with(json!({ "typ": null }))),
        ("no kid", with(json!({ "kid": null }))),
        ("an unknown kid", with(json!({ "kid": "another" }))),
        ("an extension that must be understood", with(json!({ "crit": ["b64"], "b64": false }))),
        ("another key", other.sign(&other.header(), &claims)),
        ("another key of the same name", twin.sign(&header, &claims)),
        ("a key that it brings itself", other.sign(&changed(header.clone(), &json!({ "jwk": others_jwk })), &claims)),
        ("a key that lies elsewhere", other.sign(&changed(other.header(), &json!({ "jku": "http://127.0.0.1:1/keys" })), &claims)),
        (
            "other claims under the signature",
            format!("{}.{signature}", unsigned(&header, &changed(claims.clone(), &json!({ "sub": "root" })))),
        ),
        ("a signature of zeros", format!("{}.{}", unsigned(&header, &claims), URL_SAFE_NO_PAD.encode([0; 64]))),
    ];
    for name in ["sub", "client_id", "sid", "iss", "aud", "exp"] {
        attacks.push((name, place.token(&json!({ name: null }))));
    }
    attacks.push(("nbf", place.token(&json!({ "nbf": claims["exp"] }))));
    attacks.push(("exp as a text", place.token(&json!({ "exp": claims["exp"].to_string() }))));
    assert_eq!(attacks.len(), 31);
    for (what, token) in &attacks {
        refused(what, &place.try_token(token), 401, "invalid_token");
    }
    assert_eq!(place.try_token(&good).status, 200);
}

#[test]
fn a_token_that_has_expired_or_is_for_somebody_else_is_refused() {
    let place = Place::new();
    let (url, claims) = (&place.server.url, place.server.claims());
    let now = claims["iat"].as_u64().unwrap();
    let attacks = [
        json!({ "exp": now - 1 }),
        json!({ "exp": 0 }),
        json!({ "aud": format!("{url}/") }),
        json!({ "aud": url.trim_end_matches("/mcp") }),
        json!({ "aud": url.replace("127.0.0.1", "localhost") }),
        json!({ "aud": url.to_uppercase() }),
        json!({ "aud": "http://127.0.0.1:8731" }),
        json!({ "aud": [] }),
        json!({ "aud": ["http://127.0.0.1:1/mcp", "https://mcp.example.com"] }),
        json!({ "iss": "http://127.0.0.1:8731/" }),
        json!({ "iss": "http://localhost:8731" }),
        json!({ "iss": "https://login.example.com" }),
        json!({ "iss": "" }),
    ];
    for changes in &attacks {
        let answer = place.try_token(&place.token(changes));
        refused(&changes.to_string(), &answer, 401, "invalid_token");
    }
}

#[test]
fn a_token_without_the_scope_is_told_which_one_is_missing() {
    let place = Place::new();
    for scope in [json!(null), json!(""), json!("openid"), json!("mcp:tools2"), json!("mcp"), json!("MCP:TOOLS"), json!("xmcp:tools")] {
        let answer = place.try_token(&place.token(&json!({ "scope": scope })));
        refused(&scope.to_string(), &answer, 403, "insufficient_scope");
    }
}

#[test]
fn a_session_belongs_to_the_login_that_began_it() {
    let place = Place::new();
    let mine = place.token(&json!({}));
    let session = place.session(&mine);
    assert_eq!(place.ping(&mine, &session), 200);
    assert_eq!(place.ping(&place.token(&json!({ "jti": "the next one" })), &session), 200, "a fresh token of the same login");
    for other in [json!({ "sid": "2" }), json!({ "client_id": "other" }), json!({ "sub": "bob" })] {
        let theirs = place.token(&other);
        assert_eq!(place.ping(&theirs, &session), 404, "{other}");
        for method in ["GET", "DELETE"] {
            assert_eq!(place.send(method, &theirs, &session), 404, "{method}, {other}");
        }
        let session = place.session(&theirs);
        assert_eq!((place.ping(&theirs, &session), place.ping(&mine, &session)), (200, 404), "{other}");
    }
    assert_eq!(place.ping(&mine, &session), 200, "it lives");
    assert_eq!(place.ping(&mine, "00000000-0000-0000-0000-000000000000"), 404);
    refused("expired in the session", &place.server.post(&[("mcp-session-id", &session)], &json!({})), 401, "");
    assert_eq!(place.ping(&place.token(&json!({ "exp": 1 })), &session), 401);
    assert_eq!(place.send("DELETE", &mine, &session), 202);
    assert_eq!(place.ping(&mine, &session), 404);
}

#[test]
fn a_web_page_is_refused_whatever_its_name_resolves_to() {
    let place = Place::new();
    let bearer = format!("Bearer {}", place.token(&json!({})));
    let own = Url::parse(&place.server.url).unwrap();
    let port = own.port().unwrap();
    let usual = [("content-type", "application/json"), ("accept", "application/json, text/event-stream"), ("authorization", &bearer)];
    for target in ["/mcp", "/.well-known/oauth-protected-resource/mcp"] {
        let method = if target == "/mcp" { "POST" } else { "GET" };
        for host in [
            format!("evil.example:{port}"),
            "evil.example".into(),
            format!("127.0.0.1.evil.example:{port}"),
            format!("localhost:{port}"),
            "127.0.0.1".into(),
            format!("127.0.0.1:{}", port - 1),
            String::new(),
        ] {
            let answer = place.server.connect().naming_host(&host).request(method, target, &usual, "{}").unwrap();
            assert_eq!(answer.status, 403, "{target}, {host:?}: {answer:?}");
        }
        for origin in
            ["http://evil.example".to_owned(), "null".into(), format!("http://localhost:{port}"), format!("http://127.0.0.1:{port}")]
        {
            let mut headers = usual.to_vec();
            headers.push(("origin", &origin));
            let answer = place.server.connect().request(method, target, &headers, "{}").unwrap();
            assert_eq!(answer.status, 403, "{target}, {origin:?}: {answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    let preflight = place.server.connect().request(
        "OPTIONS",
        "/mcp",
        &[("origin", "http://evil.example"), ("access-control-request-method", "POST")],
        "",
    );
    assert_eq!(preflight.unwrap().status, 403);
}

#[test]
fn a_key_counts_as_long_as_the_issuer_publishes_it() {
    let place = Place::new();
    let (token, next) = (place.token(&json!({})), Key::named("next"));
    assert_eq!(place.try_token(&token).status, 200);
    place.signer.publish(Some(next.jwks()));
    refused("the key is gone", &place.try_token(&token), 401, "invalid_token");
    assert_eq!(place.try_token(&next.sign(&next.header(), &place.server.claims())).status, 200);
    place.signer.publish(None);
    let answer = place.try_token(&token);
    assert_eq!((answer.status, answer.header("www-authenticate")), (503, None), "no client logs in again for that: {answer:?}");
}

/// HMAC-SHA256 (RFC 2104), the algorithm that a confused verifier takes a public key for the secret of.
fn hmac_sha256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    ring::hmac::sign(&key, message).as_ref().to_vec()
}

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_proto::{ApprovalState, ErrorCode};
use serde_json::{Value, json};
use url::Url;

use super::clients::{Client, DEFAULT_LISTEN, Resource, Settings};
use super::core::{Ask, Change, Core, Holdings, NOT_SAVED, Said};
use super::family::Family;
use super::keys::{ACCESS_TOKEN, ID_TOKEN, SigningKey};
use super::params::Params;
use super::reply::Reply;
use super::testing::{Bytes, counting};
use crate::clock::{Boot, Now, Wall};

const ISSUER: &str = "http://127.0.0.1:8731";
const MCP: &str = "http://127.0.0.1:9000/mcp";
const CALLBACK: &str = "http://127.0.0.1:4321/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// RFC 7636 appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// An issuer, a person and a client in one; what is to be saved is saved.
struct Bench {
    core: Core,
    now: Now,
    random: Bytes,
    saves: Vec<&'static str>,
    stored: HashMap<String, Family>,
    disk_is_full: bool,
}

impl Bench {
    fn new() -> Self {
        let client = |id: &str, scopes: Option<Vec<String>>| Client {
            id: id.into(),
            name: None,
            secret_command: None,
            redirect_uris: vec!["http://127.0.0.1/callback".into(), "https://app.example/cb?keep=1".into()],
            scopes,
        };
        let settings = Settings {
            listen: DEFAULT_LISTEN.parse().unwrap(),
            access_token_lifetime: Duration::from_secs(600),
            clients: vec![client("editor", None), client("reader", Some(vec!["read".into()]))],
            resources: vec![Resource { uri: MCP.into(), scopes: vec!["read".into(), "write".into()] }],
        };
        let mut core = Core::new(settings, Some("alice".into()));
        let key = SigningKey::generate().unwrap();
        core.hold(Some(Holdings { key, subject: "subject-1".into(), families: HashMap::new() }));
        let now = Now { boot: Boot::from_start(Duration::from_secs(1_000)), wall: Wall(1_800_000_000_000) };
        Self { core, now, random: counting(), saves: Vec::new(), stored: HashMap::new(), disk_is_full: false }
    }

    fn pass(&mut self, seconds: u64) {
        self.now.boot = self.now.boot + Duration::from_secs(seconds);
        self.now.wall = self.now.wall + Duration::from_secs(seconds);
    }

    fn ask(&mut self, ask: Ask) -> Reply {
        let outcome = self.core.handle(ask, self.now, &mut *self.random);
        for change in outcome.changes {
            self.saves.push(if matches!(change, Change::Save(..)) { "save" } else { "end" });
            if self.disk_is_full {
                self.core.undo(change);
                return Reply::refusal(NOT_SAVED, ISSUER);
            }
            match &change {
                Change::Save(family, _) => drop(self.stored.insert(family.id.clone(), (**family).clone())),
                Change::End(id) => drop(self.stored.remove(id)),
            }
            self.core.apply(change);
        }
        match outcome.said {
            Said::Now(reply) | Said::Waiting(reply) => reply,
        }
    }

    fn authorize(&mut self, changes: &[(&str, Option<&str>)]) -> Reply {
        self.ask(Ask::Authorize(changed(&REQUEST, changes)))
    }

    /// The way of a request to its page: the page's own name, CSRF value and code.
    fn page(&mut self, changes: &[(&str, Option<&str>)]) -> (String, String, String) {
        let reply = self.authorize(changes);
        assert_eq!(reply.status, 200, "{}", text(&reply));
        let page = text(&reply);
        let field = |name: &str| after(&page, &format!("name=\"{name}\" value=\""), '"');
        (field("pending"), field("csrf"), after(&page, "mcp-authctl approve <b>", '<'))
    }

    /// Where the browser is sent when the person has approved.
    fn approved(&mut self, changes: &[(&str, Option<&str>)]) -> Url {
        let (pending, _, code) = self.page(changes);
        self.core.approval(&code, Some(true), self.now).unwrap();
        location(&self.ask(Ask::Poll(pending)))
    }

    fn code(&mut self, changes: &[(&str, Option<&str>)]) -> String {
        param(&self.approved(changes), "code").unwrap()
    }

    fn exchange(&mut self, code: &str, changes: &[(&str, Option<&str>)]) -> Result<Value, String> {
        let form = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", CALLBACK), ("code_verifier", VERIFIER)];
        self.token("editor", &form, changes)
    }

    fn refresh(&mut self, token: &Value, changes: &[(&str, Option<&str>)]) -> Result<Value, String> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token["refresh_token"].as_str().unwrap())];
        self.token("editor", &form, changes)
    }

    fn token(&mut self, client: &str, form: &[(&str, &str)], changes: &[(&str, Option<&str>)]) -> Result<Value, String> {
        let reply = self.ask(Ask::Token(client.into(), changed(form, changes)));
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        match reply.status {
            200 => Ok(body),
            status => {
                assert!(body["error_description"].is_string() && body["error_uri"].as_str().unwrap().starts_with(ISSUER), "{body}");
                assert_eq!(status, if body["error"] == "temporarily_unavailable" { 503 } else { 400 });
                Err(body["error"].as_str().unwrap().to_owned())
            }
        }
    }

    fn login(&mut self) -> Value {
        let code = self.code(&[]);
        self.exchange(&code, &[]).unwrap()
    }

    fn userinfo(&mut self, token: &str) -> (u16, Value) {
        let reply = self.ask(Ask::Userinfo(token.to_owned().into()));
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }
}

const REQUEST: [(&str, &str); 8] = [
    ("response_type", "code"),
    ("client_id", "editor"),
    ("redirect_uri", CALLBACK),
    ("scope", "openid read"),
    ("state", "s t&1"),
    ("resource", MCP),
    ("code_challenge", CHALLENGE),
    ("code_challenge_method", "S256"),
];

fn changed(base: &[(&str, &str)], changes: &[(&str, Option<&str>)]) -> Params {
    let kept = base.iter().filter(|(name, _)| changes.iter().all(|(other, _)| other != name)).copied();
    let all = kept.chain(changes.iter().filter_map(|(name, value)| Some((*name, (*value)?))));
    Params::parse(url::form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish().as_bytes()).unwrap()
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.to_vec()).unwrap()
}

fn after(text: &str, start: &str, end: char) -> String {
    text.split_once(start).unwrap_or_else(|| panic!("no {start} in {text}")).1.split(end).next().unwrap().to_owned()
}

fn location(reply: &Reply) -> Url {
    assert_eq!(reply.status, 303, "{}", text(reply));
    reply.headers.iter().find(|(name, _)| *name == "location").unwrap().1.parse().unwrap()
}

fn param(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

fn claims(token: &Value) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.as_str().unwrap().split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn an_approved_request_goes_back_to_the_client_with_code_state_and_iss() {
    let mut bench = Bench::new();
    let back = bench.approved(&[]);
    assert!(back.as_str().starts_with("http://127.0.0.1:4321/callback?code="), "{back}");
    assert_eq!((param(&back, "state").as_deref(), param(&back, "iss").as_deref()), (Some("s t&1"), Some(ISSUER)));
    let back = bench.approved(&[("redirect_uri", Some("https://app.example/cb?keep=1"))]);
    assert!(back.as_str().starts_with("https://app.example/cb?keep=1&code="), "{back}");
}

#[test]
fn the_tokens_say_what_was_approved() {
    let mut bench = Bench::new();
    let code = bench.code(&[("nonce", Some("n-1")), ("scope", Some("openid profile read"))]);
    let token = bench.exchange(&code, &[]).unwrap();
    assert_eq!(
        (&token["token_type"], &token["expires_in"], &token["scope"]),
        (&json!("Bearer"), &json!(600), &json!("openid profile read"))
    );
    let access = claims(&token["access_token"]);
    let seconds = 1_800_000_000;
    for (name, value) in [
        ("iss", json!(ISSUER)),
        ("sub", json!("subject-1")),
        ("aud", json!(MCP)),
        ("iat", json!(seconds)),
        ("exp", json!(seconds + 600)),
        ("client_id", json!("editor")),
        ("scope", json!("openid profile read")),
    ] {
        assert_eq!(access[name], value, "{name}");
    }
    assert!(access["jti"].is_string() && access["sid"].is_string());
    let id = claims(&token["id_token"]);
    assert_eq!((&id["aud"], &id["nonce"], &id["preferred_username"]), (&json!("editor"), &json!("n-1"), &json!("alice")));
    assert_eq!((&id["sub"], &id["sid"], &id["auth_time"]), (&access["sub"], &access["sid"], &json!(seconds)));
    bench.pass(300);
    let next = bench.refresh(&token, &[]).unwrap();
    let later = claims(&next["access_token"]);
    assert_eq!((&later["sid"], &later["aud"], &later["exp"]), (&access["sid"], &access["aud"], &json!(seconds + 900)));
    assert_ne!(later["jti"], access["jti"]);
    assert_ne!(next["refresh_token"], token["refresh_token"]);
    assert_eq!(claims(&next["id_token"])["auth_time"], id["auth_time"]);
    assert_eq!(bench.saves, ["save", "save"]);
}

#[test]
fn without_scope_and_resource_the_only_resource_and_all_its_scopes_are_meant() {
    let mut bench = Bench::new();
    let code = bench.code(&[("scope", None), ("resource", None)]);
    let token = bench.exchange(&code, &[]).unwrap();
    assert_eq!((token["scope"].as_str(), claims(&token["access_token"])["aud"].as_str()), (Some("read write"), Some(MCP)));
    assert!(token.get("id_token").is_none());
    bench.core.settings.resources.push(Resource { uri: "http://127.0.0.1:9001/mcp".into(), scopes: vec![] });
    let back = location(&bench.authorize(&[("resource", None)]));
    assert_eq!(param(&back, "error").as_deref(), Some("invalid_target"));
}

#[test]
fn a_request_that_may_not_be_the_clients_leads_nowhere() {
    let mut bench = Bench::new();
    for changes in [
        ("client_id", None),
        ("client_id", Some("nobody")),
        ("client_id", Some("Editor")),
        ("redirect_uri", None),
        ("redirect_uri", Some("http://evil.example/callback")),
        ("redirect_uri", Some("https://127.0.0.1/callback")),
        ("redirect_uri", Some("http://127.0.0.1:4321/other")),
        ("redirect_uri", Some("http://u@127.0.0.1:4321/callback")),
        ("redirect_uri", Some("http://127.0.0.1:4321/callback#x")),
        ("redirect_uri", Some("HTTP://127.0.0.1:4321/callback")),
        ("redirect_uri", Some("javascript:alert(1)")),
    ] {
        let reply = bench.authorize(&[changes]);
        assert_eq!(reply.status, 400, "{changes:?}");
        assert!(reply.headers.iter().all(|(name, _)| *name != "location"), "{changes:?}");
        assert!(!text(&reply).contains("evil.example") && !text(&reply).contains("javascript"), "nothing is reflected");
    }
    assert!(bench.core.pending.is_empty());
}

#[test]
fn a_wrong_request_of_a_client_goes_back_with_its_error() {
    let mut bench = Bench::new();
    let long = "x".repeat(2049);
    for (change, expected) in [
        (("response_type", None), "invalid_request"),
        (("response_type", Some("token")), "unsupported_response_type"),
        (("response_type", Some("code id_token")), "unsupported_response_type"),
        (("response_mode", Some("fragment")), "invalid_request"),
        (("state", None), "invalid_request"),
        (("state", Some(long.as_str())), "invalid_request"),
        (("code_challenge", None), "invalid_request"),
        (("code_challenge", Some("short")), "invalid_request"),
        (("code_challenge_method", None), "invalid_request"),
        (("code_challenge_method", Some("plain")), "invalid_request"),
        (("code_challenge_method", Some("s256")), "invalid_request"),
        (("scope", Some("read admin")), "invalid_scope"),
        (("resource", Some("http://127.0.0.1:9000/mcp/")), "invalid_target"),
        (("resource", Some("https://evil.example/mcp")), "invalid_target"),
        (("prompt", Some("none")), "consent_required"),
        (("request", Some("ey")), "request_not_supported"),
        (("request_uri", Some("https://evil.example")), "request_uri_not_supported"),
    ] {
        let back = location(&bench.authorize(&[change]));
        assert!(back.as_str().starts_with(&format!("{CALLBACK}?error=")), "{back}");
        assert_eq!(param(&back, "error").as_deref(), Some(expected), "{change:?}");
        assert_eq!(param(&back, "iss").as_deref(), Some(ISSUER));
        assert_eq!(param(&back, "error_uri").unwrap(), format!("{ISSUER}/oauth/errors#{expected}"));
        assert!(!param(&back, "error_description").unwrap().is_empty());
        let state = if change.0 == "state" { change.1 } else { Some("s t&1") };
        assert_eq!(param(&back, "state").as_deref(), state, "{change:?}");
    }
    let back = location(&bench.authorize(&[("client_id", Some("reader")), ("scope", Some("read write"))]));
    assert_eq!(param(&back, "error").as_deref(), Some("invalid_scope"), "beyond the client's own scopes");
    assert!(bench.core.pending.is_empty());
}

#[test]
fn nothing_is_given_before_the_person_has_typed_the_code() {
    let mut bench = Bench::new();
    let (pending, csrf, code) = bench.page(&[]);
    assert_eq!(code.len(), 9);
    assert_eq!(bench.ask(Ask::Poll(pending.clone())).status, 200, "it waits");
    let press = |csrf: &str, button: &str| Ask::Press(changed(&[("pending", &pending), ("csrf", csrf), ("press", button)], &[]));
    let reply = bench.ask(press(&csrf, "continue"));
    assert!(text(&reply).contains("Not approved yet") && text(&reply).contains(&code));
    for wrong in ["", "BBBB-BBBB", &pending, &csrf] {
        assert_eq!(bench.core.approval(wrong, Some(true), bench.now).unwrap_err().error, ErrorCode::NotFound, "{wrong}");
    }
    let facts = bench.core.approval(&code.to_lowercase().replace('-', ""), None, bench.now).unwrap();
    assert_eq!((facts.client.as_str(), facts.resource.as_str(), facts.state), ("editor", MCP, ApprovalState::Waiting));
    assert_eq!((facts.redirect_host.as_str(), facts.expires_in), ("127.0.0.1 (a program on this computer)", 300));
    bench.core.approval(&code, Some(true), bench.now).unwrap();
    assert_eq!(bench.core.approval(&code, Some(false), bench.now).unwrap_err().error, ErrorCode::Conflict);
    let first = location(&bench.ask(Ask::Poll(pending.clone())));
    let reply = bench.ask(press(&csrf, "cancel"));
    assert!(text(&reply).contains(&param(&first, "code").unwrap()), "a browser that asks twice is sent to the same place");
}

#[test]
fn a_button_needs_the_value_of_its_own_page() {
    let mut bench = Bench::new();
    let (pending, csrf, code) = bench.page(&[]);
    let (_, other, _) = bench.page(&[]);
    bench.core.approval(&code, Some(true), bench.now).unwrap();
    for wrong in ["", "x", other.as_str(), pending.as_str()] {
        let form = changed(&[("pending", &pending), ("csrf", wrong), ("press", "cancel")], &[]);
        assert_eq!(bench.ask(Ask::Press(form)).status, 403, "{wrong}");
    }
    assert_eq!(bench.ask(Ask::Press(changed(&[("pending", "x"), ("csrf", &csrf)], &[]))).status, 400);
    let reply = bench.ask(Ask::Press(changed(&[("pending", &pending), ("csrf", &csrf), ("press", "cancel")], &[])));
    assert!(text(&reply).contains("error=access_denied"), "{}", text(&reply));
}

#[test]
fn a_refusal_and_a_person_who_does_not_come_are_told_to_the_client() {
    let mut bench = Bench::new();
    let (pending, _, code) = bench.page(&[]);
    bench.core.approval(&code, Some(false), bench.now).unwrap();
    let back = location(&bench.ask(Ask::Poll(pending)));
    assert_eq!((param(&back, "error").as_deref(), param(&back, "state").as_deref()), (Some("access_denied"), Some("s t&1")));
    let (pending, _, code) = bench.page(&[]);
    bench.pass(300);
    assert_eq!(bench.core.approval(&code, Some(true), bench.now).unwrap_err().error, ErrorCode::NotFound);
    let back = location(&bench.ask(Ask::Poll(pending.clone())));
    assert_eq!(param(&back, "error").as_deref(), Some("access_denied"));
    bench.pass(600);
    assert_eq!(bench.ask(Ask::Poll(pending)).status, 400, "forgotten");
}

#[test]
fn a_code_that_comes_again_ends_what_was_got_with_it() {
    let mut bench = Bench::new();
    let code = bench.code(&[]);
    let token = bench.exchange(&code, &[]).unwrap();
    assert_eq!(bench.exchange(&code, &[]), Err("invalid_grant".into()));
    assert_eq!(bench.refresh(&token, &[]), Err("invalid_grant".into()));
    assert_eq!(bench.userinfo(token["access_token"].as_str().unwrap()).0, 401);
    assert_eq!(bench.saves, ["save", "end"]);
}

#[test]
fn a_code_is_good_for_one_right_attempt_within_a_minute() {
    let other = "A".repeat(43);
    for (change, expected) in [
        (("code_verifier", Some(other.as_str())), "invalid_grant"),
        (("code_verifier", Some("short")), "invalid_grant"),
        (("code_verifier", Some(CHALLENGE)), "invalid_grant"),
        (("code_verifier", None), "invalid_request"),
        (("redirect_uri", Some("http://127.0.0.1:4322/callback")), "invalid_grant"),
        (("resource", Some("http://127.0.0.1:9001/mcp")), "invalid_target"),
    ] {
        let mut bench = Bench::new();
        let code = bench.code(&[]);
        assert_eq!(bench.exchange(&code, &[change]), Err(expected.into()), "{change:?}");
        assert_eq!(bench.exchange(&code, &[]), Err("invalid_grant".into()), "{change:?}: the code is spent");
    }
    let mut bench = Bench::new();
    let code = bench.code(&[]);
    let form = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK), ("code_verifier", VERIFIER)];
    assert_eq!(bench.token("reader", &form, &[]), Err("invalid_grant".into()), "another client");
    let code = bench.code(&[]);
    bench.pass(60);
    assert_eq!(bench.exchange(&code, &[]), Err("invalid_grant".into()), "too late");
    let code = bench.code(&[]);
    bench.pass(59);
    assert!(bench.exchange(&code, &[("redirect_uri", None)]).is_ok(), "OAuth 2.1 does not repeat it");
    assert_eq!(bench.exchange("", &[]), Err("invalid_request".into()));
    assert_eq!(bench.exchange("x", &[]), Err("invalid_grant".into()));
}

#[test]
fn a_refresh_token_that_comes_again_ends_the_family() {
    let mut bench = Bench::new();
    let (first, bystander) = (bench.login(), bench.login());
    let second = bench.refresh(&first, &[]).unwrap();
    let third = bench.refresh(&second, &[]).unwrap();
    assert_eq!(bench.refresh(&first, &[]), Err("invalid_grant".into()));
    assert_eq!(bench.refresh(&third, &[]), Err("invalid_grant".into()), "the newest one too");
    assert_eq!(bench.userinfo(third["access_token"].as_str().unwrap()).0, 401);
    let next = bench.refresh(&bystander, &[]).unwrap();
    bench.pass(30);
    assert_eq!(bench.refresh(&bystander, &[]), Err("invalid_grant".into()), "though nothing that was given for it was used");
    assert_eq!(bench.refresh(&next, &[]), Err("invalid_grant".into()));
}

#[test]
fn a_client_that_the_answer_did_not_reach_may_ask_again_at_once() {
    let mut bench = Bench::new();
    let first = bench.login();
    let lost = bench.refresh(&first, &[]).unwrap();
    let form = [("grant_type", "refresh_token"), ("refresh_token", first["refresh_token"].as_str().unwrap())];
    assert_eq!(bench.token("reader", &form, &[]), Err("invalid_grant".into()), "nobody else may");
    bench.pass(29);
    let came = bench.refresh(&first, &[]).unwrap();
    assert_eq!(claims(&came["access_token"])["sid"], claims(&first["access_token"])["sid"]);
    let next = bench.refresh(&came, &[]).unwrap();
    assert_eq!(bench.refresh(&lost, &[]), Err("invalid_grant".into()), "somebody has the answer that was lost");
    assert_eq!(bench.refresh(&next, &[]), Err("invalid_grant".into()), "and both of them are out");
}

#[test]
fn a_refresh_gives_no_more_than_was_approved() {
    let mut bench = Bench::new();
    let token = bench.login();
    assert_eq!(bench.refresh(&token, &[("scope", Some("openid read write"))]), Err("invalid_scope".into()));
    assert_eq!(bench.refresh(&token, &[("resource", Some("http://127.0.0.1:9001/mcp"))]), Err("invalid_target".into()));
    let form = [("grant_type", "refresh_token"), ("refresh_token", token["refresh_token"].as_str().unwrap())];
    assert_eq!(bench.token("reader", &form, &[]), Err("invalid_grant".into()), "another client");
    let narrow = bench.refresh(&token, &[("scope", Some("read")), ("resource", Some(MCP))]).unwrap();
    assert_eq!(narrow["scope"], "read");
    assert_eq!(bench.refresh(&narrow, &[]).unwrap()["scope"], "openid read", "the family keeps what was approved");
    for form in [vec![], vec![("grant_type", "password")], vec![("grant_type", "refresh_token")]] {
        assert!(bench.token("editor", &form, &[]).is_err());
    }
}

#[test]
fn what_the_config_no_longer_allows_is_not_refreshed() {
    let mut bench = Bench::new();
    let token = bench.login();
    bench.core.settings.resources[0].scopes.retain(|scope| scope != "read");
    let token = bench.refresh(&token, &[]).unwrap();
    assert_eq!(token["scope"], "openid");
    bench.core.settings.resources[0].uri = "http://127.0.0.1:9009/mcp".into();
    assert_eq!(bench.refresh(&token, &[]), Err("invalid_target".into()));
    assert_eq!(bench.userinfo(token["access_token"].as_str().unwrap()).0, 401, "its audience is served no more");
}

#[test]
fn revoking_either_token_ends_the_family_and_an_unknown_one_changes_nothing() {
    for kind in ["refresh_token", "access_token"] {
        let mut bench = Bench::new();
        let token = bench.login();
        let revoke = |token: &str| changed(&[("token", token)], &[]);
        assert_eq!(bench.ask(Ask::Revoke("editor".into(), revoke("x.y"))).status, 200);
        assert_eq!(bench.ask(Ask::Revoke("reader".into(), revoke(token[kind].as_str().unwrap()))).status, 200);
        assert_eq!(bench.ask(Ask::Revoke("editor".into(), revoke(""))).status, 400);
        let token = bench.refresh(&token, &[]).unwrap();
        assert_eq!(bench.ask(Ask::Revoke("editor".into(), revoke(token[kind].as_str().unwrap()))).status, 200);
        assert_eq!(bench.refresh(&token, &[]), Err("invalid_grant".into()), "{kind}");
        assert_eq!(bench.userinfo(token["access_token"].as_str().unwrap()).0, 401, "{kind}");
    }
}

#[test]
fn userinfo_believes_our_own_living_access_tokens_alone() {
    let mut bench = Bench::new();
    let token = bench.login();
    let access = token["access_token"].as_str().unwrap().to_owned();
    assert_eq!(bench.userinfo(&access), (200, json!({ "sub": "subject-1" })));
    let key = &bench.core.holdings.as_ref().unwrap().key;
    let good = claims(&token["access_token"]);
    let with = |name: &str, value: Value| {
        let mut other = good.clone();
        other[name] = value;
        key.sign(ACCESS_TOKEN, &other).unwrap().to_string()
    };
    let attacks = [
        ("forged", SigningKey::generate().unwrap().sign(ACCESS_TOKEN, &good).unwrap().to_string()),
        ("an ID token", token["id_token"].as_str().unwrap().to_owned()),
        ("claims of an access token as an ID token", key.sign(ID_TOKEN, &good).unwrap().to_string()),
        ("other audience", with("aud", json!("http://127.0.0.1:9000/other"))),
        ("several audiences", with("aud", json!([MCP, "http://evil.example"]))),
        ("other issuer", with("iss", json!("http://127.0.0.1:9999"))),
        ("expired", with("exp", json!(1_800_000_000))),
        ("no expiry", with("exp", Value::Null)),
        ("other session", with("sid", json!("x"))),
        ("nothing", String::new()),
    ];
    for (what, attack) in attacks {
        let (status, body) = bench.userinfo(&attack);
        assert_eq!((status, body["error"].as_str()), (401, Some("invalid_token")), "{what}");
    }
    bench.pass(600);
    assert_eq!(bench.userinfo(&access).0, 401, "expired by itself");
    let code = bench.code(&[("scope", Some("read"))]);
    let token = bench.exchange(&code, &[]).unwrap();
    assert_eq!(bench.userinfo(token["access_token"].as_str().unwrap()).0, 403, "not for openid");
}

#[test]
fn a_locked_vault_gives_nothing_and_forgets_what_was_under_way() {
    let mut bench = Bench::new();
    let token = bench.login();
    let (pending, _, _) = bench.page(&[]);
    bench.core.hold(None);
    assert_eq!(bench.authorize(&[]).status, 503);
    assert_eq!(bench.ask(Ask::Keys).status, 503);
    assert_eq!(bench.refresh(&token, &[]), Err("temporarily_unavailable".into()));
    assert_eq!(bench.userinfo(token["access_token"].as_str().unwrap()).0, 503);
    assert_eq!(bench.ask(Ask::Poll(pending)).status, 400);
}

#[test]
fn many_requests_do_not_fill_the_memory() {
    let mut bench = Bench::new();
    let (first, ..) = bench.page(&[]);
    for _ in 0..100 {
        bench.authorize(&[]);
    }
    assert_eq!(bench.core.pending.len(), 32);
    assert_eq!(bench.ask(Ask::Poll(first)).status, 400);
}

#[test]
fn a_month_old_refresh_token_is_refused() {
    let mut bench = Bench::new();
    let token = bench.login();
    bench.pass(31 * 24 * 3600);
    assert_eq!(bench.core.to_end(bench.now).len(), 1);
    assert_eq!(bench.refresh(&token, &[]), Err("invalid_grant".into()));
    assert!(bench.core.to_end(bench.now).is_empty());
}

#[test]
fn an_end_that_the_disk_did_not_take_counts_and_is_told_until_it_has() {
    let mut bench = Bench::new();
    let token = bench.login();
    let revoke = || Ask::Revoke("editor".into(), changed(&[("token", token["refresh_token"].as_str().unwrap())], &[]));
    bench.disk_is_full = true;
    assert_eq!(bench.ask(revoke()).status, 503);
    assert_eq!(bench.refresh(&token, &[]), Err("invalid_grant".into()), "it counts at once");
    assert_eq!(bench.userinfo(token["access_token"].as_str().unwrap()).0, 401);
    assert_eq!(bench.ask(revoke()).status, 503, "it is not done yet");
    let Holdings { key, subject, .. } = bench.core.holdings.take().unwrap();
    let on_disk = bench.stored.clone();
    bench.core.hold(None);
    bench.core.hold(Some(Holdings { key, subject, families: on_disk }));
    assert_eq!(bench.refresh(&token, &[]), Err("invalid_grant".into()), "the disk does not bring it back");
    assert_eq!(bench.core.to_end(bench.now).len(), 1, "and it is tried again");
    bench.disk_is_full = false;
    assert_eq!(bench.ask(revoke()).status, 200);
    assert!(bench.stored.is_empty() && bench.core.to_end(bench.now).is_empty());
}

#[test]
fn what_the_disk_did_not_take_is_as_it_was() {
    let mut bench = Bench::new();
    let code = bench.code(&[]);
    bench.disk_is_full = true;
    assert_eq!(bench.exchange(&code, &[]), Err("temporarily_unavailable".into()));
    bench.disk_is_full = false;
    let token = bench.exchange(&code, &[]).unwrap();
    bench.disk_is_full = true;
    assert_eq!(bench.refresh(&token, &[]), Err("temporarily_unavailable".into()));
    bench.disk_is_full = false;
    assert!(bench.refresh(&token, &[]).is_ok(), "the refresh token was not used up");
}

//! Thirty kinds of replies that a refresh can get while the old access token is still valid: those of our own T23.

use std::time::Duration;

use mcp_auth_tests::rogue::{Plan, Rogue};
use serde_json::{Value, json};

/// A kind of reply.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Whether the tokens rotate with it. Where the answer leaves the new refresh token out, the old one stays good.
    pub(super) rotate: bool,
    pub(super) plan: Plan,
}

const PORTAL: &str = "<html><body>Please log in to the hotel's network</body></html>";

/// Every kind. `rogue` is where the portal is that is redirected to.
pub(super) fn kinds(rogue: &Rogue) -> Vec<Kind> {
    let mut kinds = without_a_token(rogue);
    kinds.extend(with_a_token());
    kinds
}

fn without_a_token(rogue: &Rogue) -> Vec<Kind> {
    let html = ["content-type: text/html"];
    let json_body = ["content-type: application/json"];
    let portal = format!("location: {}/portal", rogue.issuer());
    let canned = |name, status, headers: &[&str], body: &[u8]| kind(name, Plan::canned(status, headers, body));
    let error = |name, status, error: &str| kind(name, Plan::json(status, &json!({ "error": error })));
    let garbage = [0x1f, 0x8b, 8, 0, 0xff, 0xfe, 7, 7, 7].repeat(20);
    vec![
        canned("500", 500, &html, b"<h1>Internal Server Error</h1>"),
        canned("503", 503, &[], b""),
        canned("503 with Retry-After", 503, &["retry-after: 5"], b""),
        error("429", 429, "rate_limited"),
        canned("429 with Retry-After", 429, &["retry-after: 5"], b"{}"),
        canned("403", 403, &["content-type: text/plain"], b"Forbidden"),
        canned("401 with HTML", 401, &html, PORTAL.as_bytes()),
        canned("200 with a portal's HTML", 200, &html, PORTAL.as_bytes()),
        canned("302 to a portal", 302, &[&portal], b""),
        canned("204", 204, &[], b""),
        canned("an empty body", 200, &json_body, b""),
        canned("null", 200, &json_body, b"null"),
        canned("an array", 200, &json_body, br#"[{"access_token":"a"}]"#),
        canned("cut-off JSON", 200, &json_body, br#"{"access_token":"abc","refresh_to"#),
        canned("garbage as gzip", 200, &["content-type: application/json", "content-encoding: gzip"], &garbage),
        error("400 temporarily_unavailable", 400, "temporarily_unavailable"),
        error("400 slow_down", 400, "slow_down"),
    ]
}

fn with_a_token() -> Vec<Kind> {
    vec![
        edited("token_type bearer", "token_type", json!("bearer")),
        edited("token_type BEARER", "token_type", json!("BEARER")),
        missing("token_type missing", "token_type"),
        edited("token_type DPoP", "token_type", json!("DPoP")),
        missing("expires_in missing", "expires_in"),
        edited("expires_in 0", "expires_in", json!(0)),
        edited("expires_in -5", "expires_in", json!(-5)),
        edited("expires_in \"3600\"", "expires_in", json!("3600")),
        edited("expires_in 3600.0", "expires_in", json!(3600.0)),
        edited("expires_in 1e300", "expires_in", json!(1e300)),
        edited("expires_in null", "expires_in", Value::Null),
        Kind { rotate: false, ..edited("refresh_token null", "refresh_token", Value::Null) },
        Kind { rotate: false, ..edited("refresh_token \"\"", "refresh_token", json!("")) },
    ]
}

/// How long the tokens of these rounds live.
pub(super) const LIFETIME: Duration = Duration::from_secs(3600);

fn kind(name: &'static str, plan: Plan) -> Kind {
    Kind { name, rotate: true, plan }
}

fn edited(name: &'static str, member: &'static str, value: Value) -> Kind {
    kind(name, Plan::edited(move |answer| answer[member] = value.clone()))
}

fn missing(name: &'static str, member: &'static str) -> Kind {
    kind(
        name,
        Plan::edited(move |answer| {
            answer.as_object_mut().unwrap().remove(member);
        }),
    )
}

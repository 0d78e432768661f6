//! How some providers revoke and tell who logged in, in place of RFC 7009 and OpenID Connect. Each insists on its own form, so
//! that a client passes only by knowing it.

use std::collections::BTreeSet;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::State;
use super::answer::Honest;
use crate::request::Request;

/// The client id and secret that the dialects know.
const CLIENT: &str = "native";
const SECRET: &str = "zQcS9qz-dialect-zQcS9qz";

/// The answer, where the path is one of a dialect.
pub(super) fn answer(state: &mut State, asked: &Request) -> Option<Honest> {
    let told = match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/api/v3/credentials/revoke") => github_by_holder(asked).map(|tokens| {
            tokens.into_iter().for_each(|token| drop(end(state, token)));
            Honest::json(202, json!({}))
        }),
        ("DELETE", "/api/v3/applications/native/token") => github_by_client(asked).map(|token| end(state, token)),
        ("POST", path) => return posted(state, asked, path),
        _ => return None,
    };
    Some(told.unwrap_or_else(|unmet| state.refused(unmet.to_owned())))
}

fn posted(state: &mut State, asked: &Request, path: &str) -> Option<Honest> {
    let told = match path {
        "/google/revoke" => google(asked).map(|token| end(state, token)),
        "/notion/revoke" => notion(asked).map(|token| end(state, token)),
        "/supabase/revoke" => supabase(asked).map(|token| end(state, token)),
        "/dropbox/revoke" | "/slack/revoke" => nothing_but_a_bearer(asked).map(|token| end_itself(state, token)),
        "/slack/me" => nothing_but_a_bearer(asked).map(|token| match state.grants.subject(&token, Instant::now()) {
            Some(subject) => Honest::json(200, json!({ "ok": true, "user": subject, "user_id": "U1" })),
            None => Honest::json(200, json!({ "ok": false, "error": "invalid_auth" })),
        }),
        "/linear/graphql" => linear(asked).map(|token| match state.grants.subject(&token, Instant::now()) {
            Some(subject) => Honest::json(200, json!({ "data": { "viewer": { "id": "u1", "email": subject } } })),
            None => Honest::json(401, json!({ "errors": [{ "message": "not signed in" }] })),
        }),
        _ => return None,
    };
    Some(told.unwrap_or_else(|unmet| state.refused(unmet.to_owned())))
}

fn end(state: &mut State, token: String) -> Honest {
    state.grants.forget(&token);
    state.seen.revoked.push(token);
    Honest::json(200, json!({}))
}

/// As Slack answers: status 200, whatever it was.
fn end_itself(state: &mut State, token: String) -> Honest {
    if state.grants.subject(&token, Instant::now()).is_none() {
        return Honest::json(200, json!({ "ok": false, "error": "token_revoked" }));
    }
    end(state, token);
    Honest::json(200, json!({ "ok": true, "revoked": true }))
}

/// Whoever holds the tokens, and no client.
fn github_by_holder(asked: &Request) -> Result<Vec<String>, &'static str> {
    let body = json_of(asked).filter(|_| asked.header("authorization").is_empty()).ok_or("JSON, unauthenticated")?;
    only(&body, &["credentials"])?;
    serde_json::from_value(body["credentials"].clone()).map_err(|_| "a list of tokens")
}

fn github_by_client(asked: &Request) -> Result<String, &'static str> {
    let body = json_of(asked).filter(|_| asked.header("authorization") == proof()).ok_or("JSON, by HTTP Basic")?;
    only(&body, &["access_token"])?;
    text(&body, "access_token")
}

/// The token, and no client.
fn google(asked: &Request) -> Result<String, &'static str> {
    let fields = asked.fields();
    match fields.get("token") {
        Some(token) if fields.len() == 1 && asked.header("authorization").is_empty() => Ok(token.clone()),
        _ => Err("the token alone, without a client"),
    }
}

/// JSON, HTTP Basic and the version of the API.
fn notion(asked: &Request) -> Result<String, &'static str> {
    let body = json_of(asked).ok_or("JSON")?;
    if asked.header("authorization") != proof() || asked.header("notion-version").is_empty() {
        return Err("HTTP Basic and a Notion-Version");
    }
    only(&body, &["token"])?;
    text(&body, "token")
}

/// JSON with the client in it.
fn supabase(asked: &Request) -> Result<String, &'static str> {
    let body = json_of(asked).ok_or("JSON")?;
    only(&body, &["client_id", "client_secret", "refresh_token"])?;
    if body["client_id"] != CLIENT || body["client_secret"] != SECRET {
        return Err("the client's secret");
    }
    text(&body, "refresh_token")
}

/// Dropbox refuses a content type where there is no content.
fn nothing_but_a_bearer(asked: &Request) -> Result<String, &'static str> {
    if !asked.body.is_empty() || !asked.header("content-type").is_empty() {
        return Err("no body, and no type of it");
    }
    bearer(asked)
}

fn linear(asked: &Request) -> Result<String, &'static str> {
    let body = json_of(asked).ok_or("JSON")?;
    if text(&body, "query")?.replace(' ', "") != "{viewer{idnameemail}}" {
        return Err("the query that names the viewer");
    }
    bearer(asked)
}

fn proof() -> String {
    format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{SECRET}")))
}

fn bearer(asked: &Request) -> Result<String, &'static str> {
    asked.header("authorization").strip_prefix("Bearer ").map(str::to_owned).ok_or("a bearer token")
}

fn json_of(asked: &Request) -> Option<Value> {
    (asked.header("content-type") == "application/json").then(|| serde_json::from_slice(&asked.body).ok()).flatten()
}

fn only(body: &Value, names: &[&str]) -> Result<(), &'static str> {
    let found: BTreeSet<_> = body.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if found == names.iter().copied().collect() { Ok(()) } else { Err("other members") }
}

fn text(body: &Value, name: &str) -> Result<String, &'static str> {
    body[name].as_str().map(str::to_owned).ok_or("a member that is a text")
}

//! `/mcp/NAME`: a client of the socket speaks to a remote MCP server, and neither sees what is not for it.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::Rogue;
use mcp_auth_tests::{Asked, Daemon, HttpAnswer, RemotePlace, RemoteServer, Reply, Room, fingerprint, wait_until};
use serde_json::json;

const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
const INSUFFICIENT: &str = r#"Bearer error="insufficient_scope", scope="mcp:admin""#;

fn post(daemon: &Daemon<'_>, body: &str) -> HttpAnswer {
    ask(daemon, "POST", &[], body)
}

fn ask(daemon: &Daemon<'_>, method: &str, headers: &[(&str, &str)], body: &str) -> HttpAnswer {
    daemon.connect().request(method, "/mcp/test", headers, body).unwrap()
}

fn pong(asked: &Asked, reply: &mut Reply) {
    reply.message(&[], &json!({ "jsonrpc": "2.0", "id": asked.message()["id"], "result": {} }));
}

#[test]
fn a_request_reaches_the_server_with_the_token_and_the_client_never_sees_it() {
    let place = RemotePlace::new(|asked, reply| {
        let headers = [("mcp-session-id", "s-1"), ("set-cookie", "a=b"), ("www-authenticate", "Bearer"), ("x-other", "kept")];
        reply.message(&headers, &json!({ "jsonrpc": "2.0", "id": asked.message()["id"], "result": { "era": "both" } }));
    });
    let daemon = place.start();
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "=?base64?w6k=?="),
        ("mcp-param-region", "eu"),
        ("mcp-session-id", "s-1"),
        ("last-event-id", "3"),
        ("authorization", "Bearer of-the-client"),
        ("cookie", "c=d"),
        ("proxy-authorization", "Basic eA=="),
    ];
    let answer = ask(&daemon, "POST", &headers, PING);
    assert_eq!((answer.status, answer.json()["result"]["era"].as_str()), (200, Some("both")));
    assert_eq!((answer.header("mcp-session-id"), answer.header("x-other")), (Some("s-1"), Some("kept")));
    for gone in ["set-cookie", "www-authenticate", "authorization", "mcp-authd-error"] {
        assert_eq!(answer.header(gone), None);
    }
    let asked = &place.remote.asked()[0];
    let token = daemon.token("test");
    assert_eq!((asked.method.as_str(), asked.target.as_str(), asked.body.as_slice()), ("POST", "/mcp", PING.as_bytes()));
    assert_eq!(asked.header("authorization"), fingerprint(&token), "our token, and not the client's");
    assert_eq!(asked.header("host"), place.remote.url().trim_start_matches("http://").trim_end_matches("/mcp"));
    for (name, value) in &headers[..8] {
        assert_eq!(asked.header(name), *value, "{name}");
    }
    assert!(["cookie", "proxy-authorization"].iter().all(|name| asked.header(name).is_empty()));
    let by_url = format!("/mcp/{}", place.remote.url().replace(':', "%3A").replace('/', "%2F"));
    assert_eq!(daemon.connect().request("POST", &by_url, &[], PING).unwrap().status, 200, "the URL finds the grant too");
}

#[test]
fn the_policy_and_the_audit_know_who_comes_by_the_relay() {
    let place = RemotePlace::new(pong);
    let daemon = place.start();
    assert!(post(&daemon, PING).json()["result"].is_object());
    place.room.ctl(&["policy", "add", "test", "--anyone", "--deny"]).ok();
    assert!(post(&daemon, PING).json()["error"].is_object());
    assert_eq!(place.remote.asked().len(), 1, "the second went nowhere");
    for event in ["token", "denied"] {
        wait_until(event, Duration::from_secs(10), || {
            let told = place.room.ctl(&["audit", "--json", "--event", event]).ok().json();
            (told.as_array()?.len() == 1 && told[0]["grant"] == "test" && told[0]["count"] == 1).then_some(())
        });
    }
}

#[test]
fn every_method_and_status_of_mcp_passes_as_it_is() {
    let place = RemotePlace::new(|asked, reply| match (asked.method.as_str(), asked.header("x-want")) {
        ("DELETE", _) => reply.head(204, &[]),
        (_, "202") => reply.whole(202, &[], ""),
        (_, status) => reply.whole(status.parse().unwrap(), &[("content-type", "application/json")], "{\"said\":1}"),
    });
    let daemon = place.start();
    assert_eq!(ask(&daemon, "DELETE", &[], "").status, 204);
    for status in ["200", "400", "404", "405", "406", "429", "500", "503"] {
        let answer = ask(&daemon, "POST", &[("x-want", status)], PING);
        assert_eq!((answer.status.to_string().as_str(), answer.body.as_str()), (status, "{\"said\":1}"));
    }
    assert_eq!(ask(&daemon, "POST", &[("x-want", "202")], r#"{"jsonrpc":"2.0","method":"n"}"#).status, 202);
    assert_eq!(ask(&daemon, "GET", &[("x-want", "405")], "").status, 405);
}

#[test]
fn a_rejected_token_is_refreshed_and_the_request_sent_once_more() {
    let rejected = Arc::new(Mutex::new(String::new()));
    let of_server = Arc::clone(&rejected);
    let place = RemotePlace::with_lifetime(Duration::from_secs(3600), move |asked, reply| {
        if reply.token == *of_server.lock().unwrap() {
            return reply.whole(401, &[("www-authenticate", r#"Bearer error="invalid_token", scope="mcp:other""#)], "");
        }
        pong(asked, reply);
    });
    let daemon = place.start();
    let first = daemon.token("test");
    first.clone_into(&mut rejected.lock().unwrap());
    let answer = post(&daemon, PING);
    assert_eq!(
        answer.json()["error"]["message"].as_str().unwrap_or_default(),
        "127.0.0.1 rejects the access token of `test`, which is fresh; hint: mcp-authctl login test",
        "it is younger than 10 s"
    );
    assert_eq!((answer.status, answer.header("mcp-authd-error")), (200, Some("login_required")));
    let answer = wait_until("a token old enough to be refreshed", Duration::from_secs(20), || {
        let answer = post(&daemon, PING);
        (answer.json()["result"] == json!({})).then_some(answer)
    });
    assert_eq!(answer.json()["id"], 7);
    assert_ne!(daemon.token("test"), first);
    let asked = place.remote.asked();
    let last = &asked[asked.len() - 2..];
    assert_eq!(last[0].body, last[1].body, "the same request again");
    assert_ne!(last[0].header("authorization"), last[1].header("authorization"));
    assert_eq!(place.rogue.seen().refreshes.len(), 1);
}

#[test]
fn the_client_meets_neither_401_nor_403_whatever_the_server_says() {
    let (status, challenge) = (Arc::new(AtomicUsize::new(401)), Arc::new(Mutex::new("")));
    let (of_server, words) = (Arc::clone(&status), Arc::clone(&challenge));
    let place = RemotePlace::new(move |_, reply| {
        let words = *words.lock().unwrap();
        reply.whole(u16::try_from(of_server.load(Ordering::Relaxed)).unwrap(), &[("www-authenticate", words)], "secret words");
    });
    let daemon = place.start();
    for (code, words, expected) in [
        (401, "", "login_required"),
        (401, r#"Bearer error="invalid_token""#, "login_required"),
        (403, "", "access_denied"),
        (403, INSUFFICIENT, "insufficient_scope"),
    ] {
        status.store(code, Ordering::Relaxed);
        *challenge.lock().unwrap() = words;
        let answer = post(&daemon, PING);
        assert_eq!(
            (answer.status, answer.json()["id"].clone(), answer.header("mcp-authd-error")),
            (200, json!(7), Some(expected)),
            "{answer:?}"
        );
        assert!(answer.json()["error"]["code"].is_i64() && !answer.body.contains("secret words"), "{answer:?}");
        let batch = post(&daemon, r#"[{"id":1,"method":"a"},{"method":"b"},{"id":"2","method":"c"}]"#).json();
        assert_eq!((&batch[0]["id"], &batch[1]["id"], batch.as_array().unwrap().len()), (&json!(1), &json!("2"), 2));
        for (method, body, expected) in [
            ("POST", r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, 202),
            ("POST", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, 202),
            ("GET", "", 405),
            ("DELETE", "", 204),
        ] {
            let answer = ask(&daemon, method, &[], body);
            assert_eq!((answer.status, answer.body.as_str()), (expected, ""), "{method} {body}");
            assert_eq!(answer.header("www-authenticate"), None);
        }
    }
}

#[test]
fn missing_scopes_are_named_in_an_error_that_tells_the_login() {
    let place = RemotePlace::new(|_, reply| reply.whole(403, &[("www-authenticate", INSUFFICIENT)], ""));
    let daemon = place.start();
    let error = post(&daemon, PING).json()["error"].clone();
    assert_eq!((error["code"].as_i64(), error["data"]["type"].as_str()), (Some(-32001), Some("oauth2")), "{error}");
    assert!(error["data"]["scopes"].as_array().unwrap().contains(&json!("mcp:admin")), "{error}");
    assert_eq!(place.remote.asked().len(), 1, "the same token is not tried twice");
}

#[test]
fn what_cannot_be_relayed_is_an_answer_in_the_words_of_mcp() {
    let place = RemotePlace::new(pong);
    let daemon = place.start();
    let to = |target: &str| daemon.connect().request("POST", target, &[], PING).unwrap();
    for (target, code) in [
        ("/mcp/nobody", "unknown_grant"),
        ("/mcp/http%3A%2F%2Fmcp.example.com%2Fmcp", "provider_unreachable"),
        ("/mcp/Not%20A%20Name", "invalid_request"),
    ] {
        let answer = to(target);
        assert_eq!(
            (answer.status, answer.json()["id"].as_i64(), answer.header("mcp-authd-error")),
            (200, Some(7), Some(code)),
            "{answer:?}"
        );
        assert!(
            answer.json()["error"]["message"].as_str().unwrap().contains("hint: ")
                || answer.json()["error"]["data"]["login_command"].is_string()
        );
    }
    for target in ["/mcp/", "/mcp/test/x", "/.well-known/oauth-protected-resource/mcp/test"] {
        assert_eq!(daemon.connect().request("GET", target, &[], "").unwrap().status, 404, "{target}");
    }
    for (method, body) in [("GET", ""), ("DELETE", ""), ("POST", r#"{"jsonrpc":"2.0","method":"notifications/x"}"#)] {
        let answer = daemon.connect().request(method, "/mcp/nobody", &[], body).unwrap();
        assert_eq!((answer.status, answer.header("mcp-authd-error")), (404, Some("unknown_grant")), "{method}: not the server's own");
    }
    for mark in ["origin", "sec-fetch-site"] {
        let answer = ask(&daemon, "POST", &[(mark, "https://evil.example")], PING);
        assert_eq!((answer.status, answer.header("mcp-authd-error")), (403, Some("access_denied")), "{mark}");
    }
    room_without_server(&place.rogue);
}

fn room_without_server(rogue: &Rogue) {
    let room = Room::at_rogue(rogue);
    let daemon = room.start();
    room.log_in("test").ok();
    let message = post(&daemon, PING).json()["error"]["message"].clone();
    assert!(
        message.as_str().unwrap().starts_with("`test` is not a grant for an MCP server; hint: set `resource` in [providers.test]"),
        "{message}"
    );
}

#[test]
fn a_server_that_wants_no_login_is_served_by_its_url_and_one_that_does_says_so() {
    let open = RemoteServer::start(pong);
    let closed = RemoteServer::start(|_, reply| reply.whole(401, &[("www-authenticate", "Bearer")], ""));
    let place = RemotePlace::new(pong);
    let daemon = place.start();
    let to = |url: &str| {
        let target = format!("/mcp/{}", url.replace(':', "%3A").replace('/', "%2F"));
        daemon.connect().request("POST", &target, &[("authorization", "Bearer of-the-client")], PING).unwrap()
    };
    assert_eq!(to(&open.url()).json()["result"], json!({}));
    assert!(!open.asked()[0].headers.contains_key("authorization"), "no token of another server's goes there");
    let answer = to(&closed.url());
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status, answer.header("mcp-authd-error"), error["code"].as_i64()), (200, Some("login_required"), Some(-32001)));
    assert_eq!(error["data"]["login_command"], format!("mcp-authctl login {}", closed.url()));
}

#[test]
fn a_server_that_is_gone_is_said_so_and_a_redirect_elsewhere_is_not_followed() {
    let victim = RemoteServer::start(pong);
    let target = victim.url();
    let place = RemotePlace::new(move |asked, reply| match asked.target.as_str() {
        "/mcp" => reply.whole(307, &[("location", asked.header("x-to"))], ""),
        _ => pong(asked, reply),
    });
    let daemon = place.start();
    let answer = ask(&daemon, "POST", &[("x-to", "/mcp/v2")], PING);
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!({})), "on the same origin it is");
    let answer = ask(&daemon, "POST", &[("x-to", &target)], PING);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("leads this request to 127.0.0.1"), "{answer:?}");
    assert!(victim.asked().is_empty(), "the token goes to nobody else");
    place.remote.end();
    let started = Instant::now();
    let error = wait_until("the server's end", Duration::from_secs(20), || {
        let answer = daemon.connect().request("POST", "/mcp/test", &[], PING).unwrap();
        answer.json()["error"]["message"].as_str().filter(|message| message.contains("cannot connect")).map(str::to_owned)
    });
    assert!(error.contains("hint: mcp-authctl doctor") && started.elapsed() < Duration::from_secs(20), "{error}");
}

#[test]
fn a_large_body_is_not_kept_and_the_error_says_to_send_it_again() {
    let rejected = Arc::new(Mutex::new(String::new()));
    let of_server = Arc::clone(&rejected);
    let place = RemotePlace::with_lifetime(Duration::from_secs(3600), move |asked, reply| {
        if reply.token == *of_server.lock().unwrap() {
            return reply.whole(401, &[("www-authenticate", "Bearer")], "");
        }
        pong(asked, reply);
    });
    let daemon = place.start();
    daemon.token("test").clone_into(&mut rejected.lock().unwrap());
    let body = format!("{{\"id\":7,\"method\":\"echo\",\"params\":\"{}\"}}", "x".repeat(5 * 1024 * 1024));
    wait_until("a token old enough to be refreshed", Duration::from_secs(20), || {
        let answer = post(&daemon, &body).json();
        assert_eq!(answer["id"], 7);
        answer["error"]["message"].as_str().filter(|message| message.contains("send it again")).map(str::to_owned)
    });
    assert_eq!(post(&daemon, &body).json()["result"], json!({}), "the next one has the new token");
}

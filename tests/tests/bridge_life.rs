//! `mcp-authctl bridge` beside the world: daemons that die, logins that are missing, and the official clients.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_auth_tests::issuer::OwnIssuer;
use mcp_auth_tests::{
    GitHub, ModelServer, RemotePlace, Room, Running, Server, StdioServer, binary, mcp_python, modern, node, older, provider_table, result,
    source_folder, wait_until,
};
use serde_json::{Value, json};

fn bridge(place: &RemotePlace) -> StdioServer {
    StdioServer::bridge(&place.room, &["test"])
}

// ---- the daemon ----

#[test]
fn a_daemon_that_is_killed_in_the_middle_costs_no_conversation() {
    let place = RemotePlace::new(|asked, reply| {
        older(asked, reply, |asked, reply| {
            let slow = asked.message()["method"] == "slow";
            if slow {
                reply.gone();
            } else if asked.method == "GET" {
                reply.events(&[]);
                reply.gone();
            }
            slow || asked.method == "GET"
        });
    });
    let daemon = place.start();
    let mut client = bridge(&place);
    client.initialize();
    place.wait_for("GET", 1);
    client.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "slow" }));
    place.wait_for("slow", 1);
    daemon.kill();
    let lost = client.next();
    assert_eq!(lost["id"], 1);
    assert!(lost["error"]["message"].as_str().unwrap().contains("whether the request was carried out is not known"), "{lost}");
    client.send(&json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }));
    let _again = place.room.start();
    assert_eq!(client.next(), json!({ "jsonrpc": "2.0", "id": 2, "result": {} }), "it waits until the daemon is back");
    assert_eq!(place.seen("tools/list")[0].header("mcp-session-id"), "s-1", "in the same session");
    place.wait_for("GET", 2);
    assert_eq!(place.seen("slow").len(), 1, "what may have been carried out is not sent again");
}

#[test]
fn what_is_cancelled_while_the_daemon_restarts_is_not_carried_out() {
    let place = RemotePlace::new(|asked, reply| older(asked, reply, |_, _| false));
    let daemon = place.start();
    let mut client = bridge(&place);
    client.initialize();
    place.wait_for("GET", 1);
    daemon.kill();
    client.send(&call(5));
    client.send(&cancellation(5));
    client.send(&json!({ "jsonrpc": "2.0", "id": 6, "method": "tools/list" }));
    let _again = place.room.start();
    assert_eq!(client.next()["id"], 6);
    assert_eq!(client.end(), 0);
    assert!(place.seen("tools/call").is_empty() && place.seen("notifications/cancelled").is_empty());
}

fn call(id: u64) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "t" } })
}

fn cancellation(id: u64) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } })
}

#[test]
fn without_a_daemon_the_answer_says_how_to_start_it() {
    let place = RemotePlace::new(|_, _| {});
    let mut client = bridge(&place);
    client.send(&modern(1, "ping", json!({})));
    let message = client.next()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("mcp-authd is not running; hint: start it with"), "{message}");
    assert_eq!(client.end(), 0);
}

// ---- logins ----

/// A stand-in for a browser that is counted, and logs in at once.
fn browser(room: &mut Room) -> std::path::PathBuf {
    let (log, script) = (room.path("browser.log"), room.path("browser"));
    let text = format!("#!/bin/sh\necho \"$1\" >> '{}'\nexec curl -s -L -o /dev/null \"$1\"\n", log.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    room.set("BROWSER", script.to_str().unwrap());
    log
}

fn windows(log: &std::path::Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().count()
}

#[test]
fn five_bridges_that_need_the_same_login_open_one_browser() {
    let mut place = RemotePlace::new(|asked, reply| reply.message(&[], &result(asked, &json!({}))));
    let log = browser(&mut place.room);
    let daemon = place.room.start();
    let mut clients: Vec<_> = (0..5).map(|_| bridge(&place)).collect();
    clients.iter_mut().for_each(|client| client.send(&modern(1, "ping", json!({}))));
    for client in &clients {
        assert_eq!(client.next()["result"], json!({}));
    }
    assert_eq!(windows(&log), 1);
    assert_eq!(daemon.show("/v1/grants").as_array().unwrap().len(), 1);
}

#[test]
fn a_request_of_the_older_era_that_is_cancelled_while_it_waits_for_a_login_is_not_carried_out() {
    let mut place = RemotePlace::new(|asked, reply| older(asked, reply, |_, _| false));
    let log = browser(&mut place.room);
    // A person who takes the time that the test wants.
    let (script, ready) = (place.room.path("browser"), place.room.path("ready"));
    let slow = std::fs::read_to_string(&script)
        .unwrap()
        .replace("exec", &format!("until test -e '{}'; do sleep 0.1; done\nexec", ready.display()));
    std::fs::write(&script, slow).unwrap();
    let _daemon = place.start();
    let mut client = bridge(&place);
    client.initialize();
    place.room.ctl(&["logout", "test"]).ok();
    client.send(&call(5));
    wait_until("the browser", Duration::from_secs(20), || (windows(&log) == 1).then_some(()));
    client.send(&cancellation(5));
    client.send(&json!({ "jsonrpc": "2.0", "id": 6, "method": "tools/list" }));
    std::fs::write(&ready, "").unwrap();
    assert_eq!(client.next(), json!({ "jsonrpc": "2.0", "id": 6, "result": {} }));
    assert_eq!(client.end(), 0);
    assert!(place.seen("tools/call").is_empty() && place.seen("notifications/cancelled").is_empty());
}

#[test]
fn a_missing_login_is_an_error_that_names_the_command_where_no_browser_opens() {
    let mut place = RemotePlace::new(|asked, reply| reply.message(&[], &result(asked, &json!({}))));
    let log = browser(&mut place.room);
    let _daemon = place.room.start();
    let mut client = StdioServer::bridge(&place.room, &["test", "--no-browser"]);
    client.send(&modern(1, "ping", json!({})));
    let error = client.next()["error"].clone();
    assert_eq!(
        (error["code"].as_i64(), error["data"]["login_command"].as_str()),
        (Some(-32001), Some("mcp-authctl login test")),
        "{error}"
    );
    place.room.unset("BROWSER");
    for absent in ["DISPLAY", "WAYLAND_DISPLAY"] {
        place.room.set(absent, "");
    }
    let mut client = bridge(&place);
    client.send(&modern(1, "ping", json!({})));
    assert_eq!(client.next()["error"]["code"], -32001);
    assert_eq!(windows(&log), 0);
    place.room.log_in("test").ok();
    client.send(&modern(2, "ping", json!({})));
    assert_eq!(client.next()["result"], json!({}), "a login elsewhere is enough, the bridge runs on");
}

#[test]
fn a_server_that_is_never_content_opens_one_browser_and_not_one_for_every_request() {
    let asked_for = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked_for);
    let mut place = RemotePlace::new(move |_, reply| {
        count.fetch_add(1, Ordering::Relaxed);
        reply.whole(403, &[("www-authenticate", r#"Bearer error="insufficient_scope", scope="mcp:read mcp:admin""#)], "");
    });
    let log = browser(&mut place.room);
    let _daemon = place.start();
    let before = windows(&log);
    let mut client = bridge(&place);
    for id in 1..=4 {
        client.send(&modern(id, "tools/call", json!({ "name": "t" })));
        assert!(client.next()["error"]["message"].is_string());
    }
    assert_eq!(windows(&log) - before, 1);
    assert!(asked_for.load(Ordering::Relaxed) <= 12, "{asked_for:?} requests");
    drop(place.rogue);
}

// ---- the official clients, with a real protected server ----

#[test]
fn the_official_clients_list_and_call_tools_of_a_server_behind_our_issuer() {
    let (server, github, issuer) = (Server::with_lifetime(3600), GitHub::start(), OwnIssuer::somewhere());
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = issuer.config(600);
    let of_issuer =
        format!("{config}resource = \"http://{address}/mcp\"\n").replace("\"profile\", \"github\"", "\"profile\", \"mcp:tools\"");
    let resource = format!("[[issuer.resources]]\nuri = \"http://{address}/mcp\"\nscopes = [\"mcp:tools\"]\n");
    let mut room = Room::with_config(&format!("{of_issuer}{resource}{}", provider_table("test", &server, "")));
    room.set("USER", "alice");
    room.set("MODEL_SERVER_GITHUB_API", &github.url());
    room.set("MODEL_SERVER_GRANT", "test");
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let mut login = daemon.start_login(&json!({ "provider": "local" }));
    let redirect = issuer.approve(&room, &login.wait_for_url().parse().unwrap());
    mcp_auth_tests::get(&redirect, &[]);
    assert!(matches!(login.last(), mcp_auth_proto::LoginEvent::Done { .. }));
    let variables = [("MODEL_SERVER_LISTEN", address.to_string()), ("MODEL_SERVER_ISSUER", issuer.issuer())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let _model = ModelServer::launch(&room, &variables);
    for (name, command) in clients(&room) {
        let answers = Running::start(command, "client", false).wait().ok().json();
        assert_eq!(answers["tools"], json!(["analyze_code_with_llm", "get_github_user_info"]), "{name}");
        assert_eq!(answers["user"]["structuredContent"]["user"]["login"], "octocat", "{name}: {answers}");
        assert!(answers["analysis"]["content"][0]["text"].as_str().unwrap().contains("security holes"), "{name}: {answers}");
    }
}

fn clients(room: &Room) -> Vec<(&'static str, Command)> {
    let command = |program, script, mode: &str| {
        let asked = json!({ "command": binary("mcp-authctl"), "args": ["bridge", "local"], "mode": mode });
        let mut command = room.command(program);
        command.arg(source_folder().join("mcp").join(script)).arg(asked.to_string());
        command
    };
    let (node, python) = (node(), mcp_python());
    vec![
        ("typescript", command(&node, "client.mjs", "")),
        ("python, newer era", command(&python, "client.py", "auto")),
        ("python, older era", command(&python, "client.py", "legacy")),
    ]
}

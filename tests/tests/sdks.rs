//! The bridge between the official SDKs: their stdio clients at protected servers of the other one, with nothing set up but the
//! server's URL, at the real authorization server.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mcp_auth_tests::{ProtectedServer, Room, Running, Sdk, Server, StdioServer, binary, mcp_python, node, source_folder};
use serde_json::{Value, json};

/// How many steps a counted call tells of.
const STEPS: u64 = 20;

/// A room where a browser opens, with alice in it, and the log of the pages that it was led to.
fn room_with_a_browser() -> (Room, PathBuf) {
    let mut room = Room::with_config("");
    let (log, script) = (room.path("browser.log"), room.path("browser"));
    let person = source_folder().join("oidc-provider/person");
    std::fs::write(&script, format!("#!/bin/sh\necho \"$1\" >>'{}'\nexec '{}' \"$1\"\n", log.display(), person.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    room.set("BROWSER", script.to_str().unwrap());
    (room, log)
}

fn windows(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().count()
}

#[test]
fn five_bridges_at_a_url_share_one_browser_window_one_registration_and_one_grant() {
    let server = Server::with_lifetime(300);
    let mcp = ProtectedServer::start(Sdk::TypeScript, server.issuer());
    let (room, log) = room_with_a_browser();
    let daemon = room.start();
    let mut clients: Vec<_> = (0..5).map(|_| StdioServer::bridge(&room, &[&mcp.url])).collect();
    let about = json!({ "name": "by hand", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": about });
    let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    // All of them ask before anybody is logged in.
    clients.iter_mut().for_each(|client| client.send(&hello));
    for client in &mut clients {
        assert_eq!(client.next()["result"]["serverInfo"]["name"], "typescript-sdk");
        client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        let added = client.ask(1, "tools/call", &json!({ "name": "add", "arguments": { "a": 40, "b": 2 } }));
        assert_eq!(added["result"]["content"][0]["text"], "42", "{added}");
    }
    let counters = server.counters();
    assert_eq!((windows(&log), counters.requests_to("/reg"), counters.token["authorization_code"].requests), (1, 1, 1));
    assert_eq!(daemon.show("/v1/grants").as_array().unwrap().len(), 1);
}

#[test]
fn every_step_of_a_long_call_passes_between_the_servers_of_both_sdks_and_a_client() {
    let server = Server::with_lifetime(300);
    let (room, _) = room_with_a_browser();
    let _daemon = room.start();
    for sdk in [Sdk::TypeScript, Sdk::Python] {
        let mcp = ProtectedServer::start(sdk, server.issuer());
        let mut client = StdioServer::bridge(&room, &[&mcp.url]);
        client.initialize();
        let params = json!({ "name": "count", "arguments": { "to": STEPS }, "_meta": { "progressToken": "mine" } });
        client.send(&json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params }));
        for step in 1..=STEPS {
            let said = client.next();
            assert_eq!(
                (&said["params"]["progressToken"], said["params"]["progress"].as_f64()),
                (&json!("mine"), Some(step as f64)),
                "{said}"
            );
        }
        assert_eq!(client.next()["result"]["content"][0]["text"], STEPS.to_string());
    }
}

#[test]
fn the_clients_of_one_sdk_list_and_call_the_tools_of_a_protected_server_of_the_other() {
    let server = Server::with_lifetime(300);
    let (typescript, python) =
        (ProtectedServer::start(Sdk::TypeScript, server.issuer()), ProtectedServer::start(Sdk::Python, server.issuer()));
    let (room, log) = room_with_a_browser();
    let daemon = room.start();
    for (name, program, script, mode, mcp) in [
        ("typescript at python", node(), "client.mjs", "", &python),
        ("python, newer era, at typescript", mcp_python(), "client.py", "auto", &typescript),
        ("python, older era, at typescript", mcp_python(), "client.py", "legacy", &typescript),
    ] {
        let mut command = room.command(&program);
        command.arg(source_folder().join("mcp").join(script)).arg(wish(mcp, mode).to_string());
        answers_as_it_should(name, command);
        let (let_in, kept_out) = mcp.seen();
        assert!(let_in >= 4 && kept_out > 0, "{name}: {let_in} let in, {kept_out} not: the server lets everybody in");
    }
    assert_eq!((windows(&log), server.counters().requests_to("/reg")), (2, 1), "a login for each server, one client at their issuer");
    assert_eq!(daemon.show("/v1/grants").as_array().unwrap().len(), 2);
}

/// What a client is told to do.
fn wish(mcp: &ProtectedServer, mode: &str) -> Value {
    let calls = [
        json!({ "name": "add", "arguments": { "a": 40, "b": 2 } }),
        json!({ "name": "whoami", "arguments": {} }),
        json!({ "name": "count", "arguments": { "to": STEPS } }),
    ];
    json!({ "command": binary("mcp-authctl"), "args": ["bridge", mcp.url], "mode": mode, "calls": calls })
}

fn answers_as_it_should(name: &str, command: Command) {
    let answers = Running::start(command, "client", false).wait().ok().json();
    assert_eq!(answers["tools"], json!(["add", "count", "whoami"]), "{name}");
    let said = |number: usize| answers["called"][number]["content"][0]["text"].clone();
    assert_eq!([said(0), said(1), said(2)], [json!("42"), json!("alice"), json!(STEPS.to_string())], "{name}: {answers}");
    assert_eq!(answers["steps"], STEPS, "{name}: {answers}");
}

//! The model MCP server with tokens of our own issuer: the official SDKs log in from its 401 alone, a person types the code of
//! the page, and the tools are called.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::issuer::{CALLBACK, OwnIssuer};
use mcp_auth_tests::{
    GitHub, ModelServer, Room, Running, Server, fingerprint, get, mcp_python, node, provider_table, source_folder, unsigned,
};
use serde_json::{Value, json};

/// The MCP server's URL, which both sides know before it runs.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn clients(room: &Room, asked: &Value) -> Vec<(&'static str, Command)> {
    let command = |program, script, mode: &str| {
        let mut asked = asked.clone();
        asked["mode"] = json!(mode);
        let mut command = room.command(program);
        command.arg(source_folder().join("mcp").join(script)).arg(asked.to_string());
        command
    };
    let (node, python) = (node(), mcp_python());
    vec![
        ("typescript", command(&node, "client.mjs", "")),
        ("python", command(&python, "client.py", "auto")),
        ("python, legacy", command(&python, "client.py", "legacy")),
    ]
}

/// A room with an issuer that knows the model server, and the model server's address.
fn place(more: &str) -> (OwnIssuer, Room, String) {
    let (issuer, address) = (OwnIssuer::somewhere(), free_address());
    let resource = format!("[[issuer.resources]]\nuri = \"http://{address}/mcp\"\nscopes = [\"mcp:tools\"]\n");
    let mut room = Room::with_config(&format!("{}{resource}{more}", issuer.config(600)));
    room.set("USER", "alice");
    (issuer, room, address)
}

#[track_caller]
fn model_server(issuer: &OwnIssuer, room: &Room, address: &str) -> ModelServer {
    ModelServer::launch(room, &[("MODEL_SERVER_LISTEN", address), ("MODEL_SERVER_ISSUER", &issuer.issuer())])
}

#[test]
fn every_sdk_finds_the_issuer_logs_in_and_is_served() {
    let (server, github) = (Server::with_lifetime(3600), GitHub::start());
    let (issuer, mut room, address) = place(&provider_table("test", &server, ""));
    room.set("MODEL_SERVER_GITHUB_API", &github.url());
    room.set("MODEL_SERVER_GRANT", "test");
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let model = model_server(&issuer, &room, &address);
    for (name, command) in clients(&room, &json!({ "url": model.url, "client_id": "plain", "redirect_uri": CALLBACK })) {
        let mut client = Running::start(command, "client", false);
        let page: String =
            client.wait_for("the authorization URL", |said| said.lines().find_map(|line| line.strip_prefix("open ")).map(str::to_owned));
        client.type_line(issuer.approve(&room, &page.parse().unwrap()).as_str());
        let answers = client.wait().ok().json();
        assert_eq!(answers["user"]["structuredContent"]["user"]["login"], "octocat", "{name}: {answers}");
        assert!(answers["analysis"]["content"][0]["text"].as_str().unwrap().contains("security holes"), "{name}: {answers}");
    }
    let token = fingerprint(&daemon.token("test"));
    assert!(github.seen().iter().all(|(_, seen)| *seen == token), "the caller's token goes nowhere: {:?}", github.seen());
}

#[test]
fn what_the_issuer_signed_for_another_purpose_is_refused() {
    let (issuer, room, address) = place("");
    let daemon = room.start();
    let model = model_server(&issuer, &room, &address);
    let ask = |token: &Value| model.initialize(&[("authorization", &format!("Bearer {}", token.as_str().unwrap()))]);
    let resource = ("resource", Some(model.url.as_str()));
    let login = |scope| {
        let code = issuer.code(&room, &[resource, ("scope", Some(scope))]);
        issuer.exchange(&code, &[resource]).json()
    };
    let (mine, elsewhere, narrow) = (login("openid mcp:tools"), issuer.tokens(&room), login("openid"));
    assert_eq!(ask(&mine["access_token"]).status, 200);
    assert_eq!(ask(&mine["id_token"]).status, 401, "an ID token is no access token");
    assert_eq!(ask(&mine["refresh_token"]).status, 401);
    let answer = ask(&elsewhere["access_token"]);
    assert!(answer.status == 401 && answer.header("www-authenticate").unwrap().contains("another resource"), "{answer:?}");
    assert_eq!(ask(&narrow["access_token"]).status, 403);
    daemon.stop();
    assert_eq!(ask(&mine["access_token"]).status, 503, "nobody says which keys are the issuer's");
}

#[test]
fn a_crowd_with_worthless_tokens_does_not_cut_the_server_off_from_the_daemon() {
    let (issuer, room, address) = place("");
    let _daemon = room.start();
    let model = model_server(&issuer, &room, &address);
    // As it could have been signed: the keys must be looked at.
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": "x" });
    let worthless = format!("Bearer {}.{}", unsigned(&header, &json!({})), "A".repeat(86));
    let mut crowd: Vec<_> = (0..400).map(|_| model.connect()).collect();
    for connection in &mut crowd {
        connection.send("POST", "/mcp", &[("authorization", &worthless)], "{}").unwrap();
    }
    let mut statuses: Vec<u16> = crowd.iter_mut().map(|connection| connection.status().unwrap()).collect();
    statuses.dedup();
    assert_eq!(statuses, [401]);
}

#[test]
fn the_daemon_logs_in_at_the_server_by_its_url_and_its_token_is_taken() {
    let (issuer, room, address) = place("");
    let daemon = room.start();
    let model = model_server(&issuer, &room, &address);
    let mut login = daemon.start_login(&json!({ "provider": model.url, "name": "model", "client_id": "mcp-authd" }));
    let page = login.wait_for_url().parse().unwrap();
    assert_eq!(get(&issuer.approve(&room, &page), &[]).status, 200);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    let first = daemon.token("model");
    room.ctl(&["refresh", &model.url]).ok();
    let second = daemon.token("model");
    assert_ne!(first, second);
    for token in [first, second] {
        assert_eq!(model.initialize(&[("authorization", &format!("Bearer {token}"))]).status, 200);
    }
}

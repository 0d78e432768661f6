//! The model MCP server as clients meet it: the Inspector's command line and the official TypeScript and Python SDKs, over
//! stdio and over HTTP, with tokens of a real login; and the servers of docs/model-server.md, taken from the page.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use mcp_auth_tests::{
    Daemon, GitHub, ModelServer, Output, Room, Server, Signer, binary, fingerprint, mcp_python, node, provider_table, run, source_folder,
    wait_until,
};
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/model-server.md");
const ISSUER: &str = "http://127.0.0.1:8731";

/// A room with a provider `test` at a real authorization server, and a stand-in for GitHub's API.
struct Place {
    server: Server,
    github: GitHub,
    room: Room,
}

impl Place {
    fn new() -> Self {
        let server = Server::with_lifetime(3600);
        let (github, mut room) = (GitHub::start(), Room::with_config(&config(&server)));
        room.set("MODEL_SERVER_GITHUB_API", &github.url());
        room.set("MODEL_SERVER_GRANT", "test");
        Self { server, github, room }
    }
}

/// With the endpoints: what is known before the first login, a client is told.
fn config(server: &Server) -> String {
    let (authorization, token) = (server.url("/auth"), server.url("/token"));
    provider_table("test", server, &format!("authorization_endpoint = \"{authorization}\"\ntoken_endpoint = \"{token}\""))
}

/// The clients: what they are called, how they are started, and which protocol they speak.
fn clients(room: &Room, server: &Value) -> Vec<(&'static str, Command)> {
    let with = |more: Value| {
        let mut all = server.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all.to_string()
    };
    let command = |program: PathBuf, script: &str, asked: String| {
        let mut command = room.command(&program);
        command.arg(source_folder().join("mcp").join(script)).arg(asked);
        command
    };
    vec![
        ("typescript", command(node(), "client.mjs", with(json!({})))),
        ("python", command(mcp_python(), "client.py", with(json!({ "mode": "auto" })))),
        ("python, legacy", command(mcp_python(), "client.py", with(json!({ "mode": "legacy" })))),
    ]
}

/// The Inspector's command line, which reads its servers from a file: a token has no place among the arguments.
fn inspector(room: &Room, server: &Value, more: &[&str]) -> Output {
    let config = room.path("inspector.json");
    std::fs::write(&config, json!({ "mcpServers": { "model": server } }).to_string()).unwrap();
    let mut command = room.command(&node());
    command.arg(source_folder().join("mcp/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"));
    command.arg("--cli").arg("--config").arg(config).args(["--server", "model", "--format", "json", "--quiet"]).args(more);
    run(command, "inspector", "", false)
}

fn is_octocat(user: &Value) -> bool {
    let info = &user["structuredContent"];
    info["user"]["login"] == "octocat" && info["repositories"].as_array().is_some_and(|repositories| repositories.len() == 3)
}

#[track_caller]
fn all_is_well(client: &str, answers: &Value) {
    assert_eq!(answers["tools"], json!(["analyze_code_with_llm", "get_github_user_info"]), "{client}");
    assert!(is_octocat(&answers["user"]), "{client}: {answers}");
    let version = match client {
        "python" => json!("2026-07-28"),
        "python, legacy" => json!("2025-11-25"),
        _ => Value::Null,
    };
    assert_eq!(answers["version"], version, "{client}");
    let analysis = answers["analysis"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{client}: {answers}"));
    assert!(
        analysis.starts_with("77: ") && analysis.contains("security holes") && analysis.ends_with("fn main() {}"),
        "{client}: {analysis}"
    );
}

/// What a client hears before anybody has logged in.
#[track_caller]
fn login_is_needed(client: &str, error: &Value) {
    assert_eq!(error["code"], -32001, "{client}: {error}");
    assert!(error["message"].as_str().unwrap().contains("Authentication required"), "{client}: {error}");
    assert_eq!(error["data"]["type"], "oauth2", "{client}: {error}");
    assert_eq!(error["data"]["login_command"], "mcp-authctl login test", "{client}: {error}");
    assert!(error["data"]["authorization_url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{client}: {error}");
}

/// Every request that GitHub saw came with the daemon's token.
#[track_caller]
fn only_the_daemons_token_went_out(place: &Place, daemon: &Daemon<'_>) {
    let token = fingerprint(&daemon.token("test"));
    let seen = place.github.seen();
    assert!(!seen.is_empty() && seen.iter().all(|(_, fingerprint)| *fingerprint == token), "{seen:?}");
}

#[test]
fn over_stdio_every_client_gets_the_daemons_token_used_and_nobody_else_knows_it() {
    let place = Place::new();
    let daemon = place.room.start();
    let server = json!({ "command": binary("mcp-auth-model-server") });
    for (name, command) in clients(&place.room, &server) {
        let answers = run(command, "client", "", false).ok().json();
        login_is_needed(name, &answers["user"]["error"]);
        assert!(answers["analysis"]["content"].is_array(), "{name}: needs no login: {answers}");
    }
    daemon.log_in("test", "alice");
    assert!(place.server.is_active(&daemon.token("test")));
    for (name, command) in clients(&place.room, &server) {
        all_is_well(name, &run(command, "client", "", false).ok().json());
    }
    only_the_daemons_token_went_out(&place, &daemon);
}

#[test]
fn the_inspector_calls_it_over_stdio_in_both_eras() {
    let place = Place::new();
    let daemon = place.room.start();
    let environment =
        json!({ "MCP_AUTHD_SOCKET": place.room.socket(), "MODEL_SERVER_GITHUB_API": place.github.url(), "MODEL_SERVER_GRANT": "test" });
    let server = json!({ "type": "stdio", "command": binary("mcp-auth-model-server"), "env": environment });
    let call =
        ["--method", "tools/call", "--tool-name", "get_github_user_info", "--tool-args-json", r#"{"include_repos":true,"repo_limit":3}"#];
    let refused = inspector(&place.room, &server, &call);
    assert!(refused.code != 0 && refused.stderr.contains("Authentication required"), "{refused:?}");
    daemon.log_in("test", "alice");
    for era in ["legacy", "modern"] {
        let mut words = call.to_vec();
        words.extend(["--protocol-era", era]);
        let answer = inspector(&place.room, &server, &words).ok().json();
        assert!(is_octocat(answer.get("result").unwrap_or(&answer)), "{era}: {answer}");
        let tools = inspector(&place.room, &server, &["--method", "tools/list", "--strict", "--protocol-era", era]).ok();
        assert!(tools.stdout.contains("analyze_code_with_llm"), "{era}: {tools:?}");
    }
    only_the_daemons_token_went_out(&place, &daemon);
}

#[test]
fn over_http_every_client_is_served_with_a_token_for_this_server() {
    let place = Place::new();
    let daemon = place.room.start();
    daemon.log_in("test", "alice");
    let signer = Signer::before(&place.room);
    let model = ModelServer::start(&place.room, &signer);
    let url = &model.url;
    let token = signer.key().sign(&signer.key().header(), &model.claims());
    for (name, command) in clients(&place.room, &json!({ "url": url })) {
        all_is_well(name, &run(command, "client", &token, false).ok().json());
    }
    let server = json!({ "type": "streamable-http", "url": url, "headers": { "Authorization": format!("Bearer {token}") } });
    for era in ["legacy", "modern"] {
        let tools = inspector(&place.room, &server, &["--method", "tools/list", "--protocol-era", era]).ok();
        assert!(tools.stdout.contains("get_github_user_info"), "{era}: {tools:?}");
    }
    only_the_daemons_token_went_out(&place, &daemon);
}

#[test]
fn a_token_that_github_rejects_is_replaced_and_the_call_answered() {
    let place = Place::new();
    let daemon = place.room.start();
    daemon.log_in("test", "alice");
    let issued = Instant::now();
    let first = daemon.token("test");
    place.github.reject(&first);
    let server = json!({ "command": binary("mcp-auth-model-server") });
    let ask = || run(clients(&place.room, &server).remove(0).1, "client", "", false).ok().json();
    // The daemon believes no rejection of a token that it has had for less than 10 s.
    let answers = ask();
    assert_eq!(answers["user"]["isError"], true, "{answers}");
    assert!(answers["user"]["content"][0]["text"].as_str().unwrap().contains("does not take the token"), "{answers}");
    assert_eq!(place.github.seen().len(), 2, "it was tried again, once");
    wait_until("the token's eleventh second", Duration::from_secs(20), || (issued.elapsed() > Duration::from_secs(11)).then_some(()));
    let answers = ask();
    assert!(is_octocat(&answers["user"]), "{answers}");
    let (second, seen) = (daemon.token("test"), place.github.seen());
    assert_ne!(first, second);
    let tokens: Vec<&str> = seen[2..].iter().map(|(_, token)| token.as_str()).collect();
    assert_eq!(tokens, [&fingerprint(&first), &fingerprint(&second), &fingerprint(&second)]);
}

#[test]
fn what_is_wrong_with_an_argument_is_said() {
    let place = Place::new();
    let daemon = place.room.start();
    daemon.log_in("test", "alice");
    let environment =
        json!({ "MCP_AUTHD_SOCKET": place.room.socket(), "MODEL_SERVER_GITHUB_API": place.github.url(), "MODEL_SERVER_GRANT": "test" });
    let server = json!({ "type": "stdio", "command": binary("mcp-auth-model-server"), "env": environment });
    for arguments in [r#"{"include_repos":true,"repo_limit":0}"#, r#"{"include_repos":true,"repo_limit":101}"#] {
        let call = ["--method", "tools/call", "--tool-name", "get_github_user_info", "--tool-args-json", arguments];
        let output = inspector(&place.room, &server, &call);
        assert!(
            output.code != 0 && format!("{}{}", output.stdout, output.stderr).contains("repo_limit") || output.stderr.contains("-32602"),
            "{arguments}: {output:?}"
        );
    }
    assert!(place.github.seen().is_empty());
    let call = ["--method", "tools/call", "--tool-name", "analyze_code_with_llm", "--tool-args-json", r#"{"code":"x","max_tokens":0}"#];
    let output = inspector(&place.room, &server, &call);
    assert!(output.code != 0 && output.stdout.contains("nonzero"), "{output:?}");
    daemon.stop();
    let call = ["--method", "tools/call", "--tool-name", "get_github_user_info"];
    inspector(&place.room, &server, &call).says("mcp-authd is not running");
}

#[test]
fn the_configuration_is_printed_on_demand_and_a_bad_setting_named() {
    let place = Place::new();
    let metadata = |settings: &[(&str, &str)]| {
        let mut command = place.room.command(&binary("mcp-auth-model-server"));
        command.arg("--metadata").envs(settings.iter().copied());
        run(command, "model-server", "", false)
    };
    let stdio = metadata(&[]).ok().json();
    assert_eq!(stdio["transport"], "stdio");
    assert_eq!(stdio["tokens_from"]["socket"], place.room.socket().to_str().unwrap());
    assert_eq!(stdio["tokens_from"]["login_command"], "mcp-authctl login test");
    assert_eq!(stdio["protected_resource"], Value::Null);
    let http = metadata(&[("MODEL_SERVER_LISTEN", "127.0.0.1:8732")]).ok().json();
    assert_eq!(http["protected_resource"]["resource"], "http://127.0.0.1:8732/mcp");
    assert_eq!(http["protected_resource"]["authorization_servers"], json!([ISSUER]));
    let bad = metadata(&[("MODEL_SERVER_LISTEN", "0.0.0.0:8732")]);
    assert_eq!((bad.code, bad.stdout.as_str()), (78, ""));
    bad.says("MODEL_SERVER_LISTEN must be a loopback address");
}

/// The one block of the page in a language, run as a server by the clients.
#[track_caller]
fn block(language: &str) -> &'static str {
    let blocks: Vec<_> = PAGE.split(&format!("\n```{language}\n")).skip(1).filter_map(|rest| rest.split_once("\n```\n")).collect();
    assert_eq!(blocks.len(), 1, "blocks in {language} on the page");
    blocks[0].0
}

#[test]
fn the_servers_of_the_page_do_the_same() {
    let place = Place::new();
    let daemon = place.room.start();
    std::os::unix::fs::symlink(source_folder().join("mcp/node_modules"), place.room.path("node_modules")).unwrap();
    let servers = [("python", "server.py", mcp_python()), ("js", "server.mjs", node())].map(|(language, file, program)| {
        std::fs::write(place.room.path(file), block(language)).unwrap();
        (language, json!({ "command": program, "args": [place.room.path(file)] }))
    });
    let ask = |server: &Value| {
        clients(&place.room, server).into_iter().take(2).map(|(name, command)| (name, run(command, "client", "", false).ok().json()))
    };
    for (language, server) in &servers {
        for (name, answers) in ask(server) {
            login_is_needed(&format!("{language}, {name}"), &answers["user"]["error"]);
        }
    }
    daemon.log_in("test", "alice");
    for (language, server) in &servers {
        for (name, answers) in ask(server) {
            assert_eq!(answers["tools"], json!(["get_github_user_info"]), "{language}, {name}");
            let text = answers["user"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{language}, {name}: {answers}"));
            assert!(text.contains("octocat"), "{language}, {name}: {text}");
        }
    }
    only_the_daemons_token_went_out(&place, &daemon);
    daemon.stop();
    for (language, server) in &servers {
        for (name, answers) in ask(server) {
            let sentence = answers["user"]["error"]["message"].as_str().unwrap_or_else(|| panic!("{language}, {name}: {answers}"));
            assert!(sentence.contains("mcp-authd is not running"), "{language}, {name}: {sentence}");
        }
    }
}

#[test]
fn no_server_of_the_page_is_longer_than_it_must_be() {
    for (language, most) in [("python", 23), ("js", 26)] {
        let lines = block(language).lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= most, "{language}: {lines} lines");
    }
}

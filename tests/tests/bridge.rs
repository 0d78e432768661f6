//! `mcp-authctl bridge`: a client that only knows stdio speaks to a server that only knows HTTP and logins.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use mcp_auth_tests::issuer::OwnIssuer;
use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{
    Asked, Daemon, GitHub, ModelServer, RemoteServer, Reply, Room, Running, Server, StdioServer, binary, mcp_python, node, provider_table,
    source_folder, wait_until,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// A room with a provider `test` for this server.
struct Place {
    rogue: Rogue,
    room: Room,
    remote: RemoteServer,
}

impl Place {
    fn new(answer: impl Fn(&Asked, &mut Reply) + Send + Sync + 'static) -> Self {
        let (rogue, remote) = (Rogue::start(Rules::strict(Duration::from_secs(300))), RemoteServer::start(answer));
        let room = Room::with_config(&rogue.provider_table("test", &format!("resource = \"{}\"", remote.url())));
        Self { rogue, room, remote }
    }

    fn start(&self) -> Daemon<'_> {
        let daemon = self.room.start();
        self.room.log_in("test").ok();
        daemon
    }

    fn bridge(&self) -> StdioServer {
        StdioServer::bridge(&self.room, &["test"])
    }

    /// The requests with this method of JSON-RPC, or of HTTP.
    fn seen(&self, method: &str) -> Vec<Asked> {
        self.remote.asked().into_iter().filter(|asked| asked.message()["method"] == method || asked.method == method).collect()
    }

    #[track_caller]
    fn wait_for(&self, method: &str, count: usize) -> Vec<Asked> {
        wait_until(&format!("{count} of {method}"), PATIENCE, || Some(self.seen(method)).filter(|seen| seen.len() >= count))
    }
}

fn result(asked: &Asked, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": asked.message()["id"], "result": result })
}

/// A server of 2025-11-25: a session, and what `more` does not answer.
fn older(asked: &Asked, reply: &mut Reply, more: impl Fn(&Asked, &mut Reply) -> bool) {
    let message = asked.message();
    match (asked.method.as_str(), message["method"].as_str()) {
        _ if more(asked, reply) => {}
        ("POST", Some("initialize")) => {
            let said = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": { "name": "s", "version": "1" } });
            reply.message(&[("mcp-session-id", "s-1")], &result(asked, &said));
        }
        ("POST", Some(_)) if message.get("id").is_some() => reply.message(&[], &result(asked, &json!({}))),
        ("POST", _) => reply.whole(202, &[], ""),
        ("DELETE", _) => reply.whole(200, &[], ""),
        _ => reply.whole(405, &[], ""),
    }
}

fn modern(id: u64, method: &str, params: Value) -> Value {
    let mut params = params;
    params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

// ---- the older era ----

#[test]
fn a_conversation_of_the_older_era_keeps_its_session_and_ends_it() {
    let place = Place::new(|asked, reply| older(asked, reply, |_, _| false));
    let _daemon = place.start();
    let mut client = place.bridge();
    assert_eq!(client.initialize()["result"]["serverInfo"]["name"], "s");
    assert_eq!(client.ask(1, "tools/list", &json!({}))["result"], json!({}));
    client.line("this is no message");
    assert_eq!(client.next()["error"]["code"], -32700);
    place.wait_for("GET", 1);
    assert_eq!(client.end(), 0);
    let headers = |asked: &Asked| (asked.header("mcp-session-id").to_owned(), asked.header("mcp-protocol-version").to_owned());
    let first = &place.seen("initialize")[0];
    assert_eq!(headers(first), (String::new(), String::new()));
    assert_eq!(first.header("accept"), "application/json, text/event-stream");
    for method in ["notifications/initialized", "tools/list", "GET", "DELETE"] {
        let seen = place.seen(method);
        assert_eq!(seen.iter().map(headers).collect::<Vec<_>>(), [("s-1".to_owned(), "2025-11-25".to_owned())], "{method}");
        assert!(seen[0].header("mcp-method").is_empty(), "{method}");
    }
    let order: Vec<_> = place.remote.asked().iter().map(|asked| asked.message()["method"].clone()).collect();
    let at = |method: &str| order.iter().position(|found| found == method).unwrap();
    assert!(at("notifications/initialized") < at("tools/list"), "{order:?}");
}

#[test]
fn what_the_server_says_unasked_arrives_and_a_broken_stream_goes_on_where_it_broke() {
    let place = Place::new(|asked, reply| {
        older(asked, reply, |asked, reply| {
            if asked.method != "GET" {
                return false;
            }
            reply.events(&[]);
            let next = asked.header("last-event-id").parse().map_or(1, |last: u64| last + 1);
            reply.bytes(b"retry: 10\n\n");
            reply.event(&next.to_string(), &json!({ "jsonrpc": "2.0", "method": "notifications/number", "params": { "number": next } }));
            if next >= 3 {
                reply.gone();
            }
            true
        });
    });
    let _daemon = place.start();
    let mut client = place.bridge();
    client.initialize();
    for number in 1..=3 {
        assert_eq!(client.next()["params"]["number"], number);
    }
    let last: Vec<_> = place.seen("GET").iter().map(|asked| asked.header("last-event-id").to_owned()).collect();
    assert_eq!(last, ["", "1", "2"]);
    assert_eq!(client.end(), 0);
}

#[test]
fn a_request_whose_stream_breaks_is_taken_up_again() {
    let place = Place::new(|asked, reply| {
        older(asked, reply, |asked, reply| {
            let is_call = asked.message()["method"] == "tools/call";
            if is_call {
                reply.events(&[]);
                reply.bytes(b"retry: 10\n");
                reply.event("e-1", &json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progress": 1 } }));
            } else if asked.header("last-event-id") == "e-1" {
                reply.events(&[]);
                reply.event("e-2", &json!({ "jsonrpc": "2.0", "id": 5, "result": { "late": true } }));
            }
            is_call || asked.header("last-event-id") == "e-1"
        });
    });
    let _daemon = place.start();
    let mut client = place.bridge();
    client.initialize();
    client.send(&json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": { "name": "t" } }));
    assert_eq!(client.next()["method"], "notifications/progress");
    assert_eq!(client.next(), json!({ "jsonrpc": "2.0", "id": 5, "result": { "late": true } }));
    assert_eq!(place.seen("tools/call").len(), 1, "it is not sent again");
}

#[test]
fn the_server_asks_its_client_in_the_middle_of_a_request_and_gets_the_answer() {
    let (told, answer) = mpsc::channel();
    let (told, answer) = (Mutex::new(told), Mutex::new(answer));
    let place = Place::new(move |asked, reply| {
        older(asked, reply, |asked, reply| {
            let message = asked.message();
            if message["id"] == "from-server" {
                told.lock().unwrap().send(message["result"].clone()).unwrap();
            } else if message["method"] == "tools/call" {
                reply.events(&[]);
                reply.event("", &json!({ "jsonrpc": "2.0", "id": "from-server", "method": "sampling/createMessage", "params": {} }));
                let said = answer.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                reply.event("", &result(asked, &said));
                return true;
            }
            false
        });
    });
    let _daemon = place.start();
    let mut client = place.bridge();
    client.initialize();
    client.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "t" } }));
    assert_eq!(client.next()["method"], "sampling/createMessage");
    client.send(&json!({ "jsonrpc": "2.0", "id": "from-server", "result": { "model": "m" } }));
    assert_eq!(client.next(), json!({ "jsonrpc": "2.0", "id": 1, "result": { "model": "m" } }));
}

#[test]
fn a_session_that_the_server_has_forgotten_is_said_so() {
    let forgotten = Arc::new(AtomicBool::new(false));
    let of_server = Arc::clone(&forgotten);
    let place = Place::new(move |asked, reply| {
        older(asked, reply, |asked, reply| {
            let gone = of_server.load(Ordering::Relaxed) && !asked.header("mcp-session-id").is_empty();
            if gone {
                reply.whole(404, &[], "");
            }
            gone
        });
    });
    let _daemon = place.start();
    let mut client = place.bridge();
    client.initialize();
    forgotten.store(true, Ordering::Relaxed);
    let message = client.ask(1, "tools/list", &json!({}))["error"]["message"].clone();
    assert_eq!(message, "the server no longer knows this session; hint: connect to the server anew");
    assert_eq!(client.initialize()["result"]["protocolVersion"], "2025-11-25", "a new handshake begins a new one");
}

// ---- the newer era ----

#[test]
fn a_message_of_the_newer_era_carries_its_headers_and_needs_no_handshake() {
    let place = Place::new(|asked, reply| {
        let schema = |kind: &str| json!({ "properties": { "region": { "type": kind, "x-mcp-header": "Region" } } });
        let answer = match asked.message()["method"].as_str() {
            Some("tools/list") => json!({ "tools": [
                { "name": "good", "inputSchema": schema("string") }, { "name": "bad", "inputSchema": schema("number") },
            ] }),
            _ => json!({ "content": [] }),
        };
        reply.message(&[], &result(asked, &answer));
    });
    let _daemon = place.start();
    let mut client = place.bridge();
    client.send(&modern(1, "tools/list", json!({})));
    let names: Vec<_> = client.next()["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["good"], "a tool whose annotation is wrong is not shown");
    client.send(&modern(2, "tools/call", json!({ "name": "good", "arguments": { "region": "\u{e9}u" } })));
    assert_eq!(client.next()["id"], 2);
    assert_eq!(client.end(), 0);
    let call = &place.seen("tools/call")[0];
    let header = |name: &str| call.header(name).to_owned();
    assert_eq!((header("mcp-protocol-version"), header("mcp-method")), ("2026-07-28".into(), "tools/call".into()));
    assert_eq!((header("mcp-name"), header("mcp-param-region")), ("good".into(), "=?base64?w6l1?=".into()));
    assert!(place.remote.asked().iter().all(|asked| asked.method == "POST" && asked.header("mcp-session-id").is_empty()));
}

#[test]
fn a_cancelled_request_of_the_newer_era_is_a_closed_stream() {
    let (told, ended) = mpsc::channel();
    let told = Mutex::new(told);
    let place = Place::new(move |asked, reply| {
        if asked.message()["method"] == "ping" {
            return reply.message(&[], &result(asked, &json!({})));
        }
        reply.events(&[]);
        reply.event("", &json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} }));
        told.lock().unwrap().send(reply.gone()).unwrap();
    });
    let _daemon = place.start();
    let mut client = place.bridge();
    client.send(&modern(1, "tools/call", json!({ "name": "slow" })));
    assert_eq!(client.next()["method"], "notifications/progress");
    client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } }));
    assert!(ended.recv_timeout(PATIENCE).unwrap(), "the server hears of it");
    client.send(&modern(2, "ping", json!({})));
    assert_eq!(client.next()["id"], 2, "and the client gets no answer to what it cancelled");
    assert!(place.seen("notifications/cancelled").is_empty());
}

// ---- both ----

#[test]
fn requests_run_side_by_side_and_large_ones_pass() {
    let place = Place::new(|asked, reply| {
        let message = asked.message();
        let size = message["params"]["text"].as_str().unwrap_or_default().len();
        if message["params"]["slow"] == true {
            std::thread::sleep(Duration::from_secs(3));
        }
        reply.message(&[], &result(asked, &json!({ "text": "y".repeat(size) })));
    });
    let _daemon = place.start();
    let mut client = place.bridge();
    client.send(&modern(1, "tools/call", json!({ "name": "t", "slow": true })));
    let started = Instant::now();
    for id in 2..20 {
        client.send(&modern(id, "tools/call", json!({ "name": "t" })));
    }
    let mut ids: Vec<_> = (2..20).map(|_| client.next()["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (2..20).collect::<Vec<_>>(), "none waits for the slow one");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(client.next()["id"], 1);
    client.send(&modern(20, "tools/call", json!({ "name": "t", "text": "x".repeat(10 * 1024 * 1024) })));
    assert_eq!(client.next()["result"]["text"].as_str().unwrap().len(), 10 * 1024 * 1024);
}

#[test]
fn errors_of_the_server_are_answers_to_the_request_whatever_their_form() {
    let place = Place::new(|asked, reply| match asked.message()["method"].as_str() {
        Some("own") => reply.whole(
            400,
            &[("content-type", "application/json")],
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32020,"message":"m"}}"#,
        ),
        Some("html") => reply.whole(502, &[("content-type", "text/html")], "<h1>secret</h1>"),
        Some("nonsense") => reply.whole(200, &[("content-type", "application/json")], "nonsense"),
        Some("pretty") => {
            reply.whole(200, &[("content-type", "application/json")], "{\n  \"jsonrpc\": \"2.0\",\n  \"id\": 4,\r\n  \"result\": {}\n}\n")
        }
        _ => {
            reply.events(&[]);
            reply.bytes(b"data: nonsense\n\nevent: other\ndata: {\"id\":5,\"result\":1}\n\n");
        }
    });
    let _daemon = place.start();
    let mut client = place.bridge();
    let ask = |client: &mut StdioServer, id, method| {
        client.send(&modern(id, method, json!({})));
        let answer = client.next();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    };
    assert_eq!(ask(&mut client, 1, "own")["error"], json!({ "code": -32020, "message": "m" }));
    assert_eq!(ask(&mut client, 2, "html")["error"]["message"], "the server answers 502 Bad Gateway");
    assert!(ask(&mut client, 3, "nonsense")["error"]["message"].as_str().unwrap().contains("not a message of MCP"));
    assert_eq!(ask(&mut client, 4, "pretty")["result"], json!({}));
    assert!(ask(&mut client, 5, "cut off")["error"]["message"].as_str().unwrap().contains("broke off"));
}

#[test]
fn headers_of_the_person_are_sent_and_bad_arguments_are_refused() {
    let place = Place::new(|asked, reply| reply.message(&[], &result(asked, &json!({}))));
    let _daemon = place.start();
    let mut client = StdioServer::bridge(&place.room, &["test", "--header", "X-Tenant: blue", "--no-browser"]);
    client.send(&modern(1, "ping", json!({})));
    client.next();
    assert_eq!(place.seen("ping")[0].header("x-tenant"), "blue");
    for arguments in [
        &["bridge"][..],
        &["bridge", "test", "--header", "nonsense"],
        &["bridge", "test", "--header", "Authorization: Bearer x"],
        &["bridge", "test:a", "--account", "b"],
    ] {
        let output = place.room.ctl(arguments);
        assert_eq!(output.code, 2, "{arguments:?}: {output:?}");
    }
}

// ---- the daemon ----

#[test]
fn a_daemon_that_is_killed_in_the_middle_costs_no_conversation() {
    let place = Place::new(|asked, reply| {
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
    let mut client = place.bridge();
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
fn without_a_daemon_the_answer_says_how_to_start_it() {
    let place = Place::new(|_, _| {});
    let mut client = place.bridge();
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
    let mut place = Place::new(|asked, reply| reply.message(&[], &result(asked, &json!({}))));
    let log = browser(&mut place.room);
    let daemon = place.room.start();
    let mut clients: Vec<_> = (0..5).map(|_| place.bridge()).collect();
    clients.iter_mut().for_each(|client| client.send(&modern(1, "ping", json!({}))));
    for client in &clients {
        assert_eq!(client.next()["result"], json!({}));
    }
    assert_eq!(windows(&log), 1);
    assert_eq!(daemon.show("/v1/grants").as_array().unwrap().len(), 1);
}

#[test]
fn a_missing_login_is_an_error_that_names_the_command_where_no_browser_opens() {
    let mut place = Place::new(|asked, reply| reply.message(&[], &result(asked, &json!({}))));
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
    let mut client = place.bridge();
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
    let mut place = Place::new(move |_, reply| {
        count.fetch_add(1, Ordering::Relaxed);
        reply.whole(403, &[("www-authenticate", r#"Bearer error="insufficient_scope", scope="mcp:read mcp:admin""#)], "");
    });
    let log = browser(&mut place.room);
    let _daemon = place.start();
    let before = windows(&log);
    let mut client = place.bridge();
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

//! `mcp-authctl bridge`: a client that only knows stdio speaks to a server that only knows HTTP and logins.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use mcp_auth_tests::{Asked, RemotePlace, StdioServer, modern, older, result};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);

fn bridge(place: &RemotePlace) -> StdioServer {
    StdioServer::bridge(&place.room, &["test"])
}

// ---- the older era ----

#[test]
fn a_conversation_of_the_older_era_keeps_its_session_and_ends_it() {
    let place = RemotePlace::new(|asked, reply| older(asked, reply, |_, _| false));
    let _daemon = place.start();
    let mut client = bridge(&place);
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
fn a_bridge_that_is_terminated_ends_its_session_as_one_whose_stdin_ends() {
    let place = RemotePlace::new(|asked, reply| older(asked, reply, |_, _| false));
    let _daemon = place.start();
    let mut client = bridge(&place);
    client.initialize();
    client.ask(1, "tools/list", &json!({}));
    assert_eq!(client.terminate(), 0);
    let ends: Vec<_> = place.seen("DELETE").iter().map(|asked| asked.header("mcp-session-id").to_owned()).collect();
    assert_eq!(ends, ["s-1"]);
}

#[test]
fn what_the_server_says_unasked_arrives_and_a_broken_stream_goes_on_where_it_broke() {
    let place = RemotePlace::new(|asked, reply| {
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
    let mut client = bridge(&place);
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
    let place = RemotePlace::new(|asked, reply| {
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
    let mut client = bridge(&place);
    client.initialize();
    client.send(&json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": { "name": "t" } }));
    assert_eq!(client.next()["method"], "notifications/progress");
    assert_eq!(client.next(), json!({ "jsonrpc": "2.0", "id": 5, "result": { "late": true } }));
    assert_eq!(place.seen("tools/call").len(), 1, "it is not sent again");
}

#[test]
fn a_request_whose_stream_breaks_at_an_id_that_no_header_can_carry_is_answered_with_an_error() {
    let place = RemotePlace::new(|asked, reply| {
        older(asked, reply, |asked, reply| {
            let is_call = asked.message()["method"] == "tools/call";
            if is_call {
                reply.events(&[]);
                reply.bytes(b"retry: 10\nid: a\x01b\n\n");
            } else if asked.method == "GET" {
                reply.events(&[]);
                reply.gone();
            }
            is_call || asked.method == "GET"
        });
    });
    let _daemon = place.start();
    let mut client = bridge(&place);
    client.initialize();
    let error = client.ask(5, "tools/call", &json!({ "name": "t" }))["error"]["message"].clone();
    assert_eq!(error, "the server's answer broke off; whether the request was carried out is not known");
}

#[test]
fn a_request_is_waited_for_however_often_its_stream_is_quiet_or_not_to_be_had_for_a_while() {
    let attempts = AtomicUsize::new(0);
    let place = RemotePlace::new(move |asked, reply| {
        older(asked, reply, |asked, reply| {
            if asked.message()["method"] == "tools/call" {
                reply.events(&[]);
                reply.bytes(b"id: e-1\nretry: 10\n\n");
                return true;
            }
            if asked.header("last-event-id") != "e-1" {
                return false;
            }
            match attempts.fetch_add(1, Ordering::Relaxed) {
                ..6 => {
                    reply.events(&[]);
                    reply.bytes(b": still at it\n\n");
                }
                6..12 => reply.whole(503, &[], ""),
                _ => {
                    reply.events(&[]);
                    reply.event("e-2", &json!({ "jsonrpc": "2.0", "id": 5, "result": { "late": true } }));
                }
            }
            true
        });
    });
    let _daemon = place.start();
    let mut client = bridge(&place);
    client.initialize();
    assert_eq!(client.ask(5, "tools/call", &json!({ "name": "t" }))["result"], json!({ "late": true }));
}

#[test]
fn a_request_whose_stream_the_server_has_no_more_is_answered_with_an_error_at_once() {
    let place = RemotePlace::new(|asked, reply| {
        older(asked, reply, |asked, reply| {
            let is_call = asked.message()["method"] == "tools/call";
            if is_call {
                reply.events(&[]);
                reply.bytes(b"id: e-1\nretry: 10\n\n");
            }
            is_call
        });
    });
    let _daemon = place.start();
    let mut client = bridge(&place);
    client.initialize();
    let error = client.ask(5, "tools/call", &json!({ "name": "t" }))["error"]["message"].clone();
    assert!(error.as_str().unwrap().ends_with("the rest is not to be had: the server answers 405 Method Not Allowed"), "{error}");
}

#[test]
fn the_server_asks_its_client_in_the_middle_of_a_request_and_gets_the_answer() {
    let (told, answer) = mpsc::channel();
    let (told, answer) = (Mutex::new(told), Mutex::new(answer));
    let place = RemotePlace::new(move |asked, reply| {
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
    let mut client = bridge(&place);
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
    let place = RemotePlace::new(move |asked, reply| {
        older(asked, reply, |asked, reply| {
            let gone = of_server.load(Ordering::Relaxed) && !asked.header("mcp-session-id").is_empty();
            if gone {
                reply.whole(404, &[], "");
            }
            gone
        });
    });
    let _daemon = place.start();
    let mut client = bridge(&place);
    client.initialize();
    forgotten.store(true, Ordering::Relaxed);
    let message = client.ask(1, "tools/list", &json!({}))["error"]["message"].clone();
    assert_eq!(message, "the server no longer knows this session; hint: connect to the server anew");
    assert_eq!(client.initialize()["result"]["protocolVersion"], "2025-11-25", "a new handshake begins a new one");
}

// ---- the newer era ----

#[test]
fn a_message_of_the_newer_era_carries_its_headers_and_needs_no_handshake() {
    let place = RemotePlace::new(|asked, reply| {
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
    let mut client = bridge(&place);
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
    let place = RemotePlace::new(move |asked, reply| {
        if asked.message()["method"] == "ping" {
            return reply.message(&[], &result(asked, &json!({})));
        }
        reply.events(&[]);
        reply.event("", &json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} }));
        told.lock().unwrap().send(reply.gone()).unwrap();
    });
    let _daemon = place.start();
    let mut client = bridge(&place);
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
    let place = RemotePlace::new(|asked, reply| {
        let message = asked.message();
        let size = message["params"]["text"].as_str().unwrap_or_default().len();
        if message["params"]["slow"] == true {
            std::thread::sleep(Duration::from_secs(3));
        }
        reply.message(&[], &result(asked, &json!({ "text": "y".repeat(size) })));
    });
    let _daemon = place.start();
    let mut client = bridge(&place);
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
    let place = RemotePlace::new(|asked, reply| match asked.message()["method"].as_str() {
        Some("own") => reply.whole(
            400,
            &[("content-type", "application/json")],
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32020,"message":"m"}}"#,
        ),
        Some("html") => reply.whole(502, &[("content-type", "text/html")], "<h1>secret</h1>"),
        Some("another's") => reply.message(&[], &json!({ "jsonrpc": "2.0", "id": 99, "result": {} })),
        Some("a question") => reply.message(&[], &json!({ "jsonrpc": "2.0", "id": 7, "method": "ping" })),
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
    let mut client = bridge(&place);
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
    for (id, method) in [(6, "another's"), (7, "a question")] {
        assert_eq!(ask(&mut client, id, method)["error"]["message"], "the server's answer (200 OK) is none to this request", "{method}");
    }
    assert!(ask(&mut client, 5, "cut off")["error"]["message"].as_str().unwrap().contains("broke off"));
}

#[test]
fn an_answer_whose_id_is_spelled_in_another_way_is_the_one_answer() {
    let place = RemotePlace::new(|asked, reply| {
        if asked.message()["id"] == "a/b" {
            reply.events(&[]);
            reply.bytes(b"data: {\"jsonrpc\":\"2.0\",\"id\":\"a\\/b\",\"result\":{}}\n\n");
            return;
        }
        reply.message(&[], &result(asked, &json!({})));
    });
    let _daemon = place.start();
    let mut client = bridge(&place);
    let mut request = modern(1, "ping", json!({}));
    request["id"] = json!("a/b");
    client.send(&request);
    assert_eq!(client.next(), json!({ "jsonrpc": "2.0", "id": "a/b", "result": {} }));
    client.send(&modern(2, "ping", json!({})));
    assert_eq!(client.next()["id"], 2, "and no error after it");
    assert_eq!(client.end(), 0);
}

#[test]
fn headers_of_the_person_are_sent_and_bad_arguments_are_refused() {
    let place = RemotePlace::new(|asked, reply| reply.message(&[], &result(asked, &json!({}))));
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

#[test]
fn a_call_whose_headers_do_not_fit_the_tools_any_more_is_sent_again_once_they_are_known() {
    let wanted = Arc::new(Mutex::new("region"));
    let of_server = Arc::clone(&wanted);
    let place = RemotePlace::new(move |asked, reply| {
        let (message, header) = (asked.message(), *of_server.lock().unwrap());
        match message["method"].as_str() {
            Some("tools/list") if message["params"]["cursor"].is_null() => {
                reply.message(&[], &result(asked, &json!({ "tools": [], "nextCursor": "second" })));
            }
            Some("tools/list") => {
                let schema = json!({ "properties": { "p": { "type": "string", "x-mcp-header": header } } });
                reply.events(&[]);
                reply.event("", &result(asked, &json!({ "tools": [{ "name": "t", "inputSchema": schema }] })));
            }
            _ if asked.header(&format!("mcp-param-{header}")) == "eu" => reply.message(&[], &result(asked, &json!({ "done": true }))),
            _ => {
                let error = json!({ "jsonrpc": "2.0", "id": message["id"], "error": { "code": -32020, "message": "no header" } });
                reply.whole(400, &[("content-type", "application/json")], &error.to_string());
            }
        }
    });
    let _daemon = place.start();
    let mut client = bridge(&place);
    let mut call = |id| {
        client.send(&modern(id, "tools/call", json!({ "name": "t", "arguments": { "p": "eu" } })));
        client.next()
    };
    for header in ["region", "zone"] {
        *wanted.lock().unwrap() = header;
        let before = place.seen("tools/call").len();
        assert_eq!(call(1)["result"], json!({ "done": true }), "{header}");
        assert_eq!(place.seen("tools/call").len() - before, 2, "refused, and then not");
    }
    assert_eq!(call(2)["result"], json!({ "done": true }));
    assert_eq!((place.seen("tools/call").len(), place.seen("tools/list").len()), (5, 4), "what is known is not asked for again");
    *wanted.lock().unwrap() = "a b";
    assert_eq!(call(3)["error"]["code"], -32020, "what cannot be met is told");
    assert_eq!(place.seen("tools/call").len(), 6);
}

//! Clients that show a person a page when they are asked to (URL elicitation): the bridge gives them the login's, in the words of
//! their era, and goes on when it is done.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use mcp_auth_tests::{
    Answer, Asked, Person, RemotePlace, Reply, Running, StdioServer, binary, get, modern, node, older, result, source_folder, wait_until,
};
use serde_json::{Value, json};

const VERSION: &str = "2026-07-28";

/// A server of both eras with one tool.
fn server(asked: &Asked, reply: &mut Reply) {
    let message = asked.message();
    let tools = json!([{ "name": "t", "inputSchema": { "type": "object" } }]);
    let answer = match message["method"].as_str() {
        Some("server/discover") => json!({ "resultType": "complete", "supportedVersions": [VERSION], "capabilities": { "tools": {} },
            "serverInfo": { "name": "s", "version": "1" }, "ttlMs": 0, "cacheScope": "private" }),
        Some("tools/list") => json!({ "resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private" }),
        Some("tools/call") => json!({ "resultType": "complete", "content": [{ "type": "text", "text": "pong" }] }),
        _ => return older(asked, reply, |_, _| false),
    };
    reply.message(&[], &result(asked, &answer));
}

fn place() -> RemotePlace {
    RemotePlace::new(server)
}

/// A bridge where nobody could open a browser.
fn bridge(place: &RemotePlace) -> StdioServer {
    StdioServer::bridge(&place.room, &["test", "--no-browser"])
}

/// The handshake of a client that shows pages: the answer.
fn handshake(client: &mut StdioServer, id: u64) -> Value {
    let about = json!({ "name": "by hand", "version": "1" });
    let capabilities = json!({ "elicitation": { "url": {} } });
    client.ask(id, "initialize", &json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": about }))
}

/// A request of 2026-07-28 by a client that shows pages.
fn showing(id: u64, method: &str, params: Value) -> Value {
    let mut request = modern(id, method, params);
    request["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "elicitation": { "url": {} } });
    request
}

#[track_caller]
fn next(client: &mut StdioServer, request: &Value) -> Value {
    client.send(request);
    let answer = client.next();
    assert_eq!(answer["id"], request["id"], "{answer}");
    answer
}

fn open(url: &Value) {
    Person::named("alice").browse_to_the_end(url.as_str().unwrap(), Answer::Yes);
}

#[test]
fn a_client_of_the_older_era_is_given_the_page_in_an_error_and_told_when_it_may_ask_again() {
    let place = place();
    let _daemon = place.room.start();
    let mut client = bridge(&place);
    let answer = handshake(&mut client, 1);
    let error = &answer["error"];
    let elicitation = &error["data"]["elicitations"][0];
    assert_eq!((error["code"].as_i64(), elicitation["mode"].as_str()), (Some(-32042), Some("url")), "{answer}");
    let said = elicitation["message"].as_str().unwrap();
    assert!(said.contains("127.0.0.1") && said.contains("mcp-authctl login test"), "the host and the command: {said}");
    let again = handshake(&mut client, 2);
    assert_eq!(again["error"]["data"]["elicitations"][0]["elicitationId"], elicitation["elicitationId"], "both wait for one login");
    open(&elicitation["url"]);
    let told = client.next();
    assert_eq!(told["method"], "notifications/elicitation/complete");
    assert_eq!(told["params"]["elicitationId"], elicitation["elicitationId"]);
    assert_eq!(handshake(&mut client, 3)["result"]["protocolVersion"], "2025-11-25");
    assert!(client.rest().is_empty(), "it is told once");
}

#[test]
fn a_client_of_the_newer_era_is_asked_for_the_page_and_its_request_comes_back_without_our_question() {
    let place = place();
    let _daemon = place.room.start();
    let mut client = bridge(&place);
    let answer = next(&mut client, &showing(1, "tools/call", json!({ "name": "t" })));
    let asked = answer["result"]["inputRequests"].as_object().unwrap();
    let (key, question) = asked.iter().next().unwrap();
    assert_eq!((answer["result"]["resultType"].as_str(), asked.len()), (Some("input_required"), 1));
    assert_eq!((&question["method"], &question["params"]["mode"]), (&json!("elicitation/create"), &json!("url")));
    assert!(question["params"].get("elicitationId").is_none(), "this era has none");
    open(&question["params"]["url"]);
    let with_word = json!({ "name": "t", "arguments": { "n": 10000000000000001_u64 }, "inputResponses": { key: { "action": "accept" } } });
    let answer = next(&mut client, &showing(2, "tools/call", with_word));
    assert_eq!(answer["result"]["content"][0]["text"], "pong", "{answer}");
    let seen = place.seen("tools/call");
    let params = seen.last().unwrap().message()["params"].clone();
    assert!(params.get("inputResponses").is_none(), "no server has asked for that: {params}");
    assert_eq!(params["arguments"]["n"], 10_000_000_000_000_001_u64);
}

#[test]
fn a_person_who_says_no_is_not_asked_again_and_the_client_gets_the_error_with_the_command() {
    let place = place();
    let _daemon = place.room.start();
    let mut client = bridge(&place);
    let answer = next(&mut client, &showing(1, "tools/call", json!({ "name": "t" })));
    let key = answer["result"]["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
    let answer = next(&mut client, &showing(2, "tools/call", json!({ "name": "t", "inputResponses": { key: { "action": "decline" } } })));
    assert!(answer["error"]["data"].to_string().contains("mcp-authctl login test"), "{answer}");
}

#[test]
fn a_client_that_shows_no_pages_and_a_request_that_may_not_ask_get_the_error_with_the_command() {
    let place = place();
    let _daemon = place.room.start();
    let mut client = bridge(&place);
    let plain = client.initialize();
    let form_only = modern(1, "tools/call", json!({ "name": "t" }));
    let not_asking = showing(2, "tools/list", json!({}));
    let in_the_middle = showing(3, "tools/call", json!({ "name": "t", "requestState": "of the server" }));
    let others = [form_only, not_asking, in_the_middle].map(|request| next(&mut client, &request));
    for answer in [plain].iter().chain(&others) {
        assert_ne!(answer["error"]["code"], -32042, "{answer}");
        assert!(answer["error"].to_string().contains("mcp-authctl login test"), "{answer}");
    }
}

#[test]
fn a_login_that_fails_completes_nothing() {
    let place = place();
    let _daemon = place.room.start();
    let mut client = bridge(&place);
    let answer = handshake(&mut client, 1);
    let page: url::Url = answer["error"]["data"]["elicitations"][0]["url"].as_str().unwrap().parse().unwrap();
    let parameter = |name: &str| page.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    let mut back: url::Url = parameter("redirect_uri").parse().unwrap();
    back.query_pairs_mut().append_pair("error", "access_denied").append_pair("state", &parameter("state"));
    get(&back, &[]);
    // The daemon lets no program begin the same login again so soon: what comes now is the plain error.
    let after = wait_until("the login's end", Duration::from_secs(20), || {
        let answer = handshake(&mut client, 2);
        (answer["error"]["code"] != -32042).then_some(answer)
    });
    assert!(after["error"].to_string().contains("mcp-authctl login test"), "{after}");
    assert!(client.rest().iter().all(|message| message["method"] != "notifications/elicitation/complete"));
}

// ---- the official SDKs ----

/// The SDK of an era, through a bridge to a place that is logged in.
fn sdk(place: &RemotePlace, era: &str) -> Running {
    let folder = source_folder().join("mcp");
    assert!(folder.join("node_modules").exists(), "the SDKs are not installed: run `tests/mcp/install`");
    let told = json!({ "command": binary("mcp-authctl"), "args": ["bridge", "test", "--no-browser"], "era": era });
    let mut command: Command = place.room.command(&node());
    command.arg(folder.join("elicit.mjs")).arg(told.to_string());
    Running::start(command, &format!("elicit-{era}"), false)
}

/// Logs out after the first call, and opens the page that the client shows at the second.
fn through_the_sdk(era: &str, word: &str) -> Value {
    let place = place();
    let _daemon = place.start();
    let mut client = sdk(&place, era);
    client.wait_for("the first call", |said| said.contains("called").then_some(()));
    place.room.ctl(&["logout", "test", "--forget"]).ok();
    client.type_line("go on");
    let url = client.wait_for("the page", |said| said.lines().find_map(|line| Some(line.strip_prefix("open ")?.to_owned())));
    if word == "opened" {
        open(&url.into());
    }
    client.type_line(word);
    client.wait().ok().json()
}

#[test]
fn the_official_sdk_of_the_older_era_shows_the_page_and_asks_again() {
    let came = through_the_sdk("2025-11-25", "opened");
    assert_eq!((&came["first"]["content"][0]["text"], &came["second"]["content"][0]["text"]), (&json!("pong"), &json!("pong")), "{came}");
    assert_eq!(came["shown"].as_array().unwrap().len(), 1, "{came}");
}

#[test]
fn the_official_sdk_of_the_newer_era_shows_the_page_and_goes_on() {
    let came = through_the_sdk(VERSION, "opened");
    assert_eq!((&came["first"]["content"][0]["text"], &came["second"]["content"][0]["text"]), (&json!("pong"), &json!("pong")), "{came}");
    let refused = through_the_sdk(VERSION, "no");
    assert!(refused["second"]["error"].to_string().contains("mcp-authctl login test"), "{refused}");
    assert_eq!(refused["shown"].as_array().unwrap().len(), 1, "a no is not asked again: {refused}");
}

//! What a person finds in the audit after a day's work, and what a machine reads at `/metrics`. The daemon, the command line
//! and the server are the real ones.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use mcp_auth_tests::{Daemon, Output, Room, Running, Server, SmallDisk, binary, mcp_python, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// The lines of `audit --json`, as `event` and `count`.
fn told(output: &Output) -> Vec<(String, u64)> {
    let lines = output.json();
    let of = |line: &Value| (line["event"].as_str().unwrap().to_owned(), line["count"].as_u64().unwrap());
    lines.as_array().unwrap().iter().map(of).collect()
}

/// Waits until the audit tells these, in this order; programs are looked up after the answer.
#[track_caller]
fn tells(room: &Room, arguments: &[&str], expected: &[(&str, u64)]) -> Value {
    let expected: Vec<(String, u64)> = expected.iter().map(|(event, count)| ((*event).to_owned(), *count)).collect();
    let arguments: Vec<&str> = ["audit", "--json"].iter().chain(arguments).copied().collect();
    wait_until(&format!("{expected:?}"), PATIENCE, || {
        let output = room.ctl(&arguments).ok();
        (told(&output) == expected).then(|| output.json())
    })
}

fn file(room: &Room) -> String {
    std::fs::read_to_string(room.path("state/state/audit.jsonl")).unwrap_or_default()
}

fn metrics(daemon: &Daemon<'_>) -> String {
    let answer = daemon.connect().request("GET", "/metrics", &[], "").unwrap();
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    answer.body
}

#[test]
fn a_day_of_work_is_told_with_who_and_how_often_and_without_names_of_people() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let mut kept = daemon.connect();
    for _ in 0..20 {
        assert_eq!(kept.json("POST", "/v1/token", &json!({ "grant": "test" })).unwrap().status, 200);
    }
    for _ in 0..5 {
        room.ctl(&["token", "test"]).ok();
    }
    room.ctl(&["refresh", "test"]).ok();
    room.ctl(&["logout", "test"]).ok();
    room.ctl(&["lock"]).ok();
    // Programs that ended before they were looked at closely are told by their path.
    let tokens = wait_until("every token", PATIENCE, || {
        let output = room.ctl(&["audit", "--json", "--event", "token"]).ok();
        (told(&output).iter().map(|(_, count)| count).sum::<u64>() == 25).then(|| output.json())
    });
    let lines = tokens.as_array().unwrap();
    assert!(lines.len() <= 7 && lines.iter().all(|line| line["grant"] == "test"), "five short lives are one program's: {tokens}");
    assert!(lines.iter().all(|line| line["program"]["executable"].is_string()), "{tokens}");
    let own = std::process::id().to_string();
    tells(&room, &["--event", "token", "--peer", &own], &[("token", 1), ("token", 19)]);
    for event in ["logged_in", "refresh_asked", "logged_out", "vault_locked"] {
        tells(&room, &["--event", event], &[(event, 1)]);
    }
    let shown = room.ctl(&["audit", "--grant", "test"]).ok().stdout;
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(shown.contains(" test: logged out by "), "{shown}");
    let stopped = daemon.stop();
    assert_eq!(stopped.code, 0);
    let all = file(&room);
    assert!(all.lines().last().unwrap().contains("\"stopped\""), "{all}");
    assert!(all.contains("\"count\":19"), "what was counted is lost at the end: {all}");
    assert!(!all.contains("alice") && !all.contains("://"), "{all}");
}

#[test]
fn a_logout_is_told_of_whoever_hung_up_before_its_end() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    server.tell("delay", &json!({ "revocation_ms": 1000 }));
    let mut command = room.command(&binary("mcp-authctl"));
    command.args(["logout", "test"]);
    let logout = Running::start(command, "ctl", false);
    wait_until("the revocation", PATIENCE, || (server.counters().requests_to("/token/revocation") > 0).then_some(()));
    logout.signal(Signal::KILL);
    let told = tells(&room, &["--event", "logged_out"], &[("logged_out", 1)]);
    assert_eq!(told[0]["program"]["pid"], logout.pid(), "{told}");
    assert_eq!(daemon.show("/v1/status")["grants"], 0);
}

#[test]
fn a_program_with_a_socket_of_its_own_is_told_and_so_is_what_it_was_refused() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let events = daemon.follow();
    let script = "curl -s --unix-socket \"$MCP_AUTHD_SOCKET\" http://localhost/v1/grants";
    let refused = room.ctl(&["exec", "--only", "test", "--", "sh", "-c", script]);
    assert!(refused.stdout.contains("access_denied"), "{refused:?}");
    let denied = tells(&room, &["--event", "denied"], &[("denied", 1)]);
    assert_eq!(denied[0]["about"], "GET /v1/grants");
    assert_eq!(denied[0]["program"]["only"], json!(["test"]), "{denied}");
    let opened = tells(&room, &["--event", "capability_opened"], &[("capability_opened", 1)]);
    assert_eq!(opened[0]["about"], "test");
    events.wait_for("denied", PATIENCE);
    assert!(metrics(&daemon).contains("\nmcp_authd_denials_total 1\n"));
    let pid = &opened[0]["program"]["pid"];
    let heard = events.wait_for("capability_closed", PATIENCE);
    assert_eq!(heard["detail"], format!("test (process {pid})"));
    let closed = tells(&room, &["--event", "capability_closed"], &[("capability_closed", 1)]);
    assert_eq!((&closed[0]["about"], &closed[0]["program"]["pid"]), (&json!("test"), pid));
    // Whoever asks again has the socket that is there.
    let ask = || assert_eq!(daemon.call("POST", "/v1/capabilities", &json!({ "grants": ["test"] })).status, 200);
    ask();
    ask();
    tells(&room, &["--event", "capability_opened"], &[("capability_opened", 1), ("capability_opened", 1)]);
}

#[test]
fn somebody_who_follows_sees_what_happens_and_nothing_else() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    let mut following = room.ctl_spawn(&["audit", "--follow", "--grant", "test:b"]);
    daemon.log_in("test", "alice");
    daemon.log_in("test:b", "bob");
    following.wait_for("bob's login", |said| said.contains("test:b: logged in").then_some(()));
    room.ctl(&["logout", "test:b"]).ok();
    following.wait_for("the logout", |said| said.contains("test:b: logged out").then_some(()));
    assert!(!following.said().contains("test: "), "{}", following.said());
    assert_eq!(daemon.stop().code, 0);
    following.wait();
}

#[test]
fn a_crash_costs_the_counts_alone_and_a_torn_line_nothing() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.token("test");
    daemon.token("test");
    tells(&room, &["--event", "token"], &[("token", 1), ("token", 1)]);
    daemon.kill();
    let mut torn = std::fs::File::options().append(true).open(room.path("state/state/audit.jsonl")).unwrap();
    torn.write_all(b"{\"at\":\"2026-11-21T11:2").unwrap();
    let daemon = room.start();
    tells(&room, &["--event", "token"], &[("token", 1)]);
    tells(&room, &["--event", "started"], &[("started", 1), ("started", 1)]);
    assert_eq!(daemon.stop().code, 0);
}

#[test]
fn a_full_disk_stops_nothing_is_said_and_heals() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let disk = SmallDisk::over(&room.path("state/state"), "64k");
    let daemon = room.start();
    daemon.log_in("test", "alice");
    tells(&room, &["--event", "logged_in"], &[("logged_in", 1)]);
    disk.fill();
    // Until the page that the file has begun is full too.
    let mut number = 0;
    wait_until("a disk that refuses", PATIENCE, || {
        // Lines of the same kind would be counted together.
        for _ in 0..8 {
            number += 1;
            daemon.call("PUT", &format!("/v1/grants/pat:{number}"), &json!({ "access_token": "static" }));
        }
        room.ctl(&["status"]).stdout.contains("the audit cannot be written").then_some(())
    });
    daemon.token("test");
    let told = daemon.running.said().matches("the audit cannot be written").count();
    assert_eq!(told, 1, "lines in the log");
    assert!(metrics(&daemon).contains("\nmcp_authd_audit_writable 0\n"));
    let before = told_stored(&room);
    disk.free();
    assert_eq!(daemon.stop().code, 0);
    let daemon = room.start();
    assert_eq!(told_stored(&room), before, "lines that waited for the disk are lost");
    assert!(!room.ctl(&["status"]).stdout.contains("the audit cannot be written"));
    assert_eq!(daemon.stop().code, 0);
}

fn told_stored(room: &Room) -> u64 {
    told(&room.ctl(&["audit", "--json", "--event", "token_stored"]).ok()).iter().map(|(_, count)| count).sum()
}

#[test]
fn prometheus_own_parser_reads_the_counts() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.token("test");
    daemon.token("test");
    room.ctl(&["refresh", "test"]).ok();
    let program = "import sys, json\nfrom prometheus_client.parser import text_string_to_metric_families as parse\n\
        print(json.dumps([[s.name, s.labels, s.value] for f in parse(sys.stdin.read()) for s in f.samples]))";
    let mut python = Command::new(mcp_python()).args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let page = metrics(&daemon);
    python.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let read = python.wait_with_output().unwrap();
    assert!(read.status.success(), "not a page of Prometheus:\n{page}");
    let samples: Vec<(String, Value, f64)> = serde_json::from_slice(&read.stdout).unwrap();
    let value =
        |name: &str, labels: Value| samples.iter().find(|(found, with, _)| found == name && *with == labels).map(|(.., value)| *value);
    assert_eq!(value("mcp_authd_tokens_served_total", json!({ "provider": "test" })), Some(2.0), "{page}");
    assert_eq!(value("mcp_authd_refreshes_total", json!({ "provider": "test", "result": "ok" })), Some(1.0), "{page}");
    assert_eq!(value("mcp_authd_logins_total", json!({ "provider": "test", "result": "ok" })), Some(1.0), "{page}");
    assert_eq!(value("mcp_authd_grants", json!({ "provider": "test", "state": "ok" })), Some(1.0), "{page}");
    assert_eq!(value("mcp_authd_vault_unlocked", json!({})), Some(1.0), "{page}");
    assert!(value("mcp_authd_connections", json!({})).unwrap() >= 1.0, "{page}");
    assert!(value("mcp_authd_start_time_seconds", json!({})).unwrap() > 1.7e9, "{page}");
}

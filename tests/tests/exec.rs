//! A program that `exec` started keeps its token for its whole life: it is shown while it lives, and where a refresh would
//! end the token, nothing but need takes it away.

#![allow(clippy::unwrap_used)]

use std::process::{Child, Stdio};
use std::time::Duration;

use mcp_auth_tests::{Daemon, Room, Server, binary, provider_table, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// A room whose provider ends a token with each refresh.
fn room_at(server: &Server) -> Room {
    Room::with_config(&provider_table("test", server, "refresh_invalidates_access_token = true"))
}

/// A program that got the token of `test` and lives until its stdin ends. Not started as other programs of a room are:
/// those have their environment kept for the leak search, and in this one's a token is in its place.
fn start(room: &Room) -> Child {
    let mut command = room.command(&binary("mcp-authctl"));
    command.args(["exec", "--set", "X=test", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().unwrap()
}

fn end(mut program: Child) {
    drop(program.stdin.take());
    assert!(program.wait().unwrap().success(), "the exit code is the program's own");
}

fn holders(daemon: &Daemon<'_>) -> Value {
    daemon.show("/v1/grants/test")["holders"].clone()
}

/// Waits until the daemon knows the program.
fn wait_for(daemon: &Daemon<'_>, program: &Child) -> Value {
    wait_until("the holder", PATIENCE, || Some(holders(daemon)[0].clone()).filter(|holder| holder["pid"] == program.id()))
}

#[test]
fn a_program_that_exec_started_keeps_its_token_until_it_ends() {
    let server = Server::with_lifetime(3600);
    let room = room_at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    let program = start(&room);
    let holder = wait_for(&daemon, &program);
    assert_eq!((&holder["program"], &holder["current"]), (&json!("cat"), &json!(true)));
    assert!(holder["expires_in"].as_u64().is_some_and(|seconds| (3000..3600).contains(&seconds)), "{holder}");
    let name = format!("cat (process {})", program.id());
    wait_until("the program itself in that process", PATIENCE, || {
        std::fs::read_to_string(format!("/proc/{}/comm", program.id())).ok().filter(|comm| comm == "cat\n")
    });
    assert!(room.ctl(&["status"]).ok().stdout.contains(&format!("held by {name} for ")));
    room.ctl(&["refresh", "test"]).fails_with(1).says(&name).says("hint: mcp-authctl refresh test --force");
    assert_eq!((daemon.token("test"), server.counters().refreshes().requests), (token, 0));
    end(program);
    assert_eq!(holders(&daemon), Value::Null);
    room.ctl(&["refresh", "test"]).ok();
    assert_eq!(server.counters().refreshes().ok, 1);
}

#[test]
fn a_token_that_the_provider_itself_rejects_is_replaced_although_a_program_keeps_it() {
    let server = Server::with_lifetime(3600);
    let room = room_at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    let program = start(&room);
    wait_for(&daemon, &program);
    // A revocation would end the whole login at this server: its userinfo says once that the token is dead.
    server.tell("answer", &json!({ "path": "/me", "times": 1, "status": 401, "body": { "error": "invalid_token" } }));
    let fresh = wait_until("a token that works", PATIENCE, || {
        let answer = daemon.call("POST", "/v1/token", &json!({ "grant": "test", "rejected_token": token }));
        Some(answer.json()["access_token"].as_str()?.to_owned()).filter(|served| *served != token)
    });
    assert!(server.is_active(&fresh));
    assert_eq!(server.counters().requests_to("/me"), 2, "asked who logged in, and whether the token still works");
    let name = format!("held by cat (process {}): expired, restart it", program.id());
    assert!(room.ctl(&["status"]).ok().stdout.contains(&name));
    end(program);
}

#[test]
fn a_daemon_that_was_restarted_does_not_know_who_kept_a_token() {
    let server = Server::with_lifetime(3600);
    let room = room_at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let program = start(&room);
    wait_for(&daemon, &program);
    daemon.kill();
    let daemon = room.start();
    assert_eq!(holders(&daemon), Value::Null, "as the pages say");
    end(program);
}

//! The daemon ends and comes back: by SIGTERM, by `kill -9`, in the middle of a refresh, and twice at once.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use mcp_auth_tests::{Daemon, Room, Server, provider_table, wait_until};
use rustix::process::Signal;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);
const GRANTS: [&str; 3] = ["test", "test:work", "test:home"];

fn log_in_to_all(daemon: &Daemon<'_>) {
    for grant in GRANTS {
        daemon.log_in(grant, "alice");
    }
}

/// Every grant gives a token that the server takes, and can still be refreshed.
fn all_work(daemon: &Daemon<'_>, room: &Room, server: &Server) {
    for grant in GRANTS {
        room.ctl(&["refresh", grant]).ok();
        assert!(server.is_active(&daemon.token(grant)), "{grant}");
    }
    assert_eq!(server.counters().reuse, 0);
}

#[test]
fn every_grant_works_after_sigterm() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    log_in_to_all(&daemon);
    assert_eq!(daemon.stop().code, 0);
    assert!(!room.socket().exists(), "the socket is taken away at an orderly end");
    all_work(&room.start(), &room, &server);
}

#[test]
fn a_socket_that_was_handed_over_is_served_and_left_where_it_is() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start_activated();
    log_in_to_all(&daemon);
    all_work(&daemon, &room, &server);
    assert_eq!(daemon.stop().code, 0);
    assert!(room.socket().exists(), "the socket is the service manager's");
}

#[test]
fn every_grant_works_after_kill_nine_again_and_again() {
    let server = Server::with_lifetime(5);
    let room = Room::at(&server);
    let daemon = room.start();
    log_in_to_all(&daemon);
    daemon.kill();
    for _ in 0..5 {
        let before = server.counters().refreshes().ok;
        let daemon = room.start();
        wait_until("some refreshes", PATIENCE, || (server.counters().refreshes().ok >= before + 3).then_some(()));
        // Between refreshes: what the server has answered is on disk once it is served.
        wait_until("a quiet moment", PATIENCE, || {
            GRANTS.iter().for_each(|grant| drop(daemon.token(grant)));
            let planned = GRANTS.iter().map(|grant| daemon.show(&format!("/v1/grants/{grant}"))["next_refresh_in"].as_u64().unwrap_or(0));
            (planned.min() >= Some(1) && server.counters().in_flight == 0).then_some(())
        });
        daemon.kill();
    }
    all_work(&room.start(), &room, &server);
}

#[test]
fn a_daemon_that_starts_over_a_dead_socket_answers() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    room.start().kill();
    assert!(room.socket().exists(), "kill -9 leaves the socket file");
    room.start();
}

#[test]
fn of_two_daemons_at_once_one_lives_and_the_other_ends_with_75() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    for _ in 0..3 {
        room.spawn().wait().fails_with(75);
        daemon.token("test");
    }
}

#[test]
fn of_ten_daemons_started_together_exactly_one_lives() {
    let room = Room::with_config("");
    let mut all: Vec<_> = (0..10).map(|_| room.spawn()).collect();
    wait_until("nine ends", PATIENCE, || (all.iter_mut().filter_map(|daemon| daemon.is_alive().then_some(())).count() == 1).then_some(()));
    let codes: Vec<i32> = all.iter_mut().filter_map(|daemon| (!daemon.is_alive()).then(|| daemon.wait().code)).collect();
    assert_eq!(codes, [75; 9]);
    room.ctl(&["status"]).ok();
}

#[test]
fn sigterm_during_a_refresh_waits_for_it_and_saves_it() {
    let server = Server::with_lifetime(5);
    let room = Room::at(&server);
    let mut daemon = room.start();
    daemon.log_in("test", "alice");
    server.tell("delay", &json!({ "token_ms": 3000 }));
    wait_until("a refresh at the provider", PATIENCE, || (server.counters().in_flight == 1).then_some(()));
    let start = Instant::now();
    daemon.running.signal(Signal::TERM);
    assert_eq!(daemon.running.wait().code, 0);
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    assert_eq!(server.counters().refreshes().ok, 1, "the refresh has finished");
    drop(daemon);

    server.tell("delay", &json!({ "token_ms": 0 }));
    let daemon = room.start();
    assert!(server.is_active(&daemon.token("test")));
    wait_until("another refresh", PATIENCE, || (server.counters().refreshes().ok >= 2).then_some(()));
    assert_eq!(server.counters().reuse, 0);
}

#[test]
fn sigterm_does_not_wait_longer_than_ten_seconds_for_a_provider_that_hangs() {
    let server = Server::with_lifetime(5);
    let room = Room::at(&server);
    let mut daemon = room.start();
    daemon.log_in("test", "alice");
    server.tell("delay", &json!({ "token_ms": 60_000 }));
    wait_until("a refresh at the provider", PATIENCE, || (server.counters().in_flight == 1).then_some(()));
    let start = Instant::now();
    daemon.running.signal(Signal::TERM);
    daemon.running.wait();
    assert!(start.elapsed() < Duration::from_secs(12), "took {:?}", start.elapsed());
}

#[test]
fn a_lost_answer_is_asked_for_again_and_the_end_is_reported_honestly() {
    let server = Server::with_lifetime(5);
    let room = Room::with_config(&provider_table("test", &server, "refresh = \"on-demand\""));
    let daemon = room.start();
    daemon.log_in("test", "alice");
    server.tell("answer", &json!({ "drop": "after", "times": 1 }));
    room.ctl(&["refresh", "test"]);
    // This server is strict: the second sending of a rotated token ends the family. Nobody is told that it was revoked.
    let state = wait_until("the end of the grant", PATIENCE, || {
        let summary = daemon.show("/v1/grants/test");
        (summary["state"] == "login_required").then(|| summary["last_error"].as_str().unwrap_or_default().to_owned())
    });
    assert!(state.contains("ambiguous") || state.contains("answer was lost"), "{state}");
    assert!(server.counters().refreshes().requests <= 3, "no storm: {:?}", server.counters().refreshes());
}

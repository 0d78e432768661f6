//! Logging out: revoked at the provider, refresh token first, then forgotten; forgotten too when the provider is down.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_tests::{Room, Server, wait_until};
use serde_json::json;

#[test]
fn logout_revokes_the_refresh_token_first_and_forgets() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    room.ctl(&["logout", "test"]).ok();
    assert_eq!(server.counters().revocations.first().map(String::as_str), Some("refresh_token"));
    assert!(!server.is_active(&token));
    room.ctl(&["token", "test"]).fails_with(3);
    daemon.kill();
    let daemon = room.start();
    assert_eq!(daemon.show("/v1/status")["grants"], 0, "forgotten on disk too");
}

#[test]
fn a_provider_that_is_down_does_not_keep_the_secret_alive() {
    let server = Server::with_lifetime(300);
    for mode in ["closed", "503", "reset"] {
        let room = Room::at(&server);
        let daemon = room.start();
        daemon.log_in("test", "alice");
        server.tell("down", &json!({ "on": true, "mode": mode }));
        let output = room.ctl(&["logout", "test"]).ok();
        assert!(format!("{}{}", output.stdout, output.stderr).contains("not confirmed"), "{mode}: {output:?}");
        server.tell("down", &json!({ "on": false }));
        assert_eq!(daemon.show("/v1/status")["grants"], 0, "{mode}");
    }
    assert_eq!(server.counters().revocations.len(), 0);
}

#[test]
fn a_refresh_that_is_under_way_does_not_bring_a_grant_back() {
    let server = Server::with_lifetime(5);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    server.tell("delay", &json!({ "token_ms": 2000 }));
    wait_until("a refresh at the provider", Duration::from_secs(20), || (server.counters().in_flight == 1).then_some(()));
    room.ctl(&["logout", "test"]).ok();
    wait_until("the end of the refresh", Duration::from_secs(20), || (server.counters().in_flight == 0).then_some(()));
    assert_eq!(daemon.show("/v1/status")["grants"], 0);
    assert_eq!(daemon.stop().code, 0);
    assert_eq!(room.start().show("/v1/status")["grants"], 0);
}

#[test]
fn logout_of_one_account_leaves_the_other() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.log_in("test:work", "bob");
    room.ctl(&["logout", "test:work"]).ok();
    assert!(server.is_active(&daemon.token("test")));
    daemon.log_in("test:work", "bob");
    room.ctl(&["logout", "--all"]).ok();
    assert_eq!(daemon.show("/v1/status")["grants"], 0);
}

#[test]
fn a_token_from_stdin_is_kept_and_forgotten() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    room.ctl_typing(&["add-token", "test"], "zQaT9qz-a-personal-access-token-zQaT9qz").ok();
    assert_eq!(room.ctl(&["token", "test"]).ok().stdout.trim(), "zQaT9qz-a-personal-access-token-zQaT9qz");
    daemon.kill();
    let daemon = room.start();
    assert_eq!(daemon.token("test"), "zQaT9qz-a-personal-access-token-zQaT9qz");
    room.ctl(&["logout", "test"]).ok();
    assert_eq!(daemon.show("/v1/status")["grants"], 0);
}

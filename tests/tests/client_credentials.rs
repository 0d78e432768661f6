//! A client that asks for itself (RFC 6749 section 4.4), at the real authorization server: nobody logs in, nothing is refreshed
//! ahead, and a token is there whenever somebody asks.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_tests::{CLIENT_SECRET, GrantTypeCounters, Room, Server, now_ms, wait_until};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);

/// A room with the provider `machine`, whose client may ask for itself only.
fn room_at(server: &Server, more: &str) -> Room {
    let issuer = server.issuer();
    Room::with_config(&format!("[providers.machine]\nissuer = \"{issuer}\"\nclient_id = \"machine\"\nscopes = [\"mcp:read\"]\n{more}\n"))
}

fn asked(server: &Server) -> GrantTypeCounters {
    server.counters().token.get("client_credentials").cloned().unwrap_or_default()
}

/// Waits until a token of two seconds has expired, for the server (which counts whole ones) and for the daemon (which counts
/// from its request on).
fn outlive(server: &Server, token: &str) {
    let issued = server.counters().issued.last().unwrap().at_ms;
    wait_until("the end of the token", PATIENCE, || (now_ms() > issued + 2000 && !server.is_active(token)).then_some(()));
}

/// Stores the client's secret and logs it in.
fn log_in(room: &Room) {
    room.ctl_typing(&["provider", "set-secret", "machine"], CLIENT_SECRET).ok();
    room.ctl(&["login", "machine"]).ok();
}

#[test]
fn the_command_logs_a_client_in_without_a_person() {
    let server = Server::with_lifetime(300);
    let room = room_at(&server, "");
    let daemon = room.start();
    let told = room.ctl(&["login", "machine", "--client-credentials"]).fails_with(1);
    assert!(told.stderr.contains("wants a client secret") && told.stderr.contains("mcp-authctl provider set-secret machine"), "{told:?}");

    room.ctl_typing(&["provider", "set-secret", "machine"], CLIENT_SECRET).ok();
    let told = room.ctl(&["login", "machine", "--client-credentials"]).ok();
    assert!(told.stderr.contains("logged in to machine as machine"), "{told:?}");
    assert!(server.is_active(&daemon.token("machine")));
    let status = room.ctl(&["status", "machine"]).ok().stdout;
    assert!(status.contains("next refresh: on demand") && status.contains("the client's own credentials"), "{status}");
    let summary = daemon.show("/v1/grants/machine");
    assert_eq!((&summary["client_credentials"], &summary["on_demand"]), (&json!(true), &json!(true)), "{summary}");
    assert_eq!(summary["scopes"], json!(["mcp:read"]));
    assert_eq!((asked(&server).requests, asked(&server).ok), (1, 1));
    assert_eq!(server.counters().requests_to("/auth"), 0, "nobody is led to a page");

    let token = daemon.token("machine");
    room.ctl(&["logout", "machine"]).ok();
    assert!(!server.is_active(&token), "a client's token is revoked, too");
}

#[test]
fn a_client_has_a_token_whenever_somebody_asks_and_asks_for_none_before() {
    let server = Server::with_lifetime(2);
    let room = room_at(&server, "flow = \"client_credentials\"");
    let daemon = room.start();
    log_in(&room);
    let first = daemon.token("machine");
    outlive(&server, &first);
    let summary = daemon.show("/v1/grants/machine");
    assert_eq!((&summary["state"], &summary["expires_in"]), (&json!("ok"), &json!(0)), "{summary}");
    assert!(room.ctl(&["status"]).ok().stdout.contains("on demand"));
    room.ctl(&["status", "--check", "machine"]).ok();
    assert_eq!(asked(&server).requests, 1, "nobody asked");

    server.tell("ttl", &json!({ "access": 60 }));
    let asking: Vec<_> = (0..20).map(|_| room.ctl_spawn(&["token", "machine"])).collect();
    let mut tokens: Vec<_> = asking.into_iter().map(|mut asking| asking.wait().ok().stdout).collect();
    tokens.dedup();
    assert_eq!((tokens.len(), asked(&server).requests), (1, 2), "one question for all who wait");
    assert!(server.is_active(tokens[0].trim()));
}

#[test]
fn a_client_needs_nobody_after_a_restart() {
    let server = Server::with_lifetime(2);
    let room = room_at(&server, "flow = \"client_credentials\"");
    let mut daemon = room.start();
    log_in(&room);
    for round in 1..=3 {
        let old = daemon.token("machine");
        daemon.kill();
        outlive(&server, &old);
        daemon = room.start();
        let token = daemon.token("machine");
        assert!(token != old && server.is_active(&token), "round {round}");
    }
}

#[test]
fn a_secret_that_was_changed_costs_no_login() {
    let server = Server::with_lifetime(2);
    let room = room_at(&server, "flow = \"client_credentials\"");
    let daemon = room.start();
    log_in(&room);
    outlive(&server, &daemon.token("machine"));
    room.ctl_typing(&["provider", "set-secret", "machine"], "zQcS9qz-a-wrong-secret-zQcS9qz").ok();
    let told = room.ctl(&["token", "machine"]).fails_with(3);
    assert!(told.stderr.contains("invalid_client") && told.stderr.contains("mcp-authctl provider set-secret machine"), "{told:?}");
    let before = asked(&server).requests;
    assert_eq!(daemon.refusal("machine"), "login_required");
    assert_eq!(asked(&server).requests, before, "it is not asked for again at once");

    room.ctl_typing(&["provider", "set-secret", "machine"], CLIENT_SECRET).ok();
    assert!(server.is_active(&daemon.token("machine")));
}

#[test]
fn a_provider_that_is_down_is_no_reason_for_a_login() {
    let server = Server::with_lifetime(2);
    let room = room_at(&server, "flow = \"client_credentials\"");
    let daemon = room.start();
    log_in(&room);
    let token = daemon.token("machine");
    outlive(&server, &token);
    server.tell("down", &json!({ "on": true, "mode": "closed" }));
    assert_eq!(daemon.refusal("machine"), "provider_unreachable");
    server.tell("down", &json!({ "on": false }));
    wait_until("a token", PATIENCE, || (daemon.ask("machine").status == 200).then_some(()));
    assert_ne!(daemon.token("machine"), token);
}

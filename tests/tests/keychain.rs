//! The vault's key in a real gnome-keyring: absent, locked, unlocked later, the key gone and back. Never a restart.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_tests::{Daemon, Keyring, Room, Server, provider_table, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

/// A room whose key source is the keychain, with a bus on which no keyring is yet.
fn room_with_bus(server: &Server) -> (Room, Keyring) {
    let mut room = Room::without_key_source(&provider_table("test", server, ""));
    let keyring = Keyring::bus_only(&room.path("home"), &room.path("run"));
    room.set("DBUS_SESSION_BUS_ADDRESS", keyring.address());
    (room, keyring)
}

fn vault_is(daemon: &Daemon<'_>, state: &str) {
    wait_until(&format!("a vault that is {state}"), PATIENCE, || (daemon.show("/v1/status")["vault"]["state"] == state).then_some(()));
}

#[test]
fn without_a_keyring_the_daemon_runs_locked_and_says_what_to_do() {
    let server = Server::with_lifetime(60);
    let mut room = Room::without_key_source(&provider_table("test", &server, ""));
    room.set("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let daemon = room.start();
    vault_is(&daemon, "locked");
    let vault = daemon.show("/v1/status")["vault"].clone();
    assert!(vault["hint"].as_str().is_some_and(|hint| hint.contains("mcp-authctl")), "{vault}");
    room.ctl(&["login", "test", "--no-browser"]).fails_with(7);
    let files =
        std::fs::read_dir(room.path("state")).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().contains("key"));
    assert_eq!(files.count(), 0, "no key file is made by itself");
}

#[test]
fn a_keyring_that_comes_later_is_found_without_a_restart() {
    let server = Server::with_lifetime(60);
    let (room, mut keyring) = room_with_bus(&server);
    let daemon = room.start();
    vault_is(&daemon, "locked");
    keyring.start_unlocked();
    vault_is(&daemon, "unlocked");
    daemon.log_in("test", "alice");
    assert_eq!(keyring.count(), Some(1), "one key in the keyring, nothing else");
    drop(daemon);
    assert!(server.is_active(&room.start().token("test")), "the grant is read with the key from the keyring");
}

#[test]
fn a_keyring_that_is_locked_at_start_and_unlocked_later_serves_without_a_restart() {
    let server = Server::with_lifetime(60);
    let (room, mut keyring) = room_with_bus(&server);
    keyring.start_unlocked();
    let daemon = room.start();
    vault_is(&daemon, "unlocked");
    daemon.log_in("test", "alice");
    assert_eq!(daemon.stop().code, 0);

    keyring.start_locked();
    let daemon = room.start();
    vault_is(&daemon, "locked");
    assert_eq!(daemon.refusal("test"), "vault_locked");
    room.ctl(&["token", "test"]).fails_with(7);
    keyring.start_unlocked();
    vault_is(&daemon, "unlocked");
    assert!(server.is_active(&daemon.token("test")));
}

#[test]
fn a_missing_key_is_locked_and_never_replaced_and_works_again_when_it_is_back() {
    let server = Server::with_lifetime(60);
    let (room, mut keyring) = room_with_bus(&server);
    keyring.start_unlocked();
    let daemon = room.start();
    vault_is(&daemon, "unlocked");
    daemon.log_in("test", "alice");
    assert_eq!(daemon.stop().code, 0);

    keyring.stop();
    let aside = room.path("login.keyring.aside");
    std::fs::rename(keyring.file(), &aside).unwrap();
    keyring.start_unlocked();
    let daemon = room.start();
    vault_is(&daemon, "locked");
    assert_eq!(daemon.refusal("test"), "vault_locked");
    assert_eq!(keyring.count(), Some(0), "no new key was made");

    keyring.stop();
    std::fs::rename(&aside, keyring.file()).unwrap();
    keyring.start_unlocked();
    vault_is(&daemon, "unlocked");
    assert!(server.is_active(&daemon.token("test")));
}

#[test]
fn a_keyring_that_goes_away_later_disturbs_nobody() {
    let server = Server::with_lifetime(5);
    let (room, mut keyring) = room_with_bus(&server);
    keyring.start_unlocked();
    let daemon = room.start();
    vault_is(&daemon, "unlocked");
    daemon.log_in("test", "alice");
    keyring.lock();
    keyring.stop();
    let before = server.counters().refreshes().ok;
    wait_until("refreshes without the keyring", PATIENCE, || (server.counters().refreshes().ok >= before + 2).then_some(()));
    assert!(server.is_active(&daemon.token("test")));
}

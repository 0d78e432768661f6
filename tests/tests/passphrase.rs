//! Key sources that a person chooses: a passphrase, a key file; locking, unlocking, a new key, a backup.

#![allow(clippy::unwrap_used)]

use mcp_auth_tests::{LeakSearch, PASSPHRASE, Room, Server, provider_table};

const WRONG: &str = "zQpP9qz wrong horse zQpP9qz";
const NEW: &str = "zQpP9qz new horse zQpP9qz";

fn room_at(server: &Server) -> Room {
    let mut room = Room::without_key_source(&provider_table("test", server, ""));
    room.set("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    room
}

#[test]
fn a_passphrase_opens_the_vault_after_a_restart_and_a_wrong_one_does_not() {
    let server = Server::with_lifetime(300);
    let room = room_at(&server);
    let daemon = room.start();
    room.ctl_typing(&["setup", "--key-source", "passphrase"], PASSPHRASE).ok();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    assert_eq!(daemon.stop().code, 0);

    let daemon = room.start();
    assert_eq!(daemon.refusal("test"), "vault_locked");
    room.ctl(&["token", "test"]).fails_with(7).says("mcp-authctl unlock");
    room.ctl_typing(&["unlock"], WRONG).fails_with(7).says("passphrase");
    assert_eq!(daemon.refusal("test"), "vault_locked");
    room.ctl_typing(&["unlock"], PASSPHRASE).ok();
    assert_eq!(daemon.token("test"), token, "nothing is lost by a wrong passphrase");
}

#[test]
fn lock_forgets_the_key_and_unlock_brings_the_grants_back() {
    let server = Server::with_lifetime(300);
    let room = room_at(&server);
    let daemon = room.start();
    room.ctl_typing(&["setup", "--key-source", "passphrase"], PASSPHRASE).ok();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    room.ctl(&["lock"]).ok();
    room.ctl(&["token", "test"]).fails_with(7);
    room.ctl_typing(&["unlock"], PASSPHRASE).ok();
    assert_eq!(daemon.token("test"), token);
}

#[test]
fn a_key_file_is_made_only_when_it_is_asked_for_and_with_a_warning() {
    let server = Server::with_lifetime(300);
    let room = room_at(&server);
    let daemon = room.start();
    room.ctl(&["login", "test", "--no-browser"]).fails_with(7).says("mcp-authctl setup");
    let setup = room.ctl(&["setup", "--key-source", "key-file"]).ok();
    assert!(setup.stderr.contains("warning"), "{setup:?}");
    daemon.log_in("test", "alice");
    assert_eq!(daemon.stop().code, 0);
    assert!(server.is_active(&room.start().token("test")), "the vault's header names its key source");
}

#[test]
fn a_second_setup_is_refused_and_nothing_is_lost() {
    let server = Server::with_lifetime(300);
    let room = room_at(&server);
    let daemon = room.start();
    room.ctl(&["setup", "--key-source", "key-file"]).ok();
    daemon.log_in("test", "alice");
    room.ctl_typing(&["setup", "--key-source", "passphrase"], PASSPHRASE).fails_with(1).says("rekey");
    daemon.token("test");
}

#[test]
fn another_key_source_in_the_environment_is_refused_with_rekey_as_hint() {
    let server = Server::with_lifetime(300);
    let mut room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    assert_eq!(daemon.stop().code, 0);
    room.set("MCP_AUTHD_KEY_SOURCE", "passphrase");
    let daemon = room.start();
    assert_eq!(daemon.refusal("test"), "vault_locked");
    room.ctl(&["token", "test"]).fails_with(7).says("mcp-authctl vault rekey --key-source passphrase");
    room.ctl_typing(&["vault", "rekey", "--key-source", "passphrase"], PASSPHRASE).ok();
    assert!(server.is_active(&daemon.token("test")), "the hint was the way out");
}

#[test]
fn an_unknown_key_source_is_said_so() {
    let mut room = Room::with_config("");
    room.set("MCP_AUTHD_KEY_SOURCE", "usb-stick");
    room.spawn().wait().fails_with(78).says("usb-stick");
    room.set("MCP_AUTHD_KEY_SOURCE", "key-file");
    let _daemon = room.start();
    room.ctl(&["setup", "--key-source", "usb-stick"]).fails_with(2);
}

#[test]
fn rekey_keeps_every_grant_and_the_old_passphrase_is_worth_nothing() {
    let server = Server::with_lifetime(300);
    let room = room_at(&server);
    let daemon = room.start();
    room.ctl_typing(&["setup", "--key-source", "passphrase"], PASSPHRASE).ok();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    room.ctl_typing(&["vault", "rekey"], NEW).ok();
    assert_eq!(daemon.stop().code, 0);
    let daemon = room.start();
    room.ctl_typing(&["unlock"], PASSPHRASE).fails_with(7);
    room.ctl_typing(&["unlock"], NEW).ok();
    assert_eq!(daemon.token("test"), token);
}

#[test]
fn a_backup_is_sealed_and_goes_to_a_new_folder_only() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let backup = room.path("backup");
    room.ctl(&["vault", "backup", backup.to_str().unwrap()]).ok();
    let (findings, files, _) = LeakSearch::default().search_folder(&backup);
    assert!(files > 0 && findings.is_empty(), "{findings:?}");
    room.ctl(&["vault", "backup", backup.to_str().unwrap()]).fails_with(1);
    let token = daemon.token("test");
    assert_eq!(daemon.stop().code, 0);
    // In the vault's place it is the vault.
    let vault = room.path("state/vault");
    std::fs::remove_dir_all(&vault).unwrap();
    std::fs::rename(&backup, &vault).unwrap();
    let daemon = room.start();
    assert_eq!(daemon.token("test"), token);
}

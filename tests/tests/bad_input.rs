//! What people and disks do wrong: each gets one sentence, a hint and the documented exit code, and nothing is lost.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use mcp_auth_tests::{Room, Server, SmallDisk, wait_until};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn without_a_daemon_every_command_says_how_to_start_it() {
    let room = Room::with_config("");
    for arguments in
        [&["status"][..], &["token", "test"], &["login", "test"], &["logout", "test"], &["refresh", "test"], &["reload"], &["lock"]]
    {
        room.ctl(arguments).fails_with(4).says("mcp-authd");
    }
}

#[test]
fn names_that_are_none_are_usage_errors_and_touch_no_file() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    for name in ["../../x", "a/b", ".", "..", "UPPER", "-x", "test:", "test:a:b", "tëst", "a b", "x\ny", "\u{1b}[31mred", &"a".repeat(300)]
    {
        for arguments in
            [&["token", "--", name][..], &["logout", "--", name], &["login", "--no-browser", "--", name], &["refresh", "--", name]]
        {
            let output = room.ctl(arguments).fails_with(2);
            assert!(!output.stderr.contains('\u{1b}'), "an escape reached the terminal: {output:?}");
        }
    }
    assert!(!room.path("x").exists() && !room.path("state/../../x").exists());
    daemon.token("test");
}

#[test]
fn names_in_paths_of_the_socket_are_checked_too() {
    let room = Room::with_config("");
    let daemon = room.start();
    for name in ["..%2f..%2fx", "%2e%2e", "a%00b", "UPPER", "%1b"] {
        for method in ["GET", "DELETE", "PUT"] {
            let answer = daemon.call(method, &format!("/v1/grants/{name}"), &json!({ "access_token": "x" }));
            assert!(answer.status == 400 || answer.status == 404, "{method} {name}: {} {}", answer.status, answer.body);
        }
    }
}

#[test]
fn an_unknown_provider_or_grant_is_named() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let _daemon = room.start();
    room.ctl(&["login", "nosuch", "--no-browser"]).fails_with(1).says("nosuch");
    // What a script does about a grant that nobody has is to log in.
    room.ctl(&["logout", "nosuch"]).fails_with(3).says("nosuch");
    room.ctl(&["token", "nosuch"]).fails_with(3).says("nosuch");
    room.ctl(&["token", "test"]).fails_with(3).says("mcp-authctl login test");
    room.ctl(&["status", "test"]).fails_with(3).says("mcp-authctl login test");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let room = Room::with_config("");
    for arguments in
        [&["nosuch-command"][..], &["token"], &["token", "a", "b"], &["login", "test", "--callback-port", "99999"], &["status", "--nope"]]
    {
        assert_eq!(room.ctl(arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn hostile_text_of_a_provider_reaches_neither_terminal_nor_log_raw() {
    let server = Server::with_lifetime(5);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let hostile = "no \u{1b}]0;owned\u{7} \u{202e}way\r\nhint: run rm -rf";
    server.tell("answer", &json!({ "status": 400, "body": { "error": "invalid_client", "error_description": hostile } }));
    wait_until("the failed refresh", PATIENCE, || (daemon.show("/v1/grants/test")["last_error"].is_string()).then_some(()));
    let status = room.ctl(&["status"]);
    for text in [status.stdout, status.stderr, daemon.running.said()] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}') && !text.contains('\u{202e}'), "{text}");
    }
}

#[test]
fn a_full_disk_costs_no_login() {
    let server = Server::with_lifetime(5);
    let room = Room::at(&server);
    let disk = SmallDisk::over(&room.path("state"), "256k");
    let daemon = room.start();
    daemon.log_in("test", "alice");
    wait_until("a token that is in memory only", PATIENCE, || {
        // Again and again: what the daemon puts away meanwhile makes room.
        disk.fill_with_the_reserve();
        daemon.token("test");
        (daemon.show("/v1/grants/test")["not_durable"] == true).then_some(())
    });
    assert!(server.is_active(&daemon.token("test")), "what is in memory only is good too");
    let status = room.ctl(&["status"]);
    assert!(status.stdout.contains("in memory only"), "status says so: {status:?}");
    room.ctl(&["lock"]).fails_with(1).says("in memory only");
    disk.free();
    wait_until("the save", PATIENCE, || {
        daemon.token("test");
        (daemon.show("/v1/grants/test")["not_durable"] == false).then_some(())
    });
    daemon.kill();
    let daemon = room.start();
    let before = server.counters().refreshes().ok;
    wait_until("a refresh after the restart", PATIENCE, || (server.counters().refreshes().ok > before).then_some(()));
    assert!(server.is_active(&daemon.token("test")));
    assert_eq!(server.counters().reuse, 0);
}

#[test]
fn a_login_on_a_full_disk_says_so_and_keeps_nothing_half() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let disk = SmallDisk::over(&room.path("state"), "256k");
    let daemon = room.start();
    wait_until("the vault", PATIENCE, || (daemon.show("/v1/status")["vault"]["state"] == "unlocked").then_some(()));
    disk.fill();
    let mut login = daemon.start_login(&json!({ "provider": "test" }));
    let url = login.wait_for_url();
    mcp_auth_tests::Person::named("alice").browse_to_the_end(&url, mcp_auth_tests::Answer::Yes);
    login.last();
    disk.free();
    assert_eq!(daemon.stop().code, 0);
    // Either it was refused, or it was kept and written as soon as there was room: never a broken record.
    let daemon = room.start();
    assert_eq!(daemon.show("/v1/status")["vault"]["quarantined"], 0);
}

#[test]
fn a_damaged_record_is_put_aside_and_the_others_work() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    for grant in ["test", "test:work", "test:home"] {
        daemon.log_in(grant, "alice");
    }
    let tokens: Vec<String> = ["test", "test:work", "test:home"].iter().map(|grant| daemon.token(grant)).collect();
    daemon.kill();
    damage_one_record(&room.path("state"));
    let daemon = room.start();
    let answers: Vec<_> = ["test", "test:work", "test:home"].iter().map(|grant| daemon.ask(grant)).collect();
    let good =
        answers.iter().zip(&tokens).filter(|(answer, token)| answer.status == 200 && answer.json()["access_token"] == token.as_str());
    assert_eq!(good.count(), 2);
    assert_eq!(daemon.show("/v1/status")["vault"]["quarantined"], 1);
}

/// Flips a byte in the middle of the largest sealed file: a grant's record.
fn damage_one_record(state: &Path) {
    fn files(folder: &Path) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }
    let is_record = |path: &std::path::PathBuf| path.file_name().unwrap().len() >= 32;
    let largest = files(state).into_iter().filter(is_record).max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(largest, bytes).unwrap();
}

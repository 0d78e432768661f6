//! No token anywhere: a whole life at `MCP_AUTHD_LOG=trace`, and then the outputs that all the suites have left behind.
//! `tests/run` runs this suite last. The stdout of `mcp-authctl token` is the one place where a token may be.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::time::Duration;

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::{Daemon, Finding, Git, LeakSearch, Person, Room, Server, kept_folder, our_helper, wait_until};
use rustix::process::Signal;
use serde_json::json;

const SUITES: &[&str] = &[
    "login",
    "device",
    "serve",
    "stampede",
    "restart",
    "keychain",
    "sockets",
    "config",
    "passphrase",
    "logout",
    "accounts",
    "git",
    "systemd",
    "quirks",
    "private_key",
    "presets",
    "revocation",
    "model_server",
    "resource_server",
    "issued",
    "capability",
    "policy",
    "issuer",
    "issuer_attacks",
    "notifications",
    "audit",
    "remote",
    "remote_as_client",
    "dpop",
    "assertions",
    "relay",
    "streams",
    "bridge",
    "bridge_life",
    "sdks",
    "loopback",
    "elicitation",
];

fn report(findings: &[Finding]) -> String {
    let line = |finding: &Finding| format!("  {} at byte {}: {}\n", finding.path.display(), finding.offset, finding.what);
    findings.iter().map(line).collect()
}

fn search_folder(folder: &Path) {
    let (findings, files, bytes) = LeakSearch::default().search_folder(folder);
    println!("searched {files} files, {bytes} bytes in {}: {} findings", folder.display(), findings.len());
    assert!(files > 0, "nothing to search in {}", folder.display());
    assert!(findings.is_empty(), "{} leaks:\n{}", findings.len(), report(&findings));
}

#[test]
fn a_whole_life_leaves_no_token_in_outputs_nor_on_disk() {
    let server = Server::with_lifetime(5);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let user_code = log_in_by_code(&daemon);
    git_credential(&room, &server);
    wait_until("refreshes", Duration::from_secs(30), || (server.counters().refreshes().ok >= 2).then_some(()));
    for fault in ["html", "answer-200-error"] {
        server.tell(fault, &json!({ "times": 1 }));
        room.ctl(&["refresh", "test"]);
    }
    daemon.call("POST", "/v1/token", &json!({ "grant": "test", "rejected_token": "zQaT9qz-rejected-zQaT9qz" }));
    daemon.call("POST", "/v1/token", &json!({ "grant": "test", "access_token": "zQaT9qz-a-wrong-field-zQaT9qz" }));
    daemon.call("PUT", "/v1/grants/test", &json!({ "access_token": 17, "refresh_token": "zQrT9qz-x-zQrT9qz" }));
    for verb in [&["status"][..], &["status", "--json"], &["token", "test", "--fingerprint"], &["token", "test"]] {
        room.ctl(verb).ok();
    }
    let said = daemon.running.said();
    assert!(!said.contains(&user_code), "the code that a person types is logged: {said}");
    assert!(said.contains("TRACE") || said.contains("trace"), "the daemon did not log at trace: {said}");
    assert_eq!(daemon.stop().code, 0);
    let audit = std::fs::read_to_string(room.path("state/state/audit.jsonl")).unwrap();
    for event in ["started", "logged_in", "token", "stopped"] {
        assert!(audit.contains(&format!("\"event\":\"{event}\"")), "{event} is not in what is searched: {audit}");
    }
    assert!(!audit.contains("alice") && !audit.contains("://"), "an account or a URL: {audit}");
    search_folder(&room.path(""));
}

/// A device flow, whose code nobody but the provider and the daemon may know. Gives the other code, for the person alone.
fn log_in_by_code(daemon: &Daemon<'_>) -> String {
    let mut login = daemon.start_login(&json!({ "provider": "test", "account": "by-code", "flow": "device" }));
    let user_code = loop {
        if let LoginEvent::EnterCode { user_code, verification_uri_complete, .. } = login.next_event().expect("a code to enter") {
            Person::named("alice").enter_code(&verification_uri_complete.unwrap());
            break user_code;
        }
    };
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    user_code
}

/// What git asks of its helper, and says when the password was no good; the password goes to git alone.
fn git_credential(room: &Room, server: &Server) {
    let git = Git::all().pop().unwrap();
    git.set_helpers(room, "", &["", &our_helper("test")]);
    let filled = git.fill(room, "http", server.issuer().strip_prefix("http://").unwrap()).ok();
    for verb in ["approve", "reject"] {
        git.run_typing(room, &["credential", verb], &filled.stdout).ok();
    }
}

#[test]
fn every_kind_of_secret_of_the_server_is_one_that_the_search_finds() {
    let server = Server::with_lifetime(60);
    let answer = mcp_auth_tests::post_form(&server.url("/device/auth"), &[], &[("client_id", "native"), ("scope", "openid")]).json();
    let device_code = answer["device_code"].as_str().unwrap();
    let findings = LeakSearch::default().search(Path::new("answer"), device_code.as_bytes());
    assert_eq!(findings.iter().map(|finding| finding.what.as_str()).collect::<Vec<_>>(), ["device code (raw)"]);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let findings = LeakSearch::default().search(Path::new("token"), daemon.token("test").as_bytes());
    assert_eq!(findings.iter().map(|finding| finding.what.as_str()).collect::<Vec<_>>(), ["access token (raw)"]);
}

#[test]
fn an_abort_leaves_no_core_and_the_daemon_cannot_be_read() {
    let room = Room::with_config("");
    let mut daemon = room.start();
    let pid = daemon.running.pid();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}/mem")).unwrap());
    assert_eq!(owner, 0, "an undumpable process's memory belongs to root");
    daemon.running.signal(Signal::ABORT);
    daemon.running.wait();
    assert!(std::fs::read_dir(room.path("")).unwrap().flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with("core")));
}

#[test]
fn the_outputs_of_all_suites_hold_no_token() {
    let folder = kept_folder("output");
    let names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    for suite in SUITES {
        assert!(names.iter().any(|name| name.starts_with(&format!("{suite}-"))), "the suite {suite} has left no output: run tests/run");
    }
    search_folder(&folder);
}

//! No token anywhere: a whole life at `MCP_AUTHD_LOG=trace`, and then the outputs that all the suites have left behind.
//! `tests/run` runs this suite last. The stdout of `mcp-authctl token` is the one place where a token may be.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::time::Duration;

use mcp_auth_tests::{Finding, LeakSearch, Room, Server, kept_folder, wait_until};
use rustix::process::Signal;
use serde_json::json;

const SUITES: [&str; 9] = ["login", "serve", "stampede", "restart", "keychain", "sockets", "config", "passphrase", "logout"];

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
    assert!(said.contains("TRACE") || said.contains("trace"), "the daemon did not log at trace: {said}");
    assert_eq!(daemon.stop().code, 0);
    search_folder(&room.path(""));
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

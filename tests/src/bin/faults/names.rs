//! Names that are none, wherever a name is taken: T45.

use std::path::Path;

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Daemon, Listing, Room};
use serde_json::{Value, json};

use crate::report::{Case, Report};

/// The rows of the table.
pub(crate) const CASES: &[Case] =
    &[Case { id: "T45", title: "names that are none are refused everywhere, and no file is made", rounds: 96, quick: 24, run: names }];

const MARK: &str = "pwn-by-name";

/// Names that would lead elsewhere, end early, have no end, or look like another one.
fn bad_names() -> Vec<String> {
    let climbing = |steps: usize| format!("{}{MARK}", "../".repeat(steps));
    let fixed = [
        ".",
        "..",
        "a/b",
        "a\\b",
        "/tmp/pwn-by-name",
        "test\0pwn-by-name",
        "test\npwn-by-name",
        "-test",
        "UPPER",
        "test:",
        ":test",
        "test:a:b",
        "a b",
        "$(touch pwn-by-name)",
        "t\u{435}st",
        "te\u{200b}st",
        "\u{ff54}\u{ff45}\u{ff53}\u{ff54}",
        "tes\u{301}t",
        "\u{1b}[2Jtest",
    ];
    let long = ["a".repeat(64), "a".repeat(300), format!("test:{}", "b".repeat(64)), "%2e%2e%2f".repeat(3) + MARK];
    fixed.into_iter().map(str::to_owned).chain(long).chain([climbing(1), climbing(2), climbing(7)]).collect()
}

fn names(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(std::time::Duration::from_secs(300)));
    let mut room = Room::at_rogue(&rogue);
    room.set("MCP_AUTHD_LOG", "info");
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let names = bad_names();
    let mut tries = 0;
    for round in 0..report.rounds() as usize {
        let name = &names[round % names.len()];
        let before = Listing::of(&room.path(""));
        report.round(|| {
            tries += on_the_wire(&daemon, name) + on_the_command_line(&room, name);
            let changes = before.changes(&Listing::of(&room.path("")), &room.path("state/state/audit.jsonl"));
            assert!(changes.is_empty(), "{name:?}: {changes:?}");
            for outside in ["/", "/tmp", "/proc/self/cwd"] {
                assert!(!Path::new(outside).join(MARK).exists(), "{name:?}: a file in {outside}");
            }
            daemon.token("test");
        });
    }
    report.figure(format!("{} names, {tries} requests and commands", names.len()));
}

/// Every place of the wire that takes a name: how many there are.
fn on_the_wire(daemon: &Daemon<'_>, name: &str) -> usize {
    let segment: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let token = json!({ "access_token": "x" });
    let nothing = json!({});
    let mut calls: Vec<(&str, String, Value)> = vec![
        ("GET", format!("/v1/grants/{segment}"), nothing.clone()),
        ("PUT", format!("/v1/grants/{segment}"), token.clone()),
        ("PUT", format!("/v1/grants/test:{segment}"), token),
        ("DELETE", format!("/v1/grants/{segment}"), nothing.clone()),
        ("POST", format!("/v1/grants/{segment}/refresh"), nothing.clone()),
        ("PUT", format!("/v1/providers/{segment}"), json!({ "issuer": "https://as.example", "client_id": "c" })),
        ("PUT", format!("/v1/providers/{segment}/secret"), json!({ "client_secret": "x" })),
        ("DELETE", format!("/v1/logins/{segment}"), nothing),
        ("POST", format!("/v1/logins/{segment}/redirect"), json!({ "url": "http://127.0.0.1:1/callback?code=c" })),
    ];
    for body in [json!({ "grant": name }), json!({ "resource": name })] {
        calls.push(("POST", "/v1/token".to_owned(), body));
    }
    for body in [json!({ "provider": name }), json!({ "provider": "test", "account": name })] {
        calls.push(("POST", "/v1/logins".to_owned(), body));
    }
    for (method, target, body) in &calls {
        let answer = daemon.call(method, target, body);
        assert!((400..500).contains(&answer.status), "{method} {target} {body}: {} {}", answer.status, answer.body);
        assert!(answer.json()["error_description"].is_string(), "{method} {target}: {}", answer.body);
        let harmful = answer.body.chars().any(|c| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'));
        assert!(!harmful, "{method} {target}: {}", answer.body.escape_debug());
        assert!(answer.body.len() < 2_000, "{method} {target}: {}", answer.body);
    }
    calls.len()
}

/// Every verb that takes a name: how many there are.
fn on_the_command_line(room: &Room, name: &str) -> usize {
    // No argument can hold it.
    if name.contains('\0') {
        return 0;
    }
    let verbs: [&[&str]; 12] = [
        &["token", "--", name],
        &["status", "--", name],
        &["status", "--check", name],
        &["login", "--no-browser", "--", name],
        &["login", "--no-browser", "--account", name, "test"],
        &["logout", "--", name],
        &["refresh", "--", name],
        &["add-token", "--", name],
        &["provider", "add", "--issuer", "https://as.example", "--client-id", "c", "--", name],
        &["provider", "show", "--", name],
        &["provider", "set-secret", "--", name],
        &["token", "--json", "--", name],
    ];
    for verb in verbs {
        let output = room.ctl_typing(verb, "x");
        assert!(output.code == 2 || output.code == 1, "{verb:?}: {output:?}");
        assert!(output.stdout.is_empty() && output.stderr.contains("error"), "{verb:?}: {output:?}");
        let harmful = output.stderr.chars().any(|c| c.is_control() && c != '\n');
        assert!(!harmful, "{verb:?}: {output:?}");
    }
    verbs.len()
}

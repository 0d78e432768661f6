//! `policy` and the consent half of `approve` on pipes, against canned answers.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test crate; an unwrap is how it fails")]

mod canned;

use canned::{Daemon, Reply, error};

const RULE: &str = r#"{"id":1,"grant":"github","subject":{"program":{"executable":"/bin/sh2"}},"answer":"allow"}"#;
const USED: &str = r#"[{"at":"2026-11-21T10:00:00Z","event":"token","grant":"github","program":{"executable":"/opt/a\u001b[2J"},"count":3},
    {"at":"2026-11-21T11:00:00Z","event":"token","grant":"github","program":{"executable":"/opt/a\u001b[2J"},"count":1}]"#;
const CONSENT: &str = r#"{"id":"1234-5678","program":{"executable":"/opt/a\u001b[2J","pid":7,"weak":["it is \u202eodd"]},"grant":"github",
    "scopes":["repo"],"host":"github.com","remember":true,"expires_in":42}"#;

#[test]
fn before_a_grant_is_closed_it_is_said_who_had_its_tokens_lately_and_an_old_daemon_says_nothing_of_it() {
    let program = std::fs::canonicalize("/bin/true").unwrap();
    for (audit, expected) in [(200, "in the last 30 d tokens of github went to\n  /opt/a?[2J\n"), (404, "")] {
        let daemon = Daemon::new(move |asked| match asked.split(' ').nth(1).unwrap() {
            "/v1/audit" if audit == 200 => Reply::Json(200, USED.into()),
            "/v1/audit" => Reply::Json(404, error("not_found", "")),
            "/v1/policy" if asked.starts_with("GET") => Reply::Json(200, r#"{"rules":[]}"#.into()),
            _ => Reply::Json(200, RULE.into()),
        });
        let ran = daemon.run(&["policy", "add", "github", "--program", program.to_str().unwrap()]);
        assert_eq!((ran.code, &*ran.stdout), (Some(0), "1   github  /bin/sh2 gets tokens\n"));
        assert!(ran.stderr.starts_with(expected) && ran.stderr.contains("is closed for every other program"), "{ran:?}");
    }
}

#[test]
fn a_question_is_shown_without_a_control_byte_and_nobody_says_yes_without_a_terminal() {
    let daemon = Daemon::saying(200, CONSENT);
    let ran = daemon.run(&["approve", "1234-5678"]);
    assert_eq!(ran.code, Some(1));
    for shown in ["/opt/a?[2J", "process   7", "scopes    repo", "host      github.com", "it is ?odd", "no terminal"] {
        assert!(ran.stderr.contains(shown), "{shown}: {ran:?}");
    }
    assert!(daemon.asked().starts_with("GET /v1/consents/1234-5678") && daemon.asked_already().is_none());
    let ran = daemon.run(&["approve", "1234-5678", "--yes", "--json"]);
    assert_eq!((ran.code, serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["id"].as_str()), (Some(0), Some("1234-5678")));
    assert!(daemon.asked().starts_with("GET") && daemon.asked() == r#"POST /v1/consents/1234-5678 {"allow":true}"#);
}

#[test]
fn nothing_is_opened_to_everybody_without_a_terminal_but_by_yes() {
    let daemon = || {
        Daemon::new(|asked| match asked.split(' ').next().unwrap() {
            "GET" => Reply::Json(200, format!(r#"{{"rules":[{RULE}]}}"#)),
            _ if asked.starts_with("DELETE /v1/policy/") => Reply::Json(200, r#"{"grant":"github","opens":true}"#.into()),
            _ => Reply::Json(200, r#"{"rules":[]}"#.into()),
        })
    };
    for verb in [&["policy", "remove", "1"][..], &["policy", "reset"]] {
        let daemon = daemon();
        let ran = daemon.run(verb);
        let expected = format!("error: there is no terminal to ask on\nhint: mcp-authctl {} --yes\n", verb.join(" "));
        assert_eq!((ran.code, ran.stderr), (Some(1), expected));
        let ran = daemon.run(&[verb, &["--yes"]].concat());
        assert_eq!((ran.code, ran.stderr.contains("every program of yours")), (Some(0), true), "{ran:?}");
    }
}

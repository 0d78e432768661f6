//! T43: what others say on a desktop notification.

use std::time::Duration;

use mcp_auth_tests::rogue::{Content, Plan, Rogue, Rules};
use mcp_auth_tests::{Asker, Desktop, Room, Shown, told as told_by, wait_until};
use serde_json::{Value, json};

use crate::report::{Case, Report};

pub(crate) const CASES: &[Case] = &[Case {
    id: "T43",
    title: "no markup, option, line or control character of others on a notification",
    rounds: 60,
    quick: 6,
    run: told,
}];

const PATIENCE: Duration = Duration::from_secs(20);

/// Markup, options of a notification program, a second line, an escape sequence, text the other way round, and no end.
const HOSTILE: &str =
    "OWNED <a href=\"https://evil.example/\">click</a><img src='x'/> &amp; & -u critical\n--urgency=critical \u{1b}[31m\u{202e}\0";

/// Where the text comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Account,
    Scope,
    Description,
    EndingSoon,
    Program,
}

const SOURCES: [Source; 5] = [Source::Program, Source::Account, Source::Scope, Source::Description, Source::EndingSoon];

fn told(report: &mut Report) {
    let mut seen = 0;
    for round in 0..report.rounds() as usize {
        let source = SOURCES[round % SOURCES.len()];
        seen += report.round(|| if matches!(source, Source::Program) { asked() } else { one(source) }).unwrap_or_default();
    }
    report.figure(format!("{} ways in, {seen} notifications looked at", SOURCES.len()));
}

/// A login whose every text is hostile, and its end: how many notifications were looked at.
fn one(source: Source) -> usize {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(2)));
    let endless = format!("{HOSTILE}{}", "<".repeat(2_000));
    let lifetime = if matches!(source, Source::EndingSoon) { "refresh_token_lifetime = 4" } else { "" };
    let table = rogue.provider_table("test", &format!("userinfo_endpoint = \"{}/me\"\n{lifetime}", rogue.issuer()));
    let mut room = Room::with_config(&table);
    let desktop = Desktop::mocked(&mut room);
    let daemon = room.start();
    for name in ["-u", "--urgency=critical", "<b>x</b>", "a\nb"] {
        assert_eq!(daemon.call("POST", "/v1/logins", &json!({ "provider": name })).status, 400, "{name}: a grant may be called so");
    }
    match source {
        Source::Account => rogue.plan(edited("/me", move |body| body["email"] = endless.clone().into())),
        Source::Scope => rogue.plan(edited("/token", move |body| body["scope"] = format!("mcp:read {endless}").into())),
        Source::Description | Source::EndingSoon | Source::Program => {}
    }
    daemon.log_in("test", "alice");
    if matches!(source, Source::EndingSoon) {
        desktop.wait_for(1);
    }
    let dead = json!({ "error": "invalid_grant", "error_description": HOSTILE, "error_uri": HOSTILE });
    rogue.plan(Plan::json(400, &dead));
    wait_until("the end of the login", PATIENCE, || (daemon.show("/v1/grants/test")["state"] == "login_required").then_some(()));
    let shown = wait_until("a notification of it", PATIENCE, || {
        Some(desktop.shown()).filter(|shown| shown.iter().any(|shown| shown.summary == "Login needed: test"))
    });
    for shown in &shown {
        assert!(!shown.raw.contains("OWNED") && !shown.raw.contains("evil"), "{source:?}: no word of the provider: {shown:?}");
        assert_eq!(shown.urgency, 1, "{source:?}: {shown:?}");
        harmless(source, shown);
    }
    shown.len()
}

/// A program whose path is hostile asks for a token whose scopes are.
fn asked() -> usize {
    let mut room = Room::with_config("");
    let desktop = Desktop::mocked(&mut room);
    let daemon = room.start();
    let scopes = json!(["repo", "<a\u{a0}href='evil'>", "&amp;", "-u", format!("OWNED{}", "<".repeat(2_000))]);
    let token = json!({ "access_token": "zQaT9qz-static-zQaT9qz", "scopes": scopes });
    assert_eq!(daemon.call("PUT", "/v1/grants/test", &token).status, 200);
    room.ctl(&["policy", "add", "test", "--anyone", "--ask", "always"]).ok();
    let name: String = HOSTILE.chars().filter(|c| !matches!(c, '/' | '\0')).collect();
    let program = Asker::new(&room, &name);
    let mut waiting = program.spawn("/v1/token", &json!({ "grant": "test" }));
    let shown = desktop.wait_for(1).remove(0);
    for part in ["programs/OWNED &lt;a href=", "&lt;img src=&apos;x&apos;&gt; &amp;amp; &amp; -u critical\\u{a}--urgency=critical"] {
        assert!(shown.body.contains(part), "it is shown as what it is: {shown:?}");
    }
    assert_eq!((shown.urgency, shown.body.lines().count()), (2, 4), "{shown:?}");
    harmless(Source::Program, &shown);
    desktop.press(shown.number, "deny");
    assert_eq!(told_by(&mut waiting).status, 403);
    1
}

fn edited(path: &str, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Plan {
    Plan { content: Content::Edited(std::sync::Arc::new(edit)), ..Plan::honest(path) }
}

/// Nothing that a desktop could take for more than words.
fn harmless(source: Source, shown: &Shown) {
    for text in [&shown.summary, &shown.body] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' || matches!(c, '<' | '>' | '"' | '\u{202e}')), "{source:?}: {shown:?}");
        assert!(text.chars().count() < 2_500, "{source:?}: no end: {shown:?}");
    }
    let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&apos;"];
    let plain = entities.iter().fold(shown.body.clone(), |body, entity| body.replace(entity, ""));
    assert!(!plain.contains('&') && !shown.summary.contains('\n'), "{source:?}: {shown:?}");
}

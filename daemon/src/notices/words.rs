//! PURE: the sentences of the notifications, and their buttons.

use std::collections::BTreeSet;
use std::time::Duration;

use mcp_auth_proto::{Consent, GrantName, Program};

use crate::notify::{Action, Notification};

pub(super) const LOG_IN: Action = Action { id: "log-in", label: "Log in" };
pub(super) const TRY_NOW: Action = Action { id: "try-now", label: "Try now" };
pub(super) const ALLOW: Action = Action { id: "allow", label: "Allow" };
pub(super) const DENY: Action = Action { id: "deny", label: "Deny" };

/// The longest path that is shown whole, characters. Of a longer one start and end are: the end is its name.
const LONGEST_PATH: usize = 120;
const START_OF_PATH: usize = 40;
/// So much of the scopes is shown, characters.
const LONGEST_SCOPES: usize = 200;
/// So many grants are named.
const MOST_NAMES: usize = 3;

/// With this button besides.
pub(super) fn with(mut notification: Notification, button: Option<Action>) -> Notification {
    notification.actions.extend(button);
    notification
}

pub(super) fn login(name: &GrantName, remedy: &str) -> Notification {
    told(
        format!("Login needed: {name}"),
        vec!["Programs get no new token of it until you log in again.".into(), format!("In a terminal: {remedy}")],
    )
}

pub(super) fn logins() -> Notification {
    told("Several logins are needed".into(), vec!["`mcp-authctl status` shows which, and the commands.".into()])
}

pub(super) fn ending(name: &GrantName, sentence: &str) -> Notification {
    told(format!("Login ends soon: {name}"), vec![capital(sentence)])
}

pub(super) fn failing(name: &GrantName) -> Notification {
    let mut notification = told(
        format!("No fresh token: {name}"),
        vec![
            "It could not be refreshed for an hour or more, and is tried again by itself.".into(),
            format!("Why: mcp-authctl status {name}"),
        ],
    );
    notification.actions.push(TRY_NOW);
    notification
}

pub(super) fn not_saved(names: &BTreeSet<GrantName>) -> Notification {
    let shown: Vec<_> = names.iter().take(MOST_NAMES).map(GrantName::as_str).collect();
    let more = names.len().saturating_sub(MOST_NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    told(
        "New tokens cannot be saved".into(),
        vec![
            format!("The disk refuses those of {}{more}. They are in memory only: a crash now would cost the login.", shown.join(", ")),
            "It is tried again every minute. Make room on the disk; mcp-authctl doctor tells more.".into(),
        ],
    )
}

pub(super) fn consent(consent: &Consent) -> Notification {
    let Consent { id, program, grant, scopes, resource: _, host, remember, expires_in } = consent;
    let mut body = programs(program);
    body.push(format!("Grant: {grant} ({host})"));
    body.push(format!("Scopes: {}", if scopes.is_empty() { "not known".into() } else { ended(&scopes.join(" "), LONGEST_SCOPES) }));
    if *remember {
        body.push("A yes is remembered for this program.".into());
    }
    body.push(format!("No answer is a no. In a terminal: mcp-authctl approve {id}"));
    Notification {
        summary: format!("A program asks for a token of {grant}"),
        body,
        actions: vec![ALLOW, DENY],
        urgent: true,
        lasts: Some(Duration::from_secs(*expires_in)),
    }
}

/// Who asks. The summary has none of this: a program chooses its own path.
fn programs(program: &Program) -> Vec<String> {
    let Program { executable, script, unit, pid, only: _, client, weak } = program;
    let mut lines = vec![match (executable, pid) {
        _ if client.is_some() => format!("Client of the relay: {}", client.as_deref().unwrap_or_default()),
        (Some(executable), Some(pid)) => format!("Program: {} (process {pid})", path(executable)),
        (Some(executable), None) => format!("Program: {}", path(executable)),
        (None, Some(pid)) => format!("Program: not known (process {pid})"),
        (None, None) => "Program: not known".into(),
    }];
    lines.extend(script.as_ref().map(|script| format!("Script: {}", path(script))));
    lines.extend(unit.as_ref().map(|unit| format!("Unit: {}", path(unit))));
    if !weak.is_empty() {
        lines.push(format!("Not for sure: {}", weak.join("; ")));
    }
    lines
}

/// Stays until somebody closes it, or it is moot.
fn told(summary: String, body: Vec<String>) -> Notification {
    Notification { summary, body, actions: Vec::new(), urgent: false, lasts: None }
}

/// A path without its middle, if it is long.
fn path(path: &str) -> String {
    let length = path.chars().count();
    if length <= LONGEST_PATH {
        return path.to_owned();
    }
    let start: String = path.chars().take(START_OF_PATH).collect();
    let end: String = path.chars().skip(length - (LONGEST_PATH - START_OF_PATH)).collect();
    format!("{start}...{end}")
}

/// A text without its end, if it is long.
fn ended(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    format!("{}...", text.chars().take(longest).collect::<String>())
}

fn capital(sentence: &str) -> String {
    let mut rest = sentence.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_program_grant_host_scopes_and_the_command() {
        let asked = Consent {
            id: "k7f3".into(),
            program: Program {
                executable: Some("/usr/bin/node".into()),
                script: Some(format!("/home/u/{}/server.js", "x".repeat(500))),
                unit: None,
                pid: Some(41),
                only: Vec::new(),
                client: None,
                weak: vec!["its script is what its own command line says".into()],
            },
            grant: "github:work".parse().unwrap(),
            scopes: vec!["repo".into(), "s".repeat(500)],
            resource: None,
            host: "api.github.com".into(),
            remember: true,
            expires_in: 60,
        };
        let shown = consent(&asked);
        assert_eq!(shown.summary, "A program asks for a token of github:work");
        assert_eq!(shown.body[0], "Program: /usr/bin/node (process 41)");
        assert!(shown.body[1].starts_with("Script: /home/u/xxx") && shown.body[1].ends_with("x/server.js"), "{:?}", shown.body);
        assert_eq!(shown.body[1].chars().count(), "Script: ".len() + LONGEST_PATH + 3);
        assert_eq!(shown.body[2], "Not for sure: its script is what its own command line says");
        assert_eq!(shown.body[3], "Grant: github:work (api.github.com)");
        assert!(shown.body[4].starts_with("Scopes: repo sss") && shown.body[4].len() == "Scopes: ...".len() + LONGEST_SCOPES);
        assert_eq!(shown.body[5], "A yes is remembered for this program.");
        assert!(shown.body[6].ends_with("mcp-authctl approve k7f3"));
        assert_eq!((shown.actions, shown.urgent, shown.lasts), (vec![ALLOW, DENY], true, Some(Duration::from_secs(60))));
    }

    #[test]
    fn a_disk_that_refuses_many_is_told_with_the_first_of_them() {
        let names = ["a", "b", "c", "d", "e"].map(|name| name.parse().unwrap()).into_iter().collect();
        assert!(not_saved(&names).body[0].starts_with("The disk refuses those of a, b, c and 2 more."));
    }
}

//! `doctor`: looks at everything that a login rests on, and says of each fault what to do. Works without the daemon too;
//! changes nothing.

mod daemon;
mod issuer;
mod machine;
mod redact;

use std::time::Duration;

use mcp_auth_proto::{Client, GrantSummary, Notifications, ProviderReach, ProviderSummary, Status, VaultState};
use serde::Serialize;

use self::redact::Redactor;
use super::service::{self, ServiceError, State};
use super::settled_status;
use crate::failure::Failure;
use crate::output::{self, field};
use crate::surroundings::Network;

/// Look for what is wrong here, and say what to do about it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl doctor
  mcp-authctl doctor --report > report.txt       for a bug report: without your names and hosts
  mcp-authctl doctor --json | jq '.checks[] | select(.level == \"failed\")'
Exit code: 0 when no check failed, else 1. The providers that are configured or logged in to are
asked; nobody else is.")]
pub(crate) struct Args {
    /// Leave out what tells about you: accounts, paths with your name, hosts and providers that are not built in
    #[arg(long)]
    report: bool,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let checks = Found::gather(client).checks();
    let shown: Vec<_> = if args.report {
        let redactor = Redactor::of_this_process();
        checks.iter().map(|check| check.redacted(&redactor)).collect()
    } else {
        checks.iter().map(Check::whole).collect()
    };
    let failed = checks.iter().filter(|check| check.level == Level::Failed).count();
    if json {
        output::json(&serde_json::json!({ "checks": shown, "failed": failed }))?;
    } else {
        let head = format!("mcp-authctl {} on {} {}\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
        output::line(&(if args.report { head } else { String::new() } + &text(&shown)))?;
    }
    if failed == 0 {
        return Ok(());
    }
    // It may name what a report leaves out.
    let hint = checks.into_iter().filter(|check| !args.report && check.level == Level::Failed).find_map(|check| check.hint);
    Err(Failure::ChecksFailed { failed, all: shown.len(), hint })
}

/// How long the daemon may take for one answer. It gives the providers 14 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// As it should be.
    Ok,
    /// Good to know; nothing has to be done.
    Note,
    /// It works, and something should be done all the same.
    Warning,
    /// Something does not work.
    Failed,
}

/// One thing that was looked at.
struct Check {
    name: &'static str,
    level: Level,
    detail: String,
    hint: Option<String>,
    /// What a report says instead of `detail`; a path or a user name in it is still replaced.
    safe: Option<String>,
}

impl Check {
    fn new(name: &'static str, level: Level, detail: impl Into<String>) -> Self {
        Self { name, level, detail: detail.into(), hint: None, safe: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn safe(self, safe: impl Into<String>) -> Self {
        Self { safe: Some(safe.into()), ..self }
    }

    fn whole(&self) -> Shown {
        Shown { name: self.name, level: self.level, detail: field(&self.detail), hint: self.hint.as_deref().map(field) }
    }

    fn redacted(&self, redactor: &Redactor) -> Shown {
        let detail = redactor.text(self.safe.as_deref().unwrap_or(&self.detail));
        Shown { name: self.name, level: self.level, detail: field(&detail), hint: None }
    }
}

/// A check as it is printed.
#[derive(Serialize)]
struct Shown {
    name: &'static str,
    level: Level,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

fn text(checks: &[Shown]) -> String {
    let lines = checks.iter().map(|check| {
        let mark = match check.level {
            Level::Ok => "[ok]",
            Level::Note => "[note]",
            Level::Warning => "[warning]",
            Level::Failed => "[failed]",
        };
        let hint = check.hint.as_ref().map(|hint| format!("\n{:20}hint: {hint}", "")).unwrap_or_default();
        format!("{mark:9} {:9} {}{hint}", check.name, check.detail)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What could be found out.
struct Found<'a> {
    client: &'a Client,
    network: Network,
    service: Result<State, ServiceError>,
    /// Why the daemon tells nothing, or what it tells.
    daemon: Result<Told, Failure>,
}

/// What the daemon tells.
struct Told {
    status: Status,
    /// `None` while the vault is locked.
    grants: Option<Vec<GrantSummary>>,
    reaches: Result<Vec<ProviderReach>, Failure>,
    /// Remote servers that say themselves who is shown the client secret.
    unbound: Vec<ProviderSummary>,
    /// `None`: the daemon is older than the question.
    notifications: Option<Notifications>,
}

impl<'a> Found<'a> {
    fn gather(client: &'a Client) -> Self {
        // First: to ask the daemon may start it.
        let service = service::state(client);
        let daemon = settled_status(client).map_err(Failure::from).map(|status| Told {
            reaches: client.doctor().map_err(Failure::from),
            unbound: client.providers().unwrap_or_default().into_iter().filter(|provider| provider.unbound_secret).collect(),
            notifications: client.notifications().ok(),
            grants: if status.vault.state == VaultState::Unlocked { client.grants().ok() } else { None },
            status,
        });
        Self { client, network: Network::of_this_process(), service, daemon }
    }

    fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.programs(), self.socket(), self.service(), self.config()];
        if let Ok(told) = &self.daemon {
            checks.extend(told.vault());
            checks.extend(told.logins());
            checks.extend(told.network(&self.network));
            checks.extend(told.providers());
            checks.extend(told.unbound_secrets());
            checks.extend(told.clock());
            checks.extend(self.issuer());
            checks.extend(told.relay());
            checks.extend(told.desktop());
        }
        checks.extend(machine::other_tools());
        checks
    }
}

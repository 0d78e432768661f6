//! `status`: what is held, and what needs the person.

mod table;
mod watch;

use mcp_auth_proto::{Client, ClientError, ErrorBody, ErrorCode, GrantState, GrantSummary, Status, VaultState};

use super::target::Target;
use super::{MEND_AUDIT, MEND_CONFIG, audit_unwritten, not_durable, quarantined, scopes, validity, vault_line};
use crate::failure::Failure;
use crate::output::{self, field, span};

/// Show what is held, and what needs you
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl status
  mcp-authctl status github                      everything about one grant
  mcp-authctl status --watch                     follows what changes, until Ctrl-C
  mcp-authctl status --check github || mcp-authctl login github
  mcp-authctl status --json | jq '.grants[] | select(.state != \"ok\")'

--check exits with 0 when a token can be had, 3 when a login is needed, 4 when the daemon does not
run, 5 when the provider does not answer, and 7 when the vault is locked.")]
pub(crate) struct Args {
    /// Show this grant only, in full
    #[arg(value_name = "NAME", conflicts_with_all = ["check", "long"])]
    target: Option<Target>,
    /// Tell by the exit code alone whether this grant can serve a token
    #[arg(long, value_name = "NAME", conflicts_with_all = ["long", "watch"])]
    check: Option<Target>,
    /// Show every grant in full: last refresh, last error, all scopes
    #[arg(long)]
    long: bool,
    /// Follow what changes: redrawn on a terminal, a line for each change elsewhere
    #[arg(long)]
    watch: bool,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    if let Some(target) = &args.check {
        let checked = target.grant(client).and_then(|name| check(&client.grant(&name)?));
        // Its exit codes are the answer; what none of them tells is said.
        let told = |failure: &Failure| json || failure.exit_code() == 1;
        return checked.map_err(|failure| if told(&failure) { failure } else { Failure::Quiet(Box::new(failure)) });
    }
    if args.watch {
        let name = args.target.as_ref().map(|target| target.grant(client)).transpose()?;
        return watch::run(client, name.as_ref(), if json { watch::Form::Json } else { watch::Form::here(args.long) });
    }
    if let Some(target) = &args.target {
        let grant = client.grant(&target.grant(client)?)?;
        return if json { output::json(&grant) } else { output::line(&description(&grant)) };
    }
    let snapshot = Snapshot::take(client)?;
    if json {
        output::json(&snapshot.to_json())?;
    } else {
        output::line(&snapshot.text(args.long))?;
    }
    // What was just shown says why.
    snapshot.locked.map_or(Ok(()), |body| Err(Failure::Quiet(Box::new((*body).into()))))
}

fn check(grant: &GrantSummary) -> Result<(), Failure> {
    match (grant.state, grant.expires_in) {
        (GrantState::LoginRequired, _) => Err(Failure::NotLoggedIn {
            grant: grant.name.to_string(),
            remedy: grant.remedy.clone(),
            reason: grant.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default(),
        }),
        (GrantState::Retrying, Some(0)) => Err(Failure::NotRefreshed(grant.name.to_string())),
        _ => Ok(()),
    }
}

/// Everything that `status` shows, at one moment.
struct Snapshot {
    status: Status,
    /// By name.
    grants: Vec<GrantSummary>,
    /// Why there are no grants to show.
    locked: Option<Box<ErrorBody>>,
}

impl Snapshot {
    fn take(client: &Client) -> Result<Self, Failure> {
        let status = client.status()?;
        let asked = if status.vault.needs_setup { Err(no_vault(&status)) } else { client.grants() };
        let (mut grants, locked) = match asked {
            Ok(grants) => (grants, None),
            // The vault's state is worth showing all the same.
            Err(ClientError::Api(body)) if body.error == ErrorCode::VaultLocked => (Vec::new(), Some(body)),
            Err(error) => return Err(error.into()),
        };
        grants.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { status, grants, locked })
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "status": self.status, "grants": self.grants })
    }

    fn text(&self, long: bool) -> String {
        let mut lines = problems(&self.status);
        if self.grants.is_empty() && self.locked.is_none() {
            lines.push("no grants yet; log in with `mcp-authctl login NAME`, providers: `mcp-authctl provider list`".to_owned());
        } else if long {
            lines.push(self.grants.iter().map(description).collect::<Vec<_>>().join("\n\n"));
        } else if !self.grants.is_empty() {
            lines.extend(table::lines(&self.grants));
        }
        if lines.is_empty() {
            lines.push(vault_line(&self.status.vault));
        }
        lines.join("\n")
    }
}

/// What the daemon would answer after a while, in which a keychain might appear.
fn no_vault(status: &Status) -> ClientError {
    let mut body = ErrorBody::new(ErrorCode::VaultLocked, status.vault.reason.as_deref().unwrap_or("there is no vault yet"));
    body.hint.clone_from(&status.vault.hint);
    ClientError::Api(Box::new(body))
}

/// What concerns every grant, with its remedy.
fn problems(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    let vault = &status.vault;
    if vault.state != VaultState::Unlocked {
        let hint = vault.hint.as_deref().unwrap_or("mcp-authctl unlock");
        lines.extend([vault_line(vault), format!("  hint: {}", field(hint))]);
    }
    lines.extend(quarantined(vault).map(|told| format!("vault: {told}, log in again for what is missing below")));
    if let Some(error) = &status.config.error {
        // It mostly begins with the path, and then with the line.
        let path = if error.starts_with(&status.config.path) { String::new() } else { format!("{}: ", field(&status.config.path)) };
        lines.push(format!("config: {path}{}", field(error)));
        lines.push(format!("  hint: {MEND_CONFIG}"));
    }
    if let Some(error) = status.issuer.as_ref().and_then(|issuer| issuer.error.as_deref()) {
        lines.push(format!("issuer: {}", field(error)));
        lines.push("  hint: end the program that has the port, or change `listen` in [issuer], then `mcp-authctl reload`".to_owned());
    }
    if let Some(error) = status.relay.as_ref().and_then(|relay| relay.error.as_deref()) {
        lines.push(format!("relay: {}", field(error)));
        lines.push("  hint: end the program that has the port, or change `listen` in [relay], then `mcp-authctl reload`".to_owned());
    }
    lines.extend(not_durable(status).map(|told| format!("disk: {told}")));
    if let Some(told) = audit_unwritten(status) {
        lines.extend([told, format!("  hint: {MEND_AUDIT}")]);
    }
    lines.extend(status.paused.iter().map(|it| format!("{} does not answer, next attempt in {}", field(&it.issuer), span(it.retry_after))));
    lines
}

fn state(grant: &GrantSummary) -> &'static str {
    match grant.state {
        GrantState::Ok => "ok",
        GrantState::Refreshing => "refreshing",
        GrantState::Retrying => "retrying",
        GrantState::LoginRequired => "LOGIN NEEDED",
    }
}

/// What the person should do about a grant, or know of it; mostly nothing.
fn to_do(grant: &GrantSummary) -> String {
    match grant.state {
        GrantState::LoginRequired => field(&grant.remedy),
        _ if grant.refresh_token_ending => ending(grant),
        _ if grant.not_durable => "not on disk yet".to_owned(),
        _ if !grant.refreshable && grant.expires_in.is_some() => format!("by then: {}", field(&grant.remedy)),
        _ if grant.dpop => format!("no program gets its tokens: mcp-authctl bridge {}", grant.name),
        _ => String::new(),
    }
}

/// The refresh token ends by itself; what to do before.
fn ending(grant: &GrantSummary) -> String {
    let when = match grant.refresh_token_expires_in {
        Some(seconds @ 1..) => format!("the login ends in {}", span(seconds)),
        _ => "the login has reached its end".to_owned(),
    };
    format!("{when}: {}", field(&grant.remedy))
}

fn description(grant: &GrantSummary) -> String {
    let mut lines = vec![
        ("grant", grant.name.to_string()),
        ("state", format!("{}{}", state(grant), validity(grant))),
        ("provider", field(&grant.provider)),
    ];
    let mut add = |word, value: &Option<String>| lines.extend(value.as_ref().map(|value| (word, field(value))));
    add("account", &grant.account);
    add("issuer", &grant.issuer);
    add("server", &grant.server);
    add("resource", &grant.resource);
    add("last error", &grant.last_error);
    add("refreshed at", &grant.refreshed_at);
    add("fingerprint", &grant.fingerprint);
    if grant.closed {
        lines.push(("closed", "to all but the programs that `mcp-authctl policy list` names".to_owned()));
    }
    if grant.default {
        lines.push(("default", format!("{} stands for it", grant.name.base())));
    }
    lines.push(("scopes", scopes(&grant.scopes)));
    if grant.client_credentials {
        lines.push(("login", "none: the client's own credentials".to_owned()));
    }
    if grant.dpop {
        lines.push(("tokens", format!("bound to a key of the daemon (DPoP), for mcp-authctl bridge {} alone", grant.name)));
    }
    if let Some(assertion) = &grant.assertion {
        lines.push(("login", format!("none: {}", field(assertion))));
    }
    if grant.on_demand {
        lines.push(("next refresh", "on demand".to_owned()));
    }
    if let Some(seconds) = grant.next_refresh_in {
        lines.push(("next refresh in", span(seconds)));
    }
    if let (Some(at), Some(seconds)) = (&grant.refresh_token_expires_at, grant.refresh_token_expires_in) {
        let left = if seconds == 0 { "over".to_owned() } else { span(seconds) };
        lines.push(("login ends", format!("{} ({left})", field(at))));
    }
    let to_do = to_do(grant);
    if !to_do.is_empty() {
        lines.push(("to do", to_do));
    }
    lines.extend(grant.holders.iter().map(|holder| ("held by", table::holder(holder))));
    lines.into_iter().map(|(word, value)| format!("{word}: {value}")).collect::<Vec<_>>().join("\n")
}

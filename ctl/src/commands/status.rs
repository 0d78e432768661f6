//! `status`: what is held, and what needs the person.

use mcp_auth_proto::{Client, ClientError, ErrorCode, GrantName, GrantState, GrantSummary, Holder, Status, VaultState};

use super::{scopes, validity, vault_line};
use crate::failure::Failure;
use crate::output::{self, field, span};

/// Show what is held, and what needs you
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl status
  mcp-authctl status github
  mcp-authctl status --check github || mcp-authctl login github
  mcp-authctl status --json | jq '.grants[] | select(.state != \"ok\")'")]
pub(crate) struct Args {
    /// Show this grant only, in full
    #[arg(conflicts_with = "check")]
    name: Option<GrantName>,
    /// Print nothing, tell by the exit code whether this grant can serve a token: 0, or 3 when a login is needed
    #[arg(long, value_name = "NAME")]
    check: Option<GrantName>,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    if let Some(name) = &args.check {
        return check(&client.grant(name)?);
    }
    if let Some(name) = &args.name {
        let grant = client.grant(name)?;
        return if json { output::json(&grant) } else { output::line(&description(&grant)) };
    }
    let status = client.status()?;
    let (grants, locked) = match client.grants() {
        Ok(grants) => (grants, None),
        // The vault's state is worth showing all the same.
        Err(ClientError::Api(body)) if body.error == ErrorCode::VaultLocked => (Vec::new(), Some(body)),
        Err(error) => return Err(error.into()),
    };
    if json {
        output::json(&serde_json::json!({ "status": status, "grants": grants }))?;
    } else {
        output::line(&overview(&status, grants, locked.is_some()))?;
    }
    locked.map_or(Ok(()), |body| Err((*body).into()))
}

fn check(grant: &GrantSummary) -> Result<(), Failure> {
    match (grant.state, grant.expires_in) {
        (GrantState::LoginRequired, _) => Err(Failure::NotLoggedIn {
            grant: grant.name.to_string(),
            reason: grant.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default(),
            remedy: login_command(grant),
        }),
        (GrantState::Retrying, Some(0)) => Err(Failure::NotRefreshed(grant.name.to_string())),
        _ => Ok(()),
    }
}

fn overview(status: &Status, mut grants: Vec<GrantSummary>, locked: bool) -> String {
    let mut lines = problems(status);
    if grants.is_empty() && !locked {
        lines.push("no grants yet; log in with `mcp-authctl login NAME`, providers: `mcp-authctl provider list`".to_owned());
    } else if !grants.is_empty() {
        grants.sort_by(|a, b| a.name.cmp(&b.name));
        lines.extend(table(&grants));
    }
    if lines.is_empty() {
        lines.push(vault_line(&status.vault));
    }
    lines.join("\n")
}

/// What concerns every grant, with its remedy.
fn problems(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    let vault = &status.vault;
    if vault.state != VaultState::Unlocked {
        let hint = vault.hint.as_deref().unwrap_or("mcp-authctl unlock");
        lines.extend([vault_line(vault), format!("  hint: {}", field(hint))]);
    }
    if vault.quarantined > 0 {
        lines.push(format!("vault: {} damaged records were put aside, log in again for what is missing below", vault.quarantined));
    }
    if let Some(error) = &status.config.error {
        // It mostly begins with the path, and then with the line.
        let path = if error.starts_with(&status.config.path) { String::new() } else { format!("{}: ", field(&status.config.path)) };
        lines.push(format!("config: {path}{}", field(error)));
        lines.push("  hint: the last good version is in use; correct the file, then `mcp-authctl reload`".to_owned());
    }
    if status.not_durable > 0 {
        lines.push(format!("disk: the newest tokens of {} grants are in memory only, the disk refuses them", status.not_durable));
    }
    lines.extend(status.paused.iter().map(|it| format!("{} does not answer, next attempt in {}", field(&it.issuer), span(it.retry_after))));
    lines
}

/// The table fits 80 columns: long names are cut, and a remedy that has no room stands below its row, never cut.
fn table(grants: &[GrantSummary]) -> Vec<String> {
    let mut rows = vec![(["GRANT", "ACCOUNT", "STATE", "EXPIRES", "TO DO"].map(str::to_owned), &[][..])];
    rows.extend(grants.iter().map(|grant| {
        let account = grant.account.as_deref().map_or_else(|| "-".to_owned(), field);
        let row = [name(grant), cut(&account, MAX_ACCOUNT), state(grant).to_owned(), expires(grant), to_do(grant)];
        (row, &*grant.holders)
    }));
    let width = |column: usize| rows.iter().map(|(row, _)| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let mut lines = Vec::new();
    for ([grant, account, state, expires, to_do], holders) in rows {
        let row = format!("{grant:0$}  {account:1$}  {state:2$}  {expires:3$}", widths[0], widths[1], widths[2], widths[3]);
        if row.chars().count() + 2 + to_do.chars().count() <= COLUMNS {
            lines.push(format!("{row}  {to_do}").trim_end().to_owned());
        } else {
            lines.extend([row.trim_end().to_owned(), format!("  {to_do}")]);
        }
        lines.extend(holders.iter().map(|holder| format!("  {}", held_by(holder))));
    }
    lines
}

/// Who keeps a token, and how long it is of use.
fn held_by(holder: &Holder) -> String {
    let who = format!("{} (process {})", cut(&field(&holder.program), MAX_NAME), holder.pid);
    match holder.expires_in {
        Some(0) => format!("held by {who}: expired, restart it"),
        Some(seconds) => format!("held by {who} for {}", span(seconds)),
        None => format!("held by {who}"),
    }
}

const COLUMNS: usize = 80;
const MAX_NAME: usize = 26;
const MAX_ACCOUNT: usize = 22;

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width { text.to_owned() } else { text.chars().take(width - 3).chain("...".chars()).collect() }
}

fn name(grant: &GrantSummary) -> String {
    format!("{}{}", cut(grant.name.as_str(), MAX_NAME), if grant.default { " (default)" } else { "" })
}

fn state(grant: &GrantSummary) -> &'static str {
    match grant.state {
        GrantState::Ok => "ok",
        GrantState::Refreshing => "refreshing",
        GrantState::Retrying => "retrying",
        GrantState::LoginRequired => "LOGIN NEEDED",
    }
}

fn expires(grant: &GrantSummary) -> String {
    match grant.expires_in {
        Some(0) if grant.on_demand && grant.state != GrantState::LoginRequired => "on demand".to_owned(),
        Some(0) => "expired".to_owned(),
        Some(seconds) => span(seconds),
        None if grant.never_expires => "never".to_owned(),
        None => "unknown".to_owned(),
    }
}

fn to_do(grant: &GrantSummary) -> String {
    match grant.state {
        GrantState::LoginRequired => login_command(grant),
        GrantState::Retrying => grant.next_refresh_in.map(|seconds| format!("next attempt in {}", span(seconds))).unwrap_or_default(),
        _ if grant.not_durable => "not on disk yet".to_owned(),
        _ if grant.refresh_token_ending => ending(grant),
        // A static token: nobody issued it to us.
        _ if !grant.refreshable && grant.issuer.is_none() && grant.expires_in.is_some() => "no refresh: add-token again by then".to_owned(),
        _ if !grant.refreshable && grant.expires_in.is_some() => "no refresh: log in again by then".to_owned(),
        _ => String::new(),
    }
}

fn login_command(grant: &GrantSummary) -> String {
    let how = if grant.client_credentials { " --client-credentials" } else { "" };
    format!("mcp-authctl login {}{how}", grant.name)
}

/// The refresh token ends by itself; what to do before.
fn ending(grant: &GrantSummary) -> String {
    let when = match grant.refresh_token_expires_in {
        Some(seconds @ 1..) => format!("the login ends in {}", span(seconds)),
        _ => "the login has reached its end".to_owned(),
    };
    format!("{when}: {}", login_command(grant))
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
    add("resource", &grant.resource);
    add("last error", &grant.last_error);
    add("refreshed at", &grant.refreshed_at);
    add("fingerprint", &grant.fingerprint);
    if grant.default {
        lines.push(("default", format!("{} stands for it", grant.name.base())));
    }
    lines.push(("scopes", scopes(&grant.scopes)));
    if grant.client_credentials {
        lines.push(("login", "none: the client's own credentials".to_owned()));
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
    lines.extend(grant.holders.iter().map(|holder| ("held by", held_by(holder).trim_start_matches("held by ").to_owned())));
    lines.into_iter().map(|(word, value)| format!("{word}: {value}")).collect::<Vec<_>>().join("\n")
}

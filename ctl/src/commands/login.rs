//! `login`: follows a login in the daemon, opens the browser, hands over what the person pastes.
//!
//! Ctrl-C needs no code: the process dies of it, as shells expect, and the daemon cancels a login when its interactive
//! subscriber goes and nobody else waits for it. Asking for the cancellation would take it from the others too.

mod wait;

use std::sync::Arc;

use mcp_auth_proto::{Client, ClientError, GrantName, GrantSummary, LoginEvent, LoginRequest};

use self::wait::Wait;
use super::{account, scopes, validity};
use crate::failure::Failure;
use crate::output::{self, field};
use crate::{browser, commands};

/// Log in to a provider with the browser
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl login github
  mcp-authctl login github --account work        a second account, as github:work
  mcp-authctl login github --scope repo --scope read:org
  mcp-authctl login github --no-browser          over SSH: open the URL elsewhere, paste the last page's address here
  ssh -L 8765:127.0.0.1:8765 host mcp-authctl login github --no-browser --callback-port 8765")]
pub(crate) struct Args {
    /// The provider, or the grant to renew (github, github:work)
    name: GrantName,
    /// Keep this login apart from others of the provider: it becomes NAME:LABEL
    #[arg(long, value_name = "LABEL")]
    account: Option<String>,
    /// A scope to ask for instead of the provider's usual ones; may be repeated, or hold several separated by spaces
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ' ')]
    scopes: Vec<String>,
    /// Do not open a browser; print the URL, and read the address of the last page from stdin
    #[arg(long)]
    no_browser: bool,
    /// The port for the redirect, to forward it over SSH
    #[arg(long, value_name = "N")]
    callback_port: Option<u16>,
}

pub(crate) fn run(args: Args, client: Client, json: bool) -> Result<(), Failure> {
    let client = Arc::new(client);
    let request = LoginRequest {
        provider: args.name.to_string(),
        account: args.account,
        scopes: (!args.scopes.is_empty()).then(|| args.scopes.clone()),
        callback_port: args.callback_port,
        browser: !args.no_browser && browser::available(),
        interactive: true,
    };
    let mut wait = Wait::new(Arc::clone(&client), args.no_browser);
    for event in client.login(&request)? {
        match event.map_err(gone)? {
            LoginEvent::Started { id, joined, .. } => {
                if joined {
                    output::note("joined the login that is already running");
                }
                wait.began(id);
            }
            LoginEvent::OpenUrl { url, host, open, .. } => show_url(&url, &host, open && request.browser, &mut wait)?,
            LoginEvent::Exchanging => wait.over(),
            LoginEvent::Done { grant } => {
                wait.over();
                return done(&grant, &args.scopes, json);
            }
            LoginEvent::Failed { error } => {
                wait.over();
                return Err(Failure::LoginFailed(Box::new(error)));
            }
        }
    }
    Err(Failure::Gone("the login was done"))
}

fn show_url(url: &str, host: &str, open: bool, wait: &mut Wait) -> Result<(), Failure> {
    wait.over();
    if !browser::is_web_address(url) {
        return Err(Failure::OddAddress);
    }
    output::note(&format!("open this URL: (it leads to {})\n{url}", field(host)));
    if open {
        match browser::open(url) {
            Ok(child) => wait::watch(child),
            Err(error) => output::warning(&format!("no browser could be started ({error}), open the URL yourself")),
        }
    }
    wait.begin();
    Ok(())
}

fn done(grant: &GrantSummary, asked: &[String], json: bool) -> Result<(), Failure> {
    if let Some(difference) = difference(asked, &grant.scopes) {
        output::warning(&difference);
    }
    if json {
        return output::json(grant);
    }
    output::note(&format!("logged in to {}{} (scopes: {}){}", grant.name, account(grant), scopes(&grant.scopes), validity(grant)));
    if !grant.refreshable && grant.expires_in.is_some() {
        output::note("the provider gave no refresh token: log in again when it has expired");
    }
    Ok(())
}

/// What was asked for and not granted, and the other way round. Nothing when nothing was asked for by name.
fn difference(asked: &[String], granted: &[String]) -> Option<String> {
    let without = |these: &[String], those: &[String]| these.iter().filter(|scope| !those.contains(scope)).cloned().collect::<Vec<_>>();
    let (mut missing, extra) = (without(asked, granted), without(granted, asked));
    // It asks for a refresh token; many servers that give one do not list it.
    missing.retain(|scope| scope != "offline_access");
    let mut parts = Vec::new();
    if asked.is_empty() || granted.is_empty() {
        return None;
    }
    if !missing.is_empty() {
        parts.push(format!("not granted: {}", commands::scopes(&missing)));
    }
    if !extra.is_empty() {
        parts.push(format!("granted without being asked for: {}", commands::scopes(&extra)));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// A stream that breaks off is a daemon that has ended.
fn gone(error: ClientError) -> Failure {
    match error {
        ClientError::Protocol(mcp_auth_proto::Malformed::Truncated) | ClientError::Io(_) => Failure::Gone("the login was done"),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_scopes_names_both_sides() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(difference(&list("a b"), &list("b a")), None);
        assert_eq!(difference(&[], &list("a")), None);
        assert_eq!(difference(&list("a offline_access"), &list("a")), None);
        assert_eq!(difference(&list("a b"), &list("b")).unwrap(), "not granted: a");
        assert_eq!(difference(&list("a b"), &list("b c")).unwrap(), "not granted: a; granted without being asked for: c");
    }
}

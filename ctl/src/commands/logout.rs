//! `logout`: revokes grants and forgets them.

use std::io::{self, IsTerminal};

use mcp_auth_proto::{Client, GrantName, GrantSummary, LogoutAnswer, LogoutRequest, Revocation};

use super::target::Target;
use crate::ask;
use crate::failure::Failure;
use crate::output::{self, field};

/// Revoke a grant at its provider and forget it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl logout github
  mcp-authctl logout github --all     github and every github:LABEL
  mcp-authctl logout --all            everything
  mcp-authctl logout google --forget  here only; other logins of the person go on

Where a revocation ends every login of the person with the client (Google, Discord), logout asks
first; without a terminal it only forgets.")]
pub(crate) struct Args {
    /// The grant's name, or the URL of the MCP server
    #[arg(value_name = "NAME", required_unless_present = "all")]
    target: Option<Target>,
    /// Every account of NAME, or every grant without NAME
    #[arg(long)]
    all: bool,
    /// Revoke without asking, whatever else ends with it
    #[arg(long, conflicts_with = "forget")]
    revoke: bool,
    /// Forget it here, and leave the tokens alive at the provider
    #[arg(long)]
    forget: bool,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let choice = (args.revoke || args.forget).then_some(args.revoke);
    let name = args.target.as_ref().map(|target| target.grant(client)).transpose()?;
    match (&name, args.all) {
        (Some(name), false) => {
            // A grant that is gone already may still have to be removed from the disk: the logout itself tells.
            let grant = if choice.is_some() { None } else { client.grant(name).ok() };
            one(name, grant.as_ref(), choice, client, json)
        }
        (name, _) => every(name.as_ref().map(GrantName::as_str), choice, client, json),
    }
}

/// Goes on past a grant that cannot be forgotten, and fails with the last reason.
fn every(base: Option<&str>, choice: Option<bool>, client: &Client, json: bool) -> Result<(), Failure> {
    let grants = client.grants()?;
    let chosen: Vec<_> =
        grants.iter().filter(|grant| base.is_none_or(|base| grant.name.base() == base || grant.name.as_str() == base)).collect();
    if chosen.is_empty() {
        output::note("nothing to log out of");
    }
    let mut failed = None;
    for grant in chosen {
        match one(&grant.name, Some(grant), choice, client, json) {
            Err(stop @ (Failure::Cancelled | Failure::Output(_))) => return Err(stop),
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    output::failure(&earlier, json);
                }
            }
            Ok(()) => {}
        }
    }
    failed.map_or(Ok(()), Err)
}

fn one(name: &GrantName, grant: Option<&GrantSummary>, choice: Option<bool>, client: &Client, json: bool) -> Result<(), Failure> {
    let wide = grant.filter(|grant| choice.is_none() && grant.revokes_account);
    let revoke = match wide {
        Some(grant) if io::stdin().is_terminal() => Some(wanted(grant, client)?),
        _ => choice,
    };
    let answer = client.logout(name, &LogoutRequest { revoke })?;
    show(&answer, wide.filter(|_| revoke.is_none()), json)
}

/// Names what else ends with a revocation, and asks.
fn wanted(grant: &GrantSummary, client: &Client) -> Result<bool, Failure> {
    let others = client.grants().unwrap_or_default();
    let same = |other: &&GrantSummary| other.name != grant.name && other.provider == grant.provider && other.account == grant.account;
    let named = others.iter().filter(same).map(|other| other.name.to_string()).collect::<Vec<_>>().join(", ");
    let here = if named.is_empty() { "elsewhere too".to_owned() } else { format!("here ({named}) and elsewhere") };
    output::note(&format!("revoking {} ends every login of {} with this client, {here}", grant.name, person(grant)));
    let question = format!("revoke it? if not, {} is only forgotten here", grant.name);
    Ok(ask::yes_or_no(&question, false)?.unwrap_or(false))
}

fn person(grant: &GrantSummary) -> String {
    grant.account.as_deref().map_or_else(|| "this person".to_owned(), field)
}

/// `unasked`: the grant whose revocation would end more than it, and nobody was there to decide.
fn show(answer: &LogoutAnswer, unasked: Option<&GrantSummary>, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(answer);
    }
    output::note(&format!("logged out of {}", answer.grant));
    let reason = answer.reason.as_ref().map(|reason| format!(": {}", field(reason))).unwrap_or_default();
    match (answer.revocation, unasked) {
        (Revocation::Confirmed, _) => {}
        (Revocation::Unconfirmed, _) => output::warning(&format!("the provider has not confirmed the revocation{reason}")),
        (Revocation::Unsupported, _) => {
            output::warning(&format!(
                "mcp-authd cannot revoke it at the provider: the token lives until it expires or you delete it there{reason}"
            ));
        }
        (Revocation::Skipped, None) => output::warning("not revoked: the tokens live on at the provider until they expire"),
        (Revocation::Skipped, Some(grant)) => output::warning(&format!(
            "not revoked, since that would end every login of {} with this client: the tokens live on at the provider until they expire; \
             --revoke does it all the same",
            person(grant)
        )),
    }
    Ok(())
}

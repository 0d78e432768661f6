//! `logout`: revokes grants and forgets them.

use mcp_auth_proto::{Client, GrantName, LogoutAnswer, Revocation};

use crate::failure::Failure;
use crate::output::{self, field};

/// Revoke a grant at its provider and forget it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl logout github
  mcp-authctl logout github --all     github and every github:LABEL
  mcp-authctl logout --all            everything")]
pub(crate) struct Args {
    /// The grant's name
    #[arg(required_unless_present = "all")]
    name: Option<GrantName>,
    /// Every account of NAME, or every grant without NAME
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    match (&args.name, args.all) {
        (Some(name), false) => show(&client.logout(name)?, json),
        (name, _) => every(name.as_ref().map(GrantName::as_str), client, json),
    }
}

/// Goes on past a grant that cannot be forgotten, and fails with the last reason.
fn every(base: Option<&str>, client: &Client, json: bool) -> Result<(), Failure> {
    let grants = client.grants()?;
    let chosen: Vec<_> =
        grants.iter().filter(|grant| base.is_none_or(|base| grant.name.base() == base || grant.name.as_str() == base)).collect();
    if chosen.is_empty() {
        output::note("nothing to log out of");
    }
    let mut failed = None;
    for grant in chosen {
        match client.logout(&grant.name) {
            Ok(answer) => show(&answer, json)?,
            Err(error) => {
                if let Some(earlier) = failed.replace(Failure::from(error)) {
                    output::failure(&earlier, json);
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn show(answer: &LogoutAnswer, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(answer);
    }
    output::note(&format!("logged out of {}", answer.grant));
    let reason = answer.reason.as_ref().map(|reason| format!(": {}", field(reason))).unwrap_or_default();
    match answer.revocation {
        Revocation::Confirmed => {}
        Revocation::Unconfirmed => output::warning(&format!("the provider has not confirmed the revocation{reason}")),
        Revocation::Unsupported => output::warning(&format!("the provider has no way to revoke, the token lives until it expires{reason}")),
    }
    Ok(())
}

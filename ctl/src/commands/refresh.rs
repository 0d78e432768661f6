//! `refresh`: refreshes a grant now.

use mcp_auth_proto::{Client, RefreshRequest};

use super::target::Target;
use super::validity;
use crate::failure::Failure;
use crate::output;

/// Refresh a grant's access token now
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl refresh github
  mcp-authctl refresh github --force     even if a running program's token stops working")]
pub(crate) struct Args {
    /// The grant's name, or the URL of the MCP server
    #[arg(value_name = "NAME")]
    target: Target,
    /// Refresh even if that invalidates a token that a program holds
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let grant = client.refresh(&args.target.grant(client)?, &RefreshRequest { force: args.force })?;
    if json {
        return output::json(&grant);
    }
    output::note(&format!("refreshed {}{}", grant.name, validity(&grant)));
    Ok(())
}

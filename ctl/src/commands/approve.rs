//! `approve`: the person's word on what a program asks the issuer for, under the code that the browser shows.

use mcp_auth_proto::{Approval, ApprovalDecision, ApprovalState, Client};

use super::scopes;
use crate::ask;
use crate::failure::Failure;
use crate::output::{self, field, span};

/// Approve the request whose code the browser shows
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl approve WDJB-MJHT           shows who asks for what, then asks you
  mcp-authctl approve WDJB-MJHT --no      refuses it")]
pub(crate) struct Args {
    /// The code on the page
    code: String,
    /// Approve without asking
    #[arg(long)]
    yes: bool,
    /// Refuse without asking
    #[arg(long, conflicts_with = "yes")]
    no: bool,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let asked = client.approval(&args.code)?;
    if !json {
        describe(&asked);
    }
    // One that is decided already is refused by the daemon, which knows better than an answer here.
    let allow = match (args.yes, args.no) {
        (true, _) => true,
        (_, true) => false,
        _ if asked.state != ApprovalState::Waiting => true,
        _ => ask::yes_or_no("allow it?", false)?.ok_or_else(|| Failure::NobodyToAsk(args.code.clone()))?,
    };
    let decided = client.decide(&args.code, &ApprovalDecision { allow })?;
    if json {
        return output::json(&decided);
    }
    output::note(match decided.state {
        ApprovalState::Refused => "refused; the page goes back without a login",
        _ => "approved; the page goes on by itself",
    });
    Ok(())
}

pub(super) fn describe(asked: &Approval) {
    let id = if asked.client == asked.client_id { String::new() } else { format!(" ({})", field(&asked.client_id)) };
    output::note(&format!("{}{id} asks for access", field(&asked.client)));
    output::note(&format!("  goes back to  {}", field(&asked.redirect_host)));
    output::note(&format!("  MCP server    {}", field(&asked.resource)));
    output::note(&format!("  scopes        {}", scopes(&asked.scopes)));
    output::note(&format!("  good for      {}", span(asked.expires_in)));
}

//! `approve`: the person's word on what a program asks for: a token of a closed grant, under the id of the question
//! (`consent`), or a login at the issuer, under the code that the browser shows.

use mcp_auth_proto::{Approval, ApprovalDecision, ApprovalState, Client};

use super::{consent, scopes};
use crate::ask;
use crate::failure::Failure;
use crate::output::{self, field, span};

/// Approve what a program asks for
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl approve                 shows what waits for your word
  mcp-authctl approve 1234-5678       shows who wants a token, then asks you
  mcp-authctl approve WDJB-MJHT       a login at the issuer, by its page's code
  mcp-authctl approve 1234-5678 --no  refuses it

Exactly what is shown is allowed. A question about a token ends as refused after a minute.")]
pub(crate) struct Args {
    /// The id of the question, or the code on the page
    #[arg(required_if_eq_any([("yes", "true"), ("no", "true")]))]
    code: Option<String>,
    /// Approve without asking
    #[arg(long)]
    yes: bool,
    /// Refuse without asking
    #[arg(long, conflicts_with = "yes")]
    no: bool,
}

/// What the command line says already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word(Option<bool>);

impl Word {
    /// What was said, else what the person says now.
    pub(super) fn or_ask(self, code: &str) -> Result<bool, Failure> {
        match self.0 {
            Some(allow) => Ok(allow),
            None => ask::yes_or_no("allow it?", false)?
                .ok_or_else(|| Failure::NobodyToAsk(format!("mcp-authctl approve {code} --yes, or --no"))),
        }
    }
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let word = Word((args.yes || args.no).then_some(args.yes));
    match &args.code {
        None => consent::list(client, json),
        Some(id) if consent::is_id(id) => consent::decide(id, word, client, json),
        Some(code) => at_issuer(code, word, client, json),
    }
}

fn at_issuer(code: &str, word: Word, client: &Client, json: bool) -> Result<(), Failure> {
    let asked = client.approval(code)?;
    if !json {
        describe(&asked);
    }
    // One that is decided already is refused by the daemon, which knows better than an answer here.
    let is_open = asked.state == ApprovalState::Waiting;
    let allow = if is_open { word.or_ask(code)? } else { word.0.unwrap_or(true) };
    let decided = client.decide(code, &ApprovalDecision { allow })?;
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

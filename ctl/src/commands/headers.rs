//! `headers`: request headers as a JSON object, as Claude Code's `headersHelper` wants them.

use std::collections::BTreeMap;
use std::time::Duration;

use mcp_auth_proto::{Client, ClientError, ErrorCode, Secret, TokenAnswer, TokenRequest};

use super::target::Target;
use super::token;
use crate::failure::Failure;
use crate::output;

/// The helper's caller gives up after 10 s; we do before it, so that our own words are seen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// Print request headers with a fresh token, for Claude Code's headersHelper
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl headers notion
  \"headersHelper\": \"mcp-authctl headers notion\"     in the server's entry of the MCP config
  \"headersHelper\": \"mcp-authctl headers\"            the server as Claude Code names it

It never opens a browser and ends within 8 seconds. Without NAME it takes
CLAUDE_CODE_MCP_SERVER_URL, and where no grant is for that address, CLAUDE_CODE_MCP_SERVER_NAME.")]
pub(crate) struct Args {
    /// The grant's name, or the URL of the MCP server
    #[arg(value_name = "NAME")]
    target: Option<Target>,
}

impl Args {
    /// `[NAME]`. Everything else is for the argument parser.
    pub(crate) fn plain(words: &[&str]) -> Option<Self> {
        match words {
            [] => Some(Self { target: None }),
            [target] => Some(Self { target: Some(target.parse().ok()?) }),
            _ => None,
        }
    }
}

pub(crate) fn run(args: &Args, client: &Client) -> Result<(), Failure> {
    let answer = match &args.target {
        Some(target) => client.token(&target.request())?,
        None => as_claude_code_names_it(client)?,
    };
    token::check(&answer)?;
    let value = Secret::new(format!("Bearer {}", answer.access_token.expose()));
    output::json(&BTreeMap::from([("Authorization", value)]))
}

/// How the daemon says that it has no token by a name.
const NO_SUCH_NAME: [ErrorCode; 4] =
    [ErrorCode::UnknownGrant, ErrorCode::InvalidRequest, ErrorCode::LoginRequired, ErrorCode::AmbiguousGrant];

fn as_claude_code_names_it(client: &Client) -> Result<TokenAnswer, Failure> {
    let of = |variable: &str| std::env::var(variable).ok().filter(|text| !text.is_empty());
    let (url, name) = (of("CLAUDE_CODE_MCP_SERVER_URL"), of("CLAUDE_CODE_MCP_SERVER_NAME"));
    if url.is_none() && name.is_none() {
        return Err(Failure::Usage {
            sentence: "no server is named, and this was not started by Claude Code".into(),
            hint: "mcp-authctl headers NAME".into(),
        });
    }
    let mut unknown = None;
    if let Some(url) = &url {
        match client.token(&TokenRequest { resource: Some(url.clone()), ..TokenRequest::default() }) {
            Err(ClientError::Api(body)) if body.error == ErrorCode::UnknownGrant && name.is_some() => unknown = Some(body),
            answer => return Ok(answer?),
        }
    }
    let answer = match (client.token(&TokenRequest::for_grant(name.unwrap_or_default())), unknown) {
        // Names are Claude Code's own there: what to do about the URL is worth more than that there is no such grant.
        (Err(ClientError::Api(body)), Some(unknown)) if NO_SUCH_NAME.contains(&body.error) => return Err(ClientError::Api(unknown).into()),
        (answer, _) => answer?,
    };
    // A token for one server goes to no other, whatever that is called.
    match (&url, &answer.resource) {
        (Some(url), Some(resource)) if url != resource => Err(Failure::Usage {
            sentence: format!("{} is a grant for {resource}, and Claude Code asks for {url}", answer.grant),
            hint: "mcp-authctl status".into(),
        }),
        _ => Ok(answer),
    }
}

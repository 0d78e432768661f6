//! `token`: prints a fresh access token, and nothing else, on stdout.

use std::str::FromStr;

use mcp_auth_proto::{Client, GrantName, NameError, TokenAnswer, TokenRequest};
use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::output;

/// Print a fresh access token
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl token github
  curl -H \"Authorization: Bearer $(mcp-authctl token github)\" https://api.github.com/user
  mcp-authctl token github:work --min-valid-for 600 --json
  mcp-authctl token https://mcp.example.com/mcp
  mcp-authctl token github --fingerprint     for bug reports: tells tokens apart, reveals none")]
pub(crate) struct Args {
    /// The grant's name, or the URL of the MCP server
    #[arg(value_name = "NAME")]
    target: Target,
    /// The seconds that the token must still live; a refresh is waited for if need be
    #[arg(long, value_name = "SECONDS")]
    min_valid_for: Option<u64>,
    /// A scope that the token must cover; may be repeated, or hold several separated by spaces
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ' ')]
    scopes: Vec<String>,
    /// Print the first 8 hex digits of the token's SHA-256 instead of the token
    #[arg(long)]
    fingerprint: bool,
}

/// What a token is asked for.
#[derive(Clone, Debug)]
enum Target {
    Grant(GrantName),
    Resource(String),
}

impl FromStr for Target {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.starts_with("https://") || text.starts_with("http://") {
            Ok(Self::Resource(text.to_owned()))
        } else {
            text.parse().map(Self::Grant)
        }
    }
}

pub(crate) fn run(args: Args, client: &Client, json: bool) -> Result<(), Failure> {
    let mut request = match args.target {
        Target::Grant(name) => TokenRequest::for_grant(name.as_str()),
        Target::Resource(url) => TokenRequest { resource: Some(url), ..TokenRequest::default() },
    };
    request.min_valid_for = args.min_valid_for;
    request.scopes = args.scopes;
    let answer = client.token(&request)?;
    if args.fingerprint {
        return show_fingerprint(&answer, json);
    }
    show(&answer, json)
}

/// `token NAME [--json]`, the way in that needs no argument parser.
pub(crate) fn plain(client: &Client, name: GrantName, json: bool) -> Result<(), Failure> {
    show(&client.token(&TokenRequest::for_grant(String::from(name)))?, json)
}

/// Refuses what could not be a bearer token (RFC 6750, section 2.1): it would break out of a header or a shell line.
pub(crate) fn check(answer: &TokenAnswer) -> Result<(), Failure> {
    let token = answer.access_token.expose();
    let valid = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if valid { Ok(()) } else { Err(Failure::OddToken(answer.grant.to_string())) }
}

fn show(answer: &TokenAnswer, json: bool) -> Result<(), Failure> {
    check(answer)?;
    if json { output::json(answer) } else { output::secret(&answer.access_token) }
}

fn show_fingerprint(answer: &TokenAnswer, json: bool) -> Result<(), Failure> {
    let digest = Sha256::digest(answer.access_token.expose());
    let fingerprint: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    if json { output::json(&serde_json::json!({ "grant": answer.grant, "fingerprint": fingerprint })) } else { output::line(&fingerprint) }
}

//! `token`: prints a fresh access token, and nothing else, on stdout.

use clap::ValueEnum;
use mcp_auth_proto::{Client, GrantName, Secret, TokenAnswer};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::target::Target;
use crate::ask;
use crate::failure::Failure;
use crate::output;

/// Print a fresh access token
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl token github
  mcp-authctl token github --format header | curl -H @- https://api.github.com/user
  mcp-authctl token github:work --min-valid-for 600 --json
  mcp-authctl token https://mcp.example.com/mcp
  mcp-authctl token cluster --format exec-credential     for kubectl
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
    /// The challenge that a resource server answered, byte for byte (WWW-Authenticate): the scopes in it must be covered
    #[arg(long, value_name = "VALUE")]
    challenge: Option<String>,
    /// Read the token that a resource server rejected from stdin; a fresh one is printed
    #[arg(long)]
    rejected_stdin: bool,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Plain, conflicts_with = "fingerprint")]
    format: Format,
    /// Print the first 8 hex digits of the token's SHA-256 instead of the token
    #[arg(long)]
    fingerprint: bool,
}

/// The forms of a token that other programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The token and nothing else
    Plain,
    /// The daemon's whole answer
    Json,
    /// `Authorization: Bearer TOKEN`
    Header,
    /// `GITHUB_TOKEN=TOKEN`, named after the grant, for env files
    Env,
    /// What kubectl's exec plug-ins answer (client.authentication.k8s.io/v1)
    ExecCredential,
}

impl Args {
    /// `NAME` alone. Everything else is for the argument parser.
    pub(crate) fn plain(target: &str) -> Option<Self> {
        Some(Self {
            target: target.parse().ok()?,
            min_valid_for: None,
            scopes: Vec::new(),
            challenge: None,
            rejected_stdin: false,
            format: Format::Plain,
            fingerprint: false,
        })
    }
}

pub(crate) fn run(args: Args, client: &Client, json: bool) -> Result<(), Failure> {
    let mut request = args.target.request();
    request.min_valid_for = args.min_valid_for;
    request.scopes = args.scopes;
    request.challenge = args.challenge;
    request.rejected_token = args.rejected_stdin.then(|| ask::token("the rejected token", "rejected token (not shown): ")).transpose()?;
    let answer = client.token(&request)?;
    if args.fingerprint {
        return show_fingerprint(&answer, json);
    }
    show(&answer, if json { Format::Json } else { args.format })
}

/// Refuses what could not be a bearer token (RFC 6750, section 2.1): it would break out of a header or a shell line.
pub(crate) fn check(answer: &TokenAnswer) -> Result<(), Failure> {
    let token = answer.access_token.expose();
    let valid = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if valid { Ok(()) } else { Err(Failure::OddToken(answer.grant.to_string())) }
}

fn show(answer: &TokenAnswer, format: Format) -> Result<(), Failure> {
    check(answer)?;
    match format {
        Format::Plain => output::secret(&answer.access_token),
        Format::Json => output::json(answer),
        Format::Header => output::before_secret("Authorization: Bearer ", &answer.access_token),
        Format::Env => output::before_secret(&format!("{}=", variable(&answer.grant)), &answer.access_token),
        Format::ExecCredential => output::json(&ExecCredential::of(answer)),
    }
}

/// `GITHUB_WORK_TOKEN` for `github:work`.
fn variable(grant: &GrantName) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = grant.as_str().chars().map(word).collect();
    let underscore = if name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    format!("{underscore}{name}_TOKEN")
}

/// The answer of a client-go credential plug-in.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential<'a> {
    api_version: &'static str,
    kind: &'static str,
    status: ExecStatus<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecStatus<'a> {
    token: &'a Secret,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_timestamp: Option<&'a str>,
}

impl<'a> ExecCredential<'a> {
    fn of(answer: &'a TokenAnswer) -> Self {
        let status = ExecStatus { token: &answer.access_token, expiration_timestamp: answer.expires_at.as_deref() };
        Self { api_version: "client.authentication.k8s.io/v1", kind: "ExecCredential", status }
    }
}

/// The first 8 hex digits of its SHA-256: tells tokens apart, and reveals none.
pub(super) fn fingerprint(token: &Secret) -> String {
    hex::encode(&Sha256::digest(token.expose())[..4])
}

fn show_fingerprint(answer: &TokenAnswer, json: bool) -> Result<(), Failure> {
    let fingerprint = fingerprint(&answer.access_token);
    if json { output::json(&serde_json::json!({ "grant": answer.grant, "fingerprint": fingerprint })) } else { output::line(&fingerprint) }
}

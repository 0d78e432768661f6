//! `add-token`: stores a static token, such as a personal access token.

use mcp_auth_proto::{Client, ClientError, ErrorCode, GrantName, GrantState, StaticToken};

use super::validity;
use crate::failure::Failure;
use crate::{ask, output};

/// Store a static token, such as a personal access token
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl add-token github:pat                       asks for the token, without echo
  pass show github-pat | mcp-authctl add-token github:pat --expires-in 7776000")]
pub(crate) struct Args {
    /// The grant's name
    name: GrantName,
    /// The seconds that the token still lives
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<u64>,
    /// A scope that it covers; may be repeated, or hold several separated by spaces
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ' ')]
    scopes: Vec<String>,
    /// If it is another account's than the one that is held, put it in its place
    #[arg(long)]
    replace: bool,
}

pub(crate) fn run(args: Args, client: &Client, json: bool) -> Result<(), Failure> {
    // It would throw a login away, its refresh token still good at the provider.
    match client.grant(&args.name) {
        // A bare name may stand for another grant; a token is stored under the very name.
        Ok(grant) if grant.name == args.name && grant.refreshable && grant.state != GrantState::LoginRequired => {
            return Err(Failure::WouldReplaceLogin(args.name.to_string()));
        }
        Err(ClientError::Api(body)) if body.error != ErrorCode::VaultLocked => {}
        other => drop(other?),
    }
    let access_token = ask::token("the token", &format!("token for {}: ", args.name))?;
    let token = StaticToken { access_token, expires_in: args.expires_in, scopes: args.scopes, replace: args.replace };
    let grant = client.add_token(&args.name, &token)?;
    if json {
        return output::json(&grant);
    }
    output::note(&format!("stored a token as {}{}", grant.name, validity(&grant)));
    Ok(())
}

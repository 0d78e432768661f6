//! `reload`: makes the daemon read its config file again.

use mcp_auth_proto::{Client, ClientError, ErrorCode};

use crate::failure::Failure;
use crate::output::{self, field};

/// Read the config file again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  mcp-authctl reload")]
pub(crate) struct Args {}

pub(crate) fn run(client: &Client, json: bool) -> Result<(), Failure> {
    let config = client.reload().map_err(|error| match error {
        ClientError::Api(body) if body.error == ErrorCode::InvalidRequest => Failure::BadConfig(body),
        other => other.into(),
    })?;
    if json {
        output::json(&config)?;
    }
    if !json {
        output::note(&format!("reloaded {}", field(&config.path)));
    }
    Ok(())
}

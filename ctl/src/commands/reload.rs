//! `reload`: makes the daemon read its config file again.

use mcp_auth_proto::Client;

use crate::failure::Failure;
use crate::output::{self, field};

/// Read the config file again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  mcp-authctl reload")]
pub(crate) struct Args {}

pub(crate) fn run(client: &Client, json: bool) -> Result<(), Failure> {
    let config = client.reload()?;
    if json {
        output::json(&config)?;
    }
    if let Some(error) = config.error {
        return Err(Failure::Config { path: config.path, error });
    }
    if !json {
        output::note(&format!("reloaded {}", field(&config.path)));
    }
    Ok(())
}

//! `lock`: makes the daemon forget the vault's key.

use mcp_auth_proto::Client;

use super::show_vault;
use crate::failure::Failure;

/// Lock the vault: the daemon forgets its key, and every token
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  mcp-authctl lock")]
pub(crate) struct Args {}

pub(crate) fn run(client: &Client, json: bool) -> Result<(), Failure> {
    show_vault(&client.vault_lock()?, json)
}

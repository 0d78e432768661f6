//! `unlock`: gives the daemon the vault's key, or lets it ask the keychain again.

use mcp_auth_proto::{Client, KeySourceKind, VaultState, VaultUnlock};

use super::show_vault;
use crate::ask;
use crate::failure::Failure;

/// Unlock the vault: with its passphrase, or by asking the keychain again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl unlock                                    asks for the passphrase, without echo
  systemd-ask-password 'vault:' | mcp-authctl unlock    from stdin")]
pub(crate) struct Args {}

pub(crate) fn run(client: &Client, json: bool) -> Result<(), Failure> {
    let vault = client.status()?.vault;
    if vault.state == VaultState::Unlocked {
        return show_vault(&vault, json);
    }
    let passphrase = match vault.key_source {
        Some(KeySourceKind::Passphrase) => Some(ask::secret(ask::PASSPHRASE, "passphrase: ")?),
        _ => None,
    };
    show_vault(&client.vault_unlock(&VaultUnlock { passphrase })?, json)
}

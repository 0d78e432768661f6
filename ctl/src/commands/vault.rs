//! `vault`: copies the vault, or gives it a new key.

use std::path::PathBuf;

use clap::Subcommand;
use mcp_auth_proto::{Client, KeySourceKind, VaultBackup, VaultRekey};

use super::{key_source, show_vault};
use crate::failure::Failure;
use crate::{ask, output};

/// Copy the vault, or give it a new key
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl vault backup /media/stick/mcp-authd
  mcp-authctl vault rekey                              a new key from the same source
  mcp-authctl vault rekey --key-source passphrase      move to another source")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Copy the sealed vault to a folder that does not exist yet
    #[command(after_help = "Example:\n  mcp-authctl vault backup /media/stick/mcp-authd")]
    Backup {
        /// The new folder
        dir: PathBuf,
    },
    /// Seal every record with a new key
    #[command(after_help = "Example:\n  mcp-authctl vault rekey --key-source passphrase")]
    Rekey {
        /// Where the key is kept from now on; the present place if absent
        #[arg(long, value_name = "KIND", value_parser = key_source())]
        key_source: Option<KeySourceKind>,
    },
}

pub(crate) fn run(args: Args, client: &Client, json: bool) -> Result<(), Failure> {
    match args.verb {
        Verb::Backup { dir } => backup(dir, client, json),
        Verb::Rekey { key_source } => rekey(key_source, client, json),
    }
}

fn backup(dir: PathBuf, client: &Client, json: bool) -> Result<(), Failure> {
    // The daemon's working folder is not ours.
    let absolute = std::path::absolute(&dir).map_err(|source| Failure::File { path: dir, source })?;
    let path = absolute.into_os_string().into_string().map_err(|path| Failure::File {
        path: path.into(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8"),
    })?;
    let vault = client.vault_backup(&VaultBackup { path: path.clone() })?;
    if json {
        return show_vault(&vault, true);
    }
    output::note(&format!("copied the vault to {path}; its key is not in it"));
    Ok(())
}

fn rekey(chosen: Option<KeySourceKind>, client: &Client, json: bool) -> Result<(), Failure> {
    let to = match chosen {
        Some(kind) => Some(kind),
        None => client.status()?.vault.key_source,
    };
    let passphrase = if to == Some(KeySourceKind::Passphrase) { Some(ask::new_passphrase()?) } else { None };
    show_vault(&client.vault_rekey(&VaultRekey { key_source: chosen, passphrase })?, json)
}

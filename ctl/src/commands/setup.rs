//! `setup`: makes the vault, with the key source that the person chooses.

use std::io::{self, BufRead, IsTerminal};

use mcp_auth_proto::{Client, KeySourceKind, VaultSetup};

use super::{key_source, show_vault};
use crate::failure::Failure;
use crate::{ask, output};

/// Make the vault, once: choose where its key is kept
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl setup                              explains the choices and asks
  mcp-authctl setup --key-source keychain
  mcp-authctl setup --key-source passphrase      asks for a new passphrase, twice
  mcp-authctl setup --key-source key-file        no safer than the disk it lies on")]
pub(crate) struct Args {
    /// Where the key is kept; without it you are asked, or it is the keychain where stdin is no terminal
    #[arg(long, value_name = "KIND", value_parser = key_source())]
    key_source: Option<KeySourceKind>,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let key_source = match args.key_source {
        Some(kind) => kind,
        None if io::stdin().is_terminal() => choose()?,
        None => KeySourceKind::Keychain,
    };
    let passphrase = if key_source == KeySourceKind::Passphrase { Some(ask::new_passphrase()?) } else { None };
    let vault = client.vault_setup(&VaultSetup { key_source, passphrase })?;
    show_vault(&vault, json)?;
    if key_source == KeySourceKind::KeyFile {
        output::warning("whoever can read this disk, or a backup of it, can read the vault");
    }
    if !json {
        output::note("hint: mcp-authctl login github");
    }
    Ok(())
}

fn choose() -> Result<KeySourceKind, Failure> {
    output::note(CHOICES);
    loop {
        output::note("which one? [keychain]");
        let mut line = String::new();
        let count = io::stdin().lock().read_line(&mut line).map_err(|source| Failure::Input { what: "the choice", source })?;
        match (count, line.trim()) {
            (0, _) => return Err(Failure::Cancelled),
            (_, "") => return Ok(KeySourceKind::Keychain),
            (_, answer) => match by_number(answer).map_or_else(|| answer.parse(), Ok) {
                Ok(kind) => return Ok(kind),
                Err(error) => output::complaint(&error, None),
            },
        }
    }
}

fn by_number(answer: &str) -> Option<KeySourceKind> {
    KeySourceKind::ALL.get(answer.parse::<usize>().ok()?.checked_sub(1)?).copied()
}

const CHOICES: &str = "\
The vault is encrypted. Where shall its key be kept?
  1  keychain             the desktop's keychain: unlocked with your login
  2  systemd-credential   handed to the daemon by systemd, sealed to this machine (servers)
  3  passphrase           in your head: `mcp-authctl unlock` after every start
  4  key-file             a file beside the vault: no safer than the disk it lies on";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_list() {
        for (number, kind) in (1..).zip(KeySourceKind::ALL) {
            assert_eq!(by_number(&number.to_string()), Some(kind));
            assert!(CHOICES.contains(&format!("  {number}  {kind}")), "{kind}");
        }
        assert_eq!((by_number("0"), by_number("5"), by_number("x")), (None, None, None));
    }
}

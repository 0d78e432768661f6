//! `setup`: makes the vault with the key source that the person chooses, offers the service, and copies proxy settings. Run
//! again, it says what is there and changes nothing.

mod network;

use std::io::{self, IsTerminal};

use mcp_auth_proto::{Client, ClientError, ErrorBody, ErrorCode, KeySourceKind, Status, VaultSetup, VaultState, VaultStatus, VaultUnlock};

use super::service::{self, Offered};
use super::{key_source, settled_status, vault_state};
use crate::failure::Failure;
use crate::surroundings::Network;
use crate::{ask, output};

/// Make the vault, once: choose where its key is kept, and copy what the daemon needs to know
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl setup                              takes the keychain if one answers, else asks
  mcp-authctl setup --key-source passphrase      asks for a new passphrase, twice
  mcp-authctl setup --key-source key-file        no safer than the disk it lies on
  pass show vault | mcp-authctl setup --key-source passphrase --yes
Without a terminal nothing is asked: --key-source says where the key goes, --yes agrees to all
else.")]
pub(crate) struct Args {
    /// Where the key is kept; without it the keychain, and you are asked where none answers
    #[arg(long, value_name = "KIND", value_parser = key_source())]
    key_source: Option<KeySourceKind>,
    /// Agree to everything that would be asked, but for the key source
    #[arg(long, short)]
    yes: bool,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let setup = Setup { client, yes: args.yes, terminal: io::stdin().is_terminal(), json };
    let (status, is_service) = setup.daemon()?;
    setup.ok("daemon", &format!("mcp-authd {} at {}", output::field(&status.version), client.path().display()));
    let vault = setup.vault(&status.vault, args.key_source)?;
    setup.ok("vault", &vault_state(&vault));
    if vault.key_source == Some(KeySourceKind::KeyFile) {
        output::warning("whoever can read this disk, or a backup of it, can read the vault");
    }
    if !is_service {
        setup.service()?;
    }
    network::offer(&setup, &status, &Network::of_this_process())?;
    if json {
        return output::json(&client.status()?);
    }
    output::note(if status.grants == 0 { FIRST } else { "next: mcp-authctl status" });
    Ok(())
}

const FIRST: &str = "next: mcp-authctl login github      (others: mcp-authctl provider list)";

/// One run: whom to ask, and how to tell.
struct Setup<'a> {
    client: &'a Client,
    yes: bool,
    terminal: bool,
    json: bool,
}

impl Setup<'_> {
    fn ok(&self, step: &str, text: &str) {
        if !self.json {
            output::note(&format!("[ok] {step:8} {text}"));
        }
    }

    /// A step that was not taken, and how to take it.
    fn left(&self, step: &str, text: &str, hint: &str) {
        if !self.json {
            output::note(&format!("[--] {step:8} {text}\n     hint: {hint}"));
        }
    }

    fn agrees(&self, question: &str) -> Result<bool, Failure> {
        if self.yes { Ok(true) } else { Ok(ask::yes_or_no(question, true)? == Some(true)) }
    }

    /// The daemon's status. Where no daemon runs it is that of the service that the person agrees to; tells whether it is.
    fn daemon(&self) -> Result<(Status, bool), Failure> {
        match settled_status(self.client) {
            Err(ClientError::NotRunning { .. }) if self.service()? => Ok((settled_status(self.client)?, true)),
            status => Ok((status?, false)),
        }
    }

    /// Lets the service manager keep the daemon running, if the person wants that. Gives whether it does.
    fn service(&self) -> Result<bool, Failure> {
        let offered = service::offer(self.yes, self.client)?;
        match &offered {
            Offered::Already => self.ok("service", "mcp-authd is installed as your service"),
            Offered::Installed => self.ok("service", "mcp-authd runs as your service from now on"),
            Offered::Declined => self.left("service", "mcp-authd does not start by itself", "mcp-authctl service install"),
            Offered::ByHand(pid) => {
                let text = format!("mcp-authd was started by hand as process {pid}, and does not start by itself");
                self.left("service", &text, &format!("kill {pid} && mcp-authctl service install"));
            }
            Offered::Unavailable(error) => self.left("service", &error.to_string(), &error.hint().unwrap_or_default()),
        }
        Ok(matches!(offered, Offered::Already | Offered::Installed))
    }

    fn vault(&self, vault: &VaultStatus, chosen: Option<KeySourceKind>) -> Result<VaultStatus, Failure> {
        let asks_otherwise = chosen.is_some_and(|kind| vault.key_source != Some(kind));
        match (vault.state, chosen) {
            // Of a vault that is there the daemon says why not, and what to do instead.
            (_, Some(kind)) if vault.needs_setup || asks_otherwise => self.make(kind),
            (_, None) if vault.needs_setup => self.make_by_choice(vault),
            (VaultState::Unlocked, _) => Ok(vault.clone()),
            _ => self.unlock(vault),
        }
    }

    fn unlock(&self, vault: &VaultStatus) -> Result<VaultStatus, Failure> {
        let passphrase = match vault.key_source {
            Some(KeySourceKind::Keychain) => None,
            Some(KeySourceKind::Passphrase) if self.terminal => Some(ask::secret(ask::PASSPHRASE, "passphrase: ")?),
            _ => {
                let mut body = ErrorBody::new(ErrorCode::VaultLocked, "the vault is there, and locked");
                body.hint.clone_from(&vault.hint);
                return Err(body.into());
            }
        };
        Ok(self.client.vault_unlock(&VaultUnlock { passphrase })?)
    }

    fn make(&self, key_source: KeySourceKind) -> Result<VaultStatus, Failure> {
        let passphrase = if key_source == KeySourceKind::Passphrase { Some(ask::new_passphrase()?) } else { None };
        Ok(self.client.vault_setup(&VaultSetup { key_source, passphrase })?)
    }

    /// The keychain, else what the person chooses. Nothing weaker is ever taken without a word.
    fn make_by_choice(&self, vault: &VaultStatus) -> Result<VaultStatus, Failure> {
        let body = match self.make(KeySourceKind::Keychain) {
            Err(Failure::Client(ClientError::Api(body))) => body,
            made => return made,
        };
        if !self.terminal {
            return Err(Failure::NoKeychain { reason: body.error_description, credential: vault.credential });
        }
        output::note(&format!("the keychain cannot keep the vault's key: {}", output::field(&body.error_description)));
        self.make(choose(&choices(vault.credential))?)
    }
}

/// The key sources besides the keychain, strongest first.
fn choices(credential: bool) -> Vec<KeySourceKind> {
    let there = |kind: &KeySourceKind| match kind {
        KeySourceKind::Keychain => false,
        KeySourceKind::SystemdCredential => credential,
        KeySourceKind::Passphrase | KeySourceKind::KeyFile => true,
    };
    KeySourceKind::ALL.into_iter().filter(there).collect()
}

fn choose(choices: &[KeySourceKind]) -> Result<KeySourceKind, Failure> {
    output::note("where shall it be kept?");
    for (number, kind) in (1..).zip(choices) {
        output::note(&format!("  {number}  {:18}  {}", kind.as_str(), described(*kind)));
    }
    loop {
        output::note(&format!("which one? [1-{}, Ctrl-C to decide later]", choices.len()));
        let answer = ask::answer("the choice")?;
        let numbered = answer.parse::<usize>().ok().and_then(|number| choices.get(number.checked_sub(1)?));
        match numbered.or_else(|| choices.iter().find(|kind| kind.as_str() == answer)) {
            Some(kind) => return Ok(*kind),
            None => output::complaint(&format!("`{answer}` is none of them"), None),
        }
    }
}

fn described(kind: KeySourceKind) -> &'static str {
    match kind {
        KeySourceKind::Keychain => "the desktop's keychain: unlocked with your login",
        KeySourceKind::SystemdCredential => "handed to the daemon by systemd, sealed to this machine",
        KeySourceKind::Passphrase => "in your head: `mcp-authctl unlock` after every start of the daemon",
        KeySourceKind::KeyFile => "a file beside the vault: no safer than the disk it lies on",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_offered_where_systemd_gave_one_and_the_keychain_never_twice() {
        assert_eq!(choices(false), [KeySourceKind::Passphrase, KeySourceKind::KeyFile]);
        assert_eq!(choices(true), [KeySourceKind::SystemdCredential, KeySourceKind::Passphrase, KeySourceKind::KeyFile]);
    }
}

//! A new key for every record, with one commit point.
//!
//! ```text
//! header: next = new    the new folder is work in progress
//! the new key is made and read back; every record is sealed under it into a new folder
//! header: key = new, retired = old                                   <- from here on the new key is the vault's
//! the old folder goes, then the old key; header: nothing retired
//! ```
//!
//! Whatever is interrupted is finished or undone by the next opening.

use std::path::Path;

use mcp_auth_proto::KeySourceKind;
use zeroize::Zeroizing;

use super::VaultError;
use super::header::{Header, OtherKey};
use super::jobs::{Answer, Goal};
use super::keeper::{Held, Keeper, locked, needs_passphrase};
use super::store::{self, refused};

impl Keeper {
    /// Starts the change of key; it goes on in [`Keeper::move_to`] when the new key is there.
    pub(super) fn rekey(&mut self, source: Option<KeySourceKind>, passphrase: Option<Zeroizing<String>>, done: Answer<KeySourceKind>) {
        let header = match self.held.as_ref().map(|held| Ok(Some(held.header.clone()))).unwrap_or_else(|| self.existing()) {
            Ok(Some(header)) => header,
            Ok(None) => return done.give(Err(VaultError::NeedsSetup("there is no vault yet".into()))),
            Err(error) => return done.give(Err(error)),
        };
        let target = source.or(self.places.key_source).unwrap_or(header.key_source);
        let fits = self.can_move(&header, target, passphrase.as_ref()).and_then(|()| self.free_for(target));
        if let Err(error) = fits {
            return done.give(Err(error));
        }
        if self.held.is_none() {
            // The only passphrase given is the new one's, where the new key needs one.
            let (old, new) = if target == KeySourceKind::Passphrase { (None, passphrase) } else { (passphrase, None) };
            return self.send_for_key(Goal::Unlock { header, target, passphrase: new, done }, old, true);
        }
        let draft = Header::draft(Some(header.vault_id), target, self.surroundings.stretch);
        match self.announce(&draft) {
            Ok(()) => self.send_for_key(Goal::Rekey { draft, done }, passphrase, true),
            Err(error) => done.give(Err(error)),
        }
    }

    /// The new key is here: everything moves to it, or nothing does.
    pub(super) fn move_to(&mut self, draft: Header, secret: &[u8]) -> Result<Header, VaultError> {
        let Some(held) = &self.held else { return Err(locked("the vault was locked meanwhile")) };
        match commit(&self.places.vault, held, draft, secret) {
            Ok((moved, certain)) => {
                let header = moved.header.clone();
                self.held = Some(moved);
                certain?;
                self.finish_rekey();
                Ok(header)
            }
            Err(error) => {
                self.finish_rekey();
                Err(error)
            }
        }
    }

    /// Removes what a change of key left behind, whether it was interrupted before or after its commit. Best effort: what
    /// fails now is left in the header for the next opening.
    pub(super) fn finish_rekey(&mut self) {
        let Some(held) = &self.held else { return };
        let (vault, header) = (&self.places.vault, held.header.clone());
        let others: Vec<OtherKey> = header.next.into_iter().chain(header.retired).collect();
        if others.is_empty() {
            return;
        }
        let settled = header.settled();
        let remove = || -> Result<(), String> {
            // Written anew before anything goes: the commit may have been visible without being certain to last.
            header.write(vault).map_err(|error| error.to_string())?;
            for other in &others {
                store::remove_folder(vault, other.key_id, header.key_id).map_err(|error| error.to_string())?;
                self.forget_key(&header, other).map_err(|error| error.to_string())?;
            }
            settled.write(vault).map_err(|error| error.to_string())
        };
        if let Err(error) = remove() {
            tracing::warn!(error, "what a change of the vault's key left behind could not be removed yet");
            return;
        }
        if let Some(held) = &mut self.held {
            held.header = settled.clone();
        }
        for other in others {
            self.forget_keychain_key(&settled, other);
        }
    }

    fn can_move(&self, header: &Header, target: KeySourceKind, passphrase: Option<&Zeroizing<String>>) -> Result<(), VaultError> {
        if let Some(named) = self.places.key_source.filter(|named| *named != target) {
            return Err(VaultError::Conflict {
                reason: format!("MCP_AUTHD_KEY_SOURCE says {named}, so the vault would not open with the key source {target}"),
                hint: Some(format!("mcp-authctl vault rekey --key-source {named}")),
            });
        }
        if self.held.is_none() && header.key_source == KeySourceKind::Passphrase && target == KeySourceKind::Passphrase {
            return Err(locked("the vault is locked"));
        }
        needs_passphrase(target, passphrase)
    }

    /// Notes the new key before anything of it exists, so that a crash leaves nothing without a name.
    pub(super) fn announce(&mut self, draft: &Header) -> Result<(), VaultError> {
        self.finish_rekey();
        let Some(held) = &mut self.held else { return Err(locked("the vault is locked")) };
        if held.header.next.is_some() || held.header.retired.is_some() {
            return Err(VaultError::Disk("what an earlier change of key left behind cannot be removed yet".into()));
        }
        let mut noted = held.header.clone();
        noted.next = Some(draft.as_other());
        noted.write(&self.places.vault).map_err(|error| refused(&error))?;
        held.header = noted;
        Ok(())
    }
}

/// Seals everything under the new key and makes that the vault. The inner result says whether the disk confirmed it.
fn commit(vault: &Path, held: &Held, mut draft: Header, secret: &[u8]) -> Result<(Held, Result<(), VaultError>), VaultError> {
    let keys = draft.bind(secret);
    let store = held.store.copy_to(vault, keys)?;
    draft.retired = Some(held.header.as_other());
    let certain = match draft.write(vault) {
        Ok(()) => Ok(()),
        // Renamed, but not certain to last: what the name shows now is followed, and both folders stay.
        Err(error) if Header::read(vault)?.is_some_and(|shown| shown.key_id == draft.key_id) => Err(refused(&error)),
        Err(error) => return Err(refused(&error)),
    };
    Ok((Held { header: draft, store }, certain))
}

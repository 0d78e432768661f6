//! What the vault's thread is asked, whom it owes an answer, and what it does when a key has come.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto::KeySourceKind;
use zeroize::Zeroizing;

use super::header::{Header, Stretch};
use super::key::{self, KeyError, Secret, Sources};
use super::keychain::{Keychain, SystemKeychain};
use super::store::Change;
use super::{Done, Opened, Places, VaultError};

/// What the vault's thread is asked. Not `Debug`: there are passphrases in it.
pub(super) enum Job {
    Open { prompt: bool, passphrase: Option<Zeroizing<String>>, done: Answer<Opened> },
    Setup { source: KeySourceKind, passphrase: Option<Zeroizing<String>>, done: Answer<Opened> },
    Lock(Answer<()>),
    Change(Change, Answer<()>),
    Rekey { source: Option<KeySourceKind>, passphrase: Option<Zeroizing<String>>, done: Answer<KeySourceKind> },
    Backup { to: PathBuf, done: Answer<()> },
    Key { ticket: u64, result: Result<Secret, KeyError> },
}

/// The promise of one answer: a job that is dropped, by a panic for one, answers too.
pub(super) struct Answer<T>(Option<Done<T>>);

impl<T> Answer<T> {
    pub(super) fn to(done: Done<T>) -> Self {
        Self(Some(done))
    }

    pub(super) fn give(mut self, result: Result<T, VaultError>) {
        self.call(result);
    }

    fn call(&mut self, result: Result<T, VaultError>) {
        let Some(done) = self.0.take() else { return };
        // A caller's panic is not the vault's, and may not close it.
        if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            tracing::error!("a completion of the vault panicked");
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.call(Err(VaultError::Disk("the vault's thread stumbled over this request".into())));
    }
}

impl<T> std::fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

/// What the vault meets outside its folder.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) keychain: Arc<dyn Keychain>,
    pub(super) credentials: Option<PathBuf>,
    pub(super) stretch: Stretch,
    /// How long the keychain may take, and how long if it asks the person.
    pub(super) patience: Duration,
    pub(super) patience_for_prompt: Duration,
}

impl Surroundings {
    pub(super) fn of_the_system() -> Self {
        Self {
            keychain: Arc::new(SystemKeychain),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            stretch: key::STRETCH,
            patience: Duration::from_secs(10),
            patience_for_prompt: Duration::from_secs(120),
        }
    }
}

/// What happens when the secret comes.
pub(super) enum Goal {
    /// The vault of this header is opened.
    Open(Header, Answer<Opened>),
    /// A new vault with this header is made.
    Create { draft: Header, silent: bool, done: Answer<Opened> },
    /// The vault of this header is opened, and the change of its key goes on.
    Unlock { header: Header, target: KeySourceKind, passphrase: Option<Zeroizing<String>>, done: Answer<KeySourceKind> },
    /// The open vault moves to the key of this header.
    Rekey { draft: Header, done: Answer<KeySourceKind> },
    /// The vault has moved to the key of this header, and the old key is being removed, for better or worse.
    Farewell { header: Header, done: Answer<KeySourceKind> },
}

impl Goal {
    /// The header whose key the goal needs.
    pub(super) fn header(&self) -> &Header {
        match self {
            Self::Open(header, _) | Self::Unlock { header, .. } | Self::Farewell { header, .. } => header,
            Self::Create { draft, .. } | Self::Rekey { draft, .. } => draft,
        }
    }

    /// Ends it without what it was for.
    pub(super) fn fail(self, error: VaultError) {
        match self {
            Self::Open(_, done) | Self::Create { done, .. } => done.give(Err(error)),
            Self::Unlock { done, .. } | Self::Rekey { done, .. } => done.give(Err(error)),
            Self::Farewell { .. } => self.end(),
        }
    }

    /// Ends a farewell, whatever came of it.
    pub(super) fn end(self) {
        if let Self::Farewell { header, done } = self {
            done.give(Ok(header.key_source));
        }
    }

    /// Ends it because the key did not come.
    pub(super) fn key_failed(self, error: KeyError) {
        let made = match &self {
            Self::Open(..) | Self::Unlock { .. } | Self::Farewell { .. } => false,
            Self::Create { silent, .. } => {
                if let (true, KeyError::NoSource(reason, _)) = (silent, &error) {
                    let sentence = format!("there is no vault yet, and {reason}");
                    return self.fail(VaultError::NeedsSetup(sentence));
                }
                !silent
            }
            Self::Rekey { .. } => true,
        };
        let key_source = Some(self.header().key_source);
        self.fail(match error {
            KeyError::Disk(error) => error,
            KeyError::NoSource(reason, hint) | KeyError::Closed(reason, hint) if made => VaultError::Conflict { reason, hint: Some(hint) },
            KeyError::NoSource(reason, hint) | KeyError::Closed(reason, hint) => {
                VaultError::Locked { reason, hint: Some(hint), key_source }
            }
        });
    }
}

impl Surroundings {
    pub(super) fn has_credential(&self) -> bool {
        self.credentials.as_ref().is_some_and(|folder| folder.join(key::CREDENTIAL).exists())
    }

    pub(super) fn sources<'a>(&'a self, places: &'a Places, passphrase: Option<Zeroizing<String>>, prompt: bool) -> Sources<'a> {
        Sources { places, keychain: &*self.keychain, credentials: self.credentials.as_deref(), prompt, passphrase }
    }
}

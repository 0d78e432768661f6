//! The vault: sealed records on disk, a thread of its own that writes them, and the key that opens them.
//!
//! Everything here returns at once; completions are called on the vault's threads and only post to a mailbox.
//! It knows nothing of grants: a record is an id, a generation and bytes.

mod attempts;
mod backup;
mod files;
#[cfg(all(unix, any(test, feature = "fuzzing")))]
pub(crate) mod fuzz;
mod header;
mod hex;
mod intents;
mod jobs;
mod keeper;
mod key;
pub mod keychain;
pub mod record;
mod rekey;
mod store;
#[cfg(test)]
#[cfg(unix)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use mcp_auth_proto::KeySourceKind;
use zeroize::Zeroizing;

use self::jobs::{Answer, Job, Surroundings};
use self::keeper::Keeper;
use self::store::Change;

/// What a record is for, and its name within that kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId {
    /// What it is for.
    pub kind: RecordKind,
    /// Its name within the kind.
    pub name: String,
}

impl RecordId {
    /// The one record of the policy.
    pub fn policy() -> Self {
        Self { kind: RecordKind::Policy, name: "policy".into() }
    }
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    /// A grant.
    Grant,
    /// A client registration.
    Registration,
    /// A provider's client secret.
    ProviderSecret,
    /// The policy.
    Policy,
    /// Keys and families of the issuer.
    Issuer,
    /// The socket of a single program.
    Capability,
    /// A client of the relay's port.
    RelayClient,
}

impl RecordKind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Grant, Self::Registration, Self::ProviderSecret, Self::Policy, Self::Issuer, Self::Capability, Self::RelayClient];

    /// The word for it inside a sealed record; never changed once released.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Registration => "registration",
            Self::ProviderSecret => "provider-secret",
            Self::Policy => "policy",
            Self::Issuer => "issuer",
            Self::Capability => "capability",
            Self::RelayClient => "relay-client",
        }
    }
}

/// A record in the clear, for a moment.
#[derive(Clone)]
pub struct Record {
    /// Its id.
    pub id: RecordId,
    /// Its version.
    pub generation: u64,
    /// Its content.
    pub plaintext: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("id", &self.id).field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// "This refresh token is about to be sent": written before a rotating refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The grant's record.
    pub id: RecordId,
    /// The record's generation.
    pub generation: u64,
    /// [`crate::secret::RefreshToken::fingerprint`].
    pub fingerprint: [u8; 8],
}

/// What an open vault holds.
#[derive(Debug)]
pub struct Opened {
    /// Every readable record.
    pub records: Vec<Record>,
    /// Every intent on file; obsolete ones included.
    pub intents: Vec<Intent>,
    /// How many records are not in `records`: put aside as corrupt, now or earlier, or left because a newer mcp-authd
    /// wrote them or the disk did not give them.
    pub quarantined: usize,
    /// The policy's record is one of those, so that nobody knows what it said.
    pub policy_lost: bool,
    /// Where the key came from.
    pub key_source: KeySourceKind,
}

/// Why the vault did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// There is no vault yet, and none can be made without a choice of key source.
    #[error("{0}")]
    NeedsSetup(String),
    /// The key is not there at the moment; trying again later may help.
    #[error("{reason}")]
    Locked {
        /// Why, one sentence.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
        /// The key source that did not give the key, where it was asked.
        key_source: Option<KeySourceKind>,
    },
    /// The passphrase is wrong.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// Too many wrong passphrases; this one was not tried.
    #[error("too many wrong passphrases; the next one can be tried in {} s", .0.as_secs() + 1)]
    TooSoon(Duration),
    /// The request does not fit: there is a vault already, another key source, the folder exists.
    #[error("{reason}")]
    Conflict {
        /// Why, one sentence.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The disk refused.
    #[error("{0}")]
    Disk(String),
}

impl VaultError {
    /// Whether it may pass without a person doing anything to the daemon: a keychain that is unlocked or installed later.
    pub fn passes_by_itself(&self) -> bool {
        matches!(self, Self::NeedsSetup(_) | Self::Locked { key_source: Some(KeySourceKind::Keychain), .. })
    }

    /// The key source that did not give the key.
    pub fn key_source(&self) -> Option<KeySourceKind> {
        match self {
            Self::Locked { key_source, .. } => *key_source,
            Self::WrongPassphrase | Self::TooSoon(_) => Some(KeySourceKind::Passphrase),
            Self::NeedsSetup(_) | Self::Conflict { .. } | Self::Disk(_) => None,
        }
    }
}

/// Called once, on a thread of the vault.
pub type Done<T> = Box<dyn FnOnce(Result<T, VaultError>) + Send>;

/// Where the vault is and where its key may come from.
#[derive(Clone, Debug)]
pub struct Places {
    /// The vault's folder.
    pub vault: PathBuf,
    /// The key file, for [`KeySourceKind::KeyFile`].
    pub key_file: PathBuf,
    /// The key source that the environment names (`MCP_AUTHD_KEY_SOURCE`).
    pub key_source: Option<KeySourceKind>,
}

/// The handle of the vault. Cheap to clone; the thread ends, and forgets the key, with the last clone.
#[derive(Clone, Debug)]
pub struct Vault {
    jobs: Arc<Sender<Job>>,
    folder: PathBuf,
    credential: bool,
}

impl Vault {
    /// Starts the threads. Touches neither disk nor keychain.
    pub fn start(places: Places) -> Self {
        Self::start_in(places, Surroundings::of_the_system())
    }

    /// Opens the vault: makes a new one (keychain, or the environment's key source) only where there is none. Of an open
    /// vault it reads the records again.
    ///
    /// `prompt` allows the keychain to ask the person, who then has two minutes; without it the answer comes within 10 s.
    /// One key is fetched at a time: whoever asks meanwhile gets [`VaultError::Locked`] at once.
    pub fn open(&self, prompt: bool, passphrase: Option<Zeroizing<String>>, done: Done<Opened>) {
        self.post(Job::Open { prompt, passphrase, done: Answer::to(done) });
    }

    /// Makes a new vault. Refused where there is one. The keychain may ask the person.
    pub fn setup(&self, source: KeySourceKind, passphrase: Option<Zeroizing<String>>, done: Done<Opened>) {
        self.post(Job::Setup { source, passphrase, done: Answer::to(done) });
    }

    /// Forgets the key. Saves asked for earlier are still carried out.
    pub fn lock(&self, done: Done<()>) {
        self.post(Job::Lock(Answer::to(done)));
    }

    /// Seals and replaces one record, durably. Saves that come together share the folder's fsync.
    pub fn save(&self, record: Record, done: Done<()>) {
        self.post(Job::Change(Change::Save(record), Answer::to(done)));
    }

    /// Removes one record, durably.
    pub fn delete(&self, id: RecordId, done: Done<()>) {
        self.post(Job::Change(Change::Delete(id), Answer::to(done)));
    }

    /// Appends one intent, durably; intents that come together share one sync.
    pub fn intend(&self, intent: Intent, done: Done<()>) {
        self.post(Job::Change(Change::Intend(intent), Answer::to(done)));
    }

    /// A new key for every record: of `source`, else of the environment's key source, else of the present one. The old
    /// key is removed, so backups made before it can no longer be opened.
    ///
    /// A vault that is locked is opened first, which is the way out where the environment names another key source;
    /// call [`Vault::open`] afterwards for the records. The passphrase is the new one where the new source is a
    /// passphrase, else that of the locked vault.
    pub fn rekey(&self, source: Option<KeySourceKind>, passphrase: Option<Zeroizing<String>>, done: Done<KeySourceKind>) {
        self.post(Job::Rekey { source, passphrase, done: Answer::to(done) });
    }

    /// Copies the sealed vault to a folder that does not exist yet. The key is not copied; a locked vault will do.
    pub fn backup(&self, to: PathBuf, done: Done<()>) {
        self.post(Job::Backup { to, done: Answer::to(done) });
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether systemd handed over a credential that can be its key source.
    pub fn has_credential(&self) -> bool {
        self.credential
    }

    fn start_in(places: Places, surroundings: Surroundings) -> Self {
        let (sender, inbox) = mpsc::channel();
        let (folder, credential) = (places.vault.clone(), surroundings.has_credential());
        let jobs = Arc::new(sender);
        let keeper = Keeper::new(places, surroundings, inbox, Arc::downgrade(&jobs));
        std::thread::Builder::new().name("vault".into()).spawn(|| keeper.run()).expect("a thread can be started");
        Self { jobs, folder, credential }
    }

    fn post(&self, job: Job) {
        // A job that finds no thread is dropped, and its answer says so.
        drop(self.jobs.send(job));
    }
}

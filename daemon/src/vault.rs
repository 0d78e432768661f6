//! The vault: sealed records on disk, a thread of its own that writes them, and the key that opens them.
//!
//! Everything here returns at once; completions are called on the vault's threads and only post to a mailbox.
//! It knows nothing of grants: a record is an id, a generation and bytes.

pub mod key;
pub mod record;
pub mod store;

use std::path::PathBuf;

use mcp_auth_proto::KeySourceKind;
use zeroize::Zeroizing;

/// What a record is for, and its name within that kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId {
    /// What it is for.
    pub kind: RecordKind,
    /// Its name within the kind.
    pub name: String,
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
pub struct Opened {
    /// Every readable record.
    pub records: Vec<Record>,
    /// Every intent on file; obsolete ones included.
    pub intents: Vec<Intent>,
    /// How many corrupt records were put aside, now or earlier.
    pub quarantined: usize,
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
    },
    /// The passphrase is wrong.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
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

/// The handle of the vault. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vault {}

impl Vault {
    /// Starts the threads. Touches neither disk nor keychain.
    pub fn start(_places: Places) -> Self {
        todo!()
    }
    /// Opens the vault: makes a new one (keychain, or the environment's key source) only where there is none.
    /// `prompt` allows the keychain to ask the person.
    pub fn open(&self, _prompt: bool, _passphrase: Option<Zeroizing<String>>, _done: Done<Opened>) {
        todo!()
    }
    /// Makes a new vault. Refused where there is one.
    pub fn setup(&self, _source: KeySourceKind, _passphrase: Option<Zeroizing<String>>, _done: Done<Opened>) {
        todo!()
    }
    /// Forgets the key.
    pub fn lock(&self, _done: Done<()>) {
        todo!()
    }
    /// Seals and replaces one record, durably. Saves that come together share the folder's fsync.
    pub fn save(&self, _record: Record, _done: Done<()>) {
        todo!()
    }
    /// Removes one record, durably.
    pub fn delete(&self, _id: RecordId, _done: Done<()>) {
        todo!()
    }
    /// Appends one intent, durably; intents that come together share one sync.
    pub fn intend(&self, _intent: Intent, _done: Done<()>) {
        todo!()
    }
    /// A new key for every record.
    pub fn rekey(&self, _source: Option<KeySourceKind>, _passphrase: Option<Zeroizing<String>>, _done: Done<KeySourceKind>) {
        todo!()
    }
    /// Copies the sealed vault to a folder that does not exist yet.
    pub fn backup(&self, _to: PathBuf, _done: Done<()>) {
        todo!()
    }
}

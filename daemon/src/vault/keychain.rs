//! The operating system's keychain: Secret Service, Keychain Services or the Windows Credential Manager.
//!
//! Every call blocks and may block for ever, so the vault makes them on a thread that it can do without. A connection
//! lives for one call. What lies in the keychain is one short text per key, in hex, since KWallet keeps only text.

use std::fmt::Debug;

use zeroize::Zeroizing;

/// The name that the entries have in the keychain.
pub const SERVICE: &str = "mcp-authd";

/// A keychain: the system's, or a test's.
pub trait Keychain: Debug + Send + Sync {
    /// The text of an entry, `None` where there is no such entry. Asks the person only if `prompt`.
    fn read(&self, entry: &str, prompt: bool) -> Result<Option<Zeroizing<String>>, KeychainError>;
    /// Makes or replaces an entry. Asks the person only if `prompt`.
    fn write(&self, entry: &str, text: &str, prompt: bool) -> Result<(), KeychainError>;
    /// Removes an entry; one that is not there is fine. Never asks.
    fn remove(&self, entry: &str) -> Result<(), KeychainError>;
}

/// Why the keychain did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeychainError {
    /// Nothing could be asked.
    #[error("there is no D-Bus session bus, so no keychain can be reached")]
    NoBus,
    /// Nobody answers.
    #[error("no keychain (Secret Service) answers on the D-Bus session bus")]
    NoProvider,
    /// The keychain has never been set up.
    #[error("the keychain has no default collection yet")]
    NoCollection,
    /// It needs its password first.
    #[error("the keychain is locked")]
    Locked,
    /// The person said no, or there was no way to ask.
    #[error("the keychain's question was dismissed, or could not be shown")]
    Dismissed,
    /// Several entries claim to be ours.
    #[error("the keychain holds more than one entry for this vault")]
    Ambiguous,
    /// What the keychain said.
    #[error("the keychain failed: {0}")]
    Other(String),
}

impl KeychainError {
    /// Whether there is no usable keychain at all, as opposed to one that is closed at the moment.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NoBus | Self::NoProvider | Self::NoCollection)
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoBus | Self::NoProvider => {
                "start a keychain, such as gnome-keyring, or choose another key source with `mcp-authctl setup`"
            }
            Self::NoCollection => "log in to the desktop once, or unlock the keychain with `gnome-keyring-daemon --unlock`",
            Self::Locked | Self::Dismissed => "mcp-authctl unlock",
            Self::Ambiguous => "remove all but one of the entries of mcp-authd from the keychain",
            Self::Other(_) => "mcp-authctl doctor",
        }
    }
}

/// The system's keychain.
#[derive(Clone, Copy, Debug)]
pub struct SystemKeychain;

impl Keychain for SystemKeychain {
    fn read(&self, entry: &str, prompt: bool) -> Result<Option<Zeroizing<String>>, KeychainError> {
        if !system::reach(entry, prompt)? {
            return Ok(None);
        }
        match system::entry(entry)?.get_password() {
            Ok(text) => Ok(Some(Zeroizing::new(text))),
            Err(keyring_core::Error::NoEntry) => Ok(None),
            Err(error) => Err(system::explain(error)),
        }
    }

    fn write(&self, entry: &str, text: &str, prompt: bool) -> Result<(), KeychainError> {
        system::reach_for_writing(prompt)?;
        system::entry(entry)?.set_password(text).map_err(system::explain)
    }

    fn remove(&self, entry: &str) -> Result<(), KeychainError> {
        if !system::reach(entry, false)? {
            return Ok(());
        }
        match system::entry(entry)?.delete_credential() {
            Ok(()) | Err(keyring_core::Error::NoEntry) => Ok(()),
            Err(error) => Err(system::explain(error)),
        }
    }
}

/// The Secret Service. keyring-core unlocks whatever it meets, and a locked collection with a display then blocks until
/// the person answers; so the lock state is asked for first, with the crate that keyring-core's store is made of.
#[cfg(target_os = "linux")]
mod system {
    use std::collections::HashMap;

    use keyring_core::api::CredentialStoreApi as _;
    use secret_service::blocking::{Collection, SecretService};
    use secret_service::{EncryptionType, Error};

    use super::{KeychainError, SERVICE};

    /// Whether the entry is there and can be read without a question; asks the person to unlock it if `prompt`.
    pub(super) fn reach(entry: &str, prompt: bool) -> Result<bool, KeychainError> {
        let keychain = connect()?;
        let attributes = || HashMap::from([("service", SERVICE), ("username", entry)]);
        let mut found = keychain.search_items(attributes()).map_err(translate)?;
        // Some keychains show nothing of what is locked.
        if found.unlocked.is_empty() && found.locked.is_empty() && unlocked_default(&keychain, prompt)? {
            found = keychain.search_items(attributes()).map_err(translate)?;
        }
        match (found.unlocked.as_slice(), found.locked.as_slice()) {
            ([], []) => Ok(false),
            ([_, ..], []) => Ok(true),
            (_, [_, ..]) if !prompt => Err(KeychainError::Locked),
            (_, locked) => {
                keychain.unlock_all(&locked.iter().collect::<Vec<_>>()).map_err(translate)?;
                Ok(true)
            }
        }
    }

    /// Sees to it that an entry can be made without a question; asks the person if `prompt`.
    pub(super) fn reach_for_writing(prompt: bool) -> Result<(), KeychainError> {
        let keychain = connect()?;
        match keychain.get_default_collection() {
            Ok(collection) => unlock(&collection, prompt).map(drop),
            Err(Error::NoResult) if prompt => keychain.create_collection("Login", "default").map(drop).map_err(translate),
            Err(Error::NoResult) => Err(KeychainError::NoCollection),
            Err(error) => Err(translate(error)),
        }
    }

    /// The entry, over a connection of its own.
    pub(super) fn entry(entry: &str) -> Result<keyring_core::Entry, KeychainError> {
        let store = zbus_secret_service_keyring_store::Store::new().map_err(explain)?;
        store.build(SERVICE, entry, Some(&HashMap::from([("label", "Key of the mcp-authd vault")]))).map_err(explain)
    }

    pub(super) fn explain(error: keyring_core::Error) -> KeychainError {
        match error {
            keyring_core::Error::Ambiguous(_) => KeychainError::Ambiguous,
            keyring_core::Error::PlatformFailure(cause) | keyring_core::Error::NoStorageAccess(cause) => match cause.downcast::<Error>() {
                Ok(error) => translate(*error),
                Err(cause) => KeychainError::Other(cause.to_string()),
            },
            // Its other texts may hold what was stored.
            keyring_core::Error::BadEncoding(_) | keyring_core::Error::BadDataFormat(..) => {
                KeychainError::Other("the entry is not a text".into())
            }
            error => KeychainError::Other(error.to_string()),
        }
    }

    fn connect() -> Result<SecretService<'static>, KeychainError> {
        // No secret passes over this connection, only lock states.
        SecretService::connect(EncryptionType::Plain).map_err(translate)
    }

    /// Whether the default collection was locked and is unlocked now.
    fn unlocked_default(keychain: &SecretService<'_>, prompt: bool) -> Result<bool, KeychainError> {
        match keychain.get_default_collection() {
            Ok(collection) => unlock(&collection, prompt),
            Err(Error::NoResult) => Ok(false),
            Err(error) => Err(translate(error)),
        }
    }

    fn unlock(collection: &Collection<'_>, prompt: bool) -> Result<bool, KeychainError> {
        match (collection.is_locked().map_err(translate)?, prompt) {
            (false, _) => Ok(false),
            (true, false) => Err(KeychainError::Locked),
            (true, true) => collection.unlock().map(|()| true).map_err(translate),
        }
    }

    fn translate(error: Error) -> KeychainError {
        match error {
            Error::Unavailable => KeychainError::NoBus,
            Error::Locked => KeychainError::Locked,
            Error::Prompt | Error::PromptDisconnected => KeychainError::Dismissed,
            Error::NoResult => KeychainError::NoCollection,
            error => {
                let text = error.to_string();
                // The names that the bus gives to "nobody is there, and nobody can be started".
                if ["ServiceUnknown", "NameHasNoOwner", "Spawn."].iter().any(|name| text.contains(name)) {
                    KeychainError::NoProvider
                } else if text.contains("IsLocked") {
                    KeychainError::Locked
                } else {
                    KeychainError::Other(text)
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use keyring_core::api::CredentialStoreApi as _;

    use super::{KeychainError, SERVICE};

    // Neither system tells the lock state; both ask by themselves, and only when they must.
    pub(super) fn reach(_: &str, _: bool) -> Result<bool, KeychainError> {
        Ok(true)
    }

    pub(super) fn reach_for_writing(_: bool) -> Result<(), KeychainError> {
        Ok(())
    }

    #[cfg(any(target_os = "macos", windows))]
    pub(super) fn entry(entry: &str) -> Result<keyring_core::Entry, KeychainError> {
        #[cfg(target_os = "macos")]
        let store = apple_native_keyring_store::keychain::Store::new().map_err(explain)?;
        #[cfg(windows)]
        let store = windows_native_keyring_store::Store::new().map_err(explain)?;
        store.build(SERVICE, entry, None).map_err(explain)
    }

    #[cfg(not(any(target_os = "macos", windows)))]
    pub(super) fn entry(_: &str) -> Result<keyring_core::Entry, KeychainError> {
        Err(KeychainError::NoProvider)
    }

    pub(super) fn explain(error: keyring_core::Error) -> KeychainError {
        match error {
            keyring_core::Error::Ambiguous(_) => KeychainError::Ambiguous,
            keyring_core::Error::NoStorageAccess(_) => KeychainError::Locked,
            keyring_core::Error::PlatformFailure(cause) => KeychainError::Other(cause.to_string()),
            keyring_core::Error::BadEncoding(_) | keyring_core::Error::BadDataFormat(..) => {
                KeychainError::Other("the entry is not a text".into())
            }
            error => KeychainError::Other(error.to_string()),
        }
    }
}

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
    /// It took too long.
    #[error("the keychain has not answered yet")]
    Silent,
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
                "start a keychain, such as gnome-keyring, or choose another place, such as `--key-source passphrase`"
            }
            Self::NoCollection => "log in to the desktop once, or unlock the keychain with `gnome-keyring-daemon --unlock`",
            Self::Dismissed => {
                "answer it on the desktop; where there is none: `(read -rs p; printf %s \"$p\") | gnome-keyring-daemon --replace --unlock` in bash, then `mcp-authctl unlock`"
            }
            Self::Locked | Self::Silent => "mcp-authctl unlock",
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
        asking_last(prompt, |prompt| system::read(entry, prompt))
    }

    fn write(&self, entry: &str, text: &str, prompt: bool) -> Result<(), KeychainError> {
        asking_last(prompt, |prompt| system::write(entry, text, prompt))
    }

    fn remove(&self, entry: &str) -> Result<(), KeychainError> {
        system::remove(entry)
    }
}

/// Asks the person only where it does not go without, so that a keychain that is merely stuck is noticed soon.
fn asking_last<T>(prompt: bool, call: impl Fn(bool) -> Result<T, KeychainError>) -> Result<T, KeychainError> {
    match call(false) {
        Err(KeychainError::Locked | KeychainError::NoCollection) if prompt => call(true),
        result => result,
    }
}

/// The Secret Service, without keyring-core's store: that unlocks whatever it meets, and a locked collection with a
/// display then blocks until the person answers, and it leaves one idle thread per core behind. Attributes are the
/// store's own, so either finds what the other wrote.
#[cfg(target_os = "linux")]
mod system {
    use std::collections::HashMap;
    use std::time::Duration;

    use secret_service::{Collection, EncryptionType, Error, Item, SecretService};
    use zeroize::Zeroizing;

    use super::{KeychainError, SERVICE};

    pub(super) fn read(entry: &str, prompt: bool) -> Result<Option<Zeroizing<String>>, KeychainError> {
        run(prompt, async {
            let keychain = SecretService::connect(EncryptionType::Dh).await?;
            let Some(item) = find(&keychain, entry, prompt).await? else { return Ok(None) };
            let secret = Zeroizing::new(item.get_secret().await?);
            match std::str::from_utf8(&secret) {
                Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
                Err(_) => Err(KeychainError::Other("the entry is not a text".into())),
            }
        })
    }

    pub(super) fn write(entry: &str, text: &str, prompt: bool) -> Result<(), KeychainError> {
        run(prompt, async {
            let keychain = SecretService::connect(EncryptionType::Dh).await?;
            let collection = match keychain.get_default_collection().await {
                Err(Error::NoResult) if prompt => keychain.create_collection("Login", "default").await?,
                Err(Error::NoResult) => return Err(KeychainError::NoCollection),
                found => found?,
            };
            unlock(&collection, prompt).await?;
            let label = "Key of the mcp-authd vault";
            collection.create_item(label, attributes(entry), text.as_bytes(), true, "text/plain").await?;
            Ok(())
        })
    }

    pub(super) fn remove(entry: &str) -> Result<(), KeychainError> {
        run(false, async {
            let keychain = SecretService::connect(EncryptionType::Plain).await?;
            match find(&keychain, entry, false).await? {
                Some(item) => Ok(item.delete().await?),
                None => Ok(()),
            }
        })
    }

    /// Runs one call to its end, or gives it up: no connection, thread or question of ours outlives it.
    fn run<T>(prompt: bool, call: impl Future<Output = Result<T, KeychainError>>) -> Result<T, KeychainError> {
        let failed = |error: std::io::Error| KeychainError::Other(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let limit = Duration::from_secs(if prompt { 110 } else { 10 });
        let result = runtime.block_on(async { tokio::time::timeout(limit, call).await });
        runtime.shutdown_background();
        result.unwrap_or_else(|_| Err(KeychainError::Silent))
    }

    /// The entry, unlocked.
    async fn find<'a>(keychain: &'a SecretService<'_>, entry: &str, prompt: bool) -> Result<Option<Item<'a>>, KeychainError> {
        let mut found = keychain.search_items(attributes(entry)).await?;
        // Some keychains show nothing of what is locked.
        if found.unlocked.is_empty() && found.locked.is_empty() && unlocked_default(keychain, prompt).await? {
            found = keychain.search_items(attributes(entry)).await?;
        }
        if !found.locked.is_empty() {
            if !prompt {
                return Err(KeychainError::Locked);
            }
            keychain.unlock_all(&found.locked.iter().collect::<Vec<_>>()).await?;
        }
        let mut items = found.unlocked.into_iter().chain(found.locked);
        match (items.next(), items.next()) {
            (_, Some(_)) => Err(KeychainError::Ambiguous),
            (item, None) => Ok(item),
        }
    }

    /// Whether the default collection was locked and is unlocked now.
    async fn unlocked_default(keychain: &SecretService<'_>, prompt: bool) -> Result<bool, KeychainError> {
        match keychain.get_default_collection().await {
            Err(Error::NoResult) => Ok(false),
            found => unlock(&found?, prompt).await,
        }
    }

    async fn unlock(collection: &Collection<'_>, prompt: bool) -> Result<bool, KeychainError> {
        match (collection.is_locked().await?, prompt) {
            (false, _) => Ok(false),
            (true, false) => Err(KeychainError::Locked),
            (true, true) => Ok(collection.unlock().await.map(|()| true)?),
        }
    }

    fn attributes(entry: &str) -> HashMap<&str, &str> {
        HashMap::from([("service", SERVICE), ("username", entry)])
    }

    impl From<Error> for KeychainError {
        fn from(error: Error) -> Self {
            match error {
                Error::Unavailable => Self::NoBus,
                Error::Locked => Self::Locked,
                Error::Prompt | Error::PromptDisconnected => Self::Dismissed,
                Error::NoResult => Self::NoCollection,
                error => Self::from_text(error.to_string()),
            }
        }
    }

    impl KeychainError {
        // The names that the bus gives to "there is no bus" and "nobody is there, and nobody can be started".
        fn from_text(text: String) -> Self {
            let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
            if says(&["Failed to connect to address"]) {
                Self::NoBus
            } else if says(&["ServiceUnknown", "NameHasNoOwner", "Error.Spawn."]) {
                Self::NoProvider
            } else if says(&["IsLocked"]) {
                Self::Locked
            } else {
                Self::Other(text)
            }
        }
    }
}

/// Keychain Services and the Credential Manager, through keyring-core. Neither tells whether it is locked; both ask by
/// themselves, and only when they must.
#[cfg(any(target_os = "macos", windows))]
mod system {
    use keyring_core::api::CredentialStoreApi as _;
    use keyring_core::{Entry, Error};
    use zeroize::Zeroizing;

    use super::{KeychainError, SERVICE};

    pub(super) fn read(name: &str, _: bool) -> Result<Option<Zeroizing<String>>, KeychainError> {
        match entry(name)?.get_password() {
            Ok(text) => Ok(Some(Zeroizing::new(text))),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn write(name: &str, text: &str, _: bool) -> Result<(), KeychainError> {
        Ok(entry(name)?.set_password(text)?)
    }

    pub(super) fn remove(name: &str) -> Result<(), KeychainError> {
        match entry(name)?.delete_credential() {
            Ok(()) | Err(Error::NoEntry) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn entry(name: &str) -> Result<Entry, KeychainError> {
        #[cfg(target_os = "macos")]
        let store = apple_native_keyring_store::keychain::Store::new()?;
        #[cfg(windows)]
        let store = windows_native_keyring_store::Store::new()?;
        Ok(store.build(SERVICE, name, None)?)
    }

    impl From<Error> for KeychainError {
        fn from(error: Error) -> Self {
            match error {
                Error::Ambiguous(_) => Self::Ambiguous,
                Error::NoStorageAccess(_) => Self::Locked,
                Error::PlatformFailure(cause) => Self::Other(cause.to_string()),
                // Their own texts may hold what was stored.
                Error::BadEncoding(_) | Error::BadDataFormat(..) => Self::Other("the entry is not a text".into()),
                error => Self::Other(error.to_string()),
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
mod system {
    use zeroize::Zeroizing;

    use super::KeychainError;

    pub(super) fn read(_: &str, _: bool) -> Result<Option<Zeroizing<String>>, KeychainError> {
        Err(KeychainError::NoProvider)
    }

    pub(super) fn write(_: &str, _: &str, _: bool) -> Result<(), KeychainError> {
        Err(KeychainError::NoProvider)
    }

    pub(super) fn remove(_: &str) -> Result<(), KeychainError> {
        Err(KeychainError::NoProvider)
    }
}

//! The key sources: where the secret that opens a vault is kept, and how it is made, fetched and forgotten.
//!
//! Everything here blocks and runs on a thread of its own. It never decides whether there should be a vault, and it
//! never makes a secret where one was asked for.

use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use mcp_auth_proto::KeySourceKind;
use zeroize::Zeroizing;

use super::header::{Header, OtherKey, Stretch};
use super::hex::Hex;
use super::keychain::{Keychain, KeychainError};
use super::record::KeyId;
use super::{Places, VaultError, files, store};
use crate::platform::{self, NotPrivate};

/// What a key source keeps for a vault; the vault's keys are derived from it.
pub(super) type Secret = Zeroizing<Vec<u8>>;

/// The name of the systemd credential.
pub(super) const CREDENTIAL: &str = "mcp-authd.key";
/// How a new passphrase is stretched: within the 64 MiB that the daemon allows itself, about a quarter of a second.
pub(super) const STRETCH: Stretch = Stretch { memory_kib: 64 * 1024, passes: 3 };

/// Why a secret is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    /// The key source does not exist on this machine at the moment.
    #[error("{0}")]
    NoSource(String, String),
    /// The key source is there, but not the secret: locked, missing, not to be trusted.
    #[error("{0}")]
    Closed(String, String),
    /// The disk refused.
    #[error("{0}")]
    Disk(VaultError),
}

/// What can be asked of a key source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// The secret of an existing vault.
    Fetch,
    /// A secret for a new key.
    Make,
    /// Nothing more of this key.
    Forget(OtherKey),
}

/// What the errands on the key sources need.
pub(super) struct Sources<'a> {
    pub(super) places: &'a Places,
    pub(super) keychain: &'a dyn Keychain,
    /// The folder of systemd's credentials.
    pub(super) credentials: Option<&'a Path>,
    /// Whether the person may be asked.
    pub(super) prompt: bool,
    pub(super) passphrase: Option<Zeroizing<String>>,
}

impl Sources<'_> {
    /// Does what the vault's thread may not wait for.
    pub(super) fn run(&self, errand: Errand, header: &Header) -> Result<Secret, KeyError> {
        match errand {
            Errand::Fetch => self.fetch(header),
            Errand::Make => self.make(header),
            Errand::Forget(key) => self.forget(header, &key).map(|()| Secret::default()),
        }
    }

    /// The secret of an existing vault.
    pub(super) fn fetch(&self, header: &Header) -> Result<Secret, KeyError> {
        match header.key_source {
            KeySourceKind::Keychain => self.keychain_secret(header)?.ok_or_else(|| missing("the keychain has no key for this vault")),
            KeySourceKind::SystemdCredential => self.credential(),
            KeySourceKind::Passphrase => self.stretched(header),
            KeySourceKind::KeyFile => {
                let keys = KeyFile::read(&self.places.key_file)?;
                let keys = keys.ok_or_else(|| missing(&format!("the key file {} is missing", self.places.key_file.display())))?;
                keys.find(&header.key_id)
                    .ok_or_else(|| missing(&format!("the key file {} has no key for this vault", self.places.key_file.display())))
            }
        }
    }

    /// A secret for a new key. Where the source stores it, it is read back before this returns.
    pub(super) fn make(&self, header: &Header) -> Result<Secret, KeyError> {
        match header.key_source {
            KeySourceKind::Keychain => {
                let fresh = fresh();
                let text = Zeroizing::new(hex::encode(&fresh));
                self.keychain.write(&entry(header, &header.as_other()), &text, self.prompt).map_err(closed)?;
                match self.keychain_secret(header)? {
                    Some(kept) if kept == fresh => Ok(fresh),
                    _ => Err(KeyError::Closed(
                        "the keychain did not keep the key".into(),
                        "mcp-authctl setup --key-source passphrase".into(),
                    )),
                }
            }
            KeySourceKind::KeyFile => {
                let fresh = fresh();
                let mut keys = KeyFile::read(&self.places.key_file)?.unwrap_or_default();
                keys.add(&header.key_id, &fresh);
                keys.write(&self.places.key_file)?;
                Ok(fresh)
            }
            KeySourceKind::SystemdCredential | KeySourceKind::Passphrase => self.fetch(header),
        }
    }

    /// Removes the secret of a key that opens nothing any more.
    pub(super) fn forget(&self, header: &Header, key: &OtherKey) -> Result<(), KeyError> {
        match key.key_source {
            KeySourceKind::Keychain => self.keychain.remove(&entry(header, key)).map_err(closed),
            KeySourceKind::KeyFile => match KeyFile::read(&self.places.key_file)? {
                Some(mut keys) => {
                    keys.remove(&key.key_id);
                    keys.write(&self.places.key_file)
                }
                None => Ok(()),
            },
            KeySourceKind::SystemdCredential | KeySourceKind::Passphrase => Ok(()),
        }
    }

    fn keychain_secret(&self, header: &Header) -> Result<Option<Secret>, KeyError> {
        let text = self.keychain.read(&entry(header, &header.as_other()), self.prompt).map_err(closed)?;
        text.map(|text| secret_from_hex(text.trim()).ok_or_else(|| missing("the keychain's key for this vault is damaged"))).transpose()
    }

    fn stretched(&self, header: &Header) -> Result<Secret, KeyError> {
        let passphrase = self.passphrase.as_ref().filter(|passphrase| !passphrase.is_empty());
        let passphrase =
            passphrase.ok_or_else(|| KeyError::Closed("the vault needs its passphrase".into(), "mcp-authctl unlock".into()))?;
        let unusable = || missing("the vault's header names no usable passphrase parameters");
        // The header is not secret and could be edited: it may not make us take the machine's memory.
        let stretch = header.argon2.filter(|stretch| stretch.memory_kib <= 64 * 1024 && stretch.passes <= 16).ok_or_else(unusable)?;
        let params = Params::new(stretch.memory_kib, stretch.passes, 1, Some(32)).map_err(|_| unusable())?;
        let mut secret = Zeroizing::new(vec![0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &header.salt.0, &mut secret)
            .map_err(|error| KeyError::Closed(format!("the passphrase cannot be used: {error}"), "mcp-authctl unlock".into()))?;
        Ok(secret)
    }

    fn credential(&self) -> Result<Secret, KeyError> {
        let no_source =
            |reason: String| KeyError::NoSource(reason, format!("start mcp-authd from a unit with LoadCredentialEncrypted={CREDENTIAL}"));
        let folder = self.credentials.ok_or_else(|| no_source("systemd handed over no credentials".into()))?;
        let read = files::read(&folder.join(CREDENTIAL), 64 * 1024);
        let secret = Zeroizing::new(read.map_err(|error| no_source(format!("the systemd credential {CREDENTIAL} {error}")))?);
        if secret.len() < 32 {
            let hint = format!("head -c 32 /dev/urandom | systemd-creds encrypt --name={CREDENTIAL} - FILE");
            return Err(KeyError::Closed(format!("the systemd credential {CREDENTIAL} is shorter than 32 bytes"), hint));
        }
        Ok(secret)
    }
}

/// Several keys in one private file, so that a new key can lie beside the old one until it is in use.
#[derive(Default)]
struct KeyFile(Vec<(String, Zeroizing<String>)>);

impl KeyFile {
    fn read(path: &Path) -> Result<Option<Self>, KeyError> {
        let unusable = |error: NotPrivate| {
            let hint = match error {
                NotPrivate::Modes(_) => format!("chmod 600 {}", path.display()),
                _ => format!("replace {} by a file of your own", path.display()),
            };
            KeyError::Closed(format!("the key file {} {error}", path.display()), hint)
        };
        let file = match platform::open_existing(path, false) {
            Ok(file) => file,
            Err(NotPrivate::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(error)),
        };
        platform::private_file(&file).map_err(unusable)?;
        // They would hold keys that were removed since.
        files::remove_leftovers(path);
        let bytes = Zeroizing::new(files::read_open(&file, 64 * 1024).map_err(unusable)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| missing(&format!("the key file {} is damaged", path.display())))?;
        let keys = text.lines().filter_map(|line| line.split_once(' '));
        Ok(Some(Self(keys.map(|(id, key)| (id.to_owned(), Zeroizing::new(key.to_owned()))).collect())))
    }

    fn find(&self, id: &KeyId) -> Option<Secret> {
        self.0.iter().find(|(known, _)| *known == id.to_string()).and_then(|(_, key)| secret_from_hex(key))
    }

    fn add(&mut self, id: &KeyId, key: &Secret) {
        self.0.push((id.to_string(), Zeroizing::new(hex::encode(key))));
    }

    fn remove(&mut self, id: &KeyId) {
        self.0.retain(|(known, _)| *known != id.to_string());
    }

    fn write(&self, path: &Path) -> Result<(), KeyError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        // Also one that is there: in somebody else's folder the key could be taken away, and with it every login.
        platform::private_folder(folder).map_err(|error| {
            let hint = format!("look at the owner of {}, or set MCP_AUTHD_STATE_DIR to a folder of your own", folder.display());
            KeyError::Closed(format!("the key file's folder {} {error}", folder.display()), hint)
        })?;
        let mut text = Zeroizing::new(String::with_capacity(self.0.len() * 100));
        for (id, key) in &self.0 {
            text.push_str(id);
            text.push(' ');
            text.push_str(key);
            text.push('\n');
        }
        files::replace(path, text.as_bytes()).map_err(|error| KeyError::Disk(store::refused(&error)))
    }
}

fn entry(header: &Header, key: &OtherKey) -> String {
    format!("{}/{}", header.vault_id, key.key_id)
}

fn fresh() -> Secret {
    let mut secret = Zeroizing::new(vec![0; 32]);
    getrandom::fill(&mut secret).expect("the kernel gives random bytes");
    secret
}

fn secret_from_hex(text: &str) -> Option<Secret> {
    Hex::<32>::parse(text).map(|key| Zeroizing::new(Zeroizing::new(key.0).to_vec()))
}

fn missing(reason: &str) -> KeyError {
    KeyError::Closed(
        reason.to_owned(),
        "bring the key back, or restore the vault and its key from a backup; no new key is made while records exist".into(),
    )
}

fn closed(error: KeychainError) -> KeyError {
    let (reason, hint) = (error.to_string(), error.hint().to_owned());
    if error.is_absent() { KeyError::NoSource(reason, hint) } else { KeyError::Closed(reason, hint) }
}

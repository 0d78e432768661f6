//! The vault and its key: `/v1/vault`.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// Where the vault's key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySourceKind {
    /// The operating system's keychain.
    Keychain,
    /// A credential that systemd hands to the unit.
    SystemdCredential,
    /// A passphrase, stretched by argon2id.
    Passphrase,
    /// A file beside the vault: as strong as the disk that it lies on.
    KeyFile,
}

impl KeySourceKind {
    /// All kinds, strongest first.
    pub const ALL: [Self; 4] = [Self::Keychain, Self::SystemdCredential, Self::Passphrase, Self::KeyFile];

    /// The word for it in config, environment and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keychain => "keychain",
            Self::SystemdCredential => "systemd-credential",
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key-file",
        }
    }
}

impl std::str::FromStr for KeySourceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("`{}` is no key source, expected one of {}", text.escape_debug(), known()))
    }
}

impl std::fmt::Display for KeySourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `POST /v1/vault/setup`: make a new vault with this key source. Refused when there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultSetup {
    /// The key source.
    pub key_source: KeySourceKind,
    /// The passphrase, for [`KeySourceKind::Passphrase`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
}

/// `POST /v1/vault/unlock`: the passphrase, or a retry of the keychain with a prompt allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultUnlock {
    /// The passphrase, for [`KeySourceKind::Passphrase`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
}

/// `POST /v1/vault/rekey`: a new key for every record, from the same or another key source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultRekey {
    /// The new key source; absent: the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_source: Option<KeySourceKind>,
    /// The new passphrase, for [`KeySourceKind::Passphrase`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
}

/// `POST /v1/vault/backup`: copy the sealed vault to a folder that does not exist yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultBackup {
    /// The folder, an absolute path.
    pub path: String,
}

/// How the vault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultState {
    /// Records can be read and written.
    Unlocked,
    /// The key is not there at the moment.
    Locked,
    /// The key is being fetched.
    Opening,
}

/// The vault's part of [`crate::Status`], and the answer of the vault routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VaultStatus {
    /// How it is.
    pub state: VaultState,
    /// Where its key comes from; absent while there is no vault yet and none was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_source: Option<KeySourceKind>,
    /// Why it is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How many corrupt records were put aside.
    #[serde(default)]
    pub quarantined: usize,
    /// There is no vault yet, and it takes a person to choose its key source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_setup: bool,
    /// systemd handed the daemon a credential that can be the key source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credential: bool,
    /// The vault's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
}

//! `vault.json`: which vault this is, which key opens it, and which folder holds its records.
//!
//! Replacing this file is the one commit point of making a vault and of changing its key. Knows no keys, only their check.

use std::path::{Path, PathBuf};

use mcp_auth_proto::KeySourceKind;
use serde::{Deserialize, Serialize};

use super::hex::Hex;
use super::record::{KeyId, Keys};
use super::{VaultError, files};
use crate::oauth::text::clean;
use crate::platform::NotPrivate;

const FILE: &str = "vault.json";
const FORMAT: u32 = 1;
const LIMIT: u64 = 64 * 1024;

/// What is known of a vault without its key. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    format: u32,
    pub(super) vault_id: Hex<16>,
    pub(super) key_id: KeyId,
    pub(super) key_source: KeySourceKind,
    pub(super) salt: Hex<32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) argon2: Option<Stretch>,
    check: Hex<16>,
    /// The key that a change of key is moving to: its folder is incomplete until it is the vault's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<OtherKey>,
    /// The key that a change of key moved away from: what is left of it can go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retired: Option<OtherKey>,
}

/// A key that is not the vault's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OtherKey {
    pub(super) key_id: KeyId,
    pub(super) key_source: KeySourceKind,
}

/// How a passphrase is stretched (argon2id, RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stretch {
    /// Memory in KiB.
    pub(crate) memory_kib: u32,
    /// Passes over it.
    pub(crate) passes: u32,
}

impl Header {
    /// A header for a new key; of a new vault where there is no id yet. [`Header::bind`] completes it.
    pub(super) fn draft(vault_id: Option<Hex<16>>, key_source: KeySourceKind, stretch: Stretch) -> Self {
        Self {
            format: FORMAT,
            vault_id: vault_id.unwrap_or_else(Hex::random),
            key_id: Hex::random(),
            key_source,
            salt: Hex::random(),
            argon2: (key_source == KeySourceKind::Passphrase).then_some(stretch),
            check: Hex([0; 16]),
            next: None,
            retired: None,
        }
    }

    /// Derives the vault's keys and notes how to recognise them.
    pub(super) fn bind(&mut self, secret: &[u8]) -> Keys {
        let keys = Keys::derive(secret, &self.salt.0, self.key_id);
        self.check = keys.check_value(&self.checked());
        keys
    }

    /// Derives the vault's keys, `None` if the secret is not this vault's.
    pub(super) fn keys(&self, secret: &[u8]) -> Option<Keys> {
        let keys = Keys::derive(secret, &self.salt.0, self.key_id);
        keys.fits(&self.checked(), &self.check).then_some(keys)
    }

    /// The key that this header names, as another header would.
    pub(super) fn as_other(&self) -> OtherKey {
        OtherKey { key_id: self.key_id, key_source: self.key_source }
    }

    /// This header with no change of key under way.
    pub(super) fn settled(&self) -> Self {
        Self { next: None, retired: None, ..self.clone() }
    }

    /// The header in the vault's folder, `None` where there is no vault.
    pub(super) fn read(vault: &Path) -> Result<Option<Self>, VaultError> {
        let path = vault.join(FILE);
        let bytes = match files::read(&path, LIMIT) {
            Ok(bytes) => bytes,
            Err(NotPrivate::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(VaultError::Disk(format!("{} {error}", path.display()))),
        };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        if serde_json::from_slice::<Format>(&bytes).is_ok_and(|found| found.format > FORMAT) {
            return Err(VaultError::Conflict {
                reason: "the vault was written by a newer mcp-authd".into(),
                hint: Some("upgrade mcp-authd; this version leaves the vault as it is".into()),
            });
        }
        let header = serde_json::from_slice(&bytes).map_err(|error| VaultError::Locked {
            // What it quotes of the file may be anything, and goes to terminals and logs.
            reason: format!("{} is damaged ({})", path.display(), clean(&error.to_string())),
            hint: Some("restore the vault from a backup".into()),
            key_source: None,
        })?;
        Ok(Some(header))
    }

    /// Replaces the header, durably.
    pub(super) fn write(&self, vault: &Path) -> std::io::Result<()> {
        files::replace(&vault.join(FILE), &self.bytes())
    }

    /// Writes the header of a copy, where there is none.
    pub(super) fn write_copy(&self, folder: &Path) -> std::io::Result<()> {
        files::write_new(&folder.join(FILE), &self.settled().bytes())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a header is always JSON");
        text.push(b'\n');
        text
    }

    fn checked(&self) -> [&[u8]; 3] {
        [&self.vault_id.0, &self.key_id.0, self.key_source.as_str().as_bytes()]
    }
}

/// The folder of the records under a key.
pub(super) fn records_folder(vault: &Path, key_id: KeyId) -> PathBuf {
    vault.join(format!("records-{key_id}"))
}

/// Whether a folder without header still holds records: then the header was lost, and a new vault would bury them.
pub(super) fn has_stray_records(vault: &Path) -> bool {
    let folders = std::fs::read_dir(vault).into_iter().flatten().flatten();
    folders
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("records-"))
        .any(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten().any(|file| super::store::is_record(&file.path())))
}

/// Removes what a crash left of a header being written. Best effort.
pub(super) fn remove_leftovers(vault: &Path) {
    files::remove_leftovers(&vault.join(FILE));
}

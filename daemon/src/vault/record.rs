//! Sealing and opening one record: bytes in, bytes out.
//!
//! Owns the file format and the keys derived from the vault's secret; knows no files, no clock and no key source.
//!
//! ```text
//! magic "mcpv" · format 1 · key id 8 · generation 8 · nonce 12 | AES-256-GCM( length of id 8 · id · content ) · tag 16
//! ```
//!
//! Everything before the ciphertext and the file's name are associated data, so a record moved to another name, another
//! vault or another generation does not open. The name is an HMAC of the id, so a listing of the folder does not tell
//! which grants there are; the id inside makes the folder alone enough to load everything. What this cannot see is a
//! whole older copy of a file put back in its own place.

use aes_gcm::aead::{Aead, Nonce, Payload};
use aes_gcm::{Aes256Gcm, Key};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::hex::Hex;
use super::{Record, RecordId, RecordKind};
use crate::platform::KeyPage;

/// The newest record format that this code reads, and the one that it writes.
pub const FORMAT: u8 = 1;

/// Names one key of a vault. Not secret.
pub(super) type KeyId = Hex<8>;

/// Why a record did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A later version of this program wrote it.
    #[error("format {0} is newer than this program")]
    Newer(u8),
    /// It is not what was written: half, changed, moved, or of another vault.
    #[error("the content is damaged")]
    Damaged,
}

/// The keys of an open vault, in pages of their own, wiped when dropped.
pub struct Keys {
    id: KeyId,
    subkeys: KeyPage<Subkeys>,
}

/// One for each purpose.
struct Subkeys {
    records: Aes256Gcm,
    names: Zeroizing<[u8; 32]>,
    check: Zeroizing<[u8; 32]>,
}

impl Keys {
    /// Derives one key for each purpose (HKDF-SHA256, RFC 5869) from what the key source keeps and the vault's salt.
    pub(super) fn derive(secret: &[u8], salt: &[u8; 32], id: KeyId) -> Self {
        let subkeys = KeyPage::new(|| {
            let master = Hkdf::<Sha256>::new(Some(salt), secret);
            let subkey = |purpose: &str| {
                let mut key = Zeroizing::new([0; 32]);
                master.expand(purpose.as_bytes(), key.as_mut_slice()).expect("32 bytes are within HKDF's limit");
                key
            };
            let records = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*subkey("mcp-authd records")));
            Subkeys { records, names: subkey("mcp-authd names"), check: subkey("mcp-authd key check") }
        });
        Self { id, subkeys }
    }

    /// Which key this is.
    pub(super) fn id(&self) -> KeyId {
        self.id
    }

    /// The name of a record's file, without ending: HMAC-SHA256 of the id, 32 hex digits.
    pub(super) fn file_name(&self, id: &RecordId) -> String {
        let mut mac = keyed(&self.subkeys.names);
        mac.update(id_text(id).as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..16])
    }

    /// A value for the vault's header that tells the right key from a wrong one, and an edited header from ours.
    pub(super) fn check_value(&self, header: &[&[u8]]) -> Hex<16> {
        let mut mac = keyed(&self.subkeys.check);
        for part in header {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let mut short = [0; 16];
        short.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        Hex(short)
    }

    /// Whether these keys made the check value.
    pub(super) fn fits(&self, header: &[&[u8]], value: &Hex<16>) -> bool {
        self.check_value(header).0.ct_eq(&value.0).into()
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.id)
    }
}

/// The bytes of a record's file. Random 96-bit nonces: one key may seal 2^32 records before a repeat is worth a thought.
pub fn seal(keys: &Keys, record: &Record) -> Vec<u8> {
    let id = id_text(&record.id);
    let nonce = Hex::<12>::random().0;
    let mut sealed = Vec::with_capacity(HEAD + 8 + id.len() + record.plaintext.len() + TAG);
    sealed.extend_from_slice(MAGIC);
    sealed.push(FORMAT);
    sealed.extend_from_slice(&keys.id.0);
    sealed.extend_from_slice(&record.generation.to_be_bytes());
    sealed.extend_from_slice(&nonce);

    let mut plaintext = Zeroizing::new(Vec::with_capacity(8 + id.len() + record.plaintext.len()));
    plaintext.extend_from_slice(&(id.len() as u64).to_be_bytes());
    plaintext.extend_from_slice(id.as_bytes());
    plaintext.extend_from_slice(&record.plaintext);
    let aad = [sealed.as_slice(), keys.file_name(&record.id).as_bytes()].concat();
    let ciphertext = keys
        .subkeys
        .records
        .encrypt(&Nonce::<Aes256Gcm>::from(nonce), Payload { msg: &plaintext, aad: &aad })
        .expect("a record is far below the AES-GCM limit");
    sealed.extend_from_slice(&ciphertext);
    sealed
}

/// The record in a file of that name.
pub fn open(keys: &Keys, file_name: &str, sealed: &[u8]) -> Result<Record, Unreadable> {
    let rest = sealed.strip_prefix(MAGIC).ok_or(Unreadable::Damaged)?;
    match rest.first() {
        Some(&FORMAT) => {}
        Some(&newer) if newer > FORMAT => return Err(Unreadable::Newer(newer)),
        _ => return Err(Unreadable::Damaged),
    }
    let (head, ciphertext) = sealed.split_at_checked(HEAD).ok_or(Unreadable::Damaged)?;
    let (generation, nonce) = head[13..].split_first_chunk::<8>().ok_or(Unreadable::Damaged)?;
    let nonce = <[u8; 12]>::try_from(nonce).map_err(|_| Unreadable::Damaged)?;
    let aad = [head, file_name.as_bytes()].concat();
    let plaintext = keys
        .subkeys
        .records
        .decrypt(&Nonce::<Aes256Gcm>::from(nonce), Payload { msg: ciphertext, aad: &aad })
        .map(Zeroizing::new)
        .map_err(|_| Unreadable::Damaged)?;
    let (id, content) = split_id(&plaintext).ok_or(Unreadable::Damaged)?;
    if keys.file_name(&id) != file_name {
        return Err(Unreadable::Damaged);
    }
    Ok(Record { id, generation: u64::from_be_bytes(*generation), plaintext: Zeroizing::new(content.to_vec()) })
}

const MAGIC: &[u8] = b"mcpv";
const HEAD: usize = 4 + 1 + 8 + 8 + 12;
const TAG: usize = 16;

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn id_text(id: &RecordId) -> String {
    format!("{}/{}", id.kind.as_str(), id.name)
}

fn split_id(plaintext: &[u8]) -> Option<(RecordId, &[u8])> {
    let (length, rest) = plaintext.split_first_chunk::<8>()?;
    let (id, content) = rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
    let (kind, name) = std::str::from_utf8(id).ok()?.split_once('/')?;
    let kind = RecordKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    Some((RecordId { kind, name: name.to_owned() }, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::derive(b"the secret of the key source, 32", &[7; 32], Hex([1; 8]))
    }

    fn record(name: &str) -> Record {
        let id = RecordId { kind: RecordKind::Grant, name: name.to_owned() };
        Record { id, generation: 7, plaintext: Zeroizing::new(b"refresh token".to_vec()) }
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_shows_neither_name_nor_content() {
        let keys = keys();
        let name = keys.file_name(&record("github:work").id);
        let sealed = seal(&keys, &record("github:work"));
        let opened = open(&keys, &name, &sealed).unwrap();
        assert_eq!(opened.id, record("github:work").id);
        assert_eq!(opened.generation, 7);
        assert_eq!(*opened.plaintext, b"refresh token");
        for secret in ["github", "refresh"] {
            assert!(!sealed.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret}");
            assert!(!name.contains(secret));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let keys = keys();
        let name = keys.file_name(&record("github").id);
        let sealed = seal(&keys, &record("github"));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&keys, &name, &changed).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn every_half_of_a_record_is_damaged() {
        let keys = keys();
        let name = keys.file_name(&record("github").id);
        let sealed = seal(&keys, &record("github"));
        for length in 0..sealed.len() {
            assert_eq!(open(&keys, &name, &sealed[..length]).err(), Some(Unreadable::Damaged), "{length} bytes");
        }
    }

    #[test]
    fn a_record_under_another_name_is_damaged() {
        let keys = keys();
        let sealed = seal(&keys, &record("github"));
        let other = keys.file_name(&record("gitlab").id);
        assert_eq!(open(&keys, &other, &sealed).err(), Some(Unreadable::Damaged));
    }

    #[test]
    fn another_secret_or_another_salt_opens_nothing() {
        let sealed = seal(&keys(), &record("github"));
        let other_secret = Keys::derive(b"another secret of the key source", &[7; 32], Hex([1; 8]));
        let other_salt = Keys::derive(b"the secret of the key source, 32", &[8; 32], Hex([1; 8]));
        for other in [other_secret, other_salt] {
            assert!(open(&other, &keys().file_name(&record("github").id), &sealed).is_err());
            assert!(open(&other, &other.file_name(&record("github").id), &sealed).is_err());
            assert_ne!(other.check_value(&[b"vault"]), keys().check_value(&[b"vault"]));
        }
    }

    #[test]
    fn a_record_of_a_later_format_is_told_from_a_damaged_one() {
        let keys = keys();
        let mut sealed = seal(&keys, &record("github"));
        sealed[4] = FORMAT + 1;
        assert_eq!(open(&keys, &keys.file_name(&record("github").id), &sealed).err(), Some(Unreadable::Newer(FORMAT + 1)));
    }

    #[test]
    fn no_nonce_repeats() {
        let keys = keys();
        let nonces: std::collections::HashSet<Vec<u8>> = (0..10_000).map(|_| seal(&keys, &record("github"))[21..33].to_vec()).collect();
        assert_eq!(nonces.len(), 10_000);
    }

    #[test]
    fn every_kind_and_any_name_survives() {
        let keys = keys();
        for kind in RecordKind::ALL {
            for name in ["", "a/b/c", "https://mcp.example/ö?x=1", &"x".repeat(70_000)] {
                let id = RecordId { kind, name: name.to_owned() };
                let sealed = seal(&keys, &Record { id: id.clone(), generation: u64::MAX, plaintext: Zeroizing::default() });
                assert_eq!(open(&keys, &keys.file_name(&id), &sealed).unwrap().id, id);
            }
        }
    }
}

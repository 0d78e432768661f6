//! The secrets that the daemon holds: redacted in `Debug`, without `Display`, wiped when dropped.
//!
//! An access token lies in RAM as it is, since it is served thousands of times. A refresh token, client secret or proof key
//! is sealed under a key of this process until the moment it is used, so that a stray read of the heap does not show it.

use std::fmt;
use std::sync::LazyLock;

use aes_gcm::aead::{Aead, KeyInit, Nonce};
use aes_gcm::{Aes256Gcm, Key};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::platform::KeyPage;

/// An access token (RFC 6749 section 1.4).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccessToken(String);

impl AccessToken {
    /// Takes a token as the provider sent it.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The first 8 hex digits of its SHA-256, for people and logs.
    pub fn fingerprint(&self) -> String {
        hex::encode(&Sha256::digest(self.0.as_bytes())[..4])
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken([redacted])")
    }
}

impl Drop for AccessToken {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A refresh token (RFC 6749 section 1.5), sealed in RAM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RefreshToken(Sealed);

impl RefreshToken {
    /// Takes a token as the provider sent it.
    pub fn new(text: String) -> Self {
        Self(Sealed::new(text))
    }

    /// The token itself, in a buffer that is wiped after use.
    pub fn expose(&self) -> Zeroizing<String> {
        self.0.open()
    }

    /// The first 8 bytes of its SHA-256: tells an intent's token from a later one.
    pub fn fingerprint(&self) -> [u8; 8] {
        let digest = Sha256::digest(self.expose().as_bytes());
        let mut short = [0; 8];
        short.copy_from_slice(&digest[..8]);
        short
    }
}

impl PartialEq for RefreshToken {
    fn eq(&self, other: &Self) -> bool {
        *self.expose() == *other.expose()
    }
}

/// A client secret (RFC 6749 section 2.3.1), sealed in RAM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientSecret(Sealed);

impl ClientSecret {
    /// Takes a secret as the person or a command gave it.
    pub fn new(text: String) -> Self {
        Self(Sealed::new(text))
    }

    /// The secret itself, in a buffer that is wiped after use.
    pub fn expose(&self) -> Zeroizing<String> {
        self.0.open()
    }
}

/// The private key that the tokens of a grant are bound to (RFC 9449), sealed in RAM: PKCS #8 in base64url. It is used to sign and
/// never leaves the daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProofKey(Sealed);

impl ProofKey {
    /// Takes a key as it was made.
    pub fn new(text: String) -> Self {
        Self(Sealed::new(text))
    }

    /// The key itself, in a buffer that is wiped after use.
    pub fn expose(&self) -> Zeroizing<String> {
        self.0.open()
    }
}

impl PartialEq for ProofKey {
    fn eq(&self, other: &Self) -> bool {
        *self.expose() == *other.expose()
    }
}

/// An ID token (OpenID Connect Core section 2), sealed in RAM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdToken(Sealed);

impl IdToken {
    /// Takes a token as the provider sent it.
    pub fn new(text: String) -> Self {
        Self(Sealed::new(text))
    }

    /// The token itself, in a buffer that is wiped after use.
    pub fn expose(&self) -> Zeroizing<String> {
        self.0.open()
    }
}

impl PartialEq for IdToken {
    fn eq(&self, other: &Self) -> bool {
        *self.expose() == *other.expose()
    }
}

/// A text under this process's own key: nonce, then ciphertext.
#[derive(Clone)]
struct Sealed(Vec<u8>);

static PROCESS_KEY: LazyLock<KeyPage<Aes256Gcm>> = LazyLock::new(|| {
    KeyPage::new(|| {
        let mut key = Zeroizing::new([0_u8; 32]);
        getrandom::fill(key.as_mut_slice()).expect("the kernel gives random bytes");
        Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key))
    })
});

impl Sealed {
    fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        let mut nonce = [0_u8; 12];
        getrandom::fill(&mut nonce).expect("the kernel gives random bytes");
        let sealed =
            PROCESS_KEY.encrypt(&Nonce::<Aes256Gcm>::from(nonce), text.as_bytes()).expect("a token is far below the AES-GCM limit");
        Self([nonce.as_slice(), &sealed].concat())
    }

    fn open(&self) -> Zeroizing<String> {
        let (nonce, sealed) = self.0.split_first_chunk::<12>().expect("made by new");
        let text = PROCESS_KEY.decrypt(&Nonce::<Aes256Gcm>::from(*nonce), sealed).expect("made by new, under the same key");
        Zeroizing::new(String::from_utf8(text).expect("made by new, from a text"))
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.open())
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_back_whole_and_never_shows_itself() {
        let refresh = RefreshToken::new("rt-öß-1".into());
        assert_eq!(*refresh.expose(), "rt-öß-1");
        assert_eq!(format!("{refresh:?}"), "RefreshToken([redacted])");
        assert_eq!(format!("{:?}", AccessToken::new("at".into())), "AccessToken([redacted])");
        let json = serde_json::to_string(&refresh).unwrap();
        assert_eq!(serde_json::from_str::<RefreshToken>(&json).unwrap(), refresh);
    }
}

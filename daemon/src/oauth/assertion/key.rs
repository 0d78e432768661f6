//! Private keys as people have them, and their signatures (RFC 7518 section 3). ring signs; this file reads.
//!
//! A key lives for one signature: it is read from the sealed secret and gone when the request is made. What is read here is
//! wiped; ring does not wipe its own numbers, which is one more reason not to keep them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as P256, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::AssertionError;
use crate::oauth::members::Members;

/// A key that can sign.
pub(super) struct Key {
    pair: Pair,
    id: Option<String>,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    /// With PSS padding, or without.
    Rsa(Box<RsaKeyPair>, bool),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key([redacted])")
    }
}

impl Key {
    /// Reads PEM or a JWK.
    pub(super) fn read(text: &str) -> Result<Self, AssertionError> {
        if text.trim_start().starts_with('{') { from_jwk(text) } else { Ok(Self { pair: from_pem(text)?, id: None }) }
    }

    /// The `alg` of its signatures.
    pub(super) fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
            Pair::Rsa(_, true) => "PS256",
            Pair::Rsa(_, false) => "RS256",
        }
    }

    /// The `kid` that the key came with.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AssertionError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::P256(pair) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair, pss) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &dyn ring::signature::RsaEncoding = if *pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(padding, &random, message, &mut signature).map(|()| signature)
            }
        }
        .map_err(|_| AssertionError::Random)
    }
}

/// Whether a text can only be meant as a key, whole or not.
pub(in crate::oauth) fn is_meant_as_key(text: &str) -> bool {
    text.contains("PRIVATE KEY-----") || text.trim_start().starts_with('{') && text.contains("\"kty\"")
}

fn from_pem(text: &str) -> Result<Pair, AssertionError> {
    if text.contains("ENCRYPTED") {
        return Err(AssertionError::Encrypted);
    }
    let Ok(key) = PrivateKeyDer::from_pem_slice(text.as_bytes()).map(Zeroizing::new) else {
        let public = text.contains("BEGIN PUBLIC KEY") || text.contains("BEGIN CERTIFICATE");
        return Err(if public { AssertionError::Public } else { AssertionError::NotAKey });
    };
    let pair = match &*key {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok().map(rsa),
        PrivateKeyDer::Sec1(der) => p256(&pkcs8_of_sec1(der.secret_sec1_der())),
        PrivateKeyDer::Pkcs8(der) => from_pkcs8(der.secret_pkcs8_der()),
        _ => None,
    };
    pair.ok_or(AssertionError::Unusable)
}

fn from_pkcs8(der: &[u8]) -> Option<Pair> {
    // OpenSSL writes Ed25519 keys without their public half, which ring derives.
    let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Pair::Ed25519);
    p256(der).or_else(ed25519).or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(rsa))
}

fn p256(pkcs8: &[u8]) -> Option<Pair> {
    EcdsaKeyPair::from_pkcs8(&P256, pkcs8, &SystemRandom::new()).ok().map(Pair::P256)
}

fn rsa(pair: RsaKeyPair) -> Pair {
    Pair::Rsa(Box::new(pair), false)
}

/// `EC PRIVATE KEY` (RFC 5915) as PKCS #8 (RFC 5958), for P-256: the only form of it that ring reads.
fn pkcs8_of_sec1(sec1: &[u8]) -> Zeroizing<Vec<u8>> {
    /// Version 0, then the algorithm: id-ecPublicKey with prime256v1.
    const HEAD: [u8; 24] = [
        0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
        0x01, 0x07,
    ];
    let inner = der(0x04, sec1);
    der(0x30, &Zeroizing::new([&HEAD[..], &inner].concat()))
}

/// One DER element. Longer contents than 64 KiB are no keys, and come out as what no parser takes.
fn der(tag: u8, content: &[u8]) -> Zeroizing<Vec<u8>> {
    let [high, low] = u16::try_from(content.len()).unwrap_or(0).to_be_bytes();
    let head: &[u8] = match (high, low) {
        (0, 0..0x80) => &[tag, low],
        (0, _) => &[tag, 0x81, low],
        _ => &[tag, 0x82, high, low],
    };
    Zeroizing::new([head, content].concat())
}

/// A JWK (RFC 7517, RFC 7518 section 6, RFC 8037 section 2).
fn from_jwk(text: &str) -> Result<Key, AssertionError> {
    let members = Members::from_json(text.as_bytes()).map_err(|_| AssertionError::NotAKey)?;
    let kind = members.text("kty").ok_or(AssertionError::NotAKey)?;
    if kind != "oct" && members.text("d").is_none() {
        return Err(AssertionError::Public);
    }
    let mut pair = match (kind, members.text("crv")) {
        ("EC", Some("P-256")) => jwk_p256(&members),
        ("OKP", Some("Ed25519")) => jwk_ed25519(&members),
        ("RSA", _) => jwk_rsa(&members),
        _ => None,
    }
    .ok_or(AssertionError::Unusable)?;
    match (&mut pair, members.text("alg")) {
        (_, None) | (Pair::P256(_), Some("ES256")) | (Pair::Ed25519(_), Some("EdDSA" | "Ed25519")) | (Pair::Rsa(..), Some("RS256")) => {}
        (Pair::Rsa(_, pss), Some("PS256")) => *pss = true,
        _ => return Err(AssertionError::Algorithm),
    }
    Ok(Key { pair, id: members.text("kid").map(str::to_owned) })
}

fn jwk_p256(members: &Members) -> Option<Pair> {
    let (x, y, d) = (bytes(members, "x")?, bytes(members, "y")?, bytes(members, "d")?);
    let public = [&[4][..], &x, &y].concat();
    EcdsaKeyPair::from_private_key_and_public_key(&P256, &d, &public, &SystemRandom::new()).ok().map(Pair::P256)
}

fn jwk_ed25519(members: &Members) -> Option<Pair> {
    let (x, d) = (bytes(members, "x")?, bytes(members, "d")?);
    Ed25519KeyPair::from_seed_and_public_key(&d, &x).ok().map(Pair::Ed25519)
}

fn jwk_rsa(members: &Members) -> Option<Pair> {
    let part = |name| bytes(members, name);
    let (n, e, d) = (part("n")?, part("e")?, part("d")?);
    let (p, q, first, second, coefficient) = (part("p")?, part("q")?, part("dp")?, part("dq")?, part("qi")?);
    let public_key = PublicKeyComponents { n: n.as_slice(), e: e.as_slice() };
    let components = KeyPairComponents {
        public_key,
        d: d.as_slice(),
        p: p.as_slice(),
        q: q.as_slice(),
        dP: first.as_slice(),
        dQ: second.as_slice(),
        qInv: coefficient.as_slice(),
    };
    RsaKeyPair::from_components(&components).ok().map(rsa)
}

fn bytes(members: &Members, name: &str) -> Option<Zeroizing<Vec<u8>>> {
    URL_SAFE_NO_PAD.decode(members.text(name)?).ok().map(Zeroizing::new)
}

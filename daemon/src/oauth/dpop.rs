//! Proofs of possession (RFC 9449): a JWT for each request, signed with the key that a grant's tokens are bound to. ring signs;
//! this file makes keys and writes the form. Always ES256, which every server that knows proofs is taken to know if it does not
//! list others.
//!
//! A key lives for one signature: it is read from the sealed text and gone when the proof is made.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as P256, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;
use zeroize::Zeroizing;

use super::text::clean_within;
use super::token;
use crate::clock::Wall;
use crate::secret::ProofKey;
use crate::transport::Response;

/// The algorithm of every proof.
pub const ALGORITHM: &str = "ES256";

/// The longest nonce that is taken: it comes back with every proof.
const LONGEST_NONCE: usize = 1024;
/// The longest list of a server's algorithms that is shown, in characters.
const LONGEST_LIST: usize = 100;
/// How far a server's clock may be from ours before a refused proof is put down to that. Servers take proofs of the last minute or
/// few, and some of the last seconds.
const CLOCKS_APART: i64 = 10_000;

/// Why there is no proof. Holds nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DpopError {
    /// The stored key is none.
    #[error("the key that its tokens are bound to cannot be read")]
    Unreadable,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// The request that a proof is for (section 4.2).
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// Where it goes; query and fragment are left out of the proof.
    pub url: &'a Url,
    /// The access token that goes with it, at a resource server.
    pub token: Option<&'a str>,
    /// The server's newest nonce.
    pub nonce: Option<&'a str>,
    /// The present time: servers compare it with theirs.
    pub now: Wall,
}

/// Makes a key for a grant.
pub fn generate() -> Result<ProofKey, DpopError> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&P256, &SystemRandom::new()).map_err(|_| DpopError::Random)?;
    Ok(ProofKey::new(URL_SAFE_NO_PAD.encode(pkcs8)))
}

/// The thumbprint of a key's public half (RFC 7638): `dpop_jkt` of an authorization request (RFC 9449 section 10).
pub fn thumbprint(key: &ProofKey) -> Result<String, DpopError> {
    let (x, y) = point(&pair(key)?);
    // The members in this order, without spaces.
    Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#))))
}

/// The proof for one request, as its `DPoP` header carries it. A server may refuse one that comes again.
pub fn proof(key: &ProofKey, facts: Facts<'_>) -> Result<String, DpopError> {
    let pair = pair(key)?;
    let (x, y) = point(&pair);
    let header = json!({ "typ": "dpop+jwt", "alg": ALGORITHM, "jwk": { "kty": "EC", "crv": "P-256", "x": x, "y": y } });
    let signed = format!("{}.{}", encoded(&header), encoded(&claims(facts)?));
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| DpopError::Random)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn claims(facts: Facts<'_>) -> Result<Value, DpopError> {
    let mut jti = [0_u8; 16];
    getrandom::fill(&mut jti).map_err(|_| DpopError::Random)?;
    let mut target = facts.url.clone();
    target.set_query(None);
    target.set_fragment(None);
    let mut claims = json!({
        "jti": URL_SAFE_NO_PAD.encode(jti),
        "htm": facts.method,
        "htu": target.as_str(),
        "iat": facts.now.0.div_euclid(1000),
    });
    if let Some(token) = facts.token {
        claims["ath"] = URL_SAFE_NO_PAD.encode(Sha256::digest(token)).into();
    }
    if let Some(nonce) = facts.nonce {
        claims["nonce"] = nonce.into();
    }
    Ok(claims)
}

/// What a server takes that lists these algorithms and not ours; `None`: it takes our proofs, or does not say.
pub fn other_proofs(listed: Option<&[String]>) -> Option<String> {
    let listed = listed.filter(|listed| !listed.iter().any(|algorithm| algorithm == ALGORITHM))?;
    let named = clean_within(&listed.join(", "), LONGEST_LIST);
    let named = if named.is_empty() { "other algorithms" } else { &named };
    Some(format!("proofs by {named} alone (DPoP), and ours are by {ALGORITHM}"))
}

/// Whether a text can be a nonce (section 8.1): printable ASCII without space, quotation mark and backslash.
pub fn is_nonce(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    (1..=LONGEST_NONCE).contains(&text.len()) && text.bytes().all(fits)
}

/// Whether a token endpoint wants the request again, with the nonce that it sends (section 8). Nothing was done then.
pub fn wants_nonce(response: &Response) -> bool {
    matches!(response.status, 400 | 401) && response.dpop_nonce.as_deref().is_some_and(is_nonce) && error_is(response, "use_dpop_nonce")
}

/// Why a token endpoint refuses a proof, where our clock or the server's explains it.
pub fn clock_complaint(response: &Response, now: Wall) -> Option<String> {
    if !error_is(response, "invalid_dpop_proof") {
        return None;
    }
    apart(now, response.date?).map(|apart| format!("invalid_dpop_proof: {apart}"))
}

/// How far our clock is from a server's, in words; `None`: not far enough to matter.
pub fn apart(ours: Wall, theirs: Wall) -> Option<String> {
    let by = ours.0.saturating_sub(theirs.0);
    let seconds = by.unsigned_abs() / 1000;
    let which = if by < 0 { "behind" } else { "ahead of" };
    (by.abs() >= CLOCKS_APART).then(|| format!("this machine's clock is {seconds} s {which} the server's"))
}

fn error_is(response: &Response, code: &str) -> bool {
    token::members(response).is_ok_and(|members| token::error_code(&members) == Some(code))
}

fn pair(key: &ProofKey) -> Result<EcdsaKeyPair, DpopError> {
    let pkcs8 = URL_SAFE_NO_PAD.decode(key.expose().as_bytes()).map(Zeroizing::new).map_err(|_| DpopError::Unreadable)?;
    EcdsaKeyPair::from_pkcs8(&P256, &pkcs8, &SystemRandom::new()).map_err(|_| DpopError::Unreadable)
}

/// The two coordinates of the public key: an uncompressed point is `4`, then 32 bytes each.
fn point(pair: &EcdsaKeyPair) -> (String, String) {
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

fn encoded(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

#[cfg(test)]
#[path = "dpop_tests.rs"]
mod tests;

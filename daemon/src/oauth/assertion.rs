//! Client assertions (RFC 7523 section 2.2): a JWT that the client signs with its private key, in place of a secret.
//!
//! The key is the text that is stored as the client secret, PEM or JWK; its kind decides the algorithm: ES256 for P-256,
//! RS256 for RSA (PS256 where a JWK says so), EdDSA for Ed25519.

pub(super) mod key;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use self::key::Key;
use super::{form, token};
use crate::clock::Wall;
use crate::grant::record::Definition;
use crate::provider::{AssertionAudience, ClientAuth, Quirks};
use crate::secret::ClientSecret;
use crate::transport::Request;

/// How long an assertion is good: less than the 5 minutes that some servers accept at most, by what our clock may be ahead.
const LIFETIME: Duration = Duration::from_secs(240);
/// How long ago it says that it was made: some servers believe nothing of the future, not even of their own second.
const BACKDATED: Duration = Duration::from_secs(30);
/// RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Why nothing can be signed. Holds nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// Nothing is stored.
    #[error("it wants a private key to sign with, and none is stored")]
    NoKey,
    /// Neither PEM nor a JWK.
    #[error("the client secret is not a private key: client_auth = \"private_key_jwt\" wants one, as PEM or JWK")]
    NotAKey,
    /// A PEM block that only a passphrase opens.
    #[error("the private key is encrypted with a passphrase; it is kept encrypted by the vault, so store it without one")]
    Encrypted,
    /// A public key.
    #[error("the key is a public one; the private key is wanted")]
    Public,
    /// A key that is damaged, of another kind, or too small.
    #[error("the private key cannot be used: it must be whole, and P-256, Ed25519, or RSA of 2048 to 4096 bits")]
    Unusable,
    /// The client sends its secret, and what is stored is a key.
    #[error("the client secret is a private key, which is never sent: set client_auth = \"private_key_jwt\"")]
    SentKey,
    /// A JWK whose `alg` is none of ours.
    #[error("the JWK's `alg` cannot be used: it may be ES256, RS256, PS256 or EdDSA, as the key is")]
    Algorithm,
    /// The system gives no random bytes.
    #[error("nothing can be signed: the system gives no random bytes")]
    Random,
}

/// Whether a stored secret can sign assertions.
pub fn check_key(secret: &ClientSecret) -> Result<(), AssertionError> {
    Key::read(&secret.expose()).map(|_| ())
}

/// Whether a stored secret can only be meant as a private key.
pub fn is_key(secret: &ClientSecret) -> bool {
    key::is_meant_as_key(&secret.expose())
}

/// Whether a client has what its `client_auth` signs with, and a secret that is sent is not such a key.
pub fn fits(secret: Option<&ClientSecret>, quirks: &Quirks) -> Result<(), AssertionError> {
    match (quirks.client_auth, secret) {
        (Some(ClientAuth::PrivateKeyJwt), Some(secret)) => check_key(secret),
        (Some(ClientAuth::PrivateKeyJwt), None) => Err(AssertionError::NoKey),
        (None | Some(ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost), Some(secret)) if is_key(secret) => {
            Err(AssertionError::SentKey)
        }
        _ => Ok(()),
    }
}

/// Adds a fresh assertion to a request that `quirks` want proved so; any other stays as it is. One request, one assertion:
/// a server may refuse a `jti` that comes again.
pub fn prove(
    request: Request,
    (definition, quirks): (&Definition, &Quirks),
    secret: Option<&ClientSecret>,
    now: Wall,
) -> Result<Request, AssertionError> {
    let Some((client, secret)) = token::client(definition, quirks, secret).zip(secret) else { return Ok(request) };
    match client.auth {
        ClientAuth::PrivateKeyJwt => {}
        ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost if is_key(secret) => return Err(AssertionError::SentKey),
        ClientAuth::None | ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost => return Ok(request),
    }
    let key = Key::read(&secret.expose())?;
    let audience = audience(definition, quirks).unwrap_or_default();
    let assertion = sign(&key, client.id, audience, quirks.client_key_id.as_deref(), now)?;
    Ok(form::with_params(request, &[("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &assertion)]))
}

/// The issuer where it is known, as RFC 7523bis wants it; else the token endpoint, as RFC 7523 has it.
fn audience<'a>(definition: &'a Definition, quirks: &Quirks) -> Option<&'a str> {
    let token_endpoint = definition.token_endpoint.as_deref();
    match quirks.client_assertion_audience {
        Some(AssertionAudience::TokenEndpoint) => token_endpoint,
        Some(AssertionAudience::Issuer) | None => definition.issuer.as_deref().or(token_endpoint),
    }
}

fn sign(key: &Key, client_id: &str, audience: &str, key_id: Option<&str>, now: Wall) -> Result<String, AssertionError> {
    let mut header = json!({ "alg": key.algorithm(), "typ": "JWT" });
    if let Some(key_id) = key_id.or(key.id()) {
        header["kid"] = key_id.into();
    }
    let mut jti = [0_u8; 16];
    getrandom::fill(&mut jti).map_err(|_| AssertionError::Random)?;
    let issued = now.0.div_euclid(1000).saturating_sub_unsigned(BACKDATED.as_secs());
    let claims = json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": URL_SAFE_NO_PAD.encode(jti),
        "iat": issued,
        "exp": issued.saturating_add_unsigned(LIFETIME.as_secs()),
    });
    let encode = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = key.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests;

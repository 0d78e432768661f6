//! The signing key and the JWTs that it signs (RFC 7515, RFC 7518 section 3.4): ES256, and nothing else is ever accepted. ring
//! signs and checks; this file writes and reads the form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING as SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The `typ` of an access token (RFC 9068 section 2.1).
pub(crate) const ACCESS_TOKEN: &str = "at+jwt";
/// The `typ` of an ID token.
pub(crate) const ID_TOKEN: &str = "JWT";

/// A P-256 key.
pub(crate) struct SigningKey {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    id: String,
}

/// Why there is no key, or no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// The stored key cannot be read.
    #[error("the stored signing key cannot be read")]
    Unreadable,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// A token that this key did not sign, or not as this kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

impl SigningKey {
    /// A new key.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&SIGNING, &SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// The key of a record.
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&SIGNING, pkcs8, &SystemRandom::new()).map_err(|_| KeyError::Unreadable)?;
        let (x, y) = point(&pair);
        // RFC 7638: the members in this order, without spaces.
        let thumbprint = Sha256::digest(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#));
        Ok(Self { pair, pkcs8: Zeroizing::new(pkcs8.to_vec()), id: URL_SAFE_NO_PAD.encode(thumbprint) })
    }

    /// PKCS #8, for the record.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half, as a JWK Set (RFC 7517 section 5).
    pub(crate) fn jwks(&self) -> Value {
        let (x, y) = point(&self.pair);
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.id, "use": "sig", "alg": "ES256" }] })
    }

    /// Signs claims as a token of this kind.
    pub(crate) fn sign(&self, typ: &str, claims: &Value) -> Result<Zeroizing<String>, KeyError> {
        let header = json!({ "alg": "ES256", "typ": typ, "kid": self.id });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = Zeroizing::new(format!("{}.{}", encode(&header), encode(claims)));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| KeyError::Random)?;
        Ok(Zeroizing::new(format!("{}.{}", *signed, URL_SAFE_NO_PAD.encode(signature))))
    }

    /// The claims of a token of this kind that this key signed. Times and audience are the caller's to judge.
    pub(crate) fn verify(&self, typ: &str, token: &str) -> Result<Value, Forged> {
        let parts: Vec<&str> = token.split('.').collect();
        let &[header, claims, signature] = parts.as_slice() else { return Err(Forged) };
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Forged);
        let head: Value = serde_json::from_slice(&bytes(header)?).map_err(|_| Forged)?;
        // Before the signature: the algorithm is ours to choose, not the token's (RFC 8725 section 3.1).
        if head["alg"] != "ES256" || head["typ"] != typ || head["kid"] != self.id || head.get("crit").is_some() {
            return Err(Forged);
        }
        let signed = &token[..header.len() + 1 + claims.len()];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &bytes(signature)?)
            .map_err(|_| Forged)?;
        serde_json::from_slice(&bytes(claims)?).map_err(|_| Forged)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The two coordinates of the public key: an uncompressed point is `4`, then 32 bytes each.
fn point(pair: &EcdsaKeyPair) -> (String, String) {
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(part: &Value) -> String {
        URL_SAFE_NO_PAD.encode(part.to_string())
    }

    #[test]
    fn a_token_that_this_key_signed_is_believed_and_one_of_the_stored_key_too() {
        let key = SigningKey::generate().unwrap();
        let claims = json!({ "sub": "x", "exp": 1 });
        let token = key.sign(ACCESS_TOKEN, &claims).unwrap();
        assert_eq!(key.verify(ACCESS_TOKEN, &token), Ok(claims.clone()));
        let again = SigningKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(again.verify(ACCESS_TOKEN, &token), Ok(claims));
        assert_eq!(again.jwks(), key.jwks());
    }

    #[test]
    fn no_other_token_is() {
        let key = SigningKey::generate().unwrap();
        let claims = json!({ "sub": "x" });
        let token = key.sign(ACCESS_TOKEN, &claims).unwrap();
        let [head, body, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!() };
        let with = |header: Value| format!("{}.{body}.{signature}", encoded(&header));
        let mut attacks = vec![
            String::new(),
            "..".into(),
            format!("{head}.{body}."),
            format!("{head}.{body}"),
            format!("{head}.{body}.{signature}.{signature}"),
            format!("{head}.{}.{signature}", encoded(&json!({ "sub": "y" }))),
            format!("{head}.{body}.{}", URL_SAFE_NO_PAD.encode([0; 64])),
            with(json!({ "alg": "none", "typ": ACCESS_TOKEN, "kid": key.id })),
            format!("{}.{body}.", encoded(&json!({ "alg": "none", "typ": ACCESS_TOKEN, "kid": key.id }))),
            with(json!({ "alg": "HS256", "typ": ACCESS_TOKEN, "kid": key.id })),
            with(json!({ "alg": "ES256", "typ": ACCESS_TOKEN })),
            with(json!({ "alg": "ES256", "typ": ACCESS_TOKEN, "kid": key.id, "crit": ["exp"] })),
            SigningKey::generate().unwrap().sign(ACCESS_TOKEN, &claims).unwrap().to_string(),
            key.sign(ID_TOKEN, &claims).unwrap().to_string(),
            format!("{} ", *token),
        ];
        attacks.extend((0..token.len()).step_by(7).map(|at| {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'Q' } else { b'A' };
            String::from_utf8(bytes).unwrap()
        }));
        for attack in attacks {
            assert_eq!(key.verify(ACCESS_TOKEN, &attack), Err(Forged), "{attack}");
        }
    }

    #[test]
    fn a_header_of_another_kind_is_refused_though_this_key_signed_it() {
        let key = SigningKey::generate().unwrap();
        let claims = json!({ "sub": "x" });
        let good = json!({ "alg": "ES256", "typ": ACCESS_TOKEN, "kid": key.id });
        let signed = |changes: &[(&str, Value)]| {
            let mut header = good.clone();
            changes.iter().for_each(|(name, value)| header[*name] = value.clone());
            let signed = format!("{}.{}", encoded(&header), encoded(&claims));
            let signature = key.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        assert_eq!(key.verify(ACCESS_TOKEN, &signed(&[])), Ok(claims.clone()));
        for (name, value) in [
            ("alg", json!("none")),
            ("alg", json!("HS256")),
            ("alg", json!("es256")),
            ("alg", Value::Null),
            ("typ", json!("JWT")),
            ("typ", Value::Null),
            ("kid", json!("other")),
            ("kid", Value::Null),
            ("crit", json!(["exp"])),
        ] {
            assert_eq!(key.verify(ACCESS_TOKEN, &signed(&[(name, value.clone())])), Err(Forged), "{name}: {value}");
        }
    }
}

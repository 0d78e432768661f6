//! PURE: who calls, by the access token that the caller brings (a JWT, RFC 9068). jsonwebtoken reads the form and judges the
//! claims; ring checks the signature. Getting the issuer's keys and answering are not this file's business.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Deserialize;

/// Who calls, and in which login: two calls of one MCP session agree in all of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Caller {
    sub: String,
    client_id: String,
    sid: String,
}

/// A caller and what the token allows.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Claims {
    #[serde(flatten)]
    pub(crate) caller: Caller,
    /// Scopes with spaces between them (RFC 8693 section 4.2).
    #[serde(default)]
    scope: String,
}

/// Why a token does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("the token has expired")]
    Expired,
    #[error("the token is for another resource")]
    Audience,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token is not an access token of the issuer")]
    Forged,
}

impl Claims {
    /// The claims of `token`, which one of `keys` signed for `resource` in the name of `issuer`, and which has not expired.
    pub(crate) fn of(token: &str, keys: &JwkSet, issuer: &str, resource: &str) -> Result<Self, Invalid> {
        // The first call counts; the later ones find it done.
        let _ = RING.install_default();
        let header = decode_header(token).map_err(|_| Invalid::Forged)?;
        // An ID token is signed by the same key (RFC 9068 section 2.1).
        let typ = header.typ.unwrap_or_default().to_ascii_lowercase();
        if !["at+jwt", "application/at+jwt"].contains(&typ.as_str()) || header.crit.is_some() {
            return Err(Invalid::Forged);
        }
        let key = header.kid.and_then(|kid| keys.find(&kid)).ok_or(Invalid::Forged)?;
        let key = DecodingKey::from_jwk(key).map_err(|_| Invalid::Forged)?;
        // The algorithm is ours to choose, not the token's (RFC 8725 section 3.1).
        let mut expected = Validation::new(Algorithm::ES256);
        expected.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        expected.set_issuer(&[issuer]);
        expected.set_audience(&[resource]);
        expected.validate_nbf = true;
        // The issuer's clock is ours.
        expected.leeway = 0;
        decode(token, &key, &expected).map(|token| token.claims).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Invalid::Expired,
            ErrorKind::InvalidAudience => Invalid::Audience,
            ErrorKind::InvalidIssuer => Invalid::Issuer,
            _ => Invalid::Forged,
        })
    }

    /// Whether the token allows this.
    pub(crate) fn allows(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|allowed| allowed == scope)
    }
}

/// jsonwebtoken brings aws-lc, a C build, or the `rsa` crate and its timing advisory; ring is here already, for TLS.
static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: es256,
    key_utils: KeyUtils::new_unimplemented(),
};

struct Es256(Vec<u8>);

fn es256(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    match algorithm {
        Algorithm::ES256 => Ok(Box::new(Es256(key.try_get_as_bytes()?.to_vec()))),
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}

impl Verifier<Vec<u8>> for Es256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0);
        key.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Es256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

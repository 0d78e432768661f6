//! What is kept of a grant: the record that the vault seals, as JSON.

use std::path::PathBuf;
use std::time::Duration;

use mcp_auth_proto::GrantName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::Wall;
use crate::provider::ClientAuth;
use crate::secret::{AccessToken, IdToken, ProofKey, RefreshToken};

/// A grant at rest. A record is replaced whole; an answer of the provider is merged into it, never written over it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// Its name.
    pub name: GrantName,
    /// Raised with every version that is saved.
    pub generation: u64,
    /// The provider and client that made it. Its tokens go nowhere else.
    pub definition: Definition,
    /// Who logged in, as shown to people (login name, e-mail address).
    #[serde(default)]
    pub account: Option<String>,
    /// Who logged in, as the provider identifies them (`sub`, or the userinfo id).
    #[serde(default)]
    pub subject: Option<String>,
    /// The resource indicator (RFC 8707), byte for byte.
    #[serde(default)]
    pub resource: Option<String>,
    /// Every scope that was ever asked for.
    #[serde(default)]
    pub requested_scopes: Vec<String>,
    /// What the present token allows.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The present access token.
    pub token: Token,
    /// The refresh token, if the provider gave one.
    #[serde(default)]
    pub refresh_token: Option<RefreshToken>,
    /// What the provider said of its life. An answer that says nothing leaves it as it is.
    #[serde(default)]
    pub refresh_token_life: Option<RefreshTokenLife>,
    /// The key that its tokens are bound to (RFC 9449); `None`: bearer tokens. A new login has a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_key: Option<ProofKey>,
    /// The ID token that came last (OpenID Connect Core section 2), for an identity provider that wants it back.
    #[serde(default)]
    pub id_token: Option<IdToken>,
    /// Why the refresh token is worthless, once the provider has said so twice.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// When the person logged in.
    pub logged_in_at: Wall,
    /// When the last refresh succeeded.
    #[serde(default)]
    pub refreshed_at: Option<Wall>,
}

/// The provider and client of a grant: where its refresh token may be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The provider's name.
    pub provider: String,
    /// The issuer, byte for byte. `None` for providers that are given by endpoints only.
    #[serde(default)]
    pub issuer: Option<String>,
    /// The authorization endpoint, for what MCP clients are told.
    #[serde(default)]
    pub authorization_endpoint: Option<String>,
    /// The token endpoint. `None` for a static token.
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// Where its refreshes go, if not to the token endpoint.
    #[serde(default)]
    pub refresh_endpoint: Option<String>,
    /// The revocation endpoint (RFC 7009).
    #[serde(default)]
    pub revocation_endpoint: Option<String>,
    /// The userinfo endpoint.
    #[serde(default)]
    pub userinfo_endpoint: Option<String>,
    /// The client id. `None` for a static token.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The redirect URI of the login, for providers that want it again on refresh.
    #[serde(default)]
    pub redirect_uri: Option<String>,
    /// How the client proved itself at the login, where the metadata decided that; the preset's own word comes first.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
    /// The URL of the remote MCP server whose authorization server was discovered, byte for byte; `None` for a provider that the
    /// config or a preset knows.
    #[serde(default)]
    pub server: Option<String>,
    /// The client got it for itself, with its own credentials (RFC 6749 section 4.4): nobody logged in, there is no refresh
    /// token, and a new access token is asked for in the same way.
    #[serde(default)]
    pub client_credentials: bool,
    /// A JWT of somebody else took the place of a login (RFC 7523 section 2.1), and another one takes that of a refresh.
    #[serde(default)]
    pub assertion: Option<Box<AssertionSource>>,
}

/// Where the assertions of a grant come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssertionSource {
    /// They are a workload's own, as the platform gives them.
    Workload(TokenSource),
    /// An identity provider makes each of them (ID-JAG) from a person's ID token.
    IdentityProvider {
        /// The provider that it is in the config; `None`: it is described here alone.
        provider: Option<String>,
        /// How it is reached, and our client there.
        definition: Box<Definition>,
        /// Where the ID token comes from.
        id_token: TokenSource,
    },
}

/// Where a token of somebody else comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// This file, absolute, which another program keeps fresh.
    File(PathBuf),
    /// It was given for one login, and not kept.
    Given,
    /// The ID token of this grant.
    Grant(GrantName),
}

impl AssertionSource {
    /// Where the token comes from that all begins with.
    pub fn token(&self) -> &TokenSource {
        match self {
            Self::Workload(token) | Self::IdentityProvider { id_token: token, .. } => token,
        }
    }
}

impl Definition {
    /// Whether it was made without a page for a person.
    pub fn is_unattended(&self) -> bool {
        self.client_credentials || self.assertion.is_some()
    }

    /// Whether a new access token can be asked for without a refresh token.
    pub fn renews_itself(&self) -> bool {
        self.client_credentials || self.assertion.as_ref().is_some_and(|source| *source.token() != TokenSource::Given)
    }

    /// Whether it is a workload's own: its assertions speak of no person.
    pub fn is_a_workload(&self) -> bool {
        matches!(self.assertion.as_deref(), Some(AssertionSource::Workload(_)))
    }

    /// Whose word the grant's subject is, where that is an identity provider's and not the server's own.
    pub fn vouched_by(&self) -> Option<&str> {
        match self.assertion.as_deref() {
            Some(AssertionSource::IdentityProvider { definition, .. }) => definition.issuer.as_deref(),
            _ => None,
        }
    }

    /// Whether it stands for a static token: one that a person stored, and no client of ours got.
    pub fn is_static(&self) -> bool {
        self.client_id.is_none() && self.token_endpoint.is_none()
    }
}

/// An access token and how long it lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// The token.
    pub access_token: AccessToken,
    /// Its type, as the provider spelled it; compared in any case.
    pub token_type: String,
    /// When the request was sent that it answers.
    pub issued_at: Wall,
    /// Its lifetime from then on, milliseconds. `None`: unknown.
    #[serde(default, with = "lifetime")]
    pub lifetime: Option<Duration>,
}

/// What the provider said of a refresh token's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshTokenLife {
    /// When the request was sent that was answered so.
    pub from: Wall,
    /// How long it lives from then on, milliseconds. `None`: for ever.
    #[serde(default, with = "lifetime")]
    pub lifetime: Option<Duration>,
}

impl RefreshTokenLife {
    /// When it ends, if ever.
    pub fn end(&self) -> Option<Wall> {
        self.lifetime.map(|lifetime| self.from + lifetime)
    }
}

/// How a grant ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Wall,
    /// One sentence, safe to show.
    pub reason: String,
}

impl GrantRecord {
    /// Whether a new access token can be had without a person, unless the grant has [`Self::ended`].
    pub fn is_renewable(&self) -> bool {
        self.refresh_token.is_some() || self.definition.renews_itself()
    }

    /// The record as the JSON that is sealed, in a buffer that is wiped after use.
    pub fn to_plaintext(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self).expect("a record has only string keys"))
    }

    /// Reads what [`Self::to_plaintext`] wrote.
    pub fn from_plaintext(plaintext: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(plaintext)
    }
}

mod lifetime {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(lifetime: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        lifetime.map(|l| u64::try_from(l.as_millis()).unwrap_or(u64::MAX)).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

//! What is kept of a grant: the record that the vault seals, as JSON.

use std::time::Duration;

use mcp_auth_proto::GrantName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::Wall;
use crate::provider::ClientAuth;
use crate::secret::{AccessToken, RefreshToken};

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
}

impl Definition {
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
        self.refresh_token.is_some() || self.definition.client_credentials
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

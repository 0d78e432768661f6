//! `POST /v1/token`.

use serde::{Deserialize, Serialize};

use crate::{GrantName, Secret};

/// `POST /v1/token`. Either `grant` or `resource` must be given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The grant's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The resource (MCP server URL), byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The seconds that the token must still live. Capped at half its lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_valid_for: Option<u64>,
    /// Scopes that the token must cover; they never narrow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The raw `WWW-Authenticate` value that a resource server answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// The access token that a resource server rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_token: Option<Secret>,
    /// The name of the program, if it keeps this token for its whole life and never asks again. The process at the other
    /// end of the connection is taken for it, and `status` shows it while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Whether to wait, up to 30 s, where a person must be asked first. Absent: where the person can be told at once, by a
    /// notification; else, and with `false`, the answer is `consent_required` right away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
}

impl TokenRequest {
    /// Asks for the token of a grant by name.
    pub fn for_grant(name: impl Into<String>) -> Self {
        Self { grant: Some(name.into()), ..Self::default() }
    }
}

/// The answer of `POST /v1/token`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The access token.
    pub access_token: Secret,
    /// Its type, `Bearer`.
    pub token_type: String,
    /// When it stops being valid. Absent when unknown, never invented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The same in seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// What it allows.
    pub scopes: Vec<String>,
    /// The grant that it comes from.
    pub grant: GrantName,
    /// Who logged in, as far as the provider told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The resource that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

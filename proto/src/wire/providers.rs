//! Providers and their client secrets: `/v1/providers`.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// One provider as `GET /v1/providers` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProviderSummary {
    /// Its name.
    pub name: String,
    /// Whether it is in config.toml (else it is a built-in preset only).
    pub configured: bool,
    /// The preset that it builds on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Its issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Its authorization endpoint, when fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// Its token endpoint, when fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// The client id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Whether a client secret is stored, or a command for it is configured.
    pub has_client_secret: bool,
    /// The scopes that a login asks for.
    pub scopes: Vec<String>,
    /// The redirect URI to register, as it will be sent (a port that may vary is left out).
    pub redirect_uri: String,
    /// Where to register a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_url: Option<String>,
    /// How to register a client, step by step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registration_steps: Vec<String>,
    /// Whether a device flow is known that needs no client secret.
    #[serde(default)]
    pub device_flow: bool,
    /// The label of the grant that the bare name stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_account: Option<String>,
    /// What is missing before a login can start; empty when ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The remote MCP server that it stands for: listed, and not yet logged in to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The issuer that must be its authorization server; absent: whichever it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_server: Option<String>,
    /// A first login would show the client secret to whichever authorization server the remote MCP server names.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unbound_secret: bool,
    /// What a base URL looks like, where `base_url` is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url_example: Option<String>,
    /// The ways to log in that are known, the usual one first: `code`, `device`, `client_credentials`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<String>,
    /// Whether the code flow needs a client secret.
    #[serde(default)]
    pub needs_client_secret: bool,
    /// Scopes that a login asks for besides, to get a refresh token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refresh_scopes: Vec<String>,
    /// Every redirect URI to register: several where one of several ports is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirect_uris: Vec<String>,
    /// Where refreshes go, if not to the token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_endpoint: Option<String>,
    /// Its device authorization endpoint (RFC 8628), when fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_authorization_endpoint: Option<String>,
    /// Its revocation endpoint, when fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_endpoint: Option<String>,
    /// Its userinfo endpoint, when fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userinfo_endpoint: Option<String>,
    /// What a person should know of it, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Of a preset: whether it was checked against the real service, not against documents alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// Of a preset: when it was last checked, `YYYY-MM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<String>,
    /// Of a preset: the documents that it was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// `PUT /v1/providers/NAME`: write a `[providers.NAME]` table to config.toml. Fields as in the config file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderDefinition {
    /// The preset to build on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The base URL of a self-managed server, for presets that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The issuer, for discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The authorization endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// The token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// The revocation endpoint (RFC 7009).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_endpoint: Option<String>,
    /// The userinfo endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userinfo_endpoint: Option<String>,
    /// The client id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The scopes to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The fixed port of the loopback redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_port: Option<u16>,
    /// The label of the grant that the bare name shall stand for; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_account: Option<String>,
}

/// `PUT /v1/providers/NAME/secret`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSecretRequest {
    /// The client secret.
    pub client_secret: Secret,
}

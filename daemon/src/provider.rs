//! A provider: an authorization server and how we are its client. Presets are data in `provider/presets`.

use std::time::Duration;

/// A checked provider: a preset, a table of config.toml, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// Whether config.toml has a table for it.
    pub configured: bool,
    /// The preset that it builds on.
    pub preset: Option<String>,
    /// The issuer, byte for byte; its metadata is discovered when endpoints are missing.
    pub issuer: Option<String>,
    /// Endpoints that are fixed.
    pub endpoints: Endpoints,
    /// The client id.
    pub client_id: Option<String>,
    /// A command that prints the client secret: program and arguments, no shell.
    pub client_secret_command: Option<Vec<String>>,
    /// The scopes that a login asks for.
    pub scopes: Vec<String>,
    /// Scopes that a login asks for besides, and that never count as missing (`offline_access`).
    pub refresh_scopes: Vec<String>,
    /// Where it differs from the RFCs.
    pub quirks: Quirks,
    /// Where to register a client.
    pub registration_url: Option<String>,
    /// How to register a client, step by step.
    pub registration_steps: Vec<String>,
}

/// The endpoints of an authorization server, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// RFC 6749 section 3.1.
    pub authorization: Option<String>,
    /// RFC 6749 section 3.2.
    pub token: Option<String>,
    /// RFC 7009.
    pub revocation: Option<String>,
    /// OpenID Connect Core section 5.3, or a preset's own account endpoint.
    pub userinfo: Option<String>,
}

/// How the client proves itself at the token endpoint (RFC 6749 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// By `client_id` in the body only.
    None,
    /// By HTTP Basic.
    ClientSecretBasic,
    /// By `client_id` and `client_secret` in the body.
    ClientSecretPost,
}

/// How a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevocationStyle {
    /// RFC 7009.
    Rfc7009,
    /// GitHub: DELETE /applications/CLIENT_ID/grant-or-token with Basic, or the unauthenticated credentials route.
    Github,
    /// Not at all.
    None,
}

/// When tokens are refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefreshPlan {
    /// Ahead of expiry, asked for or not.
    Ahead,
    /// When a token is asked for.
    OnDemand,
}

/// Where a provider differs from the RFCs. The default is an RFC-abiding one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quirks {
    /// How the client proves itself; `None`: by what the metadata lists, and by whether a secret is stored.
    pub client_auth: Option<ClientAuth>,
    /// The client needs a secret for the code flow.
    pub needs_client_secret: bool,
    /// S256 is known to be supported, whatever the metadata says.
    pub pkce_s256: bool,
    /// Separates scopes in answers besides the space.
    pub scope_separator: char,
    /// Error codes that mean `invalid_grant`.
    pub invalid_grant_codes: Vec<String>,
    /// A refresh invalidates the access token that was served before.
    pub refresh_invalidates_access_token: bool,
    /// How long a used refresh token still works.
    pub refresh_grace: Option<Duration>,
    /// The refresh request repeats the redirect URI.
    pub refresh_sends_redirect_uri: bool,
    /// When tokens are refreshed.
    pub refresh: RefreshPlan,
    /// The lifetime of a token that comes without one.
    pub default_lifetime: Option<Duration>,
    /// Whether RFC 8707 `resource` may be sent.
    pub send_resource: bool,
    /// Further parameters of the authorization request.
    pub authorization_params: Vec<(String, String)>,
    /// How tokens are revoked.
    pub revocation: RevocationStyle,
    /// The host of the loopback redirect: `127.0.0.1`, `localhost` or `[::1]`.
    pub redirect_host: String,
    /// The path of the loopback redirect.
    pub redirect_path: String,
    /// The fixed port of the loopback redirect; `None`: any free one.
    pub redirect_port: Option<u16>,
    /// Members of the userinfo answer or ID token that name the account, best first.
    pub account_claims: Vec<String>,
    /// Members that identify the account, best first (`sub`, `id`).
    pub subject_claims: Vec<String>,
}

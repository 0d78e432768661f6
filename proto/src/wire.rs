//! Requests and answers, one type a route. Requests refuse unknown fields; clients ignore unknown fields of answers.
//! Times are RFC 3339 in UTC, durations whole seconds.

use serde::{Deserialize, Serialize};

use crate::{ErrorBody, GrantName, Secret};

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

/// How a grant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantState {
    /// A token can be had.
    Ok,
    /// A refresh is running.
    Refreshing,
    /// The last refresh failed; the next one is planned.
    Retrying,
    /// A person must log in.
    LoginRequired,
}

/// One grant as `GET /v1/grants` and `GET /v1/grants/NAME` show it. Never a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantSummary {
    /// The grant's name.
    pub name: GrantName,
    /// The provider it was made with.
    pub provider: String,
    /// The provider's issuer, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Where the person allowed it. Absent for a static token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// Who logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The resource that its tokens are bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Whether its provider's bare name stands for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// What its tokens allow.
    pub scopes: Vec<String>,
    /// How it is.
    pub state: GrantState,
    /// Whether a new token can be had without a person.
    pub refreshable: bool,
    /// It is the client's own (RFC 6749 section 4.4): nobody logged in, and there is no refresh token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub client_credentials: bool,
    /// A new token is asked for when somebody wants one, and not ahead of that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_demand: bool,
    /// When the present token stops being valid. Absent when unknown or when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The same in seconds from now; 0 when it has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// The present token does not expire, as far as is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_expires: bool,
    /// When the refresh token ends by itself, so that a person must log in. Absent when unknown, or when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_expires_at: Option<String>,
    /// The same in seconds from now; 0 when it should have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_expires_in: Option<u64>,
    /// That end is near: a person should log in before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refresh_token_ending: bool,
    /// When the last refresh succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refreshed_at: Option<String>,
    /// When the next refresh is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_refresh_in: Option<u64>,
    /// Why the last refresh failed, or why a login is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The command for a person that mends the grant or renews it: now where a login is needed, else before it ends.
    #[serde(default)]
    pub remedy: String,
    /// The newest tokens are in memory only, because the disk refused them.
    #[serde(default)]
    pub not_durable: bool,
    /// Revoking it at its provider ends every login of this person with the client, on this machine and elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revokes_account: bool,
    /// The first 8 hex digits of the access token's SHA-256, for bug reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The programs that keep a token of it for their whole life. Best effort: those of this life of the daemon whose
    /// process it can see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
}

/// A program that keeps an access token for its whole life, such as one that `mcp-authctl exec` started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its name, as it was told.
    pub program: String,
    /// Its process.
    pub pid: u32,
    /// Whether its token is the grant's present one.
    pub current: bool,
    /// The seconds that its token still works: 0 when it has expired, or when a refresh has ended it. Absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// `PUT /v1/grants/NAME`: store a static token, such as a personal access token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticToken {
    /// The token.
    pub access_token: Secret,
    /// The seconds that it still lives, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// What it allows, when known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// If it is another account's than the grant holds, it takes its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// `DELETE /v1/grants/NAME`: log out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogoutRequest {
    /// Whether the provider is asked to revoke the tokens. Absent: yes, unless that ends more than this grant
    /// ([`GrantSummary::revokes_account`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<bool>,
}

/// The answer of `DELETE /v1/grants/NAME`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogoutAnswer {
    /// The grant that is forgotten.
    pub grant: GrantName,
    /// What the provider said to the revocation.
    pub revocation: Revocation,
    /// Why the revocation is not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether a provider has confirmed a revocation (RFC 7009).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// The provider has answered that the tokens are revoked.
    Confirmed,
    /// The provider did not answer, or not well; the tokens are forgotten here all the same.
    Unconfirmed,
    /// The provider has no way to revoke.
    Unsupported,
    /// The provider was not asked: by request, or because it would end more than this grant.
    Skipped,
}

/// `POST /v1/grants/NAME/refresh`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// Refresh even if that invalidates a token that a program holds.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/logins`: start a login, or join the one in flight for the same grant and scopes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The provider's name, or the name of a grant (`github`, `github:work`).
    pub provider: String,
    /// The account label: the grant becomes `PROVIDER:LABEL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The scopes to ask for; absent: the provider's default ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The port of the loopback redirect; absent: the provider's, else any free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_port: Option<u16>,
    /// The flow; absent: the code flow, or the device flow where that suits better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<LoginFlow>,
    /// The person's browser is on another machine: the device flow suits better where the provider has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
    /// Who will log in, told to the provider; absent: the account that the grant holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_hint: Option<String>,
    /// Do not ask for the scopes that bring expiring tokens and a refresh token (`refresh_scopes` in the config).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_refresh_scopes: bool,
    /// If another account logs in than the grant holds, it takes its place unasked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Whether this subscriber can ask the person: see [`LoginEvent::OtherAccount`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
    /// Finishes an exchange that the person began by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<CodeExchange>,
    /// Whether this subscriber can open a browser.
    #[serde(default)]
    pub browser: bool,
    /// Whether the login ends when this subscriber goes and nobody else waits.
    #[serde(default)]
    pub interactive: bool,
}

/// The code and verifier of an authorization request that a person made by hand (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeExchange {
    /// The code of the redirect.
    pub code: Secret,
    /// The verifier whose challenge was sent.
    pub code_verifier: Secret,
    /// The redirect URI that was sent, byte for byte.
    pub redirect_uri: String,
}

/// `POST /v1/logins/ID/decision`: what becomes of a login after [`LoginEvent::OtherAccount`]. Neither: the new login is revoked
/// and forgotten.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginDecision {
    /// It takes the place of the one that is held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// It becomes `PROVIDER:LABEL`; both are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// How a person logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginFlow {
    /// With a browser that is sent back to this machine (RFC 6749 section 4.1, RFC 7636, RFC 8252).
    Code,
    /// With a code that is typed at a page on any machine (RFC 8628).
    Device,
    /// Without a person: the client asks with its own credentials (RFC 6749 section 4.4).
    ClientCredentials,
}

/// One event of a login: a JSON line of the answer to `POST /v1/logins`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LoginEvent {
    /// The login runs.
    Started {
        /// The login's id, for `/v1/logins/ID`.
        id: String,
        /// The grant that it will make or replace.
        grant: GrantName,
        /// Whether it was running already.
        joined: bool,
    },
    /// The person must open this URL.
    OpenUrl {
        /// The authorization URL.
        url: String,
        /// The host that it leads to, in ASCII (punycode).
        host: String,
        /// The redirect URI that it carries, as it must be registered.
        redirect_uri: String,
        /// Whether this subscriber shall open the browser.
        open: bool,
    },
    /// The person must type this code at this page, on any machine.
    EnterCode {
        /// The code: visible ASCII.
        user_code: String,
        /// The page.
        verification_uri: String,
        /// The page with the code in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verification_uri_complete: Option<String>,
        /// The host of both, in ASCII (punycode).
        host: String,
        /// The seconds that the code is good.
        expires_in: u64,
        /// Whether this subscriber shall open the browser.
        open: bool,
    },
    /// The redirect has come; the code is being exchanged.
    Exchanging,
    /// Another account has logged in than the grant holds. Nothing was changed; the new login waits for
    /// [`LoginDecision`]s of those who said that they ask, and is revoked when they go or after 5 minutes.
    OtherAccount {
        /// The grant.
        grant: GrantName,
        /// Whose login it holds.
        held: String,
        /// Who has logged in.
        new: String,
    },
    /// The login is done and durable.
    Done {
        /// The grant as it is now.
        grant: Box<GrantSummary>,
        /// Other grants of the provider that hold the same account.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        same_account: Vec<GrantName>,
    },
    /// The login has failed; nothing was changed.
    Failed {
        /// Why.
        error: ErrorBody,
    },
}

/// `POST /v1/logins/ID/redirect`: the URL that the browser was sent to, pasted by a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastedRedirect {
    /// The whole redirect URL.
    pub url: Secret,
}

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

/// Where the vault's key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySourceKind {
    /// The operating system's keychain.
    Keychain,
    /// A credential that systemd hands to the unit.
    SystemdCredential,
    /// A passphrase, stretched by argon2id.
    Passphrase,
    /// A file beside the vault: as strong as the disk that it lies on.
    KeyFile,
}

impl KeySourceKind {
    /// All kinds, strongest first.
    pub const ALL: [Self; 4] = [Self::Keychain, Self::SystemdCredential, Self::Passphrase, Self::KeyFile];

    /// The word for it in config, environment and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keychain => "keychain",
            Self::SystemdCredential => "systemd-credential",
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key-file",
        }
    }
}

impl std::str::FromStr for KeySourceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("`{}` is no key source, expected one of {}", text.escape_debug(), known()))
    }
}

impl std::fmt::Display for KeySourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `POST /v1/vault/setup`: make a new vault with this key source. Refused when there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultSetup {
    /// The key source.
    pub key_source: KeySourceKind,
    /// The passphrase, for [`KeySourceKind::Passphrase`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
}

/// `POST /v1/vault/unlock`: the passphrase, or a retry of the keychain with a prompt allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultUnlock {
    /// The passphrase, for [`KeySourceKind::Passphrase`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
}

/// `POST /v1/vault/rekey`: a new key for every record, from the same or another key source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultRekey {
    /// The new key source; absent: the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_source: Option<KeySourceKind>,
    /// The new passphrase, for [`KeySourceKind::Passphrase`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
}

/// `POST /v1/vault/backup`: copy the sealed vault to a folder that does not exist yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultBackup {
    /// The folder, an absolute path.
    pub path: String,
}

/// How the vault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultState {
    /// Records can be read and written.
    Unlocked,
    /// The key is not there at the moment.
    Locked,
    /// The key is being fetched.
    Opening,
}

/// The vault's part of [`Status`], and the answer of the vault routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VaultStatus {
    /// How it is.
    pub state: VaultState,
    /// Where its key comes from; absent while there is no vault yet and none was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_source: Option<KeySourceKind>,
    /// Why it is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How many corrupt records were put aside.
    #[serde(default)]
    pub quarantined: usize,
    /// There is no vault yet, and it takes a person to choose its key source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_setup: bool,
    /// systemd handed the daemon a credential that can be the key source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credential: bool,
    /// The vault's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
}

/// The config's part of [`Status`], and the answer of `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file.
    pub path: String,
    /// Why the newest version of the file is not in use; the last good one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An issuer that is left alone for a while, because it did not answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PausedIssuer {
    /// The issuer, or the token endpoint's origin.
    pub issuer: String,
    /// The seconds until the next attempt.
    pub retry_after: u64,
}

/// The issuer's part of [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IssuerStatus {
    /// Its identifier, which is also where it listens.
    pub issuer: String,
    /// Why it does not listen; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a request to the issuer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has decided.
    Waiting,
    /// The client gets its tokens.
    Approved,
    /// The client gets nothing.
    Refused,
}

/// `GET` and `POST /v1/issuer/approvals/CODE`: what a program asks the issuer for, as its page shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// The code on the page.
    pub code: String,
    /// The client's id.
    pub client_id: String,
    /// What people call it.
    pub client: String,
    /// Where the browser goes then, for people.
    pub redirect_host: String,
    /// The resource that the tokens are for.
    pub resource: String,
    /// What they allow.
    pub scopes: Vec<String>,
    /// The seconds that the code is still good.
    pub expires_in: u64,
    /// How it stands.
    pub state: ApprovalState,
}

/// The body of `POST /v1/issuer/approvals/CODE`. An empty one approves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalDecision {
    /// Whether the client gets what it asks for.
    #[serde(default = "yes")]
    pub allow: bool,
}

fn yes() -> bool {
    true
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// [`crate::PROTO_VERSION`] of the daemon.
    pub proto: u32,
    /// The daemon's process id.
    pub pid: u32,
    /// Seconds since it started, time in suspend included.
    pub uptime: u64,
    /// The vault.
    pub vault: VaultStatus,
    /// The config file.
    pub config: ConfigStatus,
    /// Our own authorization server; absent while it is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<IssuerStatus>,
    /// How many grants are held.
    pub grants: usize,
    /// How many of them need a login.
    pub login_required: usize,
    /// How many of them have their newest tokens in memory only.
    pub not_durable: usize,
    /// Issuers that did not answer and are left alone for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<PausedIssuer>,
    /// How the daemon reaches providers.
    #[serde(default)]
    pub network: NetworkStatus,
}

/// How the daemon reaches providers over https: what config.toml says, else the daemon's own environment. This machine is
/// always reached directly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The proxy, without a password, or `none` where config.toml says so; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Setting>,
    /// The hosts that are reached without it, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<Setting>,
    /// The file of certificate authorities; absent: the platform's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<Setting>,
}

/// A value that is in effect, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The value.
    pub value: String,
    /// `config.toml`, or the name of the daemon's environment variable.
    pub from: String,
}

/// `GET /v1/doctor`: whether a provider can be reached from the daemon. Those that are configured or have a grant are
/// asked, side by side, at most 32 of them; an answer is good for 5 s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderReach {
    /// The provider's name.
    pub provider: String,
    /// The host that was asked; absent when there is no address to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether the host is one of the built-in presets.
    #[serde(default)]
    pub builtin: bool,
    /// The milliseconds until it answered, name lookup and TLS included; absent when it did not answer at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
    /// The seconds that this machine's clock is ahead of the server's `Date`; negative when it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead: Option<i64>,
    /// Why it cannot be used: no connection, or metadata that no login could work with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// One line of `GET /v1/events`: something changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, RFC 3339.
    pub at: String,
    /// What: `logged_in`, `logged_out`, `refreshed`, `refresh_failed`, `login_required`, `refresh_token_ending`,
    /// `not_durable`, `durable`, `vault_locked`, `vault_unlocked`, `config_reloaded`, `config_error`.
    pub event: String,
    /// The grant that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantName>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

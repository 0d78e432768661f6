//! What is held: `/v1/grants`.

use serde::{Deserialize, Serialize};

use crate::{GrantName, Secret};

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
    /// The URL of the remote MCP server that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
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
    /// A rule names it: its tokens are for the programs that the policy names, or that a person agrees to (`GET /v1/policy`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// What its tokens allow.
    pub scopes: Vec<String>,
    /// How it is.
    pub state: GrantState,
    /// Whether a new token can be had without a person.
    pub refreshable: bool,
    /// It is the client's own (RFC 6749 section 4.4): nobody logged in, and there is no refresh token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub client_credentials: bool,
    /// Its tokens are bound to a key of the daemon (RFC 9449): they go through the relay, and no program gets one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dpop: bool,
    /// What takes the place of a login and of refreshes, where that is a token of somebody else (RFC 7523 section 2.1): plain
    /// words, no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<String>,
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

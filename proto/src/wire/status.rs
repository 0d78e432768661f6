//! How the daemon is: `/v1/status`, `/v1/doctor`, `/v1/notifications`, `/v1/events`.

use serde::{Deserialize, Serialize};

use crate::{GrantName, IssuerStatus, RelayStatus, VaultStatus};

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
    /// The relay's port on loopback; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayStatus>,
    /// How many grants are held.
    pub grants: usize,
    /// How many of them need a login.
    pub login_required: usize,
    /// How many of them have their newest tokens in memory only.
    pub not_durable: usize,
    /// Why the audit cannot be written at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_error: Option<String>,
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

/// `GET /v1/notifications`: whether a person can be told anything on the desktop. Nothing is shown by asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notifications {
    /// Whether config.toml lets the daemon show notifications.
    pub enabled: bool,
    /// The name and version of the service that shows them; absent when it is started only when needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Why none can be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One line of `GET /v1/events`: something changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, RFC 3339.
    pub at: String,
    /// What: one of [`crate::event`].
    pub event: String,
    /// The grant that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantName>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

//! The relay's port on loopback and its clients: `/v1/relay/clients`.

use serde::{Deserialize, Serialize};

use crate::{GrantName, Secret};

/// The relay's part of [`crate::Status`]; it is there while config.toml names a port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Where it listens: `http://127.0.0.1:8732`.
    pub url: String,
    /// How many clients have a secret; absent while the vault is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<usize>,
    /// Why it does not listen; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `POST /v1/relay/clients`: a secret for one more client of the relay's port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRelayClient {
    /// What it is called in rules and in the audit: a grant's name without a label.
    pub name: String,
    /// The grants whose servers it may speak to, 1 to 16.
    pub grants: Vec<GrantName>,
}

/// The answer to `POST /v1/relay/clients`. The secret is told this once; the daemon keeps a digest of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddedRelayClient {
    /// Its name.
    pub name: String,
    /// What it sends with every request: `Authorization: Bearer SECRET`.
    pub secret: Secret,
    /// Where it finds its servers.
    pub servers: Vec<RelayedServer>,
}

/// Where a client of the relay's port finds a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedServer {
    /// The grant, by its own name.
    pub grant: GrantName,
    /// The URL on the relay's port.
    pub url: String,
}

/// One client of `GET /v1/relay/clients`, and the answer of `DELETE /v1/relay/clients/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayClient {
    /// Its name.
    pub name: String,
    /// The grants whose servers it may speak to.
    pub grants: Vec<GrantName>,
    /// When it was added, RFC 3339.
    pub added_at: String,
}

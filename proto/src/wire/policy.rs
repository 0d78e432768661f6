//! Who may have which token: programs, and what they ask a person for.

use serde::{Deserialize, Serialize};

use crate::GrantName;

/// A program that asks, as far as the system tells. Texts are free of control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Program {
    /// The path of its executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// The path of the script, where the executable is an interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// The systemd unit that it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The grants of the capability socket that it came through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<GrantName>,
    /// What is not known of it, or not for sure, each as a clause without a subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weak: Vec<String>,
}

/// `POST /v1/capabilities`: a socket of its own for the process that asks, for the tokens of some grants and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityRequest {
    /// The grants, 1 to 16.
    pub grants: Vec<GrantName>,
}

/// The answer to `POST /v1/capabilities`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// The path of the socket. It is there until the process that asked ends.
    pub socket: String,
    /// The grants by their own names.
    pub grants: Vec<GrantName>,
}

/// What a program asks a person for: `GET /v1/consents/ID`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Consent {
    /// Names it in `mcp-authctl approve ID`.
    pub id: String,
    /// Who asks.
    pub program: Program,
    /// The grant whose token is asked for.
    pub grant: GrantName,
    /// What the token allows.
    pub scopes: Vec<String>,
    /// The host that the token is for: the resource's, else the provider's.
    pub host: String,
    /// The seconds until nobody's answer counts as a no.
    pub expires_in: u64,
}

/// `POST /v1/consents/ID`: the person's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentDecision {
    /// Whether the program may have it.
    pub allow: bool,
}

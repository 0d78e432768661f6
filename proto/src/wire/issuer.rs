//! The issuer, and what a person approves there: `/v1/issuer`.

use serde::{Deserialize, Serialize};

/// The issuer's part of [`crate::Status`].
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

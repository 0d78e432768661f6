//! Who got what, when and how often: `/v1/audit`. It never holds a token, the name of a person's account, or a URL.

use serde::{Deserialize, Serialize};

use crate::{GrantName, Program};

/// `GET /v1/audit`: which lines. What is absent does not narrow the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRequest {
    /// Of this grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantName>,
    /// Of programs with this text in the path of their executable or script or in the name of their unit, or of the
    /// process with this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Of this event ([`crate::event`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Of the last so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<u64>,
    /// The newest so many; absent: 200. At most 1,000, and fewer where they are long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The answer is a stream of JSON lines that goes on with what happens from now on; else it is a list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
}

/// One line of the audit. Texts are free of control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When, RFC 3339; of several the last.
    pub at: String,
    /// What: one of [`crate::event`].
    pub event: String,
    /// The grant that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantName>,
    /// What else it is about, a word or two: a provider's name, a key source, a rule, the request that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Whose doing it was. Absent: the daemon's own. Without any member: of a program that the system did not show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// How often.
    #[serde(default = "once")]
    pub count: u64,
    /// When the counting began, RFC 3339, where it was more than a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

fn once() -> u64 {
    1
}

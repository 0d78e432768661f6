//! Errors on the wire: a closed set of codes, each with its HTTP status, one sentence and a hint.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of refusal or failure an answer is. The set is closed within one protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed, names an unknown field, or a value is out of range.
    InvalidRequest,
    /// Nobody is logged in, or the login has ended.
    LoginRequired,
    /// The grant's token does not cover the scopes asked for.
    InsufficientScope,
    /// A person must allow this peer first.
    ConsentRequired,
    /// The policy, the operating system's user, or a guard against browsers says no.
    AccessDenied,
    /// There is no grant of that name or resource.
    UnknownGrant,
    /// There is no such route, login or provider.
    NotFound,
    /// Several grants match; `choices` lists them.
    AmbiguousGrant,
    /// The request does not fit the present state.
    Conflict,
    /// The body is larger than the limit.
    PayloadTooLarge,
    /// Too many connections or requests.
    TooManyRequests,
    /// A fault of ours.
    InternalError,
    /// The provider does not answer, or not as it should; `retry_after` tells when we try again.
    ProviderUnreachable,
    /// The vault has no key at the moment.
    VaultLocked,
}

impl ErrorCode {
    /// The code as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::LoginRequired => "login_required",
            Self::InsufficientScope => "insufficient_scope",
            Self::ConsentRequired => "consent_required",
            Self::AccessDenied => "access_denied",
            Self::UnknownGrant => "unknown_grant",
            Self::NotFound => "not_found",
            Self::AmbiguousGrant => "ambiguous_grant",
            Self::Conflict => "conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::TooManyRequests => "too_many_requests",
            Self::InternalError => "internal_error",
            Self::ProviderUnreachable => "provider_unreachable",
            Self::VaultLocked => "vault_locked",
        }
    }

    /// The HTTP status that goes with the code.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::LoginRequired => 401,
            Self::InsufficientScope | Self::ConsentRequired | Self::AccessDenied => 403,
            Self::UnknownGrant | Self::NotFound => 404,
            Self::AmbiguousGrant | Self::Conflict => 409,
            Self::PayloadTooLarge => 413,
            Self::TooManyRequests => 429,
            Self::InternalError => 500,
            Self::ProviderUnreachable | Self::VaultLocked => 503,
        }
    }
}

/// The body of every error answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The code.
    pub error: ErrorCode,
    /// One lower-case sentence: what failed and for whom.
    pub error_description: String,
    /// What to do about it, with the exact command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Seconds until the daemon itself tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The grants that match, for [`ErrorCode::AmbiguousGrant`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// What waits for a person's word, for [`ErrorCode::ConsentRequired`]: `mcp-authctl approve ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<String>,
    /// A ready JSON-RPC error object for MCP servers, for [`ErrorCode::LoginRequired`] and [`ErrorCode::InsufficientScope`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<serde_json::Value>,
}

impl ErrorBody {
    /// An error with a code and a sentence.
    pub fn new(error: ErrorCode, description: impl Into<String>) -> Self {
        Self { error, error_description: description.into(), hint: None, retry_after: None, choices: Vec::new(), consent: None, mcp: None }
    }

    /// Adds the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the seconds until the next attempt.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error_description)
    }
}

impl std::error::Error for ErrorBody {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_called_as_it_is_written() {
        use ErrorCode::*;
        for code in [
            InvalidRequest,
            LoginRequired,
            InsufficientScope,
            ConsentRequired,
            AccessDenied,
            UnknownGrant,
            NotFound,
            AmbiguousGrant,
            Conflict,
            PayloadTooLarge,
            TooManyRequests,
            InternalError,
            ProviderUnreachable,
            VaultLocked,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}

//! The token endpoint (RFC 6749 sections 3.2, 4.1.3, 5 and 6): requests, and what every kind of answer means.

use std::time::Duration;

use crate::secret::{AccessToken, RefreshToken};

/// A successful answer (RFC 6749 section 5.1), as lenient as providers are: checked, not yet merged into a grant.
#[derive(Clone, Debug)]
pub struct TokenResponse {
    /// The access token.
    pub access_token: AccessToken,
    /// Its type as sent; `Bearer` when missing.
    pub token_type: String,
    /// Its lifetime. Zero or negative answers are `Some(ZERO)`; missing ones come from the preset or the JWT's `exp`, else `None`.
    pub lifetime: Option<Duration>,
    /// A new refresh token; `None` keeps the old one.
    pub refresh_token: Option<RefreshToken>,
    /// The granted scopes; `None` means those that were asked for.
    pub scopes: Option<Vec<String>>,
    /// The ID token, for identity only. Redacted in `Debug`.
    pub id_token: Option<AccessToken>,
}

/// Why a token request gave no token. No variant holds a body or a token; texts are sanitised and short.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `invalid_grant`, or the preset's own word for it: the only answer that can end a grant.
    #[error("the provider rejected the grant{}", detail(.0))]
    InvalidGrant(Option<String>),
    /// `invalid_client`, `unauthorized_client`, `interaction_required`, `consent_required`, `invalid_scope` and the like:
    /// kept, and tried again hourly.
    #[error("the provider answered {code}{}", detail(.description))]
    Refused {
        /// The OAuth error code.
        code: String,
        /// `error_description`, sanitised.
        description: Option<String>,
    },
    /// 429 or 503: the whole issuer is left alone for a while.
    #[error("the provider answered {status}")]
    Overloaded {
        /// The status.
        status: u16,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No byte of the request left.
    #[error("{0}")]
    NotSent(String),
    /// The request may have been received, and no whole answer came: the refresh token may be used up.
    #[error("{0}")]
    Lost(String),
    /// Any other answer.
    #[error("the provider's answer is not usable: {0}")]
    Unusable(String),
}

fn detail(text: &Option<String>) -> String {
    text.as_ref().map_or_else(String::new, |text| format!(": {text}"))
}

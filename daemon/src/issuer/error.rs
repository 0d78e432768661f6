//! PURE: the errors of OAuth as this issuer speaks them (RFC 6749 sections 4.1.2.1 and 5.2, RFC 6750 section 3.1, RFC 8707
//! section 2, OpenID Connect Core section 3.1.2.6), each with the sentence that its `error_uri` leads to.

/// An error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    InvalidTarget,
    InvalidToken,
    InsufficientScope,
    UnsupportedGrantType,
    UnsupportedResponseType,
    AccessDenied,
    ConsentRequired,
    RequestNotSupported,
    RequestUriNotSupported,
    TemporarilyUnavailable,
}

impl Code {
    pub(crate) const ALL: [Self; 14] = [
        Self::InvalidRequest,
        Self::InvalidClient,
        Self::InvalidGrant,
        Self::InvalidScope,
        Self::InvalidTarget,
        Self::InvalidToken,
        Self::InsufficientScope,
        Self::UnsupportedGrantType,
        Self::UnsupportedResponseType,
        Self::AccessDenied,
        Self::ConsentRequired,
        Self::RequestNotSupported,
        Self::RequestUriNotSupported,
        Self::TemporarilyUnavailable,
    ];

    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::AccessDenied => "access_denied",
            Self::ConsentRequired => "consent_required",
            Self::RequestNotSupported => "request_not_supported",
            Self::RequestUriNotSupported => "request_uri_not_supported",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }

    /// The status of an answer that is not a redirect.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::InvalidClient | Self::InvalidToken => 401,
            Self::InsufficientScope => 403,
            Self::TemporarilyUnavailable => 503,
            _ => 400,
        }
    }

    /// What it means and what helps, for people.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::InvalidRequest => {
                "The request lacks something, says it twice, or says it in a wrong form. PKCE with S256 and a state are required."
            }
            Self::InvalidClient => "The client is not in [[issuer.clients]] of config.toml, or its secret is wrong or missing.",
            Self::InvalidGrant => {
                "The authorization code or refresh token is unknown, expired, revoked, used before, or belongs to another request. A refresh token that was used before ends the whole login: log in again."
            }
            Self::InvalidScope => {
                "A scope is not known for this client and resource: compare scopes in [[issuer.clients]] and [[issuer.resources]]."
            }
            Self::InvalidTarget => "The resource is not in [[issuer.resources]] of config.toml, or none was named where there are several.",
            Self::InvalidToken => "The access token is not one of this issuer, has expired or was revoked.",
            Self::InsufficientScope => "The access token does not cover what was asked for.",
            Self::UnsupportedGrantType => "The token endpoint takes authorization_code and refresh_token.",
            Self::UnsupportedResponseType => "The authorization endpoint takes response_type=code, answered in the query.",
            Self::AccessDenied => "The request was refused, or nobody approved it in time.",
            Self::ConsentRequired => "A person must approve every request, so that prompt=none cannot work.",
            Self::RequestNotSupported => "Request objects (the parameter request) are not supported.",
            Self::RequestUriNotSupported => "Request objects (the parameter request_uri) are not supported.",
            Self::TemporarilyUnavailable => "The vault is locked or the disk refuses to write: mcp-authctl status tells more.",
        }
    }
}

/// A refusal: the code, and one sentence in the alphabet of RFC 6749 (printable ASCII without quotes and backslashes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) description: &'static str,
}

impl Refusal {
    pub(crate) fn new(code: Code, description: &'static str) -> Self {
        Self { code, description }
    }

    /// Where the error is explained (RFC 6749 section 5.2).
    pub(crate) fn uri(self, issuer: &str) -> String {
        format!("{issuer}/oauth/errors#{}", self.code.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_once() {
        let mut words = Code::ALL.map(Code::as_str);
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(Code::ALL.iter().all(|code| code.meaning().ends_with('.')));
    }
}

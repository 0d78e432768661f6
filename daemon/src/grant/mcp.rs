//! PURE: the JSON-RPC error object that tells an MCP client which login is missing. An MCP server passes it on as it is.

use serde_json::{Value, json};

use crate::oauth::jwt_bearer;
use crate::provider::{Flow, Pkce, Quirks};

/// What the message says where nobody is logged in, or not any more.
pub(crate) const AUTHENTICATION_REQUIRED: &str = "Authentication required";
/// What the message says where the login does not reach far enough.
pub(crate) const INSUFFICIENT_SCOPE: &str = "Insufficient scope";

/// In the range that JSON-RPC leaves to servers (-32000 to -32099).
const CODE: i32 = -32001;

/// How a provider's login is done, as far as those are told who ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginKind {
    /// RFC 6749 section 4.1 with PKCE S256 (RFC 7636).
    #[default]
    Code,
    /// The same at a server that refuses PKCE.
    CodeWithoutPkce,
    /// RFC 8628.
    Device,
    /// RFC 6749 section 4.4: nobody is asked.
    Client,
    /// RFC 7523 section 2.1: a JWT of somebody else is enough.
    Assertion,
}

impl LoginKind {
    /// What a login at this provider does when it is not told.
    pub(crate) fn of(quirks: &Quirks) -> Self {
        match quirks.flow {
            Some(Flow::DeviceCode) => Self::Device,
            Some(Flow::ClientCredentials) => Self::Client,
            Some(Flow::JwtBearer | Flow::Enterprise) => Self::Assertion,
            Some(Flow::AuthorizationCode) | None if quirks.pkce == Some(Pkce::Off) => Self::CodeWithoutPkce,
            Some(Flow::AuthorizationCode) | None => Self::Code,
        }
    }

    fn grant_type(self) -> &'static str {
        match self {
            Self::Code | Self::CodeWithoutPkce => "authorization_code",
            Self::Device => "urn:ietf:params:oauth:grant-type:device_code",
            Self::Client => "client_credentials",
            Self::Assertion => jwt_bearer::GRANT_TYPE,
        }
    }

    fn code_challenge_method(self) -> Option<&'static str> {
        (self == Self::Code).then_some("S256")
    }
}

/// The login that is missing. Every member is there in every answer; what is not known is null.
#[derive(Debug)]
pub(crate) struct LoginNeeded<'a> {
    /// `None`: a person must bring a token, there is nothing to authorize.
    pub(crate) kind: Option<LoginKind>,
    /// The authorization endpoint.
    pub(crate) authorization_url: Option<&'a str>,
    /// The token endpoint.
    pub(crate) token_url: Option<&'a str>,
    /// The scopes that the login must ask for.
    pub(crate) scopes: &'a [&'a str],
    /// The resource indicator (RFC 8707), byte for byte.
    pub(crate) resource: Option<&'a str>,
    /// What a person types.
    pub(crate) login_command: &'a str,
}

impl LoginNeeded<'_> {
    /// The whole error object.
    pub(crate) fn to_json(&self, message: &str) -> Value {
        json!({"code": CODE, "message": message, "data": {
            "type": "oauth2",
            "grant_type": self.kind.map(LoginKind::grant_type),
            "authorization_url": self.authorization_url,
            "token_url": self.token_url,
            "scopes": self.scopes,
            "code_challenge_method": self.kind.and_then(LoginKind::code_challenge_method),
            "resource": self.resource,
            "login_command": self.login_command,
        }})
    }
}

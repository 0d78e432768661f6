//! What a verb is about: a grant by its name, or the URL of a remote MCP server.

use std::fmt;
use std::str::FromStr;

use mcp_auth_proto::{Client, ClientError, ErrorBody, ErrorCode, GrantName, NameError, TokenRequest};

use crate::failure::Failure;
use crate::output::field;

/// A name or a URL, as it was typed.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Grant(GrantName),
    Resource(String),
}

impl FromStr for Target {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.starts_with("https://") || text.starts_with("http://") {
            Ok(Self::Resource(text.to_owned()))
        } else {
            text.parse().map(Self::Grant)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant(name) => name.fmt(f),
            Self::Resource(url) => f.write_str(&field(url)),
        }
    }
}

impl Target {
    /// Asks for its token.
    pub(super) fn request(&self) -> TokenRequest {
        match self {
            Self::Grant(name) => TokenRequest::for_grant(name.as_str()),
            Self::Resource(url) => TokenRequest { resource: Some(url.clone()), ..TokenRequest::default() },
        }
    }

    /// The name, if it is one.
    pub(super) fn name(&self) -> Option<&GrantName> {
        match self {
            Self::Grant(name) => Some(name),
            Self::Resource(_) => None,
        }
    }

    /// The grant's name. A URL is that of the server, or the resource that its tokens are bound to.
    pub(super) fn grant(&self, client: &Client) -> Result<GrantName, Failure> {
        let url = match self {
            Self::Grant(name) => return Ok(name.clone()),
            Self::Resource(url) => url,
        };
        let fits = |of: &Option<String>| of.as_deref() == Some(url);
        let mut names: Vec<_> =
            client.grants()?.into_iter().filter(|grant| fits(&grant.server) || fits(&grant.resource)).map(|grant| grant.name).collect();
        match names.len() {
            1 => Ok(names.remove(0)),
            0 => Err(refusal(ErrorCode::UnknownGrant, format!("there is no grant for {self}"), "mcp-authctl status".to_owned())),
            _ => {
                let names = names.iter().map(GrantName::as_str).collect::<Vec<_>>().join(", ");
                Err(refusal(ErrorCode::AmbiguousGrant, format!("several grants are for {self}"), format!("name one of {names}")))
            }
        }
    }
}

fn refusal(code: ErrorCode, sentence: String, hint: String) -> Failure {
    ClientError::Api(Box::new(ErrorBody::new(code, sentence).hint(hint))).into()
}

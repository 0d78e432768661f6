//! What the relay asks about a grant: where its requests go, and how.

use std::borrow::Cow;
use std::sync::Arc;

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};

use super::core::{Core, answer};
use super::{Broker, Reply};
use crate::clock::Clock;
use crate::provider::Provider;
use crate::transport::Transport;

/// Where requests go, and with whose token.
#[derive(Clone)]
pub struct Destination {
    /// The grant; `None`: nobody has logged in at this URL, and perhaps nobody has to.
    pub grant: Option<GrantName>,
    /// The remote MCP server, byte for byte.
    pub url: String,
    /// The way there.
    pub transport: Arc<dyn Transport>,
    /// The time that proofs tell.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Destination").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl Broker {
    /// Where a request to `/mcp/TARGET` goes. `target` is a grant's name or an MCP server's URL.
    pub async fn destination(&self, target: String) -> Result<Destination, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.destination(target, reply))).await
    }
}

impl Core {
    fn destination(&mut self, target: String, reply: Reply<Destination>) {
        let found = self.find_server(target);
        answer(reply, found);
    }

    pub(super) fn find_server(&self, target: String) -> Result<Destination, ErrorBody> {
        let is_url = target.contains("://");
        let name = match self.grant_of(&target) {
            Ok(name) => name,
            // The server itself says whether it wants a login.
            Err(error) if is_url && error.error == ErrorCode::UnknownGrant => {
                let transport = self.transports.of(&self.config, &Provider::unknown(""));
                return Ok(Destination { grant: None, url: target, transport, clock: self.edges.clock.clone() });
            }
            Err(error) => return Err(hinted(error)),
        };
        let record = self.held(&name)?.record();
        let provider = self.provider_of(&record.definition).unwrap_or_else(|| Cow::Owned(Provider::unknown(name.base())));
        let named = record.definition.server.as_ref().or(record.resource.as_ref()).or(provider.resource.as_ref());
        let url = named.cloned().ok_or_else(|| no_server(&name))?;
        let (transport, clock) = (self.transports.of(&self.config, &provider), self.edges.clock.clone());
        Ok(Destination { grant: Some(name), url, transport, clock })
    }
}

/// What is no name at all is told without a hint elsewhere.
fn hinted(error: ErrorBody) -> ErrorBody {
    if error.hint.is_some() { error } else { error.hint("mcp-authctl status") }
}

fn no_server(name: &GrantName) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, format!("`{name}` is not a grant for an MCP server"))
        .hint(format!("set `resource` in [providers.{}] to the server's URL, then mcp-authctl reload", name.base()))
}

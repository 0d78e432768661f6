//! What capability sockets ask of the broker: which grants a new one is for, and which grant a request through one means.

use std::sync::Arc;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, event};

use super::core::{Core, answer};
use super::{Broker, Reply};
use crate::audit::Note;
use crate::caller::Caller;
use crate::grant::Asker;
use crate::ipc::capability::Memory;
use crate::policy::{Decision, Only, Right, allow};
use crate::vault::Record;

/// The most grants of one socket.
const MOST_GRANTS: usize = 16;

impl Broker {
    /// The grants that a capability socket for these names would be for.
    pub async fn capability(&self, request: wire::CapabilityRequest) -> Result<Only, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.capability(&request.grants, reply))).await
    }

    /// What remembers the capability sockets.
    pub fn capability_memory(&self) -> Memory {
        Memory { records: self.capabilities.clone(), vault: self.edges.vault.clone(), broker: self.clone() }
    }

    /// A capability socket for these grants is gone.
    pub fn capability_closed(&self, only: &Only) {
        let names = only.names();
        self.audit().note(Note::of(event::CAPABILITY_CLOSED).about(&names));
        self.tell(event::CAPABILITY_CLOSED, names);
    }
}

impl Core {
    fn capability(&mut self, names: &[GrantName], reply: Reply<Only>) {
        if names.is_empty() || names.len() > MOST_GRANTS {
            let error = ErrorBody::new(ErrorCode::InvalidRequest, format!("a socket is for 1 to {MOST_GRANTS} grants"));
            return answer(reply, Err(error));
        }
        let meant = names.iter().map(|asked| {
            let own = self.meant(asked);
            self.held(&own).map(|_| (asked.clone(), own.clone()))
        });
        let only = meant.collect::<Result<Vec<_>, _>>().map(Only::new);
        answer(reply, only);
    }

    /// A token for whoever came through a capability socket.
    pub(super) fn confined_token(
        &mut self,
        asker: Asker,
        request: wire::TokenRequest,
        caller: Arc<Caller>,
        reply: Reply<wire::TokenAnswer>,
    ) {
        self.when_open(reply, move |core, reply| match core.confined(&caller, request) {
            Ok(request) => core.token(asker, request, caller, reply),
            Err(error) => answer(reply, Err(error)),
        });
    }

    /// A request of whoever came through a capability socket, with its grant by its own name. Of other grants nothing shows,
    /// not even whether there are any.
    fn confined(&self, caller: &Caller, request: wire::TokenRequest) -> Result<wire::TokenRequest, ErrorBody> {
        let Some(only) = caller.only() else { return Ok(request) };
        let named = match &request.grant {
            Some(name) => only.meant(name).cloned(),
            None => self.find(&request).ok(),
        };
        let permitted = |name: &GrantName| allow(&caller.peer(), Some(only), Right::Token, Some(name.as_str())) == Decision::Allow;
        let Some(name) = named.filter(permitted) else { return Err(only.denial()) };
        if !self.grants.contains_key(&name) && !self.set_aside.contains(&name) {
            let error = ErrorBody::new(ErrorCode::LoginRequired, format!("nobody is logged in to `{name}`"));
            return Err(error.hint(format!("mcp-authctl login {name}")));
        }
        Ok(wire::TokenRequest { grant: Some(name.to_string()), ..request })
    }

    /// The vault was opened, with these records of capability sockets.
    pub(super) fn capabilities_opened(&self, records: Vec<Record>) {
        self.capabilities.send_replace(Arc::new(records));
    }
}

//! What capability sockets ask of the broker: which grants a new one is for, and which grant a request through one means.

use std::sync::Arc;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, event};

use super::core::{Core, answer};
use super::served::{Purpose, Served};
use super::{Broker, Reply};
use crate::audit::Note;
use crate::caller::Caller;
use crate::grant::Asker;
use crate::ipc::capability::Memory;
use crate::policy::{Decision, Only, Right, allow};
use crate::vault::Record;

/// The most grants of one socket, or of one client of the relay's port.
const MOST_GRANTS: usize = 16;

impl Broker {
    /// The grants that a capability socket for these names would be for.
    pub async fn capability(&self, request: wire::CapabilityRequest) -> Result<Only, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.capability(&request.grants, reply))).await
    }

    /// What remembers the capability sockets.
    pub fn capability_memory(&self) -> Memory {
        Memory { records: self.0.capabilities.clone(), vault: self.0.edges.vault.clone(), broker: self.clone() }
    }

    /// The capability socket of this process for these grants is gone.
    pub fn capability_closed(&self, process: u32, only: &Only) {
        let names = only.names();
        self.audit().note_of(process, Note::of(event::CAPABILITY_CLOSED).about(&names));
        self.tell(event::CAPABILITY_CLOSED, format!("{names} (process {process})"));
    }
}

impl Core {
    fn capability(&mut self, names: &[GrantName], reply: Reply<Only>) {
        let only = self.held_by_name(names).map(Only::new);
        answer(reply, only);
    }

    /// Grants that are held, as they were asked for and by their own names.
    pub(super) fn held_by_name(&self, names: &[GrantName]) -> Result<Vec<(GrantName, GrantName)>, ErrorBody> {
        if names.is_empty() || names.len() > MOST_GRANTS {
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, format!("it must be for 1 to {MOST_GRANTS} grants")));
        }
        let meant = names.iter().map(|asked| {
            let own = self.meant(asked);
            self.held(&own).map(|_| (asked.clone(), own.clone()))
        });
        meant.collect()
    }

    /// A token for whoever came through a capability socket.
    pub(super) fn confined_token(
        &mut self,
        asker: Asker,
        request: wire::TokenRequest,
        (caller, purpose): (Arc<Caller>, Purpose),
        reply: Reply<Served>,
    ) {
        self.when_open(reply, move |core, reply| match core.confined(&caller, request) {
            Ok(request) => core.token(asker, request, (caller, purpose), reply),
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

//! How long the relay may go on with a grant: whoever streams an answer on its token holds a lease. A logout and a lock end it. When
//! the rules change, or the time of one is over, it is judged anew, by which nobody is asked and no token is counted.

use std::collections::HashMap;
use std::sync::Arc;

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};
use tokio::sync::watch;

use super::core::{Core, answer};
use super::policy::nobody_told;
use super::{Broker, Reply};
use crate::caller::Caller;

/// The right to go on with what a token was served for.
#[derive(Clone, Debug)]
pub struct Lease {
    grant: GrantName,
    changes: watch::Receiver<()>,
}

/// The broker's end of the leases: for each grant one that is told of changes, and let go with the grant.
#[derive(Default)]
pub(super) struct Leases(HashMap<GrantName, watch::Sender<()>>);

impl Leases {
    pub(super) fn lease(&mut self, grant: &GrantName) -> Lease {
        let changes = self.0.entry(grant.clone()).or_default().subscribe();
        Lease { grant: grant.clone(), changes }
    }

    /// What was decided about the grant may not stand any more.
    pub(super) fn judge_anew(&self, grant: &GrantName) {
        if let Some(leases) = self.0.get(grant) {
            leases.send_replace(());
        }
    }

    pub(super) fn end(&mut self, grant: &GrantName) {
        self.0.remove(grant);
    }

    pub(super) fn end_all(&mut self) {
        self.0.clear();
    }
}

impl Broker {
    /// Waits until `caller` may not go on by this lease, and says why.
    pub async fn ended(&self, mut lease: Lease, caller: Arc<Caller>) -> ErrorBody {
        loop {
            let is_let_go = lease.changes.changed().await.is_err();
            // A daemon that stops cuts off what streams in its own time.
            if self.0.mailbox.is_closed() {
                return std::future::pending().await;
            }
            match self.may_go_on(&lease.grant, &caller).await {
                Err(error) => return error,
                // It is logged in again already; this was for the login before.
                Ok(()) if is_let_go => return logged_out(&lease.grant),
                Ok(()) => {}
            }
        }
    }

    /// Whether `caller` would be served a token of this grant now, without a question.
    pub(super) async fn may_go_on(&self, grant: &GrantName, caller: &Arc<Caller>) -> Result<(), ErrorBody> {
        let (grant, caller) = (grant.clone(), caller.clone());
        self.ask(|core, reply| core.may_go_on(grant, caller, reply)).await
    }
}

impl Core {
    fn may_go_on(&mut self, grant: GrantName, caller: Arc<Caller>, reply: Reply<()>) {
        if !self.policy.closes(&grant) {
            return answer(reply, self.is_there(&grant));
        }
        self.task(async move { caller.who().await }, move |core, who| {
            let who = who.ok_or_else(nobody_told);
            answer(reply, core.is_there(&grant).and_then(|()| core.judge_again(&grant, &who?)));
        });
    }

    fn is_there(&self, grant: &GrantName) -> Result<(), ErrorBody> {
        if !self.gate.is_open() {
            return Err(self.locked());
        }
        if self.set_aside.contains(grant) {
            return Err(Self::aside(grant));
        }
        self.grants.get(grant).map(|_| ()).ok_or_else(|| logged_out(grant))
    }
}

fn logged_out(grant: &GrantName) -> ErrorBody {
    ErrorBody::new(ErrorCode::AccessDenied, format!("`{grant}` was logged out meanwhile")).hint(format!("mcp-authctl login {grant}"))
}

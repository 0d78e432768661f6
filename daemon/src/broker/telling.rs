//! What the broker tells of those who ask: refusals, each in the audit and few in the events, and the page of `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{GrantName, event};

use super::Reply;
use super::core::{Core, answer};
use crate::audit::Note;
use crate::caller::Caller;
use crate::clock::{Boot, Wall};
use crate::metrics::Gauges;
use crate::oauth::text::clean;
use crate::policy::Who;

/// A refusal is told again after this time: a program that does not give up fills no log.
const APART: Duration = Duration::from_secs(60);

/// When a refusal was told last, by grant.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<Option<GrantName>, Boot>);

impl Core {
    /// A caller was refused the request that `route` names; `None`: a token, by the policy, which has told so.
    pub(super) fn denied(&mut self, caller: &Arc<Caller>, route: Option<&str>, asked: Option<&wire::TokenRequest>) {
        // A name that is none of ours is not repeated.
        let grant = asked.and_then(|request| self.find(request).ok());
        let mut note = Note::of(event::DENIED);
        note = grant.iter().fold(note, Note::grant);
        note = route.into_iter().fold(note, Note::about);
        self.metrics.denials += 1;
        self.audit.note_by(caller, note);
        if route.is_none() {
            return;
        }
        let now = self.now().boot;
        if self.told.0.get(&grant).is_some_and(|last| now.since(*last) < APART) {
            return;
        }
        self.told.0.insert(grant.clone(), now);
        let caller = caller.clone();
        self.task(async move { caller.who().await }, move |core, who| {
            core.announce(event::DENIED, grant, who.as_ref().map(named));
        });
    }

    pub(super) fn metrics_page(&mut self, connections: usize, reply: Reply<String>) {
        let now = self.now();
        let mut grants: BTreeMap<String, [usize; 4]> = BTreeMap::new();
        let mut not_durable = 0;
        for (name, grant) in &self.grants {
            let summary = grant.summary(now);
            let states = grants.entry(name.base().to_owned()).or_default();
            states[summary.state as usize] += 1;
            not_durable += usize::from(summary.not_durable);
        }
        let uptime = i64::try_from(now.boot.since(self.started).as_millis()).unwrap_or(i64::MAX);
        let gauges = Gauges {
            started: Wall(now.wall.0.saturating_sub(uptime)),
            vault_unlocked: self.gate.is_open(),
            audit_writable: self.audit.trouble().is_none(),
            not_durable,
            connections,
            grants,
        };
        answer(reply, Ok(self.metrics.page(&gauges)));
    }
}

/// A program in a sentence.
fn named(who: &Who) -> String {
    let path = who.program.as_ref().map(|program| program.script.as_ref().unwrap_or(&program.executable));
    let pid = who.peer.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    path.map_or_else(|| format!("a program{pid}"), |path| format!("{}{pid}", clean(&path.to_string_lossy())))
}

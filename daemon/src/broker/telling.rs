//! What the broker tells of those who ask: refusals, each in the audit and few in the events, and the page of `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{GrantName, event};

use super::Reply;
use super::core::{Core, answer};
use super::policy::named;
use crate::audit::Note;
use crate::caller::Caller;
use crate::clock::{Boot, Wall};
use crate::metrics::Gauges;

/// A refusal is told again after this time: a program that does not give up fills no log.
const APART: Duration = Duration::from_secs(60);
/// The most refusals that are told within that time. Those beyond are in the audit alone.
const MOST: usize = 256;

/// When a refusal was told last, by grant and program. Not by its sentence, which has the asker's words in it.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<(Option<GrantName>, String), Boot>);

impl Told {
    /// Whether it is to be told now.
    fn is_news(&mut self, grant: Option<&GrantName>, program: &str, now: Boot) -> bool {
        self.0.retain(|_, last| now.since(*last) < APART);
        let key = (grant.cloned(), program.to_owned());
        if self.0.len() >= MOST || self.0.contains_key(&key) {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

impl Core {
    /// A caller was refused the grant that it asked for, or the request that `route` names.
    pub(super) fn denied(&mut self, caller: &Arc<Caller>, route: Option<&str>, asked: Option<&wire::TokenRequest>, why: &str) {
        // A name that is none of ours is not repeated. Through a capability socket it means what it meant when that was opened.
        let meant = asked.and_then(|request| caller.only()?.meant(request.grant.as_deref()?)).cloned();
        let grant = meant.or_else(|| asked.and_then(|request| self.find(request).ok()));
        let mut note = Note::of(event::DENIED);
        note = grant.iter().fold(note, Note::grant);
        note = route.into_iter().fold(note, Note::about);
        self.metrics.denials += 1;
        self.audit.note_by(caller, note);
        let (caller, why) = (caller.clone(), why.to_owned());
        self.task(async move { caller.who().await }, move |core, who| {
            let now = core.now().boot;
            let program = who.as_ref().map_or_else(|| "a program".into(), named);
            if core.told.is_news(grant.as_ref(), &program, now) {
                core.announce(event::DENIED, grant, Some(format!("{program}: {why}")));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once_a_minute_for_each_grant_and_program_and_a_crowd_fills_no_log() {
        let (mut told, at) = (Told::default(), |second| Boot::from_start(Duration::from_secs(second)));
        let github: GrantName = "github".parse().unwrap();
        assert!(told.is_news(Some(&github), "/a", at(0)) && !told.is_news(Some(&github), "/a", at(59)));
        assert!(told.is_news(Some(&github), "/b", at(1)) && told.is_news(None, "/a", at(1)));
        assert!(told.is_news(Some(&github), "/a", at(60)));
        let many = (0..1_000).filter(|number| told.is_news(None, &format!("/tmp/{number}"), at(200))).count();
        assert_eq!(many, MOST);
        assert!(told.is_news(Some(&github), "/a", at(260)));
    }
}

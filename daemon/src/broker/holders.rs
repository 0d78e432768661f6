//! Who keeps a token for its whole life, such as a program that `exec` started: it cannot be given another. Where a
//! refresh ends the token before it, such a program must not lose its token without need.
//!
//! What is known here is in RAM only, and looked at when somebody asks: nobody is woken because a program ended.

use std::collections::BTreeMap;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};

use super::core::Core;
use super::tokens::ends_account;
use crate::clock::{Boot, Now};
use crate::grant::Grant;
use crate::oauth::text::clean;
use crate::platform::Process;

/// The most holders that are remembered: each costs a file descriptor.
const MOST: usize = 256;
/// The longest name of a program that is kept, in characters.
const LONGEST_NAME: usize = 40;

/// A program that asks for a token to keep it.
#[derive(Debug)]
pub(super) struct Keeper {
    program: String,
    process: Process,
}

impl Keeper {
    /// Whoever asks, if it says that it keeps the token and the system shows its process.
    pub(super) fn of(request: &wire::TokenRequest, pid: Option<u32>) -> Option<Self> {
        let told: String = clean(request.holder.as_deref()?).chars().take(LONGEST_NAME).collect();
        let program = if told.is_empty() { "a program".to_owned() } else { told };
        Some(Self { program, process: Process::find(pid?)? })
    }
}

/// Every program that keeps a token.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<GrantName, Vec<Holding>>);

#[derive(Debug)]
struct Holding {
    keeper: Keeper,
    /// The token's fingerprint.
    token: String,
    /// When it stops working, as the program was told.
    until: Option<Boot>,
    /// A refresh has ended it.
    ended: bool,
}

impl Holders {
    fn add(&mut self, name: &GrantName, holding: Holding) {
        for held in self.0.values_mut() {
            held.retain(|other| other.keeper.process.is_alive());
        }
        self.0.retain(|_, held| !held.is_empty());
        if self.0.values().map(Vec::len).sum::<usize>() < MOST {
            let held = self.0.entry(name.clone()).or_default();
            held.retain(|other| other.keeper.process.pid() != holding.keeper.process.pid());
            held.push(holding);
        }
    }

    /// The grant's tokens are no more.
    pub(super) fn forget(&mut self, name: &GrantName) {
        self.0.remove(name);
    }

    fn of(&self, name: &GrantName) -> impl Iterator<Item = &Holding> {
        self.0.get(name).into_iter().flatten().filter(|holding| holding.keeper.process.is_alive())
    }
}

impl Core {
    /// A program has got the present token, good for so many seconds, and keeps it.
    pub(super) fn hold(&mut self, name: &GrantName, keeper: Keeper, expires_in: Option<u64>) {
        let Some(token) = self.grants.get(name).map(|grant| grant.record().token.access_token.fingerprint()) else { return };
        let now = self.now().boot;
        let until = expires_in.map(|seconds| now + std::time::Duration::from_secs(seconds));
        self.holders.add(name, Holding { keeper, token, until, ended: false });
    }

    /// A refresh has replaced a grant's token.
    pub(super) fn replaced(&mut self, name: &GrantName) {
        let Some(grant) = self.grants.get(name).filter(|grant| grant.refreshes_end_tokens()) else { return };
        let present = grant.record().token.access_token.fingerprint();
        let held = self.holders.0.get_mut(name).into_iter().flatten();
        for holding in held.filter(|holding| holding.token != present && !holding.ended) {
            holding.ended = true;
            if holding.keeper.process.is_alive() {
                let (program, pid) = (&holding.keeper.program, holding.keeper.process.pid());
                tracing::warn!(grant = %name, "{program} (process {pid}) holds a token that this refresh has ended; restart it");
            }
        }
    }

    /// The living programs that a refresh which is not due would take a token from that works.
    pub(super) fn keepers(&self, name: &GrantName) -> Vec<String> {
        let now = self.now();
        let Some(grant) = self.grants.get(name).filter(|grant| grant.refresh_ends_token(now)) else { return Vec::new() };
        // Most grants are held by nobody, and a fingerprint costs more than a look.
        let mut held = self.holders.of(name).peekable();
        if held.peek().is_none() {
            return Vec::new();
        }
        let present = grant.record().token.access_token.fingerprint();
        let shown = |holding: &Holding| format!("{} (process {})", holding.keeper.program, holding.keeper.process.pid());
        held.filter(|holding| holding.token == present).map(shown).collect()
    }

    /// Why a refresh by hand is not started without force.
    pub(super) fn kept(&self, name: &GrantName) -> Option<ErrorBody> {
        let keepers = self.keepers(name);
        let sentence = format!("a refresh of `{name}` would end the token that is kept by {}", listed(&keepers)?);
        Some(ErrorBody::new(ErrorCode::Conflict, sentence).hint(format!("mcp-authctl refresh {name} --force, then restart what kept it")))
    }

    /// A grant as people see it: with who keeps its tokens, how far its end would reach, whether its provider's bare name
    /// stands for it, and whether a rule closes it.
    pub(super) fn summary(&self, grant: &Grant, now: Now) -> wire::GrantSummary {
        let mut summary = grant.summary(now);
        let shown = |holding: &Holding| wire::Holder {
            program: holding.keeper.program.clone(),
            pid: holding.keeper.process.pid(),
            current: summary.fingerprint.as_ref() == Some(&holding.token),
            expires_in: if holding.ended { Some(0) } else { holding.until.map(|until| until.since(now.boot).as_secs()) },
        };
        summary.default = self.is_default(&summary.name);
        summary.closed = self.policy.closes(&summary.name);
        summary.holders = self.holders.of(&summary.name).map(shown).collect();
        let definition = &grant.record().definition;
        let provider = self.provider_of(definition).filter(|_| !definition.is_static());
        summary.revokes_account = provider.is_some_and(|provider| ends_account(&provider.quirks));
        summary
    }
}

/// `a`, `a and b`, or `a, b and 3 more`; nothing when there are none.
fn listed(names: &[String]) -> Option<String> {
    match names {
        [] => None,
        [one] => Some(one.clone()),
        [one, other] => Some(format!("{one} and {other}")),
        [one, other, more @ ..] => Some(format!("{one}, {other} and {} more", more.len())),
    }
}

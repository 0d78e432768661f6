//! Thirty kinds of replies that a refresh can get while the old access token is still valid: those of our own T23.

use std::time::Duration;

use mcp_auth_tests::rogue::Plan;

use crate::answers::{ODD, USELESS};

/// A kind of reply.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Whether the tokens rotate with it. Where the answer leaves the new refresh token out, the old one stays good.
    pub(super) rotate: bool,
    pub(super) plan: Plan,
}

/// Every kind.
pub(super) fn kinds() -> Vec<Kind> {
    let useless = USELESS.iter().map(|kind| Kind { name: kind.name, rotate: true, plan: (kind.plan)() });
    let odd = ODD.iter().map(|kind| Kind { name: kind.name, rotate: kind.rotates(), plan: Plan::edited(kind.edit) });
    useless.chain(odd).collect()
}

/// How long the tokens of these rounds live.
pub(super) const LIFETIME: Duration = Duration::from_secs(3600);

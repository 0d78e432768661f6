//! Askers: who is answered at once, who waits and for how long, and what a client's rejection of a token sets off.

use super::{
    Asker, Cause, Effect, FORCED_AGE, FORCED_GAP, Grant, MANUAL_GAP, News, Phase, Purpose, Ticket, Verdict, WAIT_EXPIRED, WAIT_EXPLICIT,
    WAIT_UNEXPIRED, Waiter, Want,
};
use crate::clock::Now;
use crate::secret::AccessToken;

impl Grant {
    pub(super) fn wanted(&mut self, asker: Asker, want: Want, now: Now) -> Vec<Effect> {
        if self.terms.is_none() {
            return vec![Effect::Reply(asker, Err(self.undefined()))];
        }
        if self.needs_login(now) && !self.is_servable(now) && !matches!(self.phase, Phase::Saving { .. }) {
            return vec![self.settled(asker, &Purpose::Token, now)];
        }
        if !want.scopes.is_empty() && !self.covers(&want.scopes) {
            return vec![Effect::Reply(asker, Err(self.insufficient_scope(&want.scopes)))];
        }
        self.current.asked = true;
        if let Some(rejected) = &want.rejected
            && let Some(effects) = self.rejected(asker, rejected, now)
        {
            return effects;
        }
        if self.is_usable(want.min_valid_for, now) {
            return vec![Effect::Reply(asker, Ok(self.answer(now)))];
        }
        let explicit = want.min_valid_for.is_some();
        self.wait_or_settle(asker, Purpose::Token, explicit, now)
    }

    pub(super) fn refresh_wanted(&mut self, asker: Asker, now: Now) -> Vec<Effect> {
        let refused = if self.terms.is_none() {
            Some(self.undefined())
        } else if self.record.ended.is_some() {
            Some(self.login_required())
        } else if !self.record.is_renewable() {
            Some(self.not_refreshable())
        } else if let Phase::Waiting { until, cause: Cause::RetryAfter, .. } = &self.phase
            && *until > now.boot
        {
            Some(self.unreachable(*until, now))
        } else if let Some(pause) = self.pause.as_ref().filter(|pause| pause.retry_after && pause.until > now.boot) {
            Some(self.unreachable(pause.until, now))
        } else {
            self.last_manual.filter(|last| now.boot < *last + MANUAL_GAP).map(|last| self.too_soon(last + MANUAL_GAP, now))
        };
        if let Some(error) = refused {
            return vec![Effect::Reply(asker, Err(error))];
        }
        self.last_manual = Some(now.boot);
        self.pause = None;
        // The confirming attempt keeps its distance from the first, whoever asks.
        if matches!(&self.phase, Phase::Waiting { cause, .. } if *cause != Cause::Confirm) {
            self.phase = Phase::Calm;
        }
        self.wait_or_settle(asker, Purpose::Refresh, true, now)
    }

    /// The asker has no usable token: it waits for the attempt that runs or starts now, or is settled at once.
    pub(super) fn wait_or_settle(&mut self, asker: Asker, purpose: Purpose, explicit: bool, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let confirming = matches!(self.phase, Phase::Waiting { cause: Cause::Confirm, .. });
        match &self.phase {
            Phase::Saving { .. } => {}
            Phase::Running(ticket) => effects.push(Effect::Hurry(*ticket)),
            Phase::Calm | Phase::Waiting { .. } if !self.may_refresh(now) || self.blocked_until(now, true).is_some() => {
                if !confirming || self.is_servable(now) {
                    effects.push(self.settled(asker, &purpose, now));
                    return effects;
                }
            }
            Phase::Calm | Phase::Waiting { .. } => effects.push(self.start(true, now)),
        }
        let patience = match (self.is_servable(now) && purpose == Purpose::Token, explicit) {
            (false, _) => WAIT_EXPIRED,
            (true, true) => WAIT_EXPLICIT,
            (true, false) => WAIT_UNEXPIRED,
        };
        self.waiters.push(Waiter { asker, deadline: now.boot + patience, at_last: now.boot + WAIT_EXPIRED, purpose });
        effects
    }

    /// The answer for someone who does not wait any longer: the old token while it lives, else why there is none.
    pub(super) fn settled(&self, asker: Asker, purpose: &Purpose, now: Now) -> Effect {
        let answer = if *purpose != Purpose::Refresh && self.is_servable(now) {
            Ok(self.answer(now))
        } else if self.terms.is_none() {
            Err(self.undefined())
        } else if self.needs_login(now) {
            Err(self.login_required())
        } else {
            Err(self.unreachable(self.blocked_until(now, true).unwrap_or(now.boot), now))
        };
        Effect::Reply(asker, answer)
    }

    /// A client says that a resource server rejected this token. Where only a probe can tell, the asker waits for it;
    /// else the question goes on as any other.
    pub(super) fn rejected(&mut self, asker: Asker, rejected: &AccessToken, now: Now) -> Option<Vec<Effect>> {
        if *rejected != self.record.token.access_token || self.current.rejected {
            return None;
        }
        if self.record.is_renewable() && self.record.ended.is_none() {
            let young = now.boot < self.current.issued + FORCED_AGE;
            let recent = self.last_forced.is_some_and(|last| now.boot < last + FORCED_GAP);
            if !young && !recent {
                self.last_forced = Some(now.boot);
                self.current.rejected = true;
            }
            return None;
        }
        if self.record.ended.is_some() {
            self.current.rejected = true;
            return None;
        }
        if self.terms.as_ref().is_some_and(|terms| terms.can_probe) {
            if self.probe.is_none() && self.last_forced.is_some_and(|last| now.boot < last + FORCED_GAP) {
                return None;
            }
            let deadline = now.boot + WAIT_EXPLICIT;
            self.waiters.push(Waiter { asker, deadline, at_last: deadline, purpose: Purpose::Probe });
            if self.probe.is_some() {
                return Some(Vec::new());
            }
            self.last_forced = Some(now.boot);
            let ticket = self.ticket();
            self.probe = Some(ticket);
            return Some(vec![Effect::Probe(ticket, self.record.token.access_token.clone())]);
        }
        match self.current.first_rejection {
            Some(first) if now.boot >= first + FORCED_GAP => {
                self.current.rejected = true;
                let required = self.login_required();
                return Some(vec![Effect::Tell(News::LoginRequired(self.reason())), Effect::Reply(asker, Err(required))]);
            }
            Some(_) => {}
            None => self.current.first_rejection = Some(now.boot),
        }
        None
    }

    pub(super) fn probed(&mut self, ticket: Ticket, verdict: Verdict, now: Now) -> Vec<Effect> {
        if self.probe != Some(ticket) {
            return Vec::new();
        }
        self.probe = None;
        let mut effects = Vec::new();
        if verdict == Verdict::Rejected && !self.current.rejected {
            self.current.rejected = true;
            effects.push(Effect::Tell(News::LoginRequired(self.reason())));
        }
        let (asking, others) = std::mem::take(&mut self.waiters).into_iter().partition(|w| w.purpose == Purpose::Probe);
        self.waiters = others;
        effects.extend(asking.into_iter().map(|w: Waiter| self.settled(w.asker, &w.purpose, now)));
        effects
    }
}

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
        let spared = want.held && self.refresh_ends_token(now);
        if let Some(rejected) = &want.rejected
            && let Some(effects) = self.rejected(asker, rejected, spared, now)
        {
            return effects;
        }
        let at_least = want.min_valid_for.filter(|_| !spared);
        if self.is_usable(at_least, now) {
            return vec![Effect::Reply(asker, Ok(self.answer(now)))];
        }
        self.wait_or_settle(asker, Purpose::Token, at_least.is_some(), now)
    }

    /// Whether the provider ends the token before with each refresh.
    pub fn refreshes_end_tokens(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.refresh_invalidates_access_token)
    }

    /// Whether a refresh that started now would end a token that works.
    pub fn refresh_ends_token(&self, now: Now) -> bool {
        let under_way = matches!(self.phase, Phase::Running(_) | Phase::Saving { .. });
        self.refreshes_end_tokens() && self.is_refreshable() && !under_way && !self.current.rejected && self.is_servable(now)
    }

    /// Whether a new token can be had without a person.
    pub(super) fn is_refreshable(&self) -> bool {
        self.record.is_renewable() && self.record.ended.is_none()
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
            // Whoever joins an attempt that is under way sends nothing.
            let joins = matches!(self.phase, Phase::Running(_) | Phase::Saving { .. });
            let last = self.last_manual.filter(|last| !joins && now.boot < *last + MANUAL_GAP);
            last.map(|last| self.too_soon(last + MANUAL_GAP, now))
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
    /// else the question goes on as any other. `spared`: a program holds the token, and a client's word does not end it.
    pub(super) fn rejected(&mut self, asker: Asker, rejected: &AccessToken, spared: bool, now: Now) -> Option<Vec<Effect>> {
        if *rejected != self.record.token.access_token || self.current.rejected {
            return None;
        }
        let can_probe = self.terms.as_ref().is_some_and(|terms| terms.can_probe);
        let recent = self.last_forced.is_some_and(|last| now.boot < last + FORCED_GAP);
        if self.is_refreshable() {
            let too_soon = recent || now.boot < self.current.issued + FORCED_AGE;
            if spared {
                let may_probe = can_probe && (self.probe.is_some() || !too_soon);
                return may_probe.then(|| self.wait_for_probe(asker, now));
            }
            if !too_soon {
                self.last_forced = Some(now.boot);
                self.current.rejected = true;
            }
            return None;
        }
        if self.record.ended.is_some() {
            self.current.rejected = true;
            return None;
        }
        if can_probe {
            return (self.probe.is_some() || !recent).then(|| self.wait_for_probe(asker, now));
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

    fn wait_for_probe(&mut self, asker: Asker, now: Now) -> Vec<Effect> {
        let (deadline, at_last) = (now.boot + WAIT_EXPLICIT, now.boot + WAIT_EXPIRED);
        self.waiters.push(Waiter { asker, deadline, at_last, purpose: Purpose::Probe });
        if self.probe.is_some() {
            return Vec::new();
        }
        self.last_forced = Some(now.boot);
        let ticket = self.ticket();
        self.probe = Some(ticket);
        vec![Effect::Probe(ticket, self.record.token.access_token.clone())]
    }

    pub(super) fn probed(&mut self, ticket: Ticket, verdict: Verdict, now: Now) -> Vec<Effect> {
        if self.probe != Some(ticket) {
            return Vec::new();
        }
        self.probe = None;
        let mut effects = Vec::new();
        let dead = verdict == Verdict::Rejected && !self.current.rejected;
        if dead {
            self.current.rejected = true;
            if !self.is_refreshable() {
                effects.push(Effect::Tell(News::LoginRequired(self.reason())));
            }
        }
        let (asking, others): (Vec<_>, _) = std::mem::take(&mut self.waiters).into_iter().partition(|w| w.purpose == Purpose::Probe);
        self.waiters = others;
        for Waiter { asker, purpose, at_last, .. } in asking {
            if dead && self.is_refreshable() {
                effects.extend(self.wait_or_settle(asker, Purpose::Token, false, now));
                // It has waited for the probe already.
                if let Some(waiter) = self.waiters.last_mut().filter(|waiter| waiter.asker == asker) {
                    (waiter.deadline, waiter.at_last) = (waiter.deadline.min(at_last), at_last);
                }
            } else {
                effects.push(self.settled(asker, &purpose, now));
            }
        }
        effects
    }
}

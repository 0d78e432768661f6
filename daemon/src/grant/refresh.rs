//! Refreshes: starting one, what every outcome means, and how a grant ends.

use std::time::Duration;

use super::record::Ended;
use super::{
    ASSERTION_RETRY, Arrival, Attempt, AttemptError, Cause, EXPIRED_ON_ARRIVAL, Effect, Grant, News, OVERDUE_TRIES, Phase, Purpose,
    REFUSED_RETRY, SAVE_RETRY, Ticket, Waiter, plan,
};
use crate::clock::{Boot, Now};
use crate::oauth::token::{TokenError, TokenResponse};

impl Grant {
    pub(super) fn start(&mut self, urgent: bool, now: Now) -> Effect {
        let ticket = self.ticket();
        self.phase = Phase::Running(ticket);
        Effect::Refresh(Attempt {
            ticket,
            refresh_token: self.record.refresh_token.clone(),
            generation: self.record.generation,
            urgent,
            even_if_not_durable: !self.is_servable(now),
        })
    }

    pub(super) fn refreshed(&mut self, ticket: Ticket, sent_at: Now, result: Result<TokenResponse, AttemptError>, now: Now) -> Vec<Effect> {
        if !matches!(self.phase, Phase::Running(running) if running == ticket) {
            return Vec::new();
        }
        match result {
            Ok(mut response) => {
                if response.lifetime.is_some_and(|lifetime| sent_at.boot + lifetime <= now.boot) {
                    // The token before may still be good: this answer counts for its new refresh token only.
                    response.unusable.get_or_insert_with(|| EXPIRED_ON_ARRIVAL.into());
                    response.scopes = None;
                }
                let mut record = self.record.clone();
                let cause = response.unusable.clone().map_or(Arrival::Refresh, Arrival::HalfRefresh);
                record.merge(response, sent_at);
                if cause == Arrival::Refresh {
                    record.refreshed_at = Some(now.wall);
                }
                self.save_then_serve(record, sent_at, cause, now)
            }
            Err(AttemptError::Provider(error)) => self.failed(error, now),
            Err(AttemptError::NotDurable(reason)) => {
                self.trouble.error = Some(reason);
                // It has expired meanwhile: now it goes on without the disk.
                if !self.is_servable(now) {
                    let urgent = !self.waiters.is_empty();
                    return vec![self.start(urgent, now)];
                }
                let retry = now.boot + plan::backoff(1, self.random.f64()).max(SAVE_RETRY.0);
                let until = self.current.deadline.map_or(retry, |deadline| retry.min(deadline));
                self.wait(until, Cause::Transient, now)
            }
            Err(AttemptError::Stopping) => {
                self.trouble.error = Some("the daemon is stopping, or being locked".into());
                let until = now.boot + plan::backoff(1, self.random.f64());
                self.wait(until, Cause::Transient, now)
            }
            Err(AttemptError::NoCredentials(reason)) => {
                self.trouble.error = Some(reason);
                self.trouble.failures += 1;
                let until = now.boot + plan::backoff(self.trouble.failures, self.random.f64());
                self.wait(until, Cause::Refused, now)
            }
        }
    }

    pub(super) fn failed(&mut self, error: TokenError, now: Now) -> Vec<Effect> {
        self.trouble.error = Some(self.complaint_about(&error, now));
        let random = self.random.f64();
        let asserts = self.record.definition.assertion.is_some() && self.record.refresh_token.is_none();
        let refused = if asserts { ASSERTION_RETRY } else { REFUSED_RETRY }.mul_f64(1.0 - 0.1 * random);
        // Servers have other words than `invalid_grant`, too, for a refresh token that has outlived its time.
        let outlived = matches!(error, TokenError::Unusable(_)) && self.overdue_since(now).is_some();
        self.trouble.overdue += u32::from(outlived);
        if self.trouble.overdue >= OVERDUE_TRIES {
            return self.end(now);
        }
        let (after, cause) = match error {
            // The refresh token has ended; what the first token was got with has not.
            TokenError::InvalidGrant(_) if self.record.refresh_token.is_some() && self.record.definition.renews_itself() => {
                self.record.refresh_token = None;
                self.record.refresh_token_life = None;
                self.look_for_the_end(now);
                let urgent = !self.waiters.is_empty();
                return vec![self.start(urgent, now)];
            }
            // Its credentials are all that such a client has: there is no grant that could have ended.
            TokenError::InvalidGrant(_) if self.record.definition.renews_itself() => (refused, Cause::Refused),
            TokenError::InvalidGrant(_) => {
                self.trouble.rejections += 1;
                if self.trouble.rejections >= 2 {
                    return self.end(now);
                }
                (Duration::from_secs(2) + Duration::from_secs(8).mul_f64(random), Cause::Confirm)
            }
            TokenError::Refused { .. } => (refused, Cause::Refused),
            TokenError::Unusable(_) if outlived => (refused, Cause::Refused),
            TokenError::Lost(_) if !self.trouble.ambiguous && self.terms.is_some() => {
                self.trouble.ambiguous = true;
                let urgent = !self.waiters.is_empty();
                return vec![self.start(urgent, now)];
            }
            TokenError::Overloaded { retry_after: Some(after), .. } => (after.max(plan::backoff(self.raise(), random)), Cause::RetryAfter),
            TokenError::NotSent(_) => (plan::backoff(self.raise(), random), Cause::NotSent),
            TokenError::Overloaded { .. } | TokenError::Lost(_) | TokenError::Unusable(_) => {
                (plan::backoff(self.raise(), random), Cause::Transient)
            }
        };
        self.wait(now.boot + after, cause, now)
    }

    /// What is wrong, as it is shown; where the refresh token has outlived its time, the provider's answer is put down to that.
    fn complaint_about(&self, error: &TokenError, now: Now) -> String {
        let answered = matches!(error, TokenError::InvalidGrant(_) | TokenError::Refused { .. } | TokenError::Unusable(_));
        match self.overdue_since(now).filter(|_| answered) {
            Some(end) => format!("its refresh token ended at {}, and {error}", end.rfc3339()),
            None => error.to_string(),
        }
    }

    pub(super) fn raise(&mut self) -> u32 {
        self.trouble.failures = self.trouble.failures.saturating_add(1);
        self.trouble.failures
    }

    /// Rests until `until`; askers are settled, but those who wait for the confirming attempt with nothing to fall back on.
    pub(super) fn wait(&mut self, until: Boot, cause: Cause, now: Now) -> Vec<Effect> {
        let confirming = cause == Cause::Confirm && !self.is_servable(now);
        self.phase = Phase::Waiting { since: now.boot, until, cause };
        let mut effects = vec![Effect::Tell(News::RefreshFailed(self.reason()))];
        if !confirming {
            effects.extend(self.settle_waiters(now));
        }
        effects
    }

    pub(super) fn end(&mut self, now: Now) -> Vec<Effect> {
        self.record.ended = Some(Ended { at: now.wall, reason: self.reason_of_the_end() });
        self.ending = None;
        self.phase = Phase::Calm;
        let mut effects = vec![Effect::Tell(News::LoginRequired(self.reason()))];
        effects.extend(self.settle_waiters(now));
        // Marking a grant dead is not urgent: a failure only means that the provider is asked again after a restart.
        self.record.generation += 1;
        effects.push(self.save_in_background(now));
        effects
    }

    pub(super) fn settle_waiters(&mut self, now: Now) -> Vec<Effect> {
        let (probing, others) = std::mem::take(&mut self.waiters).into_iter().partition(|w| w.purpose == Purpose::Probe);
        self.waiters = probing;
        others.into_iter().map(|w: Waiter| self.settled(w.asker, &w.purpose, now)).collect()
    }

    pub(super) fn forget_unreachable(&mut self, now: Now) {
        if self.pause.as_ref().is_some_and(|pause| pause.not_sent) {
            self.pause = None;
        }
        if let Phase::Waiting { until, cause: Cause::NotSent, .. } = &mut self.phase {
            *until = now.boot;
            self.trouble.failures = 0;
        }
    }
}

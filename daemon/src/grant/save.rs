//! Saving: new tokens go to the disk first and are served then, and what happens where the disk refuses.

use super::record::{GrantRecord, RefreshTokenLife, Token};
use super::{
    Arrival, Cause, Current, EXPIRED_ON_ARRIVAL, Effect, Grant, Login, News, Phase, Purpose, SAVE_PATIENCE, SAVE_RETRY, Ticket, Trouble,
    Unsaved, plan,
};
use crate::clock::Now;
use crate::oauth::token::TokenResponse;
use crate::secret::IdToken;

impl Grant {
    pub(super) fn login(&mut self, login: Login, now: Now) -> Vec<Effect> {
        let mut record = self.newest().clone();
        record.definition = login.definition;
        record.account = login.account;
        record.subject = login.subject;
        record.resource = login.resource;
        record.scopes.clone_from(&login.requested_scopes);
        record.requested_scopes = login.requested_scopes;
        record.refresh_token = None;
        record.refresh_token_life = None;
        record.proof_key = login.proof_key;
        record.id_token = None;
        record.ended = None;
        record.refreshed_at = None;
        record.logged_in_at = login.sent_at.wall;
        record.merge(login.response, login.sent_at);
        if self.terms.is_none() {
            // The terms that come now are not those of the token before: it is served no more, saved or not.
            self.current.deadline = Some(now.boot);
        }
        self.terms = Some(login.terms);
        self.pause = None;
        self.trouble = Trouble::default();
        self.save_then_serve(record, login.sent_at, Arrival::Login, now)
    }

    pub(super) fn save_then_serve(&mut self, mut record: GrantRecord, sent_at: Now, cause: Arrival, now: Now) -> Vec<Effect> {
        record.generation = self.newest().generation + 1;
        let current = match &cause {
            Arrival::HalfRefresh(_) => self.current.clone(),
            Arrival::Login | Arrival::Refresh => Current::fresh(&record.token, sent_at.boot, &self.terms, &mut self.random),
        };
        let ticket = self.ticket();
        let record = Box::new(record);
        self.phase = Phase::Saving { ticket, record: record.clone(), current, give_up: now.boot + SAVE_PATIENCE, cause };
        vec![Effect::Save(ticket, record)]
    }

    pub(super) fn save_in_background(&mut self, now: Now) -> Effect {
        let ticket = self.ticket();
        self.unsaved = Some(Unsaved { in_flight: Some(ticket), retry_at: now.boot, delay: SAVE_RETRY.0 });
        Effect::Save(ticket, Box::new(self.record.clone()))
    }

    pub(super) fn saved(&mut self, ticket: Ticket, result: Result<(), String>, now: Now) -> Vec<Effect> {
        if matches!(&self.phase, Phase::Saving { ticket: saving, .. } if *saving == ticket) {
            return match result {
                Ok(()) => {
                    let healed = self.unsaved.is_some();
                    let mut effects = self.adopt(now);
                    if healed {
                        effects.insert(0, Effect::Tell(News::Durable));
                    }
                    effects
                }
                Err(reason) => self.adopt_in_ram(None, reason, now),
            };
        }
        let Some(unsaved) = self.unsaved.as_mut().filter(|unsaved| unsaved.in_flight == Some(ticket)) else {
            return Vec::new();
        };
        match result {
            Ok(()) => {
                self.unsaved = None;
                vec![Effect::Tell(News::Durable)]
            }
            Err(_) => {
                unsaved.in_flight = None;
                unsaved.retry_at = now.boot + unsaved.delay;
                unsaved.delay = (unsaved.delay * 2).min(SAVE_RETRY.1);
                Vec::new()
            }
        }
    }

    /// An older record must not be written after a newer one, nor twice at once.
    pub(super) fn may_save_again(&self) -> bool {
        let saving = matches!(self.phase, Phase::Saving { .. });
        !saving && self.unsaved.as_ref().is_some_and(|unsaved| unsaved.in_flight.is_none())
    }

    /// The disk refused, or has not answered in time: the one case where a token is served before it is saved.
    pub(super) fn adopt_in_ram(&mut self, in_flight: Option<Ticket>, reason: String, now: Now) -> Vec<Effect> {
        let mut effects = self.adopt(now);
        self.unsaved = Some(Unsaved { in_flight, retry_at: now.boot + SAVE_RETRY.0, delay: SAVE_RETRY.0 * 2 });
        effects.insert(0, Effect::Tell(News::NotDurable(reason)));
        effects
    }

    /// The new record becomes the present one, and whoever waits is answered.
    pub(super) fn adopt(&mut self, now: Now) -> Vec<Effect> {
        let Phase::Saving { record, current, cause, .. } = std::mem::replace(&mut self.phase, Phase::Calm) else {
            return Vec::new();
        };
        self.record = *record;
        self.current = current;
        self.unsaved = None;
        self.look_for_the_end(now);
        // A verdict on the token before says nothing of this one.
        self.probe = None;
        let expired_on_arrival = self.current.deadline.is_some_and(|deadline| deadline <= now.boot);
        let fault = match &cause {
            Arrival::HalfRefresh(fault) => Some(fault.clone()),
            Arrival::Refresh if expired_on_arrival => Some(EXPIRED_ON_ARRIVAL.into()),
            Arrival::Login | Arrival::Refresh => None,
        };
        if fault.is_some() && self.record.is_renewable() {
            self.trouble.rejections = 0;
            self.trouble.ambiguous = false;
            self.trouble.error = fault;
            let until = now.boot + plan::backoff(self.raise(), self.random.f64());
            return self.wait(until, Cause::Transient, now);
        }
        self.trouble = Trouble::default();
        self.pause = None;
        let news = if cause == Arrival::Login { News::LoggedIn } else { News::Refreshed };
        let mut effects = vec![Effect::Tell(news)];
        effects.extend(std::mem::take(&mut self.waiters).into_iter().map(|waiter| {
            let purpose = if expired_on_arrival { waiter.purpose } else { Purpose::Token };
            self.settled(waiter.asker, &purpose, now)
        }));
        effects
    }
}

impl GrantRecord {
    /// Merges an answer: what it does not say stays as it was.
    pub(crate) fn merge(&mut self, response: TokenResponse, sent_at: Now) {
        if response.unusable.is_none() {
            self.token = Token {
                access_token: response.access_token,
                token_type: response.token_type,
                issued_at: sent_at.wall,
                lifetime: response.lifetime,
            };
        }
        // What a client gets for itself needs none (RFC 6749 section 4.4.3).
        if let Some(refresh_token) = response.refresh_token.filter(|_| !self.definition.client_credentials) {
            self.refresh_token = Some(refresh_token);
        }
        if let Some(id_token) = response.id_token.filter(|_| !self.definition.is_unattended()) {
            self.id_token = Some(IdToken::new(id_token.expose().to_owned()));
        }
        if let Some(told) = response.refresh_token_lifetime {
            self.refresh_token_life = Some(RefreshTokenLife::told(told, sent_at.wall, self.refresh_token_life));
        }
        if let Some(scopes) = response.scopes {
            self.scopes = scopes;
        }
    }
}

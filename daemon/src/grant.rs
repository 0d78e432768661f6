//! PURE: the life of one grant. [`Grant::handle`] takes an [`Input`] and the time and gives [`Effect`]s; [`Grant::wake_at`]
//! says when it wants [`Input::Woke`]. No IO, no clock, no lock: the broker carries out the effects.
//!
//! The rules: at most one refresh in flight; what comes back is saved before it is served; whoever has a usable token
//! never waits; only the provider's word, said twice, ends a grant; a late answer of an old attempt changes nothing.

mod answer;
mod ask;
mod ending;
#[cfg(test)]
mod history;
pub(crate) mod mcp;
mod plan;
pub mod record;
mod refresh;
#[cfg(test)]
mod rules;
mod save;

use std::time::Duration;

use mcp_auth_proto::{ErrorBody, TokenAnswer};

use crate::clock::{Boot, Now};
use crate::oauth::token::{TokenError, TokenResponse};
use crate::secret::{AccessToken, ProofKey, RefreshToken};
pub(crate) use answer::shown;
use ending::Ending;
pub(crate) use plan::backoff;
use record::{Definition, GrantRecord, Token};

/// How long a save may take before the new token is served from RAM.
const SAVE_PATIENCE: Duration = Duration::from_secs(5);
/// How long an asker waits who has nothing to fall back on.
const WAIT_EXPIRED: Duration = Duration::from_secs(30);
/// How long an asker waits who could be given the old token, without and with an explicit `min_valid_for`.
const WAIT_UNEXPIRED: Duration = Duration::from_secs(2);
const WAIT_EXPLICIT: Duration = Duration::from_secs(15);
/// A provider that was not reached is tried again this soon while somebody asks.
const NOT_SENT_CAP: Duration = Duration::from_secs(15);
/// A problem with the client or its consent is tried again hourly.
const REFUSED_RETRY: Duration = Duration::from_secs(3600);
/// So often in a row a refresh token that has outlived its time may be answered without a clear word, hour by hour.
const OVERDUE_TRIES: u32 = 24;
/// An assertion that was refused is tried again so soon: its file may have a new one by now.
const ASSERTION_RETRY: Duration = Duration::from_secs(60);
/// Between two refreshes that a person asked for.
const MANUAL_GAP: Duration = Duration::from_secs(10);
/// Between two refreshes that a rejection caused, and after the token's issue.
const FORCED_GAP: Duration = Duration::from_secs(60);
const FORCED_AGE: Duration = Duration::from_secs(10);
/// A token of unknown lifetime is planned as if it lived this long if somebody asked for it, and else this long.
const UNKNOWN_ASKED: Duration = Duration::from_secs(3600);
const UNKNOWN_IDLE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A save that failed is tried again after this, doubling.
const SAVE_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What is wrong with an answer whose token has no life left.
const EXPIRED_ON_ARRIVAL: &str = "the provider's new token was expired on arrival";

/// Who asked; unique within the daemon.
pub type Asker = u64;
/// Names an attempt, a save or a probe; unique within the daemon.
pub type Ticket = u64;

/// How a grant's refreshes go, as far as a person may have to hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is wrong.
    Well,
    /// Something is under way that will tell.
    Busy,
    /// The provider could not be reached.
    Unreached,
    /// The provider was reached, or may have been, and gave no token.
    Failing,
    /// Only a person can help.
    LoginNeeded,
    /// The config no longer has its provider as it was.
    Undefined,
}

/// What an asker wants.
#[derive(Clone, Debug, Default)]
pub struct Want {
    /// What must remain of the token.
    pub min_valid_for: Option<Duration>,
    /// Scopes that it must cover.
    pub scopes: Vec<String>,
    /// The token that a resource server rejected.
    pub rejected: Option<AccessToken>,
    /// Somebody keeps the present token for its whole life, and a refresh that is not due must not end it.
    pub held: bool,
}

/// What the provider's present definition says about the grant. Not in the record: config may change it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// A refresh invalidates the access token before it.
    pub refresh_invalidates_access_token: bool,
    /// Refreshed ahead of expiry, asked for or not.
    pub refresh_ahead: bool,
    /// A token whose lifetime is not known lives until it is rejected.
    pub never_expires: bool,
    /// How long a refresh token lives from the login on, where the provider does not tell.
    pub refresh_token_lifetime: Option<Duration>,
    /// How long it lives unused, where the provider does not tell.
    pub refresh_token_idle_lifetime: Option<Duration>,
    /// The provider has a place where a token can be tried (userinfo).
    pub can_probe: bool,
    /// Scopes that never count as missing.
    pub refresh_scopes: Vec<String>,
    /// How the next login is done.
    pub login: mcp::LoginKind,
}

/// A finished login.
#[derive(Debug)]
pub struct Login {
    /// The provider and client.
    pub definition: Definition,
    /// The provider's present terms.
    pub terms: Terms,
    /// The tokens.
    pub response: TokenResponse,
    /// The key that they are bound to (RFC 9449).
    pub proof_key: Option<ProofKey>,
    /// When the token request was sent.
    pub sent_at: Now,
    /// Who logged in, for people and for the provider.
    pub account: Option<String>,
    /// Who logged in, for the provider.
    pub subject: Option<String>,
    /// The resource indicator that was sent.
    pub resource: Option<String>,
    /// The scopes that were asked for.
    pub requested_scopes: Vec<String>,
}

/// Why an attempt brought no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptError {
    /// The provider or the network.
    Provider(TokenError),
    /// The intent could not be written, so nothing was sent.
    NotDurable(String),
    /// The client secret, or the assertion, is not to be had, so the provider was not asked.
    NoCredentials(String),
    /// The daemon is stopping, or being locked, and sends nothing any more.
    Stopping,
}

/// What a resource server says about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Alive,
    /// 401.
    Rejected,
    /// No telling.
    Unknown,
}

/// Everything that can happen to a grant.
#[derive(Debug)]
pub enum Input {
    /// Somebody asks for a token.
    Wanted(Asker, Want),
    /// A person asks for a refresh now.
    RefreshWanted(Asker),
    /// Somebody went away.
    Cancelled(Asker),
    /// A login brought new tokens.
    LoggedIn(Box<Login>),
    /// The grant is about to be forgotten.
    LoggedOut,
    /// The config was read: the grant's definition stands (with these terms), or not.
    Defined(Option<Terms>),
    /// An attempt ended. The time is when its request was sent.
    Refreshed(Ticket, Now, Result<TokenResponse, AttemptError>),
    /// A save ended.
    Saved(Ticket, Result<(), String>),
    /// A probe ended.
    Probed(Ticket, Verdict),
    /// The issuer does not answer; leave it alone until then.
    IssuerPaused {
        /// Until when.
        until: Boot,
        /// It was not even reached.
        not_sent: bool,
        /// It said so itself.
        retry_after: bool,
    },
    /// The issuer answered somebody well.
    IssuerRecovered,
    /// The machine was asleep, or its network changed.
    Resumed,
    /// The time of [`Grant::wake_at`] has come.
    Woke,
}

/// What the broker shall do.
#[derive(Debug)]
pub enum Effect {
    /// Send a refresh request.
    Refresh(Attempt),
    /// Somebody waits for this attempt now: start it before those that nobody waits for.
    Hurry(Ticket),
    /// Seal and replace the record.
    Save(Ticket, Box<GrantRecord>),
    /// Try the token at userinfo.
    Probe(Ticket, AccessToken),
    /// Answer an asker.
    Reply(Asker, Result<TokenAnswer, ErrorBody>),
    /// Tell the world.
    Tell(News),
}

/// One refresh.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its name.
    pub ticket: Ticket,
    /// What is sent. `None`: a new token is asked for as the first was, without a refresh token, and nothing is used up.
    pub refresh_token: Option<RefreshToken>,
    /// The generation of the record that holds it.
    pub generation: u64,
    /// Somebody waits for it.
    pub urgent: bool,
    /// The access token has expired: go on even if the intent cannot be written.
    pub even_if_not_durable: bool,
}

/// What is worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A login is done.
    LoggedIn,
    /// A refresh is done.
    Refreshed,
    /// A refresh failed.
    RefreshFailed(String),
    /// A person must log in.
    LoginRequired(String),
    /// A person should log in before the refresh token ends.
    RefreshTokenEnding(String),
    /// The newest tokens are in RAM only.
    NotDurable(String),
    /// They are on disk now.
    Durable,
}

/// One grant.
#[derive(Debug)]
pub struct Grant {
    record: GrantRecord,
    current: Current,
    terms: Option<Terms>,
    /// The end that the refresh token has by itself.
    ending: Option<Ending>,
    phase: Phase,
    trouble: Trouble,
    unsaved: Option<Unsaved>,
    pause: Option<Pause>,
    waiters: Vec<Waiter>,
    probe: Option<Ticket>,
    last_forced: Option<Boot>,
    last_manual: Option<Boot>,
    tickets: Ticket,
    random: fastrand::Rng,
}

/// What only RAM knows of the present access token.
#[derive(Clone, Debug)]
struct Current {
    issued: Boot,
    /// How long before the machine's start it was issued.
    before_boot: Duration,
    /// `None`: unknown.
    deadline: Option<Boot>,
    /// `None`: by [`UNKNOWN_ASKED`] and [`UNKNOWN_IDLE`].
    refresh_at: Option<Boot>,
    rejected: bool,
    first_rejection: Option<Boot>,
    asked: bool,
}

/// Where the refresh token is.
#[derive(Debug)]
enum Phase {
    /// At rest until its planned time.
    Calm,
    /// On its way to the provider.
    Running(Ticket),
    /// Replaced; the new record is on its way to the disk.
    Saving { ticket: Ticket, record: Box<GrantRecord>, current: Current, give_up: Boot, cause: Arrival },
    /// At rest after a failure, not to be sent before `until`.
    Waiting { since: Boot, until: Boot, cause: Cause },
}

/// What brought a new record.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Arrival {
    Login,
    Refresh,
    /// A refresh token came without an access token that can be served.
    HalfRefresh(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    Transient,
    NotSent,
    RetryAfter,
    /// `invalid_grant` once: sent again to be sure.
    Confirm,
    /// The client or its consent; a login is needed once the token has expired.
    Refused,
}

/// Failures since the last success.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    rejections: u32,
    /// An answer was lost: the refresh token may be used up.
    ambiguous: bool,
    /// Answers without a clear word since the refresh token has outlived its time.
    overdue: u32,
    error: Option<String>,
}

/// The record in RAM is newer than the one on disk.
#[derive(Debug)]
struct Unsaved {
    in_flight: Option<Ticket>,
    retry_at: Boot,
    delay: Duration,
}

#[derive(Debug)]
struct Pause {
    since: Boot,
    until: Boot,
    not_sent: bool,
    retry_after: bool,
}

#[derive(Debug)]
struct Waiter {
    asker: Asker,
    deadline: Boot,
    /// The end of its patience should it have nothing to fall back on by [`Self::deadline`].
    at_last: Boot,
    purpose: Purpose,
}

#[derive(Debug, PartialEq, Eq)]
enum Purpose {
    Token,
    /// An old token is no answer.
    Refresh,
    /// Waits for a probe, not for a refresh.
    Probe,
}

impl Grant {
    /// A grant from its record. `interrupted`: an intent says that its refresh token may have been sent. `seed` starts
    /// the jitter, `tickets` the names of attempts.
    pub fn restore(record: GrantRecord, terms: Option<Terms>, interrupted: bool, now: Now, seed: (u64, Ticket)) -> Self {
        let mut random = fastrand::Rng::with_seed(seed.0);
        let mut current = Current::restored(&record.token, now, &terms, &mut random);
        let from_the_future = now.wall < record.token.issued_at;
        if interrupted || from_the_future {
            current.refresh_at = Some(now.boot);
            if from_the_future && record.is_renewable() {
                current.deadline = Some(now.boot);
            }
        }
        let ending = Ending::of(&record, terms.as_ref(), now, None);
        Self {
            record,
            current,
            terms,
            ending,
            phase: Phase::Calm,
            trouble: Trouble { ambiguous: interrupted, ..Trouble::default() },
            unsaved: None,
            pause: None,
            waiters: Vec::new(),
            probe: None,
            last_forced: None,
            last_manual: None,
            tickets: seed.1,
            random,
        }
    }

    /// A grant from its first login; the effects save it.
    pub fn logged_in(name: mcp_auth_proto::GrantName, login: Box<Login>, now: Now, seed: (u64, Ticket)) -> (Self, Vec<Effect>) {
        let record = GrantRecord {
            name,
            generation: 0,
            definition: login.definition.clone(),
            account: None,
            subject: None,
            resource: None,
            requested_scopes: Vec::new(),
            scopes: Vec::new(),
            // Never served: expired, and replaced by the login below.
            token: Token {
                access_token: AccessToken::new(String::new()),
                token_type: String::new(),
                issued_at: now.wall,
                lifetime: Some(Duration::ZERO),
            },
            refresh_token: None,
            refresh_token_life: None,
            proof_key: None,
            id_token: None,
            ended: None,
            logged_in_at: now.wall,
            refreshed_at: None,
        };
        let mut grant = Self::restore(record, Some(login.terms.clone()), false, now, seed);
        let effects = grant.handle(Input::LoggedIn(login), now);
        (grant, effects)
    }

    /// Takes one input. The effects are to be carried out in their order.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::Wanted(asker, want) => self.wanted(asker, want, now),
            Input::RefreshWanted(asker) => self.refresh_wanted(asker, now),
            Input::Cancelled(asker) => {
                self.waiters.retain(|waiter| waiter.asker != asker);
                Vec::new()
            }
            Input::LoggedIn(login) => self.login(*login, now),
            Input::LoggedOut => self.logged_out(),
            Input::Defined(terms) => self.defined(terms, now),
            Input::Refreshed(ticket, sent_at, result) => self.refreshed(ticket, sent_at, result, now),
            Input::Saved(ticket, result) => self.saved(ticket, result, now),
            Input::Probed(ticket, verdict) => self.probed(ticket, verdict, now),
            Input::IssuerPaused { until, not_sent, retry_after } => {
                // The issuer's own word outlasts whatever another attempt met.
                let stands = |pause: &Pause| pause.retry_after && pause.until > now.boot && (!retry_after || pause.until > until);
                if !self.pause.as_ref().is_some_and(stands) {
                    self.pause = Some(Pause { since: now.boot, until, not_sent, retry_after });
                }
                Vec::new()
            }
            Input::IssuerRecovered | Input::Resumed => {
                self.forget_unreachable(now);
                Vec::new()
            }
            Input::Woke => self.woke(now),
        }
    }

    /// When [`Input::Woke`] is wanted next.
    pub fn wake_at(&self) -> Option<Boot> {
        let waiters = self.waiters.iter().map(|waiter| waiter.deadline);
        let saving = match &self.phase {
            Phase::Saving { give_up, .. } => Some(*give_up),
            _ => None,
        };
        let unsaved = self.unsaved.as_ref().filter(|_| self.may_save_again()).map(|unsaved| unsaved.retry_at);
        let warning = self.ending.as_ref().and_then(Ending::next_warning);
        waiters.chain(saving).chain(unsaved).chain(self.planned()).chain(warning).min()
    }

    /// What is kept of it; while a save runs, the version before.
    pub fn record(&self) -> &GrantRecord {
        &self.record
    }

    /// The newest record, saved or not: its tokens are the ones to revoke.
    pub fn newest(&self) -> &GrantRecord {
        match &self.phase {
            Phase::Saving { record, .. } => record,
            _ => &self.record,
        }
    }

    /// The attempt in flight.
    pub fn running(&self) -> Option<Ticket> {
        match self.phase {
            Phase::Running(ticket) => Some(ticket),
            _ => None,
        }
    }

    /// Whether this attempt is in flight.
    pub fn is_running(&self, ticket: Ticket) -> bool {
        self.running() == Some(ticket)
    }

    /// Until when its issuer is left alone because others found it not answering.
    pub fn spared_until(&self, now: Now) -> Option<Boot> {
        self.pause.as_ref().map(|pause| pause.until).filter(|until| *until > now.boot)
    }

    /// Whether nothing is in flight: no attempt, no save.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Calm | Phase::Waiting { .. }) && self.unsaved.is_none()
    }

    /// Whether a rotated refresh token is known to RAM only.
    pub fn is_not_durable(&self) -> bool {
        self.unsaved.is_some()
    }

    /// Until when nothing is sent after a failure; the broker spares the issuer's other grants as long.
    pub fn resting_until(&self, now: Now) -> Option<Boot> {
        self.blocked_until(now, false)
    }

    fn logged_out(&mut self) -> Vec<Effect> {
        self.phase = Phase::Calm;
        self.unsaved = None;
        self.record.refresh_token = None;
        let error = self.unknown();
        std::mem::take(&mut self.waiters).into_iter().map(|waiter| Effect::Reply(waiter.asker, Err(error.clone()))).collect()
    }

    fn defined(&mut self, terms: Option<Terms>, now: Now) -> Vec<Effect> {
        let invalidates = |terms: &Option<Terms>| terms.as_ref().map(|terms| terms.refresh_invalidates_access_token);
        let replanned = invalidates(&self.terms) != invalidates(&terms);
        self.terms = terms;
        self.look_for_the_end(now);
        if let Some(invalidates) = invalidates(&self.terms) {
            if let (true, Some(lifetime), Some(deadline)) = (replanned, self.record.token.lifetime, self.current.deadline) {
                let at = deadline - plan::lead(lifetime, invalidates, self.random.f64());
                self.current.refresh_at = self.current.refresh_at.map(|planned| if planned <= now.boot { planned } else { at });
            }
            // A person changed something: what the provider refused may be good now.
            if let Phase::Waiting { until, cause: Cause::Refused, .. } = &mut self.phase {
                *until = now.boot;
            }
            return Vec::new();
        }
        // A refresh in flight still ends well and is saved: the token heals when the definition returns.
        let mut effects = self.settle_waiters(now);
        effects.push(Effect::Tell(News::LoginRequired(self.reason())));
        effects
    }

    fn woke(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Phase::Saving { ticket, give_up, .. } = &self.phase
            && *give_up <= now.boot
        {
            let ticket = *ticket;
            effects.extend(self.adopt_in_ram(Some(ticket), "the disk has not answered in 5 s".into(), now));
        }
        if self.may_save_again() && self.unsaved.as_ref().is_some_and(|unsaved| unsaved.retry_at <= now.boot) {
            let ticket = self.ticket();
            if let Some(unsaved) = &mut self.unsaved {
                unsaved.in_flight = Some(ticket);
            }
            effects.push(Effect::Save(ticket, Box::new(self.record.clone())));
        }
        if self.planned().is_some_and(|at| at <= now.boot) {
            let urgent = !self.waiters.is_empty();
            effects.push(self.start(urgent, now));
        }
        if matches!(self.phase, Phase::Running(_) | Phase::Saving { .. }) && !self.is_servable(now) {
            // What they could have been given has expired: they wait as those do who never had it.
            let stranded = |w: &&mut Waiter| w.purpose != Purpose::Probe && w.deadline <= now.boot;
            self.waiters.iter_mut().filter(stranded).for_each(|w| w.deadline = w.at_last);
        }
        effects.extend(self.warning(now).map(Effect::Tell));
        let (late, waiting) = std::mem::take(&mut self.waiters).into_iter().partition(|w| w.deadline <= now.boot);
        self.waiters = waiting;
        effects.extend(late.into_iter().map(|w: Waiter| self.settled(w.asker, &w.purpose, now)));
        effects
    }

    /// When the next attempt starts by itself.
    fn planned(&self) -> Option<Boot> {
        let terms = self.terms.as_ref()?;
        if !self.record.is_renewable() || self.record.ended.is_some() {
            return None;
        }
        // A refresh token that may be used up is worth a question of its own; the client's credentials are not.
        let by_itself = self.record.refresh_token.is_some() && (terms.refresh_ahead || self.trouble.ambiguous);
        let keep_alive = self.ending.as_ref().and_then(|ending| ending.keep_alive);
        let at = match &self.phase {
            Phase::Running(_) | Phase::Saving { .. } => return None,
            Phase::Waiting { until, cause: Cause::Confirm, .. } => *until,
            Phase::Waiting { until, .. } if by_itself => *until,
            Phase::Waiting { until, .. } => keep_alive?.max(*until),
            Phase::Calm => self.current.due(terms).filter(|_| by_itself).into_iter().chain(keep_alive).min()?,
        };
        let at = self.pause.as_ref().map_or(at, |pause| at.max(pause.until));
        match (&self.unsaved, self.current.deadline) {
            // Not rotated again while its token is valid and the disk does not take it.
            (Some(_), Some(deadline)) => Some(at.max(deadline)),
            (Some(_), None) => None,
            (None, _) => Some(at),
        }
    }

    fn may_refresh(&self, now: Now) -> bool {
        let durable_or_needed = self.unsaved.is_none() || !self.is_servable(now);
        self.terms.is_some() && self.is_refreshable() && durable_or_needed
    }

    /// Until when nothing may be sent; `asked` shortens the wait for a provider that was not reached.
    fn blocked_until(&self, now: Now, asked: bool) -> Option<Boot> {
        let capped = |since: Boot, until: Boot, not_sent: bool| if asked && not_sent { until.min(since + NOT_SENT_CAP) } else { until };
        let waiting = match &self.phase {
            Phase::Waiting { since, until, cause } => Some(capped(*since, *until, *cause == Cause::NotSent)),
            _ => None,
        };
        let pause = self.pause.as_ref().map(|pause| capped(pause.since, pause.until, pause.not_sent));
        waiting.max(pause).filter(|until| *until > now.boot)
    }

    /// Whether the present token may be given out at all: defined, unexpired, and not replaced or rejected for good.
    pub(crate) fn is_servable(&self, now: Now) -> bool {
        let Some(terms) = &self.terms else { return false };
        let replaced = matches!(self.phase, Phase::Saving { .. }) && terms.refresh_invalidates_access_token;
        let rejected_for_good = self.current.rejected && (!self.record.is_renewable() || self.record.ended.is_some());
        !replaced && !rejected_for_good && self.current.deadline.is_none_or(|deadline| now.boot < deadline)
    }

    fn is_usable(&self, min_valid_for: Option<Duration>, now: Now) -> bool {
        if !self.is_servable(now) || self.current.rejected {
            return false;
        }
        let (Some(deadline), Some(lifetime)) = (self.current.deadline, self.record.token.lifetime) else { return true };
        let until = if min_valid_for.is_some() { self.served_until(now).unwrap_or(deadline) } else { deadline };
        until.since(now.boot) >= plan::margin(lifetime, min_valid_for)
    }

    /// What askers are told of the end: where a refresh kills the token, that is the planned refresh until it has passed.
    fn served_until(&self, now: Now) -> Option<Boot> {
        let dies_early =
            self.record.refresh_token.is_some() && self.terms.as_ref().is_some_and(|terms| terms.refresh_invalidates_access_token);
        let planned = self.current.refresh_at.filter(|at| dies_early && now.boot < *at);
        planned.or(self.current.deadline)
    }

    fn needs_login(&self, now: Now) -> bool {
        // Once its hour is over it is worth another try: without a timer of its own, an on-demand grant has only its askers.
        let refused = matches!(self.phase, Phase::Waiting { cause: Cause::Refused, until, .. } if now.boot < until);
        self.terms.is_none() || self.record.ended.is_some() || !self.record.is_renewable() || refused
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }
}

impl Current {
    fn fresh(token: &Token, issued: Boot, terms: &Option<Terms>, random: &mut fastrand::Rng) -> Self {
        let deadline = token.lifetime.map(|lifetime| issued + lifetime);
        let invalidates = terms.as_ref().is_some_and(|terms| terms.refresh_invalidates_access_token);
        let refresh_at = token.lifetime.map(|lifetime| issued + lifetime - plan::lead(lifetime, invalidates, random.f64()));
        Self { issued, before_boot: Duration::ZERO, deadline, refresh_at, rejected: false, first_rejection: None, asked: false }
    }

    /// When its age asks for a refresh, if ever.
    fn due(&self, terms: &Terms) -> Option<Boot> {
        if self.rejected {
            return Some(self.issued);
        }
        let unknown = || self.issued + if self.asked { UNKNOWN_ASKED } else { UNKNOWN_IDLE } - self.before_boot;
        self.refresh_at.or_else(|| (!terms.never_expires).then(unknown))
    }

    /// By wall time, the only clock that counts across restarts.
    fn restored(token: &Token, now: Now, terms: &Option<Terms>, random: &mut fastrand::Rng) -> Self {
        let fresh = Self::fresh(token, now.boot, terms, random);
        let Some(age) = now.wall.since(token.issued_at) else {
            // From the future: how old it is cannot be known.
            return Self { deadline: None, refresh_at: None, ..fresh };
        };
        let earlier = |at: Boot| if at.since(now.boot) <= age { now.boot } else { at - age };
        Self {
            issued: now.boot - age,
            before_boot: age.saturating_sub(now.boot.since_start()),
            deadline: fresh.deadline.map(earlier),
            refresh_at: fresh.refresh_at.map(earlier),
            ..fresh
        }
    }
}

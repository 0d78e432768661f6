//! The state behind the mailbox: every grant, who waits for it, when it wants to wake, and the carrying out of its effects.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, GrantName, event};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::aside;
use super::attempt::{self, Errand, Way};
use super::doctor::Doctor;
use super::gate::Gate;
use super::holders::{Holders, Keeper};
use super::issuer::IssuerSide;
use super::lane::Lane;
use super::lease::Leases;
use super::logins::Logins;
use super::notices::Board;
use super::policy::{Bound, PolicySide};
use super::providers::StoredSecret;
use super::relay_clients::RelaySide;
use super::remote::RemoteSide;
use super::served::{Purpose, Served};
use super::telling::Told;
use super::transports::Transports;
use super::turns::Turns;
use super::{Edges, Message, Reply};
use crate::audit::{Audit, Note};
use crate::clock::{Boot, Now};
use crate::config::Config;
use crate::failpoint;
use crate::grant::mcp::LoginKind;
use crate::grant::record::{Definition, GrantRecord};
use crate::grant::{Asker, Attempt, AttemptError, Effect, Grant, Input, News, Terms, Ticket};
use crate::metrics::Metrics;
use crate::notices::Occasion;
use crate::oauth::token::{TokenError, TokenResponse};
use crate::proofs::Nonces;
use crate::provider::{DefaultLifetime, Provider, RefreshPlan};
use crate::transport::surroundings;
use crate::vault::{Done, Record, RecordId, RecordKind, VaultError};

/// How many events a reader of `/v1/events` may lag behind.
const EVENTS_LAG: usize = 256;
/// Tickets of one grant's life; the next life of the name starts above them.
const TICKETS_OF_A_LIFE: Ticket = 1 << 32;

pub(crate) struct Core {
    pub(super) edges: Edges,
    pub(super) audit: Audit,
    pub(super) metrics: Metrics,
    pub(super) told: Told,
    pub(super) transports: Transports,
    pub(super) config: Config,
    pub(super) config_path: PathBuf,
    pub(super) config_error: Option<String>,
    /// Held from reading the config file until what it says counts.
    pub(super) config_turns: Arc<tokio::sync::Mutex<()>>,
    pub(super) mailbox: mpsc::UnboundedSender<Message>,
    pub(super) gate: Gate,
    pub(super) grants: BTreeMap<GrantName, Grant>,
    /// Grants whose state machine panicked; their records are on disk.
    pub(super) set_aside: BTreeSet<GrantName>,
    /// How many of their newest tokens are on their way there.
    pub(super) rescues: usize,
    /// Logged out, but the disk has not let go of their records; with what came of the revocation.
    pub(super) undeleted: BTreeMap<GrantName, (wire::Revocation, Option<String>)>,
    pub(super) askers: HashMap<Asker, Waiting>,
    pub(super) holders: Holders,
    agenda: Agenda,
    lanes: HashMap<String, Lane>,
    /// At identity providers.
    pub(super) turns: Turns,
    pub(super) secrets: HashMap<String, StoredSecret>,
    pub(super) logins: Logins,
    pub(super) remote: RemoteSide,
    pub(super) nonces: Arc<Nonces>,
    pub(super) doctor: Doctor,
    pub(super) issuer: IssuerSide,
    pub(super) relay: RelaySide,
    /// What the vault held of capability sockets when it was opened last.
    pub(super) capabilities: watch::Sender<Arc<Vec<Record>>>,
    pub(super) policy: PolicySide,
    pub(super) leases: Leases,
    pub(super) board: Board,
    /// Who waits for a static token to be stored.
    pub(super) storing: Vec<(GrantName, Reply<wire::GrantSummary>)>,
    /// Refreshes that were in flight when their grant was logged out.
    pub(super) leaving: HashMap<Ticket, (Way, GrantRecord)>,
    readers: Vec<mpsc::Sender<wire::Event>>,
    lives: Ticket,
    /// Questions of the broker itself, counted from the top: those of others are counted from below.
    own_askers: Asker,
    suspended: watch::Sender<u64>,
    last_seen: (Boot, Instant),
    pub(super) started: Boot,
    pub(super) finished: bool,
}

/// Somebody who waits for a token.
pub(super) struct Waiting {
    pub(super) grant: GrantName,
    pub(super) reply: Reply<Served>,
    /// Who will keep the token, if anybody.
    pub(super) keeper: Option<Keeper>,
    /// The most that the token may be, where the grant is closed.
    pub(super) bound: Option<Bound>,
    /// What it waits for.
    pub(super) purpose: Purpose,
}

/// When each grant wants to wake.
#[derive(Default)]
struct Agenda {
    by_time: BTreeSet<(Boot, GrantName)>,
    by_name: HashMap<GrantName, Boot>,
}

impl Core {
    pub(super) fn new(edges: Edges, config: Config, config_path: PathBuf, mailbox: mpsc::UnboundedSender<Message>) -> Self {
        let started = edges.clock.now().boot;
        Self {
            transports: Transports::new(edges.connect, &config),
            issuer: IssuerSide::new(config.issuer.clone()),
            relay: RelaySide::new(config.relay),
            capabilities: watch::Sender::default(),
            board: Board::new(config.notifications, edges.desktop, &mailbox),
            audit: edges.audit.clone(),
            metrics: Metrics::default(),
            told: Told::default(),
            edges,
            config,
            config_path,
            config_error: None,
            config_turns: Arc::default(),
            mailbox,
            gate: Gate::default(),
            grants: BTreeMap::new(),
            set_aside: BTreeSet::new(),
            rescues: 0,
            undeleted: BTreeMap::new(),
            askers: HashMap::new(),
            holders: Holders::default(),
            agenda: Agenda::default(),
            lanes: HashMap::new(),
            turns: Turns::default(),
            secrets: HashMap::new(),
            logins: Logins::default(),
            remote: RemoteSide::default(),
            nonces: Arc::default(),
            doctor: Doctor::default(),
            policy: PolicySide::default(),
            leases: Leases::default(),
            storing: Vec::new(),
            leaving: HashMap::new(),
            readers: Vec::new(),
            lives: 0,
            own_askers: Asker::MAX,
            suspended: watch::Sender::new(0),
            last_seen: (started, Instant::now()),
            started,
            finished: false,
        }
    }

    pub(super) fn now(&self) -> Now {
        self.edges.clock.now()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    // ---- time ----

    pub(super) fn wake_at(&self) -> Option<Boot> {
        self.agenda.next().into_iter().chain(self.gate.wake_at()).chain(self.policy.wake_at()).chain(self.board.wake_at()).min()
    }

    /// The alarm rang: something is due, or the clock was set, or the machine slept.
    pub(super) fn rang(&mut self) {
        let now = self.now();
        let awake = self.last_seen.1.elapsed();
        let slept = now.boot.since(self.last_seen.0).saturating_sub(awake) > Duration::from_secs(1);
        self.last_seen = (now.boot, Instant::now());
        if slept {
            tracing::info!("the machine was asleep");
            self.suspended.send_modify(|count| *count += 1);
            self.notices_slept();
            let names: Vec<_> = self.grants.keys().cloned().collect();
            for name in names {
                self.give(&name, Input::Resumed);
            }
        }
        for name in self.agenda.due(now.boot) {
            self.give(&name, Input::Woke);
        }
        self.gate_woke(now);
        self.consents_woke(now);
        self.rules_woke(now);
        self.notices_woke(now);
    }

    // ---- grants ----

    pub(super) fn give(&mut self, name: &GrantName, input: Input) {
        let now = self.now();
        let Some(grant) = self.grants.get_mut(name) else { return };
        // Every type in an input shows its secrets as `[redacted]`.
        tracing::trace!(grant = %name, ?input);
        let brought = aside::brought(grant, &input);
        let handle = || {
            failpoint::at(format_args!("handle {name}"));
            grant.handle(input, now)
        };
        match catch_unwind(AssertUnwindSafe(handle)) {
            Ok(effects) => {
                let wake = grant.wake_at();
                self.agenda.set(name, wake);
                self.carry_out(name, effects);
            }
            Err(_) => self.put_aside(name, brought),
        }
    }

    pub(super) fn carry_out(&mut self, name: &GrantName, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Refresh(attempt) => self.queue(name, attempt),
                Effect::Hurry(ticket) => {
                    let key = self.lane_of(name);
                    if let Some(lane) = self.lanes.get_mut(&key) {
                        lane.hurry(ticket);
                    }
                }
                Effect::Save(ticket, record) => self.save(name, ticket, &record),
                Effect::Probe(ticket, token) => {
                    let Some((way, record)) = self.way_of(name) else { continue };
                    let name = name.clone();
                    self.task(attempt::probe(way, record.definition, token), move |core, verdict| {
                        core.give(&name, Input::Probed(ticket, verdict.unwrap_or(crate::grant::Verdict::Unknown)));
                    });
                }
                Effect::Reply(asker, answer) => {
                    if let Some(Waiting { reply, keeper, bound, purpose, .. }) = self.askers.remove(&asker) {
                        failpoint::at(format_args!("reply"));
                        // Made after the decision, the token may be another than was decided about.
                        let answer = match bound {
                            Some(bound) => answer.and_then(|token| self.within(name, &bound, token)),
                            None => answer,
                        };
                        // A login that came meanwhile may have bound it to a key.
                        let answer = answer.and_then(|token| self.fits(name, purpose).map(|()| token));
                        if purpose != Purpose::Refresh && answer.is_ok() {
                            self.metrics.of(name.base()).tokens += 1;
                        }
                        if let (Some(keeper), Ok(answer)) = (keeper, &answer) {
                            self.hold(name, keeper, answer.expires_in);
                        }
                        let refused = answer.as_ref().err().map(|error| error.error);
                        // Whoever has gone meanwhile needs no answer.
                        let _ = reply.send(answer.map(|answer| self.served(answer, name, purpose)));
                        if let Some(refused) = refused {
                            self.notice_refusal(name, refused);
                        }
                    }
                }
                Effect::Tell(news) => self.tell(name, news),
            }
        }
    }

    /// Takes a grant in: from the vault, or from its first login.
    pub(super) fn admit(&mut self, name: GrantName, grant: Grant, effects: Vec<Effect>) {
        self.set_aside.remove(&name);
        self.undeleted.remove(&name);
        self.agenda.set(&name, grant.wake_at());
        self.grants.insert(name.clone(), grant);
        self.carry_out(&name, effects);
    }

    /// Lets a grant go. The record is not touched.
    pub(super) fn release(&mut self, name: &GrantName) -> Option<Grant> {
        self.give(name, Input::LoggedOut);
        self.unstored(name);
        self.forget(name)
    }

    /// Lets a grant go without a word to it.
    pub(super) fn forget(&mut self, name: &GrantName) -> Option<Grant> {
        self.agenda.set(name, None);
        self.leases.end(name);
        let grant = self.grants.remove(name);
        self.notice(name, &Occasion::News);
        grant
    }

    /// An asker for a question of our own.
    pub(super) fn own_asker(&mut self) -> Asker {
        self.own_askers -= 1;
        self.own_askers
    }

    /// A start for a grant's jitter and tickets.
    pub(super) fn life(&mut self) -> (u64, Ticket) {
        self.lives += TICKETS_OF_A_LIFE;
        (fastrand::u64(..), self.lives)
    }

    pub(super) fn cancelled(&mut self, asker: Asker) {
        if let Some(waiting) = self.askers.remove(&asker) {
            self.give(&waiting.grant, Input::Cancelled(asker));
        }
        self.consent_cancelled(asker);
    }

    // ---- providers ----

    /// What the config says about a grant now. A static token needs no provider.
    pub(super) fn terms_of(&self, definition: &Definition) -> Option<Terms> {
        let can_probe = definition.userinfo_endpoint.is_some();
        if definition.is_static() {
            return Some(Terms { can_probe, ..Terms::default() });
        }
        self.provider_of(definition).map(|provider| Terms {
            // What is got without a page is no refresh: it is asked for on demand, beside the token before it.
            refresh_invalidates_access_token: provider.quirks.refresh_invalidates_access_token && !definition.is_unattended(),
            refresh_ahead: provider.quirks.refresh == RefreshPlan::Ahead && !definition.client_credentials,
            never_expires: provider.quirks.default_lifetime == Some(DefaultLifetime::Never),
            refresh_token_lifetime: provider.quirks.refresh_token_lifetime,
            refresh_token_idle_lifetime: provider.quirks.refresh_token_idle_lifetime,
            can_probe,
            refresh_scopes: provider.refresh_scopes.clone(),
            login: LoginKind::of(&provider.quirks),
        })
    }

    /// What an errand for a provider needs.
    pub(super) fn way(&self, provider: Provider) -> Way {
        let secret = self.secret_of(&provider);
        let transport = self.issuer.guard(self.transports.of(&self.config, &provider));
        Way { transport, clock: self.edges.clock.clone(), provider, secret, nonces: self.nonces.clone() }
    }

    /// The way of a grant's refresh token: none where the config has changed since, so that neither it nor a client
    /// secret goes where the other belongs.
    fn defined_way_of(&self, name: &GrantName) -> Option<(Way, GrantRecord)> {
        let record = self.grants.get(name)?.record().clone();
        Some((self.way(self.provider_of(&record.definition)?.into_owned()), record))
    }

    pub(super) fn way_of(&self, name: &GrantName) -> Option<(Way, GrantRecord)> {
        let record = self.grants.get(name)?.record().clone();
        let known = self.provider_of(&record.definition).map(Cow::into_owned);
        let provider = known.or_else(|| self.config.provider(&record.definition.provider).cloned());
        Some((self.way(provider.unwrap_or_else(|| Provider::unknown(&record.definition.provider))), record))
    }

    // ---- refreshes ----

    /// The lane of a grant: its issuer, else its token endpoint.
    pub(super) fn lane_of(&self, name: &GrantName) -> String {
        let definition = self.grants.get(name).map(|grant| &grant.record().definition);
        definition.and_then(|d| d.issuer.clone().or_else(|| d.token_endpoint.clone())).unwrap_or_default()
    }

    /// An attempt that needs an assertion gets it before it queues: whoever makes it, and takes its time, is another than the issuer,
    /// and must not hold up whom else the issuer would serve.
    fn queue(&mut self, name: &GrantName, attempt: Attempt) {
        if self.gate.sends_nothing() {
            return self.refuse(name, &attempt, AttemptError::Stopping);
        }
        let definition = self.grants.get(name).map(|grant| &grant.record().definition);
        let source = definition.and_then(|of| of.assertion.clone()).filter(|_| attempt.refresh_token.is_none());
        let Some(source) = source else {
            return self.enter_lane(Errand { grant: name.clone(), attempt, assertion: None });
        };
        let Some((way, record)) = self.defined_way_of(name) else { return self.refuse(name, &attempt, config_changed()) };
        let (bearer, name) = (self.bearer_of(&source), name.clone());
        let spared_before = self.spared_until(&name);
        self.task(attempt::assertion_for(way, record, bearer), move |core, outcome| match outcome.unwrap_or_else(|| Err(our_fault())) {
            // Meanwhile the issuer may have stopped answering others.
            Ok(_) if core.spared_until(&name) > spared_before => core.refuse(&name, &attempt, spared()),
            // It is not good for long, and somebody may have begun to wait for it.
            Ok(jwt) => core.enter_lane(Errand { grant: name, attempt: Attempt { urgent: true, ..attempt }, assertion: Some(jwt) }),
            Err(error) => {
                let (key, now) = (core.lane_of(&name), core.now());
                core.concluded(&name, &key, attempt.ticket, (now, Err(error)));
            }
        });
    }

    fn spared_until(&self, name: &GrantName) -> Option<Boot> {
        self.grants.get(name).and_then(|grant| grant.spared_until(self.now()))
    }

    fn enter_lane(&mut self, errand: Errand) {
        if self.gate.sends_nothing() {
            return self.refuse(&errand.grant, &errand.attempt, AttemptError::Stopping);
        }
        let key = self.lane_of(&errand.grant);
        self.lanes.entry(key.clone()).or_default().push(errand);
        self.send_queued(&key);
    }

    fn send_queued(&mut self, key: &str) {
        while let Some(errand) = self.lanes.get_mut(key).and_then(Lane::next) {
            let (name, ticket) = (errand.grant.clone(), errand.attempt.ticket);
            let current = self.grants.get(&name).is_some_and(|grant| grant.is_running(ticket));
            let Some((way, record)) = current.then(|| self.defined_way_of(&name)).flatten() else {
                self.lanes.get_mut(key).expect("it gave this errand").ended();
                self.refuse(&name, &errand.attempt, config_changed());
                continue;
            };
            let (key, started) = (key.to_owned(), self.now());
            let refresh = attempt::refresh(way, self.edges.vault.clone(), record, errand, self.suspended.subscribe());
            self.task(refresh, move |core, outcome| {
                let (sent_at, result) = outcome.unwrap_or_else(|| (started, Err(our_fault())));
                core.refreshed(&name, &key, ticket, (sent_at, result));
            });
        }
        if self.lanes.get(key).is_some_and(Lane::is_idle) {
            self.lanes.remove(key);
        }
    }

    fn refreshed(&mut self, name: &GrantName, key: &str, ticket: Ticket, (sent_at, result): (Now, Result<TokenResponse, AttemptError>)) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.ended();
        }
        self.concluded(name, key, ticket, (sent_at, result));
        self.send_queued(key);
    }

    /// What an attempt has come to counts for its grant and, as far as its issuer is meant, for the issuer's other ones.
    fn concluded(&mut self, name: &GrantName, key: &str, ticket: Ticket, (sent_at, result): (Now, Result<TokenResponse, AttemptError>)) {
        if let Some((way, record)) = self.leaving.remove(&ticket) {
            self.revoke_late(name, way, record, &result);
        }
        let error = result.as_ref().err().cloned();
        let counts = self.metrics.of(name.base());
        *if error.is_none() { &mut counts.refreshes } else { &mut counts.failed_refreshes } += 1;
        self.heard_of_client((name, ticket), &result);
        self.give(name, Input::Refreshed(ticket, sent_at, result));
        match error {
            None => self.give_others(name, key, || Input::IssuerRecovered),
            Some(AttemptError::Provider(error @ (TokenError::NotSent(_) | TokenError::Overloaded { .. }))) => self.spare(name, key, &error),
            Some(_) => {}
        }
    }

    /// The issuer as a whole does not answer: its other grants leave it alone as long as this one does.
    fn spare(&mut self, name: &GrantName, key: &str, error: &TokenError) {
        let now = self.now();
        let Some(until) = self.grants.get(name).and_then(|grant| grant.resting_until(now)) else { return };
        let not_sent = matches!(error, TokenError::NotSent(_));
        let retry_after = matches!(error, TokenError::Overloaded { retry_after: Some(_), .. });
        for (other, attempt) in self.lanes.get_mut(key).map(Lane::clear).unwrap_or_default() {
            self.refuse(&other, &attempt, AttemptError::Provider(error.clone()));
        }
        self.give_others(name, key, || Input::IssuerPaused { until, not_sent, retry_after });
    }

    fn give_others(&mut self, name: &GrantName, key: &str, input: impl Fn() -> Input) {
        let others: Vec<_> = self.grants.keys().filter(|other| *other != name && self.lane_of(other) == key).cloned().collect();
        for other in others {
            self.give(&other, input());
        }
    }

    fn refuse(&mut self, name: &GrantName, attempt: &Attempt, error: AttemptError) {
        self.leaving.remove(&attempt.ticket);
        let (ticket, name, now) = (attempt.ticket, name.clone(), self.now());
        self.post(move |core| core.give(&name, Input::Refreshed(ticket, now, Err(error))));
    }

    /// Starts to wind down: what was not sent is not sent any more.
    pub(super) fn clear_lanes(&mut self) {
        self.turns.clear();
        let keys: Vec<_> = self.lanes.keys().cloned().collect();
        for key in keys {
            for (name, attempt) in self.lanes.get_mut(&key).map(Lane::clear).unwrap_or_default() {
                self.refuse(&name, &attempt, AttemptError::Stopping);
            }
        }
    }

    /// A refresh answered after the logout: its new refresh token dies too, or it would live on unseen.
    fn revoke_late(&mut self, name: &GrantName, way: Way, mut record: GrantRecord, result: &Result<TokenResponse, AttemptError>) {
        let Ok(response) = result else { return };
        tracing::info!(grant = %name, "a refresh answered after the logout; its tokens are revoked");
        record.token.access_token = response.access_token.clone();
        record.refresh_token = response.refresh_token.clone().or(record.refresh_token);
        self.task(attempt::revoke(way, record), |_, _| {});
    }

    // ---- saving ----

    fn save(&mut self, name: &GrantName, ticket: Ticket, record: &GrantRecord) {
        let sealed = Record { id: grant_id(name), generation: record.generation, plaintext: record.to_plaintext() };
        let name = name.clone();
        let done = self.back(move |core, result| {
            if let Err(VaultError::Locked { .. }) = &result {
                core.hold_key_again();
            }
            let result = result.map_err(|error| error.to_string());
            failpoint::at(format_args!("record saved"));
            core.give(&name, Input::Saved(ticket, result));
        });
        self.edges.vault.save(sealed, done);
    }

    // ---- telling ----

    fn tell(&mut self, name: &GrantName, news: News) {
        self.notice_news(name, &news);
        let (event, detail) = match news {
            News::LoggedIn => (event::LOGGED_IN, None),
            News::Refreshed => (event::REFRESHED, None),
            News::RefreshFailed(why) => (event::REFRESH_FAILED, Some(why)),
            News::LoginRequired(why) => (event::LOGIN_REQUIRED, Some(why)),
            News::RefreshTokenEnding(why) => (event::REFRESH_TOKEN_ENDING, Some(why)),
            News::NotDurable(why) => (event::NOT_DURABLE, Some(why)),
            News::Durable => (event::DURABLE, None),
        };
        self.announce(event, Some(name.clone()), detail);
        match event {
            event::LOGGED_IN => {
                self.login_done(name);
                self.stored(name);
            }
            event::REFRESHED => self.replaced(name),
            event::DURABLE => self.revoke_replaced_by(name),
            event::LOGIN_REQUIRED => self.audit.note(Note::of(event).grant(name)),
            _ => {}
        }
    }

    pub(super) fn announce(&mut self, event: &str, grant: Option<GrantName>, detail: Option<String>) {
        let about = grant.as_ref().map(|name| format!(" `{name}`")).unwrap_or_default();
        match &detail {
            Some(why) => tracing::warn!("{event}{about}: {why}"),
            None => tracing::info!("{event}{about}"),
        }
        let line = wire::Event { at: self.now().wall.rfc3339(), event: event.to_owned(), grant, detail };
        self.readers.retain(|reader| reader.try_send(line.clone()).is_ok());
    }

    pub(super) fn events(&mut self, reply: Reply<mpsc::Receiver<wire::Event>>) {
        let (reader, lines) = mpsc::channel(EVENTS_LAG);
        self.readers.retain(|reader| !reader.is_closed());
        self.readers.push(reader);
        answer(reply, Ok(lines));
    }

    pub(super) fn status(&mut self, reply: Reply<wire::Status>) {
        let now = self.now();
        let summaries: Vec<_> = self.grants.values().map(|grant| grant.summary(now)).collect();
        let mut paused: BTreeMap<String, u64> = BTreeMap::new();
        for (name, grant) in &self.grants {
            if let Some(until) = grant.spared_until(now) {
                let longest = paused.entry(self.lane_of(name)).or_default();
                *longest = (*longest).max(until.since(now.boot).as_secs() + 1);
            }
        }
        let status = wire::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            proto: wire::PROTO_VERSION,
            pid: std::process::id(),
            uptime: now.boot.since(self.started).as_secs(),
            vault: self.vault_status(),
            config: self.config_status(),
            issuer: self.issuer.status(),
            relay: self.relay.status(),
            grants: summaries.len(),
            login_required: summaries.iter().filter(|s| s.state == wire::GrantState::LoginRequired).count(),
            not_durable: summaries.iter().filter(|s| s.not_durable).count(),
            audit_error: self.audit.trouble(),
            paused: paused.into_iter().map(|(issuer, retry_after)| wire::PausedIssuer { issuer, retry_after }).collect(),
            network: surroundings::in_effect(&self.config.network, |variable| std::env::var(variable).ok()),
        };
        answer(reply, Ok(status));
    }

    // ---- tasks ----

    /// Something for later, after what is being done now.
    pub(super) fn post(&self, message: impl FnOnce(&mut Self) + Send + 'static) {
        // A core that has gone has nothing left to do.
        let _ = self.mailbox.send(Box::new(message));
    }

    /// A completion for the vault, which comes back as a message.
    pub(super) fn back<T: Send + 'static>(&self, then: impl FnOnce(&mut Self, Result<T, VaultError>) + Send + 'static) -> Done<T> {
        let mailbox = self.mailbox.clone();
        Box::new(move |result| {
            // A core that has gone has nothing left to do.
            let _ = mailbox.send(Box::new(move |core| then(core, result)));
        })
    }

    /// An errand in a task of its own, whose outcome comes back as a message: `None` when it panicked. A cancelled one
    /// never comes back.
    pub(super) fn task<T: Send + 'static>(
        &self,
        errand: impl Future<Output = T> + Send + 'static,
        then: impl FnOnce(&mut Self, Option<T>) + Send + 'static,
    ) -> AbortHandle {
        let errand = tokio::spawn(errand);
        let (abort, mailbox) = (errand.abort_handle(), self.mailbox.clone());
        tokio::spawn(async move {
            let outcome = match errand.await {
                Ok(outcome) => Some(outcome),
                Err(error) if error.is_cancelled() => return,
                Err(_) => None,
            };
            // A core that has gone has nothing left to do.
            let _ = mailbox.send(Box::new(move |core| then(core, outcome)));
        });
        abort
    }
}

fn config_changed() -> AttemptError {
    AttemptError::Provider(TokenError::NotSent("the config has changed".into()))
}

fn spared() -> AttemptError {
    AttemptError::Provider(TokenError::NotSent("the provider did not answer another grant, and is left alone for a while".into()))
}

fn our_fault() -> AttemptError {
    AttemptError::Provider(TokenError::Lost("a fault of the daemon".into()))
}

/// Answers a question; whoever has gone meanwhile needs no answer.
pub(super) fn answer<T>(reply: Reply<T>, answer: Result<T, ErrorBody>) {
    let _ = reply.send(answer);
}

pub(super) fn grant_id(name: &GrantName) -> RecordId {
    RecordId { kind: RecordKind::Grant, name: name.to_string() }
}

impl Agenda {
    fn set(&mut self, name: &GrantName, at: Option<Boot>) {
        let before = self.by_name.get(name).copied();
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, name.clone()));
            self.by_name.remove(name);
        }
        if let Some(at) = at {
            self.by_time.insert((at, name.clone()));
            self.by_name.insert(name.clone(), at);
        }
    }

    fn next(&self) -> Option<Boot> {
        self.by_time.first().map(|(at, _)| *at)
    }

    fn due(&self, now: Boot) -> Vec<GrantName> {
        self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name.clone()).collect()
    }
}

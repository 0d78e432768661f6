//! Random histories: a grant against a provider that rotates, a disk that fails, askers that come and go, suspends,
//! clock steps and crashes. After every step the promises are checked against what the provider and the disk know.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use mcp_auth_proto::ErrorCode;

use super::*;
use crate::clock::Wall;
use crate::oauth::token::RefreshTokenLifetime;

const S: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What may go wrong in a history.
#[derive(Clone, Copy)]
struct Weather {
    lifetime: Duration,
    /// One in so many answers of the provider is not a good one; 0: never.
    bad_answers: u32,
    /// A used refresh token kills the family, even if its answer was lost.
    strict: bool,
    /// One in so many saves fails or hangs; 0: never.
    bad_saves: u32,
    /// The client asks for itself: there is no refresh token.
    by_client: bool,
    /// A refresh ends the token before it, and a program keeps each token.
    held: bool,
    /// One in so many steps is a crash, a suspend, or a clock step; 0: never.
    upheavals: u32,
}

#[allow(clippy::large_enum_variant, reason = "a history has a handful of them")]
enum Event {
    Verdict(Ticket, Verdict),
    Answer(Ticket, Now, Result<TokenResponse, AttemptError>),
    Saved(Ticket, Box<GrantRecord>, Result<(), String>),
    Leaves(Asker),
}

/// A provider that rotates and detects reuse.
#[derive(Default)]
struct Provider {
    issued: u32,
    /// The refresh token that is good, and the one before it, good until the new one is used.
    good: String,
    before: Option<String>,
    revoked: bool,
    reuses: u32,
    requests: u32,
    expiry: HashMap<String, Boot>,
}

struct World {
    weather: Weather,
    random: fastrand::Rng,
    now: Now,
    grant: Grant,
    provider: Provider,
    /// The record on disk, its tokens ever, and the newest intent.
    disk: GrantRecord,
    durable: HashSet<String>,
    disk_free_at: Boot,
    intent: Option<(u64, [u8; 8])>,
    events: BTreeMap<(Boot, u64), Event>,
    order: u64,
    running: Option<Ticket>,
    askers: HashMap<Asker, Boot>,
    next_asker: Asker,
    not_before: Option<(Boot, &'static str)>,
    lost_once: bool,
    /// How often the provider has said `invalid_grant` since it last said something good.
    rejections: u32,
    cause: &'static str,
    logins: u32,
    served: u32,
    told: Vec<News>,
    probes: u32,
}

fn terms(weather: Weather) -> Terms {
    let held = weather.held;
    Terms { refresh_ahead: !weather.by_client, refresh_invalidates_access_token: held, can_probe: held, ..Terms::default() }
}

impl Provider {
    fn issue(&mut self, lifetime: Duration, now: Now) -> TokenResponse {
        let (token, next) = self.access(lifetime, now);
        self.before = Some(std::mem::replace(&mut self.good, next));
        // Nothing of this is true: a refresh token that lives on after the end that was told costs no login.
        let told = match self.issued % 7 {
            0 => Some(RefreshTokenLifetime::Endless),
            1 | 2 => Some(RefreshTokenLifetime::Lasts(lifetime * (self.issued % 11) / 4)),
            _ => None,
        };
        TokenResponse { refresh_token: Some(RefreshToken::new(self.good.clone())), refresh_token_lifetime: told, ..token }
    }

    /// An access token, and the name of a refresh token for it.
    fn access(&mut self, lifetime: Duration, now: Now) -> (TokenResponse, String) {
        self.issued += 1;
        let token = format!("at-{}", self.issued);
        self.expiry.insert(token.clone(), now.boot + lifetime);
        let response = TokenResponse {
            access_token: AccessToken::new(token),
            token_type: "Bearer".into(),
            lifetime: Some(lifetime),
            refresh_token: None,
            refresh_token_lifetime: None,
            scopes: None,
            unusable: None,
            id_token: None,
            owner: Box::default(),
        };
        (response, format!("rt-{}", self.issued))
    }

    /// A token for the client itself. Some servers add a refresh token all the same.
    fn for_client(&mut self, lifetime: Duration, now: Now) -> TokenResponse {
        self.requests += 1;
        let (response, stray) = self.access(lifetime, now);
        TokenResponse { refresh_token: self.issued.is_multiple_of(3).then(|| RefreshToken::new(stray)), ..response }
    }

    fn log_in(&mut self, weather: Weather, now: Now) -> TokenResponse {
        if weather.by_client { self.access(weather.lifetime, now).0 } else { self.issue(weather.lifetime, now) }
    }

    fn refresh(&mut self, sent: &str, weather: Weather, now: Now) -> Result<TokenResponse, TokenError> {
        self.requests += 1;
        let again = !weather.strict && self.before.as_deref() == Some(sent);
        if self.revoked || (sent != self.good && !again) {
            self.reuses += u32::from(!self.revoked);
            self.revoked = true;
            return Err(TokenError::InvalidGrant(None));
        }
        if again {
            self.good = sent.to_owned();
        }
        Ok(self.issue(weather.lifetime, now))
    }
}

impl World {
    fn new(weather: Weather, seed: u64) -> Self {
        let mut provider = Provider::default();
        let now = Now { boot: Boot::from_start(HOUR), wall: Wall(1_700_000_000_000) };
        let login = login(provider.log_in(weather, now), weather, now);
        let (grant, effects) = Grant::logged_in("github".parse().unwrap(), login, now, (seed, 0));
        let mut world = Self {
            weather,
            random: fastrand::Rng::with_seed(seed),
            now,
            disk: grant.record().clone(),
            grant,
            provider,
            durable: HashSet::new(),
            disk_free_at: now.boot,
            intent: None,
            events: BTreeMap::new(),
            order: 0,
            running: None,
            askers: HashMap::new(),
            next_asker: 0,
            not_before: None,
            lost_once: false,
            rejections: 0,
            cause: "login",
            logins: 1,
            served: 0,
            told: Vec::new(),
            probes: 0,
        };
        world.weather.bad_saves = 0;
        world.carry_out(effects);
        while !world.events.is_empty() {
            world.happen();
        }
        world.weather = weather;
        world
    }

    fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.random.u32(0..n) == 0
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.order += 1;
        self.events.insert((self.now.boot + after, self.order), event);
    }

    fn pass(&mut self, by: Duration) {
        self.now = Now { boot: self.now.boot + by, wall: self.now.wall + by };
    }

    fn give(&mut self, input: Input) {
        self.cause = match &input {
            Input::Wanted(_, want) if want.rejected.is_some() => "rejected",
            Input::Wanted(..) => "wanted",
            Input::RefreshWanted(_) => "manual",
            _ => "other",
        };
        let effects = self.grant.handle(input, self.now);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Refresh(attempt) => self.attempt(attempt),
                Effect::Hurry(ticket) => assert_eq!(self.running, Some(ticket), "an attempt is hurried that does not run"),
                Effect::Save(ticket, record) => self.save(ticket, record),
                Effect::Probe(ticket, _) => {
                    assert!(self.weather.held, "there is nothing to probe");
                    let verdict = [Verdict::Alive, Verdict::Rejected, Verdict::Unknown][self.random.usize(0..3)];
                    let after = Duration::from_millis(self.random.u64(0..20_000));
                    self.later(after, Event::Verdict(ticket, verdict));
                    self.probes += 1;
                }
                Effect::Reply(asker, answer) => self.reply(asker, answer),
                Effect::Tell(news) => self.told.push(news),
            }
        }
        let (at_most, now) = (WAIT_EXPIRED, self.now.boot);
        for (asker, since) in &self.askers {
            assert!(now <= *since + at_most, "asker {asker} waits for nothing since {since:?}, now {now:?}: {:?}", self.grant);
        }
    }

    fn attempt(&mut self, attempt: Attempt) {
        assert_eq!(self.running, None, "two refreshes in flight");
        if let Some((at, why)) = self.not_before {
            assert!(self.now.boot >= at, "{} bypasses the backoff after {why}: {:?} < {at:?}", self.cause, self.now.boot);
        }
        if self.cause == "wanted"
            && !self.grant.current.rejected
            && let Some(deadline) = self.grant.current.deadline
        {
            assert!(deadline.since(self.now.boot) <= self.weather.lifetime / 2, "a long min_valid_for makes every request a refresh");
        }
        self.running = Some(attempt.ticket);
        assert_eq!(attempt.refresh_token.is_none(), self.weather.by_client, "a refresh token is sent for the client, or none for a person");
        // A client's next token is for somebody who waits, or waited for the attempt before it, which was lost.
        assert!(!self.weather.by_client || self.cause != "other" || self.lost_once, "a client's token is asked for ahead of time");
        self.intent = attempt.refresh_token.as_ref().map(|token| (attempt.generation, token.fingerprint()));
        let sent_at = self.now;
        let sent = attempt.refresh_token.map(|token| token.expose().to_string());
        let bad = self.one_in(self.weather.bad_answers);
        let fault = if bad { self.random.u32(1..11) } else { 0 };
        let processed = matches!(fault, 0 | 1 | 9 | 10);
        let result = match &sent {
            _ if !processed => Ok(self.none()),
            Some(sent) => self.provider.refresh(sent, self.weather, sent_at),
            None => Ok(self.provider.for_client(self.weather.lifetime, sent_at)),
        };
        let overloaded = |after| TokenError::Overloaded { status: 503, retry_after: after };
        let result = match fault {
            0 => result,
            1 | 2 => Err(TokenError::Lost("reset".into())),
            3 => Err(TokenError::NotSent("no route".into())),
            4 => Err(overloaded(Some(S * self.random.u32(1..4000)))),
            5 => Err(overloaded(None)),
            6 if self.weather.strict => Err(TokenError::InvalidGrant(None)),
            9 => result.map(|response| TokenResponse {
                access_token: AccessToken::new(String::new()),
                unusable: Some("its token is of type DPoP, not Bearer".into()),
                ..response
            }),
            10 => result.map(|response| TokenResponse { lifetime: Some(Duration::ZERO), ..response }),
            7 => Err(TokenError::Refused { code: "invalid_client".into(), description: None }),
            _ => Err(TokenError::Unusable("html".into())),
        };
        let latency = Duration::from_millis(self.random.u64(0..if bad { 10_000 } else { 300 }));
        self.later(latency, Event::Answer(attempt.ticket, sent_at, result.map_err(AttemptError::Provider)));
    }

    fn none(&self) -> TokenResponse {
        TokenResponse {
            access_token: AccessToken::new(String::new()),
            token_type: String::new(),
            lifetime: None,
            refresh_token: None,
            refresh_token_lifetime: None,
            scopes: None,
            unusable: None,
            id_token: None,
            owner: Box::default(),
        }
    }

    fn save(&mut self, ticket: Ticket, record: Box<GrantRecord>) {
        let bad = self.one_in(self.weather.bad_saves);
        let wait = Duration::from_millis(if bad { self.random.u64(0..9_000) } else { self.random.u64(0..20) });
        let result = if bad && self.random.bool() { Err("no space".to_owned()) } else { Ok(()) };
        // One thread writes everything, in order.
        self.disk_free_at = self.disk_free_at.max(self.now.boot) + wait;
        let after = self.disk_free_at.since(self.now.boot);
        self.later(after, Event::Saved(ticket, record, result));
    }

    fn reply(&mut self, asker: Asker, answer: Result<mcp_auth_proto::TokenAnswer, mcp_auth_proto::ErrorBody>) {
        assert!(self.askers.remove(&asker).is_some(), "asker {asker} is answered twice, or had gone");
        match answer {
            Ok(token) => {
                let token = token.access_token.expose();
                self.served += 1;
                assert!(self.now.boot < self.provider.expiry[token], "{token} has expired at the provider");
                assert!(self.durable.contains(token) || self.grant.is_not_durable(), "{token} is served before it is saved");
            }
            Err(error) if error.error == ErrorCode::ProviderUnreachable => assert!(error.retry_after.is_some()),
            Err(_) => {}
        }
    }

    /// The next thing that happens by itself.
    fn happen(&mut self) {
        let wake = self.grant.wake_at();
        let event = self.events.keys().next().copied();
        let until = wake.into_iter().chain(event.map(|(at, _)| at)).min();
        self.pass(until.map_or(S, |at| at.since(self.now.boot)));
        if let Some((at, order)) = event
            && at <= self.now.boot
        {
            let event = self.events.remove(&(at, order)).unwrap();
            self.event(event);
        }
        if wake.is_some_and(|at| at <= self.now.boot) {
            self.give(Input::Woke);
            assert!(self.grant.wake_at().is_none_or(|at| at > self.now.boot), "it wants to wake at once again: {:?}", self.grant);
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Verdict(ticket, verdict) => self.give(Input::Probed(ticket, verdict)),
            Event::Answer(ticket, sent_at, result) if self.running == Some(ticket) => {
                self.running = None;
                self.expect_distance(&result);
                match &result {
                    Ok(_) => self.rejections = 0,
                    Err(AttemptError::Provider(TokenError::InvalidGrant(_))) => self.rejections += 1,
                    Err(_) => {}
                }
                let repeated = result.clone();
                self.give(Input::Refreshed(ticket, sent_at, result));
                assert!(self.grant.record().ended.is_none() || self.rejections >= 2, "one rejection ends the grant");
                self.ignores(Input::Refreshed(ticket, sent_at, repeated));
            }
            Event::Answer(ticket, sent_at, result) => self.ignores(Input::Refreshed(ticket, sent_at, result)),
            Event::Saved(ticket, record, result) => {
                if result.is_ok() {
                    assert!(record.generation >= self.disk.generation, "an older record is written after a newer one");
                    self.durable.insert(record.token.access_token.expose().to_owned());
                    self.disk = *record;
                }
                self.give(Input::Saved(ticket, result));
            }
            Event::Leaves(asker) => {
                self.askers.remove(&asker);
                self.give(Input::Cancelled(asker));
            }
        }
    }

    /// How long the provider must be left alone after this answer.
    fn expect_distance(&mut self, result: &Result<TokenResponse, AttemptError>) {
        let Err(AttemptError::Provider(error)) = result else {
            let half = result.as_ref().is_ok_and(|response| response.unusable.is_some() || response.lifetime == Some(Duration::ZERO));
            (self.not_before, self.lost_once) = (half.then(|| (self.now.boot + S, "a failure")), false);
            return;
        };
        let first_loss = matches!(error, TokenError::Lost(_)) && !self.lost_once;
        self.lost_once |= first_loss;
        self.not_before = match error {
            _ if first_loss => None,
            TokenError::Overloaded { retry_after: Some(after), .. } => Some((self.now.boot + *after, "Retry-After")),
            TokenError::InvalidGrant(_) => Some((self.now.boot + S * 2, "invalid_grant")),
            TokenError::Refused { .. } => Some((self.now.boot + HOUR.mul_f64(0.9), "a refusal")),
            TokenError::NotSent(_) => Some((self.now.boot + S, "no connection")),
            _ => Some((self.now.boot + S, "a failure")),
        };
    }

    fn ignores(&mut self, input: Input) {
        let before = (format!("{:?}", self.grant), self.grant.newest().clone());
        let effects = self.grant.handle(input, self.now);
        assert!(effects.is_empty(), "a late answer has effects: {effects:?}");
        assert_eq!(before, (format!("{:?}", self.grant), self.grant.newest().clone()), "a late answer changes something");
    }

    /// Some of the time until the next thing happens by itself.
    fn linger(&mut self) {
        let next = self.grant.wake_at().into_iter().chain(self.events.keys().next().map(|(at, _)| *at)).min();
        let room = next.map_or(Duration::ZERO, |at| at.since(self.now.boot));
        let part = 0.9 * self.random.f64();
        self.pass(room.mul_f64(part));
    }

    fn ask(&mut self) {
        if self.weather.held {
            self.linger();
        }
        self.next_asker += 1;
        let asker = self.next_asker;
        self.askers.insert(asker, self.now.boot);
        let mut want = Want::default();
        match self.random.u32(0..10) {
            0 => want.min_valid_for = Some(Duration::MAX),
            1 => want.min_valid_for = Some(self.weather.lifetime / 4),
            2 => want.rejected = Some(self.grant.record().token.access_token.clone()),
            _ => {}
        }
        want.held = self.weather.held;
        let at_once = self.grant.is_usable(want.min_valid_for, self.now) && want.rejected.is_none();
        let kept = want.held && self.grant.refresh_ends_token(self.now);
        self.give(Input::Wanted(asker, want));
        assert!(!kept || self.running.is_none(), "an asker ends a token that a program keeps");
        assert!(!at_once || !self.askers.contains_key(&asker), "someone with a usable token waits");
        if self.askers.contains_key(&asker) && self.random.u32(0..4) == 0 {
            let after = S * self.random.u32(0..5);
            self.later(after, Event::Leaves(asker));
        }
    }

    fn upheaval(&mut self) {
        match self.random.u32(0..6) {
            0 => {
                self.pass(HOUR * 8);
                for waiting_since in self.askers.values_mut() {
                    *waiting_since = self.now.boot;
                }
                self.excuse("no connection");
                self.give(Input::Woke);
                self.give(Input::Resumed);
            }
            1 => self.now.wall = Wall(self.now.wall.0 - 86_400_000),
            2 => self.now.wall = self.now.wall + HOUR * 24 * 365,
            3 => self.crash(),
            4 => {
                let until = self.now.boot + S * self.random.u32(1..60);
                let not_sent = self.random.clone().bool();
                self.give(Input::IssuerPaused { until, not_sent, retry_after: false });
            }
            _ => {
                self.next_asker += 1;
                self.askers.insert(self.next_asker, self.now.boot);
                if self.grant.last_manual.is_none_or(|last| self.now.boot >= last + MANUAL_GAP) {
                    for why in ["no connection", "a failure", "a refusal"] {
                        self.excuse(why);
                    }
                }
                self.give(Input::RefreshWanted(self.next_asker));
            }
        }
    }

    fn excuse(&mut self, why: &str) {
        self.not_before = self.not_before.filter(|(_, after)| *after != why);
    }

    /// `kill -9`, and a start from what is on disk.
    fn crash(&mut self) {
        let record = self.disk.clone();
        let interrupted = self.intent.is_some_and(|(generation, fingerprint)| {
            generation == record.generation && record.refresh_token.as_ref().is_some_and(|token| token.fingerprint() == fingerprint)
        });
        self.events.clear();
        self.askers.clear();
        (self.running, self.not_before, self.lost_once, self.rejections) = (None, None, interrupted, 0);
        self.disk_free_at = self.now.boot;
        let tickets = self.grant.tickets + 1_000_000;
        self.grant = Grant::restore(record, Some(terms(self.weather)), interrupted, self.now, (self.random.u64(..), tickets));
        let at_once = self.grant.record().ended.is_some() || self.grant.wake_at().is_some_and(|at| at <= self.now.boot);
        assert!(at_once || !interrupted, "an interrupted refresh is not repeated at once");
    }

    fn log_in(&mut self) {
        self.logins += 1;
        self.provider.revoked = false;
        let login = login(self.provider.log_in(self.weather, self.now), self.weather, self.now);
        self.provider.before = None;
        (self.running, self.not_before, self.lost_once, self.rejections) = (None, None, false, 0);
        self.give(Input::LoggedIn(login));
    }

    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            match self.random.u32(0..10) {
                0..=3 => self.ask(),
                _ => self.happen(),
            }
            if self.one_in(self.weather.upheavals) {
                self.upheaval();
            }
            let strict = self.weather.strict && !self.weather.by_client;
            if self.grant.record().ended.is_some() || (self.weather.bad_answers > 0 && strict && self.one_in(2000)) {
                self.log_in();
            }
        }
        while !self.askers.is_empty() {
            self.happen();
        }
    }
}

fn login(response: TokenResponse, weather: Weather, now: Now) -> Box<Login> {
    Box::new(Login {
        definition: Definition {
            provider: "github".into(),
            token_endpoint: Some("https://as.example/token".into()),
            client_id: Some("c".into()),
            client_credentials: weather.by_client,
            ..Definition::default()
        },
        terms: terms(weather),
        response,
        proof_key: None,
        sent_at: now,
        account: None,
        subject: None,
        resource: None,
        requested_scopes: vec![],
    })
}

/// Runs `seeds` histories; `MCP_AUTHD_HISTORIES` multiplies them for a long run by hand.
fn histories(weather: Weather, seeds: u64, steps: u32, check: impl Fn(&World) + std::panic::RefUnwindSafe) {
    let times: u64 = std::env::var("MCP_AUTHD_HISTORIES").map_or(1, |times| times.parse().expect("a number"));
    for seed in 0..seeds * times {
        let world = std::panic::catch_unwind(|| {
            let mut world = World::new(weather, seed);
            world.run(steps);
            check(&world);
        });
        assert!(world.is_ok(), "the history with seed {seed} breaks a promise");
    }
}

const CALM: Weather = Weather { lifetime: HOUR, bad_answers: 0, strict: true, bad_saves: 0, by_client: false, held: false, upheavals: 0 };

#[test]
fn every_promise_holds_under_a_strict_provider_a_failing_disk_and_crashes() {
    for lifetime in [1, 5, 60, 3600, 8 * 3600] {
        let weather = Weather { lifetime: S * lifetime, bad_answers: 4, bad_saves: 5, upheavals: 40, ..CALM };
        histories(weather, 20, 3000, |world| assert!(world.served > 100, "only {} served", world.served));
    }
}

#[test]
fn a_token_that_a_program_keeps_is_ended_by_its_time_or_by_the_provider_alone() {
    for lifetime in [60, 3600] {
        let weather = Weather { lifetime: S * lifetime, held: true, ..CALM };
        histories(weather, 10, 3000, |world| {
            assert_eq!((world.logins, world.provider.reuses), (1, 0));
            assert!(world.served > 100 && world.probes > 10, "{} served, {} probes", world.served, world.probes);
        });
    }
}

#[test]
fn with_a_grace_window_no_login_is_ever_lost() {
    for lifetime in [5, 60, 3600] {
        let weather = Weather { lifetime: S * lifetime, bad_answers: 3, strict: false, upheavals: 40, ..CALM };
        histories(weather, 20, 3000, |world| assert_eq!((world.logins, world.provider.reuses), (1, 0)));
    }
}

#[test]
fn a_client_that_asks_for_itself_never_needs_a_person_whatever_happens() {
    for lifetime in [5, 60, 3600] {
        let weather = Weather { lifetime: S * lifetime, bad_answers: 4, bad_saves: 5, by_client: true, upheavals: 40, ..CALM };
        histories(weather, 20, 3000, |world| {
            assert!(world.served > 100, "only {} served", world.served);
            assert!(world.grant.record().ended.is_none() && world.grant.record().refresh_token.is_none());
            let said = world.told.iter().find(|news| matches!(news, News::LoginRequired(_)));
            assert_eq!(said, None, "a person is asked to log in");
        });
    }
}

#[test]
fn in_calm_weather_each_token_is_replaced_by_exactly_one_refresh() {
    for lifetime in [5, 60, 3600, 8 * 3600] {
        histories(Weather { lifetime: S * lifetime, ..CALM }, 8, 2000, |world| {
            assert_eq!((world.provider.reuses, world.logins), (0, 1));
            assert_eq!(world.provider.requests + 1, world.provider.issued, "a request brought no token");
        });
    }
}

#[test]
fn a_year_goes_by_without_an_expired_token_or_a_reuse() {
    let mut world = World::new(CALM, 42);
    let end = world.now.boot + HOUR * 24 * 365;
    let mut day = 0;
    while world.now.boot < end {
        let today = world.now.boot.since_start().as_secs() / 86_400;
        if today > day {
            day = today;
            world.pass(HOUR * 8);
            world.give(Input::Woke);
            world.give(Input::Resumed);
        }
        world.ask();
        let next = world.now.boot + S * world.random.u32(1..900);
        while world.grant.wake_at().into_iter().chain(world.events.keys().map(|key| key.0)).min().is_some_and(|at| at < next) {
            world.happen();
        }
        world.pass(next.since(world.now.boot));
    }
    while !world.askers.is_empty() {
        world.happen();
    }
    assert_eq!((world.provider.reuses, world.logins), (0, 1));
    assert_eq!(world.provider.requests + 1, world.provider.issued);
    assert!(world.provider.requests > 5_000, "{} refreshes in a year of 16-hour days", world.provider.requests);
    assert!(world.served > 40_000, "{} served", world.served);
}

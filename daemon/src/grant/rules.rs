//! The rules of a grant's life, one scene each: what the random histories meet too seldom, or cannot judge.

mod assertion;
mod client;
mod ending;
mod errors;
mod held;

use mcp_auth_proto::ErrorCode;

use super::*;
use crate::clock::Wall;

const S: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What an asker is told at once.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    /// This token, with this `expires_in`.
    Token(&'static str, Option<u64>),
    /// An error, with this `retry_after`.
    No(ErrorCode, Option<u64>),
    /// Nothing yet; it waits this long at most.
    Waits(Duration),
}

/// One grant, its clock, and what it has in flight.
struct Scene {
    grant: Grant,
    now: Now,
    askers: Asker,
    running: Option<Attempt>,
    saving: Option<(Ticket, Box<GrantRecord>)>,
    probing: Option<Ticket>,
    told: Vec<News>,
    /// What those were told who had waited.
    replies: Vec<Said>,
}

fn start() -> Now {
    Now { boot: Boot::from_start(30 * DAY), wall: Wall(1_700_000_000_000) }
}

const PLAIN: Terms = terms(false, true, false);
const ON_DEMAND: Terms = terms(false, false, false);
const INVALIDATES: Terms = terms(true, true, false);
const PROBED: Terms = terms(false, true, true);

const fn terms(refresh_invalidates_access_token: bool, refresh_ahead: bool, can_probe: bool) -> Terms {
    Terms {
        refresh_invalidates_access_token,
        refresh_ahead,
        never_expires: false,
        refresh_token_lifetime: None,
        refresh_token_idle_lifetime: None,
        can_probe,
        refresh_scopes: Vec::new(),
        login: mcp::LoginKind::Code,
    }
}

fn response(access: &str, refresh: Option<&str>, lifetime: Option<Duration>) -> TokenResponse {
    TokenResponse {
        access_token: AccessToken::new(access.into()),
        token_type: "bearer".into(),
        lifetime,
        refresh_token: refresh.map(|token| RefreshToken::new(token.into())),
        refresh_token_lifetime: None,
        scopes: None,
        unusable: None,
        id_token: None,
        owner: Box::default(),
    }
}

fn login(terms: &Terms, response: TokenResponse, now: Now) -> Box<Login> {
    let definition = Definition { provider: "corp".into(), client_id: Some("c".into()), ..Definition::default() };
    let (account, subject, resource, proof_key) = (None, None, None, None);
    let (terms, requested_scopes) = (terms.clone(), vec!["read".into()]);
    Box::new(Login { definition, terms, response, proof_key, sent_at: now, account, subject, resource, requested_scopes })
}

fn lost() -> AttemptError {
    AttemptError::Provider(TokenError::Lost("reset".into()))
}

fn not_sent() -> AttemptError {
    AttemptError::Provider(TokenError::NotSent("no route".into()))
}

fn invalid_grant() -> AttemptError {
    AttemptError::Provider(TokenError::InvalidGrant(None))
}

fn refused() -> AttemptError {
    AttemptError::Provider(TokenError::Refused { code: "invalid_client".into(), description: None })
}

fn overloaded(retry_after: Option<Duration>) -> AttemptError {
    AttemptError::Provider(TokenError::Overloaded { status: 429, retry_after })
}

fn at_least(seconds: u64) -> Want {
    Want { min_valid_for: Some(S * u32::try_from(seconds).unwrap()), ..Want::default() }
}

fn rejecting(token: &str) -> Want {
    Want { rejected: Some(AccessToken::new(token.into())), ..Want::default() }
}

impl Scene {
    /// A grant just logged in and saved: `at-1`, and `rt-1` if it can be refreshed.
    fn new(terms: &Terms, lifetime: Option<Duration>) -> Self {
        Self::with(terms, response("at-1", Some("rt-1"), lifetime))
    }

    /// One that cannot be refreshed.
    fn fixed(terms: &Terms, lifetime: Option<Duration>) -> Self {
        Self::with(terms, response("at-1", None, lifetime))
    }

    fn with(terms: &Terms, response: TokenResponse) -> Self {
        Self::logged_in(login(terms, response, start()))
    }

    fn logged_in(login: Box<Login>) -> Self {
        let now = start();
        let (grant, effects) = Grant::logged_in("corp".parse().unwrap(), login, now, (7, 0));
        let (askers, running, saving, probing) = (0, None, None, None);
        let mut scene = Self { grant, now, askers, running, saving, probing, told: Vec::new(), replies: Vec::new() };
        scene.carry_out(effects);
        scene.saved(Ok(()));
        scene
    }

    fn give(&mut self, input: Input) {
        let effects = self.grant.handle(input, self.now);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Refresh(attempt) => self.running = Some(attempt),
                Effect::Hurry(_) => {}
                Effect::Save(ticket, record) => self.saving = Some((ticket, record)),
                Effect::Probe(ticket, _) => self.probing = Some(ticket),
                Effect::Tell(news) => self.told.push(news),
                Effect::Reply(_, Ok(answer)) => {
                    let known = ["at-1", "at-2", "at-3", "at-4"];
                    let token = known.into_iter().find(|known| *known == answer.access_token.expose()).unwrap();
                    self.replies.push(Said::Token(token, answer.expires_in));
                }
                Effect::Reply(_, Err(error)) => self.replies.push(Said::No(error.error, error.retry_after)),
            }
        }
    }

    /// Lets time pass without looking at the clock in between.
    fn pass(&mut self, by: Duration) {
        self.now = Now { boot: self.now.boot + by, wall: self.now.wall + by };
    }

    /// Lets time pass, waking when that is wanted.
    fn live(&mut self, by: Duration) {
        let end = self.now.boot + by;
        while let Some(at) = self.grant.wake_at().filter(|at| *at <= end) {
            self.pass(at.since(self.now.boot));
            self.give(Input::Woke);
            assert!(self.grant.wake_at().is_none_or(|at| at > self.now.boot), "it wants to wake at once again");
        }
        self.pass(end.since(self.now.boot));
    }

    fn ask(&mut self, want: Want) -> Said {
        self.askers += 1;
        self.said(Input::Wanted(self.askers, want))
    }

    fn plainly(&mut self) -> Said {
        self.ask(Want::default())
    }

    fn by_hand(&mut self) -> Said {
        self.askers += 1;
        self.said(Input::RefreshWanted(self.askers))
    }

    fn said(&mut self, input: Input) -> Said {
        self.replies.clear();
        self.give(input);
        let waits = || Said::Waits(self.grant.waiters.last().expect("it is answered or waits").deadline.since(self.now.boot));
        self.replies.pop().unwrap_or_else(waits)
    }

    /// The running attempt ends, after its second sending if its answer was lost.
    fn fails(&mut self, error: AttemptError) {
        let attempt = self.running.take().expect("an attempt runs");
        self.give(Input::Refreshed(attempt.ticket, self.now, Err(error)));
    }

    fn succeeds(&mut self, access: &str, lifetime: Option<Duration>) {
        let attempt = self.running.take().expect("an attempt runs");
        self.give(Input::Refreshed(attempt.ticket, self.now, Ok(response(access, Some("rt-next"), lifetime))));
    }

    fn saved(&mut self, result: Result<(), String>) {
        let (ticket, _) = self.saving.take().expect("a save runs");
        self.give(Input::Saved(ticket, result));
    }

    /// In how long the next refresh starts by itself.
    fn planned_in(&self) -> Option<Duration> {
        self.grant.planned().map(|at| at.since(self.now.boot))
    }

    /// The daemon, or the machine too, starts anew after this long.
    fn restarted(&mut self, after: Duration, uptime: Option<Duration>) {
        self.pass(after);
        if let Some(uptime) = uptime {
            self.now.boot = Boot::from_start(uptime);
        }
        let (record, terms) = (self.grant.record().clone(), self.grant.terms.clone());
        self.grant = Grant::restore(record, terms, false, self.now, (8, 1_000));
        (self.running, self.saving, self.probing) = (None, None, None);
    }

    fn state(&self) -> mcp_auth_proto::GrantState {
        self.grant.summary(self.now).state
    }
}

#[test]
fn whoever_asks_for_more_than_remains_waits_for_a_refresh_and_nobody_else() {
    for (lifetime, age, want, served) in [
        (HOUR, 3589 * S, Want::default(), true),
        (HOUR, 3591 * S, Want::default(), false),
        (MINUTE, 54 * S, Want::default(), true),
        (MINUTE, 55 * S, Want::default(), false),
        (HOUR, 2700 * S, at_least(900), true),
        (HOUR, 2701 * S, at_least(900), false),
        (HOUR, 1800 * S, at_least(1_000_000), true),
        (HOUR, 1801 * S, at_least(1_000_000), false),
        (HOUR, 3591 * S, at_least(0), false),
    ] {
        let mut scene = Scene::new(&PLAIN, Some(lifetime));
        scene.pass(age);
        let said = scene.ask(want.clone());
        assert_eq!(matches!(said, Said::Token(..)), served, "{lifetime:?} {age:?} {want:?}: {said:?}");
        assert_eq!(scene.running.is_none(), served, "{lifetime:?} {age:?} {want:?}");
    }
}

#[test]
fn an_asker_waits_two_fifteen_or_thirty_seconds() {
    for (age, want, patience, after) in [
        (3595 * S, Want::default(), 2 * S, Said::Token("at-1", Some(3))),
        (3000 * S, at_least(1800), 15 * S, Said::Token("at-1", Some(585))),
        (3600 * S, Want::default(), 30 * S, Said::No(ErrorCode::ProviderUnreachable, Some(1))),
        (3600 * S, at_least(60), 30 * S, Said::No(ErrorCode::ProviderUnreachable, Some(1))),
    ] {
        let mut scene = Scene::new(&PLAIN, Some(HOUR));
        scene.pass(age);
        assert_eq!(scene.ask(want), Said::Waits(patience), "{age:?}");
        assert_eq!(scene.grant.wake_at(), Some(scene.now.boot + patience));
        scene.live(patience);
        assert_eq!(scene.replies, [after], "{age:?}");
    }
}

#[test]
fn a_token_that_is_expired_on_arrival_brings_its_refresh_token_and_leaves_the_one_before_in_service() {
    for lifetime in [Duration::ZERO, S] {
        let mut scene = Scene::new(&PLAIN, Some(HOUR));
        scene.pass(3400 * S);
        scene.give(Input::Woke);
        let sent_at = scene.now;
        scene.pass(2 * S);
        let attempt = scene.running.take().expect("an attempt runs");
        let late = response("at-2", Some("rt-2"), Some(lifetime));
        scene.give(Input::Refreshed(attempt.ticket, sent_at, Ok(late)));
        scene.saved(Ok(()));
        assert_eq!(scene.plainly(), Said::Token("at-1", Some(198)), "{lifetime:?}");
        assert!(scene.planned_in().is_some_and(|wait| wait >= S), "a hot loop: {:?}", scene.planned_in());
        scene.live(10 * S);
        let again = scene.running.take().expect("it is tried again");
        assert_eq!(again.refresh_token, Some(RefreshToken::new("rt-2".into())), "the old refresh token is used up");
    }
}

#[test]
fn an_asker_whose_old_token_expires_meanwhile_waits_for_the_attempt_like_everybody_without_one() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.pass(3599 * S);
    assert_eq!(scene.plainly(), Said::Waits(2 * S));
    scene.live(20 * S);
    assert_eq!(scene.replies, []);
    scene.succeeds("at-2", Some(HOUR));
    scene.saved(Ok(()));
    assert_eq!(scene.replies, [Said::Token("at-2", Some(3600))]);

    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.pass(3599 * S);
    scene.plainly();
    scene.live(30 * S);
    assert_eq!(scene.replies, [Said::No(ErrorCode::ProviderUnreachable, Some(1))]);
}

#[test]
fn in_backoff_the_old_token_is_served_at_once_and_an_expired_one_is_an_error_at_once() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.live(3500 * S);
    scene.fails(overloaded(Some(MINUTE * 10)));
    assert_eq!(scene.ask(at_least(1800)), Said::Token("at-1", Some(100)));
    scene.pass(100 * S);
    assert_eq!(scene.plainly(), Said::No(ErrorCode::ProviderUnreachable, Some(500)));
    assert!(scene.running.is_none());
}

#[test]
fn an_unknown_expiry_is_planned_as_an_hour_once_asked_for_and_else_as_a_week() {
    let mut scene = Scene::new(&PLAIN, None);
    assert_eq!(scene.planned_in(), Some(7 * DAY));
    assert_eq!(scene.plainly(), Said::Token("at-1", None));
    assert_eq!(scene.planned_in(), Some(HOUR));
    scene.live(HOUR);
    assert!(scene.running.is_some());
    scene.succeeds("at-2", None);
    scene.saved(Ok(()));
    assert_eq!(scene.planned_in(), Some(7 * DAY));
    assert_eq!(Scene::new(&ON_DEMAND, None).planned_in(), None);
}

#[test]
fn the_week_of_an_unknown_expiry_goes_on_over_restarts_of_the_machine() {
    for (age, uptime, expected) in [
        (6 * DAY, None, DAY),
        (6 * DAY, Some(10 * S), DAY),
        (6 * DAY, Some(10 * DAY), DAY),
        (8 * DAY, Some(10 * S), Duration::ZERO),
        (40 * DAY, Some(2 * DAY), Duration::ZERO),
    ] {
        let mut scene = Scene::new(&PLAIN, None);
        scene.restarted(age, uptime);
        assert_eq!(scene.planned_in(), Some(expected), "{age:?} {uptime:?}");
        assert_eq!(scene.plainly(), Said::Token("at-1", None));
    }
}

#[test]
fn a_rejection_forces_one_refresh_a_minute_and_none_of_a_young_or_other_token() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.pass(9 * S);
    assert!(matches!(scene.ask(rejecting("at-1")), Said::Token("at-1", _)), "within 10 s of issue");
    scene.pass(S);
    assert!(matches!(scene.ask(rejecting("at-0")), Said::Token("at-1", _)), "not the current token");
    assert_eq!(scene.ask(rejecting("at-1")), Said::Waits(2 * S));
    scene.succeeds("at-2", Some(HOUR));
    scene.saved(Ok(()));
    assert_eq!(scene.replies, [Said::Token("at-2", Some(3600))]);

    scene.pass(30 * S);
    assert!(matches!(scene.ask(rejecting("at-2")), Said::Token("at-2", _)), "within 60 s of the last");
    scene.pass(30 * S);
    assert_eq!(scene.ask(rejecting("at-2")), Said::Waits(2 * S));
    scene.fails(overloaded(Some(HOUR)));
    assert!(matches!(scene.replies[..], [Said::Token("at-2", _)]), "the old one is better than none");
    scene.pass(MINUTE * 2);
    assert!(matches!(scene.ask(rejecting("at-2")), Said::Token("at-2", _)), "once per token");
    assert!(scene.running.is_none());
}

#[test]
fn a_rejected_token_without_refresh_token_is_tried_at_userinfo() {
    for (verdict, said) in [
        (Verdict::Alive, Said::Token("at-1", None)),
        (Verdict::Unknown, Said::Token("at-1", None)),
        (Verdict::Rejected, Said::No(ErrorCode::LoginRequired, None)),
    ] {
        let mut scene = Scene::fixed(&PROBED, None);
        assert_eq!(scene.ask(rejecting("at-1")), Said::Waits(15 * S));
        assert_eq!(scene.plainly(), Said::Token("at-1", None), "others do not wait");
        let probe = scene.probing.take().unwrap();
        assert_eq!(scene.ask(rejecting("at-1")), Said::Waits(15 * S));
        assert_eq!(scene.probing, None, "one probe at a time");
        scene.replies.clear();
        scene.give(Input::Probed(probe, verdict));
        assert_eq!(scene.replies, [said.clone(), said.clone()]);
        assert_eq!(scene.plainly(), said);
        assert_eq!(scene.told.iter().any(|news| matches!(news, News::LoginRequired(_))), verdict == Verdict::Rejected);

        scene.ask(rejecting("at-1"));
        assert_eq!(scene.probing, None, "at most one probe a minute");
        scene.pass(MINUTE);
        scene.ask(rejecting("at-1"));
        assert_eq!(scene.probing.is_some(), verdict != Verdict::Rejected);
    }
}

#[test]
fn a_verdict_on_the_token_before_a_login_says_nothing_of_the_new_one() {
    let mut scene = Scene::fixed(&PROBED, None);
    scene.give(Input::LoggedIn(login(&PROBED, response("at-2", None, None), scene.now)));
    assert_eq!(scene.ask(rejecting("at-1")), Said::Waits(15 * S), "it is not saved yet");
    scene.saved(Ok(()));
    assert_eq!(scene.replies, [Said::Token("at-2", None)]);
    let probe = scene.probing.take().unwrap();
    scene.give(Input::Probed(probe, Verdict::Rejected));
    assert_eq!(scene.plainly(), Said::Token("at-2", None));
}

#[test]
fn without_userinfo_a_rejection_counts_when_it_is_repeated_after_a_minute() {
    let mut scene = Scene::fixed(&PLAIN, None);
    for (after, said) in [
        (0, Said::Token("at-1", None)),
        (59, Said::Token("at-1", None)),
        (1, Said::No(ErrorCode::LoginRequired, None)),
        (0, Said::No(ErrorCode::LoginRequired, None)),
    ] {
        scene.pass(S * after);
        assert_eq!(scene.ask(rejecting("at-1")), said);
    }
    let told = scene.told.iter().filter(|news| matches!(news, News::LoginRequired(_))).count();
    assert_eq!((told, scene.state()), (1, mcp_auth_proto::GrantState::LoginRequired));
    assert_eq!(scene.grant.record().token.access_token.expose(), "at-1", "the record stays");
}

#[test]
fn a_refresh_by_hand_goes_past_a_backoff_but_not_past_retry_after() {
    for (error, goes) in [
        (overloaded(Some(MINUTE)), false),
        (overloaded(None), true),
        (not_sent(), true),
        (refused(), true),
        (AttemptError::Provider(TokenError::Unusable("html".into())), true),
    ] {
        let mut scene = Scene::new(&PLAIN, Some(HOUR));
        scene.live(3500 * S);
        scene.fails(error.clone());
        let said = scene.by_hand();
        assert_eq!(scene.running.is_some(), goes, "{error:?}");
        assert_eq!(said == Said::No(ErrorCode::ProviderUnreachable, Some(60)), !goes, "{error:?}: {said:?}");
    }
}

#[test]
fn a_refresh_by_hand_minds_the_retry_after_that_another_grant_was_told() {
    for (not_sent, retry_after, goes) in [(false, true, false), (false, false, true), (true, false, true)] {
        let mut scene = Scene::new(&PLAIN, Some(HOUR));
        scene.give(Input::IssuerPaused { until: scene.now.boot + MINUTE, not_sent, retry_after });
        scene.by_hand();
        assert_eq!(scene.running.is_some(), goes, "{not_sent} {retry_after}");
    }
}

#[test]
fn what_another_attempt_met_does_not_shorten_an_issuers_retry_after() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.pass(HOUR);
    let until = scene.now.boot + HOUR;
    scene.give(Input::IssuerPaused { until, not_sent: false, retry_after: true });
    scene.give(Input::IssuerPaused { until: scene.now.boot + S, not_sent: true, retry_after: false });
    scene.give(Input::IssuerRecovered);
    assert_eq!(scene.grant.spared_until(scene.now), Some(until));
    assert_eq!(scene.plainly(), Said::No(ErrorCode::ProviderUnreachable, Some(3600)));
    scene.pass(HOUR);
    assert_eq!(scene.plainly(), Said::Waits(30 * S));
}

#[test]
fn a_refresh_by_hand_is_for_once_in_ten_seconds() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    assert_eq!(scene.by_hand(), Said::Waits(30 * S), "the old token is no answer");
    assert_eq!(scene.by_hand(), Said::Waits(30 * S), "who joins it sends nothing");
    scene.succeeds("at-2", Some(HOUR));
    scene.saved(Ok(()));
    scene.pass(9 * S);
    assert!(matches!(scene.by_hand(), Said::No(ErrorCode::TooManyRequests, Some(1..=2))));
    assert!(scene.running.is_none());
    scene.pass(S);
    assert_eq!(scene.by_hand(), Said::Waits(30 * S));
}

#[test]
fn a_provider_that_was_not_reached_is_tried_every_fifteen_seconds_while_somebody_asks() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.live(HOUR);
    for _ in 0..20 {
        if scene.running.is_none() {
            assert_eq!(scene.plainly(), Said::Waits(30 * S));
        }
        scene.fails(not_sent());
        assert!(matches!(scene.plainly(), Said::No(ErrorCode::ProviderUnreachable, Some(1..=15))), "askers never bypass it");
        scene.pass(15 * S);
    }
    assert!(scene.grant.trouble.failures > 8);
    scene.plainly();
    scene.fails(not_sent());
    scene.give(Input::Resumed);
    assert_eq!(scene.planned_in(), Some(Duration::ZERO), "a resume resets it");
}

#[test]
fn a_refused_client_is_tried_again_hourly_and_needs_a_login_once_the_token_has_expired() {
    for terms in [&PLAIN, &ON_DEMAND] {
        let mut scene = Scene::new(terms, Some(HOUR));
        scene.pass(3300 * S);
        scene.ask(at_least(1800));
        scene.fails(refused());
        assert!(matches!(scene.plainly(), Said::Token("at-1", _)), "it is valid all the same");
        scene.pass(300 * S);
        assert_eq!(scene.plainly(), Said::No(ErrorCode::LoginRequired, None));
        assert_eq!(scene.state(), mcp_auth_proto::GrantState::LoginRequired);
        assert!(scene.running.is_none());

        scene.live(3300 * S);
        assert_eq!(scene.running.is_some(), terms.refresh_ahead);
        assert_eq!(scene.plainly(), Said::Waits(30 * S), "{terms:?}");
        scene.succeeds("at-2", Some(HOUR));
        scene.saved(Ok(()));
        assert_eq!(scene.replies, [Said::Token("at-2", Some(3600))]);
    }
}

#[test]
fn what_a_person_changes_makes_a_refused_client_worth_another_try_at_once() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.live(HOUR);
    scene.fails(refused());
    scene.give(Input::Defined(Some(PLAIN)));
    assert_eq!(scene.plainly(), Said::Waits(30 * S));
}

#[test]
fn a_grant_whose_definition_changed_serves_nothing_and_heals_when_it_returns() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.give(Input::Defined(None));
    assert_eq!(scene.plainly(), Said::No(ErrorCode::LoginRequired, None));
    assert_eq!(scene.by_hand(), Said::No(ErrorCode::LoginRequired, None));
    assert_eq!((scene.grant.wake_at(), scene.state()), (None, mcp_auth_proto::GrantState::LoginRequired));
    scene.pass(MINUTE);
    scene.give(Input::Defined(Some(PLAIN)));
    assert_eq!(scene.plainly(), Said::Token("at-1", Some(3540)));

    scene.live(3300 * S);
    scene.give(Input::Defined(None));
    scene.succeeds("at-2", Some(HOUR));
    scene.saved(Ok(()));
    assert_eq!(scene.plainly(), Said::No(ErrorCode::LoginRequired, None));
    scene.give(Input::Defined(Some(PLAIN)));
    assert!(matches!(scene.plainly(), Said::Token("at-2", _)), "what was in flight is kept");
    assert!(scene.planned_in() > Some(HOUR / 2), "and counts as no failure");
}

#[test]
fn a_login_under_a_new_definition_does_not_revive_the_token_of_the_old_one() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.give(Input::Defined(None));
    scene.give(Input::LoggedIn(login(&PLAIN, response("at-2", Some("rt-2"), Some(HOUR)), scene.now)));
    assert!(matches!(scene.plainly(), Said::Waits(_)));
    scene.saved(Ok(()));
    assert_eq!(scene.replies, [Said::Token("at-2", Some(3600))]);
}

#[test]
fn a_record_from_the_future_is_refreshed_before_use() {
    for lifetime in [Some(HOUR), None] {
        let mut scene = Scene::new(&PLAIN, lifetime);
        scene.now.wall = Wall(scene.now.wall.0 - 86_400_000);
        scene.restarted(Duration::ZERO, None);
        assert_eq!(scene.planned_in(), Some(Duration::ZERO));
        assert_eq!(scene.plainly(), Said::Waits(30 * S), "{lifetime:?}");
        scene.succeeds("at-2", lifetime);
        scene.saved(Ok(()));
        assert!(matches!(scene.replies[..], [Said::Token("at-2", _)]));
    }
    let mut scene = Scene::fixed(&PLAIN, Some(HOUR));
    scene.now.wall = Wall(scene.now.wall.0 - 86_400_000);
    scene.restarted(Duration::ZERO, None);
    assert_eq!(scene.plainly(), Said::Token("at-1", None), "there is nothing better, and no expiry is invented");
}

#[test]
fn where_a_refresh_kills_the_token_it_comes_late_and_the_token_is_said_to_end_with_it() {
    for (lifetime, lead) in [(2 * HOUR, 24.0..=30.0), (20 * S, 8.0..=10.0)] {
        let mut scene = Scene::new(&INVALIDATES, Some(lifetime));
        let planned = scene.planned_in().unwrap();
        assert!(lead.contains(&(lifetime - planned).as_secs_f64()), "{planned:?} of {lifetime:?}");
        assert_eq!(scene.plainly(), Said::Token("at-1", Some(planned.as_secs())));
    }
    let mut scene = Scene::new(&INVALIDATES, Some(HOUR));
    let planned = scene.planned_in().unwrap();
    scene.live(planned);
    assert!(matches!(scene.plainly(), Said::Token("at-1", Some(23..=30))), "past the plan the true end is told");
    scene.succeeds("at-2", Some(HOUR));
    assert_eq!(scene.plainly(), Said::Waits(30 * S), "the old one is dead, the new one not saved");
    scene.saved(Ok(()));
    assert!(matches!(scene.replies[..], [Said::Token("at-2", Some(3500..))]));
}

#[test]
fn what_the_disk_does_not_take_is_served_and_not_replaced_while_it_is_valid() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.live(HOUR);
    scene.succeeds("at-2", Some(HOUR));
    scene.saved(Err("no space".into()));
    assert!(scene.grant.is_not_durable() && matches!(scene.told.last(), Some(News::Refreshed)));
    for _ in 0..58 {
        scene.live(MINUTE);
        assert!(scene.running.is_none(), "rotated in RAM while it is valid");
        assert!(matches!(scene.ask(at_least(1800)), Said::Token("at-2", _)));
        if scene.saving.is_some() {
            scene.saved(Err("no space".into()));
        }
    }
    assert!(matches!(scene.by_hand(), Said::No(ErrorCode::ProviderUnreachable, Some(1))));
    assert!(scene.running.is_none());
    scene.live(2 * MINUTE);
    assert!(scene.running.as_ref().is_some_and(|attempt| attempt.even_if_not_durable), "an expired one is");
    scene.succeeds("at-3", Some(HOUR));
    scene.told.clear();
    scene.saved(Ok(()));
    assert!(!scene.grant.is_not_durable());
    assert!(scene.told.iter().any(|news| matches!(news, News::Durable)), "whoever heard of the disk hears that it works again");
}

#[test]
fn an_attempt_that_the_disk_kept_from_leaving_is_repeated_slowly_and_leaves_once_the_token_has_expired() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.live(3500 * S);
    scene.fails(AttemptError::NotDurable("no space".into()));
    assert!(scene.planned_in() >= Some(S), "{:?}", scene.planned_in());
    while scene.running.is_none() {
        scene.live(S);
    }
    let attempt = scene.running.clone().unwrap();
    assert!(!attempt.even_if_not_durable);
    // It expires while the disk is being tried.
    scene.live(2 * MINUTE);
    assert_eq!(scene.plainly(), Said::Waits(30 * S));
    scene.fails(AttemptError::NotDurable("no space".into()));
    let next = scene.running.as_ref().expect("nobody waits any longer");
    assert!(next.ticket != attempt.ticket && next.even_if_not_durable);
}

#[test]
fn a_daemon_that_stops_sends_nothing_and_lets_nobody_wait() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.live(2 * HOUR);
    assert_eq!(scene.plainly(), Said::Waits(30 * S));
    scene.fails(AttemptError::Stopping);
    assert!(scene.running.is_none() && scene.grant.is_at_rest());
    assert!(matches!(scene.replies[..], [Said::No(ErrorCode::ProviderUnreachable, Some(_))]), "{:?}", scene.replies);
}

#[test]
fn a_grant_ends_at_the_second_invalid_grant_and_serves_until_its_token_expires() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.live(3500 * S);
    scene.fails(invalid_grant());
    assert!(scene.planned_in() >= Some(2 * S) && scene.planned_in() <= Some(10 * S));
    assert!(scene.grant.record().ended.is_none());
    scene.live(10 * S);
    scene.fails(invalid_grant());
    assert_eq!(scene.state(), mcp_auth_proto::GrantState::LoginRequired);
    assert!(matches!(scene.told.last(), Some(News::LoginRequired(_))) && scene.saving.is_some());
    scene.saved(Ok(()));
    assert_eq!(scene.grant.wake_at(), None);
    assert_eq!(scene.plainly(), Said::Token("at-1", Some(90)));
    scene.restarted(S, None);
    assert_eq!(scene.plainly(), Said::Token("at-1", Some(89)), "marked dead, over a restart");
    assert_eq!(scene.ask(rejecting("at-1")), Said::No(ErrorCode::LoginRequired, None), "a client's rejection ends that");
}

#[test]
fn a_lost_answer_is_followed_by_the_same_token_at_once_and_its_end_is_called_ambiguous() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.live(HOUR);
    let first = scene.running.clone().unwrap();
    scene.fails(lost());
    let second = scene.running.clone().expect("sent again at once");
    assert!(second.ticket != first.ticket && second.refresh_token == first.refresh_token);
    scene.fails(invalid_grant());
    assert!(scene.grant.record().ended.is_none(), "that is the first of two");
    assert_eq!(scene.plainly(), Said::Waits(30 * S), "who has nothing waits for the confirmation");
    scene.live(10 * S);
    scene.fails(invalid_grant());
    assert!(scene.grant.record().ended.as_ref().unwrap().reason.starts_with("ambiguous rotation"));
    assert_eq!(scene.replies, [Said::No(ErrorCode::LoginRequired, None)]);
}

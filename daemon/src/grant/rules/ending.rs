//! Refresh tokens that end by themselves: what is told, what moves an idle end on, and what comes after.

use super::*;
use crate::oauth::token::RefreshTokenLifetime::{Endless, Lasts};

/// Terms whose refresh tokens live so long, absolutely and unused.
fn living(terms: &Terms, absolute: Option<Duration>, idle: Option<Duration>) -> Terms {
    Terms { refresh_token_lifetime: absolute, refresh_token_idle_lifetime: idle, ..terms.clone() }
}

fn telling(lifetime: Duration) -> TokenResponse {
    TokenResponse { refresh_token_lifetime: Some(Lasts(lifetime)), ..response("at-1", Some("rt-1"), Some(HOUR)) }
}

impl Scene {
    /// In how long the refresh token ends, as people are told.
    fn ends_in(&self) -> Option<Duration> {
        self.grant.summary(self.now).refresh_token_expires_in.map(Duration::from_secs)
    }

    fn warnings(&self) -> usize {
        self.told.iter().filter(|news| matches!(news, News::RefreshTokenEnding(_))).count()
    }

    fn live_until_it_refreshes(&mut self) {
        for _ in 0..24 * 60 {
            if self.running.is_some() {
                return;
            }
            self.live(MINUTE);
        }
        panic!("a day without a refresh");
    }

    /// Lives so long and lets every refresh succeed.
    fn live_well(&mut self, by: Duration, answer: impl Fn(Now) -> TokenResponse) -> usize {
        let (end, mut refreshes) = (self.now.boot + by, 0);
        while self.now.boot < end {
            let next = self.grant.wake_at().map_or(end, |at| at.min(end));
            self.live(next.since(self.now.boot));
            if let Some(attempt) = self.running.take() {
                refreshes += 1;
                assert!(refreshes < 10_000, "it refreshes in a loop");
                self.give(Input::Refreshed(attempt.ticket, self.now, Ok(answer(self.now))));
                self.saved(Ok(()));
            }
        }
        refreshes
    }
}

#[test]
fn an_absolute_end_counts_from_the_login_and_no_refresh_moves_it() {
    let mut scene = Scene::new(&living(&PLAIN, Some(30 * DAY), None), Some(HOUR));
    assert_eq!(scene.ends_in(), Some(30 * DAY));
    assert!(scene.live_well(26 * DAY, |_| response("at-2", Some("rt-2"), Some(HOUR))) > 600);
    assert_eq!((scene.ends_in(), scene.warnings()), (Some(4 * DAY), 0));
    scene.live_well(DAY + MINUTE, |_| response("at-2", Some("rt-2"), Some(HOUR)));
    assert_eq!(scene.warnings(), 1, "three days before");
    assert!(scene.grant.summary(scene.now).refresh_token_ending);
    scene.live_well(DAY, |_| response("at-2", Some("rt-2"), Some(HOUR)));
    assert_eq!(scene.warnings(), 1);
    scene.live_well(DAY, |_| response("at-2", Some("rt-2"), Some(HOUR)));
    assert_eq!(scene.warnings(), 2, "and one day before");
    scene.live_well(7 * DAY, |_| response("at-2", Some("rt-2"), Some(HOUR)));
    assert_eq!(scene.warnings(), 2, "never in a loop");

    scene.give(Input::LoggedIn(login(&living(&PLAIN, Some(30 * DAY), None), response("at-3", Some("rt-3"), Some(HOUR)), scene.now)));
    scene.saved(Ok(()));
    assert_eq!(scene.ends_in(), Some(30 * DAY), "a login begins anew");
    assert!(!scene.grant.summary(scene.now).refresh_token_ending);
}

#[test]
fn a_short_life_is_warned_of_in_its_last_tenth() {
    let mut scene = Scene::new(&living(&ON_DEMAND, Some(10 * HOUR), None), Some(HOUR));
    scene.live(9 * HOUR - S);
    assert_eq!((scene.warnings(), scene.planned_in()), (0, None), "an absolute end is not worth a refresh");
    scene.live(S);
    assert_eq!(scene.warnings(), 1);
    let News::RefreshTokenEnding(said) = scene.told.last().unwrap() else { panic!("{:?}", scene.told) };
    assert!(said.contains("mcp-authctl login corp") && said.contains("2023-"), "{said}");
    scene.live(HOUR);
    assert_eq!((scene.warnings(), scene.grant.wake_at()), (2, None), "and then there is nothing to wake for");
}

#[test]
fn a_refresh_token_that_nobody_needs_is_used_when_half_of_its_idle_life_is_over() {
    let never = Terms { never_expires: true, ..PLAIN };
    for (terms, lifetime) in [(&ON_DEMAND, Some(HOUR)), (&never, None)] {
        let mut scene = Scene::new(&living(terms, None, Some(90 * DAY)), lifetime);
        assert_eq!((scene.planned_in(), scene.ends_in()), (Some(45 * DAY), Some(90 * DAY)));
        let refreshes = scene.live_well(365 * DAY, |_| response("at-2", Some("rt-2"), lifetime));
        assert_eq!((refreshes, scene.warnings()), (8, 0), "{terms:?}");
    }
}

#[test]
fn an_idle_end_that_cannot_be_moved_is_told_of() {
    let mut scene = Scene::new(&living(&ON_DEMAND, None, Some(90 * DAY)), Some(HOUR));
    scene.live(45 * DAY);
    for _ in 0..43 {
        scene.fails(not_sent());
        scene.live(DAY);
        assert!(scene.running.is_some(), "it is tried again");
    }
    assert_eq!((scene.warnings(), scene.ends_in()), (1, Some(2 * DAY)));
}

#[test]
fn what_the_answer_tells_counts_before_the_config_and_is_kept_when_a_later_one_is_silent() {
    let terms = living(&PLAIN, Some(DAY), Some(DAY));
    let mut scene = Scene::with(&terms, telling(30 * DAY));
    assert_eq!(scene.ends_in(), Some(30 * DAY));
    scene.live_well(10 * DAY, |_| response("at-2", Some("rt-2"), Some(HOUR)));
    assert_eq!(scene.ends_in(), Some(20 * DAY));
    scene.restarted(DAY, Some(10 * S));
    assert_eq!(scene.ends_in(), Some(19 * DAY), "over a restart");

    let endless = TokenResponse { refresh_token_lifetime: Some(Endless), ..telling(DAY) };
    let mut scene = Scene::with(&terms, endless);
    assert_eq!(scene.ends_in(), None, "zero means that it does not end");
    scene.live_well(2 * DAY, |_| telling(60 * DAY));
    assert!(scene.ends_in() > Some(59 * DAY), "each answer may tell another");
    assert_eq!(Scene::fixed(&terms, Some(HOUR)).ends_in(), None, "there is no refresh token");
}

#[test]
fn a_server_that_tells_what_is_left_is_believed_to_tell_of_one_end() {
    let mut scene = Scene::with(&PLAIN, telling(10 * DAY));
    let end = scene.now.boot + 10 * DAY;
    let what_is_left = |now: Now| telling(end.since(now.boot) - S * u32::try_from(now.boot.since_start().as_secs() % 2).unwrap());
    scene.live_well(9 * DAY - HOUR, what_is_left);
    assert_eq!(scene.warnings(), 0);
    scene.live_well(DAY, what_is_left);
    assert_eq!(scene.warnings(), 2, "a tenth of the whole life before, not of what was left");
}

#[test]
fn a_told_end_is_worth_one_use_of_the_refresh_token_and_no_more_if_that_does_not_move_it() {
    let mut scene = Scene::with(&ON_DEMAND, telling(8 * DAY));
    assert_eq!(scene.planned_in(), Some(4 * DAY));
    let refreshes = scene.live_well(8 * DAY, |_| response("at-2", Some("rt-2"), Some(HOUR)));
    assert_eq!((refreshes, scene.warnings()), (1, 2));
}

#[test]
fn after_the_end_the_providers_word_ends_the_grant_with_that_reason() {
    let mut scene = Scene::new(&living(&PLAIN, Some(DAY), None), Some(HOUR));
    scene.live_well(DAY, |_| response("at-2", Some("rt-2"), Some(HOUR)));
    scene.live_until_it_refreshes();
    scene.fails(invalid_grant());
    assert!(scene.grant.record().ended.is_none(), "only the provider's word, said twice, ends a grant");
    scene.live(10 * S);
    scene.fails(invalid_grant());
    let reason = &scene.grant.record().ended.as_ref().unwrap().reason;
    assert!(reason.starts_with("its refresh token ended at 2023-11-15T22:13:20Z, and "), "{reason}");
    assert_eq!((scene.state(), scene.ends_in()), (mcp_auth_proto::GrantState::LoginRequired, None));
    scene.saved(Ok(()));
    assert_eq!(scene.grant.wake_at(), None, "a dead token is not sent for ever");
}

#[test]
fn after_the_end_an_answer_without_a_clear_word_is_asked_for_hourly_for_a_day() {
    let unclear = || AttemptError::Provider(TokenError::Unusable("status 400 without an error code".into()));
    let mut scene = Scene::new(&living(&PLAIN, Some(DAY), None), Some(HOUR));
    scene.live_well(DAY, |_| response("at-2", Some("rt-2"), Some(HOUR)));
    scene.live_until_it_refreshes();
    let mut tries = 0;
    while scene.grant.record().ended.is_none() && tries < 100 {
        scene.fails(unclear());
        tries += 1;
        scene.live(HOUR);
        assert_eq!(scene.plainly(), Said::No(ErrorCode::LoginRequired, None).or_waits(scene.running.is_some()), "{tries}");
    }
    assert_eq!(tries, 24);
    scene.saved(Ok(()));
    assert_eq!(scene.grant.wake_at(), None);
}

#[test]
fn an_end_that_was_wrong_costs_nothing() {
    let mut scene = Scene::new(&living(&ON_DEMAND, Some(DAY), None), Some(HOUR));
    scene.live(2 * DAY);
    let summary = scene.grant.summary(scene.now);
    assert_eq!((summary.state, summary.refresh_token_expires_in), (mcp_auth_proto::GrantState::LoginRequired, Some(0)));
    assert_eq!(summary.last_error.as_deref(), Some("its refresh token ended at 2023-11-15T22:13:20Z"));
    assert_eq!(scene.plainly(), Said::Waits(30 * S), "the provider is asked all the same");
    scene.succeeds("at-2", Some(HOUR));
    scene.saved(Ok(()));
    assert_eq!(scene.replies, [Said::Token("at-2", Some(3600))]);
    assert_eq!(scene.state(), mcp_auth_proto::GrantState::Ok);
}

#[test]
fn a_config_that_tells_of_lifetimes_counts_for_grants_that_are_there() {
    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    assert_eq!(scene.ends_in(), None);
    scene.give(Input::Defined(Some(living(&PLAIN, Some(30 * DAY), None))));
    assert_eq!(scene.ends_in(), Some(30 * DAY));
    scene.give(Input::Defined(None));
    assert_eq!(scene.ends_in(), None);
}

#[test]
fn a_token_that_never_expires_is_not_refreshed_until_it_is_rejected() {
    let never = Terms { never_expires: true, ..PLAIN };
    let mut scene = Scene::new(&never, None);
    assert_eq!(scene.plainly(), Said::Token("at-1", None));
    assert_eq!((scene.planned_in(), scene.grant.wake_at()), (None, None));
    assert!(scene.grant.summary(scene.now).never_expires);
    scene.live(100 * DAY);
    assert_eq!(scene.ask(rejecting("at-1")), Said::Waits(2 * S));
    scene.succeeds("at-2", None);
    scene.saved(Ok(()));
    assert_eq!(scene.replies, [Said::Token("at-2", None)]);
    scene.restarted(100 * DAY, Some(S));
    assert_eq!((scene.grant.wake_at(), scene.running.is_none()), (None, true));
    assert!(!Scene::new(&never, Some(HOUR)).grant.summary(scene.now).never_expires, "an answer that tells its lifetime is believed");
}

impl Said {
    /// An attempt that runs is waited for.
    fn or_waits(self, runs: bool) -> Self {
        if runs { Self::Waits(30 * S) } else { self }
    }
}

//! Where a refresh ends the token before it, and a program keeps that token for its whole life.

use super::*;

const INVALIDATES_PROBED: Terms = terms(true, true, true);

fn held(want: Want) -> Want {
    Want { held: true, ..want }
}

impl Scene {
    /// What the token before the planned refresh is served with.
    fn kept(&self) -> Said {
        Said::Token("at-1", self.planned_in().map(|wait| wait.as_secs()))
    }

    fn verdict(&mut self, verdict: Verdict) {
        let ticket = self.probing.take().expect("a probe runs");
        self.replies.clear();
        self.give(Input::Probed(ticket, verdict));
    }
}

#[test]
fn a_token_that_is_kept_is_not_ended_by_whoever_wants_a_longer_one() {
    let mut scene = Scene::new(&INVALIDATES, Some(HOUR));
    scene.pass(3000 * S);
    assert_eq!(scene.ask(held(at_least(1800))), scene.kept());
    assert!(scene.running.is_none());
    assert_eq!(scene.ask(at_least(1800)), Said::Waits(15 * S), "once nobody keeps it");

    let mut scene = Scene::new(&PLAIN, Some(HOUR));
    scene.pass(3000 * S);
    assert_eq!(scene.ask(held(at_least(1800))), Said::Waits(15 * S), "where a refresh ends nothing");
}

#[test]
fn a_token_that_is_kept_is_refreshed_in_its_time_all_the_same() {
    let mut scene = Scene::new(&INVALIDATES, Some(HOUR));
    scene.ask(held(Want::default()));
    let planned = scene.planned_in().unwrap();
    assert!((3570..=3576).contains(&planned.as_secs()));
    scene.live(planned);
    assert!(scene.running.is_some());
    assert!(!scene.grant.refresh_ends_token(scene.now), "it is being refreshed as it is");
}

#[test]
fn a_clients_word_alone_does_not_end_a_token_that_is_kept() {
    let mut scene = Scene::new(&INVALIDATES, Some(HOUR));
    scene.pass(MINUTE);
    assert_eq!(scene.ask(held(rejecting("at-1"))), scene.kept(), "nobody can be asked");
    assert!(scene.running.is_none() && scene.probing.is_none());

    let mut scene = Scene::new(&INVALIDATES_PROBED, Some(HOUR));
    assert_eq!(scene.ask(held(rejecting("at-1"))), scene.kept(), "within 10 s of issue");
    scene.pass(10 * S);
    for verdict in [Verdict::Alive, Verdict::Unknown] {
        assert_eq!(scene.ask(held(rejecting("at-1"))), Said::Waits(15 * S));
        scene.verdict(verdict);
        assert_eq!((scene.replies.as_slice(), scene.running.is_none()), (&[scene.kept()][..], true), "{verdict:?}");
        assert_eq!(scene.ask(held(rejecting("at-1"))), scene.kept(), "once in a minute");
        assert!(scene.probing.is_none());
        scene.pass(MINUTE);
    }
}

#[test]
fn a_token_that_is_kept_is_replaced_once_the_provider_itself_rejects_it() {
    let mut scene = Scene::new(&INVALIDATES_PROBED, Some(HOUR));
    scene.pass(MINUTE);
    scene.ask(held(rejecting("at-1")));
    scene.ask(held(rejecting("at-1")));
    assert!(scene.grant.refresh_ends_token(scene.now));
    scene.verdict(Verdict::Rejected);
    assert_eq!((scene.replies.as_slice(), scene.grant.refresh_ends_token(scene.now)), (&[][..], false));
    scene.succeeds("at-2", Some(HOUR));
    scene.saved(Ok(()));
    assert!(matches!(scene.replies.as_slice(), [Said::Token("at-2", _), Said::Token("at-2", _)]), "{:?}", scene.replies);
    assert!(!scene.told.iter().any(|news| matches!(news, News::LoginRequired(_))), "{:?}", scene.told);
}

#[test]
fn a_token_that_the_provider_rejects_is_replaced_although_nobody_waits_any_more() {
    let mut scene = Scene::new(&INVALIDATES_PROBED, Some(HOUR));
    scene.pass(MINUTE);
    scene.ask(held(rejecting("at-1")));
    scene.give(Input::Cancelled(scene.askers));
    scene.verdict(Verdict::Rejected);
    scene.live(Duration::ZERO);
    assert!(scene.running.is_some());
}

#[test]
fn whoever_waited_for_the_provider_to_judge_a_token_waits_for_its_successor_within_the_same_thirty_seconds() {
    let mut scene = Scene::new(&terms(true, false, true), Some(HOUR));
    scene.pass(3590 * S);
    assert_eq!(scene.ask(held(rejecting("at-1"))), Said::Waits(15 * S));
    let asked = scene.now.boot;
    scene.live(12 * S);
    scene.verdict(Verdict::Rejected);
    assert_eq!((scene.replies.as_slice(), scene.grant.wake_at()), (&[][..], Some(asked + 30 * S)));
    scene.live(18 * S);
    assert!(matches!(scene.replies.as_slice(), [Said::No(ErrorCode::ProviderUnreachable, _)]), "{:?}", scene.replies);
}

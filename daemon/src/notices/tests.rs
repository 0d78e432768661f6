//! What is told when: tables over the life of a grant, the disk, a question, a desktop that does not show.

use super::*;
use crate::notify::{Action, Notification};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn at(since: Duration) -> Boot {
    Boot::from_start(HOUR * 1000 + since)
}

fn name(text: &str) -> GrantName {
    text.parse().unwrap()
}

/// A grant whose token has expired.
fn spent(health: Health) -> Condition {
    Condition { health, expired: true, ending: false, remedy: "mcp-authctl login github".into(), by_click: true }
}

fn fresh(health: Health) -> Condition {
    Condition { expired: false, ..spent(health) }
}

/// The summaries that are shown and `-` for each that is taken away.
fn seen(acts: &[Act]) -> Vec<String> {
    let one = |act: &Act| match act {
        Act::Show(_, notification) => notification.summary.clone(),
        Act::Close(_) => "-".to_owned(),
    };
    acts.iter().map(one).collect()
}

fn shown(acts: &[Act]) -> (Key, &Notification) {
    match acts {
        [Act::Show(key, notification)] => (*key, notification),
        other => panic!("{other:?}"),
    }
}

/// One step of a grant's life: when, how it is, why we look, and what a person sees.
type Step = (Duration, Condition, Occasion, &'static [&'static str]);

#[track_caller]
fn live(steps: &[Step]) -> Notices {
    let mut notices = Notices::new(true);
    for (index, (when, condition, occasion, expected)) in steps.iter().enumerate() {
        let acts = notices.look(&name("github"), Some(condition), occasion, at(*when));
        assert_eq!(seen(&acts), *expected, "step {index}: {condition:?} {occasion:?}");
    }
    notices
}

#[test]
fn a_night_without_a_network_and_then_a_dead_refresh_token_is_one_notification() {
    let mut night: Vec<Step> = vec![(Duration::ZERO, fresh(Health::Unreached), Occasion::News, &[])];
    // Every five minutes for nine hours; the token has expired long ago.
    night.extend((1..108).map(|n| (MINUTE * 5 * n, spent(Health::Unreached), Occasion::News, &[] as &[&str])));
    night.push((HOUR * 9, spent(Health::Busy), Occasion::News, &[]));
    night.push((HOUR * 9 + MINUTE, spent(Health::LoginNeeded), Occasion::News, &["Login needed: github"]));
    // Clients that ask, the hourly look, a config that is read: nobody is told again.
    night.extend((0..50).map(|n| (HOUR * 10 + MINUTE * n, spent(Health::LoginNeeded), Occasion::AskedInVain, &[] as &[&str])));
    night.push((HOUR * 11, spent(Health::LoginNeeded), Occasion::Defined, &[]));
    night.push((HOUR * 12, fresh(Health::Well), Occasion::News, &["-"]));
    let notices = live(&night);
    assert!(notices.is_empty() && notices.grants.is_empty(), "nothing is remembered of a grant that is well");
}

#[test]
fn failing_refreshes_are_told_when_they_cost_somebody_something_and_do_not_mend_themselves() {
    use Health::{Failing, Unreached, Well};
    let told: &[&str] = &["No fresh token: github"];
    // The provider answers, with errors.
    live(&[
        (Duration::ZERO, fresh(Failing), Occasion::News, &[]),
        (MINUTE * 30, spent(Failing), Occasion::News, &[]),
        (MINUTE * 59, spent(Failing), Occasion::AskedInVain, &[]),
        (MINUTE * 61, spent(Failing), Occasion::News, told),
        (HOUR * 9, spent(Failing), Occasion::News, &[]),
        (HOUR * 9, fresh(Well), Occasion::News, &["-"]),
        (HOUR * 10, spent(Failing), Occasion::News, &[]),
        (HOUR * 12, spent(Failing), Occasion::News, told),
    ]);
    // A token that is still good misses nobody.
    live(&[(Duration::ZERO, fresh(Failing), Occasion::News, &[]), (HOUR * 5, fresh(Failing), Occasion::AskedInVain, &[])]);
    // It cannot be reached: only somebody who asks makes it worth telling.
    live(&[
        (Duration::ZERO, spent(Unreached), Occasion::News, &[]),
        (HOUR * 5, spent(Unreached), Occasion::News, &[]),
        (HOUR * 5, spent(Unreached), Occasion::AskedInVain, told),
        (HOUR * 6, spent(Unreached), Occasion::AskedInVain, &[]),
    ]);
    // The first answer after a night offline is no hour of failures.
    live(&[
        (Duration::ZERO, spent(Unreached), Occasion::News, &[]),
        (HOUR * 8, spent(Failing), Occasion::News, &[]),
        (HOUR * 8 + MINUTE, spent(Failing), Occasion::News, &[]),
    ]);
}

#[test]
fn a_suspend_begins_the_hour_anew() {
    let mut notices = live(&[(Duration::ZERO, spent(Health::Unreached), Occasion::News, &[])]);
    notices.slept();
    let acts = notices.look(&name("github"), Some(&spent(Health::Unreached)), &Occasion::AskedInVain, at(HOUR * 8));
    assert!(acts.is_empty(), "the network is not up yet: {acts:?}");
}

#[test]
fn what_is_worse_takes_the_place_of_what_is_told_and_nothing_else_does() {
    let soon = || Occasion::Ending("the login ends at 2026-11-24T00:00:00Z".into());
    let ends = Condition { ending: true, ..fresh(Health::Well) };
    let mut notices = Notices::new(true);
    let acts = notices.look(&name("github"), Some(&ends), &soon(), at(HOUR));
    let (key, first) = shown(&acts);
    assert_eq!(
        (first.summary.as_str(), first.body.as_slice()),
        ("Login ends soon: github", &["The login ends at 2026-11-24T00:00:00Z".to_owned()][..])
    );
    assert_eq!(first.actions, [Action { id: "log-in", label: "Log in" }]);
    // A refresh that moves nothing leaves it; the second warning replaces the first.
    assert_eq!(notices.look(&name("github"), Some(&ends), &Occasion::News, at(HOUR)), []);
    assert_eq!(shown(&notices.look(&name("github"), Some(&ends), &soon(), at(HOUR * 2))).0, key);
    let dead = notices.look(&name("github"), Some(&spent(Health::LoginNeeded)), &Occasion::News, at(HOUR * 3));
    assert_eq!((shown(&dead).0, seen(&dead)), (key, vec!["Login needed: github".to_owned()]));
    assert_eq!(notices.look(&name("github"), Some(&spent(Health::LoginNeeded)), &soon(), at(HOUR * 3)), []);
    assert_eq!(notices.look(&name("github"), Some(&fresh(Health::Well)), &Occasion::News, at(HOUR * 4)), [Act::Close(key)]);
    // A login that ends soon from its beginning.
    notices.look(&name("github"), Some(&spent(Health::LoginNeeded)), &Occasion::News, at(HOUR * 4));
    assert_eq!(seen(&notices.look(&name("github"), Some(&ends), &soon(), at(HOUR * 4))), ["-", "Login ends soon: github"]);
    // An end that a refresh has moved on is no news any more.
    notices.look(&name("github"), Some(&ends), &soon(), at(HOUR * 5));
    assert_eq!(seen(&notices.look(&name("github"), Some(&fresh(Health::Well)), &Occasion::News, at(HOUR * 6))), ["-"]);
}

#[test]
fn what_a_person_took_out_of_the_config_is_told_only_where_it_is_missed() {
    live(&[
        (Duration::ZERO, spent(Health::Undefined), Occasion::News, &[]),
        (MINUTE, spent(Health::Undefined), Occasion::Defined, &[]),
        (HOUR, spent(Health::Undefined), Occasion::AskedInVain, &["Login needed: github"]),
        (HOUR, fresh(Health::Well), Occasion::Defined, &["-"]),
    ]);
}

#[test]
fn a_button_is_there_only_for_what_a_click_can_do_and_means_one_thing() {
    let mut notices = Notices::new(true);
    let needed = notices.look(&name("github"), Some(&spent(Health::LoginNeeded)), &Occasion::News, at(HOUR));
    let (key, notification) = shown(&needed);
    assert_eq!(notification.body[1], "In a terminal: mcp-authctl login github");
    assert_eq!(notices.pressed(key, "log-in"), Some(Wish::LogIn(name("github"))));
    for other in ["default", "try-now", "allow", "", "log-in "] {
        assert_eq!(notices.pressed(key, other), None, "{other}");
    }
    assert_eq!(notices.pressed(key + 1, "log-in"), None);
    assert_eq!(notices.answered(key), [Act::Close(key)]);
    assert_eq!(notices.pressed(key, "log-in"), None, "a button works once");
    // The login came to nothing: they are told of it again, since they began it.
    notices.untell(&name("github"));
    let again = notices.look(&name("github"), Some(&spent(Health::LoginNeeded)), &Occasion::AskedInVain, at(HOUR));
    assert_eq!(seen(&again), ["Login needed: github"]);

    let by_hand = Condition { by_click: false, remedy: "mcp-authctl add-token pat".into(), ..spent(Health::LoginNeeded) };
    let acts = notices.look(&name("pat"), Some(&by_hand), &Occasion::AskedInVain, at(HOUR));
    let (key, notification) = shown(&acts);
    assert_eq!((notification.actions.as_slice(), notification.body[1].as_str()), (&[][..], "In a terminal: mcp-authctl add-token pat"));
    assert_eq!(notices.pressed(key, "log-in"), None);
}

#[test]
fn many_dead_logins_are_one_notification() {
    let mut notices = Notices::new(true);
    let mut all = Vec::new();
    for number in 0..100 {
        let dead = spent(Health::LoginNeeded);
        all.extend(notices.look(&name(&format!("grant-{number}")), Some(&dead), &Occasion::News, at(HOUR)));
    }
    assert_eq!(seen(&all[..3]), ["Login needed: grant-0", "Login needed: grant-1", "Login needed: grant-2"]);
    assert_eq!(seen(&all[3..]), ["-", "-", "-", "Several logins are needed"]);
    for number in 0..99 {
        let acts = notices.look(&name(&format!("grant-{number}")), Some(&fresh(Health::Well)), &Occasion::News, at(HOUR));
        assert_eq!(acts, []);
    }
    assert_eq!(seen(&notices.look(&name("grant-99"), None, &Occasion::News, at(HOUR))), ["-"], "the last one is logged out");
    assert!(notices.is_empty());
}

#[test]
fn a_disk_that_refuses_for_a_moment_is_nobodys_business() {
    let mut notices = Notices::new(true);
    notices.not_saved(&name("a"), at(Duration::ZERO));
    notices.not_saved(&name("b"), at(MINUTE));
    assert_eq!((notices.wake_at(), notices.woke(at(Duration::from_secs(29)))), (Some(at(DISK_PATIENCE)), vec![]));
    assert_eq!((notices.saved(&name("a")), notices.saved(&name("b"))), (vec![], vec![]));
    assert_eq!((notices.wake_at(), notices.woke(at(HOUR))), (None, vec![]));

    notices.not_saved(&name("a"), at(HOUR));
    notices.not_saved(&name("b"), at(HOUR));
    assert_eq!(seen(&notices.woke(at(HOUR * 2))), ["New tokens cannot be saved"]);
    notices.not_saved(&name("a"), at(HOUR * 3));
    assert_eq!((notices.wake_at(), notices.woke(at(HOUR * 9))), (None, vec![]), "once");
    assert_eq!(notices.saved(&name("a")), []);
    assert_eq!(seen(&notices.look(&name("b"), None, &Occasion::News, at(HOUR))), ["-"], "logged out");

    notices.not_saved(&name("a"), at(HOUR));
    let key = shown(&notices.woke(at(HOUR * 2))).0;
    notices.closed(key);
    notices.not_saved(&name("a"), at(HOUR * 3));
    assert_eq!(notices.wake_at(), None, "a person has seen it, and it is still the same disk");
}

#[test]
fn a_question_is_taken_away_when_it_is_decided() {
    let consent = |id: &str| Consent {
        id: id.into(),
        program: mcp_auth_proto::Program::default(),
        grant: name("github"),
        scopes: vec!["repo".into()],
        resource: None,
        host: "github.com".into(),
        remember: true,
        expires_in: 60,
    };
    let mut notices = Notices::new(true);
    let first = shown(&notices.consent(&consent("one"), at(HOUR))).0;
    let second = shown(&notices.consent(&consent("two"), at(HOUR))).0;
    assert_eq!(notices.pressed(first, "deny"), Some(Wish::Decide { id: "one".into(), allow: false }));
    assert_eq!(notices.pressed(second, "allow"), Some(Wish::Decide { id: "two".into(), allow: true }));
    assert_eq!(notices.pressed(second, "default"), None, "a click on the notification as a whole allows nothing");
    assert_eq!(notices.consent_over("one"), [Act::Close(first)]);
    assert_eq!((notices.consent_over("one"), notices.pressed(first, "allow")), (vec![], None));
    assert_eq!(notices.consents().collect::<Vec<_>>(), ["two"]);
    notices.closed(second);
    assert_eq!((notices.consent_over("two"), notices.pressed(second, "allow")), (vec![], None));
}

#[test]
fn a_desktop_that_shows_nothing_is_tried_again_later_and_only_when_there_is_a_reason() {
    let mut notices = Notices::new(true);
    let dead = spent(Health::LoginNeeded);
    let key = shown(&notices.look(&name("github"), Some(&dead), &Occasion::News, at(HOUR))).0;
    assert_eq!(notices.failed(key, at(HOUR)), None);
    assert!(notices.is_empty());
    assert_eq!(notices.look(&name("github"), Some(&dead), &Occasion::AskedInVain, at(HOUR + MINUTE)), []);
    let later = notices.look(&name("github"), Some(&dead), &Occasion::AskedInVain, at(HOUR + MINUTE * 5));
    assert_eq!(seen(&later), ["Login needed: github"], "the desktop may have come since");

    notices.not_saved(&name("github"), at(HOUR * 2));
    let key = shown(&notices.woke(at(HOUR * 2 + MINUTE))).0;
    notices.failed(key, at(HOUR * 2 + MINUTE));
    assert_eq!(notices.wake_at(), Some(at(HOUR * 2 + MINUTE * 6)));
    assert_eq!(seen(&notices.woke(at(HOUR * 3))), ["New tokens cannot be saved"]);
}

#[test]
fn what_is_switched_off_shows_nothing_and_takes_away_what_is_there() {
    let mut notices = Notices::new(true);
    let dead = spent(Health::LoginNeeded);
    let key = shown(&notices.look(&name("github"), Some(&dead), &Occasion::News, at(HOUR))).0;
    assert_eq!(notices.enable(false), [Act::Close(key)]);
    assert_eq!(notices.look(&name("other"), Some(&dead), &Occasion::News, at(HOUR)), []);
    notices.not_saved(&name("other"), at(HOUR));
    assert_eq!((notices.wake_at(), notices.woke(at(HOUR * 2))), (None, vec![]));
    assert_eq!(notices.enable(true), []);
    let asked = notices.look(&name("other"), Some(&dead), &Occasion::AskedInVain, at(HOUR));
    assert_eq!(seen(&asked), ["Login needed: other"], "what was not told before");
}

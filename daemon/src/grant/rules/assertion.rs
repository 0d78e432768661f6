//! A grant that a JWT of somebody else brought: on demand, with the file as its remedy; and with a refresh token, if the server
//! gives one all the same.

use super::*;
use crate::grant::record::{AssertionSource, TokenSource};

fn by(source: TokenSource, refresh_token: Option<&'static str>) -> Scene {
    let mut login = login(&PLAIN, response("at-1", refresh_token, Some(HOUR)), start());
    login.definition.assertion = Some(Box::new(AssertionSource::Workload(source)));
    Scene::logged_in(login)
}

fn by_file(refresh_token: Option<&'static str>) -> Scene {
    by(TokenSource::File("/run/token".into()), refresh_token)
}

#[test]
fn a_new_token_is_asked_for_when_somebody_wants_one_and_never_before() {
    let mut scene = by_file(None);
    assert_eq!(scene.grant.wake_at(), None, "an idle daemon does not wake");
    scene.live(30 * DAY);
    assert!(scene.running.is_none());
    let summary = scene.grant.summary(scene.now);
    assert!(summary.on_demand && summary.refreshable && summary.last_error.is_none());
    assert_eq!(summary.assertion.as_deref(), Some("the token in /run/token"));
    assert_eq!(scene.plainly(), Said::Waits(30 * S));
    assert_eq!(scene.running.as_ref().unwrap().refresh_token, None);
    scene.succeeds("at-2", Some(HOUR));
    scene.saved(Ok(()));
    assert_eq!(scene.replies, [Said::Token("at-2", Some(3600))]);
}

#[test]
fn one_that_is_refused_names_its_file_and_is_tried_again_in_a_minute() {
    for error in [invalid_grant(), refused(), AttemptError::NoCredentials("the token in /run/token ended".into())] {
        let mut scene = by_file(None);
        scene.pass(HOUR);
        assert_eq!(scene.plainly(), Said::Waits(30 * S));
        scene.fails(error);
        assert_eq!(scene.replies, [Said::No(ErrorCode::LoginRequired, None)]);
        assert_eq!(scene.plainly(), Said::No(ErrorCode::LoginRequired, None), "not again at once");
        let told = scene.grant.login_required();
        assert_eq!(told.hint.as_deref(), Some("see that /run/token holds a new token, then mcp-authctl refresh corp"));
        assert_eq!(told.mcp.unwrap()["data"]["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
        assert!(scene.grant.record().ended.is_none() && scene.grant.wake_at().is_none());
        scene.pass(MINUTE);
        assert_eq!(scene.plainly(), Said::Waits(30 * S), "the file may have a new one by now");
    }
}

#[test]
fn one_that_was_given_once_lives_as_long_as_its_token() {
    let mut scene = by(TokenSource::Given, None);
    assert!(!scene.grant.summary(scene.now).refreshable);
    scene.pass(HOUR);
    assert_eq!(scene.plainly(), Said::No(ErrorCode::LoginRequired, None));
    let told = scene.grant.login_required();
    assert!(told.error_description.ends_with("was not kept"), "{told}");
    assert_eq!(told.hint.as_deref(), Some("mcp-authctl login corp --assertion-file FILE"));
}

#[test]
fn a_refresh_token_is_used_while_it_lasts_and_the_file_after_it() {
    let mut scene = by_file(Some("rt-1"));
    assert!(scene.planned_in().is_some() && !scene.grant.summary(scene.now).on_demand, "ahead, as any other");
    scene.live(HOUR);
    let attempt = scene.running.as_ref().unwrap();
    assert!(attempt.refresh_token.is_some());
    scene.fails(invalid_grant());
    assert_eq!(scene.running.as_ref().unwrap().refresh_token, None, "at once, by the file");
    scene.succeeds("at-2", Some(HOUR));
    scene.saved(Ok(()));
    assert!(scene.grant.record().ended.is_none() && scene.plainly() == Said::Token("at-2", Some(3600)));
}

#[test]
fn an_id_token_is_kept_from_answers_that_bring_one() {
    let mut scene = Scene::logged_in(login(&PLAIN, response("at-1", Some("rt-1"), Some(HOUR)), start()));
    assert_eq!(scene.grant.record().id_token, None);
    for (brought, kept) in [(Some("id-1"), "id-1"), (None, "id-1"), (Some("id-2"), "id-2")] {
        let mut answer = response("at-2", None, Some(HOUR));
        answer.id_token = brought.map(|text| AccessToken::new(text.into()));
        let mut record = scene.grant.record().clone();
        record.merge(answer, scene.now);
        assert_eq!(record.id_token.as_ref().unwrap().expose().as_str(), kept);
        scene.grant.record = record;
    }
    scene.give(Input::LoggedIn(login(&PLAIN, response("at-3", Some("rt-3"), Some(HOUR)), scene.now)));
    scene.saved(Ok(()));
    assert_eq!(scene.grant.record().id_token, None, "a new login brings its own");
}

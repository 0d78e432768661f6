//! A client that asks for itself: on demand, with nothing to lose.

use super::*;

fn by_client(lifetime: Option<Duration>) -> Scene {
    let mut login = login(&ON_DEMAND, response("at-1", None, lifetime), start());
    login.definition.client_credentials = true;
    Scene::logged_in(login)
}

#[test]
fn a_clients_token_is_asked_for_when_somebody_wants_one_and_never_before() {
    let mut scene = by_client(Some(HOUR));
    assert_eq!(scene.grant.wake_at(), None, "an idle daemon does not wake");
    scene.live(HOUR * 24 * 30);
    assert!(scene.running.is_none());
    let summary = scene.grant.summary(scene.now);
    assert_eq!((summary.state, summary.expires_in), (mcp_auth_proto::GrantState::Ok, Some(0)));
    assert!(summary.client_credentials && summary.on_demand && summary.refreshable && summary.last_error.is_none());

    assert_eq!(scene.plainly(), Said::Waits(30 * S));
    assert_eq!(scene.running.as_ref().unwrap().refresh_token, None);
    scene.plainly();
    scene.replies.clear();
    scene.succeeds("at-2", Some(HOUR));
    scene.saved(Ok(()));
    assert_eq!(scene.replies, [Said::Token("at-2", Some(3600)), Said::Token("at-2", Some(3600))], "one question for all who wait");
    assert_eq!(scene.grant.record().refresh_token, None, "a stray refresh token is not kept");
}

#[test]
fn a_client_needs_nobody_after_a_restart_and_days() {
    for uptime in [None, Some(10 * S)] {
        let mut scene = by_client(Some(HOUR));
        scene.restarted(9 * DAY, uptime);
        assert_eq!((scene.grant.wake_at(), scene.state()), (None, mcp_auth_proto::GrantState::Ok));
        assert_eq!(scene.plainly(), Said::Waits(30 * S));
        scene.succeeds("at-2", Some(HOUR));
        scene.saved(Ok(()));
        assert_eq!(scene.replies, [Said::Token("at-2", Some(3600))]);
    }
}

#[test]
fn a_client_that_is_refused_is_kept_and_asks_again_when_its_hour_is_over() {
    for error in [refused(), invalid_grant(), AttemptError::NoCredentials("none is stored".into())] {
        let mut scene = by_client(Some(HOUR));
        scene.pass(3000 * S);
        scene.ask(at_least(1800));
        scene.fails(error.clone());
        assert!(matches!(scene.plainly(), Said::Token("at-1", _)), "it is valid all the same");
        scene.live(MINUTE);
        scene.give(Input::Defined(Some(ON_DEMAND)));
        assert!(scene.grant.record().ended.is_none() && scene.grant.wake_at().is_none());

        scene.pass(HOUR);
        assert_eq!(scene.plainly(), Said::Waits(30 * S), "a new secret is worth another try");
        scene.fails(error);
        assert_eq!(scene.plainly(), Said::No(ErrorCode::LoginRequired, None));
        assert_eq!(scene.state(), mcp_auth_proto::GrantState::LoginRequired);
        let summary = scene.grant.summary(scene.now);
        assert!(!summary.last_error.as_ref().unwrap().contains("refresh token"), "{summary:?}");
        assert!(summary.remedy.starts_with("mcp-authctl provider set-secret "), "{summary:?}");
        scene.live(HOUR);
        assert!(scene.running.is_none(), "nobody asks");
        assert_eq!(scene.plainly(), Said::Waits(30 * S));
    }
}

#[test]
fn a_clients_lost_answer_is_asked_for_again_at_once_and_then_with_backoff() {
    let mut scene = by_client(Some(HOUR));
    scene.pass(HOUR);
    assert_eq!(scene.plainly(), Said::Waits(30 * S));
    scene.fails(lost());
    assert!(scene.running.is_some());
    scene.fails(lost());
    assert!(matches!(scene.replies[..], [Said::No(ErrorCode::ProviderUnreachable, Some(_))]));
    assert_eq!(scene.grant.wake_at(), None, "nobody asks");
    assert!(matches!(scene.plainly(), Said::No(ErrorCode::ProviderUnreachable, _)), "askers do not bypass the backoff");
    scene.pass(5 * MINUTE);
    assert_eq!(scene.plainly(), Said::Waits(30 * S));
}

#[test]
fn what_a_client_is_told_to_do_is_what_a_client_can_do() {
    let scene = by_client(Some(HOUR));
    let scopes = ["write".to_owned()];
    for error in [scene.grant.insufficient_scope(&scopes), scene.grant.login_required()] {
        let hint = error.hint.unwrap();
        assert!(hint.starts_with("mcp-authctl login corp --client-credentials"), "{hint}");
        assert_eq!(error.mcp.unwrap()["data"]["grant_type"], "client_credentials");
    }
}

#[test]
fn a_rejected_token_of_a_client_is_replaced() {
    let mut scene = by_client(None);
    assert_eq!(scene.plainly(), Said::Token("at-1", None));
    scene.live(40 * DAY);
    assert!(scene.running.is_none(), "an unknown lifetime is no reason to ask");
    assert_eq!(scene.ask(rejecting("at-1")), Said::Waits(2 * S));
    scene.succeeds("at-2", None);
    scene.saved(Ok(()));
    assert_eq!(scene.replies, [Said::Token("at-2", None)]);
}

#[test]
fn whoever_logs_in_over_a_clients_grant_gets_one_with_a_refresh_token() {
    let mut scene = by_client(Some(HOUR));
    scene.give(Input::LoggedIn(login(&PLAIN, response("at-2", Some("rt-2"), Some(HOUR)), scene.now)));
    scene.saved(Ok(()));
    let summary = scene.grant.summary(scene.now);
    assert!(!summary.client_credentials && !summary.on_demand && scene.planned_in().is_some());
}

//! Logging out where a provider revokes in a way of its own, or ends more with it than one grant; and who logged in, where that
//! is not asked as OpenID Connect has it. Each server *insists* on its form and refuses everything else.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_auth_tests::rogue::{Moment, Plan, Rogue, Rules};
use mcp_auth_tests::{Output, Room, wait_until};

const SECRET: &str = "zQcS9qz-dialect-zQcS9qz";

fn rogue() -> Rogue {
    Rogue::start(Rules::strict(Duration::from_secs(300)))
}

fn room(rogue: &Rogue, lines: &str) -> Room {
    Room::with_config(&rogue.endpoints_table("test", &lines.replace("{issuer}", &rogue.issuer())))
}

fn is_refresh(token: &str) -> bool {
    token.starts_with("zQrT9qz")
}

/// Logs in and out of `test`.
#[track_caller]
fn in_and_out(room: &Room, options: &[&str]) -> Output {
    room.log_in("test").ok();
    room.ctl(&[&["logout", "test"], options].concat()).ok()
}

#[test]
fn each_provider_is_asked_to_revoke_in_the_one_way_that_it_takes() {
    // style, how many refresh and access tokens are named
    for (style, path, refresh, access) in [
        ("google", "google", 1, 0),
        ("bearer", "slack", 0, 1),
        ("bearer", "dropbox", 0, 1),
        ("notion", "notion", 1, 1),
        ("supabase", "supabase", 1, 0),
    ] {
        for (told, line) in [(true, format!("revocation = \"{style}\"")), (false, String::new())] {
            let rogue = rogue();
            let lines = format!("revocation_endpoint = \"{{issuer}}/{path}/revoke\"\n{line}");
            let room = room(&rogue, &lines);
            let daemon = room.start();
            room.ctl_typing(&["provider", "set-secret", "test"], SECRET).ok();
            let output = in_and_out(&room, &[]);
            let seen = rogue.seen();
            let named = |refresh: bool| seen.revoked.iter().filter(|token| is_refresh(token) == refresh).count();
            if told {
                assert_eq!((named(true), named(false), seen.unmet.as_slice()), (refresh, access, &[][..]), "{style} at {path}");
                assert!(!output.stderr.contains("warning"), "{output:?}");
            } else {
                assert!(output.stderr.contains("has not confirmed the revocation"), "{path} takes RFC 7009: {output:?}");
                assert!(seen.revoked.is_empty() && !seen.unmet.is_empty(), "{path}");
            }
            assert_eq!(daemon.show("/v1/status")["grants"], 0, "forgotten in any case");
        }
    }
}

#[test]
fn a_logout_that_would_end_other_logins_too_forgets_unless_it_is_told_to_revoke() {
    let rogue = rogue();
    let room = room(&rogue, "revocation_endpoint = \"{issuer}/google/revoke\"\nrevocation = \"google\"\nrevokes = \"account\"");
    let daemon = room.start();
    let output = in_and_out(&room, &[]);
    assert!(output.stderr.contains("not revoked, since that would end every login"), "{output:?}");
    let output = in_and_out(&room, &["--forget"]);
    assert!(output.stderr.contains("not revoked: the tokens live on"), "{output:?}");
    room.log_in("test").ok();
    room.ctl(&["logout", "--all"]).ok();
    assert_eq!((rogue.seen().revoked, daemon.show("/v1/status")["grants"].as_u64()), (vec![], Some(0)));
    let output = in_and_out(&room, &["--revoke"]);
    assert!(!output.stderr.contains("warning"), "{output:?}");
    assert_eq!(rogue.seen().revoked.len(), 1);
}

#[test]
fn a_refresh_under_way_is_not_revoked_behind_the_back_of_a_logout_that_only_forgets() {
    let rogue = rogue();
    let room = room(&rogue, "revocation_endpoint = \"{issuer}/revoke\"");
    let _daemon = room.start();
    room.log_in("test").ok();
    let answered = Arc::new(AtomicBool::new(false));
    let told = answered.clone();
    rogue.on(move |moment, path| {
        told.fetch_or(moment == Moment::Answered && path == "/token", Ordering::Relaxed);
    });
    rogue.plan(Plan::late(Duration::from_millis(500)).times(1));
    let mut refresh = room.ctl_spawn(&["refresh", "test"]);
    rogue.wait_for("the refresh to be granted", |seen| (!seen.refreshes.is_empty()).then_some(()));
    room.ctl(&["logout", "test", "--forget"]).ok();
    refresh.wait();
    wait_until("the answer to the refresh", Duration::from_secs(20), || answered.load(Ordering::Relaxed).then_some(()));
    // A login and a logout later it would have been revoked.
    in_and_out(&room, &[]);
    assert_eq!(rogue.seen().revoked.iter().filter(|token| is_refresh(token)).count(), 1);
}

#[test]
fn who_logged_in_is_asked_as_slack_and_linear_have_it() {
    for (lines, account) in [
        ("userinfo_endpoint = \"{issuer}/slack/me\"\nuserinfo_request = \"post\"\naccount_claims = [\"user\"]", "alice"),
        (
            "userinfo_endpoint = \"{issuer}/linear/graphql\"\nuserinfo_request = \"{ viewer { id name email } }\"\n\
             account_claims = [\"data.viewer.email\"]",
            "alice",
        ),
        ("userinfo_endpoint = \"{issuer}/slack/me\"", ""),
    ] {
        let rogue = rogue();
        let room = room(&rogue, lines);
        let daemon = room.start();
        room.log_in("test").ok();
        let grant = daemon.show("/v1/grants/test");
        assert_eq!(grant["account"].as_str().unwrap_or_default(), account, "{lines}: {grant}");
    }
}

#[test]
fn a_dead_token_is_refused_though_slack_answers_with_status_200() {
    let rogue = rogue();
    let room = room(&rogue, "userinfo_endpoint = \"{issuer}/slack/me\"\nuserinfo_request = \"post\"");
    let _daemon = room.start();
    let output = room.ctl_typing(&["add-token", "test:pat"], "zQaT9qz-no-token-of-theirs-zQaT9qz");
    output.fails_with(1);
}

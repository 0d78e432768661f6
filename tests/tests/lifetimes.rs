//! Refresh tokens that end by themselves: what people are told before it, what keeps an idle one alive, and what comes after.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_tests::rogue::{Plan, Rogue, Rules, Verdict};
use mcp_auth_tests::{Room, now_ms, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const S: Duration = Duration::from_secs(1);

fn room_at(rogue: &Rogue, more: &str) -> Room {
    Room::with_config(&rogue.provider_table("test", more))
}

#[test]
fn a_login_that_ends_is_told_of_before_and_named_as_the_reason_after() {
    let rogue = Rogue::start(Rules::strict(3 * S));
    let room = room_at(&rogue, "refresh_token_lifetime = 10");
    let daemon = room.start();
    let heard = daemon.follow();
    daemon.log_in("test", "alice");
    let end = daemon.show("/v1/grants/test")["refresh_token_expires_at"].clone();
    assert!(end.is_string() && daemon.show("/v1/grants/test")["refresh_token_ending"] == Value::Null);

    let told = heard.wait_for("refresh_token_ending", PATIENCE);
    let left = daemon.show("/v1/grants/test")["refresh_token_expires_in"].as_u64();
    assert!(left.is_some_and(|seconds| seconds <= 1), "in the last tenth of its life: {left:?}");
    assert_eq!(told["grant"], "test");
    let sentence = told["detail"].as_str().unwrap();
    assert!(sentence.contains(end.as_str().unwrap()) && sentence.contains("mcp-authctl login test"), "{sentence}");
    assert!(daemon.running.said().contains("refresh_token_ending `test`"), "it is in the log");
    let status = room.ctl(&["status"]).ok().stdout;
    assert!(
        status.contains("the login ends in 1 s: mcp-authctl login test") || status.contains("the login has reached its end"),
        "{status}"
    );
    assert!(rogue.seen().count(Verdict::Granted) >= 2);
    assert_eq!(daemon.show("/v1/grants/test")["refresh_token_expires_at"], end, "no refresh moves an absolute end");

    rogue.revoke_family(0);
    let required = heard.wait_for("login_required", PATIENCE);
    assert!(
        required["detail"].as_str().unwrap().starts_with(&format!("its refresh token ended at {}", end.as_str().unwrap())),
        "{required}"
    );
    assert!((1..=2).contains(&heard.seen("refresh_token_ending").len()), "never in a loop");
    let sent = rogue.seen().refreshes.len();
    wait_until("the end of the last token", PATIENCE, || (daemon.ask("test").status == 401).then_some(()));
    let refusal = room.ctl(&["token", "test"]).fails_with(3);
    assert!(refusal.stderr.contains("its refresh token ended at"), "{refusal:?}");
    assert_eq!(rogue.seen().refreshes.len(), sent, "a dead token is not sent again");

    daemon.log_in("test", "alice");
    let summary = daemon.show("/v1/grants/test");
    assert!(summary["refresh_token_expires_in"].as_u64() >= Some(8) && summary["last_error"].is_null(), "a login begins anew: {summary}");
}

#[test]
fn a_refresh_token_that_nobody_needs_is_used_before_its_idle_end() {
    let rogue = Rogue::start(Rules::strict(S));
    let room = room_at(&rogue, "refresh = \"on-demand\"\nrefresh_token_idle_lifetime = 4");
    let daemon = room.start();
    let heard = daemon.follow();
    daemon.log_in("test", "alice");
    let began = now_ms();
    rogue.wait_for("three refreshes that nobody asked for", |seen| (seen.refreshes.len() >= 3).then_some(()));
    let took = now_ms() - began;
    assert!((4_500..20_000).contains(&took), "one for each half of the idle life: {took} ms");
    assert_eq!(rogue.seen().count(Verdict::Granted), rogue.seen().refreshes.len());
    assert!(heard.seen("refresh_token_ending").is_empty());
    daemon.token("test");
}

#[test]
fn what_the_provider_tells_of_the_end_counts_and_outlives_a_restart() {
    let rogue = Rogue::start(Rules::strict(300 * S));
    rogue.plan(Plan::edited(|answer| answer["refresh_token_expires_in"] = json!("864000.5")).times(1));
    let room = room_at(&rogue, "refresh_token_lifetime = 60");
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let told = daemon.show("/v1/grants/test");
    assert!((863_900..=864_000).contains(&told["refresh_token_expires_in"].as_u64().unwrap()), "{told}");
    assert!(room.ctl(&["status", "test"]).ok().stdout.contains("login ends: "));
    room.ctl(&["refresh", "test"]).ok();
    daemon.kill();
    let daemon = room.start();
    assert_eq!(daemon.show("/v1/grants/test")["refresh_token_expires_at"], told["refresh_token_expires_at"]);
}

#[test]
fn a_token_that_never_expires_is_said_to_and_left_alone() {
    let rogue = Rogue::start(Rules { expires_in: Value::Null, ..Rules::strict(3600 * S) });
    let room = room_at(&rogue, "default_lifetime = \"never\"");
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.token("test");
    let summary = daemon.show("/v1/grants/test");
    assert_eq!((&summary["never_expires"], &summary["expires_at"]), (&json!(true), &Value::Null), "{summary}");
    assert_eq!(summary["next_refresh_in"], Value::Null, "no refresh is planned");
    assert!(room.ctl(&["status"]).ok().stdout.contains("never"));
    assert!(room.ctl(&["status", "test"]).ok().stdout.contains("ok, never expires"));
}

//! T24, T33, T35, T65: what ends a grant and what does not, lifetimes from a second to years, answers that grant something
//! else, and a refresh token that somebody else uses too.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_tests::rogue::{Plan, Rogue, Rules, Verdict};
use mcp_auth_tests::{Daemon, Room, wait_until};
use serde_json::{Value, json};

use crate::report::{Case, Report, quantile};
use crate::side::{none_of, side_by_side};

pub(crate) const CASES: &[Case] = &[
    Case { id: "T24", title: "one false invalid_grant: nothing lost, nobody bothered", rounds: 100, quick: 10, run: false_alarm },
    Case { id: "T24", title: "a real end: told once, no hot loop, the token served to its end", rounds: 40, quick: 5, run: real_end },
    Case { id: "T33", title: "lifetimes of 1 s, 5 s, 60 s, 8 h, 10 y: no refresh too many", rounds: 15, quick: 5, run: lifetimes },
    Case { id: "T35", title: "other scopes are recorded, another person's tokens refused", rounds: 30, quick: 3, run: another_grant },
    Case { id: "T65", title: "a second machine uses the same refresh token: an honest end", rounds: 30, quick: 3, run: two_machines },
];

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);
const S: Duration = Duration::from_secs(1);

pub(crate) fn room_at(rogue: &Rogue) -> Room {
    let mut room = Room::at_rogue(rogue);
    room.set("MCP_AUTHD_LOG", "info");
    room
}

pub(crate) fn refresh(daemon: &Daemon<'_>, grant: &str) -> u16 {
    daemon.call("POST", &format!("/v1/grants/{grant}/refresh"), &json!({})).status
}

fn sent(rogue: &Rogue, family: usize) -> usize {
    rogue.look(|seen| seen.refreshes.iter().filter(|refresh| refresh.family == Some(family)).count())
}

// ---- T24 ----

fn invalid_grant() -> Plan {
    Plan::json(400, &json!({ "error": "invalid_grant", "error_description": "Token is expired or revoked" }))
}

fn false_alarm(report: &mut Report) {
    let healed = Mutex::new(Vec::new());
    side_by_side(report, 20, |_| {
        let rogue = Rogue::start(Rules::strict(HOUR));
        let room = room_at(&rogue);
        let daemon = room.start();
        daemon.log_in("test", "alice");
        let token = daemon.token("test");
        let mut events = daemon.follow();
        rogue.plan(invalid_grant().times(1));
        assert_eq!(refresh(&daemon, "test"), 503, "the refresh by hand hides that it failed");
        let began = Instant::now();
        while sent(&rogue, 0) < 2 {
            let served = daemon.token("test");
            // It may have been sent again since the last look.
            assert!(served == token || sent(&rogue, 0) >= 2, "the valid token is not served");
            assert!(began.elapsed() < PATIENCE, "it is not sent again");
            std::thread::sleep(Duration::from_millis(20));
        }
        healed.lock().unwrap().push(began.elapsed().as_secs_f64());
        let told = events.until("refreshed", "test");
        assert!(told.iter().all(|event| event["event"] != "login_required"), "somebody was bothered: {told:?}");
        assert_ne!(daemon.token("test"), token);
        assert_eq!(sent(&rogue, 0), 2);
    });
    let mut healed = healed.into_inner().unwrap();
    report.figure(format!("sent again after p50 {:.1} s, at most {:.1} s", quantile(&mut healed, 50), quantile(&mut healed, 100)));
}

fn real_end(report: &mut Report) {
    let lived = Mutex::new(Vec::new());
    side_by_side(report, 20, |_| {
        let lifetime = S * 12;
        let rogue = Rogue::start(Rules::strict(lifetime));
        let room = room_at(&rogue);
        let daemon = room.start();
        daemon.log_in("test", "alice");
        let token = daemon.token("test");
        let issued = rogue.look(|seen| seen.issued[0].at);
        rogue.rule(|rules| *rules = Rules::strict(HOUR));
        daemon.log_in("test:other", "alice");
        let mut events = daemon.follow();
        rogue.revoke_family(0);
        refresh(&daemon, "test");
        let last = served_to_its_end(&daemon, &token, issued, lifetime);
        lived.lock().unwrap().push(last.as_secs_f64());
        assert_eq!(sent(&rogue, 0), 2, "a dead grant's token is sent on");
        room.ctl(&["token", "test"]).fails_with(3).says("mcp-authctl login test");
        // The marker behind which nothing more can come.
        assert_eq!(refresh(&daemon, "test:other"), 200, "the other grant is not well");
        let told = events.until("refreshed", "test:other");
        let ends: Vec<_> = told.iter().filter(|event| event["event"] == "login_required").collect();
        assert!(ends.len() == 1 && ends[0]["grant"] == "test", "told {} times: {told:?}", ends.len());
        let log = daemon.stop().stderr;
        assert_eq!(log.lines().filter(|line| line.contains("login_required `test`")).count(), 1, "the log: {log}");
    });
    let mut lived = lived.into_inner().unwrap();
    report.figure(format!(
        "the dead grant's token of 12 s was last served {:.1} s after its issue (the earliest last)",
        quantile(&mut lived, 0)
    ));
}

/// Asks until there is no token any more; gives the age at which it was last served.
fn served_to_its_end(daemon: &Daemon<'_>, token: &str, issued: Instant, lifetime: Duration) -> Duration {
    let mut last = Duration::ZERO;
    loop {
        let began = issued.elapsed();
        let answer = daemon.ask("test");
        if answer.status != 200 {
            assert_eq!(answer.json()["error"], "login_required");
            assert!(last > lifetime - S, "the token was last served {last:?} after its issue");
            return last;
        }
        assert!(answer.json()["access_token"] == token && began <= lifetime, "an expired token is served");
        last = began;
        std::thread::sleep(Duration::from_millis(10));
    }
}

// ---- T33 ----

const YEARS: u64 = 10 * 365 * 86_400;
/// Lifetimes, and how long each is watched in a quick run, seconds.
const LIVES: [(u64, u64); 5] = [(1, 6), (5, 8), (60, 5), (8 * 3600, 5), (YEARS, 5)];
/// How long each is watched for the published figures.
const WATCHED: Duration = Duration::from_secs(125);

fn lifetimes(report: &mut Report) {
    let thorough = report.rounds() as usize > LIVES.len();
    let seen: Mutex<Vec<Life>> = Mutex::default();
    side_by_side(report, LIVES.len() * 3, |round| {
        let (seconds, quickly) = LIVES[round % LIVES.len()];
        let life = watched(seconds, if thorough { WATCHED } else { Duration::from_secs(quickly) });
        seen.lock().unwrap().push(life);
    });
    let seen = seen.into_inner().unwrap();
    for (seconds, _) in LIVES {
        let lives = seen.iter().filter(|life| life.seconds == seconds);
        let Some(most) = lives.max_by_key(|life| life.refreshes) else { continue };
        report.figure(format!(
            "{seconds} s: at most {} refreshes in {:.0} s ({:.2} a lifetime), the next planned in {} s",
            most.refreshes,
            most.took,
            most.refreshes as f64 / (most.took / seconds as f64),
            most.planned
        ));
    }
    let refused: usize = seen.iter().map(|life| life.refused).sum();
    report.figure(format!("askers told `provider_unreachable`, all with tokens of 1 s: {refused}"));
    report.figure(none_of("expired tokens served", seen.iter().map(|life| life.asked).sum()));
}

/// What was seen of a grant whose tokens live so many seconds.
struct Life {
    seconds: u64,
    /// How long it was watched, seconds.
    took: f64,
    refreshes: usize,
    asked: usize,
    /// Askers who were told `provider_unreachable`.
    refused: usize,
    /// In how many seconds the next refresh was planned then.
    planned: u64,
}

/// Asks all the time.
fn watched(seconds: u64, span: Duration) -> Life {
    let lifetime = Duration::from_secs(seconds);
    let rogue = Rogue::start(Rules::strict(lifetime));
    let room = room_at(&rogue);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let began = Instant::now();
    let (mut asked, mut refused) = (0, 0);
    while began.elapsed() < span {
        let now = Instant::now();
        let answer = daemon.ask("test");
        asked += 1;
        if answer.status != 200 {
            // A token of 1 s is expired on arrival if its answer takes as long; any other has time to spare.
            assert!(seconds == 1 && answer.json()["error"] == "provider_unreachable", "{}", answer.body);
            refused += 1;
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        let issued = rogue.look(|seen| seen.issued.iter().rev().find(|issued| issued.token == token).unwrap().at);
        let age = now.saturating_duration_since(issued);
        assert!(age <= lifetime, "a token of {age:?} is served");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (took, refreshes) = (began.elapsed().as_secs_f64(), sent(&rogue, 0));
    let most = (took / seconds as f64 * 2.0).ceil() as usize;
    assert!(refreshes <= most, "{refreshes} refreshes in {took:.1} s of a lifetime of {seconds} s");
    let summary = daemon.show("/v1/grants/test");
    let planned = summary["next_refresh_in"].as_u64().unwrap_or(0);
    if seconds > 1000 {
        assert_eq!(refreshes, 0);
        assert!(planned < seconds && planned + 300 + took as u64 + 2 >= seconds, "planned in {planned} s");
        assert!(room.ctl(&["status", "test"]).ok().stdout.contains("next refresh in: "), "status does not show the plan");
    } else {
        let least = (took / seconds as f64 * 0.8).floor() as usize;
        assert!(refreshes >= least, "only {refreshes} refreshes in {took:.1} s of a lifetime of {seconds} s");
    }
    Life { seconds, took, refreshes, asked, refused, planned }
}

// ---- T35 ----

fn id_token(issuer: &str, subject: &str) -> String {
    let claims = json!({ "iss": issuer, "aud": "native", "exp": 4_000_000_000_u64, "sub": subject });
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn of_person(rogue: &Rogue, subject: &str) -> Plan {
    let token = id_token(&rogue.issuer(), subject);
    Plan::edited(move |body| body["id_token"] = json!(token))
}

fn another_grant(report: &mut Report) {
    side_by_side(report, 6, |round| {
        let mut rules = Rules::strict(HOUR);
        // Whoever sees its answer refused could not be told from a thief by a server that rotates.
        rules.rotate = false;
        let rogue = Rogue::start(rules);
        let room = room_at(&rogue);
        let daemon = room.start();
        rogue.plan(of_person(&rogue, "alice"));
        daemon.log_in("test", "alice");
        rogue.behave();
        match round % 3 {
            0 => other_scopes(&rogue, &daemon, &room),
            1 => another_audience(&rogue, &daemon),
            _ => another_person(&rogue, &daemon),
        }
    });
    report.figure("fewer and more scopes; another aud and resource in the answer; an ID token of another subject");
}

fn scopes_of(daemon: &Daemon<'_>, grant: &str) -> Value {
    daemon.show(&format!("/v1/grants/{grant}"))["scopes"].clone()
}

fn other_scopes(rogue: &Rogue, daemon: &Daemon<'_>, room: &Room) {
    rogue.plan(Plan::edited(|body| body["scope"] = json!("mcp:read mcp:write admin")));
    assert_eq!(refresh(daemon, "test"), 200);
    assert_eq!(scopes_of(daemon, "test"), json!(["mcp:read", "mcp:write", "admin"]), "more scopes are not recorded");
    let ask = |grant: &str, scope: &str| daemon.call("POST", "/v1/token", &json!({ "grant": grant, "scopes": [scope] }));
    assert_eq!(ask("test", "admin").status, 200);
    rogue.behave();
    daemon.log_in("test:less", "alice");
    assert_eq!(ask("test:less", "mcp:read").status, 200);
    rogue.plan(Plan::edited(|body| body["scope"] = json!("mcp:list")));
    assert_eq!(refresh(daemon, "test:less"), 200);
    assert_eq!(scopes_of(daemon, "test:less"), json!(["mcp:list"]), "fewer scopes are not recorded");
    assert_eq!(ask("test:less", "mcp:read").json()["error"], "insufficient_scope", "a scope that was lost is still promised");
    assert_eq!(ask("test:less", "mcp:list").status, 200);
    assert!(room.ctl(&["status", "test:less"]).ok().stdout.contains("scopes: mcp:list"));
}

fn another_audience(rogue: &Rogue, daemon: &Daemon<'_>) {
    let before = daemon.show("/v1/grants/test");
    rogue.plan(Plan::edited(|body| {
        body["resource"] = json!("https://elsewhere.example/mcp");
        body["aud"] = json!("https://elsewhere.example");
        body["issuer"] = json!("https://elsewhere.example");
    }));
    assert_eq!(refresh(daemon, "test"), 200);
    let after = daemon.show("/v1/grants/test");
    for member in ["resource", "issuer", "account", "provider"] {
        assert_eq!(before[member], after[member], "an answer changed the grant's {member}");
    }
}

fn another_person(rogue: &Rogue, daemon: &Daemon<'_>) {
    let token = daemon.token("test");
    rogue.plan(of_person(rogue, "mallory"));
    let before = sent(rogue, 0);
    assert_eq!(refresh(daemon, "test"), 503, "another person's tokens were taken");
    assert_eq!(daemon.token("test"), token);
    let summary = daemon.show("/v1/grants/test");
    assert!(summary["last_error"].as_str().unwrap().contains("another person"), "{summary}");
    assert_eq!(summary["account"], "alice");
    let began = Instant::now();
    while began.elapsed() < S * 4 {
        assert_eq!(daemon.token("test"), token, "the valid token of the right person is not served");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(sent(rogue, 0) - before <= 5, "{} requests in 4 s", sent(rogue, 0) - before);
    rogue.behave();
    rogue.plan(of_person(rogue, "alice"));
    let healed = wait_until("the right person's token", PATIENCE, || Some(daemon.token("test")).filter(|now| *now != token));
    assert!(rogue.is_active(&healed));
}

// ---- T65 ----

fn two_machines(report: &mut Report) {
    let requests = Mutex::new(Vec::new());
    side_by_side(report, 10, |round| {
        let most = match round % 3 {
            0 => stolen(),
            1 => copied(Rules::strict(HOUR)),
            _ => copied(Rules::grace(HOUR, HOUR)),
        };
        requests.lock().unwrap().push(most as f64);
    });
    let mut requests = requests.into_inner().unwrap();
    report.figure(format!("requests of one machine after the other's use: at most {}", quantile(&mut requests, 100)));
    report.figure("a strict server: whoever comes second ends as LOGIN NEEDED; a grace window: both go on");
}

/// The provider's honest words, and no loop.
fn ended(rogue: &Rogue, room: &Room, daemon: &Daemon<'_>, token: &str) {
    let why = wait_until("the end of the grant", PATIENCE, || {
        let summary = daemon.show("/v1/grants/test");
        (summary["state"] == "login_required").then(|| summary["last_error"].as_str().unwrap_or_default().to_owned())
    });
    assert!(why.starts_with("the provider rejected the grant"), "{why}");
    assert_eq!(daemon.token("test"), token, "the valid token is not served");
    assert_eq!(room.ctl(&["status", "--check", "test"]).code, 3);
    let shown = room.ctl(&["status", "test"]).ok().stdout;
    assert!(shown.contains("mcp-authctl login test"), "{shown}");
    let before = sent(rogue, 0);
    for _ in 0..40 {
        daemon.token("test");
        refresh(daemon, "test");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(sent(rogue, 0), before, "a dead grant's token is sent on");
}

fn stolen() -> usize {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let room = room_at(&rogue);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    rogue.steal(0);
    refresh(&daemon, "test");
    ended(&rogue, &room, &daemon, &token);
    let sent = sent(&rogue, 0);
    assert_eq!(sent, 2);
    sent
}

/// Another machine with a copy of the vault refreshes first.
fn copied(rules: Rules) -> usize {
    let strict = rules.reuse == mcp_auth_tests::rogue::Reuse::Strict;
    let rogue = Rogue::start(rules);
    let here = room_at(&rogue);
    let daemon = here.start();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    let there = room_at(&rogue);
    let copy = there.command("cp".as_ref()).arg("-a").arg(here.path("state/.")).arg(there.path("state")).status();
    assert!(copy.unwrap().success());
    let elsewhere = there.start();
    assert_eq!(refresh(&elsewhere, "test"), 200, "the copy does not work: {}", elsewhere.show("/v1/status"));
    let before = sent(&rogue, 0);
    refresh(&daemon, "test");
    if strict {
        ended(&rogue, &here, &daemon, &token);
        assert!(rogue.look(|seen| seen.count(Verdict::Reused)) == 1);
    } else {
        assert!(rogue.is_active(&daemon.token("test")) && rogue.is_active(&elsewhere.token("test")));
        assert_eq!(rogue.look(|seen| seen.count(Verdict::Repeated)), 1);
    }
    sent(&rogue, 0) - before
}

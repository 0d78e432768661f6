//! T23: thirty kinds of odd answers to a refresh. Twenty bring nothing: the login and the valid token are kept. Ten are
//! odd but good: they are taken.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Plan, Refresh, Rogue, Rules};
use mcp_auth_tests::{Daemon, Room, wait_until};
use serde_json::{Value, json};

use crate::report::{Case, Report};
use crate::side::{none_of, side_by_side};

pub(crate) const CASES: &[Case] = &[
    Case { id: "T23", title: "20 kinds of useless answers: login and token kept, healed", rounds: 200, quick: 20, run: useless },
    Case { id: "T23", title: "10 kinds of odd but good answers: taken as they are meant", rounds: 100, quick: 10, run: odd_but_good },
];

const PATIENCE: Duration = Duration::from_secs(30);
/// The lifetime of the token that must be kept: its refresh is planned after 2 s.
const LIFETIME: Duration = Duration::from_secs(4);
/// How long the server answers so, from the login on.
const SPAN: Duration = Duration::from_secs(8);
/// What the server says where it tells when to come again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The least between two requests, less what a busy machine adds to the first.
const LEAST_GAP: Duration = Duration::from_millis(900);

/// An answer that brings no token that could be served.
pub(crate) struct Useless {
    pub(crate) name: &'static str,
    pub(crate) plan: fn() -> Plan,
    /// It is as good as none: the same token is sent again at once, one time.
    lost: bool,
    /// The server says when to come again.
    told: bool,
}

const fn useless_kind(name: &'static str, plan: fn() -> Plan) -> Useless {
    Useless { name, plan, lost: false, told: false }
}

const JSON: &str = "content-type: application/json";
const HTML: &str = "content-type: text/html";
const PORTAL: &str = "<html><body>Please log in to the hotel's network</body></html>";

pub(crate) const USELESS: [Useless; 20] = [
    useless_kind("500", || Plan::canned(500, &[HTML], "<h1>Internal Server Error</h1>")),
    useless_kind("503", || Plan::canned(503, &[], "")),
    Useless { told: true, ..useless_kind("503 with Retry-After", || Plan::canned(503, &["retry-after: 5"], "")) },
    useless_kind("429", || Plan::canned(429, &[JSON], "{\"error\":\"rate_limited\"}")),
    Useless { told: true, ..useless_kind("429 with Retry-After", || Plan::canned(429, &["retry-after: 5"], "{}")) },
    useless_kind("403", || Plan::canned(403, &["content-type: text/plain"], "Forbidden")),
    useless_kind("401 with HTML", || Plan::canned(401, &[HTML], PORTAL)),
    useless_kind("200 with a portal's HTML", || Plan::canned(200, &[HTML], PORTAL)),
    useless_kind("302 to a portal", || Plan::canned(302, &["location: /portal"], "")),
    useless_kind("204", || Plan::canned(204, &[], "")),
    useless_kind("an empty body", || Plan::canned(200, &[JSON], "")),
    useless_kind("null", || Plan::canned(200, &[JSON], "null")),
    useless_kind("an array", || Plan::canned(200, &[JSON], "[{\"access_token\":\"a\"}]")),
    useless_kind("cut-off JSON", || Plan::canned(200, &[JSON], "{\"access_token\":\"abc\",\"refresh_to")),
    Useless {
        lost: true,
        ..useless_kind("garbage as gzip", || {
            Plan::canned(200, &[JSON, "content-encoding: gzip"], [0x1f, 0x8b, 8, 0, 0xff, 0xfe, 7, 7, 7].repeat(20))
        })
    },
    useless_kind("400 temporarily_unavailable", || Plan::json(400, &json!({ "error": "temporarily_unavailable" }))),
    useless_kind("400 slow_down", || Plan::json(400, &json!({ "error": "slow_down" }))),
    useless_kind("token_type DPoP", || Plan::edited(|body| body["token_type"] = json!("DPoP"))),
    useless_kind("expires_in 0", || Plan::edited(|body| body["expires_in"] = json!(0))),
    useless_kind("expires_in -5", || Plan::edited(|body| body["expires_in"] = json!(-5))),
];

fn useless(report: &mut Report) {
    let most: Mutex<BTreeMap<&str, usize>> = Mutex::default();
    let tokens = Mutex::new(0);
    side_by_side(report, 2 * USELESS.len(), |round| {
        let kind = &USELESS[round % USELESS.len()];
        let (sent, asked) = keeps_and_heals(kind).unwrap_or_else(|panic| panic!("{}: {panic}", kind.name));
        let mut most = most.lock().unwrap();
        let entry = most.entry(kind.name).or_default();
        *entry = sent.max(*entry);
        *tokens.lock().unwrap() += asked;
    });
    let most = most.into_inner().unwrap();
    let list: Vec<_> = USELESS.iter().filter_map(|kind| Some(format!("{} {}", kind.name, most.get(kind.name)?))).collect();
    report.figure(format!("most requests in the {} s that the server answers so: {}", SPAN.as_secs(), list.join(", ")));
    report.figure(none_of("expired tokens served", tokens.into_inner().unwrap()));
}

/// One life of a token while the server is of no use, and after. Gives the requests that the server saw in [`SPAN`], and
/// how many askers there were.
fn keeps_and_heals(kind: &Useless) -> Result<(usize, usize), String> {
    let rogue = Rogue::start(Rules::strict(LIFETIME));
    let mut room = Room::at_rogue(&rogue);
    room.set("MCP_AUTHD_LOG", "info");
    let daemon = room.start();
    let requested = Instant::now();
    daemon.log_in("test", "alice");
    rogue.plan((kind.plan)());
    let first = rogue.look(|seen| seen.issued[0].clone());
    let mut asked = 0;
    while first.at.elapsed() < SPAN {
        served_while_valid(&daemon, &first.token, (requested, first.at))?;
        asked += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    if daemon.show("/v1/grants/test")["state"] != "retrying" && daemon.show("/v1/grants/test")["state"] != "refreshing" {
        return Err(format!("the grant is not waiting: {}", daemon.show("/v1/grants/test")));
    }
    let refreshes = rogue.look(|seen| seen.refreshes.clone());
    paced(kind, &refreshes)?;
    if rogue.look(|seen| seen.requests_to("/portal")) > 0 {
        return Err("the redirect was followed".into());
    }
    rogue.behave();
    heals(kind, &rogue, &daemon)?;
    // In order: a refresh that a kill interrupts is another case.
    daemon.stop();
    let daemon = room.start();
    let served = daemon.token("test");
    if served == first.token || !rogue.is_active(&served) {
        return Err("what healed it was not kept".into());
    }
    Ok((refreshes.len(), asked))
}

/// One question: the token as long as it lives, and afterwards an honest no. Its life is counted from the sending of the
/// request, which lies somewhere between these two times.
fn served_while_valid(daemon: &Daemon<'_>, token: &str, (requested, issued): (Instant, Instant)) -> Result<(), String> {
    let began = issued.elapsed();
    let answer = daemon.ask("test");
    let body = answer.json();
    match answer.status {
        200 if body["access_token"] != token => Err("a token was served that is not to be served".into()),
        200 if began > LIFETIME => Err(format!("the expired token was served {began:?} after its issue")),
        200 => Ok(()),
        _ if requested.elapsed() < LIFETIME => Err(format!("the valid token was not served: {body}")),
        _ if body["error"] != "provider_unreachable" => Err(format!("not `provider_unreachable`: {body}")),
        _ if body["retry_after"].as_u64().is_none() => Err(format!("no `retry_after`: {body}")),
        _ => Ok(()),
    }
}

/// Whether the requests kept their distance.
fn paced(kind: &Useless, refreshes: &[Refresh]) -> Result<(), String> {
    let gaps: Vec<Duration> = refreshes.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at)).collect();
    let least = if kind.told { RETRY_AFTER } else { LEAST_GAP };
    let hasty = gaps.iter().filter(|gap| **gap < least).count();
    if refreshes.is_empty() || hasty > usize::from(kind.lost) {
        return Err(format!("{} requests with these gaps: {gaps:?}", refreshes.len()));
    }
    Ok(())
}

/// The next good answer heals it: by hand at once, or when the server said.
fn heals(kind: &Useless, rogue: &Rogue, daemon: &Daemon<'_>) -> Result<(), String> {
    let by_hand = daemon.call("POST", "/v1/grants/test/refresh", &json!({}));
    if by_hand.status != 200 && !kind.told {
        return Err(format!("a good answer did not heal it: {}", by_hand.body));
    }
    wait_until("a fresh token", PATIENCE, || {
        let answer = daemon.ask("test");
        let token = (answer.status == 200).then(|| answer.json()["access_token"].as_str().unwrap_or_default().to_owned())?;
        rogue.is_active(&token).then_some(())
    });
    Ok(())
}

/// An answer that says what it must in an unusual way.
pub(crate) struct Odd {
    pub(crate) name: &'static str,
    pub(crate) edit: fn(&mut Value),
    /// What `expires_in` of the token must be: `None` for unknown.
    lives: Option<u64>,
}

const TEN_YEARS: u64 = 10 * 365 * 86_400;

pub(crate) const ODD: [Odd; 10] = [
    Odd { name: "token_type bearer", edit: |body| body["token_type"] = json!("bearer"), lives: Some(3600) },
    Odd { name: "token_type BEARER", edit: |body| body["token_type"] = json!("BEARER"), lives: Some(3600) },
    Odd { name: "token_type missing", edit: |body| without(body, "token_type"), lives: Some(3600) },
    Odd { name: "expires_in missing", edit: |body| without(body, "expires_in"), lives: None },
    Odd { name: "expires_in null", edit: |body| body["expires_in"] = Value::Null, lives: None },
    Odd { name: "expires_in \"3600\"", edit: |body| body["expires_in"] = json!("3600"), lives: Some(3600) },
    Odd { name: "expires_in 3600.0", edit: |body| body["expires_in"] = json!(3600.0), lives: Some(3600) },
    Odd { name: "expires_in 1e300", edit: |body| body["expires_in"] = json!(1e300), lives: Some(TEN_YEARS) },
    Odd { name: "refresh_token null", edit: |body| body["refresh_token"] = Value::Null, lives: Some(3600) },
    Odd { name: "refresh_token \"\"", edit: |body| body["refresh_token"] = json!(""), lives: Some(3600) },
];

impl Odd {
    /// Whether a server that answers so may rotate: one that says nothing of the refresh token goes on with it.
    pub(crate) fn rotates(&self) -> bool {
        !self.name.starts_with("refresh_token")
    }
}

fn without(body: &mut Value, member: &str) {
    body.as_object_mut().unwrap().remove(member);
}

fn odd_but_good(report: &mut Report) {
    side_by_side(report, ODD.len(), |round| {
        let kind = &ODD[round % ODD.len()];
        taken(kind).unwrap_or_else(|panic| panic!("{}: {panic}", kind.name));
    });
    report.figure(ODD.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", "));
}

fn taken(kind: &Odd) -> Result<(), String> {
    let mut rules = Rules::strict(Duration::from_secs(3600));
    rules.rotate = kind.rotates();
    let rogue = Rogue::start(rules);
    let mut room = Room::at_rogue(&rogue);
    room.set("MCP_AUTHD_LOG", "info");
    let daemon = room.start();
    daemon.log_in("test", "alice");
    rogue.plan(Plan::edited(kind.edit));
    let answer = daemon.call("POST", "/v1/grants/test/refresh", &json!({}));
    let newest = rogue.look(|seen| seen.issued.last().unwrap().token.clone());
    if answer.status != 200 {
        return Err(format!("not taken: {}", answer.body));
    }
    let body = daemon.ask("test").json();
    let lives = body["expires_in"].as_u64();
    let as_told = match (lives, kind.lives) {
        (Some(lives), Some(told)) => lives <= told && lives + 10 >= told,
        (lives, told) => lives == told && body["expires_at"].is_null(),
    };
    if body["access_token"] != newest.as_str() || body["token_type"] != "Bearer" || !as_told {
        return Err(format!("served with {lives:?} s: {}", daemon.show("/v1/grants/test")));
    }
    daemon.kill();
    rogue.behave();
    let daemon = room.start();
    if daemon.token("test") != newest {
        return Err("it was not kept".into());
    }
    let again = daemon.call("POST", "/v1/grants/test/refresh", &json!({}));
    let sent = rogue.look(|seen| seen.refreshes.len());
    if again.status != 200 || sent != 2 {
        return Err(format!("the next refresh, after {sent} requests: {}", again.body));
    }
    Ok(())
}

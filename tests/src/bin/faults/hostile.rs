//! T26, T27: answers that are too slow, too large or built to break a parser, of the token endpoint, the metadata and
//! userinfo.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::rogue::{Delivery, Plan, Rogue, Rules};
use mcp_auth_tests::{Daemon, Room};
use serde_json::json;

use crate::provider::refresh;
use crate::report::{Case, Report, quantile};
use crate::side::{Over, side_by_side};

pub(crate) const CASES: &[Case] = &[
    Case { id: "T26", title: "answers without end: cut off, memory flat, others served", rounds: 42, quick: 6, run: without_end },
    Case { id: "T27", title: "JSON that breaks parsers: an error, nothing lost", rounds: 150, quick: 30, run: odd_json },
];

const HOUR: Duration = Duration::from_secs(3600);
/// How much the daemon may grow at its peak, KiB.
pub(crate) const MOST_GROWTH: u64 = 10 * 1024;

// ---- T26 ----

/// A name, and what goes with it.
pub(crate) type Named<T> = (&'static str, T);
/// Makes a body with these members in it.
pub(crate) type MakeBody = fn(&str) -> String;

/// An answer without an end. The last takes 20 s and is left out of quick runs.
pub(crate) const FLOODS: [Named<fn() -> Plan>; 7] = [
    ("a body of 1 GB", || flood("content-length: 1000000000\r\n\r\n", &[b'a'; 4096])),
    ("chunks without end", || flood("transfer-encoding: chunked\r\n\r\n", chunk(&[b'a'; 4096]).as_slice())),
    ("a gzip bomb of 1:1000", || flood("content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n", &gzip_bomb())),
    ("headers without end", || flood("", b"x-header: some\r\n")),
    ("a header line without end", || flood("x-header: ", &[b'a'; 4096])),
    ("a status line without end", || Plan::raw("HTTP/1.1 200 ").delivery(Delivery::Endless(12))),
    ("one byte a second", || Plan::honest("/token").without_effect().delivery(Delivery::Drip(Duration::from_secs(1)))),
];

/// This head, and then this for ever.
fn flood(head: &str, rest: &[u8]) -> Plan {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}");
    Plan::raw([head.as_bytes(), rest].concat()).delivery(Delivery::Endless(head.len()))
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A whole gzip member of 16 MiB of spaces, as a chunk. Members that follow each other are one stream (RFC 1952 section 2.2),
/// and each is a thousandth of what it holds.
fn gzip_bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..256 {
        encoder.write_all(&[b' '; 65536]).unwrap();
    }
    chunk(&encoder.finish().unwrap())
}

fn without_end(report: &mut Report) {
    let kinds = if report.rounds() as usize >= FLOODS.len() { FLOODS.len() } else { FLOODS.len() - 1 };
    let (grown, took) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let others = Mutex::new(Vec::new());
    side_by_side(report, 3, |round| {
        // Pairs of different length side by side: the slow one does not come last.
        let (name, plan) = FLOODS[kinds - 1 - round % kinds];
        let (growth, time, others_took) = flooded(plan()).unwrap_or_else(|error| panic!("{name}: {error}"));
        grown.lock().unwrap().push((name, growth));
        took.lock().unwrap().push((name, time.as_secs_f64()));
        others.lock().unwrap().extend(others_took);
    });
    let (grown, took, mut others) = (grown.into_inner().unwrap(), took.into_inner().unwrap(), others.into_inner().unwrap());
    for (name, _) in &FLOODS[..kinds] {
        let most = grown.iter().filter(|row| row.0 == *name).map(|row| row.1).max().unwrap_or(0);
        let mut times: Vec<f64> = took.iter().filter(|row| row.0 == *name).map(|row| row.1).collect();
        report.figure(format!("{name}: peak memory +{:.1} MB, cut off after p50 {:.2} s", most as f64 / 1024.0, quantile(&mut times, 50)));
    }
    let (p50, p99) = (quantile(&mut others, 50), quantile(&mut others, 99));
    report.figure(format!("tokens of another provider meanwhile: {} in p50 {p50:.2} ms, p99 {p99:.2} ms", others.len()));
    if p50 > 20.0 {
        report.count(0, [format!("others waited {p50:.1} ms")]);
    }
}

/// Two providers, one of which floods: growth of the peak, until it was cut off, and what others waited.
fn flooded(plan: Plan) -> Result<(u64, Duration, Vec<f64>), String> {
    let (rogue, fine) = (Rogue::start(Rules::strict(HOUR)), Rogue::start(Rules::strict(HOUR)));
    let mut room = Room::with_config(&format!("{}{}", rogue.provider_table("test", ""), fine.provider_table("fine", "")));
    room.set("MCP_AUTHD_LOG", "info");
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.log_in("fine", "alice");
    let token = daemon.token("test");
    daemon.kill();
    let daemon = room.start();
    // One refresh, so that what it needs for ever is there.
    assert_eq!(refresh(&daemon, "fine"), 200);
    let before = start_peak(&daemon);
    rogue.plan(plan);
    let began = Instant::now();
    let (status, waits) = while_others_ask(&daemon, || refresh(&daemon, "test"));
    let took = began.elapsed();
    let growth = peak(&daemon).saturating_sub(before);
    rogue.behave();
    let summary = daemon.show("/v1/grants/test");
    if status != 503 || daemon.token("test") != token || summary["state"] == "login_required" {
        return Err(format!("status {status}, {summary}"));
    }
    if growth > MOST_GROWTH {
        return Err(format!("the daemon grew by {growth} KiB"));
    }
    Ok((growth, took, waits))
}

/// Does something while another grant is asked for all the time: what came of it, and what each asker waited, milliseconds.
pub(crate) fn while_others_ask<T>(daemon: &Daemon<'_>, act: impl FnOnce() -> T) -> (T, Vec<f64>) {
    let (over, waits) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = daemon.connect();
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let answer = connection.json("POST", "/v1/token", &json!({ "grant": "fine" })).unwrap();
                assert_eq!(answer.status, 200);
                waits.lock().unwrap().push(asked.elapsed().as_secs_f64() * 1000.0);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let _over = Over(&over);
        act()
    });
    (outcome, waits.into_inner().unwrap())
}

/// Sets the peak back to what is in use now, and gives that, KiB.
pub(crate) fn start_peak(daemon: &Daemon<'_>) -> u64 {
    std::fs::write(format!("/proc/{}/clear_refs", daemon.running.pid()), "5").unwrap();
    peak(daemon)
}

/// The most that was ever resident, KiB.
pub(crate) fn peak(daemon: &Daemon<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.running.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

// ---- T27 ----

/// Bodies that are no good JSON object, or too large for one. `REST` stands for good members.
pub(crate) const BODIES: [Named<MakeBody>; 9] = [
    ("arrays 100,000 deep", |rest| format!("{{{rest},\"a\":{}", "[".repeat(100_000))),
    ("objects 40,000 deep", |rest| format!("{{{rest},\"a\":{}", "{\"a\":".repeat(40_000))),
    ("closed arrays 100,000 deep", |rest| format!("{{{rest},\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000))),
    ("a member twice", |rest| format!("{{{rest},{rest}}}")),
    ("NaN", |rest| format!("{{{rest},\"expires_in\":NaN}}")),
    ("1e999", |rest| format!("{{{rest},\"expires_in\":1e999}}")),
    ("a lone surrogate", |rest| format!("{{{rest},\"scope\":\"\\ud800\"}}")),
    ("a text of 10 MB", |rest| format!("{{{rest},\"scope\":\"{}\"}}", "a".repeat(10_000_000))),
    ("a raw NUL", |rest| format!("{{{rest},\"scope\":\"\0\"}}")),
];

/// Bytes that are no UTF-8, for the same places.
pub(crate) const NOT_UTF8: &[u8] = b"{\"access_token\":\"\xff\xfe\",\"issuer\":\"\xc0\xaf\",\"sub\":\"\xed\xa0\x80\"}";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Token,
    Metadata,
    Userinfo,
}

const PLACES: [Place; 3] = [Place::Token, Place::Metadata, Place::Userinfo];

fn odd_json(report: &mut Report) {
    let kinds = BODIES.len() + 1;
    side_by_side(report, 4, |round| {
        let (place, kind) = (PLACES[round % PLACES.len()], round / PLACES.len() % kinds);
        let name = BODIES.get(kind).map_or("not UTF-8", |body| body.0);
        withstands(place, kind).unwrap_or_else(|error| panic!("{name} from {place:?}: {error}"));
    });
    let names: Vec<_> = BODIES.iter().map(|body| body.0).collect();
    report.figure(format!("{}, bytes that are not UTF-8; in token answers, metadata and userinfo", names.join(", ")));
}

fn body(place: Place, kind: usize, issuer: &str) -> Vec<u8> {
    let good = match place {
        Place::Token => "\"access_token\":\"zQaT9qz.evil\",\"token_type\":\"Bearer\",\"refresh_token\":\"zQrT9qz.evil\"".to_owned(),
        Place::Metadata => format!(
            "\"issuer\":\"{issuer}\",\"authorization_endpoint\":\"{issuer}/evil\",\"token_endpoint\":\"{issuer}/evil\",\
             \"code_challenge_methods_supported\":[\"S256\"]"
        ),
        Place::Userinfo => "\"sub\":\"mallory\",\"email\":\"mallory@evil.example\"".to_owned(),
    };
    BODIES.get(kind).map_or_else(|| NOT_UTF8.to_vec(), |(_, make)| make(&good).into_bytes())
}

fn withstands(place: Place, kind: usize) -> Result<(), String> {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let mut room = Room::with_config(&rogue.provider_table("test", &format!("userinfo_endpoint = \"{}/me\"", rogue.issuer())));
    room.set("MCP_AUTHD_LOG", "info");
    let mut daemon = room.start();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    let plan = Plan::canned(200, &["content-type: application/json"], body(place, kind, &rogue.issuer()));
    is_an_error(place, plan, &rogue, &daemon)?;
    if !daemon.running.is_alive() || daemon.token("test") != token {
        return Err(format!("the grant was harmed: {}", daemon.show("/v1/grants/test")));
    }
    rogue.behave();
    daemon.log_in("test:third", "alice");
    let said = daemon.stop();
    if said.code != 0 || said.stderr.contains("panicked") || said.stderr.contains("evil") {
        return Err(format!("the daemon said: {}", said.stderr));
    }
    Ok(())
}

/// A refresh fails, a login fails, or the account of a login stays unknown.
fn is_an_error(place: Place, plan: Plan, rogue: &Rogue, daemon: &Daemon<'_>) -> Result<(), String> {
    match place {
        Place::Token => {
            rogue.plan(plan);
            let status = refresh(daemon, "test");
            let summary = daemon.show("/v1/grants/test");
            if status == 503 && !summary["last_error"].is_null() { Ok(()) } else { Err(format!("status {status}: {summary}")) }
        }
        Place::Metadata => {
            rogue.plan(plan.path("/.well-known/oauth-authorization-server"));
            rogue.plan(Plan::canned(404, &[], "").path("/.well-known/openid-configuration"));
            match daemon.start_login(&json!({ "provider": "test", "account": "second" })).last() {
                LoginEvent::Failed { error } if !error.error_description.is_empty() => Ok(()),
                other => Err(format!("the login ended with {other:?}")),
            }
        }
        Place::Userinfo => {
            rogue.plan(plan.path("/me"));
            daemon.log_in("test:second", "alice");
            let summary = daemon.show("/v1/grants/test:second");
            if summary["account"].is_null() && summary["state"] == "ok" { Ok(()) } else { Err(format!("believed: {summary}")) }
        }
    }
}

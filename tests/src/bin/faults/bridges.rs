//! T33: many bridges at one protected server while its tokens live for seconds, at a real authorization server that ends a login
//! at the first used refresh token.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_tests::{Counters, ProtectedServer, Room, Sdk, Server, StdioServer};
use serde_json::json;

use crate::life::quiet;
use crate::report::{Case, Report, quantile};
use crate::side::Over;

/// A round is a refresh.
pub(crate) const CASES: &[Case] = &[Case {
    id: "T33",
    title: "ten bridges, tokens of 5 s: none refreshed twice, every call answered",
    rounds: 30,
    quick: 6,
    run: bridges,
}];

const BRIDGES: usize = 10;
const LIFETIME: u64 = 5;
const PAUSE: Duration = Duration::from_millis(250);

/// What one bridge's client saw.
#[derive(Default)]
struct Calls {
    /// How long each answered one took, milliseconds.
    answered: Vec<f64>,
    failed: Vec<String>,
}

fn bridges(report: &mut Report) {
    let server = Server::with_lifetime(LIFETIME);
    let mcp = ProtectedServer::start(Sdk::TypeScript, server.issuer());
    let room = quiet(Room::with_config(""));
    let _daemon = room.start();
    room.log_in(&mcp.url).ok();
    let kept_out = mcp.seen().1;
    let wanted = u64::from(report.rounds());
    let (over, until) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(60 + LIFETIME * wanted));
    let calls: Vec<Calls> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..BRIDGES).map(|_| scope.spawn(|| client(&room, &mcp.url, &over))).collect();
        let over = Over(&over);
        while server.counters().refreshes().ok < wanted && Instant::now() < until {
            std::thread::sleep(PAUSE);
        }
        drop(over);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let counters = server.counters();
    report.count(u32::try_from(counters.refreshes().ok.min(wanted)).unwrap(), wrong(&counters, wanted));
    report.count(0, calls.iter().flat_map(|calls| calls.failed.clone()));
    let mut times: Vec<f64> = calls.iter().flat_map(|calls| calls.answered.clone()).collect();
    let asked = times.len() + calls.iter().map(|calls| calls.failed.len()).sum::<usize>();
    let (p50, p99) = (quantile(&mut times, 50), quantile(&mut times, 99));
    report.figure(format!("{} of {asked} tool calls of {BRIDGES} bridges answered, p50 {p50:.1} ms, p99 {p99:.1} ms", times.len()));
    let (refreshes, rejected) = (counters.refreshes(), mcp.seen().1 - kept_out);
    report.figure(format!(
        "{} refreshes for {} tokens; used refresh tokens that came again: {}; tokens that expired on their way: {rejected}, each call repeated with the next",
        refreshes.requests,
        counters.issued.len(),
        counters.reuse
    ));
}

/// Calls a tool again and again until it is over.
fn client(room: &Room, url: &str, over: &AtomicBool) -> Calls {
    let mut bridge = StdioServer::bridge(room, &[url]);
    let mut calls = Calls::default();
    bridge.initialize();
    for id in 1.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let asked = Instant::now();
        let answer = bridge.ask(id, "tools/call", &json!({ "name": "add", "arguments": { "a": id, "b": 1 } }));
        let sum = answer["result"]["content"][0]["text"].as_str().and_then(|text| text.parse().ok());
        if sum == Some(id + 1) {
            calls.answered.push(asked.elapsed().as_secs_f64() * 1000.0);
        } else {
            calls.failed.push(format!("a call was answered {answer}"));
        }
        std::thread::sleep(PAUSE);
    }
    calls
}

/// What the authorization server saw that it should not have.
fn wrong(counters: &Counters, wanted: u64) -> Vec<String> {
    let refreshes = counters.refreshes();
    let mut wrong = Vec::new();
    if counters.reuse > 0 {
        wrong.push(format!("{} used refresh tokens came again", counters.reuse));
    }
    if refreshes.requests != refreshes.ok || counters.issued.len() as u64 != refreshes.ok + 1 {
        wrong.push(format!("{refreshes:?} for {} tokens", counters.issued.len()));
    }
    if refreshes.ok < wanted {
        wrong.push(format!("only {} refreshes", refreshes.ok));
    }
    wrong
}

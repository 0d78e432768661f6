//! The main job, for minutes: many clients, tokens of 5 seconds, a provider that ends the family at the first reuse.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_tests::{Connection, Counters, Issued, Room, Server, fingerprint, now_ms};
use serde_json::json;

const LIFETIME: u64 = 5;
const LIFETIMES: u64 = 30;
const CLIENTS: usize = 20;

/// One token as one client got it: which, when, and whether the server took it right then.
struct Got {
    fingerprint: String,
    at_ms: u64,
    active: Option<bool>,
}

/// Asks ten times a second on one kept connection; shows every token that is new to it to the server at once.
fn client(socket: &std::path::Path, server: &Server, stop: &AtomicBool) -> Vec<Got> {
    let mut connection = Connection::unix(socket).unwrap();
    let (mut got, mut known) = (Vec::new(), BTreeSet::new());
    while !stop.load(Ordering::Relaxed) {
        let answer = connection.json("POST", "/v1/token", &json!({ "grant": "test" })).unwrap();
        let at_ms = now_ms();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        let active = known.insert(token.clone()).then(|| server.is_active(&token));
        got.push(Got { fingerprint: fingerprint(&token), at_ms, active });
        std::thread::sleep(Duration::from_millis(100));
    }
    got
}

fn run_clients(socket: &std::path::Path, server: &Server) -> Vec<Got> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| client(socket, server, &stop))).collect();
        let end = Instant::now() + Duration::from_secs(LIFETIME * LIFETIMES);
        while Instant::now() < end && !clients.iter().any(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(200));
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn no_token_was_expired(got: &[Got], counters: &Counters) {
    let issued: BTreeMap<&str, &Issued> = counters.issued.iter().map(|issued| (issued.fingerprint.as_str(), issued)).collect();
    for token in got {
        let issued = issued[token.fingerprint.as_str()];
        assert!(token.at_ms < issued.expires_at_ms, "{} came {} ms after its end", token.fingerprint, token.at_ms - issued.expires_at_ms);
        assert_ne!(token.active, Some(false), "the server did not take {}", token.fingerprint);
    }
}

fn each_token_was_replaced_by_one_refresh(counters: &Counters) {
    let refreshes = counters.refreshes();
    assert_eq!(counters.reuse, 0, "refresh tokens came twice");
    assert_eq!((refreshes.requests, refreshes.errors.len()), (refreshes.ok, 0), "{refreshes:?}");
    assert_eq!(counters.refresh_tokens_used, refreshes.ok);
    assert_eq!(u64::try_from(counters.issued.len()).unwrap(), 1 + refreshes.ok, "one login, then one refresh for each token");
    assert!(refreshes.ok >= LIFETIMES, "only {} refreshes", refreshes.ok);
    let soonest = counters.issued.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).min().unwrap();
    assert!(soonest >= LIFETIME * 1000 / 3, "a token was replaced after {soonest} ms: too eager");
}

#[test]
fn twenty_clients_never_get_an_expired_token_through_thirty_lifetimes() {
    let server = Server::with_lifetime(LIFETIME);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let got = run_clients(&room.socket(), &server);
    let counters = server.counters();
    no_token_was_expired(&got, &counters);
    each_token_was_replaced_by_one_refresh(&counters);
    let checked = got.iter().filter(|token| token.active.is_some()).count();
    println!(
        "{CLIENTS} clients, {} answers, {checked} shown to the server at once, {} tokens, {} refreshes: 0 expired, 0 reused",
        got.len(),
        counters.issued.len(),
        counters.refreshes().ok
    );
}

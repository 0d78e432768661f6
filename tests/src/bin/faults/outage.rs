//! T28-T30: a provider that is away for a while, that cannot be reached or not be trusted, and a start without a network.

use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Moment, Plan, Rogue, Rules};
use mcp_auth_tests::{Daemon, Identity, Room, TlsFront, require, require_root, wait_until};

use crate::provider::room_at;
use crate::report::{Case, Report, quantile};
use crate::side::side_by_side;

pub(crate) const CASES: &[Case] = &[
    Case { id: "T28", title: "20 grants in an outage and after it: few requests, no herd", rounds: 12, quick: 3, run: outage },
    Case { id: "T29", title: "no name, no route, no trust: clear words, nothing lost", rounds: 70, quick: 7, run: unreachable },
    Case { id: "T30", title: "start without a network: valid token served, else said so", rounds: 60, quick: 6, run: offline_start },
];

const S: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(60);

// ---- T28 ----

const GRANTS: usize = 20;
/// From the logins on, for the published figures and quickly. The tokens live 10 s, so that every grant wants a refresh after
/// 5-6 s and has nothing from 10 s on.
const OUTAGE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(12));
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What an outage looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    /// 503 and no word of when to come again.
    Plain,
    /// 429 with `Retry-After` in seconds.
    Seconds,
    /// 503 with `Retry-After` as a date, by a server whose clock is an hour ahead.
    Date,
}

const OUTAGES: [Outage; 3] = [Outage::Plain, Outage::Seconds, Outage::Date];

impl Outage {
    fn plan(self) -> Plan {
        let date = |from_now: u64| {
            let format = "+%a, %d %b %Y %H:%M:%S GMT";
            let output =
                Command::new("date").env("LC_ALL", "C").args(["-u", "-d", &format!("+{from_now} seconds"), format]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let mut plan = match self {
            Self::Plain => Plan::canned(503, &[], ""),
            Self::Seconds => Plan::canned(429, &[&format!("retry-after: {}", RETRY_AFTER.as_secs())], ""),
            Self::Date => {
                let [now, then] = [3600, 3600 + RETRY_AFTER.as_secs()].map(date);
                Plan::canned(503, &[&format!("date: {now}"), &format!("retry-after: {then}")], "")
            }
        };
        // Long enough for requests at once to be seen as such.
        plan.delay = Duration::from_millis(30);
        plan
    }
}

/// What one outage cost.
struct Cost {
    outage: Outage,
    during: usize,
    at_once: i64,
    spread: Duration,
    healed: Duration,
}

fn outage(report: &mut Report) {
    let length = if report.rounds() as usize > OUTAGES.len() { OUTAGE.0 } else { OUTAGE.1 };
    let costs = Mutex::new(Vec::new());
    side_by_side(report, 2 * OUTAGES.len(), |round| {
        let cost = sit_out(OUTAGES[round % OUTAGES.len()], length);
        costs.lock().unwrap().push(cost);
    });
    let costs = costs.into_inner().unwrap();
    for outage in OUTAGES {
        let rows: Vec<&Cost> = costs.iter().filter(|cost| cost.outage == outage).collect();
        let Some(during) = rows.iter().map(|cost| cost.during).max() else { continue };
        let at_once = rows.iter().map(|cost| cost.at_once).max().unwrap_or(0);
        let seconds = |of: fn(&Cost) -> Duration| quantile(&mut rows.iter().map(|cost| of(cost).as_secs_f64()).collect::<Vec<_>>(), 50);
        report.figure(format!(
            "{outage:?}: {GRANTS} grants, at most {during} requests in {} s, {at_once} at once; back after p50 {:.1} s, within {:.2} s of each other",
            length.as_secs(),
            seconds(|cost| cost.healed),
            seconds(|cost| cost.spread)
        ));
    }
    report.figure("hours of outage: the random histories of the pure core (daemon/src/grant/history.rs)");
}

fn sit_out(outage: Outage, length: Duration) -> Cost {
    let rogue = Rogue::start(Rules::strict(S * 10));
    let room = room_at(&rogue);
    let daemon = room.start();
    let names: Vec<String> = (0..GRANTS).map(|number| format!("test:g{number}")).collect();
    names.iter().for_each(|name| daemon.log_in(name, "alice"));
    let most = most_at_once(&rogue);
    rogue.plan(outage.plan());
    let began = Instant::now();
    while began.elapsed() < length {
        // Askers never make it ask more often.
        names.iter().for_each(|name| drop(daemon.ask(name)));
        std::thread::sleep(Duration::from_millis(50));
    }
    let during = rogue.look(|seen| seen.refreshes.clone());
    assert!(!during.is_empty(), "nobody asked for a refresh");
    if outage == Outage::Plain {
        assert!(during.len() as u64 <= 2 * length.as_secs(), "{} requests", during.len());
    } else {
        // Those that were under way together; then nobody until the time is over.
        let rounds = (length.as_secs() / RETRY_AFTER.as_secs() + 1) as usize;
        assert!(during.len() <= 2 * rounds, "{} requests in spite of Retry-After", during.len());
        let early = |at: Instant| during[0].at + S < at && at < during[0].at + RETRY_AFTER - S / 20;
        assert!(!during.iter().any(|refresh| early(refresh.at)), "Retry-After was not waited for");
    }
    rogue.plan(Plan::late(Duration::from_millis(30)));
    let (spread, healed) = comes_back(&rogue, &daemon, &names, during.len());
    let at_once = most.load(Ordering::Relaxed);
    assert!(at_once <= 2, "{at_once} requests at once");
    Cost { outage, during: during.len(), at_once, spread, healed }
}

/// Keeps count of the most token requests that are under way together.
fn most_at_once(rogue: &Rogue) -> Arc<AtomicI64> {
    let (now, most) = (AtomicI64::new(0), Arc::new(AtomicI64::new(0)));
    let peak = most.clone();
    rogue.on(move |moment, path| match moment {
        Moment::Arrived if path == "/token" => {
            peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        Moment::Answered if path == "/token" => {
            now.fetch_sub(1, Ordering::Relaxed);
        }
        _ => {}
    });
    most
}

/// Every grant heals, with one request. Gives the time between the first request and the last, and until all were well.
fn comes_back(rogue: &Rogue, daemon: &Daemon<'_>, names: &[String], before: usize) -> (Duration, Duration) {
    let began = Instant::now();
    for name in names {
        wait_until("a token of every grant", PATIENCE, || (daemon.ask(name).status == 200).then_some(()));
    }
    let healed = began.elapsed();
    let after = rogue.look(|seen| seen.refreshes[before..].to_vec());
    // The one that was under way as the outage ended may be among them.
    let after: Vec<_> = after.iter().take(GRANTS + 2).collect();
    let spread = after.iter().map(|refresh| refresh.at).max().unwrap().duration_since(after[0].at);
    let served = |family| after.iter().filter(|refresh| refresh.family == Some(family)).count();
    assert!((0..GRANTS).all(|family| served(family) <= 2), "a grant was refreshed again and again");
    assert!(after.len() <= GRANTS + 2, "{} requests to heal {GRANTS} grants", after.len());
    (spread, healed)
}

// ---- T29 ----

/// Why the provider is not reached, what is said, and what is true of a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NoSuchName,
    NoNameServer,
    Refused,
    Expired,
    WrongHost,
    SelfSigned,
    NoNetwork,
}

const FAULTS: [(Fault, &str); 7] = [
    (Fault::NoSuchName, "its name cannot be resolved"),
    (Fault::NoNameServer, "its name cannot be resolved"),
    (Fault::Refused, "refused"),
    (Fault::Expired, "its certificate is not trusted: it has expired"),
    (Fault::WrongHost, "it belongs to another host"),
    (Fault::SelfSigned, "signed by nobody"),
    (Fault::NoNetwork, "unreachable"),
];

const NAMED: &str = "127.0.0.1 localhost as.test\n";
/// Makes the room's files those of the system, for this process alone.
const OWN_NAMES: &str = "for file in hosts resolv.conf nsswitch.conf; do \
    [ ! -e /etc/$file ] || mount --bind \"$MCP_NAMES/$file\" /etc/$file || exit 9; done; exec \"$@\"";

fn unreachable(report: &mut Report) {
    require_root("give a daemon its own name service and network");
    let healed = Mutex::new(Vec::new());
    let said = Mutex::new(std::collections::BTreeMap::new());
    side_by_side(report, 4, |round| {
        let (fault, words) = FAULTS[round % FAULTS.len()];
        let (sentence, time) = not_reached(fault, words);
        healed.lock().unwrap().push(time.as_secs_f64());
        said.lock().unwrap().insert(format!("{fault:?}"), sentence);
    });
    for (fault, sentence) in said.into_inner().unwrap() {
        report.figure(format!("{fault}: {sentence}"));
    }
    let mut healed = healed.into_inner().unwrap();
    report.figure(format!("healed by itself after p50 {:.1} s, at most {:.1} s", quantile(&mut healed, 50), quantile(&mut healed, 100)));
}

fn names(room: &Room, hosts: &str) {
    // In place: it is mounted over the system's.
    std::fs::write(room.path("names/hosts"), hosts).unwrap();
}

fn not_reached(fault: Fault, words: &str) -> (String, Duration) {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let behind: u16 = rogue.issuer().rsplit(':').next().unwrap().parse().unwrap();
    let front = TlsFront::of(behind);
    let room = room_behind(&rogue, &front, fault);
    let own_names = ["unshare", "--mount", "sh", "-c", OWN_NAMES, "sh"];
    let mut daemon = room.start_under(&own_names);
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    match fault {
        Fault::NoSuchName | Fault::NoNameServer => names(&room, "127.0.0.1 localhost\n"),
        Fault::Refused => names(&room, "127.0.0.1 localhost\n127.0.0.9 as.test\n"),
        Fault::Expired => front.be(Identity::Expired),
        Fault::WrongHost => front.be(Identity::WrongHost),
        Fault::SelfSigned => front.be(Identity::SelfSigned),
        Fault::NoNetwork => {
            daemon.stop();
            names(&room, "203.0.113.9 as.test\n");
            daemon = room.start_under(&["unshare", "--mount", "--net", "sh", "-c", OWN_NAMES, "sh"]);
        }
    }
    let refused = room.ctl(&["refresh", "test"]).fails_with(5).says("cannot connect to as.test").says(words);
    assert_eq!(daemon.token("test"), token, "the valid token is not served");
    assert_ne!(daemon.show("/v1/grants/test")["state"], "login_required");
    assert_eq!(rogue.look(|seen| seen.refreshes.len()), 0, "a refresh token left in spite of it");
    front.be(Identity::Good);
    names(&room, NAMED);
    if fault == Fault::NoNetwork {
        daemon.stop();
        daemon = room.start_under(&own_names);
        // Nothing is due after a restart, so somebody has to want it.
        assert_eq!(crate::provider::refresh(&daemon, "test"), 200);
    }
    let began = Instant::now();
    wait_until("a refresh by itself", PATIENCE, || (daemon.token("test") != token).then_some(()));
    assert_eq!(front.plain(), 0, "it came without TLS");
    assert_eq!(rogue.look(|seen| seen.refreshes.len()), 1);
    let sentence = refused.stderr.lines().find_map(|line| line.split_once("as.test: ")).map(|(_, reason)| reason.to_owned());
    (sentence.unwrap_or_default(), began.elapsed())
}

/// A room whose provider is `https://as.test`, with names of its own.
fn room_behind(rogue: &Rogue, front: &TlsFront, fault: Fault) -> Room {
    let (issuer, port, ca_file) = (rogue.issuer(), front.port(), front.ca_file());
    let table = rogue.provider_table(
        "test",
        &format!("authorization_endpoint = \"{issuer}/authorize\"\ntoken_endpoint = \"https://as.test:{port}/token\""),
    );
    let mut room = Room::with_config(&format!("{table}[network]\nca_file = \"{}\"\n", ca_file.display()));
    std::fs::create_dir(room.path("names")).unwrap();
    names(&room, NAMED);
    // A name server that nobody runs; only one of the faults gets as far as asking it.
    std::fs::write(room.path("names/resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    let order = if fault == Fault::NoNameServer { "hosts: files dns\n" } else { "hosts: files\n" };
    std::fs::write(room.path("names/nsswitch.conf"), order).unwrap();
    let folder = room.path("names");
    room.set("MCP_NAMES", folder.to_str().unwrap());
    room.set("MCP_AUTHD_LOG", "info");
    room
}

// ---- T30 ----

fn offline_start(report: &mut Report) {
    require_root("take the network from a daemon");
    require("ip", "iproute2");
    let (valid, expired) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    side_by_side(report, 2, |round| {
        let is_valid = round % 2 == 0;
        let took = start_offline(is_valid, round / 2 % 2 == 0).as_secs_f64() * 1000.0;
        if is_valid { &valid } else { &expired }.lock().unwrap().push(took);
    });
    for (what, times) in [("a valid token was served", valid), ("`provider_unreachable` was said", expired)] {
        let mut times = times.into_inner().unwrap();
        let p50 = quantile(&mut times, 50);
        report.figure(format!("{what} {p50:.0} ms (p50) after the start, at most {:.0} ms", quantile(&mut times, 100)));
        if p50 > 1000.0 {
            report.count(0, [format!("{what} only after {p50:.0} ms")]);
        }
    }
}

/// From the start of the program to its first answer. With loopback its connections are refused, without they have no way.
fn start_offline(valid: bool, loopback: bool) -> Duration {
    let rogue = Rogue::start(Rules::strict(if valid { HOUR } else { S }));
    let room = room_at(&rogue);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    // In order: a refresh that a kill interrupts is another case.
    daemon.stop();
    let known = rogue.look(|seen| seen.refreshes.len());
    let newest = rogue.look(|seen| seen.issued.last().unwrap().clone());
    wait_until("the token's end", PATIENCE, || (valid || newest.at.elapsed() > S * 2).then_some(()));
    let up = if loopback { "ip link set lo up && exec \"$@\"" } else { "exec \"$@\"" };
    let began = Instant::now();
    let daemon = room.start_under(&["unshare", "--net", "sh", "-c", up, "sh"]);
    let answer = daemon.ask("test");
    let took = began.elapsed();
    if valid {
        assert!(answer.status == 200 && answer.json()["access_token"] == token.as_str(), "{}", answer.body);
        assert_eq!(daemon.show("/v1/grants/test")["state"], "ok");
    } else {
        assert_eq!(answer.json()["error"], "provider_unreachable", "{}", answer.body);
        assert!(answer.json()["retry_after"].as_u64().is_some_and(|seconds| seconds <= 15), "{}", answer.body);
        room.ctl(&["token", "test"]).fails_with(5).says("cannot connect to 127.0.0.1");
    }
    assert_eq!(rogue.look(|seen| seen.refreshes.len()), known, "it has a network");
    daemon.kill();
    let daemon = room.start();
    let healed = wait_until("a token, with the network back", PATIENCE, || Some(daemon.ask("test")).filter(|answer| answer.status == 200));
    assert!(valid || healed.json()["access_token"] != token.as_str());
    took
}

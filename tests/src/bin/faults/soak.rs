//! T67: a long life, counted in requests and refreshes and not in hours: what grows, what leaks, what goes wrong once in a
//! hundred thousand.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Rogue, Rules, Verdict};
use mcp_auth_tests::{Connection, Daemon, Room, require_root};
use serde_json::json;

use crate::life::{HOUR, PATIENCE};
use crate::report::{Case, Report};

/// A round: so many token requests, and meanwhile so many refreshes.
const REQUESTS: u32 = 1000;
const REFRESHES: usize = 100;

pub(crate) const CASES: &[Case] =
    &[Case { id: "T67", title: "soak (a round: 1,000 requests, 100 refreshes): nothing grows", rounds: 1000, quick: 10, run: soak }];

/// Servers, and grants at each: every grant is refreshed about twice a second.
const SERVERS: usize = 8;
const GRANTS: usize = 20;
const LIFETIME: Duration = Duration::from_secs(1);
/// Threads that ask; the last one makes a new connection for each question.
const ASKERS: u32 = 3;
const MOST_GROWTH: i64 = 5000;

struct Soak<'a> {
    room: &'a Room,
    steady: &'a Rogue,
    short: &'a [Rogue],
    asked: AtomicU32,
    failures: Mutex<Vec<String>>,
    /// Answers of a provider that was too slow for a lifetime of a second: no token, and none that is expired.
    without: AtomicU64,
}

/// What the process holds.
#[derive(Clone, Copy, Debug)]
struct Holds {
    rss: i64,
    pss: i64,
    files: usize,
    vault: u64,
}

fn soak(report: &mut Report) {
    require_root("read the memory map of an undumpable process");
    let steady = Rogue::start(Rules::strict(HOUR));
    let short: Vec<Rogue> = (0..SERVERS).map(|_| Rogue::start(Rules::strict(LIFETIME))).collect();
    let tables = short.iter().enumerate().map(|(number, rogue)| rogue.provider_table(&format!("p{number}"), ""));
    let mut room = Room::with_config(&(steady.provider_table("steady", "") + &tables.collect::<String>()));
    room.set("MCP_AUTHD_LOG", "warn");
    let mut daemon = room.start();
    daemon.log_in("steady", "alice");
    for number in 0..SERVERS * GRANTS {
        daemon.log_in(&grant(number), "alice");
    }
    let soak =
        Soak { room: &room, steady: &steady, short: &short, asked: 0.into(), failures: Mutex::default(), without: AtomicU64::new(0) };
    let rounds = report.rounds();
    // The first tenth warms up: buffers, tables and arenas of the allocator get their size.
    let warm_up = (rounds / 10).max(2);
    soak.until(warm_up);
    let (before, refreshed, asked, start) = (holds(&daemon, &room), soak.refreshes(), soak.asked.load(Ordering::Relaxed), Instant::now());
    soak.until(warm_up + rounds);
    let (after, took) = (holds(&daemon, &room), start.elapsed().as_secs_f64());
    let (refreshed, asked) = (soak.refreshes() - refreshed, soak.asked.load(Ordering::Relaxed) - asked);
    let mut failures = soak.failures.into_inner().unwrap();
    let reused: usize = short.iter().map(|rogue| rogue.look(|seen| seen.count(Verdict::Reused))).sum();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            failures.push(what)
        }
    };
    expect(daemon.running.is_alive(), format!("the daemon ended: {}", daemon.running.said()));
    expect(reused == 0, format!("{reused} used refresh tokens were sent"));
    expect(after.rss - before.rss < MOST_GROWTH && after.pss - before.pss < MOST_GROWTH, format!("memory: {before:?}, then {after:?}"));
    expect(after.files <= before.files + 2, format!("files: {before:?}, then {after:?}"));
    expect(after.vault < before.vault + 1_000_000, format!("the vault's folder: {before:?}, then {after:?}"));
    report.count(rounds.saturating_sub(u32::try_from(failures.len()).unwrap()), failures);
    report.figure(format!(
        "{asked} requests and {refreshed} refreshes in {took:.0} s, {} grants: 0 expired, {reused} reused",
        SERVERS * GRANTS + 1
    ));
    report.figure(format!("RSS {} -> {} kB, PSS {} -> {} kB", before.rss, after.rss, before.pss, after.pss));
    report.figure(format!(
        "open files {} -> {}, vault's folder {} -> {} kB",
        before.files,
        after.files,
        before.vault / 1000,
        after.vault / 1000
    ));
    report.figure(format!("questions that ended without a token, provider slower than its tokens live: {}", soak.without.into_inner()));
}

fn grant(number: usize) -> String {
    format!("p{}:g{}", number % SERVERS, number / SERVERS)
}

impl Soak<'_> {
    fn refreshes(&self) -> usize {
        self.short.iter().map(|rogue| rogue.look(|seen| seen.count(Verdict::Granted))).sum()
    }

    /// Asks until so many rounds are done since the start.
    fn until(&self, rounds: u32) {
        std::thread::scope(|scope| {
            for asker in 0..ASKERS {
                scope.spawn(move || self.ask(asker, rounds));
            }
        });
    }

    fn ask(&self, asker: u32, rounds: u32) {
        let fresh = || Connection::unix(&self.room.socket()).expect("a connection");
        let (mut connection, mut number) = (fresh(), asker);
        while self.asked.load(Ordering::Relaxed) < rounds * REQUESTS || !self.enough_refreshes(rounds, number) {
            if asker + 1 == ASKERS {
                connection = fresh();
            }
            number = number.wrapping_add(1);
            let short = (number % 10 == 0).then_some(number as usize / 10 % (SERVERS * GRANTS));
            let failure = match short {
                Some(at) => self.question(&mut connection, &grant(at), &self.short[at % SERVERS], LIFETIME),
                None => self.question(&mut connection, "steady", self.steady, HOUR),
            };
            self.failures.lock().unwrap().extend(failure.err());
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looked at now and then only: it counts.
    fn enough_refreshes(&self, rounds: u32, number: u32) -> bool {
        number.is_multiple_of(500) && self.refreshes() >= rounds as usize * REFRESHES
    }

    /// One question: the token must not have been expired at the server when the question was asked.
    fn question(&self, connection: &mut Connection, grant: &str, rogue: &Rogue, lifetime: Duration) -> Result<(), String> {
        let asked_at = Instant::now();
        let answer = connection.json("POST", "/v1/token", &json!({ "grant": grant })).map_err(|error| format!("{grant}: {error}"))?;
        let body = answer.json();
        let Some(token) = body["access_token"].as_str() else {
            let slow = body["error"] == "provider_unreachable";
            self.without.fetch_add(1, Ordering::Relaxed);
            return if slow { Ok(()) } else { Err(format!("{grant}: {body}")) };
        };
        if rogue.is_active(token) {
            return Ok(());
        }
        let issued = rogue.look(|seen| seen.issued.iter().rev().find(|issued| issued.token == token).map(|issued| issued.at));
        match issued {
            Some(at) if at + lifetime > asked_at => Ok(()),
            _ => Err(format!("{grant}: an expired token was served")),
        }
    }
}

/// Measured while nobody asks; refreshes go on, so the least of some looks counts.
fn holds(daemon: &Daemon<'_>, room: &Room) -> Holds {
    let (start, mut least) = (Instant::now(), None::<Holds>);
    while start.elapsed() < Duration::from_secs(2).min(PATIENCE) {
        let now = look(daemon.running.pid(), room);
        let min = least.get_or_insert(now);
        *min = Holds {
            rss: min.rss.min(now.rss),
            pss: min.pss.min(now.pss),
            files: min.files.min(now.files),
            vault: min.vault.min(now.vault),
        };
        std::thread::sleep(Duration::from_millis(20));
    }
    least.expect("looked once")
}

fn look(pid: u32, room: &Room) -> Holds {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kilobytes = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(i64::MAX)
    };
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    Holds { rss: kilobytes("Rss:"), pss: kilobytes("Pss:"), files, vault: size(&room.path("state")) }
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // A file may be replaced meanwhile.
    entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().map_or(0, |it| it.len()) }).sum()
}

//! T12, T14, T15: the beginning, the end and the reload of a daemon, while others start too, while a refresh runs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Plan, Rogue, Rules, Verdict};
use mcp_auth_tests::{Connection, Daemon, Room, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::report::{Case, Report};
use crate::side::side_by_side;

pub(crate) const CASES: &[Case] = &[
    Case {
        id: "T12",
        title: "50 starts at once: one lives, 49 end with 75, the socket answers",
        rounds: 30,
        quick: 2,
        run: starts_at_once,
    },
    Case {
        id: "T14",
        title: "SIGTERM in a refresh of 3 s: waits, saves, exit 0; nothing lost",
        rounds: 80,
        quick: 4,
        run: end_in_a_refresh,
    },
    Case { id: "T15", title: "SIGHUP with a bad config: the old one stays, and status says so", rounds: 60, quick: 6, run: bad_reloads },
    Case { id: "T15", title: "definition changed in a refresh: no token crosses over, and it heals", rounds: 120, quick: 12, run: changes },
];

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
const STARTS: usize = 50;

/// A quiet room at this server, somebody logged in to `test`.
pub(crate) fn quiet(mut room: Room) -> Room {
    room.set("MCP_AUTHD_LOG", "info");
    room
}

/// The grant still works at its strict server: the token is valid there, a refresh succeeds, and no old one was ever used.
#[track_caller]
pub(crate) fn works(daemon: &Daemon<'_>, rogue: &Rogue, grant: &str) {
    assert!(rogue.is_active(&daemon.token(grant)), "the token of {grant} is not valid at the server");
    let answer = daemon.call("POST", &format!("/v1/grants/{grant}/refresh"), &json!({}));
    assert_eq!(answer.status, 200, "no refresh of {grant}: {}", answer.body);
    assert!(rogue.is_active(&daemon.token(grant)), "the refreshed token of {grant} is not valid at the server");
    assert_eq!(rogue.look(|seen| seen.count(Verdict::Reused)), 0, "a used refresh token was sent");
}

/// Asks for a refresh on a connection of its own, and hands back what was answered.
pub(crate) fn refresh_aside<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    daemon: &Daemon<'_>,
    grant: &str,
) -> std::thread::ScopedJoinHandle<'scope, Option<(u16, Value)>> {
    let (mut connection, target) = (daemon.connect(), format!("/v1/grants/{grant}/refresh"));
    scope.spawn(move || connection.json("POST", &target, &json!({})).ok().map(|answer| (answer.status, answer.json())))
}

fn starts_at_once(report: &mut Report) {
    let answers = AtomicU64::new(0);
    let room = quiet(Room::with_config(""));
    for number in 0..report.rounds() {
        // Over the socket that the last one has left; in every third round while the last one still runs.
        let before = (number % 3 == 2).then(|| room.start());
        report.round(|| one_of_many(&room, before.is_some(), &answers));
        if let Some(before) = before {
            before.kill();
        }
    }
    report.figure(format!("{STARTS} starts a round; {} connections after the first answer, 0 of them refused", answers.into_inner()));
}

/// Fifty daemons are started; where one runs already all of them must end.
fn one_of_many(room: &Room, one_runs: bool, answers: &AtomicU64) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_until(room, one_runs, &over, answers));
        let mut all: Vec<_> = (0..STARTS).map(|_| room.spawn()).collect();
        let expected = usize::from(!one_runs);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("the end of the others", PATIENCE, || {
                (all.iter_mut().filter_map(|daemon| daemon.is_alive().then_some(())).count() <= expected).then_some(())
            });
            wait_until("an answer", PATIENCE, || answers_now(room).then_some(()));
        }));
        over.store(true, Ordering::Relaxed);
        let refused = asking.join().unwrap();
        let codes: Vec<i32> = all.iter_mut().filter_map(|daemon| (!daemon.is_alive()).then(|| daemon.wait().code)).collect();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert_eq!(STARTS - codes.len(), expected, "so many live");
        assert!(codes.iter().all(|code| *code == 75), "exit codes {codes:?}");
        assert_eq!(refused, 0, "connections refused after the first answer");
    });
}

fn answers_now(room: &Room) -> bool {
    let answer = Connection::unix(&room.socket()).and_then(|mut connection| connection.request("GET", "/v1/status", &[], ""));
    answer.is_ok_and(|answer| answer.status == 200)
}

/// Connects again and again; after the first answer each connection must be answered. Gives how many were not.
fn ask_until(room: &Room, mut answered: bool, over: &AtomicBool, answers: &AtomicU64) -> u64 {
    let mut refused = 0;
    while !over.load(Ordering::Relaxed) {
        if answers_now(room) {
            answered = true;
            answers.fetch_add(1, Ordering::Relaxed);
        } else if answered {
            refused += 1;
        }
    }
    refused
}

fn end_in_a_refresh(report: &mut Report) {
    let times = Mutex::new(Vec::new());
    side_by_side(report, 8, |_| {
        let rogue = Rogue::start(Rules::strict(Duration::from_secs(4)));
        let room = Room::at_rogue(&rogue);
        let mut daemon = room.start();
        daemon.log_in("test", "alice");
        rogue.rule(|rules| *rules = Rules::strict(HOUR));
        rogue.plan(Plan::late(Duration::from_secs(3)).times(1));
        rogue.wait_for("a refresh at the provider", |seen| (seen.refreshes.len() == 1).then_some(()));
        std::thread::scope(|scope| {
            let mut connection = daemon.connect();
            let asker = scope.spawn(move || connection.json("POST", "/v1/token", &json!({ "grant": "test", "min_valid_for": 2 })));
            daemon.running.wait_for("a question", |said| said.contains("Wanted").then_some(()));
            let start = Instant::now();
            daemon.running.signal(Signal::TERM);
            assert_eq!(daemon.running.wait().code, 0, "the exit code");
            times.lock().unwrap().push(start.elapsed());
            let answer = asker.join().unwrap().expect("an answer for who waited");
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert!(rogue.is_active(answer.json()["access_token"].as_str().unwrap()));
        });
        drop(daemon);
        let daemon = room.start();
        works(&daemon, &rogue, "test");
        let generations: Vec<_> = rogue.look(|seen| seen.refreshes.iter().map(|refresh| refresh.generation).collect());
        assert_eq!(generations, [Some(0), Some(1)], "the rotated token was sent next");
    });
    let times = times.into_inner().unwrap();
    if let (Some(least), Some(most)) = (times.iter().min(), times.iter().max()) {
        report.figure(format!("from SIGTERM to the end: {:.1} to {:.1} s", least.as_secs_f64(), most.as_secs_f64()));
    }
}

/// Configs that must not be taken, and a word of what is said about each.
fn bad_configs(good: &str) -> [(String, &'static str); 6] {
    [
        ("[providers.test]\nisuer = \"x\"\n".into(), "isuer"),
        (good[..good.len() / 2].to_owned() + "\n[", "config.toml"),
        (good.replace("http://127.0.0.1", "http://example.com"), "https"),
        (format!("{good}client_secret = \"in plain text\"\n"), "client_secret"),
        (format!("{good}\n[netwrk]\nproxy = \"http://127.0.0.1:1\"\n"), "netwrk"),
        ("\u{0}\u{1}\u{2}".into(), "config.toml"),
    ]
}

fn bad_reloads(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let room = quiet(Room::at_rogue(&rogue));
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let (token, good) = (daemon.token("test"), rogue.provider_table("test", ""));
    let said = || daemon.show("/v1/status")["config"]["error"].as_str().map(str::to_owned);
    for number in 0..report.rounds() {
        report.round(|| {
            let (bad, word) = &bad_configs(&good)[number as usize % 6];
            room.write_config(bad);
            daemon.running.signal(Signal::HUP);
            let error = wait_until(&format!("{word} in status"), PATIENCE, || said().filter(|error| error.contains(word)));
            assert!(!error.contains("in plain text"), "a secret in the wrong place is repeated: {error}");
            assert_eq!(daemon.token("test"), token, "the old config stays");
            room.write_config(&good);
            daemon.running.signal(Signal::HUP);
            wait_until("no error in status", PATIENCE, || said().is_none().then_some(()));
            assert_eq!(daemon.token("test"), token);
        });
    }
}

/// What a config may say instead, while the grant's refresh is on its way.
fn changed_configs(of: &Rogue, other: &Rogue) -> [String; 4] {
    let good = of.provider_table("test", "");
    let elsewhere = format!("token_endpoint = \"{}/token\"\nauthorization_endpoint = \"{}/authorize\"", other.issuer(), other.issuer());
    [String::new(), other.provider_table("test", ""), of.provider_table("test", &elsewhere), good.replace("\"native\"", "\"another\"")]
}

fn changes(report: &mut Report) {
    let refused = AtomicU64::new(0);
    side_by_side(report, 4, |number| {
        let (rogue, other) = (Rogue::start(Rules::strict(HOUR)), Rogue::start(Rules::strict(HOUR)));
        let room = quiet(Room::at_rogue(&rogue));
        let daemon = room.start();
        daemon.log_in("test", "alice");
        rogue.plan(Plan::late(Duration::from_millis(400)).times(1));
        std::thread::scope(|scope| {
            let refresh = refresh_aside(scope, &daemon, "test");
            rogue.wait_for("a refresh at the provider", |seen| (seen.refreshes.len() == 1).then_some(()));
            room.write_config(&changed_configs(&rogue, &other)[number % 4]);
            reload(&daemon, number);
            // Until the answer of the old definition has come and been saved, and a while longer.
            wait_until("the answer to the old definition", PATIENCE, || {
                assert_eq!(daemon.refusal("test"), "login_required", "{number}");
                refused.fetch_add(1, Ordering::Relaxed);
                daemon.running.said().contains("refreshed `test`").then_some(())
            });
            refresh.join().unwrap();
        });
        for _ in 0..20 {
            assert_eq!(daemon.refusal("test"), "login_required");
            refused.fetch_add(1, Ordering::Relaxed);
        }
        assert_ne!(daemon.call("POST", "/v1/grants/test/refresh", &json!({})).status, 200, "refreshed where it must not be");
        assert_eq!(other.look(|seen| seen.requests_to("/token")), 0, "a token went to the new endpoint");
        room.write_config(&rogue.provider_table("test", ""));
        reload(&daemon, number);
        let token = daemon.token("test");
        assert!(rogue.look(|seen| seen.issued[1].token == token), "not the token that the refresh brought");
        daemon.kill();
        works(&room.start(), &rogue, "test");
        assert_eq!(other.look(|seen| seen.requests_to("/token")), 0, "a token went to the new endpoint");
    });
    report.figure(format!(
        "{} token requests under the changed definition, all refused; requests to the new token endpoint: 0",
        refused.into_inner()
    ));
}

/// By signal, and by the route. Returns when the daemon has read the config.
fn reload(daemon: &Daemon<'_>, number: usize) {
    if (number / 4).is_multiple_of(2) {
        assert_eq!(daemon.call("POST", "/v1/reload", &json!({})).status, 200);
    } else {
        let reloads = |daemon: &Daemon<'_>| daemon.running.said().matches("config read again").count();
        let before = reloads(daemon);
        daemon.running.signal(Signal::HUP);
        wait_until("the reload", PATIENCE, || (reloads(daemon) > before).then_some(()));
    }
}

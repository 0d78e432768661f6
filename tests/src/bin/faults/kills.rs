//! T1, T6: `kill -9` at every step of a rotating refresh. The random times of T2 are in `crowds`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Moment, Rogue, Rules, Verdict, generation};
use mcp_auth_tests::{Connection, Daemon, Room, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::report::{Case, Report, quantile};
use crate::side::side_by_side_in;

pub(crate) const CASES: &[Case] = &[
    Case { id: "T1", title: "kill -9 in a refresh, grace window: no login lost", rounds: 1080, quick: 36, run: kills_with_grace },
    Case {
        id: "T1",
        title: "kill -9 in a refresh, strict server: lost only inside the window",
        rounds: 540,
        quick: 18,
        run: kills_at_a_strict_server,
    },
    Case { id: "T6", title: "crash before the request left: the same token works", rounds: 200, quick: 16, run: kills_before_sending },
];

const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);
/// Rooms that are killed side by side.
const ROOMS: usize = 8;

/// Where the daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// At a failpoint of the daemon.
    Daemon(&'static str),
    /// At a moment of the server.
    Server(Moment),
    /// As soon as the new token was served.
    Served,
}

/// Every step of a rotating refresh in order, and whether a strict server's login can be lost there: from the provider's
/// commit, which follows the arrival whatever becomes of us, until our record has its new name.
const STEPS: [(Step, bool); 18] = [
    (Step::Daemon("refresh begins"), false),
    (Step::Daemon("intents append"), false),
    (Step::Daemon("intents fdatasync"), false),
    (Step::Daemon("intent synced"), false),
    (Step::Server(Moment::Arrived), true),
    (Step::Server(Moment::Committed), true),
    (Step::Server(Moment::HalfAnswered), true),
    (Step::Daemon("answer read"), true),
    (Step::Daemon("record create"), true),
    (Step::Daemon("record write"), true),
    (Step::Daemon("record write second half"), true),
    (Step::Daemon("record fsync"), true),
    (Step::Daemon("record rename"), true),
    (Step::Daemon("fsync folder"), false),
    (Step::Daemon("folder synced"), false),
    (Step::Daemon("record saved"), false),
    (Step::Daemon("reply"), false),
    (Step::Served, false),
];

fn kills_with_grace(report: &mut Report) {
    let (lost, repeats) = (AtomicU32::new(0), AtomicU32::new(0));
    in_rooms(report, Rules::grace(HOUR, Duration::from_secs(60)), |room, rogue, step, window| {
        let end = kill_once(room, rogue, step, window);
        if end.lost {
            lost.fetch_add(1, Ordering::Relaxed);
        }
        repeats.fetch_add(u32::try_from(end.repeats).unwrap(), Ordering::Relaxed);
        assert!(!end.lost, "the login is lost");
        assert!(lossy(step) || end.repeats == 0, "a used token was sent again, though its successor was on disk or never made");
    });
    report.figure(format!(
        "lost {} (95 % upper bound {:.2} %), tokens sent again within the grace window: {}",
        lost.load(Ordering::Relaxed),
        300.0 / f64::from(report.rounds()),
        repeats.load(Ordering::Relaxed)
    ));
}

fn kills_at_a_strict_server(report: &mut Report) {
    let (inside, outside) = (AtomicU32::new(0), AtomicU32::new(0));
    in_rooms(report, Rules::strict(HOUR), |room, rogue, step, window| {
        let end = kill_once(room, rogue, step, window);
        if end.lost {
            if lossy(step) { &inside } else { &outside }.fetch_add(1, Ordering::Relaxed);
        }
        assert!(!end.lost || lossy(step), "a login is lost outside the window");
    });
    let (inside, outside) = (inside.load(Ordering::Relaxed), outside.load(Ordering::Relaxed));
    report.figure(format!("lost {inside} inside the window (the provider's commit to our rename), {outside} outside it"));
}

fn lossy(step: Step) -> bool {
    STEPS.iter().any(|(other, lossy)| *other == step && *lossy)
}

fn kills_before_sending(report: &mut Report) {
    in_rooms(report, Rules::strict(HOUR), |room, rogue, _, window| {
        let before = rogue.look(|seen| seen.count(Verdict::Granted));
        let end = kill_once(room, rogue, Step::Daemon("intent synced"), window);
        assert!(!end.lost, "the login is lost");
        assert_eq!(rogue.look(|seen| seen.count(Verdict::Granted)), before + 1, "the refresh was not repeated after the start");
    });
}

/// Does the rounds in several rooms at once, every step equally often.
fn in_rooms(report: &mut Report, rules: Rules, round: impl Fn(&Room, &Rogue, Step, &Mutex<Vec<Duration>>) + Sync) {
    let window = Mutex::new(Vec::new());
    let step = |number: usize| STEPS[number % STEPS.len()].0;
    let place = || {
        let rogue = Rogue::start(rules.clone());
        let mut room = Room::at_rogue(&rogue);
        room.use_failpoints();
        room.set("MCP_AUTHD_LOG", "info");
        warm_up(&room);
        (room, rogue)
    };
    let name = |number| format!("{:?}", step(number));
    side_by_side_in(report, ROOMS, place, name, |(room, rogue), number| round(room, rogue, step(number), &window));
    let mut window: Vec<f64> = window.into_inner().unwrap().iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    let (p50, p99) = (quantile(&mut window, 50), quantile(&mut window, 99));
    if !window.is_empty() {
        report.figure(format!(
            "the provider's commit to the first answer with the new token: p50 {p50:.1} ms, p99 {p99:.1} ms of {}",
            window.len()
        ));
    }
}

/// The first refresh makes the file of intents, which the rounds expect to be there.
fn warm_up(room: &Room) {
    room.arm(&[]);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    assert_eq!(daemon.call("POST", "/v1/grants/test/refresh", &json!({})).status, 200);
    daemon.kill();
}

/// What became of a login whose daemon was killed.
struct End {
    lost: bool,
    /// How often a used token was sent again and forgiven.
    repeats: usize,
}

/// One life of the daemon that ends at `step` of a refresh, and the beginning of the next.
fn kill_once(room: &Room, rogue: &Rogue, step: Step, window: &Mutex<Vec<Duration>>) -> End {
    room.arm(&[]);
    let mut daemon = room.start();
    // At rest: what the life before has left open is brought to its end first.
    if settled(&daemon) != "ok" {
        daemon.log_in("test", "alice");
    }
    let pid = Pid::from_raw(daemon.running.pid().try_into().unwrap()).unwrap();
    match step {
        Step::Daemon(step) => room.arm(&[&format!("{step}=kill")]),
        Step::Served => {}
        Step::Server(moment) => rogue.on(move |now, path| {
            if now == moment && path == "/token" {
                kill_process(pid, Signal::KILL).unwrap();
            }
        }),
    }
    let published = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A question of its own would be replied to at any time, not only after the refresh.
        let asks = step != Step::Daemon("reply");
        asks.then(|| {
            scope.spawn(|| {
                ask_until_it_dies(room, rogue, &published, &over, window);
                if step == Step::Served {
                    kill_process(pid, Signal::KILL).unwrap();
                }
            })
        });
        let mut connection = daemon.connect();
        // The answer never comes, or the daemon dies as it comes.
        let _ = connection.json("POST", "/v1/grants/test/refresh", &json!({}));
        over.store(true, Ordering::Relaxed);
    });
    wait_until("the daemon's death", PATIENCE, || (!daemon.running.is_alive()).then_some(()));
    drop(daemon);
    let before = rogue.look(|seen| seen.refreshes.len());
    rogue.on_nothing();
    room.arm(&[]);
    let daemon = room.start();
    let state = settled(&daemon);
    let after_kill = rogue.look(|seen| seen.refreshes[before..].to_vec());
    if let Some(first) = after_kill.first() {
        let published = published.load(Ordering::Relaxed);
        assert!(first.generation >= Some(published), "token {published} was served, but after the kill {:?} was sent", first.generation);
    }
    let lost = state == "login_required";
    if !lost {
        let token = daemon.token("test");
        assert!(rogue.is_active(&token), "the token is not valid");
        assert_eq!(state, "ok");
    }
    daemon.kill();
    End { lost, repeats: after_kill.iter().filter(|refresh| refresh.verdict == Verdict::Repeated).count() }
}

/// Asks again and again, and keeps the newest generation that was ever served.
fn ask_until_it_dies(room: &Room, rogue: &Rogue, published: &AtomicU64, over: &AtomicBool, window: &Mutex<Vec<Duration>>) {
    let Ok(mut connection) = Connection::unix(&room.socket()) else { return };
    let mut first: Option<u64> = None;
    while let Ok(answer) = connection.json("POST", "/v1/token", &json!({ "grant": "test" })) {
        let now = Instant::now();
        let token = answer.json()["access_token"].as_str().unwrap_or_default().to_owned();
        let Some(generation) = generation(&token) else { continue };
        if first.is_some_and(|first| generation > first) && published.load(Ordering::Relaxed) < generation {
            let issued = rogue.look(|seen| seen.issued.iter().rev().find(|issued| issued.token == token).map(|issued| issued.at));
            window.lock().unwrap().extend(issued.map(|at| now.duration_since(at)));
        }
        first.get_or_insert(generation);
        if published.fetch_max(generation, Ordering::Relaxed) < generation && first != Some(generation) || over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// The state of the grant once no refresh is wanted at once or running.
fn settled(daemon: &Daemon<'_>) -> String {
    wait_until("a grant at rest", PATIENCE, || {
        let summary = daemon.show("/v1/grants/test");
        let state = summary["state"].as_str().unwrap_or_default().to_owned();
        let planned = summary["next_refresh_in"].as_u64().unwrap_or(0);
        (state == "login_required" || (state == "ok" && planned > 60)).then_some(state)
    })
}

//! T31, T32: time that jumps. No case sets the machine's clocks: a daemon is frozen, lives in a time namespace of its own,
//! has a failpoint in its clock, or is told another wall time by libfaketime (which the clock that decides does not heed).

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Plan, Rogue, Rules, Verdict};
use mcp_auth_tests::{Connection, Daemon, Room, require, require_root, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::life::{HOUR, PATIENCE, quiet, works};
use crate::report::{Case, Report};
use crate::side::side_by_side;

pub(crate) const CASES: &[Case] = &[
    Case { id: "T31", title: "frozen past the token's end: the first answer is valid", rounds: 60, quick: 4, run: frozen },
    Case { id: "T31", title: "boot clock 8 h ahead in a running daemon: never the old token", rounds: 120, quick: 12, run: asleep },
    Case { id: "T31", title: "restart 8 h ahead or back on the boot clock: same token, on time", rounds: 24, quick: 2, run: other_boot },
    Case { id: "T32", title: "wall clock -1 day, +1 year between runs: no loss, no storm", rounds: 60, quick: 10, run: between_runs },
    Case { id: "T32", title: "wall clock stepped in a running daemon: nothing happens", rounds: 24, quick: 2, run: while_it_runs },
];

/// Freezes the process as a debugger does: all clocks go on. What differs from a suspend is that the boot clock does not
/// run away from the others; what is the same is that timers and requests are met late, in whatever order.
fn frozen(report: &mut Report) {
    side_by_side(report, 8, |number| {
        let rogue = Rogue::start(Rules::strict(Duration::from_secs(2)));
        let room = quiet(Room::at_rogue(&rogue));
        let daemon = room.start();
        daemon.log_in("test", "alice");
        let old = daemon.token("test");
        if number % 2 == 1 {
            // With a refresh on its way, whose answer waits in the socket's buffer.
            rogue.plan(Plan::late(Duration::from_millis(200)).times(1));
            rogue.wait_for("a refresh at the provider", |seen| seen.refreshes.first().map(|_| ()));
        }
        daemon.running.signal(Signal::STOP);
        let began = Instant::now();
        wait_until("the end of the old token", PATIENCE, || {
            let dead = rogue.look(|seen| seen.issued.iter().map(|issued| issued.token.clone()).collect::<Vec<_>>());
            (began.elapsed() > Duration::from_secs(3) && dead.iter().all(|token| !rogue.is_active(token))).then_some(())
        });
        let (mut connection, going_on) = (daemon.connect(), Duration::from_millis(10));
        let first = std::thread::scope(|scope| {
            let asking = scope.spawn(move || connection.json("POST", "/v1/token", &json!({ "grant": "test" })).unwrap());
            std::thread::sleep(going_on);
            daemon.running.signal(Signal::CONT);
            asking.join().unwrap()
        });
        // An answer that lay in the buffer for longer than its token lives is a failed attempt, and said to be one.
        let late = number % 2 == 1 && first.json()["error"] == "provider_unreachable";
        assert!(first.status == 200 || late, "{}", first.body);
        let token = first.json()["access_token"].as_str().map_or_else(|| patient(&daemon), str::to_owned);
        assert!(token != old && rogue.is_active(&token), "an expired token was served");
        assert_eq!(rogue.look(|seen| seen.count(Verdict::Reused)), 0, "a used refresh token was sent");
    });
}

/// Asks until there is a token.
fn patient(daemon: &Daemon<'_>) -> String {
    wait_until("a token", PATIENCE, || daemon.ask("test").json()["access_token"].as_str().map(str::to_owned))
}

fn asleep(report: &mut Report) {
    let (answers, posts) = (AtomicU64::new(0), AtomicU64::new(0));
    side_by_side(report, 4, |number| {
        let rogue = Rogue::start(Rules::strict(HOUR));
        let mut room = quiet(Room::at_rogue(&rogue));
        room.use_failpoints();
        room.arm(&[]);
        let daemon = room.start();
        daemon.log_in("test", "alice");
        let old = daemon.token("test");
        let provider_is_away = number % 2 == 1;
        if provider_is_away {
            rogue.plan(Plan::canned(502, &[], "").times(1));
        }
        let connections: Vec<Connection> = (0..20).map(|_| daemon.connect()).collect();
        room.arm(&["boottime=ahead 28800000"]);
        std::thread::scope(|scope| {
            for mut connection in connections {
                scope.spawn(|| {
                    let ask = json!({ "grant": "test" });
                    let answer = connection.json("POST", "/v1/token", &ask).unwrap().json();
                    assert_ne!(answer["access_token"], old.as_str(), "the old token was served");
                    assert_eq!(answer["access_token"].is_string(), !provider_is_away, "{answer}");
                    answers.fetch_add(1, Ordering::Relaxed);
                    drop(connection);
                });
            }
        });
        let new = wait_until("a new token", PATIENCE, || {
            let answer = daemon.ask("test").json();
            assert_ne!(answer["access_token"], old.as_str(), "the old token was served");
            answer["access_token"].as_str().map(str::to_owned)
        });
        assert!(rogue.is_active(&new));
        let sent = rogue.look(|seen| seen.refreshes.len());
        assert_eq!(sent, if provider_is_away { 2 } else { 1 }, "so many refreshes for twenty askers");
        posts.fetch_add(sent as u64, Ordering::Relaxed);
    });
    report.figure(format!("{} askers at once after the jump, {} refreshes sent in all", answers.into_inner(), posts.into_inner()));
    report.figure("not shown: that the kernel's boot clock alarm rings at a real resume, which needs a machine that sleeps");
}

/// As after a reboot: the boot clock says anything, the wall clock has gone on. What is promised across restarts rests on
/// the wall clock alone, so nothing may change; and the alarm must ring in whatever namespace the daemon lives.
fn other_boot(report: &mut Report) {
    require_root("make a time namespace");
    require("unshare", "util-linux");
    let ahead = ["unshare", "-T", "--boottime", "28800", "--monotonic", "28800"];
    let seen = Mutex::new(Vec::new());
    side_by_side(report, 4, |number| {
        let rogue = Rogue::start(Rules::strict(HOUR));
        let room = quiet(Room::at_rogue(&rogue));
        let start = |in_namespace: bool| if in_namespace { room.start_under(&ahead) } else { room.start() };
        let daemon = start(number % 2 == 1);
        daemon.log_in("test", "alice");
        let (old, planned) = (daemon.token("test"), plan(&daemon));
        if number % 4 < 2 {
            daemon.kill()
        } else {
            assert_eq!(daemon.stop().code, 0)
        }
        let daemon = start(number % 2 == 0);
        let uptime = std::fs::read_link(format!("/proc/{}/ns/time", daemon.running.pid())).unwrap();
        seen.lock().unwrap().push(uptime);
        assert_eq!(daemon.token("test"), old, "a valid token was not served again");
        assert!(plan(&daemon).abs_diff(planned) <= 660, "planned in {planned} s, and now in {} s", plan(&daemon));
        assert_eq!(rogue.look(|seen| seen.refreshes.len()), 0, "a refresh for no reason");
        works(&daemon, &rogue, "test");
        // Short tokens: the alarm rings on time.
        rogue.rule(|rules| *rules = Rules::strict(Duration::from_secs(3)));
        daemon.log_in("test:work", "alice");
        rogue.wait_for("refreshes ahead", |seen| (seen.refreshes.len() >= 3).then_some(()));
        assert!(rogue.is_active(&daemon.token("test:work")));
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort();
    seen.dedup();
    assert!(seen.len() > 1, "no daemon was in a time namespace of its own");
}

fn plan(daemon: &Daemon<'_>) -> u64 {
    daemon.show("/v1/grants/test")["next_refresh_in"].as_u64().unwrap_or(0)
}

/// A room whose daemons are told another wall time: what stands in the file `wall`, read at every look at the clock.
fn room_with_other_wall_time(rogue: &Rogue) -> Room {
    let library = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    let library: PathBuf = library.into_iter().find(|path| path.exists()).expect("libfaketime is not installed: apt-get install faketime");
    let mut room = quiet(Room::at_rogue(rogue));
    room.set("LD_PRELOAD", library.to_str().unwrap());
    room.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    room.set("FAKETIME_NO_CACHE", "1");
    room.set("FAKETIME_TIMESTAMP_FILE", room.path("wall").to_str().unwrap());
    room
}

fn say_wall(room: &Room, offset: &str) {
    std::fs::write(room.path("wall.new"), offset).unwrap();
    std::fs::rename(room.path("wall.new"), room.path("wall")).unwrap();
}

/// The day on which the daemon believes the token to expire.
fn day(daemon: &Daemon<'_>) -> String {
    let summary: Value = daemon.show("/v1/grants/test");
    summary["expires_at"].as_str().unwrap_or_default().chars().take(10).collect()
}

const WALLS: [(&str, &str); 5] = [("+0", "-1d"), ("+0", "+365d"), ("+365d", "+0"), ("-1d", "+0"), ("+0", "-3650d")];

fn between_runs(report: &mut Report) {
    let sent = AtomicU64::new(0);
    side_by_side(report, 4, |number| {
        let (first, second) = WALLS[number % 5];
        let expired = number / 5 % 2 == 1;
        let rogue = Rogue::start(Rules::strict(if expired { Duration::from_secs(1) } else { HOUR }));
        let room = room_with_other_wall_time(&rogue);
        say_wall(&room, first);
        let daemon = room.start();
        daemon.log_in("test", "alice");
        rogue.rule(|rules| *rules = Rules::strict(HOUR));
        let before = day(&daemon);
        if number % 2 == 0 {
            daemon.kill()
        } else {
            assert_eq!(daemon.stop().code, 0)
        }
        let already = rogue.look(|seen| seen.refreshes.len());
        if expired && already == 0 {
            let token = rogue.look(|seen| seen.issued[0].token.clone());
            wait_until("the end of the token", PATIENCE, || (!rogue.is_active(&token)).then_some(()));
        }
        say_wall(&room, second);
        let daemon = room.start();
        let token = daemon.token("test");
        assert!(rogue.is_active(&token), "from {first} to {second}: an expired token was served");
        assert_ne!(day(&daemon), before, "the wall clock has not moved");
        wait_until("a plan", PATIENCE, || (plan(&daemon) > 60).then_some(()));
        let refreshes = rogue.look(|seen| seen.refreshes.len()) - already;
        assert!(refreshes <= 1, "from {first} to {second}: {refreshes} refreshes");
        sent.fetch_add(refreshes as u64, Ordering::Relaxed);
        works(&daemon, &rogue, "test");
    });
    report.figure(format!("refreshes because of the jump: {}, at most 1 a round", sent.into_inner()));
    report
        .figure("not promised: a clock set back by less than the token's age makes it look younger than it is, until the server says 401");
}

fn while_it_runs(report: &mut Report) {
    let served = AtomicU64::new(0);
    side_by_side(report, 4, |number| {
        let short = number % 2 == 1;
        let rogue = Rogue::start(Rules::strict(if short { Duration::from_secs(2) } else { HOUR }));
        let room = room_with_other_wall_time(&rogue);
        say_wall(&room, "+0");
        let daemon = room.start();
        daemon.log_in("test", "alice");
        let (began, first) = (Instant::now(), day(&daemon));
        let mut moved = 0;
        while began.elapsed() < Duration::from_secs(6) {
            for offset in ["-1d", "+365d", "+1s", "-3650d", "+0"] {
                say_wall(&room, offset);
                let answer = daemon.ask("test").json();
                let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("at {offset}: {answer}"));
                assert!(rogue.is_active(token), "at {offset}: an expired token was served");
                served.fetch_add(1, Ordering::Relaxed);
                moved += u32::from(day(&daemon) != first);
                std::thread::sleep(Duration::from_millis(30));
            }
        }
        assert!(moved > 0, "the wall clock has not moved");
        let refreshes = rogue.look(|seen| seen.refreshes.len());
        // Planned about a second after each: as many as without any step.
        let most = if short { began.elapsed().as_secs() as usize + 2 } else { 0 };
        assert!(refreshes <= most, "{refreshes} refreshes");
        assert!(!short || refreshes >= 4, "only {refreshes} refreshes: the timer stands still");
        say_wall(&room, "+0");
        assert_eq!(rogue.look(|seen| seen.count(Verdict::Reused)), 0, "a used refresh token was sent");
    });
    report.figure(format!("{} tokens served right after a step, 0 expired", served.into_inner()));
}

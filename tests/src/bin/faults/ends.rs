//! T63, T66: a logout while the provider is down or a refresh runs, and panics inside the daemon.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Delivery, Moment, Plan, Rogue, Rules};
use mcp_auth_tests::{Daemon, PASSPHRASE, Room, wait_until};
use serde_json::json;

use crate::life::{HOUR, PATIENCE, quiet, refresh_aside, works};
use crate::report::{Case, Report};
use crate::side::side_by_side;

pub(crate) const CASES: &[Case] = &[
    Case { id: "T63", title: "logout, provider down: secret gone at once, said honestly, exit 0", rounds: 60, quick: 5, run: logouts },
    Case { id: "T63", title: "logout in a refresh: not resurrected, its new tokens are revoked", rounds: 60, quick: 10, run: in_flight },
    Case { id: "T66", title: "panic in one grant: it says so, others served, whole after restart", rounds: 60, quick: 9, run: panics },
    Case { id: "T66", title: "panic on the vault's thread: served, said, no login lost", rounds: 24, quick: 2, run: vault_panics },
];

/// The sealed records on disk.
pub(crate) fn records(room: &Room) -> usize {
    fn below(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let sealed = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().contains(".sealed");
        entries.map(|entry| if entry.path().is_dir() { below(&entry.path()) } else { usize::from(sealed(&entry)) }).sum()
    }
    below(&room.path("state"))
}

/// How the provider fails while somebody logs out.
#[derive(Clone, Copy, Debug)]
enum Down {
    Refused,
    Overloaded,
    Reset,
    Html,
    Hangs,
}

fn logouts(report: &mut Report) {
    let times = Mutex::new(Vec::new());
    side_by_side(report, 8, |number| {
        // One that hangs takes 10 s, so there are fewer of them.
        let down = [Down::Refused, Down::Overloaded, Down::Reset, Down::Html, Down::Hangs][number % 5];
        let rogue = Rogue::start(Rules::strict(HOUR));
        let room = quiet(Room::at_rogue(&rogue));
        let daemon = room.start();
        daemon.log_in("test", "alice");
        assert_eq!(records(&room), 1);
        let rogue = meet(rogue, down);
        times.lock().unwrap().push(log_out(&room, &daemon, down));
        daemon.kill();
        let daemon = room.start();
        assert_eq!((records(&room), daemon.show("/v1/status")["grants"].as_u64()), (0, Some(0)), "the grant is back after a restart");
        assert_eq!(daemon.refusal("test"), "login_required");
        drop(rogue);
    });
    let mut times = times.into_inner().unwrap();
    times.sort();
    if let Some(last) = times.last() {
        let median = times[times.len() / 2].as_secs_f64() * 1000.0;
        report.figure(format!("from `logout` to no record on disk: median {median:.0} ms, most {:.0} ms", last.as_secs_f64() * 1000.0));
    }
}

fn meet(rogue: Rogue, down: Down) -> Option<Rogue> {
    match down {
        Down::Refused => return None,
        Down::Overloaded => rogue.plan(Plan::canned(503, &["retry-after: 3600"], "").path("/revoke")),
        Down::Reset => rogue.plan(Plan::delivered(Delivery::Reset(0)).path("/revoke").without_effect()),
        Down::Html => rogue.plan(Plan::canned(400, &["content-type: text/html"], "<html>sign in to the hotel</html>").path("/revoke")),
        Down::Hangs => rogue.plan(Plan::delivered(Delivery::Hang).path("/revoke").without_effect()),
    }
    Some(rogue)
}

/// Logs out by the command line, and gives the time until the record was gone.
fn log_out(room: &Room, daemon: &Daemon<'_>, down: Down) -> Duration {
    let start = Instant::now();
    let mut ctl = room.ctl_spawn(&["logout", "test"]);
    let gone = wait_until("no record on disk", PATIENCE, || (records(room) == 0).then(|| start.elapsed()));
    assert_eq!(daemon.refusal("test"), "login_required", "a token after the logout");
    let output = ctl.wait();
    assert_eq!(output.code, 0, "{down:?}: {output:?}");
    assert!(output.stderr.contains("warning: the provider has not confirmed the revocation"), "{down:?}: {output:?}");
    assert!(gone < Duration::from_secs(3), "{down:?}: the record was there for {gone:?}");
    gone
}

fn in_flight(report: &mut Report) {
    side_by_side(report, 8, |number| {
        let rogue = Rogue::start(Rules::strict(HOUR));
        let room = quiet(Room::at_rogue(&rogue));
        let daemon = room.start();
        daemon.log_in("test", "alice");
        rogue.plan(Plan::late(Duration::from_millis(600)).times(1));
        std::thread::scope(|scope| {
            let refresh = refresh_aside(scope, &daemon, "test");
            rogue.wait_for("a refresh at the provider", |seen| (seen.refreshes.len() == 1).then_some(()));
            room.ctl(&["logout", "test"]).ok();
            assert_eq!(records(&room), 0, "a record is left");
            let answer = refresh.join().unwrap().expect("an answer for who asked for the refresh");
            assert_ne!(answer.0, 200, "{}", answer.1);
        });
        // The successor of the token that the logout revoked.
        let new = rogue.look(|seen| seen.issued.last().map(|issued| issued.token.clone())).unwrap();
        rogue.wait_for("the late revocation", |seen| {
            let has = |token: &str| seen.revoked.iter().any(|revoked| revoked == token);
            (has("zQrT9qz.0.0.zQrT9qz") && has("zQrT9qz.0.1.zQrT9qz") && has(&new)).then_some(())
        });
        for token in rogue.look(|seen| seen.issued.iter().map(|issued| issued.token.clone()).collect::<Vec<_>>()) {
            assert!(!rogue.is_active(&token), "a token lives on at the server");
        }
        let gone = |daemon: &Daemon<'_>| {
            assert_eq!((records(&room), daemon.show("/v1/status")["grants"].as_u64()), (0, Some(0)), "resurrected");
        };
        gone(&daemon);
        if number % 2 == 0 {
            daemon.kill()
        } else {
            assert_eq!(daemon.stop().code, 0)
        }
        gone(&room.start());
    });
    report.figure("old and new refresh token and both access tokens dead at the server in every round");
}

/// What the grant is doing when its state machine panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Asked,
    Answered,
    Saved,
}

fn panics(report: &mut Report) {
    let served = AtomicU64::new(0);
    side_by_side(report, 4, |number| {
        let at = [At::Asked, At::Answered, At::Saved][number % 3];
        let rogue = Rogue::start(Rules::strict(HOUR));
        let mut room = quiet(Room::at_rogue(&rogue));
        room.use_failpoints();
        room.arm(&[]);
        let daemon = room.start();
        for grant in ["test", "test:work", "test:home"] {
            daemon.log_in(grant, "alice");
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for grant in ["test:work", "test:home"] {
                        assert!(rogue.is_active(&daemon.token(grant)));
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panic_at(&room, &daemon, &rogue, at)));
            over.store(true, Ordering::Relaxed);
            others.join().unwrap();
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        // New tokens are on their way to the disk then: killed in that instant, they are lost as at any kill before a save.
        if at == At::Answered || number % 2 == 1 {
            assert_eq!(daemon.stop().code, 0);
        } else {
            daemon.kill();
        }
        let daemon = room.start();
        for grant in ["test", "test:work", "test:home"] {
            works(&daemon, &rogue, grant);
        }
    });
    report.figure(format!("{} tokens of other grants served meanwhile, 0 refused", served.into_inner()));
    report.figure("an abort (stack overflow, no memory) ends the process, as kill -9 does: the service manager restarts it, see T1");
}

/// The grant `test` panics, and says so to everybody until the restart.
fn panic_at(room: &Room, daemon: &Daemon<'_>, rogue: &Rogue, at: At) {
    match at {
        At::Asked => {
            room.arm(&["handle test=panic"]);
            assert_eq!(daemon.refusal("test"), "internal_error");
        }
        At::Answered | At::Saved => {
            let armed = room.path("failpoints");
            if at == At::Answered {
                // The request is at the server, so the next input of the grant is the answer.
                rogue.on(move |moment, path| {
                    if moment == Moment::Committed && path == "/token" {
                        std::fs::write(&armed, "handle test=panic").unwrap();
                    }
                });
            } else {
                room.arm(&["record fsync=wait 300"]);
            }
            std::thread::scope(|scope| {
                let refresh = refresh_aside(scope, daemon, "test");
                if at == At::Saved {
                    rogue.wait_for("a refresh at the provider", |seen| (seen.refreshes.len() == 1).then_some(()));
                    // The answer has been taken in once a new record is being written.
                    wait_until("a record being written", PATIENCE, || (records(room) > 3).then_some(()));
                    room.arm(&["handle test=panic"]);
                }
                let (status, answer) = refresh.join().unwrap().expect("an answer for who asked");
                assert_eq!((status, answer["error"].as_str()), (500, Some("internal_error")), "{answer}");
            });
        }
    }
    rogue.on_nothing();
    room.arm(&[]);
    let answer = daemon.ask("test").json();
    let sentence = answer["error_description"].as_str().unwrap_or_default();
    assert!(sentence.contains("set aside after a fault of the daemon"), "{answer}");
    assert!(answer["hint"].as_str().is_some_and(|hint| hint.contains("restart")), "{answer}");
}

fn vault_panics(report: &mut Report) {
    let times = Mutex::new(Vec::new());
    side_by_side(report, 4, |number| {
        let with_passphrase = number % 2 == 1;
        let step = ["record write", "record rename", "record write second half", "record fsync"][number / 2 % 4];
        let rogue = Rogue::start(Rules::strict(HOUR));
        let config = rogue.provider_table("test", "");
        let mut room = quiet(if with_passphrase { Room::without_key_source(&config) } else { Room::with_config(&config) });
        room.set("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
        room.use_failpoints();
        room.arm(&[]);
        let daemon = room.start();
        if with_passphrase {
            room.ctl_typing(&["setup", "--key-source", "passphrase"], PASSPHRASE).ok();
        }
        daemon.log_in("test", "alice");
        room.arm(&[&format!("{step}=panic")]);
        let answer = daemon.call("POST", "/v1/grants/test/refresh", &json!({}));
        assert_eq!((answer.status, answer.json()["not_durable"].as_bool()), (200, Some(true)), "{}", answer.body);
        assert!(rogue.is_active(&daemon.token("test")), "the new token is served meanwhile");
        room.arm(&[]);
        let start = Instant::now();
        wait_until("a durable grant", Duration::from_secs(60), || {
            (daemon.show("/v1/grants/test")["not_durable"] != json!(true)).then_some(())
        });
        times.lock().unwrap().push(start.elapsed());
        daemon.kill();
        let daemon = room.start();
        if with_passphrase {
            room.ctl_typing(&["unlock"], PASSPHRASE).ok();
        }
        works(&daemon, &rogue, "test");
    });
    if let Some(most) = times.into_inner().unwrap().iter().max() {
        report
            .figure(format!("durable again at most {:.1} s after the fault was gone, by itself with a passphrase too", most.as_secs_f64()));
    }
}

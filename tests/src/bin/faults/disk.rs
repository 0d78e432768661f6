//! T7-T9: a disk that is full, read-only or broken while a token rotates.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Rogue, Rules, Verdict, generation};
use mcp_auth_tests::{Daemon, Events, Room, require_root, wait_until};
use serde_json::{Value, json};

use crate::report::{Case, Report};
use crate::side::side_by_side;

pub(crate) const CASES: &[Case] = &[
    Case { id: "T7", title: "disk full: served, told, old record whole, healed, none lost", rounds: 60, quick: 3, run: full_disk },
    Case { id: "T7", title: "disk full for several lifetimes: rotated only once expired", rounds: 12, quick: 4, run: long_outage },
    Case { id: "T8", title: "disk turns read-only: served, told, healed, none lost", rounds: 60, quick: 3, run: read_only },
    Case { id: "T8", title: "start on a read-only disk: one sentence, nothing touched", rounds: 10, quick: 1, run: starts_read_only },
    Case { id: "T9", title: "EIO at a step of a save: served, told, healed, none lost", rounds: 84, quick: 7, run: broken_step },
    Case { id: "T9", title: "EIO of intents: not rotated while valid; a new file heals it", rounds: 12, quick: 2, run: broken_intents },
    Case { id: "T9", title: "EIO from the kernel: no file is synced again after a failure", rounds: 30, quick: 3, run: broken_calls },
];

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// A mount that goes with this value.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// A small disk of its own.
    pub(crate) fn small(at: &Path, size: &str) -> Self {
        require_root("mount a small disk");
        system("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "faults", at.to_str().unwrap()]);
        Self(at.to_owned())
    }

    /// The same folder once more, read-only: every path in it fails with EROFS, what is open stays open.
    fn read_only(at: &Path) -> Self {
        require_root("make a disk read-only");
        let aside = at.with_extension("aside");
        std::fs::create_dir_all(&aside).unwrap();
        let (at, from) = (at.to_str().unwrap(), aside.to_str().unwrap());
        system("mount", &["--bind", at, from]);
        let ready = Self(aside.clone());
        // Read-only before it takes the folder's place, so that nobody can open a file for writing in between.
        system("mount", &["-o", "remount,ro,bind", from]);
        system("mount", &["--bind", from, at]);
        drop(ready);
        Self(at.into())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg(&self.0).output().is_ok_and(|done| done.status.success());
        if !gone {
            // Somebody still has a file open: it goes with the last of them.
            drop(Command::new("umount").arg("--lazy").arg(&self.0).output());
        }
    }
}

fn system(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The folder of the sealed records.
pub(crate) fn records_folder(room: &Room) -> PathBuf {
    let entries = std::fs::read_dir(room.path("state/vault")).unwrap().flatten();
    let found = entries.map(|entry| entry.path()).find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("records-"));
    found.expect("a vault without records")
}

/// The content of every file in the records' folder whose name ends so.
pub(crate) fn files(room: &Room, ending: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(records_folder(room)).unwrap().flatten().map(|entry| entry.path());
    let wanted = paths.filter(|path| path.to_str().unwrap().ends_with(ending));
    wanted.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// A room that does not log too much.
fn quiet_room(rogue: &Rogue) -> Room {
    let mut room = Room::at_rogue(rogue);
    room.set("MCP_AUTHD_LOG", "info");
    room
}

/// Logs in, and refreshes once, which makes the file of intents.
fn warm_up(room: &Room, grants: &[&str]) {
    let daemon = room.start();
    for grant in grants {
        daemon.log_in(grant, "alice");
        refresh(&daemon, grant);
    }
    daemon.kill();
}

fn refresh(daemon: &Daemon<'_>, grant: &str) {
    let answer = daemon.call("POST", &format!("/v1/grants/{grant}/refresh"), &json!({}));
    assert_eq!(answer.status, 200, "a refresh of {grant}: {}", answer.body);
}

fn served(daemon: &Daemon<'_>, grant: &str) -> u64 {
    generation(&daemon.token(grant)).unwrap()
}

/// A refresh while the disk refuses: the new token is served and valid, and everybody who looks is told that it is in
/// memory only.
fn refresh_unsaved(room: &Room, rogue: &Rogue, daemon: &Daemon<'_>, grant: &str, events: &Events) -> u64 {
    let before = served(daemon, grant);
    refresh(daemon, grant);
    let token = daemon.token(grant);
    assert_eq!(generation(&token), Some(before + 1), "the token that was served");
    assert!(rogue.is_active(&token), "the token is not valid");
    assert_eq!(daemon.show("/v1/status")["not_durable"], 1);
    assert_eq!(daemon.show(&format!("/v1/grants/{grant}"))["not_durable"], true);
    assert_eq!(events.wait_for("not_durable", PATIENCE)["grant"], grant);
    let told = daemon.running.said().lines().filter(|line| line.contains("not_durable")).count();
    assert_eq!(told, 1, "lines in the log");
    let status = room.ctl(&["status"]).ok().stdout;
    assert!(status.contains("in memory only"), "{status}");
    before + 1
}

/// The disk works again: the record is written, and the token outlives a kill.
fn heals(room: &Room, rogue: &Rogue, daemon: Daemon<'_>, events: &Events, newest: &[(&str, u64)]) -> Duration {
    let healed = Instant::now();
    events.wait_for("durable", PATIENCE);
    let took = healed.elapsed();
    assert_eq!(daemon.show("/v1/status")["not_durable"], 0);
    daemon.kill();
    outlived(room, rogue, newest);
    took
}

/// After a kill and a start the newest tokens are there, and the strict server takes the refresh tokens.
fn outlived(room: &Room, rogue: &Rogue, newest: &[(&str, u64)]) {
    assert!(files(room, ".tmp").is_empty(), "a temp file was left");
    let daemon = room.start();
    for (grant, newest) in newest {
        assert!(served(&daemon, grant) >= *newest, "an older token of {grant} after the kill");
        refresh(&daemon, grant);
        assert!(rogue.is_active(&daemon.token(grant)));
    }
    let replayed = rogue.look(|seen| seen.count(Verdict::Reused) + seen.count(Verdict::Revoked));
    assert_eq!(replayed, 0, "used refresh tokens that were sent");
    daemon.kill();
}

/// Takes all the room there is.
fn fill(folder: &Path) -> PathBuf {
    let hog = folder.join("hog");
    let mut file = std::fs::File::options().create(true).append(true).open(&hog).unwrap();
    let page = [0; 4096];
    while file.write_all(&page).is_ok() {}
    hog
}

/// A quiet room whose daemons fail where the test says.
fn room_with_failpoints(rogue: &Rogue) -> Room {
    let mut room = quiet_room(rogue);
    room.use_failpoints();
    room.arm(&[]);
    room
}

/// A room with a disk of its own, and a login in it.
fn room_with_a_disk(size: &str, grants: &[&str]) -> (Rogue, Room, Mount) {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let room = quiet_room(&rogue);
    let disk = Mount::small(&room.path("state"), size);
    warm_up(&room, grants);
    (rogue, room, disk)
}

fn full_disk(report: &mut Report) {
    let took = std::sync::Mutex::new(Vec::new());
    side_by_side(report, 3, |_| {
        let (rogue, room, _disk) = room_with_a_disk("256k", &["test:a", "test:b"]);
        let daemon = room.start();
        let events = daemon.follow();
        let first = served(&daemon, "test:a") + 1;
        let hog = fill(&room.path("state"));
        // The first finds the reserve, and has nothing to tell.
        refresh(&daemon, "test:a");
        assert_eq!((served(&daemon, "test:a"), daemon.show("/v1/status")["not_durable"].as_u64()), (first, Some(0)), "the reserve");
        fill(&room.path("state"));
        let before = files(&room, ".sealed");
        let second = refresh_unsaved(&room, &rogue, &daemon, "test:b", &events);
        assert!(events.seen("not_durable")[0]["detail"].as_str().unwrap().contains("the disk is full"));
        assert_eq!(files(&room, ".sealed"), before, "the records on a full disk");
        assert!(files(&room, ".tmp").is_empty(), "half a file was left");
        std::fs::remove_file(hog).unwrap();
        let healed = heals(&room, &rogue, daemon, &events, &[("test:a", first), ("test:b", second)]);
        took.lock().unwrap().push(healed.as_secs_f64());
    });
    let mut took = took.into_inner().unwrap();
    report.figure(format!("on disk after room was made: p50 {:.1} s", crate::report::quantile(&mut took, 50)));
}

fn long_outage(report: &mut Report) {
    const LIFETIME: Duration = Duration::from_secs(4);
    side_by_side(report, 4, |_| {
        let rogue = Rogue::start(Rules::strict(LIFETIME));
        let room = room_with_failpoints(&rogue);
        let daemon = room.start();
        daemon.log_in("test", "alice");
        let events = daemon.follow();
        room.arm(&["intents append=error 28", "intents create=error 28", "record create=error 28"]);
        let (began, known) = (Instant::now(), rogue.look(|seen| seen.refreshes.len()));
        let mut newest = 0;
        while began.elapsed() < LIFETIME * 3 {
            let asked = Instant::now();
            let token = daemon.token("test");
            let issued = rogue.look(|seen| seen.issued.iter().find(|issued| issued.token == token).map(|issued| issued.at).unwrap());
            assert!(issued + LIFETIME > asked, "a token was served after its end");
            newest = generation(&token).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        let (issued, refreshes) = rogue.look(|seen| (seen.issued.clone(), seen.refreshes[known..].to_vec()));
        for refresh in &refreshes {
            let before = issued.iter().rev().find(|token| token.at < refresh.at).unwrap();
            let age = refresh.at - before.at;
            assert!(age + Duration::from_millis(100) >= LIFETIME, "rotated {age:?} after the last token, without a disk");
        }
        assert!((2..=3).contains(&refreshes.len()), "{} refreshes in 3 lifetimes", refreshes.len());
        assert!(!events.seen("not_durable").is_empty());
        // The next token lives longer, so that the kill does not meet a rotation.
        rogue.rule(|rules| (rules.lifetime, rules.expires_in) = (HOUR, json!(HOUR.as_secs())));
        room.arm(&[]);
        let at_rest = |summary: &Value| summary["state"] == "ok" && summary["next_refresh_in"].as_u64() > Some(60);
        wait_until("a grant at rest", PATIENCE, || Some(daemon.show("/v1/grants/test")).filter(at_rest));
        heals(&room, &rogue, daemon, &events, &[("test", newest)]);
    });
}

fn read_only(report: &mut Report) {
    side_by_side(report, 3, |_| {
        let (rogue, room, _disk) = room_with_a_disk("1m", &["test"]);
        let daemon = room.start();
        let events = daemon.follow();
        // The vault is open and tidy once a token was served.
        served(&daemon, "test");
        let before = files(&room, ".sealed");
        let read_only = Mount::read_only(&room.path("state"));
        let newest = refresh_unsaved(&room, &rogue, &daemon, "test", &events);
        assert!(events.seen("not_durable")[0]["detail"].as_str().unwrap().contains("read-only"));
        assert_eq!(files(&room, ".sealed"), before, "the records on a read-only disk");
        drop(read_only);
        heals(&room, &rogue, daemon, &events, &[("test", newest)]);
    });
}

fn starts_read_only(report: &mut Report) {
    side_by_side(report, 1, |_| {
        let (rogue, room, _disk) = room_with_a_disk("1m", &["test"]);
        let before = files(&room, "");
        let read_only = Mount::read_only(&room.path("state"));
        let end = room.spawn().wait();
        assert_ne!(end.code, 0);
        assert!(end.stderr.contains("error: ") && end.stderr.contains("Read-only"), "{}", end.stderr);
        drop(read_only);
        assert_eq!(files(&room, ""), before);
        outlived(&room, &rogue, &[("test", 1)]);
    });
}

fn broken_step(report: &mut Report) {
    let steps =
        ["record create", "record write", "record write second half", "record fsync", "record rename", "fsync folder", "record fsync"];
    side_by_side(report, 3, |number| {
        let step = steps[number % steps.len()];
        let rogue = Rogue::start(Rules::strict(HOUR));
        let room = room_with_failpoints(&rogue);
        warm_up(&room, &["test"]);
        let daemon = room.start();
        let events = daemon.follow();
        // The vault is open and tidy once a token was served.
        served(&daemon, "test");
        let before = files(&room, ".sealed");
        room.arm(&[&format!("{step}=error 5")]);
        let newest = refresh_unsaved(&room, &rogue, &daemon, "test", &events);
        if step != "fsync folder" {
            assert_eq!(files(&room, ".sealed"), before, "{step}: the record after a failed save");
        }
        assert!(files(&room, ".tmp").is_empty(), "{step}: half a file was left");
        room.arm(&[]);
        heals(&room, &rogue, daemon, &events, &[("test", newest)]);
    });
}

fn broken_intents(report: &mut Report) {
    side_by_side(report, 2, |number| {
        let step = ["intents append", "intents fdatasync"][number % 2];
        let rogue = Rogue::start(Rules::strict(HOUR));
        let room = room_with_failpoints(&rogue);
        warm_up(&room, &["test"]);
        let daemon = room.start();
        let before = served(&daemon, "test");
        let sent = rogue.look(|seen| seen.refreshes.len());
        room.arm(&[&format!("{step}=error 5"), "intents create=error 5"]);
        let answer = daemon.call("POST", "/v1/grants/test/refresh", &json!({}));
        assert_ne!(answer.status, 200, "{step}: a success is claimed: {}", answer.body);
        assert_eq!(served(&daemon, "test"), before, "{step}: the valid token");
        assert_eq!(rogue.look(|seen| seen.refreshes.len()), sent, "{step}: a refresh token was sent without an intent");
        // One of the two works again: a new file takes the place of the one that failed.
        room.arm(&[&format!("{step}=error 5")]);
        wait_until("the refresh that was asked for", PATIENCE, || (served(&daemon, "test") > before).then_some(()));
        let newest = served(&daemon, "test");
        assert_eq!(daemon.show("/v1/status")["not_durable"], 0);
        daemon.kill();
        room.arm(&[]);
        outlived(&room, &rogue, &[("test", newest)]);
    });
}

fn broken_calls(report: &mut Report) {
    // Which calls of the vault's thread fail, and whether a second attempt within the save makes up for it.
    let faults = [("fsync:error=EIO:when=1", true), ("fsync:error=EIO:when=1..2", false), ("rename:error=EIO:when=1", false)];
    side_by_side(report, 2, |number| {
        let (fault, made_up) = faults[number % faults.len()];
        let rogue = Rogue::start(Rules::strict(HOUR));
        let room = quiet_room(&rogue);
        warm_up(&room, &["test"]);
        let daemon = room.start();
        let events = daemon.follow();
        let before = served(&daemon, "test");
        let trace = room.path("trace");
        let mut strace = attach(&room, daemon.running.pid(), fault, &trace);
        if made_up {
            refresh(&daemon, "test");
            assert_eq!((served(&daemon, "test"), events.seen("not_durable").len()), (before + 1, 0), "{fault}");
            daemon.kill();
            outlived(&room, &rogue, &[("test", before + 1)]);
        } else {
            let newest = refresh_unsaved(&room, &rogue, &daemon, "test", &events);
            heals(&room, &rogue, daemon, &events, &[("test", newest)]);
        }
        let _ = strace.wait();
        let trace = std::fs::read_to_string(trace).unwrap();
        assert!(trace.contains("EIO"), "{fault}: no call failed");
        for (at, failed) in trace.lines().enumerate().filter(|(_, line)| line.contains("fsync(") && line.contains("EIO")) {
            let path = failed.split(['<', '>']).nth(1).unwrap();
            assert!(path.ends_with(".tmp"), "{fault}: not a file that is new: {path}");
            let again = trace.lines().skip(at + 1).any(|line| line.contains("sync(") && line.contains(path));
            assert!(!again, "{fault}: {path} is synced again after a failure");
        }
    });
}

/// Lets calls of a running daemon fail.
fn attach(room: &Room, pid: u32, fault: &str, trace: &Path) -> std::process::Child {
    require_root("trace a process that is not dumpable");
    let mut command = Command::new(mcp_auth_tests::require("strace", "strace"));
    command.args(["-f", "-y", "-e", "trace=openat,write,fsync,fdatasync,rename,unlink", "-e", &format!("inject={fault}"), "-o"]);
    command.arg(trace).args(["-p", &pid.to_string()]).stderr(std::fs::File::create(room.path("strace")).unwrap());
    let strace = command.spawn().unwrap();
    wait_until("strace at work", PATIENCE, || {
        let said = std::fs::read_to_string(room.path("strace")).unwrap();
        assert!(!said.contains("Operation not permitted"), "{said}");
        said.contains("attached").then_some(())
    });
    strace
}

//! T19: what another process of the same user learns of the daemon by way of the kernel, alive or dead: nothing. And what the
//! programs that it starts inherit from it.

use std::path::Path;
use std::time::Duration;

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Answer, Daemon, OWNER, Person, Room, Running, require, require_root, wait_until};
use rustix::process::Signal;
use serde_json::json;

use crate::life::{HOUR, quiet};
use crate::report::{Case, Report};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T19", title: "killed with cores unlimited: no core anywhere", rounds: 70, quick: 7, run: cores },
    Case { id: "T19", title: "a process of the same user: no memory, files or tracing", rounds: 20, quick: 2, run: spies },
    Case { id: "T19", title: "a command for a secret inherits no descriptor and no core", rounds: 20, quick: 2, run: children },
];

const PATIENCE: Duration = Duration::from_secs(20);

/// The signals that leave a core by default, but for QUIT, which whatever is started in the background ignores. SEGV and BUS are
/// caught by the language to tell a stack overflow, and then come again.
const SIGNALS: [Signal; 7] = [Signal::ABORT, Signal::TRAP, Signal::SEGV, Signal::BUS, Signal::ILL, Signal::FPE, Signal::SYS];

/// A room of a user who is not root, whose daemons are started as by somebody who wants to see cores.
fn room_for_cores(rogue: &Rogue) -> Room {
    let mut room = quiet(Room::at_rogue(rogue));
    room.give_to(OWNER);
    room.launch_with(&["/bin/sh", "-c", "ulimit -c unlimited && exec \"$0\""]);
    room
}

fn cores(report: &mut Report) {
    require_root("lift the limit of cores");
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let mut left = false;
    for round in 0..report.rounds() as usize {
        let signal = SIGNALS[round % SIGNALS.len()];
        let held = report.round(|| {
            let rogue = Rogue::start(Rules::strict(HOUR));
            let room = room_for_cores(&rogue);
            let (mut daemon, in_a_login) = (room.start(), round / SIGNALS.len() % 2 == 1);
            log_in(&room);
            let login = in_a_login.then(|| room.ctl_spawn(&["login", "test:more", "--no-browser"]));
            if let Some(mut login) = login {
                login.wait_for("the URL", |said| said.contains("http://").then_some(()));
            }
            wait_until("its end", PATIENCE, || {
                daemon.running.signal(signal);
                (!daemon.running.is_alive()).then_some(())
            });
            assert!(!daemon.running.dumped_core(), "{signal:?}: the kernel has dumped its memory");
            assert_eq!(cores_in(&room), [""; 0], "{signal:?}");
            control(&room)
        });
        left |= held.unwrap_or_default();
    }
    // Without it a core could have been missed for another reason. Where a program takes the cores, it may be missing itself.
    let piped = pattern.starts_with('|');
    report.round(|| assert!(left || piped, "an ordinary program leaves no core here either: {pattern}"));
    let of_others = if left { "one of an ordinary program was left each time" } else { "the program that takes them is not here" };
    report.figure(format!("{} signals, core_pattern `{}`, limit lifted; {of_others}", SIGNALS.len(), pattern.trim()));
}

/// Whether an ordinary program leaves a core in the same place.
fn control(room: &Room) -> bool {
    let mut command = room.command(Path::new("/bin/sh"));
    // The shell itself is what dies; the room's folder is the owner's.
    command.args(["-c", "ulimit -c unlimited && kill -ABRT $$"]);
    let mut other = Running::start(command, "control", false);
    other.wait();
    other.dumped_core()
}

fn cores_in(room: &Room) -> Vec<String> {
    let folders = ["", "home", "run", "state", "run/mcp-authd"].map(|name| room.path(name));
    let names = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name.starts_with("core")).collect()
}

/// By the owner's own command line: the test is root, whom the daemon refuses.
fn log_in(room: &Room) {
    let mut login = room.ctl_spawn(&["login", "test", "--no-browser"]);
    let url = login.wait_for("the URL", |said| said.lines().find(|line| line.starts_with("http")).map(str::to_owned));
    assert_eq!(Person::named("alice").browse_to_the_end(&url, Answer::Yes).status, 200);
    login.wait().ok();
}

fn spies(report: &mut Report) {
    require_root("be two processes of a third user");
    let mut ways = 0;
    for _ in 0..report.rounds() {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(HOUR));
            let mut room = quiet(Room::at_rogue(&rogue));
            room.give_to(OWNER);
            let daemon = room.start();
            log_in(&room);
            let mut command = room.command(&require("sleep", "coreutils"));
            command.arg("1000");
            let ordinary = Running::start(command, "ordinary", false);
            let (of_ordinary, of_daemon) = (room.spy_on(ordinary.pid()), room.spy_on(daemon.running.pid()));
            // What the kernel refuses for every process, such as tracing under Yama, says nothing here.
            let open: Vec<_> = of_ordinary.iter().filter(|(_, errno)| **errno == 0).map(|(way, _)| way.clone()).collect();
            assert!(open.len() >= 12, "an ordinary process is closed too: {of_ordinary:?}");
            for way in &open {
                assert_ne!(of_daemon[way], 0, "{way} works on the daemon: {of_daemon:?}");
            }
            still_serves(&room, &daemon);
            ways = open.len();
        });
    }
    report.figure(format!("{ways} ways that work on an ordinary process of the same user, none on the daemon"));
}

fn still_serves(room: &Room, daemon: &Daemon<'_>) {
    let state = std::fs::read_to_string(format!("/proc/{}/status", daemon.running.pid())).unwrap();
    assert!(state.contains("TracerPid:\t0"), "{state}");
    room.ctl(&["token", "test"]).ok();
}

/// What the command sees of itself, on lines of its own.
const COMMAND: &str = "#!/bin/sh\n{ echo \"cores $(ulimit -H -c)\"; ls -l /proc/self/fd; env; } >FILE.new && mv FILE.new FILE\n\
                       echo zQcS9qz-of-a-command-zQcS9qz\n";

fn children(report: &mut Report) {
    for _ in 0..report.rounds() {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(HOUR));
            let room = quiet(Room::with_config(""));
            let (script, file) = (room.path("command"), room.path("seen"));
            std::fs::write(&script, COMMAND.replace("FILE", file.to_str().unwrap())).unwrap();
            std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            room.write_config(&rogue.provider_table("test", &format!("client_secret_command = [\"{}\"]", script.display())));
            let daemon = room.start();
            daemon.log_in("test", "alice");
            // With connections open, a login waiting, and the vault's files.
            let (_events, mut waiting) = (daemon.follow(), daemon.start_login(&json!({ "provider": "test", "account": "more" })));
            waiting.wait_for_url();
            std::fs::remove_file(&file).unwrap();
            assert_eq!(daemon.call("POST", "/v1/grants/test/refresh", &json!({})).status, 200);
            let seen = std::fs::read_to_string(&file).unwrap();
            assert!(seen.starts_with("cores 0\n"), "{seen}");
            assert_eq!(inherited(&seen), [""; 0], "{seen}");
            assert!(!seen.contains("zQ"), "a secret in its environment: {seen}");
        });
    }
    report.figure("its descriptors: its output and /dev/null; no secret in its environment");
}

/// The descriptors in a listing by `ls -l /proc/self/fd` in a shell that writes it to a file, but for those that lead nowhere,
/// `ls`'s own, and what this suite was started with and hands on to all.
pub(crate) fn inherited(listing: &str) -> Vec<String> {
    let ours: Vec<_> = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    let is_known = |target: &str| {
        let its_own = target == "/dev/null" || target.ends_with(".new") || target.starts_with("/proc/") && target.ends_with("/fd");
        its_own || ours.iter().any(|known| known == Path::new(target))
    };
    let targets = listing.lines().filter_map(|line| line.split_once(" -> ")).map(|(_, target)| target.to_owned());
    targets.filter(|target| !is_known(target)).collect()
}

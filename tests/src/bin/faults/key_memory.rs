//! T18, the vault's key: where it lies in the daemon's memory while the vault is open, and that it is nowhere after `lock`.

use std::fmt::Write as _;
use std::io::{Read as _, Seek as _, SeekFrom};

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Daemon, OWNER, PASSPHRASE, Room, require_root, wait_until};
use ring::hkdf::{HKDF_SHA256, Salt};
use serde_json::Value;

use crate::life::{HOUR, PATIENCE, quiet, works};
use crate::report::{Case, Report};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T18", title: "the vault's key: in locked pages only, and gone after `lock`", rounds: 20, quick: 2, run: locked },
    Case { id: "T18", title: "a passphrase: nowhere in memory once it was used", rounds: 10, quick: 2, run: typed },
    Case { id: "T18", title: "no memory may be locked: told once, and all works", rounds: 10, quick: 2, run: unlockable },
];

/// What the vault's records are sealed with (`daemon/src/vault/record.rs`).
const PURPOSES: [&str; 3] = ["mcp-authd records", "mcp-authd names", "mcp-authd key check"];
/// Locked in memory, not in a dump, empty in a forked child (proc_pid_smaps(5)).
const FLAGS: [&str; 3] = ["lo", "dd", "wf"];
const GRANTS: usize = 5;

/// Bytes that must not lie about, and what they are.
struct Needle {
    what: String,
    bytes: Vec<u8>,
}

/// A find in a process's memory.
#[derive(Debug)]
struct Find {
    what: String,
    flags: Vec<String>,
}

impl Find {
    fn is_guarded(&self) -> bool {
        FLAGS.iter().all(|flag| self.flags.iter().any(|found| found == flag))
    }
}

/// The key of this room's vault in every form that it has, computed from its files.
fn needles(room: &Room) -> Vec<Needle> {
    let header: Value = serde_json::from_slice(&std::fs::read(room.path("state/vault/vault.json")).unwrap()).unwrap();
    let file = std::fs::read_to_string(room.path("state/state/vault.key")).unwrap();
    let hex = file.lines().find_map(|line| line.strip_prefix(header["key_id"].as_str().unwrap())).unwrap().trim().to_owned();
    let secret = bytes_of(&hex);
    let salt = Salt::new(HKDF_SHA256, &bytes_of(header["salt"].as_str().unwrap()));
    let master = salt.extract(&secret);
    let mut needles =
        vec![Needle { what: "the key".into(), bytes: secret }, Needle { what: "the key as hex".into(), bytes: hex.into_bytes() }];
    for purpose in PURPOSES {
        let mut subkey = vec![0; 32];
        master.expand(&[purpose.as_bytes()], HKDF_SHA256).unwrap().fill(&mut subkey).unwrap();
        needles.push(Needle { what: format!("the subkey `{purpose}`"), bytes: subkey });
    }
    needles
}

fn bytes_of(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len(), 64, "not a key of 32 bytes");
    (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Where these lie in the writable memory of a process, and the flags of the mapping there.
fn search(pid: u32, needles: &[Needle]) -> Vec<Find> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut found, mut here, mut searched) = (Vec::new(), Vec::new(), 0);
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let flags: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
            found.extend(here.drain(..).map(|what| Find { what, flags: flags.clone() }));
        }
        let mut words = line.split_whitespace();
        let (range, modes) = (words.next().and_then(|range| range.split_once('-')), words.next().unwrap_or_default());
        let Some((Ok(from), Ok(to))) = range.map(|(from, to)| (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16))) else {
            continue;
        };
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        if !modes.starts_with("rw") || memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut part).is_err() {
            continue;
        }
        searched += part.len();
        for Needle { what, bytes } in needles {
            here.extend(memchr::memmem::find_iter(&part, bytes).map(|_| what.clone()));
        }
    }
    assert!(searched > 1_000_000, "the memory could not be read");
    found
}

fn shown(found: &[Find]) -> String {
    found.iter().fold(String::new(), |mut text, find| {
        let _ = write!(text, "{} in a mapping with {}; ", find.what, find.flags.join(" "));
        text
    })
}

fn locked(report: &mut Report) {
    require_root("read the memory of an undumpable process");
    let mut kib = 0;
    for round in 0..report.rounds() {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(HOUR));
            let room = quiet(Room::at_rogue(&rogue));
            let daemon = room.start();
            for number in 0..GRANTS {
                daemon.log_in(&format!("test:k{number}"), "alice");
            }
            // In every other round a daemon that has read its records and not made them.
            let daemon = if round % 2 == 0 { daemon } else { restarted(&room, daemon) };
            let needles = needles(&room);
            let open = search(daemon.running.pid(), &needles);
            assert!(open.iter().any(|find| find.what.contains("names")), "not found, so a search says nothing: {}", shown(&open));
            assert!(open.iter().all(Find::is_guarded), "outside of locked pages: {}", shown(&open));
            kib = locked_kib(daemon.running.pid());
            assert!(kib > 0, "no memory is locked");
            room.ctl(&["lock"]).ok();
            let after = search(daemon.running.pid(), &needles);
            assert!(after.is_empty(), "after `lock`: {}", shown(&after));
            room.ctl(&["unlock"]).ok();
            works(&daemon, &rogue, "test:k0");
        });
    }
    report.figure(format!("the key, its hex, {} subkeys: only in pages with {}; VmLck {kib} kB", PURPOSES.len(), FLAGS.join(", ")));
    report.figure("after `lock`: 0 hits in all writable memory, read by root");
}

fn restarted<'a>(room: &'a Room, daemon: Daemon<'a>) -> Daemon<'a> {
    assert_eq!(daemon.stop().code, 0);
    let daemon = room.start();
    wait_until("an open vault", PATIENCE, || (daemon.show("/v1/status")["vault"]["state"] == "unlocked").then_some(()));
    daemon
}

fn locked_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn typed(report: &mut Report) {
    require_root("read the memory of an undumpable process");
    for _ in 0..report.rounds() {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(HOUR));
            let mut room = quiet(Room::without_key_source(&rogue.provider_table("test", "")));
            room.set("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
            let daemon = room.start();
            let nowhere = |when: &str| {
                let found = search(daemon.running.pid(), &[Needle { what: "the passphrase".into(), bytes: PASSPHRASE.into() }]);
                assert!(found.is_empty(), "{when}: {}", shown(&found));
            };
            room.ctl_typing(&["setup", "--key-source", "passphrase"], PASSPHRASE).ok();
            nowhere("after `setup`");
            daemon.log_in("test", "alice");
            room.ctl(&["lock"]).ok();
            nowhere("after `lock`");
            room.ctl_typing(&["unlock"], PASSPHRASE).ok();
            nowhere("after `unlock`");
            works(&daemon, &rogue, "test");
        });
    }
    report.figure("after `setup`, `lock` and `unlock`: 0 hits in all writable memory");
}

fn unlockable(report: &mut Report) {
    require_root("be a user who may lock no memory");
    for _ in 0..report.rounds() {
        report.round(|| {
            let mut room = quiet(Room::with_config(""));
            room.give_to(OWNER);
            room.launch_with(&["/bin/sh", "-c", "ulimit -l 0 && exec \"$0\""]);
            let daemon = room.start();
            let token = "zQaT9qz-static-zQaT9qz";
            room.ctl_typing(&["add-token", "test"], token).ok();
            for _ in 0..3 {
                room.ctl(&["lock"]).ok();
                room.ctl(&["unlock"]).ok();
            }
            assert_eq!(room.ctl(&["token", "test"]).ok().stdout.trim(), token);
            assert_eq!(locked_kib(daemon.running.pid()), 0, "the limit does not hold");
            let said = daemon.running.said();
            assert_eq!(said.matches("cannot be kept out of swap").count(), 1, "{said}");
        });
    }
}

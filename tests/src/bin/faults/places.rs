//! What lies at the places of the daemon before it starts: T13, T48. The rooms belong to a user who is not root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcp_auth_tests::{Listing, OWNER, Room, STRANGER, give, wait_until};
use rustix::fs::{CWD, FileType, mknodat};

use crate::report::{Case, Report};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T13", title: "what lies at the socket's path is refused, and left as it was", rounds: 120, quick: 12, run: in_the_way },
    Case { id: "T13", title: "a dead socket of ours is replaced", rounds: 40, quick: 4, run: dead_socket },
    Case { id: "T48", title: "links, foreign and open folders are refused, nothing is written", rounds: 190, quick: 19, run: untrusted },
    Case { id: "T48", title: "missing, wide or unset folders: the documented place, 0700", rounds: 60, quick: 6, run: usual },
];

const PATIENCE: Duration = Duration::from_secs(20);

/// Something laid in the way of a daemon that must not start.
#[derive(Clone, Copy)]
struct Trap {
    name: &'static str,
    lay: fn(&mut Room),
    code: i32,
    says: &'static str,
}

/// Each trap in turn: the daemon ends with one sentence, and nothing but its own state has changed.
fn each_refused(report: &mut Report, traps: &[Trap]) {
    for round in 0..report.rounds() {
        let trap = &traps[round as usize % traps.len()];
        report.round(|| {
            let mut room = owners_room();
            (trap.lay)(&mut room);
            let before = Listing::of(&room.path(""));
            let mut daemon = room.spawn();
            wait_until(trap.name, PATIENCE, || {
                assert!(!daemon.said().contains(" ready "), "{}: it starts", trap.name);
                (!daemon.is_alive()).then_some(())
            });
            daemon.wait().fails_with(trap.code).says(trap.says);
            let changes = before.changes(&Listing::of(&room.path("")), &room.path("state"));
            assert!(changes.is_empty(), "{}: {changes:?}", trap.name);
        });
    }
    report.figure(format!("{} things in the way", traps.len()));
}

fn owners_room() -> Room {
    let mut room = Room::with_config("");
    room.set("MCP_AUTHD_LOG", "info");
    room.give_to(OWNER);
    room
}

/// The socket's folder, made; and the socket's path.
fn folder(room: &Room) -> PathBuf {
    let folder = room.path("run/mcp-authd");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    give(&folder, OWNER);
    folder
}

/// A socket that nobody listens on.
fn dead(path: &Path, owner: u32) {
    drop(UnixListener::bind(path).unwrap());
    lchown(path, Some(owner), Some(owner)).unwrap();
}

/// A file or folder with this content that the daemon must not touch.
fn precious(room: &Room) -> PathBuf {
    let path = room.path("precious");
    fs::write(&path, "precious").unwrap();
    give(&path, OWNER);
    path
}

fn in_the_way(report: &mut Report) {
    each_refused(report, SOCKET);
}

const SOCKET: &[Trap] = &[
    Trap {
        name: "a folder",
        lay: |room| fs::create_dir(folder(room).join("mcp-authd.sock")).unwrap(),
        code: 1,
        says: "a folder of that name",
    },
    Trap {
        name: "a folder with something in it",
        lay: |room| fs::create_dir_all(folder(room).join("mcp-authd.sock/precious")).unwrap(),
        code: 1,
        says: "a folder of that name",
    },
    Trap { name: "a file", lay: |room| fs::write(folder(room).join("mcp-authd.sock"), "precious").unwrap(), code: 1, says: "not a socket" },
    Trap {
        name: "a second name of a file",
        lay: |room| fs::hard_link(precious(room), folder(room).join("mcp-authd.sock")).unwrap(),
        code: 1,
        says: "not a socket",
    },
    Trap { name: "a link to a file", lay: |room| link(room, &precious(room)), code: 1, says: "not a socket" },
    Trap { name: "a link to nothing", lay: |room| link(room, &room.path("nothing")), code: 1, says: "not a socket" },
    Trap {
        name: "a link to a dead socket of ours",
        lay: |room| {
            dead(&room.path("other.sock"), OWNER);
            link(room, &room.path("other.sock"));
        },
        code: 1,
        says: "not a socket",
    },
    Trap {
        name: "a pipe",
        lay: |room| {
            let path = folder(room).join("mcp-authd.sock");
            mknodat(CWD, &path, FileType::Fifo, 0o600.into(), 0).unwrap();
            give(&path, OWNER);
        },
        code: 1,
        says: "not a socket",
    },
    Trap {
        name: "a dead socket of another user",
        lay: |room| dead(&folder(room).join("mcp-authd.sock"), STRANGER),
        code: 1,
        says: "a socket of another user",
    },
    Trap {
        name: "a dead socket of root",
        lay: |room| dead(&folder(room).join("mcp-authd.sock"), 0),
        code: 1,
        says: "a socket of another user",
    },
    Trap {
        name: "a file where the socket is made",
        lay: |room| fs::write(folder(room).join("~cp-authd.sock"), "precious").unwrap(),
        code: 1,
        says: "in the way",
    },
    Trap {
        name: "a link where the socket is made",
        lay: |room| symlink(precious(room), folder(room).join("~cp-authd.sock")).unwrap(),
        code: 1,
        says: "in the way",
    },
];

fn link(room: &Room, target: &Path) {
    symlink(target, folder(room).join("mcp-authd.sock")).unwrap();
}

/// The daemon before was killed, or somebody of our own bound the path and went.
fn dead_socket(report: &mut Report) {
    for round in 0..report.rounds() {
        report.round(|| {
            let room = owners_room();
            if round % 2 == 0 {
                room.start().kill();
            } else {
                dead(&folder(&room).join("mcp-authd.sock"), OWNER);
            }
            let old = fs::symlink_metadata(room.socket()).unwrap();
            let daemon = room.start();
            let new = fs::symlink_metadata(room.socket()).unwrap();
            assert_eq!((new.mode() & 0o7777, new.uid()), (0o600, OWNER));
            assert_ne!(old.ino(), new.ino(), "it is the old one");
            // While that daemon lives its socket is nobody's to replace.
            room.spawn().wait().fails_with(75);
            assert_eq!(daemon.stop().code, 0);
            assert!(!room.socket().exists(), "an orderly end leaves no socket");
        });
    }
}

fn untrusted(report: &mut Report) {
    let traps: Vec<Trap> = [RUNTIME, VAULT, CONFIG].into_iter().flatten().copied().collect();
    each_refused(report, &traps);
}

const RUNTIME: &[Trap] = &[
    Trap {
        name: "the socket's folder is a link",
        lay: |room| lead_elsewhere(room, "run/mcp-authd"),
        code: 1,
        says: "symbolic links are not followed",
    },
    Trap { name: "others may write to it", lay: |room| open(&folder(room), 0o777), code: 1, says: "others may write" },
    Trap { name: "its group may write to it", lay: |room| open(&folder(room), 0o770), code: 1, says: "others may write" },
    Trap {
        name: "it is another user's",
        lay: |room| {
            open(&folder(room), 0o755);
            give(&folder(room), STRANGER);
        },
        code: 1,
        says: "belongs to another user",
    },
    Trap { name: "everybody may write above it", lay: |room| open(&room.path("run"), 0o777), code: 1, says: "everybody may write" },
    Trap {
        name: "XDG_RUNTIME_DIR is another user's, closed",
        lay: |room| {
            by_runtime_folder(room);
            give(&room.path("run"), STRANGER);
        },
        code: 1,
        says: "run",
    },
    Trap {
        name: "XDG_RUNTIME_DIR is another user's, with a folder of ours in it",
        lay: |room| {
            by_runtime_folder(room);
            folder(room);
            open(&room.path("run"), 0o755);
            lchown(room.path("run"), Some(STRANGER), Some(STRANGER)).unwrap();
        },
        code: 1,
        says: "belongs to another user",
    },
    Trap {
        name: "XDG_RUNTIME_DIR is another user's /tmp",
        lay: |room| {
            by_runtime_folder(room);
            folder(room);
            open(&room.path("run"), 0o1777);
            lchown(room.path("run"), Some(STRANGER), Some(STRANGER)).unwrap();
        },
        code: 1,
        says: "belongs to another user",
    },
];

const VAULT: &[Trap] = &[
    Trap { name: "the vault is a link", lay: |room| lead_elsewhere(room, "state/vault"), code: 1, says: "is a symbolic link" },
    Trap {
        name: "the vault is a link to nothing",
        lay: |room| symlink(room.path("elsewhere"), room.path("state/vault")).unwrap(),
        code: 1,
        says: "vault",
    },
    Trap {
        name: "the vault is another user's",
        lay: |room| {
            fs::create_dir(room.path("state/vault")).unwrap();
            open(&room.path("state/vault"), 0o777);
            give(&room.path("state/vault"), STRANGER);
        },
        code: 1,
        says: "belongs to another user",
    },
    Trap {
        name: "the vault is a file",
        lay: |room| fs::write(room.path("state/vault"), "precious").unwrap(),
        code: 1,
        says: "is not a folder",
    },
    Trap {
        name: "the lock is a link",
        lay: |room| symlink(precious(room), vault(room).join("daemon.lock")).unwrap(),
        code: 1,
        says: "daemon.lock",
    },
    Trap {
        name: "the lock is a link to nothing",
        lay: |room| symlink(room.path("nothing"), vault(room).join("daemon.lock")).unwrap(),
        code: 1,
        says: "daemon.lock",
    },
    Trap {
        name: "the lock is a second name of a file",
        lay: |room| fs::hard_link(precious(room), vault(room).join("daemon.lock")).unwrap(),
        code: 1,
        says: "daemon.lock",
    },
];

const CONFIG: &[Trap] = &[
    Trap { name: "everybody may write to the config", lay: |room| open(&room.path("config.toml"), 0o666), code: 78, says: "config.toml" },
    Trap {
        name: "the config is another user's",
        lay: |room| {
            open(&room.path("config.toml"), 0o644);
            give(&room.path("config.toml"), STRANGER);
        },
        code: 78,
        says: "config.toml",
    },
    Trap {
        name: "the config is a link to another user's file",
        lay: |room| {
            fs::rename(room.path("config.toml"), room.path("theirs")).unwrap();
            open(&room.path("theirs"), 0o644);
            give(&room.path("theirs"), STRANGER);
            symlink(room.path("theirs"), room.path("config.toml")).unwrap();
        },
        code: 78,
        says: "config.toml",
    },
    Trap {
        name: "the config is a folder",
        lay: |room| {
            fs::remove_file(room.path("config.toml")).unwrap();
            fs::create_dir(room.path("config.toml")).unwrap();
        },
        code: 78,
        says: "is a folder",
    },
];

/// Makes this a link to a folder of ours.
fn lead_elsewhere(room: &Room, name: &str) {
    fs::create_dir(room.path("elsewhere")).unwrap();
    give(&room.path("elsewhere"), OWNER);
    symlink(room.path("elsewhere"), room.path(name)).unwrap();
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn vault(room: &Room) -> PathBuf {
    fs::create_dir(room.path("state/vault")).unwrap();
    give(&room.path("state/vault"), OWNER);
    room.path("state/vault")
}

/// The socket's place is found by the rule and not named.
fn by_runtime_folder(room: &mut Room) {
    room.unset("MCP_AUTHD_SOCKET");
}

/// A place that is not as usual, and where the socket is then.
struct Usual {
    name: &'static str,
    lay: fn(&mut Room),
    socket: &'static str,
}

const PLACES: [Usual; 6] = [
    Usual { name: "no variable for the socket", lay: by_runtime_folder, socket: "run/mcp-authd/mcp-authd.sock" },
    Usual {
        name: "XDG_RUNTIME_DIR is not there",
        lay: |room| {
            by_runtime_folder(room);
            fs::remove_dir(room.path("run")).unwrap();
        },
        socket: "run/mcp-authd/mcp-authd.sock",
    },
    Usual {
        name: "XDG_RUNTIME_DIR is unset",
        lay: |room| {
            by_runtime_folder(room);
            room.unset("XDG_RUNTIME_DIR");
        },
        socket: "state/state/run/mcp-authd.sock",
    },
    Usual {
        name: "XDG_RUNTIME_DIR is relative",
        lay: |room| {
            by_runtime_folder(room);
            room.set("XDG_RUNTIME_DIR", "run");
        },
        socket: "state/state/run/mcp-authd.sock",
    },
    Usual {
        name: "TMPDIR leads nowhere, the state folder is not there",
        lay: |room| {
            room.set("TMPDIR", room.path("nothing").to_str().unwrap());
            fs::remove_dir(room.path("state")).unwrap();
        },
        socket: "run/mcp-authd/mcp-authd.sock",
    },
    Usual { name: "the vault is open to others", lay: |room| open(&vault(room), 0o777), socket: "run/mcp-authd/mcp-authd.sock" },
];
fn usual(report: &mut Report) {
    for round in 0..report.rounds() {
        let place = &PLACES[round as usize % PLACES.len()];
        report.round(|| {
            let mut room = owners_room();
            (place.lay)(&mut room);
            let mut daemon = room.spawn();
            let socket = room.path(place.socket);
            wait_until(place.name, PATIENCE, || {
                assert!(daemon.is_alive(), "{}: {}", place.name, daemon.said());
                socket.exists().then_some(())
            });
            room.ctl(&["status"]).ok();
            let mode = |path: &Path| (path.metadata().unwrap().mode() & 0o7777, path.metadata().unwrap().uid());
            let found = [mode(&socket), mode(socket.parent().unwrap()), mode(&room.path("state/vault"))];
            assert_eq!(found, [(0o600, OWNER), (0o700, OWNER), (0o700, OWNER)], "{}", place.name);
        });
    }
}

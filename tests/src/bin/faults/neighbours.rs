//! Other users of the machine, and what a neighbour's environment says: T47, T68, T70. The rooms belong to a user who is
//! not root.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use mcp_auth_proto::{Client, ClientError, TokenRequest};
use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{AS_STRANGER, Answer, OWNER, Person, Room, Running, wait_until};

use crate::report::{Case, Report};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T47", title: "another user gets no byte, though the socket is 0777", rounds: 12_000, quick: 600, run: strangers },
    Case { id: "T47", title: "root gets a sentence from another user's daemon, not a token", rounds: 2_000, quick: 100, run: root },
    Case { id: "T47", title: "where other users cannot be told from ours the daemon does not start", rounds: 20, quick: 2, run: nameless },
    Case { id: "T68", title: "a server of another user at the path sees no byte of a request", rounds: 120, quick: 12, run: impostor },
    Case {
        id: "T70",
        title: "what a client's environment says changes nothing in the daemon",
        rounds: 48,
        quick: 8,
        run: clients_surroundings,
    },
    Case {
        id: "T70",
        title: "garbage in the daemon's own environment: a sentence, or no effect",
        rounds: 72,
        quick: 18,
        run: own_surroundings,
    },
];

/// Everybody who is not the room's user: as which user, in which user namespace.
const STRANGERS: &[&[&str]] = &[
    &AS_STRANGER,
    // The owner's group does not matter.
    &["setpriv", "--reuid=65534", "--regid=54321", "--clear-groups"],
    // The real user is the owner, the effective one is not: the kernel tells the effective one.
    &["setpriv", "--ruid=54321", "--euid=65534", "--regid=65534", "--clear-groups"],
    // In a user namespace: without a name, as its root, and under the owner's number.
    &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user"],
    &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user", "--map-root-user"],
    &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user", "--map-user=54321"],
];
const AS_OWNER: &[&str] = &["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];

fn strangers(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let room = owners_room(&rogue.provider_table("test", ""));
    let daemon = room.start();
    log_in(&room);
    room.open_to_everybody();
    let served = room.knock_as(AS_OWNER, 20);
    assert_eq!(served["tokens"], 20, "the way is not open, so a refusal says nothing: {served}");
    let share = report.rounds().div_ceil(u32::try_from(STRANGERS.len()).unwrap());
    for who in STRANGERS {
        let counted = room.knock_as(who, share);
        let refused = u32::try_from(counted["refused"].as_u64().unwrap()).unwrap();
        report.count(refused, (refused..share).map(|_| format!("{who:?}: {counted}")));
    }
    assert_eq!(room.knock_as(AS_OWNER, 1)["tokens"], 1, "the daemon serves no more");
    drop(daemon);
    report.figure(format!("{} kinds of strangers, {share} connections each", STRANGERS.len()));
}

fn root(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let room = owners_room(&rogue.provider_table("test", ""));
    let _daemon = room.start();
    log_in(&room);
    room.open_to_everybody();
    // In a user namespace of its own root is still root to everybody outside.
    let kinds: [&[&str]; 2] = [&["env"], &["unshare", "--user"]];
    let share = report.rounds().div_ceil(2);
    for who in kinds {
        let counted = room.knock_as(who, share);
        let told = u32::try_from(counted["sentences"].as_u64().unwrap()).unwrap();
        let tokens = u32::try_from(counted["tokens"].as_u64().unwrap()).unwrap();
        let good = told.saturating_sub(tokens);
        report.count(good, (good..share).map(|_| format!("{who:?}: {counted}")));
    }
    assert_eq!(room.knock_as(AS_OWNER, 1)["tokens"], 1);
}

/// In a user namespace that does not map its own user, every other user's number is the daemon's own too.
fn nameless(report: &mut Report) {
    for _ in 0..report.rounds() {
        report.round(|| {
            let mut room = owners_room("");
            room.launch_with(&["unshare", "--user"]);
            let mut daemon = room.spawn();
            wait_until("an end, or a socket", Duration::from_secs(10), || (!daemon.is_alive() || room.socket().exists()).then_some(()));
            if daemon.is_alive() {
                room.open_to_everybody();
                panic!("it starts, and a stranger gets {}", room.knock_as(&AS_STRANGER, 1));
            }
            daemon.wait().fails_with(1).says("cannot be told from ours");
        });
    }
    let mut room = owners_room("");
    room.launch_with(&["unshare", "--user", "--map-current-user"]);
    let mut daemon = room.spawn();
    daemon.wait_for("the start", |said| said.contains("ready").then_some(()));
    room.ctl(&["status"]).ok();
}

/// A server of another user at the socket's path, which says how many bytes came on each connection.
struct Impostor {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Impostor {
    fn at_the_socket_of(room: &Room) -> Self {
        std::fs::create_dir_all(room.path("run/mcp-authd")).unwrap();
        for open in ["", "run", "run/mcp-authd"] {
            std::fs::set_permissions(room.path(open), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        }
        let mut command = room.probe(&AS_STRANGER, &["listen", room.socket().to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "listening");
        Self { child, said }
    }

    /// What came on the next connection, at its end.
    fn next(&mut self) -> String {
        self.said.next().unwrap().unwrap()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const VERBS: [&[&str]; 11] = [
    &["token", "test"],
    &["token", "test", "--json"],
    &["status"],
    &["status", "--check", "test"],
    &["login", "test", "--no-browser"],
    &["logout", "test"],
    &["refresh", "test"],
    &["events"],
    &["lock"],
    &["reload"],
    &["provider", "list"],
];

fn impostor(report: &mut Report) {
    let room = owners_room("");
    let mut impostor = Impostor::at_the_socket_of(&room);
    for round in 0..report.rounds() as usize {
        report.round(|| match VERBS.get(round % (VERBS.len() + 1)) {
            Some(verb) => {
                let output = room.ctl(verb);
                assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{verb:?}: {output:?}");
                output.says("another user's process");
                assert_eq!(impostor.next(), "0 bytes", "{verb:?}");
            }
            // The test's own user is neither the impostor's.
            None => {
                let refused = Client::new(room.socket()).token(&TokenRequest::for_grant("test"));
                assert!(matches!(refused, Err(ClientError::NotOurDaemon { .. })), "{refused:?}");
                assert_eq!(impostor.next(), "0 bytes", "the library");
            }
        });
    }
    report.figure(format!("{} verbs of mcp-authctl, and the library", VERBS.len()));
}

/// What a client may have in its environment, each of which would do something in the daemon's.
const HOSTILE: [(&str, &str); 8] = [
    ("HTTPS_PROXY", "http://127.0.0.1:1"),
    ("ALL_PROXY", "socks5://127.0.0.1:1"),
    ("SSL_CERT_FILE", "/nonexistent"),
    ("LD_PRELOAD", "/nonexistent.so"),
    ("RUST_LOG", "trace"),
    ("MCP_AUTHD_LOG", "trace"),
    ("MCP_AUTHD_KEY_SOURCE", "passphrase"),
    ("MCP_AUTHD_STATE_DIR", "/nonexistent"),
];

fn clients_surroundings(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let mut room = owners_room(&rogue.provider_table("test", ""));
    let mut daemon = room.spawn();
    daemon.wait_for("the start", |said| said.contains("ready").then_some(()));
    log_in(&room);
    let environment = || std::fs::read(format!("/proc/{}/environ", daemon.pid())).unwrap();
    let (before, said) = (environment(), daemon.said().len());
    for round in 0..report.rounds() as usize {
        let (name, value) = HOSTILE[round % HOSTILE.len()];
        let usual = room.variable(name);
        room.set(name, value);
        let refreshes = rogue.look(|seen| seen.refreshes.len());
        report.round(|| {
            room.ctl(&["refresh", "test"]);
            let token = room.ctl(&["token", "test"]).ok().stdout;
            assert!(rogue.is_active(token.trim()), "{name}: the token is not good");
            assert!(rogue.look(|seen| seen.refreshes.len()) <= refreshes + 1, "{name}: refreshed more than once");
            room.ctl(&["reload"]).ok();
            assert_eq!(environment(), before, "{name}");
        });
        match usual {
            Some(usual) => room.set(name, &usual),
            None => room.unset(name),
        }
    }
    assert!(rogue.look(|seen| seen.refreshes.len()) > 0, "no refresh went to the provider");
    assert!(!daemon.said()[said..].contains(" TRACE ") && !daemon.said()[said..].contains("DEBUG"), "{}", daemon.said());
}

/// What the daemon's own environment may hold: the exit code, or 0 for a daemon that serves.
const GARBAGE: [(&str, &str, i32); 18] = [
    ("MCP_AUTHD_KEY_SOURCE", "nonsense", 78),
    ("MCP_AUTHD_KEY_SOURCE", "key-file\u{1b}[2J", 78),
    ("MCP_AUTHD_SOCKET", "relative", 1),
    ("MCP_AUTHD_SOCKET", "/", 1),
    ("MCP_AUTHD_STATE_DIR", "relative", 78),
    ("MCP_AUTHD_STATE_DIR", "/proc/nonexistent", 1),
    ("MCP_AUTHD_CONFIG", "relative", 78),
    ("MCP_AUTHD_CONFIG", "/dev/zero", 78),
    ("MCP_AUTHD_LOG", "nonsense,=,mcp_authd=,\u{1b}[2J", 0),
    ("RUST_LOG", "trace", 0),
    ("RUST_BACKTRACE", "full", 0),
    ("HTTPS_PROXY", "::::not a URL::::", 0),
    ("SSL_CERT_FILE", "/nonexistent", 0),
    ("TZ", ":::/nonexistent", 0),
    ("LISTEN_FDS", "garbage", 0),
    ("LISTEN_PID", "1", 0),
    ("NOTIFY_SOCKET", "nonsense", 0),
    ("JOURNAL_STREAM", "nonsense", 0),
];

fn own_surroundings(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    for round in 0..report.rounds() as usize {
        let (name, value, code) = GARBAGE[round % GARBAGE.len()];
        report.round(|| {
            let mut room = owners_room(&rogue.provider_table("test", ""));
            room.set(name, value);
            let said = if code == 0 {
                let daemon = room.start();
                log_in(&room);
                let token = room.ctl(&["token", "test"]).ok().stdout;
                assert!(rogue.is_active(token.trim()), "{name}={value:?}: the token is not good");
                daemon.stop().stderr
            } else {
                let output = room.spawn().wait();
                assert_eq!(output.code, code, "{name}={value:?}: {output:?}");
                output.fails_with(code).stderr
            };
            assert!(!said.contains('\u{1b}'), "{name}={value:?}: {said:?}");
        });
    }
}

fn owners_room(config: &str) -> Room {
    let mut room = Room::with_config(config);
    room.set("MCP_AUTHD_LOG", "info");
    room.give_to(OWNER);
    room
}

/// Logs in by the owner's own command line: the test is root, whom the daemon refuses.
fn log_in(room: &Room) {
    let mut login: Running = room.ctl_spawn(&["login", "test", "--no-browser"]);
    let url = login.wait_for("the URL", |said| said.lines().find(|line| line.starts_with("http")).map(str::to_owned));
    let end = Person::named("alice").browse_to_the_end(&url, Answer::Yes);
    assert_eq!(end.status, 200, "{}", end.body);
    login.wait().ok();
}

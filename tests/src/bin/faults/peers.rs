//! Who is taken for whom: T49, T50. What the daemon takes a peer for shows at `GET /v1/who`.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mcp_auth_tests::{Connection, OWNER, Room, binary, require, require_root, wait_until};
use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;

use crate::report::{Case, Report};
use crate::side::none_of;

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T49", title: "a process number that went to another program leads to nobody", rounds: 30_000, quick: 600, run: reuse },
    Case { id: "T50", title: "a connection in other hands is not taken for their program", rounds: 1_500, quick: 30, run: passed_on },
    Case { id: "T50", title: "an interpreter is told as weak, with its script or without", rounds: 300, quick: 12, run: interpreters },
    Case { id: "T50", title: "a file that is not the one at its path is no known program", rounds: 300, quick: 8, run: other_files },
    Case { id: "T50", title: "a peer that nobody can look at holds up nobody else", rounds: 2_000, quick: 200, run: held_up },
];

const PATIENCE: Duration = Duration::from_secs(20);

/// The daemon and the peers are alone in a process namespace, where the next number can be chosen.
fn reuse(report: &mut Report) {
    require_root("choose the number of the next process");
    let mut room = quiet_room();
    room.launch_with(&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", "\"$0\" & wait"]);
    let daemon = room.start();
    let first = format!("/proc/{0}/task/{0}/children", daemon.running.pid());
    let first = std::fs::read_to_string(first).unwrap().trim().to_owned();
    let (socket, times) = (room.socket(), report.rounds().to_string());
    let within = ["nsenter", "--target", &first, "--pid", "--mount", "--"];
    let output = room.probe(&within, &["reuse", socket.to_str().unwrap(), &times]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counted: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |name: &str| u32::try_from(counted[name].as_u64().unwrap()).unwrap();
    report.count(number("unknown"), counted["wrong"].as_array().unwrap().iter().map(|wrong| format!("taken for {wrong}")));
    assert_eq!(number("number_led_to_another"), report.rounds(), "the number was not another's, so that nothing was tried");
    report.figure(format!("a look by number alone would have been wrong in {} of {}", number("number_led_to_another"), report.rounds()));
    if number("unknown") == number("asked") {
        report.figure(none_of("taken for the program that has the number now", number("asked") as usize));
    }
}

/// A socket whose other end a peer connects, and we hold too.
fn peer(room: &Room, arguments: &[&str]) -> (OwnedFd, Child) {
    let ours = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let mut command = room.command(&binary("probe"));
    command.arg("connect").arg(room.socket()).args(arguments).stdin(ours.try_clone().unwrap()).stdout(Stdio::null());
    let child = command.spawn().unwrap();
    (ours, child)
}

fn asked_on(socket: OwnedFd) -> Value {
    Connection::over(UnixStream::from(socket)).unwrap().request("GET", "/v1/who", &[], "").unwrap().json()
}

fn says(answer: &Value, weak: &str) -> bool {
    answer["weak"].as_array().is_some_and(|all| all.iter().any(|one| one.as_str().is_some_and(|text| text.contains(weak))))
}

fn passed_on(report: &mut Report) {
    let room = quiet_room();
    let _daemon = room.start();
    let sleep = require("sleep", "coreutils").canonicalize().unwrap();
    for round in 0..report.rounds() {
        report.round(|| {
            // Whoever connected has ended; has become another program after it was looked at; or lives, and answers for what
            // others ask on its connection.
            let arguments: &[&str] = match round % 3 {
                0 => &[],
                1 => &["first", sleep.to_str().unwrap(), "60"],
                _ => &[sleep.to_str().unwrap(), "60"],
            };
            let (ours, mut child) = peer(&room, arguments);
            if arguments.is_empty() {
                assert!(child.wait().unwrap().success());
            } else {
                let path = format!("/proc/{}/exe", child.id());
                wait_until("another program", PATIENCE, || std::fs::read_link(&path).ok().filter(|found| *found == sleep));
            }
            let answer = asked_on(ours);
            match round % 3 {
                0 => assert!(answer["executable"].is_null() && says(&answer, "has ended"), "{answer}"),
                1 => assert!(answer["executable"].is_null() && says(&answer, "has become another program"), "{answer}"),
                _ => assert_eq!(answer["executable"].as_str(), sleep.to_str(), "the process that connected: {answer}"),
            }
            let _ = child.kill();
            let _ = child.wait();
        });
    }
    report.figure("not caught, as SECURITY.md says: a process that lives answers for whoever else holds its connection");
}

/// A peer that says what it is taken for, line by line.
struct Asking {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Asking {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    fn answer(&mut self) -> Value {
        serde_json::from_str(&self.said.next().expect("an answer").unwrap()).unwrap()
    }

    fn again(&mut self) -> Value {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.answer()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PYTHON: &str = "\
import os, socket
s = socket.socket(socket.AF_UNIX); s.connect(os.environ['MCP_AUTHD_SOCKET'])
s.sendall(b'GET /v1/who HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n\\r\\n')
text = b''
while True:
    part = s.recv(65536)
    if not part: break
    text += part
print(text.split(b'\\r\\n\\r\\n')[1].decode())
";
const NODE: &str = "\
require('http').get({ socketPath: process.env.MCP_AUTHD_SOCKET, path: '/v1/who', host: 'localhost' }, r => {
  let text = ''; r.on('data', part => text += part); r.on('end', () => console.log(text));
});
";

fn interpreters(report: &mut Report) {
    let room = quiet_room();
    let _daemon = room.start();
    std::fs::write(room.path("who.py"), PYTHON).unwrap();
    std::fs::write(room.path("who.cjs"), NODE).unwrap();
    let (python, node) = (require("python3", "python3"), require("node", "nodejs"));
    // Of the scripts, one is named from the working folder, which is the room's.
    let kinds: [(&Path, &[&str], Option<&str>); 6] = [
        (&python, &["-c", PYTHON], None),
        (&python, &["-u", "-W", "ignore", "who.py", "-c"], Some("who.py")),
        (&python, &["-m", "who"], None),
        (&node, &["-e", NODE], None),
        (&node, &["--no-warnings", "who.cjs"], Some("who.cjs")),
        (&node, &["-r", "fs", "./who.cjs"], Some("who.cjs")),
    ];
    for round in 0..report.rounds() as usize {
        let (interpreter, arguments, script) = kinds[round % kinds.len()];
        report.round(|| {
            let mut command = room.command(interpreter);
            command.args(arguments);
            let answer = Asking::start(command).answer();
            let expected = script.map(|name| room.path(name).canonicalize().unwrap());
            assert_eq!(answer["script"].as_str().map(PathBuf::from), expected, "{answer}");
            // What is found on the PATH may be a script that starts it.
            let name = interpreter.file_name().unwrap().to_str().unwrap().trim_end_matches('3');
            let found = Path::new(answer["executable"].as_str().unwrap()).file_name().unwrap();
            assert!(found.to_str().unwrap().starts_with(name), "{answer}");
            assert!(says(&answer, if script.is_some() { "own command line" } else { "without a script" }), "{answer}");
        });
    }
}

/// A probe at the path of another program: where root gave it a mount namespace, and itself away to the room's user.
const DISGUISED: &str =
    "mount --bind \"$0\" /usr/bin/true && exec setpriv --reuid=54321 --regid=54321 --clear-groups /usr/bin/true who \"$1\"";

fn other_files(report: &mut Report) {
    require_root("mount, and become another user");
    let mut room = quiet_room();
    room.give_to(OWNER);
    let _daemon = room.start();
    let (socket, probe) = (room.socket(), room.path("disguise"));
    for round in 0..report.rounds() {
        report.round(|| {
            // What runs from there keeps its own file.
            let _ = std::fs::remove_file(&probe);
            std::fs::copy(binary("probe"), &probe).unwrap();
            let mut command = room.command(&probe);
            command.arg("who").arg(&socket);
            match round % 4 {
                kind @ (0 | 1) => {
                    let mut asking = Asking::start(command);
                    assert_eq!(asking.answer()["executable"].as_str(), probe.to_str());
                    std::fs::remove_file(&probe).unwrap();
                    if kind == 1 {
                        std::fs::copy(require("cat", "coreutils"), &probe).unwrap();
                    }
                    assert!(asking.again()["executable"].is_null(), "on the connection that was looked at");
                }
                2 => {
                    command.arg("undumpable");
                    let answer = Asking::start(command).answer();
                    assert!(answer["executable"].is_null() && says(&answer, "does not show its executable"), "{answer}");
                }
                _ => {
                    let mut command = Command::new("unshare");
                    command.args(["--mount", "sh", "-c", DISGUISED]).arg(&probe).arg(&socket);
                    let answer = Asking::start(command).answer();
                    assert!(answer["executable"].is_null() && says(&answer, "not the file that is at that path"), "{answer}");
                }
            }
        });
    }
    report.figure("deleted, replaced, undumpable, and disguised by a mount in equal parts");
}

/// A folder where nobody is ever told whether a name is there, and who mounts it until its input ends.
fn silent_folder(room: &Room) -> (Asking, PathBuf) {
    let folder = room.path("silent");
    std::fs::create_dir(&folder).unwrap();
    let mut mounting = room.command(&binary("probe"));
    mounting.arg("silent").arg(&folder);
    let mut server = Asking::start(mounting);
    assert_eq!(server.said.next().unwrap().unwrap(), "silent");
    (server, folder)
}

/// Peers whose script lies where a look never ends: the look is given up, their threads are few, and nobody else waits.
fn held_up(report: &mut Report) {
    require_root("mount");
    let room = quiet_room();
    let daemon = room.start();
    let (mut server, silent) = silent_folder(&room);
    let script = silent.join("script");
    let held: Vec<_> = (0..HELD_UP).map(|_| peer(&room, &["sh", script.to_str().unwrap()])).collect();
    let shell = Path::new("/bin/sh").canonicalize().unwrap();
    let mut slowest = Duration::ZERO;
    let began = Instant::now();
    let waiting: Vec<_> = held
        .into_iter()
        .map(|(ours, child)| {
            let exe = format!("/proc/{}/exe", child.id());
            wait_until("a shell", PATIENCE, || std::fs::read_link(&exe).ok().filter(|found| *found == shell));
            (std::thread::spawn(move || asked_on(ours)), child)
        })
        .collect();
    for _ in 0..report.rounds() {
        report.round(|| {
            let began = Instant::now();
            assert_eq!(daemon.call("GET", "/v1/status", &serde_json::json!({})).status, 200);
            slowest = slowest.max(began.elapsed());
            assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        });
    }
    for (answer, mut child) in waiting {
        let answer = answer.join().unwrap();
        assert!(answer["executable"].is_null() && says(&answer, "in time"), "{answer}");
        let _ = child.kill();
    }
    assert!(began.elapsed() < PATIENCE, "nobody gave up for {:?}", began.elapsed());
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.running.pid())).unwrap().count();
    assert!(threads < 24, "{threads} threads");
    report.figure(format!(
        "{HELD_UP} looks that never end: {threads} threads of the daemon, others answered within {} ms",
        slowest.as_millis()
    ));
    drop(server.child.stdin.take());
    let _ = server.child.wait();
}

/// Four times as many as there may be looks at a time.
const HELD_UP: usize = 32;

fn quiet_room() -> Room {
    let mut room = Room::with_config("");
    room.set("MCP_AUTHD_LOG", "info");
    room
}

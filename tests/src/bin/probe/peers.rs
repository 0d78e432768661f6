//! What a peer can do to be taken for another program: pass its connection on, end, become another program, or leave its
//! process number to one.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mcp_auth_tests::Connection;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

/// Asks what the daemon takes this program for, at once and again for every line of its input.
pub(crate) fn who(socket: &Path, undumpable: bool) {
    if undumpable {
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).unwrap();
    }
    let mut connection = Connection::unix(socket).unwrap();
    for _ in std::iter::once(Ok(String::new())).chain(std::io::stdin().lines()) {
        println!("{}", asked(&mut connection));
    }
}

/// Connects the socket that is its standard input, asks there if `first`, and becomes that program, if any, which must not
/// read its input: `sleep`.
pub(crate) fn connect(socket: &Path, first: bool, then: Option<&str>) {
    rustix::net::connect(std::io::stdin(), &SocketAddrUnix::new(socket).unwrap()).unwrap();
    if first {
        let own = asked(&mut on(rustix::io::dup(std::io::stdin()).unwrap()));
        assert_eq!(own["executable"].as_str().map(PathBuf::from), std::env::current_exe().ok(), "{own}");
    }
    if let Some(then) = then {
        panic!("{then}: {}", Command::new(then).arg("60").exec());
    }
}

/// Lets a peer connect and end, gives its number to `cat`, and then asks on the connection: `times` times.
pub(crate) fn reuse(socket: &Path, times: u32) {
    let cat = Path::new("/usr/bin/cat").canonicalize().unwrap();
    let daemon = UnixStream::connect(socket).and_then(|stream| Ok(rustix::net::sockopt::socket_peercred(&stream)?)).unwrap().pid;
    let (mut fooled, mut unknown, mut wrong) = (0, 0, Vec::new());
    for round in 0..times {
        // Looked at before its end; accepted before its end or not; accepted after its number was another's.
        let (first, stopped) = (round % 3 == 0, round % 3 == 1);
        let ours = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        if stopped {
            kill_process(daemon, Signal::STOP).unwrap();
        }
        let number = ended_peer(&ours, socket, first);
        let successor = with_number(number, &cat);
        if std::fs::read_link(format!("/proc/{number}/exe")).is_ok_and(|found| found == cat) {
            fooled += 1;
        }
        if stopped {
            kill_process(daemon, Signal::CONT).unwrap();
        }
        match asked(&mut on(ours)) {
            answer if answer["executable"].is_null() => unknown += 1,
            answer => wrong.push(answer),
        }
        end(successor);
    }
    println!("{}", json!({ "asked": times, "number_led_to_another": fooled, "unknown": unknown, "wrong": wrong }));
}

/// The number of a peer that has connected and ended.
fn ended_peer(ours: &OwnedFd, socket: &Path, first: bool) -> u32 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("connect").arg(socket).args(first.then_some("first")).stdin(ours.try_clone().unwrap());
    let mut peer = command.spawn().unwrap();
    let number = peer.id();
    assert!(peer.wait().unwrap().success());
    number
}

/// A `program` whose process has this number.
fn with_number(number: u32, program: &Path) -> Child {
    for _ in 0..1000 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).unwrap();
        let child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        if child.id() == number {
            return child;
        }
        // A thread of the daemon was quicker.
        end(child);
    }
    panic!("number {number} is never free");
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn on(socket: OwnedFd) -> Connection {
    Connection::over(UnixStream::from(socket)).unwrap()
}

fn asked(connection: &mut Connection) -> Value {
    let answer = connection.request("GET", "/v1/who", &[], "").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

//! What a peer can do to be taken for another program: pass its connection on, end, become another program, or leave its
//! process number to one.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
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
pub(crate) fn connect(socket: &Path, first: bool, then: Option<&[&str]>) {
    rustix::net::connect(std::io::stdin(), &SocketAddrUnix::new(socket).unwrap()).unwrap();
    if first {
        let own = asked(&mut on(rustix::io::dup(std::io::stdin()).unwrap()));
        assert_eq!(own["executable"].as_str().map(PathBuf::from), std::env::current_exe().ok(), "{own}");
    }
    if let Some([program, arguments @ ..]) = then {
        panic!("{program}: {}", Command::new(program).args(arguments).exec());
    }
}

/// Mounts a file system at `folder` in which no name is ever found, nor not found: whoever looks for one waits. Until its
/// input ends. Root is needed.
pub(crate) fn silent(folder: &Path) {
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
    rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::empty()).unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let mounted = Command::new("mount").args(["-i", "-t", "fuse", "-o", &options, "silent"]).arg(folder).status().unwrap();
    assert!(mounted.success(), "cannot mount");
    println!("silent");
    // It ends with the program.
    std::thread::spawn(move || answer_nothing(device));
    // Whatever comes, only the end counts.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    // Who waits is let go.
    let _ = Command::new("umount").args(["-l"]).arg(folder).status();
}

/// Greets the kernel (linux/fuse.h), and lets everything else wait.
fn answer_nothing(mut device: std::fs::File) {
    const INIT: u32 = 26;
    let mut request = [0; 1 << 17];
    while device.read(&mut request).is_ok() {
        if u32::from_ne_bytes(request[4..8].try_into().unwrap()) == INIT {
            // The head: length, no error, the request's number; then version 7.31, and the largest write.
            let mut answer = [0; 80];
            answer[..4].copy_from_slice(&80_u32.to_ne_bytes());
            answer[8..16].copy_from_slice(&request[8..16]);
            for (at, value) in [(16, 7_u32), (20, 31), (24, 4096), (36, 4096)] {
                answer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            }
            device.write_all(&answer).unwrap();
        }
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

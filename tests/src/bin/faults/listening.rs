//! T38, T39: the loopback listener of a login as the system sees it: where it is bound, how long, and what ten thousand
//! connections cost.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{AS_STRANGER, Daemon, Room, memory_kib, open_files, processor_time, require, require_root, wait_until};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::callback::Waiting;
use crate::knock::{is_closed, listening};
use crate::life::{HOUR, PATIENCE, quiet};
use crate::report::{Case, Report, quantile};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T38", title: "10,000 slow connections to the listener: the login ends, caps hold", rounds: 12, quick: 1, run: crowd },
    Case { id: "T39", title: "listens on loopback alone, during a login alone, at any port", rounds: 60, quick: 6, run: where_and_when },
];

const CROWD: usize = 10_000;
/// Fewer than wait in the listener's queue.
const QUEUE: usize = 100;
/// `daemon/src/login/redirect.rs` keeps so many connections at a time; what accepting takes comes on top.
const MOST_OPEN: usize = 32 + 16;
const MOST_GROWTH_KIB: u64 = 8 * 1024;

/// What a slow client sends before it falls silent.
const BEGINNINGS: [&str; 4] =
    ["", "G", "GET /callback?state=x HTTP/1.1\r\nhost: 127.0.0.1\r\n", "POST /callback HTTP/1.1\r\ncontent-length: 9999\r\n\r\nx"];

fn crowd(report: &mut Report) {
    let limit = getrlimit(Resource::Nofile);
    let enough = Some(CROWD as u64 + 2_000);
    setrlimit(Resource::Nofile, Rlimit { current: enough, maximum: limit.maximum.max(enough) }).expect("root may open more files");
    let (mut times, mut growth, mut open, mut share) = (Vec::new(), 0, 0, 0.0_f64);
    for round in 0..report.rounds() as usize {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(HOUR));
            let room = quiet(Room::at_rogue(&rogue));
            let daemon = room.start();
            let pid = daemon.running.pid();
            let waiting = Waiting::start(&daemon, None, "alice");
            let (files, memory) = (open_files(pid), memory_kib(pid));
            let address = waiting.door.address;
            let held = many(address, round);
            assert!(held.len() > CROWD * 9 / 10, "only {} connections were made", held.len());
            let (busy, began) = (processor_time(pid), Instant::now());
            std::thread::sleep(Duration::from_millis(500));
            share = share.max((processor_time(pid) - busy).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0);
            open = open.max(open_files(pid).saturating_sub(files));
            growth = growth.max(memory_kib(pid).saturating_sub(memory));
            assert!(open <= MOST_OPEN, "{open} more files are open");
            assert!(growth <= MOST_GROWTH_KIB, "the memory grew by {growth} KiB");
            let asked = Instant::now();
            waiting.finish();
            times.push(asked.elapsed().as_secs_f64() * 1000.0);
            wait_until("no listener", PATIENCE, || listening(pid).is_empty().then_some(()));
            assert!(rogue.is_active(&daemon.token("test")));
            drop(held);
        });
    }
    report.figure(format!(
        "{CROWD} connections that send nothing, a byte, half a head or half a body: {open} more files open, memory +{growth} KiB, {share:.1} % of a processor after them"
    ));
    report.figure(format!(
        "the right redirect among them to the end of its login: p50 {:.0} ms, at most {:.0} ms",
        quantile(&mut times, 50),
        quantile(&mut times, 100)
    ));
}

/// No faster than they are accepted: where the listener's queue is full, a connection is tried again a second later.
fn many(address: SocketAddr, round: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for number in 0..CROWD {
        held.extend(slow(address, BEGINNINGS[(round + number) % BEGINNINGS.len()]));
        if number % QUEUE == 0 {
            wait_until("an empty queue", PATIENCE, || (queued(address.port()) == 0).then_some(()));
        }
    }
    held
}

/// How many connections to this port wait to be accepted.
fn queued(port: u16) -> u32 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let at = format!("0100007F:{port:04X}");
    let waiting = table.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words.get(1) == Some(&at.as_str()) && words[3] == "0A")
            .then(|| u32::from_str_radix(words[4].split_once(':').unwrap().1, 16).unwrap())
    });
    waiting.sum()
}

fn slow(address: SocketAddr, beginning: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    // It may have been let go already, to make room for the next.
    let _ = stream.write_all(beginning.as_bytes());
    Some(stream)
}

/// How a login ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Done,
    Cancelled,
    Stopped,
}

fn where_and_when(report: &mut Report) {
    require_root("see the sockets of a process, and become another user");
    let mut ports = BTreeSet::new();
    for round in 0..report.rounds() as usize {
        let end = [End::Done, End::Cancelled, End::Stopped][round % 3];
        let host = if round / 3 % 2 == 0 { "127.0.0.1" } else { "localhost" };
        report.round(|| ports.extend(one_login(end, host)));
    }
    let rounds = report.rounds() as usize;
    report.round(|| assert!(ports.len() * 10 >= rounds * 9, "{} ports in {rounds} logins can be guessed", ports.len()));
    report.figure(format!("{} different ports in {rounds} logins; before and after each: no socket that listens", ports.len()));
    report.figure("another user who connects is told 404 and nothing else");
}

/// The port of a login that ends so, with everything looked at meanwhile.
fn one_login(end: End, host: &str) -> Option<u16> {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let room = quiet(Room::with_config(&rogue.provider_table("test", &format!("redirect_host = \"{host}\""))));
    let mut daemon = room.start();
    let pid = daemon.running.pid();
    assert_eq!(listening(pid), BTreeSet::new(), "before the login");
    let waiting = Waiting::start(&daemon, None, "alice");
    let (address, port) = (waiting.door.address, waiting.door.address.port());
    let found = listening(pid);
    let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    // A machine without IPv6 does without.
    let expected = both.into_iter().take(found.len()).map(|ip| SocketAddr::new(ip, port)).collect();
    assert_eq!(found, expected, "{host}");
    assert!(found.len() == 1 || host == "localhost", "{host}: {found:?}");
    strangers_view(&waiting);
    match end {
        End::Done => waiting.finish(),
        End::Cancelled => waiting.cancel(&daemon),
        End::Stopped => stop(&mut daemon),
    }
    if !matches!(end, End::Stopped) {
        wait_until("no listener", PATIENCE, || listening(pid).is_empty().then_some(()));
    }
    assert!(is_closed(address), "{end:?}");
    Some(port)
}

fn stop(daemon: &mut Daemon<'_>) {
    daemon.running.signal(Signal::TERM);
    assert_eq!(daemon.running.wait().code, 0);
}

/// What another user of the machine is told there.
fn strangers_view(waiting: &Waiting) {
    let mut command = Command::new(require(AS_STRANGER[0], "util-linux"));
    let mut url = waiting.redirect.clone();
    url.query_pairs_mut().clear().append_pair("code", "zQaC9qz-x-zQaC9qz").append_pair("state", "guessed");
    command.args(&AS_STRANGER[1..]).args(["curl", "-s", "-i", "--max-time", "10", url.as_str()]);
    let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let body = told.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert!(told.starts_with("HTTP/1.1 404") && body == "not found\n", "{told}");
}

//! The figures that the project promises, each beside the floor it is compared with, measured in one run.
//!
//! `tests/bench [--quick] [PART ...]` builds the release binaries and runs this. It prints aim and figure side by side and never
//! fails on timing: machines differ, ratios much less. The parts are `daemon` (here) and `remote` (the way to remote MCP servers).

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod clients;
mod peers;
mod remote;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mcp_auth_tests::{Connection, Daemon, Room, Running, Server, binary, require, wait_until};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;

const GRANTS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);

/// How much is measured.
struct Size {
    round_trips: usize,
    spawns: usize,
    starts: usize,
    /// Calls of a tool, each way.
    calls: usize,
    downloads: usize,
    idle: Duration,
}

const FULL: Size = Size { round_trips: 20_000, spawns: 600, starts: 15, calls: 5_000, downloads: 9, idle: Duration::from_secs(30) };
const QUICK: Size = Size { round_trips: 3_000, spawns: 150, starts: 5, calls: 1_000, downloads: 3, idle: Duration::from_secs(10) };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--echo", socket] => return echo(Path::new(socket)),
        ["--mcp", issuer] => return server::serve(issuer),
        _ => {}
    }
    let (options, parts): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with("--"));
    let size = if options.contains(&"--quick") { QUICK } else { FULL };
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    println!("{:<78} {:>11} {:>11} {:>7}  aim", "what", "ours", "beside", "ratio");
    if wanted("daemon") {
        of_the_daemon(&size);
    }
    if wanted("remote") {
        let place = remote::Place::new();
        remote::measure(&place, &size);
        peers::measure(&place, &size);
    }
}

fn of_the_daemon(size: &Size) {
    let server = Server::with_lifetime(3600);
    let mut room = Room::at(&server);
    room.set("MCP_AUTHD_LOG", "warn");
    memory_at_start(&room);
    let daemon = room.start();
    for number in 0..GRANTS {
        daemon.log_in(&format!("test:g{number}"), "alice");
    }
    assert_eq!(daemon.stop().code, 0);
    start_to_first_answer(&room, size);
    let daemon = room.start();
    round_trips(&room, &daemon, size);
    command_line(&room, &server, size);
    refresh_all(&daemon, &server);
    row_memory("idle PSS after 100 refreshes (kB)", &daemon, "12000");
    wake_ups(&daemon, size);
}

fn row(what: &str, ours: &str, beside: &str, ratio: &str, aim: &str) {
    println!("{what:<78} {ours:>11} {beside:>11} {ratio:>7}  {aim}");
}

fn row_ratio(what: &str, ours: Duration, beside: Duration, aim: &str) {
    let micros = |time: Duration| format!("{:.1} us", time.as_secs_f64() * 1e6);
    row(what, &micros(ours), &micros(beside), &format!("{:.2}", ours.as_secs_f64() / beside.as_secs_f64()), aim);
}

/// The median, and in a row below what one in a hundred exceeds.
fn row_times(what: &str, mut ours: Vec<Duration>, mut beside: Vec<Duration>, aim: &str) {
    ours.sort_unstable();
    beside.sort_unstable();
    let slow = |times: &[Duration]| times[times.len() * 99 / 100];
    row_ratio(what, ours[ours.len() / 2], beside[beside.len() / 2], aim);
    row_ratio("  one in a hundred takes longer than", slow(&ours), slow(&beside), "");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

// ---- round trips

/// Where client and server run: together on one CPU the ratio is that of work alone, on two the wake-up counts as well.
const PLACES: [(&str, usize, usize); 2] = [("one CPU", 0, 0), ("two CPUs", 0, 1)];

fn round_trips(room: &Room, daemon: &Daemon<'_>, size: &Size) {
    let echo_socket = room.path("echo.sock");
    let mut command = room.command(&std::env::current_exe().unwrap());
    command.arg("--echo").arg(&echo_socket).stdin(Stdio::null());
    let mut echo = command.spawn().unwrap();
    wait_until("the echo", PATIENCE, || UnixStream::connect(&echo_socket).ok());
    let request = token_request();
    for (place, client_cpu, server_cpu) in PLACES {
        pin(std::process::id(), client_cpu);
        pin(echo.id(), server_cpu);
        pin(daemon.running.pid(), server_cpu);
        let (ours, floor) = kept(&room.socket(), &echo_socket, &request, size.round_trips);
        row_ratio(&format!("POST /v1/token, kept connection, beside a 1-byte echo, {place}"), ours, floor, "<= 1.6");
        let rule = closed(daemon);
        let (ours, floor) = kept(&room.socket(), &echo_socket, &request, size.round_trips);
        row_ratio(&format!("the same with a rule about this program, {place}"), ours, floor, "<= 2.0");
        assert_eq!(daemon.call("DELETE", &format!("/v1/policy/{rule}"), &json!({})).status, 200);
        let (ours, floor) = fresh(&room.socket(), &echo_socket, &request, size.round_trips / 2);
        row_ratio(&format!("POST /v1/token, fresh connection, beside the echo, {place}"), ours, floor, "<= 1.5");
    }
    unpin(std::process::id());
    unpin(daemon.running.pid());
    let _ = echo.kill();
    let _ = echo.wait();
}

/// Closes the grant for every program but this one; gives the rule's number.
fn closed(daemon: &Daemon<'_>) -> u64 {
    let executable = std::env::current_exe().unwrap().canonicalize().unwrap();
    let rule = json!({ "grant": "test:g0", "subject": { "program": { "executable": executable } } });
    let answer = daemon.call("POST", "/v1/policy", &rule);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["id"].as_u64().unwrap()
}

fn token_request() -> Vec<u8> {
    let body = json!({ "grant": "test:g0" }).to_string();
    format!("POST /v1/token HTTP/1.1\r\nhost: mcp-authd\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn kept(ours: &Path, echo: &Path, request: &[u8], rounds: usize) -> (Duration, Duration) {
    let mut daemon = UnixStream::connect(ours).unwrap();
    let mut floor = UnixStream::connect(echo).unwrap();
    medians(in_turn(rounds, [&mut || ask(&mut daemon, request), &mut || echo_once(&mut floor)]))
}

fn fresh(ours: &Path, echo: &Path, request: &[u8], rounds: usize) -> (Duration, Duration) {
    let ours = &mut || ask(&mut UnixStream::connect(ours).unwrap(), request);
    medians(in_turn(rounds, [ours, &mut || echo_once(&mut UnixStream::connect(echo).unwrap())]))
}

fn medians([ours, floor]: [Vec<Duration>; 2]) -> (Duration, Duration) {
    (median(ours), median(floor))
}

/// Batches in turn, so that whatever the machine does meanwhile hits all of them.
fn in_turn<const N: usize>(rounds: usize, mut works: [&mut dyn FnMut(); N]) -> [Vec<Duration>; N] {
    let mut times = [const { Vec::new() }; N];
    let batch = rounds.min(100);
    for _ in 0..rounds.div_ceil(batch) {
        for (work, times) in works.iter_mut().zip(&mut times) {
            times.extend((0..batch).map(|_| time(&mut *work)));
        }
    }
    times
}

fn time(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn ask(stream: &mut (impl Read + Write), request: &[u8]) {
    stream.write_all(request).unwrap();
    let (mut buffer, mut length) = ([0; 8192], 0);
    loop {
        let read = stream.read(&mut buffer[length..]).unwrap();
        assert!(read > 0, "the connection was closed");
        length += read;
        if whole_answer(&buffer[..length]) {
            assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..length]));
            return;
        }
    }
}

fn whole_answer(bytes: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut answer = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = answer.parse(bytes) else { return false };
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()).unwrap_or(0);
    bytes.len() >= head + length
}

fn echo_once(stream: &mut UnixStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// The floor: one tokio thread, one byte there and back, as the daemon would do it without HTTP.
fn echo(path: &Path) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
            });
        }
    });
}

fn pin(pid: u32, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    set_affinity(pid, &set);
}

fn unpin(pid: u32) {
    let mut set = CpuSet::new();
    (0..std::thread::available_parallelism().map_or(1, usize::from).max(2)).for_each(|cpu| set.set(cpu));
    set_affinity(pid, &set);
}

/// All threads of a process. On a machine with one CPU the second place is the first.
fn set_affinity(pid: u32, set: &CpuSet) {
    for thread in threads(pid) {
        let _ = sched_setaffinity(rustix::process::Pid::from_raw(thread), set);
    }
}

fn threads(pid: u32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

// ---- the command line

fn command_line(room: &Room, server: &Server, size: &Size) {
    let host = server.issuer().strip_prefix("http://").unwrap();
    fs::write(room.path("question"), format!("protocol=http\nhost={host}\n\n")).unwrap();
    let spawn = |program: &Path, arguments: &[&str]| {
        let mut command = room.command(program);
        command.args(arguments).stdin(fs::File::open(room.path("question")).unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().unwrap();
        assert!(status.success(), "{} {arguments:?}: {status}", program.display());
    };
    let (ctl, floor) = (binary("mcp-authctl"), require("true", "coreutils"));
    for arguments in [&["token", "test:g0"][..], &["headers", "test:g0"], &["git-credential", "test:g0", "get"]] {
        let (mut ours, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..size.spawns {
            ours.push(time(|| spawn(&ctl, arguments)));
            beside.push(time(|| spawn(&floor, &[])));
        }
        let verb = if arguments.len() > 2 { "git-credential get" } else { arguments[0] };
        row_ratio(&format!("mcp-authctl {verb}, whole process, beside `true`"), median(ours), median(beside), "<= 1.8");
    }
}

// ---- start, memory, wake-ups

fn start_to_first_answer(room: &Room, size: &Size) {
    let once = |_| {
        let start = Instant::now();
        let mut running = room.spawn();
        let answered = first_answer(room, &mut running, start);
        running.signal(rustix::process::Signal::TERM);
        running.wait();
        answered
    };
    let taken = median((0..size.starts).map(once).collect());
    row("start to first answer, 100 grants, key file", &format!("{:.1} ms", taken.as_secs_f64() * 1e3), "", "", "<= 15 ms");
}

fn first_answer(room: &Room, running: &mut Running, start: Instant) -> Duration {
    loop {
        let asked = Connection::unix(&room.socket())
            .and_then(|mut connection| connection.json("POST", "/v1/token", &json!({ "grant": "test:g0" })));
        match asked {
            Ok(answer) if answer.status == 200 => return start.elapsed(),
            _ => assert!(running.is_alive() && start.elapsed() < PATIENCE, "no answer: {asked:?}"),
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn memory_at_start(room: &Room) {
    let daemon = room.start();
    row_memory("idle PSS before the first TLS call (kB)", &daemon, "6000");
    assert_eq!(daemon.stop().code, 0);
}

fn row_memory(what: &str, daemon: &Daemon<'_>, aim: &str) {
    let figure = pss_kib(daemon.running.pid()).map(|kib| kib.to_string());
    row(what, &figure.unwrap_or_else(|| "needs root".to_owned()), "", "", &format!("<= {aim}"));
}

/// `None`: it may not be read.
fn pss_kib(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
}

/// The provider is on loopback without TLS: this is the figure for refreshes, not for TLS.
fn refresh_all(daemon: &Daemon<'_>, server: &Server) {
    let before = server.counters().refreshes().ok;
    for number in 0..GRANTS {
        let answer = daemon.call("POST", &format!("/v1/grants/test:g{number}/refresh"), &json!({}));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert!(server.counters().refreshes().ok >= before + GRANTS as u64);
}

fn wake_ups(daemon: &Daemon<'_>, size: &Size) {
    let pids = [daemon.running.pid()];
    // What the last requests left behind settles first; the last of it is a thread that tokio keeps for ten seconds.
    let (mut last, mut since) = (all_switches(&pids), Instant::now());
    wait_until("a quiet daemon", Duration::from_secs(90), || {
        std::thread::sleep(Duration::from_secs(1));
        let now = all_switches(&pids);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(12)).then_some(())
    });
    std::thread::sleep(size.idle);
    let woken = woken(&last, &all_switches(&pids));
    row(&format!("wake-ups in {} idle seconds", size.idle.as_secs()), &woken.to_string(), "", "", "0");
}

/// How often threads waited in between; one that has ended meanwhile woke at least for that.
fn woken(before: &BTreeMap<i32, u64>, after: &BTreeMap<i32, u64>) -> u64 {
    let waited = after.iter().map(|(thread, count)| count.saturating_sub(*before.get(thread).unwrap_or(&0)));
    let ended = before.keys().filter(|thread| !after.contains_key(thread)).count();
    waited.sum::<u64>() + ended as u64
}

/// The time on a processor of all its threads that are there, which other processes do not lengthen much.
fn worked(pid: u32) -> Duration {
    let of_thread = |thread| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).unwrap_or_default();
        stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads(pid).into_iter().map(of_thread).sum())
}

/// Of each thread of these processes.
fn all_switches(pids: &[u32]) -> BTreeMap<i32, u64> {
    pids.iter().flat_map(|pid| threads(*pid).into_iter().map(|thread| (thread, switches(*pid, thread)))).collect()
}

fn switches(pid: u32, thread: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

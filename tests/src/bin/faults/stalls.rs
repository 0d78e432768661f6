//! Clients on the socket that stall, flood and crowd: T53, T54.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Connection, Daemon, Room, memory_kib, open_files, processor_time, wait_until};
use serde_json::json;

use crate::odd::{framed, request};
use crate::report::{Case, Report};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T53", title: "clients that stall or flood: others wait under 10 ms, RAM is flat", rounds: 10, quick: 1, run: stalls },
    Case { id: "T54", title: "10,000 connections: the rest refused, no spin, then as before", rounds: 5, quick: 1, run: crowd },
    Case { id: "T54", title: "64 file descriptors: no spin, then as before, no login lost", rounds: 5, quick: 1, run: few_descriptors },
];

const PATIENCE: Duration = Duration::from_secs(30);

/// A busy room: its log is kept short.
pub(crate) fn room_at(rogue: &Rogue) -> Room {
    let mut room = Room::at_rogue(rogue);
    room.set("MCP_AUTHD_LOG", "info");
    room
}

/// A client that stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    Silence,
    OneByte,
    HalfAHead,
    HalfABody,
    FourGigabytes,
    TwoHundredMegabytes,
    ReadsNothing,
}

impl Stall {
    const ALL: [Self; 7] = [
        Self::Silence,
        Self::OneByte,
        Self::HalfAHead,
        Self::HalfABody,
        Self::FourGigabytes,
        Self::TwoHundredMegabytes,
        Self::ReadsNothing,
    ];

    /// Plays it to the daemon's closing, and says how long that took.
    fn play(self, room: &Room) -> Duration {
        let mut stream = UnixStream::connect(room.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let began = Instant::now();
        let start: &str = match self {
            Self::Silence => "",
            Self::OneByte => "P",
            Self::HalfAHead => "POST /v1/token HTTP/1.1\r\nhost: mcp-a",
            Self::HalfABody => &framed("content-length: 99\r\n", "{"),
            Self::FourGigabytes => &framed("content-length: 4294967296\r\n", "{"),
            Self::TwoHundredMegabytes => &framed("transfer-encoding: chunked\r\n", "c800000\r\n"),
            Self::ReadsNothing => return self.ask_for_ever(stream, began),
        };
        // What is refused early may close early.
        let _ = stream.write_all(start.as_bytes());
        if self == Self::TwoHundredMegabytes {
            let megabyte = vec![b' '; 1 << 20];
            let _ = (0..200).try_for_each(|_| stream.write_all(&megabyte));
        }
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "{self:?} is not closed in {} s", PATIENCE.as_secs());
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{self:?} is answered");
        began.elapsed()
    }

    fn ask_for_ever(self, mut stream: UnixStream, began: Instant) -> Duration {
        let asked = request("GET /v1/providers HTTP/1.1", "", "");
        loop {
            match stream.write_all(asked.as_bytes()) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("{self:?} is not closed in time"),
                Err(_) => return began.elapsed(),
            }
        }
    }
}

/// How many clients of each kind stall at once: 7 kinds, and 256 connections of one process.
const OF_EACH: usize = 30;

fn stalls(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(3600)));
    let room = room_at(&rogue);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let (mut times, mut closed, mut growth) = (Vec::new(), vec![Duration::ZERO; Stall::ALL.len()], 0);
    // The first crowd makes the buffers that are kept.
    one_crowd(&room, &daemon, &mut Vec::new(), &mut closed.clone());
    let before = memory_kib(daemon.running.pid());
    for _ in 0..report.rounds() {
        report.round(|| {
            one_crowd(&room, &daemon, &mut times, &mut closed);
            let after = memory_kib(daemon.running.pid());
            growth = growth.max(after.saturating_sub(before));
            assert!(growth < 5 * 1024, "the daemon grew from {before} KiB to {after} KiB");
        });
    }
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1000.0;
    report.figure(format!("{} stalled clients at a time; an honest one's token: p50 {:.2} ms, p99 {:.2} ms", OF_EACH * 7, at(50), at(99)));
    let closed: Vec<_> = Stall::ALL.iter().zip(closed).map(|(kind, time)| format!("{kind:?} {:.1} s", time.as_secs_f64())).collect();
    report.figure(format!("the last of each kind was closed after: {}", closed.join(", ")));
    report.figure(format!("the daemon's memory grew by {:.1} MiB at most", growth as f64 / 1024.0));
}

/// Everybody stalls at once, and an honest client asks meanwhile.
fn one_crowd(room: &Room, daemon: &Daemon<'_>, times: &mut Vec<Duration>, closed: &mut [Duration]) {
    let from = times.len();
    std::thread::scope(|scope| {
        let playing: Vec<_> =
            (0..Stall::ALL.len() * OF_EACH).map(|number| scope.spawn(move || Stall::ALL[number % 7].play(room))).collect();
        while times.len() < from + 200 || playing.iter().any(|thread| !thread.is_finished()) {
            let began = Instant::now();
            daemon.token("test");
            times.push(began.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
        for (number, thread) in playing.into_iter().enumerate() {
            let kind = number % Stall::ALL.len();
            closed[kind] = closed[kind].max(thread.join().unwrap());
        }
    });
    let mut own = times[from..].to_vec();
    own.sort();
    assert!(own[own.len() / 2] < Duration::from_millis(10), "an honest client waits {:?} (median)", own[own.len() / 2]);
    // The head's, the body's and the stalled reader's limit is 5 s each; the flood is over its limit at once.
    let late = closed.iter().zip(Stall::ALL).find(|(time, _)| **time > Duration::from_secs(15));
    assert!(late.is_none(), "{late:?} is closed too late");
}

/// Processes that open many connections and keep them.
struct Holders(Vec<Child>);

impl Holders {
    fn start(room: &Room, processes: u32, connections: u32) -> Self {
        let start = |_| {
            let words = ["hold", room.socket().to_str().unwrap(), &connections.to_string()].map(str::to_owned);
            let mut command = room.probe(&["env"], &words.each_ref().map(String::as_str));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        };
        Self((0..processes).map(start).collect())
    }

    /// Waits until every connection was made, and with it taken or refused.
    fn held(&mut self) {
        for child in &mut self.0 {
            let mut said = [0; 5];
            child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        }
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The share of a processor that the daemon uses for a while, with nobody asking.
fn idle_share(daemon: &Daemon<'_>, span: Duration) -> f64 {
    let pid = daemon.running.pid();
    let (began, before) = (Instant::now(), processor_time(pid));
    std::thread::sleep(span);
    (processor_time(pid) - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

fn crowd(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(3600)));
    let room = room_at(&rogue);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let files = open_files(daemon.running.pid());
    let (mut share, mut made, mut back, mut served) = (0_f64, Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..report.rounds() {
        report.round(|| {
            let began = Instant::now();
            // 8 processes: 2,048 seats for them, of which there are 1,024.
            let mut holders = Holders::start(&room, 8, 1_250);
            holders.held();
            made = made.max(began.elapsed());
            let answer = Connection::unix(&room.socket()).and_then(|mut one| one.json("POST", "/v1/token", &json!({ "grant": "test" })));
            match answer.map(|answer| answer.status) {
                Ok(200) => served += 1,
                Ok(429) | Err(_) => {}
                other => panic!("while it is full: {other:?}"),
            }
            share = share.max(idle_share(&daemon, Duration::from_secs(3)));
            assert!(share < 0.05, "the daemon spins: {:.1} % of a processor", share * 100.0);
            back = back.max(time_until_served(&room));
            drop(holders);
            wait_until("the files to be closed", PATIENCE, || (open_files(daemon.running.pid()) <= files + 1).then_some(()));
            daemon.token("test");
        });
    }
    report.figure(format!(
        "10,000 connections made within {:.1} s; then {:.2} % of a processor at most",
        made.as_secs_f64(),
        share * 100.0
    ));
    report.figure(format!("served again, with the 10,000 still there, {:.1} s later at most", back.as_secs_f64()));
    report.figure(format!("a newcomer at the fullest moment: served {served} times, else refused with 429 or closed"));
}

/// Until an honest newcomer gets a token.
fn time_until_served(room: &Room) -> Duration {
    let began = Instant::now();
    wait_until("a token for a newcomer", PATIENCE, || {
        let asked = Connection::unix(&room.socket()).and_then(|mut one| one.json("POST", "/v1/token", &json!({ "grant": "test" })));
        asked.ok().filter(|answer| answer.status == 200)
    });
    began.elapsed()
}

fn few_descriptors(report: &mut Report) {
    let (mut share, mut back) = (0_f64, Duration::ZERO);
    for _ in 0..report.rounds() {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(Duration::from_secs(8)));
            let mut room = room_at(&rogue);
            room.launch_with(&["prlimit", "--nofile=64:64"]);
            let daemon = room.start();
            daemon.log_in("test", "alice");
            let refreshes = rogue.look(|seen| seen.refreshes.len());
            let mut holders = Holders::start(&room, 1, 120);
            wait_until("the last descriptor", PATIENCE, || (open_files(daemon.running.pid()) >= 63).then_some(()));
            share = share.max(idle_share(&daemon, Duration::from_secs(3)));
            assert!(share < 0.05, "the daemon spins: {:.1} % of a processor", share * 100.0);
            holders.held();
            back = back.max(time_until_served(&room));
            drop(holders);
            rogue.wait_for("a refresh after that", |seen| (seen.refreshes.len() > refreshes).then_some(()));
            wait_until("a grant that is well and on disk", PATIENCE, || {
                let grant = daemon.show("/v1/grants/test");
                (grant["state"] == "ok" && grant["not_durable"] == false).then_some(())
            });
            assert!(rogue.is_active(&daemon.token("test")));
        });
    }
    report.figure(format!("every one of 64 descriptors in use: {:.2} % of a processor at most", share * 100.0));
    report.figure(format!("a newcomer is served within {:.1} s", back.as_secs_f64()));
}

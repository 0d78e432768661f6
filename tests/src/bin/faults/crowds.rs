//! T2, T3, T25, T34: many clients at once, while the daemon is killed, the token expires, the provider hangs, or all of
//! them report the token as rejected.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Delivery, Plan, Rogue, Rules, Verdict};
use mcp_auth_tests::{Connection, Daemon, Room, binary, wait_until};
use serde_json::{Value, json};

use crate::report::{Case, Report, quantile};

pub(crate) const CASES: &[Case] = &[
    Case { id: "T2", title: "kill -9 at random times, 200 clients, tokens of 2 s", rounds: 200, quick: 6, run: random_kills },
    Case { id: "T3", title: "1,000 clients of 4 processes at expiry: one request", rounds: 20, quick: 2, run: stampede },
    Case { id: "T25", title: "the provider hangs: valid tokens and other providers go on", rounds: 3, quick: 1, run: hang },
    Case { id: "T34", title: "100 clients report a rejected token: one forced refresh", rounds: 3, quick: 1, run: rejected },
];

const S: Duration = Duration::from_secs(1);
const ASKERS: usize = 200;

/// What the clients of T2 saw.
#[derive(Default)]
struct Served {
    over: AtomicBool,
    tokens: AtomicU32,
    expired: Mutex<Vec<String>>,
}

fn random_kills(report: &mut Report) {
    let rogue = Rogue::start(Rules::grace(S * 2, S * 30));
    let mut room = Room::at_rogue(&rogue);
    room.set("MCP_AUTHD_LOG", "info");
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.kill();
    // A provider a little way off, so that some kills fall between its commit and our record.
    rogue.plan(Plan::late(Duration::from_millis(200)));
    let (served, mut starts) = (Served::default(), Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..ASKERS {
            scope.spawn(|| ask_for_ever(&room, &rogue, &served));
        }
        for round in 0..report.rounds() {
            report.round(|| one_life(&room, &rogue, round, &mut starts));
        }
        served.over.store(true, Ordering::Relaxed);
    });
    let expired = served.expired.into_inner().unwrap();
    let seen = rogue.seen();
    report.round(|| assert!(expired.is_empty(), "{} expired tokens were served, the first: {}", expired.len(), expired[0]));
    report.round(|| assert_eq!((seen.count(Verdict::Reused), seen.count(Verdict::Revoked)), (0, 0), "a used token came after its grace"));
    report.figure(format!(
        "{} tokens served, 0 expired; {} refreshes, {} repeated in the grace window, each the first of its life; start to first answer p50 {:.0} ms, p99 {:.0} ms",
        served.tokens.into_inner(),
        seen.refreshes.len(),
        seen.count(Verdict::Repeated),
        quantile(&mut starts, 50),
        quantile(&mut starts, 99),
    ));
}

/// A life of random length that ends with `kill -9`.
fn one_life(room: &Room, rogue: &Rogue, round: u32, starts: &mut Vec<f64>) {
    let before = rogue.look(|seen| seen.refreshes.len());
    let began = Instant::now();
    let daemon = room.start();
    starts.push(began.elapsed().as_secs_f64() * 1000.0);
    // Spread over the whole life of a token, so that some fall into a refresh.
    std::thread::sleep(Duration::from_millis(300 + u64::from(round.wrapping_mul(2_654_435_761) % 2000)));
    daemon.kill();
    let repeated = |seen: &mcp_auth_tests::rogue::Seen| {
        seen.refreshes[before..].iter().skip(1).filter(|refresh| refresh.verdict == Verdict::Repeated).count()
    };
    assert_eq!(rogue.look(repeated), 0, "a used token was sent again, and not after a crash");
}

/// One client: keeps its connection while the daemon lives, and asks about five times a second.
fn ask_for_ever(room: &Room, rogue: &Rogue, served: &Served) {
    let mut connection = None;
    while !served.over.load(Ordering::Relaxed) {
        connection = connection.or_else(|| Connection::unix(&room.socket()).ok());
        let asked = connection.as_mut().map(|kept: &mut Connection| kept.json("POST", "/v1/token", &json!({ "grant": "test" })));
        match asked {
            Some(Ok(answer)) if answer.status == 200 => {
                let token = answer.json()["access_token"].as_str().unwrap().to_owned();
                served.tokens.fetch_add(1, Ordering::Relaxed);
                let expires_in = answer.json()["expires_in"].as_u64();
                if !rogue.is_active(&token) && expires_in != Some(0) {
                    served.expired.lock().unwrap().push(format!("expires_in {expires_in:?}"));
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => connection = None,
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// 250 clients in a process of their own.
struct Crowd {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

const PROCESSES: usize = 4;
const CLIENTS: usize = 250;

impl Crowd {
    fn gather(room: &Room) -> Self {
        let mut command = room.command(&binary("crowd"));
        command.arg(room.socket()).arg(CLIENTS.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, stdout }
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn told(mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        self.child.wait().unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

fn stampede(report: &mut Report) {
    for _ in 0..report.rounds() {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(S * 2));
            let mut room = Room::with_config(&rogue.provider_table("test", "refresh = \"on-demand\""));
            room.set("MCP_AUTHD_LOG", "info");
            let daemon = room.start();
            daemon.log_in("test", "alice");
            let issued = rogue.look(|seen| seen.issued[0].at);
            rogue.plan(Plan::late(S));
            let mut crowds: Vec<Crowd> = (0..PROCESSES).map(|_| Crowd::gather(&room)).collect();
            wait_until("the token's expiry", S * 5, || (issued.elapsed() >= S * 2).then_some(()));
            rogue.rule(|rules| rules.lifetime = S * 60);
            rogue.rule(|rules| rules.expires_in = json!(60));
            crowds.iter_mut().for_each(Crowd::go);
            let told: Vec<Value> = crowds.into_iter().map(Crowd::told).collect();
            let new = rogue.look(|seen| seen.issued[1].token.clone());
            let good: u64 = told.iter().map(|crowd| crowd["tokens"][&new].as_u64().unwrap_or(0)).sum();
            assert_eq!(good, (PROCESSES * CLIENTS) as u64, "answers with the new token");
            assert_eq!(rogue.look(|seen| seen.refreshes.len()), 1, "requests at the provider");
        });
    }
    report.figure(format!("{} clients each round: 1 request, all got the new token", PROCESSES * CLIENTS));
}

/// Milliseconds that each of many requests on fresh connections takes.
fn answer_times(daemon: &Daemon<'_>, grant: &str) -> Vec<f64> {
    let time = |_| {
        let start = Instant::now();
        assert_eq!(daemon.ask(grant).status, 200);
        start.elapsed().as_secs_f64() * 1000.0
    };
    (0..300).map(time).collect()
}

fn hang(report: &mut Report) {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for _ in 0..report.rounds() {
        report.round(|| {
            let (slow, other) = (Rogue::start(Rules::strict(S * 8)), Rogue::start(Rules::strict(S * 3600)));
            let mut room = Room::with_config(&(slow.provider_table("test", "") + &other.provider_table("other", "")));
            room.set("MCP_AUTHD_LOG", "info");
            let daemon = room.start();
            daemon.log_in("test", "alice");
            daemon.log_in("other", "alice");
            let issued = slow.look(|seen| seen.issued[0].at);
            slow.plan(Plan::delivered(Delivery::Hang).without_effect());
            slow.wait_for("a refresh that hangs", |seen| seen.refreshes.first().map(|_| ()));
            own.extend(answer_times(&daemon, "test"));
            assert!(issued.elapsed() < S * 7, "the machine is too busy: the token has expired meanwhile");
            others.extend(answer_times(&daemon, "other"));
            wait_until("the token's expiry", S * 10, || (issued.elapsed() >= S * 8).then_some(()));
            let began = Instant::now();
            let answer = daemon.ask("test");
            assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("provider_unreachable")), "{}", answer.body);
            assert!(began.elapsed() < S * 31, "the error took {:?}", began.elapsed());
            others.extend(answer_times(&daemon, "other"));
            assert_eq!(slow.look(|seen| seen.count(Verdict::Granted)), 0);
            slow.behave();
            slow.rule(|rules| (rules.lifetime, rules.expires_in) = (S * 3600, json!(3600)));
            wait_until("a token again", S * 60, || (daemon.ask("test").status == 200).then_some(()));
        });
    }
    for (whose, times) in [("the same grant's valid token", &mut own), ("another provider's token", &mut others)] {
        let (median, p99) = (quantile(times, 50), quantile(times, 99));
        report.round(|| assert!(median < 5.0, "{whose}: median {median:.1} ms"));
        report.figure(format!("while it hangs, {whose}: median {median:.2} ms, p99 {p99:.2} ms of {}", times.len()));
    }
}

fn rejected(report: &mut Report) {
    for _ in 0..report.rounds() {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(S * 3600));
            let room = Room::at_rogue(&rogue);
            let daemon = room.start();
            daemon.log_in("test", "alice");
            let issued = rogue.look(|seen| seen.issued[0].clone());
            let report_rejected = |token: &str| {
                std::thread::scope(|scope| {
                    let one = || daemon.call("POST", "/v1/token", &json!({ "grant": "test", "rejected_token": token }));
                    let all: Vec<_> = (0..100).map(|_| scope.spawn(one)).collect();
                    all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
                })
            };
            report_rejected(&issued.token);
            assert_eq!(rogue.look(|seen| seen.refreshes.len()), 0, "a token that is younger than 10 s was replaced");
            wait_until("a token of 10 s", S * 15, || (issued.at.elapsed() > S * 10).then_some(()));
            let answers = report_rejected(&issued.token);
            let new = rogue.look(|seen| seen.issued.last().unwrap().token.clone());
            assert!(
                answers.iter().all(|answer| answer.status == 200 && answer.json()["access_token"] == json!(new)),
                "not all got the new token"
            );
            assert_eq!(rogue.look(|seen| seen.refreshes.len()), 1, "forced refreshes");
            report_rejected(&new);
            report_rejected(&issued.token);
            assert_eq!(rogue.look(|seen| seen.refreshes.len()), 1, "forced refreshes after more reports");
        });
    }
}

//! T18: no token where none may be: a life at trace with providers that repeat what they were sent, then a search of all that
//! this suite has written, of what other processes can see, and of the memory of a daemon at rest.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Mutex;

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::rogue::{Plan, Rogue, Rules};
use mcp_auth_tests::{Answer, Daemon, Finding, LeakSearch, MARKS, Person, Room, get, kept_folder, require_root};
use rustix::process::Signal;
use serde_json::json;

use crate::life::HOUR;
use crate::report::{Case, Report};

pub(crate) const CASES: &[Case] = &[
    Case { id: "T18", title: "a life at trace, providers repeat secrets: no token written", rounds: 10, quick: 2, run: lives },
    Case { id: "T18", title: "memory at rest, read by root: no refresh token, no code", rounds: 10, quick: 2, run: memory },
    Case { id: "T18", title: "no token in any output of this suite", rounds: 1, quick: 1, run: outputs },
];

const GRANTS: usize = 20;

/// How many marks of each kind.
type Counts = Vec<(&'static str, usize)>;

/// What was searched, and what was found.
#[derive(Default)]
struct Searched {
    files: usize,
    bytes: usize,
    findings: Vec<Finding>,
}

impl Searched {
    #[track_caller]
    fn is_clean(&self) {
        let lines: Vec<_> = self.findings.iter().map(|it| format!("{} at {}: {}", it.path.display(), it.offset, it.what)).collect();
        assert!(lines.is_empty(), "{} findings, for one {}", lines.len(), lines[0]);
        assert!(self.files > 0, "nothing was searched");
    }
}

/// The answers to a refresh that repeat the refresh token, each to be met by a grant of its own.
fn echoes(token: &str) -> Vec<Plan> {
    let say =
        |status, error: &str| Plan::json(status, &json!({ "error": error, "error_description": format!("the token {token} is odd") }));
    let long = format!("{}{token}", "a word ".repeat(41));
    let html = format!("<html>you sent {token}</html>");
    vec![
        say(400, "invalid_request"),
        say(400, "invalid_grant"),
        say(401, "invalid_client"),
        say(200, "server_error"),
        say(503, "temporarily_unavailable"),
        Plan::json(400, &json!({ "error": token })),
        Plan::json(400, &json!({ "error": "invalid_scope", "error_description": long })),
        Plan::json(200, &json!({ "access_token": token, "token_type": token })),
        Plan::json(200, &json!({ "access_token": format!("{token}\u{7}"), "token_type": "Bearer" })),
        Plan::canned(500, &["content-type: text/html"], html.clone()),
        Plan::canned(200, &["content-type: application/json"], format!("{{\"refresh_token\": \"{token}\", ")),
        Plan::canned(302, &[&format!("location: https://example.com/?token={token}"), &format!("x-token: {token}")], html),
    ]
}

fn lives(report: &mut Report) {
    let searched = Mutex::new(Searched::default());
    for _ in 0..report.rounds() {
        report.round(|| {
            // Each answer comes from a server of its own, so that no other grant's retry meets it.
            let rogues: Vec<Rogue> = (0..=echoes("").len()).map(|_| Rogue::start(Rules::strict(HOUR))).collect();
            let tables = rogues.iter().enumerate().map(|(number, rogue)| rogue.provider_table(&format!("p{number}"), ""));
            let room = Room::with_config(&tables.collect::<String>());
            let mut daemon = room.start();
            a_life(&room, &daemon, &rogues);
            daemon.running.keep_proc("late");
            daemon.running.signal(Signal::ABORT);
            daemon.running.wait();
            let left = std::fs::read_dir(room.path("")).unwrap().flatten();
            let core = left.map(|entry| entry.file_name()).find(|name| name.to_string_lossy().starts_with("core"));
            assert_eq!(core, None, "an abort has left a core");
            let (findings, files, bytes) = LeakSearch::default().search_folder(&room.path(""));
            let one = Searched { files, bytes, findings };
            one.is_clean();
            let mut all = searched.lock().unwrap();
            all.files += files;
            all.bytes += bytes;
        });
    }
    let searched = searched.into_inner().unwrap();
    report.figure(format!(
        "vault, state, socket and home folders: {} files, {} bytes; no core after SIGABRT",
        searched.files, searched.bytes
    ));
    report.figure(format!("{} answers a round that repeat a secret", echoes("").len() + 2));
}

/// Everything that could write a secret down.
fn a_life(room: &Room, daemon: &Daemon<'_>, rogues: &[Rogue]) {
    let last = rogues.len() - 1;
    failed_login(daemon, &format!("p{last}"), &rogues[last]);
    for ((number, rogue), plan) in rogues.iter().enumerate().zip(echoes("zQrT9qz.0.0.zQrT9qz")) {
        let grant = format!("p{number}");
        daemon.log_in(&grant, "alice");
        rogue.plan(plan.times(1));
        let answer = daemon.call("POST", &format!("/v1/grants/{grant}/refresh"), &json!({}));
        clean(&answer.body);
        clean(&daemon.show(&format!("/v1/grants/{grant}")).to_string());
    }
    clean(&room.ctl(&["status"]).stdout);
    // It was refused as a client, so it has the same refresh token as at its login.
    let echo = json!({ "error": "invalid_request", "error_description": "cannot revoke zQrT9qz.0.0.zQrT9qz" });
    rogues[2].plan(Plan::json(400, &echo).path("/revoke").times(2));
    clean(&room.ctl(&["logout", "p2"]).stderr);
    daemon.call("POST", "/v1/token", &json!({ "grant": "p1", "rejected_token": "zQaT9qz-rejected-zQaT9qz" }));
    daemon.call("POST", "/v1/token", &json!({ "grant": "p1", "wrong_member": "zQaT9qz-x-zQaT9qz" }));
    daemon.call("PUT", "/v1/grants/p1", &json!({ "access_token": 17, "refresh_token": "zQrT9qz-x-zQrT9qz" }));
    room.ctl(&["token", "p1"]);
    room.ctl(&["headers", "p1"]).stdout.clear();
    let said = daemon.running.said();
    assert!(said.contains("TRACE"), "the daemon did not log at trace");
}

/// A login whose code is repeated in the refusal.
fn failed_login(daemon: &Daemon<'_>, provider: &str, rogue: &Rogue) {
    let mut login = daemon.start_login(&json!({ "provider": provider }));
    let redirect = Person::named("alice").browse(&login.wait_for_url(), Answer::Yes);
    let (_, code) = redirect.query_pairs().find(|(name, _)| name == "code").expect("a code");
    let text = format!("the code {code} was not for you");
    rogue.plan(Plan::json(400, &json!({ "error": "invalid_request", "error_description": text })).times(1));
    clean(&get(&redirect, &[]).body);
    match login.last() {
        LoginEvent::Failed { error } => clean(&format!("{error:?}")),
        other => panic!("the login ended with {other:?}"),
    }
}

/// No mark of a secret in a text that a person or a program is shown.
#[track_caller]
fn clean(text: &str) {
    let findings = LeakSearch::default().search(Path::new("an answer"), text.as_bytes());
    assert!(findings.is_empty(), "{}: {text}", findings[0].what);
}

/// What an attacker with root, or a hibernated machine, would find. Refresh tokens are sealed in memory until they are sent;
/// access tokens are not.
fn memory(report: &mut Report) {
    require_root("read the memory of an undumpable process");
    let counts = Mutex::new((Vec::new(), 0));
    for _ in 0..report.rounds() {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(HOUR));
            let room = Room::at_rogue(&rogue);
            let daemon = room.start();
            for number in 0..GRANTS {
                daemon.log_in(&format!("test:m{number}"), "alice");
                assert_eq!(daemon.call("POST", &format!("/v1/grants/test:m{number}/refresh"), &json!({})).status, 200);
                daemon.token(&format!("test:m{number}"));
            }
            let (found, bytes) = search_memory(daemon.running.pid());
            assert_eq!(daemon.stop().code, 0);
            // From its vault: nothing of a token has come over the network into this process.
            let daemon = room.start();
            for number in 0..GRANTS {
                daemon.token(&format!("test:m{number}"));
            }
            let (restarted, more) = search_memory(daemon.running.pid());
            let mut counts = counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            counts.1 += bytes + more;
            counts.0.push((found.clone(), restarted.clone()));
            let open = |of: &[(&str, usize)]| of.iter().find(|(kind, _)| *kind == "refresh token").map_or(0, |(_, count)| *count);
            assert_eq!(open(&restarted), 0, "refresh tokens lie open in the memory of a daemon that has sent none");
            drop(counts);
            // The buffers of the exchanges were wiped when they were freed.
            assert_eq!(open(&found), 0, "refresh tokens lie open in the memory of a daemon that has sent them");
        });
    }
    let (found, bytes) = counts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (before, after): (Vec<Counts>, Vec<Counts>) = found.into_iter().unzip();
    for (when, of) in [("after 20 logins and refreshes", before), ("restarted", after)] {
        // A token has a mark at either end.
        let most = |kind: &str| of.iter().flatten().filter(|(it, _)| *it == kind).map(|(_, count)| count.div_ceil(2)).max().unwrap_or(0);
        let kinds: Vec<_> = MARKS.iter().take(3).map(|(kind, _)| format!("{kind} {}", most(kind))).collect();
        report.figure(format!("20 grants, {when}: copies in memory, the most of a round: {}", kinds.join(", ")));
    }
    report.figure(format!("{} MB of writable memory searched; the daemon is undumpable, so this took root", bytes / 1_000_000));
}

/// How many marks of each kind lie in the writable memory of a process.
fn search_memory(pid: u32) -> (Counts, usize) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut found, mut bytes): (Counts, usize) = (MARKS.iter().map(|(kind, _)| (*kind, 0)).collect(), 0);
    for line in maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|modes| modes.starts_with("rw"))) {
        let (from, to) = line.split_whitespace().next().and_then(|range| range.split_once('-')).unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        // Some of it may be gone by now, or not be there to be read.
        if memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut part).is_err() {
            continue;
        }
        bytes += part.len();
        for ((_, mark), (_, count)) in MARKS.iter().zip(&mut found) {
            *count += memchr::memmem::find_iter(&part, mark.as_bytes()).count();
        }
    }
    assert!(bytes > 1_000_000, "the memory could not be read");
    (found, bytes)
}

/// Every line that a program of this suite has said, in this run or an earlier one, and its environment and arguments.
fn outputs(report: &mut Report) {
    let (search, mut all) = (LeakSearch::default(), Searched::default());
    for entry in std::fs::read_dir(kept_folder("output")).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with("faults-") && path.extension().is_none_or(|ending| ending != "token") {
            let bytes = std::fs::read(&path).unwrap_or_default();
            all.files += 1;
            all.bytes += bytes.len();
            all.findings.extend(search.search(&path, &bytes));
        }
    }
    report.round(|| all.is_clean());
    let encodings = "raw, reversed, base64 at every alignment, hex, percent, numbers, UTF-16";
    report.figure(format!("stdout, stderr, environment and arguments: {} files, {} bytes, as {encodings}", all.files, all.bytes));
    report.figure("stdout of `mcp-authctl token` and `headers` is left out: a token is what they are for");
}

//! Who may have which token: T51 and T52. What a program may not have it does not get, and a person's word goes exactly as far
//! as what was shown.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::Duration;

use mcp_auth_tests::{Asker, Daemon, Room, Told, binary, told, wait_until};
use serde_json::{Value, json};

use crate::report::{Case, Report};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T51", title: "another grant, scope, resource or account than the rules give: denied", rounds: 960, quick: 48, run: matrix },
    Case {
        id: "T51",
        title: "a policy record that is damaged, cut or of a later version: nobody is let in",
        rounds: 60,
        quick: 6,
        run: damaged,
    },
    Case { id: "T52", title: "a flood of questions is cut off, and the rest is served meanwhile", rounds: 20, quick: 2, run: flood },
    Case {
        id: "T52",
        title: "a yes is not for other bytes, another process image or another question",
        rounds: 120,
        quick: 12,
        run: races,
    },
    Case { id: "T52", title: "ids that ended, were used or never were decide nothing", rounds: 200, quick: 20, run: ids },
    Case { id: "T52", title: "whoever asks cannot allow it itself", rounds: 100, quick: 10, run: from_itself },
];

const PATIENCE: Duration = Duration::from_secs(20);

/// A room whose daemon holds these static tokens, each with the scope `repo`.
fn room() -> Room {
    let mut room = Room::with_config("");
    room.set("MCP_AUTHD_LOG", "info");
    room
}

fn hold(daemon: &Daemon<'_>, grants: &[&str]) {
    for grant in grants {
        let token = format!("zQaT9qz-{}-zQaT9qz", grant.replace(':', "."));
        let answer = daemon.call("PUT", &format!("/v1/grants/{grant}"), &json!({ "access_token": token, "scopes": ["repo"] }));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

fn rule(daemon: &Daemon<'_>, rule: &Value) -> u64 {
    let answer = daemon.call("POST", "/v1/policy", rule);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["id"].as_u64().unwrap()
}

fn program(asker: &Asker<'_>) -> Value {
    json!({ "program": { "executable": asker.name() } })
}

fn decide(daemon: &Daemon<'_>, id: &str, allow: bool) -> u16 {
    daemon.call("POST", &format!("/v1/consents/{id}"), &json!({ "allow": allow })).status
}

fn waiting(daemon: &Daemon<'_>) -> Vec<String> {
    daemon.show("/v1/consents").as_array().unwrap().iter().map(|ask| ask["id"].as_str().unwrap().to_owned()).collect()
}

/// The code of an answer; `token` where one came.
fn word(told: &Told) -> String {
    if told.body.get("access_token").is_some() { "token".into() } else { told.error().to_owned() }
}

// ---- T51 ----

fn matrix(report: &mut Report) {
    let room = room();
    let daemon = room.start();
    hold(&daemon, &["test", "test:work", "test:home", "mine", "open"]);
    let (server, stranger) = (Asker::new(&room, "server"), Asker::new(&room, "stranger"));
    rule(&daemon, &json!({ "grant": "test", "subject": program(&server), "scopes": ["repo", "gist"] }));
    rule(&daemon, &json!({ "grant": "test:work", "subject": program(&server), "scopes": ["gist"] }));
    rule(&daemon, &json!({ "grant": "test:home", "subject": program(&stranger), "resource": "https://mcp.example/mcp" }));
    rule(&daemon, &json!({ "grant": "mine", "subject": "anyone", "answer": "deny" }));
    rule(&daemon, &json!({ "grant": "mine", "subject": program(&stranger) }));
    let of = |grant: &str| json!({ "grant": grant });
    let more = |grant: &str, scope: &str| json!({ "grant": grant, "scopes": [scope] });
    let cases = [
        (&server, of("test"), "token"),
        (&server, more("test", "repo"), "token"),
        (&server, more("test", "gist"), "insufficient_scope"),
        (&server, more("test", "admin"), "access_denied"),
        (&server, json!({ "grant": "test", "challenge": "Bearer error=\"insufficient_scope\", scope=\"admin\"" }), "access_denied"),
        (&server, json!({ "grant": "test", "resource": "https://mcp.example/mcp" }), "invalid_request"),
        (&server, json!({ "resource": "https://mcp.example/mcp" }), "unknown_grant"),
        (&server, of("test:work"), "access_denied"),
        (&server, of("test:home"), "consent_required"),
        (&server, of("mine"), "access_denied"),
        (&server, of("open"), "token"),
        (&stranger, of("test"), "consent_required"),
        (&stranger, of("test:work"), "consent_required"),
        (&stranger, of("test:home"), "access_denied"),
        (&stranger, of("mine"), "token"),
        (&stranger, of("open"), "token"),
    ];
    for round in 0..report.rounds() as usize {
        let (who, request, expected) = &cases[round % cases.len()];
        report.round(|| {
            let told = who.ask(request);
            assert_eq!(word(&told), *expected, "{} asks {request}: {}", who.name(), told.body["error_description"]);
            // Of a grant that there is not, everybody hears the same.
            let (one, other) = (server.ask(&of("nobody")), stranger.ask(&of("nobody")));
            assert_eq!(one, other);
        });
    }
    let denied = daemon.running.said().lines().filter(|line| line.contains("denied `")).count();
    report.figure(format!("{} cells of program, grant, account, scope and resource; {denied} log lines of denials in all", cases.len()));
}

fn damaged(report: &mut Report) {
    let room = room();
    let daemon = room.start();
    hold(&daemon, &["test", "open"]);
    let before = records(&room);
    let server = Asker::new(&room, "server");
    rule(&daemon, &json!({ "grant": "test", "subject": program(&server) }));
    assert_eq!(daemon.stop().code, 0);
    let record = records(&room).into_iter().find(|path| !before.contains(path)).unwrap();
    let good = std::fs::read(&record).unwrap();
    for round in 0..report.rounds() as usize {
        let mut bytes = good.clone();
        match round % 4 {
            0 => bytes.truncate(round * 7 % good.len()),
            // A later version of the program wrote it.
            1 => bytes[4] = bytes[4].wrapping_add(1),
            _ => bytes[round * 31 % good.len()] ^= 1 << (round % 8),
        }
        report.round(|| {
            std::fs::write(&record, &bytes).unwrap();
            let daemon = room.start();
            for grant in ["test", "open"] {
                assert_eq!(word(&server.ask(&json!({ "grant": grant }))), "access_denied", "{grant}");
            }
            assert_eq!(daemon.stop().code, 0);
            std::fs::write(&record, &good).unwrap();
            let daemon = room.start();
            assert_eq!(word(&server.ask(&json!({ "grant": "test" }))), "token", "the record is back");
            assert_eq!(daemon.stop().code, 0);
        });
    }
}

fn records(room: &Room) -> HashSet<std::path::PathBuf> {
    let mut folders = vec![room.path("state")];
    let mut found = HashSet::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "sealed") {
                found.insert(path);
            }
        }
    }
    found
}

// ---- T52 ----

/// So many programs under names of their own, one that asks for everything, and one that has a rule.
fn flood(report: &mut Report) {
    const NAMES: usize = 16;
    let grants: Vec<String> = (0..8).map(|number| format!("test:g{number}")).collect();
    let mut most = 0;
    for _ in 0..report.rounds() {
        let held = report.round(|| {
            let room = room();
            let daemon = room.start();
            hold(&daemon, &grants.iter().map(String::as_str).collect::<Vec<_>>());
            let (greedy, fine) = (Asker::new(&room, "greedy"), Asker::new(&room, "fine"));
            for grant in &grants {
                rule(&daemon, &json!({ "grant": grant, "subject": program(&fine) }));
            }
            let ask = |asker: &Asker<'_>, grant: &str| word(&asker.ask(&json!({ "grant": grant })));
            let count = |words: &[String], word: &str| words.iter().filter(|it| *it == word).count();
            let words: Vec<String> = grants.iter().map(|grant| ask(&greedy, grant)).collect();
            assert_eq!((count(&words, "consent_required"), count(&words, "access_denied")), (3, 5), "one program: {words:?}");
            // The same again joins what waits.
            assert_eq!(ask(&greedy, &grants[0]), "consent_required");
            let words: Vec<String> = (0..NAMES).map(|number| ask(&Asker::new(&room, &format!("n{number}")), &grants[0])).collect();
            assert_eq!(count(&words, "consent_required"), 9, "many names: {words:?}");
            assert!(grants.iter().all(|grant| ask(&fine, grant) == "token"), "whoever has a rule is not served");
            let waiting = waiting(&daemon).len();
            let told = daemon.running.said().lines().filter(|line| line.contains("consent_asked `")).count();
            assert_eq!((waiting, told), (12, 12));
            waiting
        });
        most = most.max(held.unwrap_or_default());
    }
    report.figure(format!("{} questions in a few seconds: {most} reached a person, 3 of one program", grants.len() + NAMES));
}

fn races(report: &mut Report) {
    for round in 0..report.rounds() {
        report.round(|| {
            let room = room();
            let daemon = room.start();
            hold(&daemon, &["test", "other"]);
            for grant in ["test", "other"] {
                rule(&daemon, &json!({ "grant": grant, "subject": { "program": { "unit": "nobody.service" } } }));
            }
            match round % 4 {
                0 => other_bytes(&room, &daemon),
                1 => another_image(&room, &daemon),
                2 => another_question(&room, &daemon),
                _ => changed_rules(&room, &daemon),
            }
        });
    }
}

/// The file changes between the question and the word.
fn other_bytes(room: &Room, daemon: &Daemon<'_>) {
    let server = Asker::new(room, "server");
    let id = server.ask(&json!({ "grant": "test" })).consent();
    server.replace();
    assert_eq!(decide(daemon, &id, true), 200);
    // Once the yes is kept it could be mistaken for one to the new bytes.
    let kept = || daemon.show("/v1/policy")["consents"].as_array().is_some_and(|kept| !kept.is_empty());
    wait_until("the yes on disk", PATIENCE, || kept().then_some(()));
    assert_ne!(server.ask(&json!({ "grant": "test" })).consent(), id, "a new question");
}

/// The process becomes another program between the question and the word.
fn another_image(room: &Room, daemon: &Daemon<'_>) {
    let mut command = room.command(&binary("probe"));
    command.arg("become").arg(room.socket()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut probe = command.spawn().unwrap();
    let id = wait_until("the question", PATIENCE, || waiting(daemon).pop());
    probe.stdin.take().unwrap().write_all(b"now\n").unwrap();
    let exe = || std::fs::read_link(format!("/proc/{}/exe", probe.id())).ok();
    wait_until("the other program", PATIENCE, || exe()?.ends_with("cat").then_some(()));
    assert_eq!(decide(daemon, &id, true), 200);
    let answer: Vec<String> = BufReader::new(probe.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
    probe.wait().unwrap();
    let answer = answer.concat();
    assert!(answer.contains("access_denied") && !answer.contains("access_token"), "what took its place got: {} bytes", answer.len());
}

/// The yes is for one grant, and once.
fn another_question(room: &Room, daemon: &Daemon<'_>) {
    rule(daemon, &json!({ "grant": "other", "subject": "anyone", "answer": "ask_always" }));
    let (server, stranger) = (Asker::new(room, "server"), Asker::new(room, "stranger"));
    let id = server.ask(&json!({ "grant": "other" })).consent();
    assert_eq!(decide(daemon, &id, true), 200);
    server.ask(&json!({ "grant": "test" })).consent();
    stranger.ask(&json!({ "grant": "other" })).consent();
    assert_eq!(server.ask(&json!({ "grant": "other" })).status, 200);
    server.ask(&json!({ "grant": "other" })).consent();
}

/// A rule that says no comes between the question and the word.
fn changed_rules(room: &Room, daemon: &Daemon<'_>) {
    let server = Asker::new(room, "server");
    let mut asking = server.spawn("/v1/token", &json!({ "grant": "test", "wait": true }));
    let id = wait_until("the question", PATIENCE, || waiting(daemon).pop());
    rule(daemon, &json!({ "grant": "test", "subject": "anyone", "answer": "deny" }));
    assert_eq!(decide(daemon, &id, true), 404);
    assert_eq!(told(&mut asking).error(), "conflict");
    assert_eq!(server.ask(&json!({ "grant": "test" })).error(), "access_denied");
}

fn ids(report: &mut Report) {
    let room = room();
    let daemon = room.start();
    hold(&daemon, &["test"]);
    rule(&daemon, &json!({ "grant": "test", "subject": "anyone", "answer": "ask_always" }));
    let mut used: Option<String> = None;
    for round in 0..report.rounds() {
        report.round(|| {
            let strangers = ["0000-0000", "", "%00", "..", "WDJB-MJHT", "99999999999999999999", "1234-5678%2f", "id"];
            let id = used.clone().filter(|_| round % 2 == 1).unwrap_or_else(|| strangers[round as usize / 2 % strangers.len()].to_owned());
            assert_eq!(decide(&daemon, &id, true), 404, "{id}");
        });
        if round % 50 == 0 && used.is_none() {
            let server = Asker::new(&room, "server");
            let id = server.ask(&json!({ "grant": "test" })).consent();
            assert_eq!((decide(&daemon, &id, true), server.ask(&json!({ "grant": "test" })).status), (200, 200));
            used = Some(id);
        }
    }
}

/// One process on one connection asks, and answers in the person's place.
fn from_itself(report: &mut Report) {
    let room = room();
    let daemon = room.start();
    hold(&daemon, &["test"]);
    rule(&daemon, &json!({ "grant": "test", "subject": "anyone", "answer": "ask_always" }));
    let mut connection = daemon.connect();
    for _ in 0..report.rounds() {
        report.round(|| {
            let asked = connection.json("POST", "/v1/token", &json!({ "grant": "test", "wait": false })).unwrap().json();
            let id = asked["consent"].as_str().unwrap();
            let decided = daemon.call("POST", &format!("/v1/consents/{id}"), &json!({ "allow": true }));
            assert_eq!((decided.status, decided.json()["error"].as_str()), (403, Some("access_denied")));
            assert!(waiting(&daemon).iter().any(|it| it == id), "the question went away");
        });
    }
}

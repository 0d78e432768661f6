//! Who may have which token: closing a grant for all but one program, being asked, approving, and what stays closed whatever
//! happens to the files.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_tests::{Asker, Daemon, OnTerminal, Room, Server, told, wait_until};
use serde_json::{Value, json};

/// A daemon that holds a token of `test` with the scope `repo`, and what else is named, each without a provider.
fn holding<'a>(room: &'a Room, grants: &[&str]) -> Daemon<'a> {
    let daemon = room.start();
    for grant in grants {
        let token = format!("zQaT9qz-{}-zQaT9qz", grant.replace(':', "."));
        let answer = daemon.call("PUT", &format!("/v1/grants/{grant}"), &json!({ "access_token": token, "scopes": ["repo"] }));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    daemon
}

fn test_token() -> Value {
    json!({ "grant": "test" })
}

#[test]
fn the_first_rule_closes_a_grant_for_every_other_program_and_for_nothing_but_its_tokens() {
    let room = Room::with_config("");
    let daemon = holding(&room, &["test", "test:work"]);
    let (server, stranger) = (Asker::new(&room, "server"), Asker::new(&room, "stranger"));
    assert_eq!((server.ask(&test_token()).status, stranger.ask(&test_token()).status), (200, 200), "open to everybody at first");
    room.ctl(&["policy", "list"]).ok().says("no rules");

    let added = room.ctl(&["policy", "add", "test", "--program", server.name()]).ok();
    assert!(added.stdout.contains(server.name()) && added.stderr.contains("closed"), "{added:?}");
    assert_eq!(server.ask(&test_token()).status, 200);
    stranger.ask(&test_token()).consent();
    assert_eq!(stranger.ask(&json!({ "grant": "test:work" })).status, 200, "another grant is as open as before");
    // Our own command line is a program like any other.
    room.ctl(&["token", "test"]).fails_with(6).says("mcp-authctl approve ");
    room.ctl(&["exec", "--set", "A=test", "--", "true"]).fails_with(6);
    room.ctl(&["headers", "test"]).fails_with(6);

    room.ctl(&["status", "test"]).ok();
    daemon.kill();
    let daemon = room.start();
    assert_eq!(server.ask(&test_token()).status, 200, "after a restart");
    stranger.ask(&test_token()).consent();

    room.ctl(&["policy", "remove", "1", "--yes"]).ok().says("open to every program");
    assert_eq!(stranger.ask(&test_token()).status, 200);
    room.ctl(&["logout", "test"]).ok();
    drop(daemon);
}

#[test]
fn a_first_rule_by_the_bare_name_says_who_had_the_tokens_of_the_grant_that_it_closes() {
    let server = Server::with_lifetime(3600);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test:work", "alice");
    room.ctl(&["use", "test:work"]).ok();
    let stranger = Asker::new(&room, "stranger");
    assert_eq!(stranger.ask(&test_token()).status, 200);
    room.ctl(&["policy", "add", "test", "--unit", "nobody.service"]).ok().says("tokens of test:work went to");
    let second = room.ctl(&["policy", "add", "test", "--unit", "nobody.timer"]).ok();
    assert!(!second.stderr.contains("closed"), "it was closed before: {}", second.stderr);
    stranger.ask(&test_token()).consent();
}

#[test]
fn a_grant_can_be_refreshed_and_logged_out_of_while_it_is_closed_and_its_rules_outlive_it() {
    let room = Room::with_config("");
    let daemon = holding(&room, &["test"]);
    room.ctl(&["policy", "add", "test", "--unit", "nobody.service"]).ok();
    room.ctl(&["logout", "test"]).ok();
    drop(daemon);
    let _daemon = holding(&room, &["test"]);
    let told = Asker::new(&room, "server").ask(&test_token());
    told.consent();
}

#[test]
fn a_person_who_is_asked_sees_who_wants_what_and_a_yes_is_remembered_for_exactly_that_program() {
    let room = Room::with_config("");
    let daemon = holding(&room, &["test", "other"]);
    room.ctl(&["policy", "add", "test", "--unit", "nobody.service"]).ok();
    let server = Asker::new(&room, "server");
    let id = server.ask(&test_token()).consent();
    assert_eq!(server.ask(&test_token()).consent(), id, "the same question is one");
    let listed = room.ctl(&["approve"]).ok();
    assert!(listed.stdout.contains(&id) && listed.stdout.contains(server.name()), "{listed:?}");

    let mut terminal: OnTerminal = room.ctl_on_terminal(&["approve", &id]);
    terminal.type_line("y");
    let (code, screen) = terminal.wait();
    let screen = String::from_utf8(screen).unwrap();
    for shown in [server.name(), "test", "repo", "allowed, and remembered"] {
        assert!(screen.contains(shown), "does not show {shown}: {screen}");
    }
    assert_eq!((code, server.ask(&test_token()).status), (0, 200));
    wait_until("the yes on disk", Duration::from_secs(10), || {
        (!daemon.show("/v1/policy")["consents"].as_array()?.is_empty()).then_some(())
    });
    daemon.kill();
    let _daemon = room.start();
    assert_eq!(server.ask(&test_token()).status, 200, "remembered");

    server.replace();
    server.ask(&test_token()).consent();
    room.ctl(&["policy", "list"]).ok();
    room.ctl(&["approve", &id]).fails_with(1).says("nothing waits");
}

#[test]
fn a_request_that_waits_is_answered_by_the_persons_word() {
    let room = Room::with_config("");
    let daemon = holding(&room, &["test"]);
    room.ctl(&["policy", "add", "test", "--anyone", "--ask", "always"]).ok();
    let server = Asker::new(&room, "server");
    let ask = || server.spawn("/v1/token", &json!({ "grant": "test", "wait": true }));
    let asked = || wait_until("the question", Duration::from_secs(20), || Some(daemon.show("/v1/consents")[0]["id"].as_str()?.to_owned()));
    let mut first = ask();
    room.ctl(&["approve", &asked(), "--yes"]).ok().says("this time");
    assert_eq!(told(&mut first).status, 200);
    let mut second = ask();
    let id = asked();
    room.ctl(&["approve", &id, "--no"]).ok();
    let refused = told(&mut second);
    assert_eq!((refused.status, refused.error()), (403, "access_denied"), "asked every time, and refused");
    room.ctl(&["approve", &id, "--yes"]).fails_with(1);
    assert_eq!(server.ask(&test_token()).error(), "access_denied", "a no stands for a while");
}

/// What the script of an interpreter is told: it asks by itself.
fn script_asks(room: &Room, script: &str, code: &str) -> String {
    let python = mcp_auth_tests::require("python3", "python3");
    let mut command = room.command(&python);
    if script.is_empty() {
        command.args(["-c", code])
    } else {
        command.arg(room.path(script))
    };
    let output = mcp_auth_tests::run(command, "asker", "", true).ok();
    serde_json::from_str::<Value>(&output.stdout).unwrap()["error"].as_str().unwrap_or("token").to_owned()
}

#[test]
fn a_script_is_known_by_its_path_and_an_interpreter_alone_by_nothing() {
    const CODE: &str = "import http.client, os, socket\n\
        daemon = http.client.HTTPConnection('mcp-authd')\n\
        daemon.sock = socket.socket(socket.AF_UNIX)\n\
        daemon.sock.connect(os.environ['MCP_AUTHD_SOCKET'])\n\
        daemon.request('POST', '/v1/token', '{\"grant\":\"test\"}')\n\
        print(daemon.getresponse().read().decode())\n";
    let room = Room::with_config("");
    let daemon = holding(&room, &["test"]);
    for script in ["mine.py", "other.py"] {
        std::fs::write(room.path(script), CODE).unwrap();
    }
    room.ctl(&["policy", "add", "test", "--script", room.path("mine.py").to_str().unwrap()]).ok();
    assert_eq!(script_asks(&room, "mine.py", ""), "token");
    assert_eq!(script_asks(&room, "other.py", ""), "consent_required");
    let asked = daemon.show("/v1/consents")[0].clone();
    assert!(asked["program"]["script"].as_str().unwrap().ends_with("/other.py") && asked["remember"] == true, "{asked}");
    room.ctl(&["approve", asked["id"].as_str().unwrap(), "--yes"]).ok().says("its own command line");
    assert_eq!(script_asks(&room, "other.py", ""), "token");
    // Changed in its place: another program.
    std::fs::write(room.path("other.py"), format!("{CODE}# more\n")).unwrap();
    assert_eq!(script_asks(&room, "other.py", ""), "consent_required");
    // What has no script is asked about, and never remembered.
    assert_eq!(script_asks(&room, "", CODE), "consent_required");
    let waiting = daemon.show("/v1/consents");
    let nameless = waiting.as_array().unwrap().iter().find(|ask| ask["program"].get("script").is_none()).unwrap();
    assert_eq!(nameless["remember"], false, "{nameless}");
}

#[test]
fn a_capability_socket_of_a_closed_grant_serves_what_a_rule_or_the_person_lets_in() {
    let room = Room::with_config("");
    let daemon = holding(&room, &["test"]);
    let server = Asker::new(&room, "server");
    room.ctl(&["policy", "add", "test", "--unit", "nobody.service"]).ok();
    let only = |arguments: &[&str]| {
        let words = [&["exec", "--only", "test", "--"], arguments].concat();
        room.ctl(&words)
    };
    only(&[mcp_auth_tests::binary("mcp-authctl").to_str().unwrap(), "token", "test", "--fingerprint"]).fails_with(6);
    let added = room.ctl(&["policy", "add", "test", "--capability"]).ok().says("exec --only");
    assert!(added.stdout.contains("exec --only"));
    only(&[mcp_auth_tests::binary("mcp-authctl").to_str().unwrap(), "token", "test", "--fingerprint"]).ok();
    server.ask(&test_token()).consent();
    drop(daemon);
}

#[test]
fn what_a_rule_does_not_give_is_refused_with_the_way_to_get_it() {
    let room = Room::with_config("");
    let _daemon = holding(&room, &["test", "wide"]);
    let server = Asker::new(&room, "server");
    room.ctl(&["policy", "add", "test", "--program", server.name(), "--scope", "repo gist", "--per-minute", "2"]).ok();
    room.ctl(&["policy", "add", "wide", "--program", server.name(), "--scope", "gist"]).ok();
    let more = server.ask(&json!({ "grant": "test", "scopes": ["admin"] }));
    assert!(more.error() == "access_denied" && more.body["error_description"].as_str().unwrap().contains("admin"), "{}", more.body);
    let wide = server.ask(&json!({ "grant": "wide" }));
    assert!(wide.error() == "access_denied" && wide.body["hint"].as_str().unwrap().contains("mcp-authctl login wide:LABEL"));
    assert_eq!((server.ask(&test_token()).status, server.ask(&test_token()).status), (200, 200));
    let often = server.ask(&test_token());
    assert!(often.error() == "too_many_requests" && often.body["retry_after"].as_u64().unwrap() <= 60);
}

#[test]
fn the_command_line_explains_refuses_slips_and_says_what_a_rule_would_do() {
    let room = Room::with_config("");
    let _daemon = holding(&room, &["test"]);
    let server = Asker::new(&room, "server");
    room.ctl(&["policy", "add", "tset", "--program", server.name()]).fails_with(3);
    room.ctl(&["policy", "add", "test"]).fails_with(2);
    room.ctl(&["policy", "add", "test", "--program", "/no/such/file"]).fails_with(1).says("/no/such/file");
    let python = Asker::new(&room, "python3.12");
    room.ctl(&["policy", "add", "test", "--program", python.name()]).fails_with(1).says("runs any script").says("--script");
    room.ctl(&["policy", "add", "test", "--program", server.name(), "--expires", "0"]).fails_with(1);
    let warned = room.ctl(&["policy", "test", "test", "--program", server.name()]).ok();
    assert!(warned.stdout.starts_with("allowed: no rule names"), "{warned:?}");
    let rule = room.ctl(&["policy", "add", "test", "--program", server.name(), "--expires", "3600", "--json"]).ok().json();
    assert_eq!((&rule["id"], &rule["answer"]), (&json!(1), &json!("allow")));
    room.ctl(&["policy", "add", "test", "--anyone", "--deny"]).ok();
    assert_eq!(room.ctl(&["policy", "test", "test", "--program", server.name()]).ok().stdout, "allowed: rule 1 allows it\n");
    let stranger = Asker::new(&room, "stranger");
    let denied = room.ctl(&["policy", "test", "test", "--program", stranger.name()]);
    assert_eq!((denied.code, &*denied.stdout), (6, "refused: rule 2 refuses it\n"));
    assert_eq!(stranger.ask(&test_token()).error(), "access_denied");
    let listed = room.ctl(&["policy", "list"]).ok();
    assert!(listed.stdout.lines().all(|line| line.len() <= 80 || line.contains('/')), "{listed:?}");
    assert_eq!(room.ctl(&["policy", "list", "--json"]).ok().json()["rules"].as_array().unwrap().len(), 2);
    room.ctl(&["policy", "remove", "7"]).fails_with(1);
}

#[test]
fn a_policy_that_cannot_be_read_lets_nobody_in_until_a_person_resets_it() {
    let room = Room::with_config("");
    let daemon = holding(&room, &["test", "open"]);
    let server = Asker::new(&room, "server");
    let before = records(&room);
    room.ctl(&["policy", "add", "test", "--program", server.name()]).ok();
    let record = records(&room).into_iter().find(|path| !before.contains(path)).expect("a record of the policy");
    assert_eq!(daemon.stop().code, 0);
    let mut bytes = std::fs::read(&record).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&record, bytes).unwrap();

    for start in 0..2 {
        let daemon = room.start();
        for grant in ["test", "open"] {
            let told = server.ask(&json!({ "grant": grant }));
            assert_eq!(told.error(), "access_denied", "{grant}, start {start}: {}", told.status);
        }
        room.ctl(&["status"]).ok();
        room.ctl(&["policy", "list"]).ok().says("cannot be read");
        room.ctl(&["policy", "add", "test", "--program", server.name()]).fails_with(6).says("policy reset");
        room.ctl(&["vault", "rekey"]).fails_with(1).says("policy reset");
        daemon.kill();
    }
    let daemon = room.start();
    room.ctl(&["policy", "reset", "--yes"]).ok();
    assert_eq!(server.ask(&test_token()).status, 200);
    daemon.kill();
    let _daemon = room.start();
    assert_eq!(server.ask(&test_token()).status, 200, "and so it stays");
}

fn records(room: &Room) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![room.path("state")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "sealed") {
                found.push(path);
            }
        }
    }
    found
}

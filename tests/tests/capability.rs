//! `exec --only`: a program with a socket of its own gets the tokens of its grants there and nothing else, until it ends;
//! also when the daemon is replaced meanwhile.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use mcp_auth_tests::{Connection, Daemon, HttpAnswer, Room, Server, binary, provider_table, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// A program that `exec --only` started: it says where its socket is, and lives until its input ends.
struct Program {
    child: Child,
    said: BufReader<ChildStdout>,
    socket: PathBuf,
}

impl Program {
    fn start(room: &Room, grants: &[&str]) -> Self {
        let mut command = room.command(&binary("mcp-authctl"));
        command.arg("exec").args(grants.iter().flat_map(|grant| ["--only", grant]));
        command.args(["--", "sh", "-c", "echo \"$MCP_AUTHD_SOCKET\"; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        Self { child, said, socket: PathBuf::from(line.trim()) }
    }

    fn call(&self, method: &str, target: &str, body: &Value) -> HttpAnswer {
        Connection::unix(&self.socket).unwrap().json(method, target, body).unwrap()
    }

    fn ask(&self, grant: &str) -> HttpAnswer {
        self.call("POST", "/v1/token", &json!({ "grant": grant }))
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        self.said.read_to_end(&mut Vec::new()).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already, where the test came to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn two_grants(daemon: &Daemon<'_>) {
    daemon.log_in("test", "alice");
    daemon.log_in("other", "alice");
}

fn room_at(server: &Server) -> Room {
    Room::with_config(&format!("{}{}", provider_table("test", server, ""), provider_table("other", server, "")))
}

fn gone(path: &Path) {
    wait_until("the socket's end", PATIENCE, || (!path.exists()).then_some(()));
}

#[test]
fn a_program_gets_the_token_of_its_grant_on_its_own_socket_and_nothing_else() {
    let server = Server::with_lifetime(3600);
    let room = room_at(&server);
    let daemon = room.start();
    two_grants(&daemon);
    let program = Program::start(&room, &["test"]);
    let token = program.ask("test").json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(token, daemon.token("test"));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&program.socket), mode(program.socket.parent().unwrap())), (0o600, 0o700));
    // A grant that there is answers the same as one that there is not.
    let foreign = program.ask("other");
    assert_eq!((foreign.status, foreign.json()["error"].as_str()), (403, Some("access_denied")));
    assert_eq!(foreign.body, program.ask("nobody-has-this").body);
    assert_eq!(foreign.body, program.call("POST", "/v1/token", &json!({ "resource": "https://mcp.example.com/mcp" })).body);
    assert!(!foreign.body.contains("other"), "{}", foreign.body);
    for (method, target) in [
        ("GET", "/v1/grants"),
        ("GET", "/v1/grants/test"),
        ("PUT", "/v1/grants/test"),
        ("DELETE", "/v1/grants/test"),
        ("POST", "/v1/grants/test/refresh"),
        ("POST", "/v1/logins"),
        ("GET", "/v1/providers"),
        ("GET", "/v1/status"),
        ("GET", "/v1/doctor"),
        ("GET", "/v1/events"),
        ("GET", "/v1/who"),
        ("POST", "/v1/capabilities"),
        ("POST", "/v1/vault/lock"),
        ("POST", "/v1/reload"),
        ("GET", "/issuer/keys"),
    ] {
        let answer = program.call(method, target, &json!({}));
        assert_eq!((answer.status, answer.body.as_str()), (403, foreign.body.as_str()), "{method} {target}");
    }
    daemon.token("other");
    program.end();
}

#[test]
fn the_socket_and_its_connections_end_with_the_program() {
    let server = Server::with_lifetime(3600);
    let room = room_at(&server);
    let daemon = room.start();
    two_grants(&daemon);
    let (one, other) = (Program::start(&room, &["test"]), Program::start(&room, &["test", "other"]));
    let (path, mut kept) = (one.socket.clone(), UnixStream::connect(&one.socket).unwrap());
    // Accepted before the end, not just in the backlog.
    kept.write_all(b"GET /v1/status HTTP/1.1\r\nhost: mcp-authd\r\n\r\n").unwrap();
    kept.read_exact(&mut [0; 12]).unwrap();
    one.end();
    gone(&path);
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    kept.read_to_end(&mut Vec::new()).unwrap();
    for grant in ["test", "other"] {
        assert_eq!(other.ask(grant).status, 200, "another program's socket");
    }
    let (path, folder) = (other.socket.clone(), other.socket.parent().unwrap().to_owned());
    daemon.stop();
    assert!(!path.exists() && !folder.exists(), "gone at the daemon's end");
    other.end();
}

#[test]
fn a_program_that_outlives_the_daemon_finds_its_socket_again_and_another_does_not_inherit_it() {
    let server = Server::with_lifetime(3600);
    let room = room_at(&server);
    let daemon = room.start();
    two_grants(&daemon);
    let (living, ending) = (Program::start(&room, &["test"]), Program::start(&room, &["other"]));
    let dead = ending.socket.clone();
    daemon.kill();
    assert!(living.socket.exists(), "kill -9 leaves the files");
    ending.end();
    let daemon = room.start();
    daemon.token("test");
    wait_until("the socket", PATIENCE, || Connection::unix(&living.socket).is_ok().then_some(()));
    assert_eq!((living.ask("test").status, living.ask("other").status), (200, 403));
    gone(&dead);
    daemon.stop();
    let daemon = room.start();
    daemon.token("test");
    wait_until("the socket", PATIENCE, || Connection::unix(&living.socket).is_ok().then_some(()));
    assert_eq!(living.ask("test").status, 200);
    let path = living.socket.clone();
    living.end();
    gone(&path);
    // Its record is gone too.
    daemon.stop();
    let daemon = room.start();
    daemon.token("test");
    assert!(!path.exists());
}

#[test]
fn the_bare_name_keeps_the_meaning_that_it_had_when_the_program_was_started() {
    let server = Server::with_lifetime(3600);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test:work", "alice");
    daemon.log_in("test:home", "bob");
    room.ctl(&["use", "test:work"]).ok();
    let program = Program::start(&room, &["test"]);
    room.ctl(&["use", "test:home"]).ok();
    assert_eq!(daemon.ask("test").json()["grant"], "test:home");
    assert_eq!(program.ask("test").json()["grant"], "test:work");
    assert_eq!((program.ask("test:work").status, program.ask("test:home").status), (200, 403));
    room.ctl(&["logout", "test:work", "--forget"]).ok();
    let answer = program.ask("test");
    assert_eq!((answer.status, answer.json()["hint"].as_str()), (401, Some("mcp-authctl login test:work")));
    assert!(!answer.body.contains("home"), "{}", answer.body);
    program.end();
}

#[test]
fn the_command_line_works_on_such_a_socket_and_says_what_is_not_allowed() {
    let server = Server::with_lifetime(3600);
    let mut room = room_at(&server);
    let daemon = room.start();
    two_grants(&daemon);
    let program = Program::start(&room, &["test"]);
    room.set("MCP_AUTHD_SOCKET", program.socket.to_str().unwrap());
    let token = room.ctl(&["token", "test"]).ok().stdout;
    assert!(server.is_active(token.trim()));
    room.ctl(&["token", "other"]).fails_with(6).says("for access tokens of `test` and nothing else");
    room.ctl(&["status"]).fails_with(6);
    room.ctl(&["exec", "--only", "other", "--", "true"]).fails_with(6);
    program.end();
}

#[test]
fn a_grant_that_is_not_there_starts_no_program() {
    let server = Server::with_lifetime(3600);
    let room = Room::at(&server);
    let daemon = room.start();
    room.ctl(&["exec", "--only", "test", "--", "touch", "started"]).fails_with(3).says("hint: mcp-authctl login test");
    daemon.log_in("test", "alice");
    room.ctl(&["exec", "--", "true"]).fails_with(2);
    room.ctl(&["exec", "--only", "Test", "--", "true"]).fails_with(2);
    assert!(!room.path("started").exists());
    // A token in a variable and a socket go together; whatever else is in the environment stays.
    let script = "test -n \"$X\" && test -S \"$MCP_AUTHD_SOCKET\" && test \"$MCP_AUTHD_CONFIG\" = \"$1\"";
    let config = room.path("config.toml");
    room.ctl(&["exec", "--set", "X=test", "--only", "test", "--", "sh", "-c", script, "sh", config.to_str().unwrap()]).ok();
}

#[test]
fn one_process_has_one_socket_for_the_same_grants() {
    let server = Server::with_lifetime(3600);
    let room = room_at(&server);
    let daemon = room.start();
    two_grants(&daemon);
    let open = |grants: Value| daemon.call("POST", "/v1/capabilities", &json!({ "grants": grants }));
    let first = open(json!(["test", "other"])).json()["socket"].clone();
    assert_eq!(open(json!(["other", "test", "test"])).json()["socket"], first);
    assert_ne!(open(json!(["test"])).json()["socket"], first);
    for bad in [json!([]), json!(["Test"]), json!(vec!["test"; 17])] {
        assert_eq!(open(bad.clone()).json()["error"], "invalid_request", "{bad}");
    }
    assert_eq!(open(json!(["nobody"])).json()["error"], "unknown_grant");
}

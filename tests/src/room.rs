//! A room of its own for one test: a home, a state folder, a runtime folder, a config, and the real programs in it.

mod neighbours;
mod probes;
mod systemd;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mcp_auth_proto::LoginEvent;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use neighbours::{AS_STRANGER, OWNER, STRANGER, give};
pub use probes::attempts;
pub use systemd::Systemd;

use crate::binaries::{bare_command, require};
use crate::browse::{Answer, Person};
use crate::events::Events;
use crate::http::{Connection, HttpAnswer};
use crate::rogue::Rogue;
use crate::run::{Output, Running, run};
use crate::server::Server;
use crate::terminal::OnTerminal;
use crate::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

/// The private place of one test. Several daemons may be started in it, one after the other or (to fail) at once.
#[derive(Debug)]
pub struct Room {
    folder: TempDir,
    environment: Vec<(String, String)>,
    daemon: &'static str,
    /// The user as whom the programs run, if it is not the test's own.
    owner: Option<u32>,
    /// The words before a daemon's own path.
    launcher: Vec<String>,
}

impl Room {
    /// A room with this config.toml and a key file as key source.
    #[track_caller]
    pub fn with_config(config: &str) -> Self {
        let mut room = Self::without_key_source(config);
        room.set("MCP_AUTHD_KEY_SOURCE", "key-file");
        room
    }

    /// A room where no key source is chosen yet.
    #[track_caller]
    pub fn without_key_source(config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("authd").tempdir().unwrap();
        let mut room = Self { folder, environment: Vec::new(), daemon: "mcp-authd", owner: None, launcher: Vec::new() };
        for name in ["home", "state", "run"] {
            std::fs::create_dir(room.path(name)).unwrap();
            std::fs::set_permissions(room.path(name), Permissions::from_mode(0o700)).unwrap();
        }
        room.write_config(config);
        for (variable, name) in [("HOME", "home"), ("XDG_RUNTIME_DIR", "run"), ("MCP_AUTHD_STATE_DIR", "state")] {
            room.set(variable, room.path(name).to_str().unwrap());
        }
        room.set("MCP_AUTHD_SOCKET", room.socket().to_str().unwrap());
        room.set("MCP_AUTHD_CONFIG", room.path("config.toml").to_str().unwrap());
        room.set("MCP_AUTHD_LOG", "trace");
        room
    }

    /// A room for one provider `test` at this server, with the public client.
    #[track_caller]
    pub fn at(server: &Server) -> Self {
        Self::with_config(&provider_table("test", server, ""))
    }

    /// A room for one provider `test` at this misbehaving server.
    #[track_caller]
    pub fn at_rogue(rogue: &Rogue) -> Self {
        Self::with_config(&rogue.provider_table("test", ""))
    }

    /// Every daemon of this room is from now on the one with failpoints, none of them armed.
    pub fn use_failpoints(&mut self) {
        self.daemon = "mcp-authd-failpoints";
        self.set("MCP_AUTHD_FAILPOINTS", self.path("failpoints").to_str().unwrap());
    }

    /// Arms these failpoints (`STEP=ACTION`), in a running daemon too, and no others.
    pub fn arm(&self, failpoints: &[&str]) {
        // Replaced whole: the daemon may be reading it.
        std::fs::write(self.path("failpoints.new"), failpoints.join("\n")).unwrap();
        std::fs::rename(self.path("failpoints.new"), self.path("failpoints")).unwrap();
    }

    /// A path in the room.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.path("run/mcp-authd/mcp-authd.sock")
    }

    /// Sets a variable for every program started from now on.
    pub fn set(&mut self, variable: &str, value: &str) {
        self.unset(variable);
        self.environment.push((variable.to_owned(), value.to_owned()));
    }

    /// What a variable is set to.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.environment.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
    }

    /// Takes a variable away.
    pub fn unset(&mut self, variable: &str) {
        self.environment.retain(|(name, _)| name != variable);
    }

    /// Replaces config.toml.
    pub fn write_config(&self, config: &str) {
        std::fs::write(self.path("config.toml"), config).unwrap();
    }

    /// A command in the room's environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = bare_command(program);
        command.envs(self.environment.iter().cloned()).current_dir(self.folder.path());
        if let Some(uid) = self.owner {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub fn start(&self) -> Daemon<'_> {
        self.answering(self.spawn())
    }

    /// Starts the daemon as a service manager does, with the socket handed over, and waits until it answers.
    #[track_caller]
    pub fn start_activated(&self) -> Daemon<'_> {
        std::fs::create_dir_all(self.socket().parent().unwrap()).unwrap();
        let mut command = self.command(&self.program("activate"));
        command.arg(self.socket()).arg(self.program(self.daemon));
        self.answering(Running::start(command, "daemon", false))
    }

    /// Starts the daemon under another program that becomes it (`unshare -T --boottime 60`), and waits until it answers.
    #[track_caller]
    pub fn start_under(&self, wrapper: &[&str]) -> Daemon<'_> {
        let mut command = self.command(Path::new(wrapper[0]));
        command.args(&wrapper[1..]).arg(self.program(self.daemon));
        self.answering(Running::start(command, "daemon", false))
    }

    /// Starts the daemon under a tracer: its system calls go to the file `trace`, as `strace` writes them.
    #[track_caller]
    pub fn start_traced(&self, trace: &Path, calls: &str) -> Daemon<'_> {
        let mut command = self.command(&require("strace", "strace"));
        // -D: the process that is started is the daemon; the tracer stands beside it.
        command.args(["-D", "-f", "-y", "-yy", "-x", "-s", "100000", "-e", calls, "-o"]).arg(trace).arg(self.program(self.daemon));
        self.answering(Running::start(command, "daemon", false))
    }

    #[track_caller]
    fn answering(&self, running: Running) -> Daemon<'_> {
        let mut daemon = Daemon { room: self, running };
        wait_until("an answer of the daemon", PATIENCE, || {
            assert!(daemon.running.is_alive(), "the daemon ended: {}", daemon.running.said());
            let answer = Connection::unix(&self.socket()).and_then(|mut connection| connection.request("GET", "/v1/status", &[], ""));
            // In another user's room the test is root, who gets a sentence.
            answer.ok().filter(|answer| answer.status == 200 || self.owner.is_some())
        });
        daemon.running.keep_proc("ready");
        daemon
    }

    /// Starts a daemon and does not wait.
    #[track_caller]
    pub fn spawn(&self) -> Running {
        let mut words = self.launcher.iter().map(PathBuf::from).chain([self.program(self.daemon)]);
        let mut command = self.command(&words.next().expect("a daemon"));
        command.args(words);
        Running::start(command, "daemon", false)
    }

    /// Runs `mcp-authctl` to its end.
    #[track_caller]
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_typing(arguments, "")
    }

    /// Runs `mcp-authctl` with a line on its stdin.
    #[track_caller]
    pub fn ctl_typing(&self, arguments: &[&str], line: &str) -> Output {
        let (command, label, holds_a_token) = self.ctl_command(arguments);
        run(command, &label, line, holds_a_token)
    }

    /// Starts `mcp-authctl` and leaves it running.
    #[track_caller]
    pub fn ctl_spawn(&self, arguments: &[&str]) -> Running {
        let (command, label, holds_a_token) = self.ctl_command(arguments);
        Running::start(command, &label, holds_a_token)
    }

    /// Runs `mcp-authctl` on a terminal and leaves it running.
    #[track_caller]
    pub fn ctl_on_terminal(&self, arguments: &[&str]) -> OnTerminal {
        let (command, label, _) = self.ctl_command(arguments);
        OnTerminal::start(command, &label)
    }

    /// `mcp-authctl` in the room's environment, its label, and whether its stdout holds a token.
    fn ctl_command(&self, arguments: &[&str]) -> (Command, String, bool) {
        let mut command = self.command(&self.program("mcp-authctl"));
        command.args(arguments);
        let verb = arguments.first().copied().unwrap_or("none");
        (command, format!("ctl-{verb}"), matches!(verb, "token" | "headers") && !arguments.contains(&"--fingerprint"))
    }
}

/// A running daemon. Killed when dropped.
#[derive(Debug)]
pub struct Daemon<'a> {
    room: &'a Room,
    /// Its process.
    pub running: Running,
}

impl Daemon<'_> {
    /// A request on a fresh connection.
    #[track_caller]
    pub fn call(&self, method: &str, target: &str, body: &Value) -> HttpAnswer {
        let answer = self.connect().json(method, target, body);
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}; the daemon said: {}", self.running.said()))
    }

    /// A `GET` on a fresh connection, as JSON.
    #[track_caller]
    pub fn show(&self, target: &str) -> Value {
        self.connect().request("GET", target, &[], "").unwrap().json()
    }

    /// A fresh connection.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::unix(&self.room.socket()).unwrap()
    }

    /// `POST /v1/token`, as the daemon answers it.
    #[track_caller]
    pub fn ask(&self, grant: &str) -> HttpAnswer {
        self.call("POST", "/v1/token", &json!({ "grant": grant }))
    }

    /// An access token, or a failure.
    #[track_caller]
    pub fn token(&self, grant: &str) -> String {
        let answer = self.ask(grant);
        assert_eq!(answer.status, 200, "no token of {grant}: {}; the daemon said: {}", answer.body, self.running.said());
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// The error code of an answer that must be a refusal with a sentence and, where `hint` says so, a hint.
    #[track_caller]
    pub fn refusal(&self, grant: &str) -> String {
        let answer = self.ask(grant);
        assert_ne!(answer.status, 200, "a token of {grant} was served");
        let body = answer.json();
        assert!(body["error_description"].as_str().is_some_and(|sentence| !sentence.is_empty()), "no sentence: {body}");
        assert!(body["hint"].is_string(), "no hint: {body}");
        body["error"].as_str().unwrap().to_owned()
    }

    /// Logs `person` in over the socket, with the pages answered by HTTP. The grant is `provider` or `provider:LABEL`.
    #[track_caller]
    pub fn log_in(&self, grant: &str, person: &str) {
        let mut login = self.start_login(&login_request(grant));
        let url = login.wait_for_url();
        let end = Person::named(person).browse_to_the_end(&url, Answer::Yes);
        assert_eq!(end.status, 200, "the end page: {}", end.body);
        match login.last() {
            LoginEvent::Done { .. } => {}
            other => panic!("the login of {grant} ended with {other:?}; the daemon said: {}", self.running.said()),
        }
    }

    /// `POST /v1/logins`; the events come as they happen.
    #[track_caller]
    pub fn start_login(&self, request: &Value) -> LoginStream {
        let mut connection = self.connect();
        connection.send("POST", "/v1/logins", &[], &request.to_string()).unwrap();
        let (status, headers) = connection.read_head().unwrap();
        assert_eq!(status, 200, "the login did not start: {headers:?}; the daemon said: {}", self.running.said());
        LoginStream { connection, buffer: Vec::new(), seen: Vec::new() }
    }

    /// Follows `GET /v1/events` from now on.
    #[track_caller]
    pub fn follow(&self) -> Events {
        let mut connection = self.connect();
        connection.send("GET", "/v1/events", &[], "").unwrap();
        let (status, _) = connection.read_head().unwrap();
        assert_eq!(status, 200, "no events");
        Events::of(connection)
    }

    /// SIGTERM, and its orderly end.
    #[track_caller]
    pub fn stop(mut self) -> Output {
        self.running.keep_proc("stop");
        self.running.signal(Signal::TERM);
        self.running.wait()
    }

    /// `kill -9`.
    #[track_caller]
    pub fn kill(mut self) {
        self.running.keep_proc("kill");
        self.running.signal(Signal::KILL);
        self.running.wait();
    }
}

/// The events of one login.
#[derive(Debug)]
pub struct LoginStream {
    connection: Connection,
    buffer: Vec<u8>,
    seen: Vec<LoginEvent>,
}

impl LoginStream {
    /// The next event; `None` at the end of the stream.
    #[track_caller]
    pub fn next_event(&mut self) -> Option<LoginEvent> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let event: LoginEvent = serde_json::from_slice(&line)
                    .unwrap_or_else(|error| panic!("not an event ({error}): {}", String::from_utf8_lossy(&line)));
                self.seen.push(event.clone());
                return Some(event);
            }
            self.buffer.extend(self.connection.read_chunk().unwrap()?);
        }
    }

    /// Waits for the authorization URL.
    #[track_caller]
    pub fn wait_for_url(&mut self) -> String {
        loop {
            match self.next_event() {
                Some(LoginEvent::OpenUrl { url, .. }) => return url,
                Some(LoginEvent::Failed { error }) => panic!("the login failed: {error:?}"),
                Some(_) => {}
                None => panic!("the login ended without a URL: {:?}", self.seen),
            }
        }
    }

    /// Reads to the end: the last event.
    #[track_caller]
    pub fn last(&mut self) -> LoginEvent {
        while self.next_event().is_some() {}
        self.seen.last().cloned().expect("a login without events")
    }

    /// The login's id and whether it was joined, from its first event.
    #[track_caller]
    pub fn started(&mut self) -> (String, bool) {
        while self.seen.is_empty() && self.next_event().is_some() {}
        match self.seen.first() {
            Some(LoginEvent::Started { id, joined, .. }) => (id.clone(), *joined),
            other => panic!("the first event is {other:?}"),
        }
    }
}

/// A `[providers.NAME]` table for the public client at this server, with further lines.
pub fn provider_table(name: &str, server: &Server, more: &str) -> String {
    let issuer = server.issuer();
    format!("[providers.{name}]\nissuer = \"{issuer}\"\nclient_id = \"native\"\nscopes = [\"openid\", \"offline_access\"]\n{more}\n")
}

fn login_request(grant: &str) -> Value {
    match grant.split_once(':') {
        Some((provider, label)) => json!({ "provider": provider, "account": label }),
        None => json!({ "provider": grant }),
    }
}

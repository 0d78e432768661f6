//! oidc-agent in a room of its own, as its manual has it run: one account with a rotating refresh token, the account's
//! password kept by the agent (`--pw-store`), so that it can write a new refresh token by itself.

use std::cell::{Cell, RefCell};
use std::fs::{File, Permissions};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::Rogue;
use mcp_auth_tests::{Room, require, wait_until};
use rustix::process::{Pid, Signal, kill_process_group};

pub(super) const NAME: &str = "oidc-agent";
const PACKAGE: &str = "oidc-agent-cli";
const PATIENCE: Duration = Duration::from_secs(20);

/// Its version, or a failure that names the package.
pub(super) fn version() -> String {
    let said = Command::new(require(NAME, PACKAGE)).arg("--version").output().unwrap().stdout;
    String::from_utf8_lossy(&said).trim().trim_start_matches(NAME).trim().to_owned()
}

/// The folder with its accounts, and the server that they are at.
pub(super) struct Home<'a> {
    room: Room,
    rogue: &'a Rogue,
    /// The account in use. A lost one is left behind: the next has another name.
    account: RefCell<String>,
    accounts: Cell<u32>,
}

/// What one of its commands came to; no code if it was still waiting when we gave up.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) took: Duration,
}

impl Answer {
    pub(super) fn is_ok(&self) -> bool {
        self.code == Some(0)
    }

    /// The token, if there is one.
    pub(super) fn token(&self) -> Option<&str> {
        Some(self.stdout.trim()).filter(|token| self.is_ok() && !token.is_empty())
    }

    /// The first line of what it complained about.
    pub(super) fn complaint(&self) -> &str {
        self.stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing")
    }

    #[track_caller]
    pub(super) fn ok(self) -> Self {
        assert!(self.is_ok(), "failed: {self:?}");
        self
    }
}

impl<'a> Home<'a> {
    pub(super) fn at(rogue: &'a Rogue) -> Self {
        let mut room = Room::without_key_source("");
        let accounts = room.path("accounts");
        std::fs::create_dir(&accounts).unwrap();
        std::fs::set_permissions(&accounts, Permissions::from_mode(0o700)).unwrap();
        std::fs::write(room.path("password"), "a password of the account\n").unwrap();
        room.set("OIDC_CONFIG_DIR", accounts.to_str().unwrap());
        let socket = room.path("run/agent.sock");
        room.set("OIDC_SOCK", socket.to_str().unwrap());
        Self { room, rogue, account: RefCell::default(), accounts: Cell::new(0) }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.room.path("run/agent.sock")
    }

    /// Starts the agent and waits until it answers, at a path without an old socket, as is its default. It does not begin a login by itself when one is lost: that would wait
    /// for a person who is not there.
    #[track_caller]
    pub(super) fn start(&self) -> Agent {
        // There is none the first time.
        let _ = std::fs::remove_file(self.socket());
        let mut command = self.room.command(&require(NAME, PACKAGE));
        command.arg("--console").arg("--pw-store").arg("--no-autoreauthenticate");
        command.arg(format!("--socket-path={}", self.socket().display()));
        let said = File::create(self.room.path("agent.log")).unwrap();
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        // It is two processes: they get a group of their own, to be killed together.
        let child = command.process_group(0).spawn().unwrap();
        let agent = Agent { child };
        wait_until("an answer of oidc-agent", PATIENCE, || {
            let mut command = self.room.command(&require("oidc-add", PACKAGE));
            command.arg("--loaded");
            run(command, PATIENCE).is_ok().then_some(())
        });
        agent
    }

    /// A new account from a refresh token that was got elsewhere. The agent uses it once, and loads the account.
    #[track_caller]
    pub(super) fn log_in(&self) {
        self.accounts.set(self.accounts.get() + 1);
        *self.account.borrow_mut() = format!("peer{}", self.accounts.get());
        let mut command = self.room.command(&require("oidc-gen", PACKAGE));
        command.args(["--manual", "--issuer", &self.rogue.issuer(), "--client-id", "native", "--client-secret", ""]);
        command.args(["--redirect-uri", "http://localhost:4242", "--scope", "mcp:read", "--rt-env=FIRST_TOKEN"]);
        command.args([&self.password(), "--prompt=none", "--confirm-default", self.account.borrow().as_str()]);
        command.env("FIRST_TOKEN", self.rogue.hand_out());
        run(command, PATIENCE).ok();
    }

    /// Loads the account into a fresh agent.
    pub(super) fn load(&self) -> Answer {
        let mut command = self.room.command(&require("oidc-add", PACKAGE));
        command.arg(self.password()).arg(self.account.borrow().as_str());
        run(command, PATIENCE)
    }

    /// Asks for a token as any client does; with `-f` it has to be a new one.
    pub(super) fn ask(&self, more: &[&str], patience: Duration) -> Answer {
        let mut command = self.room.command(&require("oidc-token", PACKAGE));
        command.args(more).arg(self.account.borrow().as_str());
        run(command, patience)
    }

    /// The same, to an end.
    pub(super) fn token(&self, more: &[&str]) -> Answer {
        self.ask(more, PATIENCE)
    }

    /// Whether a new token can be had, and the server takes it.
    pub(super) fn can_refresh(&self) -> Result<(), String> {
        let answer = self.token(&["-f"]);
        match answer.token() {
            Some(token) if self.rogue.is_active(token) => Ok(()),
            Some(_) => Err("the token is not valid".to_owned()),
            None => Err(answer.complaint().to_owned()),
        }
    }

    fn password(&self) -> String {
        format!("--pw-file={}", self.room.path("password").display())
    }
}

/// The running agent. Killed when dropped, both processes.
pub(super) struct Agent {
    child: Child,
}

impl Agent {
    /// Whose death ends it all.
    pub(super) fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Once it is waited for, its number may be another's.
        if self.is_alive() {
            // It may have ended just now.
            let _ = kill_process_group(self.group(), Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn run(mut command: Command, patience: Duration) -> Answer {
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status.code().unwrap_or(-1));
        }
        if began.elapsed() > patience {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = began.elapsed();
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Answer { code, stdout: read(&mut stdout), stderr: read(&mut stderr), took }
}

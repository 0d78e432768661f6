//! The binary on a pseudo-terminal: prompts without echo, pasted redirects, and the line that counts the seconds.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test crate; an unwrap is how it fails")]

mod canned;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use canned::{Daemon, NO_VAULT, Reply, UNLOCKED};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// A terminal, and what has appeared on it so far.
struct Terminal {
    master: File,
    child: Child,
    screen: String,
}

impl Terminal {
    /// Runs with the terminal as stdin and stderr and as the controlling one (`setsid --ctty`), or as stderr only.
    fn run(daemon: &Daemon, args: &[&str]) -> Self {
        Self::start(daemon, args, true, false)
    }

    /// As [`Self::run`], with stdout on the terminal too.
    fn on(daemon: &Daemon, args: &[&str]) -> Self {
        Self::start(daemon, args, true, true)
    }

    fn start(daemon: &Daemon, args: &[&str], typing: bool, printing: bool) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let side = || OpenOptions::new().read(true).write(true).open(&name).unwrap();
        let mut command = Command::new(if typing { "setsid" } else { "env" });
        command.args(if typing { &["--ctty", "--wait"][..] } else { &[] });
        command.arg(env!("CARGO_BIN_EXE_mcp-authctl")).args(args).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("TERM", "xterm").env("MCP_AUTHD_SOCKET", daemon.socket());
        let stdin = if typing { Stdio::from(side()) } else { Stdio::null() };
        let stdout = if printing { Stdio::from(side()) } else { Stdio::null() };
        let child = command.stdin(stdin).stderr(side()).stdout(stdout).spawn().unwrap();
        Self { master: File::from(master), child, screen: String::new() }
    }

    fn wait_for(&mut self, text: &str) {
        while !self.screen.contains(text) {
            let mut piece = [0; 1024];
            // EIO: nobody has the terminal open any more.
            let count = self.master.read(&mut piece).unwrap_or(0);
            assert!(count > 0, "{text:?} did not come: {:?}", self.screen);
            self.screen.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    }

    /// Waits for a prompt that no longer echoes: the prompt appears first.
    fn wait_for_prompt(&mut self, text: &str) {
        self.wait_for(text);
        while tcgetattr(&self.master).unwrap().local_modes.contains(LocalModes::ECHO) {
            std::thread::yield_now();
        }
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn exit_code(mut self) -> (Option<i32>, String) {
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = self.master.read(&mut piece) {
            self.screen.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        (self.child.wait().unwrap().code(), self.screen)
    }
}

const STARTED: &str = r#"{"event":"started","id":"L1","grant":"github","joined":false}"#;
const OPEN: &str =
    r#"{"event":"open_url","url":"https://a.example/","host":"a.example","redirect_uri":"http://127.0.0.1:1/callback","open":false}"#;
const DONE: &str = r#"{"event":"done","grant":{"name":"github","provider":"github","scopes":[],"state":"ok","refreshable":true}}"#;

const GRANT: &str = r#"[{"name":"github","provider":"github","scopes":[],"state":"ok","refreshable":true,"expires_in":100}]"#;

#[test]
fn a_token_is_typed_without_echo() {
    let daemon = Daemon::saying(200, r#"{"name":"github:pat","provider":"github","scopes":[],"state":"ok","refreshable":false}"#);
    let mut terminal = Terminal::run(&daemon, &["add-token", "github:pat"]);
    terminal.wait_for_prompt("token for github:pat: ");
    assert_eq!(daemon.asked(), "GET /v1/grants/github:pat");
    terminal.type_in("ghp_secret\n");
    assert_eq!(daemon.asked(), r#"PUT /v1/grants/github:pat {"access_token":"ghp_secret"}"#);
    let (code, screen) = terminal.exit_code();
    assert!(code == Some(0) && screen.contains("stored a token as github:pat") && !screen.contains("secret"), "{screen:?}");
}

/// A daemon without a vault: every key source but the keychain will do.
fn without_vault() -> Daemon {
    Daemon::new(|asked| match asked {
        "GET /v1/status" => Reply::Json(200, NO_VAULT.into()),
        r#"POST /v1/vault/setup {"key_source":"keychain"}"# => Reply::Json(
            409,
            r#"{"error":"conflict","error_description":"no keychain (Secret Service) answers on the D-Bus session bus","hint":"x"}"#.into(),
        ),
        _ => Reply::Json(200, r#"{"state":"unlocked","key_source":"passphrase"}"#.into()),
    })
}

/// What it was asked to change.
fn next_change(daemon: &Daemon) -> String {
    std::iter::repeat_with(|| daemon.asked()).find(|asked| !asked.starts_with("GET")).unwrap()
}

#[test]
fn a_logout_that_ends_more_than_its_grant_names_it_and_asks() {
    let grant = |name: &str| {
        format!(
            r#"{{"name":"{name}","provider":"google","account":"eve@x","scopes":[],"state":"ok","refreshable":true,"revokes_account":true}}"#
        )
    };
    for (typed, revokes) in [("y\n", true), ("\n", false), ("n\n", false)] {
        let (one, all) = (grant("google"), format!("[{},{}]", grant("google"), grant("google:drive")));
        let daemon = Daemon::new(move |asked| match asked {
            "GET /v1/grants/google" => Reply::Json(200, one.clone()),
            "GET /v1/grants" => Reply::Json(200, all.clone()),
            _ => Reply::Json(200, r#"{"grant":"google","revocation":"confirmed"}"#.into()),
        });
        let mut terminal = Terminal::run(&daemon, &["logout", "google"]);
        terminal.wait_for("revoking google ends every login of eve@x with this client, here (google:drive) and elsewhere");
        terminal.wait_for("revoke it? if not, google is only forgotten here [y/N]");
        terminal.type_in(typed);
        assert_eq!(terminal.exit_code().0, Some(0));
        assert_eq!((daemon.asked(), daemon.asked()), ("GET /v1/grants/google".into(), "GET /v1/grants".into()));
        assert_eq!(daemon.asked(), format!(r#"DELETE /v1/grants/google {{"revoke":{revokes}}}"#));
    }
}

#[test]
fn a_new_passphrase_is_typed_twice_and_must_be_the_same() {
    let daemon = without_vault();
    for (second, code) in [("one\n", 0), ("two\n", 1)] {
        let mut terminal = Terminal::run(&daemon, &["setup", "--key-source", "passphrase"]);
        terminal.wait_for_prompt("new passphrase: ");
        terminal.type_in("one\n");
        terminal.wait_for_prompt("the same again: ");
        terminal.type_in(second);
        assert_eq!(terminal.exit_code().0, Some(code));
    }
}

#[test]
fn setup_tries_the_keychain_first_and_takes_nothing_weaker_by_itself() {
    let daemon = without_vault();
    let mut terminal = Terminal::run(&daemon, &["setup"]);
    terminal.wait_for("which one? [1-2, Ctrl-C to decide later]");
    assert_eq!(next_change(&daemon), r#"POST /v1/vault/setup {"key_source":"keychain"}"#);
    for nothing in ["nonsense\n", "\n", "0\n", "3\n"] {
        terminal.type_in(nothing);
        terminal.wait_for(&format!("`{}` is none of them", nothing.trim()));
    }
    terminal.type_in("2\n");
    assert_eq!(next_change(&daemon), r#"POST /v1/vault/setup {"key_source":"key-file"}"#);
    let (code, screen) = terminal.exit_code();
    let told = screen.contains("the keychain cannot keep the vault's key: no keychain (Secret Service) answers on the D-Bus session bus");
    assert!(code == Some(0) && told && screen.contains("  2  key-file            a file beside the vault"), "{screen}");
}

#[test]
fn a_vault_that_is_there_and_locked_is_unlocked_by_setup() {
    let locked = NO_VAULT.replace(r#""needs_setup":true"#, r#""key_source":"passphrase""#);
    let daemon = Daemon::new(move |asked| match asked {
        "GET /v1/status" => Reply::Json(200, locked.clone()),
        _ => Reply::Json(200, r#"{"state":"unlocked","key_source":"passphrase"}"#.into()),
    });
    let mut terminal = Terminal::run(&daemon, &["setup"]);
    terminal.wait_for_prompt("passphrase: ");
    terminal.type_in("pw\n");
    assert_eq!(next_change(&daemon), r#"POST /v1/vault/unlock {"passphrase":"pw"}"#);
    assert_eq!(terminal.exit_code().0, Some(0));
}

#[test]
fn a_watch_is_drawn_again_at_each_change_counts_down_by_itself_and_ctrl_c_leaves_the_terminal_as_it_was() {
    let (events, lines) = std::sync::mpsc::channel();
    let lines = std::sync::Mutex::new(Some(lines));
    let state = std::sync::Arc::new(std::sync::Mutex::new(GRANT.to_owned()));
    let now = std::sync::Arc::clone(&state);
    let daemon = Daemon::new(move |asked| match asked {
        "GET /v1/status" => Reply::Json(200, UNLOCKED.into()),
        "GET /v1/events" => Reply::Lines(lines.lock().unwrap().take().unwrap()),
        _ => Reply::Json(200, now.lock().unwrap().clone()),
    });
    let mut terminal = Terminal::on(&daemon, &["status", "--watch"]);
    terminal.wait_for("100 s");
    terminal.wait_for("99 s");
    *state.lock().unwrap() = GRANT.replace(r#""state":"ok""#, r#""state":"login_required""#);
    events.send(r#"{"at":"2026-12-01T10:00:00Z","event":"login_required","grant":"github"}"#.to_owned()).unwrap();
    terminal.wait_for("LOGIN NEEDED");
    let questions = std::iter::from_fn(|| daemon.asked_already()).filter(|asked| asked == "GET /v1/grants").count();
    assert_eq!(questions, 2, "asked at the start and at the change, not in between");
    terminal.type_in("\x03");
    assert_eq!(terminal.child.wait().unwrap().signal(), Some(2), "as shells expect of Ctrl-C");
    let modes = tcgetattr(&terminal.master).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG), "{modes:?}");
    assert!(!terminal.screen.contains("\x1b[?"), "no mode of the terminal is changed");
}

#[test]
fn ctrl_c_at_a_prompt_is_130_and_leaves_the_terminal_as_it_was() {
    let daemon = without_vault();
    for (prompts, answers) in [(&["new passphrase: "][..], &["\x03"][..]), (&["new passphrase: ", "the same again: "], &["one\n", "\x03"])]
    {
        let mut terminal = Terminal::run(&daemon, &["setup", "--key-source", "passphrase"]);
        for (prompt, answer) in prompts.iter().zip(answers) {
            terminal.wait_for_prompt(prompt);
            terminal.type_in(answer);
        }
        assert_eq!(terminal.child.wait().unwrap().code(), Some(130));
        let modes = tcgetattr(&terminal.master).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG), "{modes:?}");
    }
}

#[test]
fn a_redirect_is_pasted_while_the_browser_is_waited_for() {
    let (daemon, events) = Daemon::with_login(|_| Reply::Json(204, String::new()));
    let mut terminal = Terminal::run(&daemon, &["login", "github"]);
    events.send(STARTED.into()).unwrap();
    events.send(OPEN.into()).unwrap();
    terminal.wait_for("or paste the address of the page it ends on");
    terminal.type_in("http://127.0.0.1:1/callback?code=c\n");
    assert!(daemon.asked().starts_with("POST /v1/logins "));
    assert_eq!(daemon.asked(), r#"POST /v1/logins/L1/redirect {"url":"http://127.0.0.1:1/callback?code=c"}"#);
    events.send(DONE.into()).unwrap();
    let (code, screen) = terminal.exit_code();
    assert!(code == Some(0) && screen.contains("logged in to github"), "{screen:?}");
}

#[test]
fn ctrl_c_on_the_terminal_cancels_a_login() {
    let (daemon, events) = Daemon::with_login(|_| Reply::Json(204, String::new()));
    let mut terminal = Terminal::run(&daemon, &["login", "github"]);
    events.send(STARTED.into()).unwrap();
    events.send(OPEN.into()).unwrap();
    terminal.wait_for("Ctrl-C cancels");
    terminal.type_in("\x03");
    assert!(daemon.asked().starts_with("POST /v1/logins "));
    assert_eq!(daemon.asked(), "closed");
    assert_ne!(terminal.exit_code().0, Some(0));
}

#[test]
fn the_seconds_are_counted_where_nobody_types() {
    let (daemon, events) = Daemon::with_login(|_| Reply::Json(204, String::new()));
    let mut terminal = Terminal::start(&daemon, &["login", "github"], false, false);
    events.send(STARTED.into()).unwrap();
    events.send(OPEN.into()).unwrap();
    terminal.wait_for("waiting for the browser ... 0 s (Ctrl-C cancels)");
    terminal.wait_for("waiting for the browser ... 1 s (Ctrl-C cancels)");
    events.send(DONE.into()).unwrap();
    let (code, screen) = terminal.exit_code();
    assert!(code == Some(0) && screen.contains("\r\x1b[Klogged in to github"), "{screen:?}");
}

const OTHER: &str = r#"{"event":"other_account","grant":"github","held":"alice","new":"bob"}"#;

#[test]
fn another_account_is_asked_about_and_the_answer_is_no_pasted_redirect() {
    for (typed, decision) in [("y\n", r#"{"replace":true}"#), ("\n", "{}"), ("no\n", "{}"), ("work\n", r#"{"account":"work"}"#)] {
        let (daemon, events) = Daemon::with_login(|_| Reply::Json(200, "{}".into()));
        let mut terminal = Terminal::run(&daemon, &["login", "github"]);
        for event in [STARTED, OPEN, OTHER] {
            events.send(event.into()).unwrap();
        }
        terminal.wait_for("github holds the login of alice, and bob has logged in");
        terminal.wait_for("replace it? [y/N], or a label to keep both (github:LABEL): ");
        terminal.type_in(typed);
        assert!(daemon.asked().contains(r#""asks":true"#));
        assert_eq!(daemon.asked(), format!("POST /v1/logins/L1/decision {decision}"));
        events.send(DONE.into()).unwrap();
        assert_eq!(terminal.exit_code().0, Some(0));
    }
}

#[test]
fn a_label_that_will_not_do_is_asked_for_again() {
    let (daemon, events) = Daemon::with_login(|asked| match asked.contains("taken") {
        true => Reply::Json(409, canned::error("conflict", "")),
        false => Reply::Json(200, "{}".into()),
    });
    let mut terminal = Terminal::run(&daemon, &["login", "github", "--device"]);
    events.send(STARTED.into()).unwrap();
    events.send(OTHER.into()).unwrap();
    terminal.wait_for("(github:LABEL): ");
    terminal.type_in("taken\n");
    terminal.wait_for("it did not work");
    terminal.type_in("free\n");
    daemon.asked();
    assert_eq!(daemon.asked(), r#"POST /v1/logins/L1/decision {"account":"taken"}"#);
    assert_eq!(daemon.asked(), r#"POST /v1/logins/L1/decision {"account":"free"}"#);
    events.send(DONE.into()).unwrap();
    assert_eq!(terminal.exit_code().0, Some(0));
}

const UNREGISTERED: &str = r#"{"name":"github","configured":false,"has_client_secret":false,"needs_client_secret":true,"device_flow":true,"scopes":[],"redirect_uri":"http://127.0.0.1/callback","registration_steps":["Open the page","Run: mcp-authctl provider add github"],"missing":["client_id"]}"#;

/// Its first login fails for want of a client, the next one is done.
fn without_client(provider: String) -> Daemon {
    let failed = r#"{"event":"failed","error":{"error":"conflict","error_description":"no client id"}}"#;
    let logins = std::sync::Mutex::new(vec![DONE, failed]);
    Daemon::new(move |asked| match asked.split(' ').next() {
        Some("GET") => Reply::Json(200, format!("[{provider}]")),
        Some("PUT") => Reply::Json(200, provider.clone()),
        _ => {
            let (sender, lines) = std::sync::mpsc::channel();
            sender.send(logins.lock().unwrap().pop().unwrap().to_owned()).unwrap();
            Reply::Lines(lines)
        }
    })
}

#[test]
fn a_first_login_asks_for_the_client_and_goes_on() {
    for (secret, kept) in [("hush\n", true), ("\n", false)] {
        let daemon = without_client(UNREGISTERED.to_owned());
        let mut terminal = Terminal::run(&daemon, &["login", "github"]);
        terminal.wait_for("client id: ");
        terminal.type_in(" Ov23li \n");
        terminal.wait_for_prompt("if the client's device flow is on): ");
        terminal.type_in(secret);
        assert!(daemon.asked().starts_with("POST /v1/logins"));
        let mut asked = Vec::new();
        while asked.len() < 3 + usize::from(kept) {
            asked.extend(Some(daemon.asked()).filter(|asked| asked != "closed"));
        }
        assert_eq!(asked[..2], ["GET /v1/providers", r#"PUT /v1/providers/github {"client_id":"Ov23li"}"#]);
        assert_eq!(asked[2] == r#"PUT /v1/providers/github/secret {"client_secret":"hush"}"#, kept, "{asked:?}");
        let (code, screen) = terminal.exit_code();
        assert!(code == Some(0) && screen.contains("  1. Open the page") && screen.contains("add-token github"), "{screen:?}");
        assert!(!screen.contains("Run: ") && !screen.contains("hush"), "{screen:?}");
    }
}

#[test]
fn a_first_login_at_a_server_of_ones_own_asks_where_that_is() {
    let auth0 = UNREGISTERED
        .replace("github", "auth0")
        .replace(r#""needs_client_secret":true"#, r#""base_url_example":"https://TENANT.auth0.com""#)
        .replace(r#"["client_id"]"#, r#"["base_url","client_id"]"#);
    let daemon = without_client(auth0);
    let mut terminal = Terminal::run(&daemon, &["login", "auth0"]);
    terminal.wait_for("base URL, such as https://TENANT.auth0.com with your own words in it: ");
    terminal.type_in("https://corp.auth0.com\n");
    terminal.wait_for("client id: ");
    terminal.type_in("abc\n");
    assert_eq!(terminal.exit_code().0, Some(0));
    let mut asked = std::iter::from_fn(|| Some(daemon.asked())).filter(|asked| asked != "closed");
    assert!(asked.next().unwrap().starts_with("POST /v1/logins"));
    assert_eq!(asked.next().unwrap(), "GET /v1/providers");
    assert_eq!(asked.next().unwrap(), r#"PUT /v1/providers/auth0 {"base_url":"https://corp.auth0.com","client_id":"abc"}"#);
}

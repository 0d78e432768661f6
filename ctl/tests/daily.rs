//! `setup`, `doctor` and `status --watch` on pipes, against canned answers.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test crate; an unwrap is how it fails")]

mod canned;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use canned::{Daemon, NO_VAULT, Ran, Reply, UNLOCKED, ctl, error, finish, piped};

const GRANTS: &str = r#"[
    {"name":"github","provider":"github","account":"octocat","scopes":["repo"],"state":"ok","refreshable":true,"expires_in":90,
     "expires_at":"2026-12-01T10:00:00Z"},
    {"name":"acme","provider":"acme","account":"zoe@corp.example","scopes":["repo"],"state":"login_required","refreshable":true,
     "remedy":"mcp-authctl login acme"}]"#;
const REACHES: &str = r#"[
    {"provider":"github","host":"github.com","builtin":true,"milliseconds":120,"clock_ahead":-90},
    {"provider":"acme","host":"git.corp.example","error":"cannot connect to git.corp.example: no connection in time"}]"#;

/// A daemon with a status of its own, in a folder of its own with the config in it.
fn daemon(status: &str) -> Daemon {
    let status = status.to_owned();
    let daemon = Daemon::new(move |asked| match asked {
        "GET /v1/status" => Reply::Json(200, status.clone()),
        "GET /v1/grants" => Reply::Json(200, GRANTS.into()),
        "GET /v1/doctor" => Reply::Json(200, REACHES.into()),
        r#"POST /v1/vault/setup {"key_source":"keychain"}"# => Reply::Json(409, error("conflict", "")),
        "POST /v1/reload" => Reply::Json(200, r#"{"path":"/c.toml"}"#.into()),
        _ => Reply::Json(200, r#"{"state":"unlocked","key_source":"passphrase"}"#.into()),
    });
    std::fs::set_permissions(daemon.folder(), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::set_permissions(daemon.socket(), PermissionsExt::from_mode(0o600)).unwrap();
    daemon
}

/// The first thing that it was asked to change.
fn change(daemon: &Daemon) -> Option<String> {
    std::iter::from_fn(|| daemon.asked_already()).find(|asked| !asked.starts_with("GET"))
}

/// Runs with the person's home and runtime folder below `home`, and further variables.
fn run_in(daemon: &Daemon, home: &Path, args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = daemon.command(args);
    command.env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run")).envs(variables.iter().copied());
    finish(command)
}

#[test]
fn setup_without_a_terminal_takes_what_it_is_told_and_nothing_weaker() {
    let fresh = daemon(NO_VAULT);
    let made = fresh.run_with_stdin(&["setup", "--key-source", "passphrase"], "new\n");
    let expected = format!(
        "[ok] daemon   mcp-authd 0.1.0 at {}\n[ok] vault    unlocked, key source passphrase\n[ok] network  no proxy\n\
         next: mcp-authctl login github      (others: mcp-authctl provider list)\n",
        fresh.socket().display()
    );
    // Whether there is a service manager is the machine's.
    let told: String =
        made.stderr.split_inclusive('\n').filter(|line| !line.contains("service") && !line.starts_with("     hint")).collect();
    assert_eq!((made.code, &*made.stdout, told), (Some(0), "", expected));
    assert_eq!(change(&fresh).unwrap(), r#"POST /v1/vault/setup {"key_source":"passphrase","passphrase":"new"}"#);
    for args in [&["setup"][..], &["setup", "--yes"]] {
        let refused = fresh.run(args);
        let expected = "error: the keychain cannot keep the vault's key: it did not work\n\
            hint: mcp-authctl setup --key-source passphrase (typed, or from stdin), or --key-source key-file (no safer than the disk)\n";
        assert!(refused.code == Some(1) && refused.stderr.ends_with(expected), "{refused:?}");
        assert_eq!(change(&fresh).unwrap(), r#"POST /v1/vault/setup {"key_source":"keychain"}"#);
        assert_eq!(change(&fresh), None);
    }
}

#[test]
fn setup_run_again_says_what_is_there_and_changes_nothing() {
    let there = daemon(UNLOCKED);
    let again = there.run(&["setup", "--yes"]);
    assert!(again.code == Some(0) && again.stderr.contains("[ok] vault    unlocked, key source passphrase"), "{again:?}");
    assert_eq!(change(&there), None);
    let json: serde_json::Value = serde_json::from_str(&there.run(&["setup", "--json"]).stdout).unwrap();
    assert_eq!(json["vault"]["state"], "unlocked");
    there.run(&["setup", "--key-source", "key-file"]);
    let asked = change(&there).unwrap();
    assert_eq!(asked, r#"POST /v1/vault/setup {"key_source":"key-file"}"#, "the daemon says why not, and what to do instead");
    let locked =
        daemon(&UNLOCKED.replace("unlocked", "locked").replace("\"passphrase\"", "\"passphrase\",\"hint\":\"mcp-authctl unlock\""));
    let run = locked.run(&["setup"]);
    assert_eq!((run.code, change(&locked)), (Some(7), None));
    assert!(run.stderr.ends_with("error: the vault is there, and locked\nhint: mcp-authctl unlock\n"), "{run:?}");
}

#[test]
fn setup_copies_proxy_settings_beside_what_stands_in_the_config() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config.toml");
    let status = UNLOCKED.replace("/c.toml", config.to_str().unwrap());
    let proxied = [("HTTPS_PROXY", "http://proxy.corp:3128"), ("NO_PROXY", "localhost,.corp"), ("SSL_CERT_FILE", "/ca.pem")];
    let asked = daemon(&status);
    let run = run_in(&asked, home.path(), &["setup"], &proxied);
    assert!(run.code == Some(0) && run.stderr.contains("hint: mcp-authctl setup --yes"), "{run:?}");
    assert!(!config.exists(), "nothing is written unasked");

    std::fs::write(&config, "# mine\n[network]\nca_file = \"/own.pem\"\n").unwrap();
    assert_eq!(run_in(&asked, home.path(), &["setup", "--yes"], &proxied).code, Some(0));
    let expected = "# mine\n[network]\nca_file = \"/own.pem\"\nproxy = \"http://proxy.corp:3128\"\nno_proxy = [\"localhost\", \".corp\"]\n";
    assert_eq!(std::fs::read_to_string(&config).unwrap(), expected);
    assert_eq!(config.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(change(&asked).unwrap(), "POST /v1/reload");

    let secret = run_in(&asked, home.path(), &["setup", "--yes"], &[("HTTPS_PROXY", "http://me:hunter2@proxy.corp:3128")]);
    assert!(secret.stderr.contains("HTTPS_PROXY holds a password") && !secret.stderr.contains("hunter2"), "{secret:?}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), expected);
}

#[test]
fn a_config_that_the_daemon_does_not_take_is_put_back() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config.toml");
    let status = UNLOCKED.replace("/c.toml", config.to_str().unwrap());
    let refusing = Daemon::new(move |asked| match asked {
        "GET /v1/status" => Reply::Json(200, status.clone()),
        _ => Reply::Json(400, error("invalid_request", ",\"hint\":\"do this\"")),
    });
    for old in [None, Some("# mine\n")] {
        if let Some(text) = old {
            std::fs::write(&config, text).unwrap();
        }
        let run = run_in(&refusing, home.path(), &["setup", "--yes"], &[("HTTPS_PROXY", "nonsense://p")]);
        assert!(run.code == Some(1) && run.stderr.ends_with("error: it did not work; the file is as it was\nhint: do this\n"), "{run:?}");
        assert_eq!(std::fs::read_to_string(&config).ok().as_deref(), old);
    }
}

#[test]
fn doctor_says_of_each_fault_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join(".mcp-auth")).unwrap();
    let vault = home.path().join("vault");
    std::fs::create_dir(&vault).unwrap();
    std::fs::set_permissions(&vault, PermissionsExt::from_mode(0o755)).unwrap();
    let status = UNLOCKED
        .replace(r#""key_source":"passphrase""#, &format!(r#""key_source":"passphrase","folder":"{}","quarantined":2"#, vault.display()))
        .replace(r#""not_durable":0"#, r#""not_durable":1,"network":{"proxy":{"value":"http://p:1","from":"config.toml"}}"#);
    let asked = daemon(&status);
    let run = run_in(&asked, home.path(), &["doctor"], &[("SSL_CERT_FILE", "/ca.pem")]);
    let expected = format!(
        "\
[ok]      programs  mcp-authctl 0.1.0, mcp-authd 0.1.0
[ok]      socket    {socket} (0600, folder 0700)
[ok]      config    /c.toml is not there, and need not be
[ok]      vault     unlocked, key source passphrase
[failed]  vault     its folder {vault} is open to others (mode 0755)
                    hint: chmod 700 '{vault}'
[warning] vault     2 damaged records were put aside
                    hint: log in again for what `mcp-authctl status` misses, or restore a backup
[failed]  disk      the newest tokens of 1 grants are in memory only, the disk refuses them
                    hint: make room on the disk; the write is repeated until it succeeds
[warning] logins    LOGIN NEEDED: acme
                    hint: mcp-authctl login acme
[ok]      network   http://p:1 (config.toml)
[warning] network   SSL_CERT_FILE is set here, and mcp-authd trusts the platform's certificates alone
                    hint: mcp-authctl setup copies it to config.toml
[ok]      provider  github: github.com answers in 120 ms
[failed]  provider  acme: cannot connect to git.corp.example: no connection in time
                    hint: `mcp-authctl provider show acme` tells its addresses, and curl whether this machine reaches them
[warning] clock     this machine's clock is 90 s behind that of github.com
                    hint: {clock}
[note]    others    may hold tokens in the clear: ~/.mcp-auth (mcp-remote)
",
        socket = asked.socket().display(),
        vault = vault.display(),
        clock = if cfg!(target_os = "linux") { "timedatectl set-ntp true" } else { "let the system set its clock from the network" },
    );
    // Whether there is a service manager is the machine's.
    let mut lines: Vec<_> = run.stdout.split_inclusive('\n').collect();
    let service = lines.iter().position(|line| line.contains("] ") && line.contains(" service ")).unwrap();
    lines.remove(service);
    if lines[service].starts_with("    ") {
        lines.remove(service);
    }
    assert_eq!(lines.concat(), expected);
    assert_eq!((run.code, &*run.stderr), (Some(1), &*format!("error: 3 of 15 checks failed\nhint: chmod 700 '{}'\n", vault.display())));
}

#[test]
fn a_report_names_nobody_and_nothing_of_the_persons_own() {
    let home = tempfile::Builder::new().prefix("zoe-home").tempdir().unwrap();
    let path = home.path().join("c.toml");
    let status = UNLOCKED.replace("/c.toml", path.to_str().unwrap()).replace(
        r#""not_durable":0"#,
        r#""not_durable":0,"network":{"proxy":{"value":"http://proxy.corp.example:1","from":"HTTPS_PROXY"},
            "no_proxy":{"value":".corp.example","from":"NO_PROXY"},"ca_file":{"value":"/etc/ssl/corp.pem","from":"config.toml"}}"#,
    );
    let asked = daemon(&status);
    let whole = run_in(&asked, home.path(), &["doctor", "--json"], &[("USER", "zoe-home")]);
    for args in [&["doctor", "--report"][..], &["doctor", "--report", "--json"]] {
        let run = run_in(&asked, home.path(), args, &[("USER", "zoe-home")]);
        for (own, shown) in [("corp", "whole"), ("octocat", ""), ("zoe", "whole"), ("acme", "whole")] {
            assert!(!run.stdout.contains(own), "{own}: {}", run.stdout);
            assert!(shown.is_empty() || whole.stdout.contains(own), "{own} was never there to be left out");
        }
        assert!(!run.stderr.contains("corp") && !run.stderr.contains("zoe"), "{}", run.stderr);
        assert!(run.stdout.contains("github: github.com answers in 120 ms") && run.stdout.contains("~/c.toml"), "{}", run.stdout);
        assert!(run.stdout.contains("2 held, 1 need a login") && run.stdout.contains("no connection"), "{}", run.stdout);
    }
}

#[test]
fn doctor_without_a_daemon_says_how_to_start_it() {
    let home = tempfile::tempdir().unwrap();
    let mut command = ctl(&["doctor", "--json"]);
    command.env("HOME", home.path()).env("MCP_AUTHD_SOCKET", home.path().join("sock"));
    let run = finish(command);
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let socket = json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "socket").unwrap();
    assert_eq!((run.code, &socket["level"], &socket["hint"]), (Some(1), &"failed".into(), &"start it with `mcp-authd &`".into()));
    assert!(socket["detail"].as_str().unwrap().starts_with("mcp-authd is not running"), "{socket}");
}

#[test]
fn a_vault_that_is_locked_or_missing_fails_the_doctor_with_the_daemons_own_remedy() {
    let run = daemon(NO_VAULT).run(&["doctor"]);
    assert!(run.stdout.contains("[failed]  vault     locked: there is no vault yet\n"), "{}", run.stdout);
    assert!(run.stderr.ends_with("hint: mcp-authctl setup\n"), "{run:?}");
}

/// What a watched daemon says next.
type Said = Arc<Mutex<(String, String)>>;

/// A daemon whose status and grants the test changes, and whose every stream of events it gets the sender of.
fn watched() -> (Daemon, Said, std::sync::mpsc::Receiver<Sender<String>>) {
    let said: Said = Arc::new(Mutex::new((UNLOCKED.into(), GRANTS.into())));
    let (opened, streams) = channel();
    let now = Arc::clone(&said);
    let daemon = Daemon::new(move |asked| match asked {
        "GET /v1/status" => Reply::Json(200, now.lock().unwrap().0.clone()),
        "GET /v1/grants" => Reply::Json(200, now.lock().unwrap().1.clone()),
        _ => {
            let (sender, lines) = channel();
            opened.send(sender).unwrap();
            Reply::Lines(lines)
        }
    });
    (daemon, said, streams)
}

/// Only for a test that fails.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
const EVENT: &str = r#"{"at":"2026-12-01T10:00:00Z","event":"refreshed","grant":"github"}"#;

#[test]
fn on_a_pipe_a_watch_tells_each_change_in_a_line_and_outlives_the_daemon() {
    let (daemon, said, streams) = watched();
    let mut child = piped(&mut daemon.command(&["status", "--watch"]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let events = streams.recv_timeout(PATIENCE).unwrap();
    assert_eq!(lines.next().unwrap(), "vault unlocked, key source passphrase");
    assert_eq!(lines.next().unwrap(), "acme: LOGIN NEEDED");
    assert_eq!(lines.next().unwrap(), "github: ok, valid until 2026-12-01T10:00:00Z");

    said.lock().unwrap().1 = GRANTS.replace("T10:00:00Z", "T11:00:00Z");
    events.send(EVENT.into()).unwrap();
    assert_eq!(lines.next().unwrap(), "github: ok, valid until 2026-12-01T11:00:00Z");

    said.lock().unwrap().1 = "[]".into();
    drop(events);
    let events = streams.recv_timeout(PATIENCE).unwrap();
    assert_eq!(lines.next().unwrap(), "acme: logged out");
    assert_eq!(lines.next().unwrap(), "github: logged out");

    said.lock().unwrap().0 = UNLOCKED.replace("unlocked", "locked");
    events.send(EVENT.into()).unwrap();
    assert_eq!(lines.next().unwrap(), "vault locked, key source passphrase");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(2), "as shells expect of Ctrl-C");
    let mut told = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut told).unwrap();
    assert_eq!(told, "mcp-authd has ended; waiting until it is there again\n");
}

#[test]
fn a_watch_as_json_is_the_status_in_a_line_for_each_change() {
    let (daemon, _, streams) = watched();
    let mut child = piped(&mut daemon.command(&["status", "--watch", "--json"]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let events = streams.recv_timeout(PATIENCE).unwrap();
    for _ in 0..2 {
        let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        assert_eq!((&line["status"]["version"], &line["grants"][1]["name"]), (&"0.1.0".into(), &"github".into()));
        events.send(EVENT.into()).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_watch_of_a_daemon_that_never_ran_is_code_4() {
    let mut command = ctl(&["status", "--watch"]);
    command.env("MCP_AUTHD_SOCKET", "/nonexistent/sock");
    assert_eq!(finish(command).code, Some(4));
}

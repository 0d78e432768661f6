//! `login` against a daemon whose events the test sends, on pipes and on a terminal.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test crate; an unwrap is how it fails")]

mod canned;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use canned::{Daemon, Reply, error, piped, wait};

const STARTED: &str = r#"{"event":"started","id":"L1","grant":"github","joined":false}"#;
const URL: &str = "https://github.com/login/oauth/authorize?client_id=a&state=$(touch%20pwn)&x='";

fn open_url(url: &str, open: bool) -> String {
    format!(r#"{{"event":"open_url","url":"{url}","host":"github.com","redirect_uri":"http://127.0.0.1:1/callback","open":{open}}}"#)
}

fn done(scopes: &str) -> String {
    format!(
        r#"{{"event":"done","grant":{{"name":"github","provider":"github","account":"octocat","scopes":{scopes},"state":"ok","refreshable":true,"expires_at":"2026-12-01T10:00:00Z","expires_in":28800}}}}"#
    )
}

fn nothing_else(_: &str) -> Reply {
    Reply::Json(404, error("not_found", ""))
}

#[test]
fn a_login_tells_the_url_and_what_was_granted() {
    let (daemon, events) = Daemon::with_login(nothing_else);
    for event in [STARTED, &open_url(URL, true), r#"{"event":"exchanging"}"#, &done(r#"["repo","gist"]"#)] {
        events.send(event.to_owned()).unwrap();
    }
    let mut command = daemon.command(&["login", "github", "--scope", "repo", "--scope", "read:org"]);
    let run = wait(piped(command.env("SSH_CONNECTION", "1")));
    let expected = format!(
        "open this URL: (it leads to github.com)\n{URL}\n\
         no browser can be opened over SSH: open it on your own machine; the page it ends on does not load, \
         `mcp-authctl login github --no-browser` takes its address from stdin\n\
         or let it load: before you open it, run there `ssh -N -L 1:127.0.0.1:1 THIS_MACHINE`\n\
         waiting for the browser (Ctrl-C cancels)\n\
         warning: not granted: read:org; granted without being asked for: gist\n\
         logged in to github as octocat (scopes: repo, gist), valid until 2026-12-01T10:00:00Z (8 h)\n"
    );
    assert_eq!((run.code, &*run.stdout, &*run.stderr), (Some(0), "", &*expected));
    let asked = r#"POST /v1/logins {"provider":"github","scopes":["repo","read:org"],"headless":true,"browser":false,"interactive":true}"#;
    assert_eq!(daemon.asked(), "GET /v1/grants/github", "what it holds now, for the difference");
    assert_eq!(daemon.asked(), asked);
}

#[test]
fn the_grant_is_the_data_of_a_login() {
    let (daemon, events) = Daemon::with_login(nothing_else);
    events.send(done("[]")).unwrap();
    let run = daemon.run(&["login", "github", "--account", "work", "--callback-port", "8765", "--json"]);
    let grant: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &grant["account"]), (Some(0), &"octocat".into()));
    let asked = daemon.asked();
    assert!(asked.contains(r#""account":"work","callback_port":8765"#), "{asked}");
}

fn enter_code(page: &str, code: &str) -> String {
    format!(
        r#"{{"event":"enter_code","user_code":"{code}","verification_uri":"{page}","verification_uri_complete":"{page}?user_code={code}","host":"github.com","expires_in":900,"open":false}}"#
    )
}

#[test]
fn a_device_login_shows_page_and_code() {
    let (daemon, events) = Daemon::with_login(nothing_else);
    for event in [STARTED, &enter_code("https://github.com/login/device", "WDJB-MJHT"), &done("[]")] {
        events.send(event.to_owned()).unwrap();
    }
    let run = daemon.run(&["login", "github", "--device"]);
    let expected = "open this page on any device: (it belongs to github.com)\nhttps://github.com/login/device\n\
         and type this code: WDJB-MJHT   (good for 15 min)\ntype it only if you started this login yourself\n\
         waiting until that is done (Ctrl-C cancels)\n\
         logged in to github as octocat (scopes: none told), valid until 2026-12-01T10:00:00Z (8 h)\n";
    assert_eq!((run.code, &*run.stdout, &*run.stderr), (Some(0), "", expected));
    let asked = r#"POST /v1/logins {"provider":"github","flow":"device","headless":true,"browser":false,"interactive":true}"#;
    assert_eq!(daemon.asked(), asked);
}

#[test]
fn a_client_logs_itself_in_and_no_other_flow_goes_with_that() {
    let (daemon, events) = Daemon::with_login(nothing_else);
    for event in [STARTED, &done("[]")] {
        events.send(event.to_owned()).unwrap();
    }
    assert_eq!(daemon.run(&["login", "github", "--client-credentials"]).code, Some(0));
    let asked = r#"POST /v1/logins {"provider":"github","flow":"client_credentials","headless":true,"browser":false,"interactive":true}"#;
    assert_eq!(daemon.asked(), asked);
    for other in [&["--device"][..], &["--no-browser"], &["--callback-port", "1"]] {
        let args = [&["login", "github", "--client-credentials"], other].concat();
        assert_eq!(daemon.run(&args).code, Some(2), "{args:?}");
    }
}

#[test]
fn a_login_that_fails_or_breaks_off_says_so() {
    for (event, code, sentence) in [
        (Some(format!(r#"{{"event":"failed","error":{}}}"#, error("access_denied", ""))), 6, "error: it did not work\n"),
        (
            None,
            4,
            "error: mcp-authd went away before the login was done\n\
             hint: the same command again; if it does not run, start it with `mcp-authd &`\n",
        ),
    ] {
        let (daemon, events) = Daemon::with_login(nothing_else);
        if let Some(event) = event {
            events.send(event).unwrap();
        }
        drop(events);
        let run = daemon.run(&["login", "github"]);
        assert_eq!((run.code, &*run.stderr), (Some(code), sentence));
    }
}

#[test]
fn what_is_no_web_address_is_neither_shown_nor_opened() {
    for url in ["javascript:alert(1)", "file:///etc/passwd", "-flag", r"https://a/\u001b[2J", "https://a b"]
        .iter()
        .flat_map(|url| [open_url(url, true), enter_code(url, "WDJB-MJHT")])
    {
        let (daemon, events) = Daemon::with_login(nothing_else);
        events.send(url).unwrap();
        let mut command = daemon.command(&["login", "github"]);
        command.env("BROWSER", "/nonexistent/browser");
        let run = wait(piped(&mut command));
        assert_eq!(run.code, Some(1));
        assert!(run.stderr.starts_with("error: the authorization URL of this login is not a web address\n"), "{}", run.stderr);
        assert!(daemon.asked().contains(r#""browser":true"#));
        assert_eq!(daemon.asked(), "closed");
    }
}

/// A browser that tells its arguments and environment through a FIFO, so that the test can wait for it.
fn recorder(folder: &std::path::Path) -> (String, std::path::PathBuf) {
    let (script, fifo) = (folder.join("browser"), folder.join("fifo"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::fs::write(&script, format!("#!/bin/sh\n{{ printf '%s\\n' \"$#\" \"$@\"; env; }} > {}\n", fifo.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (script.display().to_string(), fifo)
}

#[test]
fn the_browser_gets_the_url_as_one_argument_and_no_secret() {
    let (daemon, events) = Daemon::with_login(nothing_else);
    let (script, fifo) = recorder(daemon.folder());
    let mut command = daemon.command(&["login", "github"]);
    command.env("BROWSER", format!("/nonexistent/browser:{script} --new-window")).env("GITHUB_TOKEN", "s").env("DISPLAY", ":0");
    events.send(STARTED.into()).unwrap();
    events.send(open_url(URL, true)).unwrap();
    let child = piped(&mut command);
    let seen = std::fs::read_to_string(fifo).unwrap();
    assert!(seen.starts_with(&format!("2\n--new-window\n{URL}\n")), "{seen}");
    assert!(seen.contains("DISPLAY=:0") && !seen.contains("GITHUB_TOKEN") && !seen.contains("MCP_AUTHD"), "{seen}");
    events.send(done("[]")).unwrap();
    assert_eq!(wait(child).code, Some(0));
}

#[test]
fn a_browser_is_opened_only_when_told_and_only_if_there_is_one() {
    for (variables, args, open, tells) in [
        (&[("BROWSER", "SCRIPT")][..], &["login", "github"][..], false, true),
        (&[("BROWSER", "SCRIPT")], &["login", "github", "--no-browser"], true, false),
        (&[("DISPLAY", ":0"), ("SSH_CONNECTION", "1")], &["login", "github"], true, false),
        (&[], &["login", "github"], true, false),
    ] {
        let (daemon, events) = Daemon::with_login(nothing_else);
        let trace = daemon.folder().join("trace");
        let script = daemon.folder().join("browser");
        std::fs::write(&script, format!("#!/bin/sh\ntouch {}\n", trace.display())).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = daemon.command(args);
        command.env("PATH", daemon.folder());
        for (name, value) in variables {
            command.env(name, value.replace("SCRIPT", script.to_str().unwrap()));
        }
        for event in [STARTED, &open_url(URL, open), &done("[]")] {
            events.send(event.to_owned()).unwrap();
        }
        let run = wait(piped(&mut command));
        assert!(run.code == Some(0) && !run.stderr.contains("no browser could be started") && !trace.exists(), "{args:?} {run:?}");
        assert_eq!(daemon.asked().contains(r#""browser":true"#), tells, "{args:?}");
    }
}

#[test]
fn an_opener_that_is_missing_is_one_line() {
    let (daemon, events) = Daemon::with_login(nothing_else);
    for event in [open_url(URL, true), done("[]")] {
        events.send(event).unwrap();
    }
    let mut command = daemon.command(&["login", "github"]);
    let run = wait(piped(command.env("BROWSER", "/nonexistent/browser")));
    assert_eq!((run.code, run.stderr.matches("warning: no browser could be started").count()), (Some(0), 1));
}

#[test]
fn a_pasted_url_is_handed_over_and_a_wrong_one_changes_nothing() {
    let (daemon, events) = Daemon::with_login(|asked| match asked.contains("right") {
        true => Reply::Json(204, String::new()),
        false => Reply::Json(400, error("invalid_request", "")),
    });
    let mut command = daemon.command(&["login", "github", "--no-browser"]);
    let mut child = piped(command.stdin(Stdio::piped()));
    events.send(STARTED.into()).unwrap();
    events.send(open_url(URL, false)).unwrap();
    assert!(daemon.asked().starts_with("POST /v1/logins "));
    let mut stdin = child.stdin.take().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    stdin.write_all(b"wrong\n\n").unwrap();
    assert_eq!(daemon.asked(), r#"POST /v1/logins/L1/redirect {"url":"wrong"}"#);
    assert!(stderr.any(|line| line.unwrap() == "error: it did not work"));
    stdin.write_all(b" http://127.0.0.1:1/callback?code=right \n").unwrap();
    assert_eq!(daemon.asked(), r#"POST /v1/logins/L1/redirect {"url":"http://127.0.0.1:1/callback?code=right"}"#);
    events.send(done("[]")).unwrap();
    assert!(stderr.any(|line| line.unwrap().starts_with("logged in to github as octocat")));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn stdin_is_left_alone_when_it_may_belong_to_a_script() {
    let (daemon, events) = Daemon::with_login(nothing_else);
    for event in [STARTED, &open_url(URL, false), &done("[]")] {
        events.send(event.to_owned()).unwrap();
    }
    assert_eq!(daemon.run_with_stdin(&["login", "github"], "the script's next line\n").code, Some(0));
    assert!(daemon.asked().starts_with("POST /v1/logins "));
    assert_eq!(daemon.asked(), "closed");
}

#[test]
fn ctrl_c_ends_the_login_with_130_and_the_daemon_sees_it_go() {
    let (daemon, events) = Daemon::with_login(nothing_else);
    // A run in the background has SIGINT ignored, and so would its children: what is caught here is back to normal there.
    signal_hook::flag::register(signal_hook::consts::SIGINT, std::sync::Arc::default()).unwrap();
    let mut command = daemon.command(&["login", "github"]);
    let mut child = piped(&mut command);
    events.send(STARTED.into()).unwrap();
    events.send(open_url(URL, false)).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(stderr.any(|line| line.unwrap().starts_with("waiting for the browser")));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    // Dying of SIGINT is what shells report as 130, and what makes a script around us stop too.
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    assert!(daemon.asked().starts_with("POST /v1/logins "));
    assert_eq!(daemon.asked(), "closed");
}

const HELD: &str = r#"{"name":"github","provider":"github","account":"octocat","scopes":["repo","gist"],"state":"ok","refreshable":true}"#;

#[test]
fn a_login_with_other_scopes_tells_what_it_changes() {
    let (daemon, events) = Daemon::with_login(|_| Reply::Json(200, HELD.into()));
    events.send(done(r#"["repo","read:org"]"#)).unwrap();
    let run = daemon.run(&["login", "github", "--scope", "repo read:org"]);
    assert!(run.stderr.starts_with("beside what github has now, new: read:org; no longer asked for: gist\n"), "{}", run.stderr);
    let (daemon, events) = Daemon::with_login(|_| Reply::Json(200, HELD.into()));
    events.send(done(r#"["repo","gist"]"#)).unwrap();
    assert!(daemon.run(&["login", "github", "--scope", "gist repo"]).stderr.starts_with("logged in"));
}

#[test]
fn a_token_without_an_end_and_an_account_that_is_there_already_are_told() {
    let (daemon, events) = Daemon::with_login(nothing_else);
    let grant = HELD.replace("\"refreshable\":true", "\"refreshable\":false");
    events.send(format!(r#"{{"event":"done","grant":{grant},"same_account":["github:me"]}}"#)).unwrap();
    let run = daemon.run(&["login", "github", "--no-expiring", "--replace", "--login-hint", "octocat"]);
    let expected = "warning: github:me is the same account; for another one, log out in the browser first, then log in here again\n\
         logged in to github as octocat (scopes: repo, gist), of unknown lifetime\n\
         the provider told no expiry, the token may be good for ever: mcp-authctl logout github ends it\n";
    assert_eq!((run.code, &*run.stderr), (Some(0), expected));
    assert_eq!(
        daemon.asked(),
        r#"POST /v1/logins {"provider":"github","headless":true,"login_hint":"octocat","without_refresh_scopes":true,"replace":true,"browser":false,"interactive":true}"#
    );
}

#[test]
fn an_exchange_begun_by_hand_takes_its_secrets_from_stdin_alone() {
    let uri = ["--redirect-uri", "https://a.example/cb"];
    let (daemon, events) = Daemon::with_login(nothing_else);
    events.send(done("[]")).unwrap();
    let run = daemon.run_with_stdin(&[&["login", "work", "--code", "-", "--verifier", "-"][..], &uri].concat(), "the-code\nthe-verifier\n");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let exchange = r#""exchange":{"code":"the-code","code_verifier":"the-verifier","redirect_uri":"https://a.example/cb"}"#;
    let asked = daemon.asked();
    assert!(asked.contains(exchange), "{asked}");
    for wrong in [&["--code", "c"][..], &["--code", "c", "--verifier", "-"], &["--code", "c", "--verifier", "secret"], &["--verifier", "-"]]
    {
        let run = daemon.run(&[&["login", "work"][..], wrong].concat());
        assert_eq!(run.code, Some(2), "{wrong:?}: {}", run.stderr);
    }
}

const UNREGISTERED: &str = r#"[{"name":"github","configured":false,"preset":"github","has_client_secret":false,"needs_client_secret":true,"device_flow":true,"scopes":[],"redirect_uri":"http://127.0.0.1/callback","registration_url":"https://github.com/settings/applications/new","registration_steps":["Open https://github.com/settings/applications/new","Run: mcp-authctl provider add github --client-id CLIENT_ID"],"missing":["client_id"]}]"#;

#[test]
fn without_a_client_id_and_a_terminal_the_steps_and_the_command_are_told() {
    let (daemon, events) = Daemon::with_login(|_| Reply::Json(200, UNREGISTERED.into()));
    events.send(format!(r#"{{"event":"failed","error":{}}}"#, error("conflict", r#","hint":"do this""#))).unwrap();
    let run = daemon.run(&["login", "github"]);
    let expected = "github needs a client of your own, once:\n  1. Open https://github.com/settings/applications/new\n  \
         2. Run: mcp-authctl provider add github --client-id CLIENT_ID\nerror: it did not work\nhint: do this\n";
    assert_eq!((run.code, &*run.stderr), (Some(1), expected));
}

#[test]
fn a_client_id_that_is_given_is_kept_before_the_login_and_replaces_none() {
    let (daemon, events) = Daemon::with_login(|asked| match asked.starts_with("PUT") {
        true => Reply::Json(200, UNREGISTERED.trim_matches(['[', ']']).into()),
        false => Reply::Json(200, UNREGISTERED.into()),
    });
    events.send(done("[]")).unwrap();
    assert_eq!(daemon.run(&["login", "github:work", "--client-id", "Ov23"]).code, Some(0));
    assert_eq!(daemon.asked(), "GET /v1/providers");
    assert_eq!(daemon.asked(), r#"PUT /v1/providers/github {"client_id":"Ov23"}"#);
    assert!(daemon.asked().starts_with(r#"POST /v1/logins {"provider":"github:work""#));
    let registered = UNREGISTERED.replace(r#""preset""#, r#""client_id":"Ov1","preset""#);
    let (daemon, _events) = Daemon::with_login(move |_| Reply::Json(200, registered.clone()));
    let run = daemon.run(&["login", "github", "--client-id", "Ov23"]);
    assert!(run.code == Some(1) && run.stderr.contains("mcp-authctl provider add github --client-id Ov23"), "{}", run.stderr);
}

#[test]
fn a_bare_name_that_stands_for_another_grant_says_so() {
    let (daemon, events) = Daemon::with_login(nothing_else);
    events.send(STARTED.replace("\"github\"", "\"github:work\"")).unwrap();
    events.send(done("[]")).unwrap();
    assert!(daemon.run(&["login", "github"]).stderr.starts_with("github stands for github:work\n"));
}

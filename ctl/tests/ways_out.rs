//! The ways a token leaves for other programs: formats, `exec`, `headers`, `git-credential`.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test crate; an unwrap is how it fails")]

mod canned;

use std::sync::{Arc, Mutex};

use canned::{Daemon, Ran, Reply, TOKEN, error, finish};

const GITHUB: &str = r#"{"name":"github","provider":"github","authorization_endpoint":"https://github.com/login/oauth/authorize","scopes":[],"state":"ok","refreshable":true}"#;
const STATIC: &str = r#"{"name":"github:pat","provider":"github","scopes":[],"state":"ok","refreshable":false}"#;
const PROVIDERS: &str = r#"[{"name":"github","configured":true,"authorization_endpoint":"https://github.com/login/oauth/authorize","has_client_secret":true,"scopes":[],"redirect_uri":"http://127.0.0.1/callback"}]"#;

fn out(code: i32, stdout: &str) -> Ran {
    Ran { code: Some(code), stdout: stdout.into(), stderr: String::new() }
}

/// A daemon that knows the grant `github`.
fn github() -> Daemon {
    Daemon::new(|asked| match asked {
        "GET /v1/grants/github:pat" => Reply::Json(200, STATIC.into()),
        "GET /v1/grants/github" => Reply::Json(200, GITHUB.into()),
        "GET /v1/providers" => Reply::Json(200, PROVIDERS.into()),
        _ => Reply::Json(200, TOKEN.into()),
    })
}

#[test]
fn a_token_comes_in_the_form_that_the_reader_wants() {
    let daemon = Daemon::saying(200, TOKEN);
    let kubectl = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"gho_16C7e42F","expirationTimestamp":"2026-12-01T10:00:00Z"}}"#;
    for (format, expected) in [
        ("plain", "gho_16C7e42F\n".to_owned()),
        ("json", format!("{TOKEN}\n")),
        ("header", "Authorization: Bearer gho_16C7e42F\n".to_owned()),
        ("env", "GITHUB_TOKEN=gho_16C7e42F\n".to_owned()),
        ("exec-credential", format!("{kubectl}\n")),
    ] {
        assert_eq!(daemon.run(&["token", "github", "--format", format]), out(0, &expected), "{format}");
    }
}

#[test]
fn exec_hands_a_token_to_the_program_alone_and_leaves_its_exit_code() {
    let daemon = Daemon::saying(200, TOKEN);
    let run = |command: &[&str]| daemon.run(&[&["exec", "--set", "X=github", "--"], command].concat());
    assert_eq!(run(&["sh", "-c", "echo $X; exit 42"]), out(42, "gho_16C7e42F\n"));
    assert_eq!(daemon.asked(), r#"POST /v1/token {"grant":"github","holder":"sh"}"#);
    let arguments = run(&["sh", "-c", "tr '\\0' ' ' < /proc/$$/cmdline"]);
    assert!(!arguments.stdout.contains("gho_"), "{arguments:?}");
    assert_eq!(run(&["sh", "-c", "kill -TERM $$"]).code, None, "ended by a signal, and no process of ours is left to say otherwise");
    assert_eq!(run(&["sh", "-c", "kill -PIPE $$"]).code, None, "nor one that ignores what a pipe says");
    let without_us = std::process::Command::new("ls").arg("/proc/self/fd").output().unwrap().stdout;
    assert_eq!(run(&["ls", "/proc/self/fd"]).stdout.as_bytes(), without_us, "our connection is not among its files");
}

#[test]
fn exec_replaces_an_inherited_variable_and_starts_nothing_without_the_tokens() {
    let daemon = Daemon::saying(200, TOKEN);
    let mut command = daemon.command(&["exec", "--set", "X=github", "--min-valid-for", "60", "--", "/usr/bin/printenv", "X"]);
    command.env("X", "stale");
    assert_eq!(finish(command), out(0, "gho_16C7e42F\n"));
    assert_eq!(daemon.asked(), r#"POST /v1/token {"grant":"github","min_valid_for":60,"holder":"printenv"}"#);
    let refused = Daemon::saying(401, &error("login_required", r#","hint":"mcp-authctl login github""#));
    let run = refused.run(&["exec", "--set", "X=github", "--", "echo", "started"]);
    assert_eq!((run.code, &*run.stdout), (Some(3), ""));
}

#[test]
fn exec_says_when_a_token_is_good_for_less_than_was_asked_for() {
    let daemon = Daemon::saying(200, TOKEN);
    let run = |seconds| daemon.run(&["exec", "--set", "X=github", "--min-valid-for", seconds, "--", "printenv", "X"]);
    assert_eq!(run("3540"), out(0, "gho_16C7e42F\n"));
    let warned = run("7200");
    assert_eq!((warned.code, &*warned.stdout), (Some(0), "gho_16C7e42F\n"), "it starts all the same");
    assert_eq!(warned.stderr, "warning: the token of github is good for 59 min, not for the 2 h asked for\n");
}

#[test]
fn a_program_that_cannot_be_started_is_told_as_a_shell_does() {
    let daemon = Daemon::saying(200, TOKEN);
    assert_eq!(daemon.run(&["exec", "--set", "X=github", "--", "/nonexistent/x"]).code, Some(127));
    assert_eq!(daemon.run(&["exec", "--set", "X=github", "--", "/"]).code, Some(126));
    for args in [&["exec", "--", "true"][..], &["exec", "--set", "X=github"], &["exec", "--set", "1X=github", "--", "true"]] {
        assert_eq!(daemon.run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn headers_are_an_object_of_strings() {
    let daemon = Daemon::saying(200, TOKEN);
    let expected = "{\"Authorization\":\"Bearer gho_16C7e42F\"}\n";
    assert_eq!(daemon.run(&["headers", "github"]), out(0, expected));
    assert_eq!(daemon.asked(), r#"POST /v1/token {"grant":"github"}"#);
    let mut command = daemon.command(&["headers"]);
    command.env("CLAUDE_CODE_MCP_SERVER_URL", "https://mcp.example.com/mcp").env("CLAUDE_CODE_MCP_SERVER_NAME", "github");
    assert_eq!(finish(command), out(0, expected));
    assert_eq!(daemon.asked(), r#"POST /v1/token {"resource":"https://mcp.example.com/mcp"}"#);
}

#[test]
fn headers_fall_back_to_the_servers_name_and_say_what_is_missing() {
    let daemon = Daemon::new(|asked| match asked.contains("resource") {
        true => Reply::Json(404, error("unknown_grant", "")),
        false => Reply::Json(200, TOKEN.into()),
    });
    let mut command = daemon.command(&["headers"]);
    command.env("CLAUDE_CODE_MCP_SERVER_URL", "https://mcp.example.com/mcp").env("CLAUDE_CODE_MCP_SERVER_NAME", "github");
    assert_eq!(finish(command).code, Some(0));
    let nobody = Daemon::new(|asked| match asked.contains("resource") {
        true => Reply::Json(404, error("unknown_grant", r#","hint":"mcp-authctl login https://mcp.example.com/mcp""#)),
        false => Reply::Json(400, error("invalid_request", "")),
    });
    let mut command = nobody.command(&["headers"]);
    command.env("CLAUDE_CODE_MCP_SERVER_URL", "https://mcp.example.com/mcp").env("CLAUDE_CODE_MCP_SERVER_NAME", "Notion");
    let run = finish(command);
    assert_eq!((run.code, run.stderr.contains("hint: mcp-authctl login https://mcp.example.com/mcp")), (Some(3), true), "{run:?}");
    let nameless = daemon.run(&["headers"]);
    assert_eq!((nameless.code, &*nameless.stdout), (Some(2), ""));
    assert!(nameless.stderr.contains("hint: mcp-authctl headers NAME"), "{nameless:?}");
    let refused = Daemon::saying(401, &error("login_required", r#","hint":"mcp-authctl login github""#)).run(&["headers", "github"]);
    assert_eq!(
        refused,
        Ran { code: Some(3), stdout: String::new(), stderr: "error: it did not work\nhint: mcp-authctl login github\n".into() }
    );
}

#[test]
fn headers_for_an_address_are_no_token_of_another_server_that_has_the_same_name() {
    let of_another = TOKEN.replacen('{', r#"{"resource":"https://mcp.example.com/mcp","#, 1);
    let daemon = Daemon::new(move |asked| match asked.contains("resource") {
        true => Reply::Json(404, error("unknown_grant", "")),
        false => Reply::Json(200, of_another.clone()),
    });
    for (url, code) in [("https://evil.example/mcp", 2), ("https://mcp.example.com/mcp", 0)] {
        let mut command = daemon.command(&["headers"]);
        command.env("CLAUDE_CODE_MCP_SERVER_URL", url).env("CLAUDE_CODE_MCP_SERVER_NAME", "github");
        let run = finish(command);
        assert_eq!((run.code, run.stdout.is_empty()), (Some(code), code != 0), "{run:?}");
    }
}

#[test]
fn git_gets_a_user_and_a_token_with_its_expiry() {
    let daemon = github();
    let run = daemon.run_with_stdin(&["git-credential", "github", "get"], "protocol=https\nhost=github.com\npath=x/y.git\n\n");
    let mut lines = run.stdout.lines();
    assert_eq!((lines.next(), lines.next()), (Some("username=oauth2"), Some("password=gho_16C7e42F")));
    let expiry: u64 = lines.next().unwrap().strip_prefix("password_expiry_utc=").unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((3520..=3529).contains(&(expiry - now)), "{expiry}");
    assert!(!run.stdout.contains("refresh"), "git is not to keep what is ours");
}

#[test]
fn git_gets_a_bearer_token_only_where_it_can_send_one_and_the_server_takes_nothing_else() {
    let daemon = github();
    let ask = |more: &str| {
        let asked = format!("protocol=https\nhost=github.com\nusername=me\n{more}\n");
        let said = daemon.run_with_stdin(&["git-credential", "github", "get"], &asked).stdout;
        said.lines().filter(|line| !line.starts_with("password_expiry_utc=")).map(|line| format!("{line}\n")).collect::<String>()
    };
    let can = "capability[]=authtype\ncapability[]=state\n";
    let bearer = "capability[]=authtype\nauthtype=Bearer\nephemeral=1\ncredential=gho_16C7e42F\n";
    let password = "username=oauth2\npassword=gho_16C7e42F\n";
    let (only_bearer, both) = ("wwwauth[]=Bearer realm=\"x\"\n", "wwwauth[]=Basic realm=\"x\"\nwwwauth[]=Bearer\n");
    assert_eq!(ask(&format!("{can}{only_bearer}")), bearer);
    assert_eq!([ask(&format!("{can}{both}")), ask(can)], [password, password]);
    assert_eq!([ask(""), ask(both), ask(only_bearer)], [password, password, password], "an older git knows a password only");
}

#[test]
fn git_gets_the_user_name_that_the_server_wants_whoever_the_address_names() {
    let daemon = github();
    let ask = |more: &[&str], host: &str| {
        let asked = format!("protocol=https\nhost={host}\nusername=me\n");
        let args = [&["git-credential", "github", "--host", host], more, &["get"]].concat();
        daemon.run_with_stdin(&args, &asked).stdout.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(ask(&[], "gitlab.com"), "username=oauth2");
    assert_eq!(ask(&[], "bitbucket.org"), "username=x-token-auth");
    assert_eq!(ask(&["--username", "me"], "bitbucket.org"), "username=me");
    let two_lines = daemon.run(&["git-credential", "github", "--username", "me\npassword=x", "get"]);
    assert_eq!((two_lines.code, &*two_lines.stdout), (Some(2), ""));
}

#[test]
fn git_gets_nothing_for_another_host_or_an_open_line() {
    let daemon = github();
    for asked in
        ["protocol=https\nhost=evil.example\n", "protocol=https\nhost=github.com:444\n", "protocol=http\nhost=github.com\n", "", "=\n"]
    {
        let run = daemon.run_with_stdin(&["git-credential", "github", "get"], asked);
        assert_eq!((run.code, &*run.stdout), (Some(0), ""), "{asked:?}");
    }
    let allowed = |args: &[&str], host: &str| {
        daemon.run_with_stdin(&[&["git-credential"], args, &["get"]].concat(), &format!("protocol=https\nhost={host}\n\n")).stdout
    };
    assert!(allowed(&["github", "--host", "git.example"], "git.example").contains("password=gho_16C7e42F"));
    assert_eq!(allowed(&["github", "--host", "git.example"], "github.com"), "", "the host that is named takes the place of the provider's");
    // A static token has no server of its own: it goes to the provider's.
    assert!(allowed(&["github:pat"], "github.com").contains("password=gho_16C7e42F"));
    assert_eq!(allowed(&["github:pat"], "git.example"), "");
}

#[test]
fn git_keeps_nothing_with_us_and_a_refused_password_is_reported() {
    let daemon = github();
    let credential = "protocol=https\nhost=github.com\nusername=oauth2\npassword=gho_16C7e42F\n\n";
    for operation in ["store", "capability", "some-later-one"] {
        assert_eq!(daemon.run_with_stdin(&["git-credential", "github", operation], credential), out(0, ""), "{operation}");
    }
    assert_eq!(daemon.run_with_stdin(&["git-credential", "github", "erase"], credential), out(0, ""));
    assert_eq!(daemon.asked(), "GET /v1/grants/github");
    let report = r#"POST /v1/token {"grant":"github","rejected_token":"gho_16C7e42F"}"#;
    assert_eq!(daemon.asked(), report);
    let bearer = "capability[]=authtype\nauthtype=Bearer\ncredential=gho_16C7e42F\nephemeral=1\nprotocol=https\nhost=github.com\n\n";
    assert_eq!(daemon.run_with_stdin(&["git-credential", "github", "erase"], bearer), out(0, ""));
    assert_eq!([daemon.asked(), daemon.asked()], ["GET /v1/grants/github", report]);
}

#[test]
fn git_gets_a_token_on_this_machine_without_tls() {
    let daemon = Daemon::saying(200, TOKEN);
    for host in ["127.0.0.1", "localhost:8080", "[::1]", "[::1]:8080"] {
        let run = daemon.run_with_stdin(&["git-credential", "github", "--host", host, "get"], &format!("protocol=http\nhost={host}\n\n"));
        assert!(run.stdout.contains("password=gho_16C7e42F"), "{host}: {run:?}");
    }
    for host in ["127.0.0.1.example", "localhost.example:80", "[::2]", "127.0.0.1:x"] {
        let run = daemon.run_with_stdin(&["git-credential", "github", "--host", host, "get"], &format!("protocol=http\nhost={host}\n\n"));
        assert_eq!(run.stdout, "", "{host}");
    }
}

#[test]
fn the_refused_password_of_another_host_stays_out_of_the_daemon() {
    let daemon = github();
    for credential in ["protocol=https\nhost=git.example\npassword=its-own\n\n", "protocol=http\nhost=github.com\npassword=its-own\n\n"] {
        assert_eq!(daemon.run_with_stdin(&["git-credential", "github", "--host", "github.com", "erase"], credential), out(0, ""));
    }
    assert_eq!(daemon.run(&["token", "github"]).code, Some(0));
    assert_eq!(daemon.asked(), r#"POST /v1/token {"grant":"github"}"#, "the first and only question");
}

#[test]
fn git_does_not_ask_a_person_for_a_password_that_does_not_exist() {
    let login = error("login_required", r#","hint":"mcp-authctl login github""#);
    let unknown = error("unknown_grant", r#","hint":"mcp-authctl login github:work""#);
    for (name, (status, grant), refusal, hint) in [
        ("github", (200, GITHUB.to_owned()), login, "mcp-authctl login github"),
        ("github:work", (404, unknown.clone()), unknown, "mcp-authctl login github:work"),
    ] {
        let daemon = Daemon::new(move |asked| match asked {
            "GET /v1/providers" => Reply::Json(200, PROVIDERS.into()),
            _ if asked.starts_with("GET /v1/grants/") => Reply::Json(status, grant.clone()),
            _ => Reply::Json(401, refusal.clone()),
        });
        let ask = |host: &str| daemon.run_with_stdin(&["git-credential", name, "get"], &format!("protocol=https\nhost={host}\n\n"));
        let run = ask("github.com");
        assert_eq!((run.code, &*run.stdout), (Some(3), "quit=1\n"), "{name}");
        assert!(run.stderr.contains(&format!("hint: {hint}\n")), "{run:?}");
        let elsewhere = ask("git.example");
        assert_eq!((elsewhere.code, &*elsewhere.stdout), (Some(0), ""), "{name}: another helper may know it");
    }
}

#[test]
fn the_short_way_in_and_the_argument_parser_ask_the_same_and_end_the_same() {
    const ASKED: &str = "protocol=https\nhost=github.com\n\n";
    let answers = [
        (200, TOKEN.to_owned()),
        (401, error("login_required", r#","hint":"h""#)),
        (503, error("provider_unreachable", "")),
        (200, "{".into()),
    ];
    for (status, body) in answers {
        for (short, long) in [
            (&["token", "github"][..], &["token", "--", "github"][..]),
            (&["token", "github", "--json"], &["token", "github", "--json", "--format=plain"]),
            (&["headers", "github"], &["headers", "--", "github"]),
            (&["headers", "https://mcp.example.com/mcp"], &["headers", "--", "https://mcp.example.com/mcp"]),
            (&["git-credential", "github", "get"], &["git-credential", "--", "github", "get"]),
            (&["git-credential", "github", "--host", "github.com", "get"], &["git-credential", "--host=github.com", "github", "get"]),
            (&["git-credential", "github", "--host", "git.example", "get"], &["git-credential", "--host=git.example", "github", "get"]),
        ] {
            let outcome = |args: &[&str]| {
                let body = body.clone();
                let seen = Arc::new(Mutex::new(Vec::new()));
                let asked = seen.clone();
                let daemon = Daemon::new(move |request| {
                    asked.lock().unwrap().push(request.to_owned());
                    match request {
                        "GET /v1/grants/github" => Reply::Json(200, GITHUB.into()),
                        "GET /v1/providers" => Reply::Json(200, PROVIDERS.into()),
                        _ => Reply::Json(status, body.clone()),
                    }
                });
                let run = daemon.run_with_stdin(args, ASKED);
                // The expiry counts from now, and a second may have passed.
                let stdout: String = run.stdout.lines().filter(|line| !line.starts_with("password_expiry_utc=")).collect();
                (run.code, stdout, run.stderr, seen.lock().unwrap().clone())
            };
            assert_eq!(outcome(short), outcome(long), "{short:?} {status}");
        }
    }
}

//! The binary against canned answers: what it asks, what it prints, and how it exits.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test crate; an unwrap is how it fails")]

mod canned;

use canned::{Daemon, Ran, Reply, TOKEN, UNLOCKED, ctl, error, finish};

fn ran(code: i32, stdout: &str, stderr: &str) -> Ran {
    Ran { code: Some(code), stdout: stdout.into(), stderr: stderr.into() }
}

#[test]
fn a_token_is_all_that_reaches_stdout() {
    let daemon = Daemon::saying(200, TOKEN);
    assert_eq!(daemon.run(&["token", "github"]), ran(0, "gho_16C7e42F\n", ""));
    assert_eq!(daemon.asked(), r#"POST /v1/token {"grant":"github"}"#);
    assert_eq!(daemon.run(&["token", "--min-valid-for", "60", "--scope", "repo", "github"]), ran(0, "gho_16C7e42F\n", ""));
    assert_eq!(daemon.asked(), r#"POST /v1/token {"grant":"github","min_valid_for":60,"scopes":["repo"]}"#);
    assert_eq!(daemon.run(&["token", "https://mcp.example.com/mcp"]).code, Some(0));
    assert_eq!(daemon.asked(), r#"POST /v1/token {"resource":"https://mcp.example.com/mcp"}"#);
}

#[test]
fn a_mistake_beside_a_word_that_is_no_text_is_told_as_any_other() {
    use std::os::unix::ffi::OsStrExt as _;
    let daemon = Daemon::saying(200, TOKEN);
    let mut command = daemon.command(&["status"]);
    command.arg(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    let run = finish(command);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("hint: mcp-authctl status --help") && !run.stderr.contains("panicked"), "{run:?}");
}

#[test]
fn a_token_as_json_is_the_daemons_answer_both_ways_in() {
    let daemon = Daemon::saying(200, TOKEN);
    for args in [&["token", "github", "--json"][..], &["--json", "token", "github"]] {
        assert_eq!(daemon.run(args), ran(0, &format!("{TOKEN}\n"), ""));
    }
}

#[test]
fn a_fingerprint_tells_a_token_without_showing_it() {
    let daemon = Daemon::saying(200, TOKEN);
    // printf %s gho_16C7e42F | sha256sum
    let expected = finish({
        let mut sum = std::process::Command::new("sh");
        sum.args(["-c", "printf %s gho_16C7e42F | sha256sum | cut -c1-8"]);
        sum
    });
    assert_eq!(daemon.run(&["token", "github", "--fingerprint"]), ran(0, &expected.stdout, ""));
}

#[test]
fn a_token_that_no_header_could_carry_is_refused() {
    let daemon = Daemon::saying(200, &TOKEN.replace("gho_16C7e42F", r"a\r\nX: y"));
    for args in [&["token", "github"][..], &["token", "github", "--json"], &["env", "X=github"]] {
        let run = daemon.run(args);
        assert_eq!((run.code, &*run.stdout), (Some(1), ""), "{args:?}");
    }
}

#[test]
fn every_error_code_has_its_exit_code() {
    for (code, exit) in [
        ("invalid_request", 1),
        ("login_required", 3),
        ("insufficient_scope", 3),
        ("consent_required", 6),
        ("access_denied", 6),
        ("unknown_grant", 3),
        ("not_found", 1),
        ("ambiguous_grant", 1),
        ("conflict", 1),
        ("payload_too_large", 1),
        ("too_many_requests", 1),
        ("internal_error", 1),
        ("provider_unreachable", 5),
        ("vault_locked", 7),
    ] {
        let daemon = Daemon::saying(400, &error(code, ",\"hint\":\"do this\""));
        for args in [&["token", "github"][..], &["token", "github", "--min-valid-for", "1"], &["refresh", "github"]] {
            assert_eq!(daemon.run(args), ran(exit, "", "error: it did not work\nhint: do this\n"), "{code} {args:?}");
        }
    }
}

#[test]
fn what_the_daemon_leaves_unsaid_is_made_a_hint() {
    for (code, rest, hint) in [
        ("ambiguous_grant", r#","choices":["github","github:work"]"#, "name one of github, github:work"),
        ("provider_unreachable", r#","retry_after":20"#, "the next attempt is in 20 s"),
        ("vault_locked", "", "mcp-authctl unlock"),
    ] {
        let run = Daemon::saying(400, &error(code, rest)).run(&["token", "github"]);
        assert_eq!(run.stderr, format!("error: it did not work\nhint: {hint}\n"));
    }
}

#[test]
fn an_error_as_json_is_one_line_on_stderr() {
    let body = error("login_required", r#","hint":"mcp-authctl login github""#);
    assert_eq!(Daemon::saying(401, &body).run(&["token", "github", "--json"]), ran(3, "", &format!("{body}\n")));
}

#[test]
fn a_daemon_that_does_not_run_is_code_4_with_the_way_to_start_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = ctl(args);
        command.env("MCP_AUTHD_SOCKET", folder.path().join("sock")).env("XDG_RUNTIME_DIR", folder.path());
        finish(command)
    };
    let expected = "error: mcp-authd is not running\nhint: start it with `mcp-authd &`\n";
    assert_eq!(run(&["token", "github"]), ran(4, "", expected));
    assert_eq!(run(&["status"]), ran(4, "", expected));
    std::fs::create_dir(folder.path().join("systemd")).unwrap();
    std::fs::write(folder.path().join("systemd/private"), "").unwrap();
    let hint = "hint: start it with `mcp-authctl service start` (once before: `service install`), or with `mcp-authd &`\n";
    assert_eq!(run(&["status"]), ran(4, "", &format!("error: mcp-authd is not running\n{hint}")));
    let json: serde_json::Value = serde_json::from_str(&run(&["status", "--json"]).stderr).unwrap();
    assert_eq!(json["error"], "not_running");
}

#[test]
fn wrong_usage_is_code_2_and_asks_the_daemon_nothing() {
    let daemon = Daemon::saying(200, TOKEN);
    let long = "a".repeat(300);
    for args in
        [&["token"][..], &["token", "../../x"], &["token", "a/b"], &["logout", "."], &["refresh", &long], &["login", "git\u{4bb}ub"]]
    {
        assert_eq!(daemon.run(args).code, Some(2), "{args:?}");
    }
    for args in [
        &["logout"][..],
        &["provider", "add", "x"],
        &["provider", "add", "x", "--preset", "a", "--issuer", "b"],
        &["provider", "show", "a:b"],
        &["env", "1X=github"],
        &["setup", "--key-source", "x"],
    ] {
        let run = daemon.run(args);
        assert_eq!((run.code, &*run.stdout), (Some(2), ""), "{args:?}");
    }
    daemon.run(&["token", "github"]);
    assert_eq!(daemon.asked(), r#"POST /v1/token {"grant":"github"}"#);
}

const GRANTS: &str = r#"[
    {"name":"notion","provider":"notion","account":"Acme","scopes":["read:content","update:content"],"state":"ok","refreshable":true,
     "expires_in":2460,"next_refresh_in":1980},
    {"name":"github:work","provider":"github","account":"octocat","scopes":["repo","gist"],"state":"login_required","refreshable":true,"expires_in":0,
     "remedy":"mcp-authctl login github:work"},
    {"name":"linear","provider":"linear","account":"東京の会社の長い名前","scopes":[],"state":"retrying","refreshable":true,"expires_in":90,"next_refresh_in":12},
    {"name":"a-name-that-is-much-longer-than-its-column","provider":"x","account":"somebody.with.a.long.name@example.com",
     "scopes":[],"state":"login_required","refreshable":true,"remedy":"mcp-authctl login a-name-that-is-much-longer-than-its-column"},
    {"name":"pat","provider":"github","scopes":[],"state":"ok","refreshable":false,"expires_in":604800,"remedy":"mcp-authctl add-token pat"}]"#;

fn overview(status: &'static str, grants: &'static str) -> Daemon {
    Daemon::new(move |asked| match asked {
        "GET /v1/status" => Reply::Json(200, status.into()),
        _ if grants.starts_with('[') => Reply::Json(200, grants.into()),
        _ => Reply::Json(503, grants.into()),
    })
}

#[test]
fn status_is_a_sorted_table_within_80_columns() {
    let expected = "\
GRANT             ACCOUNT         EXPIRES  REFRESH    SCOPES        STATE
a-name-that-is-…  somebody.with…  unknown  -          -             LOGIN NEEDED
  mcp-authctl login a-name-that-is-much-longer-than-its-column
github:work       octocat         expired  -          repo gist     LOGIN NEEDED
  mcp-authctl login github:work
linear            東京の会社の…   90 s     in 12 s    -             retrying
notion            Acme            41 min   in 33 min  read:conten…  ok
pat               -               7 d      -          -             ok
  by then: mcp-authctl add-token pat
";
    let run = overview(UNLOCKED, GRANTS).run(&["status"]);
    assert_eq!(run, ran(0, expected, ""));
    assert!(run.stdout.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn status_shows_who_keeps_a_token_and_until_when() {
    const HELD: &str = r#"[{"name":"github","provider":"github","account":"octocat","scopes":[],"state":"ok","refreshable":true,"expires_in":18000,
        "holders":[{"program":"github-mcp-server","pid":812,"current":true,"expires_in":18000},
                   {"program":"no\u001b[2Jde","pid":90,"current":false,"expires_in":0},
                   {"program":"a-program-with-a-name-beyond-all-measure","pid":4194304,"current":true}]}]"#;
    let expected = "\
GRANT   ACCOUNT  EXPIRES  REFRESH  SCOPES  STATE
github  octocat  5 h      -        -       ok
  held by github-mcp-server (process 812) for 5 h
  held by no?[2Jde (process 90): expired, restart it
  held by a-program-with-a-name-bey… (process 4194304)
";
    assert_eq!(overview(UNLOCKED, HELD).run(&["status"]), ran(0, expected, ""));
    let one = HELD.trim_start_matches('[').trim_end_matches(']');
    let full = Daemon::saying(200, one).run(&["status", "github"]).stdout;
    let held: Vec<&str> = full.lines().filter(|line| line.starts_with("held by")).collect();
    assert_eq!(held[..2], ["held by: github-mcp-server (process 812) for 5 h", "held by: no?[2Jde (process 90): expired, restart it"]);
}

#[test]
fn status_marks_what_rules_close() {
    const CLOSED: &str = r#"[
        {"name":"github","provider":"github","account":"octocat","closed":true,"scopes":[],"state":"ok","refreshable":true},
        {"name":"linear","provider":"linear","scopes":[],"state":"ok","refreshable":true}]"#;
    let expected = "\
GRANT   ACCOUNT  EXPIRES  REFRESH  SCOPES  STATE
github  octocat  unknown  -        -       ok, closed
linear  -        unknown  -        -       ok
";
    assert_eq!(overview(UNLOCKED, CLOSED).run(&["status"]), ran(0, expected, ""));
    let long = overview(UNLOCKED, CLOSED).run(&["status", "--long"]).stdout;
    assert!(long.contains("\nclosed: to all but the programs that `mcp-authctl policy list` names\n"), "{long}");
    assert_eq!(overview(UNLOCKED, CLOSED).run(&["status", "--json"]).stdout.matches("\"closed\":true").count(), 1);
}

#[test]
fn a_mistyped_provider_is_told_the_one_that_was_meant() {
    let daemon = Daemon::saying(200, r#"[{"name":"github","configured":true,"has_client_secret":true,"scopes":[],"redirect_uri":"x"}]"#);
    for (typed, hint) in [("githbu", "did you mean `github`? else mcp-authctl provider list"), ("slack", "mcp-authctl provider list")] {
        let expected = format!("error: there is no provider {typed}\nhint: {hint}\n");
        assert_eq!(daemon.run(&["provider", "show", typed]), ran(1, "", &expected));
    }
}

#[test]
fn the_long_form_tells_everything_about_each_grant() {
    let grants = r#"[{"name":"linear","provider":"linear","scopes":["read","write"],"state":"retrying","refreshable":true,"expires_in":90,
        "expires_at":"2026-12-01T10:00:00Z","next_refresh_in":12,"refreshed_at":"2026-12-01T09:00:00Z","last_error":"no route"},
        {"name":"github","provider":"github","account":"octocat","scopes":[],"state":"login_required","refreshable":true,"remedy":"mcp-authctl login github"}]"#;
    let expected = "\
grant: github
state: LOGIN NEEDED, of unknown lifetime
provider: github
account: octocat
scopes: none told
to do: mcp-authctl login github

grant: linear
state: retrying, valid until 2026-12-01T10:00:00Z (90 s)
provider: linear
last error: no route
refreshed at: 2026-12-01T09:00:00Z
scopes: read, write
next refresh in: 12 s
";
    assert_eq!(overview(UNLOCKED, grants).run(&["status", "--long"]), ran(0, expected, ""));
    let one = grants.trim_start_matches('[').rsplit_once(",\n").unwrap().0;
    let one = Daemon::saying(200, one).run(&["status", "linear"]);
    assert_eq!(one, ran(0, expected.split_once("\n\n").unwrap().1, ""), "one grant is shown in full too");
}

#[test]
fn status_tells_what_is_on_demand_what_never_expires_and_which_login_ends() {
    let grants = r#"[
        {"name":"a","provider":"a","scopes":[],"state":"ok","refreshable":true,"client_credentials":true,"on_demand":true,"expires_in":0},
        {"name":"b","provider":"b","scopes":[],"state":"login_required","refreshable":true,"client_credentials":true,"on_demand":true,"expires_in":0,
         "remedy":"mcp-authctl login b --client-credentials"},
        {"name":"c","provider":"c","scopes":[],"state":"ok","refreshable":true,"never_expires":true},
        {"name":"d","provider":"d","scopes":[],"state":"ok","refreshable":true,"expires_in":90,
         "refresh_token_expires_at":"2026-11-24T00:00:00Z","refresh_token_expires_in":200000,"refresh_token_ending":true,"remedy":"mcp-authctl login d"},
        {"name":"e","provider":"e","scopes":[],"state":"ok","refreshable":true,"expires_in":90,
         "refresh_token_expires_at":"2026-11-20T00:00:00Z","refresh_token_expires_in":0,"refresh_token_ending":true,"remedy":"mcp-authctl login e"}]"#;
    let expected = "\
GRANT  ACCOUNT  EXPIRES  REFRESH    SCOPES  STATE
a      -        -        on demand  -       ok
b      -        expired  -          -       LOGIN NEEDED
  mcp-authctl login b --client-credentials
c      -        never    -          -       ok
d      -        90 s     -          -       ok
  the login ends in 2 d: mcp-authctl login d
e      -        90 s     -          -       ok
  the login has reached its end: mcp-authctl login e
";
    assert_eq!(overview(UNLOCKED, grants).run(&["status"]), ran(0, expected, ""));
    let one = |at: usize| {
        let grants: serde_json::Value = serde_json::from_str(grants).unwrap();
        Daemon::saying(200, &grants[at].to_string()).run(&["status", "x"]).stdout
    };
    assert!(one(0).contains("state: ok, renewed on demand\n") && one(0).contains("\nnext refresh: on demand"), "{}", one(0));
    assert!(one(2).contains("state: ok, never expires\n"), "{}", one(2));
    assert!(one(3).contains("\nlogin ends: 2026-11-24T00:00:00Z (2 d)\n"), "{}", one(3));
    assert!(one(4).contains("\nlogin ends: 2026-11-20T00:00:00Z (over)\n"), "{}", one(4));
}

#[test]
fn problems_of_vault_and_config_stand_above_the_table() {
    let status = r#"{"version":"0.1.0","proto":1,"pid":7,"uptime":9,
        "vault":{"state":"locked","key_source":"keychain","reason":"the keychain is locked","hint":"mcp-authctl unlock","quarantined":0},
        "config":{"path":"/c.toml","error":"line 3: no such key"},"grants":0,"login_required":0,"not_durable":1,
        "paused":[{"issuer":"https://a.example","retry_after":20}]}"#;
    let expected = "\
vault locked, key source keychain: the keychain is locked
  hint: mcp-authctl unlock
config: /c.toml: line 3: no such key
  hint: the last good version is in use; correct the file, then `mcp-authctl reload`
disk: the newest tokens of 1 grants are in memory only, the disk refuses them
https://a.example does not answer, next attempt in 20 s
";
    let locked = r#"{"error":"vault_locked","error_description":"the vault is locked","hint":"mcp-authctl unlock"}"#;
    assert_eq!(overview(status, locked).run(&["status"]), ran(7, expected, ""));
}

#[test]
fn status_check_tells_by_its_exit_code_alone() {
    let grant = |state: &str, rest: &str| {
        Daemon::saying(200, &format!(r#"{{"name":"github","provider":"github","scopes":[],"state":"{state}","refreshable":true{rest}}}"#))
    };
    let check = ["status", "--check", "github"];
    assert_eq!(grant("ok", "").run(&check), ran(0, "", ""));
    assert_eq!(grant("retrying", r#","expires_in":9"#).run(&check), ran(0, "", ""));
    assert_eq!(grant("retrying", r#","expires_in":0"#).run(&check), ran(5, "", ""));
    assert_eq!(grant("login_required", r#","last_error":"revoked""#).run(&check), ran(3, "", ""));
    for (code, exit) in [("unknown_grant", 3), ("vault_locked", 7), ("access_denied", 6)] {
        assert_eq!(Daemon::saying(400, &error(code, "")).run(&check), ran(exit, "", ""), "{code}");
    }
    let mut nobody = ctl(&check);
    nobody.env("MCP_AUTHD_SOCKET", "/nonexistent/sock");
    assert_eq!(finish(nobody), ran(4, "", ""));
    let told = grant("login_required", r#","last_error":"revoked""#).run(&["status", "--check", "github", "--json"]);
    assert!(told.code == Some(3) && told.stderr.contains("github needs a login: revoked"), "{told:?}");
}

#[test]
fn no_control_character_of_a_provider_reaches_the_terminal() {
    let hostile = r"x\u001b[2J\u0007\r\u0000\u009b31m\u202e\u2066\u007fy\nz";
    let grant = format!(
        r#"{{"name":"github","provider":"github","account":"{hostile}","issuer":"{hostile}","scopes":["{hostile}"],"state":"login_required","refreshable":true,"last_error":"{hostile}","remedy":"{hostile}","expires_at":"{hostile}","expires_in":9}}"#
    );
    let list = format!("[{grant}]");
    let daemon = Daemon::new(move |asked| match asked {
        "GET /v1/status" => Reply::Json(200, UNLOCKED.into()),
        "GET /v1/grants" => Reply::Json(200, list.clone()),
        "GET /v1/grants/github" | "POST /v1/grants/github/refresh {\"force\":false}" => Reply::Json(200, grant.clone()),
        _ => Reply::Json(401, format!(r#"{{"error":"login_required","error_description":"{hostile}","hint":"{hostile}"}}"#)),
    });
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["status", "github"],
        &["status", "--check", "github", "--json"],
        &["status", "--long"],
        &["refresh", "github"],
        &["refresh", "github", "--json"],
        &["token", "github"],
        &["token", "github", "--json"],
        &["login", "github"],
    ] {
        let run = daemon.run(args);
        let seen = run.stdout + &run.stderr;
        assert!(
            seen.contains('x')
                && !seen
                    .contains(|c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')),
            "{args:?}: {seen:?}"
        );
    }
}

#[test]
fn colours_are_for_those_who_want_them() {
    let run = |variables: &[(&str, &str)]| {
        let daemon = Daemon::saying(400, &error("conflict", ""));
        let mut command = daemon.command(&["refresh", "github"]);
        command.envs(variables.iter().copied());
        finish(command).stderr
    };
    assert_eq!(run(&[("CLICOLOR_FORCE", "1")]), "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m it did not work\n");
    assert_eq!(run(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), "error: it did not work\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let daemon = overview(UNLOCKED, GRANTS);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = daemon.command(&["status"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn logout_says_what_is_not_confirmed_and_goes_on_for_all() {
    let unconfirmed = r#"{"grant":"github","revocation":"unconfirmed","reason":"time-out"}"#;
    let expected = "logged out of github\nwarning: the provider has not confirmed the revocation: time-out\n";
    assert_eq!(Daemon::saying(200, unconfirmed).run(&["logout", "github"]), ran(0, "", expected));
    let daemon = Daemon::new(|asked| match asked {
        "GET /v1/grants" => Reply::Json(200, GRANTS.into()),
        "DELETE /v1/grants/linear" => Reply::Json(500, error("internal_error", "")),
        _ => Reply::Json(200, r#"{"grant":"github","revocation":"confirmed"}"#.into()),
    });
    let run = daemon.run(&["logout", "--all"]);
    assert_eq!((run.code, run.stderr.matches("logged out").count()), (Some(1), 4));
    let run = daemon.run(&["logout", "github", "--all"]);
    assert_eq!((run.code, run.stderr.matches("logged out").count()), (Some(0), 1));
}

#[test]
fn logout_without_a_terminal_does_not_revoke_more_than_was_asked_for() {
    let grant =
        r#"{"name":"google","provider":"google","account":"eve@x","scopes":[],"state":"ok","refreshable":true,"revokes_account":true}"#;
    let daemon = Daemon::new(move |asked| match asked {
        "GET /v1/grants/google" => Reply::Json(200, grant.into()),
        _ if asked.contains("true") => Reply::Json(200, r#"{"grant":"google","revocation":"confirmed"}"#.into()),
        _ => Reply::Json(200, r#"{"grant":"google","revocation":"skipped"}"#.into()),
    });
    let warning = "warning: not revoked, since that would end every login of eve@x with this client: the tokens live on at the provider \
                   until they expire; --revoke does it all the same\n";
    assert_eq!(daemon.run(&["logout", "google"]), ran(0, "", &format!("logged out of google\n{warning}")));
    assert_eq!(daemon.asked(), "GET /v1/grants/google");
    assert_eq!(daemon.asked(), "DELETE /v1/grants/google");
    assert_eq!(daemon.run(&["logout", "google", "--revoke"]), ran(0, "", "logged out of google\n"));
    assert_eq!(daemon.asked(), r#"DELETE /v1/grants/google {"revoke":true}"#);
    let forgotten = "logged out of google\nwarning: not revoked: the tokens live on at the provider until they expire\n";
    assert_eq!(daemon.run(&["logout", "google", "--forget"]), ran(0, "", forgotten));
    assert_eq!(daemon.asked(), r#"DELETE /v1/grants/google {"revoke":false}"#);
    assert_eq!(daemon.run(&["logout", "google", "--revoke", "--forget"]).code, Some(2));
}

#[test]
fn secrets_come_from_stdin_and_go_to_their_routes() {
    let grant = r#"{"name":"github:pat","provider":"github","scopes":[],"state":"ok","refreshable":false}"#;
    let vault = r#"{"state":"unlocked","key_source":"passphrase"}"#;
    let provider = r#"{"name":"github","configured":true,"has_client_secret":true,"scopes":[],"redirect_uri":"http://127.0.0.1/callback"}"#;
    let daemon = Daemon::new(move |asked| match asked {
        "GET /v1/status" => Reply::Json(200, UNLOCKED.replacen("unlocked", "locked", 1)),
        _ if asked.contains("/v1/grants") => Reply::Json(200, grant.into()),
        _ if asked.contains("/v1/providers") => Reply::Json(200, provider.into()),
        _ => Reply::Json(200, vault.into()),
    });
    for (args, input, stderr, last) in [
        (
            &["add-token", "github:pat", "--expires-in", "60"][..],
            " ghp_x \n",
            "stored a token as github:pat, of unknown lifetime\n",
            r#"PUT /v1/grants/github:pat {"access_token":"ghp_x","expires_in":60}"#,
        ),
        (&["unlock"], "my pass \n", "vault unlocked, key source passphrase\n", r#"POST /v1/vault/unlock {"passphrase":"my pass "}"#),
        (&["vault", "rekey"], "new\n", "vault unlocked, key source passphrase\n", r#"POST /v1/vault/rekey {"passphrase":"new"}"#),
        (
            &["provider", "set-secret", "github"],
            "s\n",
            "stored the client secret of github; register this redirect URI: http://127.0.0.1/callback\nhint: mcp-authctl login github\n",
            r#"PUT /v1/providers/github/secret {"client_secret":"s"}"#,
        ),
    ] {
        assert_eq!(daemon.run_with_stdin(args, input), ran(0, "", stderr), "{args:?}");
        let asked = std::iter::repeat_with(|| daemon.asked()).find(|asked| !asked.starts_with("GET")).unwrap();
        assert_eq!(asked, last);
    }
    assert_eq!(
        daemon.run_with_stdin(&["add-token", "github:pat"], "\n"),
        ran(1, "", "error: the token is empty\nhint: type it at the prompt, or pipe it in\n")
    );
}

#[test]
fn a_provider_that_is_a_preset_needs_no_more_than_what_changes() {
    let provider = r#"{"name":"x","configured":true,"has_client_secret":false,"scopes":[],"redirect_uri":"http://127.0.0.1/callback"}"#;
    let daemon = Daemon::saying(200, provider);
    let run = daemon.run(&["provider", "add", "github", "--client-id", "Ov23liabc"]);
    assert_eq!(run.code, Some(0));
    assert_eq!(daemon.asked(), r#"PUT /v1/providers/github {"client_id":"Ov23liabc"}"#);
    assert!(run.stderr.contains("warning: x has no scopes"), "{}", run.stderr);
    daemon.run(&["provider", "add", "gitlab", "--base-url", "https://git.example.com"]);
    assert_eq!(daemon.asked(), r#"PUT /v1/providers/gitlab {"base_url":"https://git.example.com"}"#);
    let preset = provider.replace(r#""scopes""#, r#""preset":"github-app","scopes""#);
    assert!(!Daemon::saying(200, &preset).run(&["provider", "add", "x", "--client-id", "i"]).stderr.contains("warning"));
}

const PROVIDERS: &str = r#"[
    {"name":"box","configured":false,"has_client_secret":false,"scopes":[],"redirect_uri":"http://127.0.0.1/callback",
     "flows":["code"],"missing":["client_id","client_secret"]},
    {"name":"auth0","configured":false,"has_client_secret":false,"scopes":[],"redirect_uri":"http://127.0.0.1:1/callback",
     "flows":["code","device"],"missing":["base_url","client_id"]},
    {"name":"work","configured":true,"has_client_secret":true,"scopes":[],"redirect_uri":"http://127.0.0.1/callback","flows":["code"]},
    {"name":"a-name-that-is-much-longer-than-the-column-that-it-would-stand-in","configured":true,"has_client_secret":false,"scopes":[],
     "redirect_uri":"","missing":["client_id"],"flows":["code","client_credentials"]},
    {"name":"notion-mcp","configured":false,"has_client_secret":false,"scopes":[],"redirect_uri":"","missing":[],
     "resource":"https://mcp.notion.com/mcp"}]"#;

#[test]
fn providers_are_listed_in_a_table_of_80_columns_with_what_is_missing_and_the_ways_to_log_in() {
    let expected = "\
NAME   STATE                           LOGIN
a-name-that-is-much-longer-than-the-column-that-it-would-stand-in
  missing client_id
  code, client_credentials
work   ready                           code
auth0  needs base_url, client_id       code, device
box    needs client_id, client_secret  code

Remote MCP servers with a name to log in by; any other goes by its URL:
  notion-mcp  https://mcp.notion.com/mcp
";
    let run = Daemon::saying(200, PROVIDERS).run(&["provider", "list"]);
    assert_eq!(run, ran(0, expected, ""));
    assert!(run.stdout.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn a_provider_is_shown_with_endpoints_redirects_steps_notes_and_where_they_are_from() {
    let provider = r#"[{"name":"work","configured":true,"preset":"auth0","title":"Auth0","has_client_secret":false,"client_id":"abc",
        "token_endpoint":"https://a.example/token","device_authorization_endpoint":"https://a.example/device","scopes":["openid"],
        "refresh_scopes":["offline_access"],"redirect_uri":"http://127.0.0.1:1/callback","flows":["code","device"],
        "redirect_uris":["http://127.0.0.1:1/callback","http://127.0.0.1:2/callback"],"registration_steps":["Open it\u001b[2J"],
        "notes":["A refresh ends the token."],"verified":false,"checked":"2026-11","sources":["https://auth0.com/docs"]}]"#;
    let expected = "\
name: work (Auth0)
preset: auth0
token endpoint: https://a.example/token
device endpoint: https://a.example/device
client id: abc
client secret: none, and none is needed
redirect URI: http://127.0.0.1:1/callback
redirect URI: http://127.0.0.1:2/callback
scopes: openid (and offline_access, for a refresh token)
login: code, device

how to register a client:
  1. Open it?[2J

good to know:
  - A refresh ends the token.

checked 2026-11 against documents; no login at the real service was made
  https://auth0.com/docs
";
    assert_eq!(Daemon::saying(200, provider).run(&["provider", "show", "work"]), ran(0, expected, ""));
    let run = Daemon::saying(200, provider).run(&["provider", "show", "work", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&shown["checked"], &shown["flows"][1]), (&"2026-11".into(), &"device".into()));
    let run = Daemon::saying(200, PROVIDERS).run(&["provider", "show", "notion-mcp"]);
    assert_eq!(run, ran(0, "name: notion-mcp\nremote MCP server: https://mcp.notion.com/mcp\n", ""));
}

#[test]
fn scopes_may_come_in_one_argument_as_hints_write_them() {
    let daemon = Daemon::saying(200, TOKEN);
    assert_eq!(daemon.run(&["token", "github", "--scope", "repo read:org", "--scope", "gist"]).code, Some(0));
    assert_eq!(daemon.asked(), r#"POST /v1/token {"grant":"github","scopes":["repo","read:org","gist"]}"#);
}

#[test]
fn a_token_does_not_replace_a_login_that_works() {
    let grant = |state| format!(r#"{{"name":"github","provider":"github","scopes":[],"state":"{state}","refreshable":true}}"#);
    let daemon = Daemon::saying(200, &grant("ok"));
    let run = daemon.run_with_stdin(&["add-token", "github"], "ghp_x\n");
    assert_eq!((run.code, run.stderr.contains("such as github:pat")), (Some(1), true));
    assert_eq!(Daemon::saying(200, &grant("login_required")).run_with_stdin(&["add-token", "github"], "ghp_x\n").code, Some(0));
    let locked = Daemon::saying(503, &error("vault_locked", ""));
    assert_eq!(locked.run_with_stdin(&["add-token", "github"], "").code, Some(7));
}

#[test]
fn a_mistake_in_the_arguments_is_json_where_json_is_asked_for() {
    let run = finish(ctl(&["logn", "--json"]));
    let body: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!((run.code, &body["error"], &body["hint"]), (Some(2), &"usage".into(), &"mcp-authctl --help".into()));
}

#[test]
fn a_config_that_does_not_parse_is_code_78() {
    let refused = r#"{"error":"invalid_request","error_description":"/c.toml:3: no such key","hint":"did you mean `issuer`?"}"#;
    let expected = "error: /c.toml:3: no such key; the last good version stays in use\nhint: did you mean `issuer`?\n";
    assert_eq!(Daemon::saying(400, refused).run(&["reload"]), ran(78, "", expected));
    assert_eq!(Daemon::saying(200, r#"{"path":"/c.toml"}"#).run(&["reload"]), ran(0, "", "reloaded /c.toml\n"));
}

#[test]
fn env_is_for_eval_and_is_all_or_nothing() {
    let daemon = Daemon::saying(200, TOKEN);
    let socket = daemon.socket().display().to_string();
    let expected = format!("export MCP_AUTHD_SOCKET='{socket}'\nexport GITHUB_TOKEN='gho_16C7e42F'\n");
    assert_eq!(daemon.run(&["env", "GITHUB_TOKEN=github"]), ran(0, &expected, ""));
    let powershell = format!("$env:MCP_AUTHD_SOCKET = '{socket}'\n");
    assert_eq!(daemon.run(&["env", "--shell", "powershell"]), ran(0, &powershell, ""));
    let refused = Daemon::saying(401, &error("login_required", ""));
    assert_eq!(refused.run(&["env", "A=github"]), ran(3, "", "error: it did not work\n"));
}

#[test]
fn events_are_followed_until_the_daemon_ends() {
    let (sender, lines) = std::sync::mpsc::channel();
    let lines = std::sync::Mutex::new(Some(lines));
    let daemon = Daemon::new(move |_| Reply::Lines(lines.lock().unwrap().take().unwrap()));
    sender.send(r#"{"at":"2026-12-01T10:00:00Z","event":"refresh_failed","grant":"github","detail":"no route"}"#.to_owned()).unwrap();
    drop(sender);
    let run = daemon.run(&["events"]);
    assert_eq!((run.code, &*run.stdout), (Some(4), "2026-12-01T10:00:00Z refresh failed github: no route\n"));
}

#[test]
fn what_needs_no_daemon_works_without_one() {
    for args in [&["completions", "bash"][..], &["completions", "fish"], &["man"], &["--help"], &["login", "--help"]] {
        let run = finish(ctl(args));
        assert!(run.code == Some(0) && run.stdout.contains("mcp-authctl") && run.stderr.is_empty(), "{args:?}: {run:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    assert_eq!(finish(ctl(&["man", pages.to_str().unwrap()])).code, Some(0));
    assert!(pages.join("mcp-authctl-login.1").exists());
    let daemon = std::fs::read_to_string(pages.join("mcp-authd.1")).unwrap();
    assert!(daemon.contains("mcp\\-authd \\- the daemon that owns your OAuth grants"), "{daemon}");
    assert!(daemon.contains("\\-\\-ephemeral") && daemon.contains("MCP_AUTHD_LOG"), "{daemon}");
    let pkce = finish(ctl(&["pkce", "--json"]));
    let value: serde_json::Value = serde_json::from_str(&pkce.stdout).unwrap();
    assert_eq!((value["code_verifier"].as_str().unwrap().len(), value["code_challenge"].as_str().unwrap().len()), (43, 43));
    assert_ne!(finish(ctl(&["pkce"])).stdout, finish(ctl(&["pkce"])).stdout);
}

#[test]
fn a_default_account_is_chosen_shown_and_taken_back() {
    let provider =
        r#"{"name":"github","configured":true,"has_client_secret":false,"scopes":[],"redirect_uri":"r","default_account":"work"}"#;
    let grant =
        r#"{"name":"github:work","provider":"github","account":"octocat","default":true,"scopes":[],"state":"ok","refreshable":true}"#;
    let daemon = Daemon::new(move |asked| match asked.split(' ').collect::<Vec<_>>()[..2] {
        ["GET", "/v1/grants/github:work"] => Reply::Json(200, grant.into()),
        ["GET", "/v1/grants/github"] => Reply::Json(409, error("ambiguous_grant", "")),
        ["GET", "/v1/providers"] => Reply::Json(200, format!("[{provider}]")),
        ["GET", "/v1/grants/gitlab:me" | "/v1/grants/gitlab"] => Reply::Json(200, grant.replace("github:work", "gitlab")),
        ["PUT", _] => Reply::Json(200, provider.into()),
        _ => Reply::Json(404, error("not_found", "")),
    });
    let run = daemon.run(&["use", "github:work"]);
    assert_eq!(run, ran(0, "", "github stands for github:work as octocat from now on\n"));
    assert_eq!([daemon.asked(), daemon.asked()], ["GET /v1/grants/github:work", "GET /v1/grants/github"]);
    assert_eq!(daemon.asked(), r#"PUT /v1/providers/github {"default_account":"work"}"#);
    assert_eq!(daemon.run(&["use", "github"]), ran(0, "", "github stands for no account with a label any more\n"));
    assert_eq!(daemon.asked(), "GET /v1/providers");
    assert_eq!(daemon.asked(), r#"PUT /v1/providers/github {"default_account":""}"#);
    assert!(daemon.run(&["status", "github:work"]).stdout.contains("default: github stands for it\n"));
    let taken = daemon.run(&["use", "gitlab:me"]);
    assert!(taken.code == Some(1) && taken.stderr.contains("hint: mcp-authctl logout gitlab, then"), "{}", taken.stderr);
}

#[test]
#[cfg(target_os = "linux")]
fn a_verb_that_holds_a_token_leaves_no_core_and_can_be_recognised() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let daemon = Daemon::new(move |_| {
        wait.lock().unwrap().recv().unwrap();
        Reply::Json(200, TOKEN.into())
    });
    for args in [&["token", "github"][..], &["token", "github", "--fingerprint"], &["headers", "github"]] {
        let child = canned::piped(&mut daemon.command(args));
        daemon.asked();
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().next(), Some("0"), "{args:?}: {core}");
        // It belongs to root where the process is undumpable, and the daemon may not look.
        let exe = std::fs::metadata(format!("/proc/{}/mem", child.id())).unwrap();
        let own = std::fs::metadata("/proc/self/mem").unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&exe), std::os::unix::fs::MetadataExt::uid(&own), "{args:?}");
        go.send(()).unwrap();
        assert_eq!(canned::wait(child).code, Some(0));
    }
}

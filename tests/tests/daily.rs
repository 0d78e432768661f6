//! What a person does on the first day and every day: setup without a keychain, a doctor that finds the fault, a status that
//! is followed over a restart. The daemon, the command line and the servers are the real ones.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_tests::rogue::{Plan, Rogue, Rules};
use mcp_auth_tests::{Keyring, Output, PASSPHRASE, Room, Server, provider_table};
use serde_json::Value;

/// A room as a server in a rack offers it: no keychain, no display, no key source chosen.
fn bare_room(config: &str) -> Room {
    let mut room = Room::without_key_source(config);
    room.set("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    room
}

/// The checks of `doctor --json` by their level: `failed`, `warning`, `note`, `ok`.
fn checks(output: &Output, level: &str) -> Vec<Value> {
    output.json()["checks"].as_array().unwrap().iter().filter(|check| check["level"] == level).cloned().collect()
}

/// The checks of one name, as they are printed.
fn told(output: &Output, name: &str) -> String {
    output.json()["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name).map(Value::to_string).collect()
}

#[test]
fn a_newcomer_without_keychain_and_display_is_led_from_step_to_step() {
    let server = Server::with_lifetime(300);
    let room = bare_room(&provider_table("test", &server, ""));
    room.ctl(&["setup"]).fails_with(4).says("mcp-authd &");
    let daemon = room.start();
    let refused = room.ctl(&["setup"]).fails_with(1).says("no D-Bus session bus");
    assert!(refused.stderr.contains("mcp-authctl setup --key-source passphrase"), "the next command is named: {refused:?}");
    let made = room.ctl_typing(&["setup", "--key-source", "passphrase"], PASSPHRASE).ok();
    assert!(made.stderr.contains("[ok] vault    unlocked, key source passphrase"), "{made:?}");
    assert!(made.stderr.contains("next: mcp-authctl login"), "{made:?}");
    assert!(room.ctl(&["status"]).ok().stdout.contains("log in with `mcp-authctl login NAME`"));
    daemon.log_in("test", "alice");
    let status = room.ctl(&["status"]).ok();
    let rows: Vec<&str> = status.stdout.lines().collect();
    assert!(rows[0].starts_with("GRANT  ACCOUNT") && rows[1].starts_with("test   ") && rows[1].ends_with("  ok"), "{status:?}");
    assert!(rows.iter().all(|row| row.chars().count() <= 80), "{status:?}");
    let again = room.ctl(&["setup"]).ok();
    assert!(again.stderr.contains("next: mcp-authctl status"), "{again:?}");
    let healthy = room.ctl(&["doctor", "--json"]).ok();
    assert_eq!((checks(&healthy, "failed"), checks(&healthy, "warning")), (vec![], vec![]), "{healthy:?}");
    assert!(told(&healthy, "provider").contains("answers in") && told(&healthy, "clock").contains("agrees"), "{healthy:?}");
}

#[test]
fn setup_finds_a_keychain_that_came_after_the_daemon() {
    let mut room = Room::without_key_source("");
    let mut keyring = Keyring::bus_only(&room.path("home"), &room.path("run"));
    room.set("DBUS_SESSION_BUS_ADDRESS", keyring.address());
    let _daemon = room.start();
    keyring.start_unlocked();
    let made = room.ctl(&["setup"]).ok();
    assert!(made.stderr.contains("[ok] vault    unlocked, key source keychain"), "{made:?}");
    assert_eq!(keyring.count(), Some(1));
}

#[test]
fn setup_installs_the_service_where_nobody_answers_and_the_doctor_looks_after_it() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    systemd.ctl(&["setup"]).fails_with(4).says("mcp-authctl service install");
    let made = systemd.ctl(&["setup", "--yes"]).ok();
    assert_eq!(made.stderr.matches("[ok] service").count(), 1, "{made:?}");
    assert!(made.stderr.contains("[ok] vault    unlocked, key source key-file"), "{made:?}");
    assert!(systemd.daemon().is_some());
    let well = systemd.ctl(&["doctor", "--json"]).ok();
    assert!(told(&well, "service").contains("systemd: ") && checks(&well, "warning").is_empty(), "{well:?}");
    systemd.ctl(&["service", "stop", "--socket"]).ok();
    let stopped = systemd.ctl(&["doctor", "--json"]);
    assert_eq!((stopped.code, checks(&stopped, "failed").len()), (1, 1), "{stopped:?}");
    assert!(told(&stopped, "service").contains("does not run") && told(&stopped, "service").contains("service start"), "{stopped:?}");
}

#[test]
fn a_check_is_quiet_and_tells_by_its_exit_code() {
    let server = Server::with_lifetime(300);
    let room = bare_room(&provider_table("test", &server, ""));
    let check = |code: i32| {
        let Output { code: found, stdout, stderr } = room.ctl(&["status", "--check", "test"]);
        assert_eq!((found, &*stdout, &*stderr), (code, "", ""));
    };
    check(4);
    let daemon = room.start();
    check(7);
    room.ctl_typing(&["setup", "--key-source", "passphrase"], PASSPHRASE).ok();
    check(3);
    daemon.log_in("test", "alice");
    check(0);
    room.ctl(&["lock"]).ok();
    check(7);
}

#[test]
fn a_watch_outlives_the_daemon_and_tells_what_the_next_one_does() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let mut watch = room.ctl_spawn(&["status", "--watch"]);
    let line = |start: &'static str| move |said: &str| said.lines().any(|line| line.starts_with(start)).then_some(());
    watch.wait_for("the first grant", line("test: ok, valid until"));
    assert_eq!(daemon.stop().code, 0);
    watch.wait_for("the end of the daemon", line("mcp-authd has ended"));
    let daemon = room.start();
    daemon.log_in("test:b", "bob");
    watch.wait_for("the second grant", line("test:b: ok, valid until"));
    room.ctl(&["logout", "test"]).ok();
    watch.wait_for("the logout", line("test: logged out"));
    watch.signal(rustix::process::Signal::INT);
    assert_eq!(watch.wait().code, 128 + 2);
}

#[test]
fn the_doctor_works_without_a_daemon_and_says_why_it_does_not_start() {
    let room = Room::with_config("");
    let down = room.ctl(&["doctor", "--json"]);
    assert_eq!((down.code, told(&down, "socket").contains("mcp-authd is not running")), (1, true), "{down:?}");
    assert!(told(&down, "socket").contains("mcp-authd &") && told(&down, "programs").contains("\"ok\""), "{down:?}");
    room.write_config("[providers.test]\nisuer = \"https://a.example\"\n");
    let broken = room.ctl(&["doctor", "--json"]);
    assert!(told(&broken, "config").contains("config.toml:2"), "{broken:?}");
    assert!(told(&broken, "config").contains("did you mean `issuer`?"), "{broken:?}");
    let report = room.ctl(&["doctor", "--report"]);
    assert!(!report.stdout.contains("isuer") && report.stdout.contains("it has an error"), "{report:?}");
}

#[test]
fn the_doctor_names_a_provider_that_does_not_answer_and_asks_nobody_else() {
    let (server, unused) = (Server::with_lifetime(300), Rogue::start(Rules::strict(Duration::from_secs(300))));
    let room = Room::with_config(&format!("{}{}", provider_table("test", &server, ""), unused.provider_table("other", "")));
    let daemon = room.start();
    let well = room.ctl(&["doctor", "--json"]).ok();
    assert!(told(&well, "provider").contains("test: ") && told(&well, "provider").contains("other: "), "{well:?}");
    let asked = unused.seen().requests.values().sum::<u64>();
    for _ in 0..20 {
        daemon.show("/v1/doctor");
    }
    assert_eq!(unused.seen().requests.values().sum::<u64>(), asked, "whoever asks often makes the daemon ask often");
    unused.plan(Plan::canned(200, &["content-type: text/html"], "<html>").path("/.well-known/oauth-authorization-server"));
    unused.plan(Plan::canned(200, &["content-type: text/html"], "<html>").path("/.well-known/openid-configuration"));
    room.ctl(&["reload"]).ok();
    let web_page = room.ctl(&["doctor", "--json"]);
    assert_eq!((web_page.code, told(&web_page, "provider").contains("web page")), (1, true), "{web_page:?}");
    drop(unused);
    room.ctl(&["reload"]).ok();
    let gone = room.ctl(&["doctor", "--json"]);
    let failed = checks(&gone, "failed");
    assert!(failed.len() == 1 && failed[0]["detail"].as_str().unwrap().starts_with("other: cannot connect"), "{gone:?}");
    assert!(gone.stderr.contains("1 of "), "{gone:?}");
}

#[test]
fn the_doctor_compares_clocks_by_what_a_provider_says() {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let room = Room::at_rogue(&rogue);
    let _daemon = room.start();
    let old = ["date: Sat, 01 Jan 2022 00:00:00 GMT"];
    rogue.plan(Plan::canned(404, &old, "").path("/.well-known/oauth-authorization-server").times(1));
    let late = room.ctl(&["doctor", "--json"]).ok();
    let warning = &checks(&late, "warning")[0];
    assert_eq!(warning["name"], "clock");
    assert!(warning["detail"].as_str().unwrap().contains(" s ahead of that of 127.0.0.1"), "{late:?}");
}

#[test]
fn a_proxy_of_the_shell_is_missed_by_the_doctor_and_copied_by_setup() {
    let mut room = Room::with_config("# mine\n");
    let _daemon = room.start();
    room.set("HTTPS_PROXY", "http://proxy.corp.example:3128");
    room.set("NO_PROXY", "localhost,.corp.example");
    let missed = room.ctl(&["doctor", "--json"]).ok();
    assert!(told(&missed, "network").contains("HTTPS_PROXY is set here") && told(&missed, "network").contains("mcp-authctl setup"));
    let asked = room.ctl(&["setup"]).ok();
    assert!(asked.stderr.contains("hint: mcp-authctl setup --yes"), "nobody has agreed: {asked:?}");
    room.ctl(&["setup", "--yes"]).ok();
    let config = std::fs::read_to_string(room.path("config.toml")).unwrap();
    let expected = "# mine\n\n[network]\nproxy = \"http://proxy.corp.example:3128\"\nno_proxy = [\"localhost\", \".corp.example\"]\n";
    assert_eq!(config, expected);
    let copied = room.ctl(&["doctor", "--json"]).ok();
    assert!(told(&copied, "network").contains("http://proxy.corp.example:3128 (config.toml)"), "{copied:?}");
    assert!(checks(&copied, "warning").is_empty(), "{copied:?}");
    room.set("HTTPS_PROXY", "http://me:hunter2@proxy.corp.example:3128");
    room.write_config("");
    room.ctl(&["reload"]).ok();
    let secret = room.ctl(&["setup", "--yes"]).ok();
    assert!(secret.stderr.contains("HTTPS_PROXY holds a password") && !secret.stderr.contains("hunter2"), "{secret:?}");
    assert_eq!(std::fs::read_to_string(room.path("config.toml")).unwrap(), "");
}

#[test]
fn a_daemons_own_proxy_is_shown_without_its_password() {
    let mut room = Room::with_config("");
    room.set("HTTPS_PROXY", "http://me:hunter2@proxy.corp.example:3128");
    let daemon = room.start();
    let network = daemon.show("/v1/status")["network"].clone();
    assert_eq!(network["proxy"]["value"], "http://proxy.corp.example:3128");
    assert_eq!(network["proxy"]["from"], "HTTPS_PROXY");
    for args in [&["doctor", "--json"][..], &["doctor", "--report"], &["setup"], &["status", "--json"]] {
        let output = room.ctl(args);
        assert!(!format!("{output:?}").contains("hunter2"), "{output:?}");
    }
}

#[test]
fn check_of_the_daemon_reads_everything_and_makes_nothing() {
    let room = Room::with_config("");
    let check = || {
        let mut command = room.command(&mcp_auth_tests::binary("mcp-authd"));
        command.arg("--check");
        mcp_auth_tests::run(command, "check", "", false)
    };
    let found = check().ok();
    assert!(found.stdout.contains(&format!("config  {}", room.path("config.toml").display())), "{found:?}");
    assert!(!room.path("state/vault").exists() && !room.socket().exists(), "nothing is made");
    room.write_config("[providers.test]\nisuer = \"x\"\n");
    check().fails_with(78).says("config.toml:2");
}

//! The daemon as a service of its user under a real `systemd --user`, installed and taken away by `mcp-authctl service`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mcp_auth_tests::issuer::OwnIssuer;
use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Listing, OWNER, Room, Running, Systemd, attempts, binary, give, require, run, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
const SERVICE: &str = "mcp-authd.service";
const SOCKET: &str = "mcp-authd.socket";

/// What `token` prints, with the marks that the leak search looks for.
const TOKEN_LINE: &str = "zQaT9qz-static-zQaT9qz\n";

/// The exposure that `systemd-analyze security` may find, in tenths. It counts each capability of root, which the service of
/// a user has not, and each namespace, which is left out with the reasons that the unit gives.
const EXPOSURE: &str = "65";

/// Installed, with a token to ask for.
#[track_caller]
fn installed<'a>(systemd: &Systemd<'a>) -> u32 {
    systemd.ctl(&["service", "install"]).ok();
    systemd.ctl_typing(&["add-token", "test"], TOKEN_LINE.trim()).ok();
    systemd.daemon().expect("the daemon runs")
}

fn units(room: &Room) -> PathBuf {
    room.path("home/.config/systemd/user")
}

/// Adds a drop-in, as `systemctl --user edit` does.
fn drop_in(room: &Room, lines: &str) {
    let folder = units(room).join("mcp-authd.service.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("override.conf"), format!("[Service]\n{lines}\n")).unwrap();
    give(&room.path("home/.config"), OWNER);
}

#[test]
fn one_command_installs_it_and_a_second_one_changes_nothing() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    let before = Listing::of(&room.path("home"));
    let plan = systemd.ctl(&["service", "install", "--dry-run"]).ok();
    assert_eq!(plan.stdout.lines().filter(|line| line.starts_with("would ")).count(), 5, "{}", plan.stdout);
    assert_eq!(before.changes(&Listing::of(&room.path("home")), &room.path("nothing")), [""; 0], "a dry run changes nothing");

    let done = systemd.ctl(&["service", "install"]).ok();
    let said = done.stderr.lines().map(|line| format!("would {line}")).collect::<Vec<_>>().join("\n");
    assert!(said.starts_with(plan.stdout.trim_end()), "what was told is what was done: {said}");
    let pid = systemd.daemon().expect("the daemon runs");
    systemd.ctl(&["service", "install"]).ok().says("nothing to do");
    assert_eq!(systemd.daemon(), Some(pid), "it runs on");

    let state = systemd.ctl(&["service", "status", "--json"]).ok().json();
    assert_eq!((&state["manager"], &state["files"], &state["enabled"]), (&"systemd".into(), &"as_written".into(), &true.into()), "{state}");
    // The caller's variables lead it to its files, though systemd has not got them.
    let vault = systemd.ctl(&["status", "--json"]).ok().json()["status"]["vault"].clone();
    assert_eq!(vault["key_source"], "key-file");
    assert!(room.path("state/vault").is_dir());
    let mode = |name: &str| fs::metadata(room.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("run/mcp-authd"), mode("run/mcp-authd/mcp-authd.sock")), (0o700, 0o600));
}

#[test]
fn the_next_login_brings_it_back_and_the_first_request_before_that_starts_it() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    installed(&systemd);
    drop(systemd);

    let systemd = room.start_systemd("sockets.target");
    assert_eq!(systemd.daemon(), None, "only the socket is there");
    assert_eq!(systemd.ctl(&["service", "status", "--json"]).ok().json()["listening"], true);
    assert_eq!(systemd.daemon(), None, "to look does not wake it");
    assert_eq!(systemd.ctl(&["token", "test"]).ok().stdout, TOKEN_LINE);
    assert!(systemd.daemon().is_some());
    drop(systemd);

    let systemd = room.start_systemd("default.target");
    assert!(systemd.daemon().is_some(), "it runs before anybody asks");
}

#[test]
fn a_port_that_systemd_holds_for_the_issuer_or_the_relay_is_never_anybody_elses() {
    let (issuer, relay) = (OwnIssuer::somewhere(), OwnIssuer::somewhere().port());
    let room = Room::for_systemd();
    room.write_config(&format!("[relay]\nlisten = \"127.0.0.1:{relay}\"\n{}", issuer.config(600)));
    let folder = units(&room).join("mcp-authd.socket.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join("override.conf"),
        format!("[Socket]\nListenStream=127.0.0.1:{}\nListenStream=127.0.0.1:{relay}\n", issuer.port()),
    )
    .unwrap();
    give(&room.path("home/.config"), OWNER);
    let systemd = room.start_systemd("default.target");
    installed(&systemd);
    let answers = || {
        let told = systemd.ctl(&["doctor"]).stdout;
        told.contains("[ok]      issuer") && told.contains("[ok]      relay")
    };
    wait_until("the issuer and the relay", PATIENCE, || answers().then_some(()));
    let taken = || [issuer.port(), relay].iter().all(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_err());
    assert!(taken());
    systemd.ctl(&["service", "stop"]).ok();
    assert_eq!(systemd.daemon(), None);
    assert!(taken(), "while no daemon runs");
    wait_until("those of the next daemon", PATIENCE, || answers().then_some(()));
}

#[test]
fn a_killed_daemon_comes_back_and_whoever_asks_meanwhile_waits() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    let mut pid = installed(&systemd);
    for round in 1..=5 {
        systemd.systemctl(&["kill", "--signal=KILL", "--kill-who=main", SERVICE]).ok();
        assert_eq!(systemd.ctl(&["token", "test"]).ok().stdout, TOKEN_LINE);
        let new = systemd.daemon().expect("the daemon runs again");
        assert_ne!(new, pid);
        assert_eq!(systemd.show(SERVICE, "NRestarts"), round.to_string());
        pid = new;
    }
    println!("killed 5 times: 5 of 5 times back with a new process, 5 of 5 requests answered");
}

#[test]
fn stop_lasts_until_the_next_request_and_with_its_socket_until_start() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    let pid = installed(&systemd);
    systemd.ctl(&["service", "stop"]).ok().says("the next request");
    assert_eq!((systemd.daemon(), systemd.show(SERVICE, "Result")), (None, "success".into()));
    systemd.ctl(&["token", "test"]).ok();
    assert!(systemd.daemon().is_some_and(|new| new != pid));

    systemd.ctl(&["service", "stop", "--socket"]).ok();
    systemd.ctl(&["token", "test"]).fails_with(4).says("mcp-authctl service start");
    assert_eq!(systemd.ctl(&["service", "status"]).says("does not run").code, 4);
    systemd.ctl(&["service", "start"]).ok();
    systemd.ctl(&["token", "test"]).ok();
}

#[test]
fn nobody_is_refused_while_it_restarts_under_fifty_requests_a_second() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    installed(&systemd);
    let mut clients = systemd.probe(&["steady", room.socket().to_str().unwrap(), "50", "10"]);
    clients.wait_for("the first requests", |said| said.contains("begun").then_some(()));
    let mut restarts = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(9) {
        systemd.ctl(&["service", "restart"]).ok();
        restarts += 1;
    }
    let output = clients.wait().ok();
    let counted: serde_json::Value = serde_json::from_str(output.stdout.lines().last().unwrap()).unwrap();
    println!("{restarts} restarts under 50 requests a second: {counted}");
    assert!(restarts >= 3, "{restarts} restarts");
    assert_eq!((&counted["asked"], &counted["refused"], &counted["tokens"]), (&500.into(), &0.into(), &500.into()), "{counted}");
}

#[test]
fn uninstall_leaves_nothing_but_the_vault() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    let look = || ["home", "run"].map(|name| Listing::of(&room.path(name)));
    let before = look();
    installed(&systemd);
    systemd.ctl(&["service", "uninstall", "--dry-run"]).ok();
    assert!(systemd.daemon().is_some(), "a dry run ends nothing");
    systemd.ctl(&["service", "uninstall"]).ok().says("stay where they are");
    let after = look();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.changes(after, &room.path("run/systemd")), [""; 0]);
    }
    let left = systemd.systemctl(&["list-units", "--all", "--plain", "--no-legend", "mcp-authd*"]).ok().stdout;
    assert_eq!((left.as_str(), systemd.daemon()), ("", None));
    assert!(room.path("state/vault/vault.json").exists(), "the vault stays");
    systemd.ctl(&["service", "uninstall"]).ok().says("nothing to do");
    assert_eq!(systemd.ctl(&["service", "status"]).says("not installed").code, 1);
    systemd.ctl(&["service", "restart"]).fails_with(1).says("hint: mcp-authctl service install");

    systemd.ctl(&["service", "install"]).ok();
    assert_eq!(systemd.ctl(&["token", "test"]).ok().stdout, TOKEN_LINE, "and is found again");
}

#[test]
fn an_edited_unit_is_not_lost_without_a_yes() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    installed(&systemd);
    let unit = units(&room).join(SERVICE);
    let edited = fs::read_to_string(&unit).unwrap().replace("TimeoutStopSec=30", "TimeoutStopSec=31");
    fs::write(&unit, &edited).unwrap();
    for verb in ["install", "uninstall"] {
        systemd.ctl(&["service", verb]).fails_with(1).says(&format!("mcp-authctl service {verb} --force"));
        assert_eq!(fs::read_to_string(&unit).unwrap(), edited);
    }
    assert_eq!(systemd.ctl(&["service", "status", "--json"]).ok().json()["files"], "edited");
    // On a terminal it asks, and takes Enter for a no.
    let on_terminal = |verb: &str, answer: &str| {
        let line = format!("{} service {verb}", binary("mcp-authctl").display());
        systemd.run(&require("script", "bsdutils"), &["-qec", &line, "/dev/null"], answer)
    };
    for no in ["n", "perhaps\nno", "\n"] {
        let said = on_terminal("install", no);
        assert!(said.code == 1 && said.stdout.contains("[y/N]"), "{said:?}");
        assert_eq!(fs::read_to_string(&unit).unwrap(), edited);
    }
    on_terminal("install", "y").ok();
    assert_eq!(systemd.show(SERVICE, "TimeoutStopUSec"), "30s");

    drop_in(&room, "TimeoutStopSec=32");
    systemd.systemctl(&["daemon-reload"]).ok();
    systemd.ctl(&["service", "install"]).ok();
    assert_eq!(systemd.show(SERVICE, "TimeoutStopUSec"), "32s", "a drop-in is the person's");
    systemd.ctl(&["service", "uninstall"]).ok().says("mcp-authd.service.d stays");
    assert!(units(&room).join("mcp-authd.service.d/override.conf").exists());
}

#[test]
fn what_an_install_was_told_is_kept_by_the_next_one() {
    let mut room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    installed(&systemd);
    drop(systemd);
    for variable in ["MCP_AUTHD_STATE_DIR", "MCP_AUTHD_KEY_SOURCE", "MCP_AUTHD_LOG"] {
        room.unset(variable);
    }
    let moved = room.path("home/elsewhere/authd.sock");
    room.set("MCP_AUTHD_SOCKET", moved.to_str().unwrap());
    room.set("MCP_AUTHD_LOG", "");
    let systemd = room.start_systemd("default.target");
    systemd.ctl(&["service", "install"]).ok().says("the socket changes");
    assert_eq!(systemd.ctl(&["token", "test"]).ok().stdout, TOKEN_LINE, "the same vault, at another socket");
    assert!(moved.exists() && !room.socket().exists());
    let text = fs::read_to_string(units(&room).join(SERVICE)).unwrap();
    assert!(text.contains("MCP_AUTHD_KEY_SOURCE=key-file") && !text.contains("MCP_AUTHD_LOG"), "an empty one takes it away: {text}");
}

#[test]
fn a_daemon_that_was_started_by_hand_is_told_and_left_alone() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    let by_hand = |systemd: &Systemd<'_>| systemd.ctl(&["service", "status", "--json"]).json()["by_hand"].as_u64();
    let mut command = systemd.command(&require("setsid", "util-linux"));
    command.arg("--fork").arg(binary("mcp-authd"));
    run(command, "by-hand", "", false).ok();
    let pid = wait_until("the daemon", PATIENCE, || by_hand(&systemd));
    let hint = format!("hint: kill {pid} && mcp-authctl service install");
    systemd.ctl(&["service", "install"]).fails_with(75).says(&hint);
    assert!(!units(&room).exists(), "nothing was written");
    systemd.run(&require("sh", "dash"), &["-c", &format!("kill {pid}")], "").ok();
    wait_until("its end", PATIENCE, || by_hand(&systemd).is_none().then_some(()));
    systemd.ctl(&["service", "install"]).ok();
}

#[test]
fn a_daemon_by_hand_at_another_socket_is_waited_for_and_then_told() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    let mut command = systemd.command(&require("setsid", "util-linux"));
    command.env("MCP_AUTHD_SOCKET", room.path("run/other.sock")).arg("--fork").arg(binary("mcp-authd"));
    run(command, "by-hand", "", false).ok();
    wait_until("the daemon", PATIENCE, || room.path("run/other.sock").exists().then_some(()));
    let start = Instant::now();
    systemd.ctl(&["service", "install"]).fails_with(75).says("another mcp-authd is running");
    assert!(start.elapsed() >= Duration::from_secs(15), "one that is about to end is waited for");
    assert_eq!(systemd.show(SERVICE, "NRestarts"), "0", "75 does not pass by itself");
}

#[test]
fn the_key_of_the_vault_may_come_as_a_credential_of_the_unit() {
    let mut room = Room::for_systemd();
    room.unset("MCP_AUTHD_KEY_SOURCE");
    let key = room.path("home/key");
    fs::write(&key, [7; 32]).unwrap();
    give(&key, OWNER);
    let systemd = room.start_systemd("default.target");
    drop_in(&room, &format!("LoadCredential=mcp-authd.key:{}\nEnvironment=MCP_AUTHD_KEY_SOURCE=systemd-credential", key.display()));
    installed(&systemd);
    systemd.ctl(&["service", "restart"]).ok();
    assert_eq!(systemd.ctl(&["token", "test"]).ok().stdout, TOKEN_LINE);
    assert_eq!(systemd.ctl(&["status", "--json"]).ok().json()["status"]["vault"]["key_source"], "systemd-credential");
}

#[test]
fn a_config_that_does_not_parse_is_told_at_once_and_mended_by_start() {
    let room = Room::for_systemd();
    room.write_config("nonsense");
    let systemd = room.start_systemd("default.target");
    systemd.ctl(&["service", "install"]).fails_with(78).says("its config or environment cannot be used");
    // Whoever asks is not left waiting for a daemon that cannot come.
    let asked = systemd.ctl(&["status"]);
    assert_eq!(asked.code, 4, "{asked:?}");
    assert_eq!(systemd.show(SERVICE, "NRestarts"), "0", "78 does not pass by itself");
    room.write_config("");
    systemd.ctl(&["service", "start"]).ok();
    systemd.ctl(&["status"]).ok();
}

#[test]
fn logs_come_from_the_file_that_a_drop_in_names_where_there_is_no_journal() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    systemd.ctl(&["service", "logs"]).fails_with(1).says("mcp-authctl service install");
    installed(&systemd);
    systemd.ctl(&["service", "logs"]).fails_with(1).says("StandardError=append:%h/mcp-authd.log");
    // As the hint says.
    drop_in(&room, "StandardError=append:%h/mcp-authd.log");
    systemd.systemctl(&["daemon-reload"]).ok();
    systemd.ctl(&["service", "restart"]).ok();
    let ready = |output: &str| output.contains("ready");
    let lines = systemd.ctl(&["service", "logs"]).ok().stdout;
    assert!(ready(&lines), "{lines}");
    let last = systemd.ctl(&["service", "logs", "--lines", "1", "--json"]).ok();
    assert!(last.json()["line"].is_string(), "{last:?}");

    let mut command = systemd.command(&binary("mcp-authctl"));
    command.args(["service", "logs", "--follow", "--lines", "0"]);
    let mut following = mcp_auth_tests::Running::start(command, "logs", false);
    systemd.ctl(&["service", "restart"]).ok();
    following.wait_for("the line of the next start", |said| ready(said).then_some(()));
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_wherever_the_program_is() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    let odd = room.path("100% of mine");
    fs::create_dir(&odd).unwrap();
    for name in ["mcp-authd", "mcp-authctl"] {
        fs::copy(binary(name), odd.join(name)).unwrap();
    }
    give(&odd, OWNER);
    systemd.run(&odd.join("mcp-authctl"), &["service", "install"], "").ok();
    assert!(systemd.daemon().is_some());
    systemd.ctl(&["status"]).ok();

    let files = [SERVICE, SOCKET].map(|unit| units(&room).join(unit));
    let analyze = require("systemd-analyze", "systemd");
    let [service, socket] = files.each_ref().map(|file| file.to_str().unwrap());
    let verified = systemd.run(&analyze, &["--user", "verify", service, socket], "").ok();
    assert_eq!((verified.stdout.as_str(), verified.stderr.as_str()), ("", ""), "not a word");
    let judged = systemd.run(&analyze, &["--user", "security", "--offline=yes", "--no-pager", "--threshold", EXPOSURE, service], "");
    println!("{}", judged.stdout.lines().last().unwrap_or_default());
    judged.ok();
}

const EPERM: i64 = 1;
const EAFNOSUPPORT: i64 = 97;
const SIGSYS: i64 = 31;

#[test]
fn every_line_of_the_sandbox_is_seen_to_hold() {
    let room = Room::for_systemd();
    let systemd = room.start_systemd("default.target");
    installed(&systemd);
    let probe = room.sandbox_probe();
    let [without, within] = ["without", "within"].map(|name| room.path(&format!("home/{name}")).to_str().unwrap().to_owned());
    systemd.run(&probe, &[&without], "").ok();
    // What the unit runs beside the daemon is in the same sandbox.
    drop_in(&room, &format!("ExecStartPost={} {within}", probe.display()));
    systemd.systemctl(&["daemon-reload"]).ok();
    systemd.ctl(&["service", "restart"]).ok();
    let (without, within) = (attempts(without.as_ref()), attempts(within.as_ref()));
    println!("outside {without:?}\ninside  {within:?}");

    for (name, value) in [("no_new_privileges", 1), ("files", 4096), ("core", 0), ("umask", 0o077)] {
        assert_eq!(within[name], value, "{name}");
    }
    let mut table = vec![
        ("personality", 0, EPERM),
        ("namespace", 0, EPERM),
        ("set_uid_bit", 0, EPERM),
        ("owner", 0, EPERM),
        ("traced", 0, EPERM),
        ("memory_of_another", 0, EPERM),
        ("page_faults", 0, EPERM),
        ("ring", 0, EPERM),
        ("compared", 0, EPERM),
        ("scheduler", 0, EPERM),
        ("packet_socket", EPERM, EAFNOSUPPORT),
        ("unix_socket", 0, 0),
        ("inet_socket", 0, 0),
        ("netlink_socket", 0, 0),
        ("exe_of_another", 0, 0),
    ];
    if cfg!(target_arch = "x86_64") {
        table.push(("foreign_call", 0, -SIGSYS));
    }
    for (name, outside, inside) in table {
        assert_eq!((without[name], within[name]), (outside, inside), "{name}, outside and inside");
    }
}

/// A browser that follows the login by itself, and notes in whose hands it is.
const FOLLOWS: &str = "#!/bin/sh
{ cat /proc/self/cgroup; grep -e NoNewPrivs -e Seccomp: /proc/self/status; } >> NOTES
curl --silent --location --output /dev/null \"$1\"
echo done >> NOTES
";

#[test]
fn a_login_that_is_pressed_on_a_notification_runs_beside_the_service_and_not_in_its_sandbox() {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(2)));
    let mut room = Room::for_systemd();
    let (browser, notes) = (room.path("browser"), room.path("home/notes"));
    room.set("BROWSER", browser.to_str().unwrap());
    room.write_config(&rogue.provider_table("test", ""));
    fs::write(&browser, FOLLOWS.replace("NOTES", notes.to_str().unwrap())).unwrap();
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).unwrap();
    let systemd = room.start_systemd("default.target");
    systemd.systemctl(&["start", "dbus.service"]).ok();
    // As a desktop does with the variables of its session.
    systemd.systemctl(&["set-environment", &format!("BROWSER={}", browser.display())]).ok();
    let mut mock = systemd.command(&require("/usr/bin/python3", "python3-dbusmock"));
    mock.args(["-m", "dbusmock", "--template", "notification_daemon", "--parameters", r#"{"capabilities": "body actions"}"#]);
    let _mock = Running::start(mock, "dbusmock", false);
    let busctl = |words: &[&str]| {
        const OBJECT: [&str; 4] = ["--user", "--json=short", "call", "org.freedesktop.Notifications"];
        let path = ["/org/freedesktop/Notifications", "org.freedesktop.DBus.Mock"];
        let output = systemd.run(&require("busctl", "systemd"), &[&OBJECT[..], &path, words].concat(), "");
        (output.code == 0).then(|| serde_json::from_str::<Value>(&output.stdout).unwrap_or_default())
    };
    let shown = || busctl(&["GetMethodCalls", "s", "Notify"]).map(|calls| calls["data"][0].as_array().unwrap().len());
    wait_until("the desktop", PATIENCE, || shown().filter(|shown| *shown == 0));
    installed(&systemd);
    systemd.ctl(&["login", "test"]).ok();
    rogue.revoke_family(0);
    wait_until("a notification", PATIENCE, || shown().filter(|shown| *shown == 1));
    wait_until("the first browser's end", PATIENCE, || fs::read_to_string(&notes).ok().filter(|notes| notes.contains("done")));
    fs::remove_file(&notes).unwrap();

    busctl(&["EmitSignal", "sssav", "org.freedesktop.Notifications", "ActionInvoked", "us", "2", "u", "1", "s", "log-in"]).unwrap();
    wait_until("a token", PATIENCE, || (systemd.ctl(&["status", "--check", "test"]).code == 0).then_some(()));
    let noted = wait_until("the browser's end", PATIENCE, || fs::read_to_string(&notes).ok().filter(|notes| notes.contains("done")));
    assert!(!noted.contains(SERVICE) && noted.contains("/run-"), "a unit of its own: {noted}");
    assert!(noted.contains("NoNewPrivs:\t0") && noted.contains("Seccomp:\t0"), "no sandbox: {noted}");
    assert_eq!(shown(), Some(1), "one notification");
}

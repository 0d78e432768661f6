//! T42: the browser that a login opens, or cannot open: missing, hanging, failing, loud; and what it inherits.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Answer, Person, Room, Running, wait_until};

use crate::life::{HOUR, PATIENCE, quiet};
use crate::report::{Case, Report};
use crate::walls::inherited;

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T42", title: "$BROWSER missing, hanging, failing or loud: the login goes on", rounds: 60, quick: 7, run: odd_browsers },
    Case { id: "T42", title: "the browser inherits no secret and none of our descriptors", rounds: 20, quick: 2, run: inheritance },
];

/// Scripts, by their first lines, and whether they end by themselves.
const BROWSERS: [(&str, &str); 6] = [
    ("hangs", "exec sleep 1000"),
    ("fails", "exit 3"),
    ("is killed", "kill -9 $$"),
    ("is loud", "while :; do echo loud; echo loud >&2; done"),
    ("waits for input", "cat; exec sleep 1000"),
    ("ignores signals", "trap '' HUP INT TERM; while :; do sleep 1; done"),
];

fn script(room: &Room, name: &str, body: &str) -> PathBuf {
    let path = room.path(name);
    // The process id first, so that what was started can be ended.
    std::fs::write(&path, format!("#!/bin/sh\necho $$ >{}\n{body}\n", room.path("pid").display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The URL that is printed whatever becomes of the browser.
fn printed(login: &mut Running) -> String {
    login.wait_for("the URL", |said| said.lines().find(|line| line.starts_with("http")).map(str::to_owned))
}

fn odd_browsers(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(HOUR));
    for round in 0..report.rounds() as usize {
        report.round(|| {
            let mut room = quiet(Room::at_rogue(&rogue));
            let (kind, body) = BROWSERS.get(round % (BROWSERS.len() + 1)).copied().unwrap_or(("is missing", ""));
            let browser = if body.is_empty() { room.path("nothing here") } else { script(&room, "browser", body) };
            room.set("BROWSER", browser.to_str().unwrap());
            let daemon = room.start();
            let mut login = room.ctl_spawn(&["login", "test"]);
            let url = printed(&mut login);
            assert_eq!(Person::named("alice").browse_to_the_end(&url, Answer::Yes).status, 200, "{kind}");
            let output = login.wait().ok();
            assert!(!format!("{output:?}").contains("loud"), "{kind}: it is heard: {output:?}");
            assert!(rogue.is_active(&daemon.token("test")), "{kind}");
            end(&room);
        });
    }
    report.figure("$BROWSER hangs, fails, is killed, is loud, waits for input, ignores signals, or is missing: the URL is printed");
}

/// Ends the browser that a round has started, which outlives our command.
fn end(room: &Room) {
    let pid = std::fs::read_to_string(room.path("pid")).ok().and_then(|text| text.trim().parse().ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        // In a group of its own, with what it has started.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// What a browser has no use for.
const SECRETS: [&str; 8] = [
    "GITHUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "DB_PASSWORD",
    "OPENAI_API_KEY",
    "GH_PAT",
    "MCP_AUTHD_SOCKET",
    "restic_passphrase",
    "GOOGLE_APPLICATION_CREDENTIALS",
];
/// And what it needs.
const NEEDED: [&str; 3] = ["DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_ACTIVATION_TOKEN"];

fn inheritance(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(HOUR));
    for _ in 0..report.rounds() {
        report.round(|| {
            let mut room = quiet(Room::at_rogue(&rogue));
            let _daemon = room.start();
            let seen = room.path("seen");
            let look = "{ ls -l /proc/self/fd; env; }";
            let browser = script(&room, "browser", &format!("{look} >{0}.new; mv {0}.new {0}", seen.display()));
            room.set("BROWSER", browser.to_str().unwrap());
            for name in SECRETS.into_iter().filter(|name| *name != "MCP_AUTHD_SOCKET").chain(NEEDED) {
                room.set(name, "of-the-person");
            }
            let mut login = room.ctl_spawn(&["login", "test"]);
            let url = printed(&mut login);
            let text = wait_until("the browser", PATIENCE, || std::fs::read_to_string(&seen).ok());
            assert_eq!(Person::named("alice").browse_to_the_end(&url, Answer::Yes).status, 200);
            login.wait().ok();
            let variable = |name: &str| text.lines().any(|line| line.starts_with(&format!("{name}=")));
            for name in SECRETS {
                assert!(!variable(name), "{name} is handed on");
            }
            assert!(NEEDED.into_iter().all(variable), "what a desktop needs is missing: {text}");
            assert_eq!(inherited(&text), [""; 0], "{text}");
        });
    }
    report.figure(format!(
        "{} kinds of variables stay behind, those of the desktop do not; its descriptors: /dev/null three times",
        SECRETS.len()
    ));
}

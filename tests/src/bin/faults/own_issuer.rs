//! T1 at our own issuer: there both ends of a refresh die in the same instant, since they are one process.

use std::time::Duration;

use mcp_auth_tests::issuer::OwnIssuer;
use mcp_auth_tests::{Daemon, Room, wait_until};
use serde_json::json;

use crate::report::{Case, Report};
use crate::side::side_by_side_in;

pub(crate) const CASES: &[Case] =
    &[Case { id: "T1", title: "kill -9 in a refresh at our own issuer: no login lost", rounds: 260, quick: 13, run: kills }];

const PATIENCE: Duration = Duration::from_secs(20);
const LIFETIME: u64 = 3600;
const ROOMS: usize = 4;

/// Every step of the daemon in a refresh. Those of a record are the issuer's, which saves first; from `answer read` on, the
/// used token is all that the daemon's own record knows.
const STEPS: [&str; 13] = [
    "refresh begins",
    "intents append",
    "intents fdatasync",
    "intent synced",
    "record create",
    "record write",
    "record write second half",
    "record fsync",
    "record rename",
    "folder synced",
    "record saved",
    "answer read",
    "reply",
];

fn kills(report: &mut Report) {
    let place = || {
        let issuer = OwnIssuer::somewhere();
        let mut room = Room::with_config(&issuer.config(LIFETIME));
        room.use_failpoints();
        room.set("MCP_AUTHD_LOG", "info");
        room.arm(&[]);
        let daemon = room.start();
        issuer.log_in(&room, &daemon);
        // The first refresh makes the file of intents, which the rounds expect to be there.
        room.ctl(&["refresh", "local"]).ok();
        daemon.kill();
        room
    };
    let step = |number: usize| STEPS[number % STEPS.len()];
    side_by_side_in(report, ROOMS, place, |number| step(number).to_owned(), |room, number| kill_once(room, step(number)));
}

fn kill_once(room: &Room, step: &str) {
    room.arm(&[]);
    let mut daemon = room.start();
    assert_eq!(settled(&daemon), "ok");
    room.arm(&[&format!("{step}=kill")]);
    // The answer never comes.
    let _ = daemon.connect().json("POST", "/v1/grants/local/refresh", &json!({}));
    wait_until("the daemon's death", PATIENCE, || (!daemon.running.is_alive()).then_some(()));
    drop(daemon);
    room.arm(&[]);
    let daemon = room.start();
    assert_eq!(settled(&daemon), "ok", "the login is lost");
    room.ctl(&["refresh", "local"]).ok();
    daemon.kill();
}

/// The state of the grant once no refresh is wanted at once or running.
fn settled(daemon: &Daemon<'_>) -> String {
    wait_until("a grant at rest", PATIENCE, || {
        let summary = daemon.show("/v1/grants/local");
        let state = summary["state"].as_str().unwrap_or_default().to_owned();
        let planned = summary["next_refresh_in"].as_u64().unwrap_or(0);
        (state == "login_required" || (state == "ok" && planned > 60)).then_some(state)
    })
}

//! T4, T5: the asker goes away while the refresh runs, and answers that are lost on their way.

use std::time::Duration;

use mcp_auth_tests::rogue::{Delivery, Plan, Rogue, Rules, Verdict, generation};
use mcp_auth_tests::{Daemon, Room, wait_until};
use serde_json::json;

use crate::report::{Case, Report};

pub(crate) const CASES: &[Case] = &[
    Case { id: "T4", title: "the first asker goes away: the refresh ends and is kept", rounds: 50, quick: 4, run: asker_leaves },
    Case { id: "T5", title: "answer lost after rotation, grace window: sent again, healed", rounds: 100, quick: 10, run: lost_with_grace },
    Case {
        id: "T5",
        title: "answer lost after rotation, strict: one clear end, token served",
        rounds: 25,
        quick: 5,
        run: lost_at_a_strict_server,
    },
];

const S: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(30);

/// The ways an answer is lost, each known at once.
const LOSSES: [Delivery; 5] = [Delivery::Cut(0), Delivery::Cut(60), Delivery::Cut(200), Delivery::Reset(0), Delivery::Reset(200)];

fn room_at(rogue: &Rogue) -> Room {
    let mut room = Room::at_rogue(rogue);
    room.set("MCP_AUTHD_LOG", "info");
    room
}

fn refresh(daemon: &Daemon<'_>) -> u16 {
    daemon.call("POST", "/v1/grants/test/refresh", &json!({})).status
}

fn asker_leaves(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let room = room_at(&rogue);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.kill();
    for _ in 0..report.rounds() {
        report.round(|| {
            let daemon = room.start();
            let before = rogue.look(|seen| seen.refreshes.len());
            rogue.plan(Plan::late(Duration::from_millis(150)).times(1));
            let mut asker = daemon.connect();
            asker.send("POST", "/v1/grants/test/refresh", &[], "{}").unwrap();
            rogue.wait_for("the refresh", |seen| (seen.refreshes.len() > before).then_some(()));
            drop(asker);
            let newest = rogue.look(|seen| seen.issued.last().unwrap().token.clone());
            wait_until("the new token", PATIENCE, || (daemon.token("test") == newest).then_some(()));
            daemon.kill();
            let daemon = room.start();
            assert_eq!(daemon.token("test"), newest, "what was served is not what was kept");
            daemon.kill();
            assert_eq!(rogue.look(|seen| seen.refreshes.len()), before + 1);
        });
    }
}

fn lost_with_grace(report: &mut Report) {
    let rogue = Rogue::start(Rules::grace(HOUR, S * 30));
    let room = room_at(&rogue);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.kill();
    for round in 0..report.rounds() {
        report.round(|| {
            let daemon = room.start();
            let repeated = rogue.look(|seen| seen.count(Verdict::Repeated));
            rogue.plan(Plan::delivered(LOSSES[round as usize % LOSSES.len()]).times(1));
            assert_eq!(refresh(&daemon), 200, "the refresh was not repeated at once");
            assert_eq!(rogue.look(|seen| seen.count(Verdict::Repeated)), repeated + 1, "the same token, once more");
            let token = daemon.token("test");
            assert!(rogue.is_active(&token));
            daemon.kill();
        });
    }
    report.figure(format!("lost 0 of {} (95 % upper bound {:.1} %)", report.rounds(), 300.0 / f64::from(report.rounds())));
}

fn lost_at_a_strict_server(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let room = room_at(&rogue);
    for round in 0..report.rounds() {
        report.round(|| {
            let daemon = room.start();
            daemon.log_in("test", "alice");
            let old = daemon.token("test");
            let before = rogue.look(|seen| seen.refreshes.len());
            rogue.plan(Plan::delivered(LOSSES[round as usize % LOSSES.len()]).times(1));
            refresh(&daemon);
            assert_eq!(daemon.token("test"), old, "the old token is still good and is not served");
            let why = wait_until("the end of the grant", PATIENCE, || {
                let summary = daemon.show("/v1/grants/test");
                (summary["state"] == "login_required").then(|| summary["last_error"].as_str().unwrap_or_default().to_owned())
            });
            assert!(why.contains("answer was lost") || why.contains("ambiguous"), "the reason does not say it: {why}");
            assert_eq!(daemon.token("test"), old, "the old token of a dead grant is not served");
            let sent: Vec<_> = rogue.look(|seen| seen.refreshes[before..].iter().map(|refresh| refresh.generation).collect());
            assert!(sent.len() <= 3, "a storm: {sent:?}");
            assert!(sent.iter().all(|sent| *sent == generation(&old)), "another token was sent: {sent:?}");
            daemon.stop();
        });
    }
}

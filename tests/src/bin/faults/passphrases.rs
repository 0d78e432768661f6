//! T69: somebody who reaches the socket and tries passphrases.

use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Daemon, HttpAnswer, PASSPHRASE, Room, wait_until};
use serde_json::json;

use crate::life::{HOUR, quiet, works};
use crate::report::{Case, Report};

/// The rows of the table.
pub(crate) const CASES: &[Case] =
    &[Case { id: "T69", title: "passphrases by brute force: few are tried, no token, the right one works", rounds: 8, quick: 1, run }];

const HANDS: usize = 8;
/// What a wrong one may cost at most before the right one is taken.
const LONGEST_PAUSE: Duration = Duration::from_secs(70);

fn try_one(daemon: &Daemon<'_>, passphrase: &str) -> HttpAnswer {
    daemon.call("POST", "/v1/vault/unlock", &json!({ "passphrase": passphrase }))
}

fn run(report: &mut Report) {
    let (mut sent, mut tried, mut seconds) = (0, 0, 0.0);
    let patience = Duration::from_secs(if report.rounds() > 1 { 30 } else { 8 });
    for _ in 0..report.rounds() {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(HOUR));
            let mut room = quiet(Room::without_key_source(&rogue.provider_table("test", "")));
            room.set("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
            let daemon = room.start();
            room.ctl_typing(&["setup", "--key-source", "passphrase"], PASSPHRASE).ok();
            daemon.log_in("test", "alice");
            room.ctl(&["lock"]).ok();
            let began = Instant::now();
            let counts = std::thread::scope(|scope| {
                let daemon = &daemon;
                let hands: Vec<_> = (0..HANDS).map(|hand| scope.spawn(move || guess(daemon, hand, began, patience))).collect();
                hands.into_iter().map(|hand| hand.join().unwrap()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
            });
            seconds += began.elapsed().as_secs_f64();
            sent += counts.0;
            tried += counts.1;
            // Three, and then after 2, 4, 8 s and so on.
            let most = 3 + patience.as_secs().ilog2();
            assert!((3..=most).contains(&counts.1), "{} of {} were tried in {patience:?}", counts.1, counts.0);
            room.ctl_typing(&["unlock"], PASSPHRASE).fails_with(1).says("too many wrong passphrases");
            wait_until("the end of the pause", LONGEST_PAUSE, || (try_one(&daemon, PASSPHRASE).status == 200).then_some(()));
            works(&daemon, &rogue, "test");
            // The right one has made up for all the wrong ones.
            room.ctl(&["lock"]).ok();
            room.ctl_typing(&["unlock"], "zQpP9qz wrong zQpP9qz").fails_with(7).says("the passphrase is wrong");
            room.ctl_typing(&["unlock"], PASSPHRASE).ok();
        });
    }
    report.figure(format!("{sent} guesses of {HANDS} connections in {seconds:.0} s, {tried} of them tried; 0 tokens"));
}

/// Guesses without a pause, and asks for a token between: how many were sent, and how many were really tried.
fn guess(daemon: &Daemon<'_>, hand: usize, began: Instant, patience: Duration) -> (u32, u32) {
    let (mut sent, mut tried) = (0, 0);
    while began.elapsed() < patience {
        let answer = try_one(daemon, &format!("zQpP9qz {hand} {sent} zQpP9qz"));
        sent += 1;
        let error = answer.json();
        match (answer.status, error["error_description"].as_str().unwrap_or_default()) {
            (503, "the passphrase is wrong") => tried += 1,
            // One at a time.
            (503, sentence) => assert!(sentence.contains("already"), "{sentence}"),
            (status, sentence) => {
                assert!(status == 429 && sentence.contains("too many wrong passphrases"), "{status}: {sentence}");
                assert!(error["retry_after"].as_u64().is_some_and(|wait| (1..=61).contains(&wait)), "{error}");
            }
        }
        assert_eq!(daemon.refusal("test"), "vault_locked");
        std::thread::sleep(Duration::from_millis(5));
    }
    (sent, tried)
}

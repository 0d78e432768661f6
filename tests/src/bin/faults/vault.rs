//! T11, T17, T20, T22, T71: what a vault makes of files that are half, foreign, newer, changed, swapped, older or copied.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcp_auth_tests::rogue::{Rogue, Rules, Verdict, generation};
use mcp_auth_tests::{Daemon, Room, wait_until};
use serde_json::json;

use crate::disk::{Mount, files, records_folder};
use crate::report::{Case, Report};
use crate::side::side_by_side;

pub(crate) const CASES: &[Case] = &[
    Case { id: "T11", title: "leftovers and half records: cleared or put aside, others served", rounds: 60, quick: 6, run: leftovers },
    Case { id: "T17", title: "a newer store or record: refused, not a byte touched", rounds: 10, quick: 1, run: newer },
    Case { id: "T20", title: "every byte of a record flipped: noticed, others served", rounds: 2_000, quick: 100, run: flips },
    Case { id: "T20", title: "two records swapped: both put aside, the third served", rounds: 20, quick: 2, run: swaps },
    Case { id: "T20", title: "one record rolled back: one login at most, and no storm", rounds: 6, quick: 2, run: rollback_of_one },
    Case { id: "T22", title: "no nonce repeats: restarts, and two copies of one vault", rounds: 100_000, quick: 512, run: nonces },
    Case { id: "T71", title: "a copy without its key: locked, no new key, nothing written", rounds: 10, quick: 1, run: copy_without_key },
    Case { id: "T71", title: "the whole store rolled back: two requests per login at most", rounds: 6, quick: 2, run: rollback_of_all },
];

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(30);
const GRANTS: [&str; 3] = ["test:a", "test:b", "test:c"];

/// A stopped vault with three grants, and the file of each.
struct Home {
    rogue: Rogue,
    room: Room,
    records: Vec<PathBuf>,
}

impl Home {
    fn new(rules: Rules) -> Self {
        let rogue = Rogue::start(rules);
        let mut room = Room::at_rogue(&rogue);
        room.set("MCP_AUTHD_LOG", "info");
        let daemon = room.start();
        let mut records: Vec<PathBuf> = Vec::new();
        for grant in GRANTS {
            daemon.log_in(grant, "alice");
            let new = files(&room, ".sealed").into_keys().find(|path| !records.contains(path)).unwrap();
            records.push(new);
        }
        daemon.kill();
        Self { rogue, room, records }
    }

    /// Opens the vault anew and tells how many records are not served.
    fn quarantined(&self, daemon: &Daemon<'_>) -> u64 {
        let open = |status: &serde_json::Value| status["vault"]["state"] == "unlocked";
        let status = wait_until("an open vault", PATIENCE, || Some(daemon.show("/v1/status")).filter(open));
        status["vault"]["quarantined"].as_u64().unwrap()
    }

    /// Every file of the vault and its key.
    fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        tree(&self.room.path("state"))
    }
}

/// The files below a folder, but for the daemon's lock and the audit, which tells of this too.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(tree(&path));
        } else if !path.ends_with("daemon.lock") && !path.ends_with("audit.jsonl") {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn leftovers(report: &mut Report) {
    side_by_side(report, 3, |number| {
        let home = Home::new(Rules::strict(HOUR));
        let hit = number % 3;
        let whole = std::fs::read(&home.records[hit]).unwrap();
        // Nothing, half, or all but one byte.
        let length = [0, whole.len() / 2, whole.len() - 1][number / 3 % 3];
        std::fs::write(&home.records[hit], &whole[..length]).unwrap();
        let temps = litter(&home, &home.records[hit], &whole);
        let daemon = home.room.start();
        assert_eq!(home.quarantined(&daemon), 1);
        for (at, grant) in GRANTS.iter().enumerate() {
            if at != hit {
                assert!(home.rogue.is_active(&daemon.token(grant)));
                assert_eq!(daemon.call("POST", &format!("/v1/grants/{grant}/refresh"), &json!({})).status, 200);
            }
        }
        assert_eq!(daemon.refusal(GRANTS[hit]), "login_required");
        let aside: Vec<_> = files(&home.room, ".bad").into_values().collect();
        assert_eq!(aside, [&whole[..length]], "what was put aside");
        assert!(temps.iter().all(|temp| !temp.exists()), "a temp file was left");
        assert_eq!(files(&home.room, "notes.txt").into_values().collect::<Vec<_>>(), [b"not ours"]);
        assert!(std::fs::metadata(home.room.path("state/vault/reserve")).unwrap().len() > 4096, "the reserve is empty");
        daemon.log_in(GRANTS[hit], "alice");
        daemon.kill();
        let daemon = home.room.start();
        assert!(GRANTS.iter().all(|grant| home.rogue.is_active(&daemon.token(grant))));
        daemon.kill();
    });
}

/// What crashes at the worst moments leave, and a file of somebody else. Gives the temp files.
fn litter(home: &Home, record: &Path, content: &[u8]) -> [PathBuf; 4] {
    let (folder, state) = (records_folder(&home.room), home.room.path("state"));
    let temps = [
        folder.join(format!("{}.0123456789abcdef.tmp", record.file_name().unwrap().to_str().unwrap())),
        folder.join("intents.0123456789abcdef.tmp"),
        state.join("vault/vault.json.0123456789abcdef.tmp"),
        state.join("state/vault.key.0123456789abcdef.tmp"),
    ];
    for (at, temp) in temps.iter().enumerate() {
        std::fs::write(temp, &content[..content.len() * at / 3]).unwrap();
    }
    std::fs::write(folder.join("intents"), "0123").unwrap();
    std::fs::write(state.join("vault/reserve"), "").unwrap();
    std::fs::write(folder.join("notes.txt"), "not ours").unwrap();
    temps
}

fn newer(report: &mut Report) {
    side_by_side(report, 2, |_| {
        let home = Home::new(Rules::strict(HOUR));
        // One record of the format after this one.
        let mut bytes = std::fs::read(&home.records[1]).unwrap();
        bytes[4] += 1;
        std::fs::write(&home.records[1], &bytes).unwrap();
        let daemon = home.room.start();
        assert_eq!(home.quarantined(&daemon), 1);
        assert_eq!(daemon.refusal("test:b"), "login_required");
        assert!(home.rogue.is_active(&daemon.token("test:a")) && home.rogue.is_active(&daemon.token("test:c")));
        // A new login works, and does not take the newer record's place on the disk.
        daemon.log_in("test:b", "alice");
        assert_eq!(daemon.show("/v1/status")["not_durable"], 1, "nobody is told");
        assert_eq!(std::fs::read(&home.records[1]).unwrap(), bytes, "the newer record");
        daemon.kill();
        bytes[4] -= 1;
        std::fs::write(&home.records[1], &bytes).unwrap();
        // The whole store.
        let header = home.room.path("state/vault/vault.json");
        let text = std::fs::read_to_string(&header).unwrap();
        std::fs::write(&header, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
        let before = home.everything();
        let daemon = home.room.start();
        let locked = |status: &serde_json::Value| status["vault"]["state"] == "locked";
        let status = wait_until("a refusal", PATIENCE, || Some(daemon.show("/v1/status")).filter(locked));
        assert!(status["vault"]["reason"].as_str().unwrap().contains("newer mcp-authd"), "{status}");
        assert_eq!(daemon.refusal("test:a"), "vault_locked");
        home.room.ctl(&["setup", "--key-source", "key-file"]).fails_with(1);
        home.room.ctl(&["unlock"]).fails_with(1).says("newer mcp-authd");
        home.room.ctl(&["vault", "rekey"]).fails_with(1).says("newer mcp-authd");
        daemon.stop();
        assert_eq!(home.everything(), before, "a store of a newer version");
        // Back to the version that wrote it.
        std::fs::write(&header, text).unwrap();
        let daemon = home.room.start();
        assert!(GRANTS.iter().all(|grant| home.rogue.is_active(&daemon.token(grant))));
        daemon.kill();
    });
}

fn flips(report: &mut Report) {
    let home = Home::new(Rules::strict(HOUR));
    let daemon = home.room.start();
    let (record, whole) = (&home.records[1], std::fs::read(&home.records[1]).unwrap());
    let (mut put_aside, mut left, count) = (0, 0, whole.len().min(report.rounds() as usize));
    // With fewer rounds than bytes, bytes from all over the record.
    for at in (0..count).map(|number| number * whole.len() / count) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        report.round(|| {
            assert_eq!(daemon.call("POST", "/v1/vault/lock", &json!({})).status, 200);
            std::fs::write(record, &changed).unwrap();
            assert_eq!(daemon.call("POST", "/v1/vault/unlock", &json!({})).status, 200);
            assert_eq!(home.quarantined(&daemon), 1, "byte {at}");
            assert_eq!(daemon.refusal("test:b"), "login_required", "byte {at}");
            for grant in ["test:a", "test:c"] {
                assert!(home.rogue.is_active(&daemon.token(grant)), "byte {at}: {grant}");
            }
        });
        let aside = files(&home.room, ".bad");
        put_aside += aside.len();
        left += usize::from(record.exists());
        aside.into_keys().for_each(|path| std::fs::remove_file(path).unwrap());
        std::fs::write(record, &whole).unwrap();
    }
    report.figure(format!("{count} of {} bytes: {put_aside} put aside, {left} left as a newer format's (the format byte)", whole.len()));
    assert_eq!((put_aside + left, daemon.running.said().matches("panicked").count()), (count, 0));
    daemon.kill();
}

fn swaps(report: &mut Report) {
    side_by_side(report, 3, |number| {
        let home = Home::new(Rules::strict(HOUR));
        let (one, other, third) = (number % 3, (number + 1) % 3, (number + 2) % 3);
        let bytes = std::fs::read(&home.records[one]).unwrap();
        std::fs::rename(&home.records[other], &home.records[one]).unwrap();
        std::fs::write(&home.records[other], bytes).unwrap();
        let daemon = home.room.start();
        assert_eq!(home.quarantined(&daemon), 2);
        for swapped in [one, other] {
            assert_eq!(daemon.refusal(GRANTS[swapped]), "login_required");
        }
        assert!(home.rogue.is_active(&daemon.token(GRANTS[third])));
        daemon.kill();
        assert_eq!(files(&home.room, ".bad").len(), 2);
    });
}

/// Refreshes every grant in a daemon of its own.
fn refresh_all(home: &Home) {
    let daemon = home.room.start();
    for grant in GRANTS {
        assert_eq!(daemon.call("POST", &format!("/v1/grants/{grant}/refresh"), &json!({})).status, 200);
    }
    daemon.stop();
}

/// Refreshes these grants with the tokens that they hold after a rollback, and counts what comes to the server until 3 s
/// after the grants' end.
fn refreshes_after_rollback(home: &Home, rolled_back: &[&str]) {
    let before = home.rogue.look(|seen| seen.refreshes.len());
    let daemon = home.room.start();
    assert_eq!(home.quarantined(&daemon), 0, "an older record of ours is whole: offline nobody can tell");
    for grant in GRANTS {
        assert_eq!(daemon.ask(grant).status, 200, "the access token is good until it ends");
        let answer = daemon.call("POST", &format!("/v1/grants/{grant}/refresh"), &json!({}));
        assert_eq!(answer.status == 200, !rolled_back.contains(&grant), "{grant}: {}", answer.body);
    }
    for grant in rolled_back {
        let ended = |summary: &serde_json::Value| summary["state"] == "login_required";
        wait_until("the end of a grant", PATIENCE, || Some(daemon.show(&format!("/v1/grants/{grant}"))).filter(ended));
    }
    std::thread::sleep(Duration::from_secs(3));
    let sent = home.rogue.look(|seen| seen.refreshes[before..].to_vec());
    for (family, grant) in GRANTS.iter().enumerate() {
        let sent: Vec<Verdict> = sent.iter().filter(|refresh| refresh.family == Some(family)).map(|refresh| refresh.verdict).collect();
        let expected: &[Verdict] = if rolled_back.contains(grant) { &[Verdict::Reused, Verdict::Revoked] } else { &[Verdict::Granted] };
        assert_eq!(sent, expected, "requests of {grant}");
        assert_eq!(daemon.show(&format!("/v1/grants/{grant}"))["state"] == "ok", !rolled_back.contains(grant));
    }
    daemon.kill();
}

fn rollback_of_one(report: &mut Report) {
    side_by_side(report, 3, |number| {
        let home = Home::new(Rules::strict(HOUR));
        let hit = number % 3;
        let old = std::fs::read(&home.records[hit]).unwrap();
        refresh_all(&home);
        std::fs::write(&home.records[hit], old).unwrap();
        refreshes_after_rollback(&home, &[GRANTS[hit]]);
    });
    report.figure("an older record is not noticed offline; a strict server ends its grant after 2 requests");
}

/// Grants whose records are written again and again, and how often the daemons of a home are killed meanwhile.
const NAMES: usize = 32;
const LIVES: usize = 4;

/// One daemon's life: every record is sealed so many times. Gives the nonces.
fn seal(room: &Room, batches: usize) -> Vec<[u8; 12]> {
    let daemon = room.start();
    let mut connection = daemon.connect();
    let mut nonces = Vec::new();
    for batch in 0..batches {
        for name in 0..NAMES {
            let token = json!({ "access_token": format!("zQaT9qz.{batch}") });
            let answer = connection.json("PUT", &format!("/v1/grants/pat:n{name}"), &token).unwrap();
            assert!(answer.status < 300, "{}", answer.body);
        }
        let records = files(room, ".sealed");
        assert_eq!(records.len(), NAMES);
        nonces.extend(records.values().map(|sealed| <[u8; 12]>::try_from(&sealed[21..33]).unwrap()));
    }
    daemon.kill();
    nonces
}

fn nonces(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let config = format!(
        "[providers.pat]\nauthorization_endpoint = \"{0}/authorize\"\ntoken_endpoint = \"{0}/token\"\nclient_id = \"native\"\n",
        rogue.issuer()
    );
    let mut rooms: Vec<Room> = (0..2).map(|_| Room::with_config(&config)).collect();
    rooms.iter_mut().for_each(|room| room.set("MCP_AUTHD_LOG", "warn"));
    let _disks: Vec<Mount> = rooms.iter().map(|room| Mount::small(&room.path("state"), "16m")).collect();
    let daemon = rooms[0].start();
    wait_until("the vault", PATIENCE, || (daemon.show("/v1/status")["vault"]["state"] == "unlocked").then_some(()));
    daemon.stop();
    for part in ["vault", "state"] {
        copy(&rooms[0].path(&format!("state/{part}")), &rooms[1].path("state"));
    }
    let batches = (report.rounds() as usize).div_ceil(NAMES * rooms.len() * LIVES).max(1);
    let (mut seen, mut repeated) = (HashSet::new(), Vec::new());
    for life in 0..LIVES {
        let found: Vec<_> = std::thread::scope(|scope| {
            let homes: Vec<_> = rooms.iter().map(|room| scope.spawn(|| seal(room, batches))).collect();
            homes.into_iter().flat_map(|home| home.join().unwrap()).collect()
        });
        repeated.extend(found.into_iter().filter(|nonce| !seen.insert(*nonce)).map(|nonce| format!("{nonce:?} came twice, life {life}")));
    }
    let bytes: Vec<usize> = (0..12).map(|at| seen.iter().map(|nonce| nonce[at]).collect::<BTreeSet<u8>>().len()).collect();
    report.count(u32::try_from(seen.len()).unwrap(), repeated);
    report
        .figure(format!("{} records sealed under one key by 8 daemons in 2 homes; values seen per byte of a nonce: {bytes:?}", seen.len()));
    assert!(seen.len() < 2_000 || bytes.iter().all(|values| *values > 250), "a byte of the nonces is not random");
}

fn copy_without_key(report: &mut Report) {
    side_by_side(report, 2, |_| {
        let home = Home::new(Rules::strict(HOUR));
        let other = Room::at_rogue(&home.rogue);
        let daemon = home.room.start();
        let backup = other.path("state/vault");
        home.room.ctl(&["vault", "backup", backup.to_str().unwrap()]).ok();
        daemon.kill();
        let before = tree(&other.path("state"));
        assert!(!before.keys().any(|path| path.ends_with("vault.key")), "the key is in the backup");
        let daemon = other.start();
        let locked = |status: &serde_json::Value| status["vault"]["state"] == "locked";
        wait_until("a locked vault", PATIENCE, || Some(daemon.show("/v1/status")).filter(locked));
        assert_eq!(daemon.refusal("test:a"), "vault_locked");
        other.ctl(&["unlock"]).fails_with(7).says("is missing");
        other.ctl(&["setup", "--key-source", "key-file"]).fails_with(7);
        other.ctl(&["vault", "rekey"]).fails_with(7);
        let sent = home.rogue.look(|seen| seen.refreshes.len());
        daemon.stop();
        assert_eq!(tree(&other.path("state")), before, "a vault without its key");
        // With its key the copy is whole.
        copy(&home.room.path("state/state"), &other.path("state"));
        let daemon = other.start();
        assert!(GRANTS.iter().all(|grant| home.rogue.is_active(&daemon.token(grant))));
        assert_eq!(home.rogue.look(|seen| seen.refreshes.len()), sent);
        daemon.kill();
    });
}

fn rollback_of_all(report: &mut Report) {
    side_by_side(report, 3, |number| {
        let grace = number % 2 == 1;
        let home = Home::new(if grace { Rules::grace(HOUR, HOUR) } else { Rules::strict(HOUR) });
        let (state, old) = (home.room.path("state"), home.room.path("old"));
        copy(&state, &old);
        refresh_all(&home);
        std::fs::remove_dir_all(&state).unwrap();
        copy(&old, &state);
        if !grace {
            return refreshes_after_rollback(&home, &GRANTS);
        }
        let before = home.rogue.look(|seen| seen.refreshes.len());
        refresh_all(&home);
        let daemon = home.room.start();
        for grant in GRANTS {
            let token = daemon.token(grant);
            assert!(home.rogue.is_active(&token) && generation(&token) >= Some(2), "{grant} after a rollback within the grace window");
        }
        assert_eq!(home.rogue.look(|seen| seen.refreshes.len()) - before, GRANTS.len());
        daemon.kill();
    });
    report.figure(
        "strict server: each refresh token is sent twice in all, then LOGIN NEEDED; with a grace window: once, and the login lives",
    );
}

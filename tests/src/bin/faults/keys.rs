//! T21: the vault's key is wrong, missing, locked away or not to be had; and what a locked vault serves: nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Daemon, Keyring, PASSPHRASE, Room, wait_until};
use serde_json::json;

use crate::life::{HOUR, quiet, works};
use crate::report::{Case, Report};
use crate::side::side_by_side;

pub(crate) const CASES: &[Case] = &[
    Case { id: "T21", title: "key wrong, missing or of another vault: locked, said, nothing touched", rounds: 60, quick: 4, run: keys },
    Case { id: "T21", title: "keychain absent, locked or empty: locked, and back without restart", rounds: 12, quick: 3, run: keychains },
    Case { id: "T21", title: "keychain hangs: others go on, a question ends with the reason", rounds: 4, quick: 1, run: hanging },
    Case { id: "T21", title: "after `lock` no token is served, until `unlock`", rounds: 40, quick: 4, run: locks },
];

/// A try at a keychain that hangs takes 10 s, and the next one comes at most 30 s later.
const PATIENCE: Duration = Duration::from_secs(60);
const WRONG: &str = "zQpP9qz wrong horse zQpP9qz";

/// What the vault's folder holds, but the lock and what no record depends on.
fn sealed(room: &Room) -> BTreeMap<PathBuf, Vec<u8>> {
    fn below(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                below(&path, into);
            } else if path.to_string_lossy().contains(".sealed") || path.ends_with("vault.json") {
                into.insert(path.clone(), std::fs::read(&path).unwrap_or_default());
            }
        }
    }
    let mut files = BTreeMap::new();
    below(&room.path("state"), &mut files);
    files
}

fn vault_is(daemon: &Daemon<'_>, state: &str) {
    wait_until(&format!("a vault that is {state}"), PATIENCE, || (daemon.show("/v1/status")["vault"]["state"] == state).then_some(()));
}

/// The vault is locked, with a reason that says `word`; questions are refused within the time, and so is a login.
fn refuses(daemon: &Daemon<'_>, room: &Room, word: &str, within: Duration) {
    vault_is(daemon, "locked");
    let vault = daemon.show("/v1/status")["vault"].clone();
    assert!(vault["reason"].as_str().is_some_and(|reason| reason.contains(word)) && vault["hint"].is_string(), "{word}: {vault}");
    let start = Instant::now();
    assert_eq!(daemon.refusal("test"), "vault_locked");
    assert!(start.elapsed() < within, "refused after {:?}", start.elapsed());
    room.ctl(&["token", "test"]).fails_with(7);
    let login = daemon.call("POST", "/v1/logins", &json!({ "provider": "test", "account": "new" }));
    assert_ne!(login.status, 200, "a login without a vault: {}", login.body);
}

fn room_at(rogue: &Rogue) -> Room {
    let mut room = quiet(Room::without_key_source(&rogue.provider_table("test", "")));
    room.set("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    room
}

fn keys(report: &mut Report) {
    side_by_side(report, 4, |number| {
        let rogue = Rogue::start(Rules::strict(HOUR));
        let room = room_at(&rogue);
        let daemon = room.start();
        let with_passphrase = number % 4 == 0;
        if with_passphrase {
            room.ctl_typing(&["setup", "--key-source", "passphrase"], PASSPHRASE).ok();
        } else {
            room.ctl(&["setup", "--key-source", "key-file"]).ok();
        }
        daemon.log_in("test", "alice");
        daemon.kill();
        let (before, file) = (sealed(&room), room.path("state/state/vault.key"));
        assert!(before.len() >= 2, "a header and a record: {:?}", before.keys());
        let kept = std::fs::read(&file).unwrap_or_default();
        match number % 4 {
            1 => std::fs::rename(&file, room.path("aside")).unwrap(),
            2 => {
                // The other vault's key under this one's name: it is the check of the key that must notice.
                let text = String::from_utf8(kept.clone()).unwrap();
                let wrong: String = text.lines().map(|line| format!("{}\n", spoilt(line))).collect();
                std::fs::write(&file, wrong).unwrap();
            }
            3 => std::fs::write(&file, &kept[..kept.len() / 2]).unwrap(),
            _ => {}
        }
        let damaged = std::fs::read(&file).ok();
        let daemon = room.start();
        refuses(&daemon, &room, if with_passphrase { "passphrase" } else { "key" }, Duration::from_secs(2));
        if with_passphrase {
            room.ctl_typing(&["unlock"], WRONG).fails_with(7).says("passphrase");
        } else {
            room.ctl(&["unlock"]).fails_with(7);
        }
        refuses(&daemon, &room, if with_passphrase { "passphrase" } else { "key" }, Duration::from_secs(2));
        assert_eq!(std::fs::read(&file).ok(), damaged, "the key file was written");
        assert!(sealed(&room) == before, "the vault's files were touched");
        if with_passphrase {
            room.ctl_typing(&["unlock"], PASSPHRASE).ok();
        } else {
            if number % 4 == 1 {
                std::fs::rename(room.path("aside"), &file).unwrap();
            }
            std::fs::write(&file, &kept).unwrap();
            room.ctl(&["unlock"]).ok();
        }
        works(&daemon, &rogue, "test");
    });
}

/// A line of the key file with its last character, a digit of the key, changed.
fn spoilt(line: &str) -> String {
    let (rest, last) = line.split_at(line.len().saturating_sub(1));
    if line.starts_with('#') || line.len() < 32 { line.to_owned() } else { format!("{rest}{}", if last == "0" { "1" } else { "0" }) }
}

/// A room whose key is in a real keyring, with somebody logged in and the daemon ended.
fn with_keyring(rogue: &Rogue) -> (Room, Keyring) {
    let mut room = room_at(rogue);
    let mut keyring = Keyring::bus_only(&room.path("home"), &room.path("run"));
    room.set("DBUS_SESSION_BUS_ADDRESS", keyring.address());
    keyring.start_unlocked();
    let daemon = room.start();
    vault_is(&daemon, "unlocked");
    daemon.log_in("test", "alice");
    assert_eq!(daemon.stop().code, 0);
    (room, keyring)
}

fn keychains(report: &mut Report) {
    let times = Mutex::new(Vec::new());
    side_by_side(report, 3, |number| {
        let rogue = Rogue::start(Rules::strict(HOUR));
        let (room, mut keyring) = with_keyring(&rogue);
        let (before, aside) = (sealed(&room), room.path("aside"));
        match number % 3 {
            0 => keyring.stop(),
            1 => keyring.start_locked(),
            _ => {
                keyring.stop();
                std::fs::rename(keyring.file(), &aside).unwrap();
                keyring.start_unlocked();
            }
        }
        let daemon = room.start();
        refuses(&daemon, &room, "key", Duration::from_secs(7));
        assert!(sealed(&room) == before, "the vault's files were touched");
        if number % 3 == 2 {
            assert_eq!(keyring.count(), Some(0), "a new key was made");
            keyring.stop();
            std::fs::rename(&aside, keyring.file()).unwrap();
        }
        keyring.start_unlocked();
        let start = Instant::now();
        vault_is(&daemon, "unlocked");
        times.lock().unwrap().push(start.elapsed());
        works(&daemon, &rogue, "test");
    });
    if let Some(most) = times.into_inner().unwrap().iter().max() {
        report.figure(format!("open again by itself at most {:.0} s after the keyring was", most.as_secs_f64()));
    }
}

fn hanging(report: &mut Report) {
    // The published time is that of the catalogue; a quick run is content with more than one time-out of ours.
    let hangs = Duration::from_secs(if report.rounds() > 1 { 60 } else { 12 });
    let (longest, status, back) = (Mutex::new(Duration::ZERO), Mutex::new(Duration::ZERO), Mutex::new(Duration::ZERO));
    let note = |of: &Mutex<Duration>, took: Duration| {
        let mut of = of.lock().unwrap();
        *of = took.max(*of);
    };
    side_by_side(report, 4, |number| {
        let rogue = Rogue::start(Rules::strict(HOUR));
        let (room, keyring) = with_keyring(&rogue);
        let began = Instant::now();
        if number % 2 == 1 {
            // It hangs only after the vault was opened: nobody notices.
            let daemon = room.start();
            vault_is(&daemon, "unlocked");
            keyring.hang(true);
            works(&daemon, &rogue, "test");
            while began.elapsed() < hangs {
                let start = Instant::now();
                assert!(rogue.is_active(&daemon.token("test")));
                note(&status, start.elapsed());
                std::thread::sleep(Duration::from_millis(50));
            }
            return keyring.hang(false);
        }
        keyring.hang(true);
        let daemon = room.start();
        while began.elapsed() < hangs {
            let start = Instant::now();
            assert_eq!(daemon.refusal("test"), "vault_locked");
            note(&longest, start.elapsed());
            let start = Instant::now();
            assert_ne!(daemon.show("/v1/status")["vault"]["state"], "unlocked");
            note(&status, start.elapsed());
        }
        assert!(daemon.show("/v1/status")["vault"]["reason"].as_str().is_none_or(|reason| reason.contains("keychain")));
        keyring.hang(false);
        let start = Instant::now();
        wait_until("an answer of the keyring itself", PATIENCE, || keyring.is_locked().map(|_| ()));
        vault_is(&daemon, "unlocked");
        note(&back, start.elapsed());
        works(&daemon, &rogue, "test");
    });
    let (longest, status) = (longest.into_inner().unwrap(), status.into_inner().unwrap());
    assert!(longest < Duration::from_secs(7), "a question waited {longest:?}");
    report.figure(format!(
        "hung for {} s: a token question took at most {:.1} s, others {:.0} ms; open again {:.0} s after, nobody asking",
        hangs.as_secs(),
        longest.as_secs_f64(),
        status.as_secs_f64() * 1000.0,
        back.into_inner().unwrap().as_secs_f64()
    ));
}

fn locks(report: &mut Report) {
    let refused = AtomicU64::new(0);
    side_by_side(report, 2, |number| {
        let rogue = Rogue::start(Rules::strict(HOUR));
        let room = room_at(&rogue);
        let daemon = room.start();
        room.ctl(&["setup", "--key-source", "key-file"]).ok();
        daemon.log_in("test", "alice");
        let before = daemon.token("test");
        let (locked, over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mut connection = daemon.connect();
                let (refused, locked, over) = (&refused, &locked, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let was_locked = locked.load(Ordering::SeqCst);
                        let answer = connection.json("POST", "/v1/token", &json!({ "grant": "test" })).unwrap();
                        assert!(!(was_locked && answer.status == 200), "a token was served after the lock");
                        if was_locked {
                            assert_eq!(answer.json()["error"], "vault_locked");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            if number % 2 == 0 {
                room.ctl(&["lock"]).ok();
            } else {
                assert_eq!(daemon.call("POST", "/v1/vault/lock", &json!({})).status, 200);
            }
            locked.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            over.store(true, Ordering::Relaxed);
        });
        room.ctl(&["unlock"]).ok();
        assert_eq!(daemon.token("test"), before, "the token is there again");
        works(&daemon, &rogue, "test");
    });
    report.figure(format!("{} requests after the lock's answer, 0 tokens", refused.into_inner()));
}

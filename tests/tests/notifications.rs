//! Desktop notifications, with a notification service on a private D-Bus session: what is shown, once; what a press does;
//! and that nothing depends on there being a desktop.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Duration;

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{
    Answer, Asker, Cable, Daemon, Desktop, Person, Room, SmallDisk, VirtualScreen, get, kept_folder, require, told, wait_until,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const S: Duration = Duration::from_secs(1);

/// A browser that only notes which address it was given, one line each.
fn note_browser(room: &mut Room) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let (script, notes) = (room.path("browser"), room.path("browsed"));
    std::fs::write(&script, format!("#!/bin/sh\nprintf '%s\\n' \"$1\" >> '{}'\n", notes.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    room.set("BROWSER", script.to_str().unwrap());
    notes
}

fn browsed(notes: &PathBuf) -> Vec<String> {
    std::fs::read_to_string(notes).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A provider whose tokens live for two seconds, a room at it, and a desktop that notes what it is asked to show.
fn mocked() -> (Rogue, Room, Desktop) {
    let rogue = Rogue::start(Rules::strict(2 * S));
    let mut room = Room::at_rogue(&rogue);
    let desktop = Desktop::mocked(&mut room);
    (rogue, room, desktop)
}

/// Ends the login at the provider, and waits until the daemon knows.
fn end_login(rogue: &Rogue, daemon: &Daemon<'_>) {
    rogue.revoke_family(0);
    wait_until("the end of the login", PATIENCE, || (daemon.show("/v1/grants/test")["state"] == "login_required").then_some(()));
}

#[test]
fn a_dead_login_is_told_once_and_one_press_heals_it() {
    let (rogue, mut room, desktop) = mocked();
    let notes = note_browser(&mut room);
    let before = desktop.connections();
    let daemon = room.start();
    daemon.log_in("test", "alice");
    assert_eq!((desktop.shown(), desktop.connections()), (vec![], before), "a daemon with nothing to tell is not on the bus");
    end_login(&rogue, &daemon);
    let shown = desktop.wait_for(1);
    assert_eq!((shown[0].summary.as_str(), shown[0].urgency, shown[0].lasts), ("Login needed: test", 1, 0));
    assert!(shown[0].body.ends_with("\nIn a terminal: mcp-authctl login test"), "{}", shown[0].body);
    assert_eq!(shown[0].actions, ["log-in", "Log in"]);
    // Clients that ask do not bring it back, nor does one that hammers.
    wait_until("the end of the last token", PATIENCE, || (daemon.ask("test").status == 401).then_some(()));
    (0..50).for_each(|_| assert_eq!(daemon.refusal("test"), "login_required"));
    assert_eq!((desktop.shown().len(), browsed(&notes)), (1, vec![]), "one notification, and no browser without a person");
    still_for(&daemon, S);

    desktop.press(shown[0].number, "log-in");
    let urls = wait_until("the browser", PATIENCE, || Some(browsed(&notes)).filter(|urls| !urls.is_empty()));
    desktop.wait_for_close(shown[0].number);
    let end = Person::named("alice").browse_to_the_end(&urls[0], Answer::Yes);
    assert_eq!(end.status, 200, "{}", end.body);
    wait_until("a token", PATIENCE, || (daemon.ask("test").status == 200).then_some(()));
    assert_eq!((desktop.shown().len(), browsed(&notes).len()), (1, 1));
    wait_until("the daemon's leaving of the bus", PATIENCE, || (desktop.connections() == before).then_some(()));
    assert!(threads(&daemon).iter().all(|(name, _)| !name.starts_with("notify")), "no thread is left");
}

#[test]
fn a_night_without_a_network_and_then_a_dead_refresh_token_is_one_notification_and_no_browser() {
    let rogue = Rogue::start(Rules::strict(2 * S));
    let port = rogue.issuer().rsplit(':').next().unwrap().parse().unwrap();
    let mut cable = Cable::to(port);
    let table = rogue.endpoints_table("test", "").replace(&format!(":{port}/"), &format!(":{}/", cable.port()));
    let mut room = Room::with_config(&table);
    let desktop = Desktop::mocked(&mut room);
    let notes = note_browser(&mut room);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let heard = daemon.follow();

    cable.unplug();
    rogue.revoke_family(0);
    // Ten lifetimes and more, with a client that asks now and then.
    wait_until("a night", PATIENCE, || (heard.seen("refresh_failed").len() >= 5).then_some(()));
    assert_eq!(daemon.refusal("test"), "provider_unreachable");
    assert_eq!((desktop.shown(), browsed(&notes)), (vec![], vec![]), "nobody is woken for a network that is away");
    assert_eq!(heard.seen("login_required"), Vec::<Value>::new());

    cable.plug();
    wait_until("the provider's word", 2 * PATIENCE, || (daemon.ask("test").status == 401).then_some(()));
    let shown = desktop.wait_for(1);
    assert_eq!(shown[0].summary, "Login needed: test");
    (0..20).for_each(|_| assert_eq!(daemon.refusal("test"), "login_required"));
    assert_eq!((desktop.shown().len(), browsed(&notes).len()), (1, 0), "1 notification, 0 browser windows");
    println!("a night: {} failed refreshes, 1 notification, 0 browser windows", heard.seen("refresh_failed").len());

    daemon.log_in("test", "alice");
    desktop.wait_for_close(shown[0].number);
    daemon.token("test");
    assert_eq!((desktop.shown().len(), desktop.closed(), browsed(&notes).len()), (1, vec![shown[0].number], 0));
}

#[test]
fn only_the_desktops_own_word_and_only_a_button_that_is_shown_do_anything() {
    let (rogue, mut room, desktop) = mocked();
    let notes = note_browser(&mut room);
    let before = desktop.connections();
    let daemon = room.start();
    daemon.log_in("test", "alice");
    end_login(&rogue, &daemon);
    let number = desktop.wait_for(1)[0].number;
    desktop.forge_press(daemon.running.pid(), number, "log-in");
    for (number, action) in [(number, "default"), (number, "try-now"), (number, "allow"), (number + 1, "log-in"), (0, "log-in")] {
        desktop.press(number, action);
    }
    // It hears them in order: once it has heard the last word, it has heard those before.
    desktop.dismiss(number);
    wait_until("the daemon's leaving of the bus", PATIENCE, || (desktop.connections() == before).then_some(()));
    let asked = || daemon.running.said().matches("a login was asked for on a notification").count();
    assert_eq!((asked(), browsed(&notes), desktop.closed()), (0, vec![], vec![]));

    daemon.log_in("test", "alice");
    rogue.revoke_family(1);
    let number = desktop.wait_for(2)[1].number;
    desktop.press(number, "log-in");
    desktop.press(number, "log-in");
    wait_until("the browser", PATIENCE, || (!browsed(&notes).is_empty()).then_some(()));
    assert_eq!(asked(), 1, "a button works once");
}

#[test]
fn a_notification_that_a_person_has_closed_does_not_come_back() {
    let (rogue, room, desktop) = mocked();
    let before = desktop.connections();
    let daemon = room.start();
    daemon.log_in("test", "alice");
    end_login(&rogue, &daemon);
    let number = desktop.wait_for(1)[0].number;
    desktop.dismiss(number);
    wait_until("the daemon's leaving of the bus", PATIENCE, || (desktop.connections() == before).then_some(()));
    wait_until("the end of the last token", PATIENCE, || (daemon.ask("test").status == 401).then_some(()));
    (0..20).for_each(|_| assert_eq!(daemon.refusal("test"), "login_required"));
    room.ctl(&["reload"]).ok();
    assert_eq!((desktop.shown().len(), desktop.closed(), desktop.connections()), (1, vec![], before));
    // Another cause is told again.
    daemon.log_in("test", "alice");
    rogue.revoke_family(1);
    assert_eq!(desktop.wait_for(2)[1].summary, "Login needed: test");
}

#[test]
fn a_login_that_is_not_finished_is_told_again() {
    let (rogue, mut room, desktop) = mocked();
    let notes = note_browser(&mut room);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    end_login(&rogue, &daemon);
    desktop.press(desktop.wait_for(1)[0].number, "log-in");
    wait_until("the browser", PATIENCE, || (!browsed(&notes).is_empty()).then_some(()));
    // The person says no: the provider redirects with an error.
    refuse(&browsed(&notes)[0]);
    let shown = desktop.wait_for(2);
    assert_eq!((shown[1].summary.as_str(), shown[1].replaced), ("Login needed: test", false), "{shown:?}");
    assert_eq!(browsed(&notes).len(), 1);
}

/// The redirect of a provider whose page was answered with no.
fn refuse(url: &str) {
    let asked = url::Url::parse(url).unwrap();
    let of = |name: &str| asked.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    let mut redirect = url::Url::parse(&of("redirect_uri")).unwrap();
    let issuer = format!("{}://{}", asked.scheme(), &asked[url::Position::BeforeHost..url::Position::AfterPort]);
    redirect.query_pairs_mut().append_pair("error", "access_denied").append_pair("state", &of("state")).append_pair("iss", &issuer);
    get(&redirect, &[]);
}

#[test]
fn what_is_shown_goes_with_the_daemon_and_with_the_grant() {
    let (rogue, room, desktop) = mocked();
    let daemon = room.start();
    daemon.log_in("test", "alice");
    end_login(&rogue, &daemon);
    let first = desktop.wait_for(1)[0].number;
    assert_eq!(daemon.stop().code, 0);
    assert_eq!(desktop.closed(), [first], "a button without a daemon is of no use");

    let daemon = room.start();
    wait_until("the end of the last token", PATIENCE, || (daemon.ask("test").status == 401).then_some(()));
    let second = desktop.wait_for(2)[1].number;
    room.ctl(&["logout", "test"]).ok();
    desktop.wait_for_close(second);
}

#[test]
fn without_a_desktop_or_with_one_that_hangs_or_dies_nothing_waits_and_nothing_breaks() {
    let rogue = Rogue::start(Rules::strict(2 * S));
    let mut room = Room::at_rogue(&rogue);
    // No bus at all.
    let daemon = room.start();
    daemon.log_in("test", "alice");
    end_login(&rogue, &daemon);
    told_in_the_log(&daemon, "there is no D-Bus session bus");
    drop(daemon);
    room.ctl_spawn(&["status"]).wait();

    // A bus and nobody who shows anything.
    let mut desktop = Desktop::empty(&mut room);
    let daemon = room.start();
    wait_until("the end of the last token", PATIENCE, || (daemon.ask("test").status == 401).then_some(()));
    told_in_the_log(&daemon, "nobody on the D-Bus session bus shows notifications");
    drop(daemon);

    // A service that hangs: tokens come as ever, and so does the end.
    desktop.start_mock();
    let daemon = room.start();
    desktop.hang(true);
    assert_eq!(daemon.refusal("test"), "login_required");
    daemon.log_in("test", "alice");
    (0..50).for_each(|_| drop(daemon.token("test")));
    let began = std::time::Instant::now();
    assert_eq!(daemon.stop().code, 0);
    assert!(began.elapsed() < 5 * S, "the end waits for the desktop: {:?}", began.elapsed());
    desktop.hang(false);

    // A service that dies while something is shown.
    let daemon = room.start();
    rogue.revoke_family(1);
    let before = desktop.shown().len();
    wait_until("a notification", PATIENCE, || (desktop.shown().len() > before).then_some(()));
    desktop.stop();
    wait_until("the daemon's leaving of the bus", PATIENCE, || (desktop.connections() == 0).then_some(()));
    daemon.log_in("test", "alice");
    daemon.token("test");
}

fn told_in_the_log(daemon: &Daemon<'_>, reason: &str) {
    let line = format!("a desktop notification could not be shown: {reason}");
    wait_until("a line of the log", PATIENCE, || daemon.running.said().contains(&line).then_some(()));
    (0..20).for_each(|_| assert_ne!(daemon.ask("test").status, 500));
    assert_eq!(daemon.running.said().matches(&line).count(), 1, "once");
}

#[test]
fn they_can_be_switched_off_and_doctor_says_how_it_is() {
    let rogue = Rogue::start(Rules::strict(2 * S));
    let off = format!("{}\n[notifications]\nenabled = false\n", rogue.provider_table("test", ""));
    let mut room = Room::with_config(&off);
    let mut desktop = Desktop::empty(&mut room);
    let daemon = room.start();
    assert_eq!(desktop_check(&room), ("note".into(), "notifications are switched off in config.toml".into()));
    desktop.start_mock();
    daemon.log_in("test", "alice");
    end_login(&rogue, &daemon);
    wait_until("the end of the last token", PATIENCE, || (daemon.ask("test").status == 401).then_some(()));
    assert_eq!(desktop.shown(), []);

    room.write_config(&rogue.provider_table("test", ""));
    room.ctl(&["reload"]).ok();
    assert_eq!(desktop_check(&room), ("ok".into(), "mock-notify 1.0 shows notifications".into()));
    assert_eq!(desktop.shown(), [], "doctor shows none, and what was not told is told when somebody misses it");
    assert_eq!(daemon.refusal("test"), "login_required");
    let number = desktop.wait_for(1)[0].number;
    room.write_config(&off);
    room.ctl(&["reload"]).ok();
    desktop.wait_for_close(number);

    room.write_config("");
    room.ctl(&["reload"]).ok();
    desktop.stop();
    let nobody = "no notifications: nobody on the D-Bus session bus shows notifications";
    assert_eq!(desktop_check(&room), ("note".into(), nobody.into()));
    drop(daemon);
    room.set("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let _daemon = room.start();
    assert_eq!(desktop_check(&room), ("note".into(), "no notifications: there is no D-Bus session bus".into()));
}

/// What `doctor` says of the desktop.
fn desktop_check(room: &Room) -> (String, String) {
    let checks = room.ctl(&["doctor", "--json"]).json()["checks"].as_array().unwrap().clone();
    let check = checks.iter().find(|check| check["name"] == "desktop").expect("a check of the desktop");
    (check["level"].as_str().unwrap().to_owned(), check["detail"].as_str().unwrap().to_owned())
}

#[test]
fn a_question_is_answered_by_its_two_buttons_and_by_nothing_else() {
    let mut room = Room::with_config("");
    let desktop = Desktop::mocked(&mut room);
    let daemon = room.start();
    let token = json!({ "access_token": "zQaT9qz-static-zQaT9qz", "scopes": ["repo"] });
    assert_eq!(daemon.call("PUT", "/v1/grants/test", &token).status, 200);
    room.ctl(&["policy", "add", "test", "--anyone", "--ask", "always"]).ok();
    let program = Asker::new(&room, "tool");
    let ask = || program.spawn("/v1/token", &json!({ "grant": "test" }));

    let mut waiting = ask();
    let shown = desktop.wait_for(1).remove(0);
    assert_eq!((shown.summary.as_str(), shown.urgency), ("A program asks for a token of test", 2));
    assert!((50_000..=60_000).contains(&shown.lasts), "{shown:?}");
    assert_eq!(shown.actions, ["allow", "Allow", "deny", "Deny"]);
    let id = daemon.show("/v1/consents")[0]["id"].as_str().unwrap().to_owned();
    for told in [program.name(), "Grant: test (", "Scopes: repo", &format!("mcp-authctl approve {id}")] {
        assert!(shown.body.contains(told), "{told}: {}", shown.body);
    }
    desktop.forge_press(daemon.running.pid(), shown.number, "allow");
    for action in ["default", "log-in", "Allow", ""] {
        desktop.press(shown.number, action);
    }
    assert_eq!(daemon.show("/v1/consents")[0]["id"], id.as_str(), "nothing is decided");
    desktop.press(shown.number, "allow");
    assert_eq!(told(&mut waiting).status, 200);
    desktop.wait_for_close(shown.number);

    let mut waiting = ask();
    desktop.press(desktop.wait_for(2)[1].number, "deny");
    let refused = told(&mut waiting);
    assert_eq!((refused.status, refused.error()), (403, "access_denied"));
    assert_eq!(desktop.shown().len(), 2, "once for each question");
}

#[test]
fn a_disk_that_stays_full_is_told_and_taken_back_when_there_is_room() {
    let rogue = Rogue::start(Rules::strict(300 * S));
    let mut room = Room::at_rogue(&rogue);
    let desktop = Desktop::mocked(&mut room);
    let disk = SmallDisk::over(&room.path("state"), "512k");
    let daemon = room.start();
    let refresh = |grant: &str| {
        let answer = daemon.call("POST", &format!("/v1/grants/{grant}/refresh"), &json!({}));
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let grants = ["test:a", "test:b", "test:c", "test:d"];
    grants.iter().for_each(|grant| daemon.log_in(grant, "alice"));
    disk.fill();
    let refused = grants.iter().find(|grant| {
        refresh(grant);
        disk.fill();
        daemon.show("/v1/status")["not_durable"] == 1
    });
    let refused = refused.expect("a disk that is full");
    assert_eq!(daemon.show("/v1/status")["not_durable"], 1);
    assert_eq!(desktop.shown(), [], "not at once: most disks recover");
    let shown = wait_until("a notification", 2 * PATIENCE, || desktop.shown().into_iter().next());
    assert_eq!(shown.summary, "New tokens cannot be saved");
    assert!(shown.body.contains(&format!("those of {refused}.")) && shown.actions.is_empty(), "{shown:?}");
    disk.free();
    wait_until("the end of the notification", 3 * PATIENCE, || desktop.closed().contains(&shown.number).then_some(()));
    assert_eq!(desktop.shown().len(), 1);
}

#[test]
fn a_real_desktop_shows_it_and_its_button_works() {
    let rogue = Rogue::start(Rules::strict(2 * S));
    let mut room = Room::at_rogue(&rogue);
    let (screen, mut desktop) = (VirtualScreen::start(), Desktop::empty(&mut room));
    desktop.start_dunst(&screen);
    let notes = note_browser(&mut room);
    let dunstctl = |words: &[&str]| {
        let output = desktop.command(&require("dunstctl", "dunst")).args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let daemon = room.start();
    daemon.log_in("test", "alice");
    assert_eq!(dunstctl(&["count", "displayed"]), "0");
    end_login(&rogue, &daemon);
    wait_until("a notification", PATIENCE, || (dunstctl(&["count", "displayed"]) == "1").then_some(()));
    let picture = kept_folder("pictures").join("notification.png");
    wait_until("a picture of it", PATIENCE, || {
        screen.picture(&picture);
        (VirtualScreen::colours(&picture) > 10).then_some(())
    });
    dunstctl(&["action", "0"]);
    let urls = wait_until("the browser", PATIENCE, || Some(browsed(&notes)).filter(|urls| !urls.is_empty()));
    let end = Person::named("alice").browse_to_the_end(&urls[0], Answer::Yes);
    assert_eq!(end.status, 200, "{}", end.body);
    wait_until("a token", PATIENCE, || (daemon.ask("test").status == 200).then_some(()));
    wait_until("an empty screen", PATIENCE, || (dunstctl(&["count", "displayed"]) == "0").then_some(()));
}

/// The daemon's threads, and how often each has waited so far.
fn threads(daemon: &Daemon<'_>) -> Vec<(String, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.running.pid())).unwrap().flatten();
    let look = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned());
        Some((field("Name:")?, field("voluntary_ctxt_switches:")?.parse().ok()?))
    };
    tasks.filter_map(look).collect()
}

/// While a notification is shown, the thread that waits for a press does not wake.
fn still_for(daemon: &Daemon<'_>, window: Duration) {
    let waits = || threads(daemon).into_iter().find(|(name, _)| name == "notify").expect("the thread of the notifications");
    let before = waits();
    std::thread::sleep(window);
    assert_eq!(waits(), before, "it woke");
}

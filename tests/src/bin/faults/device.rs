//! T61: the device flow (RFC 8628) at a server that wants to be asked slower, ends it, or names odd times and addresses. Remote MCP
//! servers have no part in it: a login at one goes by a browser.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::rogue::{Moment, Plan, Rogue, Rules};
use mcp_auth_tests::{Daemon, LoginStream, Room, wait_until};
use serde_json::{Value, json};

use crate::life::{HOUR, PATIENCE, quiet};
use crate::report::{Case, Report};
use crate::side::side_by_side;
use crate::texts::{OWN, edited, harmless, hostile};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T61", title: "device flow: asked no faster than the server wants, ends as it says", rounds: 40, quick: 8, run: pace },
    Case { id: "T61", title: "device flow: odd pages and codes are refused or shown as they are", rounds: 66, quick: 22, run: pages },
];

/// A server with a device flow, and a room that knows it.
fn place() -> (Rogue, Room) {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let more = format!("device_authorization_endpoint = \"{}/device\"", rogue.issuer());
    let room = quiet(Room::with_config(&rogue.provider_table("test", &more)));
    (rogue, room)
}

fn start(daemon: &Daemon<'_>) -> LoginStream {
    daemon.start_login(&json!({ "provider": "test", "flow": "device" }))
}

// ---- the pace ----

/// What the device endpoint names as the pause, and the seconds that are kept to.
const PAUSES: [(fn() -> Value, u64); 7] = [
    (|| json!(1), 1),
    (|| json!("2"), 2),
    (|| json!(0), 5),
    (|| json!(-3), 5),
    (|| json!(null), 5),
    (|| json!(1e300), 5),
    (|| json!(1_000_000_000), 60),
];

/// Longer than this nobody waits in a round: a poll that has not come by then keeps to its pause.
const LONGEST: Duration = Duration::from_secs(8);
/// A timer may be early by less than this.
const EARLY: Duration = Duration::from_millis(50);

fn pace(report: &mut Report) {
    let rounds = report.rounds() as usize;
    side_by_side(report, 8, |round| match round % 4 {
        0 => slower(if rounds > 20 { 3 } else { 1 }),
        1 => ends(round / 4),
        2 => interval(PAUSES[round / 4 % PAUSES.len()]),
        _ => interval(PAUSES[PAUSES.len() - 1 - round / 4 % PAUSES.len()]),
    });
    report.figure("pauses of 1 s, 2 s, 0, below 0, none, 1e300 and 10^9 s; `slow_down` adds 5 s each time; ten of them: the pure tests");
}

/// When each poll came.
fn polls(rogue: &Rogue) -> Arc<Mutex<Vec<Instant>>> {
    let polls = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&polls);
    rogue.on(move |moment, path| {
        if (moment, path) == (Moment::Arrived, "/token") {
            told.lock().unwrap().push(Instant::now());
        }
    });
    polls
}

fn answer(error: &str) -> Plan {
    Plan::json(400, &json!({ "error": error }))
}

/// The server says `slow_down` so often.
fn slower(times: usize) {
    let (rogue, room) = place();
    let daemon = room.start();
    let polls = polls(&rogue);
    rogue.plan(answer("slow_down").times(times));
    assert!(matches!(start(&daemon).last(), LoginEvent::Done { .. }));
    let polls = polls.lock().unwrap();
    let pauses: Vec<Duration> = polls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses.len(), times, "a poll for each answer, and the last");
    for (number, pause) in pauses.iter().enumerate() {
        let wanted = Duration::from_secs(1 + 5 * (number as u64 + 1));
        assert!(*pause + EARLY >= wanted && *pause < wanted + Duration::from_secs(5), "pause {number} was {pause:?}, not {wanted:?}");
    }
}

/// The server ends it: not one poll more.
fn ends(number: usize) {
    let error = ["expired_token", "access_denied", "invalid_grant"][number % 3];
    let (rogue, room) = place();
    let daemon = room.start();
    let polls = polls(&rogue);
    rogue.plan(answer(error));
    match start(&daemon).last() {
        LoginEvent::Failed { error: body } => assert!(!body.error_description.is_empty() && body.hint.is_some(), "{error}: {body:?}"),
        other => panic!("{error}: {other:?}"),
    }
    let before = polls.lock().unwrap().len();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((before, polls.lock().unwrap().len()), (1, 1), "{error}: it is asked again");
}

/// The first poll comes no sooner than the pause.
fn interval((named, seconds): (fn() -> Value, u64)) {
    let (rogue, room) = place();
    let daemon = room.start();
    let polls = polls(&rogue);
    rogue.plan(edited("/device", move |body| body["interval"] = named()));
    let mut login = start(&daemon);
    let began = loop {
        match login.next_event() {
            Some(LoginEvent::EnterCode { .. }) => break Instant::now(),
            Some(_) => {}
            None => panic!("no code"),
        }
    };
    while polls.lock().unwrap().is_empty() && began.elapsed() < LONGEST {
        std::thread::sleep(Duration::from_millis(10));
    }
    let wanted = Duration::from_secs(seconds);
    match polls.lock().unwrap().first() {
        // The pause begins a moment before the event is read.
        Some(first) => {
            let pause = first.duration_since(began);
            assert!(pause + Duration::from_millis(500) >= wanted, "the first poll came after {pause:?}");
        }
        None => assert!(wanted > LONGEST, "no poll in {LONGEST:?}, though the pause is {wanted:?}"),
    }
}

// ---- the page and the code ----

/// A page to type the code at, and the host that is told of it, if any.
const PAGES: [(&str, Option<&str>); 16] = [
    ("javascript:alert(1)", None),
    ("data:text/html,x", None),
    ("file:///etc/passwd", None),
    ("vscode://x", None),
    ("http://a.example/", None),
    ("-flag", None),
    ("", None),
    ("https:///a", None),
    ("https://a/\nhttps://b/", None),
    (" https://a/", None),
    ("https://user@a/", None),
    ("https://a\\@b/", None),
    ("https://a/$(touch${IFS}pwn)", Some("a")),
    ("https://a/\"&calc", Some("a")),
    ("https://\u{430}pple.com/", Some("xn--pple-43d.com")),
    ("HTTPS://A.EXAMPLE/", Some("a.example")),
];

/// Codes that nobody can type.
fn codes() -> [String; 4] {
    [hostile(), "\u{202e}ABC".into(), "A".repeat(33), String::new()]
}

fn pages(report: &mut Report) {
    let kinds = PAGES.len() + codes().len() + 2;
    side_by_side(report, 4, |round| match round % kinds {
        number if number < PAGES.len() => page(PAGES[number]),
        number if number < PAGES.len() + codes().len() => code(codes()[number - PAGES.len()].clone()),
        number => complete(number % 2 == 0),
    });
    report.figure(format!("{} pages, {} codes, and a page with the code in it at another host", PAGES.len(), codes().len()));
}

/// What the command shows, and what the browser was called with, where it was.
fn shown(rogue: &Rogue, room: &mut Room, expect_page: bool) -> (String, Option<String>) {
    crate::texts::record_browsers(room);
    room.set("BROWSER", room.path("recorder").to_str().unwrap());
    let _daemon = room.start();
    rogue.plan(answer("authorization_pending"));
    let login = room.ctl_on_terminal(&["login", "test", "--device"]);
    let argv = expect_page.then(|| wait_until("the browser", PATIENCE, || std::fs::read_to_string(room.path("argv")).ok()));
    if expect_page {
        login.running.signal(rustix::process::Signal::INT);
    }
    let (code, screen) = login.wait();
    harmless("device", &screen, OWN);
    assert_ne!(code, 0);
    assert!(expect_page || !room.path("argv").exists(), "the browser was opened");
    assert!(!room.path("pwn").exists(), "a command in it was run");
    (String::from_utf8_lossy(&screen).into_owned(), argv)
}

fn page((address, host): (&'static str, Option<&str>)) {
    let (rogue, mut room) = place();
    rogue.plan(edited("/device", move |body| body["verification_uri"] = address.into()));
    let (screen, argv) = shown(&rogue, &mut room, host.is_some());
    if let (Some(host), Some(argv)) = (host, argv) {
        let url = crate::texts::one_argument(&argv, (address, host), 0);
        assert!(screen.contains(url.as_str()) && screen.contains("WDJB-MJHT"), "{address}: {screen}");
    }
}

fn code(code: String) {
    let (rogue, mut room) = place();
    let named = code.clone();
    rogue.plan(edited("/device", move |body| body["user_code"] = named.clone().into()));
    let (screen, _) = shown(&rogue, &mut room, false);
    assert!(screen.contains("error:") && !screen.contains("type this code"), "{}: {screen}", code.escape_debug());
}

/// A page that holds the code already is opened at the page's own host only.
fn complete(elsewhere: bool) {
    let (rogue, mut room) = place();
    let host = if elsewhere { "b" } else { "a" };
    rogue.plan(edited("/device", move |body| {
        body["verification_uri"] = "https://a/".into();
        body["verification_uri_complete"] = format!("https://{host}/?user_code=WDJB-MJHT").into();
    }));
    let (_, argv) = shown(&rogue, &mut room, true);
    let url = crate::texts::one_argument(&argv.unwrap(), ("complete", "a"), 0);
    assert_eq!(url.query().is_some(), !elsewhere, "{url}");
}

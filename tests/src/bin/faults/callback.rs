//! T36, T37, T40: the loopback listener of a login, with a hostile page, a rebound name and somebody else's redirect at its
//! door. What knocks gets 404 and changes nothing; the right redirect is taken.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Answer, Connection, Daemon, LoginStream, Person, Room, wait_until};
use serde_json::json;
use url::Url;

use crate::knock::{Door, is_closed, knock, status};
use crate::life::{HOUR, PATIENCE, quiet};
use crate::report::{Case, Report, quantile};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T36", title: "a hostile page knocks: 404, nothing repeated, the login goes on", rounds: 60, quick: 4, run: pages },
    Case { id: "T36", title: "a thousand knocks a second: the login ends as it should", rounds: 20, quick: 2, run: hail },
    Case { id: "T37", title: "rebound names, other addresses, requests of pages: refused", rounds: 20, quick: 2, run: names },
    Case { id: "T40", title: "old, doubled, late and foreign redirects: refused, none confused", rounds: 60, quick: 6, run: others },
];

/// A login that waits for its redirect.
pub(crate) struct Waiting {
    login: LoginStream,
    pub(crate) door: Door,
    /// The redirect that the person's browser would follow.
    pub(crate) redirect: Url,
}

impl Waiting {
    #[track_caller]
    pub(crate) fn start(daemon: &Daemon<'_>, account: Option<&str>, person: &str) -> Self {
        let mut login = daemon.start_login(&json!({ "provider": "test", "account": account }));
        let redirect = Person::named(person).browse(&login.wait_for_url(), Answer::Yes);
        Self { login, door: Door::of(&redirect), redirect }
    }

    /// The right redirect comes: the page is shown, and the login is done.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        let answer = knock(&self.door.get(&self.redirect), self.door.address);
        assert_eq!(status(&answer), 200, "the right redirect: {answer}");
        self.is_done();
    }

    #[track_caller]
    fn is_done(&mut self) {
        match self.login.last() {
            LoginEvent::Done { .. } => {}
            other => panic!("the login ended with {other:?}"),
        }
    }

    pub(crate) fn cancel(mut self, daemon: &Daemon<'_>) {
        let (id, _) = self.login.started();
        assert!(daemon.connect().request("DELETE", &format!("/v1/logins/{id}"), &[], "").unwrap().status < 300);
        assert!(matches!(self.login.last(), LoginEvent::Failed { .. }));
    }
}

/// The right redirect with its query changed.
fn with_query(redirect: &Url, change: impl Fn(&str, &str) -> Option<(String, String)>) -> Url {
    let pairs: Vec<_> = redirect.query_pairs().filter_map(|(name, value)| change(&name, &value)).collect();
    let mut changed = redirect.clone();
    changed.query_pairs_mut().clear().extend_pairs(pairs);
    changed
}

/// Redirects that are not this login's: another state, none, two, or a refusal with none.
fn wrong_redirects(right: &Url) -> Vec<Url> {
    let keep = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
    let state = |to: &str| with_query(right, |name, value| if name == "state" { keep(name, to) } else { keep(name, value) });
    let known = right.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let refusal = |text: &str| {
        let mut url = right.clone();
        url.query_pairs_mut().clear().append_pair("error", "access_denied").append_pair("error_description", text);
        url
    };
    let (mut doubled, mut refused) = (right.clone(), refusal("OWNED"));
    doubled.query_pairs_mut().append_pair("state", "x");
    refused.query_pairs_mut().append_pair("state", "OWNED");
    vec![
        state("OWNED"),
        state(""),
        state(&known[..known.len() - 1]),
        state(&format!("{known} ")),
        state(&known.to_ascii_uppercase()),
        state(&"x".repeat(8_000)),
        with_query(right, |name, value| if name == "state" { None } else { keep(name, value) }),
        doubled,
        refused,
        refusal("OWNED"),
        refusal("<script>alert('OWNED')</script>"),
        refusal("OWNED\r\nset-cookie: a=b\r\n\r\n"),
    ]
}

/// What a page can have a browser send, and what it cannot but another program can; the latter with everything right but one.
fn knocks(door: &Door, right: &Url) -> Vec<String> {
    let (path, query) = (right.path(), right.query().unwrap());
    let head = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nhost: {}\r\n{more}\r\n", door.host);
    let mut all: Vec<String> = wrong_redirects(right).iter().map(|url| door.get(url)).collect();
    for method in ["POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "PATCH", "get"] {
        all.push(head(&format!("{method} {path}?{query}"), "content-length: 0\r\n"));
    }
    for other in ["/", "/favicon.ico", "/callback/", "//callback", "/callback/..", "/%63allback", "/CALLBACK", "/callback;x"] {
        all.push(head(&format!("GET {other}?{query}"), ""));
    }
    for origin in ["https://evil.example", "null"] {
        all.push(head(&format!("GET {path}?{query}"), &format!("origin: {origin}\r\n")));
    }
    all
}

fn room_at(rogue: &Rogue) -> Room {
    quiet(Room::at_rogue(rogue))
}

fn pages(report: &mut Report) {
    let mut kinds = 0;
    let rogue = Rogue::start(Rules::strict(HOUR));
    let room = room_at(&rogue);
    let daemon = room.start();
    for _ in 0..report.rounds() {
        report.round(|| {
            let waiting = Waiting::start(&daemon, None, "alice");
            let exchanges = rogue.look(|seen| seen.requests_to("/token"));
            let all = knocks(&waiting.door, &waiting.redirect);
            kinds = all.len();
            for request in &all {
                let (answer, shown) = (knock(request, waiting.door.address), request.escape_debug().take(120).collect::<String>());
                assert!(matches!(status(&answer), 404 | 400), "{shown}: {answer}");
                let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                assert!(matches!(body, "" | "not found\n"), "{shown}: {answer}");
                assert!(!answer.contains("OWNED") && !answer.to_lowercase().contains("access-control"), "{shown}: {answer}");
            }
            assert_eq!(rogue.look(|seen| seen.requests_to("/token")), exchanges, "a code was sent to the provider");
            waiting.finish();
            assert!(rogue.is_active(&daemon.token("test")));
        });
    }
    report.figure(format!("{kinds} kinds of knocks in each login, all but the last 404 or 400 without a word of theirs"));
}

const HAIL: Duration = Duration::from_secs(2);
const A_SECOND: u32 = 1_000;
const HANDS: u32 = 4;

fn hail(report: &mut Report) {
    let (mut times, mut sent) = (Vec::new(), 0);
    for _ in 0..report.rounds() {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(HOUR));
            let room = room_at(&rogue);
            let daemon = room.start();
            let waiting = Waiting::start(&daemon, None, "alice");
            let wrong = waiting.door.get(&with_query(&waiting.redirect, |name, value| {
                Some((name.to_owned(), if name == "state" { "OWNED".to_owned() } else { value.to_owned() }))
            }));
            let (door, count, began) = (waiting.door.address, AtomicUsize::new(0), Instant::now());
            std::thread::scope(|scope| {
                for hand in 0..HANDS {
                    let (wrong, count) = (&wrong, &count);
                    scope.spawn(move || {
                        for number in 0..A_SECOND * u32::try_from(HAIL.as_secs()).unwrap() / HANDS {
                            let due = Duration::from_secs(1) * (number * HANDS + hand) / A_SECOND;
                            std::thread::sleep(due.saturating_sub(began.elapsed()));
                            if is_closed(door) {
                                return;
                            }
                            // A connection that is cut off to make room is no answer, and no harm.
                            let answer = knock(wrong, door);
                            assert!(answer.is_empty() || status(&answer) == 404, "{answer}");
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                // In the middle of it the right one.
                wait_until("the middle", PATIENCE, || (began.elapsed() > HAIL / 2).then_some(()));
                let asked = Instant::now();
                waiting.finish();
                times.push(asked.elapsed().as_secs_f64() * 1000.0);
            });
            sent += count.into_inner();
            assert!(rogue.is_active(&daemon.token("test")));
        });
    }
    report.figure(format!(
        "{sent} knocks; the right redirect among them to the end of its login: p50 {:.0} ms, at most {:.0} ms",
        quantile(&mut times, 50),
        quantile(&mut times, 100)
    ));
}

/// Names under which a page would reach the listener, were the name not looked at.
fn hosts(port: u16) -> Vec<String> {
    let named = ["localhost", "evil.example", "127.0.0.1.evil.example", "0.0.0.0", "127.1", "2130706433", "0x7f.1", "127.0.0.2"];
    let mut hosts: Vec<String> = named.iter().map(|name| format!("{name}:{port}")).collect();
    hosts.extend([
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("127.0.0.1.:{port}"),
        format!("x@127.0.0.1:{port}"),
    ]);
    hosts.extend(["127.0.0.1".to_owned(), "127.0.0.1:1".to_owned(), format!("127.0.0.1:0{port}"), String::new()]);
    hosts
}

fn names(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(HOUR));
    let room = room_at(&rogue);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let (mut kinds, mut elsewhere) = (0, 0);
    for _ in 0..report.rounds() {
        report.round(|| {
            let waiting = Waiting::start(&daemon, Some("more"), "alice");
            let (door, right) = (&waiting.door, &waiting.redirect);
            let all = hosts(door.address.port());
            kinds = all.len();
            for host in &all {
                let answer = knock(&Door { host: host.clone(), ..door.clone() }.get(right), door.address);
                assert!(matches!(status(&answer), 404 | 400), "{host}: {answer}");
            }
            let others = other_addresses(door.address.port());
            elsewhere = others.len();
            for address in others {
                assert!(is_closed(address), "{address} answers");
            }
            let socket = |headers: &[(&str, &str)], host: &str| {
                let mut connection = Connection::unix(&room.socket()).unwrap().naming_host(host);
                connection.request("POST", "/v1/token", headers, "{\"grant\":\"test\"}").unwrap()
            };
            assert_eq!(socket(&[], "mcp-authd").status, 200);
            for (name, value) in
                [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "none"), ("sec-fetch-dest", "empty")]
            {
                let answer = socket(&[(name, value)], "mcp-authd");
                assert!(answer.status == 403 && !answer.body.contains("zQ"), "{name}: {}", answer.body);
            }
            for host in ["evil.example", "mcp-authd.evil.example", "127.0.0.1", ""] {
                assert_eq!(socket(&[], host).status, 403, "{host}");
            }
            waiting.finish();
        });
    }
    report.figure(format!("{kinds} names at the listener; closed at {elsewhere} other addresses of the machine; the socket refuses 4 headers of pages and 4 names"));
}

/// Every other address of this machine, with this port.
fn other_addresses(port: u16) -> Vec<SocketAddr> {
    let listed = std::process::Command::new("ip").args(["-o", "addr"]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let words = text.lines().filter_map(|line| line.split_whitespace().skip_while(|word| !word.starts_with("inet")).nth(1));
    let own = words.filter_map(|word| word.split('/').next()?.parse::<IpAddr>().ok());
    // An address of the link needs to be told which link.
    let usable = own.filter(|address| *address != IpAddr::V4(Ipv4Addr::LOCALHOST) && !address.to_string().starts_with("fe80"));
    usable.chain([IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))]).map(|address| SocketAddr::new(address, port)).collect()
}

fn others(report: &mut Report) {
    let kinds: [fn(&Rogue, &Room); 6] = [an_older_flow, twice, after_the_cancel, two_at_once, somebody_elses, after_a_restart];
    for round in 0..report.rounds() as usize {
        report.round(|| {
            let rogue = Rogue::start(Rules::strict(HOUR));
            kinds[round % kinds.len()](&rogue, &room_at(&rogue));
        });
    }
    report.figure("of an older login, twice, after a cancel and a restart, of two logins at once, of another person's login");
}

/// The code exchanges that the provider has seen.
fn exchanges(rogue: &Rogue) -> u64 {
    rogue.look(|seen| seen.requests_to("/token"))
}

#[track_caller]
fn refused_at(door: &Door, redirect: &Url) {
    let answer = knock(&door.get(redirect), door.address);
    assert_eq!(status(&answer), 404, "{answer}");
}

fn an_older_flow(rogue: &Rogue, room: &Room) {
    let daemon = room.start();
    let old = Waiting::start(&daemon, None, "mallory");
    let redirect = old.redirect.clone();
    old.cancel(&daemon);
    let new = Waiting::start(&daemon, None, "alice");
    refused_at(&new.door, &redirect);
    assert_eq!(exchanges(rogue), 0, "the old code was sent");
    new.finish();
    assert_eq!(exchanges(rogue), 1);
}

fn twice(rogue: &Rogue, room: &Room) {
    let daemon = room.start();
    let waiting = Waiting::start(&daemon, None, "alice");
    let (door, redirect) = (waiting.door.clone(), waiting.redirect.clone());
    waiting.finish();
    assert!(is_closed(door.address), "the listener is still there");
    // Whoever listens on that port next gets nothing of ours that works.
    assert_eq!(exchanges(rogue), 1);
    let next = Waiting::start(&daemon, Some("more"), "alice");
    refused_at(&next.door, &redirect);
    next.finish();
    assert_eq!(exchanges(rogue), 2);
}

fn after_the_cancel(rogue: &Rogue, room: &Room) {
    let daemon = room.start();
    let waiting = Waiting::start(&daemon, None, "alice");
    let door = waiting.door.clone();
    waiting.cancel(&daemon);
    wait_until("no listener", PATIENCE, || is_closed(door.address).then_some(()));
    assert_eq!((exchanges(rogue), daemon.show("/v1/status")["grants"].as_u64()), (0, Some(0)));
}

fn two_at_once(rogue: &Rogue, room: &Room) {
    let daemon = room.start();
    let (mut one, mut other) = (Waiting::start(&daemon, None, "alice"), Waiting::start(&daemon, Some("work"), "alice"));
    assert_ne!(one.door.address, other.door.address);
    refused_at(&one.door, &other.redirect);
    refused_at(&other.door, &one.redirect);
    assert_eq!(exchanges(rogue), 0);
    // At the same instant, each its own.
    let pages = [&one, &other].map(|it| (it.door.get(&it.redirect), it.door.address));
    let pages = pages.map(|(request, at)| std::thread::spawn(move || status(&knock(&request, at))));
    assert_eq!(pages.map(|page| page.join().unwrap()), [200, 200]);
    one.is_done();
    other.is_done();
    let (token, work) = (daemon.token("test"), daemon.token("test:work"));
    assert!(token != work && rogue.is_active(&token) && rogue.is_active(&work));
}

/// Somebody logs in to an account of their own at a daemon of their own, and leads the person's browser to the end of that.
fn somebody_elses(rogue: &Rogue, room: &Room) {
    let theirs = room_at(rogue);
    let (daemon, other) = (room.start(), theirs.start());
    let (waiting, bait) = (Waiting::start(&daemon, None, "alice"), Waiting::start(&other, None, "mallory"));
    refused_at(&waiting.door, &bait.redirect);
    assert_eq!(exchanges(rogue), 0);
    waiting.finish();
    bait.cancel(&other);
}

fn after_a_restart(rogue: &Rogue, room: &Room) {
    let daemon = room.start();
    let Waiting { door, redirect, login } = Waiting::start(&daemon, None, "alice");
    daemon.kill();
    drop(login);
    assert!(is_closed(door.address));
    let daemon = room.start();
    let waiting = Waiting::start(&daemon, None, "alice");
    refused_at(&waiting.door, &redirect);
    assert_eq!(exchanges(rogue), 0);
    waiting.finish();
}

//! T62: code verifiers and states at remote servers: none twice, none weak, none sent anywhere but with its own code.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::rogue::{Delivery, Plan};
use mcp_auth_tests::{Answer, Connection, Daemon, McpServer, Person, Room, get};
use serde_json::json;
use sha2::Digest as _;

use crate::life::quiet;
use crate::remote::{METADATA, edit, log_in, page, parameter, rogue};
use crate::report::{Case, Report};
use crate::side::side_by_side;

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T62", title: "PKCE and state: none comes twice, all S256, no position is fixed", rounds: 100_000, quick: 300, run: flows },
    Case { id: "T62", title: "PKCE: a verifier goes with its own code, once; `plain` is refused", rounds: 60, quick: 6, run: exchanges },
];

/// Daemons that begin logins side by side: two of them must not agree either.
const DAEMONS: u32 = 4;
/// base64url without padding of 32 bytes (RFC 7636 section 4.1): the last character holds four bits.
const CHALLENGE: usize = 43;

// ---- begun, and given up ----

/// What a page's URL shows of a login.
struct Begun {
    challenge: String,
    state: String,
}

fn flows(report: &mut Report) {
    let each = report.rounds().div_ceil(DAEMONS);
    let begun = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..DAEMONS {
            scope.spawn(|| {
                let (server, room) = (rogue(), quiet(Room::with_config("")));
                let mcp = McpServer::start(&server.issuer());
                let daemon = room.start();
                let own: Vec<Begun> = (0..each).map(|_| one_flow(&daemon, &mcp)).collect();
                begun.lock().unwrap().extend(own);
            });
        }
    });
    let begun = begun.into_inner().unwrap();
    let (mut challenges, mut states, mut odd) = (HashSet::new(), HashSet::new(), Vec::new());
    for flow in &begun {
        let fresh = challenges.insert(flow.challenge.as_str()) && states.insert(flow.state.as_str());
        if !fresh || flow.challenge.len() != CHALLENGE || flow.state.len() < 22 {
            odd.push(format!("challenge {}, state {}", flow.challenge, flow.state));
        }
    }
    let (length, varied) = (begun.iter().map(|flow| flow.state.len()).min().unwrap_or(0), most_fixed(&begun));
    report.count((begun.len() - odd.len()) as u32, odd);
    report.figure(format!(
        "{} logins of {DAEMONS} daemons at remote servers: {} challenges, {} states of {length} characters, no two the same",
        begun.len(),
        challenges.len(),
        states.len()
    ));
    report.figure(format!("different characters at the most uniform position of a state: {varied} of 64"));
    // Of 300 even draws hardly a character is left out; of fewer, many are.
    report.round(|| assert!(varied >= 48 || begun.len() < 300, "a position of the state has only {varied} characters"));
}

fn one_flow(daemon: &Daemon<'_>, mcp: &McpServer) -> Begun {
    let mut login = daemon.start_login(&json!({ "provider": mcp.url() }));
    let (id, _) = login.started();
    let url = page(&mut login).unwrap();
    daemon.call("DELETE", &format!("/v1/logins/{id}"), &json!({}));
    assert_eq!(parameter(&url, "code_challenge_method"), "S256");
    Begun { challenge: parameter(&url, "code_challenge"), state: parameter(&url, "state") }
}

/// How many different characters stand at the position of the states that has the fewest, the last left out.
fn most_fixed(begun: &[Begun]) -> usize {
    let shortest = begun.iter().map(|flow| flow.state.len()).min().unwrap_or(1);
    let at = |position: usize| begun.iter().map(|flow| flow.state.as_bytes()[position]).collect::<HashSet<_>>().len();
    (0..shortest - 1).map(at).min().unwrap_or(0)
}

// ---- exchanged ----

fn exchanges(report: &mut Report) {
    side_by_side(report, 3, |round| match round % 3 {
        0 => two_at_once(),
        1 => refused_and_again(round / 3),
        _ => methods(round / 3),
    });
    report.figure("two logins at once, exchanges that fail or are lost, redirects that come again, metadata with `plain` beside S256");
}

fn challenge_of(verifier: &str) -> String {
    let fits = (43..=128).contains(&verifier.len())
        && verifier.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
    assert!(fits, "{verifier} is no code verifier (RFC 7636 section 4.1)");
    URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(verifier.as_bytes()))
}

/// Two logins that end in the other order: each authorization server is shown the verifier of its own.
fn two_at_once() {
    let (first, second, room) = (rogue(), rogue(), quiet(Room::with_config("")));
    let servers = [McpServer::start(&first.issuer()), McpServer::start(&second.issuer())];
    let daemon = room.start();
    let mut logins: Vec<_> = servers.iter().map(|mcp| daemon.start_login(&json!({ "provider": mcp.url() }))).collect();
    let pages: Vec<_> = logins.iter_mut().map(|login| page(login).unwrap()).collect();
    for (login, url) in logins.iter_mut().zip(&pages).rev() {
        Person::named("alice").browse_to_the_end(url, Answer::Yes);
        assert!(matches!(login.last(), LoginEvent::Done { .. }));
    }
    for (rogue, url) in [&first, &second].into_iter().zip(&pages) {
        let verifiers = rogue.seen().verifiers;
        assert_eq!(verifiers.iter().map(|verifier| challenge_of(verifier)).collect::<Vec<_>>(), [parameter(url, "code_challenge")]);
    }
}

/// The exchange fails, or its answer is lost, or the redirect comes twice: the next login brings another verifier, and none is
/// sent again.
fn refused_and_again(number: usize) {
    let (rogue, room) = (rogue(), quiet(Room::with_config("")));
    let mcp = McpServer::start(&rogue.issuer());
    let daemon = room.start();
    let request = json!({ "provider": mcp.url() });
    match number % 3 {
        0 => rogue.plan(Plan::edited(|body| *body = json!({ "error": "invalid_grant" })).times(1)),
        1 => rogue.plan(Plan::delivered(Delivery::Reset(0)).times(1)),
        _ => rogue.plan(Plan::late(Duration::from_secs(1)).times(1)),
    }
    let mut login = daemon.start_login(&request);
    let url = page(&mut login).unwrap();
    let redirect = Person::named("alice").browse(&url, Answer::Yes);
    get(&redirect, &[]);
    if number % 3 == 2 {
        let target = format!("{}?{}", redirect.path(), redirect.query().unwrap_or_default());
        let again = Connection::tcp("127.0.0.1", redirect.port().unwrap());
        // The listener may have gone with the end of the login.
        let _ = again.and_then(|mut connection| connection.request("GET", &target, &[], ""));
    }
    login.last();
    log_in(&daemon, &request).unwrap();
    let verifiers = rogue.seen().verifiers;
    let distinct: HashSet<_> = verifiers.iter().collect();
    assert_eq!((verifiers.len(), distinct.len()), (2, 2), "one for each login");
    assert_eq!(challenge_of(&verifiers[0]), parameter(&url, "code_challenge"));
}

/// Only S256 will do, and it is taken wherever it is offered.
fn methods(number: usize) {
    let (listed, may) = [
        (json!(["plain"]), false),
        (json!([]), false),
        (json!(null), false),
        (json!(["s256"]), false),
        (json!(["plain", "S256"]), true),
        (json!(["S256", "S512"]), true),
    ][number % 6]
        .clone();
    let (rogue, room) = (rogue(), quiet(Room::with_config("")));
    let mcp = McpServer::start(&rogue.issuer());
    let daemon = room.start();
    edit(&rogue, METADATA, &json!({ "code_challenge_methods_supported": listed }));
    let found = page(&mut daemon.start_login(&json!({ "provider": mcp.url() })));
    match found {
        Ok(url) => assert!(may && parameter(&url, "code_challenge_method") == "S256", "{listed}: {url}"),
        Err(why) => assert!(!may && why.contains("S256"), "{listed}: {why}"),
    }
}

//! T41, T44 at a remote MCP server: what it, and the authorization server that it names, have a browser open, and have a person
//! read.

use std::time::Duration;

use mcp_auth_tests::rogue::{Plan, Rogue};
use mcp_auth_tests::{Answer, Daemon, McpServer, Person, Room, wait_until};
use serde_json::{Value, json};

use crate::remote::{METADATA, page, rogue};
use crate::report::{Case, Report};
use crate::side::side_by_side;
use crate::texts::{
    BROWSERS, OWN, OWN_PLAIN, addresses_figure, all_addresses, decoded_harmless, edited, follow, harmless, hostile, leading_to,
    one_address, one_argument, record_browsers,
};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T41", title: "a remote server's hostile address, at `login` and at a bridge", rounds: 372, quick: 31, run: addresses },
    Case { id: "T44", title: "no control or bidi character of a remote server reaches anybody", rounds: 120, quick: 20, run: texts },
];

const PATIENCE: Duration = Duration::from_secs(30);
const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;

// ---- T41 ----

fn addresses(report: &mut Report) {
    let addresses = all_addresses();
    side_by_side(report, 3, |round| {
        let (address, host) = &addresses[round % addresses.len()];
        let (browser, position) = BROWSERS[round / addresses.len() % BROWSERS.len()];
        let (rogue, mut room) = (rogue(), Room::with_config(""));
        let mcp = McpServer::start(&rogue.issuer());
        room.set("MCP_AUTHD_LOG", "info");
        record_browsers(&room);
        room.set("BROWSER", &browser.replace("REC", room.path("recorder").to_str().unwrap()));
        rogue.plan(leading_to(address));
        let _daemon = room.start();
        // In turns, so that few rounds see both.
        match (round + round / addresses.len()) % 2 {
            0 => one_address(&room, (address, *host), position, &mcp.url()),
            _ => at_a_bridge(&room, (address, *host), position, &mcp.url()),
        }
    });
    report.figure(addresses_figure(&addresses));
}

/// The bridge's client gets an error that names the command, or the browser opens this address and nothing else.
fn at_a_bridge(room: &Room, (address, host): (&str, Option<&str>), position: usize, target: &str) {
    let shown: String = address.escape_debug().take(60).collect();
    let mut bridge = room.ctl_spawn(&["bridge", target]);
    bridge.type_line(PING);
    match host {
        Some(host) => {
            let argv = wait_until("the browser", PATIENCE, || std::fs::read_to_string(room.path("argv")).ok());
            one_argument(&argv, (&shown, host), position);
        }
        None => {
            let answer: Value = bridge.wait_for("an answer", |said| said.lines().find_map(|line| serde_json::from_str(line).ok()));
            assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32001)), "{shown}: {answer}");
            assert!(!room.path("argv").exists(), "{shown}: the browser was opened");
        }
    }
    assert!(!room.path("pwn").exists(), "{shown}: a command in it was run");
}

// ---- T44 ----

/// Where the text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The challenge: the scopes and the error.
    Challenge,
    /// The challenge: where the metadata is.
    Place,
    /// The resource's metadata.
    Resource,
    Servers,
    Scopes,
    Name,
    /// The authorization server's.
    Issuer,
    Offered,
    /// The registration.
    ClientId,
    Refusal,
    /// The answer to the code.
    CodeError,
    Granted,
    /// The answer to a refresh.
    RefreshError,
    /// The answer to a relayed request.
    Status,
    Redirect,
    Insufficient,
    Forbidden,
    OurError,
    /// The resource's metadata once a token is rejected.
    Moved,
    /// Nothing: what a harmless server's login shows passes the same judgement.
    Nothing,
}

impl Source {
    const ALL: [Self; 20] = [
        Self::Challenge,
        Self::Place,
        Self::Resource,
        Self::Servers,
        Self::Scopes,
        Self::Name,
        Self::Issuer,
        Self::Offered,
        Self::ClientId,
        Self::Refusal,
        Self::CodeError,
        Self::Granted,
        Self::RefreshError,
        Self::Status,
        Self::Redirect,
        Self::Insufficient,
        Self::Forbidden,
        Self::OurError,
        Self::Moved,
        Self::Nothing,
    ];

    /// What is said before the login.
    fn before(self, mcp: &McpServer, rogue: &Rogue) {
        match self {
            Self::Challenge => mcp.challenge(&format!("Bearer scope=\"OWNED {0}\", error=\"{0}\", error_description=\"{0}\"", line())),
            Self::Place => mcp.challenge("Bearer resource_metadata=\"http://OWNED.example/%1b[35m\""),
            Self::Resource => mcp.describe(|metadata| metadata["resource"] = hostile().into()),
            Self::Servers => mcp.describe(|metadata| metadata["authorization_servers"] = json!([hostile()])),
            Self::Scopes => {
                let many = (0..25).map(|number| format!("scope-{number}-{}", "x".repeat(250)));
                let scopes: Vec<String> = ["OWNED".to_owned(), hostile(), "y".repeat(301)].into_iter().chain(many).collect();
                mcp.describe(|metadata| metadata["scopes_supported"] = scopes.into());
            }
            Self::Name => mcp.describe(|metadata| {
                ["resource_name", "resource_documentation", "resource_policy_uri"]
                    .iter()
                    .for_each(|name| metadata[name] = hostile().into());
            }),
            Self::Issuer => rogue.plan(edited(METADATA, |body| body["issuer"] = hostile().into())),
            Self::Offered => rogue.plan(edited(METADATA, |body| {
                ["scopes_supported", "token_endpoint_auth_methods_supported"]
                    .iter()
                    .for_each(|name| body[name] = json!(["none", hostile()]));
                body["service_documentation"] = hostile().into();
            })),
            Self::ClientId => rogue.plan(edited("/register", |body| body["client_id"] = hostile().into())),
            Self::Refusal => rogue.plan(Plan::json(400, &json!({ "error": hostile(), "error_description": hostile() })).path("/register")),
            Self::CodeError => rogue.plan(Plan::json(400, &json!({ "error": "invalid_grant", "error_description": hostile() }))),
            Self::Granted => rogue.plan(edited("/token", |body| body["scope"] = format!("mcp:read {}", hostile()).into())),
            _ => {}
        }
    }

    /// What is said after it.
    fn after(self, mcp: &McpServer, rogue: &Rogue) {
        let head = |status: &str, lines: &str| format!("HTTP/1.1 {status}\r\n{lines}content-length: 5\r\nconnection: close\r\n\r\nOWNED");
        match self {
            Self::RefreshError => rogue.plan(Plan::json(400, &json!({ "error": "invalid_client", "error_description": hostile() }))),
            Self::Status => mcp.say(head(&format!("502 OWNED {}", line()), "content-type: text/OWNED\r\n")),
            Self::Redirect => mcp.say(head("307 Moved", &format!("location: https://owned.example/{}\r\n", ascii()))),
            Self::Insufficient => {
                let scopes = format!("www-authenticate: Bearer error=\"insufficient_scope\", scope=\"OWNED {}\"\r\n", ascii());
                mcp.say(head("403 No", &scopes));
            }
            Self::Forbidden => mcp.say(head("403 No", &format!("www-authenticate: Bearer error_description=\"OWNED {}\"\r\n", line()))),
            Self::OurError => {
                mcp.say(head("401 No", &format!("mcp-authd-error: OWNED{}\r\nwww-authenticate: Bearer error=\"OWNED\"\r\n", ascii())));
            }
            Self::Moved => mcp.describe(|metadata| metadata["authorization_servers"] = json!([format!("https://{}", hostile())])),
            _ => {}
        }
    }

    fn is_relayed(self) -> bool {
        matches!(self, Self::Status | Self::Redirect | Self::Insufficient | Self::Forbidden | Self::OurError | Self::Moved)
    }

    /// Whether the harmless part of the text must be seen somewhere, so that its way is known to lead there.
    fn is_shown(self) -> bool {
        !matches!(
            self,
            Self::Challenge
                | Self::Name
                | Self::Offered
                | Self::ClientId
                | Self::Status
                | Self::Forbidden
                | Self::OurError
                | Self::Moved
                | Self::Nothing
        )
    }
}

/// As much of it as a header line can carry.
fn line() -> String {
    hostile().chars().filter(|c| !c.is_control() && *c != '"').take(1500).collect()
}

/// What of it is ASCII.
fn ascii() -> String {
    line().chars().filter(char::is_ascii).collect()
}

fn texts(report: &mut Report) {
    let seen = std::sync::atomic::AtomicUsize::new(0);
    side_by_side(report, 3, |round| {
        let source = Source::ALL[round % Source::ALL.len()];
        let bytes = one_text(source, round / Source::ALL.len() % 2 == 1);
        seen.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    });
    report.figure(format!(
        "{} ways in, {} bytes on terminals (with colours and NO_COLOR), sockets, at bridges and in logs at trace",
        Source::ALL.len() - 1,
        seen.into_inner()
    ));
}

/// What a person and a program see while a server says such things: how many bytes were looked at.
fn one_text(source: Source, plain: bool) -> usize {
    let (rogue, mut room) = (rogue(), Room::with_config(""));
    let mcp = McpServer::start(&rogue.issuer());
    if plain {
        room.set("NO_COLOR", "1");
    }
    let daemon = room.start();
    let (events, following) = (follow(&room), room.ctl_on_terminal(&["events"]));
    source.before(&mcp, &rogue);
    let login = room.ctl_on_terminal(&["login", &mcp.url(), "--no-browser"]);
    // Else the command would come after the end of ours, and wait for another that nobody finishes.
    wait_until("the command's login", PATIENCE, || daemon.running.said().contains("/v1/logins").then_some(()));
    log_in(&daemon, source, &mcp);
    let mut screens = vec![login.wait().1];
    source.after(&mcp, &rogue);
    let name = mcp.name();
    screens.push(room.ctl_on_terminal(&["refresh", &name]).wait().1);
    for verb in [&["status"][..], &["status", &name], &["token", "--fingerprint", &name], &["headers", "nobody"]] {
        screens.push(room.ctl_on_terminal(verb).wait().1);
        screens.push(room.ctl_on_terminal(&[verb, &["--json"]].concat()).wait().1);
    }
    let mut wires = if source.is_relayed() { relayed(&room, &daemon, &mcp) } else { Vec::new() };
    screens.push(room.ctl_on_terminal(&["status", &name]).wait().1);
    let paths = ["/v1/grants".to_owned(), format!("/v1/grants/{name}"), "/v1/status".to_owned()];
    wires.extend(paths.map(|path| daemon.call("GET", &path, &json!({})).body.into_bytes()));
    let log = daemon.running.said();
    drop(daemon);
    screens.push(following.wait().1);
    wires.extend([events.join().unwrap(), log.into_bytes()]);
    screens.iter().for_each(|screen| harmless(source, screen, if plain { OWN_PLAIN } else { OWN }));
    wires.iter().for_each(|wire| harmless(source, wire, &[]));
    let whole = [screens, wires].concat().concat();
    assert!(!source.is_shown() || String::from_utf8_lossy(&whole).to_uppercase().contains("OWNED"), "{source:?}: it is not seen at all");
    whole.len()
}

/// Joins the login that runs, or starts it, and answers the pages.
fn log_in(daemon: &Daemon<'_>, source: Source, mcp: &McpServer) {
    let mut login = daemon.start_login(&json!({ "provider": mcp.url() }));
    if let Ok(url) = page(&mut login) {
        Person::named("alice").browse_to_the_end(&url, Answer::Yes);
    }
    let last: Value = serde_json::to_value(login.last()).unwrap();
    decoded_harmless(source, &last);
}

/// A request through the relay, and one through a bridge, which is what a client's log shows of it. The server's own bodies are
/// its own: these come back as errors of ours.
fn relayed(room: &Room, daemon: &Daemon<'_>, mcp: &McpServer) -> Vec<Vec<u8>> {
    let answer = daemon.connect().request("POST", &format!("/mcp/{}", mcp.name()), &[], PING).unwrap();
    let headers = answer.headers.iter().filter(|(name, _)| name != "content-type").map(|(name, value)| format!("{name}: {value}\n"));
    let mut bridge = room.ctl_spawn(&["bridge", &mcp.name(), "--no-browser"]);
    bridge.type_line(PING);
    bridge.wait_for("an answer", |said| said.contains("\"id\":7").then_some(()));
    let said = bridge.wait();
    let own = |text: String| if text == "OWNED" { String::new() } else { text };
    vec![headers.collect::<String>().into_bytes(), own(answer.body).into_bytes(), said.stdout.into_bytes(), said.stderr.into_bytes()]
}

//! Texts and addresses of somebody who wants to do harm with them: T41, T44.

use std::fmt::Debug;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_tests::rogue::{Content, Plan, Rogue, Rules};
use mcp_auth_tests::{Answer, Daemon, Person, Room, Running, get, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use url::Url;

use crate::report::{Case, Report};

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T41", title: "a hostile address is refused, or one argument of the browser", rounds: 300, quick: 30, run: addresses },
    Case { id: "T44", title: "no control or bidi character of others on terminal, wire or log", rounds: 110, quick: 22, run: texts },
];

const PATIENCE: Duration = Duration::from_secs(20);

/// An answer at this path with its JSON changed.
pub(crate) fn edited(path: &str, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Plan {
    Plan { content: Content::Edited(Arc::new(edit)), ..Plan::honest(path) }
}

/// An `authorization_endpoint`, and the host that a browser may be led to, if any.
pub(crate) const ADDRESSES: &[(&str, Option<&str>)] = &[
    ("javascript:alert(1)", None),
    ("data:text/html,x", None),
    ("file:///etc/passwd", None),
    ("vscode://x", None),
    ("http://a/$(touch pwn)", None),
    ("http://a/$(touch${IFS}pwn)", None),
    ("https://a/$(touch${IFS}pwn)", Some("a")),
    ("https://a/`touch${IFS}pwn`", Some("a")),
    ("https://a/;touch${IFS}pwn;", Some("a")),
    ("https://a/\"&calc", Some("a")),
    ("https://a/'|touch${IFS}pwn|'", Some("a")),
    ("https://a/%s%n%25", Some("a")),
    ("-flag", None),
    ("--new-window=https://a/", None),
    ("", None),
    ("https:a", None),
    ("https:///a", None),
    ("https://a/\nhttps://b/", None),
    ("https://a/\r\nx: y", None),
    ("https://a/\0", None),
    (" https://a/", None),
    ("https://a b/", None),
    ("https://a\\@b/", None),
    ("https://user@a/", None),
    ("https://user:word@a/", None),
    ("https://a/?client_id=evil", None),
    ("https://a/#fragment", None),
    ("https://\u{430}pple.com/", Some("xn--pple-43d.com")),
    ("https://a/\u{202e}gpj.exe", Some("a")),
    ("HTTPS://A.EXAMPLE/", Some("a.example")),
];

/// What `$BROWSER` says, with the recorder's path in place of `REC`, and which of the arguments is the address.
pub(crate) const BROWSERS: [(&str, usize); 3] = [("REC", 0), ("REC --flag %s --last", 1), ("/nonexistent/browser:REC", 0)];

fn addresses(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let mut room = Room::at_rogue(&rogue);
    room.set("MCP_AUTHD_LOG", "info");
    record_browsers(&room);
    let _daemon = room.start();
    let addresses = all_addresses();
    for round in 0..report.rounds() as usize {
        let (address, host) = &addresses[round % addresses.len()];
        let (browser, position) = BROWSERS[round / addresses.len() % BROWSERS.len()];
        room.set("BROWSER", &browser.replace("REC", room.path("recorder").to_str().unwrap()));
        rogue.behave();
        rogue.plan(leading_to(address));
        report.round(|| one_address(&room, (address, *host), position, "test"));
    }
    report.figure(addresses_figure(&addresses));
}

/// Every address, and the host that a browser may be led to by it.
pub(crate) fn all_addresses() -> Vec<(String, Option<&'static str>)> {
    let long = (format!("https://a/{}", "x".repeat(64 * 1024)), None);
    ADDRESSES.iter().map(|(address, host)| ((*address).to_owned(), *host)).chain([long]).collect()
}

pub(crate) fn addresses_figure(addresses: &[(String, Option<&str>)]) -> String {
    let openable = addresses.iter().filter(|(_, host)| host.is_some()).count();
    format!("{} addresses, {openable} of them opened, as one argument, with 3 kinds of $BROWSER", addresses.len())
}

/// Metadata with this page to open.
pub(crate) fn leading_to(address: &str) -> Plan {
    let hostile = address.to_owned();
    edited("/.well-known/oauth-authorization-server", move |body| body["authorization_endpoint"] = hostile.clone().into())
}

/// Makes the program that writes down what it is called with. Whatever else it is called, a shell would find its way.
pub(crate) fn record_browsers(room: &Room) {
    let script = format!("#!/bin/sh\nprintf '%s\\0' \"$@\" > {0}.new && mv {0}.new {0}\n", room.path("argv").display());
    std::fs::write(room.path("recorder"), script).unwrap();
    std::fs::set_permissions(room.path("recorder"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A login at `target`, whose server leads to this address.
pub(crate) fn one_address(room: &Room, (address, host): (&str, Option<&str>), position: usize, target: &str) {
    let shown: String = address.escape_debug().take(60).collect();
    let mut login = room.ctl_spawn(&["login", target]);
    match host {
        Some(host) => opened(room, login, (&shown, host), position),
        None => {
            wait_until("a refusal", PATIENCE, || {
                assert!(!login.said().contains("open this URL"), "{shown}: {}", login.said());
                (!login.is_alive()).then_some(())
            });
            login.wait().fails_with(1);
            assert!(!room.path("argv").exists(), "{shown}: the browser was opened");
        }
    }
    assert!(!room.path("pwn").exists(), "{shown}: a command in it was run");
}

/// The login opens the browser with one argument that is an address and nothing else.
fn opened(room: &Room, mut login: Running, (shown, host): (&str, &str), position: usize) {
    let argv = wait_until("the browser", PATIENCE, || {
        assert!(login.is_alive(), "{shown}: {}", login.said());
        std::fs::read_to_string(room.path("argv")).ok()
    });
    std::fs::remove_file(room.path("argv")).unwrap();
    login.signal(Signal::INT);
    let said = login.wait().stderr;
    let url = one_argument(&argv, (shown, host), position);
    assert!(said.contains(&format!("it leads to {host})")) && said.contains(url.as_str()), "{shown}: {said}");
}

/// The address that a browser was called with, if it is what it should be.
pub(crate) fn one_argument(argv: &str, (shown, host): (&str, &str), position: usize) -> Url {
    let argv: Vec<&str> = argv.strip_suffix('\0').unwrap().split('\0').collect();
    assert_eq!(argv.len(), if position == 0 { 1 } else { 3 }, "{shown}: {argv:?}");
    let url = Url::parse(argv[position]).unwrap();
    assert_eq!((url.as_str(), url.scheme(), url.host_str()), (argv[position], "https", Some(host)), "{shown}");
    assert!(url.as_str().bytes().all(|byte| (0x21..0x7f).contains(&byte)), "{shown}: {url}");
    url
}

/// What a provider may not have us say: a window's title, colours, a cleared screen, text the other way round, a second
/// line that looks like ours, C1 controls, and no end.
pub(crate) fn hostile() -> String {
    let start = "OWNED \u{1b}]0;t\u{7}\u{1b}[35m\u{1b}[2J\u{202e}yaw\u{2066}\r\nhint: rm -rf ~\r\u{0}\u{8}\u{7f}\u{85}\u{9b}35m\u{90}";
    format!("{start}\u{ad}\u{180e}\u{3164}\u{ffa0}\u{fe0f}\u{61c}\u{200b}\u{200f}\u{2028}\u{feff}\u{e0041}{}", "x".repeat(2_000))
}

/// Where the text comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Issuer,
    Endpoint,
    ContentType,
    Redirect,
    CodeDescription,
    CodeError,
    Scope,
    Account,
    RefreshError,
    Holder,
    Request,
}

impl Source {
    const ALL: [Self; 11] = [
        Self::Issuer,
        Self::Endpoint,
        Self::ContentType,
        Self::Redirect,
        Self::CodeDescription,
        Self::CodeError,
        Self::Scope,
        Self::Account,
        Self::RefreshError,
        Self::Holder,
        Self::Request,
    ];

    fn plan(self) -> Option<Plan> {
        let metadata = "/.well-known/oauth-authorization-server";
        Some(match self {
            Self::Issuer => edited(metadata, |body| body["issuer"] = hostile().into()),
            Self::Endpoint => edited(metadata, |body| body["token_endpoint"] = format!("https://a/{}", hostile()).into()),
            Self::ContentType => Plan::canned(502, &["content-type: text/\u{1b}[35mOWNED"], hostile()),
            Self::CodeDescription => {
                Plan::json(400, &json!({ "error": "invalid_grant", "error_description": hostile(), "error_uri": hostile() }))
            }
            Self::CodeError => Plan::json(400, &json!({ "error": hostile() })),
            Self::Scope => edited("/token", |body| body["scope"] = format!("mcp:read {}", hostile()).into()),
            Self::Account => edited("/me", |body| {
                ["sub", "name", "email", "login", "preferred_username"].iter().for_each(|name| body[name] = hostile().into());
            }),
            Self::Redirect | Self::RefreshError | Self::Holder | Self::Request => return None,
        })
    }

    /// Whether the harmless part of the text must be seen somewhere, so that its way is known to lead there.
    fn is_shown(self) -> bool {
        !matches!(self, Self::Endpoint | Self::ContentType)
    }
}

fn texts(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let mut seen = 0;
    for round in 0..report.rounds() as usize {
        let source = Source::ALL[round % Source::ALL.len()];
        let plain = round / Source::ALL.len() % 2 == 1;
        seen += report.round(|| one_text(&rogue, source, plain)).unwrap_or_default();
    }
    report.figure(format!(
        "{} ways in, {seen} bytes on terminals (with colours and NO_COLOR), sockets and in logs at trace",
        Source::ALL.len()
    ));
}

/// What a person and a program see while a provider says such things: how many bytes were looked at.
fn one_text(rogue: &Rogue, source: Source, plain: bool) -> usize {
    rogue.behave();
    let userinfo = format!("userinfo_endpoint = \"{}/me\"", rogue.issuer());
    let mut room = Room::with_config(&rogue.provider_table("test", &userinfo));
    if plain {
        room.set("NO_COLOR", "1");
    }
    let daemon = room.start();
    let (events, following) = (follow(&room), room.ctl_on_terminal(&["events"]));
    if let Some(plan) = source.plan() {
        rogue.plan(plan);
    }
    let login = room.ctl_on_terminal(&["login", "test", "--no-browser"]);
    // Else the command would come after the end of ours, and wait for another that nobody finishes.
    wait_until("the command's login", PATIENCE, || daemon.running.said().contains("/v1/logins").then_some(()));
    log_in(&daemon, source);
    let mut screens = vec![login.wait().1];
    if matches!(source, Source::RefreshError) {
        rogue.plan(Plan::json(400, &json!({ "error": "invalid_client", "error_description": hostile() })));
        screens.push(room.ctl_on_terminal(&["refresh", "test"]).wait().1);
    }
    let mut answers = from_a_client(&daemon, source);
    for verb in [&["status"][..], &["status", "test"], &["token", "--fingerprint", "test"], &["provider", "list"]] {
        screens.push(room.ctl_on_terminal(verb).wait().1);
        screens.push(room.ctl_on_terminal(&[verb, &["--json"]].concat()).wait().1);
    }
    answers.extend(["/v1/grants", "/v1/grants/test", "/v1/status"].map(|path| daemon.call("GET", path, &json!({})).body));
    let log = daemon.running.said();
    drop(daemon);
    screens.push(following.wait().1);
    let mut wires: Vec<Vec<u8>> = answers.into_iter().map(String::into_bytes).collect();
    wires.extend([events.join().unwrap(), log.into_bytes()]);
    screens.iter().for_each(|screen| harmless(source, screen, if plain { OWN_PLAIN } else { OWN }));
    wires.iter().for_each(|wire| harmless(source, wire, &[]));
    let whole = [screens, wires].concat().concat();
    assert!(!source.is_shown() || String::from_utf8_lossy(&whole).contains("OWNED"), "{source:?}: it is not seen at all");
    whole.len()
}

/// What a program may say of itself and of others on the socket, and what it is answered.
fn from_a_client(daemon: &Daemon<'_>, source: Source) -> Vec<String> {
    let said = |body: Value| daemon.call("POST", "/v1/token", &body).body;
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{}\", scope=\"{}\"", hostile(), hostile());
    match source {
        // It holds the token for as long as this process lives, and `status` shows it.
        Source::Holder => {
            assert!(said(json!({ "grant": "test", "holder": hostile() })).contains("access_token"));
            vec![]
        }
        Source::Request => vec![
            said(json!({ "grant": hostile() })),
            said(json!({ "resource": format!("https://OWNED.example/{}", hostile()) })),
            said(json!({ "grant": "test", "scopes": [hostile()] })),
            said(json!({ "grant": "test", "challenge": challenge })),
            said(json!({ "grant": "test", hostile(): 1 })),
            daemon.call("PUT", "/v1/providers/other", &json!({ "issuer": hostile() })).body,
            daemon.call("PUT", "/v1/grants/other", &json!({ "access_token": hostile() })).body,
            daemon.call("POST", "/v1/logins", &json!({ "provider": hostile() })).body,
            daemon.call("POST", "/v1/vault/backup", &json!({ "path": hostile() })).body,
            daemon.call("GET", "/v1/issuer/approvals/%1b%5b35mOWNED", &json!({})).body,
        ],
        _ => vec![],
    }
}

/// Joins the login that runs, or starts it, and answers the pages.
fn log_in(daemon: &Daemon<'_>, source: Source) {
    let mut login = daemon.start_login(&json!({ "provider": "test" }));
    if !matches!(source, Source::Issuer | Source::Endpoint) {
        let url = login.wait_for_url();
        let mut redirect = Person::named("alice").browse(&url, Answer::Yes);
        if matches!(source, Source::Redirect) {
            let kept: Vec<(String, String)> = redirect.query_pairs().into_owned().filter(|(name, _)| name != "code").collect();
            redirect.query_pairs_mut().clear().extend_pairs(kept);
            redirect.query_pairs_mut().append_pair("error", "invalid_request").append_pair("error_description", &hostile());
        }
        let page = get(&redirect, &[]).body;
        assert!(!page.contains("OWNED"), "{source:?}: the page repeats it: {page}");
    }
    let last = serde_json::to_string(&login.last()).unwrap();
    decoded_harmless(source, &serde_json::from_str(&last).unwrap());
}

/// The raw bytes of `/v1/events` until the daemon ends.
pub(crate) fn follow(room: &Room) -> std::thread::JoinHandle<Vec<u8>> {
    let mut stream = UnixStream::connect(room.socket()).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: mcp-authd\r\n\r\n").unwrap();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A daemon that is killed may reset the connection; what came before counts.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap().replace("\r\n", "\n").into_bytes()
    })
}

/// What ctl itself may write: its colours, and the line that counts the seconds. None of it stands in the hostile text.
pub(crate) const OWN: &[&str] = &["\r\u{1b}[K", "\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[33m", "\u{1b}[36m"];
pub(crate) const OWN_PLAIN: &[&str] = &["\r\u{1b}[K"];

pub(crate) fn harmless(source: impl Debug + Copy, bytes: &[u8], own: &[&str]) {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|error| panic!("{source:?}: {error}"));
    let text = own.iter().fold(text.to_owned(), |text, own| text.replace(own, ""));
    for line in text.lines() {
        assert!(!line.chars().any(is_harmful), "{source:?}: {}", line.escape_debug());
        assert!(!line.starts_with("hint: rm"), "{source:?}: a line of its own: {line}");
        match serde_json::from_str(line) {
            Ok(value) => decoded_harmless(source, &value),
            // The address to open is shown whole.
            Err(_) if line.starts_with("http") && !line.contains(' ') => assert!(line.len() < 8 * 1024, "{source:?}: no end: {line}"),
            Err(_) => assert!(line.chars().count() < 1_000, "{source:?}: no end: {line}"),
        }
    }
}

/// The same for what JSON stands for: our own clients decode it.
pub(crate) fn decoded_harmless(source: impl Debug + Copy, value: &Value) {
    match value {
        Value::String(text) => {
            assert!(!text.chars().any(|c| is_harmful(c) || c == '\n'), "{source:?}: {}", text.escape_debug());
            assert!(text.chars().count() < 700, "{source:?}: no end: {text}");
        }
        Value::Array(values) => values.iter().for_each(|value| decoded_harmless(source, value)),
        Value::Object(members) => members.values().for_each(|value| decoded_harmless(source, value)),
        _ => {}
    }
}

fn is_harmful(c: char) -> bool {
    let hides = matches!(c, '\u{ad}' | '\u{180e}' | '\u{3164}' | '\u{ffa0}' | '\u{fe0f}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() && c != '\n' || hides || matches!(c, '\u{e0000}'..='\u{e007f}')
}

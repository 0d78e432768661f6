//! T56 to T60 and T64: what a remote MCP server and its authorization server can do with what they say of themselves.

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::rogue::{Plan, Rogue, Rules};
use mcp_auth_tests::{Answer, Daemon, LoginStream, McpServer, Person, Room, Server, get};
use serde_json::{Value, json};
use url::Url;

use crate::report::{Case, Report};
use crate::side::{none_of, side_by_side};

pub(crate) const CASES: &[Case] = &[
    Case { id: "T56", title: "mix-up: the code of another server is exchanged nowhere", rounds: 160, quick: 16, run: mix_up },
    Case { id: "T57", title: "metadata that lies: no page is opened, nobody is registered", rounds: 130, quick: 13, run: lies },
    Case { id: "T58", title: "hosts in private networks are not connected to", rounds: 90, quick: 9, run: private },
    Case { id: "T59", title: "another authorization server: old tokens and clients stay away from it", rounds: 30, quick: 3, run: moved },
    Case { id: "T60", title: "odd registrations are refused, and a grant keeps its client", rounds: 90, quick: 9, run: registrations },
    Case { id: "T64", title: "a server that is never content leads to few pages", rounds: 30, quick: 3, run: never_content },
];

pub(crate) const METADATA: &str = "/.well-known/oauth-authorization-server";

pub(crate) fn rogue() -> Rogue {
    Rogue::start(Rules::strict(Duration::from_secs(300)))
}

/// From now on these members of the answers at a path are others.
pub(crate) fn edit(rogue: &Rogue, path: &str, changes: &Value) {
    let changes = changes.as_object().unwrap().clone();
    rogue.plan(Plan::edited(move |body| body.as_object_mut().unwrap().extend(changes.clone())).path(path));
}

/// Up to the page, or to the end: the URL, or why there is none.
pub(crate) fn page(login: &mut LoginStream) -> Result<String, String> {
    loop {
        match login.next_event() {
            Some(LoginEvent::OpenUrl { url, .. }) => return Ok(url),
            Some(LoginEvent::Failed { error }) => return Err(error.to_string()),
            Some(_) => {}
            None => return Err("the stream ended".into()),
        }
    }
}

/// A whole login, with a person who says yes: why it failed, if it did.
pub(crate) fn log_in(daemon: &Daemon<'_>, request: &Value) -> Result<(), String> {
    let mut login = daemon.start_login(request);
    let url = page(&mut login)?;
    Person::named("alice").browse_to_the_end(&url, Answer::Yes);
    match login.last() {
        LoginEvent::Done { .. } => Ok(()),
        LoginEvent::Failed { error } => Err(error.to_string()),
        other => Err(format!("{other:?}")),
    }
}

pub(crate) fn parameter(url: &str, name: &str) -> String {
    let url = Url::parse(url).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

// ---- T56 ----

/// What `iss` the redirect brings, whether the server promised it, and whether its code may be exchanged.
fn redirects(honest: &str, evil: &str) -> Vec<(Option<String>, bool, bool)> {
    let iss = |text: &str| Some(text.to_owned());
    vec![
        (None, true, false),
        (iss(evil), true, false),
        (iss(&format!("{honest}/")), true, false),
        (iss(&honest.to_uppercase()), true, false),
        (iss(honest), true, true),
        (None, false, true),
        (iss(evil), false, false),
        (iss(honest), false, true),
    ]
}

fn mix_up(report: &mut Report) {
    side_by_side(report, 3, |round| {
        let (honest, evil, room) = (rogue(), rogue(), Room::with_config(""));
        let mcp = McpServer::start(&honest.issuer());
        let daemon = room.start();
        let cases = redirects(&honest.issuer(), &evil.issuer());
        let (iss, promised, may) = cases[round % cases.len()].clone();
        edit(&honest, METADATA, &json!({ "authorization_response_iss_parameter_supported": promised }));
        let mut login = daemon.start_login(&json!({ "provider": mcp.url() }));
        let url = page(&mut login).unwrap();
        // The honest server's own code, with another name on it.
        let own = Person::named("alice").browse(&url, Answer::Yes);
        let mut redirect = own.clone();
        redirect.set_query(None);
        let kept = own.query_pairs().filter(|(name, _)| name != "iss").chain(iss.iter().map(|iss| ("iss".into(), iss.as_str().into())));
        redirect.query_pairs_mut().extend_pairs(kept);
        get(&redirect, &[]);
        let done = matches!(login.last(), LoginEvent::Done { .. });
        assert_eq!((done, honest.seen().requests_to("/token")), (may, u64::from(may)), "iss {iss:?}, promised: {promised}");
        assert!(evil.seen().requests.is_empty(), "the other server heard something");
    });
}

// ---- T57 ----

/// A document, what it says wrong, and a word of the refusal.
fn all_lies(issuer: &str) -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("resource", json!({ "resource": "https://evil.example/mcp" }), "that of https://evil.example"),
        ("resource", json!({ "resource": null }), "has no resource"),
        ("resource", json!({ "authorization_servers": [] }), "has no authorization_servers"),
        ("resource", json!({ "authorization_servers": ["javascript:alert(1)"] }), "may be used"),
        ("resource", json!({ "authorization_servers": ["http://as.example"] }), "may be used"),
        ("issuer", json!({ "issuer": "https://evil.example" }), "that of issuer"),
        ("issuer", json!({ "issuer": format!("{issuer}/") }), "that of issuer"),
        ("issuer", json!({ "code_challenge_methods_supported": null }), "S256"),
        ("issuer", json!({ "code_challenge_methods_supported": ["plain"] }), "S256"),
        ("issuer", json!({ "authorization_endpoint": "javascript:alert(1)" }), "authorization_endpoint"),
        ("issuer", json!({ "authorization_endpoint": format!("{issuer}/authorize?client_id=evil") }), "belongs to the login"),
        ("issuer", json!({ "token_endpoint": "http://as.example/token" }), "token_endpoint"),
        ("issuer", json!({ "registration_endpoint": "file:///etc/passwd" }), "registration_endpoint"),
    ]
}

fn lies(report: &mut Report) {
    side_by_side(report, 3, |round| {
        let (rogue, room) = (rogue(), Room::with_config(""));
        let mcp = McpServer::start(&rogue.issuer());
        let daemon = room.start();
        let lies = all_lies(&rogue.issuer());
        let (document, changes, word) = &lies[round % lies.len()];
        match *document {
            "resource" => mcp.describe(|metadata| metadata.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone())),
            _ => edit(&rogue, METADATA, changes),
        }
        let refused = page(&mut daemon.start_login(&json!({ "provider": mcp.url() })));
        assert!(refused.as_ref().is_err_and(|why| why.contains(word)), "{changes}: {refused:?}");
        let seen = rogue.seen();
        assert_eq!((seen.requests_to("/authorize"), seen.requests_to("/token")), (0, 0));
        // What is asked of the person comes last: only the authorization request itself may find its fault after it.
        let registered = seen.requests_to("/register");
        assert!(registered == 0 || *word == "belongs to the login", "{changes}: a client was registered");
    });
}

// ---- T58 ----

/// A listener at this machine's own address, which is a private one, and how many have come.
pub(crate) struct Forbidden {
    address: IpAddr,
    port: u16,
    hits: Arc<AtomicUsize>,
}

impl Forbidden {
    pub(crate) fn listen() -> Self {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // Sends nothing: it tells the address that packets would leave from.
        let found = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
        let address = found.expect("this machine has an address besides loopback").ip();
        let fits = matches!(address, IpAddr::V4(address) if address.is_private() || address.is_documentation());
        assert!(fits, "this machine's address is a public one: {address}");
        let listener = TcpListener::bind((address, 0)).unwrap();
        let (port, hits) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let counted = hits.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        Self { address, port, hits }
    }

    /// Its address in every spelling that a URL parser takes.
    pub(crate) fn origins(&self) -> Vec<String> {
        let IpAddr::V4(address) = self.address else { panic!("an IPv4 address was asked for") };
        let ([a, b, c, d], number) = (address.octets(), u32::from(address));
        let hosts = [
            address.to_string(),
            number.to_string(),
            format!("0x{number:x}"),
            format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
            format!("[::ffff:{address}]"),
        ];
        hosts.iter().map(|host| format!("https://{host}:{}", self.port)).collect()
    }

    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

/// Leads the daemon there by this document. The last ways come into play only once the person has agreed.
fn lead(way: usize, origin: &str, mcp: &McpServer, rogue: &Rogue) {
    match way {
        0 => mcp.describe(|metadata| metadata["authorization_servers"] = json!([origin])),
        1 => mcp.challenge(&format!("Bearer resource_metadata=\"{origin}/prm\"")),
        2 => edit(rogue, METADATA, &json!({ "registration_endpoint": format!("{origin}/register") })),
        _ => edit(rogue, METADATA, &json!({ "token_endpoint": format!("{origin}/token") })),
    }
}

fn private(report: &mut Report) {
    let forbidden = Forbidden::listen();
    let origins = forbidden.origins();
    side_by_side(report, 3, |round| {
        let (rogue, room) = (rogue(), Room::with_config(""));
        let mcp = McpServer::start(&rogue.issuer());
        let daemon = room.start();
        lead(round % 4, &origins[round % origins.len()], &mcp, &rogue);
        let refused = log_in(&daemon, &json!({ "provider": mcp.url() }));
        assert!(refused.as_ref().is_err_and(|why| why.contains("private network")), "{round}: {refused:?}");
        assert_eq!(forbidden.hits(), 0, "somebody was connected to");
    });
    report.figure(none_of("connections to the private address", report.rounds() as usize));
    // The same with the person's leave does connect: the listener counts.
    let (rogue, mut room) = (rogue(), Room::with_config(""));
    let mcp = McpServer::start(&rogue.issuer());
    room.set("NO_PROXY", "*");
    room.write_config(&format!("[providers.corp]\nserver = \"{}\"\nallow_private = true\n", mcp.url()));
    lead(0, &origins[0], &mcp, &rogue);
    let refused = log_in(&room.start(), &json!({ "provider": "corp" }));
    assert!(refused.is_err() && forbidden.hits() > 0, "the listener counts nobody: {refused:?}");
}

// ---- T59 ----

fn moved(report: &mut Report) {
    side_by_side(report, 3, |_| {
        let (old, new, room) = (rogue(), rogue(), Room::with_config(""));
        let mcp = McpServer::start(&old.issuer());
        let daemon = room.start();
        log_in(&daemon, &json!({ "provider": mcp.url() })).unwrap();
        let token = daemon.token(&mcp.name());
        mcp.describe(|metadata| metadata["authorization_servers"] = json!([new.issuer()]));
        let rejected = daemon.call("POST", "/v1/token", &json!({ "resource": mcp.url(), "rejected_token": token }));
        assert_eq!(rejected.json()["error"], json!("login_required"), "{}", rejected.body);
        room.ctl(&["refresh", &mcp.name()]);
        assert!(new.seen().requests.is_empty() && old.seen().refreshes.is_empty(), "a token went somewhere");
        let mut login = daemon.start_login(&json!({ "provider": mcp.url() }));
        let url = page(&mut login).unwrap();
        assert!(url.starts_with(&new.issuer()), "{url}");
        Person::named("alice").browse_to_the_end(&url, Answer::Yes);
        assert!(matches!(login.last(), LoginEvent::Done { .. }));
        assert_eq!((old.seen().requests_to("/register"), new.seen().requests_to("/register")), (1, 1), "each has a client of its own");
        assert!(new.is_active(&daemon.token(&mcp.name())));
        mcp.describe(|metadata| metadata["authorization_servers"] = json!([old.issuer()]));
        log_in(&daemon, &json!({ "provider": mcp.url() })).expect("the server may come back to it");
        assert!(old.is_active(&daemon.token(&mcp.name())));
    });
}

// ---- T60 ----

/// What an answer says, and a word of the refusal.
fn odd_answers() -> Vec<(Value, &'static str)> {
    vec![
        (json!({ "redirect_uris": ["https://evil.example/cb"] }), "other redirect URIs"),
        (json!({ "redirect_uris": ["http://127.0.0.1:1/cb", "https://evil.example"] }), "other redirect URIs"),
        (json!({ "client_id": "" }), "no client_id"),
        (json!({ "client_id": "a\u{1b}[2J\u{7}" }), "control character"),
        (json!({ "client_id": "x".repeat(100_000) }), "too long"),
        (json!({ "client_secret": "s", "client_secret_expires_at": 1 }), "has expired already"),
        (json!({ "grant_types": ["client_credentials"] }), "may not use authorization codes"),
        (json!({ "logo": "x".repeat(10_000_000) }), "larger than 256 KiB"),
    ]
}

fn registrations(report: &mut Report) {
    let odd = odd_answers();
    side_by_side(report, 3, |round| match odd.get(round % (odd.len() + 1)) {
        Some((changes, word)) => {
            let (rogue, room) = (rogue(), Room::with_config(""));
            let mcp = McpServer::start(&rogue.issuer());
            let daemon = room.start();
            edit(&rogue, "/register", changes);
            let refused = page(&mut daemon.start_login(&json!({ "provider": mcp.url() })));
            assert!(refused.as_ref().is_err_and(|why| why.contains(word)), "{word}: {refused:?}");
            assert_eq!(rogue.seen().requests_to("/authorize"), 0);
        }
        None => keeps_its_client(),
    });
}

/// A second client of the same issuer changes nothing for the grant of the first: the real server would refuse its refresh.
fn keeps_its_client() {
    let (server, room) = (Server::with_lifetime(300), Room::with_config(""));
    let mcp = McpServer::start(server.issuer());
    let daemon = room.start();
    let mut login = daemon.start_login(&json!({ "provider": mcp.url() }));
    let url = page(&mut login).unwrap();
    Person::named("alice").browse_to_the_end(&url, Answer::Yes);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    let redirect = Url::parse(&parameter(&url, "redirect_uri")).unwrap();
    let taken = TcpListener::bind((redirect.host_str().unwrap(), redirect.port().unwrap())).unwrap();
    let mut login = daemon.start_login(&json!({ "provider": mcp.url(), "account": "two" }));
    let second = page(&mut login).unwrap();
    drop(taken);
    assert_ne!(parameter(&second, "client_id"), parameter(&url, "client_id"), "the redirect was taken");
    Person::named("bob").browse_to_the_end(&second, Answer::Yes);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    for name in [mcp.name(), format!("{}:two", mcp.name())] {
        let token = daemon.token(&name);
        room.ctl(&["refresh", &name]).ok();
        assert_ne!(daemon.token(&name), token, "{name}");
    }
}

// ---- T64 ----

fn never_content(report: &mut Report) {
    side_by_side(report, 3, |round| {
        let (rogue, room) = (rogue(), Room::with_config(""));
        let mcp = McpServer::start(&rogue.issuer());
        let daemon = room.start();
        log_in(&daemon, &json!({ "provider": mcp.url() })).unwrap();
        let mut pages = 0;
        for asked in 0..20 {
            // The same scope again and again, or a new one each time.
            let scope = if round % 2 == 0 { "mcp:write".to_owned() } else { format!("scope-{asked}") };
            let request = json!({ "provider": mcp.url(), "challenge": format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"") });
            let mut connection = daemon.connect();
            connection.send("POST", "/v1/logins", &[], &request.to_string()).unwrap();
            if connection.status().unwrap() == 200 {
                pages += 1;
                log_in(&daemon, &request).unwrap();
            }
        }
        assert_eq!(pages, if round % 2 == 0 { 1 } else { 3 }, "pages for programs");
    });
}

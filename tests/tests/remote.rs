//! Logins at remote MCP servers by their URL alone: what is found, who we are there, and what a server that changes its mind, or
//! has a bad one, can do with it.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_proto::{ClientKind, LoginEvent};
use mcp_auth_tests::rogue::{Plan, Rogue, Rules, Verdict};
use mcp_auth_tests::{Answer, Daemon, LoginStream, McpServer, Person, Room, Server, get};
use serde_json::{Value, json};

fn rogue() -> Rogue {
    Rogue::start(Rules::strict(Duration::from_secs(300)))
}

/// Events up to the page, and the page itself.
#[track_caller]
fn to_the_page(login: &mut LoginStream) -> (Vec<LoginEvent>, String) {
    let mut events = Vec::new();
    loop {
        match login.next_event() {
            Some(LoginEvent::OpenUrl { url, .. }) => return (events, url),
            Some(LoginEvent::Failed { error }) => panic!("the login failed: {error:?}"),
            Some(event) => events.push(event),
            None => panic!("the login ended without a page: {events:?}"),
        }
    }
}

/// A parameter of an authorization URL.
fn parameter(url: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(url).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[track_caller]
fn failure(daemon: &Daemon<'_>, request: &Value) -> (String, String, String) {
    let mut login = daemon.start_login(request);
    match login.last() {
        LoginEvent::Failed { error } => {
            let code = serde_json::to_value(error.error).unwrap().as_str().unwrap().to_owned();
            (code, error.error_description, error.hint.unwrap_or_default())
        }
        other => panic!("the login ended with {other:?}"),
    }
}

fn kind(events: &[LoginEvent]) -> ClientKind {
    let chosen = events.iter().find_map(|event| match event {
        LoginEvent::ClientChosen { client, .. } => Some(*client),
        _ => None,
    });
    chosen.expect("the client was told")
}

#[test]
fn a_url_is_all_that_a_login_at_a_real_server_needs() {
    let server = Server::with_lifetime(300);
    let mcp = McpServer::start(server.issuer());
    let room = Room::with_config("");
    let daemon = room.start();
    let login = room.log_in(&mcp.url()).ok();
    for told in [
        format!("found {}; its authorization server is {}\n", mcp.url(), server.issuer()),
        "registered there as the client ".to_owned(),
        "asks for mcp:read, offline_access\n".to_owned(),
        format!("logged in to {}", mcp.name()),
    ] {
        assert!(login.stderr.contains(&told), "{told}: {}", login.stderr);
    }
    assert_eq!(mcp.seen(), ["POST /mcp", "GET /.well-known/oauth-protected-resource/mcp"]);
    let token = daemon.token(&mcp.name());
    let by_url = room.ctl(&["token", &mcp.url()]);
    assert_eq!((by_url.code, by_url.stdout.trim()), (0, token.as_str()));
    assert!(room.ctl(&["headers", &mcp.url()]).stdout.contains(&format!("Bearer {token}")));
    let shown = daemon.show(&format!("/v1/grants/{}", mcp.name()));
    assert_eq!((&shown["server"], &shown["resource"], &shown["refreshable"]), (&json!(mcp.url()), &json!(mcp.url()), &json!(true)));
    room.ctl(&["refresh", &mcp.url()]).ok();
    assert_ne!(daemon.token(&mcp.name()), token, "the refresh carries the resource, or the server would refuse it");
    room.ctl(&["status", &mcp.url()]).ok();
    room.ctl(&["logout", &mcp.url()]).ok();
    assert_eq!(daemon.refusal(&mcp.name()), "unknown_grant");
}

#[test]
fn the_client_survives_a_restart_and_is_used_again() {
    let (rogue, room) = (rogue(), Room::with_config(""));
    let mcp = McpServer::start(&rogue.issuer());
    let daemon = room.start();
    room.log_in(&mcp.url()).ok();
    daemon.stop();
    let daemon = room.start();
    room.ctl(&["refresh", &mcp.url()]).ok();
    let mut login = daemon.start_login(&json!({ "provider": mcp.name() }));
    let (events, url) = to_the_page(&mut login);
    assert_eq!((kind(&events), rogue.seen().requests_to("/register")), (ClientKind::Known, 1));
    Person::named("alice").browse_to_the_end(&url, Answer::Yes);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    assert_eq!(rogue.seen().count(Verdict::Granted), 1);
}

#[test]
fn five_who_ask_at_once_share_one_page_one_client_and_one_grant() {
    let (rogue, room) = (rogue(), Room::with_config(""));
    let mcp = McpServer::start(&rogue.issuer());
    let daemon = room.start();
    let mut logins: Vec<_> = (0..5).map(|_| daemon.start_login(&json!({ "provider": mcp.url(), "browser": true }))).collect();
    let mut opened = 0;
    let mut page = String::new();
    for login in &mut logins {
        loop {
            match login.next_event().expect("a page") {
                LoginEvent::OpenUrl { url, open, .. } => {
                    opened += usize::from(open);
                    page = url;
                    break;
                }
                LoginEvent::Failed { error } => panic!("{error:?}"),
                _ => {}
            }
        }
    }
    assert_eq!(opened, 1, "one of them opens the browser");
    Person::named("alice").browse_to_the_end(&page, Answer::Yes);
    for login in &mut logins {
        assert!(matches!(login.last(), LoginEvent::Done { .. }));
    }
    assert_eq!((rogue.seen().requests_to("/register"), daemon.show("/v1/grants").as_array().unwrap().len()), (1, 1));
}

#[test]
fn a_server_that_changes_its_authorization_server_gets_a_new_login_and_the_old_one_hears_nothing() {
    let (old, new, room) = (rogue(), rogue(), Room::with_config(""));
    let mcp = McpServer::start(&old.issuer());
    let daemon = room.start();
    room.log_in(&mcp.url()).ok();
    let token = daemon.token(&mcp.name());
    mcp.describe(|metadata| metadata["authorization_servers"] = json!([new.issuer()]));
    let rejected = json!({ "resource": mcp.url(), "rejected_token": token, "challenge": "Bearer error=\"invalid_token\"" });
    let answer = daemon.call("POST", "/v1/token", &rejected);
    let body = answer.json();
    assert_eq!((answer.status, &body["error"]), (401, &json!("login_required")), "{body}");
    assert_eq!(body["mcp"]["data"]["login_command"], json!(format!("mcp-authctl login {}", mcp.name())));
    assert_eq!(old.seen().refreshes.len(), 0, "the refresh token goes nowhere");
    let mut login = daemon.start_login(&json!({ "provider": mcp.url() }));
    let (events, url) = to_the_page(&mut login);
    assert!(url.starts_with(&new.issuer()) && kind(&events) == ClientKind::Registered, "{url}");
    assert_ne!(parameter(&url, "redirect_uri"), None);
    Person::named("alice").browse_to_the_end(&url, Answer::Yes);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    assert!(new.is_active(&daemon.token(&mcp.name())));
    assert_eq!((old.seen().requests_to("/register"), new.seen().requests_to("/register")), (1, 1));
    assert_eq!(old.seen().requests_to("/token"), 1, "the first code only");
}

#[test]
fn a_step_up_asks_for_both_and_a_server_that_is_never_content_is_not_asked_again() {
    let (rogue, room) = (rogue(), Room::with_config(""));
    let mcp = McpServer::start(&rogue.issuer());
    let daemon = room.start();
    room.log_in(&mcp.url()).ok();
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"mcp:write\"";
    let asked = daemon.call("POST", "/v1/token", &json!({ "resource": mcp.url(), "challenge": challenge }));
    let body = asked.json();
    assert_eq!((asked.status, &body["error"]), (403, &json!("insufficient_scope")));
    assert_eq!(body["mcp"]["data"]["scopes"], json!(["mcp:read", "mcp:write"]));
    let step_up = json!({ "provider": mcp.url(), "challenge": challenge });
    let mut login = daemon.start_login(&step_up);
    let (_, url) = to_the_page(&mut login);
    assert_eq!(parameter(&url, "scope").as_deref(), Some("mcp:read mcp:write"));
    Person::named("alice").browse_to_the_end(&url, Answer::Yes);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    let mut authorizations = 1;
    for scope in ["mcp:write", "mcp:write", "a", "b", "c", "d"] {
        let again = json!({ "provider": mcp.url(), "challenge": format!("Bearer scope=\"{scope}\"") });
        let mut connection = daemon.connect();
        connection.send("POST", "/v1/logins", &[], &again.to_string()).unwrap();
        if connection.status().unwrap() == 200 {
            authorizations += 1;
            continue;
        }
        let refused = daemon.call("POST", "/v1/logins", &again);
        assert_eq!(refused.status, 429, "{}", refused.body);
        assert!(refused.json()["hint"].as_str().unwrap().starts_with(&format!("mcp-authctl login {} --scope '", mcp.name())));
    }
    assert_eq!(authorizations, 3, "programs lead a person to the page three times at most");
}

#[test]
fn what_a_hostile_server_says_opens_no_page_and_reaches_no_private_network() {
    let (rogue, room) = (rogue(), Room::with_config(""));
    let daemon = room.start();
    type Change = dyn Fn(&mut Value);
    let changes: [(&Change, &str); 5] = [
        (&|metadata| metadata["resource"] = json!("https://evil.example/mcp"), "its metadata is that of https://evil.example/mcp"),
        (&|metadata| metadata["resource"] = json!("http://127.0.0.1:1/mcp"), "its metadata is that of"),
        (
            &|metadata| metadata["authorization_servers"] = json!(["https://10.0.0.1"]),
            "10.0.0.1 is refused: it leads into a private network",
        ),
        (&|metadata| metadata["authorization_servers"] = json!(["https://[fd00::1]/"]), "it leads into a private network"),
        (
            &|metadata| metadata["authorization_servers"] = json!(["http://169.254.169.254/"]),
            "names no authorization server that may be used",
        ),
    ];
    for (change, expected) in changes {
        let mcp = McpServer::start(&rogue.issuer());
        mcp.describe(change);
        let (code, sentence, hint) = failure(&daemon, &json!({ "provider": mcp.url() }));
        assert!(code == "conflict" && sentence.contains(expected) && !hint.is_empty(), "{expected}: {code} {sentence} ({hint})");
    }
    assert_eq!(rogue.seen().requests.len(), 0, "nobody was asked for anything");
    let mcp = McpServer::start(&rogue.issuer());
    for (path, edit, expected) in [
        ("/.well-known/oauth-authorization-server", json!({ "issuer": "https://evil.example" }), "is that of issuer"),
        ("/.well-known/oauth-authorization-server", json!({ "code_challenge_methods_supported": [] }), "S256"),
        ("/register", json!({ "redirect_uris": ["https://evil.example/cb"] }), "other redirect URIs"),
        ("/register", json!({ "client_id": "a\u{1b}[31m" }), "control character"),
        ("/register", json!({ "client_secret": "s", "client_secret_expires_at": 1 }), "has expired already"),
        ("/register", json!({ "client_name": "x".repeat(10_000_000) }), "larger than 256 KiB"),
    ] {
        let changes = edit.as_object().unwrap().clone();
        rogue.plan(Plan::edited(move |body| body.as_object_mut().unwrap().extend(changes.clone())).path(path).times(1));
        let (_, sentence, hint) = failure(&daemon, &json!({ "provider": mcp.url() }));
        assert!(sentence.contains(expected) && !hint.is_empty(), "{expected}: {sentence} ({hint})");
        rogue.behave();
    }
    assert_eq!((rogue.seen().requests_to("/authorize"), rogue.seen().requests_to("/token")), (0, 0));
}

#[test]
fn the_answer_of_another_server_is_never_exchanged() {
    let (honest, evil, room) = (rogue(), rogue(), Room::with_config(""));
    let mcp = McpServer::start(&honest.issuer());
    let daemon = room.start();
    for iss in [None, Some(evil.issuer()), Some(format!("{}/", honest.issuer())), Some(honest.issuer().to_uppercase())] {
        let mut login = daemon.start_login(&json!({ "provider": mcp.url() }));
        let (_, url) = to_the_page(&mut login);
        let mut redirect = url::Url::parse(&parameter(&url, "redirect_uri").unwrap()).unwrap();
        redirect.query_pairs_mut().append_pair("code", "zQaC9qz.1.zQaC9qz").append_pair("state", &parameter(&url, "state").unwrap());
        if let Some(iss) = &iss {
            redirect.query_pairs_mut().append_pair("iss", iss);
        }
        assert_eq!(get(&redirect, &[]).status, 400, "{iss:?}");
        assert!(matches!(login.last(), LoginEvent::Failed { .. }));
    }
    assert_eq!((honest.seen().requests_to("/token"), evil.seen().requests_to("/token")), (0, 0));
}

#[test]
fn a_client_that_was_registered_by_hand_is_shown_and_kept_with_its_secret() {
    let server = Server::with_lifetime(300);
    let mcp = McpServer::start(server.issuer());
    let room = Room::with_config("");
    let daemon = room.start();
    let request = json!({ "provider": mcp.url(), "name": "mine", "client_id": "basic", "client_secret": mcp_auth_tests::CLIENT_SECRET });
    let mut login = daemon.start_login(&request);
    let (events, url) = to_the_page(&mut login);
    assert_eq!((kind(&events), parameter(&url, "client_id").as_deref()), (ClientKind::Given, Some("basic")));
    Person::named("alice").browse_to_the_end(&url, Answer::Yes);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    daemon.stop();
    let daemon = room.start();
    let token = daemon.token("mine");
    room.ctl(&["refresh", "mine"]).ok();
    assert_ne!(daemon.token("mine"), token, "the secret was kept");
    let mut login = daemon.start_login(&json!({ "provider": "mine" }));
    assert_eq!(kind(&to_the_page(&mut login).0), ClientKind::Given);
}

#[test]
fn the_doctor_asks_a_server_that_is_known_by_its_url_alone() {
    let (rogue, room) = (rogue(), Room::with_config(""));
    let (well, ill) = (McpServer::start(&rogue.issuer()), McpServer::start(&rogue.issuer()));
    let daemon = room.start();
    for mcp in [&well, &ill] {
        room.log_in(&mcp.url()).ok();
    }
    ill.describe(|metadata| metadata["resource"] = json!("https://evil.example/mcp"));
    let reaches = daemon.show("/v1/doctor");
    let of = |mcp: &McpServer| reaches.as_array().unwrap().iter().find(|reach| reach["provider"] == mcp.name()).unwrap().clone();
    assert_eq!((&of(&well)["host"], &of(&well)["error"]), (&json!("127.0.0.1"), &json!(null)), "{reaches}");
    assert!(of(&ill)["error"].as_str().unwrap().contains("its metadata is that of https://evil.example/mcp"), "{reaches}");
}

#[test]
fn urls_and_names_that_cannot_be_meant_are_refused_with_the_way_out() {
    let (rogue, room) = (rogue(), Room::with_config(""));
    let mcp = McpServer::start(&rogue.issuer());
    let daemon = room.start();
    room.log_in(&mcp.url()).ok();
    let other = McpServer::start(&rogue.issuer());
    for (request, status, said) in [
        (json!({ "provider": "http://mcp.example/mcp" }), 400, "only https is allowed"),
        (json!({ "provider": "https://u:p@mcp.example/mcp" }), 400, "must not hold a user name"),
        (json!({ "provider": "https://mcp.example/#x" }), 400, "must not have a fragment"),
        (json!({ "provider": other.url(), "name": "github" }), 409, "`github` stands for another server"),
        (json!({ "provider": other.url(), "name": mcp.name() }), 409, "stands for another server"),
        (json!({ "provider": other.url(), "name": "../x" }), 400, "is not a name"),
        (json!({ "provider": other.url(), "client_secret": "s" }), 400, "only with its client id"),
        (json!({ "provider": other.url(), "client_metadata_url": "http://doc.example/c.json" }), 400, "is not an https URL"),
        (json!({ "provider": "github", "client_id": "x" }), 400, "with the URL of a remote server only"),
    ] {
        let answer = daemon.call("POST", "/v1/logins", &request);
        let body = answer.json();
        assert_eq!(answer.status, status, "{request}: {body}");
        assert!(body["error_description"].as_str().unwrap().contains(said) && body["hint"].is_string(), "{request}: {body}");
    }
    assert_eq!(
        daemon.call("POST", "/v1/token", &json!({ "resource": other.url() })).json()["hint"],
        json!(format!("mcp-authctl login {}", other.url()))
    );
}

//! Logging in: by browser, by pasted URL, and every way in which it does not work. After each failure nothing is lost.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::{Answer, Daemon, Person, Room, Running, Server, chromium, kept_folder, node, provider_table, source_folder};
use rustix::process::Signal;
use serde_json::json;

/// The authorization URL among the lines that `mcp-authctl login` prints.
fn printed_url(login: &mut Running, server: &Server) -> String {
    let start = format!("{}/auth?", server.issuer());
    login.wait_for("the authorization URL", |said| {
        let from = &said[said.find(&start)?..];
        from.find(char::is_whitespace).map(|end| from[..end].to_owned())
    })
}

fn no_grants(daemon: &Daemon<'_>) {
    assert_eq!(daemon.show("/v1/status")["grants"], 0);
}

#[test]
fn a_person_logs_in_with_a_browser_and_sees_that_the_tab_can_be_closed() {
    chromium();
    node();
    let server = Server::with_lifetime(60);
    let mut room = Room::at(&server);
    let picture = kept_folder("pictures").join("login.png");
    let _ = std::fs::remove_file(&picture);
    room.set("BROWSER", source_folder().join("oidc-provider/browser").to_str().unwrap());
    room.set("SCREENSHOT", picture.to_str().unwrap());
    let daemon = room.start();
    let output = room.ctl(&["login", "test"]).ok();
    assert!(output.stderr.contains("alice") || output.stdout.contains("alice"), "who logged in is shown: {output:?}");
    assert!(server.is_active(&daemon.token("test")));
    let size = mcp_auth_tests::wait_until("the picture of the end page", std::time::Duration::from_secs(15), || {
        std::fs::metadata(&picture).ok().map(|picture| picture.len()).filter(|size| *size > 1000)
    });
    assert!(size > 1000);
}

#[test]
fn a_redirect_url_that_is_pasted_logs_in_as_well() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    let mut login = room.ctl_spawn(&["login", "test", "--no-browser"]);
    let url = printed_url(&mut login, &server);
    let redirect = Person::named("alice").browse(&url, Answer::Yes);
    login.type_line(redirect.as_str());
    login.wait().ok();
    assert!(server.is_active(&daemon.token("test")));
}

#[test]
fn a_pasted_url_that_is_not_the_redirect_changes_nothing() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    let mut login = daemon.start_login(&json!({ "provider": "test" }));
    let (id, _) = login.started();
    let url = login.wait_for_url();
    let redirect = Person::named("alice").browse(&url, Answer::Yes);
    let mut wrong = redirect.clone();
    wrong.query_pairs_mut().clear().extend_pairs([("code", "zQaC9qz-x-zQaC9qz"), ("state", "another"), ("iss", server.issuer())]);
    for text in [wrong.as_str(), "http://127.0.0.1:1/callback", "no url at all", ""] {
        let answer = daemon.call("POST", &format!("/v1/logins/{id}/redirect"), &json!({ "url": text }));
        assert_eq!(answer.status, 400, "{text}: {}", answer.body);
    }
    let answer = daemon.call("POST", &format!("/v1/logins/{id}/redirect"), &json!({ "url": redirect.as_str() }));
    assert!(answer.status < 300, "{}", answer.body);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
}

#[test]
fn a_wrong_request_to_the_listener_changes_nothing() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    let mut login = daemon.start_login(&json!({ "provider": "test" }));
    let url = login.wait_for_url();
    let redirect = Person::named("alice").browse(&url, Answer::Yes);
    let state = redirect.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    for (path, query) in [("/callback", "code=x&state=wrong"), ("/callback", "error=access_denied"), ("/other", ""), ("/callback", "")] {
        let mut wrong = redirect.clone();
        wrong.set_path(path);
        wrong.set_query(Some(query));
        let answer = mcp_auth_tests::get(&wrong, &[]);
        assert!(answer.status >= 400, "{wrong}: {}", answer.status);
    }
    let mut rebound = redirect.clone();
    rebound.set_query(Some(&format!("code=x&state={state}&iss=http://evil.example")));
    mcp_auth_tests::get(&rebound, &[("host", "evil.example")]);
    let end = mcp_auth_tests::get(&redirect, &[]);
    assert_eq!(end.status, 200);
    assert!(!end.body.contains(&state) && !end.body.contains("zQaC9qz"), "the end page reflects nothing");
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
}

#[test]
fn a_person_who_says_no_is_told_so_and_nothing_is_kept() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    let mut login = room.ctl_spawn(&["login", "test", "--no-browser"]);
    let url = printed_url(&mut login, &server);
    Person::named("alice").browse_to_the_end(&url, Answer::No);
    login.wait().fails_with(1);
    no_grants(&daemon);
}

#[test]
fn a_login_that_fails_leaves_the_grant_that_was_there() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let before = daemon.token("test");
    let mut login = daemon.start_login(&json!({ "provider": "test" }));
    let url = login.wait_for_url();
    Person::named("alice").browse_to_the_end(&url, Answer::No);
    assert!(matches!(login.last(), LoginEvent::Failed { .. }));
    assert_eq!(daemon.token("test"), before);
}

#[test]
fn a_client_id_that_the_provider_does_not_know_fails_at_the_exchange_with_a_hint() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    let mut login = room.ctl_spawn(&["login", "test", "--no-browser"]);
    let url = printed_url(&mut login, &server);
    let redirect = Person::named("alice").browse(&url, Answer::Yes);
    server.tell("answer", &json!({ "status": 401, "times": 1, "body": { "error": "invalid_client" } }));
    login.type_line(redirect.as_str());
    login.wait().fails_with(1).says("invalid_client");
    no_grants(&daemon);
}

#[test]
fn a_wrong_client_id_ends_with_ctrl_c_after_the_provider_refused_it_in_the_browser() {
    let server = Server::with_lifetime(60);
    let config = provider_table("test", &server, "").replace("\"native\"", "\"nobody\"");
    let room = Room::with_config(&config);
    let daemon = room.start();
    let mut login = room.ctl_spawn(&["login", "test", "--no-browser"]);
    let url = printed_url(&mut login, &server);
    let page = mcp_auth_tests::get(&url.parse().unwrap(), &[]);
    assert_eq!(page.status, 400, "the provider refuses an unknown client without a redirect");
    login.signal(Signal::INT);
    assert_eq!(login.wait().code, 130);
    no_grants(&daemon);
}

#[test]
fn a_callback_port_that_is_taken_is_named() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let _daemon = room.start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    room.ctl(&["login", "test", "--no-browser", "--callback-port", &port]).fails_with(1).says(&port);
}

#[test]
fn a_provider_that_is_down_is_exit_code_5() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    for mode in ["closed", "503", "reset"] {
        server.tell("down", &json!({ "on": true, "mode": mode }));
        room.ctl(&["login", "test", "--no-browser"]).fails_with(5);
        server.tell("down", &json!({ "on": false }));
    }
    no_grants(&daemon);
    daemon.log_in("test", "alice");
}

#[test]
fn a_portal_page_instead_of_metadata_is_said_in_words() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    server.tell("html", &json!({ "path": "*" }));
    let output = room.ctl(&["login", "test", "--no-browser"]).fails_with(5);
    assert!(!output.stderr.contains("<html>"), "the page itself is not shown: {output:?}");
    no_grants(&daemon);
}

#[test]
fn a_portal_page_or_an_error_with_status_200_instead_of_tokens_fails_the_login() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    for fault in ["html", "answer-200-error"] {
        server.tell(fault, &json!({ "times": 1 }));
        let mut login = daemon.start_login(&json!({ "provider": "test" }));
        let url = login.wait_for_url();
        Person::named("alice").browse_to_the_end(&url, Answer::Yes);
        match login.last() {
            LoginEvent::Failed { error } => assert!(error.hint.is_some(), "{fault}: {error:?}"),
            other => panic!("{fault}: {other:?}"),
        }
    }
    no_grants(&daemon);
}

#[test]
fn two_who_ask_for_the_same_login_share_it() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    let mut first = daemon.start_login(&json!({ "provider": "test", "browser": true }));
    let mut second = daemon.start_login(&json!({ "provider": "test", "browser": true }));
    let ((first_id, first_joined), (second_id, second_joined)) = (first.started(), second.started());
    assert_eq!((first_joined, second_joined, first_id), (false, true, second_id));
    let url = first.wait_for_url();
    assert_eq!(second.wait_for_url(), url);
    Person::named("alice").browse_to_the_end(&url, Answer::Yes);
    assert!(matches!(first.last(), LoginEvent::Done { .. }) && matches!(second.last(), LoginEvent::Done { .. }));
    assert_eq!(server.counters().token["authorization_code"].requests, 1);
}

#[test]
fn ctrl_c_cancels_a_login_and_closes_its_listener() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    let mut login = room.ctl_spawn(&["login", "test", "--no-browser"]);
    let url = printed_url(&mut login, &server);
    login.signal(Signal::INT);
    assert_eq!(login.wait().code, 130);
    let redirect = Person::named("alice").browse(&url, Answer::Yes);
    let address = redirect.socket_addrs(|| None).unwrap()[0];
    mcp_auth_tests::wait_until("the listener's end", std::time::Duration::from_secs(5), || std::net::TcpStream::connect(address).err());
    no_grants(&daemon);
}

#[test]
fn two_accounts_of_one_provider_live_side_by_side() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.log_in("test:work", "bob");
    assert_eq!(server.userinfo(&daemon.token("test")).json()["sub"], "alice");
    assert_eq!(server.userinfo(&daemon.token("test:work")).json()["sub"], "bob");
    let status = room.ctl(&["status", "--json"]).ok();
    assert!(status.stdout.contains("alice") && status.stdout.contains("test:work"), "{status:?}");
}

#[test]
fn logins_that_nobody_finishes_are_limited_and_leave_room_again_when_they_end() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    let ask = |number: u32| json!({ "provider": format!("test:n{number}"), "interactive": false });
    let ids: Vec<String> = (0..32)
        .map(|number| {
            let mut login = daemon.start_login(&ask(number));
            login.wait_for_url();
            login.started().0
        })
        .collect();
    let refused = daemon.call("POST", "/v1/logins", &ask(32));
    assert_eq!((refused.status, refused.json()["error"].as_str()), (429, Some("too_many_requests")), "{refused:?}");
    let (joined, is_joined) = daemon.start_login(&ask(7)).started();
    assert!(is_joined && joined == ids[7], "the same login is joined");
    assert_eq!(daemon.call("DELETE", &format!("/v1/logins/{}", ids[0]), &json!({})).status, 200);
    daemon.log_in("test", "alice");
}

#[test]
fn an_exchange_that_was_begun_by_hand_is_finished_with_code_and_verifier_from_stdin() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    let begin = || {
        let pkce = room.ctl(&["pkce", "--json"]).ok().json();
        let redirect_uri = "http://127.0.0.1:4711/callback";
        let mut url = server.url("/auth");
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", "native"),
            ("redirect_uri", redirect_uri),
            ("scope", "openid offline_access"),
            ("prompt", "consent"),
            ("code_challenge", pkce["code_challenge"].as_str().unwrap()),
            ("code_challenge_method", "S256"),
        ]);
        let redirect = Person::named("alice").browse(url.as_str(), Answer::Yes);
        let code = redirect.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
        (code, pkce["code_verifier"].as_str().unwrap().to_owned(), redirect_uri)
    };
    let (code, verifier, redirect_uri) = begin();
    let by_hand = ["login", "test", "--code", "-", "--verifier", "-", "--redirect-uri", redirect_uri];
    room.ctl_typing(&by_hand, &format!("{code}\n{verifier}")).ok().says("logged in to test");
    assert!(server.is_active(&daemon.token("test")));

    let (_, verifier, _) = begin();
    room.ctl_typing(&by_hand, &format!("{code}\n{verifier}")).fails_with(1).says("rejected the grant");
    room.ctl_typing(&by_hand, "a code\ntoo-short").fails_with(1).says("43 to 128");
    assert!(server.is_active(&daemon.token("test")), "the grant that was there is kept");
}

#[test]
fn a_first_login_keeps_the_client_id_that_it_is_given_and_says_how_to_get_one() {
    let server = Server::with_lifetime(60);
    let config = provider_table("test", &server, "").replace("client_id = \"native\"\n", "");
    let room = Room::with_config(&config);
    let daemon = room.start();
    let refused = room.ctl(&["login", "test:work"]).fails_with(1);
    assert!(refused.stderr.contains("mcp-authctl login test:work --client-id ID"), "{refused:?}");
    assert!(refused.stderr.contains("register one with the redirect URI http://127.0.0.1/callback"), "{refused:?}");
    let mut login = room.ctl_spawn(&["login", "test:work", "--client-id", "native", "--no-browser"]);
    let url = printed_url(&mut login, &server);
    login.type_line(Person::named("alice").browse(&url, Answer::Yes).as_str());
    login.wait().ok();
    assert!(server.is_active(&daemon.token("test:work")));
    assert!(std::fs::read_to_string(room.path("config.toml")).unwrap().contains("client_id = \"native\""));
    room.ctl(&["login", "test", "--client-id", "another"]).fails_with(1).says("another client id");
}

#[test]
fn a_person_may_leave_out_the_scopes_that_make_tokens_expire() {
    let server = Server::with_lifetime(60);
    let config = provider_table("test", &server, "refresh_scopes = [\"offline_access\"]").replace(", \"offline_access\"]\n", "]\n");
    let room = Room::with_config(&config);
    let daemon = room.start();
    let scopes = |more: serde_json::Value| {
        let url: url::Url = daemon.start_login(&more).wait_for_url().parse().unwrap();
        url.query_pairs().find(|(name, _)| name == "scope").unwrap().1.into_owned()
    };
    assert_eq!(scopes(json!({ "provider": "test" })), "openid offline_access");
    assert_eq!(scopes(json!({ "provider": "test", "without_refresh_scopes": true })), "openid");
    room.write_config(&provider_table("test", &server, ""));
    room.ctl(&["reload"]).ok();
    room.ctl(&["login", "test", "--no-expiring"]).fails_with(1).says("no scopes that make its tokens expire");
}

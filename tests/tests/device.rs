//! The device flow (RFC 8628) at the real authorization server: a code that is typed at a page, here by a person without a browser.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::{Person, Room, Server, wait_until};
use serde_json::json;

#[test]
fn a_device_login_ends_with_a_grant_that_is_refreshed() {
    let server = Server::with_lifetime(5);
    let room = Room::at(&server);
    let daemon = room.start();
    let mut login = daemon.start_login(&json!({ "provider": "test", "flow": "device" }));
    let page = loop {
        match login.next_event() {
            Some(LoginEvent::EnterCode { verification_uri, verification_uri_complete, user_code, .. }) => {
                assert!(verification_uri.starts_with(server.issuer()), "{verification_uri}");
                let complete = verification_uri_complete.unwrap();
                assert!(complete.contains(&user_code), "{complete}");
                break complete;
            }
            Some(LoginEvent::Started { .. }) => {}
            other => panic!("no code to enter: {other:?}"),
        }
    };
    Person::named("alice").enter_code(&page);
    assert!(matches!(login.last(), LoginEvent::Done { .. }), "the daemon said: {}", daemon.running.said());
    assert!(server.is_active(&daemon.token("test")));
    wait_until("a refresh", Duration::from_secs(20), || (server.counters().refreshes().ok >= 1).then_some(()));
    assert!(server.is_active(&daemon.token("test")));
}

#[test]
fn the_command_shows_page_and_code_and_ends_when_the_person_has_finished() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    // Without a display the device flow is what suits, and nobody asked for it.
    let mut ctl = room.ctl_spawn(&["login", "test"]);
    let (page, code) = ctl.wait_for("the page and the code", |said| {
        let page = said.lines().find(|line| line.starts_with("http://"))?.to_owned();
        let code = said.lines().find_map(|line| line.strip_prefix("and type this code: "))?.split_whitespace().next()?.to_owned();
        Some((page, code))
    });
    Person::named("alice").enter_code(&format!("{page}?user_code={code}"));
    let output = ctl.wait().ok();
    assert!(output.stderr.contains("logged in to test"), "{output:?}");
    assert!(server.is_active(&daemon.token("test")));
}

//! Accounts: several of one provider side by side, one that the bare name stands for, and another one that logs in where a
//! grant holds somebody's login already. Nobody's tokens change hands unasked, and none are left behind.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::{Answer, Daemon, HttpAnswer, LoginStream, Person, Room, Server, wait_until};
use serde_json::{Value, json};

/// Who a token belongs to, as the server says.
fn owner(server: &Server, token: &str) -> Value {
    server.userinfo(token).json()["sub"].clone()
}

/// A login up to the point where `person` has said yes.
fn browsed(daemon: &Daemon<'_>, request: &Value, person: &str) -> LoginStream {
    let mut login = daemon.start_login(request);
    let url = login.wait_for_url();
    Person::named(person).browse_to_the_end(&url, Answer::Yes);
    login
}

/// Waits for the question whose login it shall be, and gives the login's id.
fn asked(login: &mut LoginStream) -> String {
    let id = login.started().0;
    loop {
        match login.next_event() {
            Some(LoginEvent::OtherAccount { held, new, .. }) => {
                assert_eq!((&*held, &*new), ("alice", "bob"));
                return id;
            }
            Some(LoginEvent::Done { .. } | LoginEvent::Failed { .. }) | None => panic!("nobody was asked"),
            Some(_) => {}
        }
    }
}

fn decide(daemon: &Daemon<'_>, id: &str, decision: &Value) -> HttpAnswer {
    daemon.call("POST", &format!("/v1/logins/{id}/decision"), decision)
}

/// Waits until the server has heard of so many revocations.
fn revoked(server: &Server, count: usize) {
    wait_until("revocations", Duration::from_secs(10), || (server.counters().revocations.len() >= count).then_some(()));
}

fn failed(login: &mut LoginStream) -> mcp_auth_proto::ErrorBody {
    match login.last() {
        LoginEvent::Failed { error } => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_account_replaces_nothing_where_nobody_can_be_asked_and_its_tokens_are_revoked() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test:me", "alice");
    let alice = daemon.token("test:me");
    let mut login = browsed(&daemon, &json!({ "provider": "test:me" }), "bob");
    let error = failed(&mut login);
    assert!(error.error_description.contains("alice") && error.error_description.contains("bob"), "{error:?}");
    let hint = error.hint.unwrap();
    assert!(hint.contains("mcp-authctl login test:me --replace") && hint.contains("mcp-authctl login test:LABEL"), "{hint}");
    revoked(&server, 2);
    assert_eq!(server.counters().revocations, ["refresh_token", "access_token"], "bob's, and nothing else");
    assert_eq!(daemon.token("test:me"), alice);
    assert!(server.is_active(&alice));
    assert_eq!(daemon.show("/v1/status")["grants"], 1);
}

#[test]
fn a_login_that_says_replace_takes_the_place_and_the_old_tokens_are_revoked() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let alice = daemon.token("test");
    let mut login = browsed(&daemon, &json!({ "provider": "test", "replace": true }), "bob");
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    assert_eq!(owner(&server, &daemon.token("test")), "bob");
    wait_until("the end of alice's token", Duration::from_secs(10), || (!server.is_active(&alice)).then_some(()));
    assert!(server.is_active(&daemon.token("test")));
}

#[test]
fn a_person_decides_for_the_old_the_new_or_both() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let request = json!({ "provider": "test", "asks": true });

    let mut login = browsed(&daemon, &request, "bob");
    let id = asked(&mut login);
    assert_eq!(owner(&server, &daemon.token("test")), "alice", "served while the question stands");
    assert_eq!(decide(&daemon, &id, &json!({ "account": "Not A Label" })).status, 400);
    assert_eq!(decide(&daemon, &id, &json!({ "account": "bob", "replace": true })).status, 400);
    assert_eq!(decide(&daemon, &id, &json!({})).status, 200);
    failed(&mut login);
    revoked(&server, 2);
    assert_eq!(owner(&server, &daemon.token("test")), "alice");
    assert_eq!(decide(&daemon, &id, &json!({ "replace": true })).status, 404, "it is over");

    let mut login = browsed(&daemon, &request, "bob");
    let id = asked(&mut login);
    assert_eq!(decide(&daemon, &id, &json!({ "account": "work" })).status, 200);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    assert_eq!((owner(&server, &daemon.token("test")), owner(&server, &daemon.token("test:work"))), ("alice".into(), "bob".into()));

    let mut login = browsed(&daemon, &request, "bob");
    let id = asked(&mut login);
    assert_eq!(decide(&daemon, &id, &json!({ "replace": true })).status, 200);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    assert_eq!(owner(&server, &daemon.token("test")), "bob");
}

#[test]
fn a_yes_to_the_end_of_one_login_does_not_end_another_that_came_meanwhile() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let mut login = browsed(&daemon, &json!({ "provider": "test", "asks": true }), "bob");
    let id = asked(&mut login);
    let other = json!({ "provider": "test", "scopes": ["openid", "mcp:read"], "replace": true });
    assert!(matches!(browsed(&daemon, &other, "carol").last(), LoginEvent::Done { .. }));
    assert_eq!(decide(&daemon, &id, &json!({ "replace": true })).status, 409);
    assert_eq!(owner(&server, &daemon.token("test")), "carol");
    let Some(LoginEvent::OtherAccount { held, new, .. }) = login.next_event() else { panic!("nobody is asked again") };
    assert_eq!((&*held, &*new), ("carol", "bob"));
    assert_eq!(decide(&daemon, &id, &json!({ "replace": true })).status, 200);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    assert_eq!(owner(&server, &daemon.token("test")), "bob");
}

#[test]
fn the_login_that_was_replaced_is_revoked_only_once_the_new_one_is_on_the_disk() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let (vault, away) = (room.path("state/vault"), room.path("state/away"));
    let mut login = daemon.start_login(&json!({ "provider": "test", "replace": true }));
    let url = login.wait_for_url();
    std::fs::rename(&vault, &away).unwrap();
    Person::named("bob").browse_to_the_end(&url, Answer::Yes);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    assert_eq!(daemon.show("/v1/grants/test")["not_durable"], true);
    assert_eq!(server.counters().revocations.len(), 0, "a crash would cost both logins");
    std::fs::rename(&away, &vault).unwrap();
    revoked(&server, 2);
    assert_eq!(daemon.show("/v1/grants/test")["not_durable"], false);
}

#[test]
fn a_label_that_holds_somebody_else_is_no_answer() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.log_in("test:third", "carol");
    let mut login = browsed(&daemon, &json!({ "provider": "test", "asks": true }), "bob");
    let id = asked(&mut login);
    let refused = decide(&daemon, &id, &json!({ "account": "third" }));
    assert_eq!((refused.status, refused.json()["error"].as_str()), (409, Some("conflict")), "{refused:?}");
    assert_eq!(decide(&daemon, &id, &json!({ "account": "free" })).status, 200);
    assert!(matches!(login.last(), LoginEvent::Done { .. }));
    assert_eq!(owner(&server, &daemon.token("test:third")), "carol");
}

#[test]
fn whoever_was_asked_and_goes_away_has_said_no() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let mut login = browsed(&daemon, &json!({ "provider": "test", "asks": true }), "bob");
    asked(&mut login);
    drop(login);
    revoked(&server, 2);
    assert_eq!(owner(&server, &daemon.token("test")), "alice");
}

#[test]
fn tokens_of_an_account_that_another_grant_holds_are_not_revoked() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.log_in("test:work", "bob");
    let bob = daemon.token("test:work");
    let mut login = browsed(&daemon, &json!({ "provider": "test" }), "bob");
    failed(&mut login);
    // At many servers a revocation ends every token of that person for the client.
    room.ctl(&["logout", "test"]).ok();
    assert_eq!(server.counters().revocations, ["refresh_token", "access_token"], "alice's alone");
    assert!(server.is_active(&bob));
}

#[test]
fn the_same_account_renews_its_grant_and_the_server_is_told_who() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    let hint = |login: &mut LoginStream| {
        let url: url::Url = login.wait_for_url().parse().unwrap();
        url.query_pairs().find(|(name, _)| name == "login_hint").map(|(_, who)| who.into_owned())
    };
    let mut login = daemon.start_login(&json!({ "provider": "test" }));
    assert_eq!(hint(&mut login), None);
    drop(login);
    daemon.log_in("test", "alice");
    let mut login = daemon.start_login(&json!({ "provider": "test" }));
    assert_eq!(hint(&mut login).as_deref(), Some("alice"));
    drop(login);
    daemon.log_in("test", "alice");
    for (more, expected) in [(json!({ "replace": true }), None), (json!({ "login_hint": "carol" }), Some("carol"))] {
        let mut request = json!({ "provider": "test", "scopes": ["openid", more.to_string().len().to_string()] });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(hint(&mut daemon.start_login(&request)).as_deref(), expected, "{request}");
    }
    let mut login = browsed(&daemon, &json!({ "provider": "test:other" }), "alice");
    match login.last() {
        LoginEvent::Done { same_account, .. } => assert_eq!(same_account, ["test".parse().unwrap()]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bare_name_that_could_be_several_grants_lists_them_until_one_is_chosen_for_good() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test:me", "alice");
    daemon.log_in("test:work", "bob");
    room.ctl(&["token", "test"]).fails_with(1).says("test:me, test:work").says("mcp-authctl use test:me");
    assert_eq!(daemon.ask("test").json()["choices"], json!(["test:me", "test:work"]));

    room.ctl(&["use", "test:work"]).ok();
    assert_eq!(owner(&server, room.ctl(&["token", "test"]).ok().stdout.trim()), "bob");
    assert!(room.ctl(&["status"]).ok().stdout.contains("test:work (default)"));
    assert_eq!(daemon.show("/v1/grants/test")["name"], "test:work");
    assert_eq!(
        daemon.start_login(&json!({ "provider": "test" })).next_event().map(|event| match event {
            LoginEvent::Started { grant, .. } => grant.to_string(),
            other => panic!("{other:?}"),
        }),
        Some("test:work".into()),
        "a login renews what the name stands for"
    );
    room.ctl(&["logout", "test"]).fails_with(1);

    assert_eq!(daemon.stop().code, 0);
    let daemon = room.start();
    assert_eq!(owner(&server, &daemon.token("test")), "bob", "the choice outlives the daemon");
    room.ctl(&["use", "test"]).ok();
    assert_eq!(daemon.refusal("test"), "ambiguous_grant");
    room.ctl(&["use", "test:nobody"]).fails_with(3);
}

#[test]
fn logging_out_revokes_the_tokens_of_that_account_alone() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test:me", "alice");
    daemon.log_in("test:work", "bob");
    let (alice, bob) = (daemon.token("test:me"), daemon.token("test:work"));
    room.ctl(&["logout", "test:work"]).ok();
    assert_eq!(server.counters().revocations, ["refresh_token", "access_token"]);
    assert_eq!((server.is_active(&alice), server.is_active(&bob)), (true, false));
    room.ctl(&["logout", "test:me"]).ok();
    assert_eq!((server.is_active(&alice), server.counters().revocations.len()), (false, 4));
}

#[test]
fn the_command_without_a_terminal_keeps_the_account_and_says_what_helps() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test:me", "alice");
    let login = |arguments: &[&str]| {
        let mut login = room.ctl_spawn(arguments);
        let start = format!("{}/auth?", server.issuer());
        let url = login.wait_for("the URL", |said| {
            let from = &said[said.find(&start)?..];
            from.find(char::is_whitespace).map(|end| from[..end].to_owned())
        });
        let redirect = Person::named("bob").browse(&url, Answer::Yes);
        login.type_line(redirect.as_str());
        login.wait()
    };
    login(&["login", "test:me", "--no-browser"]).fails_with(1).says("mcp-authctl login test:me --replace");
    assert_eq!(owner(&server, &daemon.token("test:me")), "alice");
    login(&["login", "test:me", "--no-browser", "--replace"]).ok();
    assert_eq!(owner(&server, &daemon.token("test:me")), "bob");
}

#[test]
fn a_token_of_another_account_replaces_none_unasked() {
    let server = Server::with_lifetime(300);
    let room =
        Room::with_config(&mcp_auth_tests::provider_table("test", &server, &format!("userinfo_endpoint = \"{}\"", server.url("/me"))));
    let daemon = room.start();
    daemon.log_in("test:a", "alice");
    daemon.log_in("test:b", "bob");
    let (alice, bob) = (daemon.token("test:a"), daemon.token("test:b"));
    room.ctl_typing(&["add-token", "test:pat"], &alice).ok();
    room.ctl_typing(&["add-token", "test:pat"], &bob).fails_with(1).says("mcp-authctl add-token test:pat --replace");
    assert_eq!(daemon.token("test:pat"), alice);
    room.ctl_typing(&["add-token", "test:pat"], &alice).ok();
    room.ctl_typing(&["add-token", "test:pat", "--replace"], &bob).ok();
    assert_eq!(daemon.token("test:pat"), bob);
}

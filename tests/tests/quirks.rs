//! Servers that differ from the RFCs, one quirk at a time. Each server *insists* on its quirk and refuses everything else,
//! so that only a client that was told of it logs in, and refreshes, and one that was not is refused.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::time::Duration;

use mcp_auth_tests::rogue::{Demands, Plan, Proof, Rogue, Rules, Verdict, Writing};
use mcp_auth_tests::{Answer, Daemon, Person, Proxy, Room, TlsFront, get, wait_until};
use serde_json::{Value, json};

const SECRET: &str = "zQcS9qz +/%&=\u{e9}:\" zQcS9qz";

fn rogue(demands: Demands) -> Rogue {
    Rogue::start(Rules { demands, ..Rules::strict(Duration::from_secs(300)) })
}

/// Stores the client secret, or the key, of `test`.
fn store(room: &Room, secret: &str) {
    room.ctl_typing(&["provider", "set-secret", "test"], secret).ok();
}

/// The client that was told: logs in, refreshes, and never met a demand with something else.
#[track_caller]
fn passes(rogue: &Rogue, room: &Room) {
    let daemon = room.start();
    room.log_in("test").ok();
    refreshes(rogue, room, &daemon);
}

#[track_caller]
fn refreshes(rogue: &Rogue, room: &Room, daemon: &Daemon<'_>) {
    let first = daemon.token("test");
    room.ctl(&["refresh", "test"]).ok();
    let second = daemon.token("test");
    assert!(first != second && rogue.is_active(&second), "the refreshed token is good");
    assert_eq!(rogue.seen().count(Verdict::Granted), 1);
    assert_eq!(rogue.seen().unmet, [""; 0]);
}

/// The client that was not told is refused, at the login or at the refresh: the demand is a real one.
#[track_caller]
fn fails(rogue: &Rogue, room: &Room) {
    let daemon = room.start();
    let mut login = daemon.start_login(&json!({ "provider": "test", "flow": "code" }));
    let page = get(&login.wait_for_url().parse().unwrap(), &[]);
    if let Some(redirect) = page.header("location") {
        get(&redirect.parse().unwrap(), &[]);
        if matches!(login.last(), mcp_auth_proto::LoginEvent::Done { .. }) {
            let refreshed = room.ctl(&["refresh", "test"]);
            assert_ne!(refreshed.code, 0, "{refreshed:?}");
        }
    }
    assert_ne!(rogue.seen().unmet, [""; 0], "nothing was insisted on");
}

/// With these lines under the provider it works, and without them it does not.
#[track_caller]
fn needs(demands: Demands, lines: &str) {
    for (lines, told) in [(lines, true), ("", false)] {
        let rogue = rogue(demands.clone());
        let room = Room::with_config(&rogue.endpoints_table("test", &lines.replace("{issuer}", &rogue.issuer())));
        if told { passes(&rogue, &room) } else { fails(&rogue, &room) }
    }
}

// ---- how the client proves itself ----

#[test]
fn a_secret_with_odd_characters_goes_form_encoded_by_basic() {
    let rogue = rogue(Demands { proof: Proof::Basic(SECRET.into()), ..Demands::default() });
    let room = Room::with_config(&rogue.endpoints_table("test", "client_auth = \"client_secret_basic\""));
    let daemon = room.start();
    store(&room, SECRET);
    room.log_in("test").ok();
    refreshes(&rogue, &room, &daemon);
}

#[test]
fn a_secret_goes_in_the_body_where_the_server_wants_it_there() {
    told_or_not(&Proof::Post(SECRET.into()), "client_auth = \"client_secret_post\"");
}

#[test]
fn a_public_client_sends_no_secret_though_one_is_stored() {
    told_or_not(&Proof::Public, "client_auth = \"none\"");
}

/// With a stored secret: these lines make the difference.
#[track_caller]
fn told_or_not(proof: &Proof, lines: &str) {
    for (lines, told) in [(lines, true), ("", false)] {
        let rogue = rogue(Demands { proof: proof.clone(), ..Demands::default() });
        let room = Room::with_config(&rogue.endpoints_table("test", lines));
        let daemon = room.start();
        store(&room, SECRET);
        let login = room.log_in("test");
        assert_eq!(login.code == 0, told, "{login:?}");
        if told {
            refreshes(&rogue, &room, &daemon);
        }
    }
}

// ---- what is asked for, and how ----

#[test]
fn no_challenge_is_sent_to_a_server_that_refuses_pkce() {
    needs(Demands { no_pkce: true, ..Demands::default() }, "pkce = \"none\"");
}

#[test]
fn scopes_are_joined_byte_for_byte_as_the_server_wants_them() {
    let scopes = "scopes = [\"mcp:read\", \"mcp:write\"]";
    for (separator, wanted) in [(",", "mcp%3Aread,mcp%3Awrite"), ("+", "mcp%3Aread+mcp%3Awrite"), (" ", "mcp%3Aread%20mcp%3Awrite")] {
        let rogue = rogue(Demands { scope: Some(wanted.into()), ..Demands::default() });
        let line = format!("request_scope_separator = \"{separator}\"");
        let table = rogue.endpoints_table("test", &line).replace("scopes = [\"mcp:read\"]", scopes);
        passes(&rogue, &Room::with_config(&table));
    }
    let rogue = rogue(Demands { scope: Some("mcp%3Aread,mcp%3Awrite".into()), ..Demands::default() });
    fails(&rogue, &Room::with_config(&rogue.endpoints_table("test", "").replace("scopes = [\"mcp:read\"]", scopes)));
}

#[test]
fn token_requests_are_json_where_the_server_wants_that() {
    needs(Demands { json: true, ..Demands::default() }, "token_request = \"json\"");
    let with_secret = Demands { json: true, proof: Proof::Post(SECRET.into()), ..Demands::default() };
    let rogue = rogue(with_secret);
    let room = Room::with_config(&rogue.endpoints_table("test", "token_request = \"json\"\nclient_auth = \"client_secret_post\""));
    let daemon = room.start();
    store(&room, SECRET);
    room.log_in("test").ok();
    refreshes(&rogue, &room, &daemon);
}

#[test]
fn further_parameters_go_along_with_the_code_and_with_refreshes() {
    let parameter = Some(("audience".to_owned(), "https://api.example/ v2".to_owned()));
    needs(Demands { parameter, ..Demands::default() }, "token_params = { audience = \"https://api.example/ v2\" }");
}

#[test]
fn refreshes_go_to_an_endpoint_of_their_own() {
    needs(Demands { own_refresh: true, ..Demands::default() }, "refresh_endpoint = \"{issuer}/refresh\"");
}

#[test]
fn a_grant_gets_no_tokens_once_its_refresh_endpoint_has_moved() {
    let rogue = rogue(Demands::default());
    let room = Room::at_rogue(&rogue);
    room.write_config(&rogue.endpoints_table("test", ""));
    let daemon = room.start();
    room.log_in("test").ok();
    room.write_config(&rogue.endpoints_table("test", &format!("refresh_endpoint = \"{}/refresh\"", rogue.issuer())));
    room.ctl(&["reload"]).ok();
    assert_eq!(daemon.refusal("test"), "login_required");
    room.write_config(&rogue.endpoints_table("test", ""));
    room.ctl(&["reload"]).ok();
    refreshes(&rogue, &room, &daemon);
}

#[test]
fn a_login_with_a_code_sends_its_scopes_under_the_name_that_the_server_knows() {
    for (line, told) in [("device_scope_parameter = \"scopes\"", true), ("", false)] {
        let rogue = rogue(Demands { device_scope: Some(("scopes".into(), "mcp:read".into())), ..Demands::default() });
        let more = format!("device_authorization_endpoint = \"{}/device\"\n{line}", rogue.issuer());
        let room = Room::with_config(&rogue.endpoints_table("test", &more));
        let daemon = room.start();
        let login = room.ctl(&["login", "test", "--device"]);
        assert_eq!(login.code == 0, told, "{login:?}");
        if told {
            assert!(login.stderr.contains("WDJB-MJHT"), "{login:?}");
            refreshes(&rogue, &room, &daemon);
        }
    }
}

#[test]
fn the_first_free_one_of_several_ports_waits_for_the_redirect() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = taken.local_addr().unwrap().port();
    let second = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let rogue = rogue(Demands::default());
    let room = Room::with_config(&rogue.endpoints_table("test", &format!("redirect_port = [{first}, {second}]")));
    let daemon = room.start();
    let mut login = daemon.start_login(&json!({ "provider": "test" }));
    let url = login.wait_for_url();
    assert!(url.contains(&format!("127.0.0.1%3A{second}%2Fcallback")), "{url}");
    let other = room.ctl(&["login", "test:other", "--no-browser"]).fails_with(1).says("all taken");
    assert!(other.stderr.contains(&first.to_string()) && other.stderr.contains(&second.to_string()), "{other:?}");
    Person::named("alice").browse_to_the_end(&url, Answer::Yes);
    assert!(matches!(login.last(), mcp_auth_proto::LoginEvent::Done { .. }));
    refreshes(&rogue, &room, &daemon);
}

// ---- what is answered ----

#[test]
fn tokens_in_a_member_of_the_answer_are_taken_and_those_beside_it_are_not() {
    let rogue = rogue(Demands { writing: Writing::Member("authed_user"), ..Demands::default() });
    let room = Room::with_config(&rogue.endpoints_table("test", "token_answer_member = \"authed_user\""));
    passes(&rogue, &room);
    let untold = self::rogue(Demands { writing: Writing::Member("authed_user"), ..Demands::default() });
    let room = Room::with_config(&untold.endpoints_table("test", ""));
    let daemon = room.start();
    room.log_in("test").ok();
    assert!(!untold.is_active(&daemon.token("test")), "without the key it is somebody else's token");
}

#[test]
fn answers_that_are_forms_need_no_key() {
    let rogue = rogue(Demands { writing: Writing::Form, ..Demands::default() });
    passes(&rogue, &Room::with_config(&rogue.endpoints_table("test", "")));
}

#[test]
fn an_error_with_status_200_fails_a_login_and_costs_no_grant_and_needs_no_key() {
    let rogue = rogue(Demands::default());
    let room = Room::with_config(&rogue.endpoints_table("test", ""));
    let daemon = room.start();
    for (error, words) in [
        (json!({ "ok": false, "error": "invalid_code" }), "invalid_code"),
        (json!({ "error": { "code": "bad_thing", "message": "the code is odd" } }), "the code is odd"),
    ] {
        rogue.plan(Plan::json(200, &error).times(1));
        let failed = room.log_in("test");
        assert!(failed.code != 0 && failed.stderr.contains(words), "{failed:?}");
    }
    room.log_in("test").ok();
    rogue.plan(Plan::json(200, &json!({ "ok": false, "error": "ratelimited" })).times(1));
    assert_ne!(room.ctl(&["refresh", "test"]).code, 0);
    assert!(rogue.is_active(&daemon.token("test")), "the token is served on");
}

#[test]
fn a_lifetime_that_no_answer_tells_is_the_configured_one() {
    let silent = || Rogue::start(Rules { expires_in: Value::Null, ..Rules::strict(Duration::from_secs(300)) });
    let expires = |lines: &str| {
        let rogue = silent();
        let room = Room::with_config(&rogue.endpoints_table("test", lines));
        let daemon = room.start();
        room.log_in("test").ok();
        let told = daemon.ask("test").json()["expires_in"].clone();
        if lines.contains("= 5") {
            wait_until("a refresh ahead of the end", Duration::from_secs(20), || (rogue.seen().count(Verdict::Granted) >= 1).then_some(()));
        }
        told
    };
    assert!(expires("default_lifetime = 5").as_u64().is_some_and(|seconds| seconds <= 5));
    assert_eq!(expires("default_lifetime = \"never\""), Value::Null);
    assert_eq!(expires(""), Value::Null);
}

// ---- how it is reached ----

#[test]
fn one_provider_has_a_proxy_and_an_authority_of_its_own() {
    let rogue = rogue(Demands::default());
    let port: u16 = rogue.issuer().rsplit(':').next().unwrap().parse().unwrap();
    let (front, proxy) = (TlsFront::of(port), Proxy::start());
    let host = format!("as.test:{}", front.port());
    let table = |more: &str| {
        let token = format!("token_endpoint = \"{}/token\"", rogue.issuer());
        rogue.endpoints_table("test", more).replace(&token, &format!("token_endpoint = \"https://{host}/token\""))
    };
    let (through, ca_file) = (format!("proxy = \"{}\"", proxy.url()), format!("ca_file = \"{}\"", front.ca_file().display()));
    let room = Room::with_config(&table(&format!("{through}\n{ca_file}")));
    let daemon = room.start();
    room.log_in("test").ok();
    refreshes(&rogue, &room, &daemon);
    assert_eq!(proxy.asked(), [host.clone(), host.clone()], "the name is the proxy's to resolve");

    // Another provider has neither; and where all others have a proxy, one may have none.
    room.write_config(&table(&through));
    room.ctl(&["reload"]).ok();
    let distrusted = room.log_in("test");
    assert!(distrusted.code == 5 && distrusted.stderr.contains("not trusted"), "{distrusted:?}");
    let asked = proxy.asked().len();
    room.write_config(&format!("[network]\n{through}\n{}", table(&format!("proxy = \"none\"\n{ca_file}"))));
    room.ctl(&["reload"]).ok();
    let direct = room.log_in("test");
    assert_eq!(direct.code, 5, "only the proxy knows that name: {direct:?}");
    assert_eq!(proxy.asked().len(), asked, "nothing went through the common proxy");
    room.write_config(&format!("[network]\n{through}\n{}", table(&ca_file)));
    room.ctl(&["reload"]).ok();
    room.log_in("test").ok();
    assert!(proxy.asked().len() > asked);
}

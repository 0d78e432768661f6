//! Our own issuer under attack: by hostile clients, web pages and other users of the machine.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_tests::issuer::{OwnIssuer, RESOURCE, claims, issuer_script, query};
use mcp_auth_tests::{AS_STRANGER, OWNER, Room, Running, chromium, get, post_form, require_root, run, wait_until};
use serde_json::{Value, json};
use url::Url;

const PATIENCE: Duration = Duration::from_secs(30);

fn room(lifetime: u64) -> (OwnIssuer, Room) {
    let issuer = OwnIssuer::somewhere();
    let room = Room::with_config(&issuer.config(lifetime));
    (issuer, room)
}

#[test]
fn a_code_is_used_once_by_whoever_knows_its_verifier() {
    let (issuer, room) = room(600);
    let _daemon = room.start();
    let code = issuer.code(&room, &[]);
    let tokens = issuer.exchange(&code, &[]).json();
    assert_eq!(issuer.exchange(&code, &[]).json()["error"], "invalid_grant", "a replay");
    assert_eq!(issuer.refresh(&tokens).json()["error"], "invalid_grant", "which ends what was got with the code");
    assert_eq!(issuer.userinfo(tokens["access_token"].as_str().unwrap()).status, 401);
    let other = "A".repeat(43);
    for (verifier, error) in [(Some(other.as_str()), "invalid_grant"), (Some("x"), "invalid_grant"), (None, "invalid_request")] {
        let code = issuer.code(&room, &[]);
        assert_eq!(issuer.exchange(&code, &[("code_verifier", verifier)]).json()["error"], error, "{verifier:?}");
        assert_eq!(issuer.exchange(&code, &[]).json()["error"], "invalid_grant", "and the code is spent");
    }
    let code = issuer.code(&room, &[]);
    let stolen = issuer.exchange(&code, &[("client_id", Some("mcp-authd"))]);
    assert_eq!(stolen.json()["error"], "invalid_grant", "another client");
    assert_eq!(stolen.header("cache-control"), Some("no-store"));
}

#[test]
fn a_redirect_goes_to_the_clients_own_places_alone() {
    let (issuer, room) = room(600);
    let _daemon = room.start();
    for redirect in [
        "http://evil.example/callback",
        "http://127.0.0.1.evil.example/callback",
        "http://127.0.0.1@evil.example/callback",
        "http://user@127.0.0.1:3998/callback",
        "http://localhost:3998/callback",
        "http://LOCALHOST:3998/callback",
        "http://[::1]:3998/callback",
        "https://127.0.0.1:3998/callback",
        "HTTP://127.0.0.1:3998/callback",
        "http://127.0.0.1:3998/Callback",
        "http://127.0.0.1:3998/callback/",
        "http://127.0.0.1:3998/callback/../x",
        "http://127.0.0.1:3998/callback?x=1",
        "http://127.0.0.1:3998/callback#x",
        "http://127.0.0.1:3998//callback",
        "http://127.0.0.1:99999/callback",
        "https://app.example:444/cb",
        "https://APP.example/cb",
        "https://app.example/cb/",
        "//evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
    ] {
        let answer = get(&issuer.authorize_url(&[("redirect_uri", Some(redirect))]), &[]);
        assert_eq!((answer.status, answer.header("location")), (400, None), "{redirect}");
        assert!(!answer.body.contains("http-equiv"), "{redirect}");
    }
    for good in ["http://127.0.0.1:1/callback", "http://127.0.0.1/callback", "https://app.example/cb"] {
        issuer.open(&issuer.authorize_url(&[("redirect_uri", Some(good))]));
    }
    let answer = get(&issuer.authorize_url(&[("client_id", Some("nobody"))]), &[]);
    assert_eq!((answer.status, answer.header("location")), (400, None), "an unknown client sends nobody anywhere");
}

#[test]
fn a_request_without_state_or_s256_or_with_an_unknown_resource_is_refused_with_all_that_the_client_needs() {
    let (issuer, room) = room(600);
    let _daemon = room.start();
    for (change, error) in [
        (("state", None), "invalid_request"),
        (("code_challenge", None), "invalid_request"),
        (("code_challenge_method", Some("plain")), "invalid_request"),
        (("code_challenge_method", None), "invalid_request"),
        (("resource", Some("https://evil.example/mcp")), "invalid_target"),
        (("scope", Some("openid admin")), "invalid_scope"),
        (("response_type", Some("token")), "unsupported_response_type"),
    ] {
        let answer = get(&issuer.authorize_url(&[change]), &[]);
        let back = answer.header("location").unwrap_or_else(|| panic!("{change:?}: {}", answer.body)).parse().unwrap();
        assert_eq!(query(&back, "error").as_deref(), Some(error), "{change:?}");
        assert_eq!(query(&back, "iss"), Some(issuer.issuer()));
        assert_eq!(query(&back, "state").is_some(), change.0 != "state");
        let explained = get(&query(&back, "error_uri").unwrap().parse().unwrap(), &[]);
        assert!(explained.status == 200 && explained.body.contains(&format!("id=\"{error}\"")), "{change:?}");
    }
}

#[test]
fn a_refresh_token_that_comes_again_ends_the_login() {
    let (issuer, room) = room(600);
    let daemon = room.start();
    let first = issuer.tokens(&room);
    let second = issuer.refresh(&first).json();
    let third = issuer.refresh(&second).json();
    assert_eq!(issuer.refresh(&first).json()["error"], "invalid_grant");
    assert_eq!(issuer.refresh(&third).json()["error"], "invalid_grant", "the whole family");
    assert_eq!(issuer.userinfo(third["access_token"].as_str().unwrap()).status, 401);
    assert_eq!(daemon.stop().code, 0);
    let _daemon = room.start();
    assert_eq!(issuer.refresh(&third).json()["error"], "invalid_grant", "a restart does not bring it back");
}

#[test]
fn two_who_share_a_refresh_token_are_both_out_once_both_go_on() {
    let (issuer, room) = room(600);
    let _daemon = room.start();
    let stolen = issuer.tokens(&room);
    for thief_first in [true, false] {
        let stolen = if thief_first { stolen.clone() } else { issuer.tokens(&room) };
        let (one, other) = (issuer.refresh(&stolen).json(), issuer.refresh(&stolen).json());
        let (first, second) = if thief_first { (one, other) } else { (other, one) };
        let next = issuer.refresh(&first);
        assert_eq!(next.status, 200, "{}", next.body);
        assert_eq!(issuer.refresh(&second).json()["error"], "invalid_grant");
        assert_eq!(issuer.refresh(&next.json()).json()["error"], "invalid_grant", "nobody is left with a login");
    }
}

#[test]
fn only_our_own_living_access_tokens_are_believed() {
    let (issuer, room) = room(5);
    let daemon = room.start();
    let tokens = issuer.tokens(&room);
    let token = tokens["access_token"].as_str().unwrap();
    assert_eq!(issuer.userinfo(token).status, 200);
    let [head, body, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap();
    assert_eq!((head["alg"].as_str(), head["typ"].as_str()), (Some("ES256"), Some("at+jwt")));
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let (mut none, mut admin) = (head.clone(), claims(token));
    none["alg"] = "none".into();
    admin["sub"] = "somebody else".into();
    let other_key = {
        let (other, other_room) = self::room(600);
        let daemon = other_room.start();
        let token = other.tokens(&other_room)["access_token"].as_str().unwrap().to_owned();
        drop(daemon);
        token
    };
    for (what, attack) in [
        ("alg none", format!("{}.{body}.", encoded(&none))),
        ("alg none with a signature", format!("{}.{body}.{signature}", encoded(&none))),
        ("other claims", format!("{}.{}.{signature}", encoded(&head), encoded(&admin))),
        ("no signature", format!("{}.{body}.", encoded(&head))),
        ("another issuer's", other_key),
        ("an ID token, which has another audience", tokens["id_token"].as_str().unwrap().to_owned()),
        ("a refresh token", tokens["refresh_token"].as_str().unwrap().to_owned()),
    ] {
        let answer = issuer.userinfo(&attack);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (401, Some("invalid_token")), "{what}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer error=\"invalid_token\""), "{what}");
    }
    assert_eq!(get(&issuer.url("/oauth/userinfo"), &[]).header("www-authenticate"), Some("Bearer"));
    let expired = wait_until("its expiry", PATIENCE, || Some(issuer.userinfo(token)).filter(|answer| answer.status != 200));
    assert!(expired.json()["error_description"].as_str().unwrap().contains("expired"), "{expired:?}");
    let fresh = issuer.tokens(&room);
    room.write_config(&issuer.config(600).replace(RESOURCE, "http://127.0.0.1:3997/other"));
    room.ctl(&["reload"]).ok();
    let refused = wait_until("the new config", PATIENCE, || {
        Some(issuer.userinfo(fresh["access_token"].as_str().unwrap())).filter(|it| it.status == 401)
    });
    assert!(refused.json()["error_description"].as_str().unwrap().contains("audience"), "{refused:?}");
    drop(daemon);
}

#[test]
fn a_button_of_another_page_presses_nothing() {
    let (issuer, room) = room(600);
    let _daemon = room.start();
    let (page, other) = (issuer.open(&issuer.authorize_url(&[])), issuer.open(&issuer.authorize_url(&[])));
    let endpoint = issuer.url("/oauth/authorize");
    let press = |headers: &[(&str, &str)], csrf: &str| {
        post_form(&endpoint, headers, &[("pending", &page.pending), ("csrf", csrf), ("press", "cancel")])
    };
    for (what, headers, csrf) in [
        ("no value", vec![], ""),
        ("another page's value", vec![], other.csrf.as_str()),
        ("the page's name", vec![], page.pending.as_str()),
        ("another site", vec![("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")], page.csrf.as_str()),
        ("another port", vec![("origin", "http://127.0.0.1:1"), ("sec-fetch-site", "same-site")], page.csrf.as_str()),
        ("a sandboxed frame", vec![("origin", "null"), ("sec-fetch-site", "cross-site")], page.csrf.as_str()),
        ("a frame", vec![("sec-fetch-dest", "iframe"), ("sec-fetch-site", "same-origin")], page.csrf.as_str()),
    ] {
        let answer = press(&headers, csrf);
        assert_eq!(answer.status, 403, "{what}: {}", answer.body);
    }
    let facts = room.ctl(&["approve", &page.code, "--yes", "--json"]).ok();
    assert_eq!(facts.json()["state"], "approved", "nothing was pressed");
    assert_eq!(press(&[("origin", "null"), ("sec-fetch-site", "same-origin")], &page.csrf).status, 200);
}

#[test]
fn every_page_is_out_of_frames_caches_and_the_hands_of_other_pages() {
    let (issuer, room) = room(600);
    let _daemon = room.start();
    for path in
        ["/oauth/errors", "/oauth/keys", "/.well-known/oauth-authorization-server", "/oauth/authorize", "/nothing", "/oauth/userinfo"]
    {
        let url = if path == "/oauth/authorize" { issuer.authorize_url(&[]) } else { issuer.url(path) };
        let answer = get(&url, &[]);
        let policy = answer.header("content-security-policy").unwrap_or_default();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert!(answer.header("access-control-allow-origin").is_none() && !answer.body.contains("<script"), "{path}");
    }
    let foreign = get(&issuer.url("/oauth/keys"), &[("host", "evil.example")]);
    assert!(foreign.status >= 400, "two host headers: {foreign:?}");
}

#[test]
fn a_hostile_page_in_a_real_browser_gets_nothing() {
    chromium();
    let (issuer, room) = room(600);
    let _daemon = room.start();
    let page = issuer.open(&issuer.authorize_url(&[]));
    let (node, script) = issuer_script("hostile.mjs");
    let mut command = room.command(&node);
    command.arg(script).arg(issuer.authorize_url(&[]).as_str()).arg(&page.pending);
    let found = run(command, "hostile", "", false).ok().json();
    assert_eq!((&found["frame_status"], &found["post_status"]), (&json!(403), &json!(403)), "{found}");
    assert!(!found["frame_text"].as_str().unwrap().contains("approve"), "{found}");
    assert_eq!(found["read"], json!({ "authorize": "refused", "token": "refused", "keys": "refused" }));
    assert_eq!(found["opened"], "out of reach", "a window that it opens is not its own");
    assert_eq!(room.ctl(&["approve", &page.code, "--yes", "--json"]).ok().json()["state"], "approved", "nothing was cancelled");
}

#[test]
fn another_user_of_the_machine_is_not_answered() {
    require_root("become another user");
    let issuer = OwnIssuer::somewhere();
    let mut room = Room::with_config(&issuer.config(600));
    room.give_to(OWNER);
    let daemon = room.start();
    let owner = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
    wait_until("the issuer", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", issuer.port())).ok());
    let ours = knock(&issuer, &owner);
    assert!(ours.starts_with("HTTP/1.1 200"), "our own user: {ours}; {}", daemon.running.said());
    for (who, words) in [("a stranger", &AS_STRANGER[..]), ("root", &["env"][..])] {
        for _ in 0..5 {
            assert_eq!(knock(&issuer, words), "", "{who}");
        }
    }
    assert!(knock(&issuer, &owner).starts_with("HTTP/1.1 200"));
}

#[test]
fn another_user_crowds_nobody_out() {
    require_root("become another user");
    let issuer = OwnIssuer::somewhere();
    let mut room = Room::with_config(&issuer.config(600));
    room.give_to(OWNER);
    let _daemon = room.start();
    wait_until("the issuer", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", issuer.port())).ok());
    let url = issuer.authorize_url(&[]);
    let page = ask(&issuer, &["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"], &path_of(&url));
    let after = |start: &str, end: char| page.split_once(start).unwrap().1.split(end).next().unwrap().to_owned();
    let (pending, code) = (after("name=\"pending\" value=\"", '"'), after("mcp-authctl approve <b>", '<'));
    // The person's browser waits for the approval, on the oldest of all connections.
    let script = script(&issuer, &format!("/oauth/authorize?pending={pending}"));
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=54321", "--regid=54321", "--clear-groups", "bash", "-c", &script]);
    let mut browser = Running::start(command, "browser", true);
    browser.wait_for("its question", |said| said.contains("asked").then_some(()));
    let port = issuer.port();
    let flood = format!("for n in {{1..200}}; do exec {{fd}}<>/dev/tcp/127.0.0.1/{port} || exit 1; done; read -r <&$fd; echo done");
    let output = std::process::Command::new(AS_STRANGER[0]).args(&AS_STRANGER[1..]).args(["bash", "-c", &flood]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("done"), "{output:?}");
    room.ctl(&["approve", &code, "--yes"]).ok();
    let said = browser.wait();
    // On a slow machine the question was held long enough meanwhile, and the page asks again.
    assert!(said.stdout.starts_with("HTTP/1.1 303") || said.stdout.starts_with("HTTP/1.1 200"), "cut off: {said:?}");
}

#[test]
fn whoever_has_the_issuers_port_before_us_gets_nothing_of_us() {
    let (issuer, room) = room(600);
    let daemon = room.start();
    issuer.log_in(&room, &daemon);
    let first = daemon.token("local");
    assert_eq!(daemon.stop().code, 0);
    let impostor = wait_until("the port", PATIENCE, || std::net::TcpListener::bind(("127.0.0.1", issuer.port())).ok());
    impostor.set_nonblocking(true).unwrap();
    let daemon = room.start();
    wait_until("the error", PATIENCE, || daemon.show("/v1/status")["issuer"]["error"].as_str().map(str::to_owned));
    room.ctl(&["refresh", "local"]).fails_with(5).says("for our own issuer");
    room.ctl(&["login", "local:other", "--no-browser"]).fails_with(5).says("for our own issuer");
    assert!(impostor.accept().is_err(), "somebody came");
    drop(impostor);
    let renewed = || room.ctl(&["refresh", "local"]).code == 0;
    wait_until("a refresh, now that the port is ours", PATIENCE, || renewed().then_some(()));
    assert_ne!(daemon.token("local"), first);
}

/// What a user who asks for the metadata gets, byte for byte.
fn knock(issuer: &OwnIssuer, who: &[&str]) -> String {
    ask(issuer, who, "/.well-known/openid-configuration")
}

/// What a user gets who asks for this.
fn ask(issuer: &OwnIssuer, who: &[&str], target: &str) -> String {
    let output = std::process::Command::new(who[0]).args(&who[1..]).args(["bash", "-c", &script(issuer, target)]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// For bash: it asks, says so on stderr, and prints the answer.
fn script(issuer: &OwnIssuer, target: &str) -> String {
    let port = issuer.port();
    let request = format!("GET {target} HTTP/1.1\\r\\nhost: 127.0.0.1:{port}\\r\\nconnection: close\\r\\n\\r\\n").replace('%', "%%");
    format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{request}' >&3; echo asked >&2; cat <&3")
}

fn path_of(url: &Url) -> String {
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

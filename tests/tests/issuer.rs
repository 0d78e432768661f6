//! Our own issuer: logins with a real browser and a typed code, a certified client, restarts, and attacks.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::issuer::{CALLBACK, OwnIssuer, RESOURCE, SECRET, VERIFIER, claims, issuer_script, query};
use mcp_auth_tests::{AS_STRANGER, Connection, OWNER, Room, Running, chromium, get, kept_folder, post_form, require_root, run, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

fn room(lifetime: u64) -> (OwnIssuer, Room) {
    let issuer = OwnIssuer::somewhere();
    let mut room = Room::with_config(&issuer.config(lifetime));
    room.set("USER", "alice");
    (issuer, room)
}

/// The daemon logs in at its own issuer, without a browser.
fn log_in(issuer: &OwnIssuer, room: &Room, daemon: &mcp_auth_tests::Daemon<'_>) {
    let mut login = daemon.start_login(&json!({ "provider": "local" }));
    let redirect = issuer.approve(room, &login.wait_for_url().parse().unwrap());
    assert_eq!(get(&redirect, &[]).status, 200);
    assert!(matches!(login.last(), LoginEvent::Done { .. }), "{}", daemon.running.said());
}

fn browser(room: &mut Room, press: &str) -> std::path::PathBuf {
    chromium();
    let (_, script) = issuer_script("browser");
    let pictures = kept_folder("pictures").join("issuer");
    std::fs::create_dir_all(&pictures).unwrap();
    let code = room.path("code");
    for (name, value) in [("BROWSER", script), ("PICTURES", pictures.clone()), ("CODE_FILE", code), ("GO_FILE", room.path("go"))] {
        room.set(name, value.to_str().unwrap());
    }
    room.set("PRESS", press);
    pictures
}

fn code_on_the_page(room: &Room) -> String {
    wait_until("the page's code", PATIENCE, || std::fs::read_to_string(room.path("code")).ok())
}

#[test]
fn the_daemon_logs_in_at_its_own_issuer_with_a_browser_without_scripts_and_a_typed_code() {
    let (issuer, mut room) = room(600);
    let pictures = browser(&mut room, "");
    let daemon = room.start();
    let mut login = room.ctl_spawn(&["login", "local"]);
    let code = code_on_the_page(&room);
    let shown = room.ctl(&["approve", &code, "--yes"]).ok();
    for fact in ["The daemon itself", "127.0.0.1", RESOURCE, "openid, profile, github"] {
        assert!(shown.stderr.contains(fact), "{fact}: {shown:?}");
    }
    let output = login.wait().ok();
    assert!(output.stderr.contains("alice"), "who logged in is shown: {output:?}");
    let token = daemon.token("local");
    let said = claims(&token);
    assert_eq!((said["iss"].as_str(), said["aud"].as_str()), (Some(issuer.issuer().as_str()), Some(RESOURCE)));
    assert_eq!(issuer.userinfo(&token).json()["preferred_username"], "alice");
    assert!(std::fs::metadata(pictures.join("consent-phone-dark.png")).unwrap().len() > 1000);
    room.ctl(&["refresh", "local"]).ok();
    let next = daemon.token("local");
    assert_ne!(next, token);
    assert_eq!(claims(&next)["sid"], said["sid"]);
    room.ctl(&["logout", "local"]).ok();
    assert_eq!(issuer.userinfo(&next).status, 401, "the logout has revoked it");
}

#[test]
fn a_person_goes_on_by_the_button_and_cancels_by_the_other() {
    let (_, mut room) = room(600);
    let pictures = browser(&mut room, "continue");
    let daemon = room.start();
    let mut login = room.ctl_spawn(&["login", "local"]);
    let code = code_on_the_page(&room);
    room.ctl(&["approve", &code.to_lowercase(), "--yes"]).ok();
    std::fs::write(room.path("go"), "").unwrap();
    login.wait().ok();
    assert!(daemon.token("local").starts_with("ey"));
    std::fs::remove_file(room.path("code")).unwrap();
    room.set("PRESS", "cancel");
    let mut login = room.ctl_spawn(&["login", "local:other"]);
    let code = code_on_the_page(&room);
    login.wait().fails_with(1).says("access_denied");
    room.ctl(&["approve", &code, "--yes"]).fails_with(1).says("decided before");
    wait_until("the picture of the last page", PATIENCE, || pictures.join("done-phone-dark.png").exists().then_some(()));
}

#[test]
fn a_request_that_leads_nowhere_is_a_page_that_says_so() {
    let (issuer, mut room) = room(600);
    let pictures = browser(&mut room, "");
    let _daemon = room.start();
    let (node, script) = issuer_script("browser.mjs");
    let mut command = room.command(&node);
    command.arg(script).arg(issuer.authorize_url(&[("redirect_uri", Some("http://evil.example/"))]).as_str());
    let page = run(command, "error-page", "", false).ok().json();
    assert_eq!(page["status"], 400);
    assert!(page["text"].as_str().unwrap().contains("not one of the client's"), "{page}");
    assert!(pictures.join("error-phone-dark.png").exists());
}

#[test]
fn approve_asks_on_a_terminal_and_refuses_when_told_so() {
    let (issuer, room) = room(600);
    let _daemon = room.start();
    let page = issuer.open(&issuer.authorize_url(&[]));
    room.ctl(&["approve", &page.code]).fails_with(1).says("--yes");
    let mut terminal = room.ctl_on_terminal(&["approve", &page.code]);
    terminal.type_line("n");
    let (ended, screen) = terminal.wait();
    let screen = String::from_utf8_lossy(&screen);
    assert!(ended == 0 && screen.contains("plain asks for access") && screen.contains("allow it? [y/N]"), "{screen}");
    let redirect = get(&issuer.poll_url(&page), &[]);
    let redirect = redirect.header("location").unwrap().parse().unwrap();
    assert_eq!(query(&redirect, "error").as_deref(), Some("access_denied"));
    let page = issuer.open(&issuer.authorize_url(&[]));
    let refused = room.ctl(&["approve", &page.code, "--no", "--json"]).ok();
    assert_eq!(refused.json()["state"], "refused");
    room.ctl(&["approve", "BBBB-BBBB", "--yes"]).fails_with(1).says("no request waits");
}

#[test]
fn a_waiting_page_hears_of_the_approval_at_once() {
    let (issuer, room) = room(600);
    let _daemon = room.start();
    let page = issuer.open(&issuer.authorize_url(&[]));
    let poll = issuer.poll_url(&page);
    let mut waiting = Connection::tcp("127.0.0.1", issuer.port()).unwrap();
    waiting.send("GET", &format!("{}?{}", poll.path(), poll.query().unwrap()), &[], "").unwrap();
    // A whole other login meanwhile: the page's question has long been read when it ends.
    issuer.tokens(&room);
    let before = std::time::Instant::now();
    room.ctl(&["approve", &page.code, "--yes"]).ok();
    let answer = waiting.answer("GET").unwrap();
    assert_eq!(answer.status, 303, "{}", answer.body);
    assert!(before.elapsed() < Duration::from_secs(10), "not only when the question is asked again");
}

#[test]
fn a_certified_client_finds_everything_right_whatever_way_it_proves_itself() {
    let (issuer, room) = room(600);
    let daemon = room.start();
    for (client, auth, algorithm) in
        [("plain", "none", "oauth2"), ("confidential", "client_secret_basic", "oidc"), ("confidential", "client_secret_post", "oauth2")]
    {
        let settings = json!({
            "issuer": issuer.issuer(), "client_id": client, "redirect_uri": CALLBACK, "resource": RESOURCE, "scope": "openid github",
            "auth": auth, "secret": SECRET, "algorithm": algorithm,
        });
        let (node, script) = issuer_script("client.mjs");
        let mut command = room.command(&node);
        command.arg(script).arg(settings.to_string());
        let mut client = Running::start(command, "oauth4webapi", true);
        let url =
            client.wait_for("the authorization URL", |said| said.lines().next().map(str::to_owned).filter(|line| line.starts_with("http")));
        let redirect = issuer.approve(&room, &url.parse().unwrap());
        client.type_line(redirect.as_str());
        let output = client.wait().ok();
        let right: Vec<String> = serde_json::from_str(output.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(right.len(), 7, "{auth}: {right:?}");
    }
    assert!(!daemon.running.said().contains(SECRET), "in the log");
}

#[test]
fn a_restart_keeps_keys_and_logins_and_so_does_a_kill() {
    let (issuer, room) = room(20);
    let daemon = room.start();
    log_in(&issuer, &room, &daemon);
    let tokens = issuer.tokens(&room);
    let keys = daemon.show("/issuer/keys");
    assert_eq!(get(&issuer.url("/oauth/keys"), &[]).json(), keys, "the same keys on both ways");
    let first = daemon.token("local");
    assert_eq!(daemon.stop().code, 0);

    let daemon = room.start();
    assert_eq!(daemon.show("/issuer/keys"), keys);
    assert_eq!(issuer.userinfo(&first).status, 200, "a token of before");
    let next = issuer.refresh(&tokens);
    assert_eq!(next.status, 200, "{}", next.body);
    daemon.kill();

    let daemon = room.start();
    assert_eq!(daemon.show("/issuer/keys"), keys);
    assert_eq!(issuer.refresh(&tokens).status, 400, "what was used before the kill stays used");
    assert_eq!(issuer.refresh(&next.json()).status, 400, "and that has ended the family");
    let later = wait_until("a refresh ahead of expiry", PATIENCE, || Some(daemon.token("local")).filter(|token| *token != first));
    assert_eq!(claims(&later)["sid"], claims(&first)["sid"]);
}

#[test]
fn the_issuer_is_off_by_default_and_comes_and_goes_with_the_config() {
    let (issuer, room) = room(600);
    let on = issuer.config(600);
    let off = on.replace("enabled = true", "enabled = false");
    room.write_config(&off);
    let daemon = room.start();
    let answer = daemon.call("GET", "/issuer/keys", &json!({}));
    assert_eq!((answer.status, answer.json()["error"].as_str()), (404, Some("not_found")));
    assert!(answer.json()["hint"].as_str().unwrap().contains("enabled = true"));
    assert!(std::net::TcpStream::connect(("127.0.0.1", issuer.port())).is_err(), "nobody listens");
    room.ctl(&["approve", "BBBB-BBBB", "--yes"]).fails_with(1).says("switched off");
    room.write_config(&on);
    room.ctl(&["reload"]).ok();
    let listens = || daemon.show("/v1/status")["issuer"]["issuer"].as_str().map(str::to_owned);
    assert_eq!(wait_until("the issuer", PATIENCE, listens), issuer.issuer());
    let tokens = issuer.tokens(&room);
    room.write_config(&off);
    room.ctl(&["reload"]).ok();
    wait_until("its end", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", issuer.port())).err());
    room.write_config(&on);
    room.ctl(&["reload"]).ok();
    wait_until("the issuer", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", issuer.port())).ok());
    assert_eq!(issuer.refresh(&tokens).status, 200, "the logins are still there");
}

#[test]
fn a_port_that_is_taken_is_told_and_taken_when_it_is_free() {
    let (issuer, room) = room(600);
    let taken = std::net::TcpListener::bind(("127.0.0.1", issuer.port())).unwrap();
    let daemon = room.start();
    let error = wait_until("the error", PATIENCE, || daemon.show("/v1/status")["issuer"]["error"].as_str().map(str::to_owned));
    assert!(error.contains(&issuer.port().to_string()), "{error}");
    assert!(room.ctl(&["status"]).ok().stdout.contains("the issuer cannot listen"), "a person sees it");
    drop(taken);
    wait_until("the port", PATIENCE, || daemon.show("/v1/status")["issuer"]["error"].is_null().then_some(()));
    assert_eq!(get(&issuer.url("/.well-known/openid-configuration"), &[]).json()["issuer"], issuer.issuer());
}

#[test]
fn a_locked_vault_says_so_on_every_way_and_unlocking_brings_the_logins_back() {
    let (issuer, room) = room(600);
    let daemon = room.start();
    let tokens = issuer.tokens(&room);
    room.ctl(&["lock"]).ok();
    assert_eq!(get(&issuer.authorize_url(&[]), &[]).status, 503);
    assert_eq!((issuer.refresh(&tokens).status, issuer.refresh(&tokens).json()["error"].as_str()), (503, Some("temporarily_unavailable")));
    assert_eq!(daemon.call("GET", "/issuer/keys", &json!({})).json()["error"], "vault_locked");
    room.ctl(&["unlock"]).ok();
    assert_eq!(issuer.refresh(&tokens).status, 200);
}

#[test]
fn no_token_of_the_issuer_is_in_the_log_or_on_the_disk() {
    let (issuer, room) = room(600);
    let daemon = room.start();
    let code = issuer.code(&room, &[]);
    let tokens = issuer.exchange(&code, &[]).json();
    let next = issuer.refresh(&tokens).json();
    issuer.userinfo(next["access_token"].as_str().unwrap());
    let said = daemon.stop();
    let mut texts = vec![("the log", format!("{}{}", said.stdout, said.stderr).into_bytes())];
    for file in walk(&room.path("state")) {
        texts.push(("the vault", std::fs::read(file).unwrap()));
    }
    let secrets =
        [&tokens, &next].map(|answer| ["access_token", "refresh_token", "id_token"].map(|name| answer[name].as_str().unwrap().to_owned()));
    for secret in secrets.as_flattened().iter().map(String::as_str).chain([code.as_str(), VERIFIER]) {
        let secret = secret.rsplit('.').next().unwrap();
        for (place, text) in &texts {
            assert!(!text.windows(secret.len()).any(|part| part == secret.as_bytes()), "in {place}");
        }
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).filter(|path| path.is_file()).collect()
}

// ---- attacks

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
    assert_eq!(issuer.refresh(&first).json()["error"], "invalid_grant");
    assert_eq!(issuer.refresh(&second).json()["error"], "invalid_grant", "the whole family");
    assert_eq!(issuer.userinfo(second["access_token"].as_str().unwrap()).status, 401);
    assert_eq!(daemon.stop().code, 0);
    let _daemon = room.start();
    assert_eq!(issuer.refresh(&second).json()["error"], "invalid_grant", "a restart does not bring it back");
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
        let (other, other_room) = room_of_another();
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

fn room_of_another() -> (OwnIssuer, Room) {
    room(600)
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

/// What a user who asks for the metadata gets, byte for byte.
fn knock(issuer: &OwnIssuer, who: &[&str]) -> String {
    let port = issuer.port();
    let request = "GET /.well-known/openid-configuration HTTP/1.1\\r\\nhost: 127.0.0.1:PORT\\r\\nconnection: close\\r\\n\\r\\n"
        .replace("PORT", &port.to_string());
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{request}' >&3; cat <&3");
    let output = std::process::Command::new(who[0]).args(&who[1..]).args(["bash", "-c", &script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

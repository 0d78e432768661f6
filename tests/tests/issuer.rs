//! Our own issuer: logins with a real browser and a typed code, a certified client, restarts. Attacks are in `issuer_attacks`.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_tests::issuer::{CALLBACK, OwnIssuer, RESOURCE, SECRET, VERIFIER, claims, issuer_script, query};
use mcp_auth_tests::{Connection, Room, Running, chromium, get, kept_folder, run, wait_until};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);

fn room(lifetime: u64) -> (OwnIssuer, Room) {
    let issuer = OwnIssuer::somewhere();
    let mut room = Room::with_config(&issuer.config(lifetime));
    room.set("USER", "alice");
    (issuer, room)
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
    issuer.log_in(&room, &daemon);
    let tokens = issuer.tokens(&room);
    let keys = daemon.show("/issuer/keys");
    assert_eq!(get(&issuer.url("/oauth/keys"), &[]).json(), keys, "the same keys on both ways");
    let first = daemon.token("local");
    assert_eq!(daemon.stop().code, 0);

    let daemon = room.start();
    assert_eq!(daemon.show("/issuer/keys"), keys);
    assert_eq!(issuer.userinfo(&first).status, 200, "a token of before");
    let next = issuer.refresh(&issuer.refresh(&tokens).json());
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
fn a_client_that_an_answer_did_not_reach_asks_again_and_stays_logged_in() {
    let (issuer, room) = room(600);
    let daemon = room.start();
    let mut tokens = issuer.tokens(&room);
    assert_eq!(issuer.refresh(&tokens).status, 200, "an answer that is lost");
    tokens = issuer.refresh(&tokens).json();
    assert_eq!(issuer.refresh(&tokens).status, 200, "another one, and then the daemon is killed");
    daemon.kill();
    let _daemon = room.start();
    let after = wait_until("the issuer", PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", issuer.port())).ok()?;
        Some(issuer.refresh(&tokens))
    });
    assert_eq!(after.status, 200, "{}", after.body);
    assert_eq!(issuer.refresh(&after.json()).status, 200);
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
    let told = room.ctl(&["doctor"]);
    assert!(told.stdout.contains("[failed]  issuer") && told.stdout.contains("ss -ltnp"), "{told:?}");
    drop(taken);
    wait_until("the port", PATIENCE, || daemon.show("/v1/status")["issuer"]["error"].is_null().then_some(()));
    let told = room.ctl(&["doctor"]);
    assert!(told.stdout.contains("[ok]      issuer"), "{told:?}");
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

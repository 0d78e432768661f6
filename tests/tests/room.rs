//! The room itself, without the daemon: the authorization server is as strict as it says, the person gets through its
//! pages with and without a browser, and the keyring locks. A suite that fails here says nothing about the product.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_tests::{Answer, HttpAnswer, Keyring, Person, Server, chromium, fingerprint, kept_folder, node, post_form, source_folder};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use url::Url;

const VERIFIER: &str = "a-code-verifier-that-is-long-enough-for-rfc-7636-0123456789";

fn authorization_url(server: &Server, redirect_uri: &str) -> Url {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let mut url = server.url("/auth");
    url.query_pairs_mut().extend_pairs([("response_type", "code"), ("client_id", "native"), ("redirect_uri", redirect_uri)]).extend_pairs(
        [("scope", "openid offline_access"), ("state", "s"), ("code_challenge", &challenge), ("code_challenge_method", "S256")],
    );
    url
}

fn code_of(redirect: &Url) -> String {
    redirect.query_pairs().find(|(name, _)| name == "code").map(|(_, value)| value.into_owned()).unwrap()
}

fn exchange(server: &Server, redirect: &Url) -> HttpAnswer {
    let mut bare = redirect.clone();
    bare.set_query(None);
    let fields = [("grant_type", "authorization_code"), ("client_id", "native"), ("code", &code_of(redirect))];
    let rest = [("redirect_uri", bare.as_str()), ("code_verifier", VERIFIER)];
    post_form(&server.url("/token"), &[], &[&fields[..], &rest[..]].concat())
}

fn refresh(server: &Server, token: &str) -> HttpAnswer {
    post_form(&server.url("/token"), &[], &[("grant_type", "refresh_token"), ("client_id", "native"), ("refresh_token", token)])
}

fn log_in(server: &Server) -> serde_json::Value {
    let url = authorization_url(server, "http://127.0.0.1:1/callback");
    let redirect = Person::named("alice").browse(url.as_str(), Answer::Yes);
    let answer = exchange(server, &redirect);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[test]
fn a_person_logs_in_and_the_tokens_carry_the_marks_that_the_leak_search_knows() {
    let server = Server::with_lifetime(5);
    let tokens = log_in(&server);
    assert_eq!(tokens["expires_in"], 5);
    assert!(tokens["access_token"].as_str().unwrap().starts_with("zQaT9qz"));
    assert!(tokens["refresh_token"].as_str().unwrap().ends_with("zQrT9qz"));
    let access_token = tokens["access_token"].as_str().unwrap();
    assert!(server.is_active(access_token));
    assert_eq!(server.userinfo(access_token).json()["sub"], "alice");
    assert_eq!(server.counters().issued[0].fingerprint, fingerprint(access_token));
}

#[test]
fn a_person_who_says_no_is_sent_back_with_access_denied() {
    let server = Server::with_lifetime(5);
    let url = authorization_url(&server, "http://127.0.0.1:1/callback");
    let redirect = Person::named("alice").browse(url.as_str(), Answer::No);
    assert!(redirect.query().unwrap().contains("error=access_denied"), "{redirect}");
    assert!(redirect.query().unwrap().contains("iss="), "{redirect}");
}

#[test]
fn a_used_refresh_token_that_comes_again_ends_its_family() {
    let server = Server::with_lifetime(60);
    let first = log_in(&server)["refresh_token"].as_str().unwrap().to_owned();
    let second = refresh(&server, &first).json();
    let (second, access_token) = (second["refresh_token"].as_str().unwrap(), second["access_token"].as_str().unwrap());
    assert_ne!(first, second);
    assert_eq!(refresh(&server, &first).json()["error"], "invalid_grant");
    assert_eq!(refresh(&server, second).json()["error"], "invalid_grant");
    assert!(!server.is_active(access_token));
    let counters = server.counters();
    assert_eq!((counters.reuse, counters.refreshes().ok, counters.refreshes().requests), (1, 1, 3));
}

#[test]
fn a_revocation_is_seen() {
    let server = Server::with_lifetime(60);
    let tokens = log_in(&server);
    let token = tokens["refresh_token"].as_str().unwrap();
    let answer = post_form(&server.url("/token/revocation"), &[], &[("client_id", "native"), ("token", token)]);
    assert_eq!(answer.status, 200);
    assert_eq!(server.counters().revocations, ["refresh_token"]);
    assert_eq!(refresh(&server, token).json()["error"], "invalid_grant");
}

#[test]
fn the_faults_happen_and_go_away_again() {
    let server = Server::with_lifetime(60);
    let token = log_in(&server)["refresh_token"].as_str().unwrap().to_owned();
    server.tell("down", &json!({ "on": true }));
    assert_eq!(refresh(&server, &token).status, 503);
    server.tell("down", &json!({ "on": true, "mode": "closed" }));
    assert!(std::net::TcpStream::connect(server.url("/").socket_addrs(|| None).unwrap()[0]).is_err());
    server.tell("down", &json!({ "on": false }));
    server.tell("html", &json!({ "times": 1 }));
    assert!(refresh(&server, &token).body.contains("<html>"));
    server.tell("answer-200-error", &json!({ "times": 1 }));
    let answer = refresh(&server, &token);
    assert_eq!((answer.status, answer.json()["error"].as_str().unwrap()), (200, "bad_refresh_token"));
    assert_eq!(refresh(&server, &token).status, 200);
    assert_eq!((server.counters().intercepted, server.counters().reuse), (3, 0));
}

#[test]
fn a_client_id_that_nobody_registered_is_refused_without_a_redirect() {
    let server = Server::with_lifetime(60);
    let mut url = authorization_url(&server, "http://127.0.0.1:1/callback");
    url.set_query(Some(&url.query().unwrap().replace("client_id=native", "client_id=nobody")));
    let answer = mcp_auth_tests::get(&url, &[]);
    assert_eq!(answer.status, 400);
    assert!(answer.header("location").is_none());
}

/// A stand-in for the daemon's loopback listener: one request, one page.
fn one_page() -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).unwrap();
        let page = "<!doctype html><title>Done</title><p>You can close this tab.</p>";
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}", page.len())
            .unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    (port, thread)
}

#[test]
fn the_browser_gets_through_the_pages_and_keeps_a_picture() {
    let (server, (port, page)) = (Server::with_lifetime(60), one_page());
    let picture = kept_folder("pictures").join("room.png");
    let url = authorization_url(&server, &format!("http://127.0.0.1:{port}/callback"));
    chromium();
    node();
    let output = Command::new(source_folder().join("oidc-provider/browser"))
        .arg(url.as_str())
        .env("SCREENSHOT", &picture)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("You can close this tab."), "{output:?}");
    assert!(page.join().unwrap().starts_with("GET /callback?code=zQaC9qz"));
    assert!(std::fs::metadata(picture).unwrap().len() > 1000);
}

#[test]
fn the_person_without_a_display_gets_through_as_well() {
    let (server, (port, page)) = (Server::with_lifetime(60), one_page());
    let url = authorization_url(&server, &format!("http://127.0.0.1:{port}/callback"));
    let output = Command::new(source_folder().join("oidc-provider/person")).arg(url.as_str()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(page.join().unwrap().starts_with("GET /callback?code=zQaC9qz"));
}

#[test]
fn the_browser_can_say_no() {
    let (server, (port, page)) = (Server::with_lifetime(60), one_page());
    let url = authorization_url(&server, &format!("http://127.0.0.1:{port}/callback"));
    let output = Command::new(source_folder().join("oidc-provider/browser")).arg(url.as_str()).env("ANSWER", "no").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(page.join().unwrap().contains("error=access_denied"));
}

#[test]
fn the_keyring_is_absent_then_unlocked_then_locked_then_unlocked_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut keyring = Keyring::bus_only(folder.path(), folder.path());
    assert_eq!(keyring.is_locked(), None);
    keyring.start_unlocked();
    assert!(keyring.file().exists());
    assert_eq!(keyring.count(), Some(0));
    keyring.lock();
    keyring.start_unlocked();
    keyring.start_locked();
    keyring.start_unlocked();
    keyring.stop();
    assert_eq!(keyring.is_locked(), None);
}

#[test]
fn the_server_ends_with_the_test() {
    let server = Server::with_lifetime(60);
    let address = server.url("/").socket_addrs(|| None).unwrap()[0];
    drop(server);
    assert!(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
}

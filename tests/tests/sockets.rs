//! The socket: who may use it, what a stalled client costs the others, and places where it cannot be.

#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mcp_auth_tests::{AS_STRANGER, Daemon, Room, STRANGER, Server, require_root, send_raw, wait_until};
use serde_json::{Value, json};

const ROUNDS: u32 = 500;

#[test]
fn another_user_is_refused_every_time_on_a_socket_that_is_open_to_everybody() {
    require_root("become another user");
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    room.open_to_everybody();
    let counted = room.knock_as(&AS_STRANGER, ROUNDS);
    println!("{ROUNDS} connections of another user: {counted}");
    assert_eq!((&counted["tokens"], &counted["answered"]), (&json!(0), &json!(0)), "{counted}");
    assert_eq!(counted["refused"], json!(ROUNDS));
    daemon.token("test");
}

#[test]
fn the_socket_and_its_folder_are_ours_alone() {
    let room = Room::with_config("");
    let _daemon = room.start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&room.socket()), mode(room.socket().parent().unwrap())), (0o600, 0o700));
    for file in fs::read_dir(room.path("state")).unwrap().flatten() {
        assert_eq!(mode(&file.path()) & 0o077, 0, "{}", file.path().display());
    }
}

/// The median and the slowest of many answers on fresh connections.
fn median_and_slowest(daemon: &Daemon<'_>) -> (Duration, Duration) {
    let time = |_| {
        let start = Instant::now();
        daemon.token("test");
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..100).map(time).collect();
    times.sort();
    (times[50], times[99])
}

#[test]
fn clients_that_send_half_a_request_delay_nobody_and_are_closed() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let halves =
        ["", "P", "POST /v1/token HTTP/1.1\r\nhost: mcp-a", "POST /v1/token HTTP/1.1\r\nhost: mcp-authd\r\ncontent-length: 99\r\n\r\n{"];
    let mut stalled: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(room.socket()).unwrap()).collect();
    for (stream, half) in stalled.iter_mut().zip(halves.iter().cycle()) {
        stream.write_all(half.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
    }
    let (median, slowest) = median_and_slowest(&daemon);
    println!("100 clients with half a request: of 100 answers for others the median took {median:?}, the slowest {slowest:?}");
    // The slowest says how busy the machine is.
    assert!(median < Duration::from_millis(10), "{median:?}");
    // A head must come in 5 s; a body has its own limit.
    wait_until("the end of every stalled connection", Duration::from_secs(40), || {
        stalled.retain_mut(|stream| {
            loop {
                match stream.read(&mut [0; 1024]) {
                    Ok(0) => return false,
                    Ok(_) => {}
                    Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
                }
            }
        });
        stalled.is_empty().then_some(())
    });
    daemon.token("test");
}

#[test]
fn requests_over_a_limit_get_a_clear_answer_and_nobody_else_notices() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let head = |more: &str| format!("POST /v1/token HTTP/1.1\r\nhost: mcp-authd\r\n{more}\r\n\r\n");
    let long_head = head(&format!("x: {}", "y".repeat(20_000)));
    let long_body = format!("{}{}", head("content-length: 100000"), " ".repeat(100_000));
    for (bytes, status) in [(long_head, "431"), (long_body, "413"), (head("content-length: 4294967296"), "413")] {
        let answer = send_raw(&room.socket(), bytes.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    assert!(send_raw(&room.socket(), b"\x16\x03\x01 not HTTP at all\r\n\r\n").starts_with("HTTP/1.1 400"));
    daemon.token("test");
}

#[test]
fn what_a_browser_would_send_is_refused() {
    let room = Room::with_config("");
    let daemon = room.start();
    for header in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")] {
        let answer = daemon.connect().request("GET", "/v1/status", &[header], "").unwrap();
        assert_eq!((answer.status, answer.json()["error"].as_str()), (403, Some("access_denied")), "{header:?}");
    }
    for host in ["evil.example", "127.0.0.1", "mcp-authd.evil.example"] {
        let answer = send_raw(&room.socket(), format!("GET /v1/status HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 400"), "{host}: {answer}");
    }
    let fetch = daemon.connect().request("GET", "/v1/status", &[("sec-fetch-mode", "cors")], "").unwrap();
    assert_eq!(fetch.status, 200, "Node's fetch sends this");
}

#[test]
fn an_unknown_field_or_route_is_refused_with_a_code() {
    let room = Room::with_config("");
    let daemon = room.start();
    let code = |method: &str, path: &str, body: Value| daemon.call(method, path, &body).json()["error"].as_str().unwrap().to_owned();
    assert_eq!(code("POST", "/v1/token", json!({ "grant": "test", "grnat": "x" })), "invalid_request");
    assert_eq!(code("POST", "/v1/token", json!({})), "invalid_request");
    assert_eq!(code("GET", "/v1/nothing", json!({})), "not_found");
    assert_eq!(code("GET", "/.well-known/oauth-authorization-server", json!({})), "not_found");
}

#[test]
fn a_socket_path_that_is_a_folder_is_refused_and_left_alone() {
    let room = Room::with_config("");
    fs::create_dir_all(room.socket().join("precious")).unwrap();
    room.spawn().wait().fails_with(1).says("mcp-authd.sock");
    assert!(room.socket().join("precious").is_dir());
}

#[test]
fn a_socket_path_that_is_a_file_is_refused_and_left_alone() {
    let room = Room::with_config("");
    fs::create_dir_all(room.socket().parent().unwrap()).unwrap();
    fs::set_permissions(room.socket().parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
    fs::write(room.socket(), "precious").unwrap();
    room.spawn().wait().fails_with(1).says("mcp-authd.sock");
    assert_eq!(fs::read_to_string(room.socket()).unwrap(), "precious");
}

#[test]
fn a_socket_folder_that_is_somebody_elses_is_refused_and_left_alone() {
    require_root("give a folder to another user");
    let room = Room::with_config("");
    let folder = room.socket().parent().unwrap().to_owned();
    fs::create_dir_all(&folder).unwrap();
    chown(&folder, Some(STRANGER), Some(STRANGER)).unwrap();
    room.spawn().wait().fails_with(1).says(folder.to_str().unwrap());
    assert!(folder.is_dir());
}

#[test]
fn the_command_line_refuses_a_socket_that_another_user_listens_on() {
    require_root("listen as another user");
    let room = Room::with_config("");
    let folder = room.socket().parent().unwrap().to_owned();
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    for open in ["", "run"] {
        fs::set_permissions(room.path(open), Permissions::from_mode(0o755)).unwrap();
    }
    let socat = mcp_auth_tests::require("socat", "socat");
    let mut command = Command::new(socat);
    command
        .arg(format!("UNIX-LISTEN:{},fork,mode=777", room.socket().display()))
        .arg("OPEN:/dev/null")
        .uid(STRANGER)
        .gid(STRANGER)
        .current_dir("/");
    let mut impostor = command.spawn().unwrap();
    // The file is there a moment before anybody listens.
    wait_until("the impostor", Duration::from_secs(5), || UnixStream::connect(room.socket()).ok());
    let output = room.ctl(&["token", "test"]);
    let _ = impostor.kill();
    let _ = impostor.wait();
    output.fails_with(1).says("another user's process");
}

#[test]
fn a_socket_path_that_is_too_long_is_said_so() {
    let mut room = Room::with_config("");
    let long = room.path(&"x".repeat(120));
    room.set("MCP_AUTHD_SOCKET", long.to_str().unwrap());
    room.spawn().wait().fails_with(1).says("long");
    room.ctl(&["status"]).fails_with(1).says("long");
}

//! Streams through `/mcp/NAME`: long ones, large ones, broken ones, and those that nobody reads.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Asked, Connection, Daemon, HttpAnswer, RemotePlace, Reply, Room, fingerprint, memory_kib, wait_until};
use serde_json::{Value, json};

const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
/// How much the daemon may grow, KiB: a few buffers, and none of the stream.
const MOST_GROWTH: u64 = 8 * 1024;

fn post(daemon: &Daemon<'_>, body: &str) -> HttpAnswer {
    daemon.connect().request("POST", "/mcp/test", &[], body).unwrap()
}

fn pong(asked: &Asked, reply: &mut Reply) {
    reply.message(&[], &json!({ "jsonrpc": "2.0", "id": asked.message()["id"], "result": {} }));
}

#[test]
fn events_arrive_one_by_one_while_the_server_still_speaks() {
    let (go, next) = mpsc::channel::<()>();
    let next = Mutex::new(next);
    let place = RemotePlace::new(move |_, reply| {
        reply.events(&[]);
        for number in 0..3 {
            reply.event(&number.to_string(), &json!({ "number": number }));
            // The next one is said when the last one has arrived.
            next.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
        }
    });
    let daemon = place.start();
    let mut connection = daemon.connect();
    connection.send("GET", "/mcp/test", &[("accept", "text/event-stream")], "").unwrap();
    let (status, headers) = connection.read_head().unwrap();
    assert_eq!(status, 200);
    assert!(headers.contains(&("content-type".into(), "text/event-stream".into())), "{headers:?}");
    for number in 0..3 {
        assert!(until(&mut connection, "\n\n").contains(&format!("{{\"number\":{number}}}")));
        go.send(()).unwrap();
    }
    assert_eq!(connection.read_chunk().unwrap(), None);
}

/// Reads until `end` has come.
fn until(connection: &mut Connection, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        text.push_str(&String::from_utf8(connection.read_chunk().unwrap().expect(&text)).unwrap());
    }
    text
}

/// A server whose answer to a GET never ends, and to a POST never begins. It tells when a client has gone.
fn unending() -> (RemotePlace, mpsc::Receiver<bool>) {
    let (told, ended) = mpsc::channel();
    let told = Mutex::new(told);
    let place = RemotePlace::new(move |asked, reply| {
        if asked.method == "GET" {
            reply.events(&[]);
            reply.event("", &json!({}));
        }
        told.lock().unwrap().send(reply.gone()).unwrap();
    });
    (place, ended)
}

#[test]
fn a_client_that_goes_away_ends_its_request_at_the_server() {
    let (place, ended) = unending();
    let daemon = place.start();
    for (method, body) in [("GET", ""), ("POST", PING)] {
        let mut connection = daemon.connect();
        connection.send(method, "/mcp/test", &[], body).unwrap();
        if method == "GET" {
            connection.read_head().unwrap();
            until(&mut connection, "\n\n");
        } else {
            let before = place.remote.asked().len();
            wait_until("the request", Duration::from_secs(20), || (place.remote.asked().len() >= before.max(2)).then_some(()));
        }
        drop(connection);
        assert!(ended.recv_timeout(Duration::from_secs(20)).unwrap(), "{method}");
    }
}

#[test]
fn bodies_of_every_size_pass_whole_in_both_directions() {
    let place = RemotePlace::new(|asked, reply| {
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"{}\"}}", "y".repeat(asked.body.len()));
        reply.whole(200, &[("content-type", "application/json"), ("x-got", &fingerprint(&String::from_utf8_lossy(&asked.body)))], &text);
    });
    let daemon = place.start();
    for size in [0, 1, 64 * 1024, 4 * 1024 * 1024, 4 * 1024 * 1024 + 1, 20 * 1024 * 1024] {
        let body = format!("{{\"id\":7,\"method\":\"echo\",\"params\":\"{}\"}}", "x".repeat(size));
        let answer = post(&daemon, &body);
        assert_eq!((answer.status, answer.header("x-got")), (200, Some(fingerprint(&body).as_str())), "{size}");
        assert_eq!(answer.json()["result"].as_str().unwrap().len(), body.len(), "{size}");
    }
}

#[test]
fn a_long_stream_outlives_the_tokens_that_are_refreshed_meanwhile() {
    let place = RemotePlace::with_lifetime(Duration::from_secs(8), |_, reply| {
        reply.events(&[]);
        let started = Instant::now();
        let mut number = 0;
        while started.elapsed() < Duration::from_secs(30) && reply.event("", &json!({ "number": number })) {
            number += 1;
            std::thread::sleep(Duration::from_millis(250));
        }
        reply.event("", &json!({ "last": number }));
    });
    let daemon = place.start();
    let mut connection = daemon.connect();
    connection.send("POST", "/mcp/test", &[], PING).unwrap();
    assert_eq!(connection.read_head().unwrap().0, 200);
    let mut text = String::new();
    while let Some(piece) = connection.read_chunk().unwrap() {
        text.push_str(&String::from_utf8(piece).unwrap());
    }
    let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let last = events.last().unwrap()["last"].as_u64().unwrap();
    assert_eq!(events.len() as u64, last + 1, "none is missing");
    assert!(place.rogue.seen().refreshes.len() >= 3, "{} refreshes", place.rogue.seen().refreshes.len());
}

#[test]
fn an_answer_that_begins_before_a_large_body_was_read_arrives_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (go, rest) = mpsc::channel::<()>();
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let resource = format!("resource = \"http://{}/mcp\"", listener.local_addr().unwrap());
    let room = Room::with_config(&rogue.provider_table("test", &resource));
    let _daemon = room.start();
    room.log_in("test").ok();
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.read_exact(&mut [0; 1024]).unwrap();
        stream.write_all(b"HTTP/1.1 413 Status\r\ncontent-length: 2\r\n\r\n").unwrap();
        rest.recv_timeout(Duration::from_secs(20)).unwrap();
        stream.write_all(b"no").unwrap();
        // The body is never read, and the connection stays.
        rest.recv().unwrap_err();
    });
    let mut stream = UnixStream::connect(room.socket()).unwrap();
    let mut upload = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        let body = "x".repeat(32 * 1024 * 1024);
        let head = format!("POST /mcp/test HTTP/1.1\r\nhost: mcp-authd\r\ncontent-length: {}\r\n\r\n", body.len());
        // Not all of it is taken.
        let _ = upload.write_all(format!("{head}{body}").as_bytes());
    });
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&head));
    go.send(()).unwrap();
    let mut body = [0; 2];
    stream.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"no");
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let place = RemotePlace::new(|_, reply| {
        reply.head(200, &[("content-type", "application/json"), ("content-length", "1000")]);
        reply.bytes(b"{\"jsonrpc\":\"2.0\"");
    });
    let daemon = place.start();
    assert!(daemon.connect().request("POST", "/mcp/test", &[], PING).is_err());
    let place = RemotePlace::new(|_, reply| {
        reply.head(200, &[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")]);
        reply.bytes(b"5\r\ndata:\r\n");
    });
    let daemon = place.start();
    assert!(daemon.connect().request("POST", "/mcp/test", &[], PING).is_err());
}

#[test]
fn an_answer_of_100_mb_passes_and_the_daemon_keeps_none_of_it() {
    const SIZE: usize = 100_000_000;
    let place = RemotePlace::new(|_, reply| {
        reply.head(200, &[("content-type", "application/json"), ("content-length", &SIZE.to_string())]);
        let piece = vec![b'y'; 100_000];
        (0..SIZE / piece.len()).all(|_| reply.bytes(&piece));
    });
    let daemon = place.start();
    let before = memory_kib(daemon.running.pid());
    let mut connection = daemon.connect();
    let started = Instant::now();
    connection.send("POST", "/mcp/test", &[], PING).unwrap();
    let (_, headers) = connection.read_head().unwrap();
    assert!(headers.contains(&("content-length".into(), SIZE.to_string())), "{headers:?}");
    let (mut left, mut most) = (SIZE, 0);
    while left > 0 {
        left -= connection.read_bytes(left.min(5_000_000)).unwrap().len();
        most = most.max(memory_kib(daemon.running.pid()));
    }
    let speed = SIZE as f64 / 1e6 / started.elapsed().as_secs_f64();
    println!("{speed:.0} MB/s through the relay of this build, the daemon grew by {} KiB", most.saturating_sub(before));
    assert!(most < before + MOST_GROWTH, "{before} KiB before, {most} KiB meanwhile");
    assert_eq!(post_small(&mut connection), 200, "the connection is good for another request");
}

fn post_small(connection: &mut Connection) -> u16 {
    connection.request("GET", "/v1/status", &[], "").unwrap().status
}

#[test]
fn a_client_that_does_not_read_holds_the_server_back_and_costs_nobody_else() {
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    let place = RemotePlace::new(move |asked, reply| {
        if asked.method == "POST" {
            return pong(asked, reply);
        }
        reply.events(&[]);
        let event = json!({ "text": "x".repeat(10_000) });
        while reply.event("", &event) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let daemon = place.start();
    let before = memory_kib(daemon.running.pid());
    let mut stalled = daemon.connect();
    stalled.send("GET", "/mcp/test", &[], "").unwrap();
    let (mut last, mut same) = (0, 0);
    wait_until("the server to be held back", Duration::from_secs(30), || {
        let now = written.load(Ordering::Relaxed);
        same = if now > 0 && now == last { same + 1 } else { 0 };
        last = now;
        (same > 60).then_some(())
    });
    assert!(memory_kib(daemon.running.pid()) < before + MOST_GROWTH);
    let started = Instant::now();
    assert_eq!(post(&daemon, PING).json()["result"], json!({}));
    assert!(started.elapsed() < Duration::from_secs(2));
    drop(stalled);
    wait_until("the server to be let go", Duration::from_secs(30), || {
        let now = written.load(Ordering::Relaxed);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same > 60).then_some(())
    });
}

#[test]
fn a_daemon_that_stops_cuts_streams_off_and_ends_in_time() {
    let place = RemotePlace::new(|_, reply| {
        reply.events(&[]);
        reply.event("", &json!({}));
        reply.gone();
    });
    let daemon = place.start();
    let mut connection = daemon.connect();
    connection.send("GET", "/mcp/test", &[], "").unwrap();
    connection.read_head().unwrap();
    until(&mut connection, "\n\n");
    let started = Instant::now();
    assert_eq!(daemon.stop().code, 0);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(connection.read_chunk().is_err(), "it is not taken for whole");
}

#[test]
fn whatever_takes_the_grant_from_a_program_ends_its_open_streams_and_the_requests_that_wait() {
    let (place, ended) = unending();
    let daemon = place.start();
    for (number, (words, said, back)) in [
        (vec!["policy", "add", "test", "--program", "/usr/bin/true"], "you must allow", vec!["policy", "reset", "--yes"]),
        (vec!["policy", "add", "test", "--anyone", "--deny"], "the policy does not give", vec!["policy", "reset", "--yes"]),
        (vec!["lock"], "the vault was locked by hand", vec!["unlock"]),
        (vec!["logout", "test"], "`test` was logged out meanwhile", vec!["policy", "list"]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = daemon.connect();
        stream.send("GET", "/mcp/test", &[], "").unwrap();
        assert_eq!(stream.read_head().unwrap().0, 200);
        until(&mut stream, "\n\n");
        let mut waiting = daemon.connect();
        waiting.send("POST", "/mcp/test", &[], PING).unwrap();
        place.wait_for("ping", number + 1);
        place.room.ctl(&words).ok();
        assert!(stream.read_chunk().is_err(), "{words:?}: it is not taken for whole");
        let answer = waiting.answer("POST").unwrap().json();
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(answer["id"] == 7 && message.contains(said) && message.contains("carried out is not known"), "{words:?}: {answer}");
        for _ in 0..2 {
            assert!(ended.recv_timeout(Duration::from_secs(20)).unwrap(), "{words:?}: the server hears of it");
        }
        place.room.ctl(&back).ok();
    }
}

#[test]
fn a_stream_goes_on_while_the_rules_give_its_program_the_grant_and_no_longer() {
    let (go, next) = mpsc::channel::<()>();
    let next = Mutex::new(next);
    let place = RemotePlace::new(move |asked, reply| {
        if asked.method != "GET" {
            return pong(asked, reply);
        }
        reply.events(&[]);
        while reply.event("", &json!({})) && next.lock().unwrap().recv_timeout(Duration::from_secs(60)).is_ok() {}
    });
    let daemon = place.start();
    let own = std::env::current_exe().unwrap().into_os_string().into_string().unwrap();
    let ctl = |words: &[&str]| place.room.ctl(words).ok();
    let mut stream = daemon.connect();
    stream.send("GET", "/mcp/test", &[], "").unwrap();
    assert_eq!(stream.read_head().unwrap().0, 200);
    until(&mut stream, "\n\n");
    let goes_on = |stream: &mut Connection| {
        go.send(()).unwrap();
        until(stream, "\n\n");
    };
    ctl(&["refresh", "test"]);
    goes_on(&mut stream);
    ctl(&["policy", "add", "test", "--program", &own, "--per-minute", "1"]);
    goes_on(&mut stream);
    assert_eq!(post(&daemon, PING).json()["result"], json!({}), "the stream does not count for the rate");
    ctl(&["policy", "add", "test", "--program", "/usr/bin/true"]);
    goes_on(&mut stream);
    ctl(&["policy", "reset", "--yes"]);
    goes_on(&mut stream);
    ctl(&["policy", "add", "test", "--program", &own, "--expires", "4"]);
    goes_on(&mut stream);
    assert!(stream.read_chunk().is_err(), "the rule's time is over");
}

#[test]
fn answers_without_an_end_to_their_head_are_given_up_and_the_daemon_keeps_none_of_them() {
    let place = RemotePlace::new(|asked, reply| {
        let (head, more) = match asked.header("x-kind") {
            "lines" => ("HTTP/1.1 200 OK\r\n", "x-header: some\r\n".repeat(100)),
            "line" => ("HTTP/1.1 200 OK\r\nx-header: ", "a".repeat(4096)),
            _ => ("HTTP/1.1 200 ", "a".repeat(4096)),
        };
        reply.bytes(head.as_bytes());
        while reply.bytes(more.as_bytes()) {}
    });
    let daemon = place.start();
    let before = memory_kib(daemon.running.pid());
    for kind in ["lines", "line", "status"] {
        let answer = daemon.connect().request("POST", "/mcp/test", &[("x-kind", kind)], PING).unwrap();
        assert_eq!((answer.status, answer.header("mcp-authd-error")), (200, Some("provider_unreachable")), "{kind}: {answer:?}");
        assert!(memory_kib(daemon.running.pid()) < before + MOST_GROWTH, "{kind}");
    }
}

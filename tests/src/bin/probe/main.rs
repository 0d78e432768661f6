//! Knocks at a socket, holds it or sits at its place: what the suites and the fault suite run as another user.
//!
//! `probe ask SOCKET N` asks N times and prints `{"refused", "answered", "tokens", "sentences"}`: connections closed without
//! an answer, answers of any kind, answers that hold a token, answers that hold an error sentence.
//! `probe hold SOCKET N` opens N connections, sends a byte on each, prints `held`, and keeps them until its input ends.
//! `probe steady SOCKET RATE SECONDS` asks so many times a second, each time on a connection of its own whether or not the
//! others have their answer, and prints `{"asked", "refused", "failed", "tokens", "slowest_ms", "p99_ms"}`: connections that
//! were not accepted, what came instead of an answer of 200, and answers with a token.
//! `probe become SOCKET` asks once and, at a line on its input, becomes `cat`, which prints whatever the answer is.
//! `probe listen SOCKET` listens and prints for each connection, at its end, how many bytes came.
//! `probe who SOCKET [undumpable]` prints what the daemon takes it for, and again after every line of its input.
//! `probe connect SOCKET [first] [PROGRAM ...]` connects its standard input, asks on it if told so, and ends or becomes PROGRAM.
//! `probe silent FOLDER` mounts a file system there whose names nobody ever gets an answer about, and prints `silent`.
//! `probe reuse SOCKET N` tries N times to be taken for a program that has the number of a peer which has ended, and prints
//! `{"asked", "number_led_to_another", "unknown", "wrong"}`. For a process namespace of its own, with the daemon in it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod peers;

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use mcp_auth_tests::Connection;
use serde_json::json;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["ask", socket, times] => ask(Path::new(socket), times.parse().unwrap()),
        ["hold", socket, times] => hold(Path::new(socket), times.parse().unwrap()),
        ["steady", socket, rate, seconds] => steady(Path::new(socket), rate.parse().unwrap(), seconds.parse().unwrap()),
        ["become", socket] => become_another(Path::new(socket)),
        ["listen", socket] => listen(Path::new(socket)),
        ["who", socket] => peers::who(Path::new(socket), false),
        ["who", socket, "undumpable"] => peers::who(Path::new(socket), true),
        ["connect", socket] => peers::connect(Path::new(socket), false, None),
        ["connect", socket, "first"] => peers::connect(Path::new(socket), true, None),
        ["connect", socket, "first", ref program @ ..] => peers::connect(Path::new(socket), true, Some(program)),
        ["connect", socket, ref program @ ..] => peers::connect(Path::new(socket), false, Some(program)),
        ["silent", folder] => peers::silent(Path::new(folder)),
        ["reuse", socket, times] => peers::reuse(Path::new(socket), times.parse().unwrap()),
        _ => panic!("usage: probe ask|become|hold|steady|listen|who|connect|reuse SOCKET [N] [SECONDS]"),
    }
}

fn ask(socket: &Path, times: u32) {
    let (mut refused, mut answered, mut tokens, mut sentences) = (0, 0, 0, 0);
    for _ in 0..times {
        let asked = Connection::unix(socket).and_then(|mut connection| connection.json("POST", "/v1/token", &json!({ "grant": "test" })));
        match asked {
            Err(_) => refused += 1,
            Ok(answer) => {
                answered += 1;
                tokens += u32::from(answer.body.contains("access_token"));
                sentences += u32::from(answer.body.contains("error_description"));
            }
        }
    }
    println!("{}", json!({ "refused": refused, "answered": answered, "tokens": tokens, "sentences": sentences }));
}

/// How one request ended.
enum End {
    Refused,
    /// Accepted, and then this answer, or none.
    Failed(String),
    Token(Duration),
}

fn steady(socket: &Path, rate: u32, seconds: u32) {
    println!("begun");
    let began = Instant::now();
    let due = |number: u32| Duration::from_secs(1) * number / rate;
    let asked: Vec<_> = (0..rate * seconds)
        .map(|number| {
            // The pace is the point: whoever waits for an answer must not slow the others down.
            std::thread::sleep(due(number).saturating_sub(began.elapsed()));
            let socket = socket.to_owned();
            std::thread::spawn(move || once(&socket))
        })
        .collect();
    let ends: Vec<End> = asked.into_iter().map(|one| one.join().unwrap()).collect();
    let mut times: Vec<Duration> = ends.iter().filter_map(|end| if let End::Token(time) = end { Some(*time) } else { None }).collect();
    times.sort();
    let refused = ends.iter().filter(|end| matches!(end, End::Refused)).count();
    let failed: Vec<&str> = ends.iter().filter_map(|end| if let End::Failed(why) = end { Some(why.as_str()) } else { None }).collect();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).map_or(0, Duration::as_millis);
    println!(
        "{}",
        json!({
            "asked": ends.len(), "refused": refused, "failed": failed,
            "tokens": times.len(), "slowest_ms": at(100), "p99_ms": at(99),
        })
    );
}

fn once(socket: &Path) -> End {
    let start = Instant::now();
    let Ok(mut connection) = Connection::unix(socket) else { return End::Refused };
    match connection.json("POST", "/v1/token", &json!({ "grant": "test" })) {
        Ok(answer) if answer.status == 200 && answer.body.contains("access_token") => End::Token(start.elapsed()),
        Ok(answer) => End::Failed(format!("{} {}", answer.status, answer.body)),
        Err(error) => End::Failed(error.to_string()),
    }
}

fn hold(socket: &Path, times: u32) {
    let mut held = Vec::new();
    for _ in 0..times {
        let mut stream = UnixStream::connect(socket).unwrap();
        // A connection that is refused at once takes no byte.
        let _ = stream.write_all(b"P");
        held.push(stream);
    }
    println!("held");
    // Whatever comes, only the end counts.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn become_another(socket: &Path) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let body = json!({ "grant": "test", "wait": true }).to_string();
    let head = format!("POST /v1/token HTTP/1.1\r\nhost: mcp-authd\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let error = std::process::Command::new("cat").stdin(std::os::fd::OwnedFd::from(stream)).exec();
    panic!("cat: {error}");
}

fn listen(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    // The umask would keep other users out.
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    println!("listening");
    for mut stream in listener.incoming().flatten() {
        let mut bytes = Vec::new();
        // Bytes that came before an error count too.
        let _ = stream.read_to_end(&mut bytes);
        println!("{} bytes", bytes.len());
    }
}

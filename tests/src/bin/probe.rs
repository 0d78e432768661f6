//! Knocks at a socket, holds it or sits at its place: what the suites and the fault suite run as another user.
//!
//! `probe ask SOCKET N` asks N times and prints `{"refused", "answered", "tokens", "sentences"}`: connections closed without
//! an answer, answers of any kind, answers that hold a token, answers that hold an error sentence.
//! `probe hold SOCKET N` opens N connections, sends a byte on each, prints `held`, and keeps them until its input ends.
//! `probe listen SOCKET` listens and prints for each connection, at its end, how many bytes came.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use mcp_auth_tests::Connection;
use serde_json::json;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["ask", socket, times] => ask(Path::new(socket), times.parse().unwrap()),
        ["hold", socket, times] => hold(Path::new(socket), times.parse().unwrap()),
        ["listen", socket] => listen(Path::new(socket)),
        _ => panic!("usage: probe ask|hold|listen SOCKET [N]"),
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

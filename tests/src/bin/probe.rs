//! Knocks at a socket and counts what comes back. Run as another user by the suite `sockets`.
//!
//! `probe SOCKET N` prints `{"refused", "answered", "tokens", "sentences"}`: connections closed without an answer, answers of
//! any kind, answers that hold a token, answers that hold an error sentence.

#![allow(clippy::print_stdout)]

use std::path::Path;

use mcp_auth_tests::Connection;
use serde_json::json;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (socket, rounds) = (Path::new(&arguments[1]), arguments[2].parse().unwrap_or(1));
    let (mut refused, mut answered, mut tokens, mut sentences) = (0, 0, 0, 0);
    for _ in 0..rounds {
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

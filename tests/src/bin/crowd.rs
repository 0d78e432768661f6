//! Many clients in one process, for the fault suite's stampedes.
//!
//! `crowd SOCKET N` opens N connections, prints `ready`, waits for a line, asks for the grant `test` on all of them, and
//! prints `{"tokens": {TOKEN: HOW OFTEN}, "refused": N}`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::Path;

use mcp_auth_tests::Connection;
use serde_json::json;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let connect = |_| Connection::unix(Path::new(&arguments[1])).unwrap();
    let mut clients: Vec<Connection> = (0..arguments[2].parse().unwrap()).map(connect).collect();
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for client in &mut clients {
        client.send("POST", "/v1/token", &[], &json!({ "grant": "test" }).to_string()).unwrap();
    }
    let (mut tokens, mut refused) = (BTreeMap::<String, u32>::new(), 0);
    for client in &mut clients {
        match client.answer("POST") {
            Ok(answer) if answer.status == 200 => {
                let token = answer.json()["access_token"].as_str().unwrap().to_owned();
                *tokens.entry(token).or_default() += 1;
            }
            _ => refused += 1,
        }
    }
    println!("{}", json!({ "tokens": tokens, "refused": refused }));
}

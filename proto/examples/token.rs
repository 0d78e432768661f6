//! Prints a fresh access token of the grant that it is given. What follows is the Rust block of README.md.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is what a program does that shows how to ask")]

use std::process::ExitCode;

use mcp_auth_proto::{Client, ClientError, TokenRequest, socket_path};

fn main() -> ExitCode {
    let grant = std::env::args().nth(1).expect("usage: token GRANT");
    let client = Client::new(socket_path().expect("no place for the socket"));
    match client.token(&TokenRequest::for_grant(grant)) {
        Ok(token) => {
            println!("{}", token.access_token.expose());
            return ExitCode::SUCCESS;
        }
        Err(ClientError::Api(error)) => eprintln!("{error}\nhint: {}", error.hint.as_deref().unwrap_or("mcp-authctl status")),
        Err(error) => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}

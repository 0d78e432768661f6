//! The programs of README.md, taken from the page itself and run: against a real daemon with a real login, without
//! a login, and without a daemon.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

use mcp_auth_tests::{Output, Room, Server, binary, require, run};

const PAGE: &str = include_str!("../../README.md");
const RUST: &str = include_str!("../../proto/examples/token.rs");

/// The one block of the page in a language.
#[track_caller]
fn block(language: &str) -> &'static str {
    let blocks: Vec<_> = PAGE.split(&format!("\n```{language}\n")).skip(1).filter_map(|rest| rest.split_once("\n```\n")).collect();
    assert_eq!(blocks.len(), 1, "blocks in {language} on the page");
    blocks[0].0
}

/// A program of the page, written to a file of the room.
fn write(room: &Room, name: &str, language: &str) -> PathBuf {
    let path = room.path(name);
    std::fs::write(&path, format!("{}\n", block(language))).unwrap();
    path
}

/// The program and its arguments, ready to run, and its name.
type Snippet = (&'static str, Vec<PathBuf>);

fn snippets(room: &Room) -> Vec<Snippet> {
    require("curl", "curl");
    vec![
        ("sh", vec![require("sh", "dash"), write(room, "token.sh", "sh")]),
        ("python", vec![require("python3", "python3"), write(room, "token.py", "python")]),
        ("node", vec![require("node", "nodejs (20 or newer)"), write(room, "token.mjs", "js")]),
        ("rust", vec![binary("token-example")]),
        ("go", vec![compiled_go(room)]),
    ]
}

/// Go's own tools take the program: formatted, vetted, compiled, without a network.
fn compiled_go(room: &Room) -> PathBuf {
    let (source, program) = (write(room, "token.go", "go"), room.path("token-go"));
    let tool = |words: &[&str]| {
        let mut command = room.command(&require("go", "golang-go"));
        command.args(words).arg(&source).env("GOCACHE", room.path("go")).env("GOPROXY", "off").env("GO111MODULE", "off");
        run(command, "go", "", false).ok().stdout
    };
    let mut format = room.command(&require("gofmt", "golang-go"));
    format.arg("-l").arg(&source);
    assert_eq!(run(format, "gofmt", "", false).ok().stdout, "", "gofmt would write it otherwise");
    tool(&["vet"]);
    tool(&["build", "-o", program.to_str().unwrap()]);
    program
}

fn command((_, words): &Snippet, room: &Room, grant: &str) -> Command {
    let mut command = room.command(&words[0]);
    command.args(&words[1..]).arg(grant);
    command
}

fn refused(name: &str, output: &Output, words: &[&str]) {
    assert!(output.code != 0 && output.stdout.is_empty(), "{name}: {output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{name} does not say {word:?}: {output:?}");
    }
}

#[test]
fn every_program_of_the_page_gets_a_token_or_says_what_to_do() {
    let server = Server::with_lifetime(3600);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    let snippets = snippets(&room);
    let ask = |snippet: &Snippet, grant: &str| run(command(snippet, &room, grant), snippet.0, "", true);
    for snippet in &snippets {
        assert_eq!(ask(snippet, "test").ok().stdout, format!("{token}\n"), "{}", snippet.0);
        let mut elsewhere = command(snippet, &room, "test");
        elsewhere.env_remove("MCP_AUTHD_SOCKET");
        assert_eq!(run(elsewhere, snippet.0, "", true).ok().stdout, format!("{token}\n"), "{}, by XDG_RUNTIME_DIR", snippet.0);
        let needed = ["nobody is logged in to `test:work`", "hint: mcp-authctl login test:work"];
        refused(snippet.0, &ask(snippet, "test:work"), &needed);
    }
    daemon.stop();
    for snippet in &snippets {
        refused(snippet.0, &ask(snippet, "test"), &["mcp-authd is not running"]);
    }
}

#[test]
fn the_rust_program_of_the_page_is_the_one_that_is_compiled() {
    assert!(RUST.ends_with(&format!("\n\n{}\n", block("rust"))), "proto/examples/token.rs is not what the page shows");
}

#[test]
fn no_program_of_the_page_is_longer_than_it_must_be() {
    for (language, most) in [("sh", 15), ("python", 15), ("js", 15), ("rust", 20), ("go", 40)] {
        let lines = block(language).lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= most, "{language}: {lines} lines");
    }
}

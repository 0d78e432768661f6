//! A daemon that gives canned answers on a real socket, and the binary run against it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the daemon was asked: `POST /v1/token {"grant":"github"}`, or `closed` when a stream's reader went.
pub(crate) type Asked = String;

/// What it answers.
pub(crate) enum Reply {
    Json(u16, String),
    /// Lines of a stream, until the sender is dropped.
    Lines(Receiver<String>),
}

pub(crate) struct Daemon {
    folder: tempfile::TempDir,
    asked: Receiver<Asked>,
}

/// How a run ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Daemon {
    pub(crate) fn new(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let (sender, asked) = channel();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, sender) = (Arc::clone(&answer), sender.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &*answer, &sender));
            }
        });
        Self { folder, asked }
    }

    /// One answer to everything.
    pub(crate) fn saying(status: u16, body: &str) -> Self {
        let body = body.to_owned();
        Self::new(move |_| Reply::Json(status, body.clone()))
    }

    /// A login whose events the test sends; everything else is answered by `other`.
    pub(crate) fn with_login(other: impl Fn(&str) -> Reply + Send + Sync + 'static) -> (Self, Sender<String>) {
        let (sender, lines) = channel();
        let lines = Mutex::new(Some(lines));
        let daemon = Self::new(move |asked| match asked.starts_with("POST /v1/logins ") {
            true => Reply::Lines(lines.lock().unwrap().take().unwrap()),
            false => other(asked),
        });
        (daemon, sender)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder().join("sock")
    }

    /// The next thing that it was asked. The time-out is only for a test that fails.
    pub(crate) fn asked(&self) -> Asked {
        self.asked.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    /// As [`Self::asked`], if it was asked anything more by now.
    pub(crate) fn asked_already(&self) -> Option<Asked> {
        self.asked.try_recv().ok()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = ctl(args);
        command.env("MCP_AUTHD_SOCKET", self.socket());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args))
    }

    pub(crate) fn run_with_stdin(&self, args: &[&str], input: &str) -> Ran {
        let mut child = piped(self.command(args).stdin(Stdio::piped()));
        // Some end without reading their input, which is theirs to do.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        wait(child)
    }
}

/// The binary in an environment of nothing but a PATH.
pub(crate) fn ctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-authctl"));
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

pub(crate) fn finish(mut command: Command) -> Ran {
    wait(piped(&mut command))
}

pub(crate) fn piped(command: &mut Command) -> std::process::Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn wait(child: std::process::Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran { code: output.status.code(), stdout: String::from_utf8(output.stdout).unwrap(), stderr: String::from_utf8(output.stderr).unwrap() }
}

pub(crate) fn error(code: &str, rest: &str) -> String {
    format!(r#"{{"error":"{code}","error_description":"it did not work"{rest}}}"#)
}

pub(crate) const TOKEN: &str = r#"{"access_token":"gho_16C7e42F","token_type":"Bearer","expires_at":"2026-12-01T10:00:00Z","expires_in":3540,"scopes":["repo"],"grant":"github","account":"octocat"}"#;

pub(crate) const UNLOCKED: &str = r#"{"version":"0.1.0","proto":1,"pid":7,"uptime":9,"vault":{"state":"unlocked","key_source":"passphrase"},"config":{"path":"/c.toml"},"grants":0,"login_required":0,"not_durable":0}"#;

pub(crate) const NO_VAULT: &str = r#"{"version":"0.1.0","proto":1,"pid":7,"uptime":9,"vault":{"state":"locked","reason":"there is no vault yet","hint":"mcp-authctl setup","needs_setup":true},"config":{"path":"/c.toml"},"grants":0,"login_required":0,"not_durable":0}"#;

fn serve(stream: UnixStream, answer: &dyn Fn(&str) -> Reply, asked: &Sender<Asked>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let _ = asked.send(request.clone());
        match answer(&request) {
            Reply::Json(status, body) => {
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = reader.get_mut().write_all(answer.as_bytes());
            }
            Reply::Lines(lines) => return stream_lines(reader, lines, asked.clone()),
        }
    }
}

fn stream_lines(mut reader: BufReader<UnixStream>, lines: Receiver<String>, asked: Sender<Asked>) {
    let mut writer = reader.get_ref().try_clone().unwrap();
    std::thread::spawn(move || {
        if reader.read(&mut [0; 1]).unwrap_or(0) == 0 {
            let _ = asked.send("closed".into());
        }
    });
    let _ = writer.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for line in lines {
        let _ = writer.write_all(format!("{:x}\r\n{line}\n\r\n", line.len() + 1).as_bytes());
    }
    let _ = writer.write_all(b"0\r\n\r\n");
}

fn read_request(reader: &mut BufReader<UnixStream>) -> Option<String> {
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
        if first.is_empty() {
            first = line.trim_end().trim_end_matches("HTTP/1.1").to_owned();
        } else if line == "\r\n" {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            return Some((first + &String::from_utf8(body).unwrap()).trim_end().to_owned());
        }
    }
}

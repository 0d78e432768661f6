//! A stdio MCP server as its client speaks to it: line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::room::Room;
use crate::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(90);

/// A bridge under test. Killed when dropped.
#[derive(Debug)]
pub struct StdioServer {
    child: Child,
    stdin: Option<ChildStdin>,
    messages: Receiver<Value>,
}

impl StdioServer {
    /// `mcp-authctl bridge` with these arguments.
    #[track_caller]
    pub fn bridge(room: &Room, arguments: &[&str]) -> Self {
        let mut command = room.command(&room.program("mcp-authctl"));
        command.arg("bridge").args(arguments);
        Self::start(command)
    }

    /// Starts a server.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (told, messages) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).unwrap_or_else(|error| panic!("not a message ({error}): {line}"));
                if told.send(message).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, messages }
    }

    /// Sends a message.
    #[track_caller]
    pub fn send(&mut self, message: &Value) {
        self.line(&message.to_string());
    }

    /// Sends a line as it is.
    #[track_caller]
    pub fn line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is closed");
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// The next message.
    #[track_caller]
    pub fn next(&self) -> Value {
        self.messages.recv_timeout(PATIENCE).expect("no message")
    }

    /// What has come and was not looked at.
    pub fn rest(&self) -> Vec<Value> {
        self.messages.try_iter().collect()
    }

    /// A request, and its answer; what comes before it is left out.
    #[track_caller]
    pub fn ask(&mut self, id: u64, method: &str, params: &Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let message = self.next();
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
        }
    }

    /// The handshake of 2025-11-25: what the server says of itself.
    #[track_caller]
    pub fn initialize(&mut self) -> Value {
        let client = json!({ "name": "by hand", "version": "1" });
        let answer = self.ask(0, "initialize", &json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client }));
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        answer
    }

    /// Closes stdin and waits for the end: the exit code.
    #[track_caller]
    pub fn end(mut self) -> i32 {
        drop(self.stdin.take());
        let status = wait_until("the bridge's end", PATIENCE, || self.child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    /// Sends SIGTERM, leaves stdin open, and waits for the end: the exit code, -1 where the signal was it.
    #[track_caller]
    pub fn terminate(mut self) -> i32 {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM).unwrap();
        let status = wait_until("the bridge's end", PATIENCE, || self.child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for StdioServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A simple MCP client over stdio: starts a server, greets it, calls tools. The server ends with this value, or with this
//! process: its standard input does.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::place::alone;
use super::{DemoError, NAME};

/// The newest version of MCP that begins with `initialize`.
const PROTOCOL: &str = "2025-11-25";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the server may take to end.
const END: Duration = Duration::from_secs(2);

/// A client and its server.
pub(super) struct McpClient {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<Value>,
    last_id: u64,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("the MCP server did not answer in time")]
    TimedOut,
    #[error("the MCP server has ended")]
    Ended,
    /// A JSON-RPC error.
    #[error("the MCP server refused: {0}")]
    Refused(String),
    /// The tool itself failed.
    #[error("the tool failed: {0}")]
    Tool(String),
}

impl McpClient {
    /// Starts the model server with the tokens of the daemon at `socket`, for the API at `github`.
    pub(super) fn start(program: &Path, socket: &Path, github: &str) -> Result<Self, DemoError> {
        let mut command = alone(program);
        command.env("MCP_AUTHD_SOCKET", socket).env("MODEL_SERVER_GRANT", NAME).env("MODEL_SERVER_GITHUB_API", github);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|source| DemoError::NotStarted { program: program.to_owned(), source })?;
        let (tell, answers) = channel();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut client = Self { child, stdin, answers, last_id: 0 };
        let stdout = stdout.ok_or_else(|| DemoError::NoServer("it has no output".into()))?;
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // Whoever does not listen any more has ended.
            lines.filter_map(|line| serde_json::from_str(&line).ok()).try_for_each(|message| tell.send(message))
        });
        client.greet().map_err(|error| DemoError::NoServer(error.to_string()))?;
        Ok(client)
    }

    fn greet(&mut self) -> Result<(), CallError> {
        let client = json!({ "name": "mcp-authctl demo", "version": env!("CARGO_PKG_VERSION") });
        self.ask("initialize", json!({ "protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client }))?;
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
    }

    /// Calls a tool without arguments.
    pub(super) fn call(&mut self, tool: &str) -> Result<(), CallError> {
        let result = self.ask("tools/call", json!({ "name": tool, "arguments": {} }))?;
        if result["isError"] == true {
            return Err(CallError::Tool(result["content"][0]["text"].as_str().unwrap_or("it does not say why").to_owned()));
        }
        Ok(())
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, CallError> {
        self.last_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params }))?;
        let end = Instant::now() + PATIENCE;
        loop {
            use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
            let answer = self.answers.recv_timeout(end.saturating_duration_since(Instant::now())).map_err(|error| match error {
                Timeout => CallError::TimedOut,
                Disconnected => CallError::Ended,
            })?;
            // Notifications, and answers that came too late.
            if answer["id"] != self.last_id {
                continue;
            }
            return match answer.get("error") {
                Some(error) => Err(CallError::Refused(error["message"].as_str().unwrap_or("it does not say why").to_owned())),
                None => Ok(answer["result"].clone()),
            };
        }
    }

    fn send(&mut self, message: &Value) -> Result<(), CallError> {
        let stdin = self.stdin.as_mut().ok_or(CallError::Ended)?;
        stdin.write_all(format!("{message}\n").as_bytes()).and_then(|()| stdin.flush()).map_err(|_| CallError::Ended)
    }
}

impl Drop for McpClient {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let end = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                // It cannot refuse this.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

//! The MCP clients that measure: Streamable HTTP by hand over any stream, and a program on stdio. Both do as little as they can
//! besides: what they cost is in every figure.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use memchr::memmem::Finder;
use serde_json::{Value, json};

/// How much is read at once.
const PIECE: usize = 256 * 1024;
/// Where in a long message its id is looked for: this near to either end.
const NEAR: usize = 256;

/// A `tools/call` with these arguments.
pub(crate) fn call(arguments: &Value) -> (&'static str, Value) {
    ("tools/call", json!({ "name": "fill", "arguments": arguments }))
}

/// The same as a request of HTTP, with these header lines besides the usual ones.
pub(crate) fn request(target: &str, headers: &[String], arguments: &Value) -> Vec<u8> {
    let (method, params) = call(arguments);
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut lines = vec![format!("POST {target} HTTP/1.1")];
    lines.extend_from_slice(headers);
    lines.extend(["content-type: application/json", "accept: application/json, text/event-stream"].map(str::to_owned));
    lines.extend(["mcp-protocol-version: 2025-11-25".to_owned(), format!("content-length: {}", body.len())]);
    format!("{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
}

/// Sends a request and reads its answer, however long: how many bytes came.
pub(crate) fn download(stream: &mut (impl Read + Write), request: &[u8]) -> usize {
    stream.write_all(request).unwrap();
    let (mut piece, mut head, mut last, mut count) = (vec![0; PIECE], Vec::new(), Vec::new(), 0);
    let mut end = None;
    loop {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the answer was cut off after {count} bytes");
        count += read;
        if end.is_none() {
            head.extend_from_slice(&piece[..read]);
            end = End::of(&head);
        }
        let has_last_chunk = tail(&mut last, &piece[..read]);
        let is_over = match end {
            None => false,
            Some(End::At(length)) => count >= length,
            Some(End::LastChunk) => has_last_chunk,
        };
        if is_over {
            assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head[..NEAR.min(head.len())]));
            return count;
        }
    }
}

/// How the end of an answer is known.
#[derive(Clone, Copy)]
enum End {
    At(usize),
    LastChunk,
}

impl End {
    /// `None` as long as the head is not whole.
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut answer = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = answer.parse(bytes) else { return None };
        let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
        Some(length.map_or(Self::LastChunk, |length| Self::At(head + length)))
    }
}

/// Keeps the last bytes that came; whether they are the last chunk.
fn tail(kept: &mut Vec<u8>, piece: &[u8]) -> bool {
    const LAST: &[u8] = b"\r\n0\r\n\r\n";
    kept.extend_from_slice(&piece[piece.len().saturating_sub(LAST.len())..]);
    kept.drain(..kept.len().saturating_sub(LAST.len()));
    kept == LAST
}

/// An MCP server on stdio. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
    last_id: u64,
}

impl Program {
    /// Starts it. Its stderr is as the command says.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::with_capacity(PIECE, output), line: Vec::new(), last_id: 0 }
    }

    /// The handshake of 2025-11-25.
    pub(crate) fn initialize(&mut self) {
        let client = json!({ "name": "bench", "version": "1" });
        self.ask("initialize", &json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client }));
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string());
    }

    /// A request, and all that comes up to its answer: how many bytes that was. An error is none.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> usize {
        self.last_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params }).to_string());
        let id = format!("\"id\":{}", self.last_id);
        let (id, error) = (Finder::new(&id), Finder::new("\"error\":"));
        let mut count = 0;
        loop {
            self.line.clear();
            let read = self.output.read_until(b'\n', &mut self.line).unwrap();
            assert!(read > 0, "the program has ended");
            count += read;
            let (first, last) = (&self.line[..NEAR.min(read)], &self.line[read.saturating_sub(NEAR)..]);
            if id.find(first).or(id.find(last)).is_some() {
                assert_eq!(error.find(first), None, "{}", String::from_utf8_lossy(first));
                return count;
            }
        }
    }

    fn send(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

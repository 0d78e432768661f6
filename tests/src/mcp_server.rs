//! A remote MCP server as far as logins see it: its challenge, its metadata, and whether it takes a token. It says whatever a
//! test wants it to say.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::accept::Accepting;
use crate::request::Request;

struct State {
    metadata: Value,
    challenge: String,
    seen: Vec<String>,
    raw: Option<Vec<u8>>,
    accepts: Box<dyn Fn(&str) -> bool + Send>,
}

struct Shared {
    state: Mutex<State>,
    port: u16,
}

/// The server, at `/mcp` of a free loopback port. It ends with this value.
pub struct McpServer {
    _accepting: Accepting,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for McpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("McpServer").field("port", &self.shared.port).finish_non_exhaustive()
    }
}

impl McpServer {
    /// A server that names this authorization server, and takes no token until it is told which.
    #[track_caller]
    pub fn start(issuer: &str) -> Self {
        let make = |port, _| {
            let resource = format!("http://127.0.0.1:{port}/mcp");
            let metadata = json!({ "resource": resource, "authorization_servers": [issuer], "scopes_supported": ["mcp:read"] });
            let state = State { metadata, challenge: "Bearer".into(), seen: Vec::new(), raw: None, accepts: Box::new(|_| false) };
            Arc::new(Shared { state: Mutex::new(state), port })
        };
        let (accepting, shared) = Accepting::start(make, Shared::serve);
        Self { _accepting: accepting, shared }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.shared.port)
    }

    /// What its grant is called.
    pub fn name(&self) -> String {
        format!("127.0.0.1-{}", self.shared.port)
    }

    /// Changes its metadata.
    pub fn describe(&self, change: impl FnOnce(&mut Value)) {
        change(&mut self.shared.lock().metadata);
    }

    /// Challenges so from now on.
    pub fn challenge(&self, challenge: &str) {
        challenge.clone_into(&mut self.shared.lock().challenge);
    }

    /// Takes these tokens.
    pub fn accept(&self, accepts: impl Fn(&str) -> bool + Send + 'static) {
        self.shared.lock().accepts = Box::new(accepts);
    }

    /// Answers every request of MCP with these bytes, head and all, from now on.
    pub fn say(&self, bytes: impl Into<Vec<u8>>) {
        self.shared.lock().raw = Some(bytes.into());
    }

    /// Every request so far: `POST /mcp`.
    pub fn seen(&self) -> Vec<String> {
        self.shared.lock().seen.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) {
        // A client that goes away has its reasons.
        let Some(asked) = Request::read(&stream) else { return };
        let mut state = self.lock();
        state.seen.push(format!("{} {}", asked.method, asked.path));
        if let Some(raw) = state.raw.clone().filter(|_| asked.path == "/mcp") {
            drop(state);
            // A client that goes away has its reasons.
            let _ = stream.write_all(&raw);
            return;
        }
        let token = asked.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        let (status, header, body) = match asked.path.as_str() {
            "/.well-known/oauth-protected-resource/mcp" => (200, String::new(), state.metadata.to_string()),
            "/mcp" if (state.accepts)(token) => (200, String::new(), json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string()),
            "/mcp" => (401, format!("www-authenticate: {}\r\n", state.challenge), String::new()),
            _ => (404, String::new(), String::new()),
        };
        drop(state);
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} Status\r\n{header}content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        // A client that goes away has its reasons.
        let _ = stream.write_all(answer.as_bytes());
    }
}

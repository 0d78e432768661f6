//! The model MCP server on HTTP, as a client speaks to it by hand.

use serde_json::{Value, json};
use url::Url;

use crate::binaries::binary;
use crate::http::{Connection, HttpAnswer};
use crate::room::Room;
use crate::run::Running;
use crate::signer::Signer;

/// The issuer that it is told to trust.
const ISSUER: &str = "http://127.0.0.1:8731";

/// A model server on a free loopback port, which takes the tokens of a [`Signer`].
#[derive(Debug)]
pub struct ModelServer {
    /// Its URL, which is also the audience of the tokens for it.
    pub url: String,
    /// Its process.
    pub running: Running,
}

impl ModelServer {
    /// Starts it on a free port, for the tokens of a [`Signer`], and waits until it listens.
    #[track_caller]
    pub fn start(room: &Room, signer: &Signer) -> Self {
        Self::launch(
            room,
            &[("MODEL_SERVER_LISTEN", "127.0.0.1:0"), ("MODEL_SERVER_ISSUER", ISSUER), ("MCP_AUTHD_SOCKET", signer.socket())],
        )
    }

    /// Starts it with these variables besides the room's, and waits until it listens.
    #[track_caller]
    pub fn launch(room: &Room, variables: &[(&str, &str)]) -> Self {
        let mut command = room.command(&binary("mcp-auth-model-server"));
        command.envs(variables.iter().copied());
        let mut running = Running::start(command, "model-server", false);
        let configuration: Value = running.wait_for("its configuration", |said| {
            serde_json::from_str(said.lines().find_map(|line| line.split_once("OAuth configuration: "))?.1).ok()
        });
        let url = configuration["protected_resource"]["resource"].as_str().unwrap().to_owned();
        Self { url, running }
    }

    /// The claims of a good token for it.
    pub fn claims(&self) -> Value {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        json!({
            "iss": ISSUER, "aud": self.url, "sub": "alice", "client_id": "client", "sid": "1", "scope": "mcp:tools",
            "iat": now, "exp": now + 300, "jti": "zQaT9qz-for-the-model-server-zQaT9qz",
        })
    }

    /// A fresh connection.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        let url = Url::parse(&self.url).unwrap();
        Connection::tcp(url.host_str().unwrap(), url.port().unwrap()).unwrap()
    }

    /// `initialize`, with these header lines besides the usual ones.
    #[track_caller]
    pub fn initialize(&self, headers: &[(&str, &str)]) -> HttpAnswer {
        let client = json!({ "name": "by hand", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        self.post(headers, &json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }))
    }

    /// A JSON-RPC message, with these header lines besides the usual ones.
    #[track_caller]
    pub fn post(&self, headers: &[(&str, &str)], message: &Value) -> HttpAnswer {
        let mut all = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        all.extend_from_slice(headers);
        self.connect().request("POST", "/mcp", &all, &message.to_string()).unwrap()
    }
}

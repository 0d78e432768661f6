//! MCP servers of the official SDKs behind a login, in processes of their own.

use serde_json::{Value, json};
use url::Url;

use crate::binaries::{bare_command, mcp_python, node, source_folder};
use crate::http::get;
use crate::run::Running;

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// The official TypeScript SDK.
    TypeScript,
    /// The official Python SDK.
    Python,
}

/// A server that takes the tokens of one authorization server, and asks it of each. It ends with this value.
#[derive(Debug)]
pub struct ProtectedServer {
    /// Its URL, which is also the resource that tokens must be for.
    pub url: String,
    _running: Running,
}

impl ProtectedServer {
    /// Starts it on a free port, and waits until it listens.
    #[track_caller]
    pub fn start(sdk: Sdk, issuer: &str) -> Self {
        let (program, script) = match sdk {
            Sdk::TypeScript => (node(), "mcp/server.mjs"),
            Sdk::Python => (mcp_python(), "mcp/server.py"),
        };
        let mut command = bare_command(&program);
        command.arg(source_folder().join(script)).arg(json!({ "issuer": issuer }).to_string());
        let mut running = Running::start(command, "mcp-server", false);
        let url = running.wait_for("its URL", |said| {
            let ready = said.lines().find_map(|line| serde_json::from_str::<Value>(line).ok())?;
            ready["url"].as_str().map(str::to_owned)
        });
        Self { url, _running: running }
    }

    /// How many requests it has let in, and how many not.
    #[track_caller]
    pub fn seen(&self) -> (u64, u64) {
        let seen = get(&Url::parse(&self.url).unwrap().join("/seen").unwrap(), &[]).json();
        (seen["let_in"].as_u64().unwrap(), seen["kept_out"].as_u64().unwrap())
    }
}

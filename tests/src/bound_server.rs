//! A remote MCP server that takes tokens bound to a key (RFC 9449) and no others, and checks each proof as its own library does.

use std::collections::BTreeMap;
use std::process::{Child, ChildStdin};

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{get, post_json};
use crate::server::{STARTS, Server, start_node};

/// The server, in a process of its own. It ends with this value: its stdin closes.
#[derive(Debug)]
pub struct BoundServer {
    url: String,
    control: Url,
    child: Child,
    stdin: Option<ChildStdin>,
}

/// What came to it.
#[derive(Clone, Debug, Deserialize)]
pub struct SeenBound {
    /// Requests whose token and proof were good.
    pub good: u64,
    /// The same by HTTP method.
    pub methods: BTreeMap<String, u64>,
    /// Why others were refused: how often each.
    pub refused: BTreeMap<String, u64>,
    /// The thumbprints of the keys that proved, in order.
    pub keys: Vec<String>,
    /// The tokens that were proved, the first 8 hex digits of the SHA-256 of each.
    pub tokens: Vec<String>,
    /// Proofs that were never seen before.
    pub proofs: u64,
}

impl BoundServer {
    /// A server for the tokens of this authorization server, which says in its metadata that it takes no other kind.
    #[track_caller]
    pub fn start(server: &Server) -> Self {
        Self::demanding(server, "metadata")
    }

    /// The same, which says so by its `challenge` alone.
    #[track_caller]
    pub fn demanding(server: &Server, demand: &str) -> Self {
        let options = json!({ "issuer": server.issuer(), "demand": demand });
        let started = (0..STARTS).find_map(|_| start_node("resource.mjs", &options));
        let (mut child, ready) = started.expect("the server did not start: run tests/oidc-provider/resource.mjs");
        let control = Url::parse(&format!("http://127.0.0.1:{}/", ready["control"])).unwrap();
        Self { url: ready["url"].as_str().unwrap().to_owned(), control, stdin: child.stdin.take(), child }
    }

    /// The URL of the MCP server.
    pub fn url(&self) -> String {
        format!("{}/mcp", self.url)
    }

    /// A URL that leads there by a redirect.
    pub fn old_url(&self) -> String {
        format!("{}/old", self.url)
    }

    /// What its grant is called.
    pub fn name(&self) -> String {
        self.url.trim_start_matches("http://").replace(':', "-")
    }

    /// What came so far.
    #[track_caller]
    pub fn seen(&self) -> SeenBound {
        serde_json::from_value(get(&self.control.join("_test/seen").unwrap(), &[]).json()).unwrap()
    }

    /// Wants this nonce in every proof from now on.
    #[track_caller]
    pub fn want_nonce(&self, nonce: &str) {
        self.set(&json!({ "nonce": nonce }));
    }

    /// Takes no token, or those that are good.
    #[track_caller]
    pub fn reject(&self, reject: bool) {
        self.set(&json!({ "reject": reject }));
    }

    #[track_caller]
    fn set(&self, wishes: &Value) {
        assert_eq!(post_json(&self.control.join("_test/set").unwrap(), wishes).status, 200);
    }
}

impl Drop for BoundServer {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

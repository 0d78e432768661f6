//! The real authorization server: starts it, reads what it saw, causes its faults.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::binaries::{bare_command, kept_folder, node, source_folder};
use crate::http::{HttpAnswer, get, post_form, post_json};

/// The secret of its confidential clients (`basic`, `post`, `machine`).
pub const CLIENT_SECRET: &str = "zQcS9qz-a-client-secret-for-tests-only-zQcS9qz";

/// How often a script is started, and how long it may take to be ready.
pub(crate) const STARTS: usize = 3;
const START_PATIENCE: Duration = Duration::from_secs(30);

/// npm `oidc-provider` in a process of its own. It ends with this value: its stdin closes.
#[derive(Debug)]
pub struct Server {
    issuer: String,
    control: Url,
    child: Child,
    stdin: Option<ChildStdin>,
}

/// What the server saw since its start or the last reset.
#[derive(Clone, Debug, Deserialize)]
pub struct Counters {
    /// Requests by path, answered or not.
    pub requests: BTreeMap<String, u64>,
    /// Token requests by grant type; those that a fault answered are not in it.
    pub token: BTreeMap<String, GrantTypeCounters>,
    /// Token requests that wait for their answer.
    pub in_flight: u64,
    /// Used refresh tokens that came again.
    pub reuse: u64,
    /// Refresh tokens that were exchanged for a new one.
    pub refresh_tokens_used: u64,
    /// Every access token that was issued, in order.
    pub issued: Vec<Issued>,
    /// What was revoked, in order: `refresh_token`, `access_token`, `unknown`.
    pub revocations: Vec<String>,
    /// Requests that a fault answered.
    pub intercepted: u64,
}

/// Token requests of one grant type.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct GrantTypeCounters {
    /// All.
    pub requests: u64,
    /// Answered with a token.
    pub ok: u64,
    /// Answered with an OAuth error, by code.
    pub errors: BTreeMap<String, u64>,
}

/// One issued access token.
#[derive(Clone, Debug, Deserialize)]
pub struct Issued {
    /// The first 8 hex digits of its SHA-256.
    pub fingerprint: String,
    /// How it was got.
    pub grant_type: String,
    /// A short name for its family of refresh tokens.
    pub grant: Option<String>,
    /// When it expires, wall clock.
    pub expires_at_ms: u64,
    /// When it was issued, wall clock.
    pub at_ms: u64,
}

impl Counters {
    /// Requests with `grant_type=refresh_token`.
    pub fn refreshes(&self) -> GrantTypeCounters {
        self.token.get("refresh_token").cloned().unwrap_or_default()
    }

    /// Requests that came to a path.
    pub fn requests_to(&self, path: &str) -> u64 {
        self.requests.get(path).copied().unwrap_or(0)
    }
}

impl Server {
    /// A server whose access tokens live that long.
    #[track_caller]
    pub fn with_lifetime(seconds: u64) -> Self {
        Self::start(&json!({ "access_ttl": seconds }))
    }

    #[track_caller]
    fn start(options: &Value) -> Self {
        let started = (0..STARTS).find_map(|_| Self::start_once(options));
        started.expect("the authorization server did not start: run tests/oidc-provider/server.mjs")
    }

    fn start_once(options: &Value) -> Option<Self> {
        let (mut child, ready) = start_node("server.mjs", options)?;
        let stdin = child.stdin.take();
        let control = Url::parse(&format!("http://127.0.0.1:{}/", ready["control"])).unwrap();
        Some(Self { issuer: ready["issuer"].as_str().unwrap().to_owned(), control, child, stdin })
    }

    /// Its issuer, without a slash at the end.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// An address below the issuer.
    pub fn url(&self, path: &str) -> Url {
        Url::parse(&format!("{}{path}", self.issuer)).unwrap()
    }

    /// What it saw.
    #[track_caller]
    pub fn counters(&self) -> Counters {
        serde_json::from_value(get(&self.command("counters"), &[]).json()).unwrap()
    }

    /// Sends a test command; the list is at the top of server.mjs.
    #[track_caller]
    pub fn tell(&self, command: &str, body: &Value) {
        let answer = post_json(&self.command(command), body);
        assert_eq!(answer.status, 200, "{command}: {}", answer.body);
    }

    /// Whether the server takes an access token for valid now (RFC 7662).
    #[track_caller]
    pub fn is_active(&self, token: &str) -> bool {
        let answer = post_form(&self.url("/token/introspection"), &[], &[("client_id", "native"), ("token", token)]);
        answer.json()["active"] == json!(true)
    }

    /// What userinfo answers to an access token.
    #[track_caller]
    pub fn userinfo(&self, token: &str) -> HttpAnswer {
        get(&self.url("/me"), &[("authorization", &format!("Bearer {token}"))])
    }

    fn command(&self, name: &str) -> Url {
        self.control.join(&format!("_test/{name}")).unwrap()
    }
}

/// Starts a script of `tests/oidc-provider`; its first line says that it is ready. `None`: it did not say so in time. Node itself
/// sometimes waits for ever while it starts on a busy machine, before it reads a line of ours.
pub(crate) fn start_node(script: &str, options: &Value) -> Option<(Child, Value)> {
    let mut child = bare_command(&node())
        .arg(source_folder().join("oidc-provider").join(script))
        .arg(options.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(kept_log())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let (told, line) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // Whoever has given up does not listen any more.
        let _ = BufReader::new(stdout).read_line(&mut line).map(|_| told.send(line));
    });
    let Ok(ready) = line.recv_timeout(START_PATIENCE).map(|line| serde_json::from_str::<Value>(&line)) else {
        child.kill().unwrap();
        child.wait().unwrap();
        return None;
    };
    Some((child, ready.ok()?))
}

/// Where the server's own remarks go: one file, appended to, not searched for tokens (they are its own).
fn kept_log() -> File {
    OpenOptions::new().create(true).append(true).open(kept_folder("server").join("oidc-provider.log")).unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

//! An authorization server that misbehaves on demand, in ways that a real one will not. Everything a real server can show
//! is tested against [`crate::Server`].
//!
//! It rotates refresh tokens, notices every use of an old one and knows what it has committed at which instant. By
//! default it is honest; a [`Plan`] changes its next answers at one path. It runs on threads of this process, so a test
//! can act at a chosen [`Moment`] of a request, for one kill the daemon.

mod answer;
mod demands;
mod dialects;
mod grants;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::Url;

pub use answer::{Content, Delivery, Plan};
pub use demands::{Demands, Proof, Writing};
pub use grants::{Issued, Refresh, Reuse, Rules, Verdict, generation};

use crate::accept::Accepting;
use crate::request::{Request, members};
use crate::wait::wait_until;
use grants::Grants;

const PATIENCE: Duration = Duration::from_secs(30);

/// A moment in the life of a request, told to [`Rogue::on`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The request is read; nothing has happened yet.
    Arrived,
    /// It has taken effect: for a refresh, the old token is used up. No byte of the answer is sent.
    Committed,
    /// Half of the answer is sent.
    HalfAnswered,
    /// All of it is sent.
    Answered,
}

/// What the server saw since its start.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Requests by path.
    pub requests: BTreeMap<String, u64>,
    /// Why requests were refused that did not meet the [`Demands`], in order.
    pub unmet: Vec<String>,
    /// Every token request with `grant_type=refresh_token`, in order.
    pub refreshes: Vec<Refresh>,
    /// Every access token that was issued, in order.
    pub issued: Vec<Issued>,
    /// The tokens that were revoked, in order.
    pub revoked: Vec<String>,
    /// The code verifiers that came with codes, in order, good or not.
    pub verifiers: Vec<String>,
}

impl Seen {
    /// Requests that came to a path.
    pub fn requests_to(&self, path: &str) -> u64 {
        self.requests.get(path).copied().unwrap_or(0)
    }

    /// How many refreshes ended so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.refreshes.iter().filter(|refresh| refresh.verdict == verdict).count()
    }
}

type Watcher = Arc<dyn Fn(Moment, &str) + Send + Sync>;

struct State {
    grants: Grants,
    seen: Seen,
    plans: Vec<Plan>,
    watcher: Option<Watcher>,
    /// The `jti` of every client assertion that was accepted.
    jtis: BTreeSet<String>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ended: Arc<AtomicBool>,
    port: u16,
}

/// The server. It ends with this value; connections that hang are let go.
pub struct Rogue {
    accepting: Accepting,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Rogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rogue").field("port", &self.shared.port).finish_non_exhaustive()
    }
}

impl Rogue {
    /// A server on a free loopback port.
    #[track_caller]
    pub fn start(rules: Rules) -> Self {
        let state = State { grants: Grants::new(rules), seen: Seen::default(), plans: Vec::new(), watcher: None, jtis: BTreeSet::new() };
        let make = |port, ended| Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), ended, port });
        let (accepting, shared) = Accepting::start(make, Shared::serve);
        Self { accepting, shared }
    }

    /// Its issuer, without a slash at the end.
    pub fn issuer(&self) -> String {
        self.shared.issuer()
    }

    /// A `[providers.NAME]` table for this server, with further lines.
    pub fn provider_table(&self, name: &str, more: &str) -> String {
        format!("[providers.{name}]\nissuer = \"{}\"\nclient_id = \"native\"\nscopes = [\"mcp:read\"]\n{more}\n", self.issuer())
    }

    /// A `[providers.NAME]` table with this server's endpoints, without discovery, and with further lines.
    pub fn endpoints_table(&self, name: &str, more: &str) -> String {
        let issuer = self.issuer();
        format!(
            "[providers.{name}]\nauthorization_endpoint = \"{issuer}/authorize\"\ntoken_endpoint = \"{issuer}/token\"\n\
             client_id = \"native\"\nscopes = [\"mcp:read\"]\n{more}\n"
        )
    }

    /// Changes the rules from now on.
    pub fn rule(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.lock().grants.rules);
    }

    /// Answers so, before anything that was planned earlier.
    pub fn plan(&self, plan: Plan) {
        self.shared.lock().plans.insert(0, plan);
    }

    /// Back to honest answers. What hangs, goes on hanging.
    pub fn behave(&self) {
        self.shared.lock().plans.clear();
    }

    /// Calls `watcher` at each moment of each request, with its path, on the request's own thread.
    pub fn on(&self, watcher: impl Fn(Moment, &str) + Send + Sync + 'static) {
        self.shared.lock().watcher = Some(Arc::new(watcher));
    }

    /// Nobody is told of moments any more.
    pub fn on_nothing(&self) {
        self.shared.lock().watcher = None;
    }

    /// What it saw.
    pub fn seen(&self) -> Seen {
        self.shared.lock().seen.clone()
    }

    /// One look at what it saw, without a copy of it.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.shared.lock().seen)
    }

    /// Waits until `look` finds something in what it saw.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, look: impl Fn(&Seen) -> Option<T>) -> T {
        wait_until(what, PATIENCE, || self.look(&look))
    }

    /// Whether it takes an access token for valid now.
    pub fn is_active(&self, token: &str) -> bool {
        self.shared.lock().grants.is_active(token, Instant::now())
    }

    /// A login that was done elsewhere: its first refresh token.
    pub fn hand_out(&self) -> String {
        self.shared.lock().grants.hand_out()
    }

    /// Another client uses the newest refresh token of the `family`-th login (from 0), as a thief or a second machine does.
    pub fn steal(&self, family: usize) {
        self.shared.lock().grants.steal(family);
    }

    /// Ends the grant of the `family`-th login: its refresh token is answered `invalid_grant` from now on.
    pub fn revoke_family(&self, family: usize) {
        self.shared.lock().grants.revoke(family);
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.accepting.end();
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Holds a request until the server ends or the time is over.
    fn hold(&self, time: Duration) {
        let guard = self.lock();
        // Either way the request is let go.
        drop(self.changed.wait_timeout_while(guard, time, |_| !self.ended.load(Ordering::Relaxed)));
    }

    fn serve(&self, stream: TcpStream) {
        // A client that goes away has its reasons.
        let Some(asked) = Request::read(&stream) else { return };
        let (plan, watcher) = {
            let mut state = self.lock();
            *state.seen.requests.entry(asked.path.clone()).or_default() += 1;
            (state.next_plan(&asked.path), state.watcher.clone())
        };
        let tell = |moment| watcher.iter().for_each(|watcher| watcher(moment, &asked.path));
        tell(Moment::Arrived);
        let commit = plan.as_ref().is_none_or(|plan| plan.commit);
        let honest = self.lock().honest(&asked, &self.issuer(), commit);
        tell(Moment::Committed);
        let plan = plan.unwrap_or_else(|| Plan::honest(&asked.path));
        if !plan.delay.is_zero() {
            self.hold(plan.delay);
        }
        let bytes = plan.content.bytes(&honest);
        let wire = answer::Wire {
            half: &|| tell(Moment::HalfAnswered),
            hold: &|| self.hold(Duration::from_secs(3600)),
            ended: &|| self.ended.load(Ordering::Relaxed),
        };
        // The client may have gone; that is what some tests are about.
        let _ = plan.delivery.deliver(stream, &bytes, &wire);
        tell(Moment::Answered);
    }
}

impl State {
    fn next_plan(&mut self, path: &str) -> Option<Plan> {
        let at = self.plans.iter().position(|plan| plan.path == path || plan.path == "*")?;
        self.plans[at].times -= 1;
        let plan = self.plans[at].clone();
        if plan.times == 0 {
            self.plans.remove(at);
        }
        Some(plan)
    }

    /// What an honest server answers: status, further header lines, body.
    fn honest(&mut self, asked: &Request, issuer: &str, commit: bool) -> answer::Honest {
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration") => {
                answer::Honest::json(200, metadata(issuer))
            }
            ("GET", "/authorize") => match self.grants.rules.demands.authorization(asked) {
                Ok(()) => answer::Honest::redirect(&self.authorize(&members(asked.query.as_bytes()), issuer)),
                Err(unmet) => self.refused(unmet),
            },
            ("POST", "/device") => match self.grants.rules.demands.device(asked) {
                Ok(()) => answer::Honest::json(200, self.grants.device(issuer)),
                Err(unmet) => self.refused(unmet),
            },
            ("POST", "/token" | "/refresh") => self.token(asked, commit),
            ("POST", "/register") => {
                // RFC 7591: what was asked for comes back, with an id.
                let mut client: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
                client["client_id"] = format!("made-{}", self.seen.requests_to("/register")).into();
                answer::Honest::json(201, client)
            }
            ("POST", "/revoke") => {
                let token = members(&asked.body).remove("token").unwrap_or_default();
                if commit {
                    self.grants.forget(&token);
                    self.seen.revoked.push(token);
                }
                answer::Honest::json(200, json!({}))
            }
            ("GET", "/me") => {
                let token = asked.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
                match self.grants.subject(token, Instant::now()) {
                    Some(subject) => answer::Honest::json(200, json!({ "sub": subject })),
                    None => answer::Honest::json(401, json!({ "error": "invalid_token" })),
                }
            }
            _ => dialects::answer(self, asked).unwrap_or_else(|| answer::Honest::json(404, json!({ "error": "not_found" }))),
        }
    }

    fn token(&mut self, asked: &Request, commit: bool) -> answer::Honest {
        let demands = self.grants.rules.demands.clone();
        if let Err(unmet) = demands.token(asked, &mut self.jtis) {
            return self.refused(unmet);
        }
        let (status, body) = self.grants.token(&asked.fields(), commit, &mut self.seen);
        let body = demands.written(body);
        if demands.writing == Writing::Form { answer::Honest::form(status, &body) } else { answer::Honest::json(status, body) }
    }

    /// No client can heal by itself from this: it is none of the words that it knows.
    fn refused(&mut self, unmet: String) -> answer::Honest {
        let answer = answer::Honest::json(400, json!({ "error": "unmet_demand", "error_description": unmet }));
        self.seen.unmet.push(unmet);
        answer
    }

    fn authorize(&mut self, query: &BTreeMap<String, String>, issuer: &str) -> Url {
        let get = |name: &str| query.get(name).cloned().unwrap_or_default();
        let code = self.grants.authorize(&get("code_challenge"));
        let mut target = Url::parse(&get("redirect_uri")).expect("a redirect_uri");
        target.query_pairs_mut().append_pair("code", &code).append_pair("state", &get("state")).append_pair("iss", issuer);
        target
    }
}

fn metadata(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "registration_endpoint": format!("{issuer}/register"),
        "userinfo_endpoint": format!("{issuer}/me"),
        "scopes_supported": ["mcp:read"],
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": true,
    })
}

//! The blocking client: one method a route. It owns the kept connection and the rule when a request may be sent again;
//! reading answers is `answer`, connecting is `connection`.

use std::io::Write;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use interprocess::local_socket::Stream;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::answer::{BodyLines, Head, Incoming};
use crate::call::{Call, segment};
use crate::connection;
use crate::*;

/// A blocking client of the daemon. It connects at the first call, keeps the connection for the next one, and may be
/// shared between threads: a call that finds the connection in use opens one of its own.
///
/// Texts in answers are kept as the daemon sent them; whoever prints them to a terminal removes control characters.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    patience: Duration,
    kept: Mutex<Option<Kept>>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no socket, or nobody listens on it.
    #[error("mcp-authd is not running")]
    NotRunning {
        /// Where its socket would be.
        path: PathBuf,
    },
    /// Another user's process listens on the socket; nothing was sent to it.
    #[error("the socket belongs to another user's process, nothing was sent to it")]
    NotOurDaemon {
        /// The socket.
        path: PathBuf,
        /// The user that the process runs as, when the platform tells.
        owner: Option<u32>,
    },
    /// The daemon speaks a newer protocol than this client.
    #[error("this program is too old for the running mcp-authd (protocol {daemon}, this program knows {PROTO_VERSION})")]
    TooOld {
        /// The daemon's protocol version.
        daemon: u32,
    },
    /// The daemon did not accept or answer in time.
    #[error("mcp-authd did not answer in time")]
    TimedOut,
    /// The answer is not one of this protocol.
    #[error("mcp-authd's answer makes no sense: {0}")]
    Protocol(#[from] Malformed),
    /// The connection failed.
    #[error("the connection to mcp-authd failed: {0}")]
    Io(#[source] std::io::Error),
    /// The daemon refused, or could not do it.
    #[error("{0}")]
    Api(Box<ErrorBody>),
}

/// What is wrong with an answer. It never holds the answer itself, which may hold a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The head is not an HTTP/1.1 answer.
    #[error("its head is not HTTP")]
    Head,
    /// The body's framing is broken.
    #[error("its body is not framed as HTTP demands")]
    Body,
    /// The connection ended in the middle.
    #[error("it was cut off")]
    Truncated,
    /// It is larger than any answer of the protocol.
    #[error("it is too large")]
    TooLarge,
    /// The body is not the JSON that the route promises.
    #[error("its content is not what this version expects")]
    Content,
    /// An error status without an error body.
    #[error("HTTP status {0} without a reason")]
    Status(u16),
}

impl Client {
    /// A client of the daemon whose socket is at `path`, usually [`socket_path`].
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), patience: ANSWER_PATIENCE, kept: Mutex::new(None) }
    }

    /// Sets how long one read of an answer may take, 40 s at first: a token can take 30 s. What may wait for a person at the
    /// keychain's prompt has 130 s at least, and streams are not bounded.
    /// Without effect on Windows.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `POST /v1/token`.
    pub fn token(&self, request: &TokenRequest) -> Result<TokenAnswer, ClientError> {
        self.call(&build(Call::post("/v1/token", request))?)
    }

    /// `POST /v1/capabilities`: a socket for this process and what it starts, for these grants and nothing else.
    pub fn capability(&self, request: &CapabilityRequest) -> Result<Capability, ClientError> {
        self.call(&build(Call::post("/v1/capabilities", request))?)
    }

    /// `GET /v1/who`: what the daemon takes this program for.
    pub fn who(&self) -> Result<Program, ClientError> {
        self.call(&Call::get("/v1/who"))
    }

    /// `GET /v1/grants`.
    pub fn grants(&self) -> Result<Vec<GrantSummary>, ClientError> {
        self.call(&Call::get("/v1/grants"))
    }

    /// `GET /v1/grants/NAME`.
    pub fn grant(&self, name: &GrantName) -> Result<GrantSummary, ClientError> {
        self.call(&Call::get(grant_path(name)))
    }

    /// `PUT /v1/grants/NAME`: stores a static token.
    pub fn add_token(&self, name: &GrantName, token: &StaticToken) -> Result<GrantSummary, ClientError> {
        self.call(&build(Call::put(grant_path(name), token))?)
    }

    /// `DELETE /v1/grants/NAME`: revokes and forgets.
    pub fn logout(&self, name: &GrantName, request: &LogoutRequest) -> Result<LogoutAnswer, ClientError> {
        let path = grant_path(name);
        self.call(&if *request == LogoutRequest::default() { Call::delete(path) } else { build(Call::delete_with(path, request))? })
    }

    /// `POST /v1/grants/NAME/refresh`.
    pub fn refresh(&self, name: &GrantName, request: &RefreshRequest) -> Result<GrantSummary, ClientError> {
        self.call(&build(Call::post(format!("{}/refresh", grant_path(name)), request))?)
    }

    /// `POST /v1/logins`: starts or joins a login. Dropping the events is going away.
    pub fn login(&self, request: &LoginRequest) -> Result<Lines<LoginEvent>, ClientError> {
        self.stream(&build(Call::post("/v1/logins", request))?)
    }

    /// `POST /v1/logins/ID/redirect`: hands over a redirect URL that a person pasted.
    pub fn pasted_redirect(&self, id: &str, redirect: &PastedRedirect) -> Result<(), ClientError> {
        self.send(&build(Call::post(format!("/v1/logins/{}/redirect", segment(id)), redirect))?).map(drop)
    }

    /// `POST /v1/logins/ID/decision`: what becomes of a login of another account than the grant holds.
    pub fn decide_login(&self, id: &str, decision: &LoginDecision) -> Result<(), ClientError> {
        self.send(&build(Call::post(format!("/v1/logins/{}/decision", segment(id)), decision))?).map(drop)
    }

    /// `DELETE /v1/logins/ID`.
    pub fn cancel_login(&self, id: &str) -> Result<(), ClientError> {
        self.send(&Call::delete(format!("/v1/logins/{}", segment(id)))).map(drop)
    }

    /// `GET /v1/providers`.
    pub fn providers(&self) -> Result<Vec<ProviderSummary>, ClientError> {
        self.call(&Call::get("/v1/providers"))
    }

    /// `PUT /v1/providers/NAME`.
    pub fn define_provider(&self, name: &str, definition: &ProviderDefinition) -> Result<ProviderSummary, ClientError> {
        self.call(&build(Call::put(format!("/v1/providers/{}", segment(name)), definition))?)
    }

    /// `PUT /v1/providers/NAME/secret`.
    pub fn set_client_secret(&self, name: &str, request: &ClientSecretRequest) -> Result<ProviderSummary, ClientError> {
        self.call(&build(Call::put(format!("/v1/providers/{}/secret", segment(name)), request))?)
    }

    /// `POST /v1/vault/setup`.
    pub fn vault_setup(&self, request: &VaultSetup) -> Result<VaultStatus, ClientError> {
        self.call_patiently(&build(Call::post("/v1/vault/setup", request))?)
    }

    /// `POST /v1/vault/unlock`.
    pub fn vault_unlock(&self, request: &VaultUnlock) -> Result<VaultStatus, ClientError> {
        self.call_patiently(&build(Call::post("/v1/vault/unlock", request))?)
    }

    /// `POST /v1/vault/lock`.
    pub fn vault_lock(&self) -> Result<VaultStatus, ClientError> {
        self.call(&Call::trigger("/v1/vault/lock"))
    }

    /// `POST /v1/vault/rekey`.
    pub fn vault_rekey(&self, request: &VaultRekey) -> Result<VaultStatus, ClientError> {
        self.call_patiently(&build(Call::post("/v1/vault/rekey", request))?)
    }

    /// `POST /v1/vault/backup`.
    pub fn vault_backup(&self, request: &VaultBackup) -> Result<VaultStatus, ClientError> {
        self.call(&build(Call::post("/v1/vault/backup", request))?)
    }

    /// `POST /v1/reload`.
    pub fn reload(&self) -> Result<ConfigStatus, ClientError> {
        self.call(&Call::trigger("/v1/reload"))
    }

    /// `GET /v1/issuer/approvals/CODE`: what waits under the code of the issuer's page.
    pub fn approval(&self, code: &str) -> Result<Approval, ClientError> {
        self.call(&Call::get(approval_path(code)))
    }

    /// `POST /v1/issuer/approvals/CODE`: decides it.
    pub fn decide(&self, code: &str, decision: &ApprovalDecision) -> Result<Approval, ClientError> {
        self.call(&build(Call::post(approval_path(code), decision))?)
    }

    /// `GET /v1/policy`.
    pub fn policy(&self) -> Result<Policy, ClientError> {
        self.call(&Call::get("/v1/policy"))
    }

    /// `POST /v1/policy`: one more rule.
    pub fn add_rule(&self, rule: &NewRule) -> Result<Rule, ClientError> {
        self.call(&build(Call::post("/v1/policy", rule))?)
    }

    /// `DELETE /v1/policy/ID`: takes a rule, or a remembered consent, away.
    pub fn remove_rule(&self, id: u32) -> Result<RuleRemoved, ClientError> {
        self.call(&Call::delete(format!("/v1/policy/{id}")))
    }

    /// `DELETE /v1/policy`: takes every rule and every remembered consent away.
    pub fn reset_policy(&self) -> Result<Policy, ClientError> {
        self.call(&Call::delete("/v1/policy"))
    }

    /// `POST /v1/policy/test`: what would happen if a program asked.
    pub fn test_policy(&self, question: &PolicyQuestion) -> Result<PolicyAnswer, ClientError> {
        self.call(&build(Call::post("/v1/policy/test", question))?)
    }

    /// `GET /v1/consents`: what waits for a person's word.
    pub fn consents(&self) -> Result<Vec<Consent>, ClientError> {
        self.call(&Call::get("/v1/consents"))
    }

    /// `GET /v1/consents/ID`.
    pub fn consent(&self, id: &str) -> Result<Consent, ClientError> {
        self.call(&Call::get(consent_path(id)))
    }

    /// `POST /v1/consents/ID`: decides it.
    pub fn decide_consent(&self, id: &str, decision: &ConsentDecision) -> Result<Consent, ClientError> {
        self.call(&build(Call::post(consent_path(id), decision))?)
    }

    /// `GET /issuer/keys`: a JWK Set (RFC 7517 section 5).
    pub fn issuer_keys(&self) -> Result<serde_json::Value, ClientError> {
        self.call(&Call::get("/issuer/keys"))
    }

    /// `GET /v1/relay/clients`: the clients of the relay's port.
    pub fn relay_clients(&self) -> Result<Vec<RelayClient>, ClientError> {
        self.call(&Call::get("/v1/relay/clients"))
    }

    /// `POST /v1/relay/clients`: a secret for one more.
    pub fn add_relay_client(&self, client: &NewRelayClient) -> Result<AddedRelayClient, ClientError> {
        self.call(&build(Call::post("/v1/relay/clients", client))?)
    }

    /// `DELETE /v1/relay/clients/NAME`: its secret is good no more.
    pub fn remove_relay_client(&self, name: &str) -> Result<RelayClient, ClientError> {
        self.call(&Call::delete(format!("/v1/relay/clients/{}", segment(name))))
    }

    /// `GET /v1/status`. [`ClientError::TooOld`] when the daemon speaks a newer protocol.
    pub fn status(&self) -> Result<Status, ClientError> {
        decode_status(&self.send(&Call::get("/v1/status"))?)
    }

    /// `GET /v1/doctor`: whether the providers can be reached, which takes up to 15 s.
    pub fn doctor(&self) -> Result<Vec<ProviderReach>, ClientError> {
        self.call(&Call::get("/v1/doctor"))
    }

    /// `GET /v1/notifications`: whether a person can be told anything on the desktop, which takes up to 5 s.
    pub fn notifications(&self) -> Result<Notifications, ClientError> {
        self.call(&Call::get("/v1/notifications"))
    }

    /// `GET /v1/events`: what changes from now on.
    pub fn events(&self) -> Result<Lines<Event>, ClientError> {
        self.stream(&Call::get("/v1/events"))
    }

    /// `GET /v1/audit`: who got what, the oldest first. [`AuditRequest::follow`] is for [`Client::follow_audit`].
    pub fn audit(&self, request: &AuditRequest) -> Result<Vec<AuditLine>, ClientError> {
        let request = AuditRequest { follow: false, ..request.clone() };
        self.call(&build(Call::get_with("/v1/audit", &request))?)
    }

    /// `GET /v1/audit`: the same, and what happens from now on.
    pub fn follow_audit(&self, request: &AuditRequest) -> Result<Lines<AuditLine>, ClientError> {
        let request = AuditRequest { follow: true, ..request.clone() };
        self.stream(&build(Call::get_with("/v1/audit", &request))?)
    }

    fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        decode(&self.send(call)?)
    }

    /// The same, on a connection of its own, for what may wait for a person.
    fn call_patiently<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        Self::new(&self.path).with_patience(self.patience.max(PROMPT_PATIENCE)).call(call)
    }

    /// Sends a request and reads the whole answer; the connection is kept for the next call.
    fn send(&self, call: &Call) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let (mut incoming, head) = self.exchange(call)?;
        let body = incoming.body(&head)?;
        if head.keep {
            self.put_back(incoming);
        }
        check(head.status, &body)?;
        Ok(body)
    }

    fn stream<T>(&self, call: &Call) -> Result<Lines<T>, ClientError> {
        let (mut incoming, head) = self.exchange(call)?;
        if head.status >= 300 {
            let body = incoming.body(&head)?;
            check(head.status, &body)?;
        }
        connection::set_patience(incoming.stream(), None).map_err(ClientError::Io)?;
        Ok(Lines { body: BodyLines::new(&head), incoming, ended: false, of: PhantomData })
    }

    /// Up to the head of the answer. A kept connection may have gone stale (the daemon closes idle ones, or was
    /// restarted); the request is then sent again on a fresh one, but only if no byte of an answer came.
    fn exchange(&self, call: &Call) -> Result<(Kept, Head), ClientError> {
        let request = call.to_bytes();
        if let Some(kept) = self.take_kept() {
            match converse(kept, &request) {
                Err((error, begun)) if begun || !is_hang_up(&error) => return Err(error),
                Err(_) => {}
                Ok(answered) => return Ok(answered),
            }
        }
        let stream = connection::connect(&self.path)?;
        connection::set_patience(&stream, Some(self.patience)).map_err(ClientError::Io)?;
        converse(Incoming::new(stream), &request).map_err(|(error, _)| error)
    }

    fn take_kept(&self) -> Option<Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    fn put_back(&self, connection: Kept) {
        *self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(connection);
    }
}

/// A streamed answer, one JSON line at a time. It ends when the daemon ends it; dropping it closes the connection.
pub struct Lines<T> {
    incoming: Kept,
    body: BodyLines,
    ended: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for Lines<T> {
    type Item = Result<T, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = match self.body.next(&mut self.incoming) {
            Ok(None) => None,
            Ok(Some(line)) => Some(decode(&line)),
            Err(error) => Some(Err(error)),
        };
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

impl<T> std::fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// A token takes the daemon at most 30 s.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_secs(40);
/// A person has two minutes at the keychain's prompt.
const PROMPT_PATIENCE: Duration = Duration::from_secs(130);

type Kept = Incoming<Stream>;

impl std::fmt::Debug for Incoming<Stream> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Incoming")
    }
}

pub(crate) fn grant_path(name: &GrantName) -> String {
    format!("/v1/grants/{name}")
}

fn approval_path(code: &str) -> String {
    format!("/v1/issuer/approvals/{}", segment(code))
}

fn consent_path(id: &str) -> String {
    format!("/v1/consents/{}", segment(id))
}

pub(crate) fn build(call: Result<Call, serde_json::Error>) -> Result<Call, ClientError> {
    call.map_err(|_| Malformed::Content.into())
}

pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    // serde's own error quotes what it read, which may be a token.
    serde_json::from_slice(body).map_err(|_| Malformed::Content.into())
}

/// The version is read before the rest: a newer daemon's status may look different.
pub(crate) fn decode_status(body: &[u8]) -> Result<Status, ClientError> {
    #[derive(serde::Deserialize)]
    struct Version {
        proto: u32,
    }
    let Version { proto } = decode(body)?;
    if proto > PROTO_VERSION { Err(ClientError::TooOld { daemon: proto }) } else { decode(body) }
}

pub(crate) fn check(status: u16, body: &[u8]) -> Result<(), ClientError> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    let error = serde_json::from_slice(body).map_err(|_| Malformed::Status(status))?;
    Err(ClientError::Api(Box::new(error)))
}

fn converse(mut connection: Kept, request: &[u8]) -> Result<(Kept, Head), (ClientError, bool)> {
    let sent = connection.stream().write_all(request);
    // Even if the daemon hung up on the request it may have said why: an answer to a connection over a limit.
    match (connection.head(), sent) {
        (Ok(head), _) => Ok((connection, head)),
        (Err((_, false)), Err(error)) => Err((ClientError::Io(error), false)),
        (Err(failure), _) => Err(failure),
    }
}

/// Whether the other side has closed the connection.
fn is_hang_up(error: &ClientError) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    match error {
        ClientError::Protocol(Malformed::Truncated) => true,
        ClientError::Io(error) => matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted | NotConnected),
        _ => false,
    }
}

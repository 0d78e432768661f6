//! The table of routes: method, path, the right that it needs, and the function that answers. Everything that a client
//! can ask for is in this file; what comes of it is the broker's business.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mcp_auth_proto::{ApprovalState, AuditRequest, ErrorBody, ErrorCode, GrantName, TokenRequest, event};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::capability::Capabilities;
use super::{Answer, Answerer, Call, deeds, read};
use crate::audit::Note;
use crate::broker::Broker;
use crate::issuer::Issuer;
use crate::oauth::text::is_scope;
use crate::policy::{self, Decision, Right};
use crate::relay;

/// Answers calls by the table.
///
/// `occupied` is that of the listener's [`super::Limits`].
pub fn answerer(broker: Broker, issuer: Issuer, capabilities: Capabilities, occupied: Arc<AtomicUsize>) -> Answerer {
    let behind = Arc::new(Behind { broker, issuer, capabilities, occupied, deeds: Arc::new(Semaphore::new(MOST_DEEDS)) });
    Arc::new(move |call| {
        let found = find(&call);
        let behind = behind.clone();
        Box::pin(async move {
            let answered = match found {
                Ok((route, name)) => answered(route, &behind, call, name).await,
                Err(error) if call.stream.is_some() => Ok(relay::refuse(call, error).await),
                Err(error) => Err(error),
            };
            answered.into()
        })
    })
}

/// What a line of the table answers, if the policy agrees; and the audit's note of it.
async fn answered(route: &'static Route, behind: &Behind, call: Call, name: String) -> Result<Answer, ErrorBody> {
    if let Err(error) = permitted(&call, route.right, (!name.is_empty()).then_some(name.as_str())) {
        let asked = (!name.is_empty()).then(|| TokenRequest::for_grant(name));
        behind.broker.denied(call.caller, Some(format!("{} {}", route.method, route.path)), asked, error.to_string());
        return Err(error);
    }
    // Most requests are for tokens, which are noted where their grant is known.
    if matches!(route.right, Right::Token | Right::Look) {
        return (route.answer)(behind, call, name).await;
    }
    let line = (route.method, route.path);
    let (behind, caller) = (behind.clone(), call.caller.clone());
    let is_carried_out = deeds::is_carried_out(line);
    // Deeds of those who have gone take no connection's seat, so they are counted.
    let room = if is_carried_out { Some(behind.deeds.clone().acquire_owned().await) } else { None };
    let noted = async move {
        let _room = room;
        // Whoever changes something is looked up first: `mcp-authctl` ends with the answer. What gets a socket of its own is about
        // to become another program, which is the one to be noted.
        if route.method != "GET" && route.right != Right::Capability {
            caller.who().await;
        }
        let ended = (route.answer)(&behind, call, name.clone()).await;
        if let Some(note) = deeds::note(line, &name, &ended) {
            behind.broker.audit().note_by(&caller, note);
        }
        ended
    };
    if !is_carried_out {
        return noted.await;
    }
    // This future ends with the connection, and who hangs up early must not stay untold of.
    tokio::spawn(noted).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// One line of the table. In `path` a `*` stands for one segment, which the function gets decoded.
struct Route {
    method: &'static str,
    path: &'static str,
    right: Right,
    answer: fn(&Behind, Call, String) -> Outcome,
}

/// What is behind the routes.
#[derive(Clone)]
struct Behind {
    broker: Broker,
    issuer: Issuer,
    capabilities: Capabilities,
    /// How many connections there are.
    occupied: Arc<AtomicUsize>,
    /// Room for what is carried out whether anybody waits for its end or not.
    deeds: Arc<Semaphore>,
}

/// How much is carried out at a time.
const MOST_DEEDS: usize = 64;

type Outcome = Pin<Box<dyn Future<Output = Result<Answer, ErrorBody>> + Send>>;

#[rustfmt::skip]
const TABLE: &[Route] = &[
    Route { method: "POST", path: "/v1/token", right: Right::Token, answer: |b, c, _| Box::pin(token(b.broker.clone(), c)) },
    Route { method: "POST", path: "/v1/capabilities", right: Right::Capability, answer: |b, c, _| Box::pin(capability(b.clone(), c)) },
    Route { method: "GET", path: "/v1/who", right: Right::Look, answer: |_, c, _| Box::pin(who(c)) },
    Route { method: "GET", path: "/v1/grants", right: Right::Look, answer: |b, c, _| Box::pin(grants(b.broker.clone(), c)) },
    Route { method: "GET", path: "/v1/grants/*", right: Right::Look, answer: |b, c, n| Box::pin(grant(b.broker.clone(), c, n)) },
    Route { method: "PUT", path: "/v1/grants/*", right: Right::Change, answer: |b, c, n| Box::pin(add_token(b.broker.clone(), c, n)) },
    Route { method: "DELETE", path: "/v1/grants/*", right: Right::Change, answer: |b, c, n| Box::pin(logout(b.broker.clone(), c, n)) },
    Route { method: "POST", path: "/v1/grants/*/refresh", right: Right::Change, answer: |b, c, n| Box::pin(refresh(b.broker.clone(), c, n)) },
    Route { method: "POST", path: "/v1/logins", right: Right::Login, answer: |b, c, _| Box::pin(login(b.broker.clone(), c)) },
    Route { method: "POST", path: "/v1/logins/*/redirect", right: Right::Login, answer: |b, c, n| Box::pin(pasted_redirect(b.broker.clone(), c, n)) },
    Route { method: "POST", path: "/v1/logins/*/decision", right: Right::Login, answer: |b, c, n| Box::pin(decide_login(b.broker.clone(), c, n)) },
    Route { method: "DELETE", path: "/v1/logins/*", right: Right::Login, answer: |b, c, n| Box::pin(cancel_login(b.broker.clone(), c, n)) },
    Route { method: "GET", path: "/v1/providers", right: Right::Look, answer: |b, c, _| Box::pin(providers(b.broker.clone(), c)) },
    Route { method: "PUT", path: "/v1/providers/*", right: Right::Configure, answer: |b, c, n| Box::pin(define_provider(b.broker.clone(), c, n)) },
    Route { method: "PUT", path: "/v1/providers/*/secret", right: Right::Configure, answer: |b, c, n| Box::pin(set_client_secret(b.broker.clone(), c, n)) },
    Route { method: "POST", path: "/v1/vault/setup", right: Right::Vault, answer: |b, c, _| Box::pin(vault_setup(b.broker.clone(), c)) },
    Route { method: "POST", path: "/v1/vault/unlock", right: Right::Vault, answer: |b, c, _| Box::pin(vault_unlock(b.broker.clone(), c)) },
    Route { method: "POST", path: "/v1/vault/lock", right: Right::Vault, answer: |b, c, _| Box::pin(vault_lock(b.broker.clone(), c)) },
    Route { method: "POST", path: "/v1/vault/rekey", right: Right::Vault, answer: |b, c, _| Box::pin(vault_rekey(b.broker.clone(), c)) },
    Route { method: "POST", path: "/v1/vault/backup", right: Right::Vault, answer: |b, c, _| Box::pin(vault_backup(b.broker.clone(), c)) },
    Route { method: "POST", path: "/v1/reload", right: Right::Configure, answer: |b, c, _| Box::pin(reload(b.broker.clone(), c)) },
    Route { method: "GET", path: "/v1/status", right: Right::Look, answer: |b, c, _| Box::pin(status(b.broker.clone(), c)) },
    Route { method: "GET", path: "/v1/doctor", right: Right::Look, answer: |b, c, _| Box::pin(doctor(b.broker.clone(), c)) },
    Route { method: "GET", path: "/v1/notifications", right: Right::Look, answer: |b, c, _| Box::pin(notifications(b.broker.clone(), c)) },
    Route { method: "GET", path: "/v1/events", right: Right::Look, answer: |b, c, _| Box::pin(events(b.broker.clone(), c)) },
    Route { method: "GET", path: "/v1/policy", right: Right::Look, answer: |b, c, _| Box::pin(policy(b.broker.clone(), c)) },
    Route { method: "POST", path: "/v1/policy", right: Right::Policy, answer: |b, c, _| Box::pin(add_rule(b.broker.clone(), c)) },
    Route { method: "DELETE", path: "/v1/policy", right: Right::Policy, answer: |b, c, _| Box::pin(reset_policy(b.broker.clone(), c)) },
    Route { method: "POST", path: "/v1/policy/test", right: Right::Look, answer: |b, c, _| Box::pin(test_policy(b.broker.clone(), c)) },
    Route { method: "DELETE", path: "/v1/policy/*", right: Right::Policy, answer: |b, c, n| Box::pin(remove_rule(b.broker.clone(), c, n)) },
    Route { method: "GET", path: "/v1/consents", right: Right::Approve, answer: |b, c, _| Box::pin(consents(b.broker.clone(), c)) },
    Route { method: "GET", path: "/v1/consents/*", right: Right::Approve, answer: |b, c, n| Box::pin(consent(b.broker.clone(), c, n)) },
    Route { method: "POST", path: "/v1/consents/*", right: Right::Approve, answer: |b, c, n| Box::pin(decide_consent(b.broker.clone(), c, n)) },
    Route { method: "GET", path: "/v1/audit", right: Right::Look, answer: |b, c, _| Box::pin(audit(b.broker.clone(), c)) },
    Route { method: "GET", path: "/metrics", right: Right::Look, answer: |b, c, _| Box::pin(metrics(b.clone(), c)) },
    Route { method: "POST", path: "/mcp/*", right: Right::Relay, answer: |b, c, n| Box::pin(mcp(b.broker.clone(), c, n)) },
    Route { method: "GET", path: "/mcp/*", right: Right::Relay, answer: |b, c, n| Box::pin(mcp(b.broker.clone(), c, n)) },
    Route { method: "DELETE", path: "/mcp/*", right: Right::Relay, answer: |b, c, n| Box::pin(mcp(b.broker.clone(), c, n)) },
    Route { method: "GET", path: "/v1/relay/clients", right: Right::Look, answer: |b, c, _| Box::pin(relay_clients(b.broker.clone(), c)) },
    Route { method: "POST", path: "/v1/relay/clients", right: Right::Policy, answer: |b, c, _| Box::pin(add_relay_client(b.broker.clone(), c)) },
    Route { method: "DELETE", path: "/v1/relay/clients/*", right: Right::Policy, answer: |b, c, n| Box::pin(remove_relay_client(b.broker.clone(), c, n)) },
    Route { method: "GET", path: "/issuer/keys", right: Right::Look, answer: |b, c, _| Box::pin(issuer_keys(b.issuer.clone(), c)) },
    Route { method: "GET", path: "/v1/issuer/approvals/*", right: Right::Approve, answer: |b, c, n| Box::pin(approval(b.issuer.clone(), c, n)) },
    Route { method: "POST", path: "/v1/issuer/approvals/*", right: Right::Approve, answer: |b, c, n| Box::pin(decide(b.clone(), c, n)) },
];

/// The busiest line of the table, as the audit calls it.
const TOKEN_ROUTE: &str = "POST /v1/token";

async fn token(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    let request: mcp_auth_proto::TokenRequest = read(&call.body)?;
    are_scopes(&request.scopes)?;
    // Which grant a resource means the broker finds out.
    if let Err(error) = permitted(&call, Right::Token, request.grant.as_deref()) {
        broker.denied(call.caller, Some(TOKEN_ROUTE.into()), Some(request), error.to_string());
        return Err(error);
    }
    Answer::json(&broker.token(request, call.caller).await?)
}

async fn capability(behind: Behind, call: Call) -> Result<Answer, ErrorBody> {
    let only = behind.broker.capability(read(&call.body)?).await?;
    let grants: Vec<_> = only.grants().cloned().collect();
    let names = only.names();
    let (path, is_new) = behind.capabilities.open(&call.caller, only).await?;
    if is_new {
        behind.broker.audit().note_by(&call.caller, Note::of(event::CAPABILITY_OPENED).about(&names));
        let process = call.caller.peer().pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
        behind.broker.tell(event::CAPABILITY_OPENED, format!("{names}{process}"));
    }
    let unspeakable = || ErrorBody::new(ErrorCode::Conflict, "the path of the daemon's socket is not UTF-8");
    Answer::json(&mcp_auth_proto::Capability { socket: path.to_str().ok_or_else(unspeakable)?.to_owned(), grants })
}

/// What the daemon takes the caller for.
async fn who(call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&call.caller.who().await.shown())
}

async fn grants(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.grants().await?)
}

async fn grant(broker: Broker, call: Call, name: String) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.grant(grant_name(&name)?).await?)
}

async fn add_token(broker: Broker, call: Call, name: String) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.add_token(grant_name(&name)?, read(&call.body)?).await?)
}

async fn logout(broker: Broker, call: Call, name: String) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.logout(grant_name(&name)?, read(&call.body)?).await?)
}

async fn refresh(broker: Broker, call: Call, name: String) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.refresh(grant_name(&name)?, read(&call.body)?).await?)
}

async fn login(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    let request: mcp_auth_proto::LoginRequest = read(&call.body)?;
    are_scopes(request.scopes.as_deref().unwrap_or_default())?;
    Ok(Answer::Login(broker.login(request, call.caller).await?))
}

async fn pasted_redirect(broker: Broker, call: Call, id: String) -> Result<Answer, ErrorBody> {
    broker.pasted_redirect(id, read(&call.body)?).await?;
    Answer::json(&Nothing {})
}

async fn decide_login(broker: Broker, call: Call, id: String) -> Result<Answer, ErrorBody> {
    broker.decide_login(id, read(&call.body)?).await?;
    Answer::json(&Nothing {})
}

async fn cancel_login(broker: Broker, call: Call, id: String) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    broker.cancel_login(id).await?;
    Answer::json(&Nothing {})
}

async fn providers(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.providers().await?)
}

async fn define_provider(broker: Broker, call: Call, name: String) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.define_provider(name, read(&call.body)?).await?)
}

async fn set_client_secret(broker: Broker, call: Call, name: String) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.set_client_secret(name, read(&call.body)?).await?)
}

async fn vault_setup(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.vault_setup(read(&call.body)?).await?)
}

async fn vault_unlock(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.vault_unlock(read(&call.body)?).await?)
}

async fn vault_lock(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.vault_lock().await?)
}

async fn vault_rekey(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.vault_rekey(read(&call.body)?).await?)
}

async fn vault_backup(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.vault_backup(read(&call.body)?).await?)
}

async fn reload(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.reload().await?)
}

async fn status(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.status().await?)
}

async fn doctor(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.doctor().await?)
}

async fn notifications(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.notifications().await?)
}

async fn events(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Ok(Answer::Events(broker.events().await?))
}

async fn policy(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.policy().await?)
}

async fn add_rule(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.add_rule(read(&call.body)?, call.caller).await?)
}

async fn reset_policy(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.reset_policy(call.caller).await?)
}

async fn test_policy(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.test_policy(read(&call.body)?).await?)
}

async fn remove_rule(broker: Broker, call: Call, id: String) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    let unknown = |_| ErrorBody::new(ErrorCode::NotFound, "a rule is named by its number").hint("mcp-authctl policy list");
    Answer::json(&broker.remove_rule(id.parse().map_err(unknown)?, call.caller).await?)
}

async fn consents(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.consents().await?)
}

async fn consent(broker: Broker, call: Call, id: String) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.consent(id).await?)
}

async fn decide_consent(broker: Broker, call: Call, id: String) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.decide_consent(id, read(&call.body)?, call.caller).await?)
}

async fn audit(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    let request: AuditRequest = read(&call.body)?;
    let audit = broker.audit();
    if request.follow { Ok(Answer::Audit(audit.follow(request).await?)) } else { Answer::json(&audit.read(request).await?) }
}

async fn metrics(Behind { broker, occupied, .. }: Behind, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    let connections = occupied.load(Ordering::Relaxed);
    Ok(Answer::Metrics(broker.metrics(connections).await?))
}

/// Its errors are answers in the words of MCP, whose clients would take a 401 for the beginning of a login of their own.
async fn mcp(broker: Broker, call: Call, target: String) -> Result<Answer, ErrorBody> {
    Ok(relay::forward(broker, call, target).await)
}

async fn relay_clients(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.relay_clients().await?)
}

async fn add_relay_client(broker: Broker, call: Call) -> Result<Answer, ErrorBody> {
    Answer::json(&broker.add_relay_client(read(&call.body)?, call.caller).await?)
}

async fn remove_relay_client(broker: Broker, call: Call, name: String) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&broker.remove_relay_client(name, call.caller).await?)
}

async fn issuer_keys(issuer: Issuer, call: Call) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&issuer.keys().await?)
}

async fn approval(issuer: Issuer, call: Call, code: String) -> Result<Answer, ErrorBody> {
    nothing(&call)?;
    Answer::json(&issuer.approval(code, None).await?)
}

async fn decide(Behind { broker, issuer, .. }: Behind, call: Call, code: String) -> Result<Answer, ErrorBody> {
    let decision: mcp_auth_proto::ApprovalDecision = read(&call.body)?;
    let approval = issuer.approval(code, Some(decision.allow)).await?;
    let event = if approval.state == ApprovalState::Refused { event::REFUSED } else { event::APPROVED };
    broker.audit().note_by(&call.caller, Note::of(event).about(&approval.client_id));
    broker.tell(event, approval.client_id.clone());
    Answer::json(&approval)
}

/// The object without fields: what routes without a body accept, and what routes without a result answer.
#[derive(serde::Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn nothing(call: &Call) -> Result<(), ErrorBody> {
    read::<Nothing>(&call.body).map(|Nothing {}| ())
}

/// They are repeated in sentences, commands and requests, so nothing else may pass for one.
fn are_scopes(scopes: &[String]) -> Result<(), ErrorBody> {
    let odd = || ErrorBody::new(ErrorCode::InvalidRequest, "`scopes` has an item that is not a scope (RFC 6749 section 3.3)");
    if scopes.iter().all(|scope| is_scope(scope)) { Ok(()) } else { Err(odd()) }
}

fn grant_name(text: &str) -> Result<GrantName, ErrorBody> {
    text.parse().map_err(|error| ErrorBody::new(ErrorCode::InvalidRequest, format!("`{}`: {error}", text.escape_debug())))
}

fn permitted(call: &Call, right: Right, grant: Option<&str>) -> Result<(), ErrorBody> {
    let only = call.caller.only();
    match (policy::allow(&call.caller.peer(), only, right, grant), only) {
        (Decision::Allow, _) => Ok(()),
        (Decision::Deny, Some(only)) => Err(only.denial()),
        (Decision::Deny, None) => Err(ErrorBody::new(ErrorCode::AccessDenied, "the policy does not allow this program to do that")),
    }
}

/// The route of a call and the segment that its `*` stands for.
fn find(call: &Call) -> Result<(&'static Route, String), ErrorBody> {
    let path = call.uri.path();
    let unknown = || ErrorBody::new(ErrorCode::NotFound, format!("there is no {} {}", call.method, path.escape_debug()));
    let found = TABLE.iter().filter(|route| route.method == call.method.as_str());
    let (route, segment) = found.filter_map(|route| Some((route, matched(route.path, path)?))).next().ok_or_else(unknown)?;
    if call.uri.query().is_some() {
        return Err(ErrorBody::new(ErrorCode::InvalidRequest, "requests have no query; fields go into the JSON body"));
    }
    let name = decoded(segment).ok_or_else(|| ErrorBody::new(ErrorCode::InvalidRequest, "the path is not valid percent-encoded UTF-8"))?;
    Ok((route, name))
}

/// The name in `/mcp/NAME`; `None` for every other target.
pub(crate) fn server_at(uri: &hyper::Uri) -> Option<String> {
    let segment = matched("/mcp/*", uri.path()).filter(|_| uri.query().is_none())?;
    decoded(segment)
}

/// The segment that the pattern's `*` stands for, empty without one; `None` when the path does not match.
fn matched<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once('*') else { return (pattern == path).then_some("") };
    let segment = path.strip_prefix(before)?.strip_suffix(after)?;
    (!segment.is_empty() && !segment.contains('/')).then_some(segment)
}

fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Caller;
    use crate::policy::Peer;

    fn call(method: &str, target: &str) -> Call {
        let caller = Caller::new(Peer { uid: 1, pid: None });
        let headers = hyper::HeaderMap::new();
        Call { caller, method: method.parse().unwrap(), uri: target.parse().unwrap(), headers, body: bytes::Bytes::new(), stream: None }
    }

    fn found(method: &str, target: &str) -> Result<(&'static str, String), ErrorCode> {
        find(&call(method, target)).map(|(route, name)| (route.path, name)).map_err(|error| error.error)
    }

    #[test]
    fn a_path_leads_to_its_route_with_the_name_in_it() {
        assert_eq!(found("POST", "/v1/token"), Ok(("/v1/token", String::new())));
        assert_eq!(found("GET", "/v1/grants/github:work"), Ok(("/v1/grants/*", "github:work".into())));
        assert_eq!(found("DELETE", "/v1/grants/github%3Awork"), Ok(("/v1/grants/*", "github:work".into())));
        assert_eq!(found("POST", "/v1/grants/refresh/refresh"), Ok(("/v1/grants/*/refresh", "refresh".into())));
        assert_eq!(found("PUT", "/v1/providers/x/secret"), Ok(("/v1/providers/*/secret", "x".into())));
        assert_eq!(found("PUT", "/v1/providers/x"), Ok(("/v1/providers/*", "x".into())));
        assert_eq!(found("POST", "/mcp/github:work"), Ok(("/mcp/*", "github:work".into())));
        assert_eq!(found("GET", "/mcp/https%3A%2F%2Fa.example%2Fmcp"), Ok(("/mcp/*", "https://a.example/mcp".into())));
    }

    #[test]
    fn what_is_not_in_the_table_is_not_found() {
        for (method, target) in [
            ("GET", "/"),
            ("GET", "/v1/token"),
            ("POST", "/v1/token/"),
            ("POST", "/V1/TOKEN"),
            ("POST", "//v1/token"),
            ("GET", "/v1/grants/"),
            ("GET", "/v1/grants/a/b"),
            ("OPTIONS", "/v1/token"),
            ("GET", "/.well-known/oauth-protected-resource"),
            ("GET", "/.well-known/oauth-authorization-server/mcp/notion"),
            ("GET", "/mcp/notion/.well-known/oauth-protected-resource"),
            ("PUT", "/mcp/notion"),
        ] {
            assert_eq!(found(method, target), Err(ErrorCode::NotFound), "{method} {target}");
        }
    }

    #[test]
    fn a_query_and_a_malformed_name_are_refused() {
        assert_eq!(found("GET", "/v1/grants?all=1"), Err(ErrorCode::InvalidRequest));
        assert_eq!(found("GET", "/v1/grants/%zz"), Err(ErrorCode::InvalidRequest));
        assert_eq!(found("GET", "/v1/grants/%ff"), Err(ErrorCode::InvalidRequest));
        assert!(grant_name("../x").is_err() && grant_name("a\u{1b}[2J").is_err());
    }

    #[test]
    fn whatever_changes_something_is_noted_by_the_audit() {
        // Noted where more is known of it, or part of something that is.
        let elsewhere = [
            "/v1/logins",
            "/v1/logins/*/redirect",
            "/v1/logins/*/decision",
            "/v1/logins/*",
            "/v1/issuer/approvals/*",
            "/v1/capabilities",
            "/v1/relay/clients",
            "/v1/relay/clients/*",
            "/mcp/*",
            "/v1/policy",
            "/v1/policy/*",
            "/v1/consents/*",
        ];
        let changes = TABLE.iter().filter(|route| !matches!(route.right, Right::Token | Right::Look) && route.method != "GET");
        for route in changes.filter(|route| !elsewhere.contains(&route.path)) {
            let note = deeds::note((route.method, route.path), "x", &Ok(()));
            assert!(note.is_some(), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn no_two_lines_of_the_table_answer_the_same_request() {
        for (index, route) in TABLE.iter().enumerate() {
            for other in &TABLE[index + 1..] {
                let sample = route.path.replace('*', "x");
                assert!(route.method != other.method || matched(other.path, &sample).is_none(), "{sample}");
            }
        }
    }
}

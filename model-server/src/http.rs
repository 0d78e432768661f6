//! MCP over HTTP, as an OAuth resource server: RFC 9728 metadata, a valid access token of the issuer with every request, and
//! sessions that belong to the login that began them. What a request asks for is rmcp's business.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::jwk::JwkSet;
use mcp_auth_proto::asynchronous::Client as Broker;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::caller::{Caller, Claims, Invalid};
use crate::tools::ModelServer;

/// What a token must allow to be let in at all.
pub(crate) const SCOPE: &str = "mcp:tools";
/// How often at a time the daemon is asked for the issuer's keys.
const QUESTIONS: usize = 8;
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// This server as others name it.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    /// `host:port`.
    authority: String,
    /// Its URL, byte for byte the `aud` of the tokens for it.
    uri: String,
    issuer: String,
}

struct Door {
    resource: Resource,
    broker: Arc<Broker>,
    /// For the issuer's keys: nobody has shown a good token yet, and the daemon takes so many connections of one program.
    questions: Semaphore,
    sessions: Arc<LocalSessionManager>,
    owners: Mutex<HashMap<Arc<str>, Caller>>,
}

/// Why a request is not let in.
enum Refusal {
    /// There is no token, or one that does not do.
    Unauthorized(Option<Invalid>),
    InsufficientScope,
    /// The issuer's keys cannot be had.
    NoKeys(String),
}

impl Resource {
    pub(crate) fn at(address: SocketAddr, issuer: &str) -> Self {
        Self { authority: address.to_string(), uri: format!("http://{address}/mcp"), issuer: issuer.to_owned() }
    }

    /// Protected resource metadata (RFC 9728 section 2).
    pub(crate) fn metadata(&self) -> Value {
        json!({
            "resource": self.uri,
            "resource_name": "mcp-authd model server",
            "authorization_servers": [self.issuer],
            "scopes_supported": [SCOPE],
            "bearer_methods_supported": ["header"],
        })
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, resource: Resource, broker: Arc<Broker>, server: ModelServer) -> std::io::Result<()> {
    let sessions = Arc::new(LocalSessionManager::default());
    let config = StreamableHttpServerConfig::default().with_allowed_hosts([&resource.authority]).enforce_origin_validation();
    let mcp = StreamableHttpService::new(move || Ok(server.clone()), Arc::clone(&sessions), config);
    let door = Arc::new(Door { resource, broker, questions: Semaphore::new(QUESTIONS), sessions, owners: Mutex::default() });
    let routes = Router::new()
        .route_service("/mcp", mcp)
        .layer(from_fn_with_state(Arc::clone(&door), admit))
        // The path of the resource comes after the well-known one (RFC 9728 section 3.1).
        .route("/.well-known/oauth-protected-resource/mcp", get(metadata))
        .layer(from_fn_with_state(Arc::clone(&door), not_from_a_web_page))
        .with_state(door);
    axum::serve(listener, routes).await
}

async fn metadata(State(door): State<Arc<Door>>) -> Json<Value> {
    Json(door.resource.metadata())
}

/// A page whose name was made to resolve to this machine names another host; any other page names its origin.
async fn not_from_a_web_page(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).is_some_and(|host| host == door.resource.authority.as_str());
    if !host || request.headers().contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "web pages are not served, and other host names neither").into_response();
    }
    next.run(request).await
}

async fn admit(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let caller = match door.caller(request.headers()).await {
        Ok(caller) => caller,
        Err(refusal) => return door.refuse(refusal),
    };
    // It was meant for us: no tool can pass it on.
    request.headers_mut().remove(header::AUTHORIZATION);
    if let Some(session) = session(request.headers())
        && door.owners().get(session) != Some(&caller)
    {
        return (StatusCode::NOT_FOUND, "there is no such session").into_response();
    }
    let response = next.run(request).await;
    if let Some(begun) = session(response.headers()) {
        door.bind(begun.into(), caller).await;
    }
    response
}

fn session(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION)?.to_str().ok()
}

impl Door {
    /// Who calls. The keys are asked for anew each time: the socket takes microseconds, and a key that is gone counts at once.
    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let mut tokens = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(token), None) = (tokens.next(), tokens.next()) else { return Err(Refusal::Unauthorized(None)) };
        let token = token.to_str().ok().and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = token.ok_or(Refusal::Unauthorized(None))?;
        let question = self.questions.acquire().await;
        let keys: JwkSet = self.broker.call("/issuer/keys", None::<&()>).await.map_err(|error| Refusal::NoKeys(error.to_string()))?;
        drop(question);
        let claims =
            Claims::of(token, &keys, &self.resource.issuer, &self.resource.uri).map_err(|invalid| Refusal::Unauthorized(Some(invalid)))?;
        if claims.allows(SCOPE) { Ok(claims.caller) } else { Err(Refusal::InsufficientScope) }
    }

    /// RFC 6750 section 3 with the address of the metadata (RFC 9728 section 5.1) and the scope to ask for.
    fn refuse(&self, refusal: Refusal) -> Response {
        let (status, error) = match refusal {
            Refusal::Unauthorized(None) => (StatusCode::UNAUTHORIZED, String::new()),
            Refusal::Unauthorized(Some(why)) => {
                (StatusCode::UNAUTHORIZED, format!(r#"error="invalid_token", error_description="{why}", "#))
            }
            Refusal::InsufficientScope => (StatusCode::FORBIDDEN, r#"error="insufficient_scope", "#.to_owned()),
            Refusal::NoKeys(why) => {
                return (StatusCode::SERVICE_UNAVAILABLE, format!("the issuer's keys cannot be had: {why}")).into_response();
            }
        };
        let metadata = format!("http://{}/.well-known/oauth-protected-resource/mcp", self.resource.authority);
        let challenge = format!(r#"Bearer {error}resource_metadata="{metadata}", scope="{SCOPE}""#);
        (status, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    }

    /// Remembers whose session this is, and forgets those that have ended.
    async fn bind(&self, session: Arc<str>, caller: Caller) {
        let living = self.sessions.sessions.read().await;
        let mut owners = self.owners();
        owners.retain(|id, _| living.contains_key(id));
        owners.insert(session, caller);
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Caller>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The issuer's port: who is there, is it a request that a browser or a client of ours can have made, then a question to the
//! issuer and its answer as HTTP. What a request means is decided elsewhere.
//!
//! Any page in a browser may knock here, and any user of the machine. Every answer carries what keeps it out of frames, caches
//! and other pages' hands.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

use super::clients::Settings;
use super::core::{Ask, Said};
use super::error::{Code, Refusal};
use super::guard::{self, Place};
use super::params::Params;
use super::reply::Reply;
use super::{Issuer, credentials, metadata, page};
use crate::loopback;

/// The most connections at a time; beyond, the oldest goes.
const MOST_CONNECTIONS: usize = 64;
/// The largest request head.
const LARGEST_HEAD: usize = 16 * 1024;
/// The largest form.
const LARGEST_BODY: usize = 16 * 1024;
/// How long a request's head, and then its body, may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a page's question is held while nothing is decided.
const HOLD: Duration = Duration::from_secs(25);
/// How long a connection may live.
const LIFETIME: Duration = Duration::from_secs(60);

/// What the connections of one port share.
#[derive(Debug)]
struct Room {
    settings: Settings,
    issuer: Issuer,
}

/// Serves the port until the future is dropped, and its connections with it.
pub(super) async fn serve(listener: TcpListener, settings: Settings, issuer: Issuer) -> Infallible {
    let room = Arc::new(Room { settings, issuer });
    let mut connections = Connections(VecDeque::new());
    // Whoever is not answered takes no place, and crowds nobody out.
    loopback::accept_ours(&listener, room.settings.listen, |stream| {
        connections.admit(tokio::spawn(tokio::time::timeout(LIFETIME, converse(stream, room.clone()))).abort_handle());
    })
    .await
}

/// The connections there are; they end with this value.
struct Connections(VecDeque<AbortHandle>);

impl Connections {
    fn admit(&mut self, connection: AbortHandle) {
        self.0.retain(|connection| !connection.is_finished());
        if self.0.len() >= MOST_CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(connection);
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn converse(stream: TcpStream, room: Arc<Room>) {
    let service = service_fn(move |request| {
        let room = room.clone();
        async move { Ok::<_, Infallible>(render(room.answer(request).await)) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(false)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    // A broken or hostile connection concerns nobody.
    let _ = connection.await;
}

impl Room {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let Some(place) = guard::place(&head, self.settings.listen) else { return Reply::text(404, "not found\n") };
        if let Err(sentence) = guard::check(&head, place, &self.settings.issuer()) {
            return if place == Place::Authorize {
                Reply::page(403, page::error(sentence))
            } else {
                Reply::text(403, &format!("{sentence}\n"))
            };
        }
        let form = match (head.method == Method::POST, place) {
            (true, Place::Token | Place::Revoke | Place::Authorize) => match form(&head, body).await {
                Ok(form) => form,
                Err(sentence) => return self.refused(Refusal::new(Code::InvalidRequest, sentence)),
            },
            _ => Zeroizing::new(head.uri.query().unwrap_or_default().as_bytes().to_vec()),
        };
        let Ok(params) = Params::parse(&form) else { return self.repeated(place) };
        let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match place {
            Place::Metadata => Reply::json(200, &metadata::document(&self.settings)),
            Place::Errors => Reply::page(200, page::errors()),
            Place::Keys => self.ask(Ask::Keys).await,
            Place::Authorize => self.authorize(head.method, params).await,
            Place::Token | Place::Revoke => match self.client(authorization, &params).await {
                Ok(client) if place == Place::Token => self.ask(Ask::Token(client, params)).await,
                Ok(client) => self.ask(Ask::Revoke(client, params)).await,
                Err(refusal) => self.refused(refusal),
            },
            Place::Userinfo => match authorization.and_then(bearer) {
                Some(token) => self.ask(Ask::Userinfo(token.to_owned().into())).await,
                None => bare_challenge(),
            },
        }
    }

    async fn authorize(&self, method: Method, params: Params) -> Reply {
        match (params.get("pending"), method) {
            (Some(_), Method::POST) => self.ask(Ask::Press(params)).await,
            (Some(pending), _) => self.wait(pending).await,
            (None, _) => self.ask(Ask::Authorize(params)).await,
        }
    }

    async fn client(&self, authorization: Option<&str>, params: &Params) -> Result<String, Refusal> {
        let credentials = credentials::read(authorization, params)?;
        credentials::prove(&credentials, &self.settings).await?;
        Ok(credentials.client_id)
    }

    /// Holds the question until the request is decided. The browser shows the page meanwhile, and it stays usable.
    async fn wait(&self, pending: &str) -> Reply {
        let until = tokio::time::Instant::now() + HOLD;
        let mut decisions = self.issuer.decisions();
        loop {
            decisions.mark_unchanged();
            match self.issuer.ask(Ask::Poll(pending.to_owned())).await {
                Said::Now(reply) => return reply,
                Said::Waiting(page) => match tokio::time::timeout_at(until, decisions.changed()).await {
                    Ok(Ok(())) => {}
                    _ => return page,
                },
            }
        }
    }

    async fn ask(&self, ask: Ask) -> Reply {
        match self.issuer.ask(ask).await {
            Said::Now(reply) | Said::Waiting(reply) => reply,
        }
    }

    fn refused(&self, refusal: Refusal) -> Reply {
        Reply::refusal(refusal, &self.settings.issuer())
    }

    fn repeated(&self, place: Place) -> Reply {
        match place {
            Place::Authorize => Reply::page(400, page::error("a parameter of the request comes twice")),
            _ => self.refused(Refusal::new(Code::InvalidRequest, "a parameter comes twice")),
        }
    }
}

/// A form, whole.
async fn form(head: &hyper::http::request::Parts, body: Incoming) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err("the content type must be application/x-www-form-urlencoded");
    }
    match tokio::time::timeout(TIMEOUT, Limited::new(body, LARGEST_BODY).collect()).await {
        Ok(Ok(body)) => Ok(Zeroizing::new(body.to_bytes().to_vec())),
        _ => Err("the form is too large, or does not arrive"),
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// RFC 6750 section 3.1: who shows nothing is told nothing but the scheme.
fn bare_challenge() -> Reply {
    let mut reply = Reply::text(401, "");
    reply.headers.push(("www-authenticate", "Bearer".to_owned()));
    reply
}

fn render(mut reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_owner(std::mem::take(&mut reply.body))));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, reply.content_type),
        (header::CONTENT_SECURITY_POLICY, page::POLICY.as_str()),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::PRAGMA, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    for (name, value) in std::mem::take(&mut reply.headers) {
        match HeaderValue::from_str(&value) {
            Ok(value) => drop(headers.insert(HeaderName::from_static(name), value)),
            // Every value is of our own making or was checked to be printable.
            Err(_) => tracing::error!(name, "an answer of the issuer lacks a header"),
        }
    }
    response
}

//! The one door to the network: requests out, answers in, nothing remembered. Only [`network`] knows reqwest.

pub mod address;
pub mod guarded;
pub mod network;
pub mod surroundings;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, StatusCode};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use self::address::Reach;
pub(crate) use self::network::told_date;
use crate::clock::Wall;

/// A request to a provider.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST` or `DELETE`.
    pub method: Method,
    /// The URL, byte for byte as configured or discovered.
    pub url: String,
    /// Headers, the secret ones included.
    pub headers: Vec<(&'static str, SecretText)>,
    /// The body.
    pub body: Option<SecretText>,
    /// How long the whole exchange may take.
    pub timeout: Duration,
    /// Where it may be connected to.
    pub reach: Reach,
}

impl Request {
    /// A bare request, to change from: 15 s, and wherever the URL leads.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: None, timeout: USUAL_TIMEOUT, reach: Reach::Anywhere }
    }
}

/// The methods that providers are asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`; up to 3 redirects on the same origin are followed.
    Get,
    /// `POST`; redirects are never followed.
    Post,
    /// `DELETE`; redirects are never followed.
    Delete,
}

/// A text that may hold a secret: redacted in `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct SecretText(pub Zeroizing<String>);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

/// How https goes out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Proxy {
    /// Straight, whatever the environment says.
    Direct,
    /// Through this proxy, byte for byte.
    Through(String),
}

impl Proxy {
    /// What a key of config.toml says: a proxy's URL, or `none`.
    pub fn of(text: &str) -> Self {
        if text == "none" { Self::Direct } else { Self::Through(text.to_owned()) }
    }
}

/// An answer: at most 256 KiB after decompression.
pub struct Response {
    /// The status.
    pub status: u16,
    /// The `Content-Type`, lower case, without parameters.
    pub content_type: Option<String>,
    /// `Retry-After` (RFC 9110 section 10.2.3), as a delay.
    pub retry_after: Option<Duration>,
    /// The values of `WWW-Authenticate`, as they came: at most 8.
    pub challenges: Vec<String>,
    /// `DPoP-Nonce` (RFC 9449 section 8), as it came.
    pub dpop_nonce: Option<String>,
    /// `Date`: the server's clock.
    pub date: Option<Wall>,
    /// The body, wiped when dropped. Empty for an event stream, which has no end.
    pub body: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("status", &self.status).field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

/// Why there is no answer. Never holds a body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The URL is not one that we send anything to (not https, and not loopback).
    #[error("{0} is refused: only https is used, and http on loopback")]
    Refused(String),
    /// The host is in a private network, and a server named it: nothing was sent.
    #[error("{0} is refused: it leads into a private network, which a server may not name")]
    OutOfReach(String),
    /// No byte of the request left: name not found, no connection, TLS failure.
    #[error("cannot connect to {host}: {reason}")]
    NotSent {
        /// The host.
        host: String,
        /// Why, one sentence.
        reason: String,
    },
    /// The request may have been received, and no whole answer came.
    #[error("no answer from {host}: {reason}")]
    Lost {
        /// The host.
        host: String,
        /// Why, one sentence.
        reason: String,
    },
}

/// The future of one exchange.
pub type Exchange<'a> = Pin<Box<dyn Future<Output = Result<Response, TransportError>> + Send + 'a>>;

/// How requests reach providers: the network, or a test.
pub trait Transport: Send + Sync {
    /// Sends one request and reads its whole answer.
    fn send(&self, request: Request) -> Exchange<'_>;

    /// A `GET` of which only the head of the answer counts, whatever its status: tells the server's clock, if it tells it.
    fn knock(&self, url: String, timeout: Duration) -> Knock<'_> {
        let request = Request { timeout, ..Request::new(Method::Get, url) };
        Box::pin(async { self.send(request).await.map(|_| None) })
    }

    /// Sends a request and reads the head of its answer. Takes as long as the server does; whoever asks drops the future when
    /// that is too long. Redirects are followed on the same origin, where method and body stay the same.
    fn open(&self, request: Opening) -> Open<'_> {
        Box::pin(async move { Err(TransportError::Refused(shown(&request.url))) })
    }
}

/// A request that passes through us: its body and its answer are taken as they come.
pub struct Opening {
    /// The method.
    pub method: hyper::Method,
    /// The URL, byte for byte.
    pub url: String,
    /// The headers; those that hold a secret are marked sensitive.
    pub headers: HeaderMap,
    /// Makes the `DPoP` header, where there is one: anew for each request that is really sent, redirects included.
    pub prove: Option<Prove>,
    /// The body.
    pub body: Outgoing,
}

/// A proof for a request with this method to this URL; `None`: it cannot be made, and nothing is sent.
pub type Prove = Box<dyn Fn(&hyper::Method, &url::Url) -> Option<HeaderValue> + Send + Sync>;

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("method", &self.method).field("body", &self.body).finish_non_exhaustive()
    }
}

/// The body of a request that passes through.
#[derive(Debug)]
pub enum Outgoing {
    /// All of it: sent again where a redirect wants that.
    Whole(Bytes),
    /// Piece by piece.
    Pieces {
        /// The bytes in all, where that is known.
        length: Option<u64>,
        /// The pieces. A sender that goes without [`Piece::End`] cuts the request off.
        pieces: mpsc::Receiver<Piece>,
    },
}

/// A piece of a body.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// There are no more.
    End,
}

/// The answer to an [`Opening`], its body still to come.
#[derive(Debug)]
pub struct Opened {
    /// The status; a redirect that is not followed is one too.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as the server encoded it. Dropping it ends the exchange.
    pub body: UnsyncBoxBody<Bytes, TransportError>,
}

/// The future of an [`Opened`].
pub type Open<'a> = Pin<Box<dyn Future<Output = Result<Opened, TransportError>> + Send + 'a>>;

/// The future of one knock.
pub type Knock<'a> = Pin<Box<dyn Future<Output = Result<Option<Wall>, TransportError>> + Send + 'a>>;

/// The URL that a text names, if anything may be sent there or a browser be led there: https, or http on loopback, without
/// user name and password, without control characters or spaces. The text itself is what is sent: a parsed URL grows a slash.
pub fn check_url(text: &str) -> Result<url::Url, TransportError> {
    let refused = || TransportError::Refused(shown(text));
    if text.len() > LONGEST_URL || text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(refused());
    }
    let url = url::Url::parse(text).map_err(|_| refused())?;
    let secure = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    let plain = url.username().is_empty() && url.password().is_none() && url.host_str().is_some_and(|host| !host.is_empty());
    // `https:host` and `https:///host` parse too, but are not what a reader takes them for.
    let rest = text.get(url.scheme().len()..).unwrap_or_default();
    let spelled_out = rest.starts_with("://") && !rest.starts_with(":///");
    if secure && plain && spelled_out { Ok(url) } else { Err(refused()) }
}

/// Whether a URL's host is this machine by its very name: `localhost`, 127.0.0.0/8 or `[::1]`.
pub fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// How long an exchange may take that has no reason to take longer.
const USUAL_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest URL that is used.
const LONGEST_URL: usize = 8 * 1024;

/// What an error says of a URL: scheme and host at most, never a path or query.
fn shown(text: &str) -> String {
    match url::Url::parse(text) {
        Ok(url) => match url.host_str() {
            Some(host) => format!("{}://{host}", url.scheme()),
            None => format!("a {}: address", url.scheme()),
        },
        Err(_) => "what is not a URL".to_owned(),
    }
}

#[cfg(test)]
mod tests;

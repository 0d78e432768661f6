//! The network behind [`Transport`]: this file and `stream` are the only ones that know reqwest. It owns the limits of an exchange, the proxy and the
//! roots of trust; it knows nothing of OAuth.
//!
//! Every exchange has a connection of its own. A kept one that the server is just closing would make a request end as
//! [`TransportError::Lost`], and for a rotating refresh token "lost" is the costliest word there is. TLS sessions are resumed.
//! What passes through (`stream`) has no such token, and keeps its connections.

mod stream;

mod sieve;

use std::error::Error as _;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, NoProxy, Proxy};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use self::sieve::{OutOfReach, Sieve};
use self::stream::Streams;
use super::address::Reach;
use super::{Exchange, Knock, Method, Open, Opening, Request, Response, Transport, TransportError, check_url, is_loopback};
use crate::clock::Wall;
use crate::oauth::text::clean;

/// How the daemon reaches the network, as `[network]` of config.toml says.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The proxy for https; `None`: what `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` of the daemon's own environment say.
    pub proxy: Option<super::Proxy>,
    /// Hosts that are reached without [`Self::proxy`], as `NO_PROXY` spells them. This machine always is.
    pub no_proxy: Option<String>,
    /// A PEM file with certificates that are trusted besides the platform's.
    pub ca_file: Option<PathBuf>,
}

/// Requests over the real network. Making one costs nothing: the roots of trust are read at the first https request.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    tls: OnceCell<ClientConfig>,
    streams: Streams,
}

/// The longest wait for a connection, name lookup and TLS included; half the exchange's time if that is less, so that a
/// request that never left is known as such.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest silence within an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body, after decompression.
const LARGEST_BODY: usize = 256 * 1024;
/// Room for every usual token answer, so that growing leaves no copy of it behind.
const USUAL_BODY: usize = 16 * 1024;
/// The most header fields in an answer.
const MOST_HEADERS: usize = 100;
/// The most challenges in an answer that are read.
const MOST_CHALLENGES: usize = 8;
/// RFC 9449 section 8.
const DPOP_NONCE: &str = "dpop-nonce";
/// The most redirects that a `GET` follows on its origin.
const MOST_REDIRECTS: usize = 3;

impl Network {
    /// A way to the network. Nothing is opened or read yet.
    pub fn new(config: NetworkConfig) -> Self {
        Self { config, tls: OnceCell::new(), streams: Streams::default() }
    }

    async fn exchange(&self, request: Request) -> Result<Response, TransportError> {
        let mut url = check_url(&request.url)?;
        let deadline = Instant::now() + request.timeout;
        if !request.reach.allows_host(&url) {
            return Err(TransportError::OutOfReach(host(&url)));
        }
        let client = self.client(&url, request.timeout, request.reach).await?;
        let not_sent = |reason: &str| TransportError::NotSent { host: host(&url), reason: reason.to_owned() };
        let headers = header_map(&request).ok_or_else(|| not_sent("a header of the request cannot be sent"))?;
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut body = request.body.map(|text| Bytes::from_owner(text.0));
        for hop in 0.. {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut next = client.request(method.clone(), url.clone()).headers(headers.clone()).timeout(left);
            if let Some(body) = body.take() {
                next = next.body(body);
            }
            let answer = next.send().await.map_err(|error| failure(&url, error))?;
            match redirect(&url, &answer) {
                Some(target) if request.method == Method::Get && hop < MOST_REDIRECTS => url = target,
                _ => return read(&url, answer).await,
            }
        }
        unreachable!("the last hop returns")
    }

    async fn head(&self, url: &str, timeout: Duration) -> Result<Option<Wall>, TransportError> {
        let url = check_url(url)?;
        let client = self.client(&url, timeout, Reach::Anywhere).await?;
        let answer = client.get(url.clone()).timeout(timeout).send().await.map_err(|error| failure(&url, error))?;
        Ok(told_date(answer.headers()))
    }

    /// A client for one exchange. The roots come along behind an `Arc`. Its redirects stay on the origin, so one host is sifted.
    async fn client(&self, url: &url::Url, timeout: Duration, reach: Reach) -> Result<Client, TransportError> {
        let not_sent = |reason: String| TransportError::NotSent { host: host(url), reason };
        let builder = plain().pool_max_idle_per_host(0).connect_timeout(CONNECT_TIMEOUT.min(timeout / 2)).read_timeout(READ_TIMEOUT);
        let builder = match reach {
            Reach::Anywhere => builder,
            reach => builder.dns_resolver(Sieve { host: url.host_str().unwrap_or_default().to_owned(), reach }),
        };
        self.trusting(builder, url).await.and_then(|builder| builder.build().map_err(|error| deepest(&error))).map_err(not_sent)
    }

    /// The roots of trust and the proxy.
    async fn trusting(&self, builder: reqwest::ClientBuilder, url: &url::Url) -> Result<reqwest::ClientBuilder, String> {
        Ok(if url.scheme() == "https" {
            self.proxied(builder)?.tls_backend_preconfigured(self.tls().await?)
        } else {
            // Without an own TLS configuration reqwest would read the platform's roots for a plain connection too.
            builder.no_proxy().tls_backend_preconfigured(tls_config(RootCertStore::empty()))
        })
    }

    fn proxied(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, String> {
        let proxy = match &self.config.proxy {
            None => return Ok(builder),
            Some(super::Proxy::Direct) => return Ok(builder.no_proxy()),
            Some(super::Proxy::Through(proxy)) => proxy,
        };
        let direct = format!("{},localhost,127.0.0.0/8,::1", self.config.no_proxy.as_deref().unwrap_or_default());
        // The proxy may hold a password, so its text is not repeated.
        let proxy = Proxy::https(proxy).map_err(|_| "the configured proxy is not a proxy URL".to_owned())?;
        Ok(builder.proxy(proxy.no_proxy(NoProxy::from_string(&direct))))
    }

    async fn tls(&self) -> Result<ClientConfig, String> {
        let ca_file = self.config.ca_file.clone();
        let read = || async {
            let roots = tokio::task::spawn_blocking(move || roots(ca_file.as_deref())).await;
            Ok(tls_config(roots.map_err(|_| "the roots of trust cannot be read".to_owned())??))
        };
        self.tls.get_or_try_init(read).await.cloned()
    }
}

/// A proxy's URL may hold a password.
impl fmt::Debug for NetworkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxy = self.proxy.as_ref().map(|_| "[redacted]");
        f.debug_struct("NetworkConfig").field("proxy", &proxy).field("no_proxy", &self.no_proxy).field("ca_file", &self.ca_file).finish()
    }
}

impl Transport for Network {
    fn send(&self, request: Request) -> Exchange<'_> {
        Box::pin(self.exchange(request))
    }

    fn knock(&self, url: String, timeout: Duration) -> Knock<'_> {
        Box::pin(async move { self.head(&url, timeout).await })
    }

    fn open(&self, request: Opening) -> Open<'_> {
        Box::pin(self.pass(request))
    }
}

/// What every request has in common.
fn plain() -> reqwest::ClientBuilder {
    Client::builder()
        .user_agent(concat!("mcp-authd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .http1_max_headers(MOST_HEADERS)
}

fn tls_config(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The platform's roots (`SSL_CERT_FILE` of the daemon's environment included) and the configured ones.
fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let platform = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(platform.certs);
    if let Some(path) = ca_file {
        let unreadable = |error: &dyn std::fmt::Display| format!("the CA file {} cannot be read: {error}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
            roots.add(certificate.map_err(|error| unreadable(&error))?).map_err(|error| unreadable(&error))?;
        }
    }
    if roots.is_empty() { Err("this system has no roots of trust (is ca-certificates installed?)".to_owned()) } else { Ok(roots) }
}

fn header_map(request: &Request) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for (name, text) in &request.headers {
        let mut value = HeaderValue::from_str(&text.0).ok()?;
        value.set_sensitive(true);
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    Some(headers)
}

/// Where a redirect leads, if that is the same origin.
fn redirect(url: &url::Url, answer: &reqwest::Response) -> Option<url::Url> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let target = url.join(answer.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    (target.origin() == url.origin() && check_url(target.as_str()).is_ok()).then_some(target)
}

async fn read(url: &url::Url, mut answer: reqwest::Response) -> Result<Response, TransportError> {
    let status = answer.status().as_u16();
    let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(media_type);
    let retry_after = retry_after(answer.headers());
    let texts = answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges = texts.take(MOST_CHALLENGES).map(str::to_owned).collect();
    let dpop_nonce = answer.headers().get(DPOP_NONCE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let date = told_date(answer.headers());
    if content_type.as_deref() == Some("text/event-stream") {
        return Ok(Response { status, content_type, retry_after, challenges, dpop_nonce, date, body: Zeroizing::default() });
    }
    let mut body = Zeroizing::new(Vec::with_capacity(USUAL_BODY));
    while let Some(chunk) = answer.chunk().await.map_err(|error| failure(url, error))? {
        if body.len() + chunk.len() > LARGEST_BODY {
            let reason = format!("its answer is larger than {} KiB", LARGEST_BODY / 1024);
            return Err(TransportError::Lost { host: host(url), reason });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Response { status, content_type, retry_after, challenges, dpop_nonce, date, body })
}

fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Seconds, or a date (RFC 9110 section 10.2.3); the server's own `Date` tells its clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = headers.get(DATE).and_then(|value| date(value.to_str().ok()?)).unwrap_or_else(|| SystemTime::now().into());
    Some(Duration::try_from(date(value)? - now).unwrap_or_default())
}

/// The server's clock, if it tells it.
pub(crate) fn told_date(headers: &HeaderMap) -> Option<Wall> {
    let told = headers.get(DATE).and_then(|value| date(value.to_str().ok()?))?;
    Some(Wall(told.unix_timestamp().saturating_mul(1000)))
}

/// A date of HTTP (RFC 9110 section 5.6.7).
fn date(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc2822).ok()
}

/// Up to the connection nothing has left; from there on everything may have.
fn failure(url: &url::Url, error: reqwest::Error) -> TransportError {
    let host = host(url);
    if is_out_of_reach(&error) {
        return TransportError::OutOfReach(host);
    }
    let not_sent = error.is_builder() || error.is_connect();
    let reason = if error.is_dns() {
        "its name cannot be resolved".to_owned()
    } else if error.is_timeout() {
        if not_sent { "no connection in time".to_owned() } else { "it took too long".to_owned() }
    } else if error.is_decode() {
        "its answer is damaged".to_owned()
    } else {
        deepest(&error)
    };
    if not_sent { TransportError::NotSent { host, reason } } else { TransportError::Lost { host, reason } }
}

fn is_out_of_reach(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = error.source();
    while let Some(next) = cause {
        if next.is::<OutOfReach>() {
            return true;
        }
        cause = next.source();
    }
    false
}

/// The innermost cause: the outer ones repeat the URL. A certificate may choose words in it.
fn deepest(error: &reqwest::Error) -> String {
    let mut cause: Option<&dyn std::error::Error> = error.source();
    while let Some(next) = cause.and_then(|cause| cause.source()) {
        cause = Some(next);
    }
    let Some(cause) = cause else { return "the request failed".to_owned() };
    match tls_error(cause) {
        Some(rustls::Error::InvalidCertificate(fault)) => distrust(fault),
        _ => clean(&cause.to_string()),
    }
}

/// An error of TLS, however often it was wrapped: an `io::Error` names as its source not what it holds, but the source of that.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<std::io::Error>() {
        Some(wrapped) => tls_error(wrapped.get_ref()?),
        None => error.downcast_ref(),
    }
}

/// Why a certificate is not believed, for people: rustls speaks in names of its variants and in Unix time.
fn distrust(fault: &CertificateError) -> String {
    let why = match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired, or this machine's clock is wrong",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet, or this machine's clock is wrong"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => "it belongs to another host",
        CertificateError::UnknownIssuer => "it is signed by nobody whom this machine trusts",
        CertificateError::Revoked => "it was revoked",
        other => return format!("its certificate is not trusted: {}", clean(&other.to_string())),
    };
    format!("its certificate is not trusted: {why}")
}

fn host(url: &url::Url) -> String {
    let name = url.host_str().unwrap_or_default();
    match url.port().filter(|_| is_loopback(url)) {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;

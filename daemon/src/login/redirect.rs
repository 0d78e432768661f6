//! The loopback listener of one login (RFC 8252 section 7.3): it exists only while the login waits, and hands every plausible
//! redirect to the login, which alone decides whose it is.
//!
//! Any page in a browser, and any program of any user, may knock here. What is not a `GET` of the right path under the right
//! name is 404; nothing that was sent in is ever sent back; and a wrong knock does not end the wait.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

/// A listener that is bound and waits for redirects.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    place: Arc<Place>,
    hits: mpsc::Receiver<Hit>,
    sender: mpsc::Sender<Hit>,
    connections: VecDeque<AbortHandle>,
}

/// A plausible redirect, which waits for its page.
#[derive(Debug)]
pub struct Hit {
    /// Its query.
    pub query: Zeroizing<String>,
    page: oneshot::Sender<Page>,
}

/// What the browser is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// "You can close this tab."
    Done,
    /// "The login was not completed."
    Failed,
    /// 404, as for everything else that is not ours.
    NotFound,
}

/// Why there is no listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("port {0} is taken by another program")]
    Taken(u16),
    /// Other programs have every port that may be used.
    #[error("ports {} are all taken by other programs", .0.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))]
    AllTaken(Vec<u16>),
    /// The redirect's host is not this machine.
    #[error("{0} is not a loopback host")]
    Host(String),
    /// The system refused.
    #[error("cannot listen on {0}: {1}")]
    System(SocketAddr, io::ErrorKind),
}

/// The most connections at a time; beyond, the oldest goes, so that idle ones cannot keep the browser out.
const MOST_CONNECTIONS: usize = 32;
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may live.
const LIFETIME: Duration = Duration::from_secs(10);
/// The largest request head.
const LARGEST_HEAD: usize = 16 * 1024;
/// How often a free port is tried that must be free on both address families.
const PORT_ATTEMPTS: usize = 16;

impl Listener {
    /// Binds the redirect's host, `127.0.0.1`, `[::1]` or `localhost` (both of them, on the same port). Without a port any free
    /// one is taken.
    pub async fn bind(host: &str, path: &str, port: Option<u16>) -> Result<Self, BindError> {
        let addresses: &[IpAddr] = match host {
            "127.0.0.1" => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
            "[::1]" | "::1" => &[IpAddr::V6(Ipv6Addr::LOCALHOST)],
            "localhost" => &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
            other => return Err(BindError::Host(other.to_owned())),
        };
        let (sockets, port) = match port {
            Some(port) => bind_all(addresses, port).await?,
            None => bind_any(addresses).await?,
        };
        let host = if host == "::1" { "[::1]" } else { host };
        let (sender, hits) = mpsc::channel(MOST_CONNECTIONS);
        Ok(Self { sockets, place: Arc::new(Place::new(host, port, path)), hits, sender, connections: VecDeque::new() })
    }

    /// Binds the first of these ports that is free; without any, a free one of the system's choice.
    pub async fn bind_first(host: &str, path: &str, ports: &[u16]) -> Result<Self, BindError> {
        let Some((last, others)) = ports.split_last() else { return Self::bind(host, path, None).await };
        for port in others {
            match Self::bind(host, path, Some(*port)).await {
                Err(BindError::Taken(_)) => {}
                result => return result,
            }
        }
        match Self::bind(host, path, Some(*last)).await {
            Err(BindError::Taken(_)) if !others.is_empty() => Err(BindError::AllTaken(ports.to_vec())),
            result => result,
        }
    }

    /// The redirect URI to send and to register.
    pub fn redirect_uri(&self) -> &str {
        &self.place.redirect_uri
    }

    /// The next plausible redirect. Cancelling loses nothing.
    pub async fn hit(&mut self) -> Hit {
        loop {
            tokio::select! {
                Some(hit) = self.hits.recv() => return hit,
                accepted = accept(&self.sockets) => match accepted {
                    Ok(stream) => self.serve(stream),
                    // Out of file descriptors, mostly: a moment later some may be free.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
            }
        }
    }

    fn serve(&mut self, stream: TcpStream) {
        self.connections.retain(|connection| !connection.is_finished());
        if self.connections.len() >= MOST_CONNECTIONS
            && let Some(oldest) = self.connections.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::spawn(tokio::time::timeout(LIFETIME, converse(stream, self.place.clone(), self.sender.clone())));
        self.connections.push_back(connection.abort_handle());
    }
}

impl Hit {
    /// Shows the browser how it went.
    pub fn answer(self, page: Page) {
        // The browser may have gone; that changes nothing.
        let _ = self.page.send(page);
    }
}

/// Where the redirect must go to.
#[derive(Debug)]
struct Place {
    redirect_uri: String,
    authority: String,
    path: String,
}

impl Place {
    fn new(host: &str, port: u16, path: &str) -> Self {
        // A browser leaves out the port that http has by itself.
        let authority = if port == 80 { host.to_owned() } else { format!("{host}:{port}") };
        let requested = if path.is_empty() { "/" } else { path };
        Self { redirect_uri: format!("http://{host}:{port}{path}"), authority, path: requested.to_owned() }
    }

    /// The query, if the request can be a browser that was redirected here. Navigations send no `Origin`; the exact `Host`
    /// keeps out names that somebody else's DNS points here.
    fn query(&self, request: &Request<Incoming>) -> Option<Zeroizing<String>> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host_fits = hosts.next().is_some_and(|host| host.as_bytes() == self.authority.as_bytes()) && hosts.next().is_none();
        let uri = request.uri();
        let fits = request.method() == Method::GET
            && host_fits
            && uri.authority().is_none()
            && uri.path() == self.path
            && !request.headers().contains_key(header::ORIGIN);
        fits.then(|| Zeroizing::new(uri.query().unwrap_or_default().to_owned()))
    }
}

/// One port, free on every address. A machine without IPv6 does without.
async fn bind_all(addresses: &[IpAddr], port: u16) -> Result<(Vec<TcpListener>, u16), BindError> {
    let mut sockets: Vec<TcpListener> = Vec::new();
    let mut bound = port;
    for address in addresses {
        let address = SocketAddr::new(*address, bound);
        match TcpListener::bind(address).await {
            Ok(socket) => {
                bound = socket.local_addr().map_err(|error| BindError::System(address, error.kind()))?.port();
                sockets.push(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(BindError::Taken(bound)),
            Err(_) if address.is_ipv6() && !sockets.is_empty() => {}
            Err(error) => return Err(BindError::System(address, error.kind())),
        }
    }
    Ok((sockets, bound))
}

async fn bind_any(addresses: &[IpAddr]) -> Result<(Vec<TcpListener>, u16), BindError> {
    for _ in 1..PORT_ATTEMPTS {
        match bind_all(addresses, 0).await {
            Err(BindError::Taken(_)) => {}
            result => return result,
        }
    }
    bind_all(addresses, 0).await
}

async fn accept(sockets: &[TcpListener]) -> io::Result<TcpStream> {
    let any = |context: &mut std::task::Context<'_>| {
        let ready = sockets.iter().find_map(|socket| match socket.poll_accept(context) {
            Poll::Ready(accepted) => Some(accepted.map(|(stream, _)| stream)),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    };
    std::future::poll_fn(any).await
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, place: Arc<Place>, hits: mpsc::Sender<Hit>) {
    let service = service_fn(move |request| {
        let (place, hits) = (place.clone(), hits.clone());
        async move { Ok::<_, Infallible>(respond(&request, &place, &hits).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(false)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    // A broken or hostile connection concerns nobody.
    let _ = connection.await;
}

async fn respond(request: &Request<Incoming>, place: &Place, hits: &mpsc::Sender<Hit>) -> Response<Full<Bytes>> {
    let Some(query) = place.query(request) else { return render(Page::NotFound) };
    let (page, shown) = oneshot::channel();
    let page = match hits.send(Hit { query, page }).await {
        Ok(()) => shown.await.unwrap_or(Page::NotFound),
        Err(_) => Page::NotFound,
    };
    render(page)
}

fn render(page: Page) -> Response<Full<Bytes>> {
    let (status, kind, text) = match page {
        Page::Done => (StatusCode::OK, "text/html; charset=utf-8", include_str!("done.html")),
        Page::Failed => (StatusCode::BAD_REQUEST, "text/html; charset=utf-8", include_str!("failed.html")),
        Page::NotFound => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(all(unix, any(test, feature = "fuzzing")))]
#[path = "redirect_fuzz.rs"]
pub(crate) mod fuzz;

#[cfg(test)]
#[path = "redirect_tests.rs"]
mod tests;

//! The asynchronous client, for programs that run tokio: the same requests, the same checks and the same rule for stale
//! connections as the blocking one, on hyper. Logins and vault routes are the blocking client's; [`Client::call`] reaches
//! every route that answers with one JSON value.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ToFsName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroizing;

use crate::answer::MAX_ANSWER;
use crate::call::{Call, HOST, segment};
use crate::client::{ANSWER_PATIENCE, build, check, decode, decode_status, grant_path};
use crate::connection::{CONNECT_PATIENCE, check_owner, classify};
use crate::{ClientError, GrantName, GrantSummary, Malformed, Status, TokenAnswer, TokenRequest};

/// An asynchronous client of the daemon. It connects at the first call and keeps the connection for the next one; a call
/// that finds the connection in use opens one of its own.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    patience: Duration,
    kept: Mutex<Option<Connection>>,
    /// Those that relayed requests go on. Some of them are still busy with an answer.
    relaying: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// How many connections are remembered for relayed requests; the daemon closes those that idle.
const MOST_RELAYING: usize = 8;

impl Client {
    /// A client of the daemon whose socket is at `path`, usually [`crate::socket_path`].
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), patience: ANSWER_PATIENCE, kept: Mutex::default(), relaying: Mutex::default() }
    }

    /// Sets how long an answer may take, 40 s at first: a token can take 30 s.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// `POST /v1/token`. Dropping the future withdraws the question.
    pub async fn token(&self, request: &TokenRequest) -> Result<TokenAnswer, ClientError> {
        self.fetch(&build(Call::post("/v1/token", request))?).await
    }

    /// `GET /v1/grants`.
    pub async fn grants(&self) -> Result<Vec<GrantSummary>, ClientError> {
        self.fetch(&Call::get("/v1/grants")).await
    }

    /// `GET /v1/grants/NAME`.
    pub async fn grant(&self, name: &GrantName) -> Result<GrantSummary, ClientError> {
        self.fetch(&Call::get(grant_path(name))).await
    }

    /// `GET /v1/status`. [`ClientError::TooOld`] when the daemon speaks a newer protocol.
    pub async fn status(&self) -> Result<Status, ClientError> {
        decode_status(&self.send(&Call::get("/v1/status")).await?)
    }

    /// Any other route: `GET` when there is no body, else `POST`.
    pub async fn call<T: DeserializeOwned>(&self, path: &str, body: Option<&impl Serialize>) -> Result<T, ClientError> {
        let call = match body {
            Some(body) => build(Call::post(path, body))?,
            None => Call::get(path),
        };
        self.fetch(&call).await
    }

    /// A request to the remote MCP server of a grant, named by `target` (its name, or the server's URL), on a connection that is
    /// nobody else's as long as the answer lasts. The answer's body comes as the server sends it. Dropping the future or the body
    /// ends the request at the server.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] and [`ClientError::TimedOut`] when nothing was sent; after anything else the server may have
    /// got the request. An error status is no error here.
    pub async fn relay(&self, target: &str, method: Method, headers: HeaderMap, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let path = format!("/mcp/{}", segment(target));
        let mut request = Request::builder().method(method).uri(path).body(Full::new(body)).map_err(|_| Malformed::Content)?;
        *request.headers_mut() = headers;
        request.headers_mut().insert("host", hyper::header::HeaderValue::from_static(HOST));
        loop {
            let idle = self.idle();
            let is_fresh = idle.is_none();
            let mut requests = match idle {
                Some(requests) => requests,
                None => self.connect().await?.requests,
            };
            let mut failed = match requests.try_send_request(request).await {
                Ok(answer) => {
                    self.remember(requests);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            match failed.take_message() {
                // The daemon had closed it: nothing was sent, and there may be another.
                Some(unsent) if !is_fresh => request = unsent,
                _ => return Err(from_hyper(failed.into_error())),
            }
        }
    }

    /// A connection whose last answer has been read.
    fn idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut relaying = self.relaying.lock().unwrap_or_else(PoisonError::into_inner);
        relaying.retain(|requests| !requests.is_closed());
        let at = relaying.iter().position(SendRequest::is_ready)?;
        Some(relaying.swap_remove(at))
    }

    fn remember(&self, requests: SendRequest<Full<Bytes>>) {
        let mut relaying = self.relaying.lock().unwrap_or_else(PoisonError::into_inner);
        if relaying.len() < MOST_RELAYING {
            relaying.push(requests);
        }
    }

    async fn fetch<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        decode(&self.send(call).await?)
    }

    async fn send(&self, call: &Call) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        tokio::time::timeout(self.patience, self.exchange(call)).await.map_err(|_| ClientError::TimedOut)?
    }

    /// A kept connection that has gone stale is replaced once, but only if no byte of an answer came.
    async fn exchange(&self, call: &Call) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut connection) = kept {
            match connection.converse(call).await {
                Err(_) if !connection.answered.load(Ordering::Acquire) => {}
                outcome => return self.finish(connection, outcome),
            }
        }
        let mut connection = self.connect().await?;
        let outcome = connection.converse(call).await;
        self.finish(connection, outcome)
    }

    fn finish(
        &self,
        connection: Connection,
        outcome: Result<(u16, Zeroizing<Vec<u8>>), ClientError>,
    ) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let (status, body) = outcome?;
        if !connection.requests.is_closed() {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        check(status, &body)?;
        Ok(body)
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let stream = open(&self.path).await?;
        check_owner(&stream.peer_creds().map_err(ClientError::Io)?, &self.path)?;
        let answered = Arc::new(AtomicBool::new(false));
        let watched = Watched { stream, answered: Arc::clone(&answered) };
        let (requests, driver) = handshake(TokioIo::new(watched)).await.map_err(from_hyper)?;
        // It ends when `requests` is dropped; its error is also that of the request.
        tokio::spawn(driver);
        Ok(Connection { requests, answered })
    }
}

#[derive(Debug)]
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// Whether a byte came since the last request was begun.
    answered: Arc<AtomicBool>,
}

impl Connection {
    async fn converse(&mut self, call: &Call) -> Result<(u16, Zeroizing<Vec<u8>>), ClientError> {
        self.answered.store(false, Ordering::Release);
        self.requests.ready().await.map_err(from_hyper)?;
        let body = Full::new(Bytes::from_owner(call.body.clone()));
        let request = Request::builder().method(call.method).uri(&*call.path).header("host", HOST);
        // Only a path that is no URI fails here.
        let request = request.body(body).map_err(|_| Malformed::Content)?;
        let answer = self.requests.send_request(request).await.map_err(from_hyper)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| {
            let too_large = error.is::<LengthLimitError>();
            if too_large { Malformed::TooLarge } else { Malformed::Truncated }
        })?;
        Ok((status, Zeroizing::new(body.to_bytes().to_vec())))
    }
}

/// A stream that remembers whether it was read from: hyper does not tell an answer that was cut off from none at all.
struct Watched {
    stream: Stream,
    answered: Arc<AtomicBool>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.answered.store(true, Ordering::Release);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    /// As the stream: where it is not, hyper copies every body behind its head.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A full backlog refuses a non-blocking connect at once; it is tried again until the patience is over.
async fn open(path: &Path) -> Result<Stream, ClientError> {
    let deadline = tokio::time::Instant::now() + CONNECT_PATIENCE;
    loop {
        let name = path.to_fs_name::<GenericFilePath>().map_err(ClientError::Io)?;
        match Stream::connect(name).await {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            outcome => return outcome.map_err(|error| classify(error, path)),
        }
    }
}

fn from_hyper(error: hyper::Error) -> ClientError {
    if error.is_parse() {
        Malformed::Head.into()
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Malformed::Truncated.into()
    } else {
        ClientError::Io(std::io::Error::other(error))
    }
}

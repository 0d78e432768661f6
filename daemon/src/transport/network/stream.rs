//! Requests that pass through: bodies and answers of any size and length, piece by piece. It knows nothing of MCP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::HeaderName;
use reqwest::{Client, RequestBuilder};
use tokio::sync::{OnceCell, mpsc};

use super::{CONNECT_TIMEOUT, MOST_REDIRECTS, Network, deepest, failure, host, plain, redirect};
use crate::transport::{Opened, Opening, Outgoing, Piece, TransportError, check_url};

/// The clients whose connections are kept for the next request: one for https, one for http on loopback.
#[derive(Debug, Default)]
pub(super) struct Streams {
    secure: OnceCell<Client>,
    loopback: OnceCell<Client>,
}

/// RFC 9449 section 4.1.
const DPOP: HeaderName = HeaderName::from_static("dpop");
/// The longest silence of a server that is there. A tool may think for as long, and an event stream has nothing to tell for as
/// long; a server that is gone is noticed within a minute, by TCP's own probes.
const SILENCE: Duration = Duration::from_secs(3600);
/// How long a connection is kept for the next request. Many servers close theirs not much later.
const KEPT: Duration = Duration::from_secs(30);
/// How many are kept.
const MOST_KEPT: usize = 4;
/// When TCP asks whether the other side is there, how often again, and how many times in vain.
const PROBES: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

impl Network {
    pub(super) async fn pass(&self, request: Opening) -> Result<Opened, TransportError> {
        let mut url = check_url(&request.url)?;
        let client = self.passing(&url).await?;
        let Opening { method, mut headers, body, prove, .. } = request;
        let (mut first, again) = match body {
            Outgoing::Whole(bytes) => (None, Some(bytes)),
            Outgoing::Pieces { length, pieces } => (Some(Pieces { left: length, pieces, ended: false }), None),
        };
        for hop in 0.. {
            if let Some(prove) = &prove {
                let unproved = || TransportError::NotSent { host: host(&url), reason: "the proof for it cannot be made".to_owned() };
                headers.insert(DPOP, prove(&method, &url).ok_or_else(unproved)?);
            }
            let next = client.request(method.clone(), url.clone()).headers(headers.clone());
            let answer = with_body(next, first.take(), again.as_ref()).send().await.map_err(|error| failure(&url, error))?;
            let same = method == hyper::Method::GET || matches!(answer.status().as_u16(), 307 | 308) && again.is_some();
            match redirect(&url, &answer).filter(|_| same && hop < MOST_REDIRECTS) {
                Some(target) => url = target,
                None => return Ok(opened(url, answer)),
            }
        }
        unreachable!("the last hop returns")
    }

    async fn passing(&self, url: &url::Url) -> Result<Client, TransportError> {
        let kept = if url.scheme() == "https" { &self.streams.secure } else { &self.streams.loopback };
        let make = || async {
            let (after, every, times) = PROBES;
            let builder = plain()
                .pool_max_idle_per_host(MOST_KEPT)
                .pool_idle_timeout(KEPT)
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(SILENCE)
                .tcp_keepalive(after)
                .tcp_keepalive_interval(every)
                .tcp_keepalive_retries(times)
                // What is compressed is passed on as it is.
                .no_gzip();
            self.trusting(builder, url).await?.build().map_err(|error| deepest(&error))
        };
        let client = kept.get_or_try_init(make).await;
        client.cloned().map_err(|reason| TransportError::NotSent { host: host(url), reason })
    }
}

fn with_body(request: RequestBuilder, pieces: Option<Pieces>, whole: Option<&Bytes>) -> RequestBuilder {
    match (pieces, whole) {
        (Some(pieces), _) => request.body(reqwest::Body::wrap(pieces)),
        (None, Some(whole)) if !whole.is_empty() => request.body(whole.clone()),
        (None, _) => request,
    }
}

fn opened(url: url::Url, answer: reqwest::Response) -> Opened {
    let answer: hyper::Response<reqwest::Body> = answer.into();
    let (head, body) = answer.into_parts();
    Opened { status: head.status, headers: head.headers, body: body.map_err(move |error| failure(&url, error)).boxed_unsync() }
}

/// A body that comes through a channel.
struct Pieces {
    /// The bytes that are still to come, where that is known.
    left: Option<u64>,
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(cx));
        Poll::Ready(match piece {
            Some(Piece::Bytes(bytes)) => {
                self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                Some(Ok(Frame::data(bytes)))
            }
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            None => Some(Err(io::ErrorKind::ConnectionAborted.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

//! The body of an answer that goes on as long as its client may have the grant: after that it breaks off, and nobody takes it for
//! whole.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use mcp_auth_proto::ErrorBody;

/// Ready when the client may not go on, with why.
pub(super) type Ended = Pin<Box<dyn Future<Output = ErrorBody> + Send>>;

/// A body on a lease.
pub(super) struct Leased<B> {
    body: B,
    ended: Ended,
}

impl<B> Leased<B> {
    pub(super) fn new(body: B, ended: Ended) -> Self {
        Self { body, ended }
    }
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Body for Leased<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Poll::Ready(error) = self.ended.as_mut().poll(cx) {
            tracing::debug!(%error, "a relayed answer was cut off");
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

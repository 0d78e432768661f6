//! The body of a request on its way through: what is small is kept, so that it can be sent again; the rest passes by.

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::message::{self, Sent};
use crate::ipc::{BodyError, RequestBody};
use crate::transport::{Outgoing, Piece};

/// The largest body that is kept until its answer has begun.
pub(super) const LARGEST_KEPT: usize = 4 * 1024 * 1024;

/// A request's body.
#[derive(Debug)]
pub(super) struct Upload {
    /// What the client asks for.
    pub(super) sent: Sent,
    kept: Bytes,
    /// What comes after it, until it is sent.
    rest: Option<RequestBody>,
    passed_by: bool,
}

/// Holds a request open whose body goes through a channel.
pub(super) type Held = Option<mpsc::Sender<Piece>>;

/// What is still to be handed over while a request is being answered.
#[derive(Debug)]
pub(super) struct Remainder {
    first: Bytes,
    rest: RequestBody,
    pieces: mpsc::Sender<Piece>,
}

impl Upload {
    /// Takes in as much as is kept: `most` bytes, or little more.
    pub(super) async fn begin(stream: Option<RequestBody>, most: usize) -> Result<Self, BodyError> {
        let mut kept = BytesMut::new();
        let mut rest = stream;
        while let Some(body) = rest.as_mut().filter(|_| kept.len() <= most) {
            match body.next().await? {
                Some(piece) => kept.extend_from_slice(&piece),
                None => rest = None,
            }
        }
        let kept = kept.freeze();
        Ok(Self { sent: message::look(&kept), kept, rest, passed_by: false })
    }

    /// Whether it can be sent, for the first time or once more.
    pub(super) fn is_there(&self) -> bool {
        !self.passed_by
    }

    /// The body to send, and what must be carried meanwhile.
    pub(super) fn outgoing(&mut self) -> (Outgoing, Option<Remainder>) {
        let Some(rest) = self.rest.take() else { return (Outgoing::Whole(self.kept.clone()), None) };
        self.passed_by = true;
        // One at a time: who sends faster than the server takes is held back.
        let (sender, pieces) = mpsc::channel(1);
        let first = std::mem::take(&mut self.kept);
        let length = rest.length().map(|length| length + first.len() as u64);
        (Outgoing::Pieces { length, pieces }, Some(Remainder { first, rest, pieces: sender }))
    }
}

impl Remainder {
    /// Holds the request open, whether all of it was handed over or not: a server may answer before it has read everything,
    /// and what it says then shall arrive.
    pub(super) fn held(&self) -> mpsc::Sender<Piece> {
        self.pieces.clone()
    }

    /// Hands over everything. Ends early when the server goes away, or the client.
    pub(super) async fn carry(mut self) -> Result<(), BodyError> {
        let mut next = Some(self.first);
        while let Some(piece) = next {
            if self.pieces.send(Piece::Bytes(piece)).await.is_err() {
                return Ok(());
            }
            next = self.rest.next().await?;
        }
        // A server that has gone is told by its answer.
        let _ = self.pieces.send(Piece::End).await;
        Ok(())
    }
}

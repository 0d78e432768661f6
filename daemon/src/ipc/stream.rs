//! Request bodies: whole within a limit, or piece by piece as they come. What they mean is not known here.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::io::{Gate, Phase};

/// Why a request's body is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is larger than the limit.
    TooLarge,
    /// The client went away, or its chunks are malformed.
    Broken,
}

/// Collects a request's body, without a copy where it came in one piece.
pub(super) async fn collect(mut incoming: Incoming, limit: usize) -> Result<Bytes, BodyError> {
    if incoming.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut whole = Bytes::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(piece) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if whole.len() + piece.len() > limit {
            return Err(BodyError::TooLarge);
        }
        whole = if whole.is_empty() { piece } else { [whole, piece].concat().into() };
    }
    Ok(whole)
}

/// A body that is taken as it comes. Its sender has a time limit only while somebody waits for the next piece: one that is
/// held back, because nobody takes the last, is not to blame.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    gate: Arc<Gate>,
    ended: bool,
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !(self.ended || self.incoming.is_end_stream()) {
            self.gate.leaves_upload();
        }
    }
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, gate: Arc<Gate>) -> Self {
        Self { incoming, gate, ended: false }
    }

    /// The next piece; `None` at the end. To be awaited in the answer's own future, which the time limit ends.
    ///
    /// # Errors
    /// When the client goes away, or its chunks are malformed.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.gate.enter(Phase::Body);
        let piece = loop {
            match self.incoming.frame().await {
                None => {
                    self.ended = true;
                    break Ok(None);
                }
                Some(Err(_)) => break Err(BodyError::Broken),
                // Trailers mean nothing to anybody.
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        break Ok(Some(piece));
                    }
                }
            }
        };
        self.gate.enter(Phase::Waiting);
        piece
    }

    /// The bytes that are still to come, where the head told.
    pub fn length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }
}

//! One connection's other end, for as long as the connection lasts: whoever asks on it, and what program that is, which is
//! looked up only when somebody wants to know. What it may have is the policy's business.

use std::sync::Arc;

use crate::policy::{Peer, Who};

/// The other end of one connection.
#[derive(Debug)]
pub struct Caller {
    peer: Peer,
}

impl Caller {
    /// The process that the kernel noted when the connection was made.
    pub fn new(peer: Peer) -> Arc<Self> {
        Arc::new(Self { peer })
    }

    /// Its user and process.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What is known of it by now; looked up once, at the first question.
    pub async fn who(&self) -> Who {
        Who { peer: self.peer, program: None }
    }
}

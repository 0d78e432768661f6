//! The socket's side of the daemon: HTTP/1.1 on a Unix socket or a named pipe, and on the relay's port. This room accepts, checks who asks, keeps
//! the limits, and turns requests into calls of the broker; it knows nothing of grants.

mod body;
pub mod capability;
mod connection;
mod deeds;
#[cfg(all(unix, any(test, feature = "fuzzing")))]
pub(crate) mod fuzz;
mod guard;
mod io;
pub mod listener;
pub mod peer;
pub mod port;
pub mod routes;
mod stream;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

pub use body::{Answer, OUR_ERROR, Relayed, read};
use bytes::Bytes;
use hyper::{HeaderMap, Method, Uri};
pub use stream::{BodyError, RequestBody};

use crate::caller::Caller;

/// What a connection may take. Over a limit there is a clear answer and the connection is closed; nobody else notices.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's head.
    pub head: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// For the first byte of a connection and the head of a request.
    pub head_time: Duration,
    /// For the body of a request, once its head is there; where it is taken as it comes, for each piece that is waited for.
    pub body_time: Duration,
    /// Between two requests. Never runs while a request waits or streams.
    pub idle_time: Duration,
    /// For a reader that takes nothing of its answer.
    pub stalled_time: Duration,
    /// The same where the answer is another server's, which is held back meanwhile.
    pub relayed_stalled_time: Duration,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one peer process.
    pub per_process: usize,
    /// How many connections there are, for whoever wants to know.
    pub occupied: Arc<AtomicUsize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 16 * 1024,
            body: 64 * 1024,
            head_time: Duration::from_secs(5),
            body_time: Duration::from_secs(5),
            idle_time: Duration::from_secs(60),
            stalled_time: Duration::from_secs(5),
            relayed_stalled_time: Duration::from_secs(300),
            connections: 1024,
            per_process: 256,
            occupied: Arc::default(),
        }
    }
}

/// How far the daemon's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It serves.
    Open,
    /// It accepts nobody, closes idle connections and lets requests finish.
    Draining,
    /// What still streams is cut off.
    Ending,
}

/// Below this path a request's body is taken as it comes, whatever its size.
pub const STREAMED: &str = "/mcp/";

/// A request of a peer that passed the checks.
#[derive(Debug)]
pub struct Call {
    /// Who asks.
    pub caller: Arc<Caller>,
    /// The method.
    pub method: Method,
    /// The path and, where there is one, the query.
    pub uri: Uri,
    /// The headers, as they came.
    pub headers: HeaderMap,
    /// The body, within the limit; empty below [`STREAMED`].
    pub body: Bytes,
    /// The body below [`STREAMED`].
    pub stream: Option<RequestBody>,
}

/// The answer to come. Dropped when the client goes away.
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What answers calls: the routes, or a test.
pub type Answerer = Arc<dyn Fn(Call) -> Answering + Send + Sync>;

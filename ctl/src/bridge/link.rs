//! The way to the daemon's relay: one HTTP exchange for each message, on a connection that is its own meanwhile. It outlasts a
//! restart of the daemon where nothing was sent yet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Response};
use mcp_auth_proto::ClientError;
use mcp_auth_proto::asynchronous::Client;
use tokio::time::{Instant, sleep};

use super::course::Course;

/// How long a daemon that has answered before may take to come back.
const RESTART: Duration = Duration::from_secs(15);
/// How long one that has not may take to come up.
const START: Duration = Duration::from_secs(3);
/// Between two looks whether it is there.
const PAUSE: Duration = Duration::from_millis(100);

/// The relay's address for one MCP server.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    target: String,
    /// What the person wants to be sent with every request.
    headers: HeaderMap,
    was_there: AtomicBool,
}

impl Link {
    pub(super) fn new(client: Client, target: String, headers: HeaderMap) -> Self {
        Self { client, target, headers, was_there: AtomicBool::new(false) }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// As [`Client::relay`]; a daemon that is not there was waited for.
    pub(super) async fn send(&self, method: Method, headers: HeaderMap, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        self.send_on(&Course::default(), method, headers, body).await
    }

    /// The same for a request, which may be cancelled meanwhile.
    pub(super) async fn send_on(
        &self,
        course: &Course,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut all = self.headers.clone();
        all.extend(headers);
        let patience = if self.was_there.load(Ordering::Relaxed) { RESTART } else { START };
        let deadline = Instant::now() + patience;
        loop {
            course.goes().await;
            match self.client.relay(&self.target, method.clone(), all.clone(), body.clone()).await {
                Err(ClientError::NotRunning { .. }) if Instant::now() < deadline => {
                    course.waits().await;
                    sleep(PAUSE).await;
                }
                outcome => {
                    self.was_there.fetch_or(outcome.is_ok(), Ordering::Relaxed);
                    return outcome;
                }
            }
        }
    }
}

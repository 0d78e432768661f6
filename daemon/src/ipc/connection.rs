//! One connection from its first byte to its last: HTTP by hyper, time-outs by the gate, an orderly end. What a request
//! means is not known here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mcp_auth_proto::{ErrorBody, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::body::{Answer, AnswerBody, refusal};
use super::guard::Names;
use super::io::{Gate, Line, Phase, Timed, Timer};
use super::stream::{BodyError, RequestBody, collect};
use super::{Answerer, Call, Limits, STREAMED, Stage, guard};
use crate::caller::Caller;

/// What all connections share.
pub(super) struct Shared {
    pub(super) answer: Answerer,
    pub(super) limits: Limits,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) names: Names,
}

/// Serves a connection until either side closes it or a time limit passes.
pub(super) async fn serve<L: Line>(stream: Arc<Mutex<L>>, caller: Arc<Caller>, shared: Arc<Shared>) {
    let pid = caller.peer().pid;
    let gate = Gate::new(shared.limits.clone());
    let mut stage = shared.stage.clone();
    let answer = |request: Request<Incoming>| {
        // Not when the future is first polled: the end of the peer's sending half may be read before.
        gate.enter(if request.body().is_end_stream() { Phase::Waiting } else { Phase::Body });
        answer(request, caller.clone(), shared.clone(), gate.clone())
    };
    let mut connection = http1::Builder::new()
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_header_size(shared.limits.head)
        .max_buf_size(shared.limits.head.max(LEAST_BUFFER))
        .serve_connection(TokioIo::new(Timed::new(stream, gate.clone())), service_fn(answer));
    let mut timer = Timer::default();
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            () = std::future::poll_fn(|cx| timer.poll_expired(&gate, cx)) => {
                tracing::debug!(pid, phase = ?gate.phase(), "connection closed: time limit");
                return;
            }
            changed = stage.changed() => {
                if changed.is_err() || !goes_on(&gate, *stage.borrow_and_update(), Pin::new(&mut connection)) {
                    return;
                }
            }
        }
    };
    if let Err(error) = &ended {
        tracing::debug!(pid, %error, "connection closed");
    }
    if !gate.peer_closed()
        && *stage.borrow() == Stage::Open
        && let Some(stream) = connection.into_parts().io.into_inner().into_inner()
    {
        linger(stream).await;
    }
}

/// Gives a connection that is refused unread its one answer.
pub(super) async fn refuse<L: Line>(mut stream: L, error: ErrorBody) {
    let answer = refusal(&error);
    if tokio::time::timeout(LINGER, stream.write_all(&answer)).await.is_ok_and(|written| written.is_ok()) {
        linger(stream).await;
    }
}

/// hyper wants at least this much.
const LEAST_BUFFER: usize = 64 * 1024;

/// How long a client may take to read a refusal, or to stop sending what nobody reads.
const LINGER: Duration = Duration::from_secs(1);

/// At the daemon's end, how long a connection may take to send the request that it was made for.
const LAST_CALL: Duration = Duration::from_millis(250);

async fn answer(
    request: Request<Incoming>,
    caller: Arc<Caller>,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
) -> Result<Response<AnswerBody>, Infallible> {
    let (head, incoming) = request.into_parts();
    let pid = caller.peer().pid;
    let received = receive(&head, incoming, &gate, shared.names).await;
    // The rest of what is refused unread is not waited for.
    let close = received.is_err();
    let answer = match received {
        Ok((body, stream)) => {
            gate.enter(Phase::Waiting);
            tracing::debug!(pid, method = %head.method, path = head.uri.path(), "request");
            (shared.answer)(Call { caller, method: head.method, uri: head.uri, headers: head.headers, body, stream }).await
        }
        Err(error) => Answer::Error(Box::new(error)),
    };
    if let Answer::Error(error) = &answer {
        tracing::debug!(pid, status = error.error.status(), %error, "refused");
    }
    let mut response = answer.into_response(gate);
    if close || *shared.stage.borrow() != Stage::Open {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn receive(
    head: &hyper::http::request::Parts,
    incoming: Incoming,
    gate: &Arc<Gate>,
    names: Names,
) -> Result<(Bytes, Option<RequestBody>), ErrorBody> {
    guard::check(head, names)?;
    if head.uri.path().starts_with(STREAMED) {
        return Ok((Bytes::new(), Some(RequestBody::new(incoming, gate.clone()))));
    }
    let limit = gate.limits().body;
    let whole = collect(incoming, limit).await;
    whole.map(|body| (body, None)).map_err(|error| match error {
        BodyError::TooLarge => ErrorBody::new(ErrorCode::PayloadTooLarge, format!("the body is larger than {limit} bytes")),
        BodyError::Broken => ErrorBody::new(ErrorCode::InvalidRequest, "the body does not arrive as its head says"),
    })
}

/// What a connection does when the daemon comes to its end; false: it closes at once.
fn goes_on<L, S>(gate: &Gate, stage: Stage, connection: Pin<&mut http1::Connection<TokioIo<Timed<L>>, S>>) -> bool
where
    L: Line,
    S: hyper::service::HttpService<Incoming, ResBody = AnswerBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match (stage, gate.phase()) {
        (Stage::Ending, Phase::Streaming) => return false,
        // Its request may be on the way, and closing would lose it.
        (Stage::Draining, Phase::Fresh | Phase::Head) => gate.hurry(LAST_CALL),
        (Stage::Draining, _) => connection.graceful_shutdown(),
        _ => {}
    }
    true
}

/// Closes our half and waits for the peer to close its own. To close with unread bytes would take the answer away from
/// a client that is still sending.
async fn linger<L: Line>(mut stream: L) {
    let discard = async {
        stream.shutdown().await?;
        let mut scratch = [0; 4096];
        while stream.read(&mut scratch).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A peer that is gone, or takes too long, is closed all the same.
    let _ = tokio::time::timeout(LINGER, discard).await;
}

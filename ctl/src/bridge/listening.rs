//! The stream on which a server of the older era (before 2026-07-28) speaks unasked: opened after the handshake, opened again after
//! every break, where the last one ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::time::sleep;

use super::conversation::Conversation;
use super::events::Events;
use super::exchange::{is_events, pieces};
use super::message::Message;

/// Between two attempts where the server does not say; doubled while they fail.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Listens until the server says that it never speaks, or no longer knows the session.
pub(super) async fn run(conversation: Arc<Conversation>) {
    let (mut last_id, mut retry, mut failures) = (None, None, 0_u32);
    loop {
        let headers = conversation.stream_headers(last_id.as_deref());
        match conversation.link.send(Method::GET, headers, Bytes::new()).await {
            Ok(response) if response.status() == StatusCode::OK && is_events(response.headers()) => {
                let mut events = Events::after(last_id.take(), retry);
                if listen(&conversation, response.into_body(), &mut events).await {
                    failures = 0;
                }
                (last_id, retry) = (events.last_id, events.retry);
            }
            // It has no such stream, or no such session.
            Ok(response) if is_final(&response) => return,
            Ok(_) | Err(_) => {}
        }
        let pause = PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE);
        failures += 1;
        sleep(retry.unwrap_or(PAUSE).max(if failures > 1 { pause } else { Duration::ZERO }).min(LONGEST_PAUSE)).await;
    }
}

/// A refusal of the daemon's own, such as a login that is missing, says nothing about the server.
fn is_final<B>(response: &hyper::Response<B>) -> bool {
    let ours = response.headers().contains_key(super::exchange::OUR_ERROR);
    !ours
        && matches!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED
        )
}

/// Passes on what the server says; whether it said anything.
async fn listen(conversation: &Conversation, body: hyper::body::Incoming, events: &mut Events) -> bool {
    let mut spoke = false;
    let mut pieces = pieces(body);
    while let Some(Ok(piece)) = pieces.next().await {
        let Ok(complete) = events.feed(&piece) else { return spoke };
        spoke = true;
        for event in complete {
            if event.kind == "message" && Message::read(&event.data).is_some() {
                conversation.write(event.data).await;
            }
        }
    }
    spoke
}

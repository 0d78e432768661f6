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
use super::message::Kind;

/// The longest pause between two attempts: it doubles while they fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Listens until the server says that it never speaks, or no longer knows the session.
pub(super) async fn run(conversation: Arc<Conversation>) {
    let (mut events, mut failures) = (Events::default(), 0_u32);
    loop {
        let headers = conversation.stream_headers(events.last_id.as_deref());
        let mut spoke = false;
        match conversation.link.send(Method::GET, headers, Bytes::new()).await {
            Ok(response) if response.status() == StatusCode::OK && is_events(response.headers()) => {
                events = events.next();
                spoke = listen(&conversation, response.into_body(), &mut events).await;
            }
            // It has no such stream, or no such session.
            Ok(response) if is_final(&response) => return,
            Ok(_) | Err(_) => {}
        }
        failures = if spoke { 0 } else { failures.saturating_add(1) };
        let times = 2_u32.saturating_pow(failures.saturating_sub(1));
        sleep(events.pause().saturating_mul(times).min(LONGEST_PAUSE)).await;
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
            if event.kind == "message" && Kind::of(&event.data).is_some() {
                conversation.write(event.data).await;
            }
        }
    }
    spoke
}

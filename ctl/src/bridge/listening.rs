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

/// Listens until the server says that it never speaks, or no longer knows the session, or the policy does not let us.
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
            Ok(response) if is_final(&response) => return,
            Ok(_) | Err(_) => {}
        }
        failures = if spoke { 0 } else { failures.saturating_add(1) };
        let times = 2_u32.saturating_pow(failures.saturating_sub(1));
        sleep(events.pause().saturating_mul(times).min(LONGEST_PAUSE)).await;
    }
}

/// Whether it has no such stream, or no such session. A refusal of the daemon's own, such as a login that is missing, says nothing
/// about that; but where the policy refuses us a person may be asked each time.
fn is_final<B>(response: &hyper::Response<B>) -> bool {
    match response.headers().get(super::exchange::OUR_ERROR) {
        Some(ours) => matches!(ours.as_bytes(), b"access_denied" | b"consent_required"),
        None => matches!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED
        ),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_given_up_where_the_server_has_none_and_where_the_policy_would_ask_a_person_each_time() {
        let with = |status: u16, ours: Option<&str>| {
            let mut response = hyper::Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().extend(ours.map(|code| (super::super::exchange::OUR_ERROR, code.parse().unwrap())));
            is_final(&response)
        };
        assert!(with(405, None) && with(404, None) && !with(502, None) && !with(200, None));
        assert!(with(405, Some("access_denied")) && with(405, Some("consent_required")));
        assert!(!with(405, Some("login_required")) && !with(503, Some("vault_locked")) && !with(404, Some("unknown_grant")));
    }
}

//! The stream on which a server of the older era (before 2026-07-28) speaks unasked: opened after the handshake, opened again after
//! every break, where the last one ended.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::time::sleep;

use super::conversation::Conversation;
use super::events::Events;
use super::exchange::{OUR_ERROR, has_none, is_events, pieces, refusal};
use super::message::Kind;
use crate::output;

/// After how many denials in a row it is given up: one may be a server's 403 that passes.
const MOST_DENIALS: u32 = 8;

/// Listens until the server says that it never speaks, or no longer knows the session, or keeps denying it, or the policy would have a
/// person asked each time.
pub(super) async fn run(conversation: Arc<Conversation>) {
    let (mut events, mut failures, mut denials) = (Events::default(), 0_u32, 0);
    loop {
        let headers = conversation.stream_headers(events.last_id.as_deref());
        let mut spoke = false;
        match conversation.link.send(Method::GET, headers, Bytes::new()).await {
            Ok(response) if response.status() == StatusCode::OK && is_events(response.headers()) => {
                (events, denials) = (events.next(), 0);
                spoke = listen(&conversation, response.into_body(), &mut events).await;
            }
            Ok(response) => {
                let refusal = refusal(response.headers());
                denials = refusal.map_or(0, |_| denials + 1);
                if is_final(&response, denials) {
                    if let Some(why) = refusal {
                        output::note(&format!("what the server says unasked is not listened to any more: {why}, then connect anew"));
                    }
                    return;
                }
            }
            Err(_) => {}
        }
        failures = if spoke { 0 } else { failures.saturating_add(1) };
        sleep(events.pause_after(failures)).await;
    }
}

/// Whether it has no such stream, or no such session. A refusal of the daemon's own, such as a login that is missing, says nothing
/// about that; but where a person must allow it he would be asked each time, and what is denied time and again stays so.
fn is_final<B>(response: &hyper::Response<B>, denials: u32) -> bool {
    match response.headers().get(OUR_ERROR) {
        Some(ours) => ours == "consent_required" || (ours == "access_denied" && denials >= MOST_DENIALS),
        None => has_none(response),
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
    fn a_stream_is_given_up_where_the_server_has_none_where_a_person_would_be_asked_each_time_and_after_many_denials() {
        let after = |denials: u32, status: u16, ours: Option<&str>| {
            let mut response = hyper::Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().extend(ours.map(|code| (OUR_ERROR, code.parse().unwrap())));
            is_final(&response, denials)
        };
        let with = |status, ours| after(1, status, ours);
        assert!(with(405, None) && with(404, None) && !with(502, None) && !with(200, None));
        assert!(with(405, Some("consent_required")));
        assert!(!with(405, Some("access_denied")), "a 403 of the server is told in the same words, and may pass");
        assert!(after(MOST_DENIALS, 405, Some("access_denied")) && !after(MOST_DENIALS, 405, Some("login_required")));
        assert!(!with(405, Some("login_required")) && !with(503, Some("vault_locked")) && !with(404, Some("unknown_grant")));
    }
}

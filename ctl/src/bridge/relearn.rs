//! A server that refuses a call since its headers do not fit (2026-07-28, HeaderMismatch): its tools were never listed here, or have
//! changed. They are listed once more, and where the call's headers come out otherwise then, it is worth sending again: the
//! server has not carried it out.

use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use serde_json::Value;

use super::conversation::Conversation;
use super::course::Course;
use super::events::Events;
use super::exchange::{OUR_ERROR, is_events, pieces, post, whole};
use super::message::{self, Message};
use super::mirror;

/// The error's code.
const MISMATCH: i64 = -32020;
/// How long the list may take, and how many pages it may have.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_PAGES: usize = 20;

/// Lists the tools again, if a call was refused for its headers. Whether they have come out otherwise.
pub(super) async fn helps(conversation: &Conversation, message: &Message, line: &[u8], error: &str) -> bool {
    let error: Value = serde_json::from_str(error).unwrap_or_default();
    if error["code"] != MISMATCH || message.method != "tools/call" || !message.is_modern() {
        return false;
    }
    let before = headers(conversation, message, line);
    // What was learnt until then counts.
    let _ = tokio::time::timeout(PATIENCE, list(conversation, line)).await;
    headers(conversation, message, line) != before
}

fn headers(conversation: &Conversation, message: &Message, line: &[u8]) -> HeaderMap {
    let state = conversation.state();
    mirror::of(message, line, state.version.as_deref(), &state.tools)
}

/// All pages, asked for as the call's client would.
async fn list(conversation: &Conversation, line: &[u8]) -> Option<()> {
    let mut cursor = None;
    for _ in 0..MOST_PAGES {
        let question = message::tools_list(line, cursor.as_deref())?;
        let result = answer(conversation, question).await?;
        // Nobody sees this list: what must not be shown is left out of the one that the client asks for.
        let _ = conversation.state().tools.learn(&result.to_string());
        cursor = Some(result.get("nextCursor")?.as_str()?.to_owned());
    }
    Some(())
}

async fn answer(conversation: &Conversation, question: String) -> Option<Value> {
    let (message, question) = (Message::read(question.as_bytes())?, Bytes::from(question));
    let response = post(conversation, &message, &question, &Course::default()).await.ok()?;
    if response.headers().contains_key(OUR_ERROR) || !response.status().is_success() {
        return None;
    }
    if !is_events(response.headers()) {
        return result(&whole(response.into_body()).await.ok()?);
    }
    let (mut events, mut pieces) = (Events::default(), pieces(response.into_body()));
    while let Some(Ok(piece)) = pieces.next().await {
        if let Some(found) = events.feed(&piece).ok()?.into_iter().find_map(|event| result(&event.data)) {
            return Some(found);
        }
    }
    None
}

fn result(text: &[u8]) -> Option<Value> {
    serde_json::from_str(message::outcome(text).result?.get()).ok()
}

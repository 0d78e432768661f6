//! One message on its way to the server, and all that comes back for it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName};
use hyper::{HeaderMap, Method, Response, StatusCode};
use mcp_auth_proto::{ClientError, ErrorBody};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::conversation::Conversation;
use super::course::Course;
use super::events::Events;
use super::login::State;
use super::message::{self, Brings, Kind, Message};
use super::{elicit, mirror, relearn};
use crate::failure::Failure;
use crate::output::{self, field};

/// What the daemon sets on an answer that is its own and not the server's.
pub(super) const OUR_ERROR: HeaderName = HeaderName::from_static("mcp-authd-error");

/// The largest message that is taken in.
const LARGEST: usize = 64 * 1024 * 1024;
/// How long it is tried to take up a request's stream again, until a word of the server comes; while one is open no time counts.
const TAKING_UP: Duration = Duration::from_secs(120);
/// How many logins one request may cause: a server may want more scopes once it knows who asks.
const MOST_LOGINS: u32 = 2;

/// Why a request has no answer of the server's.
pub(super) enum Lost {
    /// The error to answer with, as JSON.
    Error(String),
    /// The same, in words.
    Said(String),
}

/// Sends a request and writes everything that comes back, at last an answer, whatever happens.
pub(super) async fn run(conversation: &Conversation, message: &Message, line: Bytes, course: &Course) {
    let error = match attempt(conversation, message, &line, course).await {
        Ok(()) => return,
        Err(Lost::Error(error)) => error,
        Err(Lost::Said(sentence)) => message::own_error(&sentence),
    };
    refuse(conversation, message, &error).await;
}

/// Answers all that is owed with an error, as JSON.
pub(super) async fn refuse(conversation: &Conversation, message: &Message, error: &str) {
    for id in message.owed() {
        conversation.write(message::with_error(id, error).into_bytes()).await;
    }
}

/// Sends what nobody answers.
pub(super) async fn tell(conversation: &Conversation, message: &Message, line: Bytes) -> Result<(), String> {
    let response = post(conversation, message, &line, &Course::default()).await.map_err(told)?;
    let status = response.status();
    let ours = response.headers().get(OUR_ERROR).and_then(|code| code.to_str().ok()).map(str::to_owned);
    match ours {
        Some(code) => Err(whole(response.into_body()).await.ok().and_then(|text| in_words(&text)).unwrap_or(code)),
        None if status.is_success() => Ok(()),
        None => Err(format!("the server answers {status}")),
    }
}

pub(super) async fn post(
    conversation: &Conversation,
    message: &Message,
    line: &Bytes,
    course: &Course,
) -> Result<Response<Incoming>, ClientError> {
    let headers = {
        let state = conversation.state();
        let mut headers = mirror::of(message, line, state.version.as_deref(), &state.tools);
        headers.extend(state.session.clone().filter(|_| !message.is_modern()).map(|session| (mirror::SESSION, session)));
        headers
    };
    conversation.link.send_on(course, Method::POST, headers, line.clone()).await
}

async fn attempt(conversation: &Conversation, message: &Message, line: &Bytes, course: &Course) -> Result<(), Lost> {
    let (mut logins, mut relearned) = (0, false);
    let stripped = if let Brings::OurAnswer(opened) = message.brings {
        if opened {
            conversation.logins.ended().await;
        }
        // No server has asked for that.
        logins = MOST_LOGINS;
        message::without_our_answer(line).map(Bytes::from)
    } else {
        None
    };
    let line = stripped.as_ref().unwrap_or(line);
    loop {
        let response = post(conversation, message, line, course).await.map_err(lost)?;
        if !response.headers().contains_key(OUR_ERROR) {
            match answered(conversation, message, response).await {
                Err(Lost::Error(error)) if !relearned && relearn::helps(conversation, message, line, &error).await => relearned = true,
                outcome => return outcome,
            }
            continue;
        }
        course.waits().await;
        let wants = scopes_wanted(response.headers());
        let text = whole(response.into_body()).await?;
        if let Some(wants) = wants.filter(|_| logins < MOST_LOGINS) {
            logins += 1;
            match conversation.logins.end(wants.then(|| scopes_of(&text)).flatten()).await {
                State::Done | State::Over => continue,
                State::Failed(why) => return Err(Lost::Said(why.to_string())),
                State::Nothing | State::Running => {}
            }
        }
        let error = json_rpc_error(&text);
        if let Some(wants) = wants
            && let Some(asked) = shown_by_client(conversation, message, wants.then(|| scopes_of(&text)).flatten(), error.as_deref()).await
        {
            return asked;
        }
        let said = || in_words(&text).unwrap_or_else(|| "the daemon refuses this without a reason".to_owned());
        return Err(error.map_or_else(|| Lost::Said(said()), Lost::Error));
    }
}

/// Has the client show the login's page, if it can. `None`: it cannot, or has just done so.
async fn shown_by_client(
    conversation: &Conversation,
    message: &Message,
    scopes: Option<Vec<String>>,
    ready: Option<&str>,
) -> Option<Result<(), Lost>> {
    let Kind::Request(id) = &message.kind else { return None };
    if message.is_modern() {
        if !(message.elicits && elicit::may_ask(message) && message.brings == Brings::Nothing) {
            return None;
        }
        let shown = conversation.logins.page(scopes).await?;
        conversation.write(elicit::question(id, &shown.page, ready).into_bytes()).await;
        return Some(Ok(()));
    }
    if !conversation.state().elicits {
        return None;
    }
    let shown = conversation.logins.page(scopes).await?;
    let error = elicit::error(&shown.page, ready);
    conversation.tell_completion(shown);
    Some(Err(Lost::Error(error)))
}

/// Why another attempt would hardly fare better, and might have a person asked again.
pub(super) fn refusal(headers: &HeaderMap) -> Option<&'static str> {
    match headers.get(OUR_ERROR)?.as_bytes() {
        b"access_denied" => Some("the policy or the server denies it (access_denied); hint: mcp-authctl policy list"),
        b"consent_required" => Some("a person has to allow it (consent_required); hint: mcp-authctl approve"),
        _ => None,
    }
}

/// Whether a login would help, and if so, whether it must ask for more scopes.
fn scopes_wanted(headers: &HeaderMap) -> Option<bool> {
    match headers.get(OUR_ERROR)?.to_str().ok()? {
        "login_required" | "unknown_grant" => Some(false),
        "insufficient_scope" => Some(true),
        _ => None,
    }
}

/// The scopes that the daemon's error says a login must ask for.
fn scopes_of(text: &[u8]) -> Option<Vec<String>> {
    let answer: Value = serde_json::from_slice(text).ok()?;
    let scopes = answer.pointer("/error/data/scopes")?.as_array()?;
    Some(scopes.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// What the server answers to a request.
async fn answered(conversation: &Conversation, message: &Message, response: Response<Incoming>) -> Result<(), Lost> {
    let status = response.status();
    if !status.is_success() {
        return refused(conversation, message, response).await;
    }
    if message.method == "initialize" && !message.is_modern() {
        conversation.state().session = response.headers().get(mirror::SESSION).cloned();
    }
    if is_events(response.headers()) {
        return streamed(conversation, message, response.into_body()).await;
    }
    let text = whole(response.into_body()).await?;
    let Some(kind) = Kind::of(&text) else {
        return Err(Lost::Said(format!("the server's answer ({status}) is not a message of MCP")));
    };
    // A list is not looked into.
    let is_list = [&kind, &message.kind].into_iter().any(|kind| matches!(kind, Kind::Batch(_)));
    if !is_list && !matches!(&kind, Kind::Response(id) if message.is_owed(id)) {
        return Err(Lost::Said(format!("the server's answer ({status}) is none to this request")));
    }
    deliver(conversation, message, &kind, text).await;
    Ok(())
}

/// An error status. The server may say why in the words of JSON-RPC.
async fn refused(conversation: &Conversation, message: &Message, response: Response<Incoming>) -> Result<(), Lost> {
    let status = response.status();
    let text = whole(response.into_body()).await.unwrap_or_default();
    let in_session = !message.is_modern() && message.method != "initialize" && conversation.state().session.is_some();
    if let Some(error) = json_rpc_error(&text) {
        return Err(Lost::Error(error));
    }
    Err(Lost::Said(if status == StatusCode::NOT_FOUND && in_session {
        "the server no longer knows this session; hint: connect to the server anew".to_owned()
    } else {
        format!("the server answers {status}")
    }))
}

/// The error in an answer, where it is one of JSON-RPC.
fn json_rpc_error(text: &[u8]) -> Option<String> {
    let error = message::outcome(text).error?.get();
    error.starts_with('{').then(|| error.to_owned())
}

/// An error of the daemon's as it tells those who do not speak JSON-RPC: in words.
fn in_words(text: &[u8]) -> Option<String> {
    let error: ErrorBody = serde_json::from_slice(text).ok()?;
    let hint = error.hint.as_deref().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
    Some(format!("{error}{hint}"))
}

/// Events until the answer is among them. One that breaks off is taken up where it broke (before 2026-07-28).
async fn streamed(conversation: &Conversation, message: &Message, body: Incoming) -> Result<(), Lost> {
    let (mut events, mut attempts) = (Events::default(), Attempts::default());
    let mut body = Some(body);
    loop {
        if let Some(body) = body.take() {
            match pass(conversation, message, body, &mut events).await? {
                Passed::Answer => return Ok(()),
                // Its answers are not counted: the stream's end is theirs.
                _ if matches!(message.kind, Kind::Batch(_)) => return Ok(()),
                Passed::Something => attempts = Attempts::default(),
                Passed::Nothing => {}
            }
        }
        let resumable = !message.is_modern() && events.last_id.is_some();
        let Some(pause) = attempts.pause(&events).filter(|_| resumable) else {
            return Err(Lost::Said("the server's answer broke off; whether the request was carried out is not known".to_owned()));
        };
        let started = Instant::now();
        sleep(pause).await;
        let headers = conversation.stream_headers(events.last_id.as_deref());
        match conversation.link.send(Method::GET, headers, Bytes::new()).await {
            Ok(response) if response.status() == StatusCode::OK && is_events(response.headers()) => {
                events = events.next();
                body = Some(response.into_body());
            }
            Ok(response) => {
                if let Some(why) = refusal(response.headers()) {
                    return Err(not_taken_up(why));
                }
                if has_none(&response) {
                    return Err(not_taken_up(&format!("the server answers {}", response.status())));
                }
            }
            Err(error) if is_unsent(&error) => return Err(not_taken_up(&told(error))),
            Err(_) => {}
        }
        attempts.took(started.elapsed());
    }
}

/// Whether the server itself says that there is no such stream, or no such session.
pub(super) fn has_none<B>(response: &Response<B>) -> bool {
    let of_no_stream = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST, StatusCode::NOT_IMPLEMENTED];
    !response.headers().contains_key(OUR_ERROR) && of_no_stream.contains(&response.status())
}

/// The attempts to take a stream up again, since the server's last word.
#[derive(Debug, Default)]
struct Attempts {
    made: u32,
    time: Duration,
}

impl Attempts {
    /// How long the next one waits; `None`: there are enough.
    fn pause(&self, events: &Events) -> Option<Duration> {
        (self.time < TAKING_UP).then(|| events.pause_after(self.made))
    }

    fn took(&mut self, time: Duration) {
        self.made += 1;
        self.time += time;
    }
}

/// What has come on a stream until its end.
enum Passed {
    Answer,
    Something,
    Nothing,
}

/// Passes on what a stream holds.
async fn pass(conversation: &Conversation, message: &Message, body: Incoming, events: &mut Events) -> Result<Passed, Lost> {
    let (mut pieces, mut passed) = (pieces(body), Passed::Nothing);
    while let Some(Ok(piece)) = pieces.next().await {
        passed = Passed::Something;
        let complete = events.feed(&piece).map_err(|_| too_large())?;
        for event in complete.into_iter().filter(|event| event.kind == "message") {
            if let Some(kind) = Kind::of(&event.data)
                && deliver(conversation, message, &kind, event.data).await
            {
                return Ok(Passed::Answer);
            }
        }
    }
    Ok(passed)
}

/// Writes a message of the server; whether it is the answer to this one.
async fn deliver(conversation: &Conversation, message: &Message, kind: &Kind, text: Vec<u8>) -> bool {
    let answers = match kind {
        Kind::Response(id) => message.is_owed(id),
        Kind::Batch(_) => matches!(message.kind, Kind::Batch(_)),
        Kind::Request(_) | Kind::Notification => false,
    };
    let changed = if answers { learn(conversation, message, &text) } else { None };
    conversation.write(changed.unwrap_or(text)).await;
    answers && !matches!(message.kind, Kind::Batch(_))
}

/// What an answer tells the bridge itself, and what becomes of it for that.
fn learn(conversation: &Conversation, message: &Message, text: &[u8]) -> Option<Vec<u8>> {
    let result = message::outcome(text).result?;
    match (message.method.as_str(), message.is_modern()) {
        ("initialize", false) => {
            let result: Value = serde_json::from_str(result.get()).ok()?;
            conversation.state().version = result.get("protocolVersion").and_then(Value::as_str).map(str::to_owned);
            None
        }
        ("tools/list", true) => {
            let (left, dropped) = conversation.state().tools.learn(result.get())?;
            for name in dropped {
                output::note(&format!("the tool {} is left out: its x-mcp-header annotations are wrong", field(&name)));
            }
            Some(message::with_result(message.owed().first()?, &left).into_bytes())
        }
        _ => None,
    }
}

// ---- bodies ----

/// A body, piece by piece.
pub(super) struct Pieces(Incoming);

pub(super) fn pieces(body: Incoming) -> Pieces {
    Pieces(body)
}

impl Pieces {
    /// The next piece that holds anything; an error is a body that was cut off.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            match self.0.frame().await? {
                Err(error) => return Some(Err(error)),
                Ok(frame) => {
                    if let Ok(piece) = frame.into_data() {
                        return Some(Ok(piece));
                    }
                }
            }
        }
    }
}

pub(super) async fn whole(body: Incoming) -> Result<Vec<u8>, Lost> {
    let mut text = Vec::new();
    let mut pieces = pieces(body);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Lost::Said("the answer was cut off; whether the request was carried out is not known".to_owned()))?;
        if text.len() + piece.len() > LARGEST {
            return Err(too_large());
        }
        text.extend_from_slice(&piece);
    }
    Ok(text)
}

/// Whether a body is a stream of events.
pub(super) fn is_events(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

fn too_large() -> Lost {
    Lost::Said(format!("the server's answer is larger than {} MiB", LARGEST / (1024 * 1024)))
}

/// The rest of the answer may not be had: the rules may have changed meanwhile.
fn not_taken_up(why: &str) -> Lost {
    Lost::Said(format!("the server's answer broke off; whether the request was carried out is not known; the rest is not to be had: {why}"))
}

fn lost(error: ClientError) -> Lost {
    let fate = if is_unsent(&error) { "" } else { "; whether the request was carried out is not known" };
    Lost::Said(format!("{}{fate}", told(error)))
}

/// There is no daemon to send it to, however long it was waited for.
fn is_unsent(error: &ClientError) -> bool {
    matches!(error, ClientError::NotRunning { .. } | ClientError::NotOurDaemon { .. })
}

/// Why the daemon could not be asked, and what to do about it.
fn told(error: ClientError) -> String {
    let failure = Failure::from(error);
    let hint = failure.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
    format!("{failure}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_the_policy_ends_is_said_so_and_other_troubles_are_no_refusal() {
        let why = |code: &str| refusal(&HeaderMap::from_iter([(OUR_ERROR, code.parse().unwrap())]));
        for (code, command) in [("access_denied", "mcp-authctl policy list"), ("consent_required", "mcp-authctl approve")] {
            let Lost::Said(sentence) = not_taken_up(why(code).unwrap()) else { panic!("{code}") };
            assert!(sentence.contains(code) && sentence.ends_with(command), "{sentence}");
        }
        for code in ["login_required", "insufficient_scope", "vault_locked", "too_many_requests", "provider_unreachable"] {
            assert_eq!(why(code), None, "{code}");
        }
        assert_eq!(refusal(&HeaderMap::new()), None, "the server's own answer");
    }

    #[test]
    fn a_stream_is_taken_up_again_for_two_minutes_with_pauses_that_grow() {
        let (mut attempts, mut pauses) = (Attempts::default(), Vec::new());
        while let Some(pause) = attempts.pause(&Events::default()) {
            attempts.took(pause);
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 30, 30, 30]);
        let mut slow = Attempts::default();
        slow.took(TAKING_UP);
        assert_eq!(slow.pause(&Events::default()), None, "an attempt's own time counts");
    }
}

//! What goes over the socket: requests as checked JSON, answers as JSON, as a stream of JSON lines, or as another server's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Response, StatusCode};
use mcp_auth_proto::{AuditLine, ErrorBody, ErrorCode, Event, LoginEvent, is_hidden};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use zeroize::Zeroize;

use super::io::{Gate, Phase};
use crate::oauth::text::{clean, clean_within};

/// How a client tells an error of ours from one that is relayed: the code. A server cannot set it.
pub const OUR_ERROR: HeaderName = HeaderName::from_static("mcp-authd-error");

/// What a route answers.
#[derive(Debug)]
pub enum Answer {
    /// A value, as JSON.
    Json(Bytes),
    /// An error, with its status.
    Error(Box<ErrorBody>),
    /// The events of a login, one JSON line each.
    Login(mpsc::UnboundedReceiver<LoginEvent>),
    /// What changes in the daemon, one JSON line each.
    Events(mpsc::Receiver<Event>),
    /// Who got what, one JSON line each.
    Audit(mpsc::Receiver<AuditLine>),
    /// Counts, as Prometheus reads them.
    Metrics(String),
    /// The answer of another server, or one in the words of its protocol.
    Relayed(Box<Relayed>),
}

/// An answer with a head of its own. A body that ends in an error is cut off, so that nobody takes it for whole.
#[derive(Debug)]
pub struct Relayed {
    /// The status.
    pub status: StatusCode,
    /// The headers, those of the connection excepted.
    pub headers: HeaderMap,
    /// The body.
    pub body: UnsyncBoxBody<Bytes, io::Error>,
}

impl Answer {
    /// A value, as JSON.
    ///
    /// # Errors
    /// `internal_error` when it has no JSON form, which none of the wire's types is without.
    pub fn json<T: Serialize>(value: &T) -> Result<Self, ErrorBody> {
        json_bytes(value).map(Self::Json)
    }

    /// The HTTP answer. `gate` hears when the last byte has been handed over.
    pub(super) fn into_response(self, gate: Arc<Gate>) -> Response<AnswerBody> {
        let (status, content_type, body) = match self {
            Self::Json(bytes) => (StatusCode::OK, JSON, AnswerBody::whole(bytes, &gate)),
            Self::Error(error) => return error_response(&error, &gate),
            Self::Login(events) => (StatusCode::OK, LINES, AnswerBody::Lines(Lines::Login(events), gate)),
            Self::Events(events) => (StatusCode::OK, LINES, AnswerBody::Lines(Lines::Events(events), gate)),
            Self::Audit(lines) => (StatusCode::OK, LINES, AnswerBody::Lines(Lines::Audit(lines), gate)),
            Self::Metrics(text) => (StatusCode::OK, METRICS, AnswerBody::whole(text.into(), &gate)),
            Self::Relayed(relayed) => return relayed_response(*relayed, gate),
        };
        if let AnswerBody::Lines(_, gate) = &body {
            gate.enter(Phase::Streaming);
        }
        response(status, content_type, body)
    }
}

impl From<Result<Self, ErrorBody>> for Answer {
    fn from(result: Result<Self, ErrorBody>) -> Self {
        result.unwrap_or_else(|error| Self::Error(Box::new(harmless(error))))
    }
}

/// The longest sentence of an error, in characters.
const LONGEST_SENTENCE: usize = 600;

/// What a sentence repeats of a request, or of a provider, goes to logs and terminals: the last place to see to that.
fn harmless(mut error: ErrorBody) -> ErrorBody {
    let said = &error.error_description;
    if said.len() > LONGEST_SENTENCE || said.chars().any(is_hidden) {
        error.error_description = clean_within(said, LONGEST_SENTENCE);
    }
    // It may have lines.
    if let Some(hint) = &mut error.hint {
        hint.retain(|c| c == '\n' || !is_hidden(c));
    }
    error
}

/// Reads a request's JSON object. An empty body is an empty object.
///
/// # Errors
/// `invalid_request`, naming the field, for anything that is not exactly one object of known fields, each at most once.
/// The values stay out of the sentence: they may be secrets.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ErrorBody> {
    let body = if body.is_empty() { b"{}" } else { body };
    // A list of the fields' values would pass as an object.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(ErrorBody::new(ErrorCode::InvalidRequest, "the body must be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| ErrorBody::new(ErrorCode::InvalidRequest, without_values(&error)))
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum AnswerBody {
    Whole(Option<Bytes>),
    Lines(Lines, Arc<Gate>),
    Relayed(Passing),
}

/// The body of a relayed answer. It tells the gate when its last byte is handed over by being let go: hyper asks a body whose
/// length is reached nothing more.
#[derive(Debug)]
pub(super) struct Passing {
    body: UnsyncBoxBody<Bytes, io::Error>,
    gate: Arc<Gate>,
}

impl Drop for Passing {
    fn drop(&mut self) {
        if self.gate.phase() == Phase::Streaming {
            self.gate.enter(Phase::Answered);
        }
    }
}

/// Where the lines of a stream come from.
#[derive(Debug)]
pub(super) enum Lines {
    Login(mpsc::UnboundedReceiver<LoginEvent>),
    Events(mpsc::Receiver<Event>),
    Audit(mpsc::Receiver<AuditLine>),
}

impl AnswerBody {
    fn whole(bytes: Bytes, gate: &Gate) -> Self {
        gate.enter(Phase::Answered);
        Self::Whole(Some(bytes))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Lines(lines, gate) => {
                let line = ready!(lines.poll_line(cx));
                if line.is_none() {
                    gate.enter(Phase::Answered);
                }
                Poll::Ready(line.map(|line| Ok(Frame::data(line))))
            }
            Self::Relayed(passing) => Pin::new(&mut passing.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Lines(..) => false,
            Self::Relayed(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Lines(..) => SizeHint::default(),
            Self::Relayed(passing) => passing.body.size_hint(),
        }
    }
}

impl Lines {
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Poll::Ready(match self {
            Self::Login(events) => ready!(events.poll_recv(cx)).as_ref().and_then(json_line),
            Self::Events(events) => ready!(events.poll_recv(cx)).as_ref().and_then(json_line),
            Self::Audit(lines) => ready!(lines.poll_recv(cx)).as_ref().and_then(json_line),
        })
    }
}

/// An answer in full, for a connection that is refused before HTTP begins.
pub(super) fn refusal(error: &ErrorBody) -> Vec<u8> {
    let body = serde_json::to_string(error).unwrap_or_default();
    let status = error.error.status();
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    let (length, code) = (body.len(), error.error.as_str());
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n{OUR_ERROR}: {code}\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CHALLENGE: HeaderValue = HeaderValue::from_static("MCP-Authd");

fn error_response(error: &ErrorBody, gate: &Gate) -> Response<AnswerBody> {
    let status = StatusCode::from_u16(error.error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json_bytes(error).unwrap_or_default();
    let mut response = response(status, JSON, AnswerBody::whole(body, gate));
    response.headers_mut().insert(OUR_ERROR, HeaderValue::from_static(error.error.as_str()));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn relayed_response(relayed: Relayed, gate: Arc<Gate>) -> Response<AnswerBody> {
    gate.enter(Phase::Streaming);
    gate.relays();
    let mut response = Response::new(AnswerBody::Relayed(Passing { body: relayed.body, gate }));
    *response.status_mut() = relayed.status;
    *response.headers_mut() = relayed.headers;
    response
}

fn response(status: StatusCode, content_type: HeaderValue, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// JSON in a buffer that is wiped when the answer is out.
fn json_bytes<T: Serialize>(value: &T) -> Result<Bytes, ErrorBody> {
    // Room for a usual token, so that growing leaves no copies behind.
    let mut written = Written(Vec::with_capacity(2048));
    serde_json::to_writer(&mut written.0, value).map_err(|_| ErrorBody::new(ErrorCode::InternalError, "the answer has no JSON form"))?;
    Ok(Bytes::from_owner(written))
}

/// Bytes that are wiped when dropped, as far as they were written. The room behind them is left alone, which `Zeroizing` would
/// wipe too, byte by byte.
struct Written(Vec<u8>);

impl AsRef<[u8]> for Written {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

fn json_line<T: Serialize>(value: &T) -> Option<Bytes> {
    let mut line = serde_json::to_vec(value).ok()?;
    line.push(b'\n');
    Some(line.into())
}

/// What serde says, less the value that it quotes.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (text, position) = text.rsplit_once(" at line ").unwrap_or((&text, "1"));
    let names_a_field = ["unknown field", "missing field", "duplicate field"].iter().any(|start| text.starts_with(start));
    let said = match text.rsplit_once(", expected ") {
        _ if names_a_field || !error.is_data() => text.to_owned(),
        Some((_, expected)) => format!("a field has the wrong type or value, expected {expected}"),
        None => "a field has the wrong value".to_owned(),
    };
    // The name of a field is the client's own text, and the sentence goes into the log too.
    format!("{} (line {position})", clean(&said))
}

#[cfg(test)]
mod tests {
    use mcp_auth_proto::{StaticToken, TokenRequest};

    use super::*;

    fn sentence<T: DeserializeOwned>(body: &str) -> String {
        let error = read::<T>(body.as_bytes()).err().expect(body);
        assert_eq!(error.error, ErrorCode::InvalidRequest);
        error.error_description
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert_eq!(read::<TokenRequest>(b"").unwrap(), TokenRequest::default());
        assert_eq!(read::<TokenRequest>(b" {\"grant\":\"a\"}\n").unwrap(), TokenRequest::for_grant("a"));
    }

    #[test]
    fn what_is_not_one_object_of_known_fields_is_refused_by_name() {
        for (body, expected) in [
            (r#"{"grant":"a","grants":"b"}"#, "unknown field `grants`"),
            (r#"{"grant":"a","grant":"b"}"#, "duplicate field `grant`"),
            (r#"{"grant":"a"}{"grant":"b"}"#, "trailing characters"),
            (r#"{"grant":"a"} x"#, "trailing characters"),
            (r#"["a"]"#, "must be a JSON object"),
            (r#""a""#, "must be a JSON object"),
            ("  ", "must be a JSON object"),
            (r#"{"grant":"a""#, "EOF"),
            (r#"{"min_valid_for":-1}"#, "wrong type or value, expected u64"),
        ] {
            let sentence = sentence::<TokenRequest>(body);
            assert!(sentence.contains(expected), "{body}: {sentence}");
        }
        assert!(sentence::<StaticToken>("{}").starts_with("missing field `access_token`"));
    }

    #[test]
    fn a_value_never_stands_in_the_refusal() {
        for body in [r#"{"min_valid_for":"s3cret"}"#, r#"{"scopes":"s3cret"}"#, r#"{"scopes":{"a":"s3cret"}}"#] {
            assert!(!sentence::<TokenRequest>(body).contains("s3cret"), "{body}");
        }
        assert!(!sentence::<mcp_auth_proto::VaultSetup>(r#"{"key_source":"s3cret"}"#).contains("s3cret"));
    }

    #[test]
    fn the_name_of_an_unknown_field_brings_no_control_character_and_no_length_into_the_sentence() {
        let said = sentence::<TokenRequest>(r#"{"a\u001b[2J\nb\u202e":1}"#);
        assert!(said.starts_with("unknown field `a[2J b`") && !said.contains(char::is_control), "{said:?}");
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(60_000));
        assert!(sentence::<TokenRequest>(&long).len() < 400);
    }

    #[test]
    fn no_refusal_repeats_a_control_character_or_has_no_end() {
        let said = |sentence: &str| match Answer::from(Err(ErrorBody::new(ErrorCode::Conflict, sentence).hint("do\n\u{1b}this"))) {
            Answer::Error(error) => (error.error_description, error.hint.unwrap()),
            other => panic!("{other:?}"),
        };
        assert_eq!(said("a\u{1b}[2Jb\nc\u{202e}"), ("a[2Jb c".to_owned(), "do\nthis".to_owned()));
        assert_eq!(said(&"x".repeat(60_000)).0.len(), LONGEST_SENTENCE);
        assert_eq!(said("`zoë` is no grant").0, "`zoë` is no grant");
    }

    #[test]
    fn an_error_carries_its_status_and_the_headers_that_go_with_it() {
        let gate = Gate::new(super::super::Limits::default());
        let answer = |error: ErrorBody| Answer::Error(Box::new(error)).into_response(gate.clone());
        let login = answer(ErrorBody::new(ErrorCode::LoginRequired, "x"));
        assert_eq!((login.status().as_u16(), &login.headers()["www-authenticate"]), (401, &CHALLENGE));
        assert_eq!(login.headers()[OUR_ERROR], "login_required");
        let full = String::from_utf8(refusal(&ErrorBody::new(ErrorCode::TooManyRequests, "x"))).unwrap();
        assert!(full.contains("\r\nmcp-authd-error: too_many_requests\r\n"), "{full}");
        let later = answer(ErrorBody::new(ErrorCode::ProviderUnreachable, "x").retry_after(7));
        assert_eq!((later.status().as_u16(), later.headers()["retry-after"].to_str().unwrap()), (503, "7"));
        assert_eq!(later.headers()["cache-control"], "no-store");
        assert!(!later.headers().contains_key("www-authenticate"));
    }
}

//! The MCP server behind what is measured: a process of its own that thinks about nothing, so that the figures are those of the
//! way to it. It wants a token, whichever it is, and names the authorization server that gives them.
//!
//! Its tool answers with a few bytes, with `{"pieces": N}` in one message of N times 64 KiB, with `{"events": N}` with N events of
//! that size before the answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// What long answers are made of.
pub(crate) const PIECE: usize = 64 * 1024;

const METADATA: &str = "/.well-known/oauth-protected-resource";

struct Place {
    origin: String,
    issuer: String,
}

/// Serves on a free loopback port until it is killed; the first line on stdout is its URL.
pub(crate) fn serve(issuer: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        println!("{origin}/mcp");
        let place = Arc::new(Place { origin, issuer: issuer.to_owned() });
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let place = place.clone();
            let answer = service_fn(move |request| answer(request, place.clone()));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
}

async fn answer(request: Request<Incoming>, place: Arc<Place>) -> Result<Response<Content>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path().starts_with(METADATA) {
        let metadata = json!({ "resource": format!("{}/mcp", place.origin), "authorization_servers": [place.issuer] });
        return Ok(message(&metadata));
    }
    if head.uri.path() != "/mcp" {
        return Ok(empty(StatusCode::NOT_FOUND));
    }
    if !head.headers.contains_key(AUTHORIZATION) {
        let challenge = format!("Bearer resource_metadata=\"{}{METADATA}/mcp\"", place.origin);
        let mut refusal = empty(StatusCode::UNAUTHORIZED);
        refusal.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
        return Ok(refusal);
    }
    // It never speaks unasked, and has no sessions to end.
    if head.method != Method::POST {
        return Ok(empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    // A client that goes away has its reasons.
    let Ok(body) = body.collect().await else { return Ok(empty(StatusCode::BAD_REQUEST)) };
    Ok(match serde_json::from_slice(&body.to_bytes()) {
        Ok(asked) => of_message(&asked),
        Err(_) => empty(StatusCode::BAD_REQUEST),
    })
}

fn of_message(asked: &Value) -> Response<Content> {
    let params = &asked["params"];
    let result = match asked["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": params["protocolVersion"], "capabilities": { "tools": {} }, "serverInfo": { "name": "bench", "version": "1" },
        }),
        Some("tools/list") => json!({ "tools": [{ "name": "fill", "inputSchema": { "type": "object" } }] }),
        Some("tools/call") => return called(&asked["id"], &params["arguments"]),
        _ if asked["id"].is_null() => return empty(StatusCode::ACCEPTED),
        _ => json!({}),
    };
    message(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }))
}

/// Put together by hand: long answers shall cost nothing here.
fn called(id: &Value, arguments: &Value) -> Response<Content> {
    let number = |name: &str| arguments[name].as_u64().and_then(|number| usize::try_from(number).ok());
    let (before, after) = (format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":""#), r#""}]}}"#);
    if let Some(pieces) = number("pieces") {
        let length = before.len() + pieces * PIECE + after.len();
        let whole =
            Content { first: Some(before.into()), piece: piece("", ""), left: pieces, last: Some(after.into()), length: Some(length) };
        return response(StatusCode::OK, Some("application/json"), whole);
    }
    let answer = format!("{before}hello{after}");
    let Some(events) = number("events") else { return json_text(answer) };
    let event = piece(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":""#, r#""}}"#);
    let last = Some(format!("data: {answer}\n\n").into());
    let stream = Content { piece: [&b"data: "[..], &event, b"\n\n"].concat().into(), left: events, last, ..Content::default() };
    response(StatusCode::OK, Some("text/event-stream"), stream)
}

fn piece(before: &str, after: &str) -> Bytes {
    format!("{before}{}{after}", "y".repeat(PIECE)).into()
}

fn message(value: &Value) -> Response<Content> {
    json_text(value.to_string())
}

fn json_text(text: String) -> Response<Content> {
    let content = Content { length: Some(text.len()), last: Some(text.into()), ..Content::default() };
    response(StatusCode::OK, Some("application/json"), content)
}

fn empty(status: StatusCode) -> Response<Content> {
    response(status, None, Content { length: Some(0), ..Content::default() })
}

fn response(status: StatusCode, content_type: Option<&'static str>, content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    let value = content_type.map(HeaderValue::from_static);
    response.headers_mut().extend(value.map(|value| (CONTENT_TYPE, value)));
    response
}

/// An answer: its first bytes, the same piece so many times without a copy, its last bytes.
#[derive(Default)]
struct Content {
    first: Option<Bytes>,
    piece: Bytes,
    left: usize,
    last: Option<Bytes>,
    length: Option<usize>,
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = self.first.take().or_else(|| {
            let left = self.left.checked_sub(1)?;
            self.left = left;
            Some(self.piece.clone())
        });
        let bytes = bytes.or_else(|| self.last.take());
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.left == 0 && self.last.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length as u64))
    }
}

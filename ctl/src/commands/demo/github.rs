//! A stand-in for GitHub's API, `/user` and nothing else, on a free loopback port: it takes the tokens of the demo's issuer,
//! which it asks about each of them (OpenID Connect Core section 5.3), and remembers their fingerprints.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_auth_proto::Secret;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{CLIENTS, DemoError};
use crate::commands::token::fingerprint;
use crate::web;

/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest head.
const MAX_HEAD: usize = 16 * 1024;
/// Connections at a time; whoever comes beyond is closed.
const MOST: usize = 16;

/// The stand-in. It lives as long as this process.
pub(super) struct GitHub {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    issuer: String,
    last: Mutex<[Option<String>; CLIENTS]>,
    rejected: AtomicUsize,
    open: AtomicUsize,
}

/// A request: whose API address it came to, and its token.
struct Request {
    client: usize,
    token: Secret,
}

impl GitHub {
    pub(super) fn start(issuer: &str) -> Result<Self, DemoError> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(DemoError::System)?;
        let port = listener.local_addr().map_err(DemoError::System)?.port();
        let shared = Arc::new(Shared {
            issuer: issuer.to_owned(),
            last: Mutex::default(),
            rejected: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let shared = Arc::clone(&serving);
                if shared.open.fetch_add(1, Ordering::Relaxed) < MOST {
                    std::thread::spawn(move || shared.serve(stream));
                } else {
                    shared.open.fetch_sub(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { port, shared })
    }

    /// The API's base URL for a client's MCP server, which tells the two apart.
    pub(super) fn url_for(&self, client: usize) -> String {
        format!("http://127.0.0.1:{}/{client}", self.port)
    }

    /// The fingerprint of the token that the client's MCP server brought last.
    pub(super) fn last_token(&self, client: usize) -> Option<String> {
        self.shared.last.lock().unwrap_or_else(PoisonError::into_inner).get(client - 1)?.clone()
    }

    /// How many tokens were not taken.
    pub(super) fn rejected(&self) -> usize {
        self.shared.rejected.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let (status, body) = match read(&mut stream) {
            Ok(Some(request)) => self.answer(&request),
            _ => ("404 Not Found", json!({ "message": "Not Found" })),
        };
        let (body, kind) = (body.to_string(), "content-type: application/json\r\nconnection: close");
        // Whoever has gone needs no answer.
        let _ = write!(stream, "HTTP/1.1 {status}\r\n{kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn answer(&self, request: &Request) -> (&'static str, Value) {
        let told = web::get(&format!("{}/oauth/userinfo", self.issuer), Some(&request.token)).ok().filter(|told| told.status == 200);
        let Some(told) = told else {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            return ("401 Unauthorized", json!({ "message": "Bad credentials" }));
        };
        if let Some(last) = self.last.lock().unwrap_or_else(PoisonError::into_inner).get_mut(request.client - 1) {
            *last = Some(fingerprint(&request.token));
        }
        let claims: Value = serde_json::from_str(&told.body).unwrap_or_default();
        ("200 OK", json!({ "login": claims["preferred_username"].as_str().unwrap_or("octocat"), "name": null, "public_repos": 0 }))
    }
}

/// Reads `GET /CLIENT/user` with a bearer token. `None`: it is something else.
fn read(stream: &mut TcpStream) -> io::Result<Option<Request>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Zeroizing::new(Vec::with_capacity(MAX_HEAD));
    let mut part = Zeroizing::new([0_u8; 2048]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(part.as_mut_slice())?;
        if count == 0 || head.len() + count > MAX_HEAD {
            return Ok(None);
        }
        head.extend_from_slice(&part[..count]);
    }
    Ok(parse(&head))
}

fn parse(head: &[u8]) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).ok().filter(httparse::Status::is_complete)?;
    let client = request.path?.strip_prefix('/')?.strip_suffix("/user")?.parse().ok();
    let client = client.filter(|number| (1..=CLIENTS).contains(number) && request.method == Some("GET"))?;
    let value = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("authorization"))?.value;
    let token = std::str::from_utf8(value).ok()?.strip_prefix("Bearer ")?;
    Some(Request { client, token: Secret::new(token) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_one_address_a_client_and_only_with_a_token() {
        let parsed = |line: &str, header: &str| parse(format!("{line} HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n").as_bytes());
        let request = parsed("GET /2/user", "Authorization: Bearer abc").unwrap();
        assert_eq!((request.client, request.token.expose()), (2, "abc"));
        for (line, header) in [
            ("GET /3/user", "authorization: Bearer abc"),
            ("GET /0/user", "authorization: Bearer abc"),
            ("GET /user", "authorization: Bearer abc"),
            ("GET /1/user/repos", "authorization: Bearer abc"),
            ("POST /1/user", "authorization: Bearer abc"),
            ("GET /1/user", "authorization: Basic abc"),
            ("GET /1/user", "x-other: y"),
        ] {
            assert!(parsed(line, header).is_none(), "{line} {header}");
        }
    }
}

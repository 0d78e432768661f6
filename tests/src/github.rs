//! A stand-in for two endpoints of GitHub's API, `/user` and `/user/repos`: what the model server asks, and nothing else.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::accept::Accepting;
use crate::fingerprint;
use crate::request::{Request, members};

/// The stand-in. It ends with this value.
#[derive(Debug)]
pub struct GitHub {
    _accepting: Accepting,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    rejected: Mutex<Vec<String>>,
    seen: Mutex<Vec<(String, String)>>,
}

impl GitHub {
    /// A stand-in on a free loopback port.
    #[track_caller]
    pub fn start() -> Self {
        let make = |port, _| Arc::new(Shared { port, rejected: Mutex::default(), seen: Mutex::default() });
        let (accepting, shared) = Accepting::start(make, |shared: &Shared, stream| _ = shared.serve(&stream));
        Self { _accepting: accepting, shared }
    }

    /// The API's base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api", self.shared.port)
    }

    /// From now on this token is answered with 401.
    pub fn reject(&self, token: &str) {
        self.shared.rejected.lock().unwrap().push(token.to_owned());
    }

    /// Each request: its path with the query, and the fingerprint of its token.
    pub fn seen(&self) -> Vec<(String, String)> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let request = Request::read(stream)?;
        let token = request.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        let target = if request.query.is_empty() { request.path.clone() } else { format!("{}?{}", request.path, request.query) };
        self.seen.lock().unwrap().push((target, fingerprint(token)));
        let rejected = token.is_empty() || self.rejected.lock().unwrap().iter().any(|rejected| rejected == token);
        let (status, body) = match request.path.as_str() {
            _ if rejected => ("401 Unauthorized", json!({ "message": "Bad credentials" })),
            "/api/user" => {
                ("200 OK", json!({ "login": "octocat", "id": 583231, "name": "The Octocat", "public_repos": 8, "followers": 20 }))
            }
            "/api/user/repos" => ("200 OK", repositories(&request.query)),
            _ => ("404 Not Found", json!({ "message": "Not Found" })),
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        (&*stream).write_all(format!("{head}{body}").as_bytes()).ok()
    }
}

/// As many repositories as the page holds, and there are more than fit.
fn repositories(query: &str) -> Value {
    let page = members(query.as_bytes()).get("per_page").and_then(|text| text.parse().ok()).unwrap_or(30_usize);
    let one = |number| json!({ "full_name": format!("octocat/repo-{number}"), "private": number % 2 == 0, "description": null });
    (1..=page.min(100)).map(one).collect()
}

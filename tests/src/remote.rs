//! A remote MCP server as a test wants it: each request goes to a function of the test, on a thread of its own, which answers as
//! it likes, byte by byte if need be. What a real server does is tested with the model server.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::accept::Accepting;
use crate::fingerprint;
use crate::request::Request;
use crate::rogue::{Rogue, Rules};
use crate::room::{Daemon, Room};
use crate::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path, and the query after a question mark.
    pub target: String,
    /// Names in lower case. The token is replaced by its fingerprint.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// A header line, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The body as JSON, `null` where it is none.
    pub fn message(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The connection that an answer goes to.
#[derive(Debug)]
pub struct Reply {
    stream: TcpStream,
    /// The token that came, as it is.
    pub token: String,
}

impl Reply {
    /// A whole answer.
    pub fn whole(&mut self, status: u16, headers: &[(&str, &str)], body: &str) {
        self.head(status, &[headers, &[("content-length", &body.len().to_string())]].concat());
        self.bytes(body.as_bytes());
    }

    /// A JSON-RPC message.
    pub fn message(&mut self, headers: &[(&str, &str)], message: &Value) {
        self.whole(200, &[headers, &[("content-type", "application/json")]].concat(), &message.to_string());
    }

    /// The head of an answer that ends with its connection.
    pub fn head(&mut self, status: u16, headers: &[(&str, &str)]) {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.bytes(format!("HTTP/1.1 {status} Status\r\n{lines}connection: close\r\n\r\n").as_bytes());
    }

    /// The head of a stream of events.
    pub fn events(&mut self, headers: &[(&str, &str)]) {
        self.head(200, &[headers, &[("content-type", "text/event-stream")]].concat());
    }

    /// One event with this message.
    pub fn event(&mut self, id: &str, message: &Value) -> bool {
        let id = if id.is_empty() { String::new() } else { format!("id: {id}\n") };
        self.bytes(format!("{id}data: {message}\n\n").as_bytes())
    }

    /// Bytes as they are; whether they could be handed over.
    pub fn bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Waits until the other side has closed the connection; false: it has not, in a long time.
    pub fn gone(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_)) && self.stream.set_read_timeout(None).is_ok()
    }
}

type Answer = Box<dyn Fn(&Asked, &mut Reply) + Send + Sync>;

struct Shared {
    port: u16,
    answer: Answer,
    asked: Mutex<Vec<Asked>>,
}

/// The server. It ends with this value.
pub struct RemoteServer {
    accepting: Accepting,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for RemoteServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteServer").field("port", &self.shared.port).finish_non_exhaustive()
    }
}

impl RemoteServer {
    /// A server on a free loopback port that answers so.
    #[track_caller]
    pub fn start(answer: impl Fn(&Asked, &mut Reply) + Send + Sync + 'static) -> Self {
        let make = |port, _| Arc::new(Shared { port, answer: Box::new(answer), asked: Mutex::default() });
        let (accepting, shared) = Accepting::start(make, Shared::serve);
        Self { accepting, shared }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.shared.port)
    }

    /// Takes no connection any more.
    pub fn end(&self) {
        self.accepting.end();
        // It looks at the next one.
        drop(TcpStream::connect(("127.0.0.1", self.shared.port)));
    }

    /// Every request so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

/// A room whose provider `test` gives the tokens of a remote MCP server.
#[derive(Debug)]
pub struct RemotePlace {
    /// The authorization server.
    pub rogue: Rogue,
    /// The room.
    pub room: Room,
    /// The MCP server.
    pub remote: RemoteServer,
}

impl RemotePlace {
    /// With tokens that last, and a server that answers so.
    #[track_caller]
    pub fn new(answer: impl Fn(&Asked, &mut Reply) + Send + Sync + 'static) -> Self {
        Self::with_lifetime(Duration::from_secs(300), answer)
    }

    /// With tokens that live so long.
    #[track_caller]
    pub fn with_lifetime(lifetime: Duration, answer: impl Fn(&Asked, &mut Reply) + Send + Sync + 'static) -> Self {
        let (rogue, remote) = (Rogue::start(Rules::strict(lifetime)), RemoteServer::start(answer));
        let room = Room::with_config(&rogue.provider_table("test", &format!("resource = \"{}\"", remote.url())));
        Self { rogue, room, remote }
    }

    /// Starts the daemon and logs in.
    #[track_caller]
    pub fn start(&self) -> Daemon<'_> {
        let daemon = self.room.start();
        self.room.log_in("test").ok();
        daemon
    }

    /// The requests with this method of JSON-RPC, or of HTTP.
    pub fn seen(&self, method: &str) -> Vec<Asked> {
        self.remote.asked().into_iter().filter(|asked| asked.message()["method"] == method || asked.method == method).collect()
    }

    /// Waits until there are so many.
    #[track_caller]
    pub fn wait_for(&self, method: &str, count: usize) -> Vec<Asked> {
        wait_until(&format!("{count} of {method}"), PATIENCE, || Some(self.seen(method)).filter(|seen| seen.len() >= count))
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        // A client that goes away has its reasons.
        let Some(request) = Request::read(&stream) else { return };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let token = request.header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned();
        let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        let mut headers = request.headers;
        if let Some(value) = headers.get_mut("authorization") {
            *value = fingerprint(&token);
        }
        let asked = Asked { method: request.method, target: format!("{}{query}", request.path), headers, body: request.body };
        self.asked.lock().unwrap().push(asked.clone());
        let mut reply = Reply { stream, token };
        (self.answer)(&asked, &mut reply);
        // Whoever has gone needs no end.
        let _ = reply.stream.shutdown(Shutdown::Write);
    }
}

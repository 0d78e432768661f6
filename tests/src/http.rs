//! HTTP/1.1 by hand, blocking, over TCP and over the Unix socket: what is sent is exactly what the test says.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use url::Url;

const PATIENCE: Duration = Duration::from_secs(60);

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl HttpAnswer {
    /// The first header line of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}), status {}: {}", self.status, self.body))
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection that can be kept and used again.
pub struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    host: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Connection {
    /// To the daemon's socket.
    pub fn unix(path: &Path) -> std::io::Result<Self> {
        Self::over(UnixStream::connect(path)?)
    }

    /// To the daemon, on a connection that is there.
    pub fn over(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(Box::new(stream)), host: "mcp-authd".to_owned() })
    }

    /// To a loopback server.
    pub fn tcp(host: &str, port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect((host, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(Box::new(stream)), host: format!("{host}:{port}") })
    }

    /// Names another host in every request, as a page does whose name was made to resolve to this machine.
    #[must_use]
    pub fn naming_host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Sends a request and reads the whole answer.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<HttpAnswer> {
        self.send(method, target, headers, body)?;
        self.answer(method)
    }

    /// Reads the whole answer to a request that was sent.
    pub fn answer(&mut self, method: &str) -> std::io::Result<HttpAnswer> {
        let (status, headers) = self.read_head()?;
        let body = self.read_body(method, status, &headers)?;
        Ok(HttpAnswer { status, headers, body })
    }

    /// Sends JSON and reads the whole answer.
    pub fn json(&mut self, method: &str, target: &str, body: &serde_json::Value) -> std::io::Result<HttpAnswer> {
        self.request(method, target, &[("content-type", "application/json")], &body.to_string())
    }

    /// Sends a request whose answer is read later, or never.
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<()> {
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: {}\r\n", self.host);
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method != "GET" {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// The status of an answer whose body is not waited for.
    pub fn status(&mut self) -> std::io::Result<u16> {
        Ok(self.read_head()?.0)
    }

    /// The status and the headers of an answer whose body is read piece by piece.
    pub fn read_head(&mut self) -> std::io::Result<(u16, Vec<(String, String)>)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if self.stream.read_until(b'\n', &mut head)? == 0 {
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "closed before an answer"));
            }
        }
        let mut lines = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut lines);
        parsed.parse(&head).map_err(std::io::Error::other)?;
        let lower = |line: &httparse::Header<'_>| (line.name.to_ascii_lowercase(), String::from_utf8_lossy(line.value).into_owned());
        Ok((parsed.code.unwrap_or(0), parsed.headers.iter().map(lower).collect()))
    }

    fn read_body(&mut self, method: &str, status: u16, headers: &[(String, String)]) -> std::io::Result<String> {
        let find = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        if method == "HEAD" || status == 204 || status == 304 {
            return Ok(String::new());
        }
        let mut body = Vec::new();
        if find("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            while let Some(chunk) = self.read_chunk()? {
                body.extend(chunk);
            }
        } else if let Some(length) = find("content-length").and_then(|value| value.parse().ok()) {
            body.resize(length, 0);
            self.stream.read_exact(&mut body)?;
        } else {
            self.stream.read_to_end(&mut body)?;
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// At least one and at most so many bytes of a body, as they come.
    pub fn read_bytes(&mut self, most: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; most];
        let count = self.stream.read(&mut bytes)?;
        bytes.truncate(count);
        if count == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }

    /// The next chunk of a chunked answer; `None` at its end.
    pub fn read_chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut size = String::new();
        self.stream.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim().split(';').next().unwrap_or(""), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk)?;
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }
}

/// Sends bytes as they are over the Unix socket, closes the sending half, and reads until the other side closes.
#[track_caller]
pub fn send_raw(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Who is refused early hears why, though not all was taken.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// `GET` of a loopback URL, redirects not followed.
#[track_caller]
pub fn get(url: &Url, headers: &[(&str, &str)]) -> HttpAnswer {
    to(url).request("GET", &target(url), headers, "").unwrap_or_else(|error| panic!("GET {url}: {error}"))
}

/// `POST` of a form to a loopback URL, redirects not followed.
#[track_caller]
pub fn post_form(url: &Url, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> HttpAnswer {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
    all.extend_from_slice(headers);
    to(url).request("POST", &target(url), &all, &body).unwrap_or_else(|error| panic!("POST {url}: {error}"))
}

/// `POST` of JSON to a loopback URL.
#[track_caller]
pub fn post_json(url: &Url, body: &serde_json::Value) -> HttpAnswer {
    to(url).json("POST", &target(url), body).unwrap_or_else(|error| panic!("POST {url}: {error}"))
}

#[track_caller]
fn to(url: &Url) -> Connection {
    let host = url.host_str().unwrap();
    Connection::tcp(host, url.port_or_known_default().unwrap()).unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"))
}

fn target(url: &Url) -> String {
    url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
}

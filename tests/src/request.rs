//! A request as the servers of this process read it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _};
use std::net::TcpStream;
use std::time::Duration;

use url::Url;

const PATIENCE: Duration = Duration::from_secs(30);

/// A request, read whole.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// What follows the question mark, as it came.
    pub(crate) query: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Reads one request; `None` if there is none.
    pub(crate) fn read(stream: &TcpStream) -> Option<Self> {
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head).ok()? == 0 {
                return None;
            }
        }
        let mut lines = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut lines);
        parsed.parse(&head).ok()?;
        let header = |line: &httparse::Header<'_>| (line.name.to_ascii_lowercase(), String::from_utf8_lossy(line.value).into_owned());
        let headers: BTreeMap<String, String> = parsed.headers.iter().map(header).collect();
        let url = Url::parse(&format!("http://localhost{}", parsed.path?)).ok()?;
        let body = match headers.get("transfer-encoding").map(String::as_str) {
            Some("chunked") => chunks(&mut reader)?,
            _ => {
                let mut body = vec![0; headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0)];
                reader.read_exact(&mut body).ok()?;
                body
            }
        };
        let (path, query) = (url.path().to_owned(), url.query().unwrap_or_default().to_owned());
        Some(Self { method: parsed.method?.to_owned(), path, query, headers, body })
    }

    /// The members of its body: a form, or JSON of texts.
    pub(crate) fn fields(&self) -> BTreeMap<String, String> {
        let json = (self.header("content-type") == "application/json").then(|| serde_json::from_slice(&self.body).ok()).flatten();
        json.unwrap_or_else(|| members(&self.body))
    }

    /// A header line, or an empty text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// A body in chunks (RFC 9112, section 7.1); `None` where it does not come whole.
fn chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        body.extend(&chunk[..size]);
        if size == 0 {
            return Some(body);
        }
    }
}

/// The members of a query or a form.
pub(crate) fn members(text: &[u8]) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

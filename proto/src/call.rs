//! What a request is before it is sent: method, path and body, for the blocking and the asynchronous client alike.
//! It knows nothing of sockets.

use std::io::{self, Write};

use serde::Serialize;
use zeroize::Zeroizing;

/// One request of the protocol.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    /// Wiped after use: it may carry a token, a passphrase or a client secret.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), body: Zeroizing::default() }
    }

    pub(crate) fn get_with(path: impl Into<String>, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        Self::with_body("GET", path.into(), body)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self { method: "DELETE", path: path.into(), body: Zeroizing::default() }
    }

    /// A POST without a body.
    pub(crate) fn trigger(path: impl Into<String>) -> Self {
        Self { method: "POST", path: path.into(), body: Zeroizing::default() }
    }

    pub(crate) fn post(path: impl Into<String>, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        Self::with_body("POST", path.into(), body)
    }

    pub(crate) fn delete_with(path: impl Into<String>, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        Self::with_body("DELETE", path.into(), body)
    }

    pub(crate) fn put(path: impl Into<String>, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        Self::with_body("PUT", path.into(), body)
    }

    /// The request as it goes over the wire, head and body in one piece so that it takes one write.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let head = format!("{} {} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", self.method, self.path, self.body.len());
        // The exact capacity: a vector that grows leaves copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + self.body.len()));
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn with_body(method: &'static str, path: String, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        // Measured first, for the same reason as above.
        let mut length = Length(0);
        serde_json::to_writer(&mut length, body)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
        serde_json::to_writer(&mut *bytes, body)?;
        Ok(Self { method, path, body: bytes })
    }
}

/// The Host that the daemon expects: it refuses others, since browsers can be made to send them.
pub(crate) const HOST: &str = "mcp-authd";

/// One segment of a path. What a grant name may hold stays as it is, everything else is percent-encoded, so that no
/// name can turn into another route or another header.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'~' | b':') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// How much is written to it.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grant_names_stay_as_they_are_and_nothing_else_gets_out_of_its_segment() {
        assert_eq!(segment("github:work.a_b-c"), "github:work.a_b-c");
        assert_eq!(segment("a/../b c\r\nX: y?%"), "a%2F..%2Fb%20c%0D%0AX:%20y%3F%25");
    }

    #[test]
    fn a_body_has_room_for_itself_and_no_more_so_that_it_never_moves() {
        let rejected = "x".repeat(10_000);
        let request = crate::TokenRequest { rejected_token: Some(crate::Secret::new(rejected)), ..crate::TokenRequest::default() };
        let body = Call::post("/v1/token", &request).unwrap().body;
        assert_eq!((body.len(), body.capacity()), (r#"{"rejected_token":""}"#.len() + 10_000, body.len()));
    }

    #[test]
    fn a_request_is_one_piece_with_its_length() {
        let call = Call::post("/v1/token", &crate::TokenRequest::for_grant("github")).unwrap();
        let expected = "POST /v1/token HTTP/1.1\r\nHost: mcp-authd\r\nContent-Length: 18\r\n\r\n{\"grant\":\"github\"}";
        assert_eq!(std::str::from_utf8(&call.to_bytes()).unwrap(), expected);
    }
}

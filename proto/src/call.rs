//! What a request is before it is sent: method, path and body, for the blocking and the asynchronous client alike.
//! It knows nothing of sockets.

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
        let mut bytes = Zeroizing::new(Vec::with_capacity(ROOMY_BODY));
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

/// More than any request that holds a secret needs.
const ROOMY_BODY: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grant_names_stay_as_they_are_and_nothing_else_gets_out_of_its_segment() {
        assert_eq!(segment("github:work.a_b-c"), "github:work.a_b-c");
        assert_eq!(segment("a/../b c\r\nX: y?%"), "a%2F..%2Fb%20c%0D%0AX:%20y%3F%25");
    }

    #[test]
    fn a_request_is_one_piece_with_its_length() {
        let call = Call::post("/v1/token", &crate::TokenRequest::for_grant("github")).unwrap();
        let expected = "POST /v1/token HTTP/1.1\r\nHost: mcp-authd\r\nContent-Length: 18\r\n\r\n{\"grant\":\"github\"}";
        assert_eq!(std::str::from_utf8(&call.to_bytes()).unwrap(), expected);
    }
}

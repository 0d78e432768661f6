//! PURE: an answer as HTTP has it, before it is sent: status, headers, body. What every answer carries is `door`'s.

use serde::Serialize;
use zeroize::Zeroizing;

use super::error::{Code, Refusal};

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Wiped after use: there may be tokens in it.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Reply {
    /// A web page.
    pub(crate) fn page(status: u16, html: String) -> Self {
        Self::new(status, "text/html; charset=utf-8", html.into_bytes())
    }

    /// A value as JSON.
    pub(crate) fn json(status: u16, value: &impl Serialize) -> Self {
        // Room for the usual tokens, so that growing leaves no copies behind.
        let mut body = Vec::with_capacity(8 * 1024);
        // Only string keys: there is nothing to fail at.
        let _ = serde_json::to_writer(&mut body, value);
        Self::new(status, "application/json", body)
    }

    /// A plain sentence.
    pub(crate) fn text(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.as_bytes().to_vec())
    }

    /// Sends the browser on with a GET (RFC 9700 section 4.12).
    pub(crate) fn redirect(to: &str) -> Self {
        let mut reply = Self::text(303, "");
        reply.headers.push(("location", to.to_owned()));
        reply
    }

    /// An error as RFC 6749 section 5.2 has it.
    pub(crate) fn refusal(refusal: Refusal, issuer: &str) -> Self {
        let mut reply = Self::json(
            refusal.code.status(),
            &serde_json::json!({
                "error": refusal.code.as_str(),
                "error_description": refusal.description,
                "error_uri": refusal.uri(issuer),
            }),
        );
        match refusal.code {
            Code::InvalidClient => reply.headers.push(("www-authenticate", format!("Basic realm=\"{issuer}\""))),
            Code::InvalidToken | Code::InsufficientScope => {
                let (code, description) = (refusal.code.as_str(), refusal.description);
                reply.headers.push(("www-authenticate", format!("Bearer error=\"{code}\", error_description=\"{description}\"")));
            }
            Code::TemporarilyUnavailable => reply.headers.push(("retry-after", "5".to_owned())),
            _ => {}
        }
        reply
    }

    fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: Zeroizing::new(body) }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}

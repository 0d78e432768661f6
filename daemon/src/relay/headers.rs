//! PURE: which headers pass, and which end here. What MCP knows, and what it may know one day, passes unchanged in both
//! directions; what speaks of this connection, of who is at its ends, or of logins, passes in neither.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue};
use mcp_auth_proto::Secret;

/// RFC 9449 section 8.
pub(super) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Headers of one hop (RFC 9110 section 7.6.1), and those that would show or carry a login.
const ENDING: [&str; 21] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "host",
    "origin",
    "authorization",
    "authentication-info",
    "dpop",
    "dpop-nonce",
    "www-authenticate",
    "cookie",
    "cookie2",
    "set-cookie",
    "set-cookie2",
    "clear-site-data",
    "strict-transport-security",
    "alt-svc",
];

/// The same for families of them, and for what lets pages of other sites in (CORS).
const ENDING_FAMILIES: [&str; 3] = ["proxy-", "mcp-authd-", "access-control-"];

/// The headers of a client's request as the server gets them, with a token of this scheme; `None` for one that no header can carry.
pub(super) fn outward(headers: &HeaderMap, token: Option<(&str, &Secret)>) -> Option<HeaderMap> {
    let mut passed = passing(headers);
    // What is sent may come in pieces; the body itself says how long it is.
    passed.remove(CONTENT_LENGTH);
    if let Some((scheme, token)) = token {
        let mut value = HeaderValue::from_str(&format!("{scheme} {}", token.expose())).ok()?;
        value.set_sensitive(true);
        passed.insert(AUTHORIZATION, value);
    }
    Some(passed)
}

/// The headers of a server's answer as the client gets them.
pub(super) fn homeward(headers: &HeaderMap) -> HeaderMap {
    passing(headers)
}

fn passing(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(words).collect();
    let ends = |name: &HeaderName| {
        let name = name.as_str();
        ENDING.contains(&name) || ENDING_FAMILIES.iter().any(|family| name.starts_with(family)) || named.iter().any(|other| other == name)
    };
    headers.iter().filter(|(name, _)| !ends(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The headers that a `Connection` header names as belonging to it.
fn words(value: &str) -> impl Iterator<Item = String> {
    value.split(',').map(|word| word.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
        pairs.iter().map(pair).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_mcp_knows_passes_unchanged_in_both_directions() {
        let of_mcp = headers(&[
            ("Accept", "application/json, text/event-stream"),
            ("Content-Type", "application/json"),
            ("Last-Event-ID", "7"),
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", "=?base64?w6k=?="),
            ("Mcp-Param-Region", "eu"),
            ("Mcp-Session-Id", "s-1"),
            ("X-Tenant", "t"),
            ("X-Tenant", "u"),
        ]);
        assert_eq!(homeward(&of_mcp), of_mcp);
        let mut sent = outward(&of_mcp, Some(("Bearer", &Secret::new("at")))).unwrap();
        let bearer = sent.remove(AUTHORIZATION).unwrap();
        assert!(bearer == "Bearer at" && bearer.is_sensitive());
        assert_eq!(sent, of_mcp);
    }

    #[test]
    fn what_speaks_of_connections_and_logins_passes_in_neither() {
        let names_of_logins = "authorization dpop dpop-nonce cookie cookie2 set-cookie set-cookie2 www-authenticate authentication-info proxy-authorization \
             proxy-authenticate clear-site-data strict-transport-security alt-svc origin host mcp-authd-error access-control-allow-origin";
        let names_of_one_hop = "connection keep-alive te trailer transfer-encoding upgrade expect proxy-connection x-hop";
        let both = names_of_logins.split_whitespace().chain(names_of_one_hop.split_whitespace());
        let mut hostile: Vec<(&str, &str)> = both.map(|name| (name, "x")).collect();
        hostile.extend([("connection", "close, X-Hop"), ("x-stays", "x")]);
        let hostile = headers(&hostile);
        assert_eq!(names(&homeward(&hostile)), ["x-stays"]);
        let sent = outward(&hostile, Some(("DPoP", &Secret::new("at")))).unwrap();
        assert_eq!(names(&sent), ["authorization", "x-stays"]);
        assert_eq!(sent.get_all(AUTHORIZATION).iter().count(), 1, "the client's own is not sent beside it");
        assert_eq!(names(&outward(&headers(&[("content-length", "3")]), Some(("Bearer", &Secret::new("at")))).unwrap()), ["authorization"]);
        assert!(outward(&HeaderMap::new(), Some(("Bearer", &Secret::new("a\nb")))).is_none(), "a token cannot add a header");
    }
}

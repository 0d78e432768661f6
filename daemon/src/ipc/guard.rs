//! PURE: refuses requests that a web page could have caused. A browser reaches a socket only through a proxy or a bridge
//! that somebody built, but then its requests carry these marks.

use hyper::HeaderMap;
use hyper::header::{HOST, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use mcp_auth_proto::{ErrorBody, ErrorCode};

/// Headers that browsers send and programs do not. Not `Sec-Fetch-Mode`: Node's fetch sends that one too.
const BROWSER: [HeaderName; 3] = [ORIGIN, HeaderName::from_static("sec-fetch-site"), HeaderName::from_static("sec-fetch-dest")];

/// Lets a request pass, or says why not.
///
/// # Errors
/// `access_denied` for the marks of a browser and for a host that is not ours.
pub(super) fn check(head: &Parts) -> Result<(), ErrorBody> {
    if let Some(name) = BROWSER.iter().find(|name| head.headers.contains_key(*name)) {
        return Err(ErrorBody::new(ErrorCode::AccessDenied, format!("requests of browsers are refused (header `{name}`)")));
    }
    let target = head.uri.authority().is_none_or(|authority| is_ours(authority.as_str()));
    if target && the_host(&head.headers).is_some_and(is_ours) {
        return Ok(());
    }
    Err(ErrorBody::new(ErrorCode::AccessDenied, "the Host header must be `mcp-authd` or `localhost`"))
}

/// The one Host header; two are none.
fn the_host(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(HOST).iter();
    match (all.next(), all.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    }
}

fn is_ours(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    (name.eq_ignore_ascii_case("mcp-authd") || name.eq_ignore_ascii_case("localhost")) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(target: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = hyper::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    #[test]
    fn only_our_own_names_pass_as_host() {
        for host in ["mcp-authd", "localhost", "localhost:8080", "MCP-Authd", "mcp-authd:80"] {
            assert!(allowed("/", &[("host", host)]), "{host}");
        }
        for host in ["evil.com", "127.0.0.1", "0.0.0.0", "[::1]", "localhost.evil.com", "localhost:", "localhost:x", "", "localhost:1:2"] {
            assert!(!allowed("/", &[("host", host)]), "{host}");
        }
        assert!(!allowed("/", &[]), "none");
        assert!(!allowed("/", &[("host", "localhost"), ("host", "localhost")]), "two");
        assert!(!allowed("http://evil.com/", &[("host", "localhost")]), "absolute target");
        assert!(allowed("http://localhost/", &[("host", "localhost")]), "absolute target of ours");
    }

    #[test]
    fn the_marks_of_a_browser_are_refused_but_not_those_of_node() {
        for mark in ["Origin", "Sec-Fetch-Site", "Sec-Fetch-Dest"] {
            assert!(!allowed("/", &[("host", "localhost"), (mark, "")]), "{mark}");
        }
        assert!(allowed("/", &[("host", "localhost"), ("sec-fetch-mode", "cors")]));
    }
}

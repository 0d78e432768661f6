//! PURE: refuses requests that a web page could have caused. A browser reaches a port on loopback whenever a page wants, and a
//! socket through a proxy or a bridge that somebody built; its requests carry these marks, or another name.

use std::net::SocketAddr;

use hyper::HeaderMap;
use hyper::header::{HOST, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use mcp_auth_proto::{ErrorBody, ErrorCode};

/// Headers that browsers send and programs do not. Not `Sec-Fetch-Mode`: Node's fetch sends that one too.
const BROWSER: [HeaderName; 3] = [ORIGIN, HeaderName::from_static("sec-fetch-site"), HeaderName::from_static("sec-fetch-dest")];

/// The names under which requests may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Those of the socket.
    Socket,
    /// Those of this port: under any other, somebody's DNS points here.
    Port(SocketAddr),
}

impl Names {
    fn has(self, host: &str) -> bool {
        match self {
            Self::Socket => is_ours(host),
            Self::Port(address) => {
                let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
                // A browser leaves the usual port out, and nobody writes one with a sign or zeros before it.
                let is_name = name.eq_ignore_ascii_case("localhost") || name == bare(address);
                is_name && port == address.port().to_string()
            }
        }
    }

    fn sentence(self) -> String {
        match self {
            Self::Socket => "the Host header must be `mcp-authd` or `localhost`".to_owned(),
            Self::Port(address) => format!("the Host header must be `{address}` or `localhost:{}`", address.port()),
        }
    }
}

/// An address as a URL writes it.
fn bare(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

/// Lets a request pass, or says why not.
///
/// # Errors
/// `access_denied` for the marks of a browser and for a host that is not ours.
pub(super) fn check(head: &Parts, names: Names) -> Result<(), ErrorBody> {
    if let Some(name) = BROWSER.iter().find(|name| head.headers.contains_key(*name)) {
        return Err(ErrorBody::new(ErrorCode::AccessDenied, format!("requests of browsers are refused (header `{name}`)")));
    }
    let target = head.uri.authority().is_none_or(|authority| names.has(authority.as_str()));
    if target && the_host(&head.headers).is_some_and(|host| names.has(host)) {
        return Ok(());
    }
    Err(ErrorBody::new(ErrorCode::AccessDenied, names.sentence()))
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
        passes(Names::Socket, target, headers)
    }

    fn passes(names: Names, target: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = hyper::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0, names).is_ok()
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
    fn a_port_is_asked_for_by_its_own_address_alone() {
        let four = Names::Port("127.0.0.1:8732".parse().unwrap());
        let six = Names::Port("[::1]:8732".parse().unwrap());
        let by = |names, host| passes(names, "/", &[("host", host)]);
        assert!(by(four, "127.0.0.1:8732") && by(four, "localhost:8732") && by(six, "[::1]:8732") && by(six, "LOCALHOST:8732"));
        for host in ["127.0.0.1", "127.0.0.1:80", "127.0.0.1:08732", "evil.example:8732", "localhost.evil.example:8732", "mcp-authd", ""] {
            assert!(!by(four, host) && !by(six, host), "{host}");
        }
        assert!(!by(four, "[::1]:8732") && !by(six, "127.0.0.1:8732") && !by(four, "0.0.0.0:8732") && !by(four, "127.1:8732"));
        assert!(by(Names::Port("127.0.0.1:80".parse().unwrap()), "127.0.0.1"), "the usual port is left out");
        assert!(!passes(four, "http://evil.example/", &[("host", "127.0.0.1:8732")]), "absolute target");
        assert!(!passes(four, "/", &[("host", "127.0.0.1:8732"), ("origin", "null")]));
    }

    #[test]
    fn the_marks_of_a_browser_are_refused_but_not_those_of_node() {
        for mark in ["Origin", "Sec-Fetch-Site", "Sec-Fetch-Dest"] {
            assert!(!allowed("/", &[("host", "localhost"), (mark, "")]), "{mark}");
        }
        assert!(allowed("/", &[("host", "localhost"), ("sec-fetch-mode", "cors")]));
    }
}

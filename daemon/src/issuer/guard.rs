//! PURE: which address of the issuer a request is for, and whether a page of somebody else has caused it.

use std::net::SocketAddr;

use hyper::Method;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;

/// The addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Metadata,
    Authorize,
    Token,
    Keys,
    Revoke,
    Userinfo,
    Errors,
}

/// The address that a request is for. Under another name than our own there is nothing: somebody's DNS may point here.
pub(super) fn place(head: &Parts, listen: SocketAddr) -> Option<Place> {
    let host = one(&head.headers, "host")?;
    let ours = host == listen.to_string() || listen.port() == 80 && host == listen.to_string().trim_end_matches(":80");
    if !ours || head.uri.authority().is_some_and(|authority| authority.as_str() != host) {
        return None;
    }
    let get = head.method == Method::GET;
    match (head.uri.path(), get, head.method == Method::POST) {
        ("/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration", true, _) => Some(Place::Metadata),
        ("/oauth/keys", true, _) => Some(Place::Keys),
        ("/oauth/errors", true, _) => Some(Place::Errors),
        ("/oauth/authorize", get, post) if get || post => Some(Place::Authorize),
        ("/oauth/userinfo", get, post) if get || post => Some(Place::Userinfo),
        ("/oauth/token", _, true) => Some(Place::Token),
        ("/oauth/revoke", _, true) => Some(Place::Revoke),
        _ => None,
    }
}

/// Lets a request pass, or says why not.
///
/// A browser marks what it sends (`Sec-Fetch-*`, `Origin`). To the authorization endpoint it may navigate from anywhere, but
/// only in a tab of its own; a button there is pressed on our own page alone; everything else is for programs.
pub(super) fn check(head: &Parts, place: Place, issuer: &str) -> Result<(), &'static str> {
    let headers = &head.headers;
    let says = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = says("sec-fetch-site");
    let origin = says(header::ORIGIN.as_str());
    let foreign = origin.is_some_and(|origin| origin != issuer && origin != "null")
        || site.is_some_and(|site| site != "same-origin" && site != "none");
    if place != Place::Authorize {
        // `null` is the origin of a sandboxed frame too.
        return if foreign || origin == Some("null") { Err("pages of other sites are refused here") } else { Ok(()) };
    }
    if says("sec-fetch-dest").is_some_and(|to| to != "document") {
        return Err("this page is shown in a tab of its own only");
    }
    // Our pages send no referrer, and so a browser writes `null` for them: it is the site that tells then.
    let unproved = origin == Some("null") && site != Some("same-origin");
    if head.method == Method::POST && (foreign || unproved) {
        return Err("this form did not come from a page of mcp-authd");
    }
    Ok(())
}

fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: (&str, &str) = ("host", "127.0.0.1:8731");

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = hyper::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn found(method: &str, target: &str, headers: &[(&str, &str)]) -> Option<Place> {
        place(&head(method, target, headers), "127.0.0.1:8731".parse().unwrap())
    }

    fn passes(method: &str, target: &str, marks: &[(&str, &str)]) -> bool {
        let headers = [&[HOST], marks].concat();
        let head = head(method, target, &headers);
        check(&head, place(&head, "127.0.0.1:8731".parse().unwrap()).unwrap(), "http://127.0.0.1:8731").is_ok()
    }

    #[test]
    fn an_address_is_there_under_our_own_name_and_with_its_method_alone() {
        assert_eq!(found("GET", "/oauth/authorize?x=1", &[HOST]), Some(Place::Authorize));
        assert_eq!(found("POST", "/oauth/token", &[HOST]), Some(Place::Token));
        assert_eq!(found("GET", "/.well-known/openid-configuration", &[HOST]), Some(Place::Metadata));
        for (method, target) in [
            ("GET", "/oauth/token"),
            ("POST", "/oauth/keys"),
            ("OPTIONS", "/oauth/token"),
            ("GET", "/"),
            ("GET", "/oauth/authorize/"),
            ("HEAD", "/oauth/authorize"),
        ] {
            assert_eq!(found(method, target, &[HOST]), None, "{method} {target}");
        }
        for host in ["localhost:8731", "evil.example", "evil.example:8731", "127.0.0.1", "127.0.0.1:8732", ""] {
            assert_eq!(found("GET", "/oauth/keys", &[("host", host)]), None, "{host}");
        }
        assert_eq!(found("GET", "/oauth/keys", &[HOST, HOST]), None);
        assert_eq!(found("GET", "/oauth/keys", &[]), None);
        assert_eq!(found("GET", "http://evil.example/oauth/keys", &[HOST]), None);
    }

    #[test]
    fn a_browser_comes_to_the_page_in_a_tab_of_its_own() {
        let navigation = [("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")];
        assert!(passes("GET", "/oauth/authorize", &navigation));
        assert!(passes("GET", "/oauth/authorize", &[]));
        for dest in ["iframe", "image", "empty", "embed", "object", "script"] {
            assert!(!passes("GET", "/oauth/authorize", &[("sec-fetch-site", "same-origin"), ("sec-fetch-dest", dest)]), "{dest}");
        }
    }

    #[test]
    fn a_button_is_pressed_on_our_own_page() {
        let post = |marks: &[(&str, &str)]| passes("POST", "/oauth/authorize", marks);
        assert!(post(&[("origin", "null"), ("sec-fetch-site", "same-origin"), ("sec-fetch-dest", "document")]));
        assert!(post(&[("origin", "http://127.0.0.1:8731")]));
        assert!(post(&[]));
        for marks in [
            [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")],
            [("origin", "null"), ("sec-fetch-site", "cross-site")],
            [("origin", "null"), ("sec-fetch-dest", "document")],
            [("origin", "http://127.0.0.1:9000"), ("sec-fetch-site", "same-site")],
            [("origin", "http://localhost:8731"), ("x", "x")],
            [("origin", "http://127.0.0.1:8731.evil.example"), ("x", "x")],
        ] {
            assert!(!post(&marks), "{marks:?}");
        }
    }

    #[test]
    fn the_other_addresses_are_for_programs() {
        for (method, target) in [("POST", "/oauth/token"), ("POST", "/oauth/revoke"), ("GET", "/oauth/userinfo"), ("GET", "/oauth/keys")] {
            assert!(passes(method, target, &[("sec-fetch-mode", "cors")]), "Node's fetch");
            assert!(!passes(method, target, &[("origin", "http://evil.example")]), "{target}");
            assert!(!passes(method, target, &[("origin", "null")]), "{target}");
            assert!(!passes(method, target, &[("sec-fetch-site", "cross-site")]), "{target}");
        }
    }
}

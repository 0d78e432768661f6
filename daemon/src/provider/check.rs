//! What the single values of a provider's table must look like. Pure: it reads no file and asks no server.
//!
//! `url::Url` only judges here; what is sent is always the text as it was written.

use std::path::Path;

use url::{Host, Url};

use crate::oauth::text::is_scope;

/// What is wrong with a value, as the end of a sentence that starts with its key, and what to do about it.
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// An endpoint (RFC 6749 section 3): https, or http on loopback; no user, password or fragment.
pub(crate) fn endpoint(text: &str) -> Result<(), Fault> {
    server_url(text).map(|_| ())
}

/// A page for people: as an endpoint, and it may have a fragment.
pub(crate) fn page(text: &str) -> Result<(), Fault> {
    server_url(text.split('#').next().unwrap_or(text)).map(|_| ())?;
    url_with(text, &["https", "http"]).map(|_| ())
}

/// An issuer (RFC 8414 section 2) or a base URL: an endpoint without a query.
pub(crate) fn issuer(text: &str) -> Result<(), Fault> {
    match server_url(text)?.query() {
        Some(_) => Err(Fault::new("must not have a query (`?`)")),
        None => Ok(()),
    }
}

/// A proxy: http, https, socks5 or socks5h, anywhere.
pub(crate) fn proxy(text: &str) -> Result<(), Fault> {
    let url = url_with(text, &["http", "https", "socks5", "socks5h"])?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::new("holds a user name or password").hint("leave it out here and set HTTPS_PROXY for the daemon instead"));
    }
    Ok(())
}

/// A proxy, or none at all: everything goes straight.
pub(crate) fn proxy_or_none(text: &str) -> Result<(), Fault> {
    if text == "none" { Ok(()) } else { proxy(text) }
}

/// A file that is named from the root.
pub(crate) fn absolute_path(text: &str) -> Result<(), Fault> {
    if Path::new(text).is_absolute() {
        return Ok(());
    }
    Err(Fault::new("must be an absolute path").hint("`~` and variables are not expanded here"))
}

/// Scheme, host and port, for comparing where two endpoints lead.
pub(crate) fn origin(text: &str) -> Option<String> {
    Url::parse(text).ok().map(|url| url.origin().ascii_serialization())
}

/// The label of a grant: what stands behind the colon of its name.
pub(crate) fn label(text: &str) -> Result<(), Fault> {
    let named = mcp_auth_proto::GrantName::with_label("x", text);
    named.map(|_| ()).map_err(|_| Fault::new("is not the label of a grant").hint("of the grant `github:work` it is `work`"))
}

/// The name of a provider.
pub(crate) fn provider_name(text: &str) -> Result<(), Fault> {
    let named = text.parse::<mcp_auth_proto::GrantName>().is_ok_and(|name| name.label().is_none());
    if named { Ok(()) } else { Err(Fault::new("is not the name of a provider").hint("of [providers.okta] it is `okta`")) }
}

/// A scope (RFC 6749 section 3.3: `scope-token`).
pub(crate) fn scope(text: &str) -> Result<(), Fault> {
    if text.contains(' ') {
        return Err(Fault::new("has a scope with a space in it").hint("write one array item per scope: [\"read\", \"write\"]"));
    }
    if !is_scope(text) {
        return Err(Fault::new("has an item that is not a scope (RFC 6749 section 3.3)"));
    }
    Ok(())
}

/// A client id, an error code, a claim: printable ASCII, without spaces around it (RFC 6749 appendix A).
pub(crate) fn printable(text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty"));
    }
    if text.trim() != text || !text.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        return Err(Fault::new("must be printable ASCII without spaces around it"));
    }
    Ok(())
}

/// A command: a program and its arguments.
pub(crate) fn command(argv: &[String]) -> Result<(), Fault> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(Fault::new("names no program").hint("write the program and its arguments: [\"pass\", \"show\", \"oauth/github\"]"));
    }
    if argv.iter().any(|arg| arg.contains('\0')) {
        return Err(Fault::new("has a NUL byte in it"));
    }
    Ok(())
}

/// The host of the loopback redirect (RFC 8252 section 7.3).
pub(crate) fn redirect_host(text: &str) -> Result<(), Fault> {
    if matches!(text, "127.0.0.1" | "localhost" | "[::1]") {
        return Ok(());
    }
    Err(Fault::new("must be \"127.0.0.1\", \"localhost\" or \"[::1]\""))
}

/// The path of the loopback redirect.
pub(crate) fn redirect_path(text: &str) -> Result<(), Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'.' | b'_' | b'~');
    if !text.starts_with('/')
        || text.starts_with("//")
        || !text.bytes().all(plain)
        || text.split('/').any(|part| part == "." || part == "..")
    {
        return Err(Fault::new("must be a plain path such as \"/callback\""));
    }
    Ok(())
}

/// A whole number within bounds.
pub(crate) fn number<N: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display>(value: i64, least: N, most: N) -> Result<N, Fault> {
    match N::try_from(value) {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(Fault::new(format!("is {value}, and must be between {least} and {most}"))),
    }
}

/// A further parameter of the authorization request: none of those that the daemon sets itself.
pub(crate) fn authorization_param(name: &str) -> Result<(), Fault> {
    const OURS: [&str; 10] = [
        "response_type",
        "client_id",
        "client_secret",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "resource",
    ];
    not_ours(name, &OURS)
}

/// A further parameter of token requests: none of those that prove something or that the daemon sets itself.
pub(crate) fn token_param(name: &str) -> Result<(), Fault> {
    const OURS: [&str; 12] = [
        "grant_type",
        "code",
        "code_verifier",
        "redirect_uri",
        "refresh_token",
        "device_code",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
        "resource",
        "assertion",
    ];
    not_ours(name, &OURS)
}

/// The parameter of a device authorization request that holds the scopes.
pub(crate) fn device_param(name: &str) -> Result<(), Fault> {
    not_ours(name, &["client_id", "client_secret", "client_assertion", "client_assertion_type", "resource"])
}

/// How a userinfo endpoint is asked: a word, or a GraphQL query.
pub(crate) fn userinfo_request(text: &str) -> Result<(), Fault> {
    let is_query = text.starts_with('{') && text.ends_with('}') && !text.contains(|c: char| c.is_control() && c != '\n');
    if matches!(text, "get" | "post") || is_query {
        return Ok(());
    }
    Err(Fault::new("must be \"get\", \"post\" or a GraphQL query").hint("a query is written in braces: \"{ viewer { id name } }\""))
}

fn not_ours(name: &str, ours: &[&str]) -> Result<(), Fault> {
    if ours.contains(&name) {
        return Err(Fault::new(format!("must not hold `{name}`, which the daemon sets itself")));
    }
    printable(name)
}

fn server_url(text: &str) -> Result<Url, Fault> {
    let url = url_with(text, &["https", "http"])?;
    let loopback = match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && !loopback {
        // Whatever stands there by mistake is not repeated: the line is named.
        return Err(Fault::new("uses http: only https is allowed, and http on loopback")
            .hint("secrets and tokens would be readable on the way; write https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::new("must not hold a user name or password"));
    }
    if url.fragment().is_some() {
        return Err(Fault::new("must not have a fragment (`#`)"));
    }
    Ok(url)
}

fn url_with(text: &str, schemes: &[&str]) -> Result<Url, Fault> {
    // The URL parser repairs all of these silently, and the text is sent as it is.
    if text.contains(|c: char| c.is_ascii_control() || c.is_whitespace() || c == '\\') {
        return Err(Fault::new("has a space, a backslash or a control character in it"));
    }
    let well_begun = text.split_once("://").is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.starts_with('/'));
    if !well_begun {
        return Err(Fault::new(format!("must begin with {}://", schemes.join(":// or "))));
    }
    Url::parse(text).map_err(|error| Fault::new(format!("is not a URL: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(checked: Result<(), Fault>) -> String {
        checked.map_or_else(|fault| fault.what, |()| "ok".to_owned())
    }

    #[test]
    fn endpoints_are_https_or_loopback_and_nothing_that_a_parser_would_repair() {
        let table = [
            ("https://a.example/token?tenant=1", "ok"),
            ("http://127.0.0.1:8080/token", "ok"),
            ("http://127.8.8.8/token", "ok"),
            ("http://[::1]/token", "ok"),
            ("http://localhost/token", "ok"),
            ("http://a.example/token", "uses http: only https is allowed, and http on loopback"),
            ("http://localhost.evil.example/", "uses http: only https is allowed, and http on loopback"),
            ("https://u:p@a.example/", "must not hold a user name or password"),
            ("https://a.example/#x", "must not have a fragment (`#`)"),
            ("https://a.example:70000/", "is not a URL: invalid port number"),
            ("https://", "is not a URL: empty host"),
            ("https:///a.example", "must begin with https:// or http://"),
            ("https:/a.example", "must begin with https:// or http://"),
            ("ftp://a.example", "must begin with https:// or http://"),
            ("a.example/token", "must begin with https:// or http://"),
            ("", "must begin with https:// or http://"),
            ("https://a.example\\@b.example", "has a space, a backslash or a control character in it"),
            (" https://a.example", "has a space, a backslash or a control character in it"),
            ("https://a.exa\nmple", "has a space, a backslash or a control character in it"),
        ];
        for (text, expected) in table {
            assert_eq!(what(endpoint(text)), expected, "{text:?}");
        }
        assert_eq!(what(issuer("https://a.example?x")), "must not have a query (`?`)");
    }

    #[test]
    fn redirect_paths_are_plain() {
        for good in ["/", "/callback", "/oauth/cb-1"] {
            assert_eq!(what(redirect_path(good)), "ok", "{good}");
        }
        for bad in ["", "callback", "//host", "/a?b", "/a#b", "/a b", "/../a", "/%2e"] {
            assert_ne!(what(redirect_path(bad)), "ok", "{bad}");
        }
    }
}

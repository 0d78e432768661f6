use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::*;

const ISSUER: &str = "https://as.example";

fn ask(endpoint: &str) -> Ask<'_> {
    Ask {
        endpoint,
        client_id: "client 1",
        redirect_uri: "http://127.0.0.1:7777/callback",
        scopes: &[],
        separator: ScopeSeparator::Space,
        challenge: true,
        resource: None,
        login_hint: None,
        params: &[],
    }
}

fn expected(issuer: Option<&str>, iss_required: bool) -> Expected {
    Expected { state: Zeroizing::new("s-1".into()), issuer: issuer.map(str::to_owned), iss_required }
}

fn params(url: &str) -> HashMap<String, String> {
    let url = url::Url::parse(url).unwrap();
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    let map: HashMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(map.len(), pairs.len(), "no parameter comes twice");
    map
}

#[test]
fn the_request_carries_everything_once_and_byte_for_byte() {
    let scopes = ["read".to_owned(), "write:all".to_owned()];
    let extra = [("prompt".to_owned(), "select account".to_owned())];
    let all = Ask { scopes: &scopes, resource: Some("https://mcp.example"), params: &extra, ..ask("https://as.example/auth?tenant=1") };
    let request = request(all, Some(ISSUER), true).unwrap();
    let params = params(&request.url);
    for (name, value) in [
        ("tenant", "1"),
        ("response_type", "code"),
        ("client_id", "client 1"),
        ("redirect_uri", "http://127.0.0.1:7777/callback"),
        ("scope", "read write:all"),
        ("resource", "https://mcp.example"),
        ("prompt", "select account"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(params[name], value, "{name}");
    }
    assert_eq!(params["code_challenge"], URL_SAFE_NO_PAD.encode(Sha256::digest(request.verifier.0.as_bytes())));
    assert!(URL_SAFE_NO_PAD.decode(&params["state"]).unwrap().len() >= 16);
    assert_eq!(request.host, "as.example");
}

#[test]
fn scope_and_resource_are_left_out_when_there_are_none() {
    let params = params(&request(ask("https://as.example/a"), None, false).unwrap().url);
    assert!(!params.contains_key("scope") && !params.contains_key("resource"));
}

#[test]
fn scopes_are_joined_as_the_server_wants_them() {
    let scopes = ["read:user".to_owned(), "a+b".to_owned()];
    for (separator, expected) in [
        (ScopeSeparator::Space, "scope=read%3Auser%20a%2Bb"),
        (ScopeSeparator::Comma, "scope=read%3Auser,a%2Bb"),
        (ScopeSeparator::Plus, "scope=read%3Auser+a%2Bb"),
    ] {
        let ask = Ask { scopes: &scopes, separator, ..ask("https://as.example/a") };
        let url = request(ask, None, false).unwrap().url;
        assert!(url.split(['?', '&']).any(|parameter| parameter == expected), "{url}");
    }
}

#[test]
fn a_server_without_pkce_gets_no_challenge() {
    let without = params(&request(Ask { challenge: false, ..ask("https://as.example/a") }, None, false).unwrap().url);
    assert!(without.keys().all(|name| !name.starts_with("code_challenge")), "{without:?}");
}

#[test]
fn state_and_verifier_are_new_every_time() {
    let mut seen = HashSet::new();
    for _ in 0..1000 {
        let request = request(ask("https://as.example/a"), None, false).unwrap();
        assert!(seen.insert(request.expected.state.to_string()) && seen.insert(request.verifier.0.to_string()));
        assert_eq!(request.verifier.0.len(), 43);
    }
}

#[test]
fn a_url_that_is_not_for_a_browser_is_refused() {
    let long = format!("https://a/{}", "x".repeat(64 * 1024));
    for bad in [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http://as.example/a",
        "http://a/$(touch pwn)",
        "-flag",
        "--help",
        "https://a/\nb",
        "https://a/\u{1b}b",
        "https://a/ b",
        " https://a/b",
        "https://user@a/b",
        "https://user:pw@a/b",
        "https://a\\@b/",
        "https:a/b",
        "https:/a/b",
        "https://",
        "https://a/b#fragment",
        "https://a/b?client_id=evil",
        "https://a/b?state=fixed",
        "",
        &long,
    ] {
        assert!(matches!(request(ask(bad), None, false), Err(AuthorizeError::Endpoint(_))), "{bad:.60}");
    }
    let override_it = [("redirect_uri".to_owned(), "https://evil.example".to_owned())];
    assert!(request(Ask { params: &override_it, ..ask("https://a/b") }, None, false).is_err());
}

#[test]
fn what_is_passed_on_is_one_line_with_an_ascii_host() {
    for (endpoint, host) in [
        ("https://a/\"&calc", "a"),
        ("https://a/$(touch pwn)".split(' ').next().unwrap(), "a"),
        ("https://аpple.example/login", "xn--pple-43d.example"),
        ("http://localhost:9/a", "localhost"),
        ("http://[::1]:9/a", "[::1]"),
    ] {
        let request = request(ask(endpoint), None, false).unwrap();
        assert_eq!(request.host, host);
        assert!(request.url.is_ascii() && !request.url.contains(['"', ' ', '\n', '\'', '<']), "{}", request.url);
    }
}

#[test]
fn a_redirect_is_ours_only_with_our_state_once() {
    for query in [
        "",
        "code=c",
        "code=c&state=",
        "code=c&state=s-2",
        "code=c&state=S-1",
        "code=c&state=s-1&state=s-1",
        "code=c&state=s-1&state=x",
        "error=access_denied",
        "error=access_denied&state=s-1x",
        "code=c&State=s-1",
        "code=c&state=s%2D2",
    ] {
        assert_eq!(check_redirect(query, &expected(None, false)), Err(RedirectError::NotOurs), "{query}");
    }
    assert_eq!(check_redirect("state=s%2D1&code=a%2Fb&x=1&x=2", &expected(None, false)), Ok(Code(Zeroizing::new("a/b".into()))));
}

#[test]
fn iss_follows_the_table_of_rfc_9207_for_codes_and_for_errors() {
    use RedirectError::{IssuerMismatch, IssuerMissing};
    for (iss, required, expected_error) in [
        ("", true, Some(IssuerMissing)),
        ("", false, None),
        ("&iss=https%3A%2F%2Fas.example", true, None),
        ("&iss=https%3A%2F%2Fas.example", false, None),
        ("&iss=https://as.example/", false, Some(IssuerMismatch)),
        ("&iss=https://AS.example", true, Some(IssuerMismatch)),
        ("&iss=https://as.example:443", true, Some(IssuerMismatch)),
        ("&iss=https://as.example%252F", true, Some(IssuerMismatch)),
        ("&iss=https://evil.example", false, Some(IssuerMismatch)),
        ("&iss=", false, Some(IssuerMismatch)),
        ("&iss=https://as.example&iss=https://as.example", true, Some(IssuerMismatch)),
    ] {
        let expected = expected(Some(ISSUER), required);
        let code = check_redirect(&format!("code=c&state=s-1{iss}"), &expected);
        assert_eq!(code.err(), expected_error, "{iss} {required}");
        let error = check_redirect(&format!("error=access_denied&error_description=evil&state=s-1{iss}"), &expected).unwrap_err();
        assert_eq!(matches!(error, RedirectError::Refused { .. }), expected_error.is_none());
        assert!(expected_error.is_none() || !error.to_string().contains("evil"));
    }
    assert!(check_redirect("code=c&state=s-1&iss=https://any.example", &expected(None, false)).is_ok());
}

#[test]
fn errors_are_sanitised_and_doubles_are_refused() {
    let refused = check_redirect("state=s-1&error=access_denied&error_description=no%1B%5B31m%20thanks", &expected(None, false));
    assert_eq!(refused.unwrap_err().to_string(), "the provider answered access_denied: no[31m thanks");
    for query in ["state=s-1", "state=s-1&code=", "state=s-1&code=a&code=a", "state=s-1&code=a&error=b", "state=s-1&error=a&error=a"] {
        assert_eq!(check_redirect(query, &expected(None, false)), Err(RedirectError::Malformed), "{query}");
    }
}

#[test]
fn the_account_is_told_to_the_server_unless_the_config_names_another() {
    let asked = |own: &[(String, String)]| {
        let ask = Ask { login_hint: Some(("login", "octo cat@x")), params: own, ..ask("https://a/b") };
        params(&request(ask, None, false).unwrap().url).remove("login")
    };
    assert_eq!(asked(&[]).as_deref(), Some("octo cat@x"));
    assert_eq!(asked(&[("login".into(), "mona".into())]).as_deref(), Some("mona"));
}

#[test]
fn a_code_and_a_verifier_that_a_person_brings_are_checked() {
    for (text, good) in [("4/0A-x y", true), (" c\n", true), ("", false), ("a\u{1b}", false), ("é", false)] {
        assert_eq!(Code::given(text).is_some(), good, "{text:?}");
    }
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert!(CodeVerifier::given(verifier).is_some_and(|given| given.0.as_str() == verifier));
    for text in [&verifier[1..], "dBjftJeZ4CVP+mB92K27uhbUJU1p1r_wW1gFWFOEjXk", &"a".repeat(129), ""] {
        assert!(CodeVerifier::given(text).is_none(), "{text:?}");
    }
}

use super::*;

#[test]
fn only_https_and_http_on_loopback_may_be_sent_to() {
    for good in [
        "https://a.example",
        "https://a.example:8443/x?y",
        "HTTPS://A.example/",
        "http://localhost:1/",
        "http://127.0.0.1:1",
        "http://127.9.9.9",
        "http://[::1]:1/",
    ] {
        assert!(check_url(good).is_ok(), "{good}");
    }
    for bad in [
        "http://a.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.nip.io",
        "http://0.0.0.0:1/",
        "http://10.0.0.1/",
        "http://[::ffff:7f00:1]/x",
        "ftp://a",
        "file:///x",
        "data:,x",
        "https://u@a.example",
        "https://:p@a.example",
        "https:a",
        "https:///a",
        "//a",
        "a.example",
        "",
        "https://a\t.example",
        "https://a.example\n",
        " https://a.example",
        "https://a.example\u{85}",
    ] {
        assert!(matches!(check_url(bad), Err(TransportError::Refused(_))), "{bad:?}");
    }
}

#[test]
fn a_refusal_names_scheme_and_host_and_no_more() {
    let shown = |text: &str| check_url(text).unwrap_err().to_string();
    assert_eq!(shown("http://a.example/path?code=secret"), "http://a.example is refused: only https is used, and http on loopback");
    assert_eq!(shown("http://user:secret@a.example/"), "http://a.example is refused: only https is used, and http on loopback");
    assert!(!shown("nonsense secret").contains("secret"));
    assert!(!shown("javascript:secret").contains("secret"));
}

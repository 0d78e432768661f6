//! A redirect URL that a person pasted, because the browser is on another machine: is it one of this login's?

use zeroize::Zeroizing;

/// Why a pasted text is not looked at any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasteError {
    /// Nothing, or no address.
    #[error("that is not a redirect address")]
    NotAnAddress,
    /// An address that this login did not send anybody to.
    #[error("that address is not the one that this login waits for")]
    ElsewhereAddress,
}

/// The query of a pasted redirect URL, if it goes to `redirect_uri`. Whitespace and quotes around it are tolerated, and so is
/// a bare query.
pub fn query(pasted: &str, redirect_uri: &str) -> Result<Zeroizing<String>, PasteError> {
    let text = pasted.trim_matches(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '`' | '<' | '>'));
    let Ok(url) = url::Url::parse(text) else {
        return bare_query(text).map(|query| Zeroizing::new(query.to_owned())).ok_or(PasteError::NotAnAddress);
    };
    let expected = url::Url::parse(redirect_uri).map_err(|_| PasteError::ElsewhereAddress)?;
    if url.origin() != expected.origin() || url.path() != expected.path() || !url.username().is_empty() {
        return Err(PasteError::ElsewhereAddress);
    }
    url.query().map(|query| Zeroizing::new(query.to_owned())).ok_or(PasteError::NotAnAddress)
}

fn bare_query(text: &str) -> Option<&str> {
    let query = text.strip_prefix('?').unwrap_or(text).split('#').next()?;
    let first = query.split('=').next()?;
    let begins_with_a_name = first.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (begins_with_a_name && query.split('&').any(|pair| pair.starts_with("state="))).then_some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIRECT: &str = "http://127.0.0.1:7777/callback";

    #[test]
    fn what_a_person_copies_is_understood() {
        for pasted in [
            "http://127.0.0.1:7777/callback?code=a%2Fb&state=s",
            "  \"http://127.0.0.1:7777/callback?code=a%2Fb&state=s\"\n",
            "<http://127.0.0.1:7777/callback?code=a%2Fb&state=s#fragment>",
            "HTTP://127.0.0.1:7777/callback?code=a%2Fb&state=s",
            "?code=a%2Fb&state=s",
            "'code=a%2Fb&state=s'",
            "code=a%2Fb&state=s#_=_",
        ] {
            assert_eq!(query(pasted, REDIRECT).as_ref().map(|query| query.as_str()), Ok("code=a%2Fb&state=s"), "{pasted}");
        }
        assert!(query("http://127.0.0.1:7777/?code=c&state=s", "http://127.0.0.1:7777").is_ok());
        assert_eq!(query("code=c&state=s&iss=https://a.example", REDIRECT).unwrap().as_str(), "code=c&state=s&iss=https://a.example");
    }

    #[test]
    fn anything_else_is_told_apart_and_refused() {
        for pasted in ["", "  ", "hello", "code", "/callback?code=c&state=s", "4/0AX4XfWh", REDIRECT, "\"\""] {
            assert_eq!(query(pasted, REDIRECT), Err(PasteError::NotAnAddress), "{pasted}");
        }
        for pasted in [
            "http://127.0.0.1:7778/callback?code=c&state=s",
            "http://localhost:7777/callback?code=c&state=s",
            "https://127.0.0.1:7777/callback?code=c&state=s",
            "http://127.0.0.1:7777/callback/?code=c&state=s",
            "http://127.0.0.1:7777@evil.example/callback?code=c&state=s",
            "http://me@127.0.0.1:7777/callback?code=c&state=s",
            "https://as.example/authorize?client_id=x&state=s",
            "javascript:alert(1)?state=s&state=s",
        ] {
            assert_eq!(query(pasted, REDIRECT), Err(PasteError::ElsewhereAddress), "{pasted}");
        }
    }
}

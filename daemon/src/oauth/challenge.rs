//! The challenge of a resource server (`WWW-Authenticate`, RFC 9110 section 11.6.1 and RFC 6750 section 3). From a client
//! it contributes its scopes and nothing else.

use super::text::is_scope;

/// The `scope` of the first Bearer challenge that asks for one, without what is no scope; `None` where the value holds none.
pub fn scopes(value: &str) -> Option<Vec<String>> {
    let at = value.to_ascii_lowercase().find("bearer")?;
    let mut rest = &value[at + "bearer".len()..];
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_start_matches([' ', ',', '\t']).trim_end();
        let (text, after) = value_of(after)?;
        if name.eq_ignore_ascii_case("scope") {
            return Some(text.split(' ').filter(|scope| is_scope(scope)).map(str::to_owned).collect());
        }
        rest = after;
    }
    None
}

/// A token or a quoted string, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_is_found_wherever_it_stands() {
        for (value, expected) in [
            (r#"Bearer scope="a b""#, Some(vec!["a", "b"])),
            (
                r#"bearer realm="x, scope=no", error=insufficient_scope, scope="repo read:org", resource_metadata="https://m/.well-known""#,
                Some(vec!["repo", "read:org"]),
            ),
            (r#"Basic realm="x", Bearer error="invalid_token", scope=one"#, Some(vec!["one"])),
            (r#"Bearer realm="a\"b", scope="c""#, Some(vec!["c"])),
            ("Bearer scope=\"a \u{1b}[2J b\nhint: c \u{202e} d\"", Some(vec!["a", "c", "d"])),
            ("Bearer", None),
            ("Basic scope=\"a\"", None),
            ("", None),
            (r#"Bearer scope="never ends"#, None),
            ("Bearer scope", None),
        ] {
            let expected = expected.map(|scopes| scopes.into_iter().map(str::to_owned).collect());
            assert_eq!(scopes(value), expected, "{value}");
        }
    }
}

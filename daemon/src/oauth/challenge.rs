//! The challenge of a resource server (`WWW-Authenticate`, RFC 9110 section 11.6.1, RFC 6750 section 3 and RFC 9728
//! section 5.1). Whose challenge is believed how far is the caller's to decide.

use crate::transport;

/// The longest value that is read.
const LONGEST: usize = 8 * 1024;
/// The most scopes that are taken from one.
const MOST_SCOPES: usize = 100;
/// The most algorithms.
const MOST_ALGORITHMS: usize = 50;

/// What the Bearer (or DPoP) challenges of an answer ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// The scopes; `None`: none are named.
    pub scopes: Option<Vec<String>>,
    /// The error code (RFC 6750 section 3.1).
    pub error: Option<String>,
    /// Where the metadata of the resource is, byte for byte; not checked.
    pub resource_metadata: Option<String>,
    /// What is said of tokens that are bound to a key; `None`: nothing.
    pub dpop: Option<DpopChallenge>,
}

/// A `DPoP` challenge (RFC 9449 section 7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DpopChallenge {
    /// The error code in it.
    pub error: Option<String>,
    /// The algorithms of proofs that are taken; `None`: not told.
    pub algorithms: Option<Vec<String>>,
    /// A bearer token would do as well: it stands beside a `Bearer` challenge.
    pub or_bearer: bool,
}

impl Challenge {
    /// Reads the values of the header, of which the first that names something counts. `None`: nobody asks for a token.
    pub fn read<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut found: Option<Self> = None;
        let (mut dpop, mut or_bearer) = (None::<DpopChallenge>, false);
        for value in values.into_iter().filter(|value| value.len() <= LONGEST) {
            for (scheme, params) in challenges(value) {
                if scheme.eq_ignore_ascii_case("bearer") {
                    or_bearer = true;
                } else if scheme.eq_ignore_ascii_case("dpop") {
                    dpop = dpop.or_else(|| Some(DpopChallenge::of(&params)));
                } else {
                    continue;
                }
                found.get_or_insert_default().take(params);
            }
        }
        found.map(|found| Self { dpop: dpop.map(|dpop| DpopChallenge { or_bearer, ..dpop }), ..found })
    }

    /// Whether bearer tokens are not taken.
    pub fn demands_dpop(&self) -> bool {
        self.dpop.as_ref().is_some_and(|dpop| !dpop.or_bearer)
    }

    /// The same, as far as a client is believed: its metadata URL counts on the server's own origin alone, and which tokens the
    /// server takes is the server's own to say.
    #[must_use]
    pub fn from_client(mut self, server: &str) -> Self {
        let origin = |url: &str| transport::check_url(url).ok().map(|url| url.origin());
        self.resource_metadata = self.resource_metadata.filter(|url| origin(url).is_some_and(|at| Some(at) == origin(server)));
        self.dpop = None;
        self
    }

    fn take(&mut self, params: Vec<(&str, String)>) {
        for (name, text) in params {
            match name.to_ascii_lowercase().as_str() {
                "scope" if self.scopes.is_none() => self.scopes = Some(scope_list(&text)),
                "error" if self.error.is_none() => self.error = Some(super::text::clean_code(&text)),
                "resource_metadata" if self.resource_metadata.is_none() => self.resource_metadata = Some(text),
                _ => {}
            }
        }
    }
}

impl DpopChallenge {
    fn of(params: &[(&str, String)]) -> Self {
        let text = |wanted: &str| params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, text)| text);
        let listed = text("algs").map(|list| list.split_ascii_whitespace().take(MOST_ALGORITHMS).map(str::to_owned).collect::<Vec<_>>());
        Self {
            error: text("error").map(|code| super::text::clean_code(code)),
            // A list of nothing says nothing.
            algorithms: listed.filter(|listed| !listed.is_empty()),
            or_bearer: false,
        }
    }
}

/// The `scope` of the first Bearer challenge that asks for one; `None` where the value holds none.
pub fn scopes(value: &str) -> Option<Vec<String>> {
    Challenge::read([value])?.scopes
}

/// What is no scope (RFC 6749 section 3.3) is left out: it would be sent on.
fn scope_list(text: &str) -> Vec<String> {
    text.split(' ').filter(|scope| super::text::is_scope(scope)).take(MOST_SCOPES).map(str::to_owned).collect()
}

/// Schemes and their parameters. A word is a parameter if an equals sign follows, and a scheme otherwise; what is broken
/// ends the reading.
fn challenges(value: &str) -> Vec<(&str, Vec<(&str, String)>)> {
    let mut found: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let end = rest.find([' ', ',', '\t', '=', '"']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        match after.trim_start_matches([' ', '\t']).strip_prefix('=') {
            None => {
                found.push((word, Vec::new()));
                rest = after;
            }
            Some(after) => {
                let Some((text, after)) = value_of(after) else { return found };
                if let Some((_, params)) = found.last_mut() {
                    params.push((word, text));
                }
                rest = after;
            }
        }
    }
}

/// A token or a quoted string, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
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

    #[test]
    fn every_member_is_found_beside_other_schemes_and_none_inside_their_texts() {
        let url = "https://mcp.example/.well-known/oauth-protected-resource/mcp";
        let value =
            format!(r#"Negotiate abc==, Basic realm="Bearer scope=no", Bearer error="invalid_token" , resource_metadata = "{url}""#);
        let found = Challenge::read([value.as_str(), r#"DPoP scope="x y", error=later"#]).unwrap();
        assert_eq!(found.resource_metadata.as_deref(), Some(url));
        assert_eq!((found.error.as_deref(), found.scopes), (Some("invalid_token"), Some(vec!["x".into(), "y".into()])));
        assert_eq!(Challenge::read([r#"Basic realm="Bearer""#, ""]), None);
        assert_eq!(Challenge::read(["Bearer"]), Some(Challenge::default()));
        assert_eq!(Challenge::read([format!("Bearer scope=\"{}\"", "x".repeat(9000)).as_str()]), None);
    }

    #[test]
    fn a_server_demands_bound_tokens_where_it_does_not_ask_for_bearer_ones_as_well() {
        for (values, demanded, error) in [
            (vec!["DPoP"], true, None),
            (vec![r#"DPoP algs="ES256", error="use_dpop_nonce""#], true, Some("use_dpop_nonce")),
            (vec![r#"dpop error=invalid_token"#, "Basic"], true, Some("invalid_token")),
            (vec![r#"Bearer error="invalid_token", DPoP error="use_dpop_nonce""#], false, Some("use_dpop_nonce")),
            (vec!["DPoP", "Bearer"], false, None),
            (vec!["Bearer"], false, None),
        ] {
            let found = Challenge::read(values.iter().copied()).unwrap();
            assert_eq!((found.demands_dpop(), found.dpop.as_ref().and_then(|dpop| dpop.error.as_deref())), (demanded, error), "{values:?}");
            assert!(!found.from_client("https://mcp.example").demands_dpop(), "a client does not decide that");
        }
    }

    #[test]
    fn the_algorithms_of_proofs_are_those_of_the_dpop_challenge_and_an_empty_list_is_none() {
        for (value, algorithms) in [
            (r#"DPoP algs="ES256 PS256""#, Some(vec!["ES256", "PS256"])),
            (r#"Bearer, dpop error="invalid_token", ALGS=EdDSA"#, Some(vec!["EdDSA"])),
            (r#"Bearer algs="RS256", DPoP"#, None),
            (r#"DPoP algs=" ""#, None),
        ] {
            let expected = algorithms.map(|all| all.into_iter().map(str::to_owned).collect());
            assert_eq!(Challenge::read([value]).unwrap().dpop.unwrap().algorithms, expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_scope_is_not_taken() {
        assert_eq!(scopes("Bearer scope=\"a b\u{1b}[2J \u{202e}c d'\""), Some(vec!["a".into(), "d'".into()]));
        assert_eq!(scopes(&format!("Bearer scope=\"a {}\"", "x".repeat(301))), Some(vec!["a".into()]), "nobody reads that");
        let many = "x ".repeat(1000);
        assert_eq!(scopes(&format!("Bearer scope=\"{many}\"")).unwrap().len(), MOST_SCOPES);
    }

    #[test]
    fn a_client_names_metadata_on_the_servers_own_origin_only() {
        for (url, counts) in [
            ("https://mcp.example/other", true),
            ("https://mcp.example:443/x", true),
            ("https://evil.example/x", false),
            ("http://mcp.example/x", false),
            ("https://mcp.example:8443/x", false),
            ("file:///etc/passwd", false),
        ] {
            let challenge = Challenge { resource_metadata: Some(url.into()), ..Challenge::default() };
            assert_eq!(challenge.from_client("https://mcp.example/mcp").resource_metadata.is_some(), counts, "{url}");
        }
    }
}

//! Which scopes a login at a remote MCP server asks for (MCP authorization, "Scope Selection Strategy" and "Refresh Tokens").

/// What is known when scopes are chosen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// What the person or the config asks for: then nothing else counts.
    pub asked: Option<&'a [String]>,
    /// What the server's challenge names.
    pub challenged: Option<&'a [String]>,
    /// What its metadata names.
    pub supported: Option<&'a [String]>,
    /// What was asked for before at the same authorization server: a step-up loses nothing.
    pub before: &'a [String],
    /// What the authorization server says that it knows.
    pub offered: Option<&'a [String]>,
    /// Whether a refresh token is not wanted.
    pub without_refresh: bool,
}

/// The scope that asks for a refresh token.
pub const OFFLINE_ACCESS: &str = "offline_access";

/// The scopes to send, without doubles; none: the parameter is left out.
pub fn select(choice: Choice<'_>) -> Vec<String> {
    if let Some(asked) = choice.asked {
        return union(&[], asked);
    }
    let named = choice.challenged.or(choice.supported).unwrap_or_default();
    let mut scopes = union(choice.before, named);
    scopes.retain(|scope| scope != OFFLINE_ACCESS);
    // Alone it would take the place of the server's own default.
    let offers = choice.offered.is_some_and(|offered| offered.iter().any(|scope| scope == OFFLINE_ACCESS));
    if offers && !choice.without_refresh && !scopes.is_empty() {
        scopes.push(OFFLINE_ACCESS.to_owned());
    }
    scopes
}

/// What a login asks for that leads nobody to a page where the scopes could be seen: no more than is written down, in the config
/// or in what the grant has asked for before, whatever the server has come to want. `None`: nothing is, and the server says it.
///
/// # Errors
/// What is wanted besides.
pub fn within_written(
    configured: &[String],
    before: Option<&[String]>,
    wanted: Option<&[String]>,
) -> Result<Option<Vec<String>>, Vec<String>> {
    if configured.is_empty() && before.is_none() {
        return Ok(None);
    }
    let mut before = before.unwrap_or_default().to_vec();
    // A login with a page may have been before it. Whoever needs none asks again whenever it likes.
    before.retain(|scope| scope != OFFLINE_ACCESS);
    let most = union(configured, &before);
    let beyond: Vec<_> =
        wanted.unwrap_or_default().iter().filter(|scope| *scope != OFFLINE_ACCESS && !most.contains(scope)).cloned().collect();
    if beyond.is_empty() { Ok(Some(most)) } else { Err(beyond) }
}

/// Both lists, in their order, each scope once.
pub fn union(first: &[String], second: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(first.len() + second.len());
    for scope in first.iter().chain(second) {
        if !all.contains(scope) {
            all.push(scope.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_challenge_comes_before_the_metadata_and_nothing_is_invented() {
        let (challenged, supported, none) = (list("a"), list("b c"), list(""));
        let choice = Choice::default();
        for (choice, expected) in [
            (Choice { challenged: Some(&challenged), supported: Some(&supported), ..choice }, "a"),
            (Choice { supported: Some(&supported), ..choice }, "b c"),
            (choice, ""),
            (Choice { challenged: Some(&none), supported: Some(&supported), ..choice }, ""),
            (Choice { asked: Some(&challenged), supported: Some(&supported), before: &supported, ..choice }, "a"),
        ] {
            assert_eq!(select(choice), list(expected), "{choice:?}");
        }
    }

    #[test]
    fn a_step_up_asks_for_the_union() {
        let (before, challenged) = (list("basic offline_access"), list("write basic"));
        assert_eq!(select(Choice { before: &before, challenged: Some(&challenged), ..Choice::default() }), list("basic write"));
    }

    #[test]
    fn what_nobody_sees_asked_for_stays_within_what_is_written_down() {
        for (configured, before, wanted, expected) in [
            ("", None, Some("a"), Ok(None)),
            ("a b", None, None, Ok(Some("a b"))),
            ("a b", None, Some("b"), Ok(Some("a b"))),
            ("a b", None, Some("b c d"), Err("c d")),
            ("a b", Some("c"), None, Ok(Some("a b c"))),
            ("a b", Some("c"), Some("b c"), Ok(Some("a b c"))),
            ("a b", Some("c"), Some("a d"), Err("d")),
            ("", Some("a"), None, Ok(Some("a"))),
            ("", Some("a"), Some("a"), Ok(Some("a"))),
            ("", Some("a"), Some("a b"), Err("b")),
            ("", Some(""), None, Ok(Some(""))),
            ("", Some(""), Some("a"), Err("a")),
            ("", Some("a offline_access"), Some("a offline_access"), Ok(Some("a"))),
        ] {
            let (before, wanted) = (before.map(list), wanted.map(list));
            let found = within_written(&list(configured), before.as_deref(), wanted.as_deref());
            assert_eq!(found, expected.map(|asked| asked.map(list)).map_err(list), "{configured:?} {before:?} {wanted:?}");
        }
    }

    #[test]
    fn offline_access_is_asked_for_only_where_it_is_offered_beside_something_else() {
        let (named, offering, silent) = (list("a offline_access"), list("x offline_access"), list("x"));
        for (offered, named, without_refresh, expected) in [
            (Some(&offering), Some(&named), false, "a offline_access"),
            (Some(&offering), Some(&named), true, "a"),
            (Some(&silent), Some(&named), false, "a"),
            (None, Some(&named), false, "a"),
            (Some(&offering), None, false, ""),
        ] {
            let choice =
                Choice { offered: offered.map(Vec::as_slice), supported: named.map(Vec::as_slice), without_refresh, ..Choice::default() };
            assert_eq!(select(choice), list(expected), "{choice:?}");
        }
    }
}

//! The name of a grant: `[a-z0-9][a-z0-9._-]{0,62}`, optionally followed by `:LABEL` of the same form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A checked grant name such as `github` or `github:work`. The part before the colon names the provider it was made for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GrantName(String);

/// Why a text is not a grant name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is a lower-case letter or digit, then up to 62 of a-z 0-9 . _ - (and an optional :label of the same form)")]
pub struct NameError;

impl GrantName {
    /// Joins a base name and an account label.
    pub fn with_label(base: &str, label: &str) -> Result<Self, NameError> {
        if is_part(base) && is_part(label) { Ok(Self(format!("{base}:{label}"))) } else { Err(NameError) }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the colon.
    pub fn base(&self) -> &str {
        self.0.split_once(':').map_or(self.0.as_str(), |(base, _)| base)
    }

    /// The account label, when there is one.
    pub fn label(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, label)| label)
    }
}

impl FromStr for GrantName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let valid = match text.split_once(':') {
            Some((base, label)) => is_part(base) && is_part(label),
            None => is_part(text),
        };
        if valid { Ok(Self(text.to_owned())) } else { Err(NameError) }
    }
}

impl TryFrom<String> for GrantName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<GrantName> for String {
    fn from(name: GrantName) -> Self {
        name.0
    }
}

impl fmt::Display for GrantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_part(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && text.len() <= 63
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_parse_and_split() {
        let name: GrantName = "github:work".parse().unwrap();
        assert_eq!((name.base(), name.label(), name.as_str()), ("github", Some("work"), "github:work"));
        for good in ["github", "0", "a.b_c-d", &"a".repeat(63)] {
            assert_eq!(good.parse::<GrantName>().unwrap().label(), None);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "a".repeat(64);
        for bad in ["", ".", "..", "../../x", "a/b", "A", "-a", "a:", ":a", "a:b:c", "a\0", "é", "a b", "a\n", &long] {
            assert!(bad.parse::<GrantName>().is_err(), "{bad:?}");
        }
    }
}

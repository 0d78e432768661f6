//! PURE: the parameters of a request, from a query or a form (RFC 6749 appendix B). Values may be secrets: they are wiped, and
//! never shown.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use url::form_urlencoded;
use zeroize::Zeroizing;

/// Parameters by name, none twice. Those without a value count as absent (RFC 6749 section 3.1).
pub(crate) struct Params(HashMap<String, Zeroizing<String>>);

/// A parameter came twice (RFC 6749 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeated;

impl Params {
    /// Reads a query or a form. The same `resource` may come again (RFC 8707 section 2); two different ones do not fit one token.
    pub(crate) fn parse(encoded: &[u8]) -> Result<Self, Repeated> {
        let mut params = HashMap::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            let value = Zeroizing::new(value.into_owned());
            match params.entry(name.into_owned()) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(known) if known.key() == "resource" && *known.get() == value => {}
                Entry::Occupied(_) => return Err(Repeated),
            }
        }
        Ok(Self(params))
    }

    /// The value of a parameter that has one.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str()).filter(|value| !value.is_empty())
    }
}

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_comes_once_and_one_without_a_value_is_absent() {
        let params = Params::parse(b"a=1&b=&c=%26+x&resource=r&resource=r").unwrap();
        assert_eq!((params.get("a"), params.get("b"), params.get("c"), params.get("d")), (Some("1"), None, Some("& x"), None));
        assert_eq!(params.get("resource"), Some("r"));
        assert_eq!(Params::parse(b"a=1&a=1").unwrap_err(), Repeated);
        assert_eq!(Params::parse(b"resource=r&resource=s").unwrap_err(), Repeated);
        assert!(!format!("{:?}", Params::parse(b"code=s3cret").unwrap()).contains("s3cret"));
    }
}

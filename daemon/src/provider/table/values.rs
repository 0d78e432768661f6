//! Values that may be written in more than one way.

use std::fmt;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A number, or an array of them.
#[derive(Clone, Debug)]
pub(super) struct OneOrMore(pub(super) Vec<i64>);

/// A number of seconds, or `"never"`.
#[derive(Clone, Copy, Debug)]
pub(super) enum SecondsOrNever {
    Seconds(i64),
    Never,
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrMoreVisitor)
    }
}

struct OneOrMoreVisitor;

impl<'de> Visitor<'de> for OneOrMoreVisitor {
    type Value = OneOrMore;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or an array of them")
    }

    fn visit_i64<E>(self, one: i64) -> Result<OneOrMore, E> {
        Ok(OneOrMore(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMore, A::Error> {
        let mut more = Vec::new();
        while let Some(number) = seq.next_element()? {
            more.push(number);
        }
        Ok(OneOrMore(more))
    }
}

impl<'de> Deserialize<'de> for SecondsOrNever {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SecondsOrNeverVisitor)
    }
}

struct SecondsOrNeverVisitor;

impl Visitor<'_> for SecondsOrNeverVisitor {
    type Value = SecondsOrNever;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or \"never\"")
    }

    fn visit_i64<E>(self, seconds: i64) -> Result<SecondsOrNever, E> {
        Ok(SecondsOrNever::Seconds(seconds))
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<SecondsOrNever, E> {
        if word == "never" { Ok(SecondsOrNever::Never) } else { Err(E::invalid_value(Unexpected::Str(word), &self)) }
    }
}

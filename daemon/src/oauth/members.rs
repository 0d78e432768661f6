//! The members of a provider's answer, JSON or form-encoded, read once: duplicates are refused, texts wiped when dropped.
//! serde_json's depth limit holds.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Number;
use zeroize::Zeroizing;

/// What an object holds.
#[derive(Debug)]
pub(super) struct Members(BTreeMap<String, Member>);

/// One value. Redacted in `Debug`.
pub(super) enum Member {
    Null,
    Bool(bool),
    Number(Number),
    Text(Zeroizing<String>),
    Texts(Vec<Zeroizing<String>>),
    Object(Members),
    Other,
}

/// Why a body has no members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MembersError {
    #[error("it is empty")]
    Empty,
    #[error("it is a web page")]
    Html,
    #[error("it is not JSON")]
    NotJson,
    #[error("it is JSON, but not an object")]
    NotObject,
    #[error("it names a member twice")]
    Duplicate,
}

impl Members {
    /// Reads a JSON object (RFC 8259).
    pub(super) fn from_json(body: &[u8]) -> Result<Self, MembersError> {
        let body = trimmed(body);
        match body.first() {
            None => return Err(MembersError::Empty),
            Some(b'<') => return Err(MembersError::Html),
            Some(_) => {}
        }
        serde_json::from_slice::<Object>(body)
            .map_err(|error| if error.is_data() { MembersError::NotObject } else { MembersError::NotJson })?
            .0
    }

    /// Reads an `application/x-www-form-urlencoded` body, as GitHub sends it to clients that do not ask for JSON.
    pub(super) fn from_form(body: &[u8]) -> Result<Self, MembersError> {
        let mut members = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(trimmed(body)) {
            if members.insert(name.into_owned(), Member::Text(Zeroizing::new(value.into_owned()))).is_some() {
                return Err(MembersError::Duplicate);
            }
        }
        Ok(Self(members))
    }

    /// The object at a path of names that are joined by dots. A name may hold dots itself (`https://corp.example/user`), so
    /// the longest one that is there counts.
    pub(super) fn object(&self, path: &str) -> Option<&Self> {
        match self.at(path)? {
            Member::Object(members) => Some(members),
            _ => None,
        }
    }

    fn at(&self, path: &str) -> Option<&Member> {
        if let Some(member) = self.0.get(path) {
            return Some(member);
        }
        path.match_indices('.').rev().find_map(|(dot, _)| match self.0.get(&path[..dot])? {
            Member::Object(members) => members.at(&path[dot + 1..]),
            _ => None,
        })
    }

    /// A text that is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Member::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A text or a number at a path (see [`Self::object`]), as text: account ids come as either.
    pub(super) fn scalar(&self, path: &str) -> Option<String> {
        match self.at(path)? {
            Member::Text(text) if !text.is_empty() => Some(text.to_string()),
            Member::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A number, also one that is written as a text. What is neither counts as missing.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        match self.0.get(name)? {
            Member::Number(number) => number.as_f64(),
            Member::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// A list of texts; a single text is a list of one.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        match self.0.get(name)? {
            Member::Text(text) => Some(vec![text]),
            Member::Texts(texts) => Some(texts.iter().map(|text| text.as_str()).collect()),
            _ => None,
        }
    }

    /// Whether a truth value is there, and false.
    pub(super) fn is_false(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Member::Bool(false)))
    }

    /// A truth value; anything else counts as false.
    pub(super) fn is_true(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Member::Bool(true)))
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Whitespace and a byte order mark around a body mean nothing.
fn trimmed(body: &[u8]) -> &[u8] {
    body.trim_ascii().strip_prefix(b"\xef\xbb\xbf").unwrap_or(body.trim_ascii()).trim_ascii()
}

/// Told apart from [`Members`] so that a duplicate is an answer of its own and not a parse error.
struct Object(Result<Members, MembersError>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut members = BTreeMap::new();
        let mut twice = false;
        while let Some((name, member)) = map.next_entry::<String, Member>()? {
            twice |= members.insert(name, member).is_some();
        }
        Ok(Object(if twice { Err(MembersError::Duplicate) } else { Ok(Members(members)) }))
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Member, E> {
        Ok(Member::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Member, E> {
        Ok(Member::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Member, E> {
        Ok(Member::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Member, E> {
        Ok(Number::from_f64(value).map_or(Member::Other, Member::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Member, E> {
        Ok(Member::Text(Zeroizing::new(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Member, E> {
        Ok(Member::Text(Zeroizing::new(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(member) = seq.next_element::<Member>()? {
            match (member, &mut texts) {
                (Member::Text(text), Some(texts)) => texts.push(text),
                _ => texts = None,
            }
        }
        Ok(texts.map_or(Member::Other, Member::Texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
        // One that names a member twice says nothing; the rest of the answer may still be good.
        Ok(ObjectVisitor.visit_map(map)?.0.map_or(Member::Other, Member::Object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind_are_read() {
        let members = Members::from_json(b"\xef\xbb\xbf {\"t\":\"x\",\"e\":\"\",\"n\":5,\"f\":3600.5,\"s\":\" 7 \",\"a\":[\"p\",\"q\"],\"m\":[1,\"p\"],\"o\":{\"a\":{}},\"z\":null,\"b\":true} ").unwrap();
        assert_eq!((members.text("t"), members.text("e"), members.text("z"), members.text("n")), (Some("x"), None, None, None));
        assert_eq!(
            (members.number("n"), members.number("f"), members.number("s"), members.number("t")),
            (Some(5.0), Some(3600.5), Some(7.0), None)
        );
        assert_eq!(members.texts("a"), Some(vec!["p", "q"]));
        assert_eq!((members.texts("m"), members.texts("o"), members.texts("z")), (None, None, None));
        assert_eq!(members.scalar("n").as_deref(), Some("5"));
        assert!(members.is_true("b") && !members.is_true("n"));
    }

    #[test]
    fn a_path_leads_into_objects_and_a_name_with_dots_in_it_is_found() {
        let text =
            br#"{"user":{"name":"eve","id":7,"team":{"name":"red"}},"a.b":{"c":"x"},"a":{"b":"y"},"twice":{"n":1,"n":2},"list":[{"n":1}]}"#;
        let members = Members::from_json(text).unwrap();
        for (path, expected) in [
            ("user.name", Some("eve")),
            ("user.id", Some("7")),
            ("user.team.name", Some("red")),
            ("a.b.c", Some("x")),
            ("a.b", None),
            ("user", None),
            ("user.", None),
            (".name", None),
            ("user.name.first", None),
            ("twice.n", None),
            ("list.n", None),
            ("", None),
        ] {
            assert_eq!(members.scalar(path).as_deref(), expected, "{path}");
        }
        assert_eq!(members.object("user.team").and_then(|team| team.text("name")), Some("red"));
        assert!(members.object("user.name").is_none() && members.object("nobody").is_none());
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        let deep_objects = "{\"a\":".repeat(100_000);
        for (body, expected) in [
            ("", MembersError::Empty),
            (" \n", MembersError::Empty),
            ("<html>", MembersError::Html),
            ("null", MembersError::NotObject),
            ("[]", MembersError::NotObject),
            ("{\"a\":", MembersError::NotJson),
            ("{\"a\":1}{", MembersError::NotJson),
            ("{\"a\":NaN}", MembersError::NotJson),
            ("{\"a\":\"\\ud800\"}", MembersError::NotJson),
            ("{\"a\":1e999}", MembersError::NotJson),
            ("{\"a\":1,\"a\":1}", MembersError::Duplicate),
            (&deep, MembersError::NotJson),
            (&deep_objects, MembersError::NotJson),
        ] {
            assert_eq!(Members::from_json(body.as_bytes()).unwrap_err(), expected, "{:.40}", body);
        }
        assert_eq!(Members::from_form(b"a=1&a=2").unwrap_err(), MembersError::Duplicate);
    }
}

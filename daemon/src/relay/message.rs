//! PURE: what a client sends, as far as our own answers need to know, and those answers in the words of JSON-RPC 2.0.

use std::fmt;

use mcp_auth_proto::ErrorBody;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// In the range that JSON-RPC leaves to servers (-32000 to -32099).
const CODE: i32 = -32000;

/// What a body asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sent {
    /// The ids of the requests in it.
    pub(super) requests: Vec<Value>,
    /// Whether it is a list of messages.
    pub(super) batch: bool,
}

/// Looks through a body, or the beginning of one: what is missing or malformed does not hide what came before it. A request
/// whose id comes too late has the id `null`.
pub(super) fn look(body: &[u8]) -> Sent {
    let mut sent = Sent::default();
    // It is the server's business to refuse what is wrong.
    let _ = Look(&mut sent).deserialize(&mut serde_json::Deserializer::from_slice(body));
    sent
}

impl Sent {
    /// The answer that every request in it failed so; `None` where nothing in it is answered.
    pub(super) fn failed(&self, error: &ErrorBody) -> Option<Value> {
        let object = error_object(error);
        let answer = |id: &Value| json!({ "jsonrpc": "2.0", "id": id, "error": object });
        match self.requests.as_slice() {
            [] => None,
            [id] if !self.batch => Some(answer(id)),
            ids => Some(ids.iter().map(answer).collect()),
        }
    }
}

/// The JSON-RPC error: the ready one that tells how to log in, where there is one.
fn error_object(error: &ErrorBody) -> Value {
    if let Some(ready) = &error.mcp {
        return ready.clone();
    }
    let hint = error.hint.as_deref().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
    let mut data = json!({ "error": error.error, "hint": error.hint });
    if let Some(seconds) = error.retry_after {
        data["retry_after"] = seconds.into();
    }
    json!({ "code": CODE, "message": format!("{error}{hint}"), "data": data })
}

/// Reads one message or a list of them into what is known so far.
struct Look<'a>(&'a mut Sent);

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut message = Message { sent: self.0, id: None, has_method: false };
        while let Some(Name(name)) = members.next_key()? {
            match &*name {
                "id" => message.id = Some(members.next_value()?),
                "method" => {
                    message.has_method = true;
                    members.next_value::<IgnoredAny>()?;
                }
                _ => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        message.is_whole();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<(), A::Error> {
        self.0.batch = true;
        while messages.next_element_seed(Look(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// A member's name, which may have escapes in it.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// What is known of one message. It counts when it is let go, whole or cut off.
struct Message<'a> {
    sent: &'a mut Sent,
    id: Option<Value>,
    has_method: bool,
}

impl Message<'_> {
    /// Nothing more comes: what has no id by now is a notification.
    fn is_whole(&mut self) {
        self.has_method &= self.id.is_some();
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        if self.has_method {
            self.sent.requests.push(self.id.take().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use mcp_auth_proto::ErrorCode;

    use super::*;

    fn ids(body: &str) -> Vec<Value> {
        look(body.as_bytes()).requests
    }

    #[test]
    fn requests_are_told_from_what_nobody_answers() {
        assert_eq!(ids(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#), [json!(1)]);
        assert_eq!(ids(r#"{"params":{"id":7,"method":"x"},"method":"a","id":"s\u00e9"}"#), [json!("s\u{e9}")]);
        assert_eq!(ids(r#"{"m\u0065thod":"a","\u0069d":3}"#), [json!(3)]);
        assert_eq!(ids(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), [json!(null); 0]);
        assert_eq!(ids(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), [json!(null); 0], "the answer to a server's request");
        assert_eq!(ids(r#"[{"id":1,"method":"a"},{"method":"b"},{"id":2,"method":"c"}]"#), [json!(1), json!(2)]);
        for nothing in ["", "null", "3", "nonsense", "[]", "{}", "\u{0}"] {
            assert_eq!(ids(nothing), [json!(null); 0], "{nothing:?}");
        }
        assert_eq!(ids(&"[".repeat(100_000)), [json!(null); 0], "however deep");
    }

    #[test]
    fn a_request_that_is_cut_off_is_known_by_what_has_come() {
        assert_eq!(ids(r#"{"id":5,"method":"a","params":{"text":"xxxxx"#), [json!(5)]);
        assert_eq!(ids(r#"{"method":"a","params":{"text":"xxxxx"#), [json!(null)], "its id is still to come");
        assert_eq!(ids(r#"{"params":{"text":"xxxxx"#), [json!(null); 0]);
        assert_eq!(ids(r#"[{"id":1,"method":"a"},{"id":2,"method":"b","params":"x"#), [json!(1), json!(2)]);
    }

    #[test]
    fn a_failure_is_an_answer_for_each_request_and_says_what_to_do() {
        let error = ErrorBody::new(ErrorCode::ProviderUnreachable, "a.example does not answer").hint("wait").retry_after(3);
        let one = look(br#"{"id":1,"method":"a"}"#).failed(&error).unwrap();
        assert_eq!((&one["jsonrpc"], &one["id"], &one["error"]["code"]), (&json!("2.0"), &json!(1), &json!(-32000)));
        assert_eq!(one["error"]["message"], "a.example does not answer; hint: wait");
        assert_eq!(one["error"]["data"], json!({ "error": "provider_unreachable", "hint": "wait", "retry_after": 3 }));
        let batch = look(br#"[{"id":1,"method":"a"}]"#).failed(&error).unwrap();
        assert_eq!(batch[0]["id"], 1);
        assert_eq!(look(br#"{"method":"a"}"#).failed(&error), None);
        let mut ready = ErrorBody::new(ErrorCode::LoginRequired, "x");
        ready.mcp = Some(json!({ "code": -32001, "message": "Authentication required" }));
        assert_eq!(look(br#"{"id":1,"method":"a"}"#).failed(&ready).unwrap()["error"], ready.mcp.unwrap());
    }
}

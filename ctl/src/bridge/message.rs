//! PURE: one JSON-RPC message of the client or the server, as far as the bridge has to know it. The message itself is passed on
//! byte for byte.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is answered under this id, which is kept as it is spelled.
    Request(String),
    /// Nobody answers it.
    Notification,
    /// It answers the other side's request.
    Response(String),
    /// A list of messages (2025-03-26); these ids are answered.
    Batch(Vec<String>),
}

/// What a message says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// Empty for a response and for a batch.
    pub(super) method: String,
    /// The version in `_meta`: every message of a client has it since 2026-07-28.
    pub(super) version: Option<String>,
    /// What `Mcp-Name` repeats.
    pub(super) name: Option<String>,
    /// The request that it cancels.
    pub(super) cancels: Option<String>,
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// Members of `params` that matter, whatever their type is.
#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "taskId")]
    task_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId")]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<Cow<'a, str>>,
}

impl Message {
    /// Reads a message; `None` for what is none.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        if text.trim_ascii_start().first() == Some(&b'[') {
            return Self::read_batch(text);
        }
        let members: Members<'_> = serde_json::from_slice(text).ok()?;
        let id = members.id.map(|id| id.get().to_owned());
        let Some(method) = members.method.map(Cow::into_owned) else {
            return Some(Self { kind: Kind::Response(id?), method: String::new(), version: None, name: None, cancels: None });
        };
        let params: Params<'_> = inner(members.params);
        let meta: Meta<'_> = inner(params.meta);
        let named = match method.as_str() {
            "tools/call" | "prompts/get" => params.name,
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => params.uri,
            "tasks/get" | "tasks/update" | "tasks/cancel" => params.task_id,
            _ => None,
        };
        let cancels = params.request_id.filter(|_| method == "notifications/cancelled");
        Some(Self {
            kind: id.map_or(Kind::Notification, Kind::Request),
            version: meta.version.map(Cow::into_owned),
            name: named.and_then(|name| serde_json::from_str(name.get()).ok()),
            cancels: cancels.map(|id| id.get().to_owned()),
            method,
        })
    }

    fn read_batch(text: &[u8]) -> Option<Self> {
        let messages: Vec<Members<'_>> = serde_json::from_slice(text).ok()?;
        let requests = messages.iter().filter(|message| message.method.is_some());
        let ids = requests.filter_map(|message| message.id).map(|id| id.get().to_owned()).collect();
        Some(Self { kind: Kind::Batch(ids), method: String::new(), version: None, name: None, cancels: None })
    }

    /// The ids under which an answer is owed.
    pub(super) fn owed(&self) -> &[String] {
        match &self.kind {
            Kind::Request(id) => std::slice::from_ref(id),
            Kind::Batch(ids) => ids,
            Kind::Notification | Kind::Response(_) => &[],
        }
    }

    /// Whether it is of the era without handshakes and sessions.
    pub(super) fn is_modern(&self) -> bool {
        self.version.is_some()
    }
}

/// The arguments of a tool's call.
pub(super) fn arguments(text: &[u8]) -> Value {
    let members: Option<Members<'_>> = serde_json::from_slice(text).ok();
    let params: Params<'_> = inner(members.and_then(|members| members.params));
    params.arguments.and_then(|arguments| serde_json::from_str(arguments.get()).ok()).unwrap_or_default()
}

/// The error that a message carries, and the result, where it is the answer to a request.
#[derive(Deserialize)]
pub(super) struct Outcome<'a> {
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
}

/// What an answer says.
pub(super) fn outcome(text: &[u8]) -> Outcome<'_> {
    serde_json::from_slice(text).unwrap_or(Outcome { error: None, result: None })
}

/// An answer with this result, which is JSON already.
pub(super) fn with_result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// An answer with this error, which is JSON already.
pub(super) fn with_error(id: &str, error: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// An error of the bridge's own, in the range that JSON-RPC leaves to servers (-32000 to -32099).
pub(super) fn own_error(sentence: &str) -> String {
    json!({ "code": -32000, "message": sentence }).to_string()
}

/// The answer to a line that is no message.
pub(super) fn unreadable() -> String {
    with_error("null", &json!({ "code": -32700, "message": "this line is not a JSON-RPC message" }).to_string())
}

/// One line of a message: JSON has line ends only between its parts, where a space does as well.
pub(super) fn one_line(mut text: Vec<u8>) -> Vec<u8> {
    for byte in &mut text {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text
}

fn inner<'a, T: Default + Deserialize<'a>>(raw: Option<&'a RawValue>) -> T {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Message {
        Message::read(text.as_bytes()).expect(text)
    }

    #[test]
    fn a_message_is_known_by_its_members_wherever_they_stand() {
        let call = read(
            r#"{"params":{"arguments":{"id":9},"name":"a b","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}},"id":"1","method":"tools/call"}"#,
        );
        assert_eq!((call.kind.clone(), call.method.as_str()), (Kind::Request("\"1\"".into()), "tools/call"));
        assert_eq!((call.version.as_deref(), call.name.as_deref(), call.is_modern()), (Some("2026-07-28"), Some("a b"), true));
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).kind, Kind::Request("1".into()));
        assert_eq!(read(r#"{"method":"notifications/initialized"}"#).kind, Kind::Notification);
        assert_eq!(read(r#"{"id":3,"result":{}}"#).kind, Kind::Response("3".into()));
        let cancel = read(r#"{"method":"notifications/cancelled","params":{"requestId":"x"}}"#);
        assert_eq!(cancel.cancels.as_deref(), Some("\"x\""));
        assert_eq!(read(r#"{"id":1,"method":"a","params":{"requestId":2}}"#).cancels, None);
        let batch = read(r#" [{"id":1,"method":"a"},{"method":"b"},{"id":2,"result":0}]"#);
        assert_eq!((batch.kind.clone(), batch.owed()), (Kind::Batch(vec!["1".into()]), &["1".to_owned()][..]));
    }

    #[test]
    fn what_is_odd_about_parameters_does_not_hide_the_message() {
        for params in ["[1]", "null", "\"x\"", r#"{"name":3,"_meta":7,"uri":{}}"#] {
            let message = read(&format!(r#"{{"id":1,"method":"tools/call","params":{params}}}"#));
            assert_eq!((message.kind, message.name, message.version), (Kind::Request("1".into()), None, None), "{params}");
        }
        for none in ["", "x", "{}", "3", "{\"id\":1", "[1]", "\u{1}"] {
            assert_eq!(Message::read(none.as_bytes()), None, "{none:?}");
        }
    }

    #[test]
    fn a_message_in_several_lines_becomes_one_and_stays_the_same() {
        let pretty = "{\n  \"id\": 1,\r\n  \"result\": \"a\\nb\"\n}";
        let line = one_line(pretty.into());
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let value = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        assert_eq!(value(&line), value(pretty.as_bytes()));
    }
}

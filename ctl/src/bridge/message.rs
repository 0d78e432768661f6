//! PURE: one JSON-RPC message of the client or the server, as far as the bridge has to know it. The message itself is passed on
//! byte for byte.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
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
    /// Its client shows a person a page, if it is asked to (`elicitation.url`): told once before 2026-07-28, and by every
    /// message since.
    pub(super) elicits: bool,
    /// What the client brings of what it was asked for (since 2026-07-28).
    pub(super) brings: Brings,
}

/// What a request brings because it came back with a question (since 2026-07-28).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Brings {
    /// It was asked for nothing.
    #[default]
    Nothing,
    /// The person's word on our page: whether it was opened.
    OurAnswer(bool),
    /// What the server has asked for.
    Others,
}

/// What our question is called among those of a request.
pub(super) const QUESTION: &str = "mcp-authd.login";

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
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "inputResponses")]
    input_responses: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestState")]
    request_state: Option<&'a RawValue>,
}

/// What a client can do, as far as it matters here.
#[derive(Default, Deserialize)]
struct Capabilities<'a> {
    #[serde(borrow, default)]
    elicitation: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Elicitation<'a> {
    #[serde(borrow, default)]
    url: Option<&'a RawValue>,
}

/// A person's word on what was shown.
#[derive(Default, Deserialize)]
struct Word<'a> {
    #[serde(borrow, default)]
    action: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<&'a RawValue>,
}

impl Kind {
    /// What a text is; `None` for what is no message. Its parts are looked at once and no more: it may be long.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        if is_list(text) {
            return Self::of_batch(text);
        }
        Self::of_members(&serde_json::from_slice(text).ok()?)
    }

    fn of_members(members: &Members<'_>) -> Option<Self> {
        let id = members.id.map(|id| id.get().to_owned());
        match (id, &members.method) {
            (Some(id), Some(_)) => Some(Self::Request(id)),
            (None, Some(_)) => Some(Self::Notification),
            (id, None) => Some(Self::Response(id?)),
        }
    }

    fn of_batch(text: &[u8]) -> Option<Self> {
        let messages: Vec<Members<'_>> = serde_json::from_slice(text).ok()?;
        let requests = messages.iter().filter(|message| message.method.is_some());
        Some(Self::Batch(requests.filter_map(|message| message.id).map(|id| id.get().to_owned()).collect()))
    }
}

impl Message {
    /// Reads a message of the client; `None` for what is none.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        if is_list(text) {
            return Kind::of_batch(text).map(Self::of);
        }
        let members: Members<'_> = serde_json::from_slice(text).ok()?;
        let kind = Kind::of_members(&members)?;
        let Some(method) = members.method.map(Cow::into_owned) else { return Some(Self::of(kind)) };
        let params: Params<'_> = inner(members.params);
        let meta: Meta<'_> = inner(params.meta);
        let named = match method.as_str() {
            "tools/call" | "prompts/get" => params.name,
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => params.uri,
            "tasks/get" | "tasks/update" | "tasks/cancel" => params.task_id,
            _ => None,
        };
        let cancels = params.request_id.filter(|_| method == "notifications/cancelled");
        let capabilities = if method == "initialize" { params.capabilities } else { meta.capabilities };
        Some(Self {
            kind,
            version: meta.version.map(Cow::into_owned),
            name: named.and_then(|name| serde_json::from_str(name.get()).ok()),
            cancels: cancels.map(|id| id.get().to_owned()),
            elicits: elicits(capabilities),
            brings: brings(&params),
            method,
        })
    }

    /// What has nothing else to say.
    fn of(kind: Kind) -> Self {
        Self { kind, method: String::new(), version: None, name: None, cancels: None, elicits: false, brings: Brings::Nothing }
    }

    /// The ids under which an answer is owed.
    pub(super) fn owed(&self) -> &[String] {
        match &self.kind {
            Kind::Request(id) => std::slice::from_ref(id),
            Kind::Batch(ids) => ids,
            Kind::Notification | Kind::Response(_) => &[],
        }
    }

    /// Whether an answer under this id is one to it.
    pub(super) fn is_owed(&self, id: &str) -> bool {
        let id = plain(id);
        self.owed().iter().any(|owed| plain(owed) == id)
    }

    /// Whether it is of the era without handshakes and sessions.
    pub(super) fn is_modern(&self) -> bool {
        self.version.is_some()
    }
}

/// An id in one spelling: `"a/b"` and `"a\/b"` are the same.
pub(super) fn plain(id: &str) -> String {
    serde_json::from_str(id).map_or_else(|_| id.to_owned(), |id: Value| id.to_string())
}

fn elicits(capabilities: Option<&RawValue>) -> bool {
    let capabilities: Capabilities<'_> = inner(capabilities);
    let elicitation: Elicitation<'_> = inner(capabilities.elicitation);
    elicitation.url.is_some_and(|url| url.get().starts_with('{'))
}

fn brings(params: &Params<'_>) -> Brings {
    let responses: BTreeMap<Cow<'_, str>, &RawValue> = inner(params.input_responses);
    match responses.get(QUESTION).copied() {
        Some(word) => Brings::OurAnswer(inner::<Word<'_>>(Some(word)).action.as_deref() == Some("accept")),
        None if params.input_responses.is_some() || params.request_state.is_some() => Brings::Others,
        None => Brings::Nothing,
    }
}

/// A request without the person's word on our page, which is not the server's business. What else is in it stays as it is.
pub(super) fn without_our_answer(text: &[u8]) -> Option<Vec<u8>> {
    let mut message: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(text).ok()?;
    let mut params: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(message.get("params")?.get()).ok()?;
    let mut responses: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(params.remove("inputResponses")?.get()).ok()?;
    responses.remove(QUESTION);
    let others = to_raw_value(&responses).ok()?;
    if !responses.is_empty() {
        params.insert(Cow::Borrowed("inputResponses"), &others);
    }
    let params = to_raw_value(&params).ok()?;
    message.insert(Cow::Borrowed("params"), &params);
    serde_json::to_vec(&message).ok()
}

/// The arguments of a tool's call.
pub(super) fn arguments(text: &[u8]) -> Value {
    let members: Option<Members<'_>> = serde_json::from_slice(text).ok();
    let params: Params<'_> = inner(members.and_then(|members| members.params));
    params.arguments.and_then(|arguments| serde_json::from_str(arguments.get()).ok()).unwrap_or_default()
}

/// The question for a server's tools, as the client of this message would ask it; `cursor`: the page after that.
pub(super) fn tools_list(text: &[u8], cursor: Option<&str>) -> Option<String> {
    let members: Members<'_> = serde_json::from_slice(text).ok()?;
    let params: Params<'_> = inner(members.params);
    let mut meta: Value = serde_json::from_str(params.meta?.get()).ok()?;
    // It belongs to the call.
    meta.as_object_mut()?.remove("progressToken");
    let mut params = json!({ "_meta": meta });
    if let Some(cursor) = cursor {
        params["cursor"] = cursor.into();
    }
    Some(json!({ "jsonrpc": "2.0", "id": "mcp-authctl-tools", "method": "tools/list", "params": params }).to_string())
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

/// A message as one line, with its end: JSON has line ends only between its parts, where a space does as well.
pub(super) fn one_line(mut text: Vec<u8>) -> Vec<u8> {
    for byte in &mut text {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text.push(b'\n');
    text
}

fn is_list(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'[')
}

fn inner<'a, T: Default + Deserialize<'a>>(raw: Option<&'a RawValue>) -> T {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Message {
        let message = Message::read(text.as_bytes()).expect(text);
        assert_eq!(Kind::of(text.as_bytes()).as_ref(), Some(&message.kind), "both say what it is");
        message
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
    fn an_id_is_the_same_in_every_spelling() {
        let owes = |id: &str, answered: &str| read(&format!(r#"{{"id":{id},"method":"a"}}"#)).is_owed(answered);
        assert!(owes(r#""a/b""#, r#""a\/b""#) && owes(r#""\u00e9""#, "\"\u{e9}\"") && owes("7", "7"));
        assert!(!owes("7", "\"7\"") && !owes("7", "8"));
    }

    #[test]
    fn what_is_odd_about_parameters_does_not_hide_the_message() {
        for params in ["[1]", "null", "\"x\"", r#"{"name":3,"_meta":7,"uri":{}}"#] {
            let message = read(&format!(r#"{{"id":1,"method":"tools/call","params":{params}}}"#));
            assert_eq!((message.kind, message.name, message.version), (Kind::Request("1".into()), None, None), "{params}");
        }
        for none in ["", "x", "{}", "3", "{\"id\":1", "[1]", "\u{1}"] {
            assert_eq!((Message::read(none.as_bytes()), Kind::of(none.as_bytes())), (None, None), "{none:?}");
        }
    }

    #[test]
    fn whether_a_client_shows_pages_is_said_in_the_handshake_or_by_every_message() {
        let shows = |text: &str| read(text).elicits;
        assert!(shows(r#"{"id":1,"method":"initialize","params":{"capabilities":{"elicitation":{"form":{},"url":{}}}}}"#));
        let modern = r#"{"id":1,"method":"a","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":CAPABLE}}}"#;
        assert!(shows(&modern.replace("CAPABLE", r#"{"elicitation":{"url":{}}}"#)));
        for none in ["{}", r#"{"elicitation":{}}"#, r#"{"elicitation":{"form":{}}}"#, r#"{"elicitation":{"url":null}}"#, "[]", "3"] {
            assert!(!shows(&modern.replace("CAPABLE", none)), "{none}");
        }
        assert!(!shows(r#"{"id":1,"method":"tools/call","params":{"capabilities":{"elicitation":{"url":{}}}}}"#), "a tool's own");
    }

    #[test]
    fn the_persons_word_on_our_page_is_taken_out_and_what_the_server_asked_for_stays() {
        let ours = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"t","inputResponses":{"mcp-authd.login":{"action":"accept"}},"arguments":{"n":1.0e2}}}"#;
        assert_eq!(read(ours).brings, Brings::OurAnswer(true));
        assert_eq!(read(&ours.replace("accept", "cancel")).brings, Brings::OurAnswer(false));
        let left = String::from_utf8(without_our_answer(ours.as_bytes()).unwrap()).unwrap();
        assert_eq!(left, r#"{"id":2,"jsonrpc":"2.0","method":"tools/call","params":{"arguments":{"n":1.0e2},"name":"t"}}"#);
        let both = ours.replace(r#""mcp-authd.login":"#, r#""a":{"x":1},"mcp-authd.login":"#);
        let left = without_our_answer(both.as_bytes()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&left).unwrap()["params"]["inputResponses"], json!({ "a": { "x": 1 } }));
        assert_eq!(read(&ours.replace("mcp-authd.login", "of-the-server")).brings, Brings::Others);
        assert_eq!(read(r#"{"id":1,"method":"a","params":{"requestState":"s"}}"#).brings, Brings::Others);
        assert_eq!(read(r#"{"id":1,"method":"a","params":{}}"#).brings, Brings::Nothing);
    }

    #[test]
    fn a_message_in_several_lines_becomes_one_and_stays_the_same() {
        let pretty = "{\n  \"id\": 1,\r\n  \"result\": \"a\\nb\"\n}";
        let line = one_line(pretty.into());
        assert_eq!(line.iter().position(|byte| matches!(byte, b'\n' | b'\r')), Some(line.len() - 1));
        let value = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        assert_eq!(value(&line), value(pretty.as_bytes()));
    }
}

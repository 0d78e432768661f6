//! PURE: the HTTP headers of a message (MCP transports, "Streamable HTTP"): what a server and whoever stands before it want to know
//! without reading the body.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};

use super::message::{self, Message};
use super::tools::{Tools, encoded};

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The headers of a message that is posted. `version` is the one that the conversation is in, where the message names none.
pub(super) fn of(message: &Message, text: &[u8], version: Option<&str>, tools: &Tools) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    if let Some(version) = message.version.as_deref().or(version) {
        add(&mut headers, VERSION, version);
    }
    if is_mirrored(message, version) {
        add(&mut headers, METHOD, &message.method);
        if let Some(name) = &message.name {
            add(&mut headers, NAME, &encoded(name));
        }
        if let (Some(tool), "tools/call") = (&message.name, message.method.as_str()) {
            for (name, value) in tools.headers(tool, &message::arguments(text)) {
                if let Ok(name) = name.parse() {
                    add(&mut headers, name, &value);
                }
            }
        }
    }
    headers
}

/// The headers of a stream that is opened without a message.
pub(super) fn of_stream(version: Option<&str>, last_event: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    if let Some(version) = version {
        add(&mut headers, VERSION, version);
    }
    if let Some(last_event) = last_event {
        add(&mut headers, LAST_EVENT, last_event);
    }
    headers
}

/// Versions are dates: those from this one on have the headers.
const SINCE: &str = "2026-07-28";

fn is_mirrored(message: &Message, version: Option<&str>) -> bool {
    !message.method.is_empty() && message.version.as_deref().or(version).is_some_and(|version| version >= SINCE)
}

/// A value that no header can carry is left out, and the server says so.
fn add(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str, version: Option<&str>) -> Vec<(String, String)> {
        let message = Message::read(text.as_bytes()).unwrap();
        let mut tools = Tools::default();
        let schema = r#"{"properties":{"r":{"type":"string","x-mcp-header":"Region"}}}"#;
        tools.learn(&format!(r#"{{"tools":[{{"name":"t","inputSchema":{schema}}}]}}"#));
        let shown = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
        let headers = of(&message, text.as_bytes(), version, &tools);
        let mut headers: Vec<_> = headers.iter().map(shown).filter(|(name, _)| name.starts_with("mcp-")).collect();
        headers.sort();
        headers
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_message_of_the_newer_era_repeats_itself_in_its_headers() {
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        let call = format!(r#"{{"id":1,"method":"tools/call","params":{{"name":"t","arguments":{{"r":"eu"}},{meta}}}}}"#);
        let expected =
            [("mcp-method", "tools/call"), ("mcp-name", "t"), ("mcp-param-region", "eu"), ("mcp-protocol-version", "2026-07-28")];
        assert_eq!(headers(&call, None), owned(&expected));
        let read = format!(r#"{{"id":1,"method":"resources/read","params":{{"uri":"file:///é","name":"t",{meta}}}}}"#);
        let expected =
            [("mcp-method", "resources/read"), ("mcp-name", "=?base64?ZmlsZTovLy/DqQ==?="), ("mcp-protocol-version", "2026-07-28")];
        assert_eq!(headers(&read, None), owned(&expected));
        let expected = [("mcp-method", "notifications/x"), ("mcp-protocol-version", "2026-07-28")];
        assert_eq!(headers(r#"{"method":"notifications/x"}"#, Some("2026-07-28")), owned(&expected));
    }

    #[test]
    fn a_message_of_the_older_era_tells_the_version_that_was_agreed_on_and_no_more() {
        let call = r#"{"id":1,"method":"tools/call","params":{"name":"t","arguments":{"r":"eu"}}}"#;
        assert_eq!(headers(call, Some("2025-11-25")), owned(&[("mcp-protocol-version", "2025-11-25")]));
        assert_eq!(headers(r#"{"id":1,"method":"initialize","params":{}}"#, None), []);
        assert_eq!(headers(r#"{"id":1,"result":{}}"#, Some("2026-07-28")), owned(&[("mcp-protocol-version", "2026-07-28")]));
    }
}

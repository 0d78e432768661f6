//! PURE: the login's page in the words of MCP, for clients that show a person a page themselves (`elicitation.url`): an error
//! before 2026-07-28, a question that the request comes back with since. Which page it is, `login` knows.

use serde_json::{Value, json};

use super::login::Page;
use super::message::{self, Message, QUESTION};

/// `URL_ELICITATION_REQUIRED` of MCP 2025-11-25.
const CODE: i32 = -32042;

/// The requests that may come back with a question (MCP 2026-07-28).
const MAY_ASK: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];

/// Whether a request of the newer era may be answered with a question.
pub(super) fn may_ask(message: &Message) -> bool {
    MAY_ASK.contains(&message.method.as_str())
}

/// The error of the older era. `ready` is the daemon's, whose data tells those more who read it.
pub(super) fn error(page: &Page, ready: Option<&str>) -> String {
    let ready: Value = ready.and_then(|ready| serde_json::from_str(ready).ok()).unwrap_or_default();
    let mut data = ready.get("data").filter(|data| data.is_object()).cloned().unwrap_or_else(|| json!({}));
    let mut shown = shown(page, command(&ready));
    shown["elicitationId"] = page.id.as_str().into();
    data["elicitations"] = json!([shown]);
    json!({ "code": CODE, "message": sentence(page, command(&ready)), "data": data }).to_string()
}

/// The answer of the newer era.
pub(super) fn question(id: &str, page: &Page, ready: Option<&str>) -> String {
    let ready: Value = ready.and_then(|ready| serde_json::from_str(ready).ok()).unwrap_or_default();
    let asked = json!({ "method": "elicitation/create", "params": shown(page, command(&ready)) });
    message::with_result(id, &json!({ "resultType": "input_required", "inputRequests": { QUESTION: asked } }).to_string())
}

/// Told to a client of the older era once the login has brought tokens.
pub(super) fn complete(page: &Page) -> String {
    json!({ "jsonrpc": "2.0", "method": "notifications/elicitation/complete", "params": { "elicitationId": page.id } }).to_string()
}

fn shown(page: &Page, command: Option<&str>) -> Value {
    json!({ "mode": "url", "url": page.url, "message": sentence(page, command) })
}

fn sentence(page: &Page, command: Option<&str>) -> String {
    let code = page.code.as_ref().map(|code| format!(" and type the code {code}")).unwrap_or_default();
    let instead = command.map(|command| format!("; or run `{command}`")).unwrap_or_default();
    format!("a login is needed: open the page at {}{code}{instead}", page.host)
}

fn command(ready: &Value) -> Option<&str> {
    ready.pointer("/data/login_command")?.as_str()
}

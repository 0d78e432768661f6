//! Both eras of MCP over HTTP, as little of them as a stand-in needs.

use serde_json::{Value, json};

use crate::remote::{Asked, Reply};

/// The answer to a request.
pub fn result(asked: &Asked, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": asked.message()["id"], "result": result })
}

/// A server of 2025-11-25: a session, and what `more` does not answer.
pub fn older(asked: &Asked, reply: &mut Reply, more: impl Fn(&Asked, &mut Reply) -> bool) {
    let message = asked.message();
    match (asked.method.as_str(), message["method"].as_str()) {
        _ if more(asked, reply) => {}
        ("POST", Some("initialize")) => {
            let said = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": { "name": "s", "version": "1" } });
            reply.message(&[("mcp-session-id", "s-1")], &result(asked, &said));
        }
        ("POST", Some(_)) if message.get("id").is_some() => reply.message(&[], &result(asked, &json!({}))),
        ("POST", _) => reply.whole(202, &[], ""),
        ("DELETE", _) => reply.whole(200, &[], ""),
        _ => reply.whole(405, &[], ""),
    }
}

/// A request of 2026-07-28.
pub fn modern(id: u64, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

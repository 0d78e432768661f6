//! PURE: the tools of a server as their callers must know them since 2026-07-28 (transports, "Custom Headers"): parameters that a
//! call repeats in headers, and tools that must not be shown because they ask for that wrongly.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// The annotation of a parameter.
const ANNOTATION: &str = "x-mcp-header";

/// The most tools that are remembered: a server that lists more has its calls refused, at worst.
const MOST_TOOLS: usize = 10_000;

/// What is known of a server's tools.
#[derive(Debug, Default)]
pub(super) struct Tools(HashMap<String, Vec<Parameter>>);

/// A parameter that is repeated in a header.
#[derive(Debug, PartialEq, Eq)]
struct Parameter {
    /// The way to it from the arguments.
    path: Vec<String>,
    header: String,
}

impl Tools {
    /// Takes in the result of a `tools/list`: what is left of it where tools had to be dropped, and the names of those.
    pub(super) fn learn(&mut self, result: &str) -> Option<(String, Vec<String>)> {
        let mut result: Value = serde_json::from_str(result).ok()?;
        let tools = result.get_mut("tools")?.as_array_mut()?;
        let mut dropped = Vec::new();
        tools.retain(|tool| {
            let name = tool.get("name").and_then(Value::as_str).unwrap_or_default();
            match tool.get("inputSchema").map_or(Some(Vec::new()), parameters) {
                Some(parameters) => {
                    self.remember(name, parameters);
                    true
                }
                None => {
                    dropped.push(name.to_owned());
                    false
                }
            }
        });
        (!dropped.is_empty()).then(|| (result.to_string(), dropped))
    }

    /// The headers of a call, names and values.
    pub(super) fn headers(&self, tool: &str, arguments: &Value) -> Vec<(String, String)> {
        let value = |parameter: &Parameter| parameter.path.iter().try_fold(arguments, |value, key| value.get(key)).and_then(plain);
        let parameters = self.0.get(tool).map(Vec::as_slice).unwrap_or_default();
        parameters.iter().filter_map(|parameter| Some((format!("Mcp-Param-{}", parameter.header), encoded(&value(parameter)?)))).collect()
    }

    fn remember(&mut self, name: &str, parameters: Vec<Parameter>) {
        if parameters.is_empty() {
            self.0.remove(name);
        } else if self.0.len() < MOST_TOOLS {
            self.0.insert(name.to_owned(), parameters);
        }
    }
}

/// A text as a header can carry it: as it is, or in Base64 between marks.
pub(super) fn encoded(text: &str) -> String {
    let visible = text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) && text.trim() == text;
    let marked = text.starts_with("=?base64?") && text.ends_with("?=");
    if visible && !marked { text.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(text)) }
}

/// A value that a header repeats.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The annotated parameters of a schema; `None` where an annotation is not as it must be: the non-empty name of a header, no two
/// alike, on a string, an integer or a boolean, reached from the root by `properties` alone.
fn parameters(schema: &Value) -> Option<Vec<Parameter>> {
    let mut walk = Walk { found: Vec::new(), names: HashSet::new() };
    let Some(schema) = schema.as_object() else { return Some(Vec::new()) };
    if schema.contains_key(ANNOTATION) {
        return None;
    }
    walk.inside(schema, Some(&mut Vec::new()))?;
    Some(walk.found)
}

struct Walk {
    found: Vec<Parameter>,
    names: HashSet<String>,
}

impl Walk {
    /// Everything below one schema. `path`: how it was reached by `properties` alone. What a schema holds as an instance
    /// (`const`, `default`, `enum`, `examples`) is no schema.
    fn inside(&mut self, schema: &Map<String, Value>, mut path: Option<&mut Vec<String>>) -> Option<()> {
        for (keyword, value) in schema {
            match keyword.as_str() {
                "const" | "default" | "enum" | "examples" | ANNOTATION => {}
                "properties" => self.properties(value, path.as_deref_mut())?,
                "$defs" | "definitions" | "dependentSchemas" | "patternProperties" => self.properties(value, None)?,
                _ => self.elsewhere(value)?,
            }
        }
        Some(())
    }

    fn properties(&mut self, properties: &Value, mut path: Option<&mut Vec<String>>) -> Option<()> {
        for (name, schema) in properties.as_object().into_iter().flatten() {
            let Some(schema) = schema.as_object() else { continue };
            match path.as_deref_mut() {
                Some(path) => {
                    path.push(name.clone());
                    self.annotation(schema, path)?;
                    self.inside(schema, Some(path))?;
                    path.pop();
                }
                None => self.outside(schema)?,
            }
        }
        Some(())
    }

    fn annotation(&mut self, schema: &Map<String, Value>, path: &[String]) -> Option<()> {
        let Some(annotation) = schema.get(ANNOTATION) else { return Some(()) };
        let header = annotation.as_str().filter(|name| is_token(name))?;
        let fits = matches!(schema.get("type").and_then(Value::as_str), Some("string" | "integer" | "boolean"));
        let new = self.names.insert(header.to_ascii_lowercase());
        (fits && new).then(|| self.found.push(Parameter { path: path.to_vec(), header: header.to_owned() }))
    }

    /// Schemas behind another keyword: nothing may be annotated there.
    fn elsewhere(&mut self, value: &Value) -> Option<()> {
        match value {
            Value::Object(schema) => self.outside(schema),
            Value::Array(schemas) => schemas.iter().try_for_each(|schema| self.elsewhere(schema)),
            _ => Some(()),
        }
    }

    fn outside(&mut self, schema: &Map<String, Value>) -> Option<()> {
        if schema.contains_key(ANNOTATION) { None } else { self.inside(schema, None) }
    }
}

/// The name of a header (RFC 9110 section 5.6.2).
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(properties: &Value) -> Value {
        json!({ "type": "object", "properties": properties })
    }

    fn is_fine(schema: &Value) -> bool {
        parameters(schema).is_some()
    }

    #[test]
    fn parameters_are_repeated_in_headers_and_encoded_where_they_must_be() {
        let annotated = schema(&json!({
            "region": { "type": "string", "x-mcp-header": "Region" },
            "count": { "type": "integer", "x-mcp-header": "Count" },
            "flag": { "type": "boolean", "x-mcp-header": "Flag" },
            "deep": { "type": "object", "properties": { "er": { "type": "string", "x-mcp-header": "Deeper" } } },
            "plain": { "type": "string" },
        }));
        let mut tools = Tools::default();
        assert_eq!(tools.learn(&json!({ "tools": [{ "name": "t", "inputSchema": annotated }] }).to_string()), None);
        let mut headers = tools.headers("t", &json!({ "region": "é", "count": 3, "flag": false, "deep": { "er": "x" }, "plain": "p" }));
        headers.sort();
        let expected = [("Count", "3"), ("Deeper", "x"), ("Flag", "false"), ("Region", "=?base64?w6k=?=")];
        assert_eq!(headers, expected.map(|(name, value)| (format!("Mcp-Param-{name}"), value.to_owned())));
        assert_eq!(tools.headers("t", &json!({ "region": null, "deep": 3 })), []);
        assert_eq!(tools.headers("other", &json!({ "region": "a" })), []);
    }

    #[test]
    fn what_a_header_cannot_carry_is_encoded() {
        for plain in ["", "a b", "=?base64?x", "~"] {
            assert_eq!(encoded(plain), plain);
        }
        for (text, base64) in
            [(" a", "IGE="), ("a\n", "YQo="), ("é", "w6k="), ("=?base64?YQ==?=", "PT9iYXNlNjQ/WVE9PT89"), ("\u{7f}", "fw==")]
        {
            assert_eq!(encoded(text), format!("=?base64?{base64}?="), "{text:?}");
        }
    }

    #[test]
    fn a_tool_with_a_wrong_annotation_is_not_shown_and_the_others_are() {
        let property = |property: Value| schema(&json!({ "p": property }));
        let string = json!({ "type": "string", "x-mcp-header": "A" });
        for wrong in [
            property(json!({ "type": "string", "x-mcp-header": "" })),
            property(json!({ "type": "string", "x-mcp-header": "a b" })),
            property(json!({ "type": "string", "x-mcp-header": "a:b" })),
            property(json!({ "type": "string", "x-mcp-header": 3 })),
            property(json!({ "type": "number", "x-mcp-header": "A" })),
            property(json!({ "type": ["string"], "x-mcp-header": "A" })),
            property(json!({ "x-mcp-header": "A" })),
            property(json!({ "type": "array", "items": string })),
            property(json!({ "anyOf": [string] })),
            json!({ "x-mcp-header": "A" }),
            json!({ "$defs": { "d": string } }),
            json!({ "items": { "properties": { "p": string } } }),
            schema(&json!({ "p": string, "q": { "type": "string", "x-mcp-header": "a" } })),
        ] {
            assert!(!is_fine(&wrong), "{wrong}");
        }
        for right in [
            json!({}),
            json!(true),
            property(json!({ "default": { "x-mcp-header": "" } })),
            schema(&json!({ "x-mcp-header": { "type": "string" } })),
        ] {
            assert!(is_fine(&right), "{right}");
        }
        let bad = property(json!({ "type": "number", "x-mcp-header": "A" }));
        let list = json!({ "nextCursor": "c", "tools": [{ "name": "bad", "inputSchema": bad }, { "name": "good", "inputSchema": {} }] });
        let (left, dropped) = Tools::default().learn(&list.to_string()).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&left).unwrap(),
            json!({ "nextCursor": "c", "tools": [{ "name": "good", "inputSchema": {} }] })
        );
        assert_eq!(dropped, ["bad"]);
    }
}

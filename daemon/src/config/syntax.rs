//! TOML -> tables, and the parser's errors in our words: the key, its table, what was expected, what was found.
//!
//! The parser's own texts quote values, which must not travel: a secret may have been pasted in the wrong place.

use std::ops::Range;

use mcp_auth_proto::similar;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use crate::provider::table::Wrong;

/// Reads a whole file.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Wrong> {
    let tree = DeTable::parse(text).map_err(|error| not_toml(&error))?;
    T::deserialize(Deserializer::from(tree.clone())).map_err(|error| not_ours(&error, tree.get_ref()))
}

/// A key or name of the file as an error may show it.
pub(super) fn shown(text: &str) -> String {
    text.escape_debug().take(64).collect()
}

fn not_toml(error: &Error) -> Wrong {
    let message = error.message().lines().next().unwrap_or_default();
    let hint = if message.starts_with("duplicate key") {
        "every key and every [table] is written once"
    } else if message.contains("table") {
        "a table is named as in [providers.work]"
    } else {
        "texts are quoted: client_id = \"...\""
    };
    Wrong { span: error.span(), what: format!("not TOML: {message}"), hint: Some(hint.to_owned()) }
}

fn not_ours(error: &Error, tree: &DeTable<'_>) -> Wrong {
    let span = error.span().unwrap_or_default();
    let path = path_at(tree, &span);
    let (key, table) = path.split_last().map_or(("", &[][..]), |(key, table)| (key.as_str(), table));
    let message = error.message();
    let (what, hint) = match message.split_once(' ') {
        Some(("unknown", rest)) if rest.starts_with("field") => unknown_key(key, table, message),
        Some(("unknown", rest)) if rest.starts_with("variant") => (format!("`{}` has an unknown value", shown(key)), one_of(message)),
        Some(("missing", rest)) if rest.starts_with("field") => missing(&path, message),
        _ => (mismatch(key, message), None),
    };
    Wrong { span: Some(span), what, hint }
}

fn unknown_key(key: &str, table: &[String], message: &str) -> (String, Option<String>) {
    let place = if table.is_empty() { String::new() } else { format!(" in [{}]", shown(&table.join("."))) };
    let provider = table.get(1).map_or("NAME".to_owned(), |name| shown(name));
    let lower = key.to_ascii_lowercase();
    if ["secret", "password", "passphrase", "private_key", "api_key"].iter().any(|part| lower.contains(part)) {
        let hint = match table.first().map(String::as_str) {
            Some("issuer") => "name a command that prints it: client_secret_command = [\"pass\", \"show\", \"NAME\"]".to_owned(),
            _ => format!("run `mcp-authctl provider set-secret {provider}`, which keeps it encrypted, and remove the line"),
        };
        return (format!("`{}`{place}: secrets do not belong in this file", shown(key)), Some(hint));
    }
    if lower.contains("token") && !lower.contains("endpoint") && !lower.contains("url") {
        let hint = format!("run `mcp-authctl add-token {provider}`, which keeps it encrypted, and remove the line");
        return (format!("`{}`{place}: tokens do not belong in this file", shown(key)), Some(hint));
    }
    let known = quoted(message.rsplit_once("expected ").map_or("", |(_, list)| list));
    let meant = SYNONYMS.iter().find(|(other, _)| *other == lower).map(|(_, ours)| *ours).filter(|ours| known.contains(ours));
    let hint = match meant.or_else(|| similar(&lower, known.iter().copied())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the keys here are: {}", known.join(", ")),
    };
    (format!("unknown key `{}`{place}", shown(key)), Some(hint))
}

fn missing(table: &[String], message: &str) -> (String, Option<String>) {
    let field = quoted(message).first().copied().unwrap_or_default();
    (format!("`{field}` is missing in [[{}]]", shown(&table.join("."))), None)
}

/// What other programs call our keys.
const SYNONYMS: [(&str, &str); 10] = [
    ("auth_url", "authorization_endpoint"),
    ("authorize_url", "authorization_endpoint"),
    ("authorization_url", "authorization_endpoint"),
    ("token_url", "token_endpoint"),
    ("revoke_url", "revocation_endpoint"),
    ("callback_port", "redirect_port"),
    ("callback_path", "redirect_path"),
    ("url", "base_url"),
    ("host", "base_url"),
    ("provider", "providers"),
];

/// `invalid type: string "...", expected a boolean` without the value.
fn mismatch(key: &str, message: &str) -> String {
    let expected = match message.rsplit_once("expected ").map_or("", |(_, expected)| expected.trim()) {
        "a sequence" => "an array of strings",
        "a boolean" => "true or false",
        "i64" => "a whole number",
        "a map" => "a table",
        other if other.starts_with("struct") => "a table",
        "a string" => "a string",
        "a whole number or an array of them" => "a whole number or an array of them",
        "a whole number or \"never\"" => "a whole number or \"never\"",
        _ => "something else",
    };
    let found = match message.strip_prefix("invalid type: ").and_then(|rest| rest.split([' ', ',']).next()) {
        Some("string") => ", not a string",
        Some("integer") => ", not a number",
        Some("floating") => ", not a decimal number",
        Some("boolean") => ", not true or false",
        Some("sequence") => ", not an array",
        Some("map") => ", not a table",
        _ => "",
    };
    format!("`{}` must be {expected}{found}", shown(key))
}

fn one_of(message: &str) -> Option<String> {
    let known = quoted(message.rsplit_once("expected ").map_or("", |(_, list)| list));
    Some(format!("it may be: {}", known.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", ")))
}

fn quoted(list: &str) -> Vec<&str> {
    list.split('`').skip(1).step_by(2).collect()
}

/// The same within one item of an array of tables.
fn path_in(item: &DeValue<'_>, place: &Range<usize>) -> Vec<String> {
    match item {
        DeValue::Table(table) => path_at(table, place),
        _ => Vec::new(),
    }
}

/// The keys that lead to a place in the text.
fn path_at(table: &DeTable<'_>, place: &Range<usize>) -> Vec<String> {
    for (key, value) in table {
        let here = |span: Range<usize>| span.start <= place.start && place.end <= span.end;
        // A key first: the span of a [table] is its header, which encloses the keys in it.
        let below = match value.get_ref() {
            DeValue::Table(inner) if !here(key.span()) => path_at(inner, place),
            DeValue::Array(items) if !here(key.span()) => {
                items.iter().map(|item| path_in(item.get_ref(), place)).find(|path| !path.is_empty()).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        if !below.is_empty() || here(key.span()) || here(value.span()) {
            return std::iter::once(key.get_ref().to_string()).chain(below).collect();
        }
    }
    Vec::new()
}

//! `PUT /v1/providers/NAME`: one table of config.toml is written, comments and order stay.

use std::path::Path;

use mcp_auth_proto::ProviderDefinition;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::{Config, ConfigError, ConfigErrorKind, check_name, file};

/// Writes `[providers.NAME]` and returns what the whole file says then. In an existing table the given fields are
/// replaced, the others stay. The new text is checked before anything is written.
pub fn define_provider(path: &Path, name: &str, definition: &ProviderDefinition) -> Result<Config, ConfigError> {
    let invalid = |what: String| ConfigError::of_file(ConfigErrorKind::Invalid, path, what);
    check_name(name).map_err(|wrong| invalid(wrong.what).with_hint(wrong.hint.unwrap_or_default()))?;
    let old = file::read(path)?.unwrap_or_default();
    Config::parse(&old, path)?;
    let mut document: DocumentMut = old.parse().map_err(|_| invalid("not TOML".into()))?;
    let table = table_of(&mut document, name).ok_or_else(|| invalid(format!("`providers.{name}` is not a table")))?;
    for (key, value) in fields(definition) {
        put(table, key, value);
    }
    if definition.default_account.as_deref() == Some("") {
        table.remove("default_account");
    }
    let new = document.to_string();
    let config = Config::parse(&new, path).map_err(|error| error.of_definition(name))?;
    // What is written must be what is read at the next start.
    if new.len() as u64 > file::LIMIT {
        return Err(invalid("would be larger than 1 MiB".into()).of_definition(name));
    }
    if new != old {
        file::replace(path, &new).map_err(|error| unwritable(path, name, definition, &error))?;
    }
    Ok(config)
}

impl ConfigError {
    /// The error of a text that was not written: its line numbers mean nothing to anybody.
    fn of_definition(self, name: &str) -> Self {
        Self { line: None, what: format!("[providers.{name}] is not written: {}", self.what), ..self }
    }
}

/// A definition as keys of the file, in the order in which a new table is written.
fn fields(definition: &ProviderDefinition) -> Vec<(&'static str, Value)> {
    let ProviderDefinition {
        preset,
        base_url,
        issuer,
        authorization_endpoint,
        token_endpoint,
        revocation_endpoint,
        userinfo_endpoint,
        client_id,
        scopes,
        callback_port,
        default_account,
    } = definition;
    let texts = [
        ("preset", preset),
        ("base_url", base_url),
        ("issuer", issuer),
        ("authorization_endpoint", authorization_endpoint),
        ("token_endpoint", token_endpoint),
        ("revocation_endpoint", revocation_endpoint),
        ("userinfo_endpoint", userinfo_endpoint),
        ("client_id", client_id),
    ];
    let default_account = default_account.iter().filter(|label| !label.is_empty());
    let default_account = default_account.map(|label| ("default_account", Value::from(label.as_str())));
    let texts = texts.into_iter().filter_map(|(key, text)| Some((key, Value::from(text.as_deref()?))));
    let scopes = scopes.iter().map(|scopes| ("scopes", Value::from(scopes.iter().collect::<Array>())));
    let port = callback_port.iter().map(|port| ("redirect_port", Value::from(i64::from(*port))));
    texts.chain(scopes).chain(port).chain(default_account).collect()
}

/// The table to write in, made where it is missing; `None` where something else has its place.
fn table_of<'a>(document: &'a mut DocumentMut, name: &str) -> Option<&'a mut dyn TableLike> {
    let providers = document.entry("providers").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let inline = providers.is_inline_table();
    let providers = providers.as_table_like_mut()?;
    let new = || if inline { Item::Value(Value::InlineTable(toml_edit::InlineTable::new())) } else { Item::Table(Table::new()) };
    providers.entry(name).or_insert_with(new).as_table_like_mut()
}

/// Sets a key; a comment behind the old value stays.
fn put(table: &mut dyn TableLike, key: &str, mut value: Value) {
    match table.get_mut(key) {
        Some(Item::Value(old)) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        _ => {
            table.insert(key, Item::Value(value));
        }
    }
}

fn unwritable(path: &Path, name: &str, definition: &ProviderDefinition, error: &std::io::Error) -> ConfigError {
    let mut snippet = DocumentMut::new();
    if let Some(table) = table_of(&mut snippet, name) {
        for (key, value) in fields(definition) {
            put(table, key, value);
        }
    }
    ConfigError::of_file(ConfigErrorKind::Unwritable, path, format!("cannot be written: {error}"))
        .with_hint(format!("add this by hand, then run `mcp-authctl reload`:\n{}", snippet.to_string().trim_end()))
}

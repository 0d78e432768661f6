//! Remote MCP servers that are known by name, as data in `remote.toml`: `login notion-mcp` is a login at its URL. What they say
//! of themselves is discovered at the login (RFC 9728).

use std::sync::LazyLock;

use mcp_auth_proto::ProviderSummary;
use serde::Deserialize;

/// A remote MCP server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteServer {
    /// Its name.
    pub name: String,
    /// Its URL: the resource (RFC 8707), byte for byte.
    pub url: String,
    /// What a person should know.
    pub note: String,
    /// Its documentation.
    pub source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    checked: String,
    server: Vec<RemoteServer>,
}

static SERVERS: LazyLock<File> = LazyLock::new(|| toml::from_str(include_str!("remote.toml")).expect("a test parses it"));

/// Every one that is known, sorted by name.
pub fn all() -> &'static [RemoteServer] {
    &SERVERS.server
}

/// The one of this name.
pub fn find(name: &str) -> Option<&'static RemoteServer> {
    all().iter().find(|server| server.name == name)
}

impl RemoteServer {
    /// As `GET /v1/providers` shows it.
    pub fn summary(&self) -> ProviderSummary {
        ProviderSummary {
            name: self.name.clone(),
            resource: Some(self.url.clone()),
            notes: vec![self.note.clone()],
            verified: Some(false),
            checked: Some(SERVERS.checked.clone()),
            sources: vec![self.source.clone()],
            ..ProviderSummary::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{check, preset};

    #[test]
    fn every_server_has_an_https_url_and_a_name_of_its_own() {
        assert!(all().is_sorted_by_key(|server| &server.name) && all().len() > 5);
        for server in all() {
            for url in [&server.url, &server.source] {
                assert!(check::endpoint(url).is_ok() && url.starts_with("https://"), "{url}");
            }
            assert!(server.name.ends_with("-mcp") && preset::find(&server.name).is_none(), "{}", server.name);
            let summary = server.summary();
            assert_eq!((summary.resource.as_deref(), summary.missing.is_empty()), (Some(server.url.as_str()), true));
        }
    }
}

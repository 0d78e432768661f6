//! Protected resource metadata (RFC 9728): where it is, and whether it may be believed.
//!
//! The resource and the issuers are kept byte for byte; nothing here sends, and the order of the attempts is the caller's to
//! follow.

use super::members::{Members, MembersError};
use super::text::is_scope;
use super::{metadata, text};
use crate::transport::{self, Response};

/// What a resource server says of itself (RFC 9728 section 2), checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedResourceMetadata {
    /// The resource indicator to send (RFC 8707), byte for byte.
    pub resource: String,
    /// The issuers of its authorization servers, byte for byte, in its order: at least one.
    pub authorization_servers: Vec<String>,
    /// `None`: not told.
    pub scopes_supported: Option<Vec<String>>,
    /// It takes no token that is not bound to a key (RFC 9449).
    pub dpop_bound_access_tokens_required: bool,
    /// The algorithms of proofs that it takes (RFC 9449); `None`: not told.
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
}

/// Why metadata may not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceMetadataError {
    /// There is no document at this address.
    #[error("its metadata was answered with status {0}")]
    Status(u16),
    /// The document is a web page.
    #[error("a web page was answered instead of its metadata")]
    Html,
    /// The document is not a JSON object.
    #[error("its metadata cannot be read: {0}")]
    Unreadable(String),
    /// A member that a login needs is missing.
    #[error("its metadata has no {0}")]
    Missing(&'static str),
    /// RFC 9728 section 3.3: another resource's metadata.
    #[error("its metadata is that of {0}")]
    OtherResource(String),
    /// No authorization server is one that anything is sent to.
    #[error("its metadata names no authorization server that may be used (the first is {0})")]
    BadServers(String),
}

impl ResourceMetadataError {
    /// Whether this only says that there is no document here, and it may be elsewhere.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Html) || matches!(self, Self::Status(status) if (400..500).contains(status) && *status != 429)
    }
}

/// The most authorization servers that are looked at.
const MOST_SERVERS: usize = 16;

/// The most scopes that are taken.
const MOST_SCOPES: usize = 500;

/// Where the metadata of a server may be, best first (RFC 9728 section 3.1, MCP authorization): the form with its path, then
/// the root.
pub fn well_known_urls(server: &str) -> Vec<String> {
    let Ok(url) = transport::check_url(server) else { return Vec::new() };
    let origin = url.origin().ascii_serialization();
    let root = format!("{origin}/.well-known/oauth-protected-resource");
    let path = url.path().trim_end_matches('/');
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut urls = vec![format!("{root}{path}{query}")];
    if urls[0] != root {
        urls.push(root);
    }
    urls.retain(|url| transport::check_url(url).is_ok());
    urls
}

/// Checks the answer of one metadata URL of `server`.
pub fn check(server: &str, response: &Response) -> Result<ProtectedResourceMetadata, ResourceMetadataError> {
    if response.status != 200 {
        return Err(ResourceMetadataError::Status(response.status));
    }
    let members = Members::from_json(&response.body).map_err(|error| match error {
        MembersError::Html => ResourceMetadataError::Html,
        error => ResourceMetadataError::Unreadable(error.to_string()),
    })?;
    let resource = members.text("resource").ok_or(ResourceMetadataError::Missing("resource"))?;
    if !covers(resource, server) {
        return Err(ResourceMetadataError::OtherResource(text::clean(resource)));
    }
    let named = members.texts("authorization_servers").filter(|named| !named.is_empty());
    let named = named.ok_or(ResourceMetadataError::Missing("authorization_servers"))?;
    let at_home = is_at_home(server);
    let usable = |issuer: &&&str| !metadata::well_known_urls(issuer).is_empty() && (at_home || !is_at_home(issuer));
    let servers: Vec<String> = named.iter().take(MOST_SERVERS).filter(usable).map(|issuer| (*issuer).to_owned()).collect();
    if servers.is_empty() {
        return Err(ResourceMetadataError::BadServers(text::clean(named[0])));
    }
    let scopes = members
        .texts("scopes_supported")
        .map(|scopes| scopes.into_iter().filter(|scope| is_scope(scope)).take(MOST_SCOPES).map(str::to_owned).collect());
    Ok(ProtectedResourceMetadata {
        resource: resource.to_owned(),
        authorization_servers: servers,
        scopes_supported: scopes,
        dpop_bound_access_tokens_required: members.is_true("dpop_bound_access_tokens_required"),
        dpop_signing_alg_values_supported: members
            .texts("dpop_signing_alg_values_supported")
            .map(|listed| listed.into_iter().map(str::to_owned).collect()),
    })
}

/// Whether a resource stands for a server: it is on the same origin, and its path is the server's or one above it. A resource
/// with a query stands for that very URL only.
pub fn covers(resource: &str, server: &str) -> bool {
    let (Ok(of), Ok(at)) = (transport::check_url(resource), transport::check_url(server)) else { return false };
    if of.origin() != at.origin() || of.fragment().is_some() {
        return false;
    }
    let path = of.path().trim_end_matches('/');
    let below = at.path().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match of.query() {
        None => below,
        query => of.path() == at.path() && query == at.query(),
    }
}

/// A server out there that names our own machine wants to reach something that it cannot reach itself.
fn is_at_home(url: &str) -> bool {
    transport::check_url(url).is_ok_and(|url| metadata::leads_home(&url))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::oauth::samples::answer;

    const SERVER: &str = "https://mcp.example/team/mcp";

    fn checked(server: &str, document: Value) -> Result<ProtectedResourceMetadata, ResourceMetadataError> {
        check(server, &answer(200, "application/json", &document.to_string()))
    }

    #[test]
    fn the_form_with_the_path_comes_before_the_root_and_nothing_else_is_asked() {
        let root = "https://mcp.example/.well-known/oauth-protected-resource";
        for (server, expected) in [
            (SERVER, vec![format!("{root}/team/mcp"), root.to_owned()]),
            ("https://mcp.example/mcp/", vec![format!("{root}/mcp"), root.to_owned()]),
            ("https://mcp.example/mcp?a=b", vec![format!("{root}/mcp?a=b"), root.to_owned()]),
            ("https://MCP.example:443", vec![root.to_owned()]),
            ("https://mcp.example/", vec![root.to_owned()]),
            (
                "http://localhost:9/mcp",
                ["/mcp", ""].map(|path| format!("http://localhost:9/.well-known/oauth-protected-resource{path}")).into(),
            ),
            ("http://mcp.example/mcp", vec![]),
            ("javascript:alert(1)", vec![]),
        ] {
            assert_eq!(well_known_urls(server), expected, "{server}");
        }
    }

    #[test]
    fn a_resource_stands_for_servers_on_its_origin_below_its_path() {
        for (resource, stands) in [
            (SERVER, true),
            ("https://mcp.example", true),
            ("https://mcp.example/", true),
            ("https://mcp.example/team", true),
            ("https://mcp.example/team/", true),
            ("https://mcp.example:443/team/mcp", true),
            ("https://mcp.example/te", false),
            ("https://mcp.example/team/mcp/v2", false),
            ("https://mcp.example/team/mcp?x=1", false),
            ("https://mcp.example/team/mcp#x", false),
            ("https://mcp.example:8443/team/mcp", false),
            ("https://evil.example/team/mcp", false),
            ("https://mcp.example.evil/team/mcp", false),
            ("http://mcp.example/team/mcp", false),
            ("https://mcp.example@evil.example/team/mcp", false),
            ("https://mcp.example/other/../team", true),
            ("", false),
        ] {
            assert_eq!(covers(resource, SERVER), stands, "{resource}");
        }
        assert!(covers("https://mcp.example/mcp?t=1", "https://mcp.example/mcp?t=1"));
    }

    #[test]
    fn resource_and_issuers_are_kept_byte_for_byte() {
        let document = json!({
            "resource": "https://MCP.example:443", "scopes_supported": ["a", "b\u{1b}[2J", "", "c d", "b"],
            "authorization_servers": ["javascript:x", "https://as.example/", "https://AS.example/t?x", "https://b.example/t"],
        });
        let metadata = checked(SERVER, document).unwrap();
        assert_eq!(metadata.resource, "https://MCP.example:443");
        assert_eq!(metadata.authorization_servers, ["https://as.example/", "https://b.example/t"]);
        assert_eq!(metadata.scopes_supported.unwrap(), ["a", "b"]);
    }

    #[test]
    fn what_must_not_be_believed_is_refused() {
        let with = |resource: Value, servers: Value| checked(SERVER, json!({ "resource": resource, "authorization_servers": servers }));
        let good = json!(["https://as.example"]);
        assert!(matches!(with(json!("https://evil.example\u{1b}[2J"), good.clone()), Err(ResourceMetadataError::OtherResource(_))));
        assert_eq!(with(json!(null), good), Err(ResourceMetadataError::Missing("resource")));
        for servers in [json!(null), json!([]), json!({}), json!([1])] {
            assert_eq!(with(json!(SERVER), servers), Err(ResourceMetadataError::Missing("authorization_servers")));
        }
        for home in ["http://localhost:1", "http://127.0.0.1", "https://[::1]/", "https://0.0.0.0", "https://[::ffff:127.0.0.1]", "-x"] {
            assert!(matches!(with(json!(SERVER), json!([home])), Err(ResourceMetadataError::BadServers(_))), "{home}");
        }
        let at_home = json!({ "resource": "http://localhost:9", "authorization_servers": ["http://localhost:8"] });
        assert_eq!(checked("http://localhost:9/mcp", at_home).unwrap().authorization_servers, ["http://localhost:8"]);
    }

    #[test]
    fn only_what_is_not_there_may_be_elsewhere() {
        for (status, absent) in [(404, true), (401, true), (405, true), (429, false), (500, false), (302, false)] {
            assert_eq!(check(SERVER, &answer(status, "", "")).unwrap_err().is_absence(), absent, "{status}");
        }
        assert!(check(SERVER, &answer(200, "text/html", "<html>")).unwrap_err().is_absence());
        assert!(!check(SERVER, &answer(200, "application/json", "[]")).unwrap_err().is_absence());
    }
}

//! Authorization server metadata (RFC 8414) and OpenID Connect discovery: where it is, and whether it may be believed.
//!
//! An issuer is compared and kept byte for byte; nothing here sends, and the order of the attempts is the caller's to follow.

use super::members::{Members, MembersError};
use super::text;
use crate::provider::Quirks;
use crate::transport::{self, Response};

/// What an authorization server says of itself (RFC 8414 section 2), checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationServerMetadata {
    /// The issuer, byte for byte what was asked for.
    pub issuer: String,
    /// RFC 6749 section 3.1; `None` at a server that leads nobody to a page.
    pub authorization_endpoint: Option<String>,
    /// RFC 6749 section 3.2.
    pub token_endpoint: String,
    /// RFC 7009.
    pub revocation_endpoint: Option<String>,
    /// RFC 8628 section 4.
    pub device_authorization_endpoint: Option<String>,
    /// OpenID Connect Core section 5.3.
    pub userinfo_endpoint: Option<String>,
    /// `None`: not told.
    pub scopes_supported: Option<Vec<String>>,
    /// `None`: not told, which means `client_secret_basic`.
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// RFC 7636; empty when not told.
    pub code_challenge_methods_supported: Vec<String>,
    /// Every redirect carries `iss` (RFC 9207 section 3).
    pub authorization_response_iss_parameter_supported: bool,
    /// RFC 7591 section 3.
    pub registration_endpoint: Option<String>,
    /// A client may be named by the URL of its metadata document.
    pub client_id_metadata_document_supported: bool,
    /// The algorithms of proofs that it takes (RFC 9449 section 5.1); `None`: not told.
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
}

/// Why metadata may not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// There is no document at this address.
    #[error("the metadata was answered with status {0}")]
    Status(u16),
    /// The document is a web page: a portal, or a server that answers every path.
    #[error("a web page was answered instead of metadata")]
    Html,
    /// The document is not a JSON object.
    #[error("the metadata cannot be read: {0}")]
    Unreadable(String),
    /// RFC 8414 section 3.3: another issuer's metadata.
    #[error("the metadata is that of issuer {found}, not of {expected}")]
    IssuerMismatch {
        /// The issuer that was asked for.
        expected: String,
        /// The issuer in the document, sanitised.
        found: String,
    },
    /// A member that a login needs is missing.
    #[error("the metadata has no {0}")]
    Missing(&'static str),
    /// An endpoint that nothing is sent to.
    #[error("the {name} of the metadata is refused: {reason}")]
    Endpoint {
        /// The member.
        name: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// MCP authorization, section on PKCE: a server that does not tell of S256 is not trusted to check it.
    #[error("the metadata does not list S256 as a code challenge method")]
    NoS256,
}

impl MetadataError {
    /// Whether this only says that there is no document here, and it may be elsewhere.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Html) || matches!(self, Self::Status(status) if (400..500).contains(status) && *status != 429)
    }
}

/// Where the metadata of an issuer may be, best first (RFC 8414 section 3.1 and 5, OpenID Connect Discovery section 4).
/// Empty for what cannot be an issuer: not https (or http on loopback), or with a query or fragment.
pub fn well_known_urls(issuer: &str) -> Vec<String> {
    if transport::check_url(issuer).is_err() || issuer.contains(['?', '#']) {
        return Vec::new();
    }
    let authority = issuer.find("://").map_or(0, |at| at + 3);
    let (origin, path) = match issuer[authority..].find('/') {
        Some(slash) => issuer.split_at(authority + slash),
        None => (issuer, ""),
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut urls =
        vec![format!("{origin}/.well-known/oauth-authorization-server{path}"), format!("{origin}/.well-known/openid-configuration{path}")];
    if !path.is_empty() {
        urls.push(format!("{origin}{path}/.well-known/openid-configuration"));
    }
    // An issuer of nearly the longest length leaves no room for them.
    urls.retain(|url| transport::check_url(url).is_ok());
    urls
}

/// Checks the answer of one well-known URL of `issuer` (RFC 8414 section 3.3).
pub fn check(issuer: &str, response: &Response) -> Result<AuthorizationServerMetadata, MetadataError> {
    if response.status != 200 {
        return Err(MetadataError::Status(response.status));
    }
    let members = Members::from_json(&response.body).map_err(|error| match error {
        MembersError::Html => MetadataError::Html,
        error => MetadataError::Unreadable(error.to_string()),
    })?;
    let found = members.text("issuer").ok_or(MetadataError::Missing("issuer"))?;
    if found != issuer {
        return Err(MetadataError::IssuerMismatch { expected: issuer.to_owned(), found: text::clean(found) });
    }
    let optional = |name| endpoint(&members, name, issuer);
    let required = |name| optional(name)?.ok_or(MetadataError::Missing(name));
    let list = |name| Some(members.texts(name)?.into_iter().map(str::to_owned).collect::<Vec<_>>());
    Ok(AuthorizationServerMetadata {
        issuer: issuer.to_owned(),
        authorization_endpoint: optional("authorization_endpoint")?,
        token_endpoint: required("token_endpoint")?,
        revocation_endpoint: optional("revocation_endpoint")?,
        device_authorization_endpoint: optional("device_authorization_endpoint")?,
        userinfo_endpoint: optional("userinfo_endpoint")?,
        scopes_supported: list("scopes_supported"),
        token_endpoint_auth_methods_supported: list("token_endpoint_auth_methods_supported"),
        code_challenge_methods_supported: list("code_challenge_methods_supported").unwrap_or_default(),
        authorization_response_iss_parameter_supported: members.is_true("authorization_response_iss_parameter_supported"),
        registration_endpoint: optional("registration_endpoint")?,
        client_id_metadata_document_supported: members.is_true("client_id_metadata_document_supported"),
        dpop_signing_alg_values_supported: list("dpop_signing_alg_values_supported"),
    })
}

/// The endpoints of a server that has neither resource metadata nor this (MCP authorization 2025-03-26, "Fallbacks for Servers
/// without Metadata Discovery"): fixed paths at its own origin. `None` where the origin is none that anything is sent to.
pub fn fallback(origin: &str) -> Option<AuthorizationServerMetadata> {
    transport::check_url(origin).ok()?;
    let at = |path: &str| format!("{origin}/{path}");
    Some(AuthorizationServerMetadata {
        issuer: origin.to_owned(),
        authorization_endpoint: Some(at("authorize")),
        token_endpoint: at("token"),
        revocation_endpoint: None,
        device_authorization_endpoint: None,
        userinfo_endpoint: None,
        scopes_supported: None,
        token_endpoint_auth_methods_supported: Some(vec!["none".to_owned()]),
        // That version demands it of every server.
        code_challenge_methods_supported: vec!["S256".to_owned()],
        authorization_response_iss_parameter_supported: false,
        registration_endpoint: Some(at("register")),
        client_id_metadata_document_supported: false,
        dpop_signing_alg_values_supported: None,
    })
}

impl AuthorizationServerMetadata {
    /// Refuses a server that is not known to check PKCE with S256, by its metadata or by the preset (RFC 7636 section 4.2).
    /// Where the preset says that there is no PKCE, there is none to check.
    pub fn require_s256(&self, quirks: &Quirks) -> Result<(), MetadataError> {
        let listed = self.code_challenge_methods_supported.iter().any(|method| method == "S256");
        if listed || quirks.pkce.is_some() { Ok(()) } else { Err(MetadataError::NoS256) }
    }
}

fn endpoint(members: &Members, name: &'static str, issuer: &str) -> Result<Option<String>, MetadataError> {
    let Some(endpoint) = members.text(name) else { return Ok(None) };
    let refused = |reason| MetadataError::Endpoint { name, reason };
    let url = transport::check_url(endpoint).map_err(|_| refused("it is not an https URL"))?;
    // A server out there that points at our own machine wants to reach something that it cannot reach itself.
    let at_home = transport::check_url(issuer).is_ok_and(|issuer| transport::is_loopback(&issuer));
    if leads_home(&url) && !at_home {
        return Err(refused("it leads to this machine, and the issuer does not"));
    }
    Ok(Some(endpoint.to_owned()))
}

/// Whether a URL leads to this machine, in any spelling: a connection to `0.0.0.0` or `[::ffff:127.0.0.1]` does, too.
pub(super) fn leads_home(url: &url::Url) -> bool {
    let at_home = |address: std::net::IpAddr| address.is_loopback() || address.is_unspecified();
    match url.host() {
        Some(url::Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(url::Host::Ipv4(address)) => at_home(address.into()),
        Some(url::Host::Ipv6(address)) => at_home(address.to_canonical()) || at_home(address.into()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::oauth::samples::{answer, quirks};

    const ISSUER: &str = "https://as.example/tenant1";

    fn document(changes: Value) -> Response {
        let mut document = json!({
            "issuer": ISSUER, "authorization_endpoint": "https://as.example/authorize", "token_endpoint": "https://tokens.example/token",
            "code_challenge_methods_supported": ["plain", "S256"],
        });
        document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        answer(200, "application/json", &document.to_string())
    }

    #[test]
    fn the_well_known_urls_come_in_the_order_of_the_spec() {
        let with_path = [
            "https://a.example/.well-known/oauth-authorization-server/tenant1",
            "https://a.example/.well-known/openid-configuration/tenant1",
            "https://a.example/tenant1/.well-known/openid-configuration",
        ];
        let bare =
            ["https://a.example:8443/.well-known/oauth-authorization-server", "https://a.example:8443/.well-known/openid-configuration"];
        for (issuer, expected) in [
            ("https://a.example/tenant1", &with_path[..]),
            ("https://a.example/tenant1/", &with_path),
            ("https://a.example:8443", &bare),
            ("https://a.example:8443/", &bare),
            ("http://a.example", &[]),
            ("https://a.example?x", &[]),
            ("https://a.example#x", &[]),
            ("https://user@a.example", &[]),
            ("javascript:alert(1)", &[]),
            ("", &[]),
        ] {
            assert_eq!(well_known_urls(issuer), expected, "{issuer}");
        }
        assert_eq!(well_known_urls("http://127.0.0.1:9").len(), 2);
        assert!(well_known_urls(&format!("https://as.example/{}", "x".repeat(8150))).is_empty(), "no room for the well-known part");
    }

    #[test]
    fn an_issuer_is_compared_byte_for_byte() {
        assert!(check(ISSUER, &document(json!({}))).is_ok());
        for found in
            ["https://as.example/tenant1/", "https://AS.example/tenant1", "https://as.example:443/tenant1", "https://evil.example", ""]
        {
            assert!(check(ISSUER, &document(json!({ "issuer": found }))).is_err(), "{found}");
        }
        let error = check(ISSUER, &document(json!({ "issuer": "https://evil\u{1b}[2J" }))).unwrap_err();
        assert_eq!(error, MetadataError::IssuerMismatch { expected: ISSUER.into(), found: "https://evil[2J".into() });
    }

    #[test]
    fn endpoints_must_be_https_and_out_there() {
        for bad in [
            "http://as.example/token",
            "ftp://a/b",
            "javascript:x",
            "https://127.0.0.1/token",
            "https://0.0.0.0/token",
            "https://[::]/token",
            "https://[::ffff:127.0.0.1]/token",
            "https://2130706433/token",
            "https://localhost./token",
            "https://a.localhost/token",
            "http://localhost:1/t",
            "https://u:p@a/t",
            "-x",
            "https://a/\n",
        ] {
            for name in ["token_endpoint", "authorization_endpoint", "userinfo_endpoint", "revocation_endpoint", "registration_endpoint"] {
                let result = check(ISSUER, &document(json!({ name: bad })));
                assert!(matches!(result, Err(MetadataError::Endpoint { .. })), "{name} {bad}: {result:?}");
            }
        }
        let home = "http://127.0.0.1:8080";
        let at_home = document(json!({ "issuer": home, "token_endpoint": "http://127.0.0.1:8080/token" }));
        assert_eq!(check(home, &at_home).unwrap().token_endpoint, "http://127.0.0.1:8080/token");
    }

    #[test]
    fn s256_must_be_listed_unless_the_preset_knows_better() {
        for methods in [json!(null), json!([]), json!(["plain"]), json!("s256")] {
            let metadata = check(ISSUER, &document(json!({ "code_challenge_methods_supported": methods }))).unwrap();
            assert_eq!(metadata.require_s256(&quirks()), Err(MetadataError::NoS256));
            assert_eq!(metadata.require_s256(&Quirks { pkce: Some(crate::provider::Pkce::S256), ..quirks() }), Ok(()));
        }
        assert_eq!(check(ISSUER, &document(json!({}))).unwrap().require_s256(&quirks()), Ok(()));
    }

    #[test]
    fn what_is_not_metadata_is_named_for_what_it_is() {
        assert_eq!(check(ISSUER, &answer(404, "application/json", "{}")), Err(MetadataError::Status(404)));
        assert_eq!(check(ISSUER, &answer(200, "text/html", "<!doctype html>")), Err(MetadataError::Html));
        assert_eq!(check(ISSUER, &document(json!({ "token_endpoint": null }))), Err(MetadataError::Missing("token_endpoint")));
        for body in ["", "[]", "{", "{\"issuer\":1,\"issuer\":2}"] {
            assert!(matches!(check(ISSUER, &answer(200, "application/json", body)), Err(MetadataError::Unreadable(_))), "{body}");
        }
    }

    #[test]
    fn lists_and_flags_are_kept() {
        let metadata = check(
            ISSUER,
            &document(json!({
                "scopes_supported": ["a", "offline_access"], "token_endpoint_auth_methods_supported": ["none"],
                "authorization_response_iss_parameter_supported": true, "registration_endpoint": "https://as.example/register",
                "client_id_metadata_document_supported": true,
            })),
        )
        .unwrap();
        assert_eq!(metadata.scopes_supported.unwrap(), ["a", "offline_access"]);
        assert_eq!(metadata.token_endpoint_auth_methods_supported.unwrap(), ["none"]);
        assert!(metadata.authorization_response_iss_parameter_supported && metadata.client_id_metadata_document_supported);
        assert_eq!(metadata.registration_endpoint.as_deref(), Some("https://as.example/register"));
    }

    #[test]
    fn without_metadata_the_endpoints_are_fixed_ones_at_the_origin() {
        let metadata = fallback("https://mcp.example").unwrap();
        assert_eq!(metadata.authorization_endpoint.as_deref(), Some("https://mcp.example/authorize"));
        assert_eq!((metadata.token_endpoint.as_str(), metadata.require_s256(&quirks())), ("https://mcp.example/token", Ok(())));
        assert_eq!(metadata.registration_endpoint.as_deref(), Some("https://mcp.example/register"));
        assert_eq!(fallback("http://mcp.example"), None);
    }
}

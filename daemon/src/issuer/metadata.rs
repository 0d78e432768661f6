//! PURE: what the issuer says of itself (RFC 8414, OpenID Connect Discovery 1.0, RFC 9728 section 4).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::clients::{IDENTITY_SCOPES, Settings};

/// The document of both well-known addresses.
pub(super) fn document(settings: &Settings) -> Value {
    let issuer = settings.issuer();
    let at = |path: &str| format!("{issuer}{path}");
    let of_resources: BTreeSet<&str> = settings.resources.iter().flat_map(|resource| &resource.scopes).map(String::as_str).collect();
    let scopes: Vec<&str> = IDENTITY_SCOPES.into_iter().chain(of_resources).collect();
    let resources: Vec<&str> = settings.resources.iter().map(|resource| resource.uri.as_str()).collect();
    let client_authentication = ["none", "client_secret_basic", "client_secret_post"];
    json!({
        "issuer": issuer,
        "authorization_endpoint": at("/oauth/authorize"),
        "token_endpoint": at("/oauth/token"),
        "jwks_uri": at("/oauth/keys"),
        "revocation_endpoint": at("/oauth/revoke"),
        "userinfo_endpoint": at("/oauth/userinfo"),
        "scopes_supported": scopes,
        "protected_resources": resources,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": client_authentication,
        "revocation_endpoint_auth_methods_supported": client_authentication,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "sid", "at_hash", "preferred_username"],
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
    })
}

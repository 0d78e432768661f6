//! Which server a login talks to: the endpoints that the provider fixes, and what its metadata adds.

use mcp_auth_proto::{ErrorBody, GrantName};

use super::failure;
use crate::oauth::metadata::{self, AuthorizationServerMetadata, MetadataError};
use crate::provider::{Endpoints, Flow, Provider};
use crate::transport::{Method, Request, Transport};

/// The authorization server of one login.
#[derive(Debug)]
pub(super) struct Server {
    /// `None` where only other flows are configured.
    pub(super) authorization: Option<String>,
    pub(super) token: String,
    pub(super) revocation: Option<String>,
    pub(super) userinfo: Option<String>,
    pub(super) device: Option<String>,
    /// What it says of itself, if it had to be asked.
    pub(super) metadata: Option<AuthorizationServerMetadata>,
}

/// How long one metadata document may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

/// Finds the server. Its metadata is fetched only where an endpoint is missing, and never overrides a fixed one.
pub(super) async fn find((grant, provider): (&GrantName, &Provider), transport: &dyn Transport) -> Result<Server, ErrorBody> {
    let Endpoints { authorization, token, revocation, userinfo, device, refresh: _ } = provider.endpoints.clone();
    let whole =
        authorization.is_some() || provider.quirks.flow.is_some_and(|flow| flow != Flow::AuthorizationCode) && provider.issuer.is_none();
    if let Some(token) = token.clone().filter(|_| whole) {
        return Ok(Server { authorization, token, revocation, userinfo, device, metadata: None });
    }
    let issuer = provider.issuer.as_deref().ok_or_else(|| failure::no_endpoints(grant))?;
    let metadata = fetch(grant, issuer, transport).await?;
    metadata.require_s256(&provider.quirks).map_err(|error| failure::metadata(grant, &error))?;
    let authorization = authorization.or_else(|| metadata.authorization_endpoint.clone());
    if authorization.is_none() && provider.quirks.flow.is_none_or(|flow| flow == Flow::AuthorizationCode) {
        return Err(failure::metadata(grant, &MetadataError::Missing("authorization_endpoint")));
    }
    Ok(Server {
        authorization,
        token: token.unwrap_or_else(|| metadata.token_endpoint.clone()),
        revocation: revocation.or_else(|| metadata.revocation_endpoint.clone()),
        userinfo: userinfo.or_else(|| metadata.userinfo_endpoint.clone()),
        device: device.or_else(|| metadata.device_authorization_endpoint.clone()),
        metadata: Some(metadata),
    })
}

/// Finds the server for a client that asks for itself: nobody is led to a page, so it needs neither one nor PKCE.
pub(super) async fn find_for_client((grant, provider): (&GrantName, &Provider), transport: &dyn Transport) -> Result<Server, ErrorBody> {
    let Endpoints { authorization, token, revocation, userinfo, device, refresh: _ } = provider.endpoints.clone();
    if let Some(token) = token {
        return Ok(Server { authorization, token, revocation, userinfo, device, metadata: None });
    }
    let issuer = provider.issuer.as_deref().ok_or_else(|| failure::no_endpoints(grant))?;
    let metadata = fetch(grant, issuer, transport).await?;
    Ok(Server {
        authorization: authorization.or_else(|| metadata.authorization_endpoint.clone()),
        token: metadata.token_endpoint.clone(),
        revocation: revocation.or_else(|| metadata.revocation_endpoint.clone()),
        userinfo: userinfo.or_else(|| metadata.userinfo_endpoint.clone()),
        device,
        metadata: Some(metadata),
    })
}

/// Tries the well-known addresses in their order. One that is not there, or is a web page, leads on to the next; a document
/// that must not be believed ends the search.
async fn fetch(grant: &GrantName, issuer: &str, transport: &dyn Transport) -> Result<AuthorizationServerMetadata, ErrorBody> {
    let mut worst = None;
    for url in metadata::well_known_urls(issuer) {
        let headers = vec![("accept", "application/json".into())];
        let request = Request { method: Method::Get, url, headers, body: None, timeout: TIMEOUT };
        let response = transport.send(request).await.map_err(|error| failure::unreachable(grant, &error))?;
        match metadata::check(issuer, &response) {
            Ok(metadata) => return Ok(metadata),
            Err(error @ (MetadataError::Status(_) | MetadataError::Html | MetadataError::Unreadable(_))) => {
                // "Not found" says less than whatever else was answered.
                if !matches!((&worst, &error), (Some(_), MetadataError::Status(_))) {
                    worst = Some(error);
                }
            }
            Err(error) => return Err(failure::metadata(grant, &error)),
        }
    }
    Err(worst.map_or_else(|| failure::bad_issuer(grant), |error| failure::metadata(grant, &error)))
}

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

impl Server {
    /// What is fixed, and for the rest what the metadata says.
    pub(super) fn of(fixed: &Endpoints, metadata: AuthorizationServerMetadata) -> Self {
        let or = |fixed: &Option<String>, found: &Option<String>| fixed.as_ref().or(found.as_ref()).cloned();
        Self {
            authorization: or(&fixed.authorization, &metadata.authorization_endpoint),
            token: fixed.token.as_ref().unwrap_or(&metadata.token_endpoint).clone(),
            revocation: or(&fixed.revocation, &metadata.revocation_endpoint),
            userinfo: or(&fixed.userinfo, &metadata.userinfo_endpoint),
            device: or(&fixed.device, &metadata.device_authorization_endpoint),
            metadata: Some(metadata),
        }
    }

    /// What is fixed, and nothing else.
    fn fixed(endpoints: &Endpoints, token: &str) -> Self {
        let Endpoints { authorization, revocation, userinfo, device, .. } = endpoints.clone();
        Self { authorization, token: token.to_owned(), revocation, userinfo, device, metadata: None }
    }
}

/// How long one metadata document may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

/// Finds the server. Its metadata is fetched only where an endpoint is missing, and never overrides a fixed one.
pub(super) async fn find((grant, provider): (&GrantName, &Provider), transport: &dyn Transport) -> Result<Server, ErrorBody> {
    let (fixed, flow) = (&provider.endpoints, provider.quirks.flow);
    let whole = fixed.authorization.is_some() || flow.is_some_and(|flow| flow != Flow::AuthorizationCode) && provider.issuer.is_none();
    if let Some(token) = fixed.token.as_deref().filter(|_| whole) {
        return Ok(Server::fixed(fixed, token));
    }
    let metadata = fetch((grant, provider), transport).await?;
    metadata.require_s256(&provider.quirks).map_err(|error| failure::metadata(grant, &error))?;
    let server = Server::of(fixed, metadata);
    if server.authorization.is_none() && flow.is_none_or(|flow| flow == Flow::AuthorizationCode) {
        return Err(failure::metadata(grant, &MetadataError::Missing("authorization_endpoint")));
    }
    Ok(server)
}

/// Finds the server for a client that asks for itself: nobody is led to a page, so it needs neither one nor PKCE.
pub(super) async fn find_for_client((grant, provider): (&GrantName, &Provider), transport: &dyn Transport) -> Result<Server, ErrorBody> {
    match &provider.endpoints.token {
        Some(token) => Ok(Server::fixed(&provider.endpoints, token)),
        None => Ok(Server::of(&provider.endpoints, fetch((grant, provider), transport).await?)),
    }
}

/// Tries the well-known addresses in their order. One that is not there, or is a web page, leads on to the next; a document
/// that must not be believed ends the search.
pub(super) async fn fetch(
    (grant, provider): (&GrantName, &Provider),
    transport: &dyn Transport,
) -> Result<AuthorizationServerMetadata, ErrorBody> {
    let issuer = provider.issuer.as_deref().ok_or_else(|| failure::no_endpoints(grant))?;
    let mut worst = None;
    for url in metadata::well_known_urls(issuer) {
        let headers = vec![("accept", "application/json".into())];
        let request = Request { headers, timeout: TIMEOUT, ..Request::new(Method::Get, url) };
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

//! A login without a person: the client asks for itself, with its own credentials (RFC 6749 section 4.4).

use mcp_auth_proto::{ErrorBody, LoginFlow};

use super::{EXCHANGE_PAUSES, Outcome, Plan, Wanted, define, discovery, failure};
use crate::clock::{Clock, Now};
use crate::grant::record::Definition;
use crate::oauth::token::{self, TokenError, TokenResponse};
use crate::provider::{Flow, Provider};
use crate::transport::Transport;

/// Whether a login is the client's own: asked for, or what the provider is for.
pub(crate) fn is_wanted(asked: Option<LoginFlow>, provider: &Provider) -> bool {
    asked.map_or(provider.quirks.flow == Some(Flow::ClientCredentials), |flow| flow == LoginFlow::ClientCredentials)
}

/// Runs it to its end. The account is the client.
pub(super) async fn run(plan: &Plan, client_id: &str, transport: &dyn Transport, clock: &dyn Clock) -> Result<Outcome, ErrorBody> {
    let name = &plan.grant;
    if plan.client_secret.is_none() {
        return Err(failure::no_secret(&plan.grant, &plan.provider));
    }
    let server = discovery::find_for_client((name, &plan.provider), transport).await?;
    let definition = Definition { client_credentials: true, ..define(plan, &server, client_id, None) };
    let (response, sent_at) =
        ask(&Wanted { plan, definition: &definition, transport, clock }).await.map_err(|error| failure::token(name, &error))?;
    let (resource, requested_scopes) = (plan.resource.clone(), plan.scopes.clone());
    Ok(Outcome { definition, response, sent_at, account: Some(client_id.to_owned()), subject: None, resource, requested_scopes })
}

async fn ask(wanted: &Wanted<'_>) -> Result<(TokenResponse, Now), TokenError> {
    let mut pauses = EXCHANGE_PAUSES.iter();
    loop {
        let sent_at = wanted.clock.now();
        match (ask_once(wanted).await, pauses.next()) {
            // Nothing is used up by a request whose answer was lost.
            (Err(TokenError::NotSent(_) | TokenError::Lost(_)), Some(pause)) => tokio::time::sleep(*pause).await,
            (result, _) => return Ok((result?, sent_at)),
        }
    }
}

async fn ask_once(wanted: &Wanted<'_>) -> Result<TokenResponse, TokenError> {
    let Plan { provider, client_secret, scopes, resource, .. } = wanted.plan;
    let request = token::client_credentials(wanted.definition, &provider.quirks, client_secret.as_ref(), scopes, resource.as_deref())
        .expect("a login's definition has a token endpoint and a client");
    wanted.send(request).await
}

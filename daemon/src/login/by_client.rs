//! A login without a person: the client asks for itself, with its own credentials (RFC 6749 section 4.4).

use mcp_auth_proto::{ErrorBody, LoginFlow};

use super::discovery::Server;
use super::{Outcome, Plan, Wanted, define, discovery, failure};
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
pub(super) async fn run(mut plan: Plan, client_id: &str, transport: &dyn Transport, clock: &dyn Clock) -> Result<Outcome, ErrorBody> {
    if plan.client_secret.is_none() {
        return Err(failure::no_secret(&plan.grant, &plan.provider));
    }
    let server = discovery::find_for_client((&plan.grant, &plan.provider), transport).await?;
    plan.bind_by_config(&server)?;
    ask_at(&server, &plan, client_id, (transport, clock)).await.map_err(|error| failure::token(&plan.grant, &error))
}

/// The question itself, at a server that was found.
pub(super) async fn ask_at(
    server: &Server,
    plan: &Plan,
    client_id: &str,
    (transport, clock): (&dyn Transport, &dyn Clock),
) -> Result<Outcome, TokenError> {
    let definition = Definition { client_credentials: true, ..define(plan, server, client_id, None) };
    let (response, sent_at) = ask(&Wanted { plan, definition: &definition, transport, clock }).await?;
    let (resource, requested_scopes) = (plan.resource.clone(), plan.scopes.clone());
    let (account, proof_key) = (Some(client_id.to_owned()), plan.proofs.key.clone());
    Ok(Outcome { definition, response, proof_key, sent_at, account, subject: None, resource, requested_scopes })
}

async fn ask(wanted: &Wanted<'_>) -> Result<(TokenResponse, Now), TokenError> {
    let Plan { provider, client_secret, scopes, resource, .. } = wanted.plan;
    let quirks = &provider.quirks;
    let make = || {
        token::client_credentials(wanted.definition, quirks, client_secret.as_ref(), scopes, resource.as_deref())
            .expect("a login's definition has a token endpoint and a client")
    };
    // Nothing is used up by a request whose answer was lost.
    wanted.ask(make, |error| matches!(error, TokenError::NotSent(_) | TokenError::Lost(_))).await
}

//! A login at a remote server where nobody logs in: a JWT of somebody else is enough (RFC 7523 section 2.1). One request; an
//! answer that is a refusal ends it, and no other way is tried.

use mcp_auth_proto::{ClientKind, ErrorBody, GrantName};

use super::client::{Desk, keep};
use super::failure;
use crate::clock::Now;
use crate::grant::record::Definition;
use crate::login::bearer::{Assertion, Bearer, IdentityProvider, Purpose};
use crate::login::discovery::{self, Server};
use crate::login::{Outcome, Plan, Progress, Wanted, define};
use crate::oauth::token::{self, TokenError, TokenResponse};
use crate::oauth::{assertion, jwt_bearer};
use crate::provider::Quirks;
use crate::registration::Registration;

/// Runs it to its end, at the authorization server of the desk.
pub(super) async fn run(
    desk: &Desk<'_>,
    server: &Server,
    mut bearer: Bearer,
    progress: &(impl Fn(Progress) + Send),
) -> Result<Outcome, ErrorBody> {
    let name = &desk.plan.grant;
    let found = desk.by_person()?;
    let (client, is_new) = found.ok_or_else(|| failure::no_known_client(name, &desk.metadata.issuer))?;
    let (client_id, scopes) = (client.client_id.clone(), desk.plan.scopes.clone());
    progress(Progress::ClientChosen { may_be_forgotten_by: None, client: ClientKind::Given, client_id, scopes });
    if let Some(one) = &mut bearer.identity_provider {
        find(name, one).await?;
    }
    let (plan, definition) = prepare(desk, server, &client)?;
    let source = bearer.source();
    progress(Progress::Exchanging);
    let purpose = Purpose { definition: &definition, resource: plan.resource.as_deref(), scopes: &plan.scopes, clock: desk.clock };
    let vouched = bearer.assertion(purpose).await.map_err(|error| failure::bearer(name, &error, source.token()))?;
    let wanted = Wanted { plan: &plan, definition: &definition, transport: desk.transport, clock: desk.clock };
    let asked = ask(&wanted, &vouched).await;
    let (response, sent_at) = asked.map_err(|error| failure::assertion(name, &error, source.token()))?;
    if is_new {
        keep(client, progress).await;
    }
    let Assertion { identity, .. } = vouched;
    let (resource, requested_scopes) = (plan.resource.clone(), plan.scopes.clone());
    let definition = Definition { assertion: Some(Box::new(source)), ..definition };
    let (account, subject) = (identity.account.or_else(|| identity.subject.clone()), identity.subject);
    let proof_key = plan.proofs.key.clone();
    Ok(Outcome { definition, response, proof_key, sent_at, account, subject, resource, requested_scopes })
}

/// The login as this client, and what its grant will be made with.
fn prepare(desk: &Desk<'_>, server: &Server, client: &Registration) -> Result<(Plan, Definition), ErrorBody> {
    let mut plan = desk.plan.clone_for_client();
    plan.client_secret.clone_from(&client.client_secret);
    let quirks = &mut plan.provider.quirks;
    let listed = desk.metadata.token_endpoint_auth_methods_supported.as_deref();
    let by_metadata = || client.client_secret.as_ref().map(|_| token::client_auth(&Quirks::default(), listed, true));
    let auth = quirks.client_auth.or(client.auth).or_else(by_metadata);
    quirks.client_auth = auth;
    assertion::fits(plan.client_secret.as_ref(), quirks).map_err(|error| failure::bad_key(&plan.grant, &error))?;
    let definition = define(&plan, server, &client.client_id, None);
    // Renewals prove the client in the same way; and a token for the server is none for the userinfo endpoint.
    Ok((plan, Definition { client_auth: auth, userinfo_endpoint: None, ..definition }))
}

/// Finds the token endpoint of an identity provider.
async fn find(name: &GrantName, one: &mut IdentityProvider) -> Result<(), ErrorBody> {
    if one.definition.is_some() {
        return Ok(());
    }
    let provider = &one.provider;
    let client_id = provider.client_id.as_deref().ok_or_else(|| failure::no_client_at(name, &provider.name))?;
    let of: GrantName = provider.name.parse().unwrap_or_else(|_| name.clone());
    let found = discovery::find_for_client((&of, provider), &*one.transport).await;
    let found = found.map_err(|error| failure::at_identity_provider(name, error, one.configured))?;
    let listed = found.metadata.as_ref().and_then(|metadata| metadata.token_endpoint_auth_methods_supported.as_deref());
    let has_secret = one.secret.is_some() || provider.client_secret_command.is_some();
    let auth = token::client_auth(&provider.quirks, listed, has_secret);
    one.definition = Some(Definition {
        provider: provider.name.clone(),
        issuer: provider.issuer.clone(),
        token_endpoint: Some(found.token),
        client_id: Some(client_id.to_owned()),
        client_auth: Some(auth).filter(|_| has_secret),
        ..Definition::default()
    });
    Ok(())
}

async fn ask(wanted: &Wanted<'_>, assertion: &Assertion) -> Result<(TokenResponse, Now), TokenError> {
    let Plan { provider, client_secret, scopes, resource, .. } = wanted.plan;
    let ask = jwt_bearer::Ask { assertion: &assertion.jwt, scopes, resource: resource.as_deref() };
    let make = || {
        jwt_bearer::request(wanted.definition, &provider.quirks, client_secret.as_ref(), ask)
            .expect("a login's definition has a token endpoint and a client")
    };
    // Where no byte has left, nothing was refused. A server may take an assertion only once.
    wanted.ask(make, |error| matches!(error, TokenError::NotSent(_))).await
}

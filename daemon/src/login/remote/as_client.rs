//! A login at a remote server without a person: a client that was registered by hand asks for itself (RFC 6749 section 4.4; MCP
//! extension `io.modelcontextprotocol/oauth-client-credentials`), by its secret or by a key that it signs with. Nobody is led to
//! a page, and nothing is registered.

use mcp_auth_proto::{ClientKind, ErrorBody};

use super::client::{Desk, keep};
use super::failure;
use crate::login::discovery::Server;
use crate::login::{Outcome, Progress, by_client};
use crate::oauth::{assertion, token};
use crate::provider::ClientAuth;

/// Runs it to its end, at an authorization server that was found.
pub(super) async fn run(desk: &Desk<'_>, server: &Server, progress: &(impl Fn(Progress) + Send)) -> Result<Outcome, ErrorBody> {
    let (name, issuer) = (&desk.plan.grant, desk.metadata.issuer.as_str());
    let (client, is_new) = desk.by_person()?.ok_or_else(|| failure::no_own_client(name, issuer))?;
    let (client_id, scopes) = (client.client_id.clone(), desk.plan.scopes.clone());
    progress(Progress::ClientChosen { may_be_forgotten_by: None, client: ClientKind::Given, client_id, scopes });

    let mut plan = desk.plan.clone_for_client();
    plan.client_secret = Some(client.client_secret.clone().ok_or_else(|| failure::no_credentials(name, &client.client_id))?);
    let quirks = &mut plan.provider.quirks;
    let auth = quirks.client_auth.or(client.auth).unwrap_or_else(|| by_secret(desk));
    quirks.client_auth = Some(auth);
    assertion::fits(plan.client_secret.as_ref(), quirks).map_err(|error| failure::bad_key(name, &error))?;

    progress(Progress::Exchanging);
    let asked = by_client::ask_at(server, &plan, &client.client_id, (desk.transport, desk.clock)).await;
    let mut outcome = asked.map_err(|error| failure::as_client(name, issuer, &client, &error))?;
    if is_new {
        keep(client, progress).await;
    }
    // Renewals prove the client in the same way, whatever the metadata says by then.
    outcome.definition.client_auth = Some(auth);
    // A token for the server is none for that endpoint: what it says of one later would mean nothing.
    outcome.definition.userinfo_endpoint = None;
    Ok(outcome)
}

/// How a secret is shown: as the metadata lists, and never not at all.
fn by_secret(desk: &Desk<'_>) -> ClientAuth {
    let listed = desk.metadata.token_endpoint_auth_methods_supported.as_deref();
    match token::client_auth(&desk.plan.provider.quirks, listed, true) {
        ClientAuth::None => ClientAuth::ClientSecretBasic,
        auth => auth,
    }
}

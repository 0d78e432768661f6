//! A login at a remote MCP server, read top to bottom: what the server says of itself, its authorization server, our client
//! there, the scopes; from then on it is a login as any other.

mod client;
mod discovery;
mod failure;

use mcp_auth_proto::ErrorBody;
use tokio::sync::mpsc;

use self::client::{Chosen, Desk};
use self::discovery::Found;
use super::discovery::Server;
use super::{Outcome, Pasted, Plan, Progress, by_redirect, finish};
use crate::clock::Clock;
use crate::oauth::challenge::Challenge;
use crate::oauth::scopes::{self, Choice};
use crate::provider::{Provider, Quirks};
use crate::registration::Registration;
use crate::secret::ClientSecret;
use crate::transport::Transport;

pub(crate) use discovery::authorization_servers;

/// What a login at a remote server starts from.
#[derive(Debug)]
pub struct Remote {
    /// The server's URL, byte for byte as a person gave it.
    pub server: String,
    /// The challenge that led to this login, as far as it is believed.
    pub challenge: Option<Challenge>,
    /// Whether that challenge came to this daemon itself, so that the server need not be asked again.
    pub challenged_by_server: bool,
    /// The scopes that a person or the config asks for; `None`: as the server says.
    pub asked: Option<Vec<String>>,
    /// What the grant has asked for before, and where.
    pub before: Option<Before>,
    /// A refresh token is not wanted.
    pub without_refresh: bool,
    /// A client that a person gave now, with its secret.
    pub given: Option<(String, Option<ClientSecret>)>,
    /// The URL of a client metadata document.
    pub document: Option<String>,
    /// Every client that is known, at every issuer, oldest first.
    pub registrations: Vec<Registration>,
}

/// What a grant has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// The issuer that it was asked of.
    pub issuer: Option<String>,
    /// The scopes.
    pub scopes: Vec<String>,
}

/// Runs it to its end. A client that the server does not know any more, or a metadata document that it does not take, is
/// replaced once.
pub(super) async fn run(
    plan: Plan,
    remote: Remote,
    (transport, clock): (&dyn Transport, &dyn Clock),
    progress: impl Fn(Progress) + Send,
    mut pasted: mpsc::Receiver<Pasted>,
) -> Result<Outcome, ErrorBody> {
    let name = plan.grant.clone();
    if plan.by_hand.is_some() || plan.flow.is_some_and(|flow| flow != mcp_auth_proto::LoginFlow::Code) {
        return Err(failure::other_flow(&name));
    }
    let found = discovery::find(&plan, &remote, transport).await?;
    let authorization_server = found.metadata.issuer.clone();
    progress(Progress::ServerFound { server: remote.server.clone(), authorization_server });
    let plan = discovered(plan, &remote, &found);
    let server = Server::of(&plan.provider.endpoints, found.metadata.clone());
    let desk = Desk { plan: &plan, remote: &remote, metadata: &found.metadata, transport, clock };
    let mut refused = None;
    loop {
        let Chosen { client, to_keep, kind, listener } = desk.choose(refused.as_deref(), &progress).await?;
        progress(Progress::ClientChosen { client: kind, client_id: client.id.clone(), scopes: plan.scopes.clone() });
        let mut plan = plan.clone_for_client();
        plan.client_secret = client.secret;
        plan.provider.quirks.client_auth = plan.provider.quirks.client_auth.or(client.auth);
        let outcome = by_redirect(&plan, (&server, &client.id, listener), (transport, clock), &progress, &mut pasted).await;
        match outcome {
            Ok((mut definition, response, sent_at)) => {
                if let Some(given) = to_keep {
                    client::keep(given, &progress).await;
                }
                definition.client_auth = definition.client_auth.or(client.auth);
                let mut outcome = finish(&plan, definition, (response, sent_at), (transport, clock)).await;
                // A token for the server is none for that endpoint: what it says of one later would mean nothing.
                outcome.definition.userinfo_endpoint = None;
                return Ok(outcome);
            }
            Err(stop) if stop.client_refused && client.replaceable && refused.is_none() => refused = Some(client.id),
            Err(stop) => return Err(failure::in_our_words(stop.error, &name)),
        }
    }
}

/// The plan with everything that was discovered in it.
fn discovered(plan: Plan, remote: &Remote, found: &Found) -> Plan {
    let metadata = &found.metadata;
    let before = remote.before.as_ref().filter(|before| before.issuer.as_deref() == Some(metadata.issuer.as_str()));
    let scopes = scopes::select(Choice {
        asked: remote.asked.as_deref(),
        challenged: found.challenged.as_deref(),
        supported: found.supported.as_deref(),
        before: before.map_or(&[], |before| &before.scopes),
        offered: metadata.scopes_supported.as_deref(),
        without_refresh: remote.without_refresh,
    });
    let mut quirks = plan.provider.quirks.clone();
    let consents = |quirks: &Quirks| quirks.authorization_params.iter().any(|(name, _)| name == "prompt");
    // OpenID Connect Core section 11: without it such a server gives no refresh token.
    if scopes.iter().any(|scope| scope == scopes::OFFLINE_ACCESS) && !consents(&quirks) {
        quirks.authorization_params.push(("prompt".to_owned(), "consent".to_owned()));
    }
    let provider =
        Provider { issuer: Some(metadata.issuer.clone()), scopes: scopes.clone(), refresh_scopes: Vec::new(), quirks, ..plan.provider };
    Plan { provider, scopes, resource: found.resource.clone(), ..plan }
}

impl Plan {
    /// The same login once more, for another client.
    fn clone_for_client(&self) -> Self {
        Self {
            grant: self.grant.clone(),
            provider: self.provider.clone(),
            client_secret: None,
            scopes: self.scopes.clone(),
            login_hint: self.login_hint.clone(),
            by_hand: None,
            resource: self.resource.clone(),
            callback_port: self.callback_port,
            flow: self.flow,
            headless: self.headless,
            patience: self.patience,
            remote: None,
        }
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;

//! A login at a remote MCP server, read top to bottom: what the server says of itself, its authorization server, our client
//! there, the scopes; from then on it is a login as any other, or the client's own.

mod as_client;
mod by_assertion;
mod client;
mod discovery;
mod failure;

use mcp_auth_proto::{ClientKind, ErrorBody, ErrorCode, LoginFlow};
use tokio::sync::mpsc;

use self::client::{Chosen, Desk};
use self::discovery::Found;
use super::bearer::Bearer;
use super::discovery::Server;
use super::{Fault, Outcome, Pasted, Plan, Progress, by_client, by_redirect, finish};
use crate::clock::Clock;
use crate::grant::record::GrantRecord;
use crate::oauth::challenge::Challenge;
use crate::oauth::scopes::{self, Choice};
use crate::provider::{ClientAuth, Provider, Quirks};
use crate::registration::{self, Registration};
use crate::secret::ClientSecret;
use crate::transport::Transport;

pub(crate) use discovery::{authorization_servers, look};

/// What a login at a remote server starts from.
#[derive(Debug)]
pub struct Remote {
    /// The server's URL, byte for byte as a person gave it.
    pub server: String,
    /// The issuer that must be its authorization server; `None`: whichever the server names.
    pub authorization_server: Option<String>,
    /// The challenge that led to this login, as far as it is believed.
    pub challenge: Option<Challenge>,
    /// Whether that challenge came to this daemon itself, so that the server need not be asked again.
    pub challenged_by_server: bool,
    /// The scopes that a person or the config asks for; `None`: as the server says.
    pub asked: Option<Vec<String>>,
    /// What the grant has asked for before, and where.
    pub before: Option<Before>,
    /// A person wants no refresh token.
    pub without_refresh: bool,
    /// A client that a person gave now.
    pub given: Option<Given>,
    /// The URL of a client metadata document.
    pub document: Option<String>,
    /// What takes the place of a login; `None`: a person logs in.
    pub bearer: Option<Bearer>,
    /// Every client that is known, at every issuer, oldest first.
    pub registrations: Vec<Registration>,
    /// The command that starts this login once more: before the first one there is no grant to name.
    pub command: String,
}

/// A client that a person registered by hand.
#[derive(Clone, Debug)]
pub struct Given {
    /// Its id.
    pub id: String,
    /// Its secret, or the private key that it signs with.
    pub secret: Option<ClientSecret>,
    /// How it proves itself, where that was said. `None`: as the server's metadata lists.
    pub auth: Option<ClientAuth>,
}

/// What a grant has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// The issuer that it was asked of.
    pub issuer: Option<String>,
    /// The client that asked.
    pub client_id: Option<String>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// Its tokens are bound to a key.
    pub bound: bool,
}

impl Before {
    /// What this grant has.
    pub fn of(record: &GrantRecord) -> Self {
        Self {
            issuer: record.definition.issuer.clone(),
            client_id: record.definition.client_id.clone(),
            scopes: record.requested_scopes.clone(),
            bound: record.proof_key.is_some(),
        }
    }
}

/// Runs it to its end.
pub(super) async fn run(
    plan: Plan,
    remote: Remote,
    edges: (&dyn Transport, &dyn Clock),
    progress: impl Fn(Progress) + Send,
    pasted: mpsc::Receiver<Pasted>,
) -> Result<Outcome, ErrorBody> {
    let (name, command) = (plan.grant.clone(), remote.command.clone());
    log_in(plan, remote, edges, progress, pasted).await.map_err(|error| failure::with_command(error, &name, &command))
}

/// A client that the server does not know any more, or that it made for other scopes, or a metadata document that it does not take,
/// is replaced once.
async fn log_in(
    plan: Plan,
    mut remote: Remote,
    (transport, clock): (&dyn Transport, &dyn Clock),
    progress: impl Fn(Progress) + Send,
    mut pasted: mpsc::Receiver<Pasted>,
) -> Result<Outcome, ErrorBody> {
    let name = plan.grant.clone();
    if plan.by_hand.is_some() || plan.flow == Some(LoginFlow::Device) {
        return Err(failure::other_flow(&name));
    }
    let found = discovery::find(&plan, &remote, transport).await?;
    let authorization_server = found.metadata.issuer.clone();
    progress(Progress::ServerFound { server: remote.server.clone(), authorization_server });
    let mut plan = discovered(plan, &remote, &found);
    if is_to_be_bound(&plan, &remote, &found) {
        if let Some(other) = &found.other_proofs {
            return Err(failure::no_proof(&name, "the server", other));
        }
        plan.bind(Some(&found.metadata))?;
    }
    let server = Server::of(&plan.provider.endpoints, found.metadata.clone());
    let alone = remote.is_alone(&plan);
    let bearer = remote.bearer.take();
    let desk = Desk { plan: &plan, remote: &remote, alone, metadata: &found.metadata, transport, clock };
    if let Some(bearer) = bearer {
        return by_assertion::run(&desk, &server, bearer, &progress).await;
    }
    if plan.is_by_client() {
        return as_client::run(&desk, &server, &progress).await;
    }
    let mut refused = None;
    let mut narrow = None;
    loop {
        let chosen = desk.choose(refused.as_deref(), &progress).await;
        // Where no other client is made, what was said of the scopes is all that there is to say.
        let Chosen { client, to_keep, kind, listener } = match (chosen, narrow.take()) {
            (Err(error), Some(said)) if error.error == ErrorCode::Conflict => return Err(failure::in_our_words(said, &name)),
            (chosen, _) => chosen?,
        };
        let issuer = &found.metadata.issuer;
        let made = registration::find(&remote.registrations, issuer, &client.id).filter(|_| kind == ClientKind::Known);
        let may_be_forgotten_by = made.filter(|made| made.is_old(clock.now().wall)).map(|_| issuer.clone());
        let may_be_replaced = may_be_forgotten_by.is_some() && found.metadata.registration_endpoint.is_some();
        let (client_id, scopes) = (client.id.clone(), plan.scopes.clone());
        progress(Progress::ClientChosen { may_be_forgotten_by, client: kind, client_id, scopes });
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
            Err(stop) if stop.fault == Some(Fault::Refused) && client.replaceable && refused.is_none() => refused = Some(client.id),
            Err(stop) if stop.fault == Some(Fault::Scopes) && kind == ClientKind::Known && refused.is_none() => {
                (refused, narrow) = (Some(client.id), Some(stop.error));
            }
            Err(stop) if stop.fault == Some(Fault::Unanswered) && may_be_replaced => {
                return Err(failure::unanswered(stop.error, &name));
            }
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
        // Whoever asks for itself asks again whenever it likes.
        without_refresh: remote.without_refresh || remote.is_alone(&plan),
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

/// Whether the tokens are bound to a key: as the config says, else as the server demands. One that only offers it gets bearer
/// tokens, which programs can be given. A grant whose tokens are bound stays so where it logs in at the same place.
fn is_to_be_bound(plan: &Plan, remote: &Remote, found: &Found) -> bool {
    let same = |before: &&Before| before.issuer.as_deref() == Some(found.metadata.issuer.as_str());
    let before = remote.before.as_ref().filter(same).is_some_and(|before| before.bound);
    plan.provider.quirks.dpop.unwrap_or(found.demands_dpop || before)
}

impl Remote {
    /// Whether this login leads nobody to a page: a client asks for itself, or brings a token of somebody else.
    fn is_alone(&self, plan: &Plan) -> bool {
        self.bearer.is_some() || plan.is_by_client()
    }
}

impl Plan {
    fn is_by_client(&self) -> bool {
        by_client::is_wanted(self.flow, &self.provider)
    }

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
            proofs: self.proofs.clone(),
            remote: None,
        }
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;

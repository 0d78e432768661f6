//! Grants at remote MCP servers: which one a URL or a name means, what a login there starts from, the clients that we are at
//! their authorization servers, and whether a server still names the one that a grant is from.

mod given;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, LoginRequest};
use tokio::sync::oneshot;

use super::Reply;
use super::accounts::labelled;
use super::core::{Core, answer};
use super::step_up::{self, StepUps};
use super::tokens::ambiguous;
use super::{logins, naming};
use crate::clock::Boot;
use crate::grant::record::Definition;
use crate::grant::{AttemptError, Grant, Input, Ticket};
use crate::login::remote::{Before, Remote, authorization_servers};
use crate::login::{Plan, by_client};
use crate::oauth::challenge::Challenge;
use crate::oauth::scopes::{OFFLINE_ACCESS, union};
use crate::oauth::text::{clean, quoted};
use crate::oauth::token::{TokenError, TokenResponse, is_about_client};
use crate::provider::remote as known;
use crate::provider::{Endpoints, Provider, check};
use crate::registration::{self, Origin, Registration};
use crate::secret::ClientSecret;
use crate::transport;
use crate::vault::{RecordId, VaultError};

/// The URL of our own client metadata document; `None` until a release has a place for docs/client-metadata.json.
const CLIENT_METADATA_URL: Option<&str> = None;
/// A challenge that the relay met leads a login for so long; and so many servers' are kept.
const HEARD: Duration = Duration::from_secs(300);
const MOST_HEARD: usize = 64;
/// How long a second look at a server's metadata may take, and how soon the next one may follow.
const SECOND_LOOK: Duration = Duration::from_secs(10);
const SECOND_LOOK_GAP: Duration = Duration::from_secs(10);

/// When a client that the disk did not take is saved again.
const SAVE_AGAIN: Duration = Duration::from_secs(60);

/// What is known of remote servers, besides their grants.
#[derive(Default)]
pub(super) struct RemoteSide {
    /// Our clients, oldest first.
    pub(super) registrations: Vec<Registration>,
    /// Logins that programs asked for.
    pub(super) step_ups: StepUps,
    /// Servers that no longer name this issuer.
    moved: HashSet<(String, String)>,
    looked: HashMap<GrantName, Boot>,
    /// The challenges that servers have answered relayed requests with, lately.
    heard: HashMap<String, (Vec<String>, Boot)>,
}

impl RemoteSide {
    /// A server has answered 401 with these challenges.
    pub(super) fn hear(&mut self, server: String, challenges: Vec<String>, now: Boot) {
        self.heard.retain(|_, (_, at)| now < *at + HEARD);
        if self.heard.len() < MOST_HEARD {
            self.heard.insert(server, (challenges, now));
        }
    }

    fn heard(&self, server: &str, now: Boot) -> Option<Vec<String>> {
        self.heard.get(server).filter(|(_, at)| now < *at + HEARD).map(|(challenges, _)| challenges.clone())
    }

    /// Whether the server may have forgotten a client that it has made: while that is so, the next login there registers anew.
    pub(super) fn set_doubted(&mut self, (issuer, client_id): (Option<&str>, Option<&str>), doubted: bool) {
        let is_it = |one: &&mut Registration| Some(one.issuer.as_str()) == issuer && Some(one.client_id.as_str()) == client_id;
        let made = |one: &&mut Registration| one.origin != Origin::Given;
        self.registrations.iter_mut().filter(is_it).filter(made).for_each(|one| one.doubted = doubted);
    }

    /// What came from the vault.
    pub(super) fn restore(&mut self, registration: Registration) {
        let at = self.registrations.partition_point(|one| one.made_at <= registration.made_at);
        self.registrations.insert(at, registration);
    }
}

impl Core {
    // ---- which grant ----

    /// The grant that a name or the URL of a remote server means.
    pub(super) fn grant_of(&self, target: &str) -> Result<GrantName, ErrorBody> {
        if is_url(target) {
            return self.of_resource(target);
        }
        let name: GrantName =
            target.parse().map_err(|error: wire::NameError| ErrorBody::new(ErrorCode::InvalidRequest, error.to_string()))?;
        let name = self.meant(&name);
        self.held(&name).map(|_| name)
    }

    /// The one grant for a resource, or for the server of this URL.
    pub(super) fn of_resource(&self, url: &str) -> Result<GrantName, ErrorBody> {
        let found: Vec<_> = self.grants.values().filter(|grant| is_for(grant, url)).map(|grant| grant.record().name.clone()).collect();
        match found.as_slice() {
            [name] => Ok(name.clone()),
            [] => Err(ErrorBody::new(ErrorCode::UnknownGrant, format!("there is no grant for {}", clean(url))).hint(login_hint(url))),
            several => Err(ambiguous("several grants are for that resource", several)),
        }
    }

    /// The grant and the server of a login at a remote one; `None`: it is a login at a provider.
    pub(super) fn remote_target(&self, request: &LoginRequest) -> Result<Option<(GrantName, String)>, ErrorBody> {
        let named = &request.provider;
        if is_url(named) {
            check_server(named)?;
            return self.named_for(named, request).map(|grant| Some((grant, named.clone())));
        }
        let Ok(name) = named.parse::<GrantName>() else { return Ok(None) };
        let held = self.grants.get(&name).and_then(|grant| grant.newest().definition.server.clone());
        let beside = || self.grants.values().map(Grant::newest).find(|other| other.name.base() == name.base());
        let by_config = || self.config.provider(name.base()).map(|provider| provider.server.clone());
        let server = held.or_else(|| match by_config() {
            Some(server) => server,
            None => known::find(name.base()).map(|server| server.url.clone()).or_else(|| beside()?.definition.server.clone()),
        });
        let Some(server) = server else { return Ok(None) };
        let grant = match &request.account {
            Some(label) => labelled(name.base(), label)?,
            None => name,
        };
        Ok(Some((grant, server)))
    }

    fn named_for(&self, server: &str, request: &LoginRequest) -> Result<GrantName, ErrorBody> {
        let label = |name: GrantName| request.account.as_ref().map_or(Ok(name.clone()), |label| labelled(name.base(), label));
        if let Some(name) = &request.name {
            let name: GrantName = name.parse().map_err(|error: wire::NameError| {
                ErrorBody::new(ErrorCode::InvalidRequest, format!("{:?} is not a name: {error}", clean(name)))
                    .hint("mcp-authctl login URL --name NAME")
            })?;
            return if self.is_taken(&name, server) { Err(taken(&name)) } else { label(name) };
        }
        let held: Vec<_> =
            self.grants.values().map(Grant::newest).filter(|record| record.definition.server.as_deref() == Some(server)).collect();
        if let Some(wanted) = &request.account
            && let Some(record) = held.first()
        {
            return labelled(record.name.base(), wanted);
        }
        match held.iter().map(|record| record.name.clone()).collect::<Vec<_>>().as_slice() {
            [] => {}
            [one] => return Ok(one.clone()),
            several => return Err(ambiguous("several grants are for that server", several)),
        }
        let configured =
            self.config.providers().into_iter().find(|provider| provider.server.as_deref() == Some(server)).map(|found| found.name);
        let by_name = configured.or_else(|| known::all().iter().find(|found| found.url == server).map(|found| found.name.clone()));
        let candidates = by_name.and_then(|name| name.parse().ok()).map_or_else(|| naming::names(server), |name| vec![name]);
        let free = candidates.iter().find(|name| !self.is_taken(name, server));
        let refused = || {
            ErrorBody::new(ErrorCode::Conflict, "the names that this URL would give its grant are taken")
                .hint("mcp-authctl login URL --name NAME")
        };
        label(free.cloned().ok_or_else(refused)?)
    }

    /// Whether a name stands for something else than this server.
    fn is_taken(&self, name: &GrantName, server: &str) -> bool {
        let other = |of: Option<&str>| of != Some(server);
        let held = self.grants.values().map(Grant::newest);
        let mut servers = held.filter(|record| record.name.base() == name.base()).map(|record| record.definition.server.as_deref());
        let mut running = self.logins.running.values().filter(|running| running.grant.base() == name.base());
        servers.any(other)
            || running.any(|running| other(running.server.as_deref()))
            || self.config.provider(name.base()).is_some_and(|provider| other(provider.server.as_deref()))
            || known::find(name.base()).is_some_and(|known| known.url != server)
    }

    // ---- what a login starts from ----

    /// What a login at a remote server needs to know. `received`: the challenge came to this daemon itself, in an answer of
    /// the server, and is believed whole.
    pub(super) fn remote_plan(
        &self,
        (grant, server): (GrantName, String),
        request: &LoginRequest,
        received: Option<&[String]>,
    ) -> Result<Plan, ErrorBody> {
        let provider = self.remote_provider(grant.base(), &server).ok_or_else(|| taken(&grant))?;
        let held = self.grants.get(&grant).map(Grant::newest).filter(|held| held.definition.server.as_deref() == Some(server.as_str()));
        let challenge = match received {
            Some(values) => Challenge::read(values.iter().map(String::as_str)),
            None => request.challenge.as_deref().and_then(|value| Challenge::read([value])).map(|found| found.from_client(&server)),
        };
        let before = held.map(Before::of);
        let bearer = self.wanted_bearer(request, &provider, held)?;
        let flow = logins::flow(request, held);
        let command = login_command(&grant, request, held.is_some());
        let challenged = challenge.as_ref().and_then(|challenge| challenge.scopes.as_deref());
        let wider = union(before.as_ref().map_or(&[], |before| &before.scopes), challenged.unwrap_or_default());
        let asked = if bearer.is_some() || by_client::is_wanted(flow, &provider) {
            // A server that rejects a token may name scopes with that: those are no reason to ask for more.
            let named = challenged.filter(|_| received.is_none());
            step_up::scopes_unseen(request, (&provider, held), named, &command)?
        } else {
            let by_config = (!provider.scopes.is_empty()).then(|| match challenge {
                Some(_) => union(&provider.scopes, &wider),
                None => provider.scopes.clone(),
            });
            request.scopes.clone().or(by_config)
        };
        let scopes = asked.clone().unwrap_or(if challenge.is_some() { wider } else { Vec::new() });
        // A client is shown the document that it was shown before.
        let shown = held.and_then(|held| held.definition.client_id.clone()).filter(|id| is_url(id));
        let remote = Remote {
            challenged_by_server: received.is_some(),
            challenge,
            asked,
            before,
            without_refresh: request.without_refresh_scopes,
            bearer,
            authorization_server: given::authorization_server(request, &provider)?,
            given: given::client(request)?,
            document: given::document(request)?.or(shown).or(CLIENT_METADATA_URL.map(str::to_owned)),
            registrations: self.remote.registrations.clone(),
            command,
            server,
        };
        Ok(Plan {
            client_secret: self.secret_of(&provider),
            scopes,
            login_hint: request.login_hint.clone().or_else(|| held.and_then(|held| held.account.clone()).filter(|_| !request.replace)),
            by_hand: request.exchange.as_ref().map(super::logins::by_hand).transpose()?,
            resource: None,
            callback_port: request.callback_port,
            flow,
            headless: request.headless,
            patience: super::logins::PATIENCE,
            remote: Some(remote),
            proofs: self.no_proofs(),
            grant,
            provider,
        })
    }

    // ---- providers ----

    /// What the config says of a remote server; `None`: the name stands for something else.
    pub(super) fn remote_provider(&self, name: &str, server: &str) -> Option<Provider> {
        match self.config.provider(name) {
            Some(provider) => (provider.server.as_deref() == Some(server)).then(|| provider.clone()),
            None => Some(Provider { server: Some(server.to_owned()), ..Provider::unknown(name) }),
        }
    }

    /// The provider that a definition was made with, if the config, or the server, still says the same.
    pub(super) fn provider_of(&self, definition: &Definition) -> Option<Cow<'_, Provider>> {
        let Some(server) = &definition.server else {
            let provider = self.config.provider(&definition.provider).filter(|provider| provider.accepts(definition));
            return provider.map(Cow::Borrowed);
        };
        let moved = definition.issuer.as_ref().is_some_and(|issuer| self.remote.moved.contains(&(server.clone(), issuer.clone())));
        let there = |provider: &Provider| !moved && provider.may_be_at(definition.issuer.as_deref());
        let provider = self.remote_provider(&definition.provider, server).filter(there)?;
        if provider.client_id.is_some() && provider.client_id != definition.client_id || !provider.identity.accepts(definition) {
            return None;
        }
        let endpoints = Endpoints {
            authorization: definition.authorization_endpoint.clone(),
            token: definition.token_endpoint.clone(),
            revocation: definition.revocation_endpoint.clone(),
            userinfo: definition.userinfo_endpoint.clone(),
            ..Endpoints::default()
        };
        let (issuer, client_id) = (definition.issuer.clone(), definition.client_id.clone());
        Some(Cow::Owned(Provider { issuer, client_id, endpoints, refresh_scopes: vec![OFFLINE_ACCESS.to_owned()], ..provider }))
    }

    // ---- clients ----

    /// The secret of the client that a grant at a remote server was made with.
    pub(super) fn registered_secret(&self, provider: &Provider) -> Option<ClientSecret> {
        let (issuer, client_id) = (provider.issuer.as_deref()?, provider.client_id.as_deref()?);
        registration::find(&self.remote.registrations, issuer, client_id)?.client_secret.clone()
    }

    /// A login has made a client, or was given one: it is kept before it is used.
    pub(super) fn keep_registration(&mut self, registration: Registration, kept: oneshot::Sender<()>) {
        let id = registration.id();
        self.remote.registrations.retain(|one| one.id() != id);
        self.remote.registrations.push(registration);
        self.save_registration(id, Some(kept));
    }

    /// Until the disk takes it: after a restart nothing else knows the secret that its grants are renewed with.
    fn save_registration(&mut self, id: RecordId, kept: Option<oneshot::Sender<()>>) {
        let Some(record) = self.remote.registrations.iter().find(|one| one.id() == id).map(Registration::to_record) else { return };
        let done = self.back(move |core: &mut Self, result: Result<(), VaultError>| {
            if let Err(error) = result {
                tracing::warn!(%error, "a client registration could not be saved; it is tried again");
                core.task(tokio::time::sleep(SAVE_AGAIN), move |core, _| core.save_registration(id, None));
            }
            // A login that was cancelled meanwhile waits for nothing.
            let _ = kept.map(|kept| kept.send(()));
        });
        self.edges.vault.save(record, done);
    }

    /// What an attempt that is in flight has come to says something of the client that it was made with.
    pub(super) fn heard_of_client(&mut self, (name, ticket): (&GrantName, Ticket), result: &Result<TokenResponse, AttemptError>) {
        let doubted = match result {
            Ok(_) => false,
            Err(AttemptError::Provider(TokenError::Refused { code, .. })) if is_about_client(code) => true,
            Err(_) => return,
        };
        if let Some(grant) = self.grants.get(name).filter(|grant| grant.is_running(ticket)) {
            let definition = &grant.record().definition;
            self.remote.set_doubted((definition.issuer.as_deref(), definition.client_id.as_deref()), doubted);
        }
    }

    /// A person has stored another secret for a configured server's client: the grants that it holds are renewed with that one.
    pub(super) fn renew_secret(&mut self, provider: &Provider, secret: &ClientSecret) {
        let same = |one: &Definition| one.provider == provider.name && one.client_id == provider.client_id;
        let theirs = |one: &&Definition| one.server.is_some() && same(one) && provider.may_be_at(one.issuer.as_deref());
        let definitions = self.grants.values().map(|grant| &grant.newest().definition).filter(theirs);
        let clients: HashSet<_> = definitions.filter_map(|one| Some((one.issuer.clone()?, one.client_id.clone()?))).collect();
        for (issuer, client_id) in clients {
            let Some(known) = registration::find(&self.remote.registrations, &issuer, &client_id) else { continue };
            let made_at = self.now().wall.max(known.made_at + Duration::from_millis(1));
            let renewed = Registration { client_secret: Some(secret.clone()), made_at, ..known.clone() };
            // Nobody waits for it: a disk that refuses is told of.
            self.keep_registration(renewed, oneshot::channel().0);
        }
    }

    /// Forgets the clients that only a grant that has gone was made with: a person's own ones, and those that a newer one of
    /// the same issuer has replaced.
    pub(super) fn forget_clients(&mut self, definition: &Definition) {
        let (Some(issuer), Some(client_id), Some(_)) = (&definition.issuer, &definition.client_id, &definition.server) else { return };
        let theirs = |one: &Definition| one.issuer.as_ref() == Some(issuer) && one.client_id.as_ref() == Some(client_id);
        if self.grants.values().any(|grant| theirs(&grant.newest().definition)) {
            return;
        }
        let now = self.now().wall;
        let newest = registration::newest_dynamic(&self.remote.registrations, issuer, now).map(Registration::id);
        let unused = |one: &Registration| {
            one.issuer == *issuer && one.client_id == *client_id && (one.origin == Origin::Given || Some(one.id()) != newest)
        };
        let (gone, left) = std::mem::take(&mut self.remote.registrations).into_iter().partition(unused);
        self.remote.registrations = left;
        let gone: Vec<Registration> = gone;
        for registration in gone {
            let done = self.back(|_, result: Result<(), VaultError>| {
                if let Err(error) = result {
                    tracing::warn!(%error, "a client that no grant uses could not be removed from the vault");
                }
            });
            self.edges.vault.delete(registration.id(), done);
        }
    }

    // ---- a second look ----

    /// What the server has challenged the relay with, where a bridge asks for a login because of it.
    pub(super) fn heard_by_relay(&self, request: &LoginRequest) -> Option<Vec<String>> {
        let (_, server) = self.remote_target(request).ok()?.filter(|_| request.unprompted && request.scopes.is_none())?;
        self.remote.heard(&server, self.now().boot)
    }

    /// A server has rejected a token of this grant: whether it still names the authorization server that the token is from.
    /// Answers whether it does not; whatever else goes wrong is no answer to that.
    pub(super) fn look_again(&mut self, name: &GrantName, challenge: Option<Challenge>, reply: Reply<bool>) {
        let definition = self.grants.get(name).map(|grant| grant.newest().definition.clone());
        let Some((server, issuer)) = definition.as_ref().and_then(|of| Some((of.server.clone()?, of.issuer.clone()?))) else {
            return answer(reply, Ok(false));
        };
        let now = self.now().boot;
        if self.remote.looked.get(name).is_some_and(|last| now < *last + SECOND_LOOK_GAP) {
            return answer(reply, Ok(self.remote.moved.contains(&(server, issuer))));
        }
        self.remote.looked.insert(name.clone(), now);
        let provider = self.remote_provider(name.base(), &server).unwrap_or_else(|| Provider::unknown(name.base()));
        let (way, of, at) = (self.way(Provider { server: Some(server.clone()), ..provider }), name.clone(), server.clone());
        let errand = async move {
            let looked = authorization_servers((&of, &at), challenge.as_ref(), &*way.transport);
            tokio::time::timeout(SECOND_LOOK, looked).await.ok()?.ok()?
        };
        self.task(errand, move |core, servers| {
            if let Some(servers) = servers.flatten() {
                core.heard_of_issuers((server.clone(), issuer.clone()), &servers);
            }
            answer(reply, Ok(core.remote.moved.contains(&(server, issuer))));
        });
    }

    /// What a server has said of its authorization servers counts for every grant that was made at this one.
    pub(super) fn heard_of_issuers(&mut self, (server, issuer): (String, String), named: &[String]) {
        let key = (server, issuer);
        let has_moved = !named.contains(&key.1);
        let changed = if has_moved { self.remote.moved.insert(key.clone()) } else { self.remote.moved.remove(&key) };
        if !changed {
            return;
        }
        let server = clean(&key.0);
        match has_moved {
            true => tracing::warn!(server, "the server names another authorization server than before"),
            false => tracing::info!(server, "the server names its authorization server of before again"),
        }
        let theirs = |grant: &&Grant| {
            let definition = &grant.newest().definition;
            definition.server.as_ref() == Some(&key.0) && definition.issuer.as_ref() == Some(&key.1)
        };
        let names: Vec<_> = self.grants.values().filter(theirs).map(|grant| grant.record().name.clone()).collect();
        for name in names {
            let terms = self.grants.get(&name).map(|grant| grant.newest().definition.clone()).and_then(|of| self.terms_of(&of));
            self.give(&name, Input::Defined(terms));
        }
    }
}

/// Whether a text is meant as the URL of a server.
pub(super) fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// Whether a grant is for a resource, or for the server of this URL.
pub(super) fn is_for(grant: &Grant, url: &str) -> bool {
    let record = grant.record();
    record.resource.as_deref() == Some(url) || record.definition.server.as_deref() == Some(url)
}

/// The command that logs in at a URL, if it is one that a command can hold.
fn login_hint(url: &str) -> String {
    if is_plain(url) && transport::check_url(url).is_ok() { format!("mcp-authctl login {url}") } else { "mcp-authctl status".to_owned() }
}

/// The command that starts this login once more. A grant that is not there yet is known by its URL alone.
fn login_command(grant: &GrantName, request: &LoginRequest, is_held: bool) -> String {
    let bound = request.authorization_server.as_ref().map(|issuer| format!(" --authorization-server {}", quoted(issuer)));
    let bound = bound.unwrap_or_default();
    if is_held || !is_url(&request.provider) {
        return format!("mcp-authctl login {grant}{bound}");
    }
    let named = request.name.as_ref().map(|_| format!(" --name {}", grant.base())).unwrap_or_default();
    let account = grant.label().map(|label| format!(" --account {label}")).unwrap_or_default();
    let url = if is_plain(&request.provider) { request.provider.clone() } else { quoted(&request.provider) };
    format!("mcp-authctl login {url}{named}{account}{bound}")
}

/// Whether a URL can stand in a command as it is.
fn is_plain(url: &str) -> bool {
    url.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b'%'))
}

fn check_server(url: &str) -> Result<(), ErrorBody> {
    check::endpoint(url).map_err(|fault| {
        ErrorBody::new(ErrorCode::InvalidRequest, format!("the URL of the server {}", fault.what))
            .hint("mcp-authctl login https://HOST/PATH")
    })
}

fn taken(name: &GrantName) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("`{name}` stands for another server")).hint("mcp-authctl login URL --name NAME")
}

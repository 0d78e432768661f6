//! One login, read top to bottom: metadata, listener, authorization URL, redirect, code exchange, identity.

pub mod bearer;
pub(crate) mod by_client;
mod device;
mod discovery;
mod failure;
pub mod pasted;
pub mod redirect;
pub mod remote;

use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto::{ClientKind, ErrorBody, ErrorCode, GrantName, LoginFlow, Secret};
use tokio::sync::{mpsc, oneshot};

use self::device::Device;
use self::discovery::Server;
use self::redirect::{Listener, Page};
use self::remote::Remote;
use crate::clock::{Clock, Now};
use crate::grant::record::Definition;
use crate::oauth::authorize::{self, Ask, Code, CodeVerifier, Expected, RedirectError, check_redirect};
use crate::oauth::identity::{self, Audience, Identity};
use crate::oauth::metadata::AuthorizationServerMetadata;
use crate::oauth::token::{self, TokenError, TokenResponse};
use crate::oauth::{assertion, dpop};
use crate::proofs::Proofs;
use crate::provider::{Flow, Pkce, Provider};
use crate::registration::Registration;
use crate::secret::{ClientSecret, ProofKey};
use crate::transport::{Request, Transport};

/// What a login needs to know.
#[derive(Debug)]
pub struct Plan {
    /// The grant that it will make or replace.
    pub grant: GrantName,
    /// The provider, as configured now.
    pub provider: Provider,
    /// The client secret, when there is one.
    pub client_secret: Option<ClientSecret>,
    /// The scopes to ask for, `refresh_scopes` included.
    pub scopes: Vec<String>,
    /// Who will log in, as far as that is known: told to the server.
    pub login_hint: Option<String>,
    /// An exchange that the person began by hand; then there is no redirect to wait for.
    pub by_hand: Option<ByHand>,
    /// The resource indicator to send.
    pub resource: Option<String>,
    /// The port of the loopback redirect, when the person gave one.
    pub callback_port: Option<u16>,
    /// The flow that was asked for; `None`: whatever suits provider and person.
    pub flow: Option<LoginFlow>,
    /// The person's browser is on another machine: the device flow is better where there is one.
    pub headless: bool,
    /// How long the person has to come back with a redirect. A device code has its own end.
    pub patience: Duration,
    /// What its token requests are proved with: a key once it is known that there shall be one.
    pub proofs: Proofs,
    /// The remote MCP server that it is for. Then the provider is only what the config says of it, and the rest is discovered.
    pub remote: Option<Remote>,
}

/// Whether a login would find the provider's server: its fixed endpoints, or metadata that may be believed. Sends nothing
/// secret; at once where nothing has to be discovered.
///
/// # Errors
/// What a login would say.
pub async fn look(provider: &Provider, transport: &dyn Transport) -> Result<(), ErrorBody> {
    let grant =
        provider.name.parse().map_err(|_| ErrorBody::new(ErrorCode::InternalError, "the provider has a name that no grant can have"))?;
    match provider.server.as_deref().filter(|_| provider.issuer.is_none()) {
        Some(server) => remote::look((&grant, server), provider, transport).await,
        None => discovery::find((&grant, provider), transport).await.map(|_| ()),
    }
}

/// What a login tells while it runs.
#[derive(Debug)]
pub enum Progress {
    /// A remote MCP server has told who lets people in.
    ServerFound {
        /// The server's URL.
        server: String,
        /// The issuer.
        authorization_server: String,
    },
    /// A client was made or given: it must be kept before it is used. Answered when that is done, or has failed.
    Registered(Box<Registration>, oneshot::Sender<()>),
    /// The client that asks, and for what.
    ClientChosen {
        /// The issuer, where it has made the client long ago and may have forgotten it.
        may_be_forgotten_by: Option<String>,
        /// How it came by its id.
        client: ClientKind,
        /// Its id.
        client_id: String,
        /// The scopes.
        scopes: Vec<String>,
    },
    /// The person must open this URL.
    OpenUrl {
        /// The authorization URL.
        url: String,
        /// The host that it leads to, in ASCII.
        host: String,
        /// The redirect URI in it.
        redirect_uri: String,
    },
    /// The person must type this code at this page, on any machine.
    EnterCode {
        /// The code.
        user_code: String,
        /// The page.
        verification_uri: String,
        /// The page with the code in it.
        verification_uri_complete: Option<String>,
        /// The host of both, in ASCII.
        host: String,
        /// How long the code is good.
        lifetime: Duration,
    },
    /// A redirect of this login has come, whatever it says.
    Redirected,
    /// The code is exchanged.
    Exchanging,
}

/// What a login brings home.
#[derive(Debug)]
pub struct Outcome {
    /// The provider and client that made the tokens.
    pub definition: Definition,
    /// The tokens.
    pub response: TokenResponse,
    /// The key that they are bound to (RFC 9449).
    pub proof_key: Option<ProofKey>,
    /// When the token request was sent.
    pub sent_at: crate::clock::Now,
    /// Who logged in, for people.
    pub account: Option<String>,
    /// Who logged in, for the provider.
    pub subject: Option<String>,
    /// The resource indicator that was sent.
    pub resource: Option<String>,
    /// The scopes that were asked for.
    pub requested_scopes: Vec<String>,
}

/// Runs one login to its end. Cancelled by dropping the future; then the listener is closed and nothing has changed.
/// `pasted` carries redirect URLs that a person pasted; a wrong one answers its sender and changes nothing.
pub async fn run(
    mut plan: Plan,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    progress: impl Fn(Progress) + Send,
    mut pasted: mpsc::Receiver<Pasted>,
) -> Result<Outcome, ErrorBody> {
    if let Some(remote) = plan.remote.take() {
        return remote::run(plan, remote, (&*transport, &*clock), progress, pasted).await;
    }
    let given = plan.provider.client_id.clone().filter(|id| !id.is_empty());
    let given = given.ok_or_else(|| failure::no_client_id(&plan.grant, &plan.provider))?;
    let client_id = given.as_str();
    assertion::fits(plan.client_secret.as_ref(), &plan.provider.quirks).map_err(|error| failure::bad_key(&plan.grant, &error))?;
    if by_client::is_wanted(plan.flow, &plan.provider) {
        progress(Progress::Exchanging);
        return by_client::run(plan, client_id, &*transport, &*clock).await;
    }
    let server = discovery::find((&plan.grant, &plan.provider), &*transport).await?;
    plan.bind_by_config(&server)?;
    let (definition, response, sent_at) = match (&plan.by_hand, device_endpoint(&plan, &server)?) {
        (Some(by_hand), _) => exchange_by_hand(&plan, by_hand, (&server, client_id), (&*transport, &*clock), &progress).await?,
        (None, Some(endpoint)) => {
            let definition = define(&plan, &server, client_id, None);
            let scopes = scopes(&plan, &server);
            let flow = Device { plan: &plan, definition: &definition, endpoint, scopes: &scopes, transport: &*transport, clock: &*clock };
            let (response, sent_at) = flow.run(&progress).await?;
            (definition, response, sent_at)
        }
        (None, None) => {
            if lacks_secret(&plan) {
                return Err(failure::no_secret(&plan.grant, &plan.provider));
            }
            let quirks = &plan.provider.quirks;
            let ports = plan.callback_port.map_or_else(|| quirks.redirect_ports.clone(), |port| vec![port]);
            let bound = Listener::bind_first(&quirks.redirect_host, &quirks.redirect_path, &ports).await;
            let listener = bound.map_err(|error| failure::bind(&plan.grant, &error))?;
            let redirect = by_redirect(&plan, (&server, client_id, listener), (&*transport, &*clock), &progress, &mut pasted);
            redirect.await.map_err(|stop| stop.error)?
        }
    };
    Ok(finish(&plan, definition, (response, sent_at), (&*transport, &*clock)).await)
}

/// Asks whose login it is, where that can be asked.
async fn finish(
    plan: &Plan,
    mut definition: Definition,
    (response, sent_at): (TokenResponse, Now),
    (transport, clock): (&dyn Transport, &dyn Clock),
) -> Outcome {
    let proof_key = plan.proofs.key.clone();
    if proof_key.is_some() {
        // It is asked with bearer tokens; what it says of any other means nothing.
        definition.userinfo_endpoint = None;
    }
    let wanted = Wanted { plan, definition: &definition, transport, clock };
    let Identity { account, subject } = wanted.identity(&response).await;
    let account = account.or_else(|| subject.clone());
    let (resource, requested_scopes) = (plan.resource.clone(), plan.scopes.clone());
    Outcome { definition, response, proof_key, sent_at, account, subject, resource, requested_scopes }
}

/// Where the device flow starts, if it is the one to take: asked for, or the provider's usual one, or better for this person, or
/// the only one without a client secret.
fn device_endpoint<'a>(plan: &Plan, server: &'a Server) -> Result<Option<&'a str>, ErrorBody> {
    let endpoint = server.device.as_deref();
    match plan.flow {
        Some(LoginFlow::Code | LoginFlow::ClientCredentials) => Ok(None),
        Some(LoginFlow::Device) if device_lacks_secret(plan) => Err(failure::no_secret(&plan.grant, &plan.provider)),
        Some(LoginFlow::Device) => endpoint.map(Some).ok_or_else(|| failure::no_device(&plan.grant)),
        None => match plan.provider.quirks.flow {
            Some(Flow::DeviceCode) => endpoint.map(Some).ok_or_else(|| failure::no_device(&plan.grant)),
            Some(Flow::AuthorizationCode | Flow::ClientCredentials | Flow::JwtBearer | Flow::Enterprise) => Ok(None),
            None => Ok(endpoint.filter(|_| plan.headless || lacks_secret(plan)).filter(|_| !device_lacks_secret(plan))),
        },
    }
}

impl Plan {
    /// Binds the tokens to a key where the config says so.
    fn bind_by_config(&mut self, server: &Server) -> Result<(), ErrorBody> {
        if self.provider.quirks.dpop == Some(true) { self.bind(server.metadata.as_ref()) } else { Ok(()) }
    }

    /// Makes the key that the tokens will be bound to, and names it to a server that knows keys with the authorization request:
    /// then the code is bound to it, too (RFC 9449 section 10).
    fn bind(&mut self, server: Option<&AuthorizationServerMetadata>) -> Result<(), ErrorBody> {
        let listed = server.map(|server| server.dpop_signing_alg_values_supported.as_deref());
        if let Some(other) = dpop::other_proofs(listed.flatten()) {
            return Err(failure::no_proof(&self.grant, "its authorization server", &other));
        }
        let made = dpop::generate().and_then(|key| Ok((dpop::thumbprint(&key)?, key)));
        let (thumbprint, key) = made.map_err(|error| failure::no_key(&self.grant, error))?;
        if listed.is_none_or(|listed| listed.is_some()) {
            self.provider.quirks.authorization_params.push(("dpop_jkt".to_owned(), thumbprint));
        }
        self.proofs.key = Some(key);
        Ok(())
    }
}

/// Why a login by redirect ended.
struct Stop {
    error: ErrorBody,
    /// What another client may do better.
    fault: Option<Fault>,
}

/// What may be wrong with a client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The server does not know it, or not any more.
    Refused,
    /// It may not ask for these scopes: there are servers where it may ask for those alone that it was registered with (RFC 7591
    /// section 2).
    Scopes,
    /// Nothing has come back in time: a server that has forgotten a client says so on its page alone (RFC 6749 section 4.1.2.1).
    Unanswered,
}

impl Fault {
    fn of(code: &str) -> Option<Self> {
        match code {
            "invalid_client_metadata" | "invalid_redirect_uri" => Some(Self::Refused),
            code if token::is_about_client(code) => Some(Self::Refused),
            "invalid_scope" => Some(Self::Scopes),
            _ => None,
        }
    }
}

impl From<ErrorBody> for Stop {
    fn from(error: ErrorBody) -> Self {
        Self { error, fault: None }
    }
}

/// The code flow, with a redirect to this machine (RFC 8252) or a pasted one.
async fn by_redirect(
    plan: &Plan,
    (server, client_id, mut listener): (&Server, &str, Listener),
    (transport, clock): (&dyn Transport, &dyn Clock),
    progress: &(impl Fn(Progress) + Send),
    pasted: &mut mpsc::Receiver<Pasted>,
) -> Result<(Definition, TokenResponse, Now), Stop> {
    let name = &plan.grant;
    let definition = define(plan, server, client_id, Some(listener.redirect_uri()));

    let request = request(plan, server, &definition)?;
    let redirect_uri = listener.redirect_uri().to_owned();
    progress(Progress::OpenUrl { url: request.url, host: request.host, redirect_uri });
    let redirected = tokio::time::timeout(plan.patience, redirected(&mut listener, pasted, &request.expected)).await;
    let redirected = redirected.map_err(|_| Stop { error: failure::too_late(name), fault: Some(Fault::Unanswered) })?;
    progress(Progress::Redirected);
    let code = redirected.map_err(|error| {
        let fault = if let RedirectError::Refused { code, .. } = &error { Fault::of(code) } else { None };
        Stop { error: failure::redirect(name, &error), fault }
    })?;
    drop(listener);

    progress(Progress::Exchanging);
    let wanted = Wanted { plan, definition: &definition, transport, clock };
    let (response, sent_at) = wanted.exchange((&code, &request.verifier)).await.map_err(|error| {
        let fault = if let TokenError::Refused { code, .. } = &error { Fault::of(code) } else { None };
        Stop { error: failure::token(name, &error), fault }
    })?;
    Ok((definition, response, sent_at))
}

/// An exchange that the person began by hand: they opened the authorization URL themselves, with a verifier of their own.
#[derive(Debug)]
pub struct ByHand {
    /// The code of the redirect.
    pub code: Code,
    /// The verifier whose challenge was sent.
    pub verifier: CodeVerifier,
    /// The redirect URI that was sent.
    pub redirect_uri: String,
}

/// Finishes such an exchange. `state` and `iss` are the person's to compare: only the code reaches us.
async fn exchange_by_hand(
    plan: &Plan,
    by_hand: &ByHand,
    (server, client_id): (&Server, &str),
    (transport, clock): (&dyn Transport, &dyn Clock),
    progress: &(impl Fn(Progress) + Send),
) -> Result<(Definition, TokenResponse, Now), ErrorBody> {
    if lacks_secret(plan) {
        return Err(failure::no_secret(&plan.grant, &plan.provider));
    }
    let definition = define(plan, server, client_id, Some(&by_hand.redirect_uri));
    progress(Progress::Exchanging);
    let wanted = Wanted { plan, definition: &definition, transport, clock };
    let exchanged = wanted.exchange((&by_hand.code, &by_hand.verifier)).await;
    let (response, sent_at) = exchanged.map_err(|error| failure::token(&plan.grant, &error))?;
    Ok((definition, response, sent_at))
}

/// A pasted redirect URL, and where the answer goes.
#[derive(Debug)]
pub struct Pasted {
    /// The URL.
    pub url: Secret,
    /// Told whether the URL was this login's redirect.
    pub answer: tokio::sync::oneshot::Sender<Result<(), ErrorBody>>,
}

/// How long after a failure to connect the code is sent again: it is good for one use, and was not used.
const EXCHANGE_PAUSES: [Duration; 3] = [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3)];

/// Whether the code flow lacks the client secret that the provider wants.
fn lacks_secret(plan: &Plan) -> bool {
    plan.provider.needs_client_secret() && plan.client_secret.is_none()
}

fn device_lacks_secret(plan: &Plan) -> bool {
    plan.provider.device_flow_needs_secret() && plan.client_secret.is_none()
}

fn define(plan: &Plan, server: &Server, client_id: &str, redirect_uri: Option<&str>) -> Definition {
    let listed = server.metadata.as_ref().and_then(|metadata| metadata.token_endpoint_auth_methods_supported.as_deref());
    // Without a secret there was nothing to prove, and one that is stored later shall be used as the preset says.
    let found = listed.filter(|_| plan.client_secret.is_some());
    Definition {
        provider: plan.provider.name.clone(),
        issuer: plan.provider.issuer.clone(),
        authorization_endpoint: server.authorization.clone(),
        token_endpoint: Some(server.token.clone()),
        refresh_endpoint: plan.provider.endpoints.refresh.clone(),
        revocation_endpoint: server.revocation.clone(),
        userinfo_endpoint: server.userinfo.clone(),
        client_id: Some(client_id.to_owned()),
        redirect_uri: redirect_uri.map(str::to_owned),
        client_auth: found.map(|listed| token::client_auth(&plan.provider.quirks, Some(listed), true)),
        server: plan.provider.server.clone(),
        client_credentials: false,
        assertion: None,
    }
}

fn request(plan: &Plan, server: &Server, definition: &Definition) -> Result<authorize::AuthorizationRequest, ErrorBody> {
    let quirks = &plan.provider.quirks;
    let scopes = scopes(plan, server);
    let ask = Ask {
        endpoint: server.authorization.as_deref().ok_or_else(|| failure::no_endpoints(&plan.grant))?,
        client_id: definition.client_id.as_deref().unwrap_or_default(),
        redirect_uri: definition.redirect_uri.as_deref().unwrap_or_default(),
        scopes: &scopes,
        separator: quirks.request_scope_separator,
        challenge: quirks.pkce != Some(Pkce::Off),
        resource: plan.resource.as_deref().filter(|_| quirks.send_resource),
        login_hint: quirks.login_hint_parameter.as_deref().zip(plan.login_hint.as_deref()),
        params: &quirks.authorization_params,
    };
    let iss_promised = server.metadata.as_ref().is_some_and(|metadata| metadata.authorization_response_iss_parameter_supported);
    authorize::request(ask, definition.issuer.as_deref(), iss_promised).map_err(|error| failure::authorize(&plan.grant, &error))
}

/// The scopes to send: `offline_access` and its kind are left out where the server lists its scopes and they are not among
/// them (MCP authorization, section on refresh tokens).
fn scopes(plan: &Plan, server: &Server) -> Vec<String> {
    let listed = server.metadata.as_ref().and_then(|metadata| metadata.scopes_supported.as_deref());
    let wanted = |scope: &&String| {
        let for_refresh = plan.provider.refresh_scopes.contains(scope) && !plan.provider.scopes.contains(scope);
        !for_refresh || listed.is_none_or(|listed| listed.contains(scope))
    };
    plan.scopes.iter().filter(wanted).cloned().collect()
}

/// Waits for the redirect, from the browser or from a person who pastes it, whichever comes first. What is not ours leaves no
/// trace.
async fn redirected(listener: &mut Listener, pasted: &mut mpsc::Receiver<Pasted>, expected: &Expected) -> Result<Code, RedirectError> {
    let mut somebody_may_paste = true;
    loop {
        tokio::select! {
            hit = listener.hit() => match check_redirect(&hit.query, expected) {
                Err(RedirectError::NotOurs) => hit.answer(Page::NotFound),
                result => {
                    hit.answer(if result.is_ok() { Page::Done } else { Page::Failed });
                    return result;
                }
            },
            paste = pasted.recv(), if somebody_may_paste => match paste {
                Some(paste) => {
                    if let Some(result) = accept_paste(paste, listener.redirect_uri(), expected) {
                        return result;
                    }
                }
                None => somebody_may_paste = false,
            },
        }
    }
}

/// The result that a pasted URL brings, if it is ours; else its sender is told.
fn accept_paste(paste: Pasted, redirect_uri: &str, expected: &Expected) -> Option<Result<Code, RedirectError>> {
    let (told, result) = match pasted::query(paste.url.expose(), redirect_uri) {
        Err(error) => (Err(failure::paste(error, redirect_uri)), None),
        Ok(query) => match check_redirect(&query, expected) {
            Err(RedirectError::NotOurs) => (Err(failure::pasted_other_login(redirect_uri)), None),
            result => (Ok(()), Some(result)),
        },
    };
    // Who pasted may have gone; a right URL counts all the same.
    let _ = paste.answer.send(told);
    result
}

/// What is left to do once the code is there.
struct Wanted<'a> {
    plan: &'a Plan,
    definition: &'a Definition,
    transport: &'a dyn Transport,
    clock: &'a dyn Clock,
}

impl Wanted<'_> {
    async fn exchange(&self, proof: (&Code, &CodeVerifier)) -> Result<(TokenResponse, Now), TokenError> {
        let (quirks, secret) = (&self.plan.provider.quirks, self.plan.client_secret.as_ref());
        let make = || {
            token::exchange_code(self.definition, quirks, secret, proof, self.plan.resource.as_deref())
                .expect("a login's definition has a token endpoint, a client and a redirect URI")
        };
        self.ask(make, |error| matches!(error, TokenError::NotSent(_))).await
    }

    /// Sends a token request, and after a pause again where `harmless` says of the failure that nothing was used up. With the time
    /// at which it was sent.
    async fn ask(
        &self,
        make: impl Fn() -> Request + Send + Sync,
        harmless: fn(&TokenError) -> bool,
    ) -> Result<(TokenResponse, Now), TokenError> {
        let mut pauses = EXCHANGE_PAUSES.iter();
        loop {
            let sent_at = self.clock.now();
            match (self.send(&make).await, pauses.next()) {
                (Err(error), Some(pause)) if harmless(&error) => tokio::time::sleep(*pause).await,
                (result, _) => return Ok((result?, sent_at)),
            }
        }
    }

    /// Sends a token request with the client's proof and the key's, and checks that its answer can be used.
    async fn send(&self, make: impl Fn() -> Request + Send + Sync) -> Result<TokenResponse, TokenError> {
        let (quirks, secret) = (&self.plan.provider.quirks, self.plan.client_secret.as_ref());
        let make = || assertion::prove(make(), (self.definition, quirks), secret, self.clock.now().wall);
        let answered = self.plan.proofs.send((self.transport, self.clock), make).await?;
        let response = self.plan.proofs.check(&answered, quirks, self.clock.now().wall)?;
        match response.unusable {
            Some(fault) => Err(TokenError::Unusable(fault)),
            None => Ok(response),
        }
    }

    /// Who logged in, as far as the provider tells; not knowing does not fail a login.
    async fn identity(&self, response: &TokenResponse) -> Identity {
        let known = self.claimed(response).or((*response.owner).clone());
        let Some(endpoint) = self.definition.userinfo_endpoint.as_deref().filter(|_| known.account.is_none()) else { return known };
        // A discovered endpoint is OpenID Connect's, which answers nobody who did not ask for `openid`.
        let theirs = self.plan.provider.endpoints.userinfo.is_some();
        if !theirs && !self.plan.scopes.iter().any(|scope| scope == "openid") {
            return known;
        }
        let answer = self.transport.send(identity::userinfo(endpoint, &response.access_token, &self.plan.provider.quirks)).await;
        let told = answer.map_err(|error| error.to_string());
        let told = told.and_then(|answer| identity::from_userinfo(&answer, &self.plan.provider.quirks).map_err(|error| error.to_string()));
        match told {
            Ok(userinfo) => known.or(userinfo),
            Err(reason) => {
                tracing::debug!(provider = self.plan.provider.name, reason, "the account's name is not known");
                known
            }
        }
    }

    fn claimed(&self, response: &TokenResponse) -> Identity {
        let Some(id_token) = &response.id_token else { return Identity::default() };
        let client_id = self.definition.client_id.as_deref().unwrap_or_default();
        let audience = Audience { issuer: self.definition.issuer.as_deref(), client_id, now: self.clock.now().wall };
        identity::from_id_token(id_token, audience, &self.plan.provider.quirks).unwrap_or_else(|error| {
            tracing::debug!(provider = self.plan.provider.name, reason = %error, "the ID token is not used");
            Identity::default()
        })
    }
}

#[cfg(test)]
mod tests;

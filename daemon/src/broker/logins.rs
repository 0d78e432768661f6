//! Logins in flight: one per grant and scopes, joined by whoever asks for the same. One subscriber is told to open the
//! browser; the next takes over if it goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, LoginEvent, LoginFlow, LoginRequest, event};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Reply;
use super::accounts::{Undecided, labelled};
use super::core::{Core, answer};
use super::first_logins::{FirstLogins, Key};
use super::step_up::{self, Reason};
use crate::audit::Note;
use crate::caller::Caller;
use crate::grant::record::{GrantRecord, TokenSource};
use crate::grant::{Grant, Login};
use crate::login::bearer::FileDigest;
use crate::login::{self, ByHand, Outcome, Pasted, Plan, Progress, by_client};
use crate::oauth::authorize::{Code, CodeVerifier};
use crate::provider::Provider;

/// How long a person has for a login.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// The most logins in flight. Each has a listener, and lives on when a client that is no person leaves it: without a limit
/// one client could take every file descriptor, and with them the vault's writes.
const MOST_LOGINS: usize = 32;

/// The longest redirect URI that is taken from a person.
const LONGEST_REDIRECT: usize = 2048;

/// Every login in flight.
#[derive(Default)]
pub(super) struct Logins {
    pub(super) running: HashMap<String, Running>,
    subscribers: u64,
    /// Those that failed and programs ask for again.
    pub(super) firsts: FirstLogins,
    /// Whose place was taken by tokens that are not on the disk yet.
    pub(super) replaced: Vec<GrantRecord>,
}

pub(super) struct Running {
    pub(super) grant: GrantName,
    /// Who has asked for it first.
    caller: Arc<Caller>,
    /// The remote server that it is at.
    pub(super) server: Option<String>,
    likeness: Likeness,
    /// Nobody joins an exchange that a person began by hand: its code is theirs.
    by_hand: bool,
    /// A program asks for it without a person, for a grant that is not there yet.
    first: Option<Key>,
    /// Another account may take the place of the one that is held.
    pub(super) replace: bool,
    task: AbortHandle,
    pasted: mpsc::Sender<Pasted>,
    pub(super) subscribers: BTreeMap<u64, Subscriber>,
    /// What was found out on the way, for those who join later.
    told: Vec<LoginEvent>,
    /// What the person must do (`OpenUrl`, `EnterCode`), once it is known.
    errand: Option<LoginEvent>,
    /// The issuer and the id of a client that may be forgotten there, until something comes back from the page.
    unanswered: Option<(String, String)>,
    /// Who was told to open it.
    opener: Option<u64>,
    /// The tokens have come and are being saved.
    pub(super) saving: bool,
    /// The tokens have come, but are another account's than the grant holds: a person decides.
    pub(super) undecided: Option<Undecided>,
    /// Whose place they take: revoked once they are saved.
    pub(super) replaced: Option<GrantRecord>,
}

pub(super) struct Subscriber {
    events: mpsc::UnboundedSender<LoginEvent>,
    browser: bool,
    interactive: bool,
    /// Can ask the person whose login it shall be.
    pub(super) asks: bool,
    /// Notices that it goes. It holds the stream open, so it ends with the subscriber.
    watch: AbortHandle,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Core {
    pub(super) fn login(&mut self, request: &LoginRequest, caller: Arc<Caller>, reply: Reply<mpsc::UnboundedReceiver<LoginEvent>>) {
        let heard = self.heard_by_relay(request);
        let begun = self.plan(request, heard.as_deref()).and_then(|(grant, plan)| {
            if request.unattended && !needs_nobody(&plan) {
                return Err(nobody_there(&grant));
            }
            let (id, joined) = match self.running_login(&grant, &plan) {
                Some(id) => (id, true),
                None if self.logins.running.len() >= MOST_LOGINS => return Err(too_many_logins()),
                None => {
                    let first = self.may_begin(&grant, &plan, request)?;
                    (self.start_login(grant.clone(), plan, (caller, first)), false)
                }
            };
            Ok(self.subscribe(id, grant, joined, request))
        });
        answer(reply, begun);
    }

    /// A person may log in as often as they like; programs, and those that pass on a server's challenge, may not. The first token
    /// that a client gets for itself leads nobody anywhere: of that login its failures are counted, under what is returned.
    fn may_begin(&mut self, grant: &GrantName, plan: &Plan, request: &LoginRequest) -> Result<Option<Key>, ErrorBody> {
        let now = self.now().boot;
        if needs_nobody(plan) && !self.grants.contains_key(grant) {
            self.leads_round_no_rule(grant, plan)?;
            if request.interactive {
                self.logins.firsts.forget();
                return Ok(None);
            }
            let key = self.logins.firsts.key(grant, request);
            return self.logins.firsts.begin(key, now).map(|()| Some(key));
        }
        let challenged = plan.remote.as_ref().is_some_and(|remote| remote.challenge.is_some() || remote.challenged_by_server);
        if !challenged && !request.unprompted {
            if request.interactive {
                self.remote.step_ups.forget(grant);
            }
            return Ok(None);
        }
        let held = self.grants.get(grant).map(|held| &held.newest().definition);
        let moved = held.is_some_and(|definition| self.provider_of(definition).is_none());
        self.remote.step_ups.begin(grant, Reason::new(&plan.scopes, moved), now).map(|()| None)
    }

    /// Where nobody logs in, a further label is as good as the grant that is there: what the rules of that one close is not opened
    /// by another name. Who brings the token, or the client's secret, with the request asks for nothing that is ours.
    fn leads_round_no_rule(&self, grant: &GrantName, plan: &Plan) -> Result<(), ErrorBody> {
        let brings = match token_of(plan) {
            Some(token) => token == TokenSource::Given,
            None => plan.remote.as_ref().and_then(|remote| remote.given.as_ref()).is_some_and(|given| given.secret.is_some()),
        };
        let closed = self.grants.keys().find(|other| other.base() == grant.base() && self.policy.closes(other));
        let Some(closed) = closed.filter(|_| !brings && !self.policy.closes(grant)) else { return Ok(()) };
        let sentence = format!("`{closed}` is closed, and `{grant}` would be the same without a rule and without a person");
        Err(ErrorBody::new(ErrorCode::AccessDenied, sentence).hint(format!("mcp-authctl policy add {grant} --program PATH, then log in")))
    }

    pub(super) fn pasted_redirect(&mut self, id: &str, redirect: wire::PastedRedirect, reply: Reply<()>) {
        let Some(running) = self.logins.running.get(id) else { return answer(reply, Err(no_login())) };
        let busy = || ErrorBody::new(ErrorCode::TooManyRequests, "another redirect is being looked at").hint("try again in a moment");
        if let Err(error) = running.pasted.try_send(Pasted { url: redirect.url, answer: reply }) {
            answer(error.into_inner().answer, Err(busy()));
        }
    }

    pub(super) fn cancel_login(&mut self, id: &str, reply: Reply<()>) {
        let Some(running) = self.logins.running.get(id) else { return answer(reply, Err(no_login())) };
        if running.saving {
            let error = ErrorBody::new(ErrorCode::Conflict, "it is too late to cancel: the login is being saved");
            return answer(reply, Err(error.hint(format!("mcp-authctl logout {}", running.grant))));
        }
        self.doubt_unanswered(id);
        self.end_login(id, LoginEvent::Failed { error: ErrorBody::new(ErrorCode::Conflict, "the login was cancelled") });
        answer(reply, Ok(()));
    }

    /// The vault closes or the daemon stops, once what is being saved is saved.
    pub(super) fn logins_cancelled(&mut self) {
        let ids: Vec<_> = self.logins.running.iter().filter(|(_, running)| !running.saving).map(|(id, _)| id.clone()).collect();
        for id in ids {
            let error = ErrorBody::new(ErrorCode::Conflict, "the login was cancelled: the vault was locked, or the daemon stops");
            self.end_login(&id, LoginEvent::Failed { error: error.hint("start it again") });
        }
    }

    /// The grant has saved what a login brought.
    pub(super) fn login_done(&mut self, name: &GrantName) {
        let done: Vec<_> = self.logins.running.iter().filter(|(_, r)| r.saving && r.grant == *name).map(|(id, _)| id.clone()).collect();
        let now = self.now();
        let Some(summary) = self.grants.get(name).map(|grant| Box::new(self.summary(grant, now))) else { return };
        if done.iter().any(|id| self.logins.running[id].subscribers.values().any(|subscriber| subscriber.interactive)) {
            // It may be what others waited for: an identity provider's, say.
            self.logins.firsts.forget();
        }
        for id in done {
            self.revoke_replaced(&id);
            self.end_login(&id, LoginEvent::Done { grant: summary.clone(), same_account: self.same_account(name) });
        }
    }

    /// The grant has gone before it saved what a login brought.
    pub(super) fn login_lost(&mut self, name: &GrantName, error: &ErrorBody) {
        let lost: Vec<_> = self.logins.running.iter().filter(|(_, r)| r.saving && r.grant == *name).map(|(id, _)| id.clone()).collect();
        for id in lost {
            self.end_login(&id, LoginEvent::Failed { error: error.clone() });
        }
    }

    /// What a request means: the grant's name, and what the login needs to know.
    fn plan(&self, request: &LoginRequest, received: Option<&[String]>) -> Result<(GrantName, Plan), ErrorBody> {
        if let Some((grant, server)) = self.remote_target(request)? {
            return Ok((grant.clone(), self.remote_plan((grant, server), request, received)?));
        }
        of_a_provider(request)?;
        let name: GrantName = request.provider.parse().map_err(|error: wire::NameError| {
            invalid(format!("{:?} is not a name: {error}", request.provider)).hint("mcp-authctl provider list")
        })?;
        let grant = match (&request.account, name.label()) {
            (None, None) => self.meant(&name),
            (Some(label), Some(other)) if label != other => {
                let sentence = format!("the name says account `{other}`, and --account says `{label}`");
                return Err(invalid(sentence).hint(format!("mcp-authctl login {}:LABEL", name.base())));
            }
            (Some(label), _) => labelled(name.base(), label)?,
            (None, _) => name,
        };
        let provider = self.config.provider(grant.base()).ok_or_else(|| self.no_provider(grant.base()))?;
        let by_hand = request.exchange.as_ref().map(by_hand).transpose()?;
        let held = self.grants.get(&grant).map(Grant::record);
        let known = held.and_then(|held| held.account.clone()).filter(|_| !request.replace);
        let flow = flow(request, held);
        let asked = match &request.scopes {
            Some(_) if by_client::is_wanted(flow, provider) => {
                step_up::scopes_unseen(request, (provider, held), None, &format!("mcp-authctl login {grant}"))?
            }
            asked => asked.clone(),
        };
        let plan = Plan {
            grant: grant.clone(),
            client_secret: self.secret_of(provider),
            scopes: scopes(asked, request, (flow, provider))?,
            login_hint: request.login_hint.clone().or(known),
            resource: provider.resource.clone().or_else(|| held.and_then(|held| held.resource.clone())),
            callback_port: request.callback_port,
            flow: if by_hand.is_some() { Some(LoginFlow::Code) } else { flow },
            by_hand,
            headless: request.headless,
            patience: PATIENCE,
            remote: None,
            proofs: self.no_proofs(),
            provider: provider.clone(),
        };
        Ok((grant, plan))
    }

    fn running_login(&self, grant: &GrantName, plan: &Plan) -> Option<String> {
        let wanted = Likeness::of(plan);
        // An exchange by hand, and a token that was given, are their giver's.
        if plan.by_hand.is_some() || wanted.by_token == Some(TokenSource::Given) {
            return None;
        }
        let same = |running: &Running| running.grant == *grant && !running.by_hand && running.likeness == wanted;
        self.logins.running.iter().find(|(_, running)| same(running)).map(|(id, _)| id.clone())
    }

    fn start_login(&mut self, grant: GrantName, mut plan: Plan, (caller, first): (Arc<Caller>, Option<Key>)) -> String {
        let id = random_id();
        let (pasted, pastes) = mpsc::channel(4);
        let (way, mailbox, at) = (self.way(plan.provider.clone()), self.mailbox.clone(), id.clone());
        let progress = move |progress| {
            let id = at.clone();
            // A core that has gone has no logins.
            let _ = mailbox.send(Box::new(move |core: &mut Self| core.login_progress(&id, progress)));
        };
        let (likeness, by_hand) = (Likeness::of(&plan), plan.by_hand.is_some());
        let server = plan.remote.as_ref().map(|remote| remote.server.clone());
        let errand = async move {
            plan.client_secret = way.client_secret().await.map_err(|reason| {
                ErrorBody::new(ErrorCode::Conflict, format!("the client secret of `{}` is not to be had: {reason}", plan.provider.name))
                    .hint("look at client_secret_command in the config")
            })?;
            login::run(plan, way.transport, way.clock, progress, pastes).await
        };
        let of = id.clone();
        let task = self.task(errand, move |core, outcome| {
            let fault = || Err(ErrorBody::new(ErrorCode::InternalError, "the login failed by a fault of the daemon").hint("report it"));
            core.login_ended(&of, outcome.unwrap_or_else(fault));
        });
        let running = Running {
            grant,
            caller,
            server,
            likeness,
            by_hand,
            first,
            replace: false,
            task,
            pasted,
            subscribers: BTreeMap::new(),
            told: Vec::new(),
            errand: None,
            unanswered: None,
            opener: None,
            saving: false,
            undecided: None,
            replaced: None,
        };
        self.logins.running.insert(id.clone(), running);
        id
    }

    fn subscribe(&mut self, id: String, grant: GrantName, joined: bool, request: &LoginRequest) -> mpsc::UnboundedReceiver<LoginEvent> {
        let (events, stream) = mpsc::unbounded_channel();
        self.logins.subscribers += 1;
        let number = self.logins.subscribers;
        // The receiver is still here: it is returned below.
        let _ = events.send(LoginEvent::Started { id: id.clone(), grant, joined });
        let (mailbox, gone, of) = (self.mailbox.clone(), events.clone(), id.clone());
        let watch = tokio::spawn(async move {
            gone.closed().await;
            // A core that has gone has no logins.
            let _ = mailbox.send(Box::new(move |core: &mut Self| core.subscriber_left(&of, number)));
        });
        if let Some(running) = self.logins.running.get_mut(&id) {
            let watch = watch.abort_handle();
            let LoginRequest { browser, interactive, asks, replace, .. } = *request;
            running.replace |= replace;
            running.subscribers.insert(number, Subscriber { events, browser, interactive, asks, watch });
            running.tell_so_far(number);
            running.tell_undecided(number);
            running.tell_errand(number);
        }
        stream
    }

    fn login_progress(&mut self, id: &str, progress: Progress) {
        let progress = match progress {
            // The server has made it, whether anybody still waits for it or not.
            Progress::Registered(registration, kept) => return self.keep_registration(*registration, kept),
            progress => progress,
        };
        let Some(running) = self.logins.running.get_mut(id) else { return };
        let errand = match progress {
            Progress::Registered(..) => return,
            Progress::ServerFound { server, authorization_server } => {
                return running.tell_and_keep(LoginEvent::ServerFound { server, authorization_server });
            }
            Progress::ClientChosen { may_be_forgotten_by, client, client_id, scopes } => {
                running.unanswered = may_be_forgotten_by.map(|issuer| (issuer, client_id.clone()));
                return running.tell_and_keep(LoginEvent::ClientChosen { client, client_id, scopes });
            }
            Progress::OpenUrl { url, host, redirect_uri } => LoginEvent::OpenUrl { url, host, redirect_uri, open: false },
            Progress::EnterCode { user_code, verification_uri, verification_uri_complete, host, lifetime } => {
                let expires_in = lifetime.as_secs();
                LoginEvent::EnterCode { user_code, verification_uri, verification_uri_complete, host, expires_in, open: false }
            }
            Progress::Redirected => {
                running.unanswered = None;
                return;
            }
            Progress::Exchanging => return running.tell(&LoginEvent::Exchanging),
        };
        running.errand = Some(errand);
        let numbers: Vec<_> = running.subscribers.keys().copied().collect();
        for number in numbers {
            running.tell_errand(number);
        }
    }

    fn login_ended(&mut self, id: &str, outcome: Result<Outcome, ErrorBody>) {
        let Some(running) = self.logins.running.get(id) else { return };
        let (name, first) = (running.grant.clone(), running.first);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::info!("a login failed: {error}");
                self.doubt_unanswered(id);
                if let Some(key) = first {
                    self.logins.firsts.failed(key, error.clone(), self.edges.clock.now().boot, fastrand::f64());
                }
                return self.end_login(id, LoginEvent::Failed { error });
            }
        };
        if let Some(key) = first {
            self.logins.firsts.succeeded(key);
        }
        if let (Some(server), Some(issuer)) = (&outcome.definition.server, &outcome.definition.issuer) {
            // The login has just read there that the server names it, whatever the server said before.
            self.heard_of_issuers((server.clone(), issuer.clone()), std::slice::from_ref(issuer));
        }
        self.remote.set_doubted((outcome.definition.issuer.as_deref(), outcome.definition.client_id.as_deref()), false);
        let Some(terms) = self.terms_of(&outcome.definition) else {
            let error =
                ErrorBody::new(ErrorCode::Conflict, format!("the config of `{}` changed during the login", outcome.definition.provider));
            return self.end_login(id, LoginEvent::Failed { error: error.hint(format!("mcp-authctl login {name}")) });
        };
        let login = Login {
            definition: outcome.definition,
            terms,
            response: outcome.response,
            proof_key: outcome.proof_key,
            sent_at: outcome.sent_at,
            account: outcome.account,
            subject: outcome.subject,
            resource: outcome.resource,
            requested_scopes: outcome.requested_scopes,
        };
        self.take_in_login(id, name, Box::new(login));
    }

    fn subscriber_left(&mut self, id: &str, number: u64) {
        let Some(running) = self.logins.running.get_mut(id) else { return };
        let Some(left) = running.subscribers.remove(&number) else { return };
        if running.undecided.is_some() && !running.subscribers.values().any(|subscriber| subscriber.asks) {
            return self.give_up_login(id);
        }
        if running.opener == Some(number) {
            running.opener = None;
            if let Some(next) = running.subscribers.iter().find(|(_, s)| s.browser).map(|(number, _)| *number) {
                running.tell_errand(next);
            }
        }
        if running.subscribers.is_empty() && left.interactive && !running.saving {
            tracing::info!(grant = %running.grant, "the login was cancelled: nobody waits for it");
            running.task.abort();
            self.doubt_unanswered(id);
            self.logins.running.remove(id);
        }
    }

    /// A login ends though nothing has come back from its page. Whoever sees there that the server has forgotten the client can but
    /// close it.
    fn doubt_unanswered(&mut self, id: &str) {
        let Some(running) = self.logins.running.get_mut(id).filter(|running| running.errand.is_some()) else { return };
        if let Some((issuer, client_id)) = running.unanswered.take() {
            self.remote.set_doubted((Some(&issuer), Some(&client_id)), true);
        }
    }

    pub(super) fn end_login(&mut self, id: &str, last: LoginEvent) {
        if let Some(mut running) = self.logins.running.remove(id) {
            running.task.abort();
            if let Some(undecided) = running.undecided.take() {
                self.revoke_unwanted(&running.grant, undecided);
            }
            running.tell(&last);
            self.note_login(&running.grant, &running.caller, &last);
        }
    }

    fn note_login(&mut self, grant: &GrantName, caller: &Arc<Caller>, last: &LoginEvent) {
        match last {
            LoginEvent::Done { .. } => {
                self.metrics.of(grant.base()).logins += 1;
                self.audit.note_by(caller, Note::of(event::LOGGED_IN).grant(grant));
            }
            LoginEvent::Failed { error } => {
                self.metrics.of(grant.base()).failed_logins += 1;
                let why = error.error.as_str();
                self.announce(event::LOGIN_FAILED, Some(grant.clone()), Some(why.to_owned()));
                self.audit.note_by(caller, Note::of(event::LOGIN_FAILED).grant(grant).about(why));
            }
            _ => {}
        }
    }
}

impl Subscriber {
    pub(super) fn tell(&self, event: LoginEvent) {
        // Whoever has gone is removed when that is heard of.
        let _ = self.events.send(event);
    }
}

impl Running {
    pub(super) fn tell(&self, event: &LoginEvent) {
        for subscriber in self.subscribers.values() {
            subscriber.tell(event.clone());
        }
    }

    fn tell_and_keep(&mut self, event: LoginEvent) {
        self.tell(&event);
        self.told.push(event);
    }

    fn tell_so_far(&self, number: u64) {
        let Some(subscriber) = self.subscribers.get(&number) else { return };
        self.told.iter().for_each(|event| subscriber.tell(event.clone()));
    }

    /// Tells one subscriber what the person must do, once it is known; the first that can opens the browser.
    fn tell_errand(&mut self, number: u64) {
        let (Some(mut event), Some(subscriber)) = (self.errand.clone(), self.subscribers.get(&number)) else { return };
        let first = subscriber.browser && self.opener.is_none_or(|opener| opener == number);
        if first {
            self.opener = Some(number);
        }
        if let LoginEvent::OpenUrl { open, .. } | LoginEvent::EnterCode { open, .. } = &mut event {
            *open = first;
        }
        subscriber.tell(event);
    }
}

/// What a client got for itself is renewed in the same way.
pub(super) fn flow(request: &LoginRequest, held: Option<&GrantRecord>) -> Option<LoginFlow> {
    request.flow.or_else(|| held?.definition.client_credentials.then_some(LoginFlow::ClientCredentials))
}

/// What was asked for cannot be meant.
pub(super) fn invalid(what: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, what).hint("mcp-authctl login --help")
}

/// What makes two requests for a grant one login.
#[derive(PartialEq)]
struct Likeness {
    scopes: Vec<String>,
    /// The issuer that it must be at.
    authorization_server: Option<String>,
    /// Nobody logs in: the client asks for itself.
    by_client: bool,
    /// Nobody logs in: this token is enough.
    by_token: Option<TokenSource>,
    /// What has been read in that file by whoever named it.
    digest: Option<FileDigest>,
}

impl Likeness {
    fn of(plan: &Plan) -> Self {
        let remote = plan.remote.as_ref();
        let bearer = remote.and_then(|remote| remote.bearer.as_ref());
        Self {
            scopes: plan.scopes.clone(),
            authorization_server: remote.and_then(|remote| remote.authorization_server.clone()),
            by_client: by_client::is_wanted(plan.flow, &plan.provider),
            by_token: token_of(plan),
            digest: bearer.and_then(|bearer| bearer.token.digest().cloned()),
        }
    }
}

/// The token that takes the place of a login.
fn token_of(plan: &Plan) -> Option<TokenSource> {
    plan.remote.as_ref()?.bearer.as_ref().map(|bearer| bearer.token.source())
}

/// Whether a login does without a person.
fn needs_nobody(plan: &Plan) -> bool {
    by_client::is_wanted(plan.flow, &plan.provider) || token_of(plan).is_some()
}

/// What means something only at a remote server is not passed over in silence.
fn of_a_provider(request: &LoginRequest) -> Result<(), ErrorBody> {
    let odd = [
        (request.name.is_some(), "a name for the grant"),
        (request.client_id.is_some(), "a client id"),
        (request.client_secret.is_some(), "a client secret"),
        (request.private_key.is_some(), "a private key"),
        (request.client_metadata_url.is_some(), "a client metadata URL"),
        (request.authorization_server.is_some(), "an authorization server"),
        (request.challenge.is_some(), "a challenge"),
        (request.assertion.is_some(), "an assertion"),
        (request.identity.is_some(), "an identity provider"),
    ];
    match odd.into_iter().find(|(given, _)| *given) {
        Some((_, what)) => {
            let sentence = format!("{what} is taken with the URL of a remote server only");
            Err(ErrorBody::new(ErrorCode::InvalidRequest, sentence).hint("mcp-authctl login https://HOST/PATH"))
        }
        None => Ok(()),
    }
}

/// The scopes to ask for.
fn scopes(
    asked: Option<Vec<String>>,
    request: &LoginRequest,
    (flow, provider): (Option<LoginFlow>, &Provider),
) -> Result<Vec<String>, ErrorBody> {
    // Of an exchange that was begun by hand only the person knows what was asked for.
    if request.exchange.is_some() {
        return Ok(asked.unwrap_or_default());
    }
    let mut scopes = asked.unwrap_or_else(|| provider.scopes.clone());
    if by_client::is_wanted(flow, provider) {
        // They ask for a refresh token, which a client does not get for itself.
    } else if !request.without_refresh_scopes {
        scopes.extend(provider.refresh_scopes.iter().filter(|scope| !scopes.contains(scope)).cloned().collect::<Vec<_>>());
    } else if provider.refresh_scopes.is_empty() {
        let sentence = format!("{} has no scopes that make its tokens expire", provider.name);
        return Err(ErrorBody::new(ErrorCode::Conflict, sentence).hint(format!("mcp-authctl login {}", provider.name)));
    }
    Ok(scopes)
}

pub(super) fn by_hand(exchange: &wire::CodeExchange) -> Result<ByHand, ErrorBody> {
    let redirect_uri = exchange.redirect_uri.clone();
    if redirect_uri.len() > LONGEST_REDIRECT || url::Url::parse(&redirect_uri).is_err() {
        return Err(invalid("the redirect URI is not a URL"));
    }
    let code = Code::given(exchange.code.expose()).ok_or_else(|| invalid("the code is empty or holds a control character"))?;
    let verifier = CodeVerifier::given(exchange.code_verifier.expose());
    let verifier = verifier.ok_or_else(|| invalid("the code verifier is not one of 43 to 128 letters, digits, `-`, `.`, `_` and `~`"))?;
    Ok(ByHand { code, verifier, redirect_uri })
}

/// A program asks where nobody can answer.
fn nobody_there(grant: &GrantName) -> ErrorBody {
    ErrorBody::new(ErrorCode::LoginRequired, format!("a login of `{grant}` needs a person")).hint(format!("mcp-authctl login {grant}"))
}

fn too_many_logins() -> ErrorBody {
    ErrorBody::new(ErrorCode::TooManyRequests, format!("{MOST_LOGINS} logins wait for their browser already"))
        .hint("finish or cancel one; each ends by itself after 5 minutes")
}

pub(super) fn no_login() -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, "there is no such login; it has ended, or was never started").hint("mcp-authctl login NAME")
}

/// 128 random bits: who knows the id may paste a redirect.
fn random_id() -> String {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    hex::encode(bytes)
}

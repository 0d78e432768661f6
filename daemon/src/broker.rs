//! The one task that owns every grant: a mailbox, a timer, and the effects that the grants ask for. It never blocks,
//! and there is no lock elsewhere.
//!
//! [`Broker`] is the handle that the routes hold: each method posts one question and awaits its answer. `Core`
//! is the state behind the mailbox; nothing but the messages of this file's loop touches it.

mod accounts;
mod aside;
mod attempt;
mod bearers;
mod capabilities;
mod consents;
mod core;
mod doctor;
mod first_logins;
mod gate;
mod holders;
mod issuer;
mod lane;
mod lease;
mod logins;
mod naming;
mod notices;
mod policy;
mod providers;
mod relay;
mod relay_clients;
mod remote;
mod served;
mod step_up;
mod telling;
#[cfg(test)]
mod tests;
mod tokens;
mod transports;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};
use tokio::sync::{mpsc, oneshot, watch};

use self::core::Core;
pub use self::lease::Lease;
pub use self::relay::Destination;
use self::served::Purpose;
pub use self::served::Served;
use crate::audit::Audit;
use crate::caller::Caller;
use crate::clock::Clock;
use crate::config::{Config, Network};
use crate::grant::Asker;
use crate::issuer::Feed;
use crate::issuer::clients::Settings;
use crate::notify::Desktop;
use crate::oauth::challenge::Challenge;
use crate::platform::Alarm;
use crate::relay::door::Feed as RelayFeed;
use crate::transport::Transport;
use crate::vault::{Record, Vault};

/// What the broker stands on: the real edges, or those of a test.
#[derive(Clone)]
pub struct Edges {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Makes the way to the providers, anew when `[network]` changes.
    pub connect: fn(&Network) -> Arc<dyn Transport>,
    /// The sealed records.
    pub vault: Vault,
    /// Where notifications are shown.
    pub desktop: Desktop,
    /// Who got what.
    pub audit: Audit,
}

impl std::fmt::Debug for Edges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Edges")
    }
}

/// How the routes reach the broker. Every answer is an [`ErrorBody`] or what the wire says. Cloned for each request, so that a
/// clone is one count.
#[derive(Clone, Debug)]
pub struct Broker(Arc<Ways>);

/// The ways to the core, and past it.
#[derive(Debug)]
struct Ways {
    mailbox: mpsc::UnboundedSender<Message>,
    askers: AtomicU64,
    edges: Edges,
    issuer_settings: watch::Receiver<Option<Settings>>,
    issuer_records: watch::Receiver<Option<Arc<Vec<Record>>>>,
    capabilities: watch::Receiver<Arc<Vec<Record>>>,
    relay: RelayFeed,
}

/// One thing for the core to do.
type Message = Box<dyn FnOnce(&mut Core) + Send>;

/// Where the answer to a question goes.
type Reply<T> = oneshot::Sender<Result<T, ErrorBody>>;

impl Broker {
    /// Starts the broker's task; the vault is opened at once.
    pub fn start(edges: Edges, config: Config, config_path: PathBuf) -> std::io::Result<Self> {
        let (mailbox, messages) = mpsc::unbounded_channel();
        let core = Core::new(edges.clone(), config, config_path, mailbox.clone());
        let (issuer_settings, issuer_records) = core.issuer.subscribe();
        let capabilities = core.capabilities.subscribe();
        let relay = core.relay.subscribe();
        tokio::spawn(run(core, messages, Alarm::new()?));
        Ok(Self(Arc::new(Ways { mailbox, askers: AtomicU64::default(), edges, issuer_settings, issuer_records, capabilities, relay })))
    }

    /// Waits until nothing is answered any more: after [`Self::shutdown`], or by a fault of ours.
    pub async fn gone(&self) {
        self.0.mailbox.closed().await;
    }

    /// `POST /v1/token` of `caller`, kept in the audit. Dropping the future withdraws the question; a refresh that it started
    /// goes on.
    pub async fn token(&self, request: wire::TokenRequest, caller: Arc<Caller>) -> Result<wire::TokenAnswer, ErrorBody> {
        self.asked(request, (caller, Purpose::Token)).await.map(|served| served.answer)
    }

    /// The same for a request of `caller` that the relay sends: of a grant whose tokens are bound to a key, too.
    pub async fn relayed(&self, request: wire::TokenRequest, caller: Arc<Caller>) -> Result<Served, ErrorBody> {
        self.asked(request, (caller, Purpose::Relay)).await
    }

    async fn asked(&self, request: wire::TokenRequest, (caller, purpose): (Arc<Caller>, Purpose)) -> Result<Served, ErrorBody> {
        let mut asking = Asking { broker: self, asker: self.0.askers.fetch_add(1, Ordering::Relaxed), answered: false };
        let (asker, by) = (asking.asker, caller.clone());
        let asked = wire::TokenRequest { grant: request.grant.clone(), resource: request.resource.clone(), ..Default::default() };
        let answer = match caller.only() {
            None => self.ask(move |core, reply| core.token(asker, request, (caller, purpose), reply)).await,
            Some(_) => self.ask(move |core, reply| core.confined_token(asker, request, (caller, purpose), reply)).await,
        };
        asking.answered = true;
        match &answer {
            Ok(served) => self.0.edges.audit.served(&by, &served.answer.grant),
            // Of the rates that a rule gives, too; a question to a person is noted where it is asked.
            Err(error) if matches!(error.error, ErrorCode::AccessDenied | ErrorCode::TooManyRequests) => {
                self.denied(by, None, Some(asked), error.to_string());
            }
            Err(_) => {}
        }
        answer
    }

    /// The audit, for whoever knows who asked.
    pub fn audit(&self) -> &Audit {
        &self.0.edges.audit
    }

    /// A caller was refused the grant that it asked for, or the request that `route` names, with this sentence.
    pub fn denied(&self, caller: Arc<Caller>, route: Option<String>, asked: Option<wire::TokenRequest>, why: String) {
        // A core that has gone tells nobody.
        let _ = self.0.mailbox.send(Box::new(move |core| core.denied(&caller, route.as_deref(), asked.as_ref(), &why)));
    }

    /// Tells whoever follows `GET /v1/events`.
    pub fn tell(&self, event: &'static str, detail: String) {
        // As above.
        let _ = self.0.mailbox.send(Box::new(move |core| core.announce(event, None, Some(detail))));
    }

    /// `GET /metrics`, without what only the listener knows.
    pub async fn metrics(&self, connections: usize) -> Result<String, ErrorBody> {
        self.ask(move |core, reply| core.metrics_page(connections, reply)).await
    }

    /// `GET /v1/grants`.
    pub async fn grants(&self) -> Result<Vec<wire::GrantSummary>, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, |core, reply| core.grants(reply))).await
    }

    /// `GET /v1/grants/NAME`.
    pub async fn grant(&self, name: GrantName) -> Result<wire::GrantSummary, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.grant(&name, reply))).await
    }

    /// `PUT /v1/grants/NAME`.
    pub async fn add_token(&self, name: GrantName, token: wire::StaticToken) -> Result<wire::GrantSummary, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.add_token(name, token, reply))).await
    }

    /// `DELETE /v1/grants/NAME`.
    pub async fn logout(&self, name: GrantName, request: wire::LogoutRequest) -> Result<wire::LogoutAnswer, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.logout(name, &request, reply))).await
    }

    /// `POST /v1/grants/NAME/refresh`. `force` is for grants whose refresh would kill a token that a program holds.
    pub async fn refresh(&self, name: GrantName, request: wire::RefreshRequest) -> Result<wire::GrantSummary, ErrorBody> {
        let mut asking = Asking { broker: self, asker: self.0.askers.fetch_add(1, Ordering::Relaxed), answered: false };
        let (asker, of) = (asking.asker, name.clone());
        let answer = self.ask(move |core, reply| core.refresh(asker, of, request.force, reply)).await;
        asking.answered = true;
        answer?;
        self.grant(name).await
    }

    /// `POST /v1/logins` of `caller`. Dropping the receiver is going away.
    pub async fn login(
        &self,
        request: wire::LoginRequest,
        caller: Arc<Caller>,
    ) -> Result<mpsc::UnboundedReceiver<wire::LoginEvent>, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.login(&request, caller, reply))).await
    }

    /// A server has answered 401 to a relayed request: a login that a bridge asks for because of it goes by these challenges.
    pub fn heard(&self, server: String, challenges: Vec<String>) {
        // A core that has gone logs nobody in.
        let _ = self.0.mailbox.send(Box::new(move |core| {
            let now = core.now().boot;
            core.remote.hear(server, challenges, now);
        }));
    }

    /// The server of a grant has rejected its token: reads its metadata again, at most once in 10 s. `true`: the authorization
    /// server that the grant is from is not named any more, and its tokens go nowhere from now on.
    pub async fn look_again(&self, name: GrantName, challenges: Vec<String>) -> Result<bool, ErrorBody> {
        let challenge = Challenge::read(challenges.iter().map(String::as_str));
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.look_again(&name, challenge, reply))).await
    }

    /// `POST /v1/logins/ID/redirect`.
    pub async fn pasted_redirect(&self, id: String, redirect: wire::PastedRedirect) -> Result<(), ErrorBody> {
        self.ask(move |core, reply| core.pasted_redirect(&id, redirect, reply)).await
    }

    /// `POST /v1/logins/ID/decision`.
    pub async fn decide_login(&self, id: String, decision: wire::LoginDecision) -> Result<(), ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.decide_login(&id, decision, reply))).await
    }

    /// `DELETE /v1/logins/ID`.
    pub async fn cancel_login(&self, id: String) -> Result<(), ErrorBody> {
        self.ask(move |core, reply| core.cancel_login(&id, reply)).await
    }

    /// `GET /v1/providers`.
    pub async fn providers(&self) -> Result<Vec<wire::ProviderSummary>, ErrorBody> {
        self.ask(|core, reply| core.providers(reply)).await
    }

    /// `PUT /v1/providers/NAME`.
    pub async fn define_provider(&self, name: String, definition: wire::ProviderDefinition) -> Result<wire::ProviderSummary, ErrorBody> {
        self.ask(move |core, reply| core.define_provider(name, definition, reply)).await
    }

    /// `PUT /v1/providers/NAME/secret`.
    pub async fn set_client_secret(&self, name: String, request: wire::ClientSecretRequest) -> Result<wire::ProviderSummary, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.set_client_secret(name, request, reply))).await
    }

    /// `POST /v1/vault/setup`.
    pub async fn vault_setup(&self, request: wire::VaultSetup) -> Result<wire::VaultStatus, ErrorBody> {
        self.ask(move |core, reply| core.vault_setup(request, reply)).await
    }

    /// `POST /v1/vault/unlock`.
    pub async fn vault_unlock(&self, request: wire::VaultUnlock) -> Result<wire::VaultStatus, ErrorBody> {
        self.ask(move |core, reply| core.vault_unlock(request, reply)).await
    }

    /// `POST /v1/vault/lock`.
    pub async fn vault_lock(&self) -> Result<wire::VaultStatus, ErrorBody> {
        self.ask(|core, reply| core.vault_lock(reply)).await
    }

    /// `POST /v1/vault/rekey`.
    pub async fn vault_rekey(&self, request: wire::VaultRekey) -> Result<wire::VaultStatus, ErrorBody> {
        self.ask(move |core, reply| core.vault_rekey(request, reply)).await
    }

    /// `POST /v1/vault/backup`.
    pub async fn vault_backup(&self, request: wire::VaultBackup) -> Result<wire::VaultStatus, ErrorBody> {
        self.ask(move |core, reply| core.vault_backup(request, reply)).await
    }

    /// `GET /v1/policy`.
    pub async fn policy(&self) -> Result<wire::Policy, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, |core, reply| core.show_policy(reply))).await
    }

    /// `POST /v1/policy`.
    pub async fn add_rule(&self, rule: wire::NewRule, caller: Arc<Caller>) -> Result<wire::Rule, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.add_rule(rule, caller, reply))).await
    }

    /// `DELETE /v1/policy/ID`.
    pub async fn remove_rule(&self, id: u32, caller: Arc<Caller>) -> Result<wire::RuleRemoved, ErrorBody> {
        self.ask(move |core, reply| core.when_open(reply, move |core, reply| core.remove_rule(id, caller, reply))).await
    }

    /// `DELETE /v1/policy`.
    pub async fn reset_policy(&self, caller: Arc<Caller>) -> Result<wire::Policy, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.reset_policy(caller, reply))).await
    }

    /// `POST /v1/policy/test`.
    pub async fn test_policy(&self, question: wire::PolicyQuestion) -> Result<wire::PolicyAnswer, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.test_policy(&question, reply))).await
    }

    /// `GET /v1/consents`.
    pub async fn consents(&self) -> Result<Vec<wire::Consent>, ErrorBody> {
        self.ask(|core, reply| core.consents(reply)).await
    }

    /// `GET /v1/consents/ID`.
    pub async fn consent(&self, id: String) -> Result<wire::Consent, ErrorBody> {
        self.ask(move |core, reply| core.consent(&id, reply)).await
    }

    /// `POST /v1/consents/ID` of `caller`, who may not be the one that asks.
    pub async fn decide_consent(
        &self,
        id: String,
        decision: wire::ConsentDecision,
        caller: Arc<Caller>,
    ) -> Result<wire::Consent, ErrorBody> {
        self.ask(move |core, reply| core.consent_decided_by(&id, decision.allow, &caller, reply)).await
    }

    /// `POST /v1/reload` and SIGHUP.
    pub async fn reload(&self) -> Result<wire::ConfigStatus, ErrorBody> {
        self.ask(|core, reply| core.reload(reply)).await
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<wire::Status, ErrorBody> {
        self.ask(|core, reply| core.status(reply)).await
    }

    /// `GET /v1/doctor`.
    pub async fn doctor(&self) -> Result<Vec<wire::ProviderReach>, ErrorBody> {
        self.ask(|core, reply| core.doctor(reply)).await
    }

    /// `GET /v1/notifications`.
    pub async fn notifications(&self) -> Result<wire::Notifications, ErrorBody> {
        self.ask(|core, reply| core.notifications(reply)).await
    }

    /// `GET /v1/events`. Dropping the receiver is going away; a reader that is too slow is dropped.
    pub async fn events(&self) -> Result<mpsc::Receiver<wire::Event>, ErrorBody> {
        self.ask(|core, reply| core.events(reply)).await
    }

    /// What the issuer stands on. Its records are the broker's to read, since it opens the vault, and the issuer's to write.
    pub fn issuer_feed(&self) -> Feed {
        let Edges { clock, vault, .. } = self.0.edges.clone();
        Feed { settings: self.0.issuer_settings.clone(), records: self.0.issuer_records.clone(), vault, clock }
    }

    /// Waits for a vault that is being opened, as every question about grants does.
    pub async fn vault_opened(&self) -> Result<(), ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, |_, reply| core::answer(reply, Ok(())))).await
    }

    /// How the issuer is, for `GET /v1/status`; `None`: switched off.
    pub fn issuer_is(&self, status: Option<wire::IssuerStatus>) {
        // A core that has gone tells nobody.
        let _ = self.0.mailbox.send(Box::new(move |core| core.issuer.is(status)));
    }

    /// SIGTERM: lets refreshes in flight finish and be saved, at most 10 s. Returns when nothing is left to do.
    pub async fn shutdown(&self) {
        // Both outcomes mean that nothing is left to do: the answer, or a core that has gone.
        let _ = self.ask(|core, reply| core.shutdown(reply)).await;
    }

    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Core, Reply<T>) + Send + 'static) -> Result<T, ErrorBody> {
        let (reply, answer) = oneshot::channel();
        let stopping = || ErrorBody::new(ErrorCode::InternalError, "the daemon is stopping").hint("try again in a moment");
        self.0.mailbox.send(Box::new(move |core| question(core, reply))).map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// Somebody who waits for a token, until it is answered or gone.
struct Asking<'a> {
    broker: &'a Broker,
    asker: Asker,
    answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let asker = self.asker;
            // A core that has gone has no askers.
            let _ = self.broker.0.mailbox.send(Box::new(move |core| core.cancelled(asker)));
        }
    }
}

async fn run(mut core: Core, mut messages: mpsc::UnboundedReceiver<Message>, mut alarm: Alarm) {
    core.open_vault();
    while !core.is_finished() {
        alarm.set(core.wake_at());
        tokio::select! {
            Some(message) = messages.recv() => message(&mut core),
            _ = alarm.wait() => core.rang(),
        }
        core.wind_down();
    }
}

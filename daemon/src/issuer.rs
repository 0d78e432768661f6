//! Our own authorization server (OAuth 2.1, OpenID Connect Core) for MCP servers on this machine: a port on loopback, where a
//! browser brings a request, and a person who approves it by `mcp-authctl approve CODE` on the Unix socket, never by a click.
//!
//! This file is the edge: one task owns the state (`core`), saves what changes before it answers, and hears of the config
//! and of the vault; another keeps the port (`door`). What a request means is decided in the pure files below.

mod approval;
mod authorize;
pub mod clients;
mod core;
mod credentials;
mod door;
mod error;
mod family;
mod guard;
mod keys;
mod metadata;
mod page;
mod params;
mod reply;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_proto::{Approval, ErrorBody, ErrorCode, IssuerStatus};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use self::clients::Settings;
use self::core::{Ask, Change, Core, Holdings, LOCKED, NOT_SAVED, Outcome, Said};
use self::family::Family;
use self::keys::SigningKey;
use self::reply::Reply;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::loopback;
use crate::vault::{Done, Record, RecordId, RecordKind, Vault};

/// Where random bytes come from: the system, or a test.
pub(crate) type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// The handle of the issuer: what the socket's routes and its own port ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Issuer {
    mailbox: mpsc::UnboundedSender<Message>,
    decisions: watch::Receiver<u64>,
    broker: Broker,
}

/// What the issuer learns from the broker.
pub struct Feed {
    /// `[issuer]`; `None`: it is switched off.
    pub settings: watch::Receiver<Option<Settings>>,
    /// The issuer's records as they were when the vault was opened; `None`: it is not open.
    pub records: watch::Receiver<Option<Arc<Vec<Record>>>>,
    /// Where changes go.
    pub vault: Vault,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Feed")
    }
}

#[derive(Debug)]
enum Message {
    Ask(Ask, oneshot::Sender<Said>),
    Approval(String, Option<bool>, oneshot::Sender<Result<Approval, ErrorBody>>),
    Keys(oneshot::Sender<Result<Value, ErrorBody>>),
}

/// How long the vault may take to save a change.
const PATIENCE: Duration = Duration::from_secs(5);
/// The name of the record with the signing key.
const KEY: &str = "key";

impl Issuer {
    /// Starts the issuer's tasks. They do nothing while it is switched off. `ports` are those that a service manager holds.
    pub fn start(broker: &Broker, ports: Arc<[std::net::TcpListener]>) -> Self {
        let feed = broker.issuer_feed();
        let (mailbox, inbox) = mpsc::unbounded_channel();
        let (decided, decisions) = watch::channel(0);
        let issuer = Self { mailbox, decisions, broker: broker.clone() };
        tokio::spawn(keep_door(feed.settings.clone(), issuer.clone(), broker.clone(), ports));
        tokio::spawn(Task { core: None, feed, decided }.run(inbox));
        issuer
    }

    /// `GET /issuer/keys`: a JWK Set (RFC 7517).
    pub async fn keys(&self) -> Result<Value, ErrorBody> {
        let keys = async || self.put(Message::Keys).await.unwrap_or_else(|| Err(stopping()));
        match keys().await {
            Err(error) if error.error == ErrorCode::VaultLocked => {
                self.broker.vault_opened().await?;
                keys().await
            }
            answer => answer,
        }
    }

    /// `/v1/issuer/approvals/CODE`: what waits under a code, and with `allow` its end.
    pub async fn approval(&self, code: String, allow: Option<bool>) -> Result<Approval, ErrorBody> {
        self.put(|reply| Message::Approval(code, allow, reply)).await.unwrap_or_else(|| Err(stopping()))
    }

    async fn ask(&self, ask: Ask) -> Said {
        // A vault that stays locked is told in the answer.
        let _ = self.broker.vault_opened().await;
        let gone = || Said::Now(Reply::text(503, "mcp-authd is stopping\n"));
        self.put(|reply| Message::Ask(ask, reply)).await.unwrap_or_else(gone)
    }

    /// Changes whenever a request was decided.
    fn decisions(&self) -> watch::Receiver<u64> {
        self.decisions.clone()
    }

    async fn put<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(message(reply)).ok()?;
        answer.await.ok()
    }
}

/// The task that owns the state. One question at a time: while a change is on its way to the disk nobody is answered, so that
/// two refreshes of one family cannot cross.
struct Task {
    /// There since it was first switched on, and kept from then on: it knows of more than the records of the opening.
    core: Option<Core>,
    feed: Feed,
    decided: watch::Sender<u64>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        self.configure().await;
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                Ok(()) = self.feed.settings.changed() => self.configure().await,
                Ok(()) = self.feed.records.changed() => self.open().await,
            }
        }
    }

    async fn configure(&mut self) {
        let settings = self.feed.settings.borrow_and_update().clone();
        match (settings, &mut self.core) {
            (Some(settings), Some(core)) => core.adopt(settings),
            (Some(settings), core @ None) => {
                *core = Some(Core::new(settings, user()));
                self.open().await;
            }
            (None, _) => {}
        }
    }

    /// Takes in what the vault holds, or lets go of it.
    async fn open(&mut self) {
        let records = self.feed.records.borrow_and_update().clone();
        if self.core.is_none() {
            return;
        }
        let holdings = match records {
            Some(records) => self.holdings(&records).await,
            None => None,
        };
        if let Some(core) = &mut self.core {
            core.hold(holdings);
        }
        self.end_families().await;
    }

    async fn end_families(&mut self) {
        let now = self.feed.clock.now();
        for id in self.core.iter().flat_map(|core| core.to_end(now)).collect::<Vec<_>>() {
            self.carry_through(Change::End(id)).await;
        }
    }

    async fn holdings(&self, records: &[Record]) -> Option<Holdings> {
        let (key, subject) = match records.iter().find(|record| record.id == key_id()) {
            Some(record) => stored_key(record)?,
            None => self.new_key().await?,
        };
        let now = self.feed.clock.now();
        let records = records.iter().filter(|record| record.id.name.starts_with(family::RECORDS));
        let families = records.filter_map(|record| Family::from_record(record, now));
        Some(Holdings { key, subject, families: families.map(|family| (family.id.clone(), family)).collect() })
    }

    async fn new_key(&self) -> Option<(SigningKey, String)> {
        let key = SigningKey::generate().map_err(|error| tracing::error!(%error, "the issuer has no signing key")).ok()?;
        let subject = random_text::<16>(&mut system_random).to_string();
        let record = key_record(&key, &subject);
        self.carry_out(|vault, done| vault.save(record, done)).await.then_some((key, subject))
    }

    async fn take(&mut self, message: Message) {
        let on = self.feed.settings.borrow().is_some();
        // A key that could not be saved, perhaps because the disk was full.
        if on && self.core.as_ref().is_some_and(|core| core.holdings.is_none()) && self.feed.records.borrow().is_some() {
            self.open().await;
        }
        let now = self.feed.clock.now();
        let core = self.core.as_mut().filter(|_| on);
        // Whoever has gone meanwhile needs no answer.
        match (message, core) {
            (Message::Ask(ask, reply), _) => drop(reply.send(self.answer(ask).await)),
            (Message::Approval(_, _, reply), None) => drop(reply.send(Err(switched_off()))),
            (Message::Keys(reply), None) => drop(reply.send(Err(switched_off()))),
            (Message::Approval(code, allow, reply), Some(core)) => {
                drop(reply.send(core.approval(&code, allow, now)));
                self.decided.send_modify(|count| *count += 1);
            }
            (Message::Keys(reply), Some(core)) => {
                let locked = || ErrorBody::new(ErrorCode::VaultLocked, LOCKED.description).hint("mcp-authctl unlock");
                drop(reply.send(core.holdings.as_ref().map(|holdings| holdings.key.jwks()).ok_or_else(locked)));
            }
        }
    }

    async fn answer(&mut self, ask: Ask) -> Said {
        let now = self.feed.clock.now();
        let pressed = matches!(ask, Ask::Press(_));
        let Some(core) = &mut self.core else { return Said::Now(Reply::text(404, "not found\n")) };
        let Outcome { said, changes } = core.handle(ask, now, &mut system_random);
        if pressed {
            self.decided.send_modify(|count| *count += 1);
        }
        let (mut saved, any_change) = (true, !changes.is_empty());
        for change in changes {
            saved &= self.carry_through(change).await;
        }
        if saved && any_change {
            self.end_families().await;
        }
        match &self.core {
            Some(core) if !saved => core.refused(NOT_SAVED).said,
            _ => said,
        }
    }

    /// Saves a change, and only then lets it count. Whether it is on disk.
    async fn carry_through(&mut self, change: Change) -> bool {
        let is_saved = self.save(&change).await;
        match &mut self.core {
            Some(core) if is_saved => core.apply(change),
            Some(core) => core.undo(change),
            None => {}
        }
        is_saved
    }

    async fn save(&self, change: &Change) -> bool {
        match change {
            Change::Save(family, _) => self.carry_out(|vault, done| vault.save(family.to_record(), done)).await,
            Change::End(id) => self.carry_out(|vault, done| vault.delete(Family::record_id(id), done)).await,
        }
    }

    async fn carry_out(&self, job: impl FnOnce(&Vault, Done<()>)) -> bool {
        let (told, outcome) = oneshot::channel();
        // Whoever has given up does not listen any more.
        job(&self.feed.vault, Box::new(move |result| drop(told.send(result))));
        match tokio::time::timeout(PATIENCE, outcome).await {
            Ok(Ok(Ok(()))) => return true,
            Ok(Ok(Err(error))) => tracing::error!(%error, "a change of the issuer was not saved"),
            _ => tracing::error!("a change of the issuer was not saved in time"),
        }
        false
    }
}

/// Holds the port as the config says, and tries again when somebody else has it.
async fn keep_door(mut settings: watch::Receiver<Option<Settings>>, issuer: Issuer, broker: Broker, ports: Arc<[std::net::TcpListener]>) {
    loop {
        let current = settings.borrow_and_update().clone();
        let changed = match current {
            Some(current) => tokio::select! {
                never = serve(current, &issuer, &broker, &ports) => match never {},
                changed = settings.changed() => changed,
            },
            None => {
                broker.issuer_is(None);
                settings.changed().await
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn serve(settings: Settings, issuer: &Issuer, broker: &Broker, ports: &[std::net::TcpListener]) -> std::convert::Infallible {
    let url = settings.issuer();
    let status = |error| broker.issuer_is(Some(IssuerStatus { issuer: url.clone(), error }));
    let listener = loopback::listen_at_last("the issuer", settings.listen, ports, status).await;
    tracing::info!(issuer = url, "the issuer is ready");
    door::serve(listener, settings, issuer.clone()).await
}

fn key_id() -> RecordId {
    RecordId { kind: RecordKind::Issuer, name: KEY.to_owned() }
}

/// The record of the signing key: PKCS #8 in base64, and the `sub` that goes with it.
#[derive(serde::Serialize, serde::Deserialize, zeroize::ZeroizeOnDrop)]
struct StoredKey {
    pkcs8: String,
    subject: String,
}

fn key_record(key: &SigningKey, subject: &str) -> Record {
    let stored = StoredKey { pkcs8: URL_SAFE_NO_PAD.encode(key.pkcs8()), subject: subject.to_owned() };
    let plaintext = Zeroizing::new(serde_json::to_vec(&stored).expect("it has only string keys"));
    Record { id: key_id(), generation: 1, plaintext }
}

fn stored_key(record: &Record) -> Option<(SigningKey, String)> {
    let stored: Option<StoredKey> = serde_json::from_slice(&record.plaintext).ok();
    let key = stored.and_then(|stored| {
        let pkcs8 = Zeroizing::new(URL_SAFE_NO_PAD.decode(&stored.pkcs8).ok()?);
        Some((SigningKey::from_pkcs8(&pkcs8).ok()?, stored.subject.clone()))
    });
    if key.is_none() {
        // Not replaced: a newer mcp-authd may have written it.
        tracing::error!("the issuer's signing key is not of this version; it is left alone, and the issuer gives no tokens");
    }
    key
}

/// What the person is called on this machine, as far as the environment tells.
fn user() -> Option<String> {
    let name = ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|variable| std::env::var(variable).ok())?;
    crate::oauth::text::clean_option(Some(&name))
}

fn system_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel gives random bytes");
}

/// So many random bytes as a text for URLs.
pub(crate) fn random_text<const BYTES: usize>(random: Random<'_>) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    random(bytes.as_mut_slice());
    Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

fn switched_off() -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, "the issuer is switched off")
        .hint("set `enabled = true` in [issuer] of config.toml, then mcp-authctl reload")
}

fn stopping() -> ErrorBody {
    ErrorBody::new(ErrorCode::InternalError, "the daemon is stopping").hint("try again in a moment")
}

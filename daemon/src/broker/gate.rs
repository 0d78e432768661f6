//! The way into the vault: opening it, questions that wait for it, locking it, and the winding down before a lock or an exit.

use std::path::PathBuf;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, KeySourceKind, event};
use zeroize::Zeroizing;

use super::Reply;
use super::core::{Core, answer};
use super::policy::PolicySide;
use super::providers::StoredSecret;
use super::remote::RemoteSide;
use crate::audit::Note;
use crate::clock::{Boot, Now};
use crate::grant::Grant;
use crate::grant::record::GrantRecord;
use crate::registration::Registration;
use crate::vault::{Opened, RecordKind, VaultError};

/// How long a question waits for a vault that may open by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at a keychain that is not there: doubling, and at once when somebody asks, but not more often than this.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
const RETRY_ASKED: Duration = Duration::from_secs(1);
/// How long refreshes in flight may take to end before a lock or an exit.
const WINDING: Duration = Duration::from_secs(10);

/// Whether the vault is open, and who waits for that.
#[derive(Default)]
pub(super) struct Gate {
    state: State,
    key_source: Option<KeySourceKind>,
    /// The trouble that was told last: the same one is not told at every try.
    told: Option<VaultError>,
    quarantined: usize,
    parked: Vec<Parked>,
    /// What waits for the end of the present try to open, however it ends.
    unsettled: Vec<Later>,
    winding: Option<Winding>,
    /// The daemon ends: nothing would be saved any more.
    ending: bool,
    /// How often it was closed by hand: a key that was on its way then opens nothing.
    closings: u64,
}

#[derive(Default)]
enum State {
    #[default]
    Opening,
    Open,
    Closed(Closed),
}

struct Closed {
    error: VaultError,
    tried: Boot,
    /// When to try again by itself; `None`: only when a person does something.
    retry_at: Option<Boot>,
    delay: Duration,
}

/// A question that waits for the vault; called with whether it is open now.
struct Parked {
    until: Boot,
    go: Later,
}

/// Something to do in another moment.
type Later = Box<dyn FnOnce(&mut Core) + Send>;

struct Winding {
    until: Boot,
    then: Later,
}

impl Gate {
    pub(super) fn is_winding(&self) -> bool {
        self.winding.is_some()
    }

    /// Whether no request may go to a provider: what it brings could be lost.
    pub(super) fn sends_nothing(&self) -> bool {
        self.is_winding() || self.ending
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether what the vault holds is in memory: a lock that is under way may still be taken back.
    pub(super) fn is_loaded(&self) -> bool {
        self.is_open() || self.is_winding()
    }

    pub(super) fn wake_at(&self) -> Option<Boot> {
        let retry = match &self.state {
            State::Closed(closed) => closed.retry_at,
            State::Opening | State::Open => None,
        };
        let parked = self.parked.iter().map(|parked| parked.until);
        parked.chain(retry).chain(self.winding.as_ref().map(|winding| winding.until)).min()
    }
}

impl Core {
    /// Asks a question now if the vault is open, in a few seconds if it may open by then, else refuses it.
    pub(super) fn when_open<T: Send + 'static>(&mut self, reply: Reply<T>, question: impl FnOnce(&mut Self, Reply<T>) + Send + 'static) {
        if self.gate.is_open() {
            return question(self, reply);
        }
        let now = self.now();
        match &self.gate.state {
            State::Closed(closed) if closed.retry_at.is_none() => return answer(reply, Err(self.locked())),
            State::Closed(closed) if now.boot >= closed.tried + RETRY_ASKED => self.open_vault(),
            _ => {}
        }
        let go =
            Box::new(move |core: &mut Self| if core.gate.is_open() { question(core, reply) } else { answer(reply, Err(core.locked())) });
        self.gate.parked.push(Parked { until: now.boot + PATIENCE, go });
    }

    /// Tries to open the vault without asking the person anything.
    pub(super) fn open_vault(&mut self) {
        if matches!(self.gate.state, State::Open) {
            return;
        }
        let delay = match std::mem::take(&mut self.gate.state) {
            State::Closed(closed) => (closed.delay * 2).min(RETRY.1),
            State::Opening | State::Open => RETRY.0,
        };
        let closings = self.gate.closings;
        let done = self.back(move |core, result| {
            let was_open = core.gate.is_open();
            core.opened(core.unless_locked(closings, result), delay);
            if core.gate.is_open() && !was_open {
                // Nobody has asked for it.
                core.audit.note(Note::of(event::VAULT_UNLOCKED));
            }
        });
        self.edges.vault.open(false, None, done);
    }

    /// Goes on now, or when the present try to open the vault has ended: two at a time would fight for the keychain.
    fn when_settled(&mut self, then: impl FnOnce(&mut Self) + Send + 'static) {
        match self.gate.state {
            State::Opening => self.gate.unsettled.push(Box::new(then)),
            State::Open | State::Closed(_) => then(self),
        }
    }

    fn unless_locked(&self, closings: u64, result: Result<Opened, VaultError>) -> Result<Opened, VaultError> {
        if closings == self.gate.closings { result } else { Err(locked_by_hand()) }
    }

    fn opened(&mut self, result: Result<Opened, VaultError>, delay: Duration) {
        match result {
            Ok(opened) => self.take_in(opened),
            // A late answer of an earlier try.
            Err(_) if self.gate.is_open() => {}
            Err(error) => {
                let now = self.now().boot;
                let retry_at = error.passes_by_itself().then_some(now + delay);
                self.gate.key_source = error.key_source().or(self.gate.key_source);
                if self.gate.told.as_ref() != Some(&error) {
                    self.gate.told = Some(error.clone());
                    self.announce(event::VAULT_LOCKED, None, Some(error.to_string()));
                }
                self.gate.state = State::Closed(Closed { error, tried: now, retry_at, delay });
                if retry_at.is_none() {
                    self.ask_parked(Boot::from_start(Duration::MAX));
                }
            }
        }
        for then in std::mem::take(&mut self.gate.unsettled) {
            then(self);
        }
    }

    fn take_in(&mut self, opened: Opened) {
        if self.gate.is_open() {
            return;
        }
        self.gate.state = State::Open;
        self.gate.told = None;
        self.gate.key_source = Some(opened.key_source);
        self.gate.quarantined = opened.quarantined;
        self.undeleted.clear();
        if opened.policy_lost {
            self.policy_lost();
        }
        let (issuers, records): (Vec<_>, Vec<_>) = opened.records.into_iter().partition(|record| record.id.kind == RecordKind::Issuer);
        self.issuer.opened(issuers);
        let (capabilities, records): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.id.kind == RecordKind::Capability);
        self.capabilities_opened(capabilities);
        let (clients, records): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.id.kind == RecordKind::RelayClient);
        self.relay.opened(&clients);
        for record in records {
            match record.id.kind {
                RecordKind::Grant => match GrantRecord::from_plaintext(&record.plaintext) {
                    Ok(grant) => {
                        let interrupted = grant.refresh_token.as_ref().is_some_and(|token| {
                            let fingerprint = token.fingerprint();
                            opened
                                .intents
                                .iter()
                                .any(|i| i.id == record.id && i.generation == record.generation && i.fingerprint == fingerprint)
                        });
                        self.restore(grant, interrupted);
                    }
                    Err(_) => {
                        tracing::warn!(record = %record.id.name, "a grant's record is not of this version; it is left alone");
                        self.gate.quarantined += 1;
                    }
                },
                RecordKind::ProviderSecret => {
                    if let Some(secret) = StoredSecret::from_record(&record) {
                        self.secrets.insert(record.id.name, secret);
                    }
                }
                RecordKind::Policy => self.restore_policy(&record),
                RecordKind::Registration => {
                    if let Some(registration) = Registration::from_record(&record) {
                        self.remote.restore(registration);
                    }
                }
                RecordKind::Issuer | RecordKind::Capability | RecordKind::RelayClient => {}
            }
        }
        self.announce(event::VAULT_UNLOCKED, None, None);
        self.ask_parked(Boot::from_start(Duration::MAX));
    }

    fn restore(&mut self, record: GrantRecord, interrupted: bool) {
        let (name, now, terms) = (record.name.clone(), self.now(), self.terms_of(&record.definition));
        let life = self.life();
        let grant = Grant::restore(record, terms, interrupted, now, life);
        self.admit(name, grant, Vec::new());
    }

    pub(super) fn gate_woke(&mut self, now: Now) {
        if matches!(&self.gate.state, State::Closed(closed) if closed.retry_at.is_some_and(|at| at <= now.boot)) {
            self.open_vault();
        }
        self.ask_parked(now.boot);
    }

    fn ask_parked(&mut self, until: Boot) {
        let (due, waiting) = std::mem::take(&mut self.gate.parked).into_iter().partition(|parked| parked.until <= until);
        self.gate.parked = waiting;
        for Parked { go, .. } in due {
            go(self);
        }
    }

    pub(super) fn locked(&self) -> ErrorBody {
        match &self.gate.state {
            State::Closed(closed) => ErrorBody { error: ErrorCode::VaultLocked, ..refusal(&closed.error) },
            State::Opening | State::Open => {
                ErrorBody::new(ErrorCode::VaultLocked, "the vault is being opened").hint("try again in a moment")
            }
        }
    }

    pub(super) fn vault_status(&self) -> wire::VaultStatus {
        let (state, reason, hint) = match &self.gate.state {
            State::Open => (wire::VaultState::Unlocked, None, None),
            State::Opening => (wire::VaultState::Opening, None, None),
            State::Closed(closed) => {
                let body = refusal(&closed.error);
                (wire::VaultState::Locked, Some(body.error_description), body.hint)
            }
        };
        let needs_setup = matches!(&self.gate.state, State::Closed(Closed { error: VaultError::NeedsSetup(_), .. }));
        wire::VaultStatus {
            state,
            key_source: self.gate.key_source,
            reason,
            hint,
            quarantined: self.gate.quarantined,
            needs_setup,
            credential: self.edges.vault.has_credential(),
            folder: Some(self.edges.vault.folder().display().to_string()),
        }
    }

    // ---- the vault routes ----

    pub(super) fn vault_setup(&mut self, request: wire::VaultSetup, reply: Reply<wire::VaultStatus>) {
        let closings = self.gate.closings;
        let done = self.back(move |core, result| match core.unless_locked(closings, result) {
            Ok(opened) => {
                core.take_in(opened);
                answer(reply, Ok(core.vault_status()));
            }
            Err(error) => answer(reply, Err(refusal(&error))),
        });
        self.when_settled(move |core| core.edges.vault.setup(request.key_source, hidden(request.passphrase), done));
    }

    pub(super) fn vault_unlock(&mut self, request: wire::VaultUnlock, reply: Reply<wire::VaultStatus>) {
        if self.gate.is_winding() {
            return self.after_winding(move |core| core.vault_unlock(request, reply));
        }
        let closings = self.gate.closings;
        let done = self.back(move |core, result| {
            let result = core.unless_locked(closings, result);
            let refused = result.as_ref().err().map(refusal);
            // One that was not tried tells nothing about the vault.
            if !matches!(result, Err(VaultError::TooSoon(_))) {
                core.opened(result, RETRY.0);
            }
            answer(reply, refused.map_or_else(|| Ok(core.vault_status()), Err));
        });
        self.when_settled(move |core| core.edges.vault.open(true, hidden(request.passphrase), done));
    }

    /// The vault lost its key by a fault of its own: what is in RAM is newer than its records, so only the key is fetched.
    pub(super) fn hold_key_again(&mut self) {
        if self.gate.is_open() && !self.gate.is_winding() {
            let done = self.back(|_, _| {});
            self.edges.vault.open(false, None, done);
        }
    }

    pub(super) fn vault_lock(&mut self, reply: Reply<wire::VaultStatus>) {
        if self.gate.is_winding() {
            if self.gate.is_open() {
                return answer(reply, Err(ErrorBody::new(ErrorCode::Conflict, "the daemon is stopping")));
            }
            return self.after_winding(move |core| {
                if core.gate.is_open() {
                    return core.vault_lock(reply);
                }
                let status = core.vault_status();
                answer(reply, Ok(status));
            });
        }
        if let Some(error) = self.loses_tokens() {
            return answer(reply, Err(error));
        }
        self.gate.closings += 1;
        self.close(locked_by_hand());
        self.wind(move |core| {
            // Of a refresh that was in flight.
            if let Some(error) = core.loses_tokens() {
                core.gate.state = State::Open;
                core.announce(event::VAULT_UNLOCKED, None, None);
                return answer(reply, Err(error));
            }
            let done = core.back(move |core, result: Result<(), VaultError>| {
                let locked = result.map(|()| core.vault_status());
                answer(reply, locked.map_err(|error| refusal(&error)));
            });
            core.edges.vault.lock(done);
            core.drop_grants();
        });
    }

    /// Why a lock would cost a login.
    fn loses_tokens(&self) -> Option<ErrorBody> {
        let in_ram: Vec<_> =
            self.grants.values().filter(|grant| grant.is_not_durable()).map(|grant| grant.record().name.to_string()).collect();
        let sentence = format!("the newest tokens of {} are in memory only, and locking would lose them", in_ram.join(", "));
        let error = ErrorBody::new(ErrorCode::Conflict, sentence).hint("make room on the disk, and try again in a minute");
        (!in_ram.is_empty()).then_some(error)
    }

    pub(super) fn vault_rekey(&mut self, request: wire::VaultRekey, reply: Reply<wire::VaultStatus>) {
        if self.gate.is_winding() {
            return self.after_winding(move |core| core.vault_rekey(request, reply));
        }
        let closings = self.gate.closings;
        let done = self.back(move |core, result| match result {
            Ok(source) => {
                core.gate.key_source = Some(source);
                if closings == core.gate.closings {
                    core.open_vault();
                }
                answer(reply, Ok(core.vault_status()));
            }
            Err(error) => answer(reply, Err(refusal(&error))),
        });
        self.when_settled(move |core| core.edges.vault.rekey(request.key_source, hidden(request.passphrase), done));
    }

    pub(super) fn vault_backup(&mut self, request: wire::VaultBackup, reply: Reply<wire::VaultStatus>) {
        let path = PathBuf::from(&request.path);
        if !path.is_absolute() {
            let error = ErrorBody::new(ErrorCode::InvalidRequest, "the backup's folder must be an absolute path");
            return answer(reply, Err(error.hint("mcp-authctl vault backup makes it one")));
        }
        let done = self.back(move |core, result: Result<(), VaultError>| {
            let saved = result.map(|()| core.vault_status());
            answer(reply, saved.map_err(|error| refusal(&error)));
        });
        self.edges.vault.backup(path, done);
    }

    // ---- winding down ----

    /// No token is served from now on; refreshes in flight still end and are saved.
    fn close(&mut self, error: VaultError) {
        self.announce(event::VAULT_LOCKED, None, Some(error.to_string()));
        self.gate.state = State::Closed(Closed { error, tried: self.now().boot, retry_at: None, delay: RETRY.0 });
        self.ask_parked(Boot::from_start(Duration::MAX));
        self.leases.end_all();
        self.logins_cancelled();
        self.policy_closed();
        let asking: Vec<_> = self.askers.keys().copied().collect();
        for asker in asking {
            if let Some(waiting) = self.askers.remove(&asker) {
                self.give(&waiting.grant, crate::grant::Input::Cancelled(asker));
                answer(waiting.reply, Err(self.locked()));
            }
        }
    }

    /// SIGTERM.
    pub(super) fn shutdown(&mut self, reply: Reply<()>) {
        if self.gate.winding.is_some() {
            // A lock that is under way ends within the same time.
            return self.after_winding(move |core| core.finish(reply));
        }
        self.logins_cancelled();
        self.wind(move |core| core.finish(reply));
    }

    /// What must not meet grants that are still finishing waits until they have.
    fn after_winding(&mut self, next: impl FnOnce(&mut Self) + Send + 'static) {
        let Some(Winding { until, then }) = self.gate.winding.take() else { return next(self) };
        let both = move |core: &mut Self| {
            then(core);
            next(core);
        };
        self.gate.winding = Some(Winding { until, then: Box::new(both) });
    }

    pub(super) fn finish(&mut self, reply: Reply<()>) {
        self.gate.ending = true;
        self.tell_lost();
        self.clear_notices(|core| {
            core.finished = true;
            answer(reply, Ok(()));
        });
    }

    fn wind(&mut self, then: impl FnOnce(&mut Self) + Send + 'static) {
        self.gate.winding = Some(Winding { until: self.now().boot + WINDING, then: Box::new(then) });
        self.clear_lanes();
    }

    /// Goes on once every grant is at rest, or the time is up.
    pub(super) fn wind_down(&mut self) {
        let Some(winding) = &self.gate.winding else { return };
        let at_rest = self.rescues == 0 && self.grants.values().all(Grant::is_at_rest);
        if winding.until <= self.now().boot || at_rest {
            let winding = self.gate.winding.take();
            if let Some(winding) = winding {
                (winding.then)(self);
            }
        }
    }

    fn tell_lost(&self) {
        for grant in self.grants.values().filter(|grant| grant.is_not_durable()) {
            tracing::error!(grant = %grant.record().name, "its newest refresh token could not be written to disk and is lost");
        }
    }

    fn drop_grants(&mut self) {
        self.tell_lost();
        let names: Vec<_> = self.grants.keys().cloned().collect();
        for name in names {
            self.release(&name);
        }
        self.secrets.clear();
        self.logins.replaced.clear();
        self.remote = RemoteSide::default();
        self.set_aside.clear();
        self.policy = PolicySide::default();
        self.issuer.locked();
        self.relay.locked();
    }
}

fn locked_by_hand() -> VaultError {
    VaultError::Locked { reason: "the vault was locked by hand".into(), hint: Some("mcp-authctl unlock".into()), key_source: None }
}

/// What a person is told of a vault that did not do as asked.
pub(super) fn refusal(error: &VaultError) -> ErrorBody {
    let (code, hint) = match error {
        VaultError::NeedsSetup(_) => (ErrorCode::VaultLocked, Some("mcp-authctl setup".to_owned())),
        VaultError::Locked { hint, .. } => (ErrorCode::VaultLocked, hint.clone()),
        VaultError::WrongPassphrase => (ErrorCode::VaultLocked, Some("mcp-authctl unlock".to_owned())),
        VaultError::TooSoon(_) => (ErrorCode::TooManyRequests, Some("wait, then mcp-authctl unlock".to_owned())),
        VaultError::Conflict { hint, .. } => (ErrorCode::Conflict, hint.clone()),
        VaultError::Disk(_) => (ErrorCode::InternalError, Some("look at the folder, its owner and the free space".to_owned())),
    };
    let mut body = ErrorBody::new(code, error.to_string());
    body.hint = hint;
    body.retry_after = if let VaultError::TooSoon(pause) = error { Some(pause.as_secs() + 1) } else { None };
    body
}

fn hidden(secret: Option<mcp_auth_proto::Secret>) -> Option<Zeroizing<String>> {
    secret.map(|secret| Zeroizing::new(secret.expose().to_owned()))
}

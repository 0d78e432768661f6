//! The vault's thread: takes jobs in order, lets changes that came together share their syncs, and holds the open vault.
//!
//! It blocks on the disk and on nothing else: key sources are asked on threads of their own, which post back. One
//! errand with the keychain at a time, because one that hangs may hang for ever.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use mcp_auth_proto::KeySourceKind;
use zeroize::Zeroizing;

use super::attempts::Attempts;
use super::header::{self, Header, OtherKey};
use super::jobs::{Answer, Goal, Job, Surroundings};
use super::key::{Errand, KeyError, Secret};
use super::store::{self, Change, Store};
use super::{Opened, Places, Record, RecordId, VaultError};
use crate::platform::{self, NotPrivate};

/// Changes that may share their syncs.
const BATCH: usize = 256;

struct Pending {
    ticket: u64,
    until: Instant,
    goal: Goal,
}

/// A vault whose key is here.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) header: Header,
    pub(super) store: Store,
}

/// The vault's thread.
pub(super) struct Keeper {
    pub(super) places: Places,
    pub(super) surroundings: Surroundings,
    pub(super) held: Option<Held>,
    inbox: Receiver<Job>,
    // Weak, so that the thread does not keep its own inbox open.
    back: Weak<Sender<Job>>,
    waiting: VecDeque<Job>,
    pending: Option<Pending>,
    tickets: u64,
    // The ticket of the errand that the keychain has not come back from.
    at_keychain: Option<u64>,
    attempts: Attempts,
}

impl Keeper {
    pub(super) fn new(places: Places, surroundings: Surroundings, inbox: Receiver<Job>, back: Weak<Sender<Job>>) -> Self {
        Self {
            places,
            surroundings,
            held: None,
            inbox,
            back,
            waiting: VecDeque::new(),
            pending: None,
            tickets: 0,
            at_keychain: None,
            attempts: Attempts::default(),
        }
    }

    /// Works until the last handle is gone.
    pub(super) fn run(mut self) {
        while let Some(job) = self.next() {
            if catch_unwind(AssertUnwindSafe(|| self.carry_out(job))).is_err() {
                self.start_over();
            }
            // Sealing and naming records leave copies of their keys there.
            platform::wipe_stack();
        }
    }

    /// After a panic: what was half done is on disk in an order that survives, but what is in RAM may be wrong, so all but
    /// the key is read again. The key stays, since a passphrase could not be had again while tokens wait to be saved; not
    /// where the vault was just moving to another one.
    pub(super) fn start_over(&mut self) {
        tracing::error!("the vault's thread panicked; its records are read again");
        let read_again = |mut held: Held| {
            let header = Header::read(&self.places.vault).ok()??;
            let same = header.key_id == held.header.key_id && held.store.reload().is_ok();
            held.header = header;
            same.then_some(held)
        };
        let held = self.held.take();
        self.held = catch_unwind(AssertUnwindSafe(|| held.and_then(read_again))).ok().flatten();
        if self.held.is_none() {
            tracing::error!("the vault is locked until it is opened again");
        }
    }

    fn next(&mut self) -> Option<Job> {
        loop {
            if self.pending.as_ref().is_some_and(|pending| pending.until <= Instant::now()) {
                self.time_out();
            }
            if let Some(job) = self.waiting.pop_front() {
                return Some(job);
            }
            let job = match &self.pending {
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(pending) => self.inbox.recv_timeout(pending.until.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn carry_out(&mut self, job: Job) {
        match job {
            Job::Open { prompt, passphrase, done } => self.open(prompt, passphrase, done),
            Job::Setup { source, passphrase, done } => self.setup(source, passphrase, done),
            Job::Lock(done) => {
                self.held = None;
                if let Some(pending) = self.pending.take() {
                    pending.goal.fail(locked("the vault was locked meanwhile"));
                }
                done.give(Ok(()));
            }
            Job::Change(change, done) => self.change(change, done),
            Job::Rekey { source, passphrase, done } => self.rekey(source, passphrase, done),
            Job::Backup { to, done } => done.give(self.backup(&to)),
            Job::Key { ticket, result } => self.key_came(ticket, result),
        }
    }

    fn change(&mut self, change: Change, done: Answer<()>) {
        let (mut changes, mut answers) = (vec![change], vec![done]);
        self.waiting.extend(self.inbox.try_iter());
        while changes.len() < BATCH && matches!(self.waiting.front(), Some(Job::Change(..))) {
            if let Some(Job::Change(change, done)) = self.waiting.pop_front() {
                changes.push(change);
                answers.push(done);
            }
        }
        let results = match &mut self.held {
            Some(held) => held.store.change(&changes),
            None => vec![Err(locked("the vault is locked")); changes.len()],
        };
        answers.into_iter().zip(results).for_each(|(answer, result)| answer.give(result));
    }

    fn open(&mut self, prompt: bool, passphrase: Option<Zeroizing<String>>, done: Answer<Opened>) {
        if let Some(held) = &mut self.held {
            return done.give(held.store.reload().map(|records| held.opened(records)));
        }
        let goal = match self.existing() {
            Err(error) => return done.give(Err(error)),
            Ok(Some(header)) => {
                if let Some(named) = self.places.key_source.filter(|named| *named != header.key_source) {
                    return done.give(Err(VaultError::Conflict {
                        reason: format!("the vault's key source is {}, but MCP_AUTHD_KEY_SOURCE says {named}", header.key_source),
                        hint: Some(format!("mcp-authctl vault rekey --key-source {named}")),
                    }));
                }
                Goal::Open(header, done)
            }
            Ok(None) => {
                let source = self.places.key_source.unwrap_or(KeySourceKind::Keychain);
                if source == KeySourceKind::Passphrase {
                    return done.give(Err(VaultError::NeedsSetup(
                        "there is no vault yet, and its passphrase has to be chosen: mcp-authctl setup --key-source passphrase".into(),
                    )));
                }
                Goal::Create { draft: Header::draft(None, source, self.surroundings.stretch), silent: true, done }
            }
        };
        self.send_for_key(goal, passphrase, prompt);
    }

    fn setup(&mut self, source: KeySourceKind, passphrase: Option<Zeroizing<String>>, done: Answer<Opened>) {
        let conflict = |reason: String, hint: &str| Err(VaultError::Conflict { reason, hint: Some(hint.to_owned()) });
        let fits = match self.existing() {
            Err(error) => Err(error),
            Ok(Some(header)) => {
                let hint = format!("mcp-authctl vault rekey --key-source {source}");
                conflict(format!("there is a vault already, with the key source {}", header.key_source), &hint)
            }
            Ok(None) => match self.places.key_source.filter(|named| *named != source) {
                Some(named) => conflict(format!("MCP_AUTHD_KEY_SOURCE says {named}"), "unset it, or choose the same key source"),
                None => needs_passphrase(source, passphrase.as_ref()),
            },
        };
        match fits {
            Err(error) => done.give(Err(error)),
            Ok(()) => {
                let draft = Header::draft(None, source, self.surroundings.stretch);
                self.send_for_key(Goal::Create { draft, silent: false, done }, passphrase, true);
            }
        }
    }

    /// The header of the vault that is there. Looked up each time: it may have been restored meanwhile.
    pub(super) fn existing(&self) -> Result<Option<Header>, VaultError> {
        let vault = &self.places.vault;
        platform::private_folder(vault).map_err(|error| match error {
            NotPrivate::Io(error) => store::refused(&error),
            error => VaultError::Conflict {
                reason: format!("the vault's folder {} {error}", vault.display()),
                hint: Some("move it away, or set MCP_AUTHD_STATE_DIR to a folder of your own".into()),
            },
        })?;
        match Header::read(vault)? {
            None if header::has_stray_records(vault) => Err(VaultError::Locked {
                reason: format!("{} holds records, but the vault's header vault.json is missing", vault.display()),
                hint: Some("restore vault.json from a backup, or move the folder away".into()),
                key_source: None,
            }),
            header => Ok(header),
        }
    }

    /// Fetches or makes the secret that the goal needs, on a thread of its own.
    pub(super) fn send_for_key(&mut self, goal: Goal, passphrase: Option<Zeroizing<String>>, prompt: bool) {
        let source = goal.header().key_source;
        if let Err(error) = self.free_for(source) {
            return goal.fail(error);
        }
        let errand = if matches!(goal, Goal::Open(..) | Goal::Unlock { .. }) { Errand::Fetch } else { Errand::Make };
        let tries = errand == Errand::Fetch && source == KeySourceKind::Passphrase && passphrase.is_some();
        if let Some(pause) = self.attempts.pause(Instant::now()).filter(|_| tries) {
            return goal.fail(VaultError::TooSoon(pause));
        }
        let at_once = source == KeySourceKind::Keychain && !prompt;
        let patience = if !at_once { self.surroundings.patience_for_prompt } else { self.surroundings.patience };
        match self.send(errand, goal.header().clone(), passphrase, prompt) {
            Ok(ticket) => self.pending = Some(Pending { ticket, until: Instant::now() + patience, goal }),
            Err(error) => self.give_up(goal, |goal| goal.fail(error)),
        }
    }

    /// Refuses while another key is on its way, or while the keychain that is needed hangs.
    pub(super) fn free_for(&self, source: KeySourceKind) -> Result<(), VaultError> {
        let reason = match (self.at_keychain, &self.pending) {
            (Some(_), Some(_)) => "the keychain has not answered yet",
            (Some(_), None) if source == KeySourceKind::Keychain => "the keychain has not answered yet",
            (None, Some(_)) => "the vault's key is being fetched already",
            (_, None) => return Ok(()),
        };
        Err(VaultError::Locked {
            reason: reason.into(),
            hint: Some("answer the keychain if it asks for its password, or try again soon".into()),
            key_source: Some(KeySourceKind::Keychain),
        })
    }

    /// Removes a key that opens nothing any more from where that takes no time.
    pub(super) fn forget_key(&self, header: &Header, key: &OtherKey) -> Result<(), KeyError> {
        match key.key_source {
            KeySourceKind::Keychain => Ok(()),
            // Not on a thread: two writers of the key file could lose a line.
            _ => self.surroundings.sources(&self.places, None, false).forget(header, key),
        }
    }

    /// Removes a key that opens nothing any more from the keychain. What stays behind is a key without a lock.
    pub(super) fn forget_keychain_key(&mut self, header: &Header, key: OtherKey) {
        if key.key_source == KeySourceKind::Keychain && self.at_keychain.is_none() {
            let _ = self.send(Errand::Forget(key), header.clone(), None, false);
        }
    }

    fn send(&mut self, errand: Errand, header: Header, passphrase: Option<Zeroizing<String>>, prompt: bool) -> Result<u64, VaultError> {
        self.tickets += 1;
        let ticket = self.tickets;
        let back = self.back.upgrade().ok_or_else(|| locked("mcp-authd is ending"))?;
        let (places, surroundings) = (self.places.clone(), self.surroundings.clone());
        let at_keychain = header.key_source == KeySourceKind::Keychain || matches!(errand, Errand::Forget(_));
        let work = move || {
            let run = || surroundings.sources(&places, passphrase, prompt).run(errand, &header);
            let result = catch_unwind(AssertUnwindSafe(run))
                .unwrap_or_else(|_| Err(KeyError::Closed("the key source failed unexpectedly".into(), "mcp-authctl doctor".into())));
            drop(back.send(Job::Key { ticket, result }));
        };
        std::thread::Builder::new().name("vault-key".into()).spawn(work).map_err(|error| store::refused(&error))?;
        if at_keychain {
            self.at_keychain = Some(ticket);
        }
        Ok(ticket)
    }

    fn time_out(&mut self) {
        if let Some(pending) = self.pending.take() {
            let source = pending.goal.header().key_source;
            let reason = match source {
                KeySourceKind::Keychain => "the keychain has not answered yet",
                _ => "the key source has not answered yet",
            };
            // With its source: it is a keychain that may answer later, and is asked again by itself.
            let error = VaultError::Locked { reason: reason.into(), hint: Some("mcp-authctl unlock".into()), key_source: Some(source) };
            self.give_up(pending.goal, |goal| goal.fail(error));
        }
    }

    /// Ends a goal without its key. A change of key that was announced is taken back, once nobody can still make the key.
    fn give_up(&mut self, goal: Goal, fail: impl FnOnce(Goal)) {
        let announced = matches!(goal, Goal::Rekey { .. });
        if announced && self.at_keychain.is_none() {
            self.finish_rekey();
        }
        fail(goal);
    }

    fn key_came(&mut self, ticket: u64, result: Result<Secret, KeyError>) {
        if self.at_keychain == Some(ticket) {
            self.at_keychain = None;
        }
        let Some(pending) = self.pending.take_if(|pending| pending.ticket == ticket) else {
            // Too late: nobody waits for it, and a later open starts afresh.
            if !matches!(&self.pending, Some(Pending { goal: Goal::Rekey { .. }, .. })) {
                self.finish_rekey();
            }
            return;
        };
        match (pending.goal, result) {
            (goal, Err(error)) => self.give_up(goal, |goal| goal.key_failed(error)),
            (Goal::Open(header, done), Ok(secret)) => done.give(self.hold(header, &secret)),
            (Goal::Create { draft, done, .. }, Ok(secret)) => done.give(self.create(draft, &secret)),
            (Goal::Unlock { header, target, passphrase, done }, Ok(secret)) => match self.hold(header, &secret) {
                Ok(_) => self.rekey(Some(target), passphrase, done),
                Err(error) => done.give(Err(error)),
            },
            (Goal::Rekey { draft, done }, Ok(secret)) => match self.move_to(draft, &secret) {
                Ok(header) => self.take_farewell(header, done),
                Err(error) => done.give(Err(error)),
            },
            (goal @ Goal::Farewell { .. }, Ok(_)) => goal.end(),
        }
    }

    /// Answers when the keychain is free again, so that whoever opens the vault next does not find it busy.
    fn take_farewell(&mut self, header: Header, done: Answer<KeySourceKind>) {
        let goal = Goal::Farewell { header, done };
        match self.at_keychain {
            Some(ticket) => self.pending = Some(Pending { ticket, until: Instant::now() + self.surroundings.patience, goal }),
            None => goal.end(),
        }
    }

    pub(super) fn hold(&mut self, header: Header, secret: &[u8]) -> Result<Opened, VaultError> {
        let Some(keys) = header.keys(secret) else { return Err(self.wrong_key(header.key_source)) };
        self.attempts.right();
        let (store, records) = Store::load(&self.places.vault, keys)?;
        self.held = Some(Held { header, store });
        self.finish_rekey();
        header::remove_leftovers(&self.places.vault);
        let held = self.held.as_mut().expect("set above");
        let opened = held.opened(records);
        held.store.tidy();
        Ok(opened)
    }

    fn wrong_key(&mut self, source: KeySourceKind) -> VaultError {
        if source == KeySourceKind::Passphrase {
            self.attempts.wrong(Instant::now());
            return VaultError::WrongPassphrase;
        }
        VaultError::Locked {
            reason: format!("the key in the {source} is not this vault's"),
            hint: Some("bring back the key that the vault was made with".into()),
            key_source: Some(source),
        }
    }

    pub(super) fn create(&mut self, mut draft: Header, secret: &[u8]) -> Result<Opened, VaultError> {
        let vault = &self.places.vault;
        let keys = draft.bind(secret);
        let mut store = Store::create(vault, keys).map_err(|error| store::refused(&error))?;
        draft.write(vault).map_err(|error| store::refused(&error))?;
        store.tidy();
        let held = self.held.insert(Held { header: draft, store });
        Ok(held.opened(Vec::new()))
    }
}

impl Held {
    fn opened(&self, records: Vec<Record>) -> Opened {
        Opened {
            intents: self.store.intents(&records),
            quarantined: self.store.quarantined(),
            policy_lost: self.store.is_lost(&RecordId::policy()),
            key_source: self.header.key_source,
            records,
        }
    }
}

/// Refuses a key source that needs a passphrase and has none.
pub(super) fn needs_passphrase(source: KeySourceKind, passphrase: Option<&Zeroizing<String>>) -> Result<(), VaultError> {
    if source != KeySourceKind::Passphrase || passphrase.is_some_and(|passphrase| !passphrase.is_empty()) {
        return Ok(());
    }
    Err(VaultError::Conflict { reason: "this key source needs a passphrase, and none was given".into(), hint: None })
}

/// The vault is closed, and a person or the keychain can open it.
pub(super) fn locked(reason: &str) -> VaultError {
    VaultError::Locked { reason: reason.to_owned(), hint: Some("mcp-authctl unlock".into()), key_source: None }
}

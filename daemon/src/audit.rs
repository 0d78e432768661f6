//! The audit: who got what, when and how often, as JSON lines beside the vault. This file owns the handle that notes take,
//! and the order of things: an answer is never kept waiting. What the system shows at once of whoever asked is looked at before
//! the answer goes, the rest beside it, and once for all connections of a process. A thread of its own writes and reads the
//! files (`clerk`); what belongs into one line decides `ledger`.
//!
//! It never holds a token, the name of a person's account, or a URL: notes are made of names that the config or a grant has,
//! and of words of our own.

mod clerk;
mod file;
mod filter;
mod ledger;
#[cfg(test)]
mod tests;
mod uses;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_auth_proto::{AuditLine, AuditRequest, ErrorBody, ErrorCode, GrantName, Program, event};
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::clerk::{Clerk, Job};
use self::file::Files;
use self::ledger::Entry;
use self::uses::Counter;
use crate::caller::{Caller, Known};
use crate::clock::Clock;
use crate::oauth::text::clean;

pub use self::uses::Uses;

/// The most notes that wait for the disk. What comes beyond is counted and told as a gap.
const QUEUE: usize = 1024;
/// The most programs that are looked up at a time. Those beyond are noted by their process alone.
const LOOKUPS: u32 = 64;
/// How long the end of the daemon waits for programs that are being looked up, and for the last lines.
const LAST: Duration = Duration::from_secs(1);

/// Something to be noted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    event: &'static str,
    grant: Option<GrantName>,
    about: Option<String>,
}

impl Note {
    /// What has happened: one of [`event`].
    pub fn of(event: &'static str) -> Self {
        Self { event, grant: None, about: None }
    }

    /// The grant that it is about.
    #[must_use]
    pub fn grant(self, grant: &GrantName) -> Self {
        Self { grant: Some(grant.clone()), ..self }
    }

    /// What else it is about, in a word or two: not a person, nothing that a provider has said. A URL is left out.
    #[must_use]
    pub fn about(self, about: &str) -> Self {
        Self { about: Some(clean(about)).filter(|about| !about.contains("://")), ..self }
    }
}

/// The handle of the audit. Cheap to clone.
#[derive(Clone)]
pub struct Audit(Option<Arc<Desk>>);

/// Where notes are taken in.
struct Desk {
    clerk: SyncSender<Job>,
    condition: Arc<Condition>,
    lookups: Arc<Semaphore>,
    known: Known,
}

/// How the thread is.
#[derive(Debug, Default)]
struct Condition {
    /// Why the file cannot be written.
    trouble: Mutex<Option<String>>,
    /// Notes that found no room, and are not told as a gap yet.
    lost: AtomicU64,
}

impl Audit {
    /// Starts the thread that keeps the audit in `folder`, which is made when it is needed, for our own user alone.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(folder: PathBuf, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (sender, inbox) = sync_channel(QUEUE);
        let condition = Arc::<Condition>::default();
        let clerk = Clerk::new(Files::in_folder(folder), clock, condition.clone());
        std::thread::Builder::new().name("audit".into()).spawn(|| clerk.run(inbox))?;
        let lookups = Arc::new(Semaphore::new(LOOKUPS as usize));
        let audit = Self(Some(Arc::new(Desk { clerk: sender, condition, lookups, known: Known::default() })));
        audit.note(Note::of(event::STARTED).about(concat!("mcp-authd ", env!("CARGO_PKG_VERSION"))));
        Ok(audit)
    }

    /// One that keeps nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Notes what the daemon has done by itself.
    pub fn note(&self, note: Note) {
        if let Some(desk) = &self.0 {
            desk.keep(note, None, None);
        }
    }

    /// Notes what a process has done of which nothing is left to look up.
    pub fn note_of(&self, process: u32, note: Note) {
        if let Some(desk) = &self.0 {
            desk.keep(note, Some(Program { pid: Some(process), ..Program::default() }), None);
        }
    }

    /// Notes what was done for a caller. Must be called on the runtime, before the caller has its answer; the rest of the look at
    /// who it is comes later.
    pub fn note_by(&self, caller: &Arc<Caller>, note: Note) {
        if let Some(desk) = &self.0 {
            Desk::look_up(desk, caller, note, None);
        }
    }

    /// Notes that a caller was given a token of a grant, as [`Self::note_by`]. Only the first of a process costs more than a
    /// count.
    pub fn served(&self, caller: &Arc<Caller>, grant: &GrantName) {
        let Some(desk) = self.0.as_ref().filter(|_| !caller.uses.count(grant)) else { return };
        let note = || Note::of(event::TOKEN).grant(grant);
        match desk.known.of(caller) {
            Some(known) => {
                let (counter, is_first) = known.uses.another(grant);
                caller.uses.share(grant, &counter);
                if is_first {
                    desk.keep(note(), Some(known.who(caller).shown()), Some(counter));
                }
            }
            None => {
                let (counter, _) = caller.uses.another(grant);
                Desk::look_up(desk, caller, note(), Some(counter));
            }
        }
    }

    /// `GET /v1/audit`: the lines, the oldest first.
    ///
    /// # Errors
    /// `too_many_requests` where the thread has too much to do.
    pub async fn read(&self, request: AuditRequest) -> Result<Vec<AuditLine>, ErrorBody> {
        self.ask(|reply| Job::Read(request, reply)).await
    }

    /// The same, and what happens from now on. A reader that is too slow is dropped.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn follow(&self, request: AuditRequest) -> Result<mpsc::Receiver<AuditLine>, ErrorBody> {
        self.ask(|reply| Job::Follow(request, reply)).await
    }

    /// Why nothing can be written at the moment.
    pub fn trouble(&self) -> Option<String> {
        self.0.as_ref()?.condition.trouble().clone()
    }

    /// The daemon ends: what was only counted is written.
    pub async fn finish(&self) {
        let Some(desk) = &self.0 else { return };
        // Whoever is still being looked up comes first. One that takes too long is left out.
        let _all = tokio::time::timeout(LAST, desk.lookups.acquire_many(LOOKUPS)).await;
        if !tokio::time::timeout(LAST, self.ask(Job::Finish)).await.is_ok_and(|written| written.is_ok()) {
            tracing::warn!("the last lines of the audit could not be written in time");
        }
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, ErrorBody> {
        let none = || ErrorBody::new(ErrorCode::NotFound, "this daemon keeps no audit");
        let (reply, answer) = oneshot::channel();
        self.0.as_ref().ok_or_else(none)?.clerk.try_send(job(reply)).map_err(|error| match error {
            TrySendError::Full(_) => {
                ErrorBody::new(ErrorCode::TooManyRequests, "the audit has too much to write").hint("try again in a moment")
            }
            TrySendError::Disconnected(_) => none(),
        })?;
        answer.await.map_err(|_| none())
    }
}

impl Desk {
    fn look_up(desk: &Arc<Self>, caller: &Arc<Caller>, note: Note, counter: Option<Arc<Counter>>) {
        let Ok(permit) = desk.lookups.clone().try_acquire_owned() else {
            return desk.keep(note, Some(Program { pid: caller.peer().pid, ..Program::default() }), counter);
        };
        let (desk, caller, who) = (desk.clone(), caller.clone(), caller.who_it_was());
        // Its turn comes after that of the connection, which has the answer to write.
        tokio::spawn(async move {
            let program = who.await.shown();
            if let (Some(counter), Some(grant), Some(known)) = (&counter, &note.grant, desk.known.remember(&caller)) {
                known.uses.share(grant, counter);
            }
            desk.keep(note, Some(program), counter);
            drop(permit);
        });
    }

    fn keep(&self, note: Note, program: Option<Program>, counter: Option<Arc<Counter>>) {
        let entry = Entry { note, program, counter: counter.clone() };
        if self.clerk.try_send(Job::Keep(entry)).is_err() {
            // Nobody looks at the counter: the next use is a first one again.
            let counted = counter.map_or(0, |counter| counter.abandon());
            self.condition.lost.fetch_add(1 + counted, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Audit")
    }
}

impl Condition {
    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! One connection's other end, for as long as the connection lasts: whoever asks on it, and what program that is, which is
//! looked up only when somebody wants to know. What it may have is the policy's business.

mod known;
#[cfg_attr(not(target_os = "linux"), path = "caller/untold.rs")]
mod looking;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
#[cfg(target_os = "linux")]
mod unit;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak as WeakArc};

use self::looking::{Glance, Seen};
use crate::audit::Uses;
use crate::platform::{Process, Stream};
use crate::policy::rule::runs_others;
use crate::policy::{Only, Peer, Program, Weak, Who};

pub(crate) use self::known::Known;

/// The other end of one connection.
#[derive(Debug)]
pub struct Caller {
    peer: Peer,
    only: Option<Only>,
    /// The connection: it holds on to the process, and to nothing else of ours.
    stream: WeakArc<Mutex<Stream>>,
    process: OnceLock<Arc<Process>>,
    seen: tokio::sync::OnceCell<Arc<Seen>>,
    /// What it was given, as the audit counts it.
    pub(crate) uses: Uses,
}

impl Caller {
    /// Somebody of whom nothing but this is known.
    pub fn new(peer: Peer) -> Arc<Self> {
        Self::with(WeakArc::new(), peer, None)
    }

    /// A client of the relay's port, which may have this.
    pub fn of_client(only: Only) -> Arc<Self> {
        Self::with(WeakArc::new(), Peer { uid: crate::platform::own_uid(), pid: None }, Some(only))
    }

    /// Whoever made this connection, through a capability socket for `only`.
    pub fn of(stream: &Arc<Mutex<Stream>>, peer: Peer, only: Option<Only>) -> Arc<Self> {
        Self::with(Arc::downgrade(stream), peer, only)
    }

    fn with(stream: WeakArc<Mutex<Stream>>, peer: Peer, only: Option<Only>) -> Arc<Self> {
        let (process, seen) = (OnceLock::new(), tokio::sync::OnceCell::new());
        Arc::new(Self { peer, only, stream, process, seen, uses: Uses::default() })
    }

    /// Its user and process.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What the capability socket that it came through is for.
    pub fn only(&self) -> Option<&Only> {
        self.only.as_ref()
    }

    /// The process that connected, as long as the connection lasts and the system keeps hold of the process. The first
    /// question costs a file descriptor: that is why it is not asked of every connection.
    pub fn process(&self) -> Option<&Arc<Process>> {
        if let Some(process) = self.process.get() {
            return Some(process);
        }
        let stream = self.stream.upgrade()?;
        let found = Process::of_peer(&stream.lock().unwrap_or_else(PoisonError::into_inner), self.peer.pid?)?;
        Some(self.process.get_or_init(|| Arc::new(found)))
    }

    /// What is known of it now. Looked up at the first question, which takes up to a second; later ones only see whether
    /// it still holds.
    pub async fn who(&self) -> Who {
        let found = self.found(|| self.glance()).await;
        self.told(found)
    }

    /// The same where it was looked up before. Never waits.
    pub fn who_now(&self) -> Option<Who> {
        let seen = self.seen.get()?;
        Some(self.told(self.holding(seen)))
    }

    /// The same for a record of what it did: of a process that is ending by now, what it was when it was looked at. That is not
    /// to be judged by. What the system shows at once is looked at before this returns: whoever waits for an answer is still
    /// there.
    pub fn who_it_was(self: &Arc<Self>) -> impl Future<Output = Who> + Send + use<> {
        let caller = self.clone();
        let glance = self.seen.get().is_none().then(|| self.glance());
        async move {
            let glimpsed = glance.as_ref().and_then(|glance| Some(glance.as_ref().ok()?.executable().to_owned()));
            let weak = match caller.found(|| glance.unwrap_or_else(|| caller.glance())).await {
                Err(weak @ (Weak::Gone | Weak::Hidden | Weak::Slow)) => weak,
                found => return caller.told(found),
            };
            match (caller.seen.get(), glimpsed) {
                (Some(seen), _) => caller.told(Ok(seen)),
                (None, Some(path)) => {
                    let (program, weak) = (Some(Arc::new(glimpse(&path))), vec![Weak::Glimpsed]);
                    Who { program, weak, ..caller.told(Err(Weak::Glimpsed)) }
                }
                (None, None) => caller.told(Err(weak)),
            }
        }
    }

    /// What the system shows of its process at once.
    fn glance(&self) -> Result<Glance, Weak> {
        looking::glance(self.connected()?)
    }

    async fn found(&self, glance: impl FnOnce() -> Result<Glance, Weak> + Send) -> Result<&Seen, Weak> {
        let process = self.connected()?;
        // What was not found is looked for again.
        let look = || async move { looking::look(process.clone(), glance()?).await.map(Arc::new) };
        let seen = self.seen.get_or_try_init(look).await?;
        self.holding(seen)
    }

    fn holding<'a>(&self, seen: &'a Seen) -> Result<&'a Seen, Weak> {
        seen.holds(self.connected()?).map(|()| seen)
    }

    fn connected(&self) -> Result<&Arc<Process>, Weak> {
        match self.peer.pid {
            _ if self.only.as_ref().is_some_and(|only| only.client().is_some()) => Err(Weak::Port),
            _ if !cfg!(target_os = "linux") => Err(Weak::Untold),
            None => Err(Weak::Elsewhere),
            Some(_) => self.process().ok_or(Weak::Gone),
        }
    }

    fn told(&self, found: Result<&Seen, Weak>) -> Who {
        let (program, weak) = match found {
            Ok(seen) => (Some(seen.program().clone()), seen.weak().to_vec()),
            Err(weak) => (None, vec![weak]),
        };
        let who = Who { peer: self.peer, program, only: self.only.clone(), weak };
        tracing::debug!(pid = self.peer.pid, who = ?who.shown(), "looked who asks");
        who
    }
}

/// A program of which nothing but its path was seen.
fn glimpse(executable: &Path) -> Program {
    Program { executable: executable.to_owned(), interpreter: runs_others(executable), ..Program::default() }
}

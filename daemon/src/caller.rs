//! One connection's other end, for as long as the connection lasts: whoever asks on it, and what program that is, which is
//! looked up only when somebody wants to know. What it may have is the policy's business.

#[cfg(target_os = "linux")]
mod looking;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
#[cfg(target_os = "linux")]
mod unit;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak as WeakArc};

use crate::audit::Uses;
use crate::platform::{Process, Stream};
use crate::policy::{Only, Peer, Program, Weak, Who};

/// The other end of one connection.
#[derive(Debug)]
pub struct Caller {
    peer: Peer,
    only: Option<Only>,
    /// The connection: it holds on to the process, and to nothing else of ours.
    stream: WeakArc<Mutex<Stream>>,
    process: OnceLock<Arc<Process>>,
    #[cfg(target_os = "linux")]
    seen: tokio::sync::OnceCell<looking::Seen>,
    /// What it was given, as the audit counts it.
    pub(crate) uses: Uses,
}

impl Caller {
    /// Somebody of whom nothing but this is known.
    pub fn new(peer: Peer) -> Arc<Self> {
        Self::with(WeakArc::new(), peer, None)
    }

    /// Whoever made this connection, through a capability socket for `only`.
    pub fn of(stream: &Arc<Mutex<Stream>>, peer: Peer, only: Option<Only>) -> Arc<Self> {
        Self::with(Arc::downgrade(stream), peer, only)
    }

    fn with(stream: WeakArc<Mutex<Stream>>, peer: Peer, only: Option<Only>) -> Arc<Self> {
        Arc::new(Self {
            peer,
            only,
            stream,
            uses: Uses::default(),
            process: OnceLock::new(),
            #[cfg(target_os = "linux")]
            seen: tokio::sync::OnceCell::new(),
        })
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
        let (program, weak) = match self.program().await {
            Ok((program, weak)) => (Some(program), weak),
            Err(weak) => (None, vec![weak]),
        };
        let who = Who { peer: self.peer, program, only: self.only.clone(), weak };
        tracing::debug!(pid = self.peer.pid, who = ?who.shown(), "looked who asks");
        who
    }

    /// The same for a record of what it did: of a process that is ending by now, what it was when it was looked at. That is not
    /// to be judged by.
    pub async fn who_it_was(&self) -> Who {
        let who = self.who().await;
        #[cfg(target_os = "linux")]
        if who.program.is_none()
            && who.weak.iter().all(|weak| matches!(weak, Weak::Gone | Weak::Hidden))
            && let Some(seen) = self.seen.get()
        {
            return Who { program: Some(seen.program.clone()), weak: seen.weak.clone(), ..who };
        }
        who
    }

    #[cfg(target_os = "linux")]
    async fn program(&self) -> Result<(Program, Vec<Weak>), Weak> {
        if self.peer.pid.is_none() {
            return Err(Weak::Elsewhere);
        }
        let process = self.process().ok_or(Weak::Gone)?;
        // What was not found is looked for again.
        let seen = self.seen.get_or_try_init(|| looking::look(process.clone())).await?;
        seen.holds(process)?;
        Ok((seen.program.clone(), seen.weak.clone()))
    }

    #[cfg(not(target_os = "linux"))]
    async fn program(&self) -> Result<(Program, Vec<Weak>), Weak> {
        Err(Weak::Untold)
    }
}

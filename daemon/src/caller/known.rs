//! The processes that were given tokens of late: a further connection of one costs no look and no note of its own. For the
//! audit alone, which asks who it was; what a caller may have is decided by a look on its own connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Caller, Seen};
use crate::audit::Uses;
use crate::policy::Who;

/// The most processes that are remembered: each costs a file descriptor.
const MOST: usize = 32;

/// The processes, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<u32, Arc<Acquaintance>>>);

/// A process that was looked at.
#[derive(Debug)]
pub(crate) struct Acquaintance {
    seen: Arc<Seen>,
    /// What it was given, on all its connections.
    pub(crate) uses: Uses,
}

impl Known {
    /// The process of this connection, if it is one of them and the same program runs there still. Never waits.
    pub(crate) fn of(&self, caller: &Caller) -> Option<Arc<Acquaintance>> {
        let known = self.taken().get(&caller.peer.pid?)?.clone();
        let process = caller.process().filter(|_| caller.only.is_none())?;
        // Both live at one moment, and have one number: they are one process.
        (process.is_alive() && known.seen.holds(process).is_ok()).then_some(known)
    }

    /// Remembers the process of a connection that was looked at. Not an interpreter, which may run another script by the next
    /// connection, under the same path; nor what is behind a capability socket, which is told with its grants.
    pub(crate) fn remember(&self, caller: &Caller) -> Option<Arc<Acquaintance>> {
        let seen = caller.seen.get().filter(|seen| caller.only.is_none() && !seen.program().interpreter)?;
        let process = caller.process().filter(|process| seen.holds(process).is_ok())?;
        let mut taken = self.taken();
        if taken.len() >= MOST {
            taken.retain(|_, known| known.seen.is_there());
        }
        if taken.len() >= MOST {
            taken.clear();
        }
        let known = Arc::new(Acquaintance { seen: seen.clone(), uses: Uses::default() });
        taken.insert(process.pid(), known.clone());
        Some(known)
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u32, Arc<Acquaintance>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acquaintance {
    /// Who it is, as its connection says.
    pub(crate) fn who(&self, caller: &Caller) -> Who {
        caller.told(Ok(&self.seen))
    }
}

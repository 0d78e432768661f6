//! Who may ask an identity provider now: two at a time at each, first come first served. Refreshes queue in a [`super::lane`];
//! here first logins wait, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::lane::WIDTH;

/// The turns at every identity provider that is being asked.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<Semaphore>>>);

impl Turns {
    /// The turns at one of them.
    pub(super) fn at(&self, identity_provider: &str) -> Arc<Semaphore> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, turns| turns.strong_count() > 0);
        known.get(identity_provider).and_then(Weak::upgrade).unwrap_or_else(|| {
            let turns = Arc::new(Semaphore::new(WIDTH));
            known.insert(identity_provider.to_owned(), Arc::downgrade(&turns));
            turns
        })
    }

    /// Nobody who waits for a turn gets one any more.
    pub(super) fn clear(&self) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_values().filter_map(|turns| turns.upgrade()).for_each(|turns| turns.close());
    }
}

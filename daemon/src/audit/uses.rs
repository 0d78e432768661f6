//! How often one connection was given tokens: counted in memory on its side, read by the audit's thread on the other. While
//! nobody asks, neither side wakes the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mcp_auth_proto::GrantName;

/// Set when the thread has stopped looking at a counter that stood at zero: the next use is a first one again.
const RESTING: u64 = 1 << 63;

/// What one connection has used.
#[derive(Debug, Default)]
pub struct Uses(Mutex<BTreeMap<GrantName, Arc<Counter>>>);

/// The uses of one grant on one connection that the thread has not seen.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Uses {
    /// One more use. Gives a counter where it is the first, which is to be noted at once; the counter counts those to come.
    pub(super) fn another(&self, grant: &GrantName) -> Option<Arc<Counter>> {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.get(grant).is_some_and(|counter| counter.count()) {
            return None;
        }
        let counter = Arc::<Counter>::default();
        uses.insert(grant.clone(), counter.clone());
        Some(counter)
    }
}

impl Counter {
    /// Counts; false where nobody looks any more.
    fn count(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) & RESTING == 0
    }

    /// What was counted since the last time. Not for one that rests.
    pub(super) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }

    /// The same, for one that nobody will look at any more.
    pub(super) fn abandon(&self) -> u64 {
        self.0.swap(RESTING, Ordering::Relaxed) & !RESTING
    }

    /// The same, left as it is.
    pub(super) fn look(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Stops looking, unless something was counted.
    pub(super) fn rest(&self) -> bool {
        self.0.compare_exchange(0, RESTING, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_use_is_told_and_later_ones_are_counted_until_the_counter_rests() {
        let (uses, grant) = (Uses::default(), "github".parse().unwrap());
        let first = uses.another(&grant).unwrap();
        assert!(uses.another(&grant).is_none() && uses.another(&grant).is_none());
        assert!(uses.another(&"notion".parse().unwrap()).is_some(), "another grant has a first use of its own");
        assert!(!first.rest(), "what was counted would be lost");
        assert_eq!((first.take(), first.take()), (2, 0));
        assert!(first.rest());
        let second = uses.another(&grant).expect("the first use after a rest is told");
        assert!(uses.another(&grant).is_none());
        assert_eq!(second.look(), 1);
    }
}

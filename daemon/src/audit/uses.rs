//! How often a connection, or a process on all of its connections, was given tokens: counted in memory on its side, read by the
//! audit's thread on the other. While nobody asks, neither side wakes the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcp_auth_proto::GrantName;

/// Set when the thread has stopped looking at a counter that stood at zero: the next use is a first one again.
const RESTING: u64 = 1 << 63;

/// The grants that one connection, or one process, was given tokens of.
#[derive(Debug, Default)]
pub struct Uses(Mutex<BTreeMap<GrantName, Arc<Counter>>>);

/// The uses of one grant that the thread has not seen.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Uses {
    /// One more use; false where none was counted here of late.
    pub(super) fn count(&self, grant: &GrantName) -> bool {
        self.taken().get(grant).is_some_and(|counter| counter.count())
    }

    /// One more use, with its counter; and whether it is the first, which is to be noted: the counter counts those to come.
    pub(super) fn another(&self, grant: &GrantName) -> (Arc<Counter>, bool) {
        let mut uses = self.taken();
        if let Some(counter) = uses.get(grant).filter(|counter| counter.count()) {
            return (counter.clone(), false);
        }
        let counter = Arc::<Counter>::default();
        uses.insert(grant.clone(), counter.clone());
        (counter, true)
    }

    /// Further uses are counted by this one.
    pub(super) fn share(&self, grant: &GrantName, counter: &Arc<Counter>) {
        self.taken().insert(grant.clone(), counter.clone());
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<GrantName, Arc<Counter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert!(!uses.count(&grant), "nothing is counted yet");
        let (first, is_first) = uses.another(&grant);
        assert!(is_first && uses.count(&grant) && !uses.another(&grant).1);
        assert!(uses.another(&"notion".parse().unwrap()).1, "another grant has a first use of its own");
        assert!(!first.rest(), "what was counted would be lost");
        assert_eq!((first.take(), first.take()), (2, 0));
        assert!(first.rest());
        assert!(!uses.count(&grant), "nobody looks at it any more");
        let (second, is_first) = uses.another(&grant);
        assert!(is_first, "the first use after a rest is told");
        assert!(uses.count(&grant));
        assert_eq!(second.look(), 1);
    }

    #[test]
    fn connections_of_one_process_count_together() {
        let (process, grant) = (Uses::default(), "github".parse().unwrap());
        let connections = [Uses::default(), Uses::default()];
        let mut firsts = 0;
        for uses in connections.iter().cycle().take(10) {
            if !uses.count(&grant) {
                let (counter, is_first) = process.another(&grant);
                uses.share(&grant, &counter);
                firsts += usize::from(is_first);
            }
        }
        assert_eq!((firsts, process.another(&grant).0.look()), (1, 10), "the tenth is the one that was just counted");
    }
}

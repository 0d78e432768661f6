//! Where keys lie while the daemon has them. On Linux in pages of their own, which are never swapped, not part of any dump and
//! empty in a forked child; elsewhere on the heap.
//!
//! Our own and not memfd_secret(2), which would keep a laptop from hibernating for as long as the daemon runs.

use std::fmt;
use std::ops::Deref;

use zeroize::Zeroize;

/// A key in memory of its own, wiped when dropped.
pub struct KeyPage<T>(system::Place<T>);

impl<T> KeyPage<T> {
    /// Makes the key and puts it there. The stack that this took is wiped, since a value leaves copies where it comes by.
    pub fn new(make: impl FnOnce() -> T) -> Self {
        let place = system::place(make);
        wipe_stack();
        Self(place)
    }
}

impl<T> Deref for KeyPage<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for KeyPage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPage([redacted])")
    }
}

/// Writes over the stack below the caller, where a key was used that is to be forgotten.
#[inline(never)]
pub fn wipe_stack() {
    // 64 KiB: more than deriving a key or sealing a record takes.
    let mut below = [0_u64; 8 * 1024];
    below.zeroize();
    std::hint::black_box(&below);
}

#[cfg(target_os = "linux")]
mod system {
    use std::sync::Once;

    pub(super) use super::super::ffi::OwnPages as Place;

    #[inline(never)]
    pub(super) fn place<T>(make: impl FnOnce() -> T) -> Place<T> {
        static WARNED: Once = Once::new();
        let (place, guarded) = Place::new(make);
        if let Err(error) = guarded {
            WARNED.call_once(|| {
                tracing::warn!(%error, "the memory of keys cannot be kept out of swap and dumps; `ulimit -l` shows how much may be locked");
            });
        }
        place
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) use std::boxed::Box as Place;

    #[inline(never)]
    pub(super) fn place<T>(make: impl FnOnce() -> T) -> Place<T> {
        Box::new(make())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// The flags of the mapping that holds this address (proc_pid_smaps(5)).
    fn flags_at(address: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut here = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((from, to)) =
                range.and_then(|(from, to)| Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?)))
            {
                here = (from..to).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| here) {
                return flags.to_owned();
            }
        }
        panic!("nothing is mapped there");
    }

    #[test]
    fn a_key_lies_where_it_is_neither_swapped_nor_dumped_nor_inherited() {
        let key = KeyPage::new(|| [7_u8; 32]);
        assert_eq!(*key, [7; 32]);
        let flags = flags_at(std::ptr::from_ref(&*key).addr());
        for flag in ["lo", "dd", "wf"] {
            assert!(flags.split_whitespace().any(|found| found == flag), "{flag} is not among {flags}");
        }
        let heap = Box::new([7_u8; 32]);
        assert!(!flags_at(std::ptr::from_ref(&*heap).addr()).contains(" lo"), "the flag says nothing");
    }

    #[test]
    fn what_is_dropped_is_dropped_once_and_as_large_as_it_likes() {
        let counted = std::sync::Arc::new(());
        let large = KeyPage::new(|| ([counted.clone(), counted.clone()], [1_u8; 10_000]));
        assert_eq!((std::sync::Arc::strong_count(&counted), large.1[9_999]), (3, 1));
        drop(large);
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    }

    #[test]
    fn a_key_can_be_used_by_another_thread_and_shows_nothing() {
        let key = KeyPage::new(|| [7_u8; 32]);
        assert_eq!(format!("{key:?}"), "KeyPage([redacted])");
        assert_eq!(std::thread::spawn(move || key[31]).join().unwrap(), 7);
    }
}

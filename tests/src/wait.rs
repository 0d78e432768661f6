//! The one place where the suites wait.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Looks again and again until `look` gives something, and panics with `what` after `patience`.
#[track_caller]
pub fn wait_until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < patience, "waited {} s in vain: {what}", patience.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Milliseconds of the wall clock, as the authorization server counts them.
pub fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

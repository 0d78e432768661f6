//! PURE: how soon a passphrase may be tried again. For those who reach the socket and nothing else, such as a container that it
//! is mounted into; whoever can read the vault's files can try without us.

use std::time::{Duration, Instant};

/// So many wrong ones in a row cost nothing but the time that each takes.
const FREE: u32 = 3;
/// The first pause; it doubles with each wrong one.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

/// The wrong passphrases since the last right one.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    wrong: u32,
    not_before: Option<Instant>,
}

impl Attempts {
    /// How long to wait before the next one; `None`: it may be tried now.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let left = self.not_before?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// One was wrong.
    pub(super) fn wrong(&mut self, now: Instant) {
        self.wrong = self.wrong.saturating_add(1);
        self.not_before = (self.wrong >= FREE).then(|| now + FIRST.saturating_mul(1 << (self.wrong - FREE).min(16)).min(LONGEST));
    }

    /// One was right.
    pub(super) fn right(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_are_free_and_then_each_pause_is_twice_as_long_up_to_a_minute() {
        let (mut attempts, mut now) = (Attempts::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..40 {
            let pause = attempts.pause(now).unwrap_or_default();
            pauses.push(pause.as_secs());
            now += pause;
            assert_eq!(attempts.pause(now), None, "the pause has an end");
            attempts.wrong(now);
        }
        assert_eq!(pauses[..10], [0, 0, 0, 2, 4, 8, 16, 32, 60, 60]);
        assert!(pauses[10..].iter().all(|pause| *pause == 60));
    }

    #[test]
    fn a_right_one_makes_up_for_all() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        (0..9).for_each(|_| attempts.wrong(now));
        attempts.right();
        assert_eq!(attempts.pause(now), None);
        attempts.wrong(now);
        assert_eq!(attempts.pause(now), None);
    }
}

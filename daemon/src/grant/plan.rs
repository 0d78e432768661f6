//! The arithmetic of a grant: how long a token counts as usable, when it is refreshed, how long a failure waits.
//! Plain functions of durations; the reasons are in each one's comment.

use std::time::Duration;

/// Kept back from every token, so that it does not expire on its way: 10 s, or a tenth of a short lifetime.
const MARGIN: Duration = Duration::from_secs(10);
/// The shortest backoff.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest backoff.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// What must remain of a token for it to be served without a refresh. `asked` is `min_valid_for`, cut to half the
/// lifetime: nobody can make every request a refresh.
pub(super) fn margin(lifetime: Duration, asked: Option<Duration>) -> Duration {
    let asked = asked.unwrap_or_default().min(lifetime / 2);
    asked.max(MARGIN.min(lifetime / 10))
}

/// How long before expiry a refresh is planned: a fifth of the lifetime between 5 s and 5 min, never more than half.
/// Where a refresh invalidates the old token it comes as late as is safe. Up to 20 % jitter spreads grants that were
/// made together; `random` is in `0.0..1.0`.
pub(super) fn lead(lifetime: Duration, invalidates: bool, random: f64) -> Duration {
    let lead = if invalidates {
        Duration::from_secs(30).min(lifetime / 2)
    } else {
        (lifetime / 5).clamp(Duration::from_secs(5), Duration::from_secs(300)).min(lifetime / 2)
    };
    lead.mul_f64(1.0 - 0.2 * random)
}

/// How long to wait after the `failures`-th failure in a row (from 1): full jitter between 1 s and a bound that doubles
/// up to 5 min.
pub(crate) fn backoff(failures: u32, random: f64) -> Duration {
    let bound = (BACKOFF_MIN * 2_u32.saturating_pow(failures.min(16))).min(BACKOFF_MAX);
    BACKOFF_MIN + (bound - BACKOFF_MIN).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_margin_is_what_was_asked_but_at_most_half_the_lifetime() {
        for (lifetime, asked, expected) in [
            (s(3600), None, s(10)),
            (s(60), None, s(6)),
            (s(1), None, Duration::from_millis(100)),
            (s(3600), Some(s(900)), s(900)),
            (s(3600), Some(s(5)), s(10)),
            (s(3600), Some(Duration::MAX), s(1800)),
            (s(0), Some(s(5)), s(0)),
        ] {
            assert_eq!(margin(lifetime, asked), expected, "{lifetime:?} {asked:?}");
        }
    }

    #[test]
    fn the_lead_follows_the_lifetime() {
        for (lifetime, invalidates, expected) in [
            (s(60), false, s(12)),
            (s(300), false, s(60)),
            (s(3600), false, s(300)),
            (s(8 * 3600), false, s(300)),
            (s(5), false, Duration::from_millis(2500)),
            (s(20), false, s(5)),
            (s(1), false, Duration::from_millis(500)),
            (s(7200), true, s(30)),
            (s(10), true, s(5)),
            (s(0), false, s(0)),
        ] {
            assert_eq!(lead(lifetime, invalidates, 0.0), expected, "{lifetime:?}");
            assert_eq!(lead(lifetime, invalidates, 1.0), expected.mul_f64(0.8), "{lifetime:?}");
        }
    }

    #[test]
    fn the_backoff_doubles_from_one_second_to_five_minutes() {
        assert_eq!(backoff(1, 0.0), s(1));
        assert_eq!(backoff(1, 1.0), s(2));
        assert_eq!(backoff(4, 1.0), s(16));
        assert_eq!(backoff(9, 1.0), s(300));
        assert_eq!(backoff(u32::MAX, 1.0), s(300));
        assert_eq!(backoff(u32::MAX, 0.0), s(1));
    }
}

//! Time: instants that count suspend (CLOCK_BOOTTIME), wall time for records, and the one alarm that wakes the broker.
//!
//! While the daemon runs only [`Boot`] decides; [`Wall`] counts across restarts. The alarm is in `platform`, since what
//! hears of a resume differs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant since the machine started, time in suspend included. Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(u64);

impl Boot {
    /// An instant, given its distance from the machine's start.
    pub fn from_start(since: Duration) -> Self {
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The distance from the machine's start.
    pub fn since_start(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// The time from `earlier` to here; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Boot {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Boot {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Wall time: milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub i64);

impl Wall {
    /// The time from `earlier` to here, `None` when `earlier` is later.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        u64::try_from(self.0.checked_sub(earlier.0)?).ok().map(Duration::from_millis)
    }

    /// RFC 3339 in UTC, whole seconds. Years beyond 9999 are shown as the last second of 9999.
    pub fn rfc3339(self) -> String {
        use time::format_description::well_known::Rfc3339;
        const LAST: i64 = 253_402_300_799;
        let seconds = self.0.div_euclid(1000).clamp(0, LAST);
        time::OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
    }

    /// A time of RFC 3339, in whatever zone; `None` for anything else.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        use time::format_description::well_known::Rfc3339;
        let at = time::OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }
}

impl std::ops::Add<Duration> for Wall {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The clock that decides.
    pub boot: Boot,
    /// The clock that is written down and shown.
    pub wall: Wall,
}

/// Where the time comes from: the system, or a test.
pub trait Clock: Send + Sync {
    /// Reads both clocks.
    fn now(&self) -> Now;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now {
            boot: crate::platform::boot_time() + crate::failpoint::slept(),
            wall: Wall(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

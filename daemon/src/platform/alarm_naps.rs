//! The alarm where no kernel timer counts suspend: naps of at most 30 seconds while something is due.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Ring, boot_time};
use crate::clock::Boot;

/// A resume goes unnoticed for at most this long.
const NAP: Duration = Duration::from_secs(30);

/// How far wall clock and boot clock may drift apart within a nap before it counts as a step.
const STEP: Duration = Duration::from_secs(2);

/// Rings at an instant that counts suspend, and when the wall clock is set.
#[derive(Debug)]
pub struct Alarm {
    due: Option<Boot>,
    /// Wall time less boot time.
    offset: Duration,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// None here; on Linux there can be.
    pub fn new() -> io::Result<Self> {
        Ok(Self { due: None, offset: offset() })
    }

    /// Sets the instant of the next [`Ring::Due`]; one that has passed rings at once. `None` disarms.
    pub fn set(&mut self, due: Option<Boot>) {
        self.due = due;
    }

    /// Waits for the next ring. Dropping the future loses nothing.
    pub async fn wait(&mut self) -> Ring {
        loop {
            let Some(due) = self.due else { return std::future::pending().await };
            let left = due.since(boot_time());
            if left.is_zero() {
                self.due = None;
                return Ring::Due;
            }
            tokio::time::sleep(left.min(NAP)).await;
            let offset = offset();
            if offset.abs_diff(std::mem::replace(&mut self.offset, offset)) > STEP {
                return Ring::ClockStepped;
            }
        }
    }
}

fn offset() -> Duration {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    wall.saturating_sub(boot_time().since_start())
}

//! The alarm on Linux: two timers of the kernel, so that nothing wakes while nothing is due.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

use super::{Ring, ffi};
use crate::clock::Boot;

/// Rings at an instant that counts suspend, and when the wall clock is set or the machine resumes.
#[derive(Debug)]
pub struct Alarm {
    /// CLOCK_BOOTTIME: the deadline.
    deadline: AsyncFd<OwnedFd>,
    /// CLOCK_REALTIME, cancelled when that clock is set. The flag does nothing, silently, on CLOCK_BOOTTIME.
    steps: AsyncFd<OwnedFd>,
    /// What the deadline is set to, until it rings: most requests change nothing, and a system call would cost each of them.
    due: Option<Boot>,
}

impl Alarm {
    /// An alarm that is not set. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let deadline = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)?;
        let steps = rustix::time::timerfd_create(TimerfdClockId::Realtime, flags)?;
        let never = one_shot(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        rustix::time::timerfd_settime(&steps, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
        Ok(Self { deadline: ffi::watch(deadline)?, steps: ffi::watch(steps)?, due: None })
    }

    /// Sets the instant of the next [`Ring::Due`]; one that has passed rings at once. `None` disarms.
    pub fn set(&mut self, due: Option<Boot>) {
        if std::mem::replace(&mut self.due, due) == due {
            return;
        }
        let at = due.map_or(Timespec { tv_sec: 0, tv_nsec: 0 }, |due| {
            // Zero would disarm; the nanosecond is for an instant at the machine's very start.
            let since = (due - crate::failpoint::slept()).since_start();
            Timespec { tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(since.subsec_nanos().max(1)) }
        });
        let set = rustix::time::timerfd_settime(self.deadline.get_ref(), TimerfdTimerFlags::ABSTIME, &one_shot(at));
        debug_assert!(set.is_ok(), "the timer is ours and the time is in range");
    }

    /// Waits for the next ring. Dropping the future loses nothing.
    pub async fn wait(&mut self) -> Ring {
        tokio::select! {
            () = rung(&self.deadline) => {
                self.due = None;
                Ring::Due
            }
            () = rung(&self.steps) => Ring::ClockStepped,
        }
    }
}

fn one_shot(at: Timespec) -> Itimerspec {
    Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at }
}

/// Returns when the timer has expired or was cancelled, and takes note of that in the kernel.
async fn rung(timer: &AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = timer.readable().await else {
            // The runtime is going down.
            return std::future::pending().await;
        };
        let mut expirations = [0; 8];
        match ready.try_io(|timer| match rustix::io::read(timer, &mut expirations) {
            Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
            // ECANCELED is how a step of the clock reads.
            Ok(_) | Err(_) => Ok(()),
        }) {
            Ok(_) => return,
            // It was set anew between the wake-up and here.
            Err(_would_block) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::platform::boot_time;

    fn block_on<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn the_alarm_rings_when_its_instant_has_come_and_only_once() {
        block_on(async {
            let mut alarm = Alarm::new().unwrap();
            let due = boot_time() + Duration::from_millis(30);
            alarm.set(Some(due));
            assert_eq!(alarm.wait().await, Ring::Due);
            assert!(boot_time() >= due);
            assert!(tokio::time::timeout(Duration::from_millis(50), alarm.wait()).await.is_err(), "it is spent");
            alarm.set(Some(due));
            assert_eq!(alarm.wait().await, Ring::Due, "and may be set to the same instant again");
        });
    }

    #[test]
    fn an_instant_that_has_passed_rings_at_once_and_none_disarms() {
        block_on(async {
            let mut alarm = Alarm::new().unwrap();
            alarm.set(Some(Boot::default()));
            assert_eq!(alarm.wait().await, Ring::Due);
            alarm.set(Some(boot_time()));
            alarm.set(None);
            assert!(tokio::time::timeout(Duration::from_millis(50), alarm.wait()).await.is_err());
        });
    }

    #[test]
    fn a_dropped_wait_loses_no_ring() {
        block_on(async {
            let mut alarm = Alarm::new().unwrap();
            alarm.set(Some(boot_time() + Duration::from_millis(40)));
            assert!(tokio::time::timeout(Duration::from_millis(5), alarm.wait()).await.is_err());
            assert_eq!(alarm.wait().await, Ring::Due);
        });
    }
}

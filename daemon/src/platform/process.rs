//! A process that somebody may want to know of later: whether it still runs, even if its number went to another since.

/// A process that was seen once. Nothing is woken when it ends: whoever wants to know, asks.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    handle: system::Handle,
}

impl Process {
    /// The process that has this number now; `None` where there is none, or where it cannot be kept an eye on.
    pub fn find(pid: u32) -> Option<Self> {
        system::find(pid).map(|handle| Self { pid, handle })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it runs. Never waits.
    pub fn is_alive(&self) -> bool {
        system::is_alive(&self.handle)
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::os::fd::OwnedFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    /// It stands for this very process, whatever becomes of the number.
    pub(super) type Handle = OwnedFd;

    pub(super) fn find(pid: u32) -> Option<Handle> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok().filter(is_alive)
    }

    pub(super) fn is_alive(handle: &Handle) -> bool {
        let mut asked = [PollFd::new(handle, PollFlags::IN)];
        // It becomes readable when the process ends.
        poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready == 0)
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
mod system {
    use rustix::process::{Pid, test_kill_process};

    /// The number alone: it may have gone to another process.
    pub(super) type Handle = Pid;

    pub(super) fn find(pid: u32) -> Option<Handle> {
        Pid::from_raw(i32::try_from(pid).ok()?).filter(is_alive)
    }

    pub(super) fn is_alive(handle: &Handle) -> bool {
        test_kill_process(*handle).is_ok()
    }
}

#[cfg(windows)]
mod system {
    /// There is none: holders are not known here.
    pub(super) type Handle = std::convert::Infallible;

    pub(super) fn find(_pid: u32) -> Option<Handle> {
        None
    }

    pub(super) fn is_alive(handle: &Handle) -> bool {
        match *handle {}
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_alive_until_it_ends_although_nobody_has_reaped_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = Process::find(child.id()).unwrap();
        assert!(process.is_alive() && process.pid() == child.id());
        drop(child.stdin.take());
        // Reaped only when the system is asked by number alone: a zombie still has one.
        if !cfg!(target_os = "linux") {
            child.wait().unwrap();
        }
        let started = std::time::Instant::now();
        while process.is_alive() {
            assert!(started.elapsed().as_secs() < 30, "it is still taken for alive");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!process.is_alive() && Process::find(child.id()).is_none());
    }

    #[test]
    fn what_is_no_process_is_not_found() {
        assert!(Process::find(0).is_none() && Process::find(u32::MAX).is_none());
    }
}

//! A process that somebody may want to know of later: whether it still runs, even if its number went to another since, and
//! when it ends.

use std::io;

use super::Stream;

/// A process that was seen once. Nothing is woken when it ends, unless somebody waits for that.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    /// Its number was not another's when it was found.
    certain: bool,
    handle: system::Handle,
}

impl Process {
    /// The process that has this number now; `None` where there is none, or where it cannot be kept an eye on.
    pub fn find(pid: u32) -> Option<Self> {
        system::find(pid).map(|handle| Self { pid, certain: false, handle })
    }

    /// The process that made a connection, whose number the kernel noted then; `None` where it has ended, or the system does
    /// not keep hold of it. Costs a file descriptor.
    pub fn of_peer(stream: &Stream, pid: u32) -> Option<Self> {
        let (handle, certain) = system::of_peer(stream, pid)?;
        Some(Self { pid, certain, handle })
    }

    /// The process that was marked so, if it lives.
    pub fn marked(mark: &str) -> Option<Self> {
        let process = Self::find(mark.split(' ').next()?.parse().ok()?)?;
        (process.mark()? == mark).then_some(process)
    }

    /// A text that is this process's alone, also among those that had its number before or will have it after the machine's
    /// next start. `None` where the system does not tell, or it has ended.
    pub fn mark(&self) -> Option<String> {
        // Asked last: while it lives, what was read under its number is its own.
        system::started(self.pid).filter(|_| self.is_alive()).map(|started| format!("{} {started}", self.pid))
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it is the very process that was meant: without it, the number may have gone to another before it was found.
    pub fn is_certain(&self) -> bool {
        self.certain
    }

    /// Whether it runs. Never waits.
    pub fn is_alive(&self) -> bool {
        system::is_alive(&self.handle)
    }

    /// Something to wait for its end with. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no file descriptor left, and always where the system does not tell.
    pub fn watch(&self) -> io::Result<Watch> {
        system::watch(&self.handle).map(Watch)
    }
}

/// Waits for the end of a process. No thread and no wake-up until then.
#[derive(Debug)]
pub struct Watch(system::Watch);

impl Watch {
    /// Returns when the process has ended.
    pub async fn ended(&self) {
        system::ended(&self.0).await;
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::OwnedFd;

    use nix::sys::socket::{getsockopt, sockopt};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use tokio::io::unix::AsyncFd;

    use super::super::ffi;
    use super::Stream;

    /// It stands for this very process, whatever becomes of the number.
    pub(super) type Handle = OwnedFd;

    pub(super) fn find(pid: u32) -> Option<Handle> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok().filter(is_alive)
    }

    /// With whether it is certain.
    pub(super) fn of_peer(stream: &Stream, pid: u32) -> Option<(Handle, bool)> {
        match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(handle) => Some((handle, true)),
            // Before Linux 6.5 there is only the number, which may have gone to another process since.
            Err(nix::Error::ENOPROTOOPT) => Some((find(pid)?, false)),
            // It has ended and was reaped.
            Err(_) => None,
        }
    }

    pub(super) fn is_alive(handle: &Handle) -> bool {
        let mut asked = [PollFd::new(handle, PollFlags::IN)];
        // It becomes readable when the process ends.
        poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready == 0)
    }

    /// The machine's start, and the ticks from there to the process's (proc_pid_stat(5), field 22).
    pub(super) fn started(pid: u32) -> Option<String> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let stat = String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
        // The second field is a name in brackets, which may hold anything.
        let ticks = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?;
        Some(format!("{} {ticks}", boot.trim()))
    }

    pub(super) type Watch = AsyncFd<OwnedFd>;

    pub(super) fn watch(handle: &Handle) -> io::Result<Watch> {
        ffi::watch(handle.try_clone()?)
    }

    pub(super) async fn ended(watch: &Watch) {
        // An error is the runtime's end, after which nobody waits.
        let _ = watch.readable().await;
    }
}

/// Where there is no handle whose end can be waited for.
#[cfg(not(target_os = "linux"))]
mod unwatched {
    use std::io;

    pub(super) type Watch = std::convert::Infallible;

    pub(super) fn watch<H>(_handle: &H) -> io::Result<Watch> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) async fn ended(watch: &Watch) {
        match *watch {}
    }

    pub(super) fn started(_pid: u32) -> Option<String> {
        None
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
mod system {
    use rustix::process::{Pid, test_kill_process};

    use super::Stream;
    pub(super) use super::unwatched::{Watch, ended, started, watch};

    /// The number alone: it may have gone to another process.
    pub(super) type Handle = Pid;

    pub(super) fn find(pid: u32) -> Option<Handle> {
        Pid::from_raw(i32::try_from(pid).ok()?).filter(is_alive)
    }

    /// A number does not keep hold of a process.
    pub(super) fn of_peer(_stream: &Stream, _pid: u32) -> Option<(Handle, bool)> {
        None
    }

    pub(super) fn is_alive(handle: &Handle) -> bool {
        test_kill_process(*handle).is_ok()
    }
}

#[cfg(windows)]
mod system {
    use super::Stream;
    pub(super) use super::unwatched::{Watch, ended, started, watch};

    /// There is none: holders are not known here.
    pub(super) type Handle = std::convert::Infallible;

    pub(super) fn find(_pid: u32) -> Option<Handle> {
        None
    }

    pub(super) fn of_peer(_stream: &Stream, _pid: u32) -> Option<(Handle, bool)> {
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

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_end_of_a_process_is_told_to_whoever_waits_for_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let watch = Process::find(child.id()).unwrap().watch().unwrap();
        let waiting = tokio::spawn(async move { watch.ended().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(child.stdin.take());
        tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await.unwrap().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_is_no_process_is_not_found() {
        assert!(Process::find(0).is_none() && Process::find(u32::MAX).is_none());
    }
}

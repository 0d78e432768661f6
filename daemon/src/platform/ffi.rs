//! The only file with `unsafe`: one function for each need that no safe interface covers, each with the reason why it
//! holds.

#[cfg(target_os = "linux")]
pub(super) use linux::watch;
#[cfg(windows)]
pub(super) use windows::tick_count;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Lets the runtime tell when `fd` is readable.
    pub(in crate::platform) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: an OwnedFd is open, stays open until the AsyncFd that owns it is dropped, and always returns the same number.
        Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
    }
}

#[cfg(windows)]
mod windows {
    #[link(name = "kernel32")]
    // SAFETY: the signature is that of the Windows SDK (sysinfoapi.h).
    unsafe extern "system" {
        safe fn GetTickCount64() -> u64;
    }

    /// Milliseconds since the machine started, time in sleep included.
    pub(in crate::platform) fn tick_count() -> u64 {
        GetTickCount64()
    }
}

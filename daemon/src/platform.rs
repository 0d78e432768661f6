//! What differs by platform, one small function each: time since boot, hardening, where keys lie, limits, the lock file, the socket, who
//! is at its other end, and the alarm. What to do with any of it is decided elsewhere.
//!
//! The socket is tokio's own on Unix and a pipe of `interprocess` on Windows: interprocess's Unix stream has neither
//! vectored writes nor a shutdown, and both are needed here.

#[cfg(target_os = "linux")]
mod alarm_linux;
#[cfg(not(target_os = "linux"))]
mod alarm_naps;
#[cfg(any(target_os = "linux", windows))]
#[allow(unsafe_code, reason = "the one place for it")]
mod ffi;
mod files;
mod key_page;
mod process;
#[cfg(target_os = "linux")]
mod program_linux;
mod supervisor;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(target_os = "linux")]
pub use alarm_linux::Alarm;
#[cfg(not(target_os = "linux"))]
pub use alarm_naps::Alarm;
#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

pub use files::NotPrivate;
pub(crate) use files::{TextFile, create_new, make_folder, open_existing, private_file, sync_folder};
pub use files::{file_stamp, private_folder};
pub use key_page::{KeyPage, wipe_stack};
pub use process::{Process, Watch};
#[cfg(target_os = "linux")]
pub(crate) use program_linux::{Folder, Image, resolved};
pub use supervisor::{Notice, Signal, Signals, notify};
pub use system::{
    Bound, Listener, LockFile, Stream, accept, activated, bind, boot_time, harden, hung_up, is_nameless, listen, lock_file, own_uid,
    path_of, peer, poll_disturbed, raise_fd_limit,
};

/// What a service manager handed over.
#[derive(Debug)]
pub struct Handed {
    /// Our socket.
    pub socket: Bound,
    /// TCP ports that it holds for us, so that nobody else has them while we do not run.
    pub ports: Vec<std::net::TcpListener>,
}

/// Why the alarm rang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// The instant it was set to has come. It is spent: set it again.
    Due,
    /// Somebody set the wall clock, or the machine woke from suspend.
    ClockStepped,
}

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon holds it.
    #[error("mcp-authd is already running{}", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    AlreadyRunning {
        /// Its process, as it wrote into the file.
        pid: Option<u32>,
    },
    /// The file cannot be opened, made or locked.
    #[error("cannot lock {}: {source}", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why the socket cannot be bound. Nothing was removed or replaced.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there already.
    #[error("another mcp-authd answers at {}", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// What is there is not ours to use.
    #[error("the socket {} is refused: {why}", .path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What is wrong, with the file or folder that it is wrong with.
        why: String,
    },
    /// The system said no.
    #[error("cannot make the socket {}: {source}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Takes the lock as soon as its holder is gone, and gives up after `patience`. Blocks the thread.
///
/// # Errors
/// As [`lock_file`].
pub fn lock_file_within(path: &std::path::Path, patience: Duration) -> Result<LockFile, LockError> {
    let until = std::time::Instant::now() + patience;
    loop {
        match lock_file(path) {
            Err(LockError::AlreadyRunning { .. }) if std::time::Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => return outcome,
        }
    }
}

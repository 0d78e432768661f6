//! Windows: named pipes, a lock by exclusive opening, no signals.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use interprocess::local_socket::traits::StreamCommon;
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::windows::local_socket::ListenerOptionsExt;
use interprocess::os::windows::security_descriptor::SecurityDescriptor;

use super::{BindError, Handed, LockError, ffi};
use crate::clock::Boot;
use crate::policy::Peer;

/// A pipe that listens.
pub type Bound = Listener;

/// A listening pipe.
pub type Listener = interprocess::local_socket::tokio::Listener;

/// One accepted connection.
pub type Stream = interprocess::local_socket::tokio::Stream;

/// The daemon's lock, held until it is dropped.
#[derive(Debug)]
pub struct LockFile(#[allow(dead_code, reason = "open is locked")] File);

/// The time since the machine started, suspend included.
pub fn boot_time() -> Boot {
    Boot::from_start(Duration::from_millis(ffi::tick_count()))
}

/// Nothing to do: Windows writes no core dumps unasked, and files of a profile are its user's own.
///
/// # Errors
/// None here.
pub fn harden() -> io::Result<()> {
    Ok(())
}

/// Nothing to do: handles have no such limit.
///
/// # Errors
/// None here.
pub fn raise_fd_limit() -> io::Result<()> {
    Ok(())
}

/// Takes the lock that keeps a second daemon away.
///
/// # Errors
/// [`LockError::AlreadyRunning`] while another daemon holds it.
pub fn lock_file(path: &Path) -> Result<LockFile, LockError> {
    const ERROR_SHARING_VIOLATION: i32 = 32;
    match OpenOptions::new().read(true).write(true).create(true).truncate(false).share_mode(0).open(path) {
        Ok(file) => Ok(LockFile(file)),
        Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Err(LockError::AlreadyRunning { pid: None }),
        Err(source) => Err(LockError::Io { path: path.to_owned(), source }),
    }
}

/// There is no socket activation here.
///
/// # Errors
/// None here.
pub fn activated() -> io::Result<Option<Handed>> {
    Ok(None)
}

/// Makes the pipe: for its owner alone, not from other machines, and only if it is the first of its name. Must be called
/// within a tokio runtime.
///
/// # Errors
/// [`BindError::InUse`] when there is such a pipe already.
pub fn bind(path: &Path) -> Result<Bound, BindError> {
    make(path).map_err(|source| match source.kind() {
        // What the flag for the first instance answers when the pipe is there, whoever made it.
        io::ErrorKind::PermissionDenied | io::ErrorKind::AddrInUse => BindError::InUse { path: path.to_owned() },
        _ => BindError::Io { path: path.to_owned(), source },
    })
}

/// Nothing to do: a pipe listens from the beginning.
///
/// # Errors
/// None here; on Unix there can be.
pub fn listen(bound: Bound) -> io::Result<Listener> {
    Ok(bound)
}

/// A pipe is in no folder.
pub fn path_of(_bound: &Bound) -> Option<std::path::PathBuf> {
    None
}

/// Waits for the next connection.
///
/// # Errors
/// As the system says; the listener goes on.
pub async fn accept(listener: &Listener) -> io::Result<Stream> {
    listener.accept().await
}

/// Who is at the other end. The user needs no look: the pipe lets nobody else in.
///
/// # Errors
/// When the system does not say.
pub fn peer(stream: &Stream) -> io::Result<Peer> {
    Ok(Peer { uid: own_uid(), pid: stream.peer_creds()?.pid() })
}

/// A pipe has no halves to close one by one.
pub fn hung_up(_stream: &Stream) -> bool {
    true
}

/// Not known here.
pub fn poll_disturbed(_stream: &Stream, _cx: &mut std::task::Context<'_>) -> bool {
    false
}

/// Every account has a name here.
pub fn is_nameless() -> bool {
    false
}

/// Windows has no user numbers; every peer has ours.
pub fn own_uid() -> u32 {
    0
}

fn make(path: &Path) -> io::Result<Listener> {
    // Protected, and one entry: all rights for OWNER RIGHTS.
    let owner_only = widestring::u16cstr!("D:P(A;;GA;;;OW)");
    let name = path.to_fs_name::<GenericFilePath>()?;
    ListenerOptions::new().name(name).security_descriptor(SecurityDescriptor::deserialize(owner_only)?).create_tokio()
}

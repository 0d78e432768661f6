//! Linux, macOS and the BSDs.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use super::{BindError, Handed, LockError};
use crate::clock::Boot;
use crate::policy::Peer;

/// A socket that listens, before there is a runtime.
pub type Bound = std::os::unix::net::UnixListener;

/// A listening socket.
pub type Listener = tokio::net::UnixListener;

/// One accepted connection.
pub type Stream = tokio::net::UnixStream;

/// The daemon's lock, held until it is dropped.
#[derive(Debug)]
pub struct LockFile(#[allow(dead_code, reason = "open is locked")] File);

/// The time since the machine started, suspend included.
pub fn boot_time() -> Boot {
    // Apple's CLOCK_MONOTONIC goes on in suspend, Linux's does not.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "openbsd"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "openbsd")))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(CLOCK);
    Boot::from_start(Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0)))
}

/// No core dump, no debugger of the same user, no file that others can read.
///
/// # Errors
/// When the system refuses one of them.
pub fn harden() -> io::Result<()> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Raises the soft limit of open files to what the connections need: 4,096, or what the hard limit allows.
///
/// # Errors
/// When the system refuses.
pub fn raise_fd_limit() -> io::Result<()> {
    const ENOUGH: u64 = 4096;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    if limit.current.is_some_and(|current| current < wanted) {
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })?;
    }
    Ok(())
}

/// Takes the lock that keeps a second daemon away. The file stays when the daemon ends.
///
/// # Errors
/// [`LockError::AlreadyRunning`] while another daemon holds it.
pub fn lock_file(path: &Path) -> Result<LockFile, LockError> {
    let failed = |source| LockError::Io { path: path.to_owned(), source };
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    // Another user could hold the lock for ever; a second name is somebody else's file, which we would write to.
    if !found.is_file() || found.uid() != own_uid() || found.nlink() != 1 {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file of our own")));
    }
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = file.take(20).read_to_string(&mut text);
            return Err(LockError::AlreadyRunning { pid: read.ok().and_then(|_| text.trim().parse().ok()) });
        }
        Err(error) => return Err(failed(error.into())),
    }
    // Only for the sentence of a second daemon; on a full disk there is no number in it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(LockFile(file))
}

/// What the service manager handed over, if anything. To be called once, before threads are started.
///
/// # Errors
/// When the first of it is not a Unix stream socket, or another one is not a TCP port.
pub fn activated() -> io::Result<Option<Handed>> {
    let mut handed = listenfd::ListenFd::from_env();
    let Some(socket) = handed.take_unix_listener(0)? else { return Ok(None) };
    let ports = (1..handed.len()).filter_map(|at| handed.take_tcp_listener(at).transpose()).collect::<io::Result<_>>()?;
    Ok(Some(Handed { socket, ports }))
}

/// Makes the socket at `path`, 0600 in a folder of our own, in place of a dead socket of ours. The lock must be held.
///
/// # Errors
/// [`BindError::InUse`] when another daemon answers there; [`BindError::Refused`] when the folder or what lies at the
/// path is not as it must be.
pub fn bind(path: &Path) -> Result<Bound, BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    let refused = |why| BindError::Refused { path: path.to_owned(), why };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(refused("it has no folder".into()));
    };
    // Before anything is made there, and again what was made.
    let there = folder.ancestors().skip(1).find(|above| above.symlink_metadata().is_ok());
    there.map_or(Ok(Ok(())), |there| check_above(&there.canonicalize()?)).map_err(failed)?.map_err(refused)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    check_folder(folder).map_err(failed)?.map_err(refused)?;
    check_target(path)?;
    let fresh = folder.join(other_name(name));
    remove_leftover(&fresh).map_err(failed)?.map_err(refused)?;
    let listener = Bound::bind(&fresh).map_err(failed)?;
    // Renamed over, so that there is no moment without a socket at the path.
    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o600)).and_then(|()| std::fs::rename(&fresh, path)).map_err(failed)?;
    Ok(listener)
}

/// Hands a socket to the runtime, within which it must be called.
///
/// # Errors
/// When the process has no file descriptor left.
pub fn listen(bound: Bound) -> io::Result<Listener> {
    bound.set_nonblocking(true)?;
    Listener::from_std(bound)
}

/// Where a socket was bound; `None` where that is in no folder.
pub fn path_of(bound: &Bound) -> Option<PathBuf> {
    bound.local_addr().ok()?.as_pathname().map(Path::to_owned)
}

/// Waits for the next connection.
///
/// # Errors
/// As accept(2); the listener goes on.
pub async fn accept(listener: &Listener) -> io::Result<Stream> {
    listener.accept().await.map(|(stream, _)| stream)
}

/// Who is at the other end, as the kernel noted it when the connection was made.
///
/// # Errors
/// When the kernel does not say.
pub fn peer(stream: &Stream) -> io::Result<Peer> {
    let found = stream.peer_cred()?;
    // A process that our process namespace does not show has the number 0.
    let pid = found.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    Ok(Peer { uid: found.uid(), pid })
}

/// Whether the peer has closed both halves of the connection.
pub fn hung_up(stream: &Stream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut asked = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // In doubt it is gone.
    poll(&mut asked, Some(&now)).is_err() || asked[0].revents().contains(PollFlags::HUP)
}

/// Whether the peer of an answer that streams has closed its sending half, or sent more; if neither, the task hears of it.
pub fn poll_disturbed(stream: &Stream, cx: &mut std::task::Context<'_>) -> bool {
    while let std::task::Poll::Ready(ready) = stream.poll_read_ready(cx) {
        match ready.and_then(|()| stream.try_read(&mut [0])) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return true,
        }
    }
    false
}

/// Whether our own user's number also stands for users whom our user namespace does not know: nobody can be told apart then.
pub fn is_nameless() -> bool {
    mcp_auth_proto::is_nameless(own_uid())
}

/// The user that we run as.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Refuses a folder that somebody else could put a socket into, or put another folder in the place of.
fn check_folder(folder: &Path) -> io::Result<Result<(), String>> {
    let found = folder.symlink_metadata()?;
    let shown = folder.display();
    if !found.is_dir() {
        return Ok(Err(format!("{shown} is not a folder of its own (symbolic links are not followed)")));
    }
    if found.uid() != own_uid() {
        return Ok(Err(format!("{shown} belongs to another user (uid {})", found.uid())));
    }
    if found.mode() & 0o022 != 0 {
        return Ok(Err(format!("others may write to {shown} (mode {:o}), `chmod 700` it", found.mode() & 0o7777)));
    }
    check_above(folder.canonicalize()?.parent().unwrap_or(folder))
}

/// Refuses a folder in which somebody else, root excepted, could put another folder in the place of ours.
fn check_above(folder: &Path) -> io::Result<Result<(), String>> {
    // In a user namespace root itself may be one of those who have no name.
    let trusted = [Some(own_uid()), Some(0), mcp_auth_proto::nameless_uid()];
    for above in folder.ancestors() {
        let found = above.metadata()?;
        let (open, sticky) = (found.mode() & 0o002 != 0, found.mode() & 0o1000 != 0);
        if open && !sticky {
            return Ok(Err(format!("everybody may write to {} (mode {:o})", above.display(), found.mode() & 0o7777)));
        }
        if !trusted.contains(&Some(found.uid())) {
            return Ok(Err(format!("{} belongs to another user (uid {})", above.display(), found.uid())));
        }
    }
    Ok(Ok(()))
}

/// Only a dead socket of ours may be replaced.
fn check_target(path: &Path) -> Result<(), BindError> {
    let refused = |why: &str| Err(BindError::Refused { path: path.to_owned(), why: why.to_owned() });
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BindError::Io { path: path.to_owned(), source }),
    };
    let kind = found.file_type();
    if kind.is_dir() {
        return refused("there is a folder of that name");
    }
    if !kind.is_socket() {
        return refused("there is a file of that name which is not a socket");
    }
    if found.uid() != own_uid() {
        return refused("there is a socket of another user");
    }
    match answers(path) {
        Ok(false) => Ok(()),
        Ok(true) => Err(BindError::InUse { path: path.to_owned() }),
        Err(source) => Err(BindError::Io { path: path.to_owned(), source }),
    }
}

/// Whether somebody listens there. Never waits: a full backlog is an answer too.
fn answers(path: &Path) -> io::Result<bool> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A name of the same length, so that a path which fits into a socket address still does.
fn other_name(name: &std::ffi::OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = name.as_bytes().to_vec();
    if let Some(first) = bytes.first_mut() {
        *first = if *first == b'~' { b'-' } else { b'~' };
    }
    OsString::from_vec(bytes)
}

/// Removes the socket that a daemon left when it was killed between bind and rename.
fn remove_leftover(path: &PathBuf) -> io::Result<Result<(), String>> {
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() && found.uid() == own_uid() => std::fs::remove_file(path).map(Ok),
        Ok(_) => Ok(Err(format!("{} is in the way", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(())),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let socket = scratch.path().join("run").join("d.sock");
        (scratch, socket)
    }

    fn refusal(path: &Path) -> String {
        bind(path).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_socket_is_made_with_its_folder_and_both_are_ours_alone() {
        let (_scratch, socket) = folder();
        let _listener = bind(&socket).unwrap();
        UnixStream::connect(&socket).unwrap();
        let mode = |path: &Path| path.symlink_metadata().unwrap().mode() & 0o7777;
        assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(socket.parent().unwrap()).unwrap().count(), 1, "no temporary name stays");
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let (_scratch, socket) = folder();
        drop(bind(&socket).unwrap());
        let _listener = bind(&socket).unwrap();
        assert!(matches!(bind(&socket), Err(BindError::InUse { .. })));
        UnixStream::connect(&socket).unwrap();
    }

    #[test]
    fn the_leftover_of_a_killed_daemon_is_no_obstacle() {
        let (_scratch, socket) = folder();
        drop(bind(&socket).unwrap());
        drop(UnixListener::bind(socket.with_file_name("~.sock")).unwrap());
        let _listener = bind(&socket).unwrap();
    }

    #[test]
    fn nothing_but_a_socket_of_ours_is_ever_replaced() {
        let (_scratch, socket) = folder();
        let folder = socket.parent().unwrap();
        DirBuilder::new().mode(0o700).create(folder).unwrap();
        std::fs::write(folder.join("file"), "precious").unwrap();
        std::fs::create_dir(folder.join("folder")).unwrap();
        symlink(folder.join("file"), folder.join("link")).unwrap();
        for (name, why) in [("file", "not a socket"), ("folder", "a folder of that name"), ("link", "not a socket")] {
            let sentence = refusal(&folder.join(name));
            assert!(sentence.contains(why), "{sentence}");
        }
        assert_eq!(std::fs::read_to_string(folder.join("link")).unwrap(), "precious");
    }

    #[test]
    fn a_folder_that_others_could_change_is_refused() {
        let (scratch, socket) = folder();
        let folder = socket.parent().unwrap();
        DirBuilder::new().mode(0o700).create(folder).unwrap();
        for mode in [0o777, 0o770, 0o702] {
            std::fs::set_permissions(folder, PermissionsExt::from_mode(mode)).unwrap();
            assert!(refusal(&socket).contains("others may write"), "{mode:o}");
        }
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).unwrap();
        symlink(folder, scratch.path().join("link")).unwrap();
        assert!(refusal(&scratch.path().join("link/d.sock")).contains("symbolic links"));
        std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(refusal(&socket).contains("everybody may write"));
        let below = scratch.path().join("new/d.sock");
        assert!(refusal(&below).contains("everybody may write"));
        assert!(!scratch.path().join("new").exists(), "nothing is made there");
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        let (scratch, socket) = folder();
        drop(bind(&socket).unwrap());
        if std::os::unix::fs::lchown(&socket, Some(65534), None).is_err() {
            return; // only root can give files away
        }
        assert!(refusal(&socket).contains("socket of another user"));
        std::fs::remove_file(&socket).unwrap();
        std::os::unix::fs::chown(socket.parent().unwrap(), Some(65534), None).unwrap();
        assert!(refusal(&socket).contains("belongs to another user"));
        std::os::unix::fs::chown(socket.parent().unwrap(), Some(own_uid()), None).unwrap();
        std::os::unix::fs::chown(scratch.path(), Some(65534), None).unwrap();
        assert!(refusal(&socket).contains("belongs to another user"), "whoever owns the folder above may rename ours");
    }

    #[test]
    fn a_second_lock_is_refused_with_the_process_that_holds_the_first() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("daemon.lock");
        let held = lock_file(&path).unwrap();
        let error = lock_file(&path).unwrap_err().to_string();
        assert_eq!(error, format!("mcp-authd is already running (process {})", std::process::id()));
        drop(held);
        drop(lock_file(&path).unwrap());
    }

    #[test]
    fn a_lock_file_is_not_followed_to_another_place() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("daemon.lock");
        std::fs::write(scratch.path().join("precious"), "precious").unwrap();
        symlink(scratch.path().join("precious"), &path).unwrap();
        assert!(matches!(lock_file(&path), Err(LockError::Io { .. })));
        assert_eq!(std::fs::read_to_string(scratch.path().join("precious")).unwrap(), "precious");
    }

    #[test]
    fn a_lock_file_that_is_not_ours_alone_is_refused_and_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("daemon.lock");
        std::fs::write(scratch.path().join("precious"), "precious").unwrap();
        std::fs::hard_link(scratch.path().join("precious"), &path).unwrap();
        assert!(lock_file(&path).unwrap_err().to_string().contains("not a file of our own"));
        assert_eq!(std::fs::read_to_string(scratch.path().join("precious")).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(lock_file(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        drop(lock_file(&path).unwrap());
        if std::os::unix::fs::chown(&path, Some(65534), None).is_ok() {
            assert!(lock_file(&path).is_err(), "somebody else's");
        }
    }
}

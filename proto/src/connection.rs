//! One connection to the daemon: connecting, and making sure that the daemon belongs to the same user before a byte is
//! sent. It knows nothing of HTTP.

use std::io;
use std::path::Path;
use std::time::Duration;

use interprocess::local_socket::PeerCreds;
use interprocess::local_socket::prelude::*;

use crate::ClientError;

/// A blocking connection to a daemon of our own user.
pub(crate) fn connect(path: &Path) -> Result<LocalSocketStream, ClientError> {
    let stream = open(path).map_err(|error| classify(error, path))?;
    let creds = stream.peer_creds().map_err(ClientError::Io)?;
    check_owner(&creds, path)?;
    Ok(stream)
}

/// Sets how long one read may take. Named pipes have no such thing; there a read waits until the daemon answers or goes.
pub(crate) fn set_patience(stream: &LocalSocketStream, patience: Option<Duration>) -> io::Result<()> {
    if cfg!(unix) { stream.set_recv_timeout(patience) } else { Ok(()) }
}

/// What a failed connect means.
pub(crate) fn classify(error: io::Error, path: &Path) -> ClientError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
            ClientError::NotRunning { path: path.to_owned() }
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut,
        _ => ClientError::Io(error),
    }
}

/// Refuses a server that runs as somebody else. On Unix these are the credentials of whoever called `listen`, which is
/// the user's own systemd with socket activation. On Windows the pipe's name lies in the user's own namespace, and there
/// is no owner to ask for without unsafe code.
#[cfg(unix)]
pub(crate) fn check_owner(creds: &PeerCreds, path: &Path) -> Result<(), ClientError> {
    let owner = creds.euid();
    let own = rustix::process::geteuid().as_raw();
    // Where our own number stands for everybody, it says nothing about the server's.
    if owner == Some(own) && !crate::is_nameless(own) { Ok(()) } else { Err(ClientError::NotOurDaemon { path: path.to_owned(), owner }) }
}

/// See the Unix one.
#[cfg(not(unix))]
pub(crate) fn check_owner(_creds: &PeerCreds, _path: &Path) -> Result<(), ClientError> {
    Ok(())
}

/// How long the daemon may take to accept. It accepts at once; this bounds a daemon that is stopped or stuck.
pub(crate) const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Not interprocess' own connect: its time-out is a non-blocking connect, which a full backlog refuses at once, where a
/// blocking one waits its turn. Linux bounds a blocking connect by the send time-out.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<LocalSocketStream> {
    use interprocess::os::unix::uds_local_socket::Stream;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, sockopt};

    let address = SocketAddrUnix::new(path)?;
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, rustix::net::SocketFlags::CLOEXEC, None)?;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let socket = {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        socket
    };
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(CONNECT_PATIENCE))?;
    connect(&socket, &address)?;
    Ok(LocalSocketStream::UdSocket(Stream::from(socket)))
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<LocalSocketStream> {
    use interprocess::local_socket::{GenericFilePath, ToFsName};

    LocalSocketStream::connect(path.to_fs_name::<GenericFilePath>()?)
}

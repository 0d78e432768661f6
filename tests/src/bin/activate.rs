//! Stands in for a service manager: binds a socket, hands it to mcp-authd as LISTEN_FDS says, and becomes it.
//!
//! `activate SOCKET PROGRAM`. The suite `restart` starts the daemon so; the socket's file stays between two daemons.

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// The first descriptor that is handed over (sd_listen_fds(3)).
const FIRST: i32 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let Ok(listener) = UnixListener::bind(&arguments[1]) else { return ExitCode::from(1) };
    // Where the listener has the number already, only the close-on-exec flag is in the way.
    if listener.as_raw_fd() == FIRST {
        let flags = rustix::io::FdFlags::empty();
        if rustix::io::fcntl_setfd(&listener, flags).is_err() {
            return ExitCode::from(1);
        }
    } else {
        return ExitCode::from(3);
    }
    let pid = std::process::id().to_string();
    // Only returns where the program cannot be started.
    let _ = Command::new(&arguments[2]).env("LISTEN_FDS", "1").env("LISTEN_PID", pid).exec();
    ExitCode::from(1)
}

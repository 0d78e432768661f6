//! What the daemon hears from and tells to whoever started it: signals, and systemd's notifications.

use std::io;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// To end in an orderly way (SIGTERM, SIGINT, Ctrl-C).
    End,
    /// To read the config again (SIGHUP).
    Reload,
}

/// What systemd is told. Without systemd nobody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The socket answers, or a reload is done.
    Ready,
    /// The config is being read again.
    Reloading,
    /// The daemon ends.
    Stopping,
}

/// Tells systemd.
pub fn notify(notice: Notice) {
    #[cfg(unix)]
    if let Err(error) = send(notice) {
        tracing::warn!(%error, "cannot notify systemd");
    }
    #[cfg(not(unix))]
    let _ = notice;
}

/// The signals that the daemon hears instead of dying of them.
#[cfg(unix)]
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Hears signals from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End,
            _ = self.interrupt.recv() => Signal::End,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

/// The signals that the daemon hears instead of dying of them.
#[cfg(windows)]
#[derive(Debug)]
pub struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    close: tokio::signal::windows::CtrlClose,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    /// Hears signals from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> io::Result<Self> {
        use tokio::signal::windows::{ctrl_c, ctrl_close, ctrl_shutdown};
        Ok(Self { interrupt: ctrl_c()?, close: ctrl_close()?, shutdown: ctrl_shutdown()? })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::End,
            _ = self.close.recv() => Signal::End,
            _ = self.shutdown.recv() => Signal::End,
        }
    }
}

#[cfg(unix)]
fn send(notice: Notice) -> io::Result<()> {
    use sd_notify::NotifyState;
    match notice {
        Notice::Ready => sd_notify::notify(&[NotifyState::Ready]),
        // systemd wants to know since when.
        Notice::Reloading => sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]),
        Notice::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
    }
}

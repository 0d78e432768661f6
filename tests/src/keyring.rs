//! A real gnome-keyring on a private D-Bus session, in a home of its own: absent, locked, unlocked, emptied.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::binaries::{bare_command, require};
use crate::bus::Bus;
use crate::wait::wait_until;

const PASSWORD: &str = "a keyring password for tests";
const PATIENCE: Duration = Duration::from_secs(15);

/// A session bus, with or without a keyring on it.
#[derive(Debug)]
pub struct Keyring {
    home: PathBuf,
    runtime: PathBuf,
    bus: Bus,
    daemon: Option<Child>,
}

impl Keyring {
    /// A bus with nobody on it, and nobody who would be started by asking. `home` and `runtime` are the room's.
    #[track_caller]
    pub fn bus_only(home: &Path, runtime: &Path) -> Self {
        require("gnome-keyring-daemon", "gnome-keyring");
        Self { home: home.to_owned(), runtime: runtime.to_owned(), bus: Bus::start(home, runtime), daemon: None }
    }

    /// The value for `DBUS_SESSION_BUS_ADDRESS`.
    pub fn address(&self) -> &str {
        self.bus.address()
    }

    /// Starts the keyring unlocked, as after a login to the desktop. The first time makes the login keyring.
    #[track_caller]
    pub fn start_unlocked(&mut self) {
        self.stop();
        let mut child = self.spawn(&["--foreground", "--components=secrets", "--unlock"], Stdio::piped());
        child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        self.daemon = Some(child);
        wait_until("an unlocked keyring", PATIENCE, || (self.is_locked() == Some(false)).then_some(()));
    }

    /// Starts the keyring locked, as after an automatic login.
    #[track_caller]
    pub fn start_locked(&mut self) {
        self.stop();
        self.daemon = Some(self.spawn(&["--foreground", "--components=secrets"], Stdio::null()));
        wait_until("a locked keyring", PATIENCE, || (self.is_locked() == Some(true)).then_some(()));
    }

    /// Locks the login keyring while it runs.
    #[track_caller]
    pub fn lock(&self) {
        let output = self.ask(&["org.freedesktop.Secret.Service.Lock", "array:objpath:/org/freedesktop/secrets/collection/login"]);
        assert!(output.is_some(), "the keyring does not lock");
        wait_until("a locked keyring", PATIENCE, || (self.is_locked() == Some(true)).then_some(()));
    }

    /// Takes the keyring away from the bus.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// The keyring hangs (`true`): whoever asks it waits. Or it goes on.
    pub fn hang(&self, hangs: bool) {
        let signal = if hangs { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let daemon = self.daemon.as_ref().expect("a keyring runs");
        rustix::process::kill_process(rustix::process::Pid::from_child(daemon), signal).unwrap();
    }

    /// The file with the secrets, to take away and bring back while the keyring does not run.
    pub fn file(&self) -> PathBuf {
        self.home.join(".local/share/keyrings/login.keyring")
    }

    /// Whether the login keyring is locked; `None` while there is none on the bus.
    pub fn is_locked(&self) -> Option<bool> {
        let asked = ["org.freedesktop.DBus.Properties.Get", "string:org.freedesktop.Secret.Collection", "string:Locked"];
        let answer = self.send("/org/freedesktop/secrets/collection/login", &asked)?;
        if answer.contains("boolean true") {
            Some(true)
        } else if answer.contains("boolean false") {
            Some(false)
        } else {
            None
        }
    }

    /// How many secrets the login keyring holds.
    pub fn count(&self) -> Option<usize> {
        let asked = ["org.freedesktop.DBus.Properties.Get", "string:org.freedesktop.Secret.Collection", "string:Items"];
        Some(self.send("/org/freedesktop/secrets/collection/login", &asked)?.matches("object path").count())
    }

    fn ask(&self, arguments: &[&str]) -> Option<String> {
        self.send("/org/freedesktop/secrets", arguments)
    }

    fn send(&self, object: &str, arguments: &[&str]) -> Option<String> {
        let mut command = base(&require("dbus-send", "dbus"), &self.home, &self.runtime);
        command.env("DBUS_SESSION_BUS_ADDRESS", self.bus.address());
        command.args(["--session", "--print-reply", "--reply-timeout=3000", "--dest=org.freedesktop.secrets", object]);
        let output = command.args(arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn spawn(&self, arguments: &[&str], stdin: Stdio) -> Child {
        let mut command = base(&require("gnome-keyring-daemon", "gnome-keyring"), &self.home, &self.runtime);
        command.env("DBUS_SESSION_BUS_ADDRESS", self.bus.address()).args(arguments);
        command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        self.stop();
    }
}

fn base(program: &Path, home: &Path, runtime: &Path) -> Command {
    let mut command = bare_command(program);
    command.env("HOME", home).env("XDG_RUNTIME_DIR", runtime);
    command
}

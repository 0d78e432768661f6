//! A private D-Bus session bus in a room's folders.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::binaries::{bare_command, require};

/// A session bus with nobody on it, and nobody who would be started by asking. It ends with this value.
#[derive(Debug)]
pub(crate) struct Bus {
    address: String,
    daemon: Child,
}

impl Bus {
    /// Starts it. `home` and `runtime` are the room's.
    #[track_caller]
    pub(crate) fn start(home: &Path, runtime: &Path) -> Self {
        let address = format!("unix:path={}", runtime.join("bus").display());
        let config = runtime.join("bus.conf");
        std::fs::write(&config, bus_config(&address)).unwrap();
        let mut command = bare_command(&require("dbus-daemon", "dbus"));
        command.env("HOME", home).env("XDG_RUNTIME_DIR", runtime);
        command.arg("--nofork").arg("--print-address=1").arg(format!("--config-file={}", config.display()));
        let mut daemon = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:"), "dbus-daemon did not start");
        Self { address, daemon }
    }

    /// The value for `DBUS_SESSION_BUS_ADDRESS`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn bus_config(address: &str) -> String {
    format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
         \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
         <busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth>\
         <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy>\
         </busconfig>"
    )
}

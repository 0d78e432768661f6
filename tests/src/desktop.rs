//! A desktop's notification service on a private D-Bus session: python-dbusmock's, which tells what was sent, and presses
//! what it is told to; or a real dunst on a display of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::binaries::{bare_command, require};
use crate::bus::Bus;
use crate::room::Room;
use crate::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);
const SERVICE: &str = "org.freedesktop.Notifications";
const OBJECT: &str = "/org/freedesktop/Notifications";

/// A session bus and, if one was started, who shows notifications on it.
#[derive(Debug)]
pub struct Desktop {
    bus: Bus,
    service: Option<Child>,
    runtime: PathBuf,
}

/// A notification as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its number.
    pub number: u64,
    /// Whether it took the place of another.
    pub replaced: bool,
    /// The first line.
    pub summary: String,
    /// The rest; markup.
    pub body: String,
    /// Ids and labels by turns.
    pub actions: Vec<String>,
    /// 0, 1 or 2.
    pub urgency: u64,
    /// Milliseconds; 0: until it is closed.
    pub lasts: i64,
    /// The whole message.
    pub raw: String,
}

impl Desktop {
    /// A bus with nobody on it, for every program of this room from now on.
    #[track_caller]
    pub fn empty(room: &mut Room) -> Self {
        let (home, runtime) = (room.path("home"), room.path("run"));
        let bus = Bus::start(&home, &runtime);
        room.set("DBUS_SESSION_BUS_ADDRESS", bus.address());
        Self { bus, service: None, runtime }
    }

    /// With the mock on it.
    #[track_caller]
    pub fn mocked(room: &mut Room) -> Self {
        let mut desktop = Self::empty(room);
        desktop.start_mock();
        desktop
    }

    /// Somebody shows notifications from now on.
    #[track_caller]
    pub fn start_mock(&mut self) {
        // The distribution's own Python: the module is a package of it.
        let mut command = bare_command(&require("/usr/bin/python3", "python3-dbusmock"));
        let can = r#"{"capabilities": "body body-markup actions persistence"}"#;
        command.args(["-m", "dbusmock", "--template", "notification_daemon", "--parameters", can]);
        command.env("DBUS_SESSION_BUS_ADDRESS", self.bus.address());
        self.service = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        self.wait_for_service();
    }

    /// A real dunst, on the display of `screen`.
    #[track_caller]
    pub fn start_dunst(&mut self, screen: &VirtualScreen) {
        let config = self.runtime.join("dunstrc");
        std::fs::write(&config, "[global]\nwidth = 620\nheight = 400\nfont = Sans 11\n").unwrap();
        let mut command = bare_command(&require("dunst", "dunst"));
        command.arg("-config").arg(config).env("DISPLAY", screen.display()).env("DBUS_SESSION_BUS_ADDRESS", self.bus.address());
        command.env("HOME", &self.runtime);
        self.service = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        self.wait_for_service();
    }

    #[track_caller]
    fn wait_for_service(&self) {
        wait_until("a notification service", PATIENCE, || self.call(SERVICE, "GetCapabilities", &[]));
    }

    /// Everything that was shown so far, in order.
    #[track_caller]
    pub fn shown(&self) -> Vec<Shown> {
        let calls = self.calls("Notify");
        let mut last = 0;
        calls.iter().map(|call| Shown::of(call, &mut last)).collect()
    }

    /// Waits until this many were shown.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Shown> {
        wait_until(&format!("{count} notifications"), PATIENCE, || Some(self.shown()).filter(|shown| shown.len() >= count))
    }

    /// The numbers of those that were taken away so far, in order.
    #[track_caller]
    pub fn closed(&self) -> Vec<u64> {
        self.calls("CloseNotification").iter().map(|call| call[0]["data"].as_u64().unwrap()).collect()
    }

    /// Waits until this one is taken away.
    #[track_caller]
    pub fn wait_for_close(&self, number: u64) {
        wait_until(&format!("the end of notification {number}"), PATIENCE, || self.closed().contains(&number).then_some(()));
    }

    /// Presses a button, as a person does.
    #[track_caller]
    pub fn press(&self, number: u64, action: &str) {
        self.emit("ActionInvoked", "us", &["u", &number.to_string(), "s", action]);
    }

    /// Closes one, as a person does.
    #[track_caller]
    pub fn dismiss(&self, number: u64) {
        self.emit("NotificationClosed", "uu", &["u", &number.to_string(), "u", "2"]);
    }

    /// Somebody else on the bus tells this process that a button was pressed: to everybody who listens, and to it alone.
    #[track_caller]
    pub fn forge_press(&self, pid: u32, number: u64, action: &str) {
        let of_process = |name: &&String| self.ask_bus("GetConnectionUnixProcessID", &["s", name.as_str()])[0] == pid;
        let names = self.names();
        let names: Vec<_> = names.iter().filter(of_process).collect();
        assert!(!names.is_empty(), "it is not on the bus");
        for to in names.iter().map(|name| Some(name.as_str())).chain([None]) {
            let mut command = self.command(&require("dbus-send", "dbus"));
            command.args(["--session", "--type=signal"]).args(to.map(|name| format!("--dest={name}"))).arg(OBJECT);
            command.arg(format!("{SERVICE}.ActionInvoked")).args([format!("uint32:{number}"), format!("string:{action}")]);
            assert!(command.status().unwrap().success());
        }
    }

    /// The service hangs (`true`): whoever asks it waits. Or it goes on.
    pub fn hang(&self, hangs: bool) {
        let signal = if hangs { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let service = self.service.as_ref().expect("a service runs");
        rustix::process::kill_process(rustix::process::Pid::from_child(service), signal).unwrap();
    }

    /// The service dies.
    pub fn stop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
    }

    /// How many programs are on the bus, the asker not counted.
    #[track_caller]
    pub fn connections(&self) -> usize {
        self.names().len() - 1
    }

    /// The unique names of those who are on the bus, the asker's too.
    fn names(&self) -> Vec<String> {
        let names = self.ask_bus("ListNames", &[]);
        names[0].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).filter(|name| name.starts_with(':')).collect()
    }

    /// Null where the bus knows no answer: somebody has gone.
    fn ask_bus(&self, method: &str, arguments: &[&str]) -> Value {
        let bus = ["--json=short", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", method];
        answer(self.busctl(&[&bus[..], arguments].concat())).unwrap_or_default()
    }

    /// A command that knows this session.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = bare_command(program);
        command.env("DBUS_SESSION_BUS_ADDRESS", self.bus.address());
        command
    }

    #[track_caller]
    fn calls(&self, method: &str) -> Vec<Vec<Value>> {
        let calls = self.call("org.freedesktop.DBus.Mock", "GetMethodCalls", &["s", method]).expect("the mock answers");
        let calls = calls[0].as_array().unwrap();
        calls.iter().map(|call| call[1].as_array().unwrap().clone()).collect()
    }

    #[track_caller]
    fn emit(&self, signal: &str, signature: &str, arguments: &[&str]) {
        let count = (arguments.len() / 2).to_string();
        let words = [&["sssav", SERVICE, signal, signature, count.as_str()], arguments].concat();
        self.call("org.freedesktop.DBus.Mock", "EmitSignal", &words).expect("the mock answers");
    }

    fn call(&self, interface: &str, method: &str, arguments: &[&str]) -> Option<Value> {
        answer(self.busctl(&[&["--json=short", "call", SERVICE, OBJECT, interface, method], arguments].concat()))
    }

    fn busctl(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&require("busctl", "systemd"));
        command.arg(format!("--address={}", self.bus.address())).arg("--timeout=10").args(arguments);
        command
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer(mut command: Command) -> Option<Value> {
    let output = command.output().unwrap();
    if !output.status.success() {
        return None;
    }
    // A method without a result answers nothing.
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Some(value["data"].clone())
}

impl Shown {
    fn of(call: &[Value], last: &mut u64) -> Self {
        let text = |index: usize| call[index]["data"].as_str().unwrap().to_owned();
        let replaces = call[1]["data"].as_u64().unwrap();
        let number = if replaces > 0 {
            replaces
        } else {
            *last += 1;
            *last
        };
        Self {
            number,
            replaced: replaces > 0,
            summary: text(3),
            body: text(4),
            actions: call[5]["data"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect(),
            urgency: call[6]["data"]["urgency"]["data"].as_u64().unwrap(),
            lasts: call[7]["data"].as_i64().unwrap(),
            raw: serde_json::to_string(call).unwrap(),
        }
    }
}

/// A display that nobody looks at (Xvfb).
#[derive(Debug)]
pub struct VirtualScreen {
    server: Child,
    display: String,
}

impl VirtualScreen {
    /// On a free display number.
    #[track_caller]
    pub fn start() -> Self {
        use std::io::{BufRead as _, BufReader};
        let mut command = bare_command(&require("Xvfb", "xvfb"));
        command.args(["-displayfd", "1", "-screen", "0", "1000x600x24", "-nolisten", "tcp"]);
        let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut number = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        Self { server, display: format!(":{}", number.trim()) }
    }

    /// The value for `DISPLAY`.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// A picture of it, as a PNG file.
    #[track_caller]
    pub fn picture(&self, path: &Path) {
        let mut command = bare_command(&require("import", "imagemagick"));
        let output = command.env("DISPLAY", &self.display).args(["-window", "root"]).arg(path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// How many colours are in such a picture.
    #[track_caller]
    pub fn colours(path: &Path) -> usize {
        let mut command = bare_command(&require("identify", "imagemagick"));
        let output = command.args(["-format", "%k"]).arg(path).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    }
}

impl Drop for VirtualScreen {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

//! A real `systemd --user` in a room: another user's, in namespaces of its own, so that neither the machine nor its systemd,
//! if it has one, takes notice. Root starts it; the user needs no account.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{OWNER, PATIENCE, Room};
use crate::binaries::{bare_command, require, require_root};
use crate::run::{Output, Running, run};
use crate::wait::wait_until;

const SCRIPT: &str = include_str!("systemd.sh");

/// A user's service manager that runs. Everything in it is killed when dropped.
#[derive(Debug)]
pub struct Systemd<'a> {
    room: &'a Room,
    keeper: Running,
    group: String,
}

impl Room {
    /// A room of the user [`OWNER`] with a home like a new account's, whose socket is in its usual place.
    #[track_caller]
    pub fn for_systemd() -> Self {
        let mut room = Self::with_config("");
        room.unset("MCP_AUTHD_SOCKET");
        std::fs::create_dir(room.path("home/.config")).unwrap();
        room.give_to(OWNER);
        room
    }

    /// Starts the user's systemd with this unit (`default.target` as at a login), and waits until all of it has started.
    #[track_caller]
    pub fn start_systemd(&self, target: &str) -> Systemd<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        require_root("start a systemd of another user");
        assert!(Path::new("/lib/systemd/systemd").exists(), "systemd is not installed: this test needs the package systemd");
        let group = format!("mcp-authd-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Nothing of it outlives the test, whatever becomes of that: setpriv sees to this one process, unshare to the others.
        let mut command = bare_command(&require("setpriv", "util-linux"));
        command.args(["--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["bash", "-c", SCRIPT, "systemd.sh"]);
        command.args([group.as_str(), &OWNER.to_string(), target]);
        // Nothing else: what its services are to know must come from their units.
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        let mut systemd = Systemd { room: self, keeper: Running::start(command, "systemd", false), group };
        wait_until("the user's systemd", PATIENCE, || {
            assert!(systemd.keeper.is_alive(), "no systemd --user (a container must be privileged): {}", systemd.keeper.said());
            let said = self.path("run/systemd/private").exists().then(|| systemd.systemctl(&["is-system-running"]).stdout);
            // Degraded: a unit of the system, not of ours, does not start here.
            said.filter(|said| matches!(said.trim(), "running" | "degraded"))
        });
        systemd
    }
}

impl Systemd<'_> {
    /// A command of the user, within.
    pub fn command(&self, program: &Path) -> Command {
        let keeper = self.keeper.pid();
        let mut command = bare_command(&require("nsenter", "util-linux"));
        command.args([format!("--mount=/proc/{keeper}/ns/mnt"), format!("--pid=/proc/{keeper}/ns/pid_for_children")]);
        command.args(["setpriv", &format!("--reuid={OWNER}"), &format!("--regid={OWNER}"), "--clear-groups"]).arg(program);
        command.envs(self.room.environment.iter().cloned());
        command
    }

    /// Runs `mcp-authctl` as the user, to its end.
    #[track_caller]
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_typing(arguments, "")
    }

    /// Runs `mcp-authctl` as the user with a line on its stdin.
    #[track_caller]
    pub fn ctl_typing(&self, arguments: &[&str], line: &str) -> Output {
        self.run(&self.room.program("mcp-authctl"), arguments, line)
    }

    /// Runs one of our programs as the user, to its end.
    #[track_caller]
    pub fn run(&self, program: &Path, arguments: &[&str], line: &str) -> Output {
        let mut command = self.command(program);
        command.args(arguments);
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let label = format!("{name}-{}", arguments.first().copied().unwrap_or("none").trim_start_matches('-').replace('/', "_"));
        run(command, &label, line, arguments.first() == Some(&"token"))
    }

    /// Starts the program `probe` as the user.
    #[track_caller]
    pub fn probe(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(&self.room.program("probe"));
        command.args(arguments);
        Running::start(command, "probe", false)
    }

    /// Runs `systemctl --user`.
    #[track_caller]
    pub fn systemctl(&self, words: &[&str]) -> Output {
        self.run(&require("systemctl", "systemd"), &[&["--user"], words].concat(), "")
    }

    /// A property of a unit.
    #[track_caller]
    pub fn show(&self, unit: &str, property: &str) -> String {
        let output = self.systemctl(&["show", unit, "--value", "--property", property]).ok();
        output.stdout.trim().to_owned()
    }

    /// The daemon that it has started.
    #[track_caller]
    pub fn daemon(&self) -> Option<u32> {
        self.show("mcp-authd.service", "MainPID").parse().ok().filter(|pid| *pid != 0)
    }
}

impl Drop for Systemd<'_> {
    fn drop(&mut self) {
        self.keeper.signal(rustix::process::Signal::KILL);
        let _ = self.keeper.wait();
        // A group can be removed once nobody is left in it.
        let remove = "mount -t cgroup2 cgroup2 /sys/fs/cgroup; cd /sys/fs/cgroup && find \"$0\" -depth -type d -exec rmdir {} +";
        let gone = || Command::new("unshare").args(["--mount", "sh", "-c", remove, &self.group]).stderr(Stdio::null()).status();
        let start = std::time::Instant::now();
        while !gone().is_ok_and(|status| status.success()) && start.elapsed() < PATIENCE {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

//! Why a verb of `service` failed, and what to do about it.

use std::path::PathBuf;

/// Why there is no service, or it does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// There is nobody to run a service.
    #[error("{0}")]
    NoSupervisor(Missing),
    /// The daemon's program is neither beside this one nor on PATH.
    #[error("mcp-authd is neither beside mcp-authctl nor on PATH")]
    NoProgram,
    /// A path or value with line breaks, or the like.
    #[error("`{}` cannot stand in the file of a service", .0.escape_debug())]
    OddText(String),
    /// A path that is no text.
    #[error("{} is not UTF-8 and cannot stand in the file of a service", .0.display())]
    OddPath(PathBuf),
    /// A daemon runs that the service manager does not know of; both cannot.
    #[error("mcp-authd already runs, started by hand as process {pid}")]
    ByHand {
        /// Its process.
        pid: u32,
    },
    /// A file of the service is not as `service install` wrote it.
    #[error("{} was edited, or is not of `service install`", path.display())]
    Edited {
        /// The file.
        path: PathBuf,
        /// What the person asked for: `install` or `uninstall`.
        verb: &'static str,
    },
    /// `start`, `stop` and the others before `install`.
    #[error("mcp-authd is not installed as a service")]
    NotInstalled,
    /// `status` of one that does nothing.
    #[error("the service is installed and does not run")]
    NotRunning,
    /// The service manager's program could not be started.
    #[error("cannot run {program}: {source}")]
    CannotRun {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The service manager refused.
    #[error("`{command}` failed: {said}")]
    Refused {
        /// The command line.
        command: String,
        /// Its own words, or its exit code.
        said: String,
    },
    /// The daemon was started and ended.
    #[error("mcp-authd was started and ended: {}", end(*code))]
    Ended {
        /// Its exit code, unless a signal ended it.
        code: Option<i32>,
    },
    /// Nobody keeps what the daemon says.
    #[error("there is no journal on this system, and so no log of the service")]
    NoJournal,
}

/// Why there is nobody to run a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    /// Windows.
    #[error("on Windows mcp-authd cannot be installed as a service yet")]
    Windows,
    /// Neither systemd nor launchd.
    #[error("this system has no systemd that could run mcp-authd as a service")]
    Systemd,
    /// A container.
    #[error("no systemd runs in this container, so mcp-authd cannot be its service")]
    InContainer,
    /// Windows Subsystem for Linux.
    #[error("this WSL distribution runs without systemd, so mcp-authd cannot be its service")]
    InWsl,
    /// `sudo mcp-authctl service`.
    #[error("mcp-authd is the service of a user, and this is root by sudo")]
    BySudo,
    /// systemd runs, but not for this user.
    #[error("systemd does not run services of your own here, for lack of a login session")]
    Session,
    /// No home folder, no place for the files.
    #[error("there is no home folder for the files of a service")]
    Home,
}

impl ServiceError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoSupervisor(missing) => missing.hint(),
            Self::NoProgram => "put it beside mcp-authctl, or its folder into PATH (`cargo install --path daemon` does both)".into(),
            Self::ByHand { pid } => format!("kill {pid} && mcp-authctl service install"),
            Self::Edited { verb, .. } => format!("mcp-authctl service {verb} --force (changes of your own: `systemctl --user edit mcp-authd`)"),
            Self::NotInstalled => "mcp-authctl service install".into(),
            Self::NotRunning => "mcp-authctl service start".into(),
            Self::Ended { code: Some(75) } => "end the other one, then `mcp-authctl service start`; `mcp-authctl status` shows it".into(),
            Self::Ended { .. } => "`mcp-authd` in a terminal says why; then `mcp-authctl service start`".into(),
            Self::NoJournal => "`systemctl --user edit mcp-authd`, lines `[Service]` and `StandardError=append:%h/mcp-authd.log`, then `mcp-authctl service restart`".into(),
            Self::OddText(_) | Self::OddPath(_) => "choose a path of plain characters".into(),
            Self::Refused { command, .. } if command.starts_with("systemctl") => "`systemctl --user status mcp-authd` tells more".into(),
            Self::Refused { command, .. } if command.starts_with("journalctl") => {
                "sudo journalctl _SYSTEMD_USER_UNIT=mcp-authd.service, where your own journal is not kept".into()
            }
            Self::Refused { .. } => "launchctl print gui/$(id -u)/io.github.mcp-authd".into(),
            Self::CannotRun { program, .. } => format!("put {program} on PATH"),
        };
        Some(hint)
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotRunning => 4,
            Self::ByHand { .. } | Self::Ended { code: Some(75) } => 75,
            Self::Ended { code: Some(78) } => 78,
            _ => 1,
        }
    }

    /// The word that `--json` shows.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::NoSupervisor(_) => "no_service_manager",
            Self::NotInstalled => "not_installed",
            Self::NotRunning => "not_running",
            Self::ByHand { .. } => "conflict",
            _ => "failed",
        }
    }
}

impl Missing {
    fn hint(self) -> String {
        match self {
            Self::Windows => "start `mcp-authd` in a terminal, or put it into the folder that `shell:startup` opens".into(),
            Self::Systemd | Self::InContainer => format!("start it by hand, or from ~/.profile: {BY_HAND}"),
            Self::InWsl => format!("`systemd=true` below `[boot]` in /etc/wsl.conf, then `wsl --shutdown`; or from ~/.profile: {BY_HAND}"),
            Self::BySudo => "the same command without sudo".into(),
            Self::Session => {
                "log in as this user (console or ssh), not by su or sudo; without a login: `sudo loginctl enable-linger USER`".into()
            }
            Self::Home => "set HOME".into(),
        }
    }
}

/// A second daemon ends at once, so that a line in `~/.profile` may say this each time.
pub(super) const BY_HAND: &str = "`setsid -f mcp-authd >/dev/null 2>&1`";

fn end(code: Option<i32>) -> String {
    match code {
        Some(75) => "another mcp-authd is running".to_owned(),
        Some(78) => "its config or environment cannot be used".to_owned(),
        // As systemd.exec(5) numbers what fails before the program runs.
        Some(203) => "systemd cannot execute the program".to_owned(),
        Some(code @ 200..=245) => format!("systemd cannot set it up (exit code {code})"),
        Some(code) => format!("exit code {code}"),
        None => "by a signal".to_owned(),
    }
}

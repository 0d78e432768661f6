//! The user's systemd: what it says of our units, and what it is asked to do. Everything goes through systemctl.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::failure::{Missing, ServiceError};
use super::state::{Found, State, Wanted};
use super::step::{Step, lines_of};
use super::text::{self, Start};
use crate::surroundings;

pub(super) const SERVICE: &str = "mcp-authd.service";
pub(super) const SOCKET: &str = "mcp-authd.socket";

/// The systemd of this user, which answers.
#[derive(Debug)]
pub(super) struct Systemd {
    /// Where it looks for the user's own units.
    pub(super) units: PathBuf,
    /// For `XDG_RUNTIME_DIR`, where the caller has none but the system does (`su`, cron).
    runtime: Option<PathBuf>,
}

impl Systemd {
    /// Asks whether there is one.
    ///
    /// # Errors
    /// [`ServiceError::NoSupervisor`] with the reason.
    pub(super) fn here() -> Result<Self, ServiceError> {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).ok_or(ServiceError::NoSupervisor(Missing::Home))?;
        let unset = std::env::var_os("XDG_RUNTIME_DIR").is_none_or(|folder| folder.is_empty());
        let runtime = if unset { own_runtime_folder() } else { None };
        let mut systemd = Self { units: PathBuf::from(home).join(".config/systemd/user"), runtime };
        // It may have been started with another XDG_CONFIG_HOME than ours.
        let path = systemd.ask(&["show", "--property=UnitPath", "--value"]).map_err(|_| ServiceError::NoSupervisor(why_not()))?;
        if let Some(folder) = path.split_whitespace().find(|folder| folder.starts_with('/') && folder.ends_with("/systemd/user")) {
            systemd.units = PathBuf::from(folder);
        }
        Ok(systemd)
    }

    /// The files that are wanted, with their texts.
    ///
    /// # Errors
    /// When a path cannot stand in a unit.
    pub(super) fn files(&self, start: &Start) -> Result<Vec<Wanted>, ServiceError> {
        let [service, socket] = self.places();
        Ok(vec![
            Wanted { path: socket, text: text::socket(start)?, why: "holds the socket while the daemon does not run" },
            Wanted { path: service, text: text::service(start)?, why: "how the daemon is started" },
        ])
    }

    /// The two units of ours.
    pub(super) fn places(&self) -> [PathBuf; 2] {
        [SERVICE, SOCKET].map(|unit| self.units.join(unit))
    }

    /// What an earlier `install` carried into them.
    pub(super) fn carried(&self) -> Vec<(String, String)> {
        let [service, socket] = self.places().map(|path| std::fs::read_to_string(path).unwrap_or_default());
        text::carried_by(&service, &socket)
    }

    /// What it says of our units.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) fn found(&self) -> Result<Found, ServiceError> {
        let [service, socket] = [self.show(SERVICE)?, self.show(SOCKET)?];
        let text = |unit: &HashMap<String, String>, name: &str| unit.get(name).filter(|value| !value.is_empty()).cloned();
        let is = |unit: &HashMap<String, String>, name: &str, value: &str| unit.get(name).is_some_and(|found| found == value);
        Ok(Found {
            unit: text(&service, "FragmentPath").map(PathBuf::from),
            enabled: is(&service, "UnitFileState", "enabled") && is(&socket, "UnitFileState", "enabled"),
            listening: is(&socket, "ActiveState", "active"),
            pid: text(&service, "MainPID").and_then(|pid| pid.parse().ok()).filter(|pid| *pid != 0),
            ended: is(&service, "ActiveState", "failed").then(|| ended(&service)),
            stale: is(&service, "NeedDaemonReload", "yes") || is(&socket, "NeedDaemonReload", "yes"),
            log: if is(&service, "StandardError", "append") { self.log_file()? } else { None },
        })
    }

    /// The file that a drop-in sends the log to; `show` does not name it.
    fn log_file(&self) -> Result<Option<PathBuf>, ServiceError> {
        let home = std::env::var("HOME").unwrap_or_default();
        Ok(log_file(&self.ask(&["cat", SERVICE])?, &home))
    }

    /// What makes the service that these files describe run from now on. `changed` are those that had to be written.
    pub(super) fn install(&self, state: &State, changed: &[PathBuf]) -> Vec<Step> {
        let mut steps = Vec::new();
        if !changed.is_empty() || state.stale {
            steps.push(Step::run(&systemctl(&["daemon-reload"]), "systemd reads the units"));
        }
        if !state.enabled {
            steps.push(Step::run(&systemctl(&["enable", SOCKET, SERVICE]), "they start with your login"));
        }
        let restarts = !changed.is_empty() && !changes_socket(changed);
        if restarts && state.pid.is_some() {
            steps.push(Step::run(&systemctl(&["restart", SERVICE]), "the daemon starts anew, whoever asks meanwhile waits"));
        } else if !changed.is_empty() || !state.listening || state.pid.is_none() {
            steps.push(Step::run(&systemctl(&["start", SOCKET, SERVICE]), "socket and daemon start now"));
        }
        steps
    }

    /// What must come before the files are written: a socket is closed by the unit that has opened it.
    pub(super) fn before_install(&self, state: &State, changed: &[PathBuf]) -> Option<Step> {
        let stop = || Step::run(&systemctl(&["stop", SERVICE, SOCKET]), "the socket changes, nobody can ask for a moment");
        (changes_socket(changed) && (state.listening || state.pid.is_some())).then(stop)
    }

    /// What comes before the files go: the end of the daemon and of its socket.
    pub(super) fn before_removal(&self) -> Vec<Step> {
        vec![Step::run(&systemctl(&["disable", "--now", SOCKET, SERVICE]), "socket and daemon end, and start no more")]
    }

    /// What comes after the files are gone.
    pub(super) fn after_removal(&self) -> Vec<Step> {
        let mut steps = vec![Step::run(&systemctl(&["daemon-reload"]), "systemd forgets the units")];
        let above = self.units.parent().filter(|above| above.ends_with("systemd"));
        steps.extend(
            std::iter::once(self.units.as_path()).chain(above).map(|folder| Step::remove_folder(folder, "if nothing else is in it")),
        );
        steps
    }

    /// The folder of the person's own changes (`systemctl --user edit`), if there is one.
    pub(super) fn drop_ins(&self) -> Option<PathBuf> {
        Some(self.units.join("mcp-authd.service.d")).filter(|folder| folder.exists())
    }

    /// Runs a line of `install` or another verb.
    ///
    /// # Errors
    /// [`ServiceError::Ended`] where the daemon is the reason, else in systemd's words.
    pub(super) fn run(&self, argv: &[String]) -> Result<(), ServiceError> {
        let words: Vec<&str> = argv.iter().skip(2).map(String::as_str).collect();
        match self.ask(&words) {
            Ok(_) => Ok(()),
            Err(error) => Err(self
                .show(SERVICE)
                .ok()
                .filter(|unit| matches!(unit.get("Result").map(String::as_str), Some("exit-code" | "signal" | "core-dump")))
                .map_or(error, |unit| ServiceError::Ended { code: exit_code(&unit) })),
        }
    }

    /// `journalctl` for our unit: in every journal that may be read, as users' lines are in the system's where it is not kept.
    pub(super) fn journal(&self, lines: usize, follow: bool, json: bool) -> Result<Command, ServiceError> {
        if !Path::new("/run/systemd/journal/stdout").exists() {
            return Err(ServiceError::NoJournal);
        }
        let mut command = self.command("journalctl");
        command.args(["--no-pager", &format!("--user-unit={SERVICE}"), &format!("--lines={lines}")]);
        command.args(follow.then_some("--follow")).args(json.then_some("--output=json"));
        Ok(command)
    }

    fn show(&self, unit: &str) -> Result<HashMap<String, String>, ServiceError> {
        const PROPERTIES: &str =
            "--property=FragmentPath,UnitFileState,ActiveState,MainPID,Result,ExecMainCode,ExecMainStatus,NeedDaemonReload,StandardError";
        Ok(properties(&self.ask(&["show", unit, PROPERTIES])?))
    }

    /// `systemctl --user` with these words.
    fn ask(&self, words: &[&str]) -> Result<String, ServiceError> {
        let mut command = self.command("systemctl");
        command.arg("--user").args(words);
        lines_of(command)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Its words are compared, and shown in a line of ours.
        command.env("LC_ALL", "C").env("SYSTEMD_COLORS", "0").stdin(Stdio::null());
        if let Some(runtime) = &self.runtime {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
        command
    }
}

/// The command line that asks the user's systemd for this.
pub(super) fn systemctl(words: &[&str]) -> Vec<String> {
    ["systemctl", "--user"].iter().chain(words).map(|word| (*word).to_owned()).collect()
}

/// PURE: the lines `NAME=VALUE` of `systemctl show`.
fn properties(text: &str) -> HashMap<String, String> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// PURE: why a failed unit has ended.
fn ended(unit: &HashMap<String, String>) -> String {
    ServiceError::Ended { code: exit_code(unit) }.to_string()
}

/// PURE: the exit code of the main process; none where a signal ended it (CLD_EXITED is 1).
fn exit_code(unit: &HashMap<String, String>) -> Option<i32> {
    unit.get("ExecMainStatus").filter(|_| unit.get("ExecMainCode").is_some_and(|code| code == "1"))?.parse().ok()
}

/// PURE: the file that the last line of all the unit's files sends the log to (`StandardError=append:%h/x`). Of the
/// specifiers only the home folder is known here.
fn log_file(units: &str, home: &str) -> Option<PathBuf> {
    let last = units.lines().filter_map(|line| line.trim().strip_prefix("StandardError=")).next_back()?;
    let path = last.strip_prefix("append:")?.replace("%h", home);
    (!path.contains('%')).then(|| PathBuf::from(path))
}

fn changes_socket(changed: &[PathBuf]) -> bool {
    changed.iter().any(|path| path.ends_with(SOCKET))
}

fn own_runtime_folder() -> Option<PathBuf> {
    let folder = Path::new("/run/user").join(super::own_uid()?.to_string());
    folder.join("systemd/private").exists().then_some(folder)
}

/// Why no systemd answers.
fn why_not() -> Missing {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    explain(&Clues {
        booted: Path::new("/run/systemd/system").exists(),
        sudo: std::env::var_os("SUDO_USER").is_some() && super::own_uid() == Some(0),
        wsl: read("/proc/sys/kernel/osrelease").to_lowercase().contains("microsoft"),
        container: surroundings::in_container(),
    })
}

/// What the system looks like.
#[derive(Clone, Copy, Debug)]
struct Clues {
    /// systemd is process 1 (sd_booted(3)).
    booted: bool,
    /// Root, by sudo.
    sudo: bool,
    wsl: bool,
    container: bool,
}

/// PURE: the likeliest reason.
fn explain(clues: &Clues) -> Missing {
    match *clues {
        Clues { booted: true, sudo: true, .. } => Missing::BySudo,
        Clues { booted: true, .. } => Missing::Session,
        Clues { wsl: true, .. } => Missing::InWsl,
        Clues { container: true, .. } => Missing::InContainer,
        _ => Missing::Systemd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_for_no_systemd_is_the_one_that_a_person_can_mend() {
        let none = Clues { booted: false, sudo: false, wsl: false, container: false };
        for (clues, expected) in [
            (none, Missing::Systemd),
            (Clues { container: true, ..none }, Missing::InContainer),
            (Clues { wsl: true, container: true, ..none }, Missing::InWsl),
            (Clues { booted: true, ..none }, Missing::Session),
            (Clues { booted: true, sudo: true, ..none }, Missing::BySudo),
            (Clues { sudo: true, ..none }, Missing::Systemd),
        ] {
            assert_eq!(explain(&clues), expected, "{clues:?}");
        }
    }

    #[test]
    fn the_end_of_a_daemon_is_told_from_what_systemd_shows() {
        let unit = |code: &str, status: &str| properties(&format!("ExecMainCode={code}\nExecMainStatus={status}\nResult=exit-code"));
        for (code, status, words) in
            [("1", "78", "config"), ("1", "75", "another"), ("1", "203", "execute"), ("1", "3", "exit code 3"), ("2", "9", "signal")]
        {
            assert!(ended(&unit(code, status)).contains(words), "{}", ended(&unit(code, status)));
        }
    }

    #[test]
    fn the_last_line_that_names_a_file_is_where_the_log_goes() {
        let units = "[Service]\nStandardError=append:/old\n# drop-in\n[Service]\nStandardError=append:%h/a b.log\n";
        assert_eq!(log_file(units, "/home/me"), Some(PathBuf::from("/home/me/a b.log")));
        for other in ["StandardError=journal", "StandardError=append:%S/log", "", "#StandardError=append:/x"] {
            assert_eq!(log_file(other, "/home/me"), None, "{other}");
        }
    }
}

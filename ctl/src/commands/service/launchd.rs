//! The user's launchd (macOS): what it says of our agent, and what it is asked to do. Everything goes through launchctl.

use std::path::PathBuf;
use std::process::Command;

use super::failure::{Missing, ServiceError};
use super::state::{Found, State, Wanted};
use super::step::{Step, lines_of};
use super::text::{self, Start};

/// The name of the agent, and of its file.
const LABEL: &str = "io.github.mcp-authd";

/// The launchd of this user's login.
#[derive(Debug)]
pub(super) struct Launchd {
    home: PathBuf,
    uid: u32,
}

impl Launchd {
    /// There always is one.
    ///
    /// # Errors
    /// Without a home folder.
    pub(super) fn here() -> Result<Self, ServiceError> {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        match (home, super::own_uid()) {
            (Some(home), Some(uid)) => Ok(Self { home: home.into(), uid }),
            _ => Err(ServiceError::NoSupervisor(Missing::Home)),
        }
    }

    /// The file that is wanted, with its text.
    ///
    /// # Errors
    /// When a path cannot stand in it.
    pub(super) fn files(&self, start: &Start) -> Result<Vec<Wanted>, ServiceError> {
        let log = self.log();
        let log = log.to_str().ok_or_else(|| ServiceError::OddPath(log.clone()))?;
        Ok(vec![Wanted { path: self.agent(), text: text::agent(start, log)?, why: "how the daemon is started" }])
    }

    /// What it says of our agent.
    pub(super) fn found(&self) -> Found {
        let mut command = Command::new("launchctl");
        command.args(["print", &self.target()]);
        let said = lines_of(command).ok();
        let loaded = said.is_some();
        let said = said.unwrap_or_default();
        let pid = number(&said, "pid");
        let ended = number(&said, "last exit code").filter(|code| pid.is_none() && *code != 0);
        Found {
            unit: Some(self.agent()).filter(|path| path.exists()),
            enabled: loaded,
            listening: false,
            pid,
            ended: ended.map(|code| ServiceError::Ended { code: i32::try_from(code).ok() }.to_string()),
            stale: false,
            log: Some(self.log()),
        }
    }

    /// What makes the agent run from now on.
    pub(super) fn install(&self, state: &State, changed: &[PathBuf]) -> Vec<Step> {
        let mut steps = Vec::new();
        if state.enabled && !changed.is_empty() {
            steps.push(Step::run(&launchctl(&["bootout", &self.target()]), "launchd forgets the old agent"));
        }
        if !state.enabled || !changed.is_empty() {
            steps.push(self.load());
        } else if state.pid.is_none() {
            steps.push(self.start());
        }
        steps
    }

    /// What comes before the file goes.
    pub(super) fn before_removal(&self, state: &State) -> Vec<Step> {
        let bootout = || Step::run(&launchctl(&["bootout", &self.target()]), "the daemon ends, and starts no more");
        state.enabled.then(bootout).into_iter().collect()
    }

    /// The agent with all that it says, for one that launchd does not know.
    pub(super) fn load(&self) -> Step {
        let path = self.agent().to_string_lossy().into_owned();
        Step::run(&launchctl(&["bootstrap", &self.domain(), &path]), "the daemon starts, now and with your login")
    }

    pub(super) fn start(&self) -> Step {
        Step::run(&launchctl(&["kickstart", &self.target()]), "the daemon starts")
    }

    pub(super) fn stop(&self) -> Step {
        Step::run(&launchctl(&["kill", "SIGTERM", &self.target()]), "the daemon ends, until the next login or `start`")
    }

    pub(super) fn restart(&self) -> Step {
        Step::run(&launchctl(&["kickstart", "-k", &self.target()]), "the daemon starts anew")
    }

    pub(super) fn agent(&self) -> PathBuf {
        self.home.join("Library/LaunchAgents").join(format!("{LABEL}.plist"))
    }

    fn log(&self) -> PathBuf {
        self.home.join("Library/Logs/mcp-authd.log")
    }

    fn domain(&self) -> String {
        format!("gui/{}", self.uid)
    }

    fn target(&self) -> String {
        format!("{}/{LABEL}", self.domain())
    }
}

fn launchctl(words: &[&str]) -> Vec<String> {
    std::iter::once(&"launchctl").chain(words).map(|word| (*word).to_owned()).collect()
}

/// PURE: a number of `launchctl print`, in a line `NAME = NUMBER`.
fn number(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| line.trim().strip_prefix(name)?.trim_start().strip_prefix('=')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::service::state::Files;

    fn state(enabled: bool, pid: Option<u32>) -> State {
        State {
            manager: "launchd",
            unit: None,
            files: Files::None,
            enabled,
            listening: false,
            pid,
            ended: None,
            by_hand: None,
            log: None,
            stale: false,
        }
    }

    fn lines(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| step.line().split(':').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_new_agent_is_loaded_a_changed_one_reloaded_and_a_running_one_left_alone() {
        let launchd = Launchd { home: "/Users/me".into(), uid: 501 };
        let agent = "/Users/me/Library/LaunchAgents/io.github.mcp-authd.plist";
        let load = format!("launchctl bootstrap gui/501 {agent}");
        let changed = [PathBuf::from(agent)];
        assert_eq!(lines(&launchd.install(&state(false, None), &changed)), [load.as_str()]);
        let unload = "launchctl bootout gui/501/io.github.mcp-authd";
        assert_eq!(lines(&launchd.install(&state(true, Some(7)), &changed)), [unload, load.as_str()]);
        assert!(launchd.install(&state(true, Some(7)), &[]).is_empty());
        assert_eq!(lines(&launchd.install(&state(true, None), &[])), ["launchctl kickstart gui/501/io.github.mcp-authd"]);
        assert_eq!(lines(&launchd.before_removal(&state(true, None))), [unload]);
    }

    #[test]
    fn pid_and_exit_code_are_read_from_what_launchctl_prints() {
        let text = "gui/501/io.github.mcp-authd = {\n\tactive count = 1\n\tpid = 4711\n\tlast exit code = 78\n\tpid local endpoints = {\n}";
        assert_eq!((number(text, "pid"), number(text, "last exit code"), number(text, "runs")), (Some(4711), Some(78), None));
        assert_eq!(number("last exit code = (never exited)", "last exit code"), None);
    }
}

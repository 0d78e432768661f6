//! What can be seen without the daemon: the programs, the socket, the service, the config, and what other tools left.

use std::path::{Path, PathBuf};

use mcp_auth_proto::ClientError;

use super::{Check, Found, Level};
use crate::commands::MEND_CONFIG;
use crate::commands::service::{Files, ServiceError};
use crate::failure::Failure;
use crate::surroundings::{self, daemon_program};

const INSTALL: &str = "mcp-authctl service install";

impl Found<'_> {
    pub(super) fn programs(&self) -> Check {
        const OURS: &str = env!("CARGO_PKG_VERSION");
        let installed = daemon_program().and_then(|program| surroundings::ask(&program, "--version"));
        let installed = installed.and_then(|(_, said, _)| said.trim().strip_prefix("mcp-authd ").map(str::to_owned));
        let running = self.daemon.as_ref().ok().map(|told| told.status.version.clone());
        let check = |level, daemon: &str| Check::new("programs", level, format!("mcp-authctl {OURS}, {daemon}"));
        match (running, installed) {
            (Some(running), _) if running == OURS => check(Level::Ok, &format!("mcp-authd {running}")),
            (Some(running), Some(installed)) if installed == OURS => {
                let check = check(Level::Warning, &format!("but mcp-authd {running} runs, an older one than is installed"));
                check.hint(if self.is_installed() { "mcp-authctl service restart" } else { "end mcp-authd and start it again" })
            }
            (Some(running), _) => {
                check(Level::Warning, &format!("but mcp-authd {running} runs")).hint("install both programs of one version")
            }
            (None, Some(installed)) if installed == OURS => check(Level::Ok, &format!("mcp-authd {installed}")),
            (None, Some(installed)) => {
                check(Level::Warning, &format!("but mcp-authd {installed}")).hint("install both programs of one version")
            }
            (None, None) => check(Level::Failed, "and no mcp-authd beside it or in PATH").hint("cargo install --locked --path daemon"),
        }
    }

    pub(super) fn socket(&self) -> Check {
        let path = self.client.path();
        let check = |level, detail: String| Check::new("socket", level, detail);
        match &self.daemon {
            Ok(_) => match (modes(path), path.parent().and_then(modes)) {
                (Some(own), Some(folder)) if own & 0o077 != 0 || folder & 0o022 != 0 => {
                    let detail = format!("{} can be used by others (modes {own:04o}, folder {folder:04o})", path.display());
                    check(Level::Failed, detail).hint(format!(
                        "chmod 600 '{}' && chmod 700 '{}'",
                        path.display(),
                        folder_of(path).display()
                    ))
                }
                (Some(own), Some(folder)) => check(Level::Ok, format!("{} ({own:04o}, folder {folder:04o})", path.display())),
                _ => check(Level::Ok, path.display().to_string()),
            },
            Err(failure) => {
                let detail = match failure {
                    Failure::Client(ClientError::NotRunning { .. }) => {
                        format!("mcp-authd is not running: nobody answers at {}", path.display())
                    }
                    other => format!("{}: {other}", path.display()),
                };
                let hint = failure.hint().unwrap_or_else(|| "start mcp-authd again".to_owned());
                check(Level::Failed, detail).hint(hint)
            }
        }
    }

    pub(super) fn service(&self) -> Check {
        let check = |level, detail: String| Check::new("service", level, detail);
        let state = match &self.service {
            Ok(state) => state,
            Err(error) => {
                let level = if matches!(error, ServiceError::NoSupervisor(_)) { Level::Note } else { Level::Warning };
                let check = check(level, error.to_string());
                return Check { hint: error.hint(), ..check };
            }
        };
        let Some(unit) = &state.unit else {
            let check = check(Level::Note, format!("{} does not start mcp-authd by itself", state.manager));
            return check.hint(state.by_hand.map_or_else(|| INSTALL.to_owned(), |pid| format!("kill {pid} && {INSTALL}")));
        };
        let unit = unit.display();
        if let Some(pid) = state.by_hand {
            let check =
                check(Level::Warning, format!("{unit} is installed, but the mcp-authd that runs was started by hand, process {pid}"));
            return check.hint(format!("kill {pid} && mcp-authctl service start"));
        }
        if let Some(why) = state.ended.clone().or_else(|| self.daemon.is_err().then(|| format!("{unit} is installed and does not run"))) {
            return check(Level::Warning, why).hint("mcp-authctl service start; mcp-authctl service logs tells why it ended");
        }
        if state.stale || state.files == Files::Outdated {
            return check(Level::Warning, format!("{unit} is out of date")).hint(INSTALL);
        }
        check(Level::Ok, format!("{}: {unit}", state.manager))
    }

    fn is_installed(&self) -> bool {
        self.service.as_ref().is_ok_and(|state| state.unit.is_some())
    }

    pub(super) fn config(&self) -> Check {
        let check = |level, detail: &str| Check::new("config", level, detail);
        match &self.daemon {
            Ok(told) => match &told.status.config.error {
                Some(error) => check(Level::Failed, error).safe("it has an error; the last good version is in use").hint(MEND_CONFIG),
                None => readable(&told.status.config.path),
            },
            Err(_) => match daemon_program().and_then(|program| surroundings::ask(&program, "--check")) {
                Some((true, said, _)) => readable(path_of(&said, "config").unwrap_or_default()),
                Some((false, _, said)) => {
                    let line = |mark: &str| said.lines().find_map(|line| line.strip_prefix(mark)).map(str::to_owned);
                    let detail = line("error: ").unwrap_or_else(|| "mcp-authd --check fails".to_owned());
                    check(Level::Failed, &detail)
                        .safe("it has an error")
                        .hint(line("hint: ").unwrap_or_else(|| "mcp-authd --check".to_owned()))
                }
                None => check(Level::Note, "not checked: that takes mcp-authd"),
            },
        }
    }
}

/// What `mcp-authd --check` says of one place.
fn path_of<'s>(said: &'s str, word: &str) -> Option<&'s str> {
    said.lines().find_map(|line| line.strip_prefix(word)).map(str::trim)
}

fn readable(path: &str) -> Check {
    let detail = if Path::new(path).exists() { path.to_owned() } else { format!("{path} is not there, and need not be") };
    Check::new("config", Level::Ok, detail)
}

/// A folder or file that others can look into.
pub(super) fn is_open(path: &Path) -> Option<u32> {
    modes(path).filter(|mode| mode & 0o077 != 0)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(unix)]
fn modes(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    Some(path.symlink_metadata().ok()?.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
fn modes(_path: &Path) -> Option<u32> {
    None
}

/// Files in which other tools keep tokens in the clear; only their names are looked at.
pub(super) fn other_tools() -> Option<Check> {
    const FILES: [(&str, &str); 9] = [
        (".mcp-auth", "mcp-remote"),
        (".claude/.credentials.json", "Claude Code"),
        (".codex/auth.json", "Codex"),
        (".gemini/oauth_creds.json", "Gemini CLI"),
        (".gemini/mcp-oauth-tokens.json", "Gemini CLI"),
        (".local/share/opencode/mcp-auth.json", "opencode"),
        (".config/github-copilot/apps.json", "GitHub Copilot"),
        (".git-credentials", "git"),
        (".netrc", "curl and git"),
    ];
    let home: PathBuf = std::env::home_dir()?;
    let found: Vec<_> =
        FILES.iter().filter(|(file, _)| home.join(file).exists()).map(|(file, tool)| format!("~/{file} ({tool})")).collect();
    (!found.is_empty()).then(|| Check::new("others", Level::Note, format!("may hold tokens in the clear: {}", found.join(", "))))
}

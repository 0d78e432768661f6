//! `mcp-authctl`, run because a person pressed a button: as if they had typed it, but without a terminal.
//!
//! The browser that it opens must be none of ours: a service's sandbox is no place for one, and the service's end would be
//! its end. Where a service manager runs the daemon, the manager runs the command beside it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// What tells a window where it belongs, and a browser how it is called.
const DISPLAY: [&str; 5] = ["DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "BROWSER", "XDG_CURRENT_DESKTOP"];

/// How the command line of this daemon is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ctl {
    /// Our own program: the command is looked for beside it.
    daemon: Option<PathBuf>,
    /// The daemon's socket.
    socket: Option<PathBuf>,
    /// `systemd --user` started us.
    managed: bool,
    display: Vec<(&'static str, OsString)>,
}

impl Ctl {
    /// As this process was started and is reached.
    pub fn of_this_process() -> Self {
        let display = DISPLAY.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
        Self {
            daemon: std::env::current_exe().ok(),
            socket: mcp_auth_proto::socket_path().ok(),
            managed: cfg!(target_os = "linux") && std::env::var_os("INVOCATION_ID").is_some(),
            display,
        }
    }

    /// Runs it to its end: whether it succeeded. Its words are nobody's secret, its output is not kept.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn run(&self, words: &[&str]) -> std::io::Result<bool> {
        if self.managed {
            match start(&self.beside(words), None) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                started => return Ok(started?.wait().await?.success()),
            }
        }
        let argv: Vec<OsString> = [self.program().into_os_string()].into_iter().chain(words.iter().map(OsString::from)).collect();
        Ok(start(&argv, self.socket.as_deref())?.wait().await?.success())
    }

    /// A unit of its own. Only the command ends with it, and not a browser that it has started.
    fn beside(&self, words: &[&str]) -> Vec<OsString> {
        const RUN: [&str; 8] = [
            "systemd-run",
            "--user",
            "--quiet",
            "--collect",
            "--wait",
            "--property=KillMode=process",
            "--property=StandardOutput=null",
            "--property=StandardError=null",
        ];
        let socket = self.socket.as_ref().map(|socket| ("MCP_AUTHD_SOCKET", socket.as_os_str().to_owned()));
        let set = socket.into_iter().chain(self.display.iter().cloned()).map(|(name, value)| {
            let mut word = OsString::from(format!("--setenv={name}="));
            word.push(value);
            word
        });
        let command = ["--".into(), self.program().into_os_string()].into_iter().chain(words.iter().map(OsString::from));
        RUN.into_iter().map(OsString::from).chain(set).chain(command).collect()
    }

    /// Beside the daemon, else wherever the system finds it.
    fn program(&self) -> PathBuf {
        const NAME: &str = if cfg!(windows) { "mcp-authctl.exe" } else { "mcp-authctl" };
        let beside = self.daemon.as_ref().and_then(|daemon| daemon.parent()).map(|folder| folder.join(NAME));
        beside.filter(|path| path.is_file()).unwrap_or_else(|| NAME.into())
    }
}

fn start(argv: &[OsString], socket: Option<&Path>) -> std::io::Result<tokio::process::Child> {
    let (program, words) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    // Its output has the login's URL, which is for the browser alone.
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(socket) = socket {
        command.env("MCP_AUTHD_SOCKET", socket);
    }
    #[cfg(unix)]
    command.process_group(0);
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_managed_daemon_has_the_manager_run_it_in_a_unit_of_its_own() {
        let ctl = Ctl {
            daemon: None,
            socket: Some("/run/user/1/mcp-authd/mcp-authd.sock".into()),
            managed: true,
            display: vec![("DISPLAY", ":0".into())],
        };
        let argv: Vec<_> = ctl.beside(&["login", "github:work"]).into_iter().map(|word| word.into_string().unwrap()).collect();
        assert_eq!(argv[..2], ["systemd-run", "--user"]);
        let end = argv.iter().position(|word| word == "--").unwrap();
        assert!(argv[..end].contains(&"--setenv=MCP_AUTHD_SOCKET=/run/user/1/mcp-authd/mcp-authd.sock".to_owned()));
        assert!(argv[..end].contains(&"--setenv=DISPLAY=:0".to_owned()) && argv[..end].contains(&"--property=KillMode=process".to_owned()));
        assert_eq!(argv[end + 1..], ["mcp-authctl", "login", "github:work"]);
    }
}

//! The demo's own daemon, in a folder of its own, and its issuer. It ends with this value, or with this process.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mcp_auth_proto::Client;

use super::{DemoError, NAME};
use crate::failure::Failure;

/// How long an access token of the demo lives, in seconds: it is refreshed 4 to 5 seconds before its end.
pub(super) const LIFETIME: u64 = 20;

/// How often another port is tried, when somebody else was faster.
const TRIES: u32 = 5;
/// How long the issuer may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the daemon may take to end: a little more than it gives itself.
const END: Duration = Duration::from_secs(15);
/// Between two looks.
const NAP: Duration = Duration::from_millis(20);
/// How many of its last lines are kept.
const WORDS: usize = 10;

/// The daemon.
pub(super) struct Place {
    child: Child,
    /// The daemon ends when this does.
    lifeline: Option<ChildStdin>,
    folder: PathBuf,
    socket: PathBuf,
    words: Arc<Mutex<VecDeque<String>>>,
}

impl Place {
    /// Starts the daemon and waits until it answers.
    pub(super) fn start(program: &Path) -> Result<Self, DemoError> {
        let mut command = alone(program);
        command.arg("--ephemeral").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| DemoError::NotStarted { program: program.to_owned(), source })?;
        let words: Arc<Mutex<VecDeque<String>>> = Arc::default();
        if let Some(stderr) = child.stderr.take() {
            let words = Arc::clone(&words);
            std::thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| keep(&words, line)));
        }
        let mut first = String::new();
        let stdout = child.stdout.take().ok_or(DemoError::NoDaemon)?;
        let read = BufReader::new(stdout).read_line(&mut first);
        let folder = PathBuf::from(first.trim_end_matches(['\n', '\r']));
        let socket = socket_in(&folder);
        let lifeline = child.stdin.take();
        let place = Self { child, lifeline, folder, socket, words };
        if read.is_err() || !place.folder.is_absolute() {
            return Err(DemoError::NoDaemon);
        }
        Ok(place)
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client of it.
    pub(super) fn client(&self) -> Arc<Client> {
        Arc::new(Client::new(&self.socket))
    }

    /// What it logged last.
    pub(super) fn last_words(&self) -> Vec<String> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.iter().cloned().collect()
    }

    /// Switches the issuer on, at a free port; its identifier.
    pub(super) fn open_issuer(&self) -> Result<String, Failure> {
        let client = self.client();
        for _ in 0..TRIES {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(DemoError::System)?.port();
            let path = self.folder.join("config.toml");
            std::fs::write(&path, config(port)).map_err(|source| Failure::File { path, source })?;
            client.reload()?;
            let issuer = format!("http://127.0.0.1:{port}");
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end {
                match client.status()?.issuer.filter(|status| status.issuer == issuer) {
                    Some(status) if status.error.is_none() => return Ok(issuer),
                    Some(_) => break,
                    None => std::thread::sleep(NAP),
                }
            }
        }
        Err(DemoError::NoIssuer.into())
    }

    /// Ends the daemon. Whether nothing of it is left.
    pub(super) fn end(mut self) -> bool {
        self.take_away()
    }

    fn take_away(&mut self) -> bool {
        drop(self.lifeline.take());
        let end = Instant::now() + END;
        let mut ended = matches!(self.child.try_wait(), Ok(Some(_)));
        while !ended && Instant::now() < end {
            std::thread::sleep(NAP);
            ended = matches!(self.child.try_wait(), Ok(Some(_)));
        }
        if !ended {
            // It cannot refuse this, and what it leaves then is removed here.
            let _ = self.child.kill();
            ended = self.child.wait().is_ok();
        }
        if self.folder.is_absolute() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        ended && !self.folder.exists()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.take_away();
    }
}

/// A program for the demo alone: it hears nothing of the person's own daemon, MCP servers and proxies, nor their Ctrl-C.
pub(super) fn alone(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_the_persons)) {
        command.env_remove(name);
    }
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

fn is_the_persons(name: &str) -> bool {
    let own = (name.starts_with("MCP_AUTHD_") && name != "MCP_AUTHD_LOG") || name.starts_with("MODEL_SERVER_");
    own || matches!(name, "LISTEN_FDS" | "LISTEN_PID" | "NOTIFY_SOCKET") || name.to_ascii_lowercase().ends_with("_proxy")
}

fn config(port: u16) -> String {
    format!(
        "[issuer]\nenabled = true\nlisten = \"127.0.0.1:{port}\"\naccess_token_lifetime = {LIFETIME}\n\n\
         [[issuer.clients]]\nclient_id = \"{NAME}\"\nname = \"the demo\"\nredirect_uris = [\"http://127.0.0.1/callback\"]\n\n\
         [providers.{NAME}]\nissuer = \"http://127.0.0.1:{port}\"\nclient_id = \"{NAME}\"\n\
         scopes = [\"openid\", \"profile\", \"offline_access\"]\n"
    )
}

/// As the daemon names it.
fn socket_in(folder: &Path) -> PathBuf {
    if cfg!(windows) {
        let name = folder.file_name().unwrap_or_default();
        return PathBuf::from(format!(r"\\.\pipe\{}", name.to_string_lossy()));
    }
    folder.join("mcp-authd.sock")
}

fn keep(words: &Mutex<VecDeque<String>>, line: String) {
    let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
    if words.len() == WORDS {
        words.pop_front();
    }
    words.push_back(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_person_set_for_their_own_daemon_and_network_is_not_handed_on() {
        for name in
            ["MCP_AUTHD_SOCKET", "MCP_AUTHD_STATE_DIR", "MODEL_SERVER_LISTEN", "HTTP_PROXY", "all_proxy", "no_proxy", "NOTIFY_SOCKET"]
        {
            assert!(is_the_persons(name), "{name}");
        }
        for name in ["PATH", "HOME", "TMPDIR", "MCP_AUTHD_LOG", "LANG"] {
            assert!(!is_the_persons(name), "{name}");
        }
    }
}

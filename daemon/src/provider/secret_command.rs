//! The command that prints a client secret (`client_secret_command`): run without a shell, its output never shown.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::Provider;
use crate::secret::ClientSecret;

/// Why a command gave no secret. Names the program, never its arguments or output.
#[derive(Debug, thiserror::Error)]
pub enum SecretCommandError {
    /// The program could not be started.
    #[error("client_secret_command: cannot start `{program}`: {source}")]
    NotStarted {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It has run and failed.
    #[error("client_secret_command: `{program}` failed with {status}")]
    Failed {
        /// The program.
        program: String,
        /// Its exit code or signal.
        status: ExitStatus,
    },
    /// It did not end in time and was killed.
    #[error("client_secret_command: `{program}` did not end within {} s", TIME_LIMIT.as_secs())]
    TimedOut {
        /// The program.
        program: String,
    },
    /// Its output is no secret.
    #[error("client_secret_command: `{program}` {what}")]
    BadOutput {
        /// The program.
        program: String,
        /// What is wrong with the output, without any of it.
        what: &'static str,
    },
}

/// The client secret of a provider: what its command prints, else what is stored.
pub async fn of(provider: &Provider, stored: Option<&ClientSecret>) -> Result<Option<ClientSecret>, SecretCommandError> {
    match &provider.client_secret_command {
        Some(argv) => run(argv).await.map(Some),
        None => Ok(stored.cloned()),
    }
}

/// Runs the command and takes its output, less one line end, as the secret. Dropping the future kills the command.
pub async fn run(argv: &[String]) -> Result<ClientSecret, SecretCommandError> {
    run_within(argv, TIME_LIMIT).await
}

const TIME_LIMIT: Duration = Duration::from_secs(10);
const OUTPUT_LIMIT: usize = 8 * 1024;

async fn run_within(argv: &[String], limit: Duration) -> Result<ClientSecret, SecretCommandError> {
    let program = argv.first().cloned().unwrap_or_default();
    let mut running = start(argv).map_err(|source| SecretCommandError::NotStarted { program: program.clone(), source })?;
    match tokio::time::timeout(limit, finish(&mut running, &program)).await {
        Ok(secret) => secret,
        Err(_) => Err(SecretCommandError::TimedOut { program }),
    }
}

fn start(argv: &[String]) -> std::io::Result<Running> {
    let (program, arguments) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    command.spawn().map(Running)
}

async fn finish(running: &mut Running, program: &str) -> Result<ClientSecret, SecretCommandError> {
    let bad = |what| SecretCommandError::BadOutput { program: program.to_owned(), what };
    // Allocated whole, so that no copy of a part is left behind by growing.
    let mut output = Zeroizing::new(vec![0_u8; OUTPUT_LIMIT + 1]);
    let mut length = 0;
    if let Some(mut stdout) = running.0.stdout.take() {
        while length < output.len() {
            match stdout.read(&mut output[length..]).await {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(_) => return Err(bad("broke off its output")),
            }
        }
    }
    if length > OUTPUT_LIMIT {
        return Err(bad("printed more than 8 KiB"));
    }
    let status = running.0.wait().await.map_err(|source| SecretCommandError::NotStarted { program: program.to_owned(), source })?;
    if !status.success() {
        return Err(SecretCommandError::Failed { program: program.to_owned(), status });
    }
    secret(&output[..length]).map_err(bad)
}

fn secret(output: &[u8]) -> Result<ClientSecret, &'static str> {
    let line = output.strip_suffix(b"\n").map_or(output, |line| line.strip_suffix(b"\r").unwrap_or(line));
    if line.is_empty() {
        return Err("printed nothing");
    }
    // A private key is the one secret that has lines.
    let is_key = line.starts_with(b"-----BEGIN ") || line.starts_with(b"{");
    if line.contains(&b'\n') && !is_key {
        return Err("printed more than one line");
    }
    match std::str::from_utf8(line) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !(is_key && c.is_ascii_whitespace())) => {
            Ok(ClientSecret::new(text.to_owned()))
        }
        _ => Err("printed something that is not text"),
    }
}

/// A command in a process group of its own: what it has started in turn (a pinentry) ends with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The id is there only until the child is waited for, so that it cannot be another process by now.
        #[cfg(unix)]
        if let Some(group) = self.0.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn error(argv: &[String]) -> String {
        run(argv).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn the_output_less_one_line_end_is_the_secret() {
        for (script, secret) in [
            ("echo s3cret", "s3cret"),
            ("printf 'a b'", "a b"),
            ("printf 'x\\r\\n'", "x"),
            ("echo y; echo no >&2", "y"),
            ("printf -- '-----BEGIN X\\nabc\\n'", "-----BEGIN X\nabc"),
        ] {
            assert_eq!(*run(&sh(script)).await.unwrap().expose(), secret, "{script}");
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_without_the_output() {
        let table = [
            ("echo s3cret; exit 3", "client_secret_command: `sh` failed with exit status: 3"),
            ("echo s3cret; kill -9 $$", "client_secret_command: `sh` failed with signal: 9 (SIGKILL)"),
            ("true", "client_secret_command: `sh` printed nothing"),
            ("echo; ", "client_secret_command: `sh` printed nothing"),
            ("echo s3cret; echo user: me", "client_secret_command: `sh` printed more than one line"),
            ("printf 's3cret\\001'", "client_secret_command: `sh` printed something that is not text"),
            ("printf 's3cret\\377'", "client_secret_command: `sh` printed something that is not text"),
            ("yes s3cret", "client_secret_command: `sh` printed more than 8 KiB"),
        ];
        for (script, expected) in table {
            assert_eq!(error(&sh(script)).await, expected);
        }
        let absent = ["/nowhere/pass".to_owned()];
        assert_eq!(error(&absent).await, "client_secret_command: cannot start `/nowhere/pass`: No such file or directory (os error 2)");
    }

    #[tokio::test]
    async fn nothing_is_read_from_the_terminal() {
        assert_eq!(error(&sh("cat")).await, "client_secret_command: `sh` printed nothing");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("alive");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        // The grandchild holds the pipe's writing end: end of file tells that it is gone.
        let script = format!("sleep 1000 >'{}' & wait", fifo.display());
        let reader = tokio::task::spawn_blocking(move || std::fs::read(fifo));
        let failed = run_within(&sh(&script), Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(failed, SecretCommandError::TimedOut { .. }), "{failed}");
        assert_eq!(reader.await.unwrap().unwrap(), b"");
    }
}

//! Runs one of our programs with its output in kept files, so that nothing can fill a pipe and the leak search sees it all.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::kept_folder;
use crate::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(90);

/// What a program said.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code, as a shell tells it: 128 and the signal when one ended it.
    pub code: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Output {
    /// Succeeded, else a panic with all that it said.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "failed: {self:?}");
        self
    }

    /// Failed as documented: that exit code, one sentence, a hint, and nothing on stdout.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "another exit code: {self:?}");
        assert!(self.stderr.lines().any(|line| line.starts_with("error: ")), "no `error: ` line: {self:?}");
        assert!(self.stderr.lines().any(|line| line.starts_with("hint: ")), "no `hint: ` line: {self:?}");
        assert_eq!(self.stdout, "", "stdout is for data only");
        self
    }

    /// The error sentence and what follows, for a look at its words.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "does not say {words:?}: {self:?}");
        self
    }

    /// Stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("stdout is not JSON ({error}): {self:?}"))
    }
}

/// A program that runs, its output in kept files.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    label: PathBuf,
}

impl Running {
    /// Starts `command`. With `stdout_holds_a_token` its stdout is left out of the leak search: the one place for a token.
    #[track_caller]
    pub fn start(mut command: Command, label: &str, stdout_holds_a_token: bool) -> Self {
        let label = next_label(label);
        let stdout = label.with_extension(if stdout_holds_a_token { "token" } else { "stdout" });
        let stderr = label.with_extension("stderr");
        command.stdin(Stdio::piped()).stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        Self::spawn(&mut command, label, stdout, stderr)
    }

    /// Starts `command`, whose input and output are somewhere else.
    #[track_caller]
    pub(crate) fn attached(command: &mut Command, label: &str) -> Self {
        let label = next_label(label);
        Self::spawn(command, label.clone(), label.with_extension("stdout"), label.with_extension("stderr"))
    }

    #[track_caller]
    fn spawn(command: &mut Command, label: PathBuf, stdout: PathBuf, stderr: PathBuf) -> Self {
        // A run in the background has SIGINT ignored, and so would its children: what is caught here is back to normal there.
        signal_hook::flag::register(signal_hook::consts::SIGINT, std::sync::Arc::default()).unwrap();
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let running = Self { child, stdout, stderr, label };
        running.keep_proc("start");
        running
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its stdin.
    #[track_caller]
    pub fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is closed");
        // Some end without reading their input, which is theirs to do.
        let _ = stdin.write_all(format!("{line}\n").as_bytes());
        stdin.flush().unwrap();
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// All that it said so far, stdout and stderr.
    pub fn said(&self) -> String {
        format!("{}{}", read(&self.stdout), read(&self.stderr))
    }

    /// Waits until it has said something that `find` finds.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        wait_until(what, PATIENCE, || {
            let found = find(&self.said());
            if found.is_none() && !self.is_alive() && find(&self.said()).is_none() {
                panic!("ended without {what}: {}", self.said());
            }
            found
        })
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Whether it has ended, and the kernel wrote its memory to a core file or handed it to the program that takes cores.
    pub fn dumped_core(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(status)) if std::os::unix::process::ExitStatusExt::core_dumped(&status))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> Output {
        self.close_stdin();
        let status = wait_until("the program's end", PATIENCE, || self.child.try_wait().unwrap());
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0);
        Output { code: status.code().unwrap_or(128 + signal), stdout: read(&self.stdout), stderr: read(&self.stderr) }
    }

    /// Keeps its environment and command line, as other processes may see them, for the leak search.
    pub fn keep_proc(&self, when: &str) {
        for part in ["environ", "cmdline"] {
            let text = std::fs::read(format!("/proc/{}/{part}", self.pid())).unwrap_or_default();
            std::fs::write(self.label.with_extension(format!("{when}.{part}")), text).unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_alive() {
            self.keep_proc("end");
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Runs a program to its end with this stdin.
#[track_caller]
pub fn run(command: Command, label: &str, stdin: &str, stdout_holds_a_token: bool) -> Output {
    let mut running = Running::start(command, label, stdout_holds_a_token);
    if !stdin.is_empty() {
        running.type_line(stdin);
    }
    running.wait()
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// `e2e/output/SUITE.PID.N-label`, one for each process that we start.
fn next_label(label: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let exe = std::env::current_exe().unwrap();
    let suite = exe.file_stem().unwrap().to_string_lossy().split('-').next().unwrap().to_owned();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    kept_folder("output").join(format!("{suite}-{}-{number:04}-{label}", std::process::id()))
}

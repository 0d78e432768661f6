//! One step of `install` or `uninstall`: what is done, and the line that tells a person why. A plan is made of them, so that
//! `--dry-run` and the real run cannot differ.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::failure::ServiceError;
use crate::failure::Failure;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    #[serde(flatten)]
    pub(super) action: Action,
    why: &'static str,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub(super) enum Action {
    /// Writes a file, in place of an old one.
    Write { path: PathBuf, text: String },
    /// Removes a file.
    Remove { path: PathBuf },
    /// Removes a folder if it is empty.
    RemoveFolder { path: PathBuf },
    /// Runs a command.
    Run { argv: Vec<String> },
}

impl Step {
    pub(super) fn write(path: PathBuf, text: String, why: &'static str) -> Self {
        Self { action: Action::Write { path, text }, why }
    }

    pub(super) fn remove(path: PathBuf, why: &'static str) -> Self {
        Self { action: Action::Remove { path }, why }
    }

    pub(super) fn remove_folder(path: &Path, why: &'static str) -> Self {
        Self { action: Action::RemoveFolder { path: path.to_owned() }, why }
    }

    pub(super) fn run(argv: &[String], why: &'static str) -> Self {
        Self { action: Action::Run { argv: argv.to_vec() }, why }
    }

    /// One line for the person.
    pub(super) fn line(&self) -> String {
        let what = match &self.action {
            Action::Write { path, .. } => format!("write {}", path.display()),
            Action::Remove { path } | Action::RemoveFolder { path } => format!("remove {}", path.display()),
            Action::Run { argv } => argv.join(" "),
        };
        format!("{what}: {}", self.why)
    }
}

/// Removes a file, or an empty folder; what is not there is gone, and what others have put into a folder stays.
///
/// # Errors
/// When the disk refuses.
pub(super) fn remove(action: &Action) -> Result<(), Failure> {
    let (path, removed) = match action {
        Action::Remove { path } => (path, std::fs::remove_file(path)),
        Action::RemoveFolder { path } => (path, std::fs::remove_dir(path)),
        Action::Write { .. } | Action::Run { .. } => return Ok(()),
    };
    match removed {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
        removed => removed.map_err(|source| Failure::File { path: path.clone(), source }),
    }
}

/// Runs a command to its end: its stdout, or a failure in its words.
///
/// # Errors
/// [`ServiceError::CannotRun`], [`ServiceError::Refused`].
pub(super) fn lines_of(mut command: Command) -> Result<String, ServiceError> {
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy().into_owned()).collect();
    let output = command.output().map_err(|source| ServiceError::CannotRun { program: words[0].clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    Err(ServiceError::Refused { command: words.join(" "), said: if said.is_empty() { output.status.to_string() } else { said } })
}

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

/// Removes a file, or an empty folder; what is not there is gone. A folder that something else is in, or that is somebody's link
/// or mount, stays.
///
/// # Errors
/// When the disk does not let a file go.
pub(super) fn remove(action: &Action) -> Result<(), Failure> {
    match action {
        Action::Remove { path } => match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| Failure::File { path: path.clone(), source }),
        },
        Action::RemoveFolder { path } => {
            let _ = std::fs::remove_dir(path);
            Ok(())
        }
        Action::Write { .. } | Action::Run { .. } => Ok(()),
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

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_folder_that_is_a_link_stays_and_a_file_that_is_none_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("dotfiles"), folder.path().join("user"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(remove(&Action::RemoveFolder { path: link.clone() }).is_ok() && link.exists());
        assert!(remove(&Action::Remove { path: real.clone() }).is_err() && real.exists());
        assert!(remove(&Action::Remove { path: folder.path().join("nothing") }).is_ok());
    }
}

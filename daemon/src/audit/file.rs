//! The files: `audit.jsonl`, which is appended to, and two older ones. They are opened for each writing, so that one that was
//! moved away, or a disk that has room again, needs no restart. Nothing is synced: a power failure may take the last seconds.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use mcp_auth_proto::AuditLine;

use crate::platform::{self, NotPrivate};

/// The names, the newest first.
const NAMES: [&str; 3] = ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"];
/// The size at which a new file is begun, bytes.
const FULL: u64 = 1024 * 1024;

/// What the disk refused, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} {why}", .path.display())]
pub(super) struct Refused {
    path: PathBuf,
    why: NotPrivate,
}

/// The audit's files in their folder.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    full: u64,
}

impl Files {
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        Self { folder, full: FULL }
    }

    #[cfg(test)]
    pub(super) fn full_at(self, full: u64) -> Self {
        Self { full, ..self }
    }

    /// Appends lines, whole or not at all.
    pub(super) fn append(&self, lines: &str) -> Result<(), Refused> {
        platform::private_folder(&self.folder).map_err(|why| Refused { path: self.folder.clone(), why })?;
        self.append_to_file(lines).map_err(|why| Refused { path: self.folder.join(NAMES[0]), why })
    }

    fn append_to_file(&self, lines: &str) -> Result<(), NotPrivate> {
        let mut file = self.open()?;
        let mut length = file.metadata()?.len();
        if length > 0 && length + lines.len() as u64 > self.full {
            self.rotate()?;
            file = self.open()?;
            length = 0;
        }
        let torn = length > 0 && !ends_in_newline(&mut file)?;
        let text = if torn { format!("\n{lines}") } else { lines.to_owned() };
        file.write_all(text.as_bytes()).map_err(|error| {
            // The piece that was written is a torn line, and readers skip it, if it cannot be taken back.
            let _ = file.set_len(length);
            NotPrivate::Io(error)
        })
    }

    /// Every line that can be read, the oldest first. What is torn or foreign is left out.
    pub(super) fn read(&self) -> Vec<AuditLine> {
        let texts = NAMES.iter().rev().map(|name| self.text(name).unwrap_or_default());
        texts
            .flat_map(|text| text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect::<Vec<_>>())
            .collect()
    }

    fn text(&self, name: &str) -> Result<Vec<u8>, NotPrivate> {
        let mut file = open_private(&self.folder.join(name), false)?;
        let from = file.metadata()?.len().saturating_sub(2 * self.full);
        file.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        file.take(2 * self.full).read_to_end(&mut text)?;
        Ok(text)
    }

    fn open(&self) -> Result<File, NotPrivate> {
        let path = self.folder.join(NAMES[0]);
        match open_private(&path, true) {
            Err(NotPrivate::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(platform::create_new(&path)?),
            opened => opened,
        }
    }

    fn rotate(&self) -> io::Result<()> {
        for (older, newer) in [(NAMES[2], NAMES[1]), (NAMES[1], NAMES[0])] {
            match std::fs::rename(self.folder.join(newer), self.folder.join(older)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn open_private(path: &Path, append: bool) -> Result<File, NotPrivate> {
    let file = platform::open_existing(path, append)?;
    platform::private_file(&file)?;
    Ok(file)
}

fn ends_in_newline(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

//! The append-only file of intents: "this refresh token is about to be sent".
//!
//! One line each, `NAME GENERATION FINGERPRINT`, where the name is the record's file name, so the file does not tell
//! which grants there are. A line that is not whole is no line. Whether a grant acts on an intent is not known here.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::files;
use super::hex::Hex;
use crate::platform::{self, NotPrivate};

/// The file's name in the folder of the records.
pub(super) const FILE: &str = "intents";
/// Past this, or twice what was needed at the last rewriting, the file is rewritten with what is still needed.
const LIMIT: usize = 64 * 1024;

/// One intent, by the name of its record's file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) generation: u64,
    pub(super) fingerprint: [u8; 8],
}

/// The intents on file.
#[derive(Debug)]
pub(super) struct Intents {
    path: PathBuf,
    // None: the file's end is not known to be good, so the next append writes a new file.
    file: Option<File>,
    lines: Vec<Line>,
    size: usize,
    // What the last rewriting left.
    rewritten: usize,
}

impl Intents {
    /// Reads what is there; a missing or unreadable file holds nothing.
    pub(super) fn load(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let bytes = files::read(&path, 16 * 1024 * 1024).unwrap_or_else(|error| {
            if !matches!(&error, NotPrivate::Io(error) if error.kind() == io::ErrorKind::NotFound) {
                tracing::warn!(%error, "the file of intents is not readable");
            }
            Vec::new()
        });
        let lines: Vec<Line> = String::from_utf8_lossy(&bytes).split_inclusive('\n').filter_map(Line::parse).collect();
        let whole = bytes.len() == lines.iter().map(|line| line.to_string().len()).sum::<usize>();
        let file = if whole { platform::open_existing(&path, true).ok() } else { None };
        Self { path, file, size: bytes.len(), rewritten: 0, lines }
    }

    /// No intents, in a folder that has no such file.
    pub(super) fn none(folder: &Path) -> Self {
        Self { path: folder.join(FILE), file: None, lines: Vec::new(), size: 0, rewritten: 0 }
    }

    /// What is on file.
    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Adds lines, durably. `generations` are those of the records on file.
    pub(super) fn append(&mut self, lines: Vec<Line>, generations: &HashMap<String, u64>) -> io::Result<()> {
        let text: String = lines.iter().map(Line::to_string).collect();
        let grown = self.size + text.len();
        let result = match &mut self.file {
            Some(file) if grown <= LIMIT.max(2 * self.rewritten) => files::append(file, &self.path, text.as_bytes()),
            _ => {
                let mut kept = self.needed(generations);
                kept.extend(lines);
                return self.rewrite(kept);
            }
        };
        match &result {
            Ok(()) => {
                self.lines.extend(lines);
                self.size = grown;
            }
            Err(_) => self.file = None,
        }
        result
    }

    /// Drops the lines that no caller can need any more, if there are any.
    pub(super) fn compact(&mut self, generations: &HashMap<String, u64>) -> io::Result<()> {
        let kept = self.needed(generations);
        if kept.len() == self.lines.len() && (self.file.is_some() || self.size == 0) {
            return Ok(());
        }
        self.rewrite(kept)
    }

    /// An intent is obsolete once its record has moved on, or is gone.
    fn needed(&self, generations: &HashMap<String, u64>) -> Vec<Line> {
        let mut seen = HashSet::new();
        let needed = |line: &&Line| generations.get(&line.name).is_some_and(|current| *current <= line.generation);
        self.lines.iter().filter(needed).filter(|line| seen.insert(*line)).cloned().collect()
    }

    fn rewrite(&mut self, lines: Vec<Line>) -> io::Result<()> {
        self.file = None;
        let text: String = lines.iter().map(Line::to_string).collect();
        files::replace(&self.path, text.as_bytes())?;
        self.size = text.len();
        self.rewritten = self.size;
        self.lines = lines;
        self.file = platform::open_existing(&self.path, true).ok();
        Ok(())
    }
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let name = Hex::<16>::parse(words.next()?)?.to_string();
        let generation = words.next()?.parse().ok()?;
        let fingerprint = Hex::<8>::parse(words.next()?)?.0;
        words.next().is_none().then_some(Self { name, generation, fingerprint })
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} {} {}", self.name, self.generation, Hex(self.fingerprint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> Line {
        Line { name: format!("{number:032x}"), generation: number, fingerprint: [9; 8] }
    }

    fn generations(numbers: impl IntoIterator<Item = u64>) -> HashMap<String, u64> {
        numbers.into_iter().map(|number| (format!("{number:032x}"), number)).collect()
    }

    #[test]
    fn half_a_last_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut intents = Intents::none(folder.path());
        intents.append(vec![line(1), line(2)], &generations([1, 2])).unwrap();
        let whole = std::fs::read(folder.path().join(FILE)).unwrap();
        let first = whole.len() / 2;
        for length in first..whole.len() {
            std::fs::write(folder.path().join(FILE), &whole[..length]).unwrap();
            let mut intents = Intents::load(folder.path());
            assert_eq!(intents.lines(), [line(1)], "{length} bytes");
            intents.append(vec![line(3)], &generations([1, 2, 3])).unwrap();
            assert_eq!(Intents::load(folder.path()).lines(), [line(1), line(3)], "{length} bytes");
        }
    }

    #[test]
    fn lines_stay_in_order_over_restarts_and_obsolete_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        Intents::none(folder.path()).append(vec![line(1)], &HashMap::new()).unwrap();
        Intents::load(folder.path()).append(vec![line(2), line(3)], &HashMap::new()).unwrap();
        let mut intents = Intents::load(folder.path());
        assert_eq!(intents.lines(), [line(1), line(2), line(3)]);
        let mut records = generations([1, 2]);
        records.insert(line(2).name, 3);
        intents.compact(&records).unwrap();
        assert_eq!(Intents::load(folder.path()).lines(), [line(1)], "2 moved on, 3 has no record");
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut intents = Intents::none(folder.path());
        for batch in 0..50 {
            let lines: Vec<Line> = (batch * 100..(batch + 1) * 100).map(|generation| Line { generation, ..line(1) }).collect();
            intents.append(lines, &HashMap::from([(line(1).name, batch * 100)])).unwrap();
        }
        assert!(std::fs::metadata(folder.path().join(FILE)).unwrap().len() <= LIMIT as u64);
        assert_eq!(Intents::load(folder.path()).lines().last().unwrap().generation, 4_999);
    }

    #[test]
    fn many_grants_in_an_outage_do_not_make_every_line_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (mut intents, records) = (Intents::none(folder.path()), generations(0..5_000));
        files::crash::steps();
        for batch in 0..50 {
            intents.append((batch * 100..(batch + 1) * 100).map(line).collect(), &records).unwrap();
        }
        let rewritten = files::crash::steps().iter().filter(|step| step.starts_with("rename")).count();
        assert!(rewritten <= 5, "{rewritten} of 50");
        assert_eq!(Intents::load(folder.path()).lines().len(), 5_000);
    }

    #[test]
    fn after_a_failed_sync_a_new_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut intents = Intents::none(folder.path());
        let records = generations([1, 2, 3]);
        intents.append(vec![line(1)], &records).unwrap();
        files::crash::fail_once("fdatasync", 5);
        assert!(intents.append(vec![line(2)], &records).is_err());
        files::crash::steps();
        intents.append(vec![line(3)], &records).unwrap();
        assert!(files::crash::steps().contains(&format!("rename {FILE}")));
        assert_eq!(Intents::load(folder.path()).lines(), [line(1), line(3)]);
    }
}

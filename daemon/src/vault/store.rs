//! The folder of sealed records under one key: load all, change some, copy to another key.
//!
//! Runs on the vault's thread and blocks. Knows nothing of key sources and the header. What it cannot read it puts
//! aside (`*.bad`) or leaves, and never deletes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::hex::Hex;
use super::intents::{self, Intents, Line};
use super::record::{self, KeyId, Keys, Unreadable};
use super::{Intent, Record, RecordId, VaultError, files, header};
use crate::platform::NotPrivate;

const ENDING: &str = ".sealed";
const BAD: &str = ".bad";
const RESERVE: &str = "reserve";
const RESERVE_SIZE: usize = 64 * 1024;
const LIMIT: u64 = 16 * 1024 * 1024;

/// One change to the folder.
#[derive(Debug)]
pub(super) enum Change {
    Save(Record),
    Delete(RecordId),
    Intend(Intent),
}

/// Whether a path has the form of a record's file.
pub(super) fn is_record(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(ENDING).is_some_and(|stem| Hex::<16>::parse(stem).is_some())
}

/// An open folder of records.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    reserve: PathBuf,
    keys: Keys,
    // By file name: the generation on disk.
    generations: HashMap<String, u64>,
    // Files of a later format: not to be written over.
    newer: HashSet<String>,
    // Files that the disk did not give us: put aside before anything takes their place.
    unread: HashSet<String>,
    // Damaged files that could not be put aside.
    stuck: usize,
    intents: Intents,
}

impl Store {
    /// Makes an empty folder, durably.
    pub(super) fn create(vault: &Path, keys: Keys) -> io::Result<Self> {
        let store = Self::over(vault, keys);
        files::make_folder(&store.folder)?;
        files::sync_folder(&store.folder)?;
        files::sync_folder(vault)?;
        Ok(store)
    }

    /// Opens a folder and reads everything in it.
    pub(super) fn load(vault: &Path, keys: Keys) -> Result<(Self, Vec<Record>), VaultError> {
        let mut store = Self::over(vault, keys);
        let records = store.reload()?;
        Ok((store, records))
    }

    /// Reads everything again.
    pub(super) fn reload(&mut self) -> Result<Vec<Record>, VaultError> {
        let entries = std::fs::read_dir(&self.folder).map_err(|error| VaultError::Locked {
            reason: format!("the vault's records in {} cannot be read ({error})", self.folder.display()),
            hint: Some("restore the vault from a backup".into()),
            key_source: None,
        })?;
        self.generations.clear();
        self.newer.clear();
        self.unread.clear();
        self.stuck = 0;
        let mut records = Vec::new();
        // Listed first, so that a file put aside meanwhile is not met again under its new name.
        let entries: Vec<_> = entries.flatten().collect();
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(files::TEMP) {
                let _ = files::remove(&path);
            } else if is_record(&path) {
                records.extend(self.read(&path, name.trim_end_matches(ENDING)));
            }
        }
        self.intents = Intents::load(&self.folder);
        Ok(records)
    }

    /// How many records were put aside or could not be read.
    pub(super) fn quarantined(&self) -> usize {
        let bad = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().ends_with(BAD);
        let bad = std::fs::read_dir(&self.folder).into_iter().flatten().flatten().filter(bad).count();
        bad + self.stuck + self.newer.len() + self.unread.len()
    }

    /// Whether a record was there and cannot be read: damaged, now or earlier, of a later version, or kept back by the disk.
    pub(super) fn is_lost(&self, id: &RecordId) -> bool {
        let name = self.keys.file_name(id);
        let aside = |entry: std::fs::DirEntry| {
            let found = entry.file_name();
            let found = found.to_string_lossy();
            found.starts_with(&name) && found.ends_with(BAD)
        };
        !self.generations.contains_key(&name)
            && (self.newer.contains(&name)
                || self.unread.contains(&name)
                || self.path(&name).exists()
                || std::fs::read_dir(&self.folder).into_iter().flatten().flatten().any(aside))
    }

    /// Every intent of a record in `records`.
    pub(super) fn intents(&self, records: &[Record]) -> Vec<Intent> {
        let ids: HashMap<String, &RecordId> = records.iter().map(|record| (self.keys.file_name(&record.id), &record.id)).collect();
        let intent = |line: &Line| {
            let id = (*ids.get(&line.name)?).clone();
            Some(Intent { id, generation: line.generation, fingerprint: line.fingerprint })
        };
        self.intents.lines().iter().filter_map(intent).collect()
    }

    /// What an opened vault may lack without harm: room for a full disk, and no obsolete intents. Best effort.
    pub(super) fn tidy(&mut self) {
        if let Err(error) = self.intents.compact(&self.generations) {
            tracing::warn!(%error, "the file of intents could not be rewritten");
        }
        self.put_reserve();
    }

    /// Carries out changes that came together: every file is durable in itself before the first is renamed, and one
    /// sync of the folder makes all the names last. One result per change.
    pub(super) fn change(&mut self, changes: &[Change]) -> Vec<Result<(), VaultError>> {
        let staged: Vec<Option<io::Result<PathBuf>>> = changes.iter().map(|change| self.stage(change)).collect();
        let mut results = Vec::with_capacity(changes.len());
        for (change, staged) in changes.iter().zip(staged) {
            results.push(match (change, staged) {
                (Change::Save(record), Some(staged)) => staged.and_then(|temp| self.put(record, &temp)),
                (Change::Delete(id), _) => self.remove(id),
                _ => Ok(()),
            });
        }
        let touched = |change: &Change| !matches!(change, Change::Intend(_));
        if changes.iter().any(touched)
            && let Err(error) = files::sync_folder(&self.folder)
        {
            results.iter_mut().zip(changes).filter(|(_, change)| touched(change)).for_each(|(result, _)| *result = Err(same(&error)));
        }
        if let Err(error) = self.intend(changes) {
            results.iter_mut().zip(changes).filter(|(_, change)| !touched(change)).for_each(|(result, _)| *result = Err(same(&error)));
        }
        self.put_reserve();
        results.into_iter().map(|result| result.map_err(|error| refused(&error))).collect()
    }

    /// Seals everything under other keys into a new folder, durably. This folder stays as it is.
    pub(super) fn copy_to(&self, vault: &Path, keys: Keys) -> Result<Self, VaultError> {
        if !self.newer.is_empty() || !self.unread.is_empty() {
            return Err(VaultError::Conflict {
                reason: "some records cannot be read at the moment, and would be lost with the old key".into(),
                hint: Some("mcp-authctl doctor".into()),
            });
        }
        // What was put aside keeps its name, by which nobody would know it under the new key: the policy would be as if there
        // had never been one.
        if self.is_lost(&RecordId::policy()) {
            return Err(VaultError::Conflict {
                reason: "the record of the policy is damaged, and nobody would know of it under another key".into(),
                hint: Some("mcp-authctl policy reset".into()),
            });
        }
        let disk = |error: io::Error| refused(&error);
        let mut copy = Self::over(vault, keys);
        files::make_folder(&copy.folder).map_err(disk)?;
        let mut lines = Vec::new();
        for (old_name, generation) in &self.generations {
            let sealed = files::read(&self.path(old_name), LIMIT).map_err(|error| VaultError::Disk(format!("a record {error}")))?;
            let record = record::open(&self.keys, old_name, &sealed).map_err(|error| VaultError::Conflict {
                reason: format!("a record cannot be read: {error}"),
                hint: Some("restart mcp-authd, which puts such records aside".into()),
            })?;
            let name = copy.keys.file_name(&record.id);
            files::write_new(&copy.path(&name), &record::seal(&copy.keys, &record)).map_err(disk)?;
            let moved = self.intents.lines().iter().filter(|line| line.name == *old_name);
            lines.extend(moved.map(|line| Line { name: name.clone(), ..line.clone() }));
            copy.generations.insert(name, *generation);
        }
        copy.intents.append(lines, &copy.generations).map_err(disk)?;
        files::sync_folder(&copy.folder).and_then(|()| files::sync_folder(vault)).map_err(disk)?;
        Ok(copy)
    }

    fn over(vault: &Path, keys: Keys) -> Self {
        let folder = header::records_folder(vault, keys.id());
        Self {
            intents: Intents::none(&folder),
            folder,
            reserve: vault.join(RESERVE),
            keys,
            generations: HashMap::new(),
            newer: HashSet::new(),
            unread: HashSet::new(),
            stuck: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{ENDING}"))
    }

    fn read(&mut self, path: &Path, name: &str) -> Option<Record> {
        let opened = match files::read(path, LIMIT) {
            Ok(sealed) => record::open(&self.keys, name, &sealed),
            Err(NotPrivate::Io(error)) => {
                tracing::error!(record = name, %error, "a record could not be read; it is left as it is");
                self.unread.insert(name.to_owned());
                return None;
            }
            Err(_) => Err(Unreadable::Damaged),
        };
        match opened {
            Ok(record) => {
                self.generations.insert(name.to_owned(), record.generation);
                Some(record)
            }
            Err(error @ Unreadable::Newer(_)) => {
                tracing::error!(record = name, %error, "a record is left as it is");
                self.newer.insert(name.to_owned());
                None
            }
            Err(Unreadable::Damaged) => {
                self.put_aside(path, name);
                None
            }
        }
    }

    fn put_aside(&mut self, path: &Path, name: &str) {
        let aside = self.folder.join(format!("{name}.{}{BAD}", Hex::<4>::random()));
        match files::rename(path, &aside).and_then(|()| files::sync_folder(&self.folder)) {
            Ok(()) => tracing::error!(record = name, aside = %aside.display(), "a record is damaged; it was put aside"),
            Err(error) => {
                tracing::error!(record = name, %error, "a record is damaged and could not be put aside");
                self.stuck += 1;
            }
        }
    }

    fn stage(&mut self, change: &Change) -> Option<io::Result<PathBuf>> {
        let Change::Save(record) = change else { return None };
        let path = self.path(&self.keys.file_name(&record.id));
        let sealed = record::seal(&self.keys, record);
        Some(self.make_way(&record.id).and_then(|()| self.once_more(|_| files::stage(&path, &sealed))))
    }

    /// Sees to it that nothing unread is written over or deleted.
    fn make_way(&mut self, id: &RecordId) -> io::Result<()> {
        let name = self.keys.file_name(id);
        if self.newer.contains(&name) {
            return Err(io::Error::other("a newer mcp-authd wrote this record, and it alone may change it"));
        }
        if self.unread.remove(&name) {
            let path = self.path(&name);
            self.put_aside(&path, &name);
        }
        Ok(())
    }

    /// Tries again where that can help: a full disk after giving up the reserve, an I/O error with a new file.
    fn once_more<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let first = attempt(self);
        let again = match &first {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => self.reserve.exists() && files::remove(&self.reserve).is_ok(),
            #[cfg(unix)]
            Err(error) => error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()),
            _ => false,
        };
        if again { attempt(self) } else { first }
    }

    fn put(&mut self, record: &Record, temp: &Path) -> io::Result<()> {
        let name = self.keys.file_name(&record.id);
        files::rename(temp, &self.path(&name)).inspect_err(|_| {
            let _ = files::remove(temp);
        })?;
        self.generations.insert(name, record.generation);
        Ok(())
    }

    fn remove(&mut self, id: &RecordId) -> io::Result<()> {
        self.make_way(id)?;
        let name = self.keys.file_name(id);
        files::remove(&self.path(&name))?;
        self.generations.remove(&name);
        Ok(())
    }

    fn intend(&mut self, changes: &[Change]) -> io::Result<()> {
        let line = |change: &Change| match change {
            Change::Intend(Intent { id, generation, fingerprint }) => {
                Some(Line { name: self.keys.file_name(id), generation: *generation, fingerprint: *fingerprint })
            }
            _ => None,
        };
        let lines: Vec<Line> = changes.iter().filter_map(line).collect();
        if lines.is_empty() {
            return Ok(());
        }
        self.once_more(|store| store.intents.append(lines.clone(), &store.generations))
    }

    /// A little room that is given back when the disk is full, so that a rotated token still fits.
    fn put_reserve(&self) {
        match self.reserve.metadata() {
            Ok(found) if found.len() >= RESERVE_SIZE as u64 => return,
            // A crash cut it short.
            Ok(_) if files::remove(&self.reserve).is_err() => return,
            _ => {}
        }
        let _ = files::write_new(&self.reserve, &[0; RESERVE_SIZE]);
    }
}

/// Copies a folder of records as it is, sealed, into one that does not exist yet.
pub(super) fn copy_sealed(from: &Path, to: &Path) -> io::Result<()> {
    files::make_folder(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().ends_with(files::TEMP) && entry.file_type()?.is_file() {
            let bytes = files::read(&entry.path(), LIMIT).map_err(io::Error::other)?;
            files::write_new(&to.join(entry.file_name()), &bytes)?;
        }
    }
    files::sync_folder(to)
}

/// Removes the folder of a key that is not the vault's any more, or never became it. What was put aside moves on.
pub(super) fn remove_folder(vault: &Path, key_id: KeyId, current: KeyId) -> io::Result<()> {
    let folder = header::records_folder(vault, key_id);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(BAD) {
            let folder = header::records_folder(vault, current);
            files::rename(&entry.path(), &folder.join(&name))?;
            files::sync_folder(&folder)?;
        } else if is_record(&entry.path()) || name == intents::FILE || name.ends_with(files::TEMP) {
            files::remove(&entry.path())?;
        }
    }
    files::remove_folder(&folder)?;
    files::sync_folder(vault)
}

/// An error for each of those whom it concerns.
fn same(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// A disk error as a sentence.
pub(super) fn refused(error: &io::Error) -> VaultError {
    VaultError::Disk(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the vault's disk is read-only".into(),
        io::ErrorKind::PermissionDenied => "the vault's folder does not permit it".into(),
        _ => format!("the vault could not be written: {error}"),
    })
}

//! What lies in a folder, to see afterwards what a program has made, changed or taken away.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Everything below a folder: which file it is, whose, its modes, and what is in it. Times do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing(BTreeMap<PathBuf, Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    inode: u64,
    mode: u32,
    owner: u32,
    content: Vec<u8>,
}

impl Listing {
    /// Looks now.
    #[track_caller]
    pub fn of(folder: &Path) -> Self {
        let mut entries = BTreeMap::new();
        collect(folder, &mut entries);
        Self(entries)
    }

    /// What is different in `after`, one line each; nothing below `except` counts.
    pub fn changes(&self, after: &Self, except: &Path) -> Vec<String> {
        let counts = |path: &&PathBuf| !path.starts_with(except);
        let gone_or_changed = self.0.iter().filter_map(|(path, entry)| match after.0.get(path) {
            None => Some((path, "gone")),
            Some(now) => (now != entry).then_some((path, "changed")),
        });
        let new = after.0.keys().filter(|path| !self.0.contains_key(*path)).map(|path| (path, "new"));
        gone_or_changed.chain(new).filter(|(path, _)| counts(path)).map(|(path, what)| format!("{what}: {}", path.display())).collect()
    }
}

fn collect(path: &Path, entries: &mut BTreeMap<PathBuf, Entry>) {
    // What has gone meanwhile is not there.
    let Ok(found) = path.symlink_metadata() else { return };
    let content = if found.is_symlink() {
        fs::read_link(path).map(|target| target.into_os_string().into_encoded_bytes()).unwrap_or_default()
    } else if found.is_file() {
        fs::read(path).unwrap_or_default()
    } else {
        Vec::new()
    };
    entries.insert(path.to_owned(), Entry { inode: found.ino(), mode: found.mode(), owner: found.uid(), content });
    if found.is_dir() {
        fs::read_dir(path).into_iter().flatten().flatten().for_each(|entry| collect(&entry.path(), entries));
    }
}

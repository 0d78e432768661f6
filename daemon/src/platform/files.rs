//! What differs by platform about private files: who may read them, links that are not followed, names that last.
//!
//! Owns no paths and no formats.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

use crate::policy::record::FileStamp;

/// Why a file or folder is not one that secrets may go into.
#[derive(Debug, thiserror::Error)]
pub enum NotPrivate {
    /// It is a symbolic link; whoever made it chooses where our secrets go.
    #[error("is a symbolic link")]
    Link,
    /// A folder where a file should be, or the other way round, or a device.
    #[error("is not a {0}")]
    Kind(&'static str),
    /// Its owner can change it under us.
    #[error("belongs to another user")]
    Foreign,
    /// Others can read or change it.
    #[error("is open to other users (mode {0:o})")]
    Modes(u32),
    /// Others can put in it what they like.
    #[error("can be changed by other users (mode {0:o})")]
    Writable(u32),
    /// It holds more than whatever it should hold.
    #[error("is longer than {0} bytes")]
    Long(usize),
    /// It is not UTF-8.
    #[error("is not text")]
    Binary,
    /// The disk refused.
    #[error("cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// What tells the version of a file that is at `path` now from another; links are followed.
///
/// # Errors
/// What the system says of a file that is not there, or may not be looked at.
pub fn file_stamp(path: &Path) -> io::Result<FileStamp> {
    let found = std::fs::metadata(path)?;
    let (inode, changed) = imp::version(&found);
    Ok(FileStamp { inode, size: found.len(), changed })
}

/// A file, and the text that was read from it.
pub(crate) struct TextFile {
    file: File,
    text: Zeroizing<String>,
}

impl TextFile {
    /// Reads a file that others may have written. Links are followed: what they lead to is looked at.
    ///
    /// # Errors
    /// When it is not there, no file, longer than `longest` bytes, or no text.
    pub(crate) fn read(path: &Path, longest: usize) -> Result<Self, NotPrivate> {
        let file = imp::open_file(path)?;
        // Room for all of it, so that growing leaves no copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(longest + 2));
        (&file).take(longest as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > longest {
            return Err(NotPrivate::Long(longest));
        }
        let text = std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned()));
        text.map(|text| Self { file, text }).map_err(|_| NotPrivate::Binary)
    }

    /// What it held.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Refuses one that anybody but this user and root can have written; who may read it is for its owner to say.
    pub(crate) fn trusted(&self) -> Result<(), NotPrivate> {
        imp::trusted_file(&self.file)
    }
}

fn regular(file: File) -> Result<File, NotPrivate> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(NotPrivate::Kind("file")) }
}

pub use imp::private_folder;
pub(crate) use imp::{create_new, make_folder, open_existing, private_file, sync_folder};

#[cfg(unix)]
mod imp {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};

    use rustix::fs::OFlags;

    use super::{File, NotPrivate, Path, io, regular};

    /// A file's number on its disk, and when it was last changed in any way, nanoseconds since 1970.
    pub(super) fn version(found: &std::fs::Metadata) -> (u64, i64) {
        (found.ino(), found.ctime().saturating_mul(1_000_000_000).saturating_add(found.ctime_nsec()))
    }

    /// Makes one folder, 0700. Its parent must be there.
    pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().mode(0o700).create(path)
    }

    /// Makes sure of a folder of our own, 0700: made, durably, with its parents where it is missing, tightened where it is wider.
    pub fn private_folder(path: &Path) -> Result<(), NotPrivate> {
        let missing: Vec<&Path> = path.ancestors().take_while(|folder| folder.symlink_metadata().is_err()).collect();
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
        // A folder whose own name does not last takes everything in it along.
        for parent in missing.iter().filter_map(|folder| folder.parent()).filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent).or_else(|error| match error.kind() {
                // A folder that may be written to and not read cannot be synced either.
                io::ErrorKind::PermissionDenied => Ok(()),
                _ => Err(error),
            })?;
        }
        let found = std::fs::symlink_metadata(path)?;
        if found.is_symlink() {
            return Err(NotPrivate::Link);
        }
        if !found.is_dir() {
            return Err(NotPrivate::Kind("folder"));
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(NotPrivate::Foreign);
        }
        if found.mode() & 0o077 != 0 {
            tracing::warn!(folder = %path.display(), mode = format!("{:o}", found.mode() & 0o7777), "folder was open to others, closing it");
            // By handle, so that nothing swapped in meanwhile is changed instead.
            File::from(
                rustix::fs::open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, rustix::fs::Mode::empty())
                    .map_err(io::Error::from)?,
            )
            .set_permissions(std::fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    /// Makes a file that was not there, 0600.
    pub(crate) fn create_new(path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).create_new(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)
    }

    /// Opens a regular file for reading, or for appending too; links are not followed, and a FIFO does not block.
    pub(crate) fn open_existing(path: &Path, append: bool) -> Result<File, NotPrivate> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = File::options().read(true).append(append).custom_flags(flags.bits() as i32).open(path);
        regular(opened.map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => NotPrivate::Link,
            Some(code) if code == rustix::io::Errno::ISDIR.raw_os_error() => NotPrivate::Kind("file"),
            _ => NotPrivate::Io(error),
        })?)
    }

    /// Opens a regular file for reading; links are followed, and a FIFO does not block.
    pub(super) fn open_file(path: &Path) -> Result<File, NotPrivate> {
        regular(File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?)
    }

    /// Refuses a file that others than its owner can change, who is this user or root.
    pub(super) fn trusted_file(file: &File) -> Result<(), NotPrivate> {
        let found = file.metadata()?;
        if found.uid() != 0 && found.uid() != rustix::process::geteuid().as_raw() {
            return Err(NotPrivate::Foreign);
        }
        match found.mode() & 0o022 {
            0 => Ok(()),
            _ => Err(NotPrivate::Writable(found.mode() & 0o7777)),
        }
    }

    /// Refuses a file that somebody else owns, can read or can change.
    pub(crate) fn private_file(file: &File) -> Result<(), NotPrivate> {
        let found = file.metadata()?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(NotPrivate::Foreign);
        }
        match found.mode() & 0o077 {
            0 => Ok(()),
            _ => Err(NotPrivate::Modes(found.mode() & 0o7777)),
        }
    }

    /// Makes the names in a folder last: without it a rename may be undone by a power loss.
    pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

// A person's folders on Windows are closed to other people by the access list that they inherit, so there are no modes
// to set or check, and NTFS journals its names.
#[cfg(windows)]
mod imp {
    use std::os::windows::fs::OpenOptionsExt as _;

    use super::{File, NotPrivate, Path, io, regular};

    pub(super) fn version(found: &std::fs::Metadata) -> (u64, i64) {
        use std::os::windows::fs::MetadataExt as _;
        (0, found.last_write_time().cast_signed())
    }

    const OPEN_REPARSE_POINT: u32 = 0x0020_0000;

    pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    pub fn private_folder(path: &Path) -> Result<(), NotPrivate> {
        std::fs::create_dir_all(path)?;
        let found = std::fs::symlink_metadata(path)?;
        match (found.is_symlink(), found.is_dir()) {
            (true, _) => Err(NotPrivate::Link),
            (false, true) => Ok(()),
            (false, false) => Err(NotPrivate::Kind("folder")),
        }
    }

    pub(crate) fn create_new(path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).create_new(true).open(path)
    }

    pub(crate) fn open_existing(path: &Path, append: bool) -> Result<File, NotPrivate> {
        let file = File::options().read(true).append(append).custom_flags(OPEN_REPARSE_POINT).open(path)?;
        if file.metadata()?.is_symlink() { Err(NotPrivate::Link) } else { regular(file) }
    }

    pub(super) fn open_file(path: &Path) -> Result<File, NotPrivate> {
        regular(File::open(path)?)
    }

    pub(super) fn trusted_file(_: &File) -> Result<(), NotPrivate> {
        Ok(())
    }

    pub(crate) fn private_file(_: &File) -> Result<(), NotPrivate> {
        Ok(())
    }

    pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
        Ok(())
    }
}

//! What runs in a process, as /proc shows it. Only facts: what to believe of them is decided elsewhere.
//!
//! Most of it may block for as long as the process likes: its command line may lie in memory, and its executable in a file
//! system, that the process itself serves.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, readlinkat, readlinkat_raw, statx};

/// The folder of one process in /proc. Once it is open it never shows another process: after the end of its own it shows
/// nothing.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

/// An executable: where it lies, and which file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    file: FileId,
}

/// Device and inode.
type FileId = (u32, u32, u64);

impl Image {
    /// Whether its path leads to this very file for us too.
    pub(crate) fn is_at_its_path(&self) -> bool {
        file_id(CWD, &self.path).is_ok_and(|file| file == self.file)
    }
}

impl Folder {
    /// The folder of the process that has this number now.
    ///
    /// # Errors
    /// Where it is not shown to us, or /proc is that of another process namespace.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let ours = readlinkat(CWD, "/proc/self", Vec::new())?;
        if ours.to_bytes() != std::process::id().to_string().as_bytes() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())?))
    }

    /// Where the executable lies. Never blocks.
    ///
    /// # Errors
    /// Where the system does not show it, and after the process's end.
    pub(crate) fn executable_path(&self) -> io::Result<PathBuf> {
        self.link("exe")
    }

    /// Whether the executable lies at this path. Never blocks, and is one system call.
    ///
    /// # Errors
    /// As [`Self::executable_path`].
    pub(crate) fn runs(&self, path: &Path) -> io::Result<bool> {
        // PATH_MAX: the kernel shows no longer one.
        let mut shown = [MaybeUninit::<u8>::uninit(); 4096];
        let (shown, _) = readlinkat_raw(&self.0, "exe", &mut shown)?;
        Ok(*shown == *path.as_os_str().as_bytes())
    }

    /// The executable.
    ///
    /// # Errors
    /// As [`Self::executable_path`].
    pub(crate) fn executable(&self) -> io::Result<Image> {
        Ok(Image { path: self.link("exe")?, file: file_id(&self.0, Path::new("exe"))? })
    }

    /// The working folder.
    ///
    /// # Errors
    /// As [`Self::executable_path`].
    pub(crate) fn working_folder(&self) -> io::Result<PathBuf> {
        self.link("cwd")
    }

    /// The start of the command line, as the process has it in its memory. May block as long as the process likes.
    ///
    /// # Errors
    /// As [`Self::executable_path`].
    pub(crate) fn arguments(&self) -> io::Result<Vec<OsString>> {
        let mut bytes = self.read("cmdline", LONGEST_COMMAND_LINE)?;
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(bytes.split(|byte| *byte == 0).map(|argument| OsStr::from_bytes(argument).to_owned()).collect())
    }

    /// The control groups, as cgroups(7) writes them.
    ///
    /// # Errors
    /// As [`Self::executable_path`].
    pub(crate) fn control_groups(&self) -> io::Result<String> {
        String::from_utf8(self.read("cgroup", LONGEST_COMMAND_LINE)?).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn link(&self, name: &str) -> io::Result<PathBuf> {
        Ok(OsString::from_vec(readlinkat(&self.0, name, Vec::new())?.into_bytes()).into())
    }

    fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        let file = std::fs::File::from(openat(&self.0, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A script stands near the start.
const LONGEST_COMMAND_LINE: u64 = 32 * 1024;

/// A path without links and dots, relative ones from `folder`; `None` where nothing is there.
pub(crate) fn resolved(folder: &Path, path: &OsStr) -> Option<PathBuf> {
    folder.join(path).canonicalize().ok()
}

fn file_id(at: impl AsFd, path: &Path) -> io::Result<FileId> {
    let found = statx(at, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

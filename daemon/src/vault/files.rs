//! Writing files so that a crash or a full disk leaves the old content or the new, never neither.
//!
//! Every change the vault makes to the disk goes through here; what the files mean is not known here.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::hex::Hex;
use crate::failpoint;
use crate::platform::{self, NotPrivate};

/// The ending of files that are being written.
pub(super) const TEMP: &str = ".tmp";

/// Reads a whole regular file, at most `limit` bytes; links are not followed.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, NotPrivate> {
    let file = platform::open_existing(path, false)?;
    read_open(&file, limit)
}

/// Reads a whole open file, at most `limit` bytes.
pub(super) fn read_open(file: &File, limit: u64) -> Result<Vec<u8>, NotPrivate> {
    let size = file.metadata()?.len();
    if size > limit {
        return Err(NotPrivate::Kind("file of a sensible size"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a temp file beside `path`, durable in itself, and says where it is. Nothing is left of a failed attempt.
pub(super) fn stage(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}{TEMP}", Hex::<8>::random()));
    let temp = path.with_file_name(name);
    write_new(&temp, bytes)?;
    Ok(temp)
}

/// Writes a file that was not there, durable in itself (its name is not: that is [`sync_folder`]).
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = step("create", path).and_then(|()| platform::create_new(path)).and_then(|mut file| {
        step("write", path)?;
        write(&mut file, path, bytes)?;
        step("fsync", path)?;
        file.sync_all()
    });
    // After a failed fsync the kernel may call dirty pages clean, so this file is never synced again.
    if written.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
        let _ = remove(path);
    }
    written
}

/// Replaces a file: temp file, fsync, rename, fsync of the folder.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = stage(path, bytes)?;
    rename(&temp, path).inspect_err(|_| {
        let _ = remove(&temp);
    })?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Removes what a crash left of a file being staged or replaced. Best effort.
pub(super) fn remove_leftovers(path: &Path) {
    let stem = format!("{}.", path.file_name().unwrap_or_default().display());
    for entry in path.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(&stem)?.strip_suffix(TEMP));
        if random.is_some_and(|random| Hex::<8>::parse(random).is_some()) {
            let _ = remove(&entry.path());
        }
    }
}

/// Appends and syncs the content of an open file.
pub(super) fn append(file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    step("append", path)?;
    file.write_all(bytes)?;
    step("fdatasync", path)?;
    file.sync_data()
}

/// Makes one folder for our eyes only; its parent must be there.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    step("mkdir", path)?;
    platform::make_folder(path)
}

/// Renames; the name lasts after [`sync_folder`].
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step("rename", to)?;
    std::fs::rename(from, to)
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    step("remove", path)?;
    gone(std::fs::remove_file(path))
}

/// Removes an empty folder; one that is not there is fine.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    step("rmdir", path)?;
    gone(std::fs::remove_dir(path))
}

/// Makes renames, new names and removals in a folder last.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    step("fsync folder", path)?;
    platform::sync_folder(path)?;
    failpoint::at(format_args!("folder synced"));
    Ok(())
}

#[cfg(not(feature = "failpoints"))]
fn write(file: &mut File, _: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)
}

/// In two halves, so that the fault suite can end the machine between them.
#[cfg(feature = "failpoints")]
fn write(file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    file.write_all(first)?;
    step("write second half", path)?;
    file.write_all(second)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(not(test))]
use crate::failpoint::at_file as step;

#[cfg(test)]
use crash::step;

/// Lets a test end the "machine" before any chosen step, and read the order of the steps.
#[cfg(test)]
pub(super) mod crash {
    use std::cell::{Cell, RefCell};

    use super::{Path, io};

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
        static ONLY: Cell<Option<usize>> = const { Cell::new(None) };
        static FAIL_ONCE: RefCell<Option<(&'static str, i32)>> = const { RefCell::new(None) };
        static STEPS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Lets this thread take `steps` more steps; every later one fails.
    pub(crate) fn after(steps: Option<usize>) {
        LEFT.set(steps);
    }

    /// Lets this thread take `steps` more steps; the one after them fails, later ones do not.
    pub(crate) fn once_after(steps: Option<usize>) {
        ONLY.set(steps);
    }

    /// Whether the step that [`once_after`] counts to has been met.
    pub(crate) fn met() -> bool {
        ONLY.get().is_none()
    }

    /// Lets the next step of that name fail with that error code.
    pub(crate) fn fail_once(name: &'static str, code: i32) {
        FAIL_ONCE.set(Some((name, code)));
    }

    /// The steps taken by this thread since the last call.
    pub(crate) fn steps() -> Vec<String> {
        STEPS.take()
    }

    pub(super) fn step(name: &str, path: &Path) -> io::Result<()> {
        if FAIL_ONCE.with_borrow(|fail| fail.is_some_and(|(at, _)| at == name)) {
            let code = FAIL_ONCE.take().map_or(5, |(_, code)| code);
            return Err(io::Error::from_raw_os_error(code));
        }
        match ONLY.get() {
            Some(0) => {
                ONLY.set(None);
                return Err(io::Error::from_raw_os_error(5));
            }
            Some(left) => ONLY.set(Some(left - 1)),
            None => {}
        }
        match LEFT.get() {
            Some(0) => return Err(io::Error::from_raw_os_error(5)),
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        }
        STEPS.with_borrow_mut(|steps| steps.push(format!("{name} {}", path.file_name().unwrap_or_default().display())));
        Ok(())
    }
}

//! config.toml as a file: whether it may be trusted, reading it, and replacing it whole.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{ConfigError, ConfigErrorKind, line_of};

/// The longest file that is read, bytes.
pub(super) const LIMIT: u64 = 1024 * 1024;

/// The file's text; `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    let unreadable = |what: String| ConfigError::of_file(ConfigErrorKind::Unreadable, path, what);
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(format!("cannot be read: {error}"))),
    };
    // Of what was opened: the path may lead elsewhere by now.
    let metadata = file.metadata().map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    if metadata.is_dir() {
        return Err(unreadable("is a folder, not a file".into()).with_hint("name the file itself, such as config.toml in it"));
    }
    if !metadata.is_file() {
        return Err(unreadable("is not a regular file".into()));
    }
    trusted(path, &metadata)?;
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > LIMIT {
        return Err(unreadable("is larger than 1 MiB".into()));
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let line = line_of(error.as_bytes(), error.utf8_error().valid_up_to());
        ConfigError { line: Some(line), ..unreadable("is not UTF-8".into()) }.with_hint("save the file as UTF-8")
    })
}

/// Opens what a path leads to; a FIFO does not block.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    options.open(path)
}

/// Replaces the file durably, through symbolic links (dotfiles), and makes its folders. On error nothing has changed.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let target = behind_links(path)?;
    let folder = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_folder(folder)?;
    let read_only = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.permissions().readonly());
    if read_only(&target) || read_only(folder) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is read-only"));
    }
    let mut fresh = tempfile::Builder::new().prefix(".config.toml.").tempfile_in(folder)?;
    fresh.write_all(text.as_bytes())?;
    fresh.as_file().sync_all()?;
    fresh.persist(&target)?;
    sync_folder(folder)
}

/// The path that is left when links are followed; its last part may not exist yet.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "too many symbolic links"))
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Refuses a file that somebody else could have written: it says where tokens go and which command runs.
#[cfg(unix)]
fn trusted(path: &Path, metadata: &Metadata) -> Result<(), ConfigError> {
    guarded(path, path, metadata, "it")?;
    // The folder that it is in, and the one that a link to it is in.
    let folders = [path.parent().map(Path::to_owned), fs::canonicalize(path).ok().and_then(|path| path.parent().map(Path::to_owned))];
    for folder in folders.into_iter().flatten() {
        if let Ok(metadata) = fs::metadata(&folder) {
            guarded(path, &folder, &metadata, "its folder")?;
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn trusted(_path: &Path, _metadata: &Metadata) -> Result<(), ConfigError> {
    Ok(())
}

#[cfg(unix)]
fn guarded(config: &Path, path: &Path, metadata: &Metadata, what: &str) -> Result<(), ConfigError> {
    use std::os::unix::fs::MetadataExt;

    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let refused = |reason| ConfigError::of_file(ConfigErrorKind::Unreadable, config, format!("is not used, because {what} {reason}"));
    let user = rustix::process::geteuid().as_raw();
    // Root may write it anyway; configuration tools install files as root.
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(refused(format!("belongs to another user (uid {})", metadata.uid())));
    }
    let sticky_folder = metadata.is_dir() && metadata.mode() & STICKY != 0;
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 && !sticky_folder {
        return Err(refused("can be written by others".into()).with_hint(format!("chmod go-w '{}'", path.display())));
    }
    Ok(())
}

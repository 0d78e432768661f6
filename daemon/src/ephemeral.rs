//! A daemon for a demo or a test (`mcp-authd --ephemeral`): everything in a new folder of its own, an end when its standard
//! input ends, and nothing left then. Whoever started it need not live to clean up: the system closes a dead process's pipes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcp_auth_proto::KeySourceKind;
use tokio::sync::oneshot;

use crate::places::{LOG_ENV, Places};

/// The folder of an ephemeral daemon. Dropped, it is removed with all that is in it.
#[derive(Debug)]
pub struct Ephemeral {
    folder: PathBuf,
}

/// How often the removal is tried, and the time between: the vault's thread may be about to finish a file.
const TRIES: (u32, Duration) = (50, Duration::from_millis(20));

impl Ephemeral {
    /// Makes the folder: new, with a random name, in the system's folder for such, and for our own user only.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("mcp-authd-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let folder = builder.tempdir()?;
        // Removed by our own rule, not by tempfile's: it would try once.
        Ok(Self { folder: folder.keep() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its files; the environment names none of them, only what is logged. The key lies beside what it seals: nothing here
    /// outlives the process.
    pub fn places(&self) -> Places {
        let state = self.folder.join("state");
        Places {
            config: self.folder.join("config.toml"),
            vault: self.folder.join("vault"),
            key_file: state.join("vault.key"),
            state,
            key_source: Some(KeySourceKind::KeyFile),
            log: std::env::var(LOG_ENV).ok(),
        }
    }

    /// Its socket: `mcp-authd.sock` in the folder; on Windows the pipe of the folder's name.
    pub fn socket(&self) -> PathBuf {
        if cfg!(windows) {
            let name = self.folder.file_name().unwrap_or_default();
            return PathBuf::from(format!(r"\\.\pipe\{}", name.to_string_lossy()));
        }
        self.folder.join("mcp-authd.sock")
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        for _ in 0..TRIES.0 {
            match std::fs::remove_dir_all(&self.folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => std::thread::sleep(TRIES.1),
                _ => return,
            }
        }
        tracing::warn!(folder = %self.folder.display(), "the folder could not be removed");
    }
}

/// Ends when standard input does.
///
/// # Errors
/// When no thread can be started.
pub fn input_ended() -> io::Result<impl Future<Output = ()>> {
    let (reading, over) = oneshot::channel::<()>();
    // A thread of its own, which blocks: tokio's reading of stdin would hold up the end of the runtime.
    std::thread::Builder::new().name("input".into()).spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(reading);
    })?;
    Ok(async {
        let _ = over.await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_folder_is_new_and_ours_alone_and_goes_with_all_that_is_in_it() {
        let (one, other) = (Ephemeral::new().unwrap(), Ephemeral::new().unwrap());
        assert_ne!(one.folder(), other.folder());
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&one.folder().metadata().unwrap().permissions()) & 0o777, 0o700);
        std::fs::create_dir_all(one.folder().join("vault/deep")).unwrap();
        std::fs::write(one.folder().join("vault/deep/file"), "x").unwrap();
        let folder = one.folder().to_owned();
        drop(one);
        assert!(!folder.exists() && other.folder().exists());
    }

    #[test]
    fn all_its_files_are_in_its_folder() {
        let ephemeral = Ephemeral::new().unwrap();
        let Places { config, vault, state, key_file, key_source, log: _ } = ephemeral.places();
        for path in [config, vault, state, key_file] {
            assert!(path.starts_with(ephemeral.folder()), "{}", path.display());
        }
        assert_eq!(key_source, Some(KeySourceKind::KeyFile));
    }
}

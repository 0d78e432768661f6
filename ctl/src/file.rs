//! A file of a person's, replaced whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Replaces the file durably, and makes its folders (0700). A link at the path is replaced, not followed.
///
/// # Errors
/// When the disk refuses; nothing has changed then, and nothing is left beside the file.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_folder(folder)?;
    // A hidden name, which neither systemd nor launchd takes for one of theirs.
    let mut fresh = tempfile::Builder::new().prefix(".mcp-authd.").tempfile_in(folder)?;
    fresh.write_all(text.as_bytes())?;
    fresh.as_file().sync_all()?;
    fresh.persist(path)?;
    Ok(())
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_refusal_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b/config.toml");
        for text in ["first", "second"] {
            replace(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let folder = path.with_file_name("folder");
        fs::create_dir_all(folder.join("full")).unwrap();
        assert!(replace(&folder, "third").is_err());
        assert_eq!(fs::read_dir(home.path().join("a/b")).unwrap().count(), 2, "the file and the folder");
    }
}

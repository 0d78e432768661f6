//! A disk of its own over a folder, small enough to be filled, until it is dropped.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::require_root;

/// A small disk over a daemon's folder.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of this size, as `mount` writes sizes, over a folder, which is made if it is missing.
    pub fn over(folder: &Path, size: &str) -> Self {
        require_root("mount a small disk");
        fs::create_dir_all(folder).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "small"]).arg(folder).status().unwrap();
        assert!(mounted.success(), "cannot mount a tmpfs: this needs CAP_SYS_ADMIN");
        Self(folder.to_owned())
    }

    /// Takes all the room there is.
    pub fn fill(&self) {
        let mut hog = File::options().create(true).append(true).open(self.hog()).unwrap();
        while hog.write_all(&[0; 4096]).is_ok() {}
    }

    /// The same with the room that the vault keeps for itself. With that a daemon may go on for ever, each record in the place of
    /// the last.
    pub fn fill_with_the_reserve(&self) {
        // It is gone already where it was of use.
        let _ = fs::remove_file(self.0.join("vault/reserve"));
        self.fill();
    }

    /// Gives the room back.
    pub fn free(&self) {
        fs::remove_file(self.hog()).unwrap();
    }

    fn hog(&self) -> PathBuf {
        self.0.join("hog")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A daemon may still have files open there: it goes with the last of them.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

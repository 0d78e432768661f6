//! A room that belongs to another user than the test, and strangers who knock at its socket. Root is needed for both.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Room;
use crate::binaries::{bare_command, binary, require_root};

/// Somebody else on the machine.
pub const STRANGER: u32 = 65534;

/// A user who owns a room and is not root. There need not be such a user in the system's list.
pub const OWNER: u32 = 54321;

/// The words before a command that make it this user's, with no rights of root.
pub const AS_STRANGER: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

impl Room {
    /// Gives the room with all that is in it to this user, as whom its programs run from now on.
    #[track_caller]
    pub fn give_to(&mut self, uid: u32) {
        require_root("become another user");
        self.owner = Some(uid);
        give(self.folder.path(), uid);
    }

    /// Starts every daemon from now on with these words before its own path, which must replace themselves with it.
    pub fn launch_with(&mut self, words: &[&str]) {
        self.launcher = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Opens the way to the socket for everybody: every folder on the way and the socket itself are 0777.
    pub fn open_to_everybody(&self) {
        for open in ["", "run", "run/mcp-authd", "run/mcp-authd/mcp-authd.sock"] {
            fs::set_permissions(self.path(open), Permissions::from_mode(0o777)).unwrap();
        }
    }

    /// The program `probe` with these words before it, for one those that make it another user's.
    #[track_caller]
    pub fn probe(&self, who: &[&str], arguments: &[&str]) -> Command {
        let mut words = who.iter().map(PathBuf::from).chain([self.for_everybody("probe")]);
        let mut command = bare_command(&words.next().unwrap());
        command.args(words).args(arguments).current_dir("/");
        command
    }

    /// Knocks `times` times as somebody else and counts what comes back.
    #[track_caller]
    pub fn knock_as(&self, who: &[&str], times: u32) -> Value {
        let socket = self.socket();
        let output = self.probe(who, &["ask", socket.to_str().unwrap(), &times.to_string()]).output().unwrap();
        assert!(output.status.success(), "{who:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// One of our own programs, from a place where the room's user may run it.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        if self.owner.is_some() { self.for_everybody(name) } else { binary(name) }
    }

    /// The program itself if everybody may run it where it is, else a copy in the room.
    fn for_everybody(&self, name: &str) -> PathBuf {
        let built = binary(name);
        let open = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o001 != 0;
        if built.canonicalize().unwrap().ancestors().all(open) {
            return built;
        }
        let copy = self.path("bin").join(name);
        if !copy.exists() {
            fs::create_dir_all(self.path("bin")).unwrap();
            fs::set_permissions(self.path("bin"), Permissions::from_mode(0o755)).unwrap();
            fs::copy(built, &copy).unwrap();
            fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
        }
        copy
    }
}

/// Gives a path and all below it to this user; links are not followed.
#[track_caller]
pub fn give(path: &Path, uid: u32) {
    match lchown(path, Some(uid), Some(uid)) {
        // What has gone meanwhile needs no owner.
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        result => result.unwrap(),
    }
    if path.symlink_metadata().unwrap().is_dir() {
        fs::read_dir(path).unwrap().flatten().for_each(|entry| give(&entry.path(), uid));
    }
}

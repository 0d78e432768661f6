//! Programs in C that try what our own language makes a point of not doing: system calls without a safe interface.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Room;
use crate::binaries::{bare_command, require};
use crate::run::run;

const SANDBOX: &str = include_str!("sandbox.c");
const SPY: &str = include_str!("spy.c");

impl Room {
    /// Compiles the program that tries what the sandbox of the unit forbids; where to find it.
    #[track_caller]
    pub fn sandbox_probe(&self) -> PathBuf {
        self.compiled("sandbox", SANDBOX)
    }

    /// What a process of the room's user learns of another process of that user: each way, and its errno (0: it worked).
    #[track_caller]
    pub fn spy_on(&self, pid: u32) -> BTreeMap<String, i64> {
        let program = self.path("spy");
        let program = if program.exists() { program } else { self.compiled("spy", SPY) };
        // In the runtime folder, which is the user's own.
        let found = self.path(&format!("run/spied-{pid}"));
        let mut command = self.command(&program);
        command.arg(pid.to_string()).arg(&found);
        run(command, "spy", "", false).ok();
        attempts(&found)
    }

    fn compiled(&self, name: &str, text: &str) -> PathBuf {
        let (source, program) = (self.path(&format!("{name}.c")), self.path(name));
        std::fs::write(&source, text).unwrap();
        let mut command = bare_command(&require("cc", "gcc"));
        command.arg("-o").arg(&program).arg(&source);
        run(command, "cc", "", false).ok();
        program
    }
}

/// What such a program wrote: each attempt and its errno, signal (negative) or value.
#[track_caller]
pub fn attempts(file: &Path) -> BTreeMap<String, i64> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap()).map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

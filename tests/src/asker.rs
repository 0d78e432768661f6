//! A program of its own: a copy of curl at a path of its own, which asks the daemon as that program.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::binaries::require;
use crate::room::Room;
use crate::run::Running;

/// A program in a room.
#[derive(Debug)]
pub struct Asker<'a> {
    room: &'a Room,
    path: PathBuf,
}

/// What it was told: the status, and the body.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The HTTP status.
    pub status: u16,
    /// The answer.
    pub body: Value,
}

impl Told {
    /// Its error code; empty where a token came.
    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }

    /// The id under which a person decides.
    #[track_caller]
    pub fn consent(&self) -> String {
        assert_eq!((self.status, self.error()), (403, "consent_required"), "{}", self.body["error_description"]);
        self.body["consent"].as_str().unwrap().to_owned()
    }
}

impl<'a> Asker<'a> {
    /// A program of that name in the room.
    #[track_caller]
    pub fn new(room: &'a Room, name: &str) -> Self {
        let folder = room.path("programs");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.canonicalize().unwrap().join(name);
        std::fs::copy(require("curl", "curl"), &path).unwrap();
        Self { room, path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same for arguments.
    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Other bytes take its place, as an upgrade does it, or somebody who wants to be taken for it.
    #[track_caller]
    pub fn replace(&self) {
        let other = self.path.with_extension("new");
        let mut bytes = std::fs::read(&self.path).unwrap();
        bytes.extend_from_slice(b"other");
        std::fs::write(&other, bytes).unwrap();
        std::fs::set_permissions(&other, std::fs::metadata(&self.path).unwrap().permissions()).unwrap();
        std::fs::rename(&other, &self.path).unwrap();
    }

    /// `POST /v1/token` with this request.
    #[track_caller]
    pub fn ask(&self, request: &Value) -> Told {
        told(&mut self.spawn("/v1/token", request))
    }

    /// Posts to any route, and leaves it running.
    #[track_caller]
    pub fn spawn(&self, target: &str, request: &Value) -> Running {
        let mut command = self.room.command(&self.path);
        command.args(["--silent", "--max-time", "60", "--write-out", "\n%{http_code}", "--unix-socket"]).arg(self.room.socket());
        command.args(["--data", &request.to_string(), &format!("http://mcp-authd{target}")]);
        Running::start(command, "asker", true)
    }
}

/// What a program that was left running is told in the end.
#[track_caller]
pub fn told(running: &mut Running) -> Told {
    let output = running.wait().ok();
    let (body, status) = output.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("no answer: {output:?}"));
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("not JSON ({error})"));
    Told { status: status.parse().unwrap(), body }
}

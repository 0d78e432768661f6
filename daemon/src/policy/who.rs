//! PURE: what is known of whoever asks: its process, what runs there, the capability that it came through, and how far
//! each of them can be believed. How it becomes known is `caller`'s business.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};

use super::record::Stamps;
use crate::oauth::text::visible;

/// Who asks: the process at the other end of a connection, as the kernel noted it when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user. On Windows always 0: the pipe lets nobody else in.
    pub uid: u32,
    /// Its process, where the system tells and our process namespace shows it.
    pub pid: Option<u32>,
}

/// What is known of whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its user and process.
    pub peer: Peer,
    /// What runs there; `None` where nothing is known that may count, for the reason that `weak` says.
    pub program: Option<Arc<Program>>,
    /// What the capability socket that it came through is for; `None` on the daemon's own socket.
    pub only: Option<Only>,
    /// What is not known of it, or not for sure.
    pub weak: Vec<Weak>,
}

/// A program, as the system shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The path of its executable, which is the very file that runs.
    pub executable: PathBuf,
    /// Whether it runs what others wrote. It says nothing by itself then.
    pub interpreter: bool,
    /// The path of the script, where the executable is an interpreter: the program's own word.
    pub script: Option<PathBuf>,
    /// The systemd unit that it runs in.
    pub unit: Option<String>,
    /// Which versions of these files it runs, where that was looked up.
    pub stamps: Option<Stamps>,
}

/// What is not known of whoever asks, or not for sure. Each shows as one clause without a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weak {
    /// Not Linux.
    #[error("this system does not tell which program asks")]
    Untold,
    /// Its process has no number here.
    #[error("its process is in another process namespace")]
    Elsewhere,
    /// Nobody can say any more what ran there.
    #[error("the process that connected has ended, or cannot be held on to")]
    Gone,
    /// It ran one program when it was looked at first, and another one later.
    #[error("its process has become another program since it connected")]
    Changed,
    /// It is undumpable, or /proc is not that of our process namespace.
    #[error("the system does not show its executable")]
    Hidden,
    /// Deleted, replaced, or only in a mount namespace of its own.
    #[error("its executable is not the file that is at that path now")]
    OtherFile,
    /// Somebody holds up its /proc entry, or too many are looked at.
    #[error("the system did not show its executable in time")]
    Slow,
    /// It ended at once, or somebody holds up its /proc entry. Told of what was done, and never judged by.
    #[error("it could not be seen in time whether its executable is the file at that path")]
    Glimpsed,
    /// Linux before 6.5 names the process by its number alone.
    #[error("this kernel cannot rule out that its process number was another's when it connected")]
    Reused,
    /// It could run anything.
    #[error("it is an interpreter without a script")]
    NoScript,
    /// A port on loopback has no peer credentials.
    #[error("a port on loopback does not tell which program asks: the client is known by its secret alone")]
    Port,
    /// A process may overwrite its own command line.
    #[error("its script is what its own command line says")]
    OwnWord,
}

/// The grants of a capability socket, or of a client of the relay's port, fixed when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Only {
    client: Option<Arc<str>>,
    grants: Arc<[(GrantName, GrantName)]>,
}

impl Only {
    /// Grants, each by the name that was asked for and by its own: `github` may mean `github:work`. Their order does not
    /// matter.
    pub fn new(mut grants: Vec<(GrantName, GrantName)>) -> Self {
        grants.sort_unstable();
        grants.dedup();
        Self { client: None, grants: grants.into() }
    }

    /// The same for a client of the relay's port, which is known by its secret.
    pub fn of_client(client: &str, grants: Vec<(GrantName, GrantName)>) -> Self {
        Self { client: Some(client.into()), ..Self::new(grants) }
    }

    /// The name of that client; `None` for a capability socket.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// The grant that a name means here, whatever it means on the daemon's own socket.
    pub fn meant(&self, name: &str) -> Option<&GrantName> {
        self.grants.iter().find(|(asked, own)| asked.as_str() == name || own.as_str() == name).map(|(_, own)| own)
    }

    /// The grants by their own names.
    pub fn grants(&self) -> impl Iterator<Item = &GrantName> {
        self.grants.iter().map(|(_, own)| own)
    }

    /// The same for people, and for the audit.
    pub fn names(&self) -> String {
        self.grants().map(GrantName::as_str).collect::<Vec<_>>().join(", ")
    }

    /// What everything else is answered with.
    pub fn denial(&self) -> ErrorBody {
        let names: Vec<_> = self.grants().map(|grant| format!("`{grant}`")).collect();
        if let Some(client) = self.client() {
            let sentence = format!("the relay's client `{client}` is for {} and nothing else", names.join(", "));
            return ErrorBody::new(ErrorCode::AccessDenied, sentence)
                .hint(format!("mcp-authctl relay remove {client}, then mcp-authctl relay add {client} with every grant that it needs"));
        }
        ErrorBody::new(ErrorCode::AccessDenied, format!("this socket is for access tokens of {} and nothing else", names.join(", ")))
            .hint("what your program needs besides goes into its `mcp-authctl exec --only NAME`")
    }

    /// The grants as pairs: the name that was asked for, and its own.
    pub fn pairs(&self) -> &[(GrantName, GrantName)] {
        &self.grants
    }
}

impl Who {
    /// As it is shown: what moves a cursor or cannot be seen is spelled out, and a long path lacks its middle.
    pub fn shown(&self) -> wire::Program {
        let program = self.program.as_deref();
        wire::Program {
            executable: program.map(|program| text(&program.executable)),
            script: program.and_then(|program| program.script.as_deref()).map(text),
            unit: program.and_then(|program| program.unit.as_deref()).map(visible),
            pid: self.peer.pid,
            only: self.only.iter().flat_map(Only::grants).cloned().collect(),
            client: self.only.as_ref().and_then(Only::client).map(str::to_owned),
            weak: self.weak.iter().map(ToString::to_string).collect(),
        }
    }
}

fn text(path: &Path) -> String {
    visible(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> GrantName {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_shown_of_a_program_moves_no_cursor_and_passes_for_no_other_program() {
        let program = Program {
            executable: "/opt/a\u{1b}[2J\nb".into(),
            interpreter: true,
            script: Some("/x\u{202e}y".into()),
            ..Program::default()
        };
        let peer = Peer { uid: 1, pid: Some(7) };
        let shown = Who { peer, program: Some(program.into()), only: None, weak: vec![Weak::OwnWord] }.shown();
        assert_eq!(shown.executable.as_deref(), Some(r"/opt/a\u{1b}[2J\u{a}b"));
        assert_eq!((shown.script.as_deref(), shown.pid), (Some(r"/x\u{202e}y"), Some(7)));
        assert_eq!(shown.weak, ["its script is what its own command line says"]);
    }

    #[test]
    fn a_name_means_in_a_capability_what_it_meant_when_that_was_opened() {
        let only = Only::new(vec![(name("gitlab"), name("gitlab")), (name("github"), name("github:work"))]);
        assert_eq!(only.meant("github"), Some(&name("github:work")));
        assert_eq!(only.meant("github:work"), Some(&name("github:work")));
        assert_eq!((only.meant("github:home"), only.meant(""), only.meant("git")), (None, None, None));
        let other_order = Only::new(vec![(name("github"), name("github:work")), (name("gitlab"), name("gitlab"))]);
        assert_eq!(only, other_order);
    }
}

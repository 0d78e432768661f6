//! PURE: may this peer have this? The one place that every route asks. There are no rules yet, so that the user's own
//! processes may do everything.

use std::path::PathBuf;

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
    /// What runs there; `None` where the system does not tell, or the process is no longer the one that connected.
    pub program: Option<Program>,
}

/// A program, as the system shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The path of its executable.
    pub executable: PathBuf,
    /// The path of the script, where the executable is an interpreter.
    pub script: Option<PathBuf>,
    /// The systemd unit that it runs in.
    pub unit: Option<String>,
}

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To be given access tokens.
    Token,
    /// To see what is held and how it is; never a token.
    Look,
    /// To store, refresh or forget a grant.
    Change,
    /// To start, finish or cancel a login.
    Login,
    /// To define providers and store their client secrets.
    Configure,
    /// To set up, lock, unlock, rekey or back up the vault.
    Vault,
    /// To approve or refuse what a program asks the issuer for.
    Approve,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Answer `access_denied`.
    Deny,
}

/// Whether `peer` has `right`, on `grant` where the request names one.
pub fn allow(_peer: &Peer, _right: Right, _grant: Option<&str>) -> Decision {
    Decision::Allow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_the_user_may_do_everything_while_there_are_no_rules() {
        let peer = Peer { uid: 1000, pid: Some(7) };
        for right in [Right::Token, Right::Look, Right::Change, Right::Login, Right::Configure, Right::Vault, Right::Approve] {
            assert_eq!(allow(&peer, right, Some("github")), Decision::Allow);
        }
    }
}

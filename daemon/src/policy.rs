//! PURE: may this peer have this? Here is who asks and what each route needs; [`decision`] is what the rules of a grant say,
//! [`asks`] what a person is asked, [`record`] what is kept.

pub mod asks;
pub(crate) mod command_line;
pub mod decision;
#[cfg(test)]
mod model;
pub mod record;
pub mod rule;
#[cfg(test)]
mod tests;
mod who;

pub use who::{Only, Peer, Program, Weak, Who};

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To be given access tokens.
    Token,
    /// To speak to a remote MCP server through us: what a token is for, without being given it.
    Relay,
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
    /// To approve or refuse what a program asks for.
    Approve,
    /// To open a capability socket.
    Capability,
    /// To change who may have which token.
    Policy,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Answer `access_denied`.
    Deny,
}

/// Whether a peer has `right`, on `grant` where the request names one. Whoever came through a capability socket has the
/// tokens that it is for (`only`), and nothing else.
pub fn allow(_peer: &Peer, only: Option<&Only>, right: Right, grant: Option<&str>) -> Decision {
    match (only, right) {
        (None, _) => Decision::Allow,
        // A grant that the request does not name is known once it is found, and asked for again then.
        (Some(only), Right::Token) if grant.is_none_or(|grant| only.meant(grant).is_some()) => Decision::Allow,
        (Some(_), _) => Decision::Deny,
    }
}

#[cfg(test)]
mod right_tests {
    use super::*;

    const ALL: [Right; 10] = [
        Right::Token,
        Right::Relay,
        Right::Look,
        Right::Change,
        Right::Login,
        Right::Configure,
        Right::Vault,
        Right::Approve,
        Right::Capability,
        Right::Policy,
    ];
    const PEER: Peer = Peer { uid: 1000, pid: Some(7) };

    #[test]
    fn a_process_of_the_user_may_do_everything_while_there_are_no_rules() {
        for right in ALL {
            assert_eq!(allow(&PEER, None, right, Some("github")), Decision::Allow);
        }
    }

    #[test]
    fn whoever_came_through_a_capability_socket_has_its_tokens_and_nothing_else() {
        let github: mcp_auth_proto::GrantName = "github".parse().unwrap();
        let only = Only::new(vec![(github.clone(), github)]);
        for right in ALL {
            let expected = if right == Right::Token { Decision::Allow } else { Decision::Deny };
            assert_eq!(allow(&PEER, Some(&only), right, Some("github")), expected, "{right:?}");
            assert_eq!(allow(&PEER, Some(&only), right, None), expected, "{right:?}");
            assert_eq!(allow(&PEER, Some(&only), right, Some("gitlab")), Decision::Deny, "{right:?}");
        }
    }
}

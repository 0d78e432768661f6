//! Who is at the other end of a connection, decided before a byte of it is read. The file modes of the socket decide
//! nothing here: they may have been changed.

use std::io;

use crate::platform;
use crate::policy::Peer;

/// What a peer is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A process of our own user.
    Ours(Peer),
    /// The superuser, where we are not: it gets a sentence, not a token.
    Root,
    /// Anybody else: no answer.
    Foreign,
}

/// Looks who is there.
///
/// # Errors
/// When the system does not say; the connection must be closed then.
pub fn standing(stream: &platform::Stream) -> io::Result<Standing> {
    Ok(judge(platform::peer(stream)?, platform::own_uid()))
}

fn judge(peer: Peer, own_uid: u32) -> Standing {
    match peer.uid {
        uid if uid == own_uid => Standing::Ours(peer),
        0 => Standing::Root,
        _ => Standing::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_user_is_served_and_root_is_told_why_not() {
        let peer = |uid| Peer { uid, pid: Some(7) };
        assert_eq!(judge(peer(1000), 1000), Standing::Ours(peer(1000)));
        assert_eq!(judge(peer(0), 1000), Standing::Root);
        assert_eq!(judge(peer(1001), 1000), Standing::Foreign);
        assert_eq!(judge(peer(0), 0), Standing::Ours(peer(0)));
        assert_eq!(judge(peer(65534), 0), Standing::Foreign);
    }
}

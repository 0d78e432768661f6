//! What a token is given out for, and with what: as it is to programs, and with its proofs to the relay where it is bound to a key.

use mcp_auth_proto::{ErrorBody, GrantName, TokenAnswer};

use super::core::Core;
use super::lease::Lease;
use crate::grant::Grant;
use crate::proofs::Proofs;

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A token to use as it is.
    Token,
    /// A token for the relay, which can prove that it has the key.
    Relay,
    /// The end of a refresh.
    Refresh,
}

/// A token, and what requests with it are proved with.
#[derive(Clone, Debug)]
pub struct Served {
    /// The token, as `POST /v1/token` answers it.
    pub answer: TokenAnswer,
    /// For the relay alone.
    pub proofs: Proofs,
    /// How long the relay may go on with it.
    pub lease: Option<Lease>,
}

impl Core {
    /// A token of a grant, for whoever it is to be served to.
    pub(super) fn served(&mut self, answer: TokenAnswer, name: &GrantName, purpose: Purpose) -> Served {
        let lease = (purpose == Purpose::Relay).then(|| self.leases.lease(name));
        Served { answer, proofs: self.proofs_for(name, purpose), lease }
    }

    /// Whether whoever waits for this may have a token of the grant.
    pub(super) fn fits(&self, name: &GrantName, purpose: Purpose) -> Result<(), ErrorBody> {
        match purpose {
            Purpose::Token => self.grants.get(name).map_or(Ok(()), Grant::bound),
            Purpose::Relay | Purpose::Refresh => Ok(()),
        }
    }

    /// What a grant's present token is proved with, for whoever proves.
    fn proofs_for(&self, name: &GrantName, purpose: Purpose) -> Proofs {
        let grant = self.grants.get(name).filter(|_| purpose == Purpose::Relay);
        let key = grant.and_then(|grant| grant.record().proof_key.clone());
        Proofs { key, nonces: self.nonces.clone() }
    }

    /// What a login begins with, before it is known whether there will be a key.
    pub(super) fn no_proofs(&self) -> Proofs {
        Proofs { key: None, nonces: self.nonces.clone() }
    }
}

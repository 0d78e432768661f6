//! PURE but for the randomness of a secret: the clients of the relay's port. Each has a name, a secret of which only a digest is
//! kept, and the grants whose servers it may speak to.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use mcp_auth_proto as wire;
use mcp_auth_proto::{GrantName, Secret};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::caller::Caller;
use crate::clock::Wall;
use crate::policy::Only;
use crate::policy::rule::is_client_name;
use crate::vault::{Record, RecordId, RecordKind};

/// One client.
#[derive(Clone)]
pub struct Client {
    /// What it is to the policy and the audit. It lasts longer than its connections: what it uses is counted together.
    pub caller: Arc<Caller>,
    only: Only,
    digest: [u8; 32],
    added_at: Wall,
}

/// As it is sealed. The secret has 256 random bits: nobody finds it from a plain digest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    digest: String,
    /// As they were asked for, and by their own names.
    grants: Vec<(GrantName, GrantName)>,
    added_at: Wall,
}

/// What a secret begins with, so that one that leaked is known for what it is.
const PREFIX: &str = "mcprelay_";

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("only", &self.only).finish_non_exhaustive()
    }
}

impl PartialEq for Client {
    /// With the same secret: a client that was added anew under its old name is another.
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && bool::from(self.digest.ct_eq(&other.digest))
    }
}

impl Client {
    /// A new client, and its secret.
    pub fn new(name: &str, grants: Vec<(GrantName, GrantName)>, now: Wall) -> (Self, Secret) {
        let mut random = Zeroizing::new([0; 32]);
        getrandom::fill(random.as_mut_slice()).expect("the kernel gives random bytes");
        let secret = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random.as_slice())));
        (Self::with(name, grants, digest(&secret), now), Secret::new(secret.as_str()))
    }

    fn with(name: &str, grants: Vec<(GrantName, GrantName)>, digest: [u8; 32], added_at: Wall) -> Self {
        let only = Only::of_client(name, grants);
        Self { caller: Caller::of_client(only.clone()), only, digest, added_at }
    }

    /// What a record says; `None` where it is not of this version.
    pub fn from_record(record: &Record) -> Option<Self> {
        let Content { digest, grants, added_at } = serde_json::from_slice(&record.plaintext).ok()?;
        let digest = URL_SAFE_NO_PAD.decode(digest).ok()?.try_into().ok()?;
        is_client_name(&record.id.name).then(|| Self::with(&record.id.name, grants, digest, added_at))
    }

    /// As it is sealed.
    pub fn to_record(&self) -> Record {
        let content = Content { digest: URL_SAFE_NO_PAD.encode(self.digest), grants: self.only.pairs().to_vec(), added_at: self.added_at };
        let plaintext = serde_json::to_vec(&content).expect("texts and a number");
        Record { id: id(self.name()), generation: 1, plaintext: Zeroizing::new(plaintext) }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        self.only.client().unwrap_or_default()
    }

    /// The grants whose servers it may speak to.
    pub fn only(&self) -> &Only {
        &self.only
    }

    /// As `GET /v1/relay/clients` shows it.
    pub fn shown(&self) -> wire::RelayClient {
        let grants = self.only.grants().cloned().collect();
        wire::RelayClient { name: self.name().to_owned(), grants, added_at: self.added_at.rfc3339() }
    }
}

/// The id of a client's record.
pub fn id(name: &str) -> RecordId {
    RecordId { kind: RecordKind::RelayClient, name: name.to_owned() }
}

/// The client that has this secret. How long that takes tells nothing of the secrets that there are.
pub(super) fn find<'a>(clients: &'a [Arc<Client>], secret: &str) -> Option<&'a Arc<Client>> {
    let shown = digest(secret);
    let mut found = None;
    for client in clients {
        if client.digest.ct_eq(&shown).into() {
            found = Some(client);
        }
    }
    found
}

/// The secret that a request shows (RFC 6750 section 2.1); two are none.
pub(super) fn shown_secret(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    let (scheme, secret) = one.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim()).filter(|secret| !secret.is_empty())
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> GrantName {
        text.parse().unwrap()
    }

    fn client(text: &str) -> (Arc<Client>, Secret) {
        let (client, secret) = Client::new(text, vec![(name("notion"), name("notion:work"))], Wall(1000));
        (Arc::new(client), secret)
    }

    #[test]
    fn a_client_is_known_by_its_own_secret_alone_and_a_record_holds_none() {
        let ((cursor, one), (zed, other)) = (client("cursor"), client("zed"));
        let clients = [cursor.clone(), zed];
        assert_eq!(find(&clients, one.expose()).unwrap().name(), "cursor");
        assert_eq!(find(&clients, other.expose()).unwrap().name(), "zed");
        for wrong in ["", "cursor", &one.expose()[1..], &format!("{} ", one.expose()), &one.expose().to_lowercase()] {
            assert!(find(&clients, wrong).is_none(), "{wrong}");
        }
        assert!(one.expose().starts_with("mcprelay_") && one.expose().len() > 50);
        let record = cursor.to_record();
        let kept = String::from_utf8(record.plaintext.to_vec()).unwrap();
        assert!(!kept.contains(one.expose()) && !kept.contains(&one.expose()[PREFIX.len()..]), "{kept}");
        let again = Client::from_record(&record).unwrap();
        assert!(again == *cursor && again.only().meant("notion") == Some(&name("notion:work")));
        assert!(client("cursor").0 != cursor, "another secret is another client");
        assert!(!format!("{cursor:?}").contains(one.expose()));
    }

    #[test]
    fn a_secret_comes_in_one_header_of_the_bearer_scheme() {
        let shown = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            shown_secret(&headers).map(str::to_owned)
        };
        assert_eq!(shown(&["Bearer a"]).as_deref(), Some("a"));
        assert_eq!(shown(&["bearer  a "]).as_deref(), Some("a"));
        for none in [&[][..], &["Bearer"], &["Bearer "], &["Basic a"], &["a"], &["Bearer a", "Bearer a"]] {
            assert_eq!(shown(none), None, "{none:?}");
        }
    }
}

//! The clients that we are at authorization servers: what is kept of each, and which of them serves a login. A registration
//! belongs to one issuer and is shown to no other (MCP authorization, "Authorization Server Binding").
//!
//! PURE: that it is sealed and saved is the broker's doing, that it is made `login`'s.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::Wall;
use crate::oauth::register::Registered;
use crate::provider::ClientAuth;
use crate::secret::ClientSecret;
use crate::vault::{Record, RecordId, RecordKind};

/// One client at one authorization server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// The issuer, byte for byte.
    pub issuer: String,
    /// The client's id there.
    pub client_id: String,
    /// Its secret.
    #[serde(default)]
    pub client_secret: Option<ClientSecret>,
    /// When that ends.
    #[serde(default)]
    pub secret_ends_at: Option<Wall>,
    /// How it proves itself. `None`: as the server's metadata says.
    #[serde(default)]
    pub auth: Option<ClientAuth>,
    /// Where it came from.
    pub origin: Origin,
    /// When it was made or given.
    pub made_at: Wall,
    /// The server may have forgotten it. Not kept: after a restart a renewal or a page that fails says so again.
    #[serde(skip)]
    pub doubted: bool,
}

/// Where a registration came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A person gave it.
    Given,
    /// The server made it (RFC 7591).
    Dynamic {
        /// The redirect URI that was registered, byte for byte.
        redirect_uri: String,
        /// The metadata document that the server refused before: it is not shown that one again.
        #[serde(default)]
        refused_document: Option<String>,
    },
}

/// How long no server forgets a client that it has made: whoever changes their mind about ten logins makes no ten clients.
const NEW: Duration = Duration::from_secs(3600);

impl Registration {
    /// Whether the server may have forgotten it by now.
    pub fn is_old(&self, now: Wall) -> bool {
        now.since(self.made_at).is_some_and(|age| age >= NEW)
    }

    /// A client that a person gave.
    pub fn given(issuer: &str, client_id: &str, client_secret: Option<ClientSecret>, now: Wall) -> Self {
        let (issuer, client_id) = (issuer.to_owned(), client_id.to_owned());
        let origin = Origin::Given;
        Self { issuer, client_id, client_secret, secret_ends_at: None, auth: None, origin, made_at: now, doubted: false }
    }

    /// A client that a server has made.
    pub fn dynamic(issuer: &str, made: Registered, redirect_uri: &str, refused_document: Option<&str>, now: Wall) -> Self {
        let origin = Origin::Dynamic { redirect_uri: redirect_uri.to_owned(), refused_document: refused_document.map(str::to_owned) };
        Self {
            issuer: issuer.to_owned(),
            client_id: made.client_id,
            client_secret: made.client_secret,
            secret_ends_at: made.secret_ends_at,
            auth: Some(made.auth),
            origin,
            made_at: now,
            doubted: false,
        }
    }

    /// The redirect URI that it was registered with, where only that one will do.
    pub fn redirect_uri(&self) -> Option<&str> {
        match &self.origin {
            Origin::Given => None,
            Origin::Dynamic { redirect_uri, .. } => Some(redirect_uri),
        }
    }

    /// Whether its secret has ended.
    pub fn has_ended(&self, now: Wall) -> bool {
        self.secret_ends_at.is_some_and(|end| end <= now)
    }

    /// Its record's id: per issuer, method, redirect form and client.
    pub fn id(&self) -> RecordId {
        let parts = (&self.issuer, self.auth, self.redirect_uri(), &self.client_id);
        RecordId { kind: RecordKind::Registration, name: serde_json::to_string(&parts).expect("texts make JSON") }
    }

    /// The record that is sealed. It is never changed, so that there is one generation of it.
    pub fn to_record(&self) -> Record {
        let plaintext = Zeroizing::new(serde_json::to_vec(self).expect("it has only string keys"));
        Record { id: self.id(), generation: u64::try_from(self.made_at.0).unwrap_or(1).max(1), plaintext }
    }

    /// Reads what [`Self::to_record`] wrote; `None` for what another version wrote.
    pub fn from_record(record: &Record) -> Option<Self> {
        serde_json::from_slice(&record.plaintext).ok()
    }
}

/// The client with this id at this issuer.
pub fn find<'a>(all: &'a [Registration], issuer: &str, client_id: &str) -> Option<&'a Registration> {
    all.iter().rev().find(|registration| registration.issuer == issuer && registration.client_id == client_id)
}

/// The newest client that the issuer has made and whose secret has not ended.
pub fn newest_dynamic<'a>(all: &'a [Registration], issuer: &str, now: Wall) -> Option<&'a Registration> {
    let fits = |one: &&Registration| one.issuer == issuer && one.origin != Origin::Given && !one.has_ended(now);
    all.iter().filter(fits).max_by_key(|registration| registration.made_at)
}

/// Whether the issuer has refused this metadata document before.
pub fn has_refused(all: &[Registration], issuer: &str, document: &str) -> bool {
    all.iter().filter(|registration| registration.issuer == issuer).any(|registration| match &registration.origin {
        Origin::Given => false,
        Origin::Dynamic { refused_document, .. } => refused_document.as_deref() == Some(document),
    })
}

/// Another issuer that a client which a person gave belongs to.
pub fn foreign_issuer<'a>(all: &'a [Registration], issuer: &str, client_id: &str) -> Option<&'a str> {
    let theirs = |one: &&Registration| one.origin == Origin::Given && one.client_id == client_id;
    let given: Vec<_> = all.iter().filter(theirs).collect();
    if given.iter().any(|one| one.issuer == issuer) { None } else { given.first().map(|one| one.issuer.as_str()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(issuer: &str, client_id: &str, at: i64) -> Registration {
        let registered = Registered { client_id: client_id.into(), client_secret: None, secret_ends_at: None, auth: ClientAuth::None };
        Registration::dynamic(issuer, registered, "http://127.0.0.1:1/callback/a", None, Wall(at))
    }

    #[test]
    fn a_client_is_shown_to_its_own_issuer_only() {
        let all = [made("https://a", "c1", 1), made("https://b", "c2", 2), Registration::given("https://a", "mine", None, Wall(3))];
        assert_eq!(newest_dynamic(&all, "https://a", Wall(9)).unwrap().client_id, "c1");
        assert!(newest_dynamic(&all, "https://a/", Wall(9)).is_none(), "issuers are compared byte for byte");
        assert!(find(&all, "https://b", "c1").is_none() && find(&all, "https://a", "mine").is_some());
        assert_eq!(foreign_issuer(&all, "https://b", "mine"), Some("https://a"));
        assert_eq!(foreign_issuer(&all, "https://a", "mine"), None);
        assert_eq!(foreign_issuer(&all, "https://b", "new"), None);
    }

    #[test]
    fn the_newest_client_whose_secret_lives_serves_new_logins() {
        let ended = Registration { secret_ends_at: Some(Wall(5)), ..made("https://a", "c2", 2) };
        let all = [made("https://a", "c1", 1), ended];
        assert_eq!(newest_dynamic(&all, "https://a", Wall(4)).unwrap().client_id, "c2");
        assert_eq!(newest_dynamic(&all, "https://a", Wall(5)).unwrap().client_id, "c1");
    }

    #[test]
    fn a_refused_document_is_remembered_for_its_issuer() {
        let mut one = made("https://a", "c1", 1);
        one.origin = Origin::Dynamic { redirect_uri: "http://127.0.0.1:1/".into(), refused_document: Some("https://doc".into()) };
        let all = [one];
        assert!(has_refused(&all, "https://a", "https://doc"));
        assert!(!has_refused(&all, "https://b", "https://doc") && !has_refused(&all, "https://a", "https://other"));
    }

    #[test]
    fn a_registration_comes_back_from_its_record_and_two_of_them_never_share_one() {
        let mut one = made("https://a", "c1", 1);
        one.client_secret = Some(ClientSecret::new("hush".into()));
        let back = Registration::from_record(&one.to_record()).unwrap();
        assert_eq!(back.client_secret.unwrap().expose().as_str(), "hush");
        assert!(!format!("{one:?}").contains("hush"));
        let others = [made("https://a", "c2", 1), made("https://b", "c1", 1), Registration::given("https://a", "c1", None, Wall(1))];
        assert!(others.iter().all(|other| other.id() != one.id()));
    }
}

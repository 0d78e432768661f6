//! PURE: a family of refresh tokens (RFC 9700 section 4.14): one login of one client, its present refresh token known by hash
//! alone. Its record in the vault is all that a restart needs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::Random;
use crate::clock::Wall;
use crate::vault::{Record, RecordId, RecordKind};

/// How long a refresh token may lie unused.
const IDLE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Where the names of the records begin.
pub(crate) const RECORDS: &str = "family/";

/// One login of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Family {
    #[serde(skip)]
    generation: u64,
    /// A public part of every refresh token of the family.
    pub(crate) id: String,
    pub(crate) client_id: String,
    /// The `aud` of its access tokens.
    pub(crate) audience: String,
    pub(crate) scopes: Vec<String>,
    /// The `sid` of its tokens: one for the whole family, and told to nobody who has no token.
    pub(crate) sid: String,
    /// When the person approved it, seconds since 1970.
    pub(crate) approved_at: i64,
    used_at: Wall,
    /// Of the present refresh token: SHA-256, base64.
    hash: String,
}

/// What a family is made of.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    pub(crate) client_id: String,
    pub(crate) audience: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) approved_at: i64,
}

impl Family {
    /// A new family with its first refresh token.
    pub(crate) fn new(birth: Birth, now: Wall, random: Random<'_>) -> (Self, Zeroizing<String>) {
        let Birth { client_id, audience, scopes, approved_at } = birth;
        let (id, sid) = (super::random_text::<16>(random).to_string(), super::random_text::<16>(random).to_string());
        let family = Self { generation: 0, id, client_id, audience, scopes, sid, approved_at, used_at: now, hash: String::new() };
        family.rotated(now, random)
    }

    /// The family with its next refresh token; the one before is worth nothing any more.
    pub(crate) fn rotated(&self, now: Wall, random: Random<'_>) -> (Self, Zeroizing<String>) {
        let token = Zeroizing::new(format!("{}.{}", self.id, *super::random_text::<32>(random)));
        let next = Self { generation: self.generation + 1, used_at: now, hash: hash(&token), ..self.clone() };
        (next, token)
    }

    /// The id of the family that a refresh token claims to be of.
    pub(crate) fn id_in(token: &str) -> Option<&str> {
        token.split_once('.').map(|(id, _)| id)
    }

    /// Whether this is the present refresh token. One of the family that is not it was used before.
    pub(crate) fn is_present(&self, token: &str) -> bool {
        hash(token).as_bytes().ct_eq(self.hash.as_bytes()).into()
    }

    /// Whether its refresh token has lain unused for too long.
    pub(crate) fn is_stale(&self, now: Wall) -> bool {
        now.since(self.used_at).is_some_and(|idle| idle > IDLE)
    }

    pub(crate) fn record_id(id: &str) -> RecordId {
        RecordId { kind: RecordKind::Issuer, name: format!("{RECORDS}{id}") }
    }

    pub(crate) fn to_record(&self) -> Record {
        let plaintext = Zeroizing::new(serde_json::to_vec(self).expect("it has only string keys"));
        Record { id: Self::record_id(&self.id), generation: self.generation, plaintext }
    }

    pub(crate) fn from_record(record: &Record) -> Option<Self> {
        let family: Self = serde_json::from_slice(&record.plaintext).ok()?;
        Some(Self { generation: record.generation, ..family })
    }
}

fn hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::testing::counting;

    #[test]
    fn only_the_newest_refresh_token_is_present_and_the_record_holds_none_of_them() {
        let birth = Birth { client_id: "c".into(), audience: "a".into(), scopes: vec!["s".into()], approved_at: 1 };
        let mut random = counting();
        let (first, token) = Family::new(birth, Wall(0), &mut random);
        let (second, next) = first.rotated(Wall(5), &mut random);
        assert!(first.is_present(&token) && !second.is_present(&token) && second.is_present(&next));
        assert_eq!((Family::id_in(&token), Family::id_in(&next)), (Some(first.id.as_str()), Some(first.id.as_str())));
        assert_eq!((&second.sid, &second.scopes), (&first.sid, &first.scopes));
        let record = second.to_record();
        assert_eq!(Family::from_record(&record).unwrap(), second);
        assert_eq!(record.generation, 2);
        let plaintext = String::from_utf8(record.plaintext.to_vec()).unwrap();
        for secret in [&token, &next] {
            assert!(!plaintext.contains(secret.split_once('.').unwrap().1));
        }
    }

    #[test]
    fn a_month_of_rest_ends_it() {
        let birth = Birth { client_id: "c".into(), audience: "a".into(), scopes: vec![], approved_at: 1 };
        let (family, _) = Family::new(birth, Wall(0), &mut counting());
        let day = 24 * 3600 * 1000;
        assert!(!family.is_stale(Wall(30 * day)) && family.is_stale(Wall(30 * day + 1)) && !family.is_stale(Wall(-day)));
    }
}

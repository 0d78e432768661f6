//! PURE: a family of refresh tokens (RFC 9700 section 4.14): one login of one client, its present refresh token known by hash
//! alone. Its record in the vault is all that a restart needs.
//!
//! A used token that comes again ends the family, with one exception: the answer to it may have been lost. So for some
//! moments, and only until somebody uses what was given for it, it is answered once more, with a token beside the first. Two
//! who share a login by that are found out as soon as both go on: the first of these tokens that is used ends the others.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::Random;
use crate::clock::{Boot, Now, Wall};
use crate::vault::{Record, RecordId, RecordKind};

/// How long a refresh token may lie unused.
const IDLE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a refresh token that was just used may come again. After a restart it begins anew: the power may have failed
/// between our disk and the client's.
const GRACE: Duration = Duration::from_secs(30);
/// The most refresh tokens that are given for one.
const MOST: usize = 4;
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
    /// How long it had lain unused when it was read from the disk.
    #[serde(skip)]
    idle: Duration,
    /// When its refresh token was first used, or when it was read from the disk.
    #[serde(skip)]
    since: Boot,
    /// Of the present refresh token, and of those that were given beside it for the same one: SHA-256, base64.
    hashes: Vec<String>,
    /// Of the refresh token that they were given for.
    #[serde(default)]
    before: Option<String>,
}

/// What a refresh token of a family is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    /// It is good.
    Good,
    /// It was used moments ago, and nothing that was given for it: the answer may have been lost.
    Again,
    /// It was used before.
    Nothing,
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
    pub(crate) fn new(birth: Birth, now: Now, random: Random<'_>) -> (Self, Zeroizing<String>) {
        let Birth { client_id, audience, scopes, approved_at } = birth;
        let (id, sid) = (super::random_text::<16>(random).to_string(), super::random_text::<16>(random).to_string());
        let (used_at, since) = (now.wall, now.boot);
        let (idle, hashes, before) = (Duration::ZERO, Vec::new(), None);
        let family = Self { generation: 0, id, client_id, audience, scopes, sid, approved_at, used_at, idle, since, hashes, before };
        family.with_token(random)
    }

    /// The family after this refresh token of it, with the one to give for it.
    pub(crate) fn rotated(&self, token: &str, now: Now, random: Random<'_>) -> (Self, Zeroizing<String>) {
        let next = match self.worth(token, now.boot) {
            Worth::Again => self.clone(),
            _ => {
                let (idle, hashes, before) = (Duration::ZERO, Vec::new(), Some(hash(token)));
                Self { used_at: now.wall, since: now.boot, idle, hashes, before, ..self.clone() }
            }
        };
        next.with_token(random)
    }

    fn with_token(mut self, random: Random<'_>) -> (Self, Zeroizing<String>) {
        let token = Zeroizing::new(format!("{}.{}", self.id, *super::random_text::<32>(random)));
        self.generation += 1;
        self.hashes.push(hash(&token));
        (self, token)
    }

    /// The id of the family that a refresh token claims to be of.
    pub(crate) fn id_in(token: &str) -> Option<&str> {
        token.split_once('.').map(|(id, _)| id)
    }

    /// What this refresh token, which claims to be of this family, is worth.
    pub(crate) fn worth(&self, token: &str, now: Boot) -> Worth {
        let hash = hash(token);
        let is = |known: &String| -> bool { known.as_bytes().ct_eq(hash.as_bytes()).into() };
        let may_come_again = now.since(self.since) < GRACE && self.hashes.len() < MOST;
        match () {
            () if self.hashes.iter().any(is) => Worth::Good,
            () if may_come_again && self.before.as_ref().is_some_and(is) => Worth::Again,
            () => Worth::Nothing,
        }
    }

    /// Whether its refresh token has lain unused for too long. A clock that is set while we run changes nothing.
    pub(crate) fn is_stale(&self, now: Boot) -> bool {
        self.idle + now.since(self.since) > IDLE
    }

    pub(crate) fn record_id(id: &str) -> RecordId {
        RecordId { kind: RecordKind::Issuer, name: format!("{RECORDS}{id}") }
    }

    pub(crate) fn to_record(&self) -> Record {
        let plaintext = Zeroizing::new(serde_json::to_vec(self).expect("it has only string keys"));
        Record { id: Self::record_id(&self.id), generation: self.generation, plaintext }
    }

    /// The family of a record that is read now.
    pub(crate) fn from_record(record: &Record, now: Now) -> Option<Self> {
        let family: Self = serde_json::from_slice(&record.plaintext).ok()?;
        let idle = now.wall.since(family.used_at).unwrap_or_default();
        Some(Self { generation: record.generation, idle, since: now.boot, ..family })
    }
}

fn hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::testing::counting;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn at(seconds: u64) -> Now {
        Now { boot: Boot::from_start(Duration::from_secs(seconds)), wall: Wall(0) + Duration::from_secs(seconds) }
    }

    fn new(random: Random<'_>) -> (Family, Zeroizing<String>) {
        let birth = Birth { client_id: "c".into(), audience: "a".into(), scopes: vec!["s".into()], approved_at: 1 };
        Family::new(birth, at(0), random)
    }

    #[test]
    fn the_newest_refresh_token_is_good_and_the_record_holds_none_of_them() {
        let mut random = counting();
        let (first, token) = new(&mut random);
        let (second, next) = first.rotated(&token, at(5), &mut random);
        assert_eq!((first.worth(&token, at(5).boot), second.worth(&next, at(5).boot)), (Worth::Good, Worth::Good));
        assert_eq!((Family::id_in(&token), Family::id_in(&next)), (Some(first.id.as_str()), Some(first.id.as_str())));
        assert_eq!((&second.sid, &second.scopes), (&first.sid, &first.scopes));
        let record = second.to_record();
        assert_eq!(Family::from_record(&record, at(5)).unwrap(), second);
        assert_eq!(record.generation, 2);
        let plaintext = String::from_utf8(record.plaintext.to_vec()).unwrap();
        for secret in [&token, &next] {
            assert!(!plaintext.contains(secret.split_once('.').unwrap().1));
        }
    }

    #[test]
    fn a_used_one_may_come_again_for_moments_until_what_was_given_for_it_is_used() {
        let mut random = counting();
        let (first, token) = new(&mut random);
        let (second, lost) = first.rotated(&token, at(5), &mut random);
        let worth = |family: &Family, token: &str, second| family.worth(token, at(second).boot);
        assert_eq!((worth(&second, &token, 34), worth(&second, &token, 35)), (Worth::Again, Worth::Nothing));
        let (third, came) = second.rotated(&token, at(20), &mut random);
        assert_eq!((worth(&third, &lost, 20), worth(&third, &came, 20)), (Worth::Good, Worth::Good), "whichever has arrived");
        assert_eq!((worth(&third, &token, 34), worth(&third, &token, 35)), (Worth::Again, Worth::Nothing), "from the first use on");
        let (fourth, _) = third.rotated(&came, at(21), &mut random);
        for used in [&token, &lost] {
            assert_eq!(worth(&fourth, used, 21), Worth::Nothing, "somebody went on with the other one");
        }
        assert_eq!(worth(&fourth, &came, 21), Worth::Again);
    }

    #[test]
    fn a_used_one_is_answered_four_times() {
        let mut random = counting();
        let (mut family, token) = new(&mut random);
        for _ in 0..4 {
            assert_ne!(family.worth(&token, at(1).boot), Worth::Nothing);
            (family, _) = family.rotated(&token, at(1), &mut random);
        }
        assert_eq!(family.worth(&token, at(1).boot), Worth::Nothing);
    }

    #[test]
    fn after_a_restart_the_moments_begin_anew() {
        let mut random = counting();
        let (first, token) = new(&mut random);
        let (second, _) = first.rotated(&token, at(5), &mut random);
        let morning = at(8 * 3600);
        let read = Family::from_record(&second.to_record(), morning).unwrap();
        assert_eq!(read.worth(&token, (morning.boot) + Duration::from_secs(29)), Worth::Again);
        assert_eq!(read.worth(&token, (morning.boot) + Duration::from_secs(30)), Worth::Nothing);
    }

    #[test]
    fn a_month_of_rest_ends_it_and_a_clock_that_is_set_does_not() {
        let (family, _) = new(&mut counting());
        let later = |days: u32| at(0).boot + DAY * days;
        assert!(!family.is_stale(later(30)) && family.is_stale(later(30) + Duration::from_millis(1)));
        let record = family.to_record();
        let read = |wall: Wall| Family::from_record(&record, Now { boot: Boot::default(), wall }).unwrap();
        let half = read(Wall(0) + DAY * 15);
        assert!(!half.is_stale(later(15)) && half.is_stale(later(16)));
        assert!(read(Wall(0) + DAY * 31).is_stale(Boot::default()) && !read(Wall(-1)).is_stale(Boot::default()));
    }
}

//! PURE: first logins that need nobody and have failed. Programs ask for them again with every request; the servers are asked again
//! after a pause that grows with each failure, and until then programs are told what was said last.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, DefaultHasher, Hash as _, Hasher as _, RandomState};
use std::io;
use std::time::Duration;

use mcp_auth_proto::{ErrorBody, GrantName, LoginRequest};

use crate::clock::Boot;
use crate::grant::backoff;

/// The longest pause, unless the server wants a longer one.
const LONGEST: Duration = Duration::from_secs(60);
/// After so long without another failure the next one is a first one.
const REMEMBERED: Duration = Duration::from_secs(600);
/// So many logins are remembered; of more, those whose pause ends soonest are not.
const MOST: usize = 64;

/// The first logins that have failed lately.
#[derive(Debug, Default)]
pub(super) struct FirstLogins {
    keys: RandomState,
    failed: HashMap<Key, Failed>,
}

/// One login, as it was asked for: with another client, secret or file it is another one. What it was cannot be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

#[derive(Debug)]
struct Failed {
    times: u32,
    until: Boot,
    error: ErrorBody,
}

impl FirstLogins {
    pub(super) fn key(&self, grant: &GrantName, request: &LoginRequest) -> Key {
        // What a server says differs from answer to answer.
        let request = LoginRequest { challenge: None, ..request.clone() };
        let mut sink = Sink(self.keys.build_hasher());
        grant.hash(&mut sink.0);
        serde_json::to_writer(&mut sink, &request).expect("a request is JSON, and the sink takes all of it");
        Key(sink.0.finish())
    }

    /// Whether this login may begin.
    ///
    /// # Errors
    /// What it failed with last, and when it is tried again.
    pub(super) fn begin(&self, key: Key, now: Boot) -> Result<(), ErrorBody> {
        let Some(Failed { until, error, .. }) = self.failed.get(&key).filter(|failed| now < failed.until) else { return Ok(()) };
        let seconds = until.since(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX);
        let sentence = format!("{error}; this login is not tried again for {seconds} s");
        Err(ErrorBody { error_description: sentence, ..error.clone() }.retry_after(seconds))
    }

    /// It has failed. `random` is in `0.0..1.0`.
    pub(super) fn failed(&mut self, key: Key, error: ErrorBody, now: Boot, random: f64) {
        self.failed.retain(|_, failed| now < failed.until + REMEMBERED);
        let times = self.failed.remove(&key).map_or(0, |failed| failed.times).saturating_add(1);
        let wanted = error.retry_after.map(Duration::from_secs).unwrap_or_default();
        let until = now + backoff(times, random).min(LONGEST).max(wanted);
        if self.failed.len() >= MOST
            && let Some(soonest) = self.failed.iter().min_by_key(|(_, failed)| failed.until).map(|(key, _)| *key)
        {
            self.failed.remove(&soonest);
        }
        self.failed.insert(key, Failed { times, until, error });
    }

    /// It has brought tokens.
    pub(super) fn succeeded(&mut self, key: Key) {
        self.failed.remove(&key);
    }

    /// A person has done something about it: a login, or another config.
    pub(super) fn forget(&mut self) {
        self.failed.clear();
    }
}

/// Takes the bytes of a request, secrets among them, and keeps none.
struct Sink(DefaultHasher);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mcp_auth_proto::{ErrorCode, Secret};

    use super::*;

    fn at(seconds: u64) -> Boot {
        Boot::from_start(Duration::from_secs(seconds))
    }

    fn error() -> ErrorBody {
        ErrorBody::new(ErrorCode::ProviderUnreachable, "the provider is down").hint("wait")
    }

    fn request(secret: &str, challenge: Option<&str>) -> LoginRequest {
        let challenge = challenge.map(str::to_owned);
        LoginRequest { provider: "a".into(), client_secret: Some(Secret::new(secret)), challenge, ..LoginRequest::default() }
    }

    #[test]
    fn a_login_that_failed_is_left_alone_for_a_pause_that_grows_and_ends() {
        let mut logins = FirstLogins::default();
        let (mut now, mut pauses) = (0, Vec::new());
        let key = logins.key(&"a".parse().unwrap(), &request("s", None));
        for _ in 0..8 {
            assert_eq!(logins.begin(key, at(now)), Ok(()));
            logins.failed(key, error(), at(now), 0.999);
            let told = logins.begin(key, at(now)).unwrap_err();
            let seconds = told.retry_after.unwrap();
            assert_eq!(told.error_description, format!("the provider is down; this login is not tried again for {seconds} s"));
            assert_eq!((told.error, told.hint.as_deref()), (ErrorCode::ProviderUnreachable, Some("wait")));
            pauses.push(seconds);
            now += seconds;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        logins.failed(key, error(), at(now + 1000), 0.999);
        assert_eq!(logins.begin(key, at(now + 1000)).unwrap_err().retry_after, Some(2), "it begins anew");
        logins.failed(key, error().retry_after(300), at(5000), 0.5);
        assert_eq!(logins.begin(key, at(5000)).unwrap_err().retry_after, Some(300), "the server's own word");
        logins.succeeded(key);
        assert_eq!(logins.begin(key, at(5000)), Ok(()));
    }

    #[test]
    fn another_secret_is_another_login_and_another_challenge_is_not() {
        let logins = FirstLogins::default();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let key = logins.key(&a, &request("s", None));
        assert_eq!(logins.key(&a, &request("s", Some("Bearer"))), key);
        assert!(logins.key(&a, &request("t", None)) != key && logins.key(&b, &request("s", None)) != key);
    }

    #[test]
    fn few_are_remembered_and_a_person_clears_them() {
        let mut logins = FirstLogins::default();
        for number in 0..1000 {
            logins.failed(Key(number), error(), at(number / 100), 0.0);
        }
        assert_eq!(logins.failed.len(), MOST);
        assert!(logins.begin(Key(999), at(9)).is_err());
        logins.forget();
        assert_eq!(logins.begin(Key(999), at(9)), Ok(()));
    }
}

//! PURE: how often a login may start that no person asked for. Programs ask again and again; a browser that opens by itself again
//! and again is how people learn to click without reading.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};

use crate::clock::Boot;

/// Between two of them for the same grant and reason.
const GAP: Duration = Duration::from_secs(600);
/// So many for a grant, until a person logs in by themselves or a day has passed: a server can think of new reasons for ever.
const MOST: usize = 3;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// When unprompted logins were started, by grant, and the scopes that each asked for.
#[derive(Debug, Default)]
pub(super) struct Rations(HashMap<GrantName, Vec<(Boot, BTreeSet<String>)>>);

impl Rations {
    /// Takes one.
    ///
    /// # Errors
    /// `too_many_requests`, with the seconds until there is one again.
    pub(super) fn take(&mut self, grant: &GrantName, scopes: &[String], now: Boot) -> Result<(), ErrorBody> {
        let reason: BTreeSet<String> = scopes.iter().cloned().collect();
        let taken = self.0.entry(grant.clone()).or_default();
        taken.retain(|(at, _)| now.since(*at) < DAY);
        let all_taken = taken.first().filter(|_| taken.len() >= MOST).map(|(first, _)| *first + DAY);
        let just_taken = taken.iter().rfind(|(_, other)| *other == reason).map(|(last, _)| *last + GAP);
        let again = all_taken.max(just_taken).unwrap_or(now);
        if now >= again {
            taken.push((now, reason));
            return Ok(());
        }
        let sentence = format!("programs have asked for the login of `{grant}` often enough; now a person must");
        let seconds = again.since(now).as_secs().max(1);
        Err(ErrorBody::new(ErrorCode::TooManyRequests, sentence).hint(format!("mcp-authctl login {grant}")).retry_after(seconds))
    }

    /// A person sees to it by themselves.
    pub(super) fn forget(&mut self, grant: &GrantName) {
        self.0.remove(grant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_opens_by_itself_once_in_ten_minutes_for_each_reason_and_three_times_a_day_for_each_grant() {
        let (grant, other): (GrantName, GrantName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let at = |seconds| Boot::from_start(Duration::from_secs(seconds));
        let mut rations = Rations::default();
        for (grant, scopes, seconds, expected) in [
            (&grant, "read write", 0, true),
            (&grant, "read write", 599, false),
            (&grant, "write read write", 599, false),
            (&other, "read write", 599, true),
            (&grant, "read", 599, true),
            (&grant, "read write", 600, true),
            (&grant, "read write", 1200, false),
            (&grant, "something new", 1200, false),
            (&grant, "something new", 86_399, false),
            (&grant, "something new", 86_400, true),
            (&other, "something new", 86_400, true),
        ] {
            assert_eq!(rations.take(grant, &words(scopes), at(seconds)).is_ok(), expected, "{grant} {scopes} {seconds}");
        }
        let error = rations.take(&grant, &words("read"), at(86_405)).unwrap_err();
        assert_eq!((error.error, error.retry_after), (ErrorCode::TooManyRequests, Some(594)));
        rations.forget(&grant);
        assert!(rations.take(&grant, &words("read"), at(86_405)).is_ok(), "a person has logged in");
    }
}

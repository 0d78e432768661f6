//! PURE: how often programs may lead a person to a login page, and how far a login goes that leads nobody to one. A server that is
//! never content must not open window after window (MCP authorization, "Step-Up Authorization Flow": retry limits), nor have
//! scopes asked for that nobody has ever seen.

use std::collections::HashMap;
use std::time::Duration;

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, LoginRequest};

use crate::clock::Boot;
use crate::grant::record::GrantRecord;
use crate::oauth::scopes::{self, union};
use crate::oauth::text::{clean, quoted};
use crate::provider::Provider;

/// One reason leads to one login in this time.
const SAME_REASON: Duration = Duration::from_secs(600);
/// So many logins of one grant, for whatever reasons, in this time.
const MOST: usize = 3;
const ALL_REASONS: Duration = Duration::from_secs(24 * 3600);

/// The logins that programs asked for, by grant.
#[derive(Debug, Default)]
pub(super) struct StepUps(HashMap<GrantName, Vec<(Reason, Boot)>>);

/// Why a program asks for a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// The scopes, sorted.
    scopes: Vec<String>,
    /// The grant's present authorization server is not named any more.
    moved: bool,
}

impl Reason {
    pub(super) fn new(scopes: &[String], moved: bool) -> Self {
        let mut scopes = scopes.to_vec();
        scopes.sort_unstable();
        Self { scopes, moved }
    }
}

impl StepUps {
    /// Whether a login may begin; it is counted if so.
    pub(super) fn begin(&mut self, name: &GrantName, reason: Reason, now: Boot) -> Result<(), ErrorBody> {
        let begun = self.0.entry(name.clone()).or_default();
        begun.retain(|(_, at)| now < *at + ALL_REASONS);
        let again = begun.iter().rfind(|(earlier, at)| *earlier == reason && now < *at + SAME_REASON).map(|(_, at)| *at + SAME_REASON);
        let many = begun.first().filter(|_| begun.len() >= MOST).map(|(_, at)| *at + ALL_REASONS);
        let Some(until) = again.max(many) else {
            begun.push((reason, now));
            return Ok(());
        };
        let scopes =
            if reason.scopes.is_empty() { String::new() } else { format!(" --scope '{}'", reason.scopes.join(" ").replace('\'', r"'\''")) };
        let sentence = if many.is_some() {
            format!("programs have asked for {MOST} logins of `{name}` today, and the server is not content")
        } else {
            format!("a login of `{name}` was asked for a moment ago for the same reason, and the server is not content")
        };
        let error = ErrorBody::new(ErrorCode::TooManyRequests, sentence).hint(format!("mcp-authctl login {name}{scopes}"));
        Err(error.retry_after(until.since(now).as_secs().max(1)))
    }

    /// A person logs in by themselves: what programs asked for before does not count any more.
    pub(super) fn forget(&mut self, name: &GrantName) {
        self.0.remove(name);
    }
}

/// The scopes of a login that leads nobody to a page. `None`: as the server says. What a program names for a grant that is held it
/// has from the server, as it has a challenge. `command` logs in.
pub(super) fn scopes_unseen(
    request: &LoginRequest,
    (provider, held): (&Provider, Option<&GrantRecord>),
    challenged: Option<&[String]>,
    command: &str,
) -> Result<Option<Vec<String>>, ErrorBody> {
    let named = request.scopes.as_deref();
    if let Some(own) = named.filter(|_| held.is_none() || !request.unprompted) {
        return Ok(Some(own.to_vec()));
    }
    let (configured, before) = (provider.scopes.as_slice(), held.map(|held| held.requested_scopes.as_slice()));
    // A person's login begins anew with what the config says; any other keeps what a person has asked for since.
    if !request.unprompted && challenged.is_none() && !configured.is_empty() {
        return Ok(Some(configured.to_vec()));
    }
    scopes::within_written(configured, before, named.or(challenged)).map_err(|beyond| {
        let name = held.map_or(provider.name.as_str(), |held| held.name.as_str());
        let sentence = format!(
            "nobody sees what a login of `{name}` asks for, so it asks for no scopes but those that are written down; not among them: {}",
            clean(&beyond.join(" "))
        );
        let wider = union(&union(configured, before.unwrap_or_default()), &beyond).join(" ");
        let hint = format!("{command} --scope {}, or add them to its `scopes` in config.toml, then mcp-authctl reload", quoted(&wider));
        ErrorBody::new(ErrorCode::InsufficientScope, sentence).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Boot {
        Boot::from_start(Duration::from_secs(seconds))
    }

    fn reason(scopes: &str) -> Reason {
        Reason::new(&scopes.split(' ').map(str::to_owned).collect::<Vec<_>>(), false)
    }

    #[test]
    fn what_a_person_has_asked_for_outlives_the_logins_that_nobody_sees_and_a_plain_login_goes_back_to_the_config() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let provider = Provider { scopes: list("a b"), ..Provider::unknown("corp") };
        let held = GrantRecord { requested_scopes: list("a b c"), ..super::super::tests::expired("corp") };
        for (unprompted, expected) in [(true, "a b c"), (false, "a b")] {
            let request = LoginRequest { unprompted, ..LoginRequest::default() };
            let asked = scopes_unseen(&request, (&provider, Some(&held)), None, "").unwrap();
            assert_eq!(asked, Some(list(expected)), "{unprompted}");
        }
    }

    #[test]
    fn one_reason_leads_to_one_login_in_ten_minutes_and_all_of_them_to_three_a_day() {
        let (mut step_ups, name) = (StepUps::default(), "a".parse().unwrap());
        assert!(step_ups.begin(&name, reason("x y"), at(0)).is_ok());
        let again = step_ups.begin(&name, reason("y x"), at(599)).unwrap_err();
        assert_eq!(again.hint.as_deref(), Some("mcp-authctl login a --scope 'x y'"));
        assert!(step_ups.begin(&name, reason("x y"), at(600)).is_ok(), "later it may be asked for again");
        assert!(step_ups.begin(&name, Reason { moved: true, ..reason("x y") }, at(601)).is_ok(), "another reason");
        assert!(step_ups.begin(&name, reason("z"), at(5000)).is_err(), "three in all");
        assert!(step_ups.begin(&"b".parse().unwrap(), reason("z"), at(5000)).is_ok(), "another grant");
        assert!(step_ups.begin(&name, reason("z"), at(24 * 3600 + 700)).is_ok(), "another day");
    }

    #[test]
    fn a_person_who_logs_in_starts_the_count_anew() {
        let (mut step_ups, name) = (StepUps::default(), "a".parse().unwrap());
        assert!(step_ups.begin(&name, reason("x"), at(0)).is_ok());
        step_ups.forget(&name);
        assert!(step_ups.begin(&name, reason("x"), at(1)).is_ok());
    }
}

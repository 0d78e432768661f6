//! Whose login it is: what a bare name stands for, and what happens when another account logs in than a grant holds.
//!
//! Programs take a grant's name for an account. So the tokens of another one replace nothing until a person has said so;
//! meanwhile they are held in memory, and revoked if they are not wanted.

use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, LoginEvent};

use super::core::{Core, answer};
use super::logins::{Running, no_login};
use super::{Reply, attempt};
use crate::grant::record::{Definition, GrantRecord};
use crate::grant::{Grant, Login};
use crate::provider::Revokes;

/// How long a person has to decide.
const PATIENCE: Duration = Duration::from_secs(300);

/// A finished login of another account than the grant holds.
pub(super) struct Undecided {
    login: Box<Login>,
    /// Who is held, and who has logged in: for people.
    names: (String, String),
}

impl Core {
    /// The grant that a name stands for: itself, else the default account of its provider.
    pub(super) fn meant(&self, name: &GrantName) -> GrantName {
        if name.label().is_some() || self.grants.contains_key(name) || self.set_aside.contains(name) {
            return name.clone();
        }
        let label = self.config.provider(name.base()).and_then(|provider| provider.default_account.as_deref());
        label.and_then(|label| GrantName::with_label(name.base(), label).ok()).unwrap_or_else(|| name.clone())
    }

    /// Whether its provider's bare name stands for a grant.
    pub(super) fn is_default(&self, name: &GrantName) -> bool {
        let bare: Option<GrantName> = name.label().and_then(|_| name.base().parse().ok());
        bare.is_some_and(|bare| self.meant(&bare) == *name)
    }

    /// Other grants of the same provider that hold the same account.
    pub(super) fn same_account(&self, name: &GrantName) -> Vec<GrantName> {
        let Some(record) = self.grants.get(name).map(Grant::newest) else { return Vec::new() };
        let others = self.grants.values().map(Grant::newest).filter(|other| other.name != *name);
        let same = |other: &&GrantRecord| other.subject.is_some() && Person::of(record).is(&Person::of(other)) == Some(true);
        others.filter(same).map(|other| other.name.clone()).collect()
    }

    /// What a login brought goes to its grant, unless that holds another account: then a person decides.
    pub(super) fn take_in_login(&mut self, id: &str, name: GrantName, login: Box<Login>) {
        let other = self.grants.get(&name).and_then(|held| other_account(held.newest(), &login));
        let replaced = other.as_ref().and_then(|_| self.grants.get(&name)).map(|held| held.newest().clone());
        let Some(running) = self.logins.running.get_mut(id) else { return };
        if let Some(names) = other.filter(|_| !running.replace) {
            let can_ask = running.subscribers.values().any(|subscriber| subscriber.asks);
            let undecided = running.undecided.insert(Undecided { login, names });
            if !can_ask {
                return self.give_up_login(id);
            }
            tracing::info!(grant = %name, "another account has logged in than the grant holds; a person is asked");
            let event = undecided.event(&name);
            running.tell(&event);
            return self.give_up_later(id.to_owned());
        }
        running.saving = true;
        running.replaced = replaced;
        self.log_in(&name, login);
    }

    /// `POST /v1/logins/ID/decision`.
    pub(super) fn decide_login(&mut self, id: &str, decision: wire::LoginDecision, reply: Reply<()>) {
        let Some(running) = self.logins.running.get_mut(id) else { return answer(reply, Err(no_login())) };
        let name = running.grant.clone();
        let Some(mut undecided) = running.undecided.take() else {
            return answer(reply, Err(ErrorBody::new(ErrorCode::Conflict, format!("the login of `{name}` asks for no decision"))));
        };
        let target = match (&decision.account, decision.replace) {
            (None, false) => {
                running.undecided = Some(undecided);
                self.give_up_login(id);
                return answer(reply, Ok(()));
            }
            (None, true) => Ok(name),
            (Some(_), true) => Err(ErrorBody::new(ErrorCode::InvalidRequest, "a login either replaces another or gets a label of its own")),
            (Some(label), false) => labelled(name.base(), label),
        };
        let target = target.and_then(|target| match self.grants.get(&target).map(|held| other_account(held.newest(), &undecided.login)) {
            Some(Some(names)) if !decision.replace => Err(conflict(&target, &names)),
            // What was said yes to was to end another login than the one that is held by now.
            Some(Some(names)) if names != undecided.names => {
                undecided.names = names;
                Err(conflict(&target, &undecided.names))
            }
            _ => Ok(target),
        });
        let Some(running) = self.logins.running.get_mut(id) else { return };
        match target {
            Ok(target) => {
                running.grant = target.clone();
                running.replace = decision.replace;
                answer(reply, Ok(()));
                self.take_in_login(id, target, undecided.login);
            }
            Err(error) => {
                // Of a label that will not do its asker hears; that another is held by now, everybody.
                let event = (decision.replace && error.error == ErrorCode::Conflict).then(|| undecided.event(&running.grant));
                running.undecided = Some(undecided);
                answer(reply, Err(error));
                event.iter().for_each(|event| running.tell(event));
            }
        }
    }

    /// Nobody wants the new login: the grant stays as it was.
    pub(super) fn give_up_login(&mut self, id: &str) {
        let Some(running) = self.logins.running.get(id) else { return };
        let Some(undecided) = &running.undecided else { return };
        let error = conflict(&running.grant, &undecided.names);
        self.end_login(id, LoginEvent::Failed { error });
    }

    /// The login whose place a new one has taken is known to nobody any more, once the new one is saved: until then the disk
    /// holds it, and after a crash it is all that there is.
    pub(super) fn revoke_replaced(&mut self, id: &str) {
        let Some(running) = self.logins.running.get_mut(id) else { return };
        let Some(record) = running.replaced.take() else { return };
        if self.grants.get(&running.grant).is_some_and(Grant::is_not_durable) {
            return self.logins.replaced.push(record);
        }
        self.revoke_unheld(record);
    }

    /// The disk has taken a grant's newest tokens at last.
    pub(super) fn revoke_replaced_by(&mut self, name: &GrantName) {
        let (replaced, others) = std::mem::take(&mut self.logins.replaced).into_iter().partition(|record| record.name == *name);
        self.logins.replaced = others;
        let replaced: Vec<GrantRecord> = replaced;
        replaced.into_iter().for_each(|record| self.revoke_unheld(record));
    }

    pub(super) fn revoke_unwanted(&self, name: &GrantName, undecided: Undecided) {
        // Its effects are not carried out: nothing is saved or told.
        let (unwanted, _) = Grant::logged_in(name.clone(), undecided.login, self.now(), (0, 0));
        self.revoke_unheld(unwanted.newest().clone());
    }

    /// Revokes tokens that no grant holds, but not where that could reach the tokens of a grant that is held, here or elsewhere.
    fn revoke_unheld(&self, record: GrantRecord) {
        let person = Person::of(&record);
        let reaches = |held: &GrantRecord| person.same_server(&Person::of(held)) && person.is(&Person::of(held)) != Some(false);
        let Some(provider) = self.provider_of(&record.definition) else { return };
        let too_wide = provider.quirks.revokes == Revokes::Account;
        if too_wide || record.definition.is_static() || self.grants.values().any(|held| reaches(held.newest())) {
            return;
        }
        let name = record.name.clone();
        self.task(attempt::revoke(self.way(provider.into_owned()), record), move |_, outcome| match outcome {
            Some(Ok(true)) => tracing::info!(grant = %name, "a login that nobody holds was revoked"),
            Some(Err(reason)) => tracing::warn!(grant = %name, reason, "a login that nobody holds could not be revoked"),
            _ => {}
        });
    }

    fn give_up_later(&self, id: String) {
        self.task(tokio::time::sleep(PATIENCE), move |core, _| core.give_up_login(&id));
    }
}

impl Running {
    /// Tells one subscriber that a person must decide, if so.
    pub(super) fn tell_undecided(&self, number: u64) {
        if let (Some(undecided), Some(subscriber)) = (&self.undecided, self.subscribers.get(&number)) {
            subscriber.tell(undecided.event(&self.grant));
        }
    }
}

impl Undecided {
    fn event(&self, grant: &GrantName) -> LoginEvent {
        let (held, new) = self.names.clone();
        LoginEvent::OtherAccount { grant: grant.clone(), held, new }
    }
}

/// Who a grant belongs to, at which server.
struct Person<'a> {
    definition: &'a Definition,
    account: Option<&'a str>,
    subject: Option<&'a str>,
}

impl<'a> Person<'a> {
    fn of(record: &'a GrantRecord) -> Self {
        Self { definition: &record.definition, account: record.account.as_deref(), subject: record.subject.as_deref() }
    }

    /// Whether it is the same person, by the provider's identifier, else by the name for people; `None` where that is not known.
    fn is(&self, other: &Self) -> Option<bool> {
        // Two clients that ask for themselves, or two workloads, are no two people: the config says which one counts.
        let nobody = [self, other].iter().all(|one| one.definition.client_credentials || one.definition.is_a_workload());
        if nobody || !self.same_server(other) {
            return None;
        }
        // An identity provider's names for people are none of the server's.
        let same_namer = self.definition.vouched_by() == other.definition.vouched_by();
        let subject = |one: &Self| one.subject.filter(|_| same_namer);
        match ((subject(self), subject(other)), (self.account, other.account)) {
            ((Some(mine), Some(theirs)), _) | (_, (Some(mine), Some(theirs))) => Some(mine == theirs),
            _ => None,
        }
    }

    /// Identifiers mean something at their own server only. A static token knows no server but its provider's name.
    fn same_server(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.definition, other.definition);
        let moved = mine.issuer != theirs.issuer || mine.issuer.is_none() && mine.token_endpoint != theirs.token_endpoint;
        mine.provider == theirs.provider && (mine.is_static() || theirs.is_static() || !moved)
    }
}

/// Who is held and who has logged in, where they are known to be two.
pub(super) fn other_account(held: &GrantRecord, login: &Login) -> Option<(String, String)> {
    let new = Person { definition: &login.definition, account: login.account.as_deref(), subject: login.subject.as_deref() };
    let held = Person::of(held);
    let shown = |person: &Person<'_>| person.account.or(person.subject).unwrap_or_default().to_owned();
    (held.is(&new) == Some(false)).then(|| {
        let names = (shown(&held), shown(&new));
        if names.0 != names.1 {
            return names;
        }
        // Two people of one name: what tells them apart is the provider's identifier.
        let told = |name: String, person: &Person<'_>| format!("{name} ({})", person.subject.unwrap_or_default());
        (told(names.0, &held), told(names.1, &new))
    })
}

/// The grant of another account, by the label that a person gave it.
pub(super) fn labelled(base: &str, label: &str) -> Result<GrantName, ErrorBody> {
    GrantName::with_label(base, label).map_err(|error| {
        ErrorBody::new(ErrorCode::InvalidRequest, format!("{label:?} is not an account label: {error}"))
            .hint(format!("of `{base}:work` it is `work`"))
    })
}

fn conflict(grant: &GrantName, (held, new): &(String, String)) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("`{grant}` holds the login of {held}, and {new} has logged in; {held}'s was kept")).hint(
        format!("`mcp-authctl login {grant} --replace` puts the other in its place, `mcp-authctl login {}:LABEL` keeps both", grant.base()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(issuer: Option<&str>, token_endpoint: Option<&str>) -> Definition {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let client_id = token_endpoint.map(|_| "c1".to_owned());
        Definition {
            provider: "corp".into(),
            issuer: text(issuer),
            token_endpoint: text(token_endpoint),
            client_id,
            ..Definition::default()
        }
    }

    #[test]
    fn people_are_told_apart_by_identifier_then_by_name_and_only_at_one_server() {
        let (here, there) = (definition(Some("https://a"), Some("https://a/t")), definition(Some("https://b"), Some("https://b/t")));
        let (moved, pat) = (definition(None, Some("https://a/t")), definition(None, None));
        let of = |definition, account, subject| Person { definition, account, subject };
        for (one, other, expected) in [
            (of(&here, Some("a"), Some("1")), of(&here, Some("b"), Some("1")), Some(true)),
            (of(&here, Some("a"), Some("1")), of(&here, Some("a"), Some("2")), Some(false)),
            (of(&here, Some("a"), None), of(&here, Some("a"), Some("2")), Some(true)),
            (of(&here, Some("a"), None), of(&here, Some("b"), None), Some(false)),
            (of(&here, None, Some("1")), of(&here, Some("a"), None), None),
            (of(&here, Some("a"), Some("1")), of(&there, Some("b"), Some("2")), None),
            (of(&here, Some("a"), Some("1")), of(&moved, Some("b"), Some("2")), None),
            (of(&pat, Some("a"), Some("1")), of(&here, Some("b"), Some("2")), Some(false)),
        ] {
            assert_eq!((one.is(&other), other.is(&one)), (expected, expected), "{:?} {:?}", one.subject, other.subject);
        }
    }
}

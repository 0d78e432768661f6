//! PURE: what a person is told by a desktop notification, when, and what a press on it asks for.
//!
//! A person is told what only a person can mend, once per cause, and not what heals by itself: a machine without a network
//! is told of only when somebody has asked for a token in vain. What has become moot is taken away. No word of a provider
//! is repeated: `mcp-authctl status` has them.

#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mcp_auth_proto::{Consent, GrantName};

use crate::clock::Boot;
use crate::grant::Health;
use crate::notify::{Key, Notification};

/// How long refreshes must have failed before anybody is told: what mends itself within it is nobody's business.
const LONG: Duration = Duration::from_secs(3600);
/// How long the disk may refuse before anybody is told.
const DISK_PATIENCE: Duration = Duration::from_secs(30);
/// After a desktop that showed nothing, nothing is tried for so long.
const DESKTOP_PAUSE: Duration = Duration::from_secs(300);
/// So many grants that need a login are told of one by one; more than that, all together.
const MOST_LOGINS: usize = 3;

/// How a grant is, as far as a person may have to hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// How its refreshes go.
    pub health: Health,
    /// Its token is served no more.
    pub expired: bool,
    /// Its refresh token ends soon.
    pub ending: bool,
    /// The command that helps where a login is needed.
    pub remedy: String,
    /// Whether that command can be run without a terminal: it opens a browser, and nothing is typed.
    pub by_click: bool,
}

/// Why we look at a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Something has happened to it.
    News,
    /// Its refresh token ends soon: one sentence.
    Ending(String),
    /// Somebody asked for its token and got none.
    AskedInVain,
    /// The config has changed.
    Defined,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Show it, in the place of what is shown under the same key.
    Show(Key, Notification),
    /// Take it away.
    Close(Key),
}

/// What a person asks for by a press.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Log in.
    LogIn(GrantName),
    /// Try to refresh now.
    Refresh(GrantName),
    /// Allow or deny what a program asks for.
    Decide {
        /// The consent's id.
        id: String,
        /// The person's word.
        allow: bool,
    },
}

/// Everything that was told and may have to be taken back.
#[derive(Debug)]
pub struct Notices {
    enabled: bool,
    grants: BTreeMap<GrantName, Course>,
    disk: Disk,
    open: BTreeMap<Key, Open>,
    last_key: Key,
    not_before: Boot,
}

/// What is remembered of a grant that is not simply well.
#[derive(Debug, Default, PartialEq, Eq)]
struct Course {
    failing_since: Option<Boot>,
    /// The same, without the time that the provider could not even be reached.
    answered_since: Option<Boot>,
    told: Option<Matter>,
}

/// What a person can be told of a grant; the later ones take the place of the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Matter {
    Ending,
    Failing,
    Login,
}

/// Grants whose newest tokens are in memory only.
#[derive(Debug, Default)]
struct Disk {
    refused: BTreeSet<GrantName>,
    /// When a person is told, if it lasts.
    due: Option<Boot>,
    told: bool,
}

/// A notification that is shown, for all that we know.
#[derive(Debug)]
struct Open {
    subject: Subject,
    buttons: Vec<(&'static str, Wish)>,
}

/// What a notification is about: at most one of each is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Grant(GrantName),
    Logins,
    Disk,
    Consent(String),
}

impl Notices {
    /// Nothing told yet; nothing will be unless `enabled`.
    pub fn new(enabled: bool) -> Self {
        Self { enabled, grants: BTreeMap::new(), disk: Disk::default(), open: BTreeMap::new(), last_key: 0, not_before: Boot::default() }
    }

    /// The config was read.
    pub fn enable(&mut self, enabled: bool) -> Vec<Act> {
        self.enabled = enabled;
        if enabled { Vec::new() } else { self.close_all() }
    }

    /// Whether anything is shown.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// When [`Self::woke`] is wanted.
    pub fn wake_at(&self) -> Option<Boot> {
        self.disk.due.filter(|_| self.enabled)
    }

    /// Takes everything away.
    pub fn close_all(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.open).into_keys().map(Act::Close).collect()
    }

    /// Looks at a grant; `None`: it is held no more.
    pub fn look(&mut self, name: &GrantName, condition: Option<&Condition>, occasion: &Occasion, now: Boot) -> Vec<Act> {
        let Some(condition) = condition else {
            let mut acts = self.saved(name);
            acts.extend(self.forget(name));
            return acts;
        };
        let course = self.grants.entry(name.clone()).or_default();
        course.follow(condition.health, now);
        let well = condition.health == Health::Well;
        let moot = match course.told {
            Some(Matter::Login | Matter::Failing) => well,
            Some(Matter::Ending) => well && !condition.ending,
            None => false,
        };
        let told = course.told.filter(|_| !moot);
        let matter = course.matter(condition, occasion, now);
        let mut acts = Vec::new();
        if moot {
            acts = self.forget(name);
        } else if *course == Course::default() {
            self.grants.remove(name);
        }
        // The end is told a second time, when it is nearer.
        let is_news = |matter: &Matter| told.is_none_or(|told| told < *matter || *matter == Matter::Ending && told == Matter::Ending);
        if let Some(matter) = matter.filter(is_news).filter(|_| self.may_show(now)) {
            acts.extend(self.tell(name, matter, condition, occasion));
        }
        acts
    }

    /// A login that a person had started here came to no end: they are told of it as if for the first time.
    pub fn untell(&mut self, name: &GrantName) {
        if let Some(course) = self.grants.get_mut(name) {
            course.told = None;
        }
    }

    /// The machine was asleep: what failed before says nothing of now.
    pub fn slept(&mut self) {
        for course in self.grants.values_mut() {
            (course.failing_since, course.answered_since) = (None, None);
        }
    }

    /// The disk refuses the newest tokens of a grant.
    pub fn not_saved(&mut self, name: &GrantName, now: Boot) {
        self.disk.refused.insert(name.clone());
        if !self.disk.told && self.disk.due.is_none() {
            self.disk.due = Some(now + DISK_PATIENCE);
        }
    }

    /// They are on the disk, or nobody's any more.
    pub fn saved(&mut self, name: &GrantName) -> Vec<Act> {
        if !self.disk.refused.remove(name) || !self.disk.refused.is_empty() {
            return Vec::new();
        }
        self.disk = Disk::default();
        self.close(&Subject::Disk)
    }

    /// The time of [`Self::wake_at`] may have come.
    pub fn woke(&mut self, now: Boot) -> Vec<Act> {
        if self.wake_at().is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.disk.due = (!self.may_show(now)).then_some(self.not_before);
        if self.disk.due.is_some() {
            return Vec::new();
        }
        self.disk.told = true;
        let words = words::not_saved(&self.disk.refused);
        self.show(Subject::Disk, words, Vec::new())
    }

    /// A program asks for something that a person must allow.
    pub fn consent(&mut self, consent: &Consent, now: Boot) -> Vec<Act> {
        if !self.may_show(now) {
            return Vec::new();
        }
        let decide = |allow| Wish::Decide { id: consent.id.clone(), allow };
        let buttons = vec![(words::ALLOW.id, decide(true)), (words::DENY.id, decide(false))];
        self.show(Subject::Consent(consent.id.clone()), words::consent(consent), buttons)
    }

    /// It is decided, or nobody waits for it any more.
    pub fn consent_over(&mut self, id: &str) -> Vec<Act> {
        self.close(&Subject::Consent(id.to_owned()))
    }

    /// The ids of the consents that a person sees, for all that we know.
    pub fn consents(&self) -> impl Iterator<Item = &str> {
        self.open.values().filter_map(|open| if let Subject::Consent(id) = &open.subject { Some(id.as_str()) } else { None })
    }

    /// A button was pressed: what the person wants, if it was one of ours.
    pub fn pressed(&mut self, key: Key, button: &str) -> Option<Wish> {
        let buttons = &self.open.get(&key)?.buttons;
        buttons.iter().find(|(id, _)| *id == button).map(|(_, wish)| wish.clone())
    }

    /// What was pressed has done its work.
    pub fn answered(&mut self, key: Key) -> Vec<Act> {
        self.open.remove(&key).map(|_| Act::Close(key)).into_iter().collect()
    }

    /// It is shown no more. It was told all the same.
    pub fn closed(&mut self, key: Key) {
        self.open.remove(&key);
    }

    /// It could not be shown: the next occasion may, but not at once. Gives the id of the consent that nobody sees.
    pub fn failed(&mut self, key: Key, now: Boot) -> Option<String> {
        self.not_before = now + DESKTOP_PAUSE;
        match self.open.remove(&key).map(|open| open.subject) {
            Some(Subject::Grant(name)) => self.untell(&name),
            Some(Subject::Logins) => {
                for course in self.grants.values_mut().filter(|course| course.told == Some(Matter::Login)) {
                    course.told = None;
                }
            }
            Some(Subject::Disk) if self.disk.told => (self.disk.told, self.disk.due) = (false, Some(self.not_before)),
            Some(Subject::Consent(id)) => return Some(id),
            Some(Subject::Disk) | None => {}
        }
        None
    }

    fn may_show(&self, now: Boot) -> bool {
        self.enabled && now >= self.not_before
    }

    fn tell(&mut self, name: &GrantName, matter: Matter, condition: &Condition, occasion: &Occasion) -> Vec<Act> {
        self.grants.entry(name.clone()).or_default().told = Some(matter);
        let subject = Subject::Grant(name.clone());
        let log_in = |words: Notification| {
            let button = condition.by_click.then(|| (words::LOG_IN.id, Wish::LogIn(name.clone())));
            (words::with(words, condition.by_click.then_some(words::LOG_IN)), Vec::from_iter(button))
        };
        let (words, buttons) = match (matter, occasion) {
            (Matter::Login, _) if self.logins().count() > MOST_LOGINS => return self.tell_together(),
            (Matter::Login, _) => log_in(words::login(name, &condition.remedy)),
            (Matter::Ending, Occasion::Ending(sentence)) => log_in(words::ending(name, sentence)),
            (Matter::Failing | Matter::Ending, _) => (words::failing(name), vec![(words::TRY_NOW.id, Wish::Refresh(name.clone()))]),
        };
        self.show(subject, words, buttons)
    }

    /// Many grants need a login: one notification for all of them, which is not shown anew for each that is added.
    fn tell_together(&mut self) -> Vec<Act> {
        if self.key_of(&Subject::Logins).is_some() {
            return Vec::new();
        }
        let names: Vec<_> = self.logins().cloned().collect();
        let mut acts: Vec<_> = names.into_iter().flat_map(|name| self.close(&Subject::Grant(name))).collect();
        acts.extend(self.show(Subject::Logins, words::logins(), Vec::new()));
        acts
    }

    fn logins(&self) -> impl Iterator<Item = &GrantName> {
        self.grants.iter().filter(|(_, course)| course.told == Some(Matter::Login)).map(|(name, _)| name)
    }

    /// A grant is well, or gone.
    fn forget(&mut self, name: &GrantName) -> Vec<Act> {
        self.grants.remove(name);
        let mut acts = self.close(&Subject::Grant(name.clone()));
        if self.logins().next().is_none() {
            acts.extend(self.close(&Subject::Logins));
        }
        acts
    }

    fn show(&mut self, subject: Subject, notification: Notification, buttons: Vec<(&'static str, Wish)>) -> Vec<Act> {
        let key = self.key_of(&subject).unwrap_or_else(|| {
            self.last_key += 1;
            self.last_key
        });
        self.open.insert(key, Open { subject, buttons });
        vec![Act::Show(key, notification)]
    }

    fn close(&mut self, subject: &Subject) -> Vec<Act> {
        let key = self.key_of(subject);
        key.into_iter().inspect(|key| drop(self.open.remove(key))).map(Act::Close).collect()
    }

    fn key_of(&self, subject: &Subject) -> Option<Key> {
        self.open.iter().find(|(_, open)| open.subject == *subject).map(|(key, _)| *key)
    }
}

impl Course {
    fn follow(&mut self, health: Health, now: Boot) {
        match health {
            Health::Well => (self.failing_since, self.answered_since) = (None, None),
            Health::Unreached => {
                self.failing_since.get_or_insert(now);
                self.answered_since = None;
            }
            Health::Failing => {
                self.failing_since.get_or_insert(now);
                self.answered_since.get_or_insert(now);
            }
            Health::Busy | Health::LoginNeeded | Health::Undefined => {}
        }
    }

    /// What is worth telling on this occasion.
    fn matter(&self, condition: &Condition, occasion: &Occasion, now: Boot) -> Option<Matter> {
        let long = |since: Option<Boot>| condition.expired && since.is_some_and(|since| now.since(since) >= LONG);
        match (condition.health, occasion) {
            (Health::LoginNeeded, Occasion::News | Occasion::AskedInVain | Occasion::Ending(_)) => Some(Matter::Login),
            // A person has just changed the config; they hear of it where somebody misses what it took away.
            (Health::Undefined, Occasion::AskedInVain) => Some(Matter::Login),
            (Health::Failing, Occasion::News) if long(self.answered_since) => Some(Matter::Failing),
            (Health::Failing | Health::Unreached, Occasion::AskedInVain) if long(self.failing_since) => Some(Matter::Failing),
            (_, Occasion::Ending(_)) => Some(Matter::Ending),
            _ => None,
        }
    }
}

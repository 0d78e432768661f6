//! PURE: what the rules say to one asker.
//!
//! The rules that name the asker come before those about anyone. Among them a no wins; else whoever is within the limits of
//! several gets what asks least of him. A rule whose time is over is no rule any more, but its grant stays closed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use mcp_auth_proto::{GrantName, RuleAnswer, RuleSubject};

use super::rule::{Asker, Beyond, Rule, TokenFacts};
use crate::clock::{Boot, Now};

/// Somebody asks for a token.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The grant.
    pub grant: &'a GrantName,
    /// Who asks.
    pub asker: Asker<'a>,
    /// What its token is.
    pub token: &'a TokenFacts,
    /// The scopes that the asker names.
    pub scopes: &'a BTreeSet<String>,
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// No rule names the grant: it is open to every process of the user.
    Open,
    /// By this rule.
    Allow(&'a Rule),
    /// A person must be asked: by this rule, or because no rule is about the asker.
    Ask(Option<&'a Rule>, Times),
    /// No.
    Deny(Denial),
    /// This rule has given its tokens of this minute; another try may be made after so long.
    TooOften(&'a Rule, Duration),
}

/// How often a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Times {
    /// Once: a yes is remembered.
    Once,
    /// Every time.
    Always,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// This rule says so.
    Rule(u32),
    /// This rule, the nearest, does not give as much as the token would.
    Beyond(u32, Beyond),
    /// It cannot be told what program asks, and no rule is about anyone.
    UnknownProgram,
}

/// What the rules say to whoever asks, if he asks now.
pub fn decide<'a>(rules: &'a [Rule], asking: &Asking<'_>, rates: &Rates, now: Now) -> Verdict<'a> {
    let mut of_grant = rules.iter().filter(|rule| rule.grant == *asking.grant).peekable();
    if of_grant.peek().is_none() {
        return Verdict::Open;
    }
    let (anyones, named): (Vec<&Rule>, Vec<&Rule>) = of_grant
        .filter(|rule| !rule.is_expired(now.wall) && rule.is_about(&asking.asker))
        .partition(|rule| rule.subject == RuleSubject::Anyone);
    let mut about = if named.is_empty() { anyones } else { named };
    if let Some(no) = about.iter().find(|rule| rule.answer == RuleAnswer::Deny) {
        return Verdict::Deny(Denial::Rule(no.id));
    }
    about.sort_by_key(|rule| (rule.answer, rule.id));
    let Some(nearest) = about.first() else {
        let told = asking.asker.program.is_some() || asking.asker.capability;
        return if told { Verdict::Ask(None, Times::Once) } else { Verdict::Deny(Denial::UnknownProgram) };
    };
    let covers = |rule: &Rule| rule.limits.cover(asking.token, asking.scopes);
    if let Err(beyond) = covers(nearest)
        && about.iter().all(|rule| covers(rule).is_err())
    {
        return Verdict::Deny(Denial::Beyond(nearest.id, beyond));
    }
    about.retain(|rule| covers(rule).is_ok());
    match about.iter().find(|rule| rates.wait(rule, now.boot).is_zero()) {
        Some(rule) => by(rule),
        None => soonest(&about, rates, now.boot),
    }
}

fn by(rule: &Rule) -> Verdict<'_> {
    match rule.answer {
        RuleAnswer::Allow => Verdict::Allow(rule),
        RuleAnswer::AskOnce => Verdict::Ask(Some(rule), Times::Once),
        RuleAnswer::AskAlways => Verdict::Ask(Some(rule), Times::Always),
        RuleAnswer::Deny => Verdict::Deny(Denial::Rule(rule.id)),
    }
}

fn soonest<'a>(rules: &[&'a Rule], rates: &Rates, now: Boot) -> Verdict<'a> {
    let first = rules.iter().min_by_key(|rule| rates.wait(rule, now)).expect("the caller has found one at least");
    Verdict::TooOften(first, rates.wait(first, now))
}

/// When each rule with a rate has given its last tokens. In RAM only.
#[derive(Clone, Debug, Default)]
pub struct Rates(HashMap<u32, VecDeque<Boot>>);

impl Rates {
    /// How long until a rule may give another token; zero: now.
    pub fn wait(&self, rule: &Rule, now: Boot) -> Duration {
        let Some(rate) = rule.per_minute.map(usize::from) else { return Duration::ZERO };
        let given = self.0.get(&rule.id).into_iter().flatten().filter(|at| now < **at + MINUTE);
        // Of those within the minute, the one that must be over before there is room.
        let within: Vec<Boot> = given.copied().collect();
        within.len().checked_sub(rate).map_or(Duration::ZERO, |over| (within[over] + MINUTE).since(now))
    }

    /// The rule with this number and rate has given a token.
    pub fn take(&mut self, (rule, rate): (u32, Option<u16>), now: Boot) {
        let Some(rate) = rate else { return };
        let given = self.0.entry(rule).or_default();
        given.push_back(now);
        while given.len() > usize::from(rate) {
            given.pop_front();
        }
    }

    /// A rule is gone.
    pub fn forget(&mut self, rule: u32) {
        self.0.remove(&rule);
    }
}

const MINUTE: Duration = Duration::from_secs(60);

//! The decision once more, as dumb as it can be, and random policies on which both must agree.

use std::collections::BTreeSet;

use mcp_auth_proto::{GrantName, RuleAnswer, RuleProgram, RuleSubject};
use proptest::prelude::*;

use super::Program;
use super::decision::{Asking, Denial, Rates, Times, Verdict, decide};
use super::rule::{Asker, Beyond, Limits, Rule, TokenFacts};
use crate::clock::{Boot, Now, Wall};

/// What is asked, in words of its own: no type of the decision but the rules.
#[derive(Clone, Debug)]
struct World {
    rules: Vec<Rule>,
    grant: &'static str,
    program: Option<Program>,
    capability: bool,
    client: Option<&'static str>,
    token: Vec<&'static str>,
    resource: Option<&'static str>,
    asked: Vec<&'static str>,
    now: i64,
    /// Tokens that each rule has given within the minute.
    given: Vec<u16>,
}

/// The sentence that the docs say, rule by rule.
fn reference(world: &World) -> String {
    let closing: Vec<(usize, &Rule)> = world.rules.iter().enumerate().filter(|(_, rule)| rule.grant.as_str() == world.grant).collect();
    if closing.is_empty() {
        return "open".into();
    }
    let alive: Vec<(usize, &Rule)> = closing.into_iter().filter(|(_, rule)| rule.expires_at.is_none_or(|end| end.0 > world.now)).collect();
    let naming: Vec<_> = alive.iter().filter(|(_, rule)| names(rule, world)).copied().collect();
    let all: Vec<_> = alive.iter().filter(|(_, rule)| matches!(rule.subject, RuleSubject::Anyone)).copied().collect();
    let of_him = if naming.is_empty() { all } else { naming };
    if of_him.is_empty() {
        return if world.program.is_some() || world.capability { "ask once".into() } else { "deny unknown".into() };
    }
    if of_him.iter().any(|(_, rule)| rule.answer == RuleAnswer::Deny) {
        return "deny rule".into();
    }
    let wide_enough: Vec<_> = of_him.iter().filter(|(_, rule)| within(rule, world)).copied().collect();
    if wide_enough.is_empty() {
        return "deny beyond".into();
    }
    for (answer, word) in [(RuleAnswer::Allow, "allow"), (RuleAnswer::AskOnce, "ask once"), (RuleAnswer::AskAlways, "ask always")] {
        let free = |(at, rule): &&(usize, &Rule)| rule.answer == answer && rule.per_minute.is_none_or(|rate| world.given[*at] < rate);
        if let Some((_, rule)) = wide_enough.iter().find(free) {
            return format!("{word} {}", rule.id);
        }
    }
    "too often".into()
}

fn names(rule: &Rule, world: &World) -> bool {
    match &rule.subject {
        RuleSubject::Anyone => false,
        RuleSubject::Capability => world.capability,
        RuleSubject::Client(name) => world.client.is_some_and(|client| client == name),
        RuleSubject::Program(named) => {
            let Some(program) = &world.program else { return false };
            let executable = program.executable.to_str().unwrap();
            let script = program.script.as_ref().map(|script| script.to_str().unwrap());
            if let Some(wanted) = &named.executable {
                if wanted != executable {
                    return false;
                }
                if named.script.is_none() && named.unit.is_none() && (script.is_some() || executable.contains("python")) {
                    return false;
                }
            }
            if named.script.is_some() && named.script.as_deref() != script {
                return false;
            }
            named.unit.is_none() || named.unit == program.unit
        }
    }
}

fn within(rule: &Rule, world: &World) -> bool {
    if let Some(resource) = &rule.limits.resource
        && world.resource != Some(resource.as_str())
    {
        return false;
    }
    match &rule.limits.scopes {
        None => true,
        Some(_) if world.token.is_empty() => false,
        Some(most) => world.token.iter().chain(&world.asked).all(|scope| most.contains(*scope)),
    }
}

/// What the real one says, in the same words.
fn decided(world: &World) -> String {
    let grant: GrantName = world.grant.parse().unwrap();
    let set = |scopes: &[&str]| scopes.iter().map(|scope| (*scope).to_owned()).collect::<BTreeSet<_>>();
    let token = TokenFacts { scopes: set(&world.token), resource: world.resource.map(str::to_owned) };
    let asker = Asker { program: world.program.as_ref(), capability: world.capability, client: world.client };
    let now = Now { boot: Boot::default(), wall: Wall(world.now) };
    let mut rates = Rates::default();
    for (rule, given) in world.rules.iter().zip(&world.given) {
        (0..*given).for_each(|_| rates.take(rule.rate(), now.boot));
    }
    let asking = Asking { grant: &grant, asker, token: &token, scopes: &set(&world.asked) };
    match decide(&world.rules, &asking, &rates, now) {
        Verdict::Open => "open".into(),
        Verdict::Allow(rule) => format!("allow {}", rule.id),
        Verdict::Ask(None, Times::Once) => "ask once".into(),
        Verdict::Ask(Some(rule), Times::Once) => format!("ask once {}", rule.id),
        Verdict::Ask(Some(rule), Times::Always) => format!("ask always {}", rule.id),
        Verdict::Ask(None, Times::Always) => "ask always of nobody".into(),
        Verdict::Deny(Denial::Rule(_)) => "deny rule".into(),
        Verdict::Deny(Denial::Beyond(_, Beyond::Scopes(_) | Beyond::UnknownScopes | Beyond::Resource)) => "deny beyond".into(),
        Verdict::Deny(Denial::UnknownProgram) => "deny unknown".into(),
        Verdict::TooOften(..) => "too often".into(),
    }
}

const GRANTS: [&str; 3] = ["github", "github:work", "notion"];
const EXECUTABLES: [&str; 3] = ["/bin/foo", "/bin/bar", "/bin/python3"];
const SCRIPTS: [&str; 2] = ["/srv/a.py", "/srv/b.py"];
const UNITS: [&str; 2] = ["a.service", "b.service"];
const SCOPES: [&str; 3] = ["repo", "gist", "admin"];
const CLIENTS: [&str; 2] = ["cursor", "zed"];
const RESOURCES: [&str; 2] = ["https://a.example/mcp", "https://b.example/mcp"];

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(words)
}

fn subset() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(SCOPES.to_vec(), 0..=3)
}

fn maybe<T: std::fmt::Debug + Clone + 'static>(of: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = Option<T>> {
    proptest::option::of(of)
}

fn owned(word: Option<&str>) -> Option<String> {
    word.map(str::to_owned)
}

fn subject() -> impl Strategy<Value = RuleSubject> {
    let program = (maybe(one_of(&EXECUTABLES)), maybe(one_of(&SCRIPTS)), maybe(one_of(&UNITS)));
    let program = program.prop_filter("names something", |it| *it != (None, None, None));
    prop_oneof![
        1 => Just(RuleSubject::Anyone),
        1 => Just(RuleSubject::Capability),
        1 => one_of(&CLIENTS).prop_map(|name| RuleSubject::Client(name.to_owned())),
        4 => program.prop_map(|(executable, script, unit)| {
            RuleSubject::Program(RuleProgram { executable: owned(executable), script: owned(script), unit: owned(unit) })
        }),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let answer = proptest::sample::select(vec![RuleAnswer::Allow, RuleAnswer::AskOnce, RuleAnswer::AskAlways, RuleAnswer::Deny]);
    let scopes = maybe(proptest::sample::subsequence(SCOPES.to_vec(), 1..=3));
    (one_of(&GRANTS[..2]), subject(), answer, scopes, maybe(one_of(&RESOURCES)), maybe(1..3_u16), maybe(0..20_i64)).prop_map(
        |(grant, subject, answer, scopes, resource, per_minute, expires_at)| Rule {
            id: 0,
            grant: grant.parse().unwrap(),
            subject,
            answer,
            limits: Limits { scopes: scopes.map(|list| list.into_iter().map(str::to_owned).collect()), resource: owned(resource) },
            per_minute,
            expires_at: expires_at.map(Wall),
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    let program = (one_of(&EXECUTABLES), maybe(one_of(&SCRIPTS)), maybe(one_of(&UNITS)));
    let program = maybe(program.prop_map(|(executable, script, unit)| Program {
        executable: executable.into(),
        interpreter: script.is_some() || executable.contains("python"),
        script: script.map(Into::into),
        unit: owned(unit),
        stamps: None,
    }));
    let asker = (program, proptest::bool::weighted(0.2), maybe(one_of(&CLIENTS)));
    let rules = proptest::collection::vec((rule(), 0..3_u16), 0..6);
    let token = (subset(), maybe(one_of(&RESOURCES)), subset());
    (rules, one_of(&GRANTS), asker, token, 0..20_i64).prop_map(
        |(rules, grant, (program, capability, client), (token, resource, asked), now)| {
            let numbered = rules.into_iter().enumerate();
            let (rules, given) = numbered.map(|(at, (rule, given))| (Rule { id: at as u32 + 1, ..rule }, given)).unzip();
            World { rules, grant, program, capability, client, token, resource, asked, now, given }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_decision_is_that_of_the_reference(world in world()) {
        prop_assert_eq!(decided(&world), reference(&world));
    }

    #[test]
    fn another_rule_about_another_grant_changes_nothing(world in world(), other in rule()) {
        let mut more = world.clone();
        more.rules.push(Rule { id: 99, grant: "another".parse().unwrap(), ..other });
        more.given.push(0);
        prop_assert_eq!(decided(&more), decided(&world));
    }

    #[test]
    fn a_no_for_anyone_never_opens_what_was_closed(world in world()) {
        let before = decided(&world);
        let mut more = world.clone();
        let no = Rule { id: 99, grant: world.grant.parse().unwrap(), subject: RuleSubject::Anyone, answer: RuleAnswer::Deny,
            limits: Limits::default(), per_minute: None, expires_at: None };
        more.rules.push(no);
        more.given.push(0);
        let after = decided(&more);
        prop_assert!(!after.starts_with("allow") || after == before, "{before} became {after}");
    }
}

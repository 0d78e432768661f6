//! The decision in tables, the questions to a person, and what is kept, as a user would notice them.

use std::collections::BTreeSet;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorCode, GrantName, RuleAnswer, RuleProgram, RuleSubject};

use super::Program;
use super::asks::{Asked, Asks, Identity, LIFE, NO_STANDS, OF_A_PROGRAM, OF_ALL, Question, WAIT};
use super::decision::{Asking, Denial, Rates, Times, Verdict, decide};
use super::record::{FileStamp, Policy, Stamps};
use super::rule::{Asker, Beyond, Rule, TokenFacts};
use crate::clock::{Boot, Now, Wall};

fn at(seconds: u64) -> Now {
    Now { boot: Boot::from_start(Duration::from_secs(seconds)), wall: Wall(i64::try_from(seconds).unwrap() * 1000) }
}

fn set(scopes: &str) -> BTreeSet<String> {
    scopes.split_whitespace().map(str::to_owned).collect()
}

fn program(executable: &str) -> Program {
    Program { executable: executable.into(), ..Program::default() }
}

fn of(executable: &str) -> RuleSubject {
    RuleSubject::Program(RuleProgram { executable: Some(executable.into()), ..RuleProgram::default() })
}

fn new_rule(grant: &str, subject: RuleSubject, answer: RuleAnswer) -> wire::NewRule {
    let grant = grant.parse().unwrap();
    wire::NewRule { grant, subject, answer, scopes: None, resource: None, per_minute: None, expires_at: None, expires_in: None }
}

/// A policy of these rules.
fn policy(rules: Vec<wire::NewRule>) -> Policy {
    let mut policy = Policy::default();
    for rule in rules {
        policy.add(rule, at(0).wall).unwrap();
    }
    policy
}

struct Case<'a> {
    grant: &'a str,
    program: Option<&'a Program>,
    token: &'a str,
    asked: &'a str,
}

fn verdict(rules: &[Rule], question: &Case<'_>, now: Now) -> String {
    let grant: GrantName = question.grant.parse().unwrap();
    let token = TokenFacts { scopes: set(question.token), resource: None };
    let asker = Asker { program: question.program, capability: false, client: None };
    match decide(rules, &Asking { grant: &grant, asker, token: &token, scopes: &set(question.asked) }, &Rates::default(), now) {
        Verdict::Allow(rule) => format!("allow {}", rule.id),
        Verdict::Ask(rule, times) => format!("ask {:?} {times:?}", rule.map(|rule| rule.id)),
        Verdict::Deny(Denial::Beyond(rule, Beyond::Scopes(more))) => format!("deny {rule}: {}", more.join(" ")),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_first_rule_closes_its_grant_for_everybody_else_and_no_other_grant() {
    let rules = policy(vec![new_rule("github", of("/bin/server"), RuleAnswer::Allow)]).rules;
    let (server, stranger) = (program("/bin/server"), program("/bin/stranger"));
    let ask = |grant, program| verdict(&rules, &Case { grant, program, token: "repo", asked: "" }, at(1));
    assert_eq!(ask("github", Some(&server)), "allow 1");
    assert_eq!(ask("github", Some(&stranger)), "ask None Once");
    assert_eq!(ask("github", None), "Deny(UnknownProgram)");
    assert_eq!(ask("github:work", Some(&stranger)), "Open");
    assert_eq!(ask("git", None), "Open");
}

#[test]
fn a_rule_that_has_ended_leaves_its_grant_closed() {
    let rules = policy(vec![wire::NewRule { expires_in: Some(60), ..new_rule("github", of("/bin/server"), RuleAnswer::Allow) }]).rules;
    let server = program("/bin/server");
    let ask = |now| verdict(&rules, &Case { grant: "github", program: Some(&server), token: "", asked: "" }, now);
    assert_eq!((&*ask(at(59)), &*ask(at(60))), ("allow 1", "ask None Once"));
}

#[test]
fn the_rule_about_a_program_comes_before_that_about_anyone_and_a_no_before_a_yes() {
    let rules = policy(vec![
        new_rule("github", RuleSubject::Anyone, RuleAnswer::Deny),
        new_rule("github", of("/bin/server"), RuleAnswer::AskOnce),
        new_rule("github", of("/bin/stranger"), RuleAnswer::Allow),
        new_rule("github", of("/bin/stranger"), RuleAnswer::Deny),
    ])
    .rules;
    let ask = |path: &str| verdict(&rules, &Case { grant: "github", program: Some(&program(path)), token: "", asked: "" }, at(1));
    assert_eq!(ask("/bin/server"), "ask Some(2) Once");
    assert_eq!(ask("/bin/stranger"), "Deny(Rule(4))");
    assert_eq!(ask("/bin/other"), "Deny(Rule(1))");
}

#[test]
fn a_token_that_holds_or_is_asked_for_more_than_the_rule_gives_is_refused_and_says_what() {
    let narrow =
        wire::NewRule { scopes: Some(vec!["repo".into(), "gist".into()]), ..new_rule("github", of("/bin/server"), RuleAnswer::Allow) };
    let rules = policy(vec![narrow]).rules;
    let server = program("/bin/server");
    let ask = |token, asked| verdict(&rules, &Case { grant: "github", program: Some(&server), token, asked }, at(1));
    assert_eq!(ask("repo", ""), "allow 1");
    assert_eq!(ask("repo gist", "repo"), "allow 1");
    assert_eq!(ask("repo admin", ""), "deny 1: admin");
    assert_eq!(ask("repo", "admin delete"), "deny 1: admin delete");
    assert_eq!(ask("", ""), "Deny(Beyond(1, UnknownScopes))");
}

#[test]
fn an_interpreter_never_counts_alone_whatever_it_is_called() {
    for (executable, word) in [("/usr/bin/python3.12", "python3.12"), ("/usr/bin/node", "node"), ("/bin/bash", "bash")] {
        let error = Policy::default().add(new_rule("github", of(executable), RuleAnswer::Allow), at(0).wall).unwrap_err();
        assert!(error.error == ErrorCode::InvalidRequest && error.error_description.contains(word), "{error:?}");
        assert!(error.hint.unwrap().contains("--script"));
    }
    // One that the list does not know, but that the system shows with a script.
    let rules = policy(vec![new_rule("github", of("/opt/strange"), RuleAnswer::Allow)]).rules;
    let with_script = Program { interpreter: true, script: Some("/srv/a".into()), ..program("/opt/strange") };
    assert_eq!(verdict(&rules, &Case { grant: "github", program: Some(&with_script), token: "", asked: "" }, at(1)), "ask None Once");
}

#[test]
fn a_rate_is_kept_over_any_minute_and_says_when_the_next_try_is_worth_it() {
    let rules = policy(vec![wire::NewRule { per_minute: Some(2), ..new_rule("github", RuleSubject::Anyone, RuleAnswer::Allow) }]).rules;
    let (grant, token, none) = ("github".parse().unwrap(), TokenFacts::default(), BTreeSet::new());
    let asking = Asking { grant: &grant, asker: Asker { program: None, capability: false, client: None }, token: &token, scopes: &none };
    let mut rates = Rates::default();
    let mut given = Vec::new();
    for second in 0..600 {
        match decide(&rules, &asking, &rates, at(second)) {
            Verdict::Allow(rule) => {
                rates.take(rule.rate(), at(second).boot);
                given.push(second);
            }
            Verdict::TooOften(_, wait) => assert!(!wait.is_zero() && wait <= Duration::from_secs(60)),
            other => panic!("{other:?}"),
        }
    }
    assert!(given.windows(3).all(|three| three[2] - three[0] >= 60), "{given:?}");
    assert_eq!(given.len(), 20);
}

#[test]
fn rules_that_make_no_sense_are_refused_with_a_hint() {
    let good = || new_rule("github", of("/bin/server"), RuleAnswer::Allow);
    let unit = |unit: &str| RuleSubject::Program(RuleProgram { unit: Some(unit.into()), ..RuleProgram::default() });
    for bad in [
        wire::NewRule { subject: of("server"), ..good() },
        wire::NewRule { subject: RuleSubject::Program(RuleProgram::default()), ..good() },
        wire::NewRule { subject: unit(""), ..good() },
        wire::NewRule { subject: unit("a/b"), ..good() },
        wire::NewRule { scopes: Some(vec![]), ..good() },
        wire::NewRule { scopes: Some(vec!["a b".into()]), ..good() },
        wire::NewRule { scopes: Some(vec!["a\u{1b}".into()]), ..good() },
        wire::NewRule { per_minute: Some(0), ..good() },
        wire::NewRule { per_minute: Some(601), ..good() },
        wire::NewRule { expires_at: Some("tomorrow".into()), ..good() },
        wire::NewRule { expires_at: Some("1970-01-01T00:00:00Z".into()), ..good() },
        wire::NewRule { expires_in: Some(0), ..good() },
        wire::NewRule { expires_in: Some(1), expires_at: Some("2100-01-01T00:00:00Z".into()), ..good() },
        wire::NewRule { resource: Some(String::new()), ..good() },
    ] {
        let error = Policy::default().add(bad.clone(), at(10).wall).expect_err(&format!("{bad:?}"));
        assert!(error.error == ErrorCode::InvalidRequest && error.hint.is_some(), "{error:?}");
    }
    Policy::default().add(wire::NewRule { expires_at: Some("2100-01-01T02:00:00+02:00".into()), ..good() }, at(10).wall).unwrap();
}

// ---- what is kept ----

#[test]
fn what_is_kept_comes_back_and_anything_else_is_unreadable() {
    let mut policy = policy(vec![new_rule("github", of("/bin/server"), RuleAnswer::AskOnce)]);
    policy.remember(&question("/bin/server", 1, "repo"), at(5).wall);
    let kept = policy.to_plaintext();
    assert_eq!(Policy::from_plaintext(&kept).unwrap(), policy);
    let text = String::from_utf8(kept.to_vec()).unwrap();
    for other in [
        text.replace("\"version\":1", "\"version\":2"),
        text.replace("\"answer\":\"ask_once\"", "\"answer\":\"never_seen\""),
        text.replace("\"per_minute\"", "\"on_mondays\""),
        text[..text.len() - 1].to_owned(),
        String::new(),
    ] {
        assert_ne!(other, text);
        assert!(Policy::from_plaintext(other.as_bytes()).is_none(), "{other}");
    }
}

#[test]
fn numbers_are_never_given_twice_and_the_last_rule_opens_its_grant() {
    let mut policy = policy(vec![
        new_rule("github", of("/bin/server"), RuleAnswer::Allow),
        new_rule("github", of("/bin/stranger"), RuleAnswer::Allow),
        new_rule("notion", of("/bin/stranger"), RuleAnswer::Allow),
    ]);
    assert!(!policy.remove(1).unwrap().opens && policy.remove(2).unwrap().opens);
    assert_eq!(policy.remove(2).unwrap_err().error, ErrorCode::NotFound);
    assert_eq!(policy.add(new_rule("github", of("/bin/server"), RuleAnswer::Allow), at(1).wall).unwrap().id, 4);
    policy.remember(&question("/bin/server", 1, "repo"), at(5).wall);
    assert_eq!(policy.shown(at(5).wall).consents[0].id, 5);
    assert!(!policy.remove(5).unwrap().opens && !policy.remembers(&question("/bin/server", 1, "repo")));
}

// ---- questions ----

/// A program whose files are in this version asks for a token that allows these scopes.
fn question(executable: &str, version: u64, scopes: &str) -> Question {
    let stamp = FileStamp { inode: version, size: 10, changed: 0 };
    Question {
        asker: Identity {
            executable: Some(executable.into()),
            script: None,
            client: None,
            stamps: Some(Stamps { executable: stamp, script: None }),
        },
        grant: "github".parse().unwrap(),
        token: TokenFacts { scopes: set(scopes), resource: None },
        times: Times::Once,
    }
}

fn ask(asks: &mut Asks, question: &Question, id: &str, second: u64) -> Asked {
    asks.ask(question.clone(), id.to_owned(), wire::Program { pid: Some(7), ..wire::Program::default() }, at(second).boot)
}

#[test]
fn a_yes_is_for_this_program_with_these_bytes_this_resource_and_no_more_scopes() {
    let mut policy = Policy::default();
    policy.remember(&question("/bin/server", 1, "repo gist"), at(5).wall);
    assert!(policy.remembers(&question("/bin/server", 1, "repo gist")) && policy.remembers(&question("/bin/server", 1, "repo")));
    let elsewhere = |mut question: Question| {
        question.token.resource = Some("https://b.example/mcp".into());
        question
    };
    for other in [
        question("/bin/server", 2, "repo"),
        question("/bin/stranger", 1, "repo"),
        question("/bin/server", 1, "repo admin"),
        question("/bin/server", 1, ""),
        elsewhere(question("/bin/server", 1, "repo")),
        Question { grant: "github:work".parse().unwrap(), ..question("/bin/server", 1, "repo") },
        Question { asker: Identity { stamps: None, ..question("/bin/server", 1, "").asker }, ..question("/bin/server", 1, "repo") },
    ] {
        assert!(!policy.remembers(&other), "{other:?}");
    }
    // The next yes for the same program takes the place of the last.
    policy.remember(&question("/bin/server", 2, "repo"), at(6).wall);
    assert_eq!(policy.consents.len(), 1);
    assert!(!policy.remembers(&question("/bin/server", 1, "repo")));
}

#[test]
fn identical_questions_are_one_and_everybody_who_waits_hears_the_word() {
    let mut asks = Asks::default();
    let question = Question { times: Times::Always, ..question("/bin/server", 1, "repo") };
    assert_eq!(ask(&mut asks, &question, "a", 0), Asked::Waits("a".into(), true));
    asks.wait("a", 1, at(0).boot);
    assert_eq!(ask(&mut asks, &question, "b", 1), Asked::Waits("a".into(), false));
    asks.wait("a", 2, at(1).boot);
    asks.leave(1);
    let (decided, waiters) = asks.decide("a", true, at(2).boot).unwrap();
    assert_eq!((decided.question, waiters), (question.clone(), vec![2]));
    assert!(asks.decide("a", true, at(2).boot).is_none(), "once");
    assert_eq!(ask(&mut asks, &question, "c", 3), Asked::Waits("c".into(), true), "the yes is used up");
}

#[test]
fn two_processes_of_which_nothing_else_is_known_ask_two_questions() {
    let mut asks = Asks::default();
    let question = Question { asker: Identity::default(), ..question("", 1, "repo") };
    let mut of = |pid, id: &str| {
        let program = wire::Program { pid: Some(pid), ..wire::Program::default() };
        asks.ask(question.clone(), id.to_owned(), program, at(0).boot)
    };
    assert_eq!(of(7, "a"), Asked::Waits("a".into(), true));
    assert_eq!(of(8, "b"), Asked::Waits("b".into(), true), "whoever reads about process 7 allows process 7");
    assert_eq!(of(7, "c"), Asked::Waits("a".into(), false));
}

#[test]
fn a_yes_that_nobody_waits_for_is_kept_for_exactly_that_question_and_used_once() {
    let mut asks = Asks::default();
    let asked = Question { times: Times::Always, ..question("/bin/server", 1, "repo") };
    ask(&mut asks, &asked, "a", 0);
    asks.decide("a", true, at(40).boot).unwrap();
    assert!(matches!(ask(&mut asks, &question("/bin/server", 2, "repo"), "b", 41), Asked::Waits(..)), "other bytes");
    assert!(matches!(ask(&mut asks, &question("/bin/server", 1, "repo admin"), "c", 41), Asked::Waits(..)), "more scopes");
    assert_eq!(ask(&mut asks, &asked, "d", 42), Asked::Allowed);
    assert_ne!(ask(&mut asks, &asked, "e", 43), Asked::Allowed);
    // And not for ever.
    let mut asks = Asks::default();
    ask(&mut asks, &asked, "a", 0);
    asks.decide("a", true, at(40).boot).unwrap();
    assert_ne!(ask(&mut asks, &asked, "b", LIFE.as_secs()), Asked::Allowed);
}

#[test]
fn a_yes_that_is_remembered_counts_before_the_disk_has_it_until_it_is_taken_back() {
    let asked = question("/bin/server", 1, "repo");
    for waits in [false, true] {
        let mut asks = Asks::default();
        ask(&mut asks, &asked, "a", 0);
        if waits {
            asks.wait("a", 1, at(0).boot);
        }
        asks.decide("a", true, at(1).boot).unwrap();
        assert_eq!([ask(&mut asks, &asked, "b", 2), ask(&mut asks, &asked, "c", 3)], [Asked::Allowed, Asked::Allowed]);
        let unknown = Question { asker: Identity { stamps: None, ..asked.asker.clone() }, ..asked.clone() };
        assert_ne!(ask(&mut asks, &unknown, "d", 3), Asked::Allowed);
        asks.take_back(&"github:work".parse().unwrap());
        assert_eq!(ask(&mut asks, &asked, "e", 4), Asked::Allowed, "another grant's");
        asks.take_back(&asked.grant);
        assert!(matches!(ask(&mut asks, &asked, "f", 5), Asked::Waits(..)));
    }
}

#[test]
fn nobodys_answer_is_a_no_and_an_id_that_has_ended_decides_nothing() {
    let mut asks = Asks::default();
    let question = question("/bin/server", 1, "repo");
    ask(&mut asks, &question, "a", 0);
    asks.wait("a", 1, at(0).boot);
    assert_eq!(asks.wake_at(), Some(at(0).boot + WAIT));
    let (tired, over) = asks.due(at(30).boot);
    assert_eq!((tired, over.len()), (vec![(1, "a".into())], 0));
    assert_eq!(asks.wake_at(), Some(at(0).boot + LIFE));
    assert!(asks.decide("a", true, at(60).boot).is_none());
    assert_eq!(asks.due(at(60).boot).1.len(), 1);
    assert!(asks.wake_at().is_none() && asks.decide("other", true, at(1).boot).is_none());
}

#[test]
fn a_no_stands_for_a_while_and_is_not_asked_again() {
    let mut asks = Asks::default();
    let asked = question("/bin/server", 1, "repo");
    ask(&mut asks, &asked, "a", 0);
    asks.decide("a", false, at(1).boot).unwrap();
    assert_eq!(ask(&mut asks, &asked, "b", 2), Asked::Refused);
    assert!(matches!(ask(&mut asks, &question("/bin/server", 1, "repo admin"), "c", 2), Asked::Waits(..)));
    assert!(matches!(ask(&mut asks, &asked, "d", 1 + NO_STANDS.as_secs()), Asked::Waits(..)));
}

#[test]
fn a_flood_is_cut_off_for_its_program_alone_and_for_all_names_together() {
    let mut asks = Asks::default();
    let scopes = |number: usize| format!("s{number}");
    let waits = |asked: Asked| matches!(asked, Asked::Waits(..));
    let mine = (0..100).filter(|n| waits(ask(&mut asks, &question("/bin/server", *n as u64, &scopes(*n)), &scopes(*n), 0))).count();
    assert_eq!(mine, OF_A_PROGRAM.1);
    assert!(waits(ask(&mut asks, &question("/bin/stranger", 1, "repo"), "stranger", 1)), "another program is heard");
    // Minute by minute no more than so many wait, under however many names.
    let (mut most, mut asked) = (0, 0);
    for second in 2..600 {
        asks.due(at(second).boot);
        asked += usize::from(waits(ask(&mut asks, &question(&format!("/tmp/{second}"), 1, "repo"), &format!("n{second}"), second)));
        most = most.max(asks.waiting(at(second).boot).count());
    }
    assert!(most <= OF_ALL.0 && asked <= OF_ALL.1 * 10, "{most} at a time, {asked} in 10 minutes");
}

#[test]
fn a_change_of_the_rules_ends_what_was_asked_under_the_old_ones() {
    let mut asks = Asks::default();
    ask(&mut asks, &question("/bin/server", 1, "repo"), "a", 0);
    asks.wait("a", 1, at(0).boot);
    ask(&mut asks, &question("/bin/stranger", 1, "repo"), "b", 0);
    asks.decide("b", true, at(1).boot).unwrap();
    assert_eq!(asks.drop_grant(&"github".parse().unwrap()), [1]);
    assert!(asks.decide("a", true, at(2).boot).is_none());
    assert!(matches!(ask(&mut asks, &question("/bin/stranger", 1, "repo"), "c", 2), Asked::Waits(_, true)));
    assert!(asks.drop_grant(&"github:work".parse().unwrap()).is_empty());
}

//! Who may have which token: keeps the policy, looks up who asks where a grant is closed, asks a person, and carries out what
//! the rules (`crate::policy`) decide. Without a rule about its grant a request passes here without being looked at.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, TokenAnswer, event};

use super::Reply;
use super::consents::{Paused, can_be_remembered, question};
use super::core::{Core, answer};
use super::gate::refusal;
use super::holders::Keeper;
use super::served::{Purpose, Served};
use super::tokens::named_scopes;
use crate::audit::Note;
use crate::caller::Caller;
use crate::clock::{Boot, Now, Wall};
use crate::grant::Asker as AskerId;
use crate::oauth::text::{clean, visible};
use crate::policy::asks::Asks;
use crate::policy::decision::{Asking, Denial, Rates, Times, Verdict, decide};
use crate::policy::record::{Policy, program_of};
use crate::policy::rule::{Asker, Beyond, Limits, Rule, TokenFacts};
use crate::policy::{Only, Program, Who};
use crate::vault::{Record, RecordId, VaultError};

/// A request for a token, before the policy has agreed.
pub(super) struct Wanted {
    pub(super) asker: AskerId,
    pub(super) grant: GrantName,
    pub(super) request: wire::TokenRequest,
    pub(super) caller: Arc<Caller>,
    pub(super) keeper: Option<Keeper>,
    /// Whether it is for the relay.
    pub(super) purpose: Purpose,
    pub(super) reply: Reply<Served>,
}

/// The most that a token may be that is served.
#[derive(Clone)]
pub(super) enum Bound {
    /// What a rule gives.
    Rule(Limits),
    /// What a person was shown.
    Shown(TokenFacts),
}

/// The policy, and what waits for a person's word.
#[derive(Default)]
pub(super) struct PolicySide {
    held: Held,
    generation: u64,
    pub(super) asks: Asks,
    pub(super) paused: HashMap<AskerId, Paused>,
    pub(super) rates: Rates,
    /// When the next rule ends, by either clock.
    rule_ends: Option<(Wall, Boot)>,
    changes: VecDeque<Change>,
    saving: bool,
}

/// What is known of the policy.
enum Held {
    Policy(Policy),
    /// There is one, and nobody can read it: every grant is closed for everybody.
    Lost,
}

impl Default for Held {
    fn default() -> Self {
        Self::Policy(Policy::default())
    }
}

/// Changes a copy of the policy, given whether it had to be given up for lost, and says what is to be done once that is saved,
/// or why not.
type Change = Box<dyn FnOnce(&mut Core, Policy, bool) -> Option<(Policy, Saved)> + Send>;
/// What is done with the outcome of saving a change.
type Saved = Box<dyn FnOnce(&mut Core, Result<(), ErrorBody>) + Send>;

impl PolicySide {
    pub(super) fn wake_at(&self) -> Option<Boot> {
        self.asks.wake_at().into_iter().chain(self.rule_ends.map(|(_, at)| at)).min()
    }

    pub(super) fn policy(&self) -> Option<&Policy> {
        match &self.held {
            Held::Policy(policy) => Some(policy),
            Held::Lost => None,
        }
    }

    pub(super) fn closes(&self, grant: &GrantName) -> bool {
        self.policy().is_none_or(|policy| policy.closes(grant))
    }

    fn note_next_end(&mut self, now: Now) {
        let ends = self.policy().into_iter().flat_map(|policy| &policy.rules).filter_map(|rule| rule.expires_at);
        let next = ends.filter_map(|at| at.since(now.wall).filter(|left| !left.is_zero()).map(|left| (at, now.boot + left))).min();
        self.rule_ends = next;
    }
}

fn ask_again(grant: &GrantName) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("the policy of `{grant}` was changed meanwhile")).hint("ask again")
}

/// Nobody has found out who asks.
pub(super) fn nobody_told() -> ErrorBody {
    ErrorBody::new(ErrorCode::InternalError, "a fault of the daemon").hint("try again")
}

impl Core {
    // ---- a request ----

    /// Lets a request through to its grant, refuses it, or has a person asked.
    pub(super) fn judge(&mut self, wanted: Wanted) {
        if !self.policy.closes(&wanted.grant) {
            return self.serve(wanted, None);
        }
        // On a connection that has asked before there is nothing to wait for, and no task is needed.
        if let Some(who) = wanted.caller.who_now() {
            return self.judge_known(wanted, &who, None);
        }
        let caller = Arc::clone(&wanted.caller);
        self.task(async move { caller.who().await }, |core, who| match who {
            Some(who) => core.judge_known(wanted, &who, None),
            None => answer(wanted.reply, Err(nobody_told())),
        });
    }

    /// By the rules as they are now. `word`: a person has said yes to a token that is this.
    pub(super) fn judge_known(&mut self, wanted: Wanted, who: &Who, word: Option<TokenFacts>) {
        // The vault may have been locked meanwhile, and the grant logged out.
        if wanted.reply.is_closed() || !self.gate.is_open() {
            return answer(wanted.reply, Err(self.locked()));
        }
        let Some(policy) = self.policy.policy() else { return answer(wanted.reply, Err(lost())) };
        let token = match self.facts(&wanted.grant) {
            Ok(token) => token,
            Err(error) => return answer(wanted.reply, Err(error)),
        };
        let scopes = self.counted(&wanted.grant, named_scopes(&wanted.request));
        let asking = Asking { grant: &wanted.grant, asker: asker(who, &wanted.grant), token: &token, scopes: &scopes };
        let now = self.now();
        match decide(&policy.rules, &asking, &self.policy.rates, now) {
            Verdict::Open => self.serve(wanted, None),
            Verdict::Allow(rule) => {
                let bound = (rule.limits != Limits::default()).then(|| Bound::Rule(rule.limits.clone()));
                let rate = rule.rate();
                self.policy.rates.take(rate, now.boot);
                self.serve(wanted, bound);
            }
            Verdict::Ask(rule, times) => {
                let (rule, is_allowed) = (rule.cloned(), word.is_some());
                let paused = Paused { wanted, rule, token: word.unwrap_or(token) };
                if is_allowed { self.allowed(paused) } else { self.ask_person(paused, who, times) }
            }
            Verdict::Deny(denial) => {
                answer(wanted.reply, Err(denied(&wanted.grant, who, &denial)));
            }
            Verdict::TooOften(rule, wait) => answer(wanted.reply, Err(too_often(rule, wait))),
        }
    }

    /// What the rules say by now of somebody who was served a token before: whether he would be served one now, without a question
    /// and whatever the rates are.
    pub(super) fn judge_again(&self, grant: &GrantName, who: &Who) -> Result<(), ErrorBody> {
        let policy = self.policy.policy().ok_or_else(lost)?;
        let token = self.facts(grant)?;
        let asking = Asking { grant, asker: asker(who, grant), token: &token, scopes: &BTreeSet::new() };
        match decide(&policy.rules, &asking, &Rates::default(), self.now()) {
            Verdict::Deny(denial) => Err(denied(grant, who, &denial)),
            Verdict::Ask(_, times) if !self.remembers(&question(grant, &token, who, times)) => {
                let sentence = format!("you must allow {} anew to have a token of `{grant}`", named(who));
                Err(ErrorBody::new(ErrorCode::AccessDenied, sentence).hint("ask again"))
            }
            _ => Ok(()),
        }
    }

    /// A token that is about to be served, if it is no more than was agreed to: it may be another by now.
    pub(super) fn within(&self, grant: &GrantName, bound: &Bound, token: TokenAnswer) -> Result<TokenAnswer, ErrorBody> {
        let facts = TokenFacts { scopes: self.counted(grant, token.scopes.clone()), resource: token.resource.clone() };
        match bound {
            Bound::Rule(limits) => match limits.cover(&facts, &BTreeSet::new()) {
                Ok(()) => Ok(token),
                Err(beyond) => Err(too_wide(grant, "the program that asks", &beyond)),
            },
            Bound::Shown(shown) if facts.allows_at_most(&shown.scopes) && facts.resource == shown.resource => Ok(token),
            Bound::Shown(_) => {
                let sentence = format!("the token of `{grant}` allows something else by now than what was agreed to");
                Err(ErrorBody::new(ErrorCode::AccessDenied, sentence).hint("ask again"))
            }
        }
    }

    /// What the present token of a grant is.
    fn facts(&self, grant: &GrantName) -> Result<TokenFacts, ErrorBody> {
        let record = self.held(grant)?.record();
        Ok(TokenFacts { scopes: self.counted(grant, record.scopes.clone()), resource: record.resource.clone() })
    }

    /// Scopes, less those that only let us refresh (`offline_access`): they allow nobody anything.
    fn counted(&self, grant: &GrantName, scopes: Vec<String>) -> BTreeSet<String> {
        let provider = self.grants.get(grant).and_then(|grant| self.provider_of(&grant.record().definition));
        let of_refreshes = provider.as_deref().map_or(&[][..], |provider| &provider.refresh_scopes);
        scopes.into_iter().filter(|scope| !of_refreshes.contains(scope)).collect()
    }

    // ---- the record ----

    /// The vault was opened with this record.
    pub(super) fn restore_policy(&mut self, record: &Record) {
        self.policy.generation = record.generation;
        match Policy::from_plaintext(&record.plaintext) {
            Some(policy) => self.policy.held = Held::Policy(policy),
            None => self.policy_lost(),
        }
        self.policy.note_next_end(self.now());
    }

    /// The vault was opened, and the record of the policy is not to be had: nobody is let in by mistake.
    pub(super) fn policy_lost(&mut self) {
        self.policy.held = Held::Lost;
        self.announce(event::POLICY_UNREADABLE, None, Some(lost().error_description));
    }

    /// The vault closes: whoever waits for a person's word is told so.
    pub(super) fn policy_closed(&mut self) {
        self.policy.asks = Asks::default();
        self.notice_consents_over();
        for (_, paused) in std::mem::take(&mut self.policy.paused) {
            answer(paused.wanted.reply, Err(self.locked()));
        }
    }

    /// Makes a change and saves it; it counts from then on. One at a time, in the order that they were asked for.
    pub(super) fn change_policy(&mut self, change: Change) {
        self.policy.changes.push_back(change);
        self.next_change();
    }

    fn next_change(&mut self) {
        if self.policy.saving {
            return;
        }
        let Some(change) = self.policy.changes.pop_front() else { return };
        let (policy, is_lost) = self.policy.policy().cloned().map_or_else(|| (Policy::default(), true), |policy| (policy, false));
        let Some((policy, saved)) = change(self, policy, is_lost) else { return self.next_change() };
        let generation = self.policy.generation + 1;
        let record = Record { id: RecordId::policy(), generation, plaintext: policy.to_plaintext() };
        self.policy.saving = true;
        let done = self.back(move |core, result: Result<(), VaultError>| {
            core.policy.saving = false;
            // A vault that was locked meanwhile reads it again when it is opened.
            if result.is_ok() && core.gate.is_loaded() {
                core.adopt_policy(policy, generation);
            }
            saved(core, result.map_err(|error| refusal(&error)));
            core.next_change();
        });
        self.edges.vault.save(record, done);
    }

    fn adopt_policy(&mut self, policy: Policy, generation: u64) {
        let now = self.now();
        // The time of an old rule may be over since the alarm was looked at.
        self.rules_woke(now);
        let old = std::mem::replace(&mut self.policy.held, Held::Policy(policy));
        self.policy.generation = generation;
        self.policy.note_next_end(now);
        let (Held::Policy(old), Held::Policy(new)) = (old, &self.policy.held) else { return };
        let rules_of =
            |policy: &Policy, grant: &GrantName| policy.rules.iter().filter(|rule| rule.grant == *grant).cloned().collect::<Vec<_>>();
        let mut changed = [old.grants(), new.grants()].concat();
        changed.retain(|grant| rules_of(&old, grant) != rules_of(new, grant));
        old.rules.iter().filter(|rule| !new.rules.contains(rule)).for_each(|rule| self.policy.rates.forget(rule.id));
        changed.sort();
        changed.dedup();
        let taken_back: Vec<_> = old.consents_not_in(new).cloned().collect();
        for grant in &taken_back {
            self.policy.asks.take_back(grant);
            self.decided_anew(grant);
        }
        changed.iter().for_each(|grant| self.rules_changed(grant));
    }

    /// The rules of a grant are others: who is asked about is asked about by those.
    fn rules_changed(&mut self, grant: &GrantName) {
        for waiter in self.policy.asks.drop_grant(grant) {
            if let Some(paused) = self.policy.paused.remove(&waiter) {
                answer(paused.wanted.reply, Err(ask_again(grant)));
            }
        }
        self.notice_consents_over();
        self.decided_anew(grant);
    }

    /// What was decided about a grant does not stand: streams are judged anew, and whoever waits for a token asks again.
    fn decided_anew(&mut self, grant: &GrantName) {
        self.leases.judge_anew(grant);
        // Not those who ask for a refresh: they get no token.
        let waiting: Vec<_> =
            self.askers.iter().filter(|(_, it)| it.grant == *grant && it.purpose != Purpose::Refresh).map(|(asker, _)| *asker).collect();
        for asker in waiting {
            if let Some(waiting) = self.askers.remove(&asker) {
                self.give(grant, crate::grant::Input::Cancelled(asker));
                answer(waiting.reply, Err(ask_again(grant)));
            }
        }
    }

    /// The alarm rang: the time of a rule may be over, or the clock was set.
    pub(super) fn rules_woke(&mut self, now: Now) {
        if let (Some((first, _)), Some(policy)) = (self.policy.rule_ends, self.policy.policy()) {
            let ended = policy.rules.iter().filter(|rule| rule.expires_at.is_some_and(|at| first <= at && at <= now.wall));
            let of_ended: BTreeSet<_> = ended.map(|rule| rule.grant.clone()).collect();
            of_ended.iter().for_each(|grant| self.decided_anew(grant));
        }
        self.policy.note_next_end(now);
    }

    // ---- the routes ----

    pub(super) fn show_policy(&mut self, reply: Reply<wire::Policy>) {
        answer(reply, Ok(self.shown_policy()));
    }

    fn shown_policy(&self) -> wire::Policy {
        let now = self.now().wall;
        self.policy.policy().map_or_else(|| wire::Policy { unreadable: true, ..wire::Policy::default() }, |policy| policy.shown(now))
    }

    pub(super) fn add_rule(&mut self, mut rule: wire::NewRule, caller: Arc<Caller>, reply: Reply<wire::Rule>) {
        rule.grant = self.meant(&rule.grant);
        // A slip of the name would close nothing, and look as if it had.
        if let Err(error) = self.held(&rule.grant)
            && error.error != ErrorCode::LoginRequired
        {
            return answer(reply, Err(error));
        }
        self.change_policy(Box::new(move |core, mut policy, is_lost| {
            let now = core.now().wall;
            let added = if is_lost { Err(lost()) } else { policy.add(rule, now) };
            match added {
                Err(error) => {
                    answer(reply, Err(error));
                    None
                }
                Ok(rule) => Some((
                    policy,
                    Box::new(move |core, saved| {
                        if saved.is_ok() {
                            core.policy_changed(&caller, Some(&rule.grant), format!("rule {} was added", rule.id));
                        }
                        answer(reply, saved.map(|()| rule.shown(now)));
                    }),
                )),
            }
        }));
    }

    pub(super) fn remove_rule(&mut self, id: u32, caller: Arc<Caller>, reply: Reply<wire::RuleRemoved>) {
        self.change_policy(Box::new(move |_, mut policy, is_lost| match if is_lost { Err(lost()) } else { policy.remove(id) } {
            Err(error) => {
                answer(reply, Err(error));
                None
            }
            Ok(removed) => Some((
                policy,
                Box::new(move |core, saved| {
                    if saved.is_ok() {
                        let last = if removed.opens { ", the last," } else { "" };
                        core.policy_changed(&caller, Some(&removed.grant), format!("rule {id}{last} was removed"));
                    }
                    answer(reply, saved.map(|()| removed));
                }),
            )),
        }));
    }

    /// The way out where the policy cannot be read, too.
    pub(super) fn reset_policy(&mut self, caller: Arc<Caller>, reply: Reply<wire::Policy>) {
        self.change_policy(Box::new(move |_, _, _| {
            Some((
                Policy::default(),
                Box::new(move |core, saved| {
                    if saved.is_ok() {
                        core.policy_changed(&caller, None, "every rule was removed".into());
                    }
                    answer(reply, saved.map(|()| core.shown_policy()));
                }),
            ))
        }));
    }

    /// It is saved and counts.
    fn policy_changed(&mut self, caller: &Arc<Caller>, grant: Option<&GrantName>, what: String) {
        let note = Note::of(event::POLICY_CHANGED).about(&what);
        self.audit.note_by(caller, grant.into_iter().fold(note, Note::grant));
        self.announce(event::POLICY_CHANGED, grant.cloned(), Some(what));
    }

    pub(super) fn test_policy(&mut self, question: &wire::PolicyQuestion, reply: Reply<wire::PolicyAnswer>) {
        answer(reply, self.tested(question));
    }

    fn tested(&self, question: &wire::PolicyQuestion) -> Result<wire::PolicyAnswer, ErrorBody> {
        let grant = self.meant(&question.grant);
        let token = self.facts(&grant)?;
        let policy = self.policy.policy().ok_or_else(lost)?;
        let program = program_of(&question.subject);
        let capability = question.subject == wire::RuleSubject::Capability;
        let is_named =
            matches!(&question.subject, wire::RuleSubject::Program(named) if named.executable.is_some() || named.script.is_some());
        let scopes = self.counted(&grant, question.scopes.clone());
        let client = if let wire::RuleSubject::Client(name) = &question.subject { Some(name.as_str()) } else { None };
        let asker = Asker { program: Some(&program).filter(|_| client.is_none()), capability, client };
        let asking = Asking { grant: &grant, asker, token: &token, scopes: &scopes };
        let verdict = match decide(&policy.rules, &asking, &Rates::default(), self.now()) {
            // Anyone is a program that can be told, but is not named.
            Verdict::Ask(rule, Times::Once) if is_named && !can_be_remembered(&program) => Verdict::Ask(rule, Times::Always),
            verdict => verdict,
        };
        let (outcome, rule, reason) = told(&grant, &verdict);
        Ok(wire::PolicyAnswer { grant, outcome, rule, reason })
    }
}

/// Who asks, as far as the rules of this grant can tell.
fn asker<'a>(who: &'a Who, grant: &GrantName) -> Asker<'a> {
    let only = who.only.as_ref().filter(|only| only.grants().any(|one| one == grant));
    let client = only.and_then(Only::client);
    Asker { program: who.program.as_deref(), capability: only.is_some() && client.is_none(), client }
}

/// A verdict for people who test the rules.
fn told(grant: &GrantName, verdict: &Verdict<'_>) -> (wire::PolicyOutcome, Option<u32>, String) {
    use wire::PolicyOutcome::{Allow, Ask, Deny};
    let how = |times| if times == Times::Once { "the first time" } else { "every time" };
    match verdict {
        Verdict::Open => (Allow, None, format!("no rule names `{grant}`: it is open to every process of yours")),
        Verdict::Allow(rule) | Verdict::TooOften(rule, _) => (Allow, Some(rule.id), format!("rule {} allows it", rule.id)),
        Verdict::Ask(Some(rule), times) => (Ask, Some(rule.id), format!("rule {} has you asked {}", rule.id, how(*times))),
        Verdict::Ask(None, times) => {
            (Ask, None, format!("`{grant}` is closed, and no rule is about this program: you are asked {}", how(*times)))
        }
        Verdict::Deny(Denial::Rule(rule)) => (Deny, Some(*rule), format!("rule {rule} refuses it")),
        Verdict::Deny(Denial::Beyond(rule, beyond)) => {
            (Deny, Some(*rule), too_wide(grant, &format!("rule {rule}"), beyond).error_description)
        }
        Verdict::Deny(Denial::UnknownProgram) => (Deny, None, format!("`{grant}` is closed, and what program asks cannot be told")),
    }
}

/// Who asks, for people: the script, else the executable.
pub(super) fn named(who: &Who) -> String {
    let path = |program: &Program| program.script.clone().unwrap_or_else(|| program.executable.clone());
    if let Some(client) = who.only.as_ref().and_then(Only::client) {
        return format!("the relay's client {client}");
    }
    who.program.as_deref().map_or_else(|| "an unknown program".to_owned(), |program| visible(&path(program).to_string_lossy()))
}

fn too_often(rule: &Rule, wait: Duration) -> ErrorBody {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let sentence = format!("rule {} gives {} tokens of `{}` a minute", rule.id, rule.per_minute.unwrap_or_default(), rule.grant);
    let error = ErrorBody::new(ErrorCode::TooManyRequests, sentence).retry_after(seconds.max(1));
    error.hint("keep a token until it expires, and ask again then")
}

fn denied(grant: &GrantName, who: &Who, denial: &Denial) -> ErrorBody {
    let name = named(who);
    match denial {
        Denial::Rule(rule) => {
            let sentence = format!("the policy does not give {name} a token of `{grant}` (rule {rule})");
            ErrorBody::new(ErrorCode::AccessDenied, sentence).hint("mcp-authctl policy list")
        }
        Denial::Beyond(_, beyond) => too_wide(grant, &name, beyond),
        Denial::UnknownProgram if who.only.as_ref().is_some_and(|only| only.client().is_some()) => {
            let client = who.only.as_ref().and_then(Only::client).unwrap_or_default();
            let sentence = format!("`{grant}` is closed, and no rule is about {name}");
            ErrorBody::new(ErrorCode::AccessDenied, sentence).hint(format!("mcp-authctl policy add {grant} --client {client}"))
        }
        Denial::UnknownProgram => {
            let why = who.weak.first().map_or_else(String::new, |weak| format!(": {weak}"));
            let sentence = format!("`{grant}` is closed, and it cannot be told what program asks{why}");
            let hint = format!("ask on a new connection; or mcp-authctl policy add {grant} --anyone --ask always");
            ErrorBody::new(ErrorCode::AccessDenied, sentence).hint(hint)
        }
    }
}

/// A token cannot be narrowed: whoever may have less needs a login of its own.
fn too_wide(grant: &GrantName, who: &str, beyond: &Beyond) -> ErrorBody {
    let narrower = format!("mcp-authctl login {}:LABEL --scope \"...\" makes a narrower one; or mcp-authctl policy list", grant.base());
    let (sentence, hint) = match beyond {
        Beyond::Scopes(more) => (format!("{} of `{grant}` is more than the policy gives {who}", clean(&more.join(" "))), narrower),
        Beyond::UnknownScopes => {
            (format!("what the token of `{grant}` allows is not known, and the policy gives {who} certain scopes only"), narrower)
        }
        Beyond::Resource => {
            (format!("the token of `{grant}` is for another resource than the policy gives {who}"), "mcp-authctl policy list".to_owned())
        }
    };
    ErrorBody::new(ErrorCode::AccessDenied, sentence).hint(hint)
}

fn lost() -> ErrorBody {
    ErrorBody::new(ErrorCode::AccessDenied, "the policy in the vault cannot be read, so that nobody is given a token")
        .hint("mcp-authctl policy reset opens every grant again; or stop mcp-authd and restore the vault from a backup")
}

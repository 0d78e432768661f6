//! What a person is asked about who may have a token: the question, the requests that wait with it, the word, and its end.
//! The rules of that are `crate::policy::asks`; who shows it is the notifications' and the command line's business.

use std::sync::Arc;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, event};

use super::Reply;
use super::core::{Core, answer};
use super::policy::{Bound, Wanted, named};
use crate::audit::Note;
use crate::caller::Caller;
use crate::clock::{Boot, Now};
use crate::grant::Asker;
use crate::oauth::text::{clean, quoted, visible};
use crate::policy::asks::{Ask, Asked, Identity, NO_STANDS, Question};
use crate::policy::decision::Times;
use crate::policy::rule::{Rule, TokenFacts, is_go_between};
use crate::policy::{Only, Program, Who};

/// A request that waits for a person's word.
pub(super) struct Paused {
    pub(super) wanted: Wanted,
    /// The rule that has the person asked; `None`: no rule is about the program.
    pub(super) rule: Option<Rule>,
    /// What the token is, as it is shown.
    pub(super) token: TokenFacts,
}

impl Core {
    /// Has the person asked, unless he has said yes to exactly that before.
    pub(super) fn ask_person(&mut self, paused: Paused, who: &Who, times: Times) {
        let question = question(&paused.wanted.grant, &paused.token, who, times);
        if self.remembers(&question) {
            return self.allowed(paused);
        }
        let now = self.now();
        match self.policy.asks.ask(question, new_id(), shown(who), now.boot) {
            Asked::Allowed => self.allowed(paused),
            Asked::Waits(id, is_new) => self.wait_for_word(paused, &id, is_new, now),
            Asked::Refused => {
                let minutes = NO_STANDS.as_secs() / 60;
                let sentence = format!("you refused {} a token of `{}` in the last {minutes} minutes", named(who), paused.wanted.grant);
                let error = ErrorBody::new(ErrorCode::AccessDenied, sentence).hint(way_in(&paused.wanted.grant, who));
                answer(paused.wanted.reply, Err(error));
            }
            Asked::TooMany => {
                let sentence = format!("too many questions wait for you, or were asked in this minute, so that {} is refused", named(who));
                let error =
                    ErrorBody::new(ErrorCode::AccessDenied, sentence).hint("mcp-authctl approve shows what waits; ask again in a minute");
                answer(paused.wanted.reply, Err(error));
            }
        }
    }

    /// Whether the person has said yes to exactly that before, for good.
    pub(super) fn remembers(&self, question: &Question) -> bool {
        question.times == Times::Once && self.policy.policy().is_some_and(|policy| policy.remembers(question))
    }

    fn wait_for_word(&mut self, paused: Paused, id: &str, is_new: bool, now: Now) {
        let Some(consent) = self.policy.asks.waiting(now.boot).find(|ask| ask.id == id).map(|ask| self.shown(ask, now.boot)) else {
            return;
        };
        if is_new {
            self.audit.note_by(&paused.wanted.caller, Note::of(event::CONSENT_ASKED).grant(&consent.grant));
            self.consent_asked(&consent);
        }
        if !paused.wanted.request.wait.unwrap_or(self.shows_consent(id)) {
            return answer(paused.wanted.reply, Err(consent_required(&consent)));
        }
        let asker = paused.wanted.asker;
        self.policy.asks.wait(id, asker, now.boot);
        self.policy.paused.insert(asker, paused);
    }

    /// A person is to be asked.
    fn consent_asked(&mut self, consent: &wire::Consent) {
        let told = format!("{} asks for a token; mcp-authctl approve shows it", program_of(consent));
        self.announce(event::CONSENT_ASKED, Some(consent.grant.clone()), Some(told));
        self.notice_consent(consent);
    }

    /// No desktop has shown it: whoever waits, without having said that it would, is told the command instead.
    pub(super) fn consent_unseen(&mut self, id: &str) {
        let now = self.now().boot;
        let Some(ask) = self.policy.asks.waiting(now).find(|ask| ask.id == id) else { return };
        let (waiters, error) = (ask.waiters().collect::<Vec<_>>(), consent_required(&self.shown(ask, now)));
        for waiter in waiters {
            if self.policy.paused.get(&waiter).is_some_and(|paused| paused.wanted.request.wait.is_none())
                && let Some(paused) = self.policy.paused.remove(&waiter)
            {
                self.policy.asks.leave(waiter);
                answer(paused.wanted.reply, Err(error.clone()));
            }
        }
    }

    /// A person's word, or the press of a notification's button. Whoever waits hears of it.
    pub(super) fn decide_consent(&mut self, id: &str, allow: bool, by: Option<&Arc<Caller>>) -> Result<wire::Consent, ErrorBody> {
        let now = self.now();
        let (ask, waiters) = self.policy.asks.decide(id, allow, now.boot).ok_or_else(no_consent)?;
        let consent = self.shown(&ask, now.boot);
        self.notice_consents_over();
        let told = format!("{}: {}", if allow { "allowed" } else { "refused" }, program_of(&consent));
        let note = Note::of(event::CONSENT_DECIDED).grant(&consent.grant).about(&told);
        match by {
            Some(caller) => self.audit.note_by(caller, note),
            None => self.audit.note(note),
        }
        self.announce(event::CONSENT_DECIDED, Some(consent.grant.clone()), Some(told));
        if allow && ask.question.times == Times::Once {
            self.remember(ask.question.clone());
        }
        for paused in waiters.iter().filter_map(|waiter| self.policy.paused.remove(waiter)).collect::<Vec<_>>() {
            self.carry_word(paused, ask.question.asker.clone(), allow);
        }
        Ok(consent)
    }

    /// The word was about the program that was shown, and not about what has taken its place in the process meanwhile.
    fn carry_word(&mut self, paused: Paused, asker: Identity, allow: bool) {
        let caller = Arc::clone(&paused.wanted.caller);
        self.task(async move { caller.who().await }, move |core, who| {
            let Some(who) = who else { return answer(paused.wanted.reply, Err(no_consent())) };
            let grant = paused.wanted.grant.clone();
            let refused = |sentence: String, hint: String| ErrorBody::new(ErrorCode::AccessDenied, sentence).hint(hint);
            match (allow, identity(&who) == asker) {
                // The rules may have changed since it was asked, and others have had its rate.
                (true, true) => core.judge_known(paused.wanted, &who, Some(paused.token)),
                (true, false) => {
                    let sentence = format!("what asks for a token of `{grant}` is not the program any more that you allowed");
                    answer(paused.wanted.reply, Err(refused(sentence, "ask again".into())));
                }
                (false, _) => {
                    let error = refused(format!("you refused {} a token of `{grant}`", named(&who)), way_in(&paused.wanted.grant, &who));
                    answer(paused.wanted.reply, Err(error));
                }
            }
        });
    }

    pub(super) fn allowed(&mut self, paused: Paused) {
        if !self.gate.is_open() {
            return answer(paused.wanted.reply, Err(self.locked()));
        }
        if let Some(rule) = &paused.rule {
            let now = self.now().boot;
            self.policy.rates.take(rule.rate(), now);
        }
        self.serve(paused.wanted, Some(Bound::Shown(paused.token)));
    }

    /// Kept for the next time; this time it counts whether or not the disk takes it.
    fn remember(&mut self, question: Question) {
        self.change_policy(Box::new(move |core, mut policy, is_lost| {
            if is_lost || !policy.closes(&question.grant) {
                return None;
            }
            policy.remember(&question, core.now().wall);
            Some((
                policy,
                Box::new(|_, saved| {
                    if let Err(error) = saved {
                        tracing::warn!("a consent is not remembered: {error}");
                    }
                }),
            ))
        }));
    }

    /// The alarm rang.
    pub(super) fn consents_woke(&mut self, now: Now) {
        let (tired, over) = self.policy.asks.due(now.boot);
        for (waiter, id) in tired {
            let Some(paused) = self.policy.paused.remove(&waiter) else { continue };
            let ask = self.policy.asks.waiting(now.boot).find(|ask| ask.id == id).or_else(|| over.iter().find(|ask| ask.id == id));
            let error = ask.map_or_else(no_consent, |ask| consent_required(&self.shown(ask, now.boot)));
            answer(paused.wanted.reply, Err(error));
        }
        for ask in over {
            let told = format!("nobody answered: {}", program_of(&self.shown(&ask, now.boot)));
            self.audit.note(Note::of(event::CONSENT_DECIDED).grant(&ask.question.grant).about(&told));
            self.announce(event::CONSENT_DECIDED, Some(ask.question.grant), Some(told));
        }
        self.notice_consents_over();
    }

    /// A request went away.
    pub(super) fn consent_cancelled(&mut self, asker: Asker) {
        if self.policy.paused.remove(&asker).is_some() {
            self.policy.asks.leave(asker);
        }
    }

    // ---- the routes ----

    pub(super) fn consents(&mut self, reply: Reply<Vec<wire::Consent>>) {
        let now = self.now().boot;
        answer(reply, Ok(self.policy.asks.waiting(now).map(|ask| self.shown(ask, now)).collect()));
    }

    pub(super) fn consent(&mut self, id: &str, reply: Reply<wire::Consent>) {
        let now = self.now().boot;
        let found = self.policy.asks.waiting(now).find(|ask| ask.id == canonical(id)).map(|ask| self.shown(ask, now));
        answer(reply, found.ok_or_else(no_consent));
    }

    /// `POST /v1/consents/ID`. A process that asked does not answer itself: that is a slip, or an attempt.
    pub(super) fn consent_decided_by(&mut self, id: &str, allow: bool, caller: &Arc<Caller>, reply: Reply<wire::Consent>) {
        let id = canonical(id);
        let now = self.now().boot;
        let asked = self.policy.asks.waiting(now).find(|ask| ask.id == id);
        if allow && asked.is_some_and(|ask| caller.peer().pid.is_some_and(|pid| ask.pids.contains(&pid))) {
            let error = ErrorBody::new(ErrorCode::AccessDenied, "the process that asks cannot allow it itself");
            return answer(reply, Err(error.hint("mcp-authctl approve, in a terminal")));
        }
        answer(reply, self.decide_consent(&id, allow, Some(caller)));
    }

    fn shown(&self, ask: &Ask, now: Boot) -> wire::Consent {
        let Question { grant, token, times, .. } = &ask.question;
        wire::Consent {
            id: ask.id.clone(),
            program: ask.program.clone(),
            grant: grant.clone(),
            scopes: token.scopes.iter().map(|scope| clean(scope)).collect(),
            resource: token.resource.as_deref().map(clean),
            host: self.host_of(ask),
            remember: *times == Times::Once,
            expires_in: ask.until.since(now).as_secs(),
        }
    }

    /// Where the token is good: the resource's host, else the provider's.
    fn host_of(&self, ask: &Ask) -> String {
        let definition = self.grants.get(&ask.question.grant).map(|grant| &grant.record().definition);
        let of_provider = definition.and_then(|it| {
            it.issuer.as_ref().or(it.authorization_endpoint.as_ref()).or(it.token_endpoint.as_ref()).or(it.userinfo_endpoint.as_ref())
        });
        let url = ask.question.token.resource.as_ref().or(of_provider).and_then(|text| url::Url::parse(text).ok());
        let host = url.and_then(|url| url.host_str().map(str::to_owned));
        clean(&host.or_else(|| definition.map(|it| it.provider.clone())).unwrap_or_default())
    }
}

pub(super) fn question(grant: &GrantName, token: &TokenFacts, who: &Who, times: Times) -> Question {
    let asker = identity(who);
    let times = if who.program.as_deref().is_some_and(can_be_remembered) { times } else { Times::Always };
    Question { asker, grant: grant.clone(), token: token.clone(), times }
}

/// A yes to whatever an interpreter runs, or to whoever runs our command line, would be a yes to everybody.
pub(super) fn can_be_remembered(program: &Program) -> bool {
    !is_go_between(&program.executable) && (program.script.is_some() || !program.interpreter)
}

fn identity(who: &Who) -> Identity {
    let program = who.program.as_deref();
    Identity {
        executable: program.map(|program| program.executable.clone()),
        script: program.and_then(|program| program.script.clone()),
        client: who.only.as_ref().and_then(Only::client).map(str::to_owned),
        stamps: program.and_then(|program| program.stamps),
    }
}

/// Who asks, with what a person should know before a yes.
fn shown(who: &Who) -> wire::Program {
    let mut shown = who.shown();
    if who.program.as_deref().is_some_and(|program| is_go_between(&program.executable)) {
        shown.weak.push("every program of yours can run it, and who is behind it cannot be told".into());
    }
    shown
}

fn program_of(consent: &wire::Consent) -> &str {
    let program = &consent.program;
    program.client.as_deref().or(program.script.as_deref()).or(program.executable.as_deref()).unwrap_or("an unknown program")
}

/// `1234-5678`: told apart from the issuer's codes, which are letters. Good for a minute, on the person's own socket only.
fn new_id() -> String {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    let number = u32::from_le_bytes(bytes) % 100_000_000;
    format!("{:04}-{:04}", number / 10_000, number % 10_000)
}

/// An id as people type it: with or without the hyphen.
fn canonical(id: &str) -> String {
    let digits: String = id.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    if digits.len() == 8 && digits.is_ascii() { format!("{}-{}", &digits[..4], &digits[4..]) } else { digits }
}

fn no_consent() -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, "nothing waits for your word under this id")
        .hint("mcp-authctl approve shows what waits; after a minute a question ends, and the program asks again")
}

fn consent_required(consent: &wire::Consent) -> ErrorBody {
    let sentence = format!("you must allow {} to have a token of `{}`", program_of(consent), consent.grant);
    let hint = format!("mcp-authctl approve {} (within {} s), then ask again", consent.id, consent.expires_in);
    let mut error = ErrorBody::new(ErrorCode::ConsentRequired, sentence).hint(hint);
    error.consent = Some(consent.id.clone());
    error
}

/// The command that lets a program in for good, where there is one that lets in nobody else.
fn way_in(grant: &GrantName, who: &Who) -> String {
    if let Some(client) = who.only.as_ref().and_then(Only::client) {
        return format!("mcp-authctl policy add {grant} --client {client}");
    }
    let (option, path) = match who.program.as_deref() {
        Some(Program { script: Some(script), .. }) => ("script", script),
        Some(Program { executable, interpreter: false, .. }) if !is_go_between(executable) => ("program", executable),
        _ => return "mcp-authctl policy list".to_owned(),
    };
    match path.to_str().filter(|path| visible(path) == *path) {
        Some(path) if path.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-')) => {
            format!("mcp-authctl policy add {grant} --{option} {path}")
        }
        Some(path) => format!("mcp-authctl policy add {grant} --{option} {}", quoted(path)),
        None => "mcp-authctl policy list".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_in_is_a_command_that_holds_its_path_and_lets_in_nobody_else() {
        let of = |executable: &str| {
            let program = Program { executable: executable.into(), ..Program::default() };
            let peer = crate::policy::Peer { uid: 1, pid: Some(7) };
            way_in(&"github".parse().unwrap(), &Who { peer, program: Some(program.into()), only: None, weak: vec![] })
        };
        assert_eq!(of("/usr/bin/claude"), "mcp-authctl policy add github --program /usr/bin/claude");
        assert_eq!(of("/tmp/my 'x; rm ~"), r"mcp-authctl policy add github --program '/tmp/my '\''x; rm ~'");
        assert_eq!(of("/usr/bin/mcp-authctl"), "mcp-authctl policy list", "a rule about it would open the grant to everybody");
        assert_eq!(of("/tmp/claude\u{200b}"), "mcp-authctl policy list", "nobody could copy it");
    }
}

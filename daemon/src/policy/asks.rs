//! PURE: what waits for a person's word: identical questions join, a flood is cut off, nobody's answer is a no, and exactly
//! what was shown is allowed, once. Who is told of a question, and what a yes brings, is the broker's business.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::GrantName;

use super::decision::Times;
use super::record::Stamps;
use super::rule::TokenFacts;
use crate::clock::Boot;

/// How long a question waits for a person.
pub const LIFE: Duration = Duration::from_secs(60);
/// How long a request waits with it.
pub const WAIT: Duration = Duration::from_secs(30);
/// Questions of one program that wait at a time, and that are asked within a minute.
pub const OF_A_PROGRAM: (usize, usize) = (5, 3);
/// The same of all programs together: a flood may come under many names.
pub const OF_ALL: (usize, usize) = (20, 12);
/// How long a no stands, before the same may be asked again.
pub const NO_STANDS: Duration = Duration::from_secs(300);

/// Whom a question is about, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its executable; `None`: it cannot be told.
    pub executable: Option<PathBuf>,
    /// The script of an interpreter.
    pub script: Option<PathBuf>,
    /// The client of the relay's port that it is.
    pub client: Option<String>,
    /// What these files are at present; `None`: it cannot be told, and nothing is remembered.
    pub stamps: Option<Stamps>,
}

/// A question to a person. Equal ones are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub asker: Identity,
    /// For which grant.
    pub grant: GrantName,
    /// For what its token is.
    pub token: TokenFacts,
    /// Whether a yes is to be remembered.
    pub times: Times,
}

/// A question that waits.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Its id.
    pub id: String,
    /// What is asked.
    pub question: Question,
    /// When nobody's answer is a no.
    pub until: Boot,
    /// The first who asked it, as people see it.
    pub program: wire::Program,
    /// The processes that asked it.
    pub pids: BTreeSet<u32>,
    waiters: Vec<(Waiter, Boot)>,
}

impl Question {
    /// Whether a yes counts for later, too.
    fn is_remembered(&self) -> bool {
        self.times == Times::Once && self.asker.stamps.is_some()
    }
}

impl Ask {
    /// The requests that wait with it.
    pub fn waiters(&self) -> impl Iterator<Item = Waiter> {
        self.waiters.iter().map(|(waiter, _)| *waiter)
    }
}

/// Names a request that waits.
pub type Waiter = u64;

/// What comes of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A person said yes to exactly this, and it is not used up.
    Allowed,
    /// It waits under this id; whether it is a new question.
    Waits(String, bool),
    /// A person said no to exactly this a moment ago.
    Refused,
    /// Too many questions wait, or were asked within the minute.
    TooMany,
}

/// Everything that waits, or was decided a moment ago. In RAM only.
#[derive(Clone, Debug, Default)]
pub struct Asks {
    waiting: Vec<Ask>,
    asked: Vec<(Boot, Identity)>,
    allowed: Vec<(Question, Boot)>,
    refused: Vec<(Question, Boot)>,
}

impl Asks {
    /// Asks a person. `id` is for a new question; `program` is who asks, as people see it.
    pub fn ask(&mut self, question: Question, id: String, program: wire::Program, now: Boot) -> Asked {
        self.forget_old(now);
        if let Some(at) = self.allowed.iter().position(|(allowed, _)| *allowed == question) {
            // One that is remembered counts before the disk has it, too.
            if !question.is_remembered() {
                self.allowed.swap_remove(at);
            }
            return Asked::Allowed;
        }
        if self.refused.iter().any(|(refused, _)| *refused == question) {
            return Asked::Refused;
        }
        // Of a program that cannot be told nothing is shown but its process: another one is another question.
        let same = |ask: &Ask| ask.question == question && (question.asker.executable.is_some() || ask.program.pid == program.pid);
        if let Some(ask) = self.waiting.iter_mut().find(|ask| same(ask) && now < ask.until) {
            ask.pids.extend(program.pid);
            return Asked::Waits(ask.id.clone(), false);
        }
        if self.is_flooded(&question.asker, now) {
            return Asked::TooMany;
        }
        self.asked.push((now, question.asker.clone()));
        let pids = program.pid.into_iter().collect();
        let ask = Ask { id: id.clone(), question, until: now + LIFE, program, pids, waiters: Vec::new() };
        self.waiting.push(ask);
        Asked::Waits(id, true)
    }

    /// A request waits with a question.
    pub fn wait(&mut self, id: &str, waiter: Waiter, now: Boot) {
        if let Some(ask) = self.waiting.iter_mut().find(|ask| ask.id == id) {
            ask.waiters.push((waiter, (now + WAIT).min(ask.until)));
        }
    }

    /// A request went away.
    pub fn leave(&mut self, waiter: Waiter) {
        self.waiting.iter_mut().for_each(|ask| ask.waiters.retain(|(other, _)| *other != waiter));
    }

    /// What waits now, oldest first.
    pub fn waiting(&self, now: Boot) -> impl Iterator<Item = &Ask> {
        self.waiting.iter().filter(move |ask| now < ask.until)
    }

    /// A person's word: the question, and the requests that wait with it. `None`: no such question waits (any more).
    /// A yes is kept until the question would have ended: where it is remembered, for everybody who asks exactly this; else,
    /// where nobody waits, for the next who does.
    pub fn decide(&mut self, id: &str, allow: bool, now: Boot) -> Option<(Ask, Vec<Waiter>)> {
        let at = self.waiting.iter().position(|ask| ask.id == id && now < ask.until)?;
        let mut ask = self.waiting.remove(at);
        let waiters: Vec<Waiter> = std::mem::take(&mut ask.waiters).into_iter().map(|(waiter, _)| waiter).collect();
        if !allow {
            self.refused.push((ask.question.clone(), now + NO_STANDS));
        } else if waiters.is_empty() || ask.question.is_remembered() {
            self.allowed.push((ask.question.clone(), ask.until));
        }
        Some((ask, waiters))
    }

    /// What the time has ended: requests that have waited long enough, each with the id that still waits; and questions.
    pub fn due(&mut self, now: Boot) -> (Vec<(Waiter, String)>, Vec<Ask>) {
        let mut tired = Vec::new();
        for ask in &mut self.waiting {
            let (gone, stay): (Vec<_>, Vec<_>) = ask.waiters.iter().copied().partition(|(_, until)| *until <= now);
            ask.waiters = stay;
            tired.extend(gone.into_iter().map(|(waiter, _)| (waiter, ask.id.clone())));
        }
        let (over, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|ask| ask.until <= now);
        self.waiting = waiting;
        (tired, over)
    }

    /// When [`Self::due`] has something.
    pub fn wake_at(&self) -> Option<Boot> {
        self.waiting.iter().flat_map(|ask| ask.waiters.iter().map(|(_, until)| *until).chain([ask.until])).min()
    }

    /// The rules have changed: what was asked and decided about a grant under the old ones is void. Gives who waited.
    pub fn drop_grant(&mut self, grant: &GrantName) -> Vec<Waiter> {
        let (void, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(|ask| ask.question.grant == *grant);
        self.waiting = waiting;
        self.allowed.retain(|(question, _)| question.grant != *grant);
        self.refused.retain(|(question, _)| question.grant != *grant);
        void.into_iter().flat_map(|ask| ask.waiters).map(|(waiter, _)| waiter).collect()
    }

    /// A remembered yes was taken back: it does not go on counting here.
    pub fn take_back(&mut self, grant: &GrantName) {
        self.allowed.retain(|(question, _)| question.grant != *grant || !question.is_remembered());
    }

    fn is_flooded(&self, asker: &Identity, now: Boot) -> bool {
        // A program under new bytes is the same program: its owner could change them for every question.
        let same = |other: &Identity| (&other.executable, &other.script) == (&asker.executable, &asker.script);
        let waiting = || self.waiting(now).map(|ask| &ask.question.asker);
        let recent = || self.asked.iter().map(|(_, asker)| asker);
        let mine = (waiting().filter(|it| same(it)).count(), recent().filter(|it| same(it)).count());
        let (at_once, a_minute) = OF_A_PROGRAM;
        mine.0 >= at_once || mine.1 >= a_minute || waiting().count() >= OF_ALL.0 || recent().count() >= OF_ALL.1
    }

    fn forget_old(&mut self, now: Boot) {
        self.asked.retain(|(at, _)| now < *at + Duration::from_secs(60));
        self.allowed.retain(|(_, until)| now < *until);
        self.refused.retain(|(_, until)| now < *until);
    }
}

//! PURE: one rule: which grant it closes, whom it is about, what it says, and up to which limits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, RuleAnswer, RuleProgram, RuleSubject};
use serde::{Deserialize, Serialize};

use super::Program;
use super::command_line::is_interpreter;
use crate::clock::Wall;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its number.
    pub id: u32,
    /// The grant that it closes for everybody else: exactly this one.
    pub grant: GrantName,
    /// Whom it is about.
    pub subject: RuleSubject,
    /// What it says.
    pub answer: RuleAnswer,
    /// The most that it gives.
    pub limits: Limits,
    /// How many tokens a minute, to all whom it is about together.
    pub per_minute: Option<u16>,
    /// When it ends. The grant stays closed.
    pub expires_at: Option<Wall>,
}

/// Who asks, as far as the rules can tell.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The program; `None` where it cannot be told.
    pub program: Option<&'a Program>,
    /// It came through a capability socket of the grant.
    pub capability: bool,
    /// It is this client of the relay's port.
    pub client: Option<&'a str>,
}

/// What a token is, as far as a rule can limit it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// What it allows, without the scopes that never count; none: not known.
    pub scopes: BTreeSet<String>,
    /// The resource that it is bound to.
    pub resource: Option<String>,
}

impl TokenFacts {
    /// Whether it allows nothing but these scopes, of a token that a person said yes to. What is not known may be more.
    pub fn allows_at_most(&self, agreed: &BTreeSet<String>) -> bool {
        self.scopes.is_empty() == agreed.is_empty() && self.scopes.is_subset(agreed)
    }
}

/// The most that a rule, or a person's yes, gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The scopes; `None`: any.
    pub scopes: Option<BTreeSet<String>>,
    /// The resource; `None`: any.
    pub resource: Option<String>,
}

/// What a limit does not cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// These scopes are more than it gives.
    Scopes(Vec<String>),
    /// What the token allows is not known, and it gives certain scopes only.
    UnknownScopes,
    /// The token is bound to another resource, or to none.
    Resource,
}

impl Rule {
    /// A rule as a person wants it.
    ///
    /// # Errors
    /// `invalid_request`, with the sentence that says what to write instead.
    pub fn new(id: u32, wanted: wire::NewRule, now: Wall) -> Result<Self, ErrorBody> {
        check_subject(&wanted.subject)?;
        let scopes = wanted.scopes.map(|scopes| scopes.into_iter().collect::<BTreeSet<_>>());
        if scopes.as_ref().is_some_and(|scopes| scopes.is_empty() || !scopes.iter().all(|scope| is_scope(scope))) {
            return Err(invalid("a scope is one word of printable ASCII without quotes, and a rule that names scopes names one at least"));
        }
        if wanted.per_minute.is_some_and(|rate| !(1..=MOST_PER_MINUTE).contains(&rate)) {
            return Err(invalid(format!("a rate is 1 to {MOST_PER_MINUTE} tokens a minute")));
        }
        if wanted.resource.as_ref().is_some_and(|resource| resource.is_empty() || resource.len() > LONGEST) {
            return Err(invalid("a resource is the URL of an MCP server"));
        }
        Ok(Self {
            id,
            grant: wanted.grant,
            subject: wanted.subject,
            answer: wanted.answer,
            limits: Limits { scopes, resource: wanted.resource },
            per_minute: wanted.per_minute,
            expires_at: expiry(wanted.expires_at.as_deref(), wanted.expires_in, now)?,
        })
    }

    /// Whether it is about this asker.
    pub fn is_about(&self, asker: &Asker<'_>) -> bool {
        match &self.subject {
            RuleSubject::Anyone => true,
            RuleSubject::Capability => asker.capability,
            RuleSubject::Client(name) => asker.client == Some(name),
            RuleSubject::Program(named) => asker.program.is_some_and(|program| is_program(named, program)),
        }
    }

    /// Its number and its rate.
    pub fn rate(&self) -> (u32, Option<u16>) {
        (self.id, self.per_minute)
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: Wall) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// As `GET /v1/policy` shows it.
    pub fn shown(&self, now: Wall) -> wire::Rule {
        wire::Rule {
            id: self.id,
            grant: self.grant.clone(),
            subject: self.subject.clone(),
            answer: self.answer,
            scopes: self.limits.scopes.as_ref().map(|scopes| scopes.iter().cloned().collect()),
            resource: self.limits.resource.clone(),
            per_minute: self.per_minute,
            expires_at: self.expires_at.map(Wall::rfc3339),
            expired: self.is_expired(now),
        }
    }
}

impl Limits {
    /// Whether a token, and what is asked for beyond it, stay within.
    pub fn cover(&self, token: &TokenFacts, asked: &BTreeSet<String>) -> Result<(), Beyond> {
        if self.resource.is_some() && self.resource != token.resource {
            return Err(Beyond::Resource);
        }
        let Some(most) = &self.scopes else { return Ok(()) };
        if token.scopes.is_empty() {
            return Err(Beyond::UnknownScopes);
        }
        let more: Vec<String> = token.scopes.union(asked).filter(|scope| !most.contains(*scope)).cloned().collect();
        if more.is_empty() { Ok(()) } else { Err(Beyond::Scopes(more)) }
    }
}

/// The most tokens a minute that can be written into a rule: whoever needs no limit writes none.
pub const MOST_PER_MINUTE: u16 = 600;
/// The longest path, unit or resource, in bytes.
const LONGEST: usize = 4096;

/// Whether an executable is an interpreter, by its name.
pub fn runs_others(executable: &Path) -> bool {
    executable.file_name().is_some_and(is_interpreter)
}

/// Whether this may be the name of a client of the relay's port: a grant's name without a label.
pub fn is_client_name(text: &str) -> bool {
    text.parse::<GrantName>().is_ok_and(|name| name.label().is_none())
}

/// Whether everybody can run it to be given a token: our own command line. Who is behind it cannot be told.
pub fn is_go_between(executable: &Path) -> bool {
    executable.file_stem().is_some_and(|name| name == "mcp-authctl")
}

fn is_program(named: &RuleProgram, program: &Program) -> bool {
    let same = |named: &Option<String>, found: Option<&Path>| named.as_deref().is_none_or(|named| found == Some(Path::new(named)));
    // An interpreter is no program: whatever runs in it would count.
    let is_alone = named.script.is_none() && named.unit.is_none();
    same(&named.executable, Some(&program.executable))
        && same(&named.script, program.script.as_deref())
        && named.unit.as_ref().is_none_or(|unit| program.unit.as_ref() == Some(unit))
        && !(is_alone && program.interpreter)
}

fn check_subject(subject: &RuleSubject) -> Result<(), ErrorBody> {
    if let RuleSubject::Client(name) = subject
        && !is_client_name(name)
    {
        return Err(invalid("this is not the name of a client of the relay").hint("mcp-authctl relay list"));
    }
    let RuleSubject::Program(RuleProgram { executable, script, unit }) = subject else { return Ok(()) };
    for path in [executable, script].into_iter().flatten() {
        if !PathBuf::from(path).is_absolute() || path.len() > LONGEST {
            return Err(invalid("a rule names executables and scripts by their absolute paths"));
        }
    }
    if unit.as_ref().is_some_and(|unit| unit.is_empty() || unit.len() > 255 || unit.contains(['/', '\0'])) {
        return Err(invalid("a unit is named as systemd names it, such as `my-server.service`"));
    }
    match (executable, script, unit) {
        (None, None, None) => Err(invalid("the rule names no program")),
        (Some(executable), None, None) if runs_others(Path::new(executable)) => {
            let name = Path::new(executable).file_name().unwrap_or_default().to_string_lossy().into_owned();
            Err(invalid(format!("{name} runs any script, so it says nothing about who asks"))
                .hint("name what it runs: --script /path/to/server.py, or the unit: --unit my-server.service"))
        }
        _ => Ok(()),
    }
}

fn is_scope(scope: &str) -> bool {
    // RFC 6749 section 3.3.
    !scope.is_empty() && scope.len() <= LONGEST && scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

fn expiry(at: Option<&str>, after: Option<u64>, now: Wall) -> Result<Option<Wall>, ErrorBody> {
    let at = match (at, after) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(invalid("a rule ends either at a time or after so many seconds")),
        (Some(at), None) => {
            Wall::from_rfc3339(at).ok_or_else(|| invalid("the time is not one of RFC 3339, such as 2026-12-31T18:00:00Z"))?
        }
        (None, Some(seconds)) => now + Duration::from_secs(seconds),
    };
    if at <= now { Err(invalid("the rule would have ended already")) } else { Ok(Some(at)) }
}

fn invalid(sentence: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, sentence).hint("mcp-authctl policy add --help")
}

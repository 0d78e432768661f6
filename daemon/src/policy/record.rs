//! PURE: the policy as it is kept: the rules and what a person said yes to, sealed by the vault as one record.

use std::collections::BTreeSet;
use std::path::PathBuf;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, RuleSubject};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::asks::Question;
use super::rule::{Rule, runs_others};
use crate::clock::Wall;
use crate::oauth::text::visible;

/// Everything that is kept. Replaced whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    version: u8,
    /// The number of the next rule or consent: none is given twice.
    next: u32,
    /// The rules, oldest first.
    pub rules: Vec<Rule>,
    /// What a person said yes to, oldest first.
    pub consents: Vec<Remembered>,
}

/// What one version of a file is told from another by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileStamp {
    /// Its number on its disk.
    pub inode: u64,
    /// Its length, bytes.
    pub size: u64,
    /// When it was last changed in any way (`ctime`), nanoseconds since 1970.
    pub changed: i64,
}

/// The files of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamps {
    /// Its executable.
    pub executable: FileStamp,
    /// The script of an interpreter.
    pub script: Option<FileStamp>,
}

/// A yes that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    id: u32,
    grant: GrantName,
    executable: PathBuf,
    script: Option<PathBuf>,
    stamps: Stamps,
    scopes: BTreeSet<String>,
    resource: Option<String>,
    given_at: Wall,
}

/// The newest form that this code reads, and the one that it writes.
const VERSION: u8 = 1;
/// The most rules and the most remembered answers.
const MOST: usize = 1000;

impl Default for Policy {
    fn default() -> Self {
        Self { version: VERSION, next: 1, rules: Vec::new(), consents: Vec::new() }
    }
}

impl Policy {
    /// Reads what [`Self::to_plaintext`] wrote; `None` for anything else, a later form too.
    pub fn from_plaintext(plaintext: &[u8]) -> Option<Self> {
        serde_json::from_slice(plaintext).ok().filter(|policy: &Self| policy.version == VERSION)
    }

    /// As it is sealed.
    pub fn to_plaintext(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self).expect("it has only string keys"))
    }

    /// Whether a rule names the grant.
    pub fn closes(&self, grant: &GrantName) -> bool {
        self.rules.iter().any(|rule| rule.grant == *grant)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// `invalid_request` for one that makes no sense, `conflict` past the most that are kept.
    pub fn add(&mut self, wanted: wire::NewRule, now: Wall) -> Result<Rule, ErrorBody> {
        if self.rules.len() >= MOST {
            let error = ErrorBody::new(ErrorCode::Conflict, format!("there are {MOST} rules already"));
            return Err(error.hint("mcp-authctl policy list, then mcp-authctl policy remove ID"));
        }
        let rule = Rule::new(self.next, wanted, now)?;
        self.next += 1;
        self.rules.push(rule.clone());
        Ok(rule)
    }

    /// Takes a rule or a remembered yes away: the grant that it was about, and whether that is open now.
    ///
    /// # Errors
    /// `not_found`.
    pub fn remove(&mut self, id: u32) -> Result<wire::RuleRemoved, ErrorBody> {
        if let Some(at) = self.rules.iter().position(|rule| rule.id == id) {
            let grant = self.rules.remove(at).grant;
            return Ok(wire::RuleRemoved { opens: !self.closes(&grant), grant });
        }
        let found = self.consents.iter().position(|consent| consent.id == id);
        let at =
            found.ok_or_else(|| ErrorBody::new(ErrorCode::NotFound, format!("there is no rule {id}")).hint("mcp-authctl policy list"))?;
        Ok(wire::RuleRemoved { grant: self.consents.remove(at).grant, opens: false })
    }

    /// Whether a person said yes to this before: the same program with the same bytes, the same resource, no further scopes.
    pub fn remembers(&self, question: &Question) -> bool {
        self.consents.iter().any(|consent| consent.is_for(question) && question.token.allows_at_most(&consent.scopes))
    }

    /// Keeps a yes in the place of what was said of the same program for the same. Nothing is kept of a program whose files
    /// cannot be told, or whose path no rule could name.
    pub fn remember(&mut self, question: &Question, now: Wall) {
        let (Some(executable), Some(stamps)) = (&question.asker.executable, question.asker.stamps) else { return };
        if executable.to_str().is_none() || question.asker.script.as_ref().is_some_and(|script| script.to_str().is_none()) {
            return;
        }
        self.consents.retain(|consent| !consent.is_about(question));
        if self.consents.len() >= MOST {
            self.consents.remove(0);
        }
        self.consents.push(Remembered {
            id: self.next,
            grant: question.grant.clone(),
            executable: executable.clone(),
            script: question.asker.script.clone(),
            stamps,
            scopes: question.token.scopes.clone(),
            resource: question.token.resource.clone(),
            given_at: now,
        });
        self.next += 1;
    }

    /// As `GET /v1/policy` shows it.
    pub fn shown(&self, now: Wall) -> wire::Policy {
        wire::Policy {
            rules: self.rules.iter().map(|rule| rule.shown(now)).collect(),
            consents: self.consents.iter().map(Remembered::shown).collect(),
            unreadable: false,
        }
    }

    /// The grants of which a program was allowed something that is not allowed in another policy.
    pub fn consents_not_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a GrantName> {
        self.consents.iter().filter(|mine| !other.consents.iter().any(|its| its.is_same_program(mine))).map(|mine| &mine.grant)
    }

    /// The grants that rules are about, once each.
    pub fn grants(&self) -> Vec<GrantName> {
        let mut grants: Vec<_> = self.rules.iter().map(|rule| rule.grant.clone()).collect();
        grants.sort();
        grants.dedup();
        grants
    }
}

impl Remembered {
    /// The same program by name, for the same grant and resource.
    fn is_about(&self, question: &Question) -> bool {
        let Question { asker, grant, token, .. } = question;
        Some(&self.executable) == asker.executable.as_ref()
            && self.script == asker.script
            && self.grant == *grant
            && self.resource == token.resource
    }

    fn is_for(&self, question: &Question) -> bool {
        self.is_about(question) && Some(self.stamps) == question.asker.stamps
    }

    fn is_same_program(&self, other: &Self) -> bool {
        (&self.executable, &self.script, &self.grant, &self.resource) == (&other.executable, &other.script, &other.grant, &other.resource)
    }

    fn shown(&self) -> wire::GivenConsent {
        let path = |path: &PathBuf| visible(&path.to_string_lossy());
        wire::GivenConsent {
            id: self.id,
            grant: self.grant.clone(),
            program: wire::Program {
                executable: Some(path(&self.executable)),
                script: self.script.as_ref().map(path),
                ..wire::Program::default()
            },
            scopes: self.scopes.iter().cloned().collect(),
            resource: self.resource.clone(),
            given_at: self.given_at.rfc3339(),
        }
    }
}

/// The subject of a test as the program that it stands for: anyone is a program that no rule names.
pub fn program_of(subject: &RuleSubject) -> super::Program {
    let named = match subject {
        RuleSubject::Program(named) => named.clone(),
        RuleSubject::Capability | RuleSubject::Client(_) | RuleSubject::Anyone => wire::RuleProgram::default(),
    };
    let executable = PathBuf::from(named.executable.unwrap_or_default());
    let interpreter = named.script.is_some() || runs_others(&executable);
    super::Program { executable, interpreter, script: named.script.map(PathBuf::from), unit: named.unit, stamps: None }
}

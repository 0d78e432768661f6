//! PURE: the issuer's state and the one way into it: a question, the time and randomness go in; an answer comes out, with the
//! changes that must be on disk before anybody sees it. Changes are applied by whoever has saved them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use zeroize::Zeroizing;

use super::Random;
use super::authorize::{Code as IssuedCode, Pending};
use super::clients::Settings;
use super::error::{Code, Refusal};
use super::family::Family;
use super::keys::{KeyError, SigningKey};
use super::params::Params;
use super::reply::Reply;
use crate::clock::Now;

/// What a program or a browser asks.
#[derive(Debug)]
pub(crate) enum Ask {
    /// `/oauth/authorize`: a new request.
    Authorize(Params),
    /// The page of a request asks whether it is decided.
    Poll(String),
    /// A button of that page was pressed.
    Press(Params),
    /// `/oauth/token`, from this client, which has proved who it is.
    Token(String, Params),
    /// `/oauth/revoke`, likewise.
    Revoke(String, Params),
    /// `/oauth/userinfo` with this access token.
    Userinfo(Zeroizing<String>),
    /// The public keys.
    Keys,
}

/// What it is told.
#[derive(Debug)]
pub(crate) enum Said {
    /// The answer.
    Now(Reply),
    /// Nothing has been decided: the page as it is, for when nobody wants to wait.
    Waiting(Reply),
}

/// An answer, and what must be saved before it is given.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) said: Said,
    pub(crate) changes: Vec<Change>,
}

/// A change of the families.
#[derive(Debug)]
pub(crate) enum Change {
    /// A family is new or has its next refresh token; it was got with this code.
    Save(Box<Family>, Option<Box<IssuedCode>>),
    /// A family has ended.
    End(String),
}

/// The state.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) settings: Settings,
    pub(super) issuer: String,
    /// What the person is called on this machine.
    pub(super) user: Option<String>,
    pub(super) holdings: Option<Holdings>,
    /// Families that have ended though the disk has not taken it yet.
    undeleted: HashSet<String>,
    pub(super) pending: Vec<Pending>,
    pub(super) codes: Vec<IssuedCode>,
}

/// What the vault holds for the issuer, while it is open.
#[derive(Debug)]
pub(crate) struct Holdings {
    pub(crate) key: SigningKey,
    /// The `sub` of everything: the one person of this vault.
    pub(crate) subject: String,
    pub(crate) families: HashMap<String, Family>,
}

impl Outcome {
    pub(crate) fn reply(reply: Reply) -> Self {
        Self { said: Said::Now(reply), changes: Vec::new() }
    }

    pub(crate) fn after(self, change: Change) -> Self {
        Self { changes: vec![change], ..self }
    }
}

impl Core {
    pub(crate) fn new(settings: Settings, user: Option<String>) -> Self {
        let issuer = settings.issuer();
        Self { settings, issuer, user, holdings: None, undeleted: HashSet::new(), pending: Vec::new(), codes: Vec::new() }
    }

    /// The config has changed: what is under way was asked under the old one.
    pub(crate) fn adopt(&mut self, settings: Settings) {
        self.issuer = settings.issuer();
        self.settings = settings;
        self.pending.clear();
        self.codes.clear();
    }

    /// The vault was opened, or closed.
    pub(crate) fn hold(&mut self, holdings: Option<Holdings>) {
        self.holdings = holdings;
        match &mut self.holdings {
            Some(holdings) => holdings.families.retain(|id, _| !self.undeleted.contains(id)),
            None => {
                self.pending.clear();
                self.codes.clear();
            }
        }
    }

    /// Answers.
    pub(crate) fn handle(&mut self, ask: Ask, now: Now, random: Random<'_>) -> Outcome {
        self.forget_old(now);
        match ask {
            Ask::Authorize(params) => self.authorize(&params, now, random),
            Ask::Poll(id) => self.poll(&id, now, random),
            Ask::Press(params) => self.press(&params, now, random),
            Ask::Token(client, params) => self.token(&client, &params, now, random).unwrap_or_else(|refusal| self.refused(refusal)),
            Ask::Revoke(client, params) => self.revoke(&client, &params).unwrap_or_else(|refusal| self.refused(refusal)),
            Ask::Userinfo(token) => Outcome::reply(self.userinfo(&token, now)),
            Ask::Keys => match &self.holdings {
                Some(holdings) => Outcome::reply(Reply::json(200, &holdings.key.jwks())),
                None => self.refused(LOCKED),
            },
        }
    }

    /// A change is on disk.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Save(family, code) => {
                self.codes.extend(code.map(|code| *code));
                if let Some(holdings) = &mut self.holdings {
                    holdings.families.insert(family.id.clone(), *family);
                }
            }
            Change::End(id) => {
                self.undeleted.remove(&id);
                self.forget(&id);
            }
        }
    }

    /// A change did not reach the disk: a code that was to be spent on it may be tried again. An end counts all the same.
    pub(crate) fn undo(&mut self, change: Change) {
        match change {
            Change::Save(_, code) => self.codes.extend(code.map(|code| IssuedCode { spent: None, ..*code })),
            Change::End(id) => {
                self.forget(&id);
                self.undeleted.insert(id);
            }
        }
    }

    /// Families to delete: their refresh token has lain unused for too long, or the disk did not take their end.
    pub(crate) fn to_end(&self, now: Now) -> Vec<String> {
        let families = self.holdings.iter().flat_map(|holdings| holdings.families.values());
        let stale = families.filter(|family| family.is_stale(now.boot)).map(|family| &family.id);
        stale.chain(&self.undeleted).cloned().collect()
    }

    /// Whether this family has ended and the disk has not taken it.
    pub(super) fn is_undeleted(&self, id: &str) -> bool {
        self.undeleted.contains(id)
    }

    fn forget(&mut self, id: &str) {
        if let Some(holdings) = &mut self.holdings {
            holdings.families.remove(id);
        }
    }

    /// A refusal as the token endpoint gives it.
    pub(super) fn refused(&self, refusal: Refusal) -> Outcome {
        Outcome::reply(Reply::refusal(refusal, &self.issuer))
    }

    pub(super) fn holdings(&self) -> Result<&Holdings, Refusal> {
        self.holdings.as_ref().ok_or(LOCKED)
    }

    fn forget_old(&mut self, now: Now) {
        self.pending.retain(|pending| now.boot < pending.until + AFTERLIFE);
        self.codes.retain(|code| now.boot < code.until + AFTERLIFE);
    }
}

impl From<KeyError> for Refusal {
    fn from(_: KeyError) -> Self {
        Self::new(Code::TemporarilyUnavailable, "the token cannot be signed")
    }
}

/// The vault gives no key.
pub(crate) const LOCKED: Refusal =
    Refusal { code: Code::TemporarilyUnavailable, description: "the vault of mcp-authd is locked: mcp-authctl unlock" };
/// The disk did not take a change.
pub(crate) const NOT_SAVED: Refusal =
    Refusal { code: Code::TemporarilyUnavailable, description: "mcp-authd cannot write to its vault: mcp-authctl status" };

/// How long what has ended is remembered: a page asks once more, a code is sent again.
const AFTERLIFE: Duration = Duration::from_secs(600);

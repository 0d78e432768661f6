//! The books of the misbehaving server: families of refresh tokens, what was rotated when, and what came again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::Digest as _;

use super::Seen;
use super::demands::Demands;

/// What a used refresh token that comes again means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// The whole family is revoked.
    Strict,
    /// For so long after its use it gets another successor; later the whole family is revoked.
    Grace(Duration),
}

/// How the server grants.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What stands as `expires_in`; `null` leaves it out.
    pub expires_in: Value,
    /// How long an access token is really valid.
    pub lifetime: Duration,
    /// Whether a refresh replaces the refresh token.
    pub rotate: bool,
    /// What a used refresh token means.
    pub reuse: Reuse,
    /// Who logs in.
    pub subject: String,
    /// What is insisted on.
    pub demands: Demands,
}

impl Rules {
    /// A strict server whose tokens live so long.
    pub fn strict(lifetime: Duration) -> Self {
        let (expires_in, demands) = (json!(lifetime.as_secs()), Demands::default());
        Self { expires_in, lifetime, rotate: true, reuse: Reuse::Strict, subject: "alice".into(), demands }
    }

    /// A server with a grace window.
    pub fn grace(lifetime: Duration, window: Duration) -> Self {
        Self { reuse: Reuse::Grace(window), ..Self::strict(lifetime) }
    }
}

/// What became of a refresh request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The token was good.
    Granted,
    /// The token was used already, within the grace window.
    Repeated,
    /// The token was used already: the family is revoked.
    Reused,
    /// The family is revoked.
    Revoked,
    /// The token is unknown.
    Unknown,
    /// A plan answered it, without effect.
    WithoutEffect,
}

/// One refresh request.
#[derive(Clone, Copy, Debug)]
pub struct Refresh {
    /// Which login, from 0.
    pub family: Option<usize>,
    /// Which token of it: the first is 0.
    pub generation: Option<u64>,
    /// What became of it.
    pub verdict: Verdict,
    /// When it was decided.
    pub at: Instant,
}

/// One issued access token.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The token.
    pub token: String,
    /// Which login, from 0.
    pub family: usize,
    /// The refresh token that came with it.
    pub generation: u64,
    /// When.
    pub at: Instant,
}

/// Which generation an access or refresh token of this server is of.
pub fn generation(token: &str) -> Option<u64> {
    token.split('.').nth(2)?.parse().ok()
}

#[derive(Debug)]
struct Family {
    subject: String,
    /// The newest generation that was issued.
    newest: u64,
    /// When each generation was used up.
    used: HashMap<u64, Instant>,
    revoked: bool,
}

#[derive(Debug)]
pub(super) struct Grants {
    pub(super) rules: Rules,
    families: Vec<Family>,
    /// Code to challenge.
    codes: HashMap<String, String>,
    /// Access token to its family and end.
    active: HashMap<String, (usize, Instant)>,
    serial: u64,
}

impl Grants {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, families: Vec::new(), codes: HashMap::new(), active: HashMap::new(), serial: 0 }
    }

    pub(super) fn authorize(&mut self, challenge: &str) -> String {
        self.serial += 1;
        let code = format!("zQaC9qz.{}.zQaC9qz", self.serial);
        self.codes.insert(code.clone(), challenge.to_owned());
        code
    }

    pub(super) fn token(&mut self, form: &BTreeMap<String, String>, commit: bool, seen: &mut Seen) -> (u16, Value) {
        let get = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        match get("grant_type") {
            "authorization_code" => self.exchange(get("code"), get("code_verifier"), seen),
            "refresh_token" => self.refresh(get("refresh_token"), commit, seen),
            // The code may be asked for again.
            "urn:ietf:params:oauth:grant-type:device_code" if !commit => (200, json!({})),
            "urn:ietf:params:oauth:grant-type:device_code" => self.exchange_device(get("device_code"), seen),
            _ => (400, json!({ "error": "unsupported_grant_type" })),
        }
    }

    pub(super) fn is_active(&self, token: &str, now: Instant) -> bool {
        self.active.get(token).is_some_and(|(_, end)| now < *end)
    }

    pub(super) fn subject(&self, token: &str, now: Instant) -> Option<String> {
        let (family, end) = self.active.get(token)?;
        (now < *end).then(|| self.families[*family].subject.clone())
    }

    pub(super) fn hand_out(&mut self) -> String {
        refresh_token(self.begin(), 0)
    }

    pub(super) fn steal(&mut self, family: usize) {
        let family = &mut self.families[family];
        family.used.insert(family.newest, Instant::now());
        family.newest += 1;
    }

    pub(super) fn revoke(&mut self, family: usize) {
        self.families[family].revoked = true;
    }

    /// Revocation by token (RFC 7009): a refresh token takes its family along.
    pub(super) fn forget(&mut self, token: &str) {
        self.active.remove(token);
        let family = token.strip_prefix("zQrT9qz.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        if let Some(family) = family.and_then(|at| self.families.get_mut(at)) {
            family.revoked = true;
        }
    }

    /// A device authorization (RFC 8628 section 3.2) whose person has finished already.
    pub(super) fn device(&mut self, issuer: &str) -> Value {
        let device_code = self.authorize("");
        json!({ "device_code": device_code, "user_code": "WDJB-MJHT", "verification_uri": format!("{issuer}/activate"), "interval": 1 })
    }

    fn exchange_device(&mut self, code: &str, seen: &mut Seen) -> (u16, Value) {
        if self.codes.remove(code).is_none() {
            return (400, json!({ "error": "expired_token" }));
        }
        let family = self.begin();
        (200, self.issue(family, seen))
    }

    fn exchange(&mut self, code: &str, verifier: &str, seen: &mut Seen) -> (u16, Value) {
        seen.verifiers.push(verifier.to_owned());
        let challenge = match verifier {
            "" if self.rules.demands.no_pkce => String::new(),
            verifier => URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(verifier.as_bytes())),
        };
        if self.codes.remove(code) != Some(challenge) {
            return (400, json!({ "error": "invalid_grant", "error_description": "the code or its verifier is wrong" }));
        }
        let family = self.begin();
        (200, self.issue(family, seen))
    }

    /// A new family: its number.
    fn begin(&mut self) -> usize {
        let family = Family { subject: self.rules.subject.clone(), newest: 0, used: HashMap::new(), revoked: false };
        self.families.push(family);
        self.families.len() - 1
    }

    fn refresh(&mut self, token: &str, commit: bool, seen: &mut Seen) -> (u16, Value) {
        let now = Instant::now();
        let family = token.split('.').nth(1).and_then(|number| number.parse::<usize>().ok()).filter(|at| *at < self.families.len());
        let generation = generation(token);
        let verdict = match (family, generation) {
            _ if !commit => Verdict::WithoutEffect,
            (Some(family), Some(generation)) => self.judge(family, generation, now),
            _ => Verdict::Unknown,
        };
        seen.refreshes.push(Refresh { family, generation, verdict, at: now });
        match (verdict, family, generation) {
            (Verdict::Granted | Verdict::Repeated, Some(family), Some(generation)) => {
                if self.rules.rotate {
                    self.families[family].used.entry(generation).or_insert(now);
                    self.families[family].newest += 1;
                }
                (200, self.issue(family, seen))
            }
            (Verdict::WithoutEffect, ..) => (200, json!({})),
            _ => (400, json!({ "error": "invalid_grant", "error_description": format!("{verdict:?}") })),
        }
    }

    fn judge(&mut self, family: usize, generation: u64, now: Instant) -> Verdict {
        let reuse = self.rules.reuse;
        let family = &mut self.families[family];
        if family.revoked {
            return Verdict::Revoked;
        }
        let Some(used) = family.used.get(&generation) else {
            // A lost successor that is used after the repeat was granted is as good as the newest.
            return if generation <= family.newest { Verdict::Granted } else { Verdict::Unknown };
        };
        match reuse {
            Reuse::Grace(window) if now.duration_since(*used) <= window => Verdict::Repeated,
            _ => {
                family.revoked = true;
                Verdict::Reused
            }
        }
    }

    fn issue(&mut self, family: usize, seen: &mut Seen) -> Value {
        self.serial += 1;
        let generation = self.families[family].newest;
        let token = format!("zQaT9qz.{family}.{generation}.{}.zQaT9qz", self.serial);
        let now = Instant::now();
        self.active.insert(token.clone(), (family, now + self.rules.lifetime));
        seen.issued.push(Issued { token: token.clone(), family, generation, at: now });
        let mut answer = json!({
            "access_token": token,
            "token_type": "Bearer",
            "refresh_token": refresh_token(family, generation),
            "scope": "mcp:read",
        });
        if !self.rules.expires_in.is_null() {
            answer["expires_in"] = self.rules.expires_in.clone();
        }
        answer
    }
}

fn refresh_token(family: usize, generation: u64) -> String {
    format!("zQrT9qz.{family}.{generation}.zQrT9qz")
}

//! Who may have which token: programs, the rules about them, and what they ask a person for.

use serde::{Deserialize, Serialize};

use crate::GrantName;

/// A program that asks, as far as the system tells. Texts are free of control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Program {
    /// The path of its executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// The path of the script, where the executable is an interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// The systemd unit that it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The grants of the capability socket that it came through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<GrantName>,
    /// The name of the client of the relay's port that it proved to be by its secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// What is not known of it, or not for sure, each as a clause without a subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weak: Vec<String>,
}

/// `POST /v1/capabilities`: a socket of its own for the process that asks, for the tokens of some grants and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityRequest {
    /// The grants, 1 to 16.
    pub grants: Vec<GrantName>,
}

/// The answer to `POST /v1/capabilities`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// The path of the socket. It is there until the process that asked ends.
    pub socket: String,
    /// The grants by their own names.
    pub grants: Vec<GrantName>,
}

/// What a program asks a person for: `GET /v1/consents/ID`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Consent {
    /// Names it in `mcp-authctl approve ID`: `1234-5678`.
    pub id: String,
    /// Who asks.
    pub program: Program,
    /// The grant whose token is asked for.
    pub grant: GrantName,
    /// What the token allows.
    pub scopes: Vec<String>,
    /// The resource that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The host that the token is for: the resource's, else the provider's.
    pub host: String,
    /// Whether a yes is remembered, so that the same program is not asked about again for the same.
    #[serde(default)]
    pub remember: bool,
    /// The seconds until nobody's answer counts as a no.
    pub expires_in: u64,
}

/// `POST /v1/consents/ID`: the person's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentDecision {
    /// Whether the program may have it.
    pub allow: bool,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleSubject {
    /// Whoever came through a capability socket of the grant (`mcp-authctl exec --only`).
    Capability,
    /// A client of the relay's port (`mcp-authctl relay add`), by its name.
    Client(String),
    /// A program; everything that is named here must be so.
    Program(RuleProgram),
    /// Every process of the user that no other rule of the grant is about.
    Anyone,
}

/// A program that a rule is about. At least one of the three is named; an interpreter's executable never alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleProgram {
    /// The absolute path of its executable, without symbolic links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// The absolute path of the script that an interpreter runs, without symbolic links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// The systemd unit that it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// What a rule says to whom it is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAnswer {
    /// The token, without a question.
    #[default]
    Allow,
    /// A person is asked the first time, and a yes is remembered.
    AskOnce,
    /// A person is asked every time.
    AskAlways,
    /// No.
    Deny,
}

/// One rule of `GET /v1/policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its number, which no other rule or consent ever gets.
    pub id: u32,
    /// The grant that it closes for everybody else: exactly this one.
    pub grant: GrantName,
    /// Whom it is about.
    pub subject: RuleSubject,
    /// What it says.
    pub answer: RuleAnswer,
    /// The most that the token may allow; absent: whatever it allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The resource that the token must be bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// How many tokens a minute it gives, to all whom it is about together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u16>,
    /// When it ends. The grant stays closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// It has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// `POST /v1/policy`: one more rule. The answer is the [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRule {
    /// The grant. A bare name that stands for a grant with a label means that one.
    pub grant: GrantName,
    /// Whom it is about.
    pub subject: RuleSubject,
    /// What it says.
    #[serde(default)]
    pub answer: RuleAnswer,
    /// The most that the token may allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The resource that the token must be bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// How many tokens a minute it gives, 1 to 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u16>,
    /// When it ends, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The same in seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// A yes that was remembered: this program, exactly as its files were then, may have this much without a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenConsent {
    /// Its number, which no rule has.
    pub id: u32,
    /// The grant.
    pub grant: GrantName,
    /// The program.
    pub program: Program,
    /// What the token allowed then.
    pub scopes: Vec<String>,
    /// The resource that it was bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// When a person said yes, RFC 3339.
    pub given_at: String,
}

/// `GET /v1/policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The rules, oldest first.
    pub rules: Vec<Rule>,
    /// What was allowed when a program asked, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consents: Vec<GivenConsent>,
    /// The vault's record of the policy cannot be read: nobody gets a token of any grant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// The answer of `DELETE /v1/policy/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRemoved {
    /// The grant that it was about.
    pub grant: GrantName,
    /// It was the grant's last rule: every process of the user gets its tokens again.
    #[serde(default)]
    pub opens: bool,
}

/// `POST /v1/policy/test`: what would happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyQuestion {
    /// The grant.
    pub grant: GrantName,
    /// Who would ask.
    pub subject: RuleSubject,
    /// The scopes that would be asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// What a test, or a request, would come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyOutcome {
    /// The token.
    Allow,
    /// A person is asked.
    Ask,
    /// Nothing.
    Deny,
}

/// The answer of `POST /v1/policy/test`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyAnswer {
    /// The grant that the name stands for.
    pub grant: GrantName,
    /// What would happen.
    pub outcome: PolicyOutcome,
    /// The rule that says so; absent: no rule is about that program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Why, one sentence.
    pub reason: String,
}

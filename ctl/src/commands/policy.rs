//! `policy`: who may have which token: shows the rules, adds and removes them, and says what they would do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use mcp_auth_proto::{
    AuditRequest, Client, GivenConsent, GrantName, NewRule, Policy, PolicyOutcome, PolicyQuestion, Rule, RuleAnswer, RuleProgram,
    RuleSubject, event,
};

use super::consent::program_lines;
use crate::ask;
use crate::failure::Failure;
use crate::output::{self, field, span};

/// Say which programs may have which tokens
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl policy list
  mcp-authctl policy add github --program /usr/bin/github-mcp-server
  mcp-authctl policy test github --program /usr/bin/curl
  mcp-authctl policy remove 1

A grant that no rule names is open to every program of yours. Its first rule closes
it for all others, for `mcp-authctl token` too; whoever is not named is asked about:
`mcp-authctl approve`.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the rules, and what you allowed when a program asked
    #[command(after_help = "Example:\n  mcp-authctl policy list")]
    List,
    /// Let a program have a grant's tokens, and close the grant for the others
    Add(Box<Add>),
    /// Take a rule, or something that you allowed, away
    #[command(after_help = "\
Examples:
  mcp-authctl policy remove 1          a number of `policy list`

Without its last rule the grant is open to every program of yours again: this asks first, --yes does
not.")]
    Remove {
        /// Its number
        id: u32,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Say what would happen if a program asked
    #[command(after_help = "\
Examples:
  mcp-authctl policy test github --program /usr/bin/curl
  mcp-authctl policy test github --script ~/mcp/server.py --scope repo
Exit codes: 0 it would get the token, or you would be asked; 6 it would not.")]
    Test {
        /// The grant's name
        grant: GrantName,
        #[command(flatten)]
        subject: Subject,
        /// A scope that it would ask for; may be repeated, or hold several separated by spaces
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ' ')]
        scopes: Vec<String>,
    },
    /// Take every rule away, also where the vault's record of them is damaged
    #[command(after_help = "\
Example:
  mcp-authctl policy reset

It opens every grant to every program of yours, and asks first; --yes does not.")]
    Reset {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
#[command(override_usage = "mcp-authctl policy add GRANT WHO [OPTIONS]")]
#[command(after_help = "\
Examples:
  mcp-authctl policy add github --program /usr/bin/github-mcp-server
  mcp-authctl policy add github --script ~/mcp/server.py --scope \"repo read:user\"
  mcp-authctl policy add notion --unit my-agent.service --per-minute 10
  mcp-authctl policy add github --anyone --ask always       you are asked about every token
  mcp-authctl policy add github --anyone --deny             nobody else, and you are not asked
  mcp-authctl policy add github --program ./try --expires 3600")]
struct Add {
    /// The grant's name
    grant: GrantName,
    #[command(flatten)]
    subject: Subject,
    /// Whether you are asked before it gets a token
    #[arg(long, value_enum, default_value_t = Ask::Never, conflicts_with = "deny")]
    ask: Ask,
    /// It gets nothing
    #[arg(long)]
    deny: bool,
    /// The most that the token may allow; may be repeated, or hold several separated by spaces
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ' ')]
    scopes: Vec<String>,
    /// The MCP server that the token must be for
    #[arg(long, value_name = "URL")]
    resource: Option<String>,
    /// How many tokens a minute it gets
    #[arg(long, value_name = "N")]
    per_minute: Option<u16>,
    /// When the rule ends: a time (RFC 3339), or seconds from now. The grant stays closed
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Whom a rule is about.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Subject {
    /// The executable; for an interpreter name the script, or the unit
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// The script that an interpreter runs
    #[arg(long, value_name = "PATH")]
    script: Option<PathBuf>,
    /// The systemd unit that it runs in
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,
    /// What `mcp-authctl exec --only` started
    #[arg(long, conflicts_with_all = ["program", "script", "unit"])]
    capability: bool,
    /// The client of the relay's port, by its name in `relay list`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["program", "script", "unit", "capability"])]
    client: Option<String>,
    /// Every program that no other rule of the grant names
    #[arg(long, conflicts_with_all = ["program", "script", "unit", "capability", "client"])]
    anyone: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ask {
    /// It gets the token without a question
    Never,
    /// The first time, and a yes is remembered
    Once,
    /// Every time
    Always,
}

pub(crate) fn run(args: Args, client: &Client, json: bool) -> Result<(), Failure> {
    match args.verb {
        Verb::List => list(&client.policy()?, json),
        Verb::Add(wanted) => add(*wanted, client, json),
        Verb::Remove { id, yes } => remove(id, yes, client, json),
        Verb::Test { grant, subject, scopes } => test(&PolicyQuestion { grant, subject: subject.checked()?, scopes }, client, json),
        Verb::Reset { yes } => reset(yes, client, json),
    }
}

fn list(policy: &Policy, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(policy);
    }
    if policy.unreadable {
        output::warning("the policy in the vault cannot be read: nobody gets a token; `mcp-authctl policy reset` opens every grant again");
    } else if policy.rules.is_empty() {
        output::note("no rules: every program of yours may have every token");
    }
    for rule in &policy.rules {
        output::line(&sentence(rule))?;
    }
    for consent in &policy.consents {
        output::line(&allowed(consent))?;
    }
    Ok(())
}

/// `1  github  /usr/bin/foo gets tokens, at most of repo`
fn sentence(rule: &Rule) -> String {
    let mut text = format!("{:<3} {}  {} {}", rule.id, rule.grant, who(&rule.subject), says(rule.answer));
    if let Some(scopes) = &rule.scopes {
        text.push_str(&format!("\n      at most {}", field(&scopes.join(" "))));
    }
    if let Some(resource) = &rule.resource {
        text.push_str(&format!("\n      for {}", field(resource)));
    }
    if let Some(rate) = rule.per_minute {
        text.push_str(&format!("\n      {rate} a minute"));
    }
    if let Some(at) = &rule.expires_at {
        text.push_str(&format!("\n      {} {}", if rule.expired { "ended" } else { "until" }, field(at)));
    }
    text
}

fn who(subject: &RuleSubject) -> String {
    match subject {
        RuleSubject::Anyone => "every other program".into(),
        RuleSubject::Capability => "what `exec --only` starts".into(),
        RuleSubject::Client(name) => format!("{} (client of the relay)", field(name)),
        RuleSubject::Program(RuleProgram { executable, script, unit }) => {
            let named = [executable.as_deref(), script.as_deref(), unit.as_deref()];
            named.into_iter().flatten().map(field).collect::<Vec<_>>().join(", ")
        }
    }
}

fn says(answer: RuleAnswer) -> &'static str {
    match answer {
        RuleAnswer::Allow => "gets tokens",
        RuleAnswer::AskOnce => "gets tokens once you agree",
        RuleAnswer::AskAlways => "gets a token whenever you agree",
        RuleAnswer::Deny => "gets none",
    }
}

fn allowed(consent: &GivenConsent) -> String {
    let (at, program) = (field(&consent.given_at), program_lines(&consent.program).join(", "));
    format!("{:<3} {}  you allowed {program}\n      on {at}", consent.id, consent.grant)
}

fn add(wanted: Add, client: &Client, json: bool) -> Result<(), Failure> {
    let subject = wanted.subject.checked()?;
    let (expires_in, expires_at) = match wanted.expires.as_deref().map(str::parse::<u64>) {
        Some(Ok(seconds)) => (Some(seconds), None),
        Some(Err(_)) => (None, wanted.expires),
        None => (None, None),
    };
    // A bare name may stand for a grant with a label: that is the one that the rule closes.
    let grant = client.grant(&wanted.grant).map_or(wanted.grant, |held| held.name);
    let rule = NewRule {
        grant,
        subject,
        answer: if wanted.deny { RuleAnswer::Deny } else { wanted.ask.into() },
        scopes: (!wanted.scopes.is_empty()).then_some(wanted.scopes),
        resource: wanted.resource,
        per_minute: wanted.per_minute,
        expires_at,
        expires_in,
    };
    warn_of_everybody(&rule);
    let closes = client.policy()?.rules.iter().all(|there| there.grant != rule.grant);
    if closes {
        tell_who_had_it(&rule.grant, client);
    }
    if closes && !wanted.yes {
        let question = format!("this closes {} for every other program of yours; go on?", rule.grant);
        if ask::yes_or_no(&question, true)? == Some(false) {
            return Err(Failure::Cancelled);
        }
    }
    let rule = client.add_rule(&rule)?;
    if json {
        return output::json(&rule);
    }
    output::line(&sentence(&rule))?;
    if closes {
        output::note(&format!("{} is closed for every other program; whoever asks is asked about: `mcp-authctl approve`", rule.grant));
    }
    Ok(())
}

/// Whom the first rule shuts out, unless it names them. A daemon without an audit says nothing of that.
fn tell_who_had_it(grant: &GrantName, client: &Client) {
    let within = Some(LATELY.as_secs());
    let request = AuditRequest { grant: Some(grant.clone()), event: Some(event::TOKEN.to_owned()), within, ..AuditRequest::default() };
    let lines = client.audit(&request).unwrap_or_default();
    let mut had: Vec<String> = lines.iter().filter_map(|line| line.program.as_ref()).map(|it| program_lines(it).join(", ")).collect();
    had.sort();
    had.dedup();
    if !had.is_empty() {
        output::note(&format!("in the last {} tokens of {grant} went to", span(LATELY.as_secs())));
        had.iter().for_each(|program| output::note(&format!("  {program}")));
    }
}

/// How far back it is of interest who had a token.
const LATELY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Some rules are not as narrow as they look.
fn warn_of_everybody(rule: &NewRule) {
    if rule.answer != RuleAnswer::Allow {
        return;
    }
    match &rule.subject {
        RuleSubject::Program(RuleProgram { executable: Some(executable), .. })
            if Path::new(executable).file_stem().is_some_and(|name| name == "mcp-authctl") =>
        {
            output::warning(&format!("every program of yours can run mcp-authctl: this rule opens {} to all of them", rule.grant));
        }
        RuleSubject::Client(_) => output::warning(
            "the secret lies in the client's config, where every program of yours can read it, and each can give the name a new one",
        ),
        RuleSubject::Capability => output::warning(
            "every program of yours can start itself by `exec --only`: with `--ask once` you are asked about each program first",
        ),
        _ => {}
    }
}

fn remove(id: u32, yes: bool, client: &Client, json: bool) -> Result<(), Failure> {
    let policy = client.policy()?;
    if let Some(rule) = policy.rules.iter().find(|rule| rule.id == id)
        && policy.rules.iter().filter(|other| other.grant == rule.grant).count() == 1
        && !yes
    {
        let question = format!("it is the last rule of {}: every program of yours gets its tokens then; go on?", rule.grant);
        may_open(&question, format!("mcp-authctl policy remove {id} --yes"))?;
    }
    let removed = client.remove_rule(id)?;
    if json {
        return output::json(&removed);
    }
    let open = if removed.opens { format!("; {} is open to every program of yours", removed.grant) } else { String::new() };
    output::note(&format!("removed{open}"));
    Ok(())
}

/// Nothing is opened to everybody but by a person's word: at the terminal, or by the option.
fn may_open(question: &str, without_terminal: String) -> Result<(), Failure> {
    match ask::yes_or_no(question, false)? {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::Cancelled),
        None => Err(Failure::NobodyToAsk(without_terminal)),
    }
}

fn test(question: &PolicyQuestion, client: &Client, json: bool) -> Result<(), Failure> {
    let answer = client.test_policy(question)?;
    if json {
        output::json(&answer)?;
    } else {
        let word = match answer.outcome {
            PolicyOutcome::Allow => "allowed",
            PolicyOutcome::Ask => "asked about",
            PolicyOutcome::Deny => "refused",
        };
        output::line(&format!("{word}: {}", field(&answer.reason)))?;
    }
    if answer.outcome == PolicyOutcome::Deny { Err(Failure::Quiet(Box::new(Failure::NotAllowed(answer.reason)))) } else { Ok(()) }
}

fn reset(yes: bool, client: &Client, json: bool) -> Result<(), Failure> {
    if !yes {
        may_open("this opens every grant to every program of yours; go on?", "mcp-authctl policy reset --yes".into())?;
    }
    let policy = client.reset_policy()?;
    if json {
        return output::json(&policy);
    }
    output::note("no rules any more: every program of yours may have every token");
    Ok(())
}

impl Subject {
    /// Paths as the system will show them: absolute, and without links.
    fn checked(self) -> Result<RuleSubject, Failure> {
        if self.anyone {
            return Ok(RuleSubject::Anyone);
        }
        if self.capability {
            return Ok(RuleSubject::Capability);
        }
        if let Some(name) = self.client {
            return Ok(RuleSubject::Client(name));
        }
        let executable = self.program.map(real_path).transpose()?;
        let script = self.script.map(real_path).transpose()?;
        Ok(RuleSubject::Program(RuleProgram { executable, script, unit: self.unit }))
    }
}

fn real_path(path: PathBuf) -> Result<String, Failure> {
    let real = path.canonicalize().map_err(|source| Failure::NoProgram { path: path.clone(), source })?;
    if real.is_dir() {
        return Err(Failure::NoProgram { path, source: std::io::ErrorKind::IsADirectory.into() });
    }
    real.into_os_string().into_string().map_err(|_| Failure::NoProgram { path, source: std::io::ErrorKind::InvalidFilename.into() })
}

impl From<Ask> for RuleAnswer {
    fn from(ask: Ask) -> Self {
        match ask {
            Ask::Never => Self::Allow,
            Ask::Once => Self::AskOnce,
            Ask::Always => Self::AskAlways,
        }
    }
}

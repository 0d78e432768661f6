//! `git-credential`: a credential helper for git (gitcredentials(7)), for one grant and the hosts of its provider.

use std::io::BufRead;

use mcp_auth_proto::{Client, ClientError, GrantName, Secret, TokenAnswer, TokenRequest};
use zeroize::Zeroizing;

use super::token;
use crate::failure::Failure;
use crate::output;

/// Answer git's questions for a user name and password with a fresh token
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  git config --global --replace-all credential.https://github.com.helper ''
  git config --global --add \\
    credential.https://github.com.helper '!mcp-authctl git-credential github'
  git config --global credential.https://git.example.helper \\
    '!mcp-authctl git-credential work --host git.example'

A token goes only to the host of the grant's provider, or to a --host, over https. The first line
keeps helpers that are set for all hosts from storing it. git 2.40 and newer honour the expiry that
comes with a token; git 2.46 and newer get it as a bearer token where the server takes nothing else.")]
pub(crate) struct Args {
    /// The grant whose token is the password
    #[arg(value_name = "NAME")]
    grant: GrantName,
    /// A host, with its port if it has one, that the token may go to; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// The user name that goes with the token, where the server looks at it [default: oauth2; bitbucket.org: x-token-auth]
    #[arg(long, value_name = "NAME", value_parser = user_name)]
    username: Option<String>,
    /// What git wants: get, store or erase
    #[arg(value_name = "OPERATION")]
    operation: String,
}

/// What git says about the credential that it wants or returns.
#[derive(Default)]
struct Asked {
    protocol: String,
    host: String,
    /// The password, or the bearer token: ours are the same.
    password: Option<Secret>,
    can_bearer: bool,
    challenges: Vec<String>,
}

const LONGEST: u64 = 1024 * 1024;

impl Args {
    /// `NAME [--host HOST | --username NAME]... OPERATION`, as git runs it. Everything else is for the argument parser.
    pub(crate) fn plain(words: &[&str]) -> Option<Self> {
        let (grant, rest) = words.split_first()?;
        let (operation, options) = rest.split_last().filter(|(operation, _)| !operation.starts_with('-'))?;
        let mut args = Self { grant: grant.parse().ok()?, hosts: Vec::new(), username: None, operation: (*operation).to_owned() };
        for option in options.chunks(2) {
            match option {
                ["--host", host] if !host.starts_with('-') => args.hosts.push((*host).to_owned()),
                ["--username", name] if args.username.is_none() && !name.starts_with('-') => args.username = Some(user_name(name).ok()?),
                _ => return None,
            }
        }
        Some(args)
    }
}

/// git's protocol is one of lines, and a colon ends a user name (RFC 7617, section 2).
fn user_name(text: &str) -> Result<String, &'static str> {
    let is_none = text.is_empty() || text.chars().any(|c| c.is_control() || c == ':');
    if is_none { Err("a user name is one line without a colon") } else { Ok(text.to_owned()) }
}

pub(crate) fn run(args: &Args, client: &Client) -> Result<(), Failure> {
    let asked = Asked::read(std::io::stdin().lock())?;
    match args.operation.as_str() {
        "get" => get(args, &asked, client),
        "erase" => erase(args, &asked, client),
        // A success has nothing to `store` with us, and the operations of later versions of git must be ignored.
        _ => Ok(()),
    }
}

fn get(args: &Args, asked: &Asked, client: &Client) -> Result<(), Failure> {
    if !asked.is_private() {
        output::note(&format!("mcp-authctl gives no token to {}://{}", asked.protocol, output::field(&asked.host)));
        return Ok(());
    }
    if !is_allowed(args, &asked.host, client)? {
        let host = output::field(&asked.host);
        // Whoever wrote the address chose the words in it; some are no host, but a command for those who paste them.
        let way = if is_plain(&asked.host) { format!("; `--host {host}` allows it") } else { String::new() };
        output::note(&format!("{} gives no token to {host}{way}", args.grant));
        return Ok(());
    }
    let request = TokenRequest { min_valid_for: Some(30), ..TokenRequest::for_grant(args.grant.as_str()) };
    let answer = client.token(&request).map_err(Failure::from).and_then(|answer| token::check(&answer).map(|()| answer));
    match answer {
        Ok(answer) => output::bytes(asked.reply(&answer, args.username.as_deref()).as_bytes()),
        Err(failure) => {
            // Nobody shall be asked for a password that does not exist.
            output::bytes(b"quit=1\n")?;
            Err(failure)
        }
    }
}

/// git says that a password was refused: the token is worn out before its time.
fn erase(args: &Args, asked: &Asked, client: &Client) -> Result<(), Failure> {
    // Every helper is told, whoever it was that gave the password: one for another host is none of the daemon's business.
    let Some(refused) = &asked.password else { return Ok(()) };
    if asked.is_private() && is_allowed(args, &asked.host, client)? {
        client.token(&TokenRequest { rejected_token: Some(refused.clone()), ..TokenRequest::for_grant(args.grant.as_str()) })?;
    }
    Ok(())
}

/// Whether a token may go to this host: one that the arguments name, else one of the grant's provider.
fn is_allowed(args: &Args, host: &str, client: &Client) -> Result<bool, Failure> {
    if !args.hosts.is_empty() {
        return Ok(args.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)));
    }
    let is_host = |url: &Option<String>| url.as_deref().and_then(host_of).is_some_and(|found| found.eq_ignore_ascii_case(host));
    let grant = match client.grant(&args.grant) {
        Ok(grant) => Some(grant),
        // What is wrong with it is told when its token is asked for. Until then its name tells the provider.
        Err(ClientError::Api(_)) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(grant) = &grant {
        let is_own = is_host(&grant.authorization_endpoint) || is_host(&grant.issuer) || is_host(&grant.resource);
        if is_own || grant.authorization_endpoint.is_some() {
            return Ok(is_own);
        }
    }
    // No person allowed it at an address of its own (a static token, a device flow), or there is none.
    let provider = grant.as_ref().map_or(args.grant.base(), |grant| &grant.provider);
    let providers = client.providers()?;
    let mut own = providers.iter().filter(|own| own.name == provider);
    Ok(own.any(|own| is_host(&own.authorization_endpoint) || is_host(&own.issuer)))
}

/// Whether a text is a host, with its port if it has one, and nothing that a shell would obey.
fn is_plain(host: &str) -> bool {
    let starts = host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    starts && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c))
}

/// What a forge wants as the user name. GitLab takes an OAuth token with this one alone (docs.gitlab.com/api/oauth2), GitHub,
/// Gitea and Forgejo with any; Bitbucket Cloud has its own (support.atlassian.com, "Use OAuth on Bitbucket Cloud").
fn word_for_a_token(host: &str) -> &'static str {
    if host.eq_ignore_ascii_case("bitbucket.org") { "x-token-auth" } else { "oauth2" }
}

/// The host of an https URL, with its port.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next()?;
    (!host.is_empty() && !host.contains('@')).then_some(host)
}

impl Asked {
    fn read(input: impl BufRead) -> Result<Self, Failure> {
        let unreadable = |source| Failure::Input { what: "git's question", source };
        let mut text = Zeroizing::new(String::with_capacity(4096));
        std::io::Read::read_to_string(&mut std::io::Read::take(input, LONGEST), &mut text).map_err(unreadable)?;
        let mut asked = Self::default();
        // Not `lines`: it takes a carriage return away, and with it what makes this another host (CVE-2024-52006).
        for (name, value) in text.split('\n').take_while(|line| !line.is_empty()).filter_map(|line| line.split_once('=')) {
            match name {
                "protocol" => asked.protocol = value.to_owned(),
                "host" => asked.host = value.to_owned(),
                "password" | "credential" => asked.password = Some(Secret::new(value)),
                "capability[]" => asked.can_bearer |= value == "authtype",
                "wwwauth[]" => asked.challenges.push(value.to_ascii_lowercase()),
                _ => {}
            }
        }
        Ok(asked)
    }

    /// https, or this machine.
    fn is_private(&self) -> bool {
        let port = self.host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let name = port.map_or(self.host.as_str(), |(name, _)| name);
        self.protocol == "https" || (self.protocol == "http" && matches!(name, "localhost" | "127.0.0.1" | "[::1]"))
    }

    /// Whether the server takes a bearer token and no password, and git can send one.
    fn wants_bearer(&self) -> bool {
        let offers = |scheme: &str| self.challenges.iter().any(|challenge| challenge.starts_with(scheme));
        self.can_bearer && offers("bearer") && !offers("basic")
    }

    /// The user name in the repository's address is not repeated: it is a person's, and forges that look at the name want
    /// their own word for a token.
    fn reply(&self, answer: &TokenAnswer, username: Option<&str>) -> Zeroizing<String> {
        let token = answer.access_token.expose();
        let mut text = Zeroizing::new(String::with_capacity(token.len() + 256));
        // `authtype=Basic` with `ephemeral=1` would keep other helpers from storing the token, but git 2.46 to 2.52 leave such
        // a credential out of the first request of a push over http.postBuffer (1 MiB), which fails.
        if self.wants_bearer() {
            text.push_str("capability[]=authtype\nauthtype=Bearer\nephemeral=1\ncredential=");
        } else {
            text.push_str(&format!("username={}\npassword=", username.unwrap_or_else(|| word_for_a_token(&self.host))));
        }
        text.push_str(token);
        text.push('\n');
        if let Some(seconds) = answer.expires_in {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            text.push_str(&format!("password_expiry_utc={}\n", now.as_secs() + kept_for(seconds)));
        }
        text
    }
}

/// How long a helper that caches may give a token away again: not for the last request that it lives, and git still takes
/// a password in the second that is named as its end.
fn kept_for(seconds: u64) -> u64 {
    seconds.saturating_sub(1 + (seconds / 10).min(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_gives_a_token_up_before_its_end() {
        assert_eq!([0, 1, 2, 10, 60, 3600].map(kept_for), [0, 0, 1, 8, 53, 3589]);
    }

    #[test]
    fn a_carriage_return_belongs_to_the_value_that_it_ends() {
        let asked = Asked::read("protocol=https\nhost=git.example\r\n\n".as_bytes()).unwrap();
        assert_eq!((asked.protocol.as_str(), asked.host.as_str()), ("https", "git.example\r"));
        let asked = Asked::read("protocol=https\nhost=git.example\n\nhost=other\n".as_bytes()).unwrap();
        assert_eq!(asked.host, "git.example");
    }

    #[test]
    fn only_a_host_is_offered_for_pasting() {
        for host in ["git.example", "git.example:8443", "[::1]:3000", "127.0.0.1", "a_b-c"] {
            assert!(is_plain(host), "{host}");
        }
        for host in ["", "$(id)", "a;b", "a b", "a`b`", "a@b", "-x", "gít.example", "a\rb", "a'b", "a|b", "a/b"] {
            assert!(!is_plain(host), "{host}");
        }
    }

    #[test]
    fn a_host_is_taken_with_its_port_and_never_from_before_an_at_sign() {
        let hosts =
            ["https://github.com/login", "https://git.example.com:8443", "https://a@b.example", "ssh://x", "https:///x"].map(host_of);
        assert_eq!(hosts, [Some("github.com"), Some("git.example.com:8443"), None, None, None]);
    }
}

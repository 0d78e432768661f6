//! `git-credential`: a credential helper for git (gitcredentials(7)), for one grant and the hosts of its provider.

use std::io::BufRead;

use mcp_auth_proto::{Client, GrantName, Secret, TokenAnswer, TokenRequest};
use zeroize::Zeroizing;

use super::token;
use crate::failure::Failure;
use crate::output;

/// Answer git's questions for a user name and password with a fresh token
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  git config --global credential.https://github.com.helper '!mcp-authctl git-credential github'
  git config --global credential.https://git.example.com.helper '!mcp-authctl git-credential work --host git.example.com'

A token goes only to the host of the grant's provider, or to a --host, over https. git 2.40 and newer honour the
expiry that comes with it; git 2.46 and newer may get it as a bearer token where the server takes nothing else.")]
pub(crate) struct Args {
    /// The grant whose token is the password
    #[arg(value_name = "NAME")]
    grant: GrantName,
    /// A host, with its port if it has one, that the token may go to; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// What git wants: get, store or erase
    #[arg(value_name = "OPERATION")]
    operation: String,
}

/// What git says about the credential that it wants or returns.
#[derive(Default)]
struct Asked {
    protocol: String,
    host: String,
    username: Option<String>,
    password: Option<Secret>,
    can_bearer: bool,
    challenges: Vec<String>,
}

const LONGEST: u64 = 1024 * 1024;

pub(crate) fn run(args: &Args, client: &Client) -> Result<(), Failure> {
    let asked = Asked::read(std::io::stdin().lock())?;
    match args.operation.as_str() {
        "get" => get(args, &asked, client),
        // Told so after a success; there is nothing to keep.
        "store" => Ok(()),
        "erase" => erase(args, asked, client),
        // Operations of later versions of git must be ignored.
        _ => Ok(()),
    }
}

fn get(args: &Args, asked: &Asked, client: &Client) -> Result<(), Failure> {
    if !asked.is_private() {
        output::note(&format!("mcp-authctl gives no token to {}://{}", asked.protocol, output::field(&asked.host)));
        return Ok(());
    }
    if !allowed_hosts(args, client)?.iter().any(|host| host.eq_ignore_ascii_case(&asked.host)) {
        let host = output::field(&asked.host);
        output::note(&format!("{} gives no token to {host}; `--host {host}` allows it", args.grant));
        return Ok(());
    }
    let request = TokenRequest { min_valid_for: Some(30), ..TokenRequest::for_grant(args.grant.as_str()) };
    let answer = match client.token(&request) {
        Ok(answer) => answer,
        Err(error) => {
            // Nobody shall be asked for a password that does not exist.
            output::bytes(b"quit=1\n")?;
            return Err(error.into());
        }
    };
    token::check(&answer)?;
    output::bytes(asked.reply(&answer).as_bytes())
}

/// git says that a password was refused: the token is worn out before its time.
fn erase(args: &Args, asked: Asked, client: &Client) -> Result<(), Failure> {
    if let Some(rejected_token) = asked.password {
        client.token(&TokenRequest { rejected_token: Some(rejected_token), ..TokenRequest::for_grant(args.grant.as_str()) })?;
    }
    Ok(())
}

/// The hosts named in the arguments, else those of the grant's provider.
fn allowed_hosts(args: &Args, client: &Client) -> Result<Vec<String>, Failure> {
    if !args.hosts.is_empty() {
        return Ok(args.hosts.clone());
    }
    let grant = client.grant(&args.grant)?;
    let providers = client.providers()?;
    let provider = providers.iter().find(|provider| provider.name == grant.provider);
    let endpoint = provider.and_then(|provider| provider.authorization_endpoint.clone());
    let urls = [grant.issuer, endpoint, grant.resource];
    Ok(urls.into_iter().flatten().filter_map(|url| host_of(&url).map(str::to_owned)).collect())
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
        for (name, value) in text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once('=')) {
            match name {
                "protocol" => asked.protocol = value.to_owned(),
                "host" => asked.host = value.to_owned(),
                "username" => asked.username = Some(value.to_owned()),
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
        let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name);
        self.protocol == "https" || (self.protocol == "http" && matches!(name, "localhost" | "127.0.0.1" | "[::1]"))
    }

    /// Whether the server takes a bearer token and no password, and git can send one.
    fn wants_bearer(&self) -> bool {
        let offers = |scheme: &str| self.challenges.iter().any(|challenge| challenge.starts_with(scheme));
        self.can_bearer && offers("bearer") && !offers("basic")
    }

    fn reply(&self, answer: &TokenAnswer) -> Zeroizing<String> {
        let token = answer.access_token.expose();
        let mut text = Zeroizing::new(String::with_capacity(token.len() + 256));
        if self.wants_bearer() {
            text.push_str("capability[]=authtype\nauthtype=Bearer\nephemeral=1\ncredential=");
        } else {
            // Every forge known takes any name with a token; this is the one that they document for OAuth.
            text.push_str(&format!("username={}\npassword=", self.username.as_deref().unwrap_or("oauth2")));
        }
        text.push_str(token);
        text.push('\n');
        if let Some(seconds) = answer.expires_in {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            text.push_str(&format!("password_expiry_utc={}\n", now.as_secs() + seconds));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_taken_with_its_port_and_never_from_before_an_at_sign() {
        let hosts =
            ["https://github.com/login", "https://git.example.com:8443", "https://a@b.example", "ssh://x", "https:///x"].map(host_of);
        assert_eq!(hosts, [Some("github.com"), Some("git.example.com:8443"), None, None, None]);
    }
}

//! `bridge`: what an MCP client starts in place of a remote MCP server. The arguments; the work is `crate::bridge`'s.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};
use mcp_auth_proto::{GrantName, LoginFlow, LoginRequest, socket_path};

use super::bearer::{BearerArgs, Stdin};
use super::login::remote::ClientArgs;
use super::target::Target;
use crate::bridge::{self, Bridge};
use crate::failure::Failure;

/// Serve a remote MCP server on stdin and stdout, with the daemon's login
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl bridge notion
  mcp-authctl bridge github:work
  mcp-authctl bridge https://mcp.example.com/mcp
  mcp-authctl bridge https://a.example --client-credentials --client-id ID --client-secret-file F
  mcp-authctl bridge https://a.example --client-id build --assertion-file /run/secrets/mcp
  claude mcp add notion -- mcp-authctl bridge notion
  {\"mcpServers\": {\"notion\": {\"command\": \"mcp-authctl\", \"args\": [\"bridge\", \"notion\"]}}}

Where the login is missing or does not reach far enough, it opens the browser if there is one here,
and the request waits up to 45 seconds; else an MCP client that shows pages is given the login's,
and any other an error that names the command. With --client-credentials, --assertion-file or
--identity-provider nobody has to be there. It ends when stdin does or at SIGTERM, with exit code 0.")]
pub(crate) struct Args {
    /// The grant's name, or the URL of the MCP server
    #[arg(value_name = "NAME")]
    target: Target,
    /// A header to send with every request, as `Name: value`; may be repeated. No place for secrets: arguments are public
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The account label: the grant is NAME:LABEL
    #[arg(long, value_name = "LABEL")]
    account: Option<String>,
    /// A scope that a login asks for instead of the usual ones; may be repeated, or hold several separated by spaces
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ' ')]
    scopes: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
    /// Log in with the client's own credentials, without a person (RFC 6749 section 4.4)
    #[arg(long)]
    client_credentials: bool,
    #[command(flatten)]
    bearer: BearerArgs,
    /// Never open a browser here: a client that shows pages is given the login's, any other the error that names the command
    #[arg(long)]
    no_browser: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let target = target(args)?;
    let mut login = LoginRequest {
        provider: target.clone(),
        scopes: (!args.scopes.is_empty()).then(|| args.scopes.clone()),
        flow: args.client_credentials.then_some(LoginFlow::ClientCredentials),
        unprompted: true,
        browser: true,
        ..LoginRequest::default()
    };
    args.client.fill(Stdin::Taken, &mut login)?;
    args.bearer.place(Stdin::Taken, &mut login)?;
    let headers: HeaderMap = args.headers.iter().cloned().collect();
    bridge::run(Bridge { socket: socket_path()?, target, headers, login, no_browser: args.no_browser })
}

fn target(args: &Args) -> Result<String, Failure> {
    let usage = |sentence: String| Failure::Usage { sentence, hint: "mcp-authctl bridge --help".into() };
    match (&args.target, &args.account) {
        (Target::Grant(name), None) => Ok(name.to_string()),
        (Target::Resource(url), None) => Ok(url.clone()),
        (Target::Grant(name), Some(label)) if name.label().is_none_or(|other| other == label) => {
            let name = GrantName::with_label(name.base(), label).map_err(|error| usage(format!("{label:?} is not a label: {error}")))?;
            Ok(name.to_string())
        }
        (Target::Grant(name), Some(label)) => Err(usage(format!("the name says account `{}`, and --account says `{label}`", name))),
        (Target::Resource(_), Some(_)) => Err(usage("an account is told by the grant's name, NAME:LABEL, not beside a URL".into())),
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let (name, value) = text.split_once(':').ok_or("a header is written `Name: value`")?;
    let name: HeaderName = name.trim().parse().map_err(|_| "this is not the name of a header")?;
    let value: HeaderValue = value.trim().parse().map_err(|_| "no header can carry this value")?;
    if name == AUTHORIZATION || name == COOKIE {
        return Err("logins are the daemon's business: this header is not passed on");
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value_and_no_login() {
        assert_eq!(header("X-Tenant:  a: b ").unwrap(), ("x-tenant".parse().unwrap(), "a: b".parse().unwrap()));
        for bad in ["", "x", ": y", "a b: c", "x: a\nb", "Authorization: Bearer x", "cookie: a=b"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }
}

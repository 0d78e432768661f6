//! `bridge`: what an MCP client starts in place of a remote MCP server. The arguments; the work is `crate::bridge`'s.

use std::path::{Path, PathBuf};

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};
use mcp_auth_proto::{GrantName, LoginRequest, Secret, socket_path};

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
  claude mcp add notion -- mcp-authctl bridge notion
  {\"mcpServers\": {\"notion\": {\"command\": \"mcp-authctl\", \"args\": [\"bridge\", \"notion\"]}}}

Where the login is missing or does not reach far enough, it opens the browser if there is one here, and the request
waits up to 45 seconds; else the answer is an error that names the command. It ends when stdin does, with exit code 0.")]
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
    /// With a URL: the client id that the server's authorization server gave you; it is kept
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// A file with the secret of that client
    #[arg(long, value_name = "FILE", requires = "client_id")]
    client_secret_file: Option<PathBuf>,
    /// With a URL: the client metadata document to show where the authorization server takes one
    #[arg(long, value_name = "URL")]
    client_metadata_url: Option<String>,
    /// Never open a browser: answer with the error that names the command
    #[arg(long)]
    no_browser: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let target = target(args)?;
    let login = LoginRequest {
        provider: target.clone(),
        scopes: (!args.scopes.is_empty()).then(|| args.scopes.clone()),
        client_id: args.client_id.clone(),
        client_secret: args.client_secret_file.as_deref().map(secret).transpose()?,
        client_metadata_url: args.client_metadata_url.clone(),
        unprompted: true,
        browser: true,
        ..LoginRequest::default()
    };
    let headers: HeaderMap = args.headers.iter().cloned().collect();
    bridge::run(Bridge { socket: socket_path()?, target, headers, login, no_browser: args.no_browser })
}

/// The first line of a file.
fn secret(path: &Path) -> Result<Secret, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Failure::File { path: path.to_owned(), source })?;
    Ok(Secret::new(text.lines().next().unwrap_or_default().trim().to_owned()))
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

//! `exec`: runs a program with fresh tokens in its environment, and nowhere else; or with a socket of its own, on which it
//! gets the tokens of some grants and nothing else.
//!
//! On Unix the program takes this process's place, so signals, the terminal and the exit code are its own. On Windows it
//! runs below, and its exit code is passed on.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use mcp_auth_proto::{CapabilityRequest, Client, GrantName, SOCKET_ENV, TokenAnswer, TokenRequest};

use super::assignment::{self, Assignment};
use crate::failure::Failure;
use crate::output::{self, span};

/// Run a program with fresh tokens in its environment, or with a socket for some grants only
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl exec --set GITHUB_PERSONAL_ACCESS_TOKEN=github -- github-mcp-server stdio
  mcp-authctl exec --set A=github:work --set B=gitlab --min-valid-for 1800 -- ./job
  mcp-authctl exec --only github -- my-server      asks the socket itself, for github alone
  {\"command\": \"mcp-authctl\", \"args\": [\"exec\", \"--set\", \"GITHUB_TOKEN=github\", \"--\", \"my-server\"]}

With --set the program keeps the token that it got: where tokens expire, a program that asks the
socket is better served. Until it ends `mcp-authctl status` shows what it holds, and nothing but the
token's own end takes it away without need.
With --only the program finds a socket of its own in MCP_AUTHD_SOCKET, on which it, and what it
starts, gets tokens of these grants and nothing else. The socket is gone when the program ends
(Linux). Nothing keeps a program from the daemon's own socket but a policy:
`mcp-authctl policy --help`.
Exit codes are the program's own; 126 and 127 when it cannot be started, and this command's before
that.")]
pub(crate) struct Args {
    /// A variable and the grant whose token it gets; may be repeated. It replaces an inherited one
    #[arg(long = "set", value_name = "VAR=GRANT", required_unless_present = "only")]
    assignments: Vec<Assignment>,
    /// A grant that the program may ask for, on a socket of its own; may be repeated
    #[arg(long, value_name = "GRANT")]
    only: Vec<GrantName>,
    /// The seconds that each token must still live; a refresh is waited for if need be
    #[arg(long, value_name = "SECONDS")]
    min_valid_for: Option<u64>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args, client: &Client) -> Result<(), Failure> {
    let (program, arguments) = args.command.split_first().expect("clap requires it");
    let mut command = Command::new(program);
    command.args(arguments);
    let wanted = TokenRequest { min_valid_for: args.min_valid_for, holder: Some(name_of(program)), ..TokenRequest::default() };
    for (variable, answer) in assignment::tokens(&args.assignments, &wanted, client)? {
        warn_of_less(&answer, args.min_valid_for);
        command.env(variable, answer.access_token.expose());
    }
    if !args.only.is_empty() {
        // For this very process, which becomes the program.
        command.env(SOCKET_ENV, client.capability(&CapabilityRequest { grants: args.only.clone() })?.socket);
    }
    become_it(command).map_err(|source| Failure::NotStarted { program: program.to_string_lossy().into_owned(), source })
}

/// The program as people know it: without its folder.
fn name_of(program: &OsStr) -> String {
    Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}

/// The daemon asks for no more than half a lifetime, and ends no token that another program keeps.
fn warn_of_less(answer: &TokenAnswer, wanted: Option<u64>) {
    if let (Some(wanted), Some(found)) = (wanted, answer.expires_in)
        && found < wanted
    {
        let grant = &answer.grant;
        output::warning(&format!("the token of {grant} is good for {}, not for the {} asked for", span(found), span(wanted)));
    }
}

#[cfg(unix)]
fn become_it(mut command: Command) -> std::io::Result<()> {
    Err(std::os::unix::process::CommandExt::exec(&mut command))
}

#[cfg(not(unix))]
#[allow(clippy::exit, reason = "the program's exit code, whatever number it is")]
fn become_it(mut command: Command) -> std::io::Result<()> {
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(1))
}

//! `exec`: runs a program with fresh tokens in its environment, and nowhere else.
//!
//! On Unix the program takes this process's place, so signals, the terminal and the exit code are its own. On Windows it
//! runs below, and its exit code is passed on.

use std::ffi::OsString;
use std::process::Command;

use mcp_auth_proto::Client;

use super::assignment::{self, Assignment};
use crate::failure::Failure;

/// Run a program with fresh tokens in its environment
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl exec --set GITHUB_PERSONAL_ACCESS_TOKEN=github -- github-mcp-server stdio
  mcp-authctl exec --set A=github:work --set B=gitlab --min-valid-for 1800 -- ./job
  {\"command\": \"mcp-authctl\", \"args\": [\"exec\", \"--set\", \"GITHUB_TOKEN=github\", \"--\", \"my-server\"]}

The program keeps the token that it got: where tokens expire, a program that asks the socket is better served.
Exit codes are the program's own; 126 and 127 when it cannot be started, and this command's before that.")]
pub(crate) struct Args {
    /// A variable and the grant whose token it gets; may be repeated. It replaces an inherited one
    #[arg(long = "set", value_name = "VAR=GRANT", required = true)]
    assignments: Vec<Assignment>,
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
    for (variable, token) in assignment::tokens(&args.assignments, args.min_valid_for, client)? {
        command.env(variable, token.expose());
    }
    become_it(command).map_err(|source| Failure::NotStarted { program: program.to_string_lossy().into_owned(), source })
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

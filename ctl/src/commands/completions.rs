//! `completions`: a completion script for a shell.

use clap_complete::Shell;

use crate::failure::Failure;
use crate::output;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl completions bash > ~/.local/share/bash-completion/completions/mcp-authctl
  mcp-authctl completions zsh > ~/.zfunc/_mcp-authctl
  mcp-authctl completions fish > ~/.config/fish/completions/mcp-authctl.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut command: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "mcp-authctl", &mut script);
    output::bytes(&script)
}

//! `env`: lines for a shell's `eval`: the socket's place, and variables that hold fresh tokens.

use clap::ValueEnum;
use mcp_auth_proto::{Client, SOCKET_ENV, Secret, TokenRequest};
use zeroize::Zeroizing;

use super::assignment::{self, Assignment};
use crate::failure::Failure;
use crate::output;

/// Print shell commands that set the socket's place and tokens as variables
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eval \"$(mcp-authctl env)\"
  eval \"$(mcp-authctl env GITHUB_TOKEN=github)\"
  mcp-authctl env GITHUB_TOKEN=github --shell fish | source
  mcp-authctl env --shell powershell | Out-String | Invoke-Expression

A token in a variable is not refreshed any more. Programs that can ask for one should do that.")]
pub(crate) struct Args {
    /// A variable and the grant whose token it gets
    #[arg(value_name = "VAR=GRANT")]
    assignments: Vec<Assignment>,
    /// The shell that reads this
    #[arg(long, value_enum, default_value_t = Shell::Sh)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    /// sh, bash, zsh and the like
    Sh,
    Fish,
    Powershell,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let mut variables = vec![(SOCKET_ENV, Secret::new(client.path().to_string_lossy()))];
    let tokens = assignment::tokens(&args.assignments, &TokenRequest::default(), client)?;
    variables.extend(tokens.into_iter().map(|(name, answer)| (name, answer.access_token)));
    if json {
        return output::json(&variables.iter().map(|(name, value)| (*name, value)).collect::<std::collections::BTreeMap<_, _>>());
    }
    let mut lines = Zeroizing::new(String::with_capacity(64 * 1024));
    for (name, value) in &variables {
        push_line(&mut lines, args.shell, name, value.expose());
    }
    output::bytes(lines.as_bytes())
}

/// Quoted so that the shell takes every character as it is.
fn push_line(lines: &mut String, shell: Shell, name: &str, value: &str) {
    let (start, end) = match shell {
        Shell::Sh => (format!("export {name}='"), "'\n"),
        Shell::Fish => (format!("set -gx {name} '"), "'\n"),
        Shell::Powershell => (format!("$env:{name} = '"), "'\n"),
    };
    lines.push_str(&start);
    for character in value.chars() {
        match (shell, character) {
            (Shell::Sh, '\'') => lines.push_str("'\\''"),
            (Shell::Fish, '\'') => lines.push_str("\\'"),
            (Shell::Fish, '\\') => lines.push_str("\\\\"),
            // PowerShell takes typographic quotes for quotes.
            (Shell::Powershell, '\'' | '\u{2018}'..='\u{201b}') => lines.extend([character, character]),
            _ => lines.push(character),
        }
    }
    lines.push_str(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_its_own_quotes() {
        let line = |shell| {
            let mut lines = String::new();
            push_line(&mut lines, shell, "X", r"a'$(b)\");
            lines
        };
        assert_eq!(line(Shell::Sh), "export X='a'\\''$(b)\\'\n");
        assert_eq!(line(Shell::Fish), "set -gx X 'a\\'$(b)\\\\'\n");
        assert_eq!(line(Shell::Powershell), "$env:X = 'a''$(b)\\'\n");
    }
}

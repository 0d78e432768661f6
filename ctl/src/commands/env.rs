//! `env`: lines for a shell's `eval`: the socket's place, and variables that hold fresh tokens.

use clap::ValueEnum;
use mcp_auth_proto::{Client, GrantName, SOCKET_ENV, Secret, TokenRequest};
use zeroize::Zeroizing;

use super::token;
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

#[derive(Clone, Debug)]
struct Assignment {
    variable: String,
    grant: GrantName,
}

impl std::str::FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (variable, grant) = text.split_once('=').ok_or("expected VAR=GRANT")?;
        let valid =
            variable.bytes().enumerate().all(|(at, byte)| byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()));
        if variable.is_empty() || !valid {
            return Err("a variable's name is letters, digits and _, and no digit first".to_owned());
        }
        Ok(Self { variable: variable.to_owned(), grant: grant.parse().map_err(|error: mcp_auth_proto::NameError| error.to_string())? })
    }
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let mut variables = vec![(SOCKET_ENV, Secret::new(client.path().to_string_lossy()))];
    // All tokens first: half a list in an `eval` would look like success.
    for Assignment { variable, grant } in &args.assignments {
        let answer = client.token(&TokenRequest::for_grant(grant.as_str()))?;
        token::check(&answer)?;
        variables.push((variable, answer.access_token));
    }
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

    #[test]
    fn only_names_of_variables_are_taken() {
        assert!("GITHUB_TOKEN=github:work".parse::<Assignment>().is_ok());
        for bad in ["X", "=github", "1X=github", "X;rm=github", "X=Git Hub", "X="] {
            assert!(bad.parse::<Assignment>().is_err(), "{bad}");
        }
    }
}

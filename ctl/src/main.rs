//! The command line beside mcp-authd: parses the arguments, runs one verb, and turns its outcome into an exit code.
//! Everything that is printed goes through `output`; everything that the daemon knows comes through `mcp_auth_proto`.

mod ask;
mod bridge;
mod browser;
mod commands;
mod failure;
mod file;
mod output;
mod surroundings;
mod web;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use mcp_auth_proto::{Client, socket_path};

use crate::commands::{
    add_token, approve, audit, bridge as bridge_verb, completions, demo, doctor, env, events, exec, git_credential, headers, lock, login,
    logout, man, pkce, policy, provider, refresh, relay, reload, service, setup, status, token, unlock, use_grant, vault,
};
use crate::failure::Failure;

/// Log in once, hand fresh access tokens on, see what is held
#[derive(Debug, Parser)]
#[command(name = "mcp-authctl", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Print JSON on stdout, and an error as one line of JSON on stderr
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Args),
    Login(login::Args),
    Logout(logout::Args),
    Use(use_grant::Args),
    Status(status::Args),
    Token(token::Args),
    Refresh(refresh::Args),
    AddToken(add_token::Args),
    Env(env::Args),
    Exec(exec::Args),
    Headers(headers::Args),
    Bridge(bridge_verb::Args),
    GitCredential(git_credential::Args),
    Relay(relay::Args),
    Policy(policy::Args),
    Approve(approve::Args),
    Audit(audit::Args),
    Events(events::Args),
    Provider(provider::Args),
    Setup(setup::Args),
    Service(service::Args),
    Doctor(doctor::Args),
    Unlock(unlock::Args),
    Lock(lock::Args),
    Vault(vault::Args),
    Reload(reload::Args),
    Pkce(pkce::Args),
    Completions(completions::Args),
    Man(man::Args),
}

const EXAMPLES: &str = "\
Examples:
  mcp-authctl demo                  see the whole job in a minute, without an account
  mcp-authctl setup                 choose where the vault's key is kept, once
  mcp-authctl login github          log in with the browser
  mcp-authctl token github          print a fresh access token
  mcp-authctl status                what is held, and what needs you
  mcp-authctl doctor                what is wrong here, and what to do about it

Exit codes: 0 ok, 1 refused or failed, 2 wrong usage, 3 login needed, 4 daemon not running,
5 provider unreachable, 6 not allowed by policy, 7 vault locked, 78 bad config, 130 Ctrl-C";

fn main() -> ExitCode {
    let words: Option<Vec<String>> = std::env::args_os().skip(1).map(|word| word.into_string().ok()).collect();
    match words.as_deref().and_then(plain) {
        Some((quick, json)) => finish(quick.run(json), json),
        None => parsed(),
    }
}

/// The verbs that MCP clients, MCP servers and git run in their request path: in the forms that those use they cost no argument
/// parser, nor anything else of the other verbs.
#[derive(Debug)]
enum Quick {
    Token(token::Args),
    Headers(headers::Args),
    GitCredential(git_credential::Args),
}

impl Quick {
    fn run(self, json: bool) -> Result<(), Failure> {
        surroundings::leave_no_core();
        match self {
            Self::Token(args) => token::run(args, &connect()?, json),
            Self::Headers(args) => headers::run(&args, &connect()?.with_patience(headers::PATIENCE)),
            Self::GitCredential(args) => git_credential::run(&args, &connect()?),
        }
    }
}

/// The forms that cost no argument parser. Everything else is clap's, every mistake too.
fn plain(words: &[String]) -> Option<(Quick, bool)> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["token", target] => Some((Quick::Token(token::Args::plain(target)?), false)),
        ["token", target, "--json"] | ["token", "--json", target] => Some((Quick::Token(token::Args::plain(target)?), true)),
        ["headers", rest @ ..] => Some((Quick::Headers(headers::Args::plain(rest)?), false)),
        ["git-credential", rest @ ..] => Some((Quick::GitCredential(git_credential::Args::plain(rest)?), false)),
        _ => None,
    }
}

/// Not inlined: the frame of whoever calls it would have room for every verb, and each of its pages costs a fault.
#[inline(never)]
fn parsed() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => finish(dispatch(cli.verb, cli.json), cli.json),
        Err(error) => usage(&error),
    }
}

/// Help and version as clap prints them; a mistake as one of our own errors, with the command that tells more.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that has gone has read what it wanted.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let mut help = Cli::command();
    let mut command = String::from("mcp-authctl");
    for word in &words {
        let Some(verb) = help.find_subcommand(word).cloned() else { break };
        command = format!("{command} {}", verb.get_name());
        help = verb;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // As above.
        let _ = error.print();
    } else {
        let text = error.to_string();
        let said = text.split("Usage:").next().and_then(|said| said.split("For more information").next()).unwrap_or_default();
        let sentence = said.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ").replace(" tip: ", "; ");
        let failure = Failure::Usage { sentence, hint: format!("{command} --help") };
        output::failure(&failure, words.iter().any(|word| word == "--json"));
    }
    ExitCode::from(2)
}

fn dispatch(verb: Verb, json: bool) -> Result<(), Failure> {
    match verb {
        Verb::Demo(args) => demo::run(&args, json),
        Verb::Login(args) => login::run(args, connect()?, json),
        Verb::Use(args) => use_grant::run(&args, &connect()?, json),
        Verb::Logout(args) => logout::run(&args, &connect()?, json),
        Verb::Status(args) => status::run(&args, &connect()?, json),
        Verb::Token(args) => Quick::Token(args).run(json),
        Verb::Refresh(args) => refresh::run(&args, &connect()?, json),
        Verb::AddToken(args) => add_token::run(args, &connect()?, json),
        Verb::Env(args) => env::run(&args, &connect()?, json),
        Verb::Exec(args) => exec::run(&args, &connect()?),
        Verb::Headers(args) => Quick::Headers(args).run(json),
        Verb::Bridge(args) => bridge_verb::run(&args),
        Verb::GitCredential(args) => Quick::GitCredential(args).run(json),
        Verb::Relay(args) => relay::run(args, &connect()?, json),
        Verb::Policy(args) => policy::run(args, &connect()?, json),
        Verb::Approve(args) => approve::run(&args, &connect()?, json),
        Verb::Audit(args) => audit::run(args, &connect()?, json),
        Verb::Events(_) => events::run(&connect()?, json),
        Verb::Provider(args) => provider::run(args, &connect()?, json),
        Verb::Setup(args) => setup::run(&args, &connect()?, json),
        Verb::Service(args) => service::run(&args, &connect()?, json),
        Verb::Doctor(args) => doctor::run(&args, &connect()?.with_patience(doctor::PATIENCE), json),
        Verb::Unlock(_) => unlock::run(&connect()?, json),
        Verb::Lock(_) => lock::run(&connect()?, json),
        Verb::Vault(args) => vault::run(args, &connect()?, json),
        Verb::Reload(_) => reload::run(&connect()?, json),
        Verb::Pkce(_) => pkce::run(json),
        Verb::Completions(args) => completions::run(&args, Cli::command()),
        Verb::Man(args) => man::run(&args, Cli::command()),
    }
}

/// The client; it does not connect before the first call.
fn connect() -> Result<Client, Failure> {
    Ok(Client::new(socket_path()?))
}

fn finish(outcome: Result<(), Failure>, json: bool) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::failure(&failure, json);
            ExitCode::from(failure.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent_and_every_verb_shows_examples() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example"), "{}", verb.get_name());
        }
    }

    /// Whatever is longer is broken within a command or a word's column.
    #[test]
    fn no_line_of_help_that_we_have_laid_out_is_wider_than_the_help() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines() {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn the_short_way_reads_plain_forms_as_the_argument_parser_does_and_leaves_the_rest_to_it() {
        let short = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            plain(&words).map(|(quick, json)| format!("{quick:?} {json}"))
        };
        let parsed = |line: &str| {
            Cli::try_parse_from(["mcp-authctl"].into_iter().chain(line.split(' '))).map(|cli| format!("{:?} {}", cli.verb, cli.json))
        };
        for line in [
            "token github",
            "token https://mcp.example.com/mcp",
            "token github:work --json",
            "token --json github",
            "headers",
            "headers github",
            "headers https://mcp.example.com/mcp",
            "git-credential github get",
            "git-credential github --host git.example:8443 --host b.example erase",
            "git-credential github --username x-token-auth --host b.example some-later-one",
        ] {
            assert_eq!(short(line), Some(parsed(line).unwrap()), "{line}");
        }
        for line in [
            "",
            "login a",
            "token",
            "token --help",
            "token GitHub",
            "token a b",
            "token a --json b",
            "headers --help",
            "headers --json",
            "headers GitHub",
            "headers a b",
            "git-credential",
            "git-credential github",
            "git-credential github --help",
            "git-credential GitHub get",
            "git-credential github --host get",
            "git-credential github --host --username get",
            "git-credential github --host=git.example get",
            "git-credential github get --host git.example",
            "git-credential github --username a --username b get",
        ] {
            assert_eq!(short(line), None, "{line}");
        }
    }
}

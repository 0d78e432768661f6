//! `service`: the daemon as a service of its user, under systemd or launchd. Here: the arguments, the verbs, and what they
//! tell the person. What the files hold is `service/text.rs`; the two managers have a file each and share no code with
//! one another; `setup` and `doctor` come in by [`offer`] and [`state()`].

mod failure;
mod install;
mod launchd;
mod logs;
mod start;
mod state;
mod step;
mod systemd;
mod text;

use clap::Subcommand;
use mcp_auth_proto::Client;

pub(crate) use self::failure::ServiceError;
pub(crate) use self::install::{Offered, offer};
use self::launchd::Launchd;
use self::start::{own_uid, start};
pub(crate) use self::state::{Files, State};
use self::state::{Found, Wanted};
use self::step::{Action, Step};
use self::systemd::{SERVICE, SOCKET, Systemd, systemctl};
use crate::failure::Failure;
use crate::file;
use crate::output::{self, field};

/// Run the daemon as a service of your user (systemd, launchd)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl service install --dry-run   what would be done
  mcp-authctl service install             from now on it runs by itself
  mcp-authctl service restart             after an update of the program
  mcp-authctl service logs --follow
  mcp-authctl service uninstall           logins and config stay")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write the service's files, have it start with your login, and start it
    #[command(after_help = "\
Examples:
  mcp-authctl service install
  mcp-authctl service install --dry-run
  MCP_AUTHD_KEY_SOURCE=key-file mcp-authctl service install

MCP_AUTHD_CONFIG, _STATE_DIR, _KEY_SOURCE, _LOG and _SOCKET go into the files as they are set now.")]
    Install(install::Args),
    /// End the service and remove its files; logins and config stay
    #[command(after_help = "Example:\n  mcp-authctl service uninstall")]
    Uninstall(install::Args),
    /// Start the daemon
    #[command(after_help = "Example:\n  mcp-authctl service start")]
    Start,
    /// End the daemon; under systemd the next request starts it again
    #[command(after_help = "\
Examples:
  mcp-authctl service stop
  mcp-authctl service stop --socket      nothing starts it until `service start` or your next login")]
    Stop {
        /// Close the socket too, so that no request starts the daemon
        #[arg(long)]
        socket: bool,
    },
    /// End the daemon and start it again; under systemd whoever asks meanwhile waits
    #[command(after_help = "Example:\n  mcp-authctl service restart      after an update of the program")]
    Restart,
    /// Show whether it is installed and runs
    #[command(after_help = "Examples:\n  mcp-authctl service status\n  mcp-authctl service status --json")]
    Status,
    /// Show what the daemon has logged
    #[command(after_help = "Examples:\n  mcp-authctl service logs\n  mcp-authctl service logs --lines 200 --follow")]
    Logs(logs::Args),
}

/// Whoever runs services for this user.
#[derive(Debug)]
enum Supervisor {
    Systemd(Systemd),
    Launchd(Launchd),
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let supervisor = Supervisor::here()?;
    match &args.verb {
        Verb::Install(args) => install::install(args, &supervisor, client, json),
        Verb::Uninstall(args) => install::uninstall(args, &supervisor, client, json),
        Verb::Start => begin(&supervisor, client, json),
        Verb::Stop { socket } => end(&supervisor, *socket, client, json),
        Verb::Restart => again(&supervisor, client, json),
        Verb::Status => show(&State::of(&supervisor, client)?, json),
        Verb::Logs(args) => logs::run(args, &supervisor, json),
    }
}

/// The service as it is now, for `doctor`. It does not wake the daemon.
///
/// # Errors
/// [`ServiceError::NoSupervisor`] where nobody runs services for this user.
pub(crate) fn state(client: &Client) -> Result<State, ServiceError> {
    State::of(&Supervisor::here()?, client)
}

impl Supervisor {
    /// The one of this system, if it answers.
    fn here() -> Result<Self, ServiceError> {
        if cfg!(windows) {
            Err(ServiceError::NoSupervisor(failure::Missing::Windows))
        } else if cfg!(target_os = "macos") {
            Launchd::here().map(Self::Launchd)
        } else {
            Systemd::here().map(Self::Systemd)
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Systemd(_) => "systemd",
            Self::Launchd(_) => "launchd",
        }
    }

    fn found(&self) -> Result<Found, ServiceError> {
        match self {
            Self::Systemd(systemd) => systemd.found(),
            Self::Launchd(launchd) => Ok(launchd.found()),
        }
    }

    /// The files that the service shall consist of.
    fn wanted(&self) -> Result<Vec<Wanted>, ServiceError> {
        match self {
            Self::Systemd(systemd) => systemd.files(&start(&systemd.carried())?),
            Self::Launchd(launchd) => launchd.files(&start(&[])?),
        }
    }

    /// Where the files of the service are, if it is installed.
    fn places(&self) -> Vec<std::path::PathBuf> {
        match self {
            Self::Systemd(systemd) => systemd.places().into(),
            Self::Launchd(launchd) => vec![launchd.agent()],
        }
    }

    /// Carries out one step.
    fn carry_out(&self, step: &Step) -> Result<(), Failure> {
        match (&step.action, self) {
            (Action::Write { path, text }, _) => file::replace(path, text).map_err(|source| Failure::File { path: path.clone(), source }),
            (Action::Remove { .. } | Action::RemoveFolder { .. }, _) => step::remove(&step.action),
            (Action::Run { argv }, Self::Systemd(systemd)) => Ok(systemd.run(argv)?),
            (Action::Run { argv }, Self::Launchd(_)) => {
                let mut command = std::process::Command::new(&argv[0]);
                command.args(&argv[1..]);
                Ok(step::lines_of(command).map(drop)?)
            }
        }
    }
}

fn begin(supervisor: &Supervisor, client: &Client, json: bool) -> Result<(), Failure> {
    let state = installed(supervisor, client)?;
    if let Some(pid) = state.by_hand {
        return Err(ServiceError::ByHand { pid }.into());
    }
    let step = match supervisor {
        Supervisor::Systemd(_) => Step::run(&systemctl(&["start", SOCKET, SERVICE]), "socket and daemon start"),
        Supervisor::Launchd(launchd) if state.enabled => launchd.start(),
        // `stop --socket` has unloaded it.
        Supervisor::Launchd(launchd) => launchd.load(),
    };
    one(supervisor, &step, client, json)
}

fn end(supervisor: &Supervisor, socket: bool, client: &Client, json: bool) -> Result<(), Failure> {
    installed(supervisor, client)?;
    let step = match supervisor {
        Supervisor::Systemd(_) if socket => {
            Step::run(&systemctl(&["stop", SERVICE, SOCKET]), "nothing starts the daemon before `service start`, or your next login")
        }
        Supervisor::Systemd(_) => Step::run(&systemctl(&["stop", SERVICE]), "the next request starts the daemon again"),
        Supervisor::Launchd(launchd) => launchd.stop(),
    };
    one(supervisor, &step, client, json)
}

fn again(supervisor: &Supervisor, client: &Client, json: bool) -> Result<(), Failure> {
    let state = installed(supervisor, client)?;
    let step = match supervisor {
        // The socket too, where it has failed or was closed.
        Supervisor::Systemd(_) if !state.listening => Step::run(&systemctl(&["start", SOCKET, SERVICE]), "socket and daemon start"),
        Supervisor::Systemd(_) => Step::run(&systemctl(&["restart", SERVICE]), "the daemon starts anew, whoever asks meanwhile waits"),
        Supervisor::Launchd(launchd) => launchd.restart(),
    };
    one(supervisor, &step, client, json)
}

/// Carries out the one step of a verb and shows it, and with `--json` what has come of it.
fn one(supervisor: &Supervisor, step: &Step, client: &Client, json: bool) -> Result<(), Failure> {
    supervisor.carry_out(step)?;
    if json {
        return output::json(&State::of(supervisor, client)?);
    }
    output::note(&step.line());
    Ok(())
}

fn installed(supervisor: &Supervisor, client: &Client) -> Result<State, Failure> {
    let state = State::of(supervisor, client)?;
    if state.unit.is_none() { Err(ServiceError::NotInstalled.into()) } else { Ok(state) }
}

/// What `status` prints; it fails with 4 where the daemon neither runs nor would be started by a request.
fn show(state: &State, json: bool) -> Result<(), Failure> {
    if json {
        output::json(state)?;
    } else {
        output::line(&description(state))?;
    }
    match (&state.unit, state.pid, state.listening) {
        (None, ..) => Err(ServiceError::NotInstalled.into()),
        (Some(_), None, false) => Err(ServiceError::NotRunning.into()),
        _ => Ok(()),
    }
}

/// PURE: the lines of `status`.
fn description(state: &State) -> String {
    let files = match (&state.unit, state.files) {
        (None, _) | (_, Files::None) => "no".to_owned(),
        (Some(unit), Files::AsWritten) => field(&unit.to_string_lossy()),
        (Some(unit), Files::Outdated) => format!("{}, out of date: mcp-authctl service install", field(&unit.to_string_lossy())),
        (Some(unit), Files::Edited) => format!("{}, edited", field(&unit.to_string_lossy())),
        (Some(unit), Files::OfPackage) => format!("{}, of a package", field(&unit.to_string_lossy())),
    };
    let daemon = match (state.pid, state.by_hand, &state.ended) {
        (Some(pid), ..) => format!("runs, process {pid}"),
        (None, Some(pid), _) => format!("runs, but not as this service: process {pid} was started by hand"),
        (None, None, Some(why)) if state.listening => format!("{}; the next request tries again", field(why)),
        (None, None, Some(why)) => field(why),
        (None, None, None) if state.listening => "starts with the next request".to_owned(),
        (None, None, None) => "does not run".to_owned(),
    };
    let yes = |it: bool| if it { "yes" } else { "no" };
    let mut lines = vec![format!("installed: {files}"), format!("starts with your login: {}", yes(state.enabled))];
    if state.manager == "systemd" {
        lines.push(format!("socket held by systemd: {}", yes(state.listening)));
    }
    lines.push(format!("daemon: {daemon}"));
    if state.stale {
        lines.push("the files have changed since systemd read them: systemctl --user daemon-reload".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_what_runs_and_why_not() {
        let state = State {
            manager: "systemd",
            unit: Some("/home/me/.config/systemd/user/mcp-authd.service".into()),
            files: Files::AsWritten,
            enabled: true,
            listening: true,
            pid: Some(7),
            ended: None,
            by_hand: None,
            log: None,
            stale: false,
        };
        let lines =
            "installed: /home/me/.config/systemd/user/mcp-authd.service\nstarts with your login: yes\nsocket held by systemd: yes\n";
        assert_eq!(description(&state), format!("{lines}daemon: runs, process 7"));
        let last = |state: &State| description(state).lines().last().unwrap().to_owned();
        let asleep = State { pid: None, ..state.clone() };
        assert_eq!(last(&asleep), "daemon: starts with the next request");
        assert_eq!(last(&State { listening: false, ..asleep.clone() }), "daemon: does not run");
        let by_hand = State { by_hand: Some(9), listening: false, ..asleep.clone() };
        assert_eq!(last(&by_hand), "daemon: runs, but not as this service: process 9 was started by hand");
        let ended = State { ended: Some("mcp-authd was started and ended: exit code 1".into()), listening: false, ..asleep };
        assert_eq!(last(&ended), "daemon: mcp-authd was started and ended: exit code 1");
        assert!(description(&State { unit: None, ..state }).starts_with("installed: no\n"));
    }
}

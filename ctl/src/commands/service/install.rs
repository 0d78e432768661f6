//! `service install` and `service uninstall`: the plan, the question where a file was edited, and the plan carried out. Also
//! the offer that `setup` makes.

use std::path::{Path, PathBuf};

use mcp_auth_proto::{Client, socket_path};

use super::Supervisor;
use super::failure::ServiceError;
use super::state::{Files, State, Wanted};
use super::step::Step;
use super::text::{self, Compared};
use crate::failure::Failure;
use crate::{ask, browser, output};

/// Of both verbs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace or remove files that were edited, without asking
    #[arg(long)]
    force: bool,
}

pub(super) fn install(args: &Args, supervisor: &Supervisor, client: &Client, json: bool) -> Result<(), Failure> {
    let state = State::of(supervisor, client)?;
    if let Some(pid) = state.by_hand {
        return Err(ServiceError::ByHand { pid }.into());
    }
    let files = if state.files == Files::OfPackage { Vec::new() } else { missing(supervisor, args)? };
    let changed: Vec<PathBuf> = files.iter().map(|wanted| wanted.path.clone()).collect();
    let writes = files.into_iter().map(|wanted| Step::write(wanted.path, wanted.text, wanted.why));
    let steps: Vec<Step> = match supervisor {
        Supervisor::Systemd(systemd) => {
            let first = systemd.before_install(&state, &changed);
            first.into_iter().chain(writes).chain(systemd.install(&state, &changed)).collect()
        }
        Supervisor::Launchd(launchd) => writes.chain(launchd.install(&state, &changed)).collect(),
    };
    carry_out(&steps, args, supervisor, json)?;
    if args.dry_run || json {
        return Ok(());
    }
    match State::of(supervisor, client)?.pid {
        Some(pid) if steps.is_empty() => output::note(&format!("nothing to do: mcp-authd runs as your service, process {pid}")),
        Some(pid) => output::note(&format!("mcp-authd runs as your service, process {pid}")),
        None => output::note("mcp-authd starts with the next request"),
    }
    if !steps.is_empty() && matches!(supervisor, Supervisor::Systemd(_)) && !browser::available() && !lingers() {
        output::note("hint: it ends when you log out; `loginctl enable-linger` keeps it running");
    }
    Ok(())
}

/// The files that are not on the disk as they should be. An edited one needs a yes.
fn missing(supervisor: &Supervisor, args: &Args) -> Result<Vec<Wanted>, Failure> {
    let mut missing = Vec::new();
    for wanted in supervisor.wanted()? {
        match text::compare(read(&wanted.path)?.as_deref(), &wanted.text) {
            Compared::Same => continue,
            Compared::Edited => may_touch(&wanted.path, "install", args)?,
            Compared::Absent | Compared::Outdated => {}
        }
        missing.push(wanted);
    }
    Ok(missing)
}

pub(super) fn uninstall(args: &Args, supervisor: &Supervisor, client: &Client, json: bool) -> Result<(), Failure> {
    let state = State::of(supervisor, client)?;
    let ours = if state.files == Files::OfPackage { Vec::new() } else { present(supervisor, args)? };
    let mut steps = Vec::new();
    if state.unit.is_some() {
        steps.extend(match supervisor {
            Supervisor::Systemd(systemd) => systemd.before_removal(),
            Supervisor::Launchd(launchd) => launchd.before_removal(&state),
        });
    }
    let removes = !ours.is_empty();
    steps.extend(ours.into_iter().map(|path| Step::remove(path, "the service is no more")));
    if let (true, Supervisor::Systemd(systemd)) = (removes, supervisor) {
        steps.extend(systemd.after_removal());
        if let Some(folder) = systemd.drop_ins() {
            output::note(&format!("{} stays: what is in it is yours", folder.display()));
        }
        let folder = socket_path()?.parent().map(Path::to_owned).filter(|folder| folder.ends_with("mcp-authd"));
        steps.extend(folder.map(|folder| Step::remove_folder(&folder, "the socket is no more")));
    }
    carry_out(&steps, args, supervisor, json)?;
    if !args.dry_run && !json {
        match (steps.is_empty(), state.by_hand) {
            (true, None) => output::note("nothing to do: the service is not installed"),
            (true, Some(pid)) => output::note(&format!("nothing to do: the service is not installed; process {pid} was started by hand")),
            (false, _) => output::note(KEPT),
        }
    }
    Ok(())
}

const KEPT: &str =
    "the vault with your logins, and the config, stay where they are; before the end of all, `mcp-authctl logout --all` revokes them";

/// The files of ours that are there. An edited one needs a yes.
fn present(supervisor: &Supervisor, args: &Args) -> Result<Vec<PathBuf>, Failure> {
    let mut present = Vec::new();
    for path in supervisor.places() {
        let Some(text) = read(&path)? else { continue };
        if !text::is_sealed(&text) {
            may_touch(&path, "uninstall", args)?;
        }
        present.push(path);
    }
    Ok(present)
}

fn carry_out(steps: &[Step], args: &Args, supervisor: &Supervisor, json: bool) -> Result<(), Failure> {
    if args.dry_run && !json {
        let lines: Vec<String> = steps.iter().map(|step| format!("would {}", step.line())).collect();
        return output::line(&if lines.is_empty() { "nothing to do".to_owned() } else { lines.join("\n") });
    }
    for step in steps.iter().filter(|_| !args.dry_run) {
        supervisor.carry_out(step)?;
        if !json {
            output::note(&step.line());
        }
    }
    if json { output::json(&serde_json::json!({ "dry_run": args.dry_run, "steps": steps })) } else { Ok(()) }
}

/// Whether a file that somebody else has made or changed may go.
fn may_touch(path: &Path, verb: &'static str, args: &Args) -> Result<(), Failure> {
    let question = format!("{} was edited, or is not of `service install`. Go on, and lose what it says?", path.display());
    if args.force || args.dry_run || ask::yes_or_no(&question, false)? == Some(true) {
        return Ok(());
    }
    Err(ServiceError::Edited { path: path.to_owned(), verb }.into())
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read(path) {
        // What is not text is not ours either.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Failure::Unreadable { path: path.to_owned(), source }),
    }
}

/// Whether systemd keeps this user's services without a login. In doubt it does not.
fn lingers() -> bool {
    std::env::var_os("USER").is_some_and(|user| Path::new("/var/lib/systemd/linger").join(user).exists())
}

/// What became of an offer.
#[derive(Debug)]
pub(crate) enum Offered {
    /// It is installed already.
    Already,
    /// It is now.
    Installed,
    /// The person said no, or there is no terminal to ask on.
    Declined,
    /// A daemon runs that was started by hand, which the person would have to end first.
    ByHand(u32),
    /// Nobody runs services here.
    Unavailable(ServiceError),
}

/// Asks whether the daemon shall be a service, and installs it; with `yes` without a question. What is there already is
/// left alone, and so is a daemon that was started by hand.
///
/// # Errors
/// When the installation fails.
pub(crate) fn offer(yes: bool, client: &Client) -> Result<Offered, Failure> {
    let supervisor = match Supervisor::here() {
        Ok(supervisor) => supervisor,
        Err(error) => return Ok(Offered::Unavailable(error)),
    };
    let state = State::of(&supervisor, client)?;
    if state.unit.is_some() {
        return Ok(Offered::Already);
    }
    if let Some(pid) = state.by_hand {
        return Ok(Offered::ByHand(pid));
    }
    if !yes && ask::yes_or_no("Run mcp-authd as a service, from now on and with each login?", true)? != Some(true) {
        return Ok(Offered::Declined);
    }
    install(&Args { dry_run: false, force: false }, &supervisor, client, false)?;
    Ok(Offered::Installed)
}

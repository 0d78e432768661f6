//! `mcp-authd`, the daemon: arguments, logging, the lock, the socket, signals; then [`mcp_authd::run`].

use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto::{SocketPathError, event};
use mcp_authd::audit::{Audit, Note};
use mcp_authd::broker::Broker;
use mcp_authd::clock::SystemClock;
use mcp_authd::config::Config;
use mcp_authd::ephemeral::{self, Ephemeral};
use mcp_authd::notify::Desktop;
use mcp_authd::places::Places;
use mcp_authd::platform::{self, BindError, Bound, Handed, LockError, LockFile, NotPrivate, Notice, Signal, Signals};
use mcp_authd::vault::Vault;
use mcp_authd::{logging, run, system_edges};

/// The system's allocator; freed memory is wiped, since buffers of the network and of D-Bus held tokens and keys.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    match arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>()[..] {
        [] => end(daemon(None)),
        ["--ephemeral"] => end(ephemeral()),
        ["--check"] => match check() {
            Ok(found) => say(&found),
            Err(error) => complain(&error.to_string(), &error.hint(), error.code()),
        },
        ["--version" | "-V"] => say(concat!("mcp-authd ", env!("CARGO_PKG_VERSION"), "\n")),
        ["--help" | "-h"] => say(HELP),
        [unknown, ..] => complain(&format!("unknown argument `{}`", unknown.escape_debug()), "mcp-authd --help", 2),
    }
}

fn end(outcome: Result<(), StartError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string(), &error.hint(), error.code()),
    }
}

/// The manual page is made of it too, by `mcp-authctl man`.
const HELP: &str = include_str!("help.txt");

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    SocketPath(#[from] SocketPathError),
    /// What a person wrote, in the config or the environment, cannot be used.
    #[error("{0}")]
    Config(Box<dyn std::error::Error + Send + Sync>, String),
    #[error("the folder {} {source}", .folder.display())]
    Folder { folder: PathBuf, source: NotPrivate },
    #[error("the socket that was handed over is not usable: {0}")]
    Activation(std::io::Error),
    #[error("other users cannot be told from ours: this user namespace does not map the user")]
    Nameless,
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// Nothing would be answered any more.
    #[error("the daemon ends by a fault of its own, which the log shows")]
    Fault,
}

impl StartError {
    /// The exit code: 75 (EX_TEMPFAIL) and 78 (EX_CONFIG) tell systemd not to try again.
    fn code(&self) -> u8 {
        match self {
            Self::Lock(LockError::AlreadyRunning { .. }) | Self::Bind(BindError::InUse { .. }) => 75,
            Self::Config(..) => 78,
            _ => 1,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Lock(LockError::AlreadyRunning { .. }) | Self::Bind(BindError::InUse { .. }) => "`mcp-authctl status` shows it".into(),
            Self::Lock(_) | Self::Folder { .. } => {
                "look at the folder's owner and modes, or set MCP_AUTHD_STATE_DIR to a folder of your own".into()
            }
            Self::Bind(_) | Self::SocketPath(_) => "set MCP_AUTHD_SOCKET to a short absolute path in a folder of your own".into(),
            Self::Config(_, hint) => hint.clone(),
            Self::Activation(_) => "look at the socket unit, or start mcp-authd without it".into(),
            Self::Nameless => "start it outside, or map the user: unshare --map-current-user".into(),
            Self::Fault => "start it again; no login is lost".into(),
            Self::System(_) => "MCP_AUTHD_LOG=debug mcp-authd tells more".into(),
        }
    }
}

/// How long an activated daemon waits for the one before it to end. Clients wait in the socket's backlog meanwhile.
const PREDECESSOR: Duration = Duration::from_secs(15);

/// Reads what a start would read, and makes nothing.
fn check() -> Result<String, StartError> {
    let places = places()?;
    config(&places)?;
    let socket = mcp_auth_proto::socket_path()?;
    let lines = [("config", &places.config), ("vault", &places.vault), ("state", &places.state), ("socket", &socket)];
    Ok(lines.map(|(word, path)| format!("{word:8}{}\n", path.display())).concat())
}

fn places() -> Result<Places, StartError> {
    Places::of_this_process().map_err(|error| StartError::Config(error.into(), "mcp-authd --help lists the variables".into()))
}

fn config(places: &Places) -> Result<Config, StartError> {
    Config::load(&places.config).map_err(|error| {
        let hint = error.hint().unwrap_or("mend the file, or move it away").to_owned();
        StartError::Config(error.into(), hint)
    })
}

/// A daemon in a folder of its own, which goes when it ends, however it does.
fn ephemeral() -> Result<(), StartError> {
    daemon(Some(&Ephemeral::new()?))
}

fn daemon(ephemeral: Option<&Ephemeral>) -> Result<(), StartError> {
    platform::harden()?;
    platform::raise_fd_limit()?;
    if platform::is_nameless() {
        return Err(StartError::Nameless);
    }
    let places = ephemeral.map_or_else(places, |ephemeral| Ok(ephemeral.places()))?;
    logging::start(places.log.as_deref());
    let config = config(&places)?;
    // Before the runtime: it changes the environment, which is for a single thread only.
    let activated = platform::activated().map_err(StartError::Activation)?;
    let _lock = lock(&places.vault, activated.is_some())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let vault = Vault::start(places.for_vault());
        // A daemon that leaves nothing behind leaves nothing on the desktop either.
        let desktop = if ephemeral.is_some() { Desktop::None } else { Desktop::OfThisSession };
        let audit = Audit::start(places.state, Arc::new(SystemClock))?;
        let broker = Broker::start(system_edges(vault, desktop, audit), config, places.config)?;
        let (listener, ports, path, own) = match activated {
            // Never bound again, nor removed: the socket is the service manager's.
            Some(Handed { socket, ports }) => {
                let path = platform::path_of(&socket);
                (socket, ports, path, false)
            }
            None => {
                let (listener, path) = bind(ephemeral)?;
                (listener, Vec::new(), Some(path), true)
            }
        };
        let listener = platform::listen(listener)?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
        platform::notify(Notice::Ready);
        let input = lifeline(ephemeral)?;
        let broken = Cell::new(false);
        let end = async {
            tokio::select! {
                () = until_end(&mut signals, &broker, input) => {}
                () = broker.gone() => broken.set(true),
            }
        };
        run(listener, path.clone(), ports, broker.clone(), end).await;
        // The lock is still held, so it is no other daemon's. What cannot be removed the next daemon replaces.
        if let Some(path) = path.filter(|_| own) {
            let _ = std::fs::remove_file(path);
        }
        if broken.get() { Err(StartError::Fault) } else { Ok(()) }
    })
}

/// Our socket, and its path.
fn bind(ephemeral: Option<&Ephemeral>) -> Result<(Bound, PathBuf), StartError> {
    let path = ephemeral.map_or_else(mcp_auth_proto::socket_path, |ephemeral| Ok(ephemeral.socket()))?;
    Ok((platform::bind(&path)?, path))
}

/// What ends an ephemeral daemon, which tells its folder now: whoever started it may come. Others have no such end.
fn lifeline(ephemeral: Option<&Ephemeral>) -> std::io::Result<Pin<Box<dyn Future<Output = ()>>>> {
    let Some(ephemeral) = ephemeral else { return Ok(Box::pin(std::future::pending())) };
    say(&format!("{}\n", ephemeral.folder().display()));
    Ok(Box::pin(ephemeral::input_ended()?))
}

/// The lock that keeps a second daemon away from the vault.
fn lock(vault: &Path, activated: bool) -> Result<LockFile, StartError> {
    platform::private_folder(vault).map_err(|source| StartError::Folder { folder: vault.to_owned(), source })?;
    let patience = if activated { PREDECESSOR } else { Duration::ZERO };
    Ok(platform::lock_file_within(&vault.join("daemon.lock"), patience)?)
}

/// Carries out what signals ask for, until one asks for the end, or `input` ends.
async fn until_end(signals: &mut Signals, broker: &Broker, input: impl Future<Output = ()>) {
    tokio::select! {
        () = until_end_signal(signals, broker) => {}
        () = input => {}
    }
    tracing::info!("ending");
    platform::notify(Notice::Stopping);
}

async fn until_end_signal(signals: &mut Signals, broker: &Broker) {
    while signals.next().await == Signal::Reload {
        platform::notify(Notice::Reloading);
        match broker.reload().await {
            Ok(status) => match status.error {
                None => {
                    broker.audit().note(Note::of(event::CONFIG_RELOADED));
                    tracing::info!("config read again");
                }
                Some(error) => tracing::warn!(error, "the config in use stays"),
            },
            Err(error) => tracing::warn!(%error, "the config in use stays"),
        }
        platform::notify(Notice::Ready);
    }
}

fn say(text: &str) -> ExitCode {
    // A reader that has gone has read what it wanted.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(sentence: &str, hint: &str, code: u8) -> ExitCode {
    // There is nowhere else to complain.
    let _ = writeln!(std::io::stderr(), "error: {sentence}\nhint: {hint}");
    ExitCode::from(code)
}

//! What is known of the service: what its manager says, how its files compare, and a daemon that runs besides it.

use std::path::PathBuf;

use mcp_auth_proto::Client;
use serde::Serialize;

use super::Supervisor;
use super::failure::ServiceError;
use super::text::{self, Compared};

/// The service, as it is now.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct State {
    /// `systemd` or `launchd`.
    pub(crate) manager: &'static str,
    /// The file that describes the service; absent while it is not installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<PathBuf>,
    /// How the files compare with what `service install` would write.
    pub(crate) files: Files,
    /// It starts with the login.
    pub(crate) enabled: bool,
    /// The manager holds the socket: whoever asks starts the daemon (systemd).
    pub(crate) listening: bool,
    /// The daemon that the manager has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// Why the daemon does not run any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<String>,
    /// A daemon that the manager has not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by_hand: Option<u32>,
    /// The file with the daemon's log; the journal where there is none (systemd).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<PathBuf>,
    /// The manager has not read the units since they changed.
    pub(crate) stale: bool,
}

/// How the files of the service compare with what `service install` would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Files {
    /// There are none.
    None,
    /// The same.
    AsWritten,
    /// Untouched, but of another version, or with other paths.
    Outdated,
    /// Changed by hand.
    Edited,
    /// From a package of the system.
    OfPackage,
}

/// A file that the service consists of.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// What it is for.
    pub(super) why: &'static str,
}

/// What a manager says.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) unit: Option<PathBuf>,
    pub(super) enabled: bool,
    pub(super) listening: bool,
    pub(super) pid: Option<u32>,
    pub(super) ended: Option<String>,
    pub(super) stale: bool,
    pub(super) log: Option<PathBuf>,
}

impl State {
    /// Looks, without waking the daemon.
    ///
    /// # Errors
    /// When the manager does not answer.
    pub(super) fn of(supervisor: &Supervisor, client: &Client) -> Result<Self, ServiceError> {
        let found = supervisor.found()?;
        // A question to a socket that the manager holds would start the daemon, and proves nothing.
        let asked = !found.listening && found.pid.is_none();
        let by_hand = asked.then(|| client.status().ok()).flatten().map(|status| status.pid);
        Ok(Self {
            manager: supervisor.name(),
            files: files(supervisor, &found),
            unit: found.unit,
            enabled: found.enabled,
            listening: found.listening,
            pid: found.pid,
            ended: found.ended,
            by_hand,
            log: found.log,
            stale: found.stale,
        })
    }
}

fn files(supervisor: &Supervisor, found: &Found) -> Files {
    let Some(unit) = &found.unit else { return Files::None };
    // Without a program to name nothing can be compared; that there is none is told by `install`.
    let Ok(wanted) = supervisor.wanted() else { return Files::AsWritten };
    if !wanted.iter().any(|wanted| wanted.path == *unit) {
        return Files::OfPackage;
    }
    let compared = wanted.iter().map(|it| text::compare(std::fs::read_to_string(&it.path).ok().as_deref(), &it.text));
    compared.fold(Files::AsWritten, |all, one| match (all, one) {
        (_, Compared::Edited) | (Files::Edited, _) => Files::Edited,
        (_, Compared::Outdated | Compared::Absent) | (Files::Outdated, _) => Files::Outdated,
        (all, Compared::Same) => all,
    })
}

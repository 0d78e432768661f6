//! What the daemon tells of itself: the vault, the logins, its way to the network, the providers, the clock.

use std::path::Path;

use mcp_auth_proto::{GrantState, GrantSummary, NetworkStatus, Notifications, ProviderReach, ProviderSummary, RelayStatus, VaultState};

use super::machine::is_open;
use super::{Check, Level, Told};
use crate::commands::{MEND_AUDIT, audit_unwritten, not_durable, quarantined, vault_state};
use crate::surroundings::Network;

/// How far the clock may be off, seconds: tokens live for minutes, and a leap here ends or prolongs them.
const SKEW: i64 = 60;

impl Told {
    pub(super) fn vault(&self) -> Vec<Check> {
        let vault = &self.status.vault;
        let level = if vault.state == VaultState::Unlocked { Level::Ok } else { Level::Failed };
        let state = Check::new("vault", level, vault_state(vault));
        let remedy = vault.hint.clone().unwrap_or_else(|| "mcp-authctl unlock".to_owned());
        let mut checks = vec![if level == Level::Ok { state } else { state.hint(remedy) }];
        if let Some((folder, mode)) = vault.folder.as_ref().and_then(|folder| Some((folder, is_open(Path::new(folder))?))) {
            let check = Check::new("vault", Level::Failed, format!("its folder {folder} is open to others (mode {mode:04o})"));
            checks.push(check.hint(format!("chmod 700 '{folder}'")));
        }
        checks.extend(quarantined(vault).map(|detail| {
            let check = Check::new("vault", Level::Warning, detail);
            check.hint("log in again for what `mcp-authctl status` misses, or restore a backup")
        }));
        checks.extend(not_durable(&self.status).map(|detail| {
            let check = Check::new("disk", Level::Failed, detail);
            check.hint("make room on the disk; the write is repeated until it succeeds")
        }));
        checks.extend(audit_unwritten(&self.status).map(|detail| {
            let check = Check::new("audit", Level::Warning, detail).safe("the audit cannot be written");
            check.hint(MEND_AUDIT)
        }));
        checks
    }

    pub(super) fn logins(&self) -> Option<Check> {
        let grants = self.grants.as_ref()?;
        let in_state = |state| grants.iter().filter(move |grant| grant.state == state).collect::<Vec<_>>();
        let (needed, retrying) = (in_state(GrantState::LoginRequired), in_state(GrantState::Retrying));
        let names = |grants: &[&GrantSummary]| grants.iter().map(|grant| grant.name.as_str()).collect::<Vec<_>>().join(", ");
        let counts = format!("{} held, {} need a login, {} wait for their provider", grants.len(), needed.len(), retrying.len());
        let check = |level, detail: String| Check::new("logins", level, detail).safe(counts.clone());
        Some(match (needed.first(), retrying.first()) {
            (Some(first), _) => check(Level::Warning, format!("LOGIN NEEDED: {}", names(&needed))).hint(first.remedy.as_str()),
            (None, Some(first)) => {
                check(Level::Warning, format!("not refreshed yet: {}", names(&retrying))).hint(format!("mcp-authctl status {}", first.name))
            }
            (None, None) if grants.is_empty() => check(Level::Note, "none yet".to_owned()).hint("mcp-authctl login github"),
            (None, None) => check(Level::Ok, format!("{} held", grants.len())),
        })
    }

    pub(super) fn network(&self, mine: &Network) -> Vec<Check> {
        let daemons = &self.status.network;
        let mut checks = vec![in_effect(daemons)];
        let copies = "mcp-authctl setup copies it to config.toml";
        if let Some(proxy) = mine.proxy.as_ref().filter(|_| daemons.proxy.is_none()) {
            checks.push(
                Check::new("network", Level::Warning, format!("{} is set here, and mcp-authd uses no proxy", proxy.name)).hint(copies),
            );
        }
        if let Some(file) = mine.ca_file.as_ref().filter(|_| daemons.ca_file.is_none()) {
            let detail = format!("{} is set here, and mcp-authd trusts the platform's certificates alone", file.name);
            checks.push(Check::new("network", Level::Warning, detail).hint(copies));
        }
        if let Some(file) = daemons.ca_file.as_ref().filter(|file| std::fs::File::open(&file.value).is_err()) {
            let check = Check::new("network", Level::Failed, format!("the file of certificates {} cannot be read", file.value));
            checks.push(
                check.safe(format!("the file of certificates ({}) cannot be read", file.from)).hint(format!("correct it in {}", file.from)),
            );
        }
        checks
    }

    pub(super) fn providers(&self) -> Vec<Check> {
        match &self.reaches {
            Ok(reaches) if reaches.is_empty() => {
                vec![Check::new("provider", Level::Note, "none configured yet").hint("mcp-authctl provider list")]
            }
            Ok(reaches) => reaches.iter().filter_map(provider).collect(),
            Err(failure) => {
                vec![Check::new("provider", Level::Warning, format!("mcp-authd could not ask: {failure}")).safe("could not be asked")]
            }
        }
    }

    /// The client secrets that go wherever a remote server says.
    pub(super) fn unbound_secrets(&self) -> Vec<Check> {
        self.unbound.iter().map(|provider| self.unbound_secret(provider)).collect()
    }

    fn unbound_secret(&self, provider: &ProviderSummary) -> Check {
        let name = &provider.name;
        let mut grants = self.grants.iter().flatten().filter(|grant| grant.provider == *name && grant.server == provider.resource);
        let now = grants.find_map(|grant| grant.issuer.as_ref()).map(|issuer| format!(" (its logins are at {issuer} now)"));
        Check::new("provider", Level::Warning, format!("{name}: a first login shows its client secret to whomever the server names"))
            .safe("a first login shows a client secret to whomever a remote server names")
            .hint(format!(
                "set authorization_server under [providers.{name}] in config.toml{}, then `mcp-authctl reload`",
                now.unwrap_or_default()
            ))
    }

    /// `None`: the relay has no port.
    pub(super) fn relay(&self) -> Option<Check> {
        let RelayStatus { url, clients, error } = self.status.relay.as_ref()?;
        Some(match error {
            Some(error) => Check::new("relay", Level::Failed, error.clone())
                .hint("`ss -ltnp` tells who has the port; end that program, or set another `listen` in [relay] of config.toml"),
            None => {
                let clients = clients.map(|count| format!(", for {count} clients")).unwrap_or_default();
                Check::new("relay", Level::Ok, format!("listens at {url}{clients}"))
            }
        })
    }

    pub(super) fn desktop(&self) -> Option<Check> {
        self.notifications.as_ref().map(desktop)
    }

    pub(super) fn clock(&self) -> Option<Check> {
        let clocks = self.reaches.as_ref().ok()?.iter().filter_map(|reach| Some((reach.clock_ahead?, reach)));
        let (ahead, reach) = clocks.max_by_key(|(ahead, _)| ahead.abs())?;
        let way = if ahead < 0 { "behind" } else { "ahead of" };
        let off = format!("{} s {way}", ahead.abs());
        let host = reach.host.as_deref().unwrap_or_default();
        if ahead.abs() <= SKEW {
            return Some(Check::new("clock", Level::Ok, "agrees with the providers'"));
        }
        let check = Check::new("clock", Level::Warning, format!("this machine's clock is {off} that of {host}"));
        let hint = if cfg!(target_os = "linux") { "timedatectl set-ntp true" } else { "let the system set its clock from the network" };
        Some(check.safe(format!("{off} a provider's")).hint(hint))
    }
}

fn desktop(notifications: &Notifications) -> Check {
    let Notifications { enabled, server, error } = notifications;
    let (level, detail) = match (enabled, server, error) {
        (false, _, _) => (Level::Note, "notifications are switched off in config.toml".to_owned()),
        (true, _, Some(error)) => (Level::Note, format!("no notifications: {error}")),
        (true, Some(server), None) => (Level::Ok, format!("{server} shows notifications")),
        (true, None, None) => (Level::Ok, "a notification service starts when it is needed".to_owned()),
    };
    Check::new("desktop", level, detail)
}

fn in_effect(daemons: &NetworkStatus) -> Check {
    let from = |setting: &Option<mcp_auth_proto::Setting>| setting.as_ref().map(|setting| (setting.value.clone(), setting.from.clone()));
    let (proxy, hosts, file) = (from(&daemons.proxy), from(&daemons.no_proxy), from(&daemons.ca_file));
    let tell = |hidden: bool| {
        let shown = |value: &str, instead: &str| if hidden { instead.to_owned() } else { value.to_owned() };
        let proxy = proxy.as_ref().map_or_else(|| "no proxy".to_owned(), |(value, from)| format!("{} ({from})", shown(value, "a proxy")));
        let hosts = hosts.as_ref().map(|(value, _)| format!(", but not for {}", shown(value, "some hosts"))).unwrap_or_default();
        let file = file.as_ref().map(|(value, from)| format!(", certificates of {} ({from})", shown(value, "a file"))).unwrap_or_default();
        format!("{proxy}{hosts}{file}")
    };
    Check::new("network", Level::Ok, tell(false)).safe(tell(true))
}

fn provider(reach: &ProviderReach) -> Option<Check> {
    let host = reach.host.as_ref()?;
    // Names and hosts that are not built in are replaced in a report, and what was said of them is left out.
    let own = |text: &str| if reach.builtin { text.to_owned() } else { format!("<{text}>") };
    let (name, place) = (own(&reach.provider), own(host));
    Some(match (&reach.error, reach.milliseconds) {
        (None, Some(milliseconds)) => Check::new("provider", Level::Ok, format!("{}: {host} answers in {milliseconds} ms", reach.provider))
            .safe(format!("{name}: {place} answers in {milliseconds} ms")),
        (error, reached) => {
            let said = error.clone().unwrap_or_else(|| format!("{host} does not answer"));
            let safe = match reached {
                _ if reach.builtin => said.clone(),
                Some(_) => "it answers, and its metadata cannot be used".to_owned(),
                None => "no connection".to_owned(),
            };
            let check =
                Check::new("provider", Level::Failed, format!("{}: {said}", reach.provider)).safe(format!("{name}: {place}: {safe}"));
            check.hint(reach.hint.clone().unwrap_or_else(|| {
                format!("`mcp-authctl provider show {}` tells its addresses, and curl whether this machine reaches them", reach.provider)
            }))
        }
    })
}

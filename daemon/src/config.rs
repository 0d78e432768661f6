//! config.toml -> checked values. Owns the file's form and every sentence about what is wrong with it.
//!
//! What a provider's table means is `provider`'s. Secrets are never in this file, and no error repeats a value of it
//! that could be one.

mod edit;
mod file;
mod issuer;
mod relay;
mod syntax;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use mcp_auth_proto::GrantName;
use serde::Deserialize;
use toml::Spanned;

pub use self::edit::define_provider;
use crate::issuer::clients::Settings;
use crate::provider::check::{self, Fault};
use crate::provider::table::{Table, Wrong};
use crate::provider::{Provider, preset};
use crate::transport::Proxy;

/// What config.toml says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[network]`.
    pub network: Network,
    /// `[issuer]`; `None`: it is switched off.
    pub issuer: Option<Settings>,
    /// `listen` of `[relay]`: the relay's port on loopback; `None`: there is none.
    pub relay: Option<SocketAddr>,
    /// `[notifications]`: whether the desktop is told anything.
    pub notifications: bool,
    providers: Vec<Provider>,
}

impl Default for Config {
    fn default() -> Self {
        Self { network: Network::default(), issuer: None, relay: None, notifications: true, providers: Vec::new() }
    }
}

/// How providers are reached. What is absent is taken from the daemon's own environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Network {
    /// The proxy for https; `None`: what the daemon's environment says.
    pub proxy: Option<Proxy>,
    /// Hosts, domains (`.corp.example`) and networks that are reached without the proxy.
    pub no_proxy: Option<Vec<String>>,
    /// A PEM file of certificate authorities that are trusted besides the platform's; absolute.
    pub ca_file: Option<PathBuf>,
}

/// What is wrong with the config file: shown as `PATH:LINE: what is wrong`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", Place(path, *line))]
pub struct ConfigError {
    kind: ConfigErrorKind,
    path: PathBuf,
    line: Option<usize>,
    what: String,
    hint: Option<String>,
}

/// The kinds of [`ConfigError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigErrorKind {
    /// The file says something wrong, or the definition that was to be written does.
    Invalid,
    /// The file cannot be read, or should not be trusted.
    Unreadable,
    /// The file cannot be written; nothing has changed.
    Unwritable,
}

impl Config {
    /// Reads and checks the file. An absent file is an empty one.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match file::read(path)? {
            Some(text) => Self::parse(&text, path),
            None => Ok(Self::default()),
        }
    }

    /// Checks a text as if it were the file at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let wrong = |wrong: Wrong| ConfigError::wrong(wrong, text, path);
        let tables: Tables = syntax::parse(text).map_err(wrong)?;
        let network = tables.network.check().map_err(wrong)?;
        let issuer = tables.issuer.check().map_err(wrong)?;
        let relay = tables.relay.check(issuer.as_ref().map(|issuer| issuer.listen)).map_err(wrong)?;
        let providers = tables.providers.into_iter().map(|(name, table)| provider(&name, table)).collect::<Result<_, _>>();
        Ok(Self { network, issuer, relay, notifications: tables.notifications.enabled, providers: providers.map_err(wrong)? })
    }

    /// The provider of this name: the configured one, else the bare preset.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        let configured = self.providers.iter().find(|provider| provider.name == name);
        configured.or_else(|| preset::find(name).map(preset::Preset::provider))
    }

    /// How a provider is reached. A proxy of its own holds for every host, whatever `no_proxy` says.
    pub fn network_of(&self, provider: &Provider) -> Network {
        let mut network = self.network.clone();
        if let Some(proxy) = &provider.network.proxy {
            network.proxy = Some(proxy.clone());
            network.no_proxy = None;
        }
        if let Some(ca_file) = &provider.network.ca_file {
            network.ca_file = Some(ca_file.clone());
        }
        network
    }

    /// Every distinct way in which something is reached; the common one is always among them.
    pub fn networks(&self) -> HashSet<Network> {
        let own = self.providers.iter().map(|provider| self.network_of(provider));
        own.chain([self.network.clone()]).collect()
    }

    /// Every provider: the configured ones by name, then the presets that are not configured.
    pub fn providers(&self) -> Vec<Provider> {
        let mut providers = self.providers.clone();
        providers.extend(Provider::presets().into_iter().filter(|bare| self.providers.iter().all(|p| p.name != bare.name)));
        providers
    }
}

impl ConfigError {
    /// Its kind.
    pub fn kind(&self) -> ConfigErrorKind {
        self.kind
    }

    /// The line that is wrong, counted from 1; `None` where the file as a whole is.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    fn of_file(kind: ConfigErrorKind, path: &Path, what: impl Into<String>) -> Self {
        Self { kind, path: path.to_owned(), line: None, what: what.into(), hint: None }
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn wrong(wrong: Wrong, text: &str, path: &Path) -> Self {
        let line = wrong.span.map(|span| line_of(text.as_bytes(), span.start));
        Self { kind: ConfigErrorKind::Invalid, path: path.to_owned(), line, what: wrong.what, hint: wrong.hint }
    }
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tables {
    providers: BTreeMap<Spanned<String>, Table>,
    network: NetworkTable,
    issuer: issuer::IssuerTable,
    relay: relay::RelayTable,
    notifications: NotificationsTable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NotificationsTable {
    enabled: bool,
}

impl Default for NotificationsTable {
    fn default() -> Self {
        Self { enabled: true }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NetworkTable {
    proxy: Option<Spanned<String>>,
    no_proxy: Option<Vec<Spanned<String>>>,
    ca_file: Option<Spanned<String>>,
}

impl NetworkTable {
    fn check(self) -> Result<Network, Wrong> {
        if let Some(proxy) = &self.proxy {
            check::proxy_or_none(proxy.get_ref()).map_err(|fault| wrong("proxy", proxy.span(), fault))?;
        }
        for host in self.no_proxy.iter().flatten() {
            check::printable(host.get_ref()).map_err(|fault| wrong("no_proxy", host.span(), fault))?;
            if host.get_ref().contains([',', ' ']) {
                let fault =
                    Fault::new("has several hosts in one item").hint("write one array item per host: [\"a.example\", \".corp.example\"]");
                return Err(wrong("no_proxy", host.span(), fault));
            }
        }
        if let Some(file) = &self.ca_file {
            check::absolute_path(file.get_ref()).map_err(|fault| wrong("ca_file", file.span(), fault))?;
        }
        Ok(Network {
            proxy: self.proxy.map(|proxy| Proxy::of(proxy.get_ref())),
            no_proxy: self.no_proxy.map(|hosts| hosts.into_iter().map(Spanned::into_inner).collect()),
            ca_file: self.ca_file.map(|file| file.into_inner().into()),
        })
    }
}

fn provider(name: &Spanned<String>, table: Table) -> Result<Provider, Wrong> {
    check_name(name.get_ref()).map_err(|wrong| wrong.at(name.span()))?;
    let provider = preset::provider(name.get_ref(), table);
    let provider = provider.map_err(|wrong| if wrong.span.is_some() { wrong } else { wrong.at(name.span()) })?;
    Ok(Provider { configured: true, ..provider })
}

fn check_name(name: &str) -> Result<(), Wrong> {
    if name.parse::<GrantName>().is_ok_and(|name| name.label().is_none()) {
        return Ok(());
    }
    let what = format!("`{}` is not a provider name", syntax::shown(name));
    Err(Wrong::table(what, "a name is a lower-case letter or digit, then up to 62 of a-z 0-9 . _ -"))
}

fn wrong(key: &str, span: Range<usize>, fault: Fault) -> Wrong {
    Wrong { span: Some(span), what: format!("`{key}` {}", fault.what), hint: fault.hint }
}

fn line_of(text: &[u8], offset: usize) -> usize {
    text.iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// `PATH:LINE`, or `PATH` alone.
struct Place<'a>(&'a Path, Option<usize>);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(line) => write!(f, "{}:{line}", self.0.display()),
            None => write!(f, "{}", self.0.display()),
        }
    }
}

#[cfg(test)]
mod tests;

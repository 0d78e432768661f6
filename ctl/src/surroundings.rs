//! What this process's own surroundings say: proxy settings, where the daemon's program is. Only looks; what follows from
//! it is the verbs' business.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A variable of this process that is set to something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) value: String,
}

/// How programs that are started from here reach the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) proxy: Option<Variable>,
    pub(crate) no_proxy: Option<Variable>,
    pub(crate) ca_file: Option<Variable>,
}

impl Network {
    /// As the environment says.
    pub(crate) fn of_this_process() -> Self {
        Self::of(|name| env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            let set = |name: &&'static str| variable(name).filter(|value| !value.is_empty()).map(|value| Variable { name, value });
            names.iter().find_map(set)
        };
        Self {
            proxy: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            no_proxy: first(&["NO_PROXY", "no_proxy"]),
            ca_file: first(&["SSL_CERT_FILE"]),
        }
    }
}

/// Whether a proxy's address holds a user name or password.
pub(crate) fn holds_password(proxy: &str) -> bool {
    let rest = proxy.split_once("://").map_or(proxy, |(_, rest)| rest);
    rest.contains('@')
}

/// The daemon's program: beside this one, else the first in `PATH`.
pub(crate) fn daemon_program() -> Option<PathBuf> {
    let name = if cfg!(windows) { "mcp-authd.exe" } else { "mcp-authd" };
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(env::split_paths(&path));
    folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// What a program says with one argument: whether it succeeded, its stdout and its stderr.
pub(crate) fn ask(program: &Path, argument: &str) -> Option<(bool, String, String)> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((output.status.success(), text(&output.stdout), text(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_says_something_counts() {
        let network = Network::of(|name| match name {
            "HTTPS_PROXY" => Some(String::new()),
            "https_proxy" => Some("http://p:1".into()),
            "all_proxy" => Some("socks5://s".into()),
            "NO_PROXY" => Some("a,b".into()),
            _ => None,
        });
        assert_eq!(network.proxy, Some(Variable { name: "https_proxy", value: "http://p:1".into() }));
        assert_eq!((network.no_proxy.map(|variable| variable.value).as_deref(), network.ca_file), (Some("a,b"), None));
    }

    #[test]
    fn a_password_in_a_proxy_is_seen_with_and_without_a_scheme() {
        for (proxy, holds) in [("http://p:1", false), ("p:1", false), ("http://me:x@p:1", true), ("me@p", true)] {
            assert_eq!(holds_password(proxy), holds, "{proxy}");
        }
    }
}

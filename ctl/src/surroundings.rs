//! What this process's own surroundings say: proxy settings, where the daemon's program is, whether it is a container; and what
//! it may leave behind. What follows from it is the verbs' business.

use std::env;
use std::path::{Component, Path, PathBuf};
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

/// Leaves no core file: for verbs that hold a token and start no program, which would inherit this. Unlike the daemon's memory
/// ours stays readable for our user, or the daemon could not see which program asks it.
pub(crate) fn leave_no_core() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        // The soft limit can always be lowered.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), ..getrlimit(Resource::Core) });
    }
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

/// The daemon's program.
pub(crate) fn daemon_program() -> Option<PathBuf> {
    program("mcp-authd")
}

/// One of our programs: beside us, by the name that we were called by (a link that outlives an update) or the real one, or on
/// PATH.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    let called = env::args_os().next().map(PathBuf::from);
    let called = called.and_then(|called| if called.components().count() > 1 { Some(called) } else { on_path(&called) });
    let beside = [called, env::current_exe().ok()].into_iter().flatten().map(|own| own.with_file_name(&name));
    beside.filter(|path| is_program(path)).chain(on_path(Path::new(&name))).find_map(|path| whole(&path))
}

/// Whether this runs in a container.
pub(crate) fn in_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"];
    let variables = ["container", "KUBERNETES_SERVICE_HOST"];
    let set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    marks.iter().any(|mark| Path::new(mark).exists()) || variables.iter().any(set)
}

/// What a program says with one argument: whether it succeeded, its stdout and its stderr.
pub(crate) fn ask(program: &Path, argument: &str) -> Option<(bool, String, String)> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((output.status.success(), text(&output.stdout), text(&output.stderr)))
}

fn on_path(name: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::PermissionsExt::mode(&match path.metadata() {
        Ok(found) if found.is_file() => found.permissions(),
        _ => return false,
    }) & 0o111
        != 0;
    #[cfg(not(unix))]
    path.is_file()
}

/// An absolute path without `..`, which systemd refuses; links are followed only to get rid of one.
fn whole(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    if absolute.components().any(|part| part == Component::ParentDir) { absolute.canonicalize().ok() } else { Some(absolute) }
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

    #[cfg(unix)]
    #[test]
    fn a_path_is_made_absolute_and_a_link_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        std::fs::create_dir(folder.join("v1")).unwrap();
        std::fs::write(folder.join("v1/mcp-authd"), "").unwrap();
        std::os::unix::fs::symlink(folder.join("v1"), folder.join("current")).unwrap();
        assert_eq!(whole(&folder.join("current/./mcp-authd")), Some(folder.join("current/mcp-authd")));
        assert_eq!(whole(&folder.join("current/../v1/mcp-authd")), Some(folder.join("v1/mcp-authd")));
        assert!(!is_program(&folder.join("v1/mcp-authd")), "it is not executable");
    }
}

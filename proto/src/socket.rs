//! Where the socket is: one rule for the daemon and every client. It only names a path; whether what lies there may be
//! trusted is for the side that binds or connects.

use std::ffi::OsString;
use std::path::PathBuf;

/// The variable that names the socket.
pub const SOCKET_ENV: &str = "MCP_AUTHD_SOCKET";

/// The variable that moves vault and state, and with them the last resort for the socket.
#[cfg(unix)]
const STATE_ENV: &str = "MCP_AUTHD_STATE_DIR";

/// Why there is no socket path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketPathError {
    /// The path does not fit into a socket address.
    #[error(
        "the socket path is {length} bytes long and the system allows {limit}: {}",
        .path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// How many bytes fit.
        limit: usize,
    },
    /// A variable holds a relative path, which daemon and client would resolve differently.
    #[error("{variable} must be an absolute path, not {}", .path.display())]
    Relative {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        path: PathBuf,
    },
    /// The variable does not name a pipe (Windows).
    #[error(r"{SOCKET_ENV} must name a pipe such as \\.\pipe\mcp-authd, not {}", .path.display())]
    NotAPipe {
        /// What it holds.
        path: PathBuf,
    },
    /// Nothing tells where the socket could be.
    #[error("there is no home folder to look for the socket in")]
    NoHome,
}

/// The socket's path, by the rule that daemon and clients share: `MCP_AUTHD_SOCKET`, else
/// `$XDG_RUNTIME_DIR/mcp-authd/mcp-authd.sock`, else the same below `/run/user/UID` if that is ours and 0700, else
/// `run/mcp-authd.sock` in the state folder. On Windows the pipe `\\.\pipe\mcp-authd-USER`.
///
/// # Errors
/// When a variable holds a relative path, or the path is too long for a socket address.
pub fn socket_path() -> Result<PathBuf, SocketPathError> {
    rule(&Surroundings {
        env: &|name| std::env::var_os(name),
        runtime: &own_runtime_folder,
        home: &|| directories::BaseDirs::new().map(|base| base.home_dir().to_owned()),
    })
}

/// What the rule looks at, once it gets there.
struct Surroundings<'a> {
    env: &'a dyn Fn(&str) -> Option<OsString>,
    /// `/run/user/UID`, when it is ours and 0700.
    #[cfg_attr(windows, allow(dead_code, reason = "pipes are in no folder"))]
    runtime: &'a dyn Fn() -> Option<PathBuf>,
    home: &'a dyn Fn() -> Option<PathBuf>,
}

impl Surroundings<'_> {
    /// A variable's path; an empty variable is as good as none.
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.env)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

#[cfg(unix)]
fn rule(around: &Surroundings<'_>) -> Result<PathBuf, SocketPathError> {
    if let Some(path) = around.path(SOCKET_ENV) {
        return fits(absolute(SOCKET_ENV, path)?);
    }
    // The XDG specification says that a relative path there counts as none.
    let runtime = around.path("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()).or_else(around.runtime);
    if let Some(runtime) = runtime {
        return fits(runtime.join("mcp-authd").join("mcp-authd.sock"));
    }
    fits(state_folder(around)?.join("run").join("mcp-authd.sock"))
}

#[cfg(windows)]
fn rule(around: &Surroundings<'_>) -> Result<PathBuf, SocketPathError> {
    if let Some(path) = around.path(SOCKET_ENV) {
        let text = path.to_string_lossy().to_lowercase();
        return if text.starts_with(r"\\.\pipe\") { fits(path) } else { Err(SocketPathError::NotAPipe { path }) };
    }
    let user = (around.env)("USERNAME").filter(|name| !name.is_empty());
    let user = user.or_else(|| (around.home)().and_then(|home| home.file_name().map(OsString::from)));
    let user = user.ok_or(SocketPathError::NoHome)?;
    fits(PathBuf::from(format!(r"\\.\pipe\mcp-authd-{}", user.to_string_lossy().replace('\\', "-"))))
}

#[cfg(unix)]
fn state_folder(around: &Surroundings<'_>) -> Result<PathBuf, SocketPathError> {
    if let Some(moved) = around.path(STATE_ENV) {
        return Ok(absolute(STATE_ENV, moved)?.join("state"));
    }
    let home = (around.home)().ok_or(SocketPathError::NoHome)?;
    if cfg!(target_os = "macos") {
        return Ok(home.join("Library/Application Support/mcp-authd/state"));
    }
    let state = around.path("XDG_STATE_HOME").filter(|path| path.is_absolute());
    Ok(state.unwrap_or_else(|| home.join(".local/state")).join("mcp-authd"))
}

#[cfg(unix)]
fn absolute(variable: &'static str, path: PathBuf) -> Result<PathBuf, SocketPathError> {
    if path.is_absolute() { Ok(path) } else { Err(SocketPathError::Relative { variable, path }) }
}

fn fits(path: PathBuf) -> Result<PathBuf, SocketPathError> {
    let (length, limit) = (path.as_os_str().len(), longest());
    if length > limit { Err(SocketPathError::TooLong { path, length, limit }) } else { Ok(path) }
}

/// The bytes of `sun_path` less its final NUL; on Windows the length of a pipe's name.
const fn longest() -> usize {
    if cfg!(windows) {
        256
    } else if cfg!(any(target_os = "linux", target_os = "android")) {
        107
    } else {
        103
    }
}

#[cfg(all(unix, not(target_os = "macos")))]
fn own_runtime_folder() -> Option<PathBuf> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let uid = rustix::process::geteuid().as_raw();
    let folder = std::path::Path::new("/run/user").join(uid.to_string());
    let found = folder.symlink_metadata().ok()?;
    (found.is_dir() && found.uid() == uid && found.permissions().mode() & 0o7777 == 0o700).then_some(folder)
}

#[cfg(not(all(unix, not(target_os = "macos"))))]
fn own_runtime_folder() -> Option<PathBuf> {
    None
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn found(env: &[(&str, &str)], runtime: Option<&str>, home: Option<&str>) -> Result<String, SocketPathError> {
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        let around = Surroundings { env: &lookup, runtime: &|| runtime.map(PathBuf::from), home: &|| home.map(PathBuf::from) };
        rule(&around).map(|path| path.display().to_string())
    }

    #[test]
    fn the_first_rule_that_applies_names_the_socket() {
        let (run, home) = (Some("/run/user/7"), Some("/home/u"));
        for (env, runtime, expected) in [
            (&[("MCP_AUTHD_SOCKET", "/s"), ("XDG_RUNTIME_DIR", "/x")][..], run, "/s"),
            (&[("MCP_AUTHD_SOCKET", ""), ("XDG_RUNTIME_DIR", "/x")], run, "/x/mcp-authd/mcp-authd.sock"),
            (&[("XDG_RUNTIME_DIR", "")], run, "/run/user/7/mcp-authd/mcp-authd.sock"),
            (&[("XDG_RUNTIME_DIR", "relative")], run, "/run/user/7/mcp-authd/mcp-authd.sock"),
            (&[("MCP_AUTHD_STATE_DIR", "/d")], run, "/run/user/7/mcp-authd/mcp-authd.sock"),
            (&[("MCP_AUTHD_STATE_DIR", "/d")], None, "/d/state/run/mcp-authd.sock"),
            (&[("XDG_STATE_HOME", "/st")], None, "/st/mcp-authd/run/mcp-authd.sock"),
            (&[], None, "/home/u/.local/state/mcp-authd/run/mcp-authd.sock"),
        ] {
            assert_eq!(found(env, runtime, home).as_deref(), Ok(expected), "{env:?}");
        }
    }

    #[test]
    fn a_relative_path_is_refused_by_name() {
        for variable in [SOCKET_ENV, STATE_ENV] {
            let error = found(&[(variable, "some/where")], None, Some("/home/u")).unwrap_err();
            assert_eq!(error.to_string(), format!("{variable} must be an absolute path, not some/where"));
        }
    }

    #[test]
    fn a_path_that_does_not_fit_says_its_length_and_the_limit() {
        let longest = format!("/{}", "p".repeat(106));
        assert_eq!(found(&[(SOCKET_ENV, &longest)], None, None), Ok(longest.clone()));
        let error = found(&[(SOCKET_ENV, &format!("{longest}p"))], None, None).unwrap_err().to_string();
        assert!(error.contains("108 bytes long and the system allows 107"), "{error}");
    }

    #[test]
    fn without_any_folder_the_error_names_the_variable() {
        assert_eq!(found(&[], None, None), Err(SocketPathError::NoHome));
    }
}

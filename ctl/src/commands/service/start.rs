//! What the service starts: where the daemon's program is, and which variables lead it to its files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mcp_auth_proto::SOCKET_ENV;

use super::failure::ServiceError;
use super::text::Start;
use crate::surroundings::daemon_program;

/// The variables that the daemon reads, besides the socket's.
const OWN: [&str; 4] = ["MCP_AUTHD_CONFIG", "MCP_AUTHD_STATE_DIR", "MCP_AUTHD_KEY_SOURCE", "MCP_AUTHD_LOG"];

/// The XDG base directories and where they are without a variable: a service manager need not have the shell's.
const XDG: [(&str, &str); 3] = [("XDG_CONFIG_HOME", ".config"), ("XDG_DATA_HOME", ".local/share"), ("XDG_STATE_HOME", ".local/state")];

/// By this process's environment, and for variables that it has not at all by what an earlier `install` carried. An empty
/// one takes a carried one away.
///
/// # Errors
/// When there is no daemon to be found, or something is not text.
pub(super) fn start(earlier: &[(String, String)]) -> Result<Start, ServiceError> {
    let program = daemon_program().ok_or(ServiceError::NoProgram)?;
    let program = program.into_os_string().into_string().map_err(|path| ServiceError::OddPath(path.into()))?;
    let before = |name| earlier.iter().find(|(found, _)| found == name).map(|(_, value)| OsString::from(value));
    let (environment, socket) = carried(|name| std::env::var_os(name).or_else(|| before(name)))?;
    Ok(Start { program, environment, socket })
}

/// The user that we run as; `None` where users have no numbers.
pub(super) fn own_uid() -> Option<u32> {
    #[cfg(unix)]
    return Some(rustix::process::geteuid().as_raw());
    #[cfg(not(unix))]
    None
}

type Carried = (Vec<(&'static str, String)>, Option<String>);

/// PURE: what of an environment the daemon must have too, and the socket's place if it is named.
fn carried(lookup: impl Fn(&'static str) -> Option<OsString>) -> Result<Carried, ServiceError> {
    let text = |name| {
        let value = lookup(name).filter(|value| !value.is_empty());
        value.map(|value| value.into_string().map_err(|value| ServiceError::OddPath(value.into()))).transpose()
    };
    let mut environment = Vec::new();
    for name in OWN {
        environment.extend(text(name)?.map(|value| (name, value)));
    }
    let home = PathBuf::from(lookup("HOME").unwrap_or_default());
    for (name, usual) in XDG {
        // Apple's and Microsoft's folders do not follow these.
        let value = text(name)?.filter(|value| cfg!(target_os = "linux") && Path::new(value).is_absolute());
        environment.extend(value.filter(|value| Path::new(value) != home.join(usual)).map(|value| (name, value)));
    }
    Ok((environment, text(SOCKET_ENV)?))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn carried_from(environment: &[(&str, &str)]) -> Carried {
        carried(|name| environment.iter().find(|(found, _)| *found == name).map(|(_, value)| OsString::from(value))).unwrap()
    }

    #[test]
    fn what_leads_the_daemon_to_its_files_is_carried_and_nothing_else() {
        assert_eq!(carried_from(&[("HOME", "/home/me"), ("PATH", "/bin"), ("GITHUB_TOKEN", "x"), ("MCP_AUTHD_LOG", "")]), (vec![], None));
        let all = [
            ("HOME", "/home/me"),
            ("MCP_AUTHD_KEY_SOURCE", "key-file"),
            ("MCP_AUTHD_SOCKET", "/srv/s"),
            ("XDG_CONFIG_HOME", "/home/me/.config"),
            ("XDG_DATA_HOME", "/big/share"),
            ("XDG_STATE_HOME", "relative"),
        ];
        let expected = vec![("MCP_AUTHD_KEY_SOURCE", "key-file".to_owned()), ("XDG_DATA_HOME", "/big/share".to_owned())];
        assert_eq!(carried_from(&all), (expected, Some("/srv/s".to_owned())));
    }
}

//! What the environment says, checked. Nothing else in this program reads it.

use std::net::SocketAddr;
use std::path::PathBuf;

use mcp_auth_proto::{GrantName, SocketPathError};
use url::{Host, Url};

pub(crate) const GRANT: &str = "MODEL_SERVER_GRANT";
pub(crate) const GITHUB_API: &str = "MODEL_SERVER_GITHUB_API";
pub(crate) const LISTEN: &str = "MODEL_SERVER_LISTEN";
pub(crate) const ISSUER: &str = "MODEL_SERVER_ISSUER";

/// How the server runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The grant whose tokens it uses at GitHub.
    pub(crate) grant: String,
    /// GitHub's API, without a slash at the end.
    pub(crate) github_api: String,
    /// Where it serves MCP over HTTP; `None`: over stdio.
    pub(crate) listen: Option<SocketAddr>,
    /// The issuer whose tokens its own callers bring over HTTP, byte for byte.
    pub(crate) issuer: String,
    /// The daemon's socket.
    pub(crate) socket: PathBuf,
}

/// A value that does not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("{GRANT} must be the name of a grant such as `github` or `github:work`, not `{0}`")]
    Grant(String),
    #[error("{GITHUB_API} must be an https URL without a query, not `{0}`")]
    GitHubApi(String),
    #[error("{LISTEN} must be a loopback address with a port such as 127.0.0.1:8732, not `{0}`")]
    Listen(String),
    #[error("{ISSUER} must be an https URL without a query, not `{0}`")]
    Issuer(String),
    #[error(transparent)]
    Socket(#[from] SocketPathError),
}

impl Settings {
    /// Reads the settings; `variable` is how a variable is looked up.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let or = |name: &str, default: &str| variable(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned());
        let grant = or(GRANT, "github");
        if grant.parse::<GrantName>().is_err() {
            return Err(SettingsError::Grant(grant));
        }
        let github_api = or(GITHUB_API, "https://api.github.com");
        if !is_safe(&github_api) {
            return Err(SettingsError::GitHubApi(github_api));
        }
        let listen = match or(LISTEN, "") {
            none if none.is_empty() => None,
            text => match text.parse::<SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => Some(address),
                _ => return Err(SettingsError::Listen(text)),
            },
        };
        let issuer = or(ISSUER, "http://127.0.0.1:8731");
        if !is_safe(&issuer) {
            return Err(SettingsError::Issuer(issuer));
        }
        let github_api = github_api.trim_end_matches('/').to_owned();
        Ok(Self { grant, github_api, listen, issuer, socket: mcp_auth_proto::socket_path()? })
    }
}

/// Tokens travel by https; on this machine alone by http.
fn is_safe(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    plain && (url.scheme() == "https" || (url.scheme() == "http" && local))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> Result<Settings, SettingsError> {
        Settings::read(move |asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn without_any_variable_it_serves_stdio_with_the_grant_github() {
        let settings = with("OTHER", "").unwrap();
        assert_eq!((settings.grant.as_str(), settings.github_api.as_str()), ("github", "https://api.github.com"));
        assert!(settings.listen.is_none());
    }

    #[test]
    fn a_value_that_does_not_do_is_named_with_its_variable() {
        for (name, value) in [
            (GRANT, "Git Hub"),
            (GITHUB_API, "http://api.github.com"),
            (GITHUB_API, "http://127.0.0.1.evil.example"),
            (GITHUB_API, "api.github.com"),
            (GITHUB_API, "https://user:secret@api.github.com"),
            (GITHUB_API, "https://api.github.com/?x=1"),
            (LISTEN, "0.0.0.0:8732"),
            (LISTEN, "127.0.0.1"),
            (LISTEN, "8732"),
            (ISSUER, "http://login.example"),
        ] {
            let error = with(name, value).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{name}={value}: {error}");
        }
    }

    #[test]
    fn loopback_is_spoken_to_without_tls() {
        assert_eq!(with(GITHUB_API, "http://127.0.0.1:9/api/").unwrap().github_api, "http://127.0.0.1:9/api");
        assert_eq!(with(LISTEN, "[::1]:8732").unwrap().listen.unwrap().port(), 8732);
        assert_eq!(with(ISSUER, "http://127.0.0.1:8731/").unwrap().issuer, "http://127.0.0.1:8731/");
    }
}

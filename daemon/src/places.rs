//! Where the daemon's files are, and what else the environment says. The socket's place is `mcp_auth_proto::socket_path`.
//!
//! Nothing here touches the disk, and the environment comes in through a closure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mcp_auth_proto::KeySourceKind;

use crate::vault;

/// The variable that names the config file.
pub const CONFIG_ENV: &str = "MCP_AUTHD_CONFIG";
/// The variable that names one folder for vault and state.
pub const STATE_DIR_ENV: &str = "MCP_AUTHD_STATE_DIR";
/// The variable that names the vault's key source.
pub const KEY_SOURCE_ENV: &str = "MCP_AUTHD_KEY_SOURCE";
/// The variable that sets what is logged.
pub const LOG_ENV: &str = "MCP_AUTHD_LOG";

/// Where the daemon's files are. Every path is absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The config file.
    pub config: PathBuf,
    /// The vault's folder.
    pub vault: PathBuf,
    /// The folder of state that is no secret.
    pub state: PathBuf,
    /// The key file, for [`KeySourceKind::KeyFile`].
    pub key_file: PathBuf,
    /// The key source that the environment names.
    pub key_source: Option<KeySourceKind>,
    /// The log filter that the environment names.
    pub log: Option<String>,
}

/// The folders that the platform gives this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformFolders {
    /// For the config file.
    pub config: PathBuf,
    /// For the vault.
    pub data: PathBuf,
    /// For state.
    pub state: PathBuf,
}

/// Why there are no places.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacesError {
    /// A variable holds a path that depends on the current folder.
    #[error("{variable} is `{}`, and must be an absolute path", path.display())]
    Relative {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// The key source is not one.
    #[error("{KEY_SOURCE_ENV}: {0}")]
    KeySource(String),
    /// A variable is not text.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
    /// There is no home folder.
    #[error("there is no home folder: set HOME, or {CONFIG_ENV} and {STATE_DIR_ENV}")]
    NoHome,
}

impl Places {
    /// The places of this process: its environment, and the platform's rule.
    pub fn of_this_process() -> Result<Self, PlacesError> {
        Self::from_environment(std::env::var_os::<&str>, PlatformFolders::of_this_user())
    }

    /// The places by an environment. An empty variable counts as unset.
    pub fn from_environment(
        lookup: impl Fn(&'static str) -> Option<OsString>,
        platform: Option<PlatformFolders>,
    ) -> Result<Self, PlacesError> {
        let lookup = |name| lookup(name).filter(|value| !value.is_empty());
        let path = |name| lookup(name).map(|value| absolute(name, PathBuf::from(value))).transpose();
        let (vault, state) = match (path(STATE_DIR_ENV)?, &platform) {
            (Some(folder), _) => (folder.join("vault"), folder.join("state")),
            (None, Some(platform)) => (platform.data.clone(), platform.state.clone()),
            (None, None) => return Err(PlacesError::NoHome),
        };
        let config = match (path(CONFIG_ENV)?, platform) {
            (Some(file), _) => file,
            (None, Some(platform)) => platform.config.join("config.toml"),
            (None, None) => return Err(PlacesError::NoHome),
        };
        let text = |name| lookup(name).map(|value| value.into_string().map_err(|_| PlacesError::NotText(name))).transpose();
        let key_source = text(KEY_SOURCE_ENV)?.map(|text| text.parse().map_err(PlacesError::KeySource)).transpose()?;
        Ok(Self { config, vault, key_file: state.join("vault.key"), state, key_source, log: text(LOG_ENV)? })
    }

    /// The part that the vault needs.
    pub fn for_vault(&self) -> vault::Places {
        vault::Places { vault: self.vault.clone(), key_file: self.key_file.clone(), key_source: self.key_source }
    }
}

impl PlatformFolders {
    /// By the rule of the platform; on Linux the XDG base directories. `None` without a home folder.
    pub fn of_this_user() -> Option<Self> {
        let folders = directories::ProjectDirs::from("", "", "mcp-authd")?;
        Some(Self {
            config: folders.config_dir().to_owned(),
            data: folders.data_dir().to_owned(),
            // Only Linux has a folder for state.
            state: folders.state_dir().map_or_else(|| folders.data_local_dir().join("state"), Path::to_owned),
        })
    }
}

fn absolute(variable: &'static str, path: PathBuf) -> Result<PathBuf, PlacesError> {
    if path.is_absolute() { Ok(path) } else { Err(PlacesError::Relative { variable, path }) }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    type Environment<'a> = &'a [(&'a str, &'a str)];

    fn platform() -> Option<PlatformFolders> {
        Some(PlatformFolders {
            config: "/home/me/.config/mcp-authd".into(),
            data: "/home/me/.local/share/mcp-authd".into(),
            state: "/home/me/.local/state/mcp-authd".into(),
        })
    }

    fn places(environment: Environment<'_>, platform: Option<PlatformFolders>) -> Result<Places, String> {
        let lookup = |name: &'static str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Places::from_environment(lookup, platform).map_err(|error| error.to_string())
    }

    #[test]
    fn each_environment_leads_to_its_files() {
        // environment, config, vault, state
        let home = ("/home/me/.config/mcp-authd/config.toml", "/home/me/.local/share/mcp-authd", "/home/me/.local/state/mcp-authd");
        let table: [(Environment<'_>, (&str, &str, &str)); 4] = [
            (&[], home),
            (&[(CONFIG_ENV, ""), (STATE_DIR_ENV, "")], home),
            (&[(CONFIG_ENV, "/etc/a.toml")], ("/etc/a.toml", home.1, home.2)),
            (&[(STATE_DIR_ENV, "/srv/d")], (home.0, "/srv/d/vault", "/srv/d/state")),
        ];
        for (environment, (config, vault, state)) in table {
            let places = places(environment, platform()).unwrap();
            assert_eq!((places.config, places.vault), (PathBuf::from(config), PathBuf::from(vault)), "{environment:?}");
            assert_eq!(places.key_file, Path::new(state).join("vault.key"), "{environment:?}");
            assert_eq!(places.state, Path::new(state), "{environment:?}");
            assert_eq!((places.key_source, places.log), (None, None));
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_sentence() {
        let table: [(Environment<'_>, &str); 3] = [
            (&[(CONFIG_ENV, "a.toml")], "MCP_AUTHD_CONFIG is `a.toml`, and must be an absolute path"),
            (&[(STATE_DIR_ENV, "./d")], "MCP_AUTHD_STATE_DIR is `./d`, and must be an absolute path"),
            (
                &[(KEY_SOURCE_ENV, "keyring")],
                "MCP_AUTHD_KEY_SOURCE: `keyring` is no key source, expected one of keychain, systemd-credential, passphrase, key-file",
            ),
        ];
        for (environment, sentence) in table {
            assert_eq!(places(environment, platform()).unwrap_err(), sentence);
        }
    }

    #[test]
    fn without_a_home_both_variables_are_needed_and_enough() {
        let no_home = "there is no home folder: set HOME, or MCP_AUTHD_CONFIG and MCP_AUTHD_STATE_DIR";
        assert_eq!(places(&[], None).unwrap_err(), no_home);
        assert_eq!(places(&[(CONFIG_ENV, "/c")], None).unwrap_err(), no_home);
        assert!(places(&[(CONFIG_ENV, "/c"), (STATE_DIR_ENV, "/d")], None).is_ok());
    }

    #[test]
    fn the_vault_is_told_its_part() {
        let places = places(&[(STATE_DIR_ENV, "/d"), (KEY_SOURCE_ENV, "key-file"), (LOG_ENV, "debug")], platform()).unwrap();
        let vault = places.for_vault();
        assert_eq!((vault.vault, vault.key_file), (PathBuf::from("/d/vault"), PathBuf::from("/d/state/vault.key")));
        assert_eq!(vault.key_source, Some(KeySourceKind::KeyFile));
        assert_eq!(places.log.as_deref(), Some("debug"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn on_linux_the_folders_are_those_of_xdg() {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap());
        let xdg = |name, below: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute()).unwrap_or_else(|| home.join(below)).join("mcp-authd")
        };
        let expected = PlatformFolders {
            config: xdg("XDG_CONFIG_HOME", ".config"),
            data: xdg("XDG_DATA_HOME", ".local/share"),
            state: xdg("XDG_STATE_HOME", ".local/state"),
        };
        assert_eq!(PlatformFolders::of_this_user(), Some(expected));
    }
}

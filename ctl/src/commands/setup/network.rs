//! Copies the caller's proxy settings into config.toml: a daemon that a service manager starts has none of a shell's
//! variables. The file is written here and not over the socket, so that nobody on the socket leads tokens elsewhere.

use std::fs;
use std::io;
use std::path::Path;

use mcp_auth_proto::{ClientError, NetworkStatus, Status};
use toml_edit::{Array, DocumentMut, Item, Table, Value};

use super::Setup;
use crate::failure::Failure;
use crate::file;
use crate::output::field;
use crate::surroundings::{Network, holds_password};

/// Offers what the daemon does not have, and says what it has.
pub(super) fn offer(setup: &Setup<'_>, status: &Status, mine: &Network) -> Result<(), Failure> {
    let (path, daemons) = (Path::new(&status.config.path), &status.network);
    let proxy = mine.proxy.as_ref().filter(|_| daemons.proxy.is_none());
    if let Some(proxy) = proxy.filter(|proxy| holds_password(&proxy.value)) {
        let text = format!("{} holds a password, which does not belong in config.toml; it is not copied", proxy.name);
        setup.left("network", &text, "start mcp-authd with this variable, or use a proxy that asks for no password");
        return Ok(());
    }
    let lacking = lacking(mine, daemons);
    if lacking.is_empty() {
        setup.ok("network", &described(daemons));
        return Ok(());
    }
    let names = lacking.iter().map(|(key, value)| format!("{key} = {}", value.to_string().trim())).collect::<Vec<_>>().join(", ");
    if status.config.error.is_some() {
        setup.left("network", &format!("not copied, because the config has an error: {names}"), "correct the file, then mcp-authctl setup");
    } else if !setup.agrees(&format!("copy your proxy settings to {} ({names})?", path.display()))? {
        setup.left("network", &format!("not copied: {names}"), "mcp-authctl setup --yes");
    } else {
        copy(setup, path, lacking)?;
        setup.ok("network", &format!("copied to {}: {names}", path.display()));
    }
    Ok(())
}

fn described(daemons: &NetworkStatus) -> String {
    let proxy =
        daemons.proxy.as_ref().map_or_else(|| "no proxy".to_owned(), |proxy| format!("proxy {} ({})", field(&proxy.value), proxy.from));
    let file = daemons.ca_file.as_ref().map(|file| format!(", certificates of {} ({})", field(&file.value), file.from));
    proxy + &file.unwrap_or_default()
}

/// The settings that this shell has and the daemon has not, as keys of `[network]`.
fn lacking(mine: &Network, daemons: &NetworkStatus) -> Vec<(&'static str, Value)> {
    let hosts: Vec<_> = mine.no_proxy.iter().flat_map(|hosts| hosts.value.split([',', ' ']).filter(|host| !host.is_empty())).collect();
    let mut keys = Vec::new();
    // `*`: no host is reached through it.
    if let Some(proxy) = mine.proxy.as_ref().filter(|_| daemons.proxy.is_none() && !hosts.contains(&"*")) {
        let scheme = if proxy.value.contains("://") { "" } else { "http://" };
        keys.push(("proxy", Value::from(format!("{scheme}{}", proxy.value))));
        if !hosts.is_empty() {
            keys.push(("no_proxy", Value::from(hosts.into_iter().collect::<Array>())));
        }
    }
    if let Some(file) = mine.ca_file.as_ref().filter(|_| daemons.ca_file.is_none())
        && let Ok(path) = std::path::absolute(&file.value)
    {
        keys.push(("ca_file", Value::from(path.to_string_lossy().into_owned())));
    }
    keys
}

/// Writes the keys and has the daemon read them. Where it does not take them, the file is as it was.
fn copy(setup: &Setup<'_>, path: &Path, keys: Vec<(&'static str, Value)>) -> Result<(), Failure> {
    let failed = |source| Failure::File { path: path.to_owned(), source };
    let old = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        text => Some(text.map_err(|source| Failure::Unreadable { path: path.to_owned(), source })?),
    };
    let new = with(old.as_deref().unwrap_or_default(), keys)
        .ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidData, "[network] is not a table of TOML")))?;
    replace(path, &new).map_err(failed)?;
    let Err(error) = setup.client.reload() else { return Ok(()) };
    match old {
        Some(old) => replace(path, &old),
        None => fs::remove_file(path),
    }
    .map_err(failed)?;
    // What was in use before stays in use, and stands in the file again.
    let _ = setup.client.reload();
    Err(match error {
        ClientError::Api(body) => Failure::NotTaken(body),
        other => other.into(),
    })
}

/// The text with these keys in `[network]`. What stands there already, stays.
fn with(text: &str, keys: Vec<(&'static str, Value)>) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    // Below everything else, comments at the end included.
    let (mut fresh, is_there) = (DocumentMut::new(), document.contains_key("network"));
    let place = if is_there { &mut document } else { &mut fresh };
    let network = place.entry("network").or_insert_with(|| Item::Table(Table::new())).as_table_like_mut()?;
    for (key, value) in keys {
        if !network.contains_key(key) {
            network.insert(key, Item::Value(value));
        }
    }
    if is_there {
        return Some(document.to_string());
    }
    let gap = if text.is_empty() {
        ""
    } else if text.ends_with('\n') {
        "\n"
    } else {
        "\n\n"
    };
    Some(format!("{text}{gap}{fresh}"))
}

/// Replaces the file whole, through a symbolic link if it is one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    file::replace(&fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()), text)
}

#[cfg(test)]
mod tests {
    use mcp_auth_proto::Setting;

    use super::*;
    use crate::surroundings::Variable;

    fn mine(proxy: &str, no_proxy: &str) -> Network {
        let set = |name, value: &str| (!value.is_empty()).then(|| Variable { name, value: value.to_owned() });
        Network { proxy: set("HTTPS_PROXY", proxy), no_proxy: set("NO_PROXY", no_proxy), ca_file: set("SSL_CERT_FILE", "/ca.pem") }
    }

    #[test]
    fn what_the_daemon_lacks_is_added_and_what_stands_there_stays() {
        let keys = lacking(&mine("proxy.corp:3128", "localhost, .corp"), &NetworkStatus::default());
        let old = "# mine\n[network]\nca_file = \"/own.pem\" # kept\n";
        let expected =
            "# mine\n[network]\nca_file = \"/own.pem\" # kept\nproxy = \"http://proxy.corp:3128\"\nno_proxy = [\"localhost\", \".corp\"]\n";
        assert_eq!(with(old, keys.clone()).unwrap(), expected);
        let fresh = "[network]\nproxy = \"http://proxy.corp:3128\"\nno_proxy = [\"localhost\", \".corp\"]\nca_file = \"/ca.pem\"\n";
        assert_eq!(with("", keys.clone()).unwrap(), fresh);
        assert_eq!(with("# mine", keys.clone()).unwrap(), format!("# mine\n\n{fresh}"), "a comment stays where it is");
        assert_eq!(with("network = 1", keys), None);
    }

    #[test]
    fn nothing_is_copied_that_is_in_effect_or_means_nothing() {
        let has = |value: &str| Some(Setting { value: value.into(), from: "config.toml".into() });
        let daemons = NetworkStatus { proxy: has("http://q:1"), no_proxy: None, ca_file: has("/ca.pem") };
        assert!(lacking(&mine("http://p:1", "a"), &daemons).is_empty());
        let keys = lacking(&mine("http://p:1", "*"), &NetworkStatus::default());
        assert_eq!(keys.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["ca_file"], "a proxy for no host is none");
    }
}

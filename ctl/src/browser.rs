//! Opening the browser: which command, whether there is one at all, and what it is given. No shell ever sees the URL.

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, Stdio};

use crate::surroundings;

/// Why no browser can be expected to appear before the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// It would open on the far machine, if anywhere.
    Ssh,
    /// A container without a display.
    Container,
    /// Neither X11 nor Wayland.
    NoDisplay,
}

/// Whether a browser can be expected to appear before the person.
pub(crate) fn available() -> bool {
    absence().is_none()
}

/// Why not, if so. `$BROWSER` comes before everything; a container that has a display shares the desktop.
pub(crate) fn absence() -> Option<Absence> {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    if set("BROWSER") {
        return None;
    }
    if set("SSH_CONNECTION") || set("SSH_TTY") {
        return Some(Absence::Ssh);
    }
    if cfg!(any(windows, target_os = "macos")) || set("DISPLAY") || set("WAYLAND_DISPLAY") {
        return None;
    }
    Some(if surroundings::in_container() { Absence::Container } else { Absence::NoDisplay })
}

/// Whether a URL may be shown and opened: http or https, nothing but visible ASCII, so that no opener can take it for a
/// flag or for two arguments.
pub(crate) fn is_web_address(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty()) && url.len() <= MAX_URL && url.bytes().all(|byte| matches!(byte, 0x21..=0x7e))
}

/// Starts the first opener that can be started, detached from us.
pub(crate) fn open(url: &str) -> io::Result<Child> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no command to open a browser");
    for argv in openers(env::var("BROWSER").ok().as_deref(), url) {
        match spawn(&argv) {
            Ok(child) => return Ok(child),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Longer than any authorization URL, shorter than what an opener chokes on.
const MAX_URL: usize = 16 * 1024;

/// The command lines to try. `$BROWSER` is a list, as in xdg-open and Python: `%s` stands for the URL, which is otherwise
/// the last argument.
fn openers(browser: Option<&str>, url: &str) -> Vec<Vec<String>> {
    let separator = if cfg!(windows) { ';' } else { ':' };
    let named: Vec<_> = browser.unwrap_or_default().split(separator).filter_map(|entry| argv_of(entry, url)).collect();
    if !named.is_empty() {
        return named;
    }
    let own: &[&str] = if cfg!(windows) {
        &["rundll32", "url.dll,FileProtocolHandler"]
    } else if cfg!(target_os = "macos") {
        &["open"]
    } else {
        &["xdg-open"]
    };
    vec![own.iter().copied().chain([url]).map(str::to_owned).collect()]
}

fn argv_of(entry: &str, url: &str) -> Option<Vec<String>> {
    let mut argv: Vec<String> = entry.split_whitespace().map(|word| word.replace("%s", url)).collect();
    if argv.is_empty() {
        return None;
    }
    if !entry.contains("%s") {
        argv.push(url.to_owned());
    }
    Some(argv)
}

fn spawn(argv: &[String]) -> io::Result<Child> {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for (name, _) in env::vars_os().filter(|(name, _)| is_secret(name)) {
        command.env_remove(name);
    }
    // A group of its own: Ctrl-C here must not close the person's browser.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}

/// Variables that a browser has no use for and that may hold a secret.
fn is_secret(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_word = |word| matches!(word, "TOKEN" | "SECRET" | "PASSWORD" | "PASSPHRASE" | "KEY" | "PAT" | "CREDENTIALS");
    // The activation token is how a window gets the focus.
    name != "XDG_ACTIVATION_TOKEN" && (name.starts_with("MCP_AUTHD_") || name.to_ascii_uppercase().split('_').any(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_web_addresses_pass() {
        for good in ["https://github.com/login/oauth/authorize?a=b&c=$(x)", "http://127.0.0.1:8080/x"] {
            assert!(is_web_address(good), "{good}");
        }
        let long = format!("https://a/{}", "x".repeat(MAX_URL));
        for bad in [
            "javascript:alert(1)",
            "file:///etc/passwd",
            "-https://a",
            "https://a b",
            "https://a\n",
            "https://\u{430}",
            "HTTPS:",
            "https://",
            "",
            &long,
        ] {
            assert!(!is_web_address(bad), "{bad}");
        }
    }

    #[test]
    fn the_url_is_one_argument_whatever_is_in_it() {
        let url = "https://a/\"&calc;$(x)%s";
        assert_eq!(openers(Some("firefox --new-window:w3m %s -T:: "), url), [vec!["firefox", "--new-window", url], vec!["w3m", url, "-T"]]);
        assert_eq!(openers(Some(""), url)[0].last().unwrap(), url);
    }

    #[test]
    fn secrets_stay_behind_and_the_desktop_does_not() {
        for name in ["GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "MCP_AUTHD_SOCKET", "db_password"] {
            assert!(is_secret(&name.into()), "{name}");
        }
        for name in ["DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS", "XDG_ACTIVATION_TOKEN", "PATH", "GNOME_KEYRING_CONTROL"] {
            assert!(!is_secret(&name.into()), "{name}");
        }
    }
}

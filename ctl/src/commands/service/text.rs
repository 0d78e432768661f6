//! PURE: what the files of the service hold. The texts come from `systemd/` and `launchd/`; here the paths and variables of
//! this installation are put in, and a last line that tells an edited file from one of ours.

use sha2::{Digest, Sha256};

use super::failure::ServiceError;

/// What the daemon is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The absolute path of mcp-authd.
    pub(super) program: String,
    /// Variables that lead it to its files, as the caller has them.
    pub(super) environment: Vec<(&'static str, String)>,
    /// The socket, where it is not in its usual place.
    pub(super) socket: Option<String>,
}

const SERVICE: &str = include_str!("../../../../systemd/mcp-authd.service");
const SOCKET: &str = include_str!("../../../../systemd/mcp-authd.socket");
const AGENT: &str = include_str!("../../../../launchd/io.github.mcp-authd.plist");

/// In the socket unit's words: the place of `mcp_auth_proto::socket_path` without a variable.
const USUAL_SOCKET: &str = "%t/mcp-authd/mcp-authd.sock";

/// `mcp-authd.service` (systemd.service(5)).
///
/// # Errors
/// [`ServiceError::OddText`] for a path or value that no unit can hold.
pub(super) fn service(start: &Start) -> Result<String, ServiceError> {
    // systemd takes no program with one of these in its name, however it is written.
    if start.program.contains(['"', '\'', '\\']) {
        return Err(ServiceError::OddText(start.program.clone()));
    }
    let mut lines = format!("ExecStart={}", word(&start.program)?);
    for (name, value) in &start.environment {
        lines.push_str(&format!("\nEnvironment={}", word(&format!("{name}={value}"))?));
    }
    Ok(sealed(&SERVICE.replacen("ExecStart=mcp-authd", &lines, 1), "# ", ""))
}

/// `mcp-authd.socket` (systemd.socket(5)).
///
/// # Errors
/// As [`service`].
pub(super) fn socket(start: &Start) -> Result<String, ServiceError> {
    let text = match &start.socket {
        // Neither quotes nor backslashes mean anything in this line, only specifiers do.
        Some(path) => SOCKET.replacen(USUAL_SOCKET, &plain(path)?.replace('%', "%%"), 1),
        None => SOCKET.to_owned(),
    };
    Ok(sealed(&text, "# ", ""))
}

/// The LaunchAgent (launchd.plist(5)); `log` is the file for what the daemon says.
///
/// # Errors
/// As [`service`].
pub(super) fn agent(start: &Start, log: &str) -> Result<String, ServiceError> {
    let mut text = AGENT.replacen("/usr/local/bin/mcp-authd", &xml(&start.program)?, 1).replacen("/dev/null", &xml(log)?, 1);
    let mut variables = String::new();
    let socket = start.socket.iter().map(|path| (mcp_auth_proto::SOCKET_ENV, path));
    for (name, value) in start.environment.iter().map(|(name, value)| (*name, value)).chain(socket) {
        variables.push_str(&format!("        <key>{name}</key>\n        <string>{}</string>\n", xml(value)?));
    }
    if !variables.is_empty() {
        let dict = format!("    <key>EnvironmentVariables</key>\n    <dict>\n{variables}    </dict>\n</dict>\n</plist>");
        text = text.replacen("</dict>\n</plist>", &dict, 1);
    }
    Ok(sealed(&text, "<!-- ", " -->"))
}

/// The variables that units of ours carry, and `MCP_AUTHD_SOCKET` where the socket is not in its usual place: a new
/// `install` without them shall not lose them.
pub(super) fn carried_by(service: &str, socket: &str) -> Vec<(String, String)> {
    let ours = |text: &'static str, found: &str| -> Vec<String> {
        let lines = found.lines().filter(move |_| is_sealed(found));
        lines.filter_map(|line| line.strip_prefix(text).map(str::to_owned)).collect()
    };
    let words = ours("Environment=", service);
    let mut carried: Vec<_> =
        words.iter().filter_map(|it| unword(it).split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))).collect();
    let moved = ours("ListenStream=", socket).into_iter().find(|path| path != USUAL_SOCKET);
    carried.extend(moved.map(|path| (mcp_auth_proto::SOCKET_ENV.to_owned(), path.replace("%%", "%"))));
    carried
}

/// How a file on the disk compares with what we would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// Not there.
    Absent,
    /// The very same.
    Same,
    /// Written by `service install` and not touched since, but with other paths or by another version.
    Outdated,
    /// Changed by hand, or never ours.
    Edited,
}

/// Compares what was found with what is wanted.
pub(super) fn compare(found: Option<&str>, wanted: &str) -> Compared {
    match found {
        None => Compared::Absent,
        Some(found) if found == wanted => Compared::Same,
        Some(found) if is_sealed(found) => Compared::Outdated,
        Some(_) => Compared::Edited,
    }
}

/// Whether the last line is ours, and true of the lines above it.
pub(super) fn is_sealed(text: &str) -> bool {
    let Some((above, last)) = text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n')) else { return false };
    last.contains(SEAL) && last.contains(&sum(&format!("{above}\n")))
}

const SEAL: &str = "Written by `mcp-authctl service install`; SHA-256 of the lines above: ";

fn sealed(text: &str, before: &str, after: &str) -> String {
    format!("{text}{before}{SEAL}{}{after}\n", sum(text))
}

fn sum(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// One word of a unit's line: in quotes where it must be, specifiers and escapes taken literally (systemd.syntax(7)).
fn word(text: &str) -> Result<String, ServiceError> {
    let text = plain(text)?;
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._+:,=@-".contains(c)) {
        return Ok(text.to_owned());
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")))
}

/// What [`word`] was made of.
fn unword(word: &str) -> String {
    match word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
        // One by one: what an escape stands for must not be taken for another.
        Some(quoted) => {
            let mut text = String::new();
            let mut all = quoted.chars().peekable();
            while let Some(c) = all.next() {
                let pair = c == '\\' || (c == '%' && all.peek() == Some(&'%'));
                text.extend(if pair { all.next() } else { Some(c) });
            }
            text
        }
        None => word.to_owned(),
    }
}

fn xml(text: &str) -> Result<String, ServiceError> {
    Ok(plain(text)?.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

/// A text that fits into one line, and does not swallow the next.
fn plain(text: &str) -> Result<&str, ServiceError> {
    let odd = text.is_empty() || text.chars().any(char::is_control) || text.ends_with('\\') || text.trim() != text;
    if odd { Err(ServiceError::OddText(text.to_owned())) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(program: &str) -> Start {
        Start { program: program.to_owned(), environment: Vec::new(), socket: None }
    }

    fn with_all() -> Start {
        Start {
            program: "/opt/a b/100%/mcp-authd".into(),
            environment: vec![("MCP_AUTHD_KEY_SOURCE", "key-file".into()), ("MCP_AUTHD_CONFIG", "/etc/my \"x\".toml".into())],
            socket: Some("/srv/50%/a.sock".into()),
        }
    }

    /// The lines of a text that are not comments and stand in no other.
    fn lines_besides<'a>(text: &'a str, other: &str) -> Vec<&'a str> {
        text.lines().filter(|line| !line.starts_with('#') && !other.contains(line)).collect()
    }

    #[test]
    fn the_service_names_the_program_and_the_callers_variables_and_changes_nothing_else() {
        let text = service(&start("/usr/bin/mcp-authd")).unwrap();
        assert_eq!(lines_besides(&text, SERVICE), ["ExecStart=/usr/bin/mcp-authd"]);
        let text = service(&with_all()).unwrap();
        let expected = [
            r#"ExecStart="/opt/a b/100%%/mcp-authd""#,
            "Environment=MCP_AUTHD_KEY_SOURCE=key-file",
            r#"Environment="MCP_AUTHD_CONFIG=/etc/my \"x\".toml""#,
        ];
        assert_eq!(lines_besides(&text, SERVICE), expected);
        assert_eq!(lines_besides(SERVICE, &text), ["ExecStart=mcp-authd"]);
    }

    #[test]
    fn the_socket_unit_follows_a_socket_in_another_place() {
        assert!(lines_besides(&socket(&start("/x")).unwrap(), SOCKET).is_empty());
        assert_eq!(lines_besides(&socket(&with_all()).unwrap(), SOCKET), ["ListenStream=/srv/50%%/a.sock"]);
    }

    #[test]
    fn the_agent_names_program_log_and_variables() {
        let text = agent(&with_all(), "/Users/me/Library/Logs/<mcp> & co.log").unwrap();
        let added = lines_besides(&text, AGENT);
        for line in [
            "        <string>/opt/a b/100%/mcp-authd</string>",
            "    <string>/Users/me/Library/Logs/&lt;mcp&gt; &amp; co.log</string>",
            "        <key>MCP_AUTHD_KEY_SOURCE</key>",
            "        <string>key-file</string>",
            "        <key>MCP_AUTHD_SOCKET</key>",
        ] {
            assert!(added.contains(&line), "{line} is not in {text}");
        }
        assert_eq!(text.matches("<dict>").count(), text.matches("</dict>").count());
        assert!(!agent(&start("/x"), "/l").unwrap().contains("EnvironmentVariables"));
    }

    #[test]
    fn only_an_untouched_file_of_ours_is_taken_for_one() {
        let (old, new) = (service(&start("/old/mcp-authd")).unwrap(), service(&start("/new/mcp-authd")).unwrap());
        assert_eq!(compare(None, &new), Compared::Absent);
        assert_eq!(compare(Some(&new), &new), Compared::Same);
        assert_eq!(compare(Some(&old), &new), Compared::Outdated);
        for edited in [SERVICE.to_owned(), old.replace("=4096", "=99"), format!("{old}# mine\n"), format!("# mine\n{old}"), String::new()] {
            assert_eq!(compare(Some(&edited), &new), Compared::Edited, "{edited}");
        }
        assert!(is_sealed(&agent(&start("/x"), "/l").unwrap()));
    }

    #[test]
    fn what_a_unit_carries_is_read_back_as_it_was_and_only_from_one_of_ours() {
        let values = ["key-file", "/a b/100%/\"x\"", r"c:\%%d\\x", "50%%", "a=b"];
        let mut start = with_all();
        start.environment = values.iter().map(|value| ("MCP_AUTHD_LOG", (*value).to_owned())).collect();
        let (service, socket) = (service(&start).unwrap(), socket(&start).unwrap());
        let found = carried_by(&service, &socket);
        let expected = values.iter().map(|value| ("MCP_AUTHD_LOG", *value)).chain([("MCP_AUTHD_SOCKET", "/srv/50%/a.sock")]);
        assert!(found.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected), "{found:?}");
        assert!(carried_by(&service.replace("4096", "99"), SOCKET).is_empty());
    }

    #[test]
    fn what_no_unit_can_hold_is_refused() {
        for odd in ["/a\nExecStartPre=/bin/evil", "", "/a\\", "/a\u{1b}", " /a"] {
            assert!(service(&start(odd)).is_err(), "{odd:?}");
            assert!(agent(&start(odd), "/l").is_err(), "{odd:?}");
            assert!(socket(&Start { socket: Some(odd.into()), ..start("/x") }).is_err(), "{odd:?}");
            assert!(service(&Start { environment: vec![("MCP_AUTHD_LOG", format!("x{odd}\n"))], ..start("/x") }).is_err());
        }
        assert!(service(&start("/a \"b\"/mcp-authd")).is_err());
    }
}

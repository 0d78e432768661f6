//! How the demo looks: lines of JSON, plain lines, or on a terminal one line that is replaced every second. It decides
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;

use serde_json::json;

use super::beat::{Beat, Tally};
use super::{CLIENTS, End};
use crate::failure::Failure;
use crate::output::{self, field};

/// What the person sees.
pub(super) struct View {
    json: bool,
    /// Whether a line can be replaced.
    live: bool,
    /// The calls of each second, until both clients have made theirs.
    rows: BTreeMap<u64, [Option<String>; CLIENTS]>,
    /// The fingerprints that were shown.
    seen: BTreeSet<String>,
    /// So far.
    count: String,
}

impl View {
    pub(super) fn new(json: bool) -> Self {
        // Without colours there is no clearing of a line either.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let live = !json && !plain && std::io::stdout().is_terminal() && output::can_count();
        Self { json, live, rows: BTreeMap::new(), seen: BTreeSet::new(), count: String::new() }
    }

    /// Takes in what it has come to so far.
    pub(super) fn count(&mut self, tally: &Tally) {
        self.count = format!("{}, {} failed, {}", many(tally.calls, "call"), tally.failed, refreshes(tally.refreshes));
    }

    /// Shows what happened.
    pub(super) fn show(&mut self, beat: &Beat) -> Result<(), Failure> {
        if self.json {
            return output::json(beat);
        }
        match beat {
            Beat::Called { second, client, token, error } => self.called(*second, *client, token.as_deref(), error.as_deref()),
            other => self.line(&words(other)),
        }
    }

    /// Shows what it came to, and what to do next.
    pub(super) fn end(&self, tally: &Tally, end: End) -> Result<(), Failure> {
        if self.json {
            let mut summary = json!(tally);
            summary["event"] = "ended".into();
            summary["tokens"] = tally.tokens.len().into();
            return output::json(&summary);
        }
        self.line(&summary(tally, end))?;
        if tally.is_as_it_should_be() { self.line(NEXT) } else { Ok(()) }
    }

    /// One line a second with the calls of both clients. On a terminal it stays if it has something new.
    fn called(&mut self, second: u64, client: usize, token: Option<&str>, error: Option<&str>) -> Result<(), Failure> {
        if let Some(error) = error {
            self.line(&format!("{second:4} s   client {client} failed: {}", field(error)))?;
        }
        let row = self.rows.entry(second).or_default();
        row[client - 1] = Some(if error.is_some() { "failed".to_owned() } else { field(token.unwrap_or("?")) });
        if row.iter().any(Option::is_none) {
            return Ok(());
        }
        let row = self.rows.remove(&second).unwrap_or_default();
        let mut cells = String::new();
        let mut is_new = false;
        for (number, cell) in (1..).zip(row.into_iter().flatten()) {
            cells += &format!("   client {number}: {cell:8}");
            is_new |= error.is_none() && self.seen.insert(cell);
        }
        let mark = if is_new { "   <- a new token" } else { "" };
        if is_new || !self.live {
            self.line(&format!("{second:4} s{cells}{mark}"))?;
        }
        if self.live {
            output::progress(Some(&format!("{second:4} s{cells}   {}", self.count)));
        }
        Ok(())
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        if self.live {
            output::progress(None);
        }
        output::line(text)
    }
}

fn words(beat: &Beat) -> String {
    match beat {
        Beat::Started { issuer, folder, lifetime } => format!(
            "A private mcp-authd runs, with everything it keeps in {}.\n\
             It is also the authorization server of this demo, {}: access tokens live {lifetime} s, a refresh\n\
             token is good for one use, and one that is used twice ends the login. Nothing leaves this machine.\n",
            field(&folder.to_string_lossy()),
            field(issuer)
        ),
        Beat::LoggingIn { because: Some(reason), .. } => {
            format!("Logging in. The demo answers the login page itself, because {reason}:")
        }
        Beat::LoggingIn { because: None, .. } => "Logging in, with your browser:".to_owned(),
        Beat::LoggedIn { code } => {
            let how = code.as_ref().map(|code| format!("it fetched the page, approved its code {}, and followed it back.\n", field(code)));
            format!(
                "{}Logged in. Now two MCP clients call their MCP server once a second, which asks mcp-authd for a token each time.\n\
                 Shown are fingerprints of the tokens, never a token:\n",
                how.unwrap_or_default()
            )
        }
        Beat::Refreshed { second } => format!("{second:4} s   mcp-authd has refreshed, ahead of the end of the old token"),
        Beat::LoggedOut { revoked: true } => "\nLogged out: the authorization server has revoked the tokens.".to_owned(),
        Beat::LoggedOut { revoked: false } => {
            "\nLogged out, but the authorization server did not confirm that it revoked the tokens.".to_owned()
        }
        Beat::Called { .. } => String::new(),
    }
}

fn summary(tally: &Tally, end: End) -> String {
    let stopped = match end {
        End::InTime => "",
        End::Interrupted => " (stopped by Ctrl-C)",
        End::DaemonGone => " (its mcp-authd has ended)",
    };
    let head = format!(
        "\nOne login, {} s{stopped}: {} by two clients, {} failed; {} with {}.",
        tally.seconds,
        many(tally.calls, "call"),
        tally.failed,
        many(tally.tokens.len(), "token"),
        refreshes(tally.refreshes)
    );
    let meaning = if tally.refreshes > 0 && tally.failed == 0 && tally.revoked {
        "\nEach token was replaced before it ended, both clients went on with the same new one, and nobody had to log in again.\n\
         The clients saw no token at all, the MCP servers only access tokens; the refresh token never left mcp-authd."
    } else if end != End::InTime {
        ""
    } else {
        "\nThat is not what it should be: at least one refresh, no failed call, and a logout that the server confirms."
    };
    let rejected = if tally.rejected > 0 { format!("\n{} not taken by the API.", many(tally.rejected, "token")) } else { String::new() };
    let left = if tally.nothing_left {
        "\nNothing is left behind: its processes have ended and its folder is gone."
    } else {
        "\nSomething of it could not be removed."
    };
    format!("{head}{meaning}{rejected}{left}")
}

const NEXT: &str = "
What next:
  mcp-authctl setup            choose once where the vault's key is kept, and whether mcp-authd runs as a service
  mcp-authctl login github     log in to a real provider; `mcp-authctl provider list` names the others
  docs/model-server.md         the MCP server of this demo, to copy from";

fn many(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn refreshes(count: usize) -> String {
    if count == 1 { "1 refresh".to_owned() } else { format!("{count} refreshes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_what_was_wrong() {
        let good = Tally { seconds: 60, calls: 120, refreshes: 3, revoked: true, nothing_left: true, ..Tally::default() };
        let said = summary(&good, End::InTime);
        assert!(said.contains("120 calls by two clients, 0 failed") && said.contains("3 refreshes"), "{said}");
        assert!(said.contains("nobody had to log in again") && said.contains("Nothing is left behind"), "{said}");
        let bad = summary(&Tally { failed: 1, nothing_left: false, ..good.clone() }, End::InTime);
        assert!(bad.contains("not what it should be") && bad.contains("could not be removed"), "{bad}");
        assert!(!bad.contains("nobody had to"), "{bad}");
        assert!(summary(&Tally { refreshes: 0, ..good }, End::Interrupted).contains("stopped by Ctrl-C"));
    }
}

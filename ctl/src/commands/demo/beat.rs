//! PURE: what happens in the demo, and what it comes to. Never a token: fingerprints stand for them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

/// Something happened; with `--json` a line.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Beat {
    /// The daemon runs, and its issuer.
    Started {
        issuer: String,
        folder: PathBuf,
        /// Of an access token, in seconds.
        lifetime: u64,
    },
    LoggingIn {
        by_browser: bool,
        /// Why not by a browser.
        #[serde(skip_serializing_if = "Option::is_none")]
        because: Option<&'static str>,
    },
    LoggedIn {
        /// The code that the demo approved itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// A client has called its MCP server.
    Called {
        second: u64,
        client: usize,
        /// The fingerprint of the token that the MCP server used.
        token: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    Refreshed {
        second: u64,
    },
    LoggedOut {
        /// Whether the issuer confirmed that the tokens are revoked.
        revoked: bool,
    },
}

/// What it came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Tally {
    pub(super) seconds: u64,
    pub(super) calls: usize,
    pub(super) failed: usize,
    pub(super) refreshes: usize,
    /// The fingerprints of the tokens that were used.
    pub(super) tokens: BTreeSet<String>,
    /// Tokens that the stand-in for GitHub did not take.
    pub(super) rejected: usize,
    pub(super) revoked: bool,
    pub(super) nothing_left: bool,
}

impl Tally {
    pub(super) fn take(&mut self, beat: &Beat) {
        match beat {
            Beat::Called { token, error, .. } => {
                self.calls += 1;
                self.failed += usize::from(error.is_some());
                self.tokens.extend(token.clone());
            }
            Beat::Refreshed { .. } => self.refreshes += 1,
            _ => {}
        }
    }

    /// Whether the demo shows what it is there to show.
    pub(super) fn is_as_it_should_be(&self) -> bool {
        self.refreshes > 0 && self.failed == 0 && self.rejected == 0 && self.revoked && self.nothing_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(token: &str, error: Option<&str>) -> Beat {
        Beat::Called { second: 1, client: 1, token: Some(token.to_owned()), error: error.map(str::to_owned) }
    }

    #[test]
    fn it_is_as_it_should_be_with_a_refresh_and_without_a_failure() {
        let mut tally = Tally { revoked: true, nothing_left: true, ..Tally::default() };
        tally.take(&called("a", None));
        assert!(!tally.is_as_it_should_be(), "no refresh was seen");
        tally.take(&Beat::Refreshed { second: 2 });
        tally.take(&called("b", None));
        assert!(tally.is_as_it_should_be());
        assert_eq!((tally.calls, tally.failed, tally.refreshes, tally.tokens.len()), (2, 0, 1, 2));
        assert!(!Tally { rejected: 1, ..tally.clone() }.is_as_it_should_be());
        assert!(!Tally { revoked: false, ..tally.clone() }.is_as_it_should_be());
        assert!(!Tally { nothing_left: false, ..tally.clone() }.is_as_it_should_be());
        tally.take(&called("b", Some("no")));
        assert!(!tally.is_as_it_should_be());
    }
}

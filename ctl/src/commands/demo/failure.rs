//! Why the demo did not come about, or not as it should, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// A program is neither beside this one nor on PATH.
    #[error("{0} is neither beside mcp-authctl nor on PATH")]
    Missing(&'static str),
    /// A program could not be started.
    #[error("cannot start {}: {source}", program.display())]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon did not come up.
    #[error("the mcp-authd of the demo ended before it was ready")]
    NoDaemon,
    /// The daemon ended while it was needed.
    #[error("the mcp-authd of the demo has ended in the middle of it")]
    DaemonGone,
    /// The issuer did not come up.
    #[error("the issuer of the demo does not listen")]
    NoIssuer,
    /// The issuer's page could not be fetched.
    #[error("the issuer of the demo does not answer: {0}")]
    NoAnswer(#[from] Box<ureq::Error>),
    /// The issuer's page is not the one that was expected.
    #[error("the page of the demo's issuer is not the one that asks for an approval (HTTP status {0})")]
    OddPage(u16),
    /// The MCP server did not start its protocol.
    #[error("the model MCP server of the demo does not answer: {0}")]
    NoServer(String),
    /// The system refused something small.
    #[error("the demo cannot run here: {0}")]
    System(#[source] io::Error),
    /// It ran, and did not show what it should.
    #[error("the demo did not go as it should")]
    NotAsItShouldBe,
}

impl DemoError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Missing(_) => "cargo build --release && target/release/mcp-authctl demo".into(),
            _ => "MCP_AUTHD_LOG=debug mcp-authctl demo, and report what it says".into(),
        }
    }
}

//! The bridge: an MCP server on stdio that is a client of the daemon's relay (Streamable HTTP), for MCP clients that only know
//! the one and servers that only know the other. It passes messages on; it makes up none but the errors that say why one could
//! not be passed, and speaks for nobody's capabilities.
//!
//! `stdio` brings a line -> `conversation` decides what becomes of it -> `exchange` sends it by `link` and reads what comes back
//! (`events`; `relearn` where the tools have changed) -> `stdio`. `listening` holds the stream that a server of the older era speaks on unasked. `message`, `mirror` and
//! `tools` are pure.

mod conversation;
mod course;
mod elicit;
mod events;
mod exchange;
mod link;
mod listening;
mod login;
mod message;
mod mirror;
mod relearn;
mod stdio;
mod tools;

use std::path::PathBuf;
use std::time::Duration;

use hyper::HeaderMap;
use mcp_auth_proto::LoginRequest;
use mcp_auth_proto::asynchronous::Client;

use self::conversation::Conversation;
use self::link::Link;
use self::login::Logins;
use crate::failure::Failure;

/// What a bridge is started with.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) socket: PathBuf,
    /// The grant's name, or the server's URL.
    pub(crate) target: String,
    /// Sent with every request.
    pub(crate) headers: HeaderMap,
    /// How a login is asked for.
    pub(crate) login: LoginRequest,
    pub(crate) no_browser: bool,
}

/// The longest wait for the head of an answer: none of ours, since a tool may think for as long as its client lets it.
const ANSWER: Duration = Duration::from_secs(24 * 3600);

/// How long a client may take to read what is left at the end.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Runs until stdin ends, or until it is told to end.
pub(crate) fn run(bridge: Bridge) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(Failure::Output)?;
    runtime.block_on(async {
        let Bridge { socket, target, headers, login, no_browser } = bridge;
        let link = Link::new(Client::new(&socket).with_patience(ANSWER), target, headers);
        let (outlet, writer) = stdio::outlet();
        let conversation = Conversation::new(link, outlet, Logins::new(socket, login, no_browser));
        conversation.run(stdio::inlet(), told_to_end()).await;
        // What is written by now is what the client gets.
        let _ = tokio::time::timeout(LAST_LINES, tokio::task::spawn_blocking(move || writer.join())).await;
    });
    // A thread that still reads stdin does not hold us.
    runtime.shutdown_background();
    Ok(())
}

/// SIGTERM, with which clients end what does not end with its stdin.
async fn told_to_end() {
    #[cfg(unix)]
    if let Ok(mut terminations) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        terminations.recv().await;
        return;
    }
    std::future::pending().await
}

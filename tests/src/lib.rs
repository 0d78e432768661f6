//! What the end-to-end suites share: a [`Room`] with the real daemon and its command line in it, the real authorization
//! [`Server`], a person who answers its pages ([`Person`]), a private [`Keyring`], and the search for leaked secrets.
//!
//! Nothing here is simulated and nothing is skipped: a missing part fails the test and says what to install. Everything
//! that waits, waits in [`wait_until`], for something that it can see.

// A harness reports by panicking: that is what fails the test, with the line that called it.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod accept;
mod asker;
mod binaries;
mod bound_server;
mod browse;
mod bus;
mod cable;
mod desktop;
mod eras;
mod events;
mod git;
mod github;
mod http;
pub mod issuer;
mod keyring;
mod leak;
mod listing;
mod logins;
mod mcp_server;
mod model_server;
mod process;
mod protected;
mod proxy;
mod remote;
mod request;
pub mod rogue;
mod room;
mod run;
mod server;
mod signer;
mod small_disk;
mod stdio;
mod terminal;
mod tls;
mod wait;

pub use asker::{Asker, Told, told};
pub use binaries::{binary, chromium, kept_folder, mcp_python, node, require, require_root, source_folder};
pub use bound_server::{BoundServer, SeenBound};
pub use browse::{Answer, Person};
pub use cable::Cable;
pub use desktop::{Desktop, Shown, VirtualScreen};
pub use eras::{modern, older, result};
pub use events::Events;
pub use git::{Git, GitServer, Scheme, Visit, our_helper};
pub use github::GitHub;
pub use http::{Connection, HttpAnswer, get, post_form, post_json, send_raw};
pub use keyring::Keyring;
pub use leak::{Finding, LeakSearch, MARKS, PASSPHRASE};
pub use listing::Listing;
pub use mcp_server::McpServer;
pub use model_server::ModelServer;
pub use process::{memory_kib, open_files, processor_time};
pub use protected::{ProtectedServer, Sdk};
pub use proxy::Proxy;
pub use remote::{Asked, RemotePlace, RemoteServer, Reply};
pub use room::{AS_STRANGER, Daemon, LoginStream, OWNER, Room, STRANGER, Systemd, attempts, give, provider_table};
pub use run::{Output, Running, run};
pub use server::{CLIENT_SECRET, Counters, GrantTypeCounters, Issued, Server};
pub use signer::{Key, Signer, unsigned};
pub use small_disk::SmallDisk;
pub use stdio::StdioServer;
pub use terminal::OnTerminal;
pub use tls::{Identity, TlsFront};
pub use wait::{now_ms, wait_until};

/// The first 8 hex digits of a token's SHA-256: the same as the daemon and the authorization server show.
pub fn fingerprint(token: &str) -> String {
    use sha2::Digest as _;
    hex::encode(&sha2::Sha256::digest(token.as_bytes())[..4])
}

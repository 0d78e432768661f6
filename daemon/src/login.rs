//! One login, read top to bottom: metadata, listener, authorization URL, redirect, code exchange, identity.

pub mod pasted;
pub mod redirect;

use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto::{ErrorBody, Secret};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::grant::record::Definition;
use crate::oauth::token::TokenResponse;
use crate::provider::Provider;
use crate::secret::ClientSecret;
use crate::transport::Transport;

/// What a login needs to know.
pub struct Plan {
    /// The provider, as configured now.
    pub provider: Provider,
    /// The client secret, when there is one.
    pub client_secret: Option<ClientSecret>,
    /// The scopes to ask for, `refresh_scopes` included.
    pub scopes: Vec<String>,
    /// The resource indicator to send.
    pub resource: Option<String>,
    /// The port of the loopback redirect, when the person gave one.
    pub callback_port: Option<u16>,
    /// How long the person has.
    pub patience: Duration,
}

/// What a login tells while it runs.
#[derive(Debug)]
pub enum Progress {
    /// The person must open this URL.
    OpenUrl {
        /// The authorization URL.
        url: String,
        /// The host that it leads to, in ASCII.
        host: String,
        /// The redirect URI in it.
        redirect_uri: String,
    },
    /// The redirect has come.
    Exchanging,
}

/// What a login brings home.
#[derive(Debug)]
pub struct Outcome {
    /// The provider and client that made the tokens.
    pub definition: Definition,
    /// The tokens.
    pub response: TokenResponse,
    /// When the token request was sent.
    pub sent_at: crate::clock::Now,
    /// Who logged in, for people.
    pub account: Option<String>,
    /// Who logged in, for the provider.
    pub subject: Option<String>,
}

/// Runs one login to its end. Cancelled by dropping the future; then the listener is closed and nothing has changed.
/// `pasted` carries redirect URLs that a person pasted; a wrong one answers its sender and changes nothing.
pub async fn run(
    plan: Plan,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    progress: impl Fn(Progress) + Send,
    pasted: mpsc::Receiver<Pasted>,
) -> Result<Outcome, ErrorBody> {
    todo!()
}

/// A pasted redirect URL, and where the answer goes.
#[derive(Debug)]
pub struct Pasted {
    /// The URL.
    pub url: Secret,
    /// Told whether the URL was this login's redirect.
    pub answer: tokio::sync::oneshot::Sender<Result<(), ErrorBody>>,
}

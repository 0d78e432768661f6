//! The map of the crate.
//!
//! A token request goes `ipc::listener` (accepts) -> `ipc::peer` (same user, else closed) -> `ipc::routes` -> `policy` ->
//! `broker` (owns every grant) -> `grant` (decides), and back. `relay` forwards MCP requests to remote servers, with a token, from the
//! socket and, for clients with a secret, from a port on loopback.
//! `issuer` is an authorization server of our own, with a port of its own, for MCP servers on this machine. Everything that
//! touches the world lies at the edges:
//! `platform`, `transport`, `vault`, `audit` (who got what), `clock`, `notify`. What a person is told by a notification
//! decides `notices`.

pub mod audit;
pub mod broker;
pub mod caller;
pub mod clock;
pub mod config;
pub mod ephemeral;
mod failpoint;
#[cfg(all(unix, any(test, feature = "fuzzing")))]
pub mod fuzzing;
pub mod grant;
pub mod ipc;
pub mod issuer;
pub mod logging;
pub mod login;
mod loopback;
mod metrics;
pub mod notices;
pub mod notify;
pub mod oauth;
pub mod places;
pub mod platform;
pub mod policy;
pub mod proofs;
pub mod provider;
pub mod registration;
pub mod relay;
pub mod secret;
pub mod transport;
pub mod vault;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audit::Audit;
use broker::{Broker, Edges};
use clock::SystemClock;
use ipc::capability::Capabilities;
use ipc::listener::Doors;
use ipc::{Limits, Stage};
use issuer::Issuer;
use notify::Desktop;
use transport::Transport;
use vault::Vault;

/// How long refreshes in flight may take to be finished and saved at the end.
const LAST_REFRESHES: Duration = Duration::from_secs(10);

/// How long a connection that was accepted may take to bring its request: a little more than it is given by `ipc`.
const LAST_REQUESTS: Duration = Duration::from_millis(300);

/// How long answers may take to be read after that.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The real edges: the system's clock, the network as the config says, this vault, this desktop, this audit.
pub fn system_edges(vault: Vault, desktop: Desktop, audit: Audit) -> Edges {
    let connect = |network: &config::Network| -> Arc<dyn Transport> { Arc::new(transport::network::Network::new(network_of(network))) };
    Edges { clock: Arc::new(SystemClock), connect, vault, desktop, audit }
}

fn network_of(config: &config::Network) -> transport::network::NetworkConfig {
    transport::network::NetworkConfig {
        proxy: config.proxy.clone(),
        no_proxy: config.no_proxy.as_ref().map(|hosts| hosts.join(",")),
        ca_file: config.ca_file.clone(),
    }
}

/// Serves `listener` until `shutdown` is ready, then ends in order: nobody is accepted, what runs is finished and saved,
/// and what still streams is cut off. Takes little more than 11 seconds for that.
///
/// `path` is where the socket is, beside which there may be others for single programs; `None`: there are none. `ports` are
/// those that a service manager holds for us.
pub async fn run(
    listener: platform::Listener,
    path: Option<PathBuf>,
    ports: Vec<TcpListener>,
    broker: Broker,
    shutdown: impl Future<Output = ()>,
) {
    let (stage, stages) = tokio::sync::watch::channel(Stage::Open);
    let (capabilities, wishes) = Capabilities::new();
    let doors = Doors { main: listener, private: path.map(|path| (wishes, broker.capability_memory(), path)) };
    let limits = Limits::default();
    // It serves until the last refresh has ended: some of them may be its own clients.
    let ports: Arc<[TcpListener]> = ports.into();
    let issuer = Issuer::start(&broker, Arc::clone(&ports));
    let answerer = ipc::routes::answerer(broker.clone(), issuer, capabilities, limits.occupied.clone());
    let port = relay::door::keep(broker.clone(), ports, stages.clone());
    let socket = ipc::listener::serve(doors, answerer, limits, stages);
    let mut serving = tokio::spawn(async move { tokio::join!(socket, port) });
    shutdown.await;
    stage.send_replace(Stage::Draining);
    // What is on its way still comes to a broker that answers, and the answer is none about our end.
    let _ = tokio::time::timeout(LAST_REQUESTS, &mut serving).await;
    if tokio::time::timeout(LAST_REFRESHES, broker.shutdown()).await.is_err() {
        tracing::warn!("refreshes in flight did not end in time; they are repeated at the next start");
    }
    stage.send_replace(Stage::Ending);
    // Whoever has not read an answer by then will not.
    if !serving.is_finished() {
        let _ = tokio::time::timeout(LAST_ANSWERS, serving).await;
    }
    broker.audit().finish().await;
}

//! The relay's port on loopback, for MCP clients that only take an http URL: `/mcp/NAME` and nothing else, for clients that show
//! their secret. Keeps the port as the config says, tells the clients apart, and shows out those that were removed.
//!
//! Whoever is not known gets an error in the words of MCP like any other of the relay's, and never a challenge: clients would
//! begin a login of their own at our port.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Method;
use hyper::header::{CONNECTION, HeaderValue};
use mcp_auth_proto::{ErrorBody, ErrorCode, event};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::clients::{Client, find, shown_secret};
use super::{forward, refuse, turn_away};
use crate::audit::Note;
use crate::broker::Broker;
use crate::ipc::port::{self, Guest};
use crate::ipc::routes::server_at;
use crate::ipc::{Answer, Answering, Call, Stage};
use crate::loopback;

/// The clients; `None`: the vault is not open.
pub type Known = Option<Arc<[Arc<Client>]>>;

/// What the port stands on.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Where to listen; `None`: nowhere.
    pub listen: watch::Receiver<Option<SocketAddr>>,
    /// Who may come.
    pub clients: watch::Receiver<Known>,
}

/// How long a wrong secret waits for its answer.
const PENALTY: Duration = Duration::from_secs(1);
/// How many of them wait at a time; those beyond are told that there are too many.
const PENALTIES: usize = 32;
/// Between two words about wrong secrets.
const APART: Duration = Duration::from_secs(60);
/// What the audit calls a request here.
const ROUTE: &str = "/mcp on the relay's port";

/// Serves the port, wherever the config says it is, until the daemon ends and the last connection is gone.
pub async fn keep(broker: Broker, ports: Arc<[std::net::TcpListener]>, stage: watch::Receiver<Stage>) {
    let Feed { mut listen, clients } = broker.relay_feed();
    let door = Arc::new(Door { broker, clients, penalties: Semaphore::new(PENALTIES), told: Mutex::default() });
    loop {
        let address = *listen.borrow_and_update();
        tokio::select! {
            () = door.serve(address, &ports, stage.clone()) => return,
            // A broker that has gone changes nothing any more.
            Ok(()) = listen.changed() => {}
        }
    }
}

struct Door {
    broker: Broker,
    clients: watch::Receiver<Known>,
    penalties: Semaphore,
    /// When somebody was told of a wrong secret last.
    told: Mutex<Option<Instant>>,
}

/// Who has shown a secret on one connection.
type Shown = Arc<Mutex<Vec<Arc<Client>>>>;

impl Door {
    /// Returns when the daemon ends.
    async fn serve(self: &Arc<Self>, address: Option<SocketAddr>, ports: &[std::net::TcpListener], stage: watch::Receiver<Stage>) {
        let mut end = stage.clone();
        tokio::select! {
            biased;
            () = async { drop(end.wait_for(|stage| *stage != Stage::Open).await) } => {}
            listener = self.listener(address, ports) => port::serve(listener.0, listener.1, stage, || self.guest()).await,
        }
    }

    /// The port, as soon as it is to be had.
    async fn listener(&self, address: Option<SocketAddr>, ports: &[std::net::TcpListener]) -> (TcpListener, SocketAddr) {
        let Some(address) = address else { return std::future::pending().await };
        let listener = loopback::listen_at_last("the relay", address, ports, |error| self.broker.relay_is(error)).await;
        tracing::info!(%address, "the relay's port is open");
        (listener, address)
    }

    fn guest(self: &Arc<Self>) -> Guest {
        let shown = Shown::default();
        let (door, of_answers) = (Arc::clone(self), Arc::clone(&shown));
        let answer = move |call| -> Answering {
            let (door, shown) = (Arc::clone(&door), Arc::clone(&of_answers));
            Box::pin(async move { door.answer(call, &shown).await })
        };
        let mut clients = self.clients.clone();
        let out = async move {
            loop {
                let is_removed = |client: &Arc<Client>| match &*clients.borrow() {
                    // A vault that is locked says nothing of it.
                    None => false,
                    Some(clients) => !clients.contains(client),
                };
                if of(&shown).iter().any(is_removed) {
                    return;
                }
                if clients.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        Guest { answer: Arc::new(answer), out: Box::pin(out) }
    }

    async fn answer(&self, call: Call, shown: &Shown) -> Answer {
        let name = server_at(&call.uri).filter(|_| matches!(call.method, Method::POST | Method::GET | Method::DELETE));
        let Some(name) = name else {
            return Answer::Error(Box::new(ErrorBody::new(ErrorCode::NotFound, "there is nothing here but /mcp/NAME")));
        };
        let clients = match self.known().await {
            Ok(clients) => clients,
            Err(error) => return turn_away(call, error).await,
        };
        let Some(secret) = shown_secret(&call.headers) else { return turn_away(call, no_secret()).await };
        let Some(client) = find(&clients, secret).cloned() else { return self.wrong_secret(call).await };
        note(shown, &client);
        match client.only().meant(&name) {
            Some(grant) => forward(self.broker.clone(), Call { caller: client.caller.clone(), ..call }, grant.to_string()).await,
            None => {
                let error = client.only().denial();
                self.broker.denied(client.caller.clone(), Some(ROUTE.to_owned()), None, error.to_string());
                refuse(call, error).await
            }
        }
    }

    async fn known(&self) -> Result<Arc<[Arc<Client>]>, ErrorBody> {
        // A vault that stays locked is told.
        self.broker.vault_opened().await?;
        let locked = || ErrorBody::new(ErrorCode::VaultLocked, "the vault is being opened").hint("try again in a moment");
        self.clients.borrow().clone().ok_or_else(locked)
    }

    /// A guess costs a second and a connection. Nobody else waits for it, and whoever has a secret is not among those who do.
    async fn wrong_secret(&self, call: Call) -> Answer {
        self.tell();
        let error = match self.penalties.try_acquire() {
            Ok(_permit) => {
                tokio::time::sleep(PENALTY).await;
                unknown_secret()
            }
            Err(_) => ErrorBody::new(ErrorCode::TooManyRequests, "too many wrong secrets are shown here").hint("try again in a moment"),
        };
        let mut answer = turn_away(call, error).await;
        if let Answer::Relayed(relayed) = &mut answer {
            relayed.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Once a minute: whoever guesses fills no log.
    fn tell(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|last| last.elapsed() < APART) {
            return;
        }
        *told = Some(Instant::now());
        self.broker.audit().note(Note::of(event::DENIED).about(ROUTE));
        self.broker.tell(event::DENIED, format!("{ROUTE}: somebody shows a secret that no client has"));
    }
}

fn of(shown: &Shown) -> std::sync::MutexGuard<'_, Vec<Arc<Client>>> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever is removed is shown out wherever he is.
fn note(shown: &Shown, client: &Arc<Client>) {
    let mut shown = of(shown);
    if !shown.contains(client) {
        shown.push(client.clone());
    }
}

fn no_secret() -> ErrorBody {
    let sentence = "the relay's port wants the secret of a client in the header `Authorization: Bearer SECRET`";
    ErrorBody::new(ErrorCode::AccessDenied, sentence).hint(ADD)
}

fn unknown_secret() -> ErrorBody {
    ErrorBody::new(ErrorCode::AccessDenied, "no client of the relay's port has this secret").hint(ADD)
}

const ADD: &str = "mcp-authctl relay add CLIENT --grant GRANT prints one, with the URL";

//! The clients of the relay's port: what the vault holds of them, who is added and removed, and what the port has to know.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, event};
use tokio::sync::watch;

use super::core::{Core, answer};
use super::gate::refusal;
use super::{Broker, Reply};
use crate::audit::Note;
use crate::caller::Caller;
use crate::policy::rule::is_client_name;
use crate::relay::clients::{self, Client};
use crate::relay::door::{Feed, Known};
use crate::vault::{Record, VaultError};

/// The most clients: each request of a client is compared with all.
const MOST: usize = 64;

/// The broker's end of the relay's port, and what it heard back.
pub(super) struct RelaySide {
    listen: watch::Sender<Option<SocketAddr>>,
    clients: watch::Sender<Known>,
    error: Option<String>,
    /// Names that are on their way to the disk.
    adding: BTreeSet<String>,
}

impl RelaySide {
    pub(super) fn new(listen: Option<SocketAddr>) -> Self {
        Self { listen: watch::Sender::new(listen), clients: watch::Sender::new(None), error: None, adding: BTreeSet::new() }
    }

    pub(super) fn subscribe(&self) -> Feed {
        Feed { listen: self.listen.subscribe(), clients: self.clients.subscribe() }
    }

    /// The config was read again.
    pub(super) fn configured(&mut self, listen: Option<SocketAddr>) {
        let differs = self.listen.send_if_modified(|present| std::mem::replace(present, listen) != listen);
        if differs {
            self.error = None;
        }
    }

    /// The vault was opened, with these records.
    pub(super) fn opened(&self, records: &[Record]) {
        let known = records.iter().filter_map(|record| {
            let client = Client::from_record(record);
            if client.is_none() {
                tracing::warn!(client = %record.id.name, "a client of the relay is not of this version; it is left alone");
            }
            client.map(Arc::new)
        });
        self.clients.send_replace(Some(known.collect()));
    }

    /// The vault was locked.
    pub(super) fn locked(&self) {
        self.clients.send_replace(None);
    }

    pub(super) fn status(&self) -> Option<wire::RelayStatus> {
        let clients = self.clients.borrow().as_ref().map(|clients| clients.len());
        self.url().map(|url| wire::RelayStatus { url, clients, error: self.error.clone() })
    }

    fn url(&self) -> Option<String> {
        self.listen.borrow().map(|address| format!("http://{address}"))
    }

    /// The clients while the vault is open.
    fn all(&self) -> Vec<Arc<Client>> {
        self.clients.borrow().as_deref().map(<[_]>::to_vec).unwrap_or_default()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Client>>)) {
        let mut all = self.all();
        change(&mut all);
        // A vault that was locked meanwhile is read again when it is opened.
        self.clients.send_if_modified(|known| {
            let is_open = known.is_some();
            if is_open {
                *known = Some(all.into());
            }
            is_open
        });
    }
}

impl Broker {
    /// What the relay's port stands on.
    pub fn relay_feed(&self) -> Feed {
        self.0.relay.clone()
    }

    /// How the relay's port is, for `GET /v1/status`; `None`: as it should be.
    pub fn relay_is(&self, error: Option<String>) {
        // A core that has gone tells nobody.
        let _ = self.0.mailbox.send(Box::new(move |core| core.relay.error = error));
    }

    /// `GET /v1/relay/clients`.
    pub async fn relay_clients(&self) -> Result<Vec<wire::RelayClient>, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, |core, reply| core.relay_clients(reply))).await
    }

    /// `POST /v1/relay/clients` of `caller`.
    pub async fn add_relay_client(&self, client: wire::NewRelayClient, caller: Arc<Caller>) -> Result<wire::AddedRelayClient, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.add_relay_client(&client, caller, reply))).await
    }

    /// `DELETE /v1/relay/clients/NAME` of `caller`.
    pub async fn remove_relay_client(&self, name: String, caller: Arc<Caller>) -> Result<wire::RelayClient, ErrorBody> {
        self.ask(|core, reply| core.when_open(reply, move |core, reply| core.remove_relay_client(&name, caller, reply))).await
    }
}

impl Core {
    fn relay_clients(&mut self, reply: Reply<Vec<wire::RelayClient>>) {
        answer(reply, Ok(self.relay.all().iter().map(|client| client.shown()).collect()));
    }

    fn add_relay_client(&mut self, wanted: &wire::NewRelayClient, caller: Arc<Caller>, reply: Reply<wire::AddedRelayClient>) {
        let (url, grants) = match self.new_client(wanted) {
            Ok(found) => found,
            Err(error) => return answer(reply, Err(error)),
        };
        let (client, secret) = Client::new(&wanted.name, grants, self.now().wall);
        self.relay.adding.insert(wanted.name.clone());
        let (record, client) = (client.to_record(), Arc::new(client));
        let done = self.back(move |core, saved: Result<(), VaultError>| {
            core.relay.adding.remove(client.name());
            if let Err(error) = saved {
                return answer(reply, Err(refusal(&error)));
            }
            core.relay.change(|all| all.push(client.clone()));
            core.relay_client_changed(&caller, event::RELAY_CLIENT_ADDED, &client);
            let server = |grant: &GrantName| wire::RelayedServer { grant: grant.clone(), url: format!("{url}/mcp/{grant}") };
            let servers = client.only().grants().map(server).collect();
            answer(reply, Ok(wire::AddedRelayClient { name: client.name().to_owned(), secret, servers }));
        });
        self.edges.vault.save(record, done);
    }

    /// Where a new client would find the port, and what it would be for.
    fn new_client(&self, wanted: &wire::NewRelayClient) -> Result<(String, Vec<(GrantName, GrantName)>), ErrorBody> {
        let name = &wanted.name;
        let refused = |code, sentence: String, hint: String| Err(ErrorBody::new(code, sentence).hint(hint));
        if !is_client_name(name) {
            let sentence = "a client's name is a lower-case letter or digit, then up to 62 of a-z 0-9 . _ -".to_owned();
            return refused(ErrorCode::InvalidRequest, sentence, "mcp-authctl relay add --help".to_owned());
        }
        let Some(url) = self.relay.url() else {
            let hint = "write `[relay]` and `listen = \"127.0.0.1:8732\"` into config.toml, then mcp-authctl reload".to_owned();
            return refused(ErrorCode::Conflict, "the relay has no port on loopback".to_owned(), hint);
        };
        // Whoever has the port in our place would be sent the secret.
        if let Some(error) = &self.relay.error {
            return refused(ErrorCode::Conflict, error.clone(), "mcp-authctl doctor".to_owned());
        }
        let all = self.relay.all();
        if self.relay.adding.contains(name) || all.iter().any(|client| client.name() == name) {
            let hint = format!("mcp-authctl relay remove {name} takes its secret back");
            return refused(ErrorCode::Conflict, format!("there is a client `{name}` already"), hint);
        }
        if all.len() + self.relay.adding.len() >= MOST {
            let hint = "mcp-authctl relay list, then mcp-authctl relay remove CLIENT".to_owned();
            return refused(ErrorCode::Conflict, format!("there are {MOST} clients already, which is the most"), hint);
        }
        let grants = self.held_by_name(&wanted.grants)?;
        grants.iter().try_for_each(|(_, own)| self.find_server(own.to_string()).map(drop))?;
        Ok((url, grants))
    }

    fn remove_relay_client(&mut self, name: &str, caller: Arc<Caller>, reply: Reply<wire::RelayClient>) {
        let Some(client) = self.relay.all().into_iter().find(|client| client.name() == name) else {
            return answer(reply, Err(ErrorBody::new(ErrorCode::NotFound, "the relay has no such client").hint("mcp-authctl relay list")));
        };
        let done = self.back(move |core, deleted: Result<(), VaultError>| {
            if let Err(error) = deleted {
                return answer(reply, Err(refusal(&error)));
            }
            core.relay.change(|all| all.retain(|other| **other != *client));
            core.relay_client_changed(&caller, event::RELAY_CLIENT_REMOVED, &client);
            answer(reply, Ok(client.shown()));
        });
        self.edges.vault.delete(clients::id(name), done);
    }

    fn relay_client_changed(&mut self, caller: &Arc<Caller>, event: &'static str, client: &Client) {
        let about = format!("{}: {}", client.name(), client.only().names());
        self.audit.note_by(caller, Note::of(event).about(&about));
        self.announce(event, None, Some(about));
    }
}

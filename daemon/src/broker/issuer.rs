//! What the broker tells the issuer: what the config says, and what the vault held when it was opened. And what it must know
//! of it as its client: whether the port is ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto as wire;
use tokio::sync::watch;
use url::Url;

use crate::issuer::clients::Settings;
use crate::transport::{Exchange, Knock, Open, Opening, Request, Transport, TransportError, is_loopback};
use crate::vault::Record;

type Records = Option<Arc<Vec<Record>>>;

/// The broker's end, and what it heard back.
pub(super) struct IssuerSide {
    settings: watch::Sender<Option<Settings>>,
    records: watch::Sender<Records>,
    status: Option<wire::IssuerStatus>,
    missing: watch::Sender<Missing>,
}

/// Where our issuer should listen and does not.
type Missing = Option<SocketAddr>;

impl IssuerSide {
    pub(super) fn new(settings: Option<Settings>) -> Self {
        let missing = watch::Sender::new(address(settings.as_ref()));
        Self { settings: watch::Sender::new(settings), records: watch::Sender::new(None), status: None, missing }
    }

    /// The way to the network, our own issuer's port excepted while it is not ours.
    pub(super) fn guard(&self, network: Arc<dyn Transport>) -> Arc<dyn Transport> {
        Arc::new(Guarded { network, missing: self.missing.subscribe() })
    }

    pub(super) fn status(&self) -> Option<wire::IssuerStatus> {
        self.status.clone()
    }

    /// What the issuer says of itself.
    pub(super) fn is(&mut self, status: Option<wire::IssuerStatus>) {
        let wanted = self.settings.borrow().clone();
        // What an issuer of the config before says counts no more.
        let listens = |wanted: &Settings| status.as_ref().is_some_and(|it| it.error.is_none() && it.issuer == wanted.issuer());
        self.missing.send_replace(address(wanted.as_ref().filter(|wanted| !listens(wanted))));
        self.status = status;
    }

    pub(super) fn subscribe(&self) -> (watch::Receiver<Option<Settings>>, watch::Receiver<Records>) {
        (self.settings.subscribe(), self.records.subscribe())
    }

    /// The config was read again.
    pub(super) fn configured(&self, settings: Option<Settings>) {
        self.settings.send_if_modified(|present| {
            let differs = *present != settings;
            if differs {
                self.missing.send_replace(address(settings.as_ref()));
            }
            *present = settings;
            differs
        });
    }

    /// The vault was opened, with these records of the issuer.
    pub(super) fn opened(&self, records: Vec<Record>) {
        self.records.send_replace(Some(Arc::new(records)));
    }

    /// The vault was locked.
    pub(super) fn locked(&self) {
        self.records.send_replace(None);
    }
}

fn address(settings: Option<&Settings>) -> Missing {
    settings.map(|settings| settings.listen)
}

/// The network for us as clients of our own issuer too. Its port belongs to whoever binds it first, which may be another
/// user of this machine, who would be sent our refresh tokens and could tell us that they are worth nothing.
struct Guarded {
    network: Arc<dyn Transport>,
    missing: watch::Receiver<Missing>,
}

impl Guarded {
    fn check(&self, url: &str) -> Result<(), TransportError> {
        let Some(missing) = *self.missing.borrow() else { return Ok(()) };
        let is_there = |url: &Url| is_loopback(url) && url.port_or_known_default() == Some(missing.port());
        match Url::parse(url).ok().filter(is_there) {
            Some(_) => Err(TransportError::NotSent {
                host: missing.to_string(),
                reason: "the port is for our own issuer, which does not have it".to_owned(),
            }),
            None => Ok(()),
        }
    }
}

impl Transport for Guarded {
    fn send(&self, request: Request) -> Exchange<'_> {
        match self.check(&request.url) {
            Ok(()) => self.network.send(request),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn knock(&self, url: String, timeout: Duration) -> Knock<'_> {
        match self.check(&url) {
            Ok(()) => self.network.knock(url, timeout),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn open(&self, request: Opening) -> Open<'_> {
        match self.check(&request.url) {
            Ok(()) => self.network.open(request),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

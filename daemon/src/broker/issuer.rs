//! What the broker tells the issuer: what the config says, and what the vault held when it was opened.

use std::sync::Arc;

use mcp_auth_proto as wire;
use tokio::sync::watch;

use crate::issuer::clients::Settings;
use crate::vault::Record;

type Records = Option<Arc<Vec<Record>>>;

/// The broker's end, and what it heard back.
pub(super) struct IssuerSide {
    settings: watch::Sender<Option<Settings>>,
    records: watch::Sender<Records>,
    pub(super) status: Option<wire::IssuerStatus>,
}

impl IssuerSide {
    pub(super) fn new(settings: Option<Settings>) -> Self {
        Self { settings: watch::Sender::new(settings), records: watch::Sender::new(None), status: None }
    }

    pub(super) fn subscribe(&self) -> (watch::Receiver<Option<Settings>>, watch::Receiver<Records>) {
        (self.settings.subscribe(), self.records.subscribe())
    }

    /// The config was read again.
    pub(super) fn configured(&self, settings: Option<Settings>) {
        self.settings.send_if_modified(|present| {
            let differs = *present != settings;
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

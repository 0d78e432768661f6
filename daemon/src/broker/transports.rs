//! A way to the network for each distinct setting of it, kept as long as the config wants it.
//!
//! All are made with the config: making one opens and reads nothing.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, Network};
use crate::provider::Provider;
use crate::transport::Transport;
use crate::transport::guarded::{Guard, Guarded};

/// The ways to the network of one config.
pub(super) struct Transports(HashMap<Network, Arc<dyn Transport>>);

impl Transports {
    pub(super) fn new(connect: fn(&Network) -> Arc<dyn Transport>, config: &Config) -> Self {
        Self(HashMap::new()).adapted(connect, config)
    }

    /// The ways of a new config; those that it shares with the old one go on, with their roots and their TLS sessions.
    pub(super) fn adapted(&self, connect: fn(&Network) -> Arc<dyn Transport>, config: &Config) -> Self {
        let mut ways = HashMap::new();
        for network in config.networks() {
            let way = self.0.get(&network).cloned().unwrap_or_else(|| connect(&network));
            ways.insert(network, way);
        }
        Self(ways)
    }

    /// The way to a provider of this config; behind a guard where a remote server leads it.
    pub(super) fn of(&self, config: &Config, provider: &Provider) -> Arc<dyn Transport> {
        let way = self.0.get(&config.network_of(provider)).or_else(|| self.0.get(&config.network));
        let way = way.cloned().expect("the common network is always among them");
        match &provider.server {
            Some(server) => Arc::new(Guarded::new(way, Guard::of(server, provider.allow_private))),
            None => way,
        }
    }
}

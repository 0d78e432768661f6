//! `GET /v1/doctor`: whether the providers that matter here can be reached from this daemon. A client names no address: those
//! that are configured or hold a grant are asked, nobody else, and not more often than the answer is fresh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode};

use super::Reply;
use super::core::{Core, answer};
use crate::clock::{Boot, Clock};
use crate::login;
use crate::oauth::metadata;
use crate::provider::Provider;
use crate::transport::{Transport, TransportError};

/// How long an answer is given to others too.
const FRESH: Duration = Duration::from_secs(5);
/// The most providers that are asked.
const MOST: usize = 32;
/// How long one may take to answer; half of it to connect.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long all of one provider's documents may take.
const DISCOVERY: Duration = Duration::from_secs(8);

/// The last answer, and who waits for the next.
#[derive(Default)]
pub(super) struct Doctor {
    last: Option<(Boot, Vec<wire::ProviderReach>)>,
    waiting: Vec<Reply<Vec<wire::ProviderReach>>>,
}

impl Doctor {
    /// The last answer is of another config.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

impl Core {
    pub(super) fn doctor(&mut self, reply: Reply<Vec<wire::ProviderReach>>) {
        let now = self.now().boot;
        if let Some((at, reaches)) = &self.doctor.last
            && now.since(*at) < FRESH
        {
            return answer(reply, Ok(reaches.clone()));
        }
        self.doctor.waiting.push(reply);
        if self.doctor.waiting.len() > 1 {
            return;
        }
        let (patients, clock) = (self.patients(), self.edges.clock.clone());
        self.task(ask_all(patients, clock), |core, reaches| {
            let reaches = reaches.ok_or_else(|| ErrorBody::new(ErrorCode::InternalError, "the providers could not be asked"));
            core.doctor.last = reaches.as_ref().ok().map(|reaches| (core.now().boot, reaches.clone()));
            for reply in std::mem::take(&mut core.doctor.waiting) {
                answer(reply, reaches.clone());
            }
        });
    }

    /// Who is asked, and the way there. A server that is known by its URL alone is asked itself.
    fn patients(&self) -> Vec<(Provider, Arc<dyn Transport>)> {
        let configured = self.config.providers().into_iter().filter(|provider| provider.configured);
        let mut known: BTreeMap<String, Provider> = configured.map(|provider| (provider.name.clone(), provider)).collect();
        let definitions = self.grants.values().map(|grant| &grant.record().definition);
        for definition in definitions.filter(|definition| !definition.is_static()) {
            let named = self.config.provider(&definition.provider).cloned();
            let by_url = || self.remote_provider(&definition.provider, definition.server.as_deref()?);
            if let Some(provider) = named.or_else(by_url) {
                known.entry(definition.provider.clone()).or_insert(provider);
            }
        }
        let way = |provider| {
            let way = self.way(provider);
            (way.provider, way.transport)
        };
        known.into_values().take(MOST).map(way).collect()
    }
}

/// Side by side; in the order of the patients.
async fn ask_all(patients: Vec<(Provider, Arc<dyn Transport>)>, clock: Arc<dyn Clock>) -> Vec<wire::ProviderReach> {
    let builtin = Arc::new(preset_hosts());
    let ask = |(provider, way)| tokio::spawn(ask(provider, way, clock.clone(), builtin.clone()));
    let asked: Vec<_> = patients.into_iter().map(ask).collect();
    let mut reaches = Vec::with_capacity(asked.len());
    for asked in asked {
        // One that panicked tells nothing of the others.
        reaches.extend(asked.await.ok());
    }
    reaches
}

async fn ask(
    provider: Provider,
    way: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    preset_hosts: Arc<BTreeSet<String>>,
) -> wire::ProviderReach {
    let address = address(&provider);
    let host = address.as_deref().and_then(host_of);
    let builtin = host.as_ref().is_some_and(|host| preset_hosts.contains(host));
    let mut reach = wire::ProviderReach {
        provider: provider.name.clone(),
        host,
        builtin,
        milliseconds: None,
        clock_ahead: None,
        error: None,
        hint: None,
    };
    let Some(address) = address else { return reach };
    let started = Instant::now();
    let wrong = match way.knock(address, PATIENCE).await {
        Err(error) => Err(unreachable(&error)),
        Ok(date) => {
            let took = started.elapsed();
            reach.milliseconds = Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            reach.clock_ahead = date.map(|date| (clock.now().wall.0 - date.0) / 1000);
            let looked = tokio::time::timeout(DISCOVERY, login::look(&provider, &*way)).await;
            looked.unwrap_or_else(|_| Err(ErrorBody::new(ErrorCode::ProviderUnreachable, "its metadata did not come in time")))
        }
    };
    if let Err(body) = wrong {
        reach.error = Some(body.error_description);
        reach.hint = body.hint;
    }
    reach
}

fn unreachable(error: &TransportError) -> ErrorBody {
    ErrorBody::new(ErrorCode::ProviderUnreachable, error.to_string())
}

/// Where a provider answers: its token endpoint, else where its metadata is; a remote server itself.
fn address(provider: &Provider) -> Option<String> {
    let issuer = || provider.issuer.as_deref().and_then(|issuer| metadata::well_known_urls(issuer).into_iter().next());
    provider.endpoints.token.clone().or_else(issuer).or_else(|| provider.server.clone())
}

fn host_of(address: &str) -> Option<String> {
    url::Url::parse(address).ok()?.host_str().map(str::to_owned)
}

fn preset_hosts() -> BTreeSet<String> {
    Provider::presets().iter().filter_map(address).filter_map(|address| host_of(&address)).collect()
}

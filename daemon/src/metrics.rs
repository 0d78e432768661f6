//! PURE: what `GET /metrics` tells, in Prometheus' text format 0.0.4: counts since the start and how things are, by provider.
//! No account and no program is a label.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use crate::clock::Wall;

/// The most providers that are counted apart.
const PROVIDERS: usize = 256;
/// What the others are called; no provider can have this name.
const OTHERS: &str = "(others)";

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    by_provider: BTreeMap<String, Counts>,
    pub(crate) denials: u64,
}

/// Those of one provider.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) tokens: u64,
    pub(crate) refreshes: u64,
    pub(crate) failed_refreshes: u64,
    pub(crate) logins: u64,
    pub(crate) failed_logins: u64,
}

/// How things are at one moment.
#[derive(Debug)]
pub(crate) struct Gauges {
    pub(crate) started: Wall,
    pub(crate) vault_unlocked: bool,
    pub(crate) audit_writable: bool,
    pub(crate) not_durable: usize,
    pub(crate) connections: usize,
    /// By provider, in the order of `STATES`.
    pub(crate) grants: BTreeMap<String, [usize; 4]>,
}

/// The states of a grant, in the order of `mcp_auth_proto::GrantState`.
const STATES: [&str; 4] = ["ok", "refreshing", "retrying", "login_required"];

impl Metrics {
    /// The counts of a provider.
    pub(crate) fn of(&mut self, provider: &str) -> &mut Counts {
        let known = self.by_provider.contains_key(provider);
        let name = if known || self.by_provider.len() < PROVIDERS { provider } else { OTHERS };
        // A name is copied at its first time only.
        if !self.by_provider.contains_key(name) {
            self.by_provider.insert(name.to_owned(), Counts::default());
        }
        self.by_provider.get_mut(name).expect("it was there, or is now")
    }

    /// The page.
    pub(crate) fn page(&self, gauges: &Gauges) -> String {
        let mut page = Page::default();
        let family = page.family("mcp_authd_build_info", "gauge", "The version that runs.");
        family.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        let started = gauges.started.0.div_euclid(1000);
        page.family("mcp_authd_start_time_seconds", "gauge", "When it started, in seconds since 1970.").sample(&[], started);
        let family = page.family("mcp_authd_tokens_served_total", "counter", "Access tokens that programs were given.");
        self.samples(family, |counts| [(None, counts.tokens)].into());
        let family = page.family("mcp_authd_refreshes_total", "counter", "Refreshes that have ended, by result.");
        self.samples(family, |counts| [(Some("ok"), counts.refreshes), (Some("failed"), counts.failed_refreshes)].into());
        let family = page.family("mcp_authd_logins_total", "counter", "Logins that have ended, by result.");
        self.samples(family, |counts| [(Some("ok"), counts.logins), (Some("failed"), counts.failed_logins)].into());
        page.family("mcp_authd_denials_total", "counter", "Requests that were refused to a program.").sample(&[], self.denials);
        let family = page.family("mcp_authd_grants", "gauge", "Grants that are held, by state.");
        for (provider, states) in &gauges.grants {
            for (state, count) in STATES.iter().zip(states) {
                family.sample(&[("provider", provider), ("state", state)], count);
            }
        }
        let not_durable = "Grants whose newest tokens are in memory only, because the disk refuses them.";
        page.family("mcp_authd_grants_not_durable", "gauge", not_durable).sample(&[], gauges.not_durable);
        page.family("mcp_authd_vault_unlocked", "gauge", "Whether the vault is open.").sample(&[], u8::from(gauges.vault_unlocked));
        let writable = u8::from(gauges.audit_writable);
        page.family("mcp_authd_audit_writable", "gauge", "Whether the disk takes the audit.").sample(&[], writable);
        page.family("mcp_authd_connections", "gauge", "Connections to the socket.").sample(&[], gauges.connections);
        page.text
    }

    /// A sample for each provider and result; results that never came are left out only with the whole provider.
    fn samples(&self, family: &mut Page, of: impl Fn(&Counts) -> Vec<(Option<&'static str>, u64)>) {
        for (provider, counts) in &self.by_provider {
            for (result, count) in of(counts) {
                let labels = [("provider", provider.as_str())].into_iter().chain(result.map(|result| ("result", result)));
                family.sample(&labels.collect::<Vec<_>>(), count);
            }
        }
    }
}

/// A page being written.
#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> &mut Self {
        self.name = name;
        // A String takes everything.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // As above.
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_counts_by_provider_and_states_by_name() {
        let mut metrics = Metrics::default();
        metrics.of("github").tokens += 2;
        metrics.of("github").failed_refreshes += 1;
        let grants = BTreeMap::from([("github".to_owned(), [1, 0, 0, 2])]);
        let gauges = Gauges { started: Wall(1_500), vault_unlocked: true, audit_writable: true, not_durable: 0, connections: 3, grants };
        let page = metrics.page(&gauges);
        for line in [
            "# TYPE mcp_authd_tokens_served_total counter",
            "mcp_authd_tokens_served_total{provider=\"github\"} 2",
            "mcp_authd_refreshes_total{provider=\"github\",result=\"failed\"} 1",
            "mcp_authd_grants{provider=\"github\",state=\"login_required\"} 2",
            "mcp_authd_start_time_seconds 1",
            "mcp_authd_vault_unlocked 1",
            "mcp_authd_connections 3",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn the_names_of_the_states_are_those_of_the_wire() {
        use mcp_auth_proto::GrantState::{LoginRequired, Ok, Refreshing, Retrying};
        for (name, state) in STATES.iter().zip([Ok, Refreshing, Retrying, LoginRequired]) {
            assert_eq!(serde_json::to_value(state).unwrap(), *name);
            assert_eq!(STATES[state as usize], *name);
        }
    }

    #[test]
    fn a_program_that_makes_up_providers_fills_no_memory() {
        let mut metrics = Metrics::default();
        (0..10_000).for_each(|number| metrics.of(&format!("p{number}")).tokens += 1);
        assert_eq!(metrics.by_provider.len(), PROVIDERS + 1);
        assert_eq!(metrics.of(OTHERS).tokens, 10_000 - PROVIDERS as u64);
    }
}

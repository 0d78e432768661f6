//! What the daemon logs, and how: one line each on standard error, for journald or a person. Never a token: the types of
//! the secrets see to that, and what could print them by accident, dependencies and panics, is kept quiet here.

use std::io::stderr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging, by the value of `MCP_AUTHD_LOG`: a level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or parts of
/// the daemon with a level each (`mcp_authd::ipc=debug`), with commas. Also takes over the reports of panics.
pub fn start(filter: Option<&str>) {
    let (targets, unknown) = targets(filter.unwrap_or_default());
    // journald has its own clock.
    let timed = std::env::var_os("JOURNAL_STREAM").is_none();
    let lines = layer().with_writer(stderr);
    let lines = if timed { lines.boxed() } else { lines.without_time().boxed() };
    // A second start, as tests have it, changes nothing.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
    for part in unknown {
        tracing::warn!("MCP_AUTHD_LOG: `{}` is ignored; it must be a level, or a part of mcp_authd with a level", part.escape_debug());
    }
    std::panic::set_hook(Box::new(|panic| {
        // The message may quote a value, and a value may be a secret.
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
        tracing::error!(place, "a fault of mcp-authd: panic");
    }));
}

/// What passes, and the parts of the filter that are none.
fn targets(filter: &str) -> (Targets, Vec<&str>) {
    // At a lower level hyper, reqwest and rustls log headers and bodies, and with them tokens.
    let mut targets = Targets::new().with_default(LevelFilter::WARN).with_target("mcp_auth", LevelFilter::INFO);
    let mut unknown = Vec::new();
    for part in filter.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (target, level) = part.split_once('=').unwrap_or(("mcp_auth", part));
        match level.parse::<LevelFilter>() {
            Ok(level) if target.starts_with("mcp_auth") => targets = targets.with_target(target, level),
            _ => unknown.push(part),
        }
    }
    (targets, unknown)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn dependencies_are_never_heard_below_warn_whatever_the_filter_says() {
        for filter in ["", "trace", "hyper=trace", "debug,reqwest=debug", "off", "nonsense", "=trace"] {
            let (targets, _) = targets(filter);
            for dependency in ["hyper", "hyper::proto", "reqwest", "rustls"] {
                assert!(targets.would_enable(dependency, &Level::WARN), "{filter}");
                assert!(!targets.would_enable(dependency, &Level::INFO), "{filter}");
            }
        }
    }

    #[test]
    fn a_level_is_for_all_our_parts_and_a_part_can_have_its_own() {
        let heard = |filter: &str, target: &str, level: &Level| targets(filter).0.would_enable(target, level);
        assert!(heard("", "mcp_authd::ipc", &Level::INFO) && !heard("", "mcp_authd::ipc", &Level::DEBUG));
        assert!(heard("debug", "mcp_authd", &Level::DEBUG) && !heard("debug", "mcp_authd", &Level::TRACE));
        assert!(!heard("error", "mcp_authd", &Level::WARN));
        assert!(heard("warn, mcp_authd::ipc=trace", "mcp_authd::ipc::listener", &Level::TRACE));
        assert!(!heard("warn, mcp_authd::ipc=trace", "mcp_authd::broker", &Level::INFO));
        assert_eq!(targets("debug,hyper=trace,loud").1, ["hyper=trace", "loud"]);
    }
}

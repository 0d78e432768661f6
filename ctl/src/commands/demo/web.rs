//! HTTP to the demo's own issuer, and to nobody else: on loopback, past every proxy, without following anything.

use std::time::Duration;

use mcp_auth_proto::Secret;
use ureq::Agent;

use super::DemoError;

/// Longer than the issuer keeps a page that waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than any page of ours has.
const MAX_PAGE: u64 = 256 * 1024;

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Where a redirect leads.
    pub(super) location: Option<String>,
    pub(super) body: String,
}

/// Fetches a page, with an access token if one is given.
pub(super) fn get(url: &str, token: Option<&Secret>) -> Result<Answer, DemoError> {
    let agent: Agent =
        Agent::config_builder().proxy(None).max_redirects(0).http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
    let no_answer = |error| DemoError::NoAnswer(Box::new(error));
    let mut request = agent.get(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {}", token.expose()));
    }
    let mut answer = request.call().map_err(no_answer)?;
    let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = answer.body_mut().with_config().limit(MAX_PAGE).read_to_string().map_err(no_answer)?;
    Ok(Answer { status: answer.status().as_u16(), location, body })
}

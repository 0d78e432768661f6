//! HTTP to our own issuer, and to nobody else: on loopback, past every proxy, without following anything.

use std::time::Duration;

use mcp_auth_proto::Secret;
use ureq::Agent;

/// Longer than the issuer keeps a page that waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than any page of ours has.
const MAX_PAGE: u64 = 256 * 1024;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Where a redirect leads.
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

/// Fetches a page, with an access token if one is given.
pub(crate) fn get(url: &str, token: Option<&Secret>) -> Result<Answer, Box<ureq::Error>> {
    let agent: Agent =
        Agent::config_builder().proxy(None).max_redirects(0).http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
    let mut request = agent.get(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {}", token.expose()));
    }
    let mut answer = request.call()?;
    let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = answer.body_mut().with_config().limit(MAX_PAGE).read_to_string()?;
    Ok(Answer { status: answer.status().as_u16(), location, body })
}

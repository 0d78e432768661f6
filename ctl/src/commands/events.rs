//! `events`: follows what changes in the daemon.

use mcp_auth_proto::{Client, ClientError, Event, Malformed};

use crate::failure::Failure;
use crate::output::{self, field};

/// Follow what changes: logins, refreshes, the vault, the config
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl events
  mcp-authctl events --json | jq --unbuffered 'select(.event == \"login_required\")'")]
pub(crate) struct Args {}

pub(crate) fn run(client: &Client, json: bool) -> Result<(), Failure> {
    for event in client.events()? {
        match event {
            Ok(event) if json => output::json(&event)?,
            Ok(event) => output::line(&text(&event))?,
            Err(ClientError::Protocol(Malformed::Truncated) | ClientError::Io(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::Gone("you stopped following"))
}

fn text(event: &Event) -> String {
    let grant = event.grant.as_ref().map(|grant| format!(" {grant}")).unwrap_or_default();
    let detail = event.detail.as_ref().map(|detail| format!(": {}", field(detail))).unwrap_or_default();
    format!("{} {}{grant}{detail}", field(&event.at), field(&event.event).replace('_', " "))
}

//! `relay`: the clients of the relay's port on loopback: adds one and shows its secret once, lists them, removes one.

use clap::Subcommand;
use mcp_auth_proto::{AddedRelayClient, Client, GrantName, NewRelayClient};
use serde_json::json;
use zeroize::Zeroizing;

use super::provider_name;
use crate::failure::Failure;
use crate::output::{self, field};

/// Let MCP clients that only take an http URL use a remote server with the daemon's login
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl relay add cursor --grant notion
  mcp-authctl relay list
  mcp-authctl relay remove cursor

The port is off until config.toml names it:
  [relay]
  listen = \"127.0.0.1:8732\"
A client that can start programs needs none of this: `mcp-authctl bridge`.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Give a client a secret of its own, and show it with the URL, this once
    #[command(after_help = "\
Examples:
  mcp-authctl relay add cursor --grant notion
  mcp-authctl relay add zed --grant notion --grant linear
  mcp-authctl relay add vscode --grant notion --json | jq .servers       for mcp.json")]
    Add {
        /// What it is called here, in rules and in the audit
        #[arg(value_name = "CLIENT", value_parser = provider_name)]
        name: String,
        /// A grant whose server it may speak to; may be repeated
        #[arg(long = "grant", value_name = "NAME", required = true)]
        grants: Vec<GrantName>,
    },
    /// Show who has a secret, and for which grants
    #[command(after_help = "Example:\n  mcp-authctl relay list")]
    List,
    /// Take a client's secret back; what it does at the moment is cut off
    #[command(after_help = "Example:\n  mcp-authctl relay remove cursor")]
    Remove {
        /// Its name in `relay list`
        #[arg(value_name = "CLIENT", value_parser = provider_name)]
        name: String,
    },
}

pub(crate) fn run(args: Args, client: &Client, json: bool) -> Result<(), Failure> {
    match args.verb {
        Verb::Add { name, grants } => added(&client.add_relay_client(&NewRelayClient { name, grants })?, json),
        Verb::List => list(client, json),
        Verb::Remove { name } => {
            let removed = client.remove_relay_client(&name)?;
            if json {
                return output::json(&removed);
            }
            output::note(&format!("{} is no client any more", field(&removed.name)));
            Ok(())
        }
    }
}

fn added(added: &AddedRelayClient, json: bool) -> Result<(), Failure> {
    if json {
        let bearer = Zeroizing::new(format!("Bearer {}", added.secret.expose()));
        let entry = |url: &str| json!({ "type": "http", "url": url, "headers": { "Authorization": bearer.as_str() } });
        let servers: serde_json::Map<_, _> = added.servers.iter().map(|it| (it.grant.to_string(), entry(&it.url))).collect();
        return output::json(&json!({ "name": added.name, "servers": servers }));
    }
    for server in &added.servers {
        output::line(&field(&server.url))?;
    }
    output::before_secret("Authorization: Bearer ", &added.secret)?;
    output::note("the URL and the header go into the client's config; the secret is not shown again");
    Ok(())
}

fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let clients = client.relay_clients()?;
    if json {
        return output::json(&clients);
    }
    if clients.is_empty() {
        output::note("no clients");
    }
    let width = clients.iter().map(|client| client.name.len()).max().unwrap_or_default();
    for client in &clients {
        let grants: Vec<_> = client.grants.iter().map(GrantName::as_str).collect();
        output::line(&format!("{:<width$}  {}  since {}", field(&client.name), grants.join(", "), field(&client.added_at)))?;
    }
    Ok(())
}

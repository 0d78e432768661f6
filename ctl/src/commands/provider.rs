//! `provider`: the presets and the configured providers.

use clap::Subcommand;
use mcp_auth_proto::{Client, ClientSecretRequest, ProviderDefinition, ProviderSummary};

use super::{provider_name, provider_of, scopes};
use crate::ask;
use crate::failure::Failure;
use crate::output::{self, field};

/// List, show and define providers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl provider list
  mcp-authctl provider show github               how to register a client, and what is missing
  mcp-authctl provider add github --client-id Ov23liabc
  mcp-authctl provider set-secret github")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the presets and the configured providers
    #[command(after_help = "Example:\n  mcp-authctl provider list")]
    List,
    /// Show one provider, and how to register a client with it
    #[command(after_help = "Example:\n  mcp-authctl provider show github")]
    Show {
        /// The provider's name
        #[arg(value_parser = provider_name)]
        name: String,
    },
    /// Define a provider in config.toml, or change what is given of one
    Add(Box<Definition>),
    /// Store a client secret, or the private key that takes its place, in the vault
    #[command(after_help = "\
Examples:
  mcp-authctl provider set-secret github         asks for the secret, without echo
  pass show github-app | mcp-authctl provider set-secret github
  mcp-authctl provider set-secret idp < key.pem  for client_auth = \"private_key_jwt\": PEM or JWK")]
    SetSecret {
        /// The provider's name
        #[arg(value_parser = provider_name)]
        name: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(override_usage = "mcp-authctl provider add NAME [OPTIONS]")]
#[command(group = clap::ArgGroup::new("server").args(["preset", "issuer", "authorization_endpoint"]))]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(WHAT))]
#[command(after_help = "\
Examples:
  mcp-authctl provider add github --client-id Ov23liabc
  mcp-authctl provider add work --preset gitlab --base-url https://git.example.com --client-id abc
  mcp-authctl provider add idp --issuer https://id.example.com --client-id cli --scope openid
  mcp-authctl provider add old --client-id x \\
    --authorization-endpoint https://a.example/auth --token-endpoint https://a.example/token")]
struct Definition {
    /// The provider's name; where it is a preset's, or defined already, the rest need not name the server
    #[arg(value_parser = provider_name)]
    name: String,
    /// The preset to build on; not needed where NAME is one
    #[arg(long)]
    preset: Option<String>,
    /// The base URL of a self-managed server, for presets that have one
    #[arg(long, value_name = "URL", conflicts_with_all = ["issuer", "authorization_endpoint"])]
    base_url: Option<String>,
    /// The issuer, whose endpoints are discovered
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The authorization endpoint
    #[arg(long, value_name = "URL", requires = "token_endpoint")]
    authorization_endpoint: Option<String>,
    /// The token endpoint
    #[arg(long, value_name = "URL")]
    token_endpoint: Option<String>,
    /// The revocation endpoint
    #[arg(long, value_name = "URL")]
    revocation_endpoint: Option<String>,
    /// The userinfo endpoint
    #[arg(long, value_name = "URL")]
    userinfo_endpoint: Option<String>,
    /// The client id that the provider gave you
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// A scope to ask for; may be repeated, or hold several separated by spaces
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ' ')]
    scopes: Vec<String>,
    /// The port of the redirect, where the provider wants an exact one
    #[arg(long, value_name = "N")]
    callback_port: Option<u16>,
}

/// At least one of them: a definition of nothing is a slip.
const WHAT: [&str; 10] = [
    "preset",
    "base_url",
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "revocation_endpoint",
    "userinfo_endpoint",
    "client_id",
    "scopes",
    "callback_port",
];

pub(crate) fn run(args: Args, client: &Client, json: bool) -> Result<(), Failure> {
    match args.verb {
        Verb::List => list(&client.providers()?, json),
        Verb::Show { name } => {
            let provider = provider_of(&name, client)?;
            if json { output::json(&provider) } else { output::line(&description(&provider)) }
        }
        Verb::Add(definition) => add(*definition, client, json),
        Verb::SetSecret { name } => {
            let client_secret = ask::client_secret(&format!("client secret of {name}: "))?;
            let provider = client.set_client_secret(&name, &ClientSecretRequest { client_secret })?;
            confirm("stored the client secret of", &provider, json)
        }
    }
}

fn add(definition: Definition, client: &Client, json: bool) -> Result<(), Failure> {
    let wire = ProviderDefinition {
        preset: definition.preset,
        base_url: definition.base_url,
        issuer: definition.issuer,
        authorization_endpoint: definition.authorization_endpoint,
        token_endpoint: definition.token_endpoint,
        revocation_endpoint: definition.revocation_endpoint,
        userinfo_endpoint: definition.userinfo_endpoint,
        client_id: definition.client_id,
        scopes: (!definition.scopes.is_empty()).then_some(definition.scopes),
        callback_port: definition.callback_port,
        default_account: None,
    };
    let provider = client.define_provider(&definition.name, &wire)?;
    confirm("defined", &provider, json)?;
    if provider.preset.is_none() && provider.scopes.is_empty() {
        // Without `offline_access` there is no refresh token at many of them, and without any scope no consent at some.
        output::warning(&format!(
            "{0} has no scopes; most servers want some: mcp-authctl provider add {0} --scope \"openid offline_access\"",
            field(&provider.name)
        ));
    }
    Ok(())
}

fn confirm(what: &str, provider: &ProviderSummary, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(provider);
    }
    let name = field(&provider.name);
    output::note(&format!("{what} {name}; register this redirect URI: {}", field(&provider.redirect_uri)));
    if provider.missing.is_empty() {
        output::note(&format!("hint: mcp-authctl login {name}"));
    } else {
        output::note(&format!("still missing: {}\nhint: mcp-authctl provider show {name}", scopes(&provider.missing)));
    }
    Ok(())
}

fn list(providers: &[ProviderSummary], json: bool) -> Result<(), Failure> {
    if json {
        return output::json(&providers);
    }
    let (servers, mut clients): (Vec<_>, Vec<_>) = providers.iter().partition(|provider| provider.resource.is_some());
    // What the person configured first.
    clients.sort_by(|a, b| b.configured.cmp(&a.configured).then_with(|| a.name.cmp(&b.name)));
    let mut lines = table(&clients);
    if !servers.is_empty() {
        lines.extend([String::new(), "Remote MCP servers with a name to log in by; any other goes by its URL:".to_owned()]);
        let width = servers.iter().map(|server| field(&server.name).chars().count()).max().unwrap_or(0);
        let url = |server: &&ProviderSummary| field(server.resource.as_deref().unwrap_or_default());
        lines.extend(servers.iter().map(|server| format!("  {:width$}  {}", field(&server.name), url(server))));
    }
    if lines.is_empty() { Ok(()) } else { output::line(&lines.join("\n")) }
}

/// The table fits 80 columns: what has no room stands below its row, never cut.
fn table(providers: &[&ProviderSummary]) -> Vec<String> {
    let mut rows = vec![["NAME", "STATE", "LOGIN"].map(str::to_owned)];
    rows.extend(providers.iter().map(|provider| [field(&provider.name), state(provider), scopes_or(&provider.flows, "")]));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).filter(|width| *width <= MAX_COLUMN).max().unwrap_or(0);
    let (name_width, state_width) = (width(0), width(1));
    let mut lines = Vec::new();
    for [name, state, flows] in rows {
        let row = format!("{name:name_width$}  {state:state_width$}  {flows}");
        if row.chars().count() <= COLUMNS {
            lines.push(row.trim_end().to_owned());
        } else {
            lines.extend([name, format!("  {state}"), format!("  {flows}")].map(|line| line.trim_end().to_owned()));
        }
    }
    lines
}

const COLUMNS: usize = 80;
const MAX_COLUMN: usize = 39;

fn state(provider: &ProviderSummary) -> String {
    match (provider.missing.is_empty(), provider.configured) {
        (true, _) => "ready".to_owned(),
        (false, true) => format!("missing {}", scopes(&provider.missing)),
        (false, false) => format!("needs {}", scopes(&provider.missing)),
    }
}

fn scopes_or(list: &[String], none: &str) -> String {
    if list.is_empty() { none.to_owned() } else { scopes(list) }
}

fn description(provider: &ProviderSummary) -> String {
    let title = provider.title.as_ref().map(|title| format!(" ({})", field(title))).unwrap_or_default();
    let mut text = vec![format!("name: {}{title}", field(&provider.name))];
    if let Some(url) = &provider.resource {
        text.push(format!("remote MCP server: {}", field(url)));
        text.extend(provider.authorization_server.as_ref().map(|issuer| format!("authorization server: {}", field(issuer))));
    } else {
        facts(provider, &mut text);
    }
    let steps = provider.registration_steps.iter().zip(1..).map(|(step, number)| format!("  {number}. {}", field(step)));
    section("how to register a client:", steps, &mut text);
    section("good to know:", provider.notes.iter().map(|note| format!("  - {}", field(note))), &mut text);
    if let Some(checked) = &provider.checked {
        let how = if provider.verified == Some(true) {
            "with the real service"
        } else {
            "against documents; no login at the real service was made"
        };
        text.extend([String::new(), format!("checked {} {how}", field(checked))]);
    }
    section("", provider.sources.iter().map(|source| format!("  {}", field(source))), &mut text);
    text.join("\n")
}

/// Endpoints, client, redirect and scopes.
fn facts(provider: &ProviderSummary, text: &mut Vec<String>) {
    let mut add = |word, value: &Option<String>| text.extend(value.as_ref().map(|value| format!("{word}: {}", field(value))));
    add("preset", &provider.preset);
    add("base URL, yours in place of", &provider.base_url_example);
    add("issuer", &provider.issuer);
    add("authorization endpoint", &provider.authorization_endpoint);
    add("token endpoint", &provider.token_endpoint);
    add("refresh endpoint", &provider.refresh_endpoint);
    add("device endpoint", &provider.device_authorization_endpoint);
    add("revocation endpoint", &provider.revocation_endpoint);
    add("userinfo endpoint", &provider.userinfo_endpoint);
    add("client id", &provider.client_id);
    let secret = match (provider.has_client_secret, provider.needs_client_secret) {
        (true, _) => "stored",
        (false, true) => "none yet",
        (false, false) => "none, and none is needed",
    };
    add("client secret", &Some(secret.to_owned()));
    let redirects = if provider.redirect_uris.is_empty() { std::slice::from_ref(&provider.redirect_uri) } else { &provider.redirect_uris };
    redirects.iter().for_each(|redirect| add("redirect URI", &Some(redirect.clone())));
    add("register at", &provider.registration_url);
    let refresh = scopes_or(&provider.refresh_scopes, "");
    let besides = if refresh.is_empty() { String::new() } else { format!(" (and {refresh}, for a refresh token)") };
    text.push(format!("scopes: {}{besides}", scopes(&provider.scopes)));
    if !provider.flows.is_empty() {
        text.push(format!("login: {}", scopes(&provider.flows)));
    }
    if !provider.missing.is_empty() {
        text.push(format!("missing: {}", scopes(&provider.missing)));
    }
}

/// Lines below a heading, after an empty line; nothing where there are none.
fn section(heading: &str, lines: impl Iterator<Item = String>, text: &mut Vec<String>) {
    let lines: Vec<_> = lines.collect();
    if !lines.is_empty() && !heading.is_empty() {
        text.extend([String::new(), heading.to_owned()]);
    }
    text.extend(lines);
}

//! A model MCP server, made to be copied from: it never sees a login or a refresh token, because mcp-authd keeps them.
//!
//! `settings` reads the environment; `tools` is what the server does, with a token of the daemon for every call; `github` is
//! the API behind it; `http` and `caller` make it an OAuth resource server, and are not needed over stdio.

mod caller;
mod github;
mod http;
mod settings;
mod tools;

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use mcp_auth_proto::asynchronous::Client as Broker;
use rmcp::ServiceExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use github::GitHub;
use http::Resource;
use settings::Settings;
use tools::ModelServer;

const USAGE: &str = "\
usage: mcp-auth-model-server [--metadata]

Serves MCP over stdio, or over HTTP where MODEL_SERVER_LISTEN says so. --metadata prints the OAuth configuration and ends.

  MODEL_SERVER_GRANT       the grant whose tokens are used at GitHub (github)
  MODEL_SERVER_GITHUB_API  GitHub's API (https://api.github.com)
  MODEL_SERVER_LISTEN      a loopback address for HTTP, such as 127.0.0.1:8732 (none: stdio)
  MODEL_SERVER_ISSUER      the issuer of the tokens that come over HTTP (http://127.0.0.1:8731)
  MCP_AUTHD_SOCKET         the daemon's socket (where mcp-authd puts it)
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let settings = match Settings::read(|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, 78),
    };
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(settings).await,
        ["--metadata"] => print(&format!("{:#}\n", configuration(&settings))),
        ["-h" | "--help"] => print(USAGE),
        _ => return fail(&"unknown arguments\nhint: mcp-auth-model-server --help", 2),
    };
    outcome.map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS)
}

async fn run(mut settings: Settings) -> Result<(), Box<dyn Error>> {
    // The daemon's choice of cryptography, for GitHub's TLS. Nobody was faster, so that it cannot fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let broker = Arc::new(Broker::new(&settings.socket));
    let server = ModelServer::new(Arc::clone(&broker), GitHub::at(&settings.github_api)?, settings.grant.clone());
    let Some(address) = settings.listen else {
        log(&format!("OAuth configuration: {}", configuration(&settings)));
        server.serve(rmcp::transport::stdio()).await?.waiting().await?;
        return Ok(());
    };
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    // Port 0 takes any.
    let address = listener.local_addr()?;
    settings.listen = Some(address);
    log(&format!("OAuth configuration: {}", configuration(&settings)));
    http::serve(listener, Resource::at(address, &settings.issuer), broker, server).await?;
    Ok(())
}

/// Where the tokens come from that it uses, and over HTTP those that it takes.
fn configuration(settings: &Settings) -> Value {
    json!({
        "transport": if settings.listen.is_some() { "http" } else { "stdio" },
        "tokens_from": { "socket": settings.socket, "grant": settings.grant, "login_command": format!("mcp-authctl login {}", settings.grant) },
        "tokens_for": settings.github_api,
        "protected_resource": settings.listen.map(|address| Resource::at(address, &settings.issuer).metadata()),
    })
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Over stdio stdout is the protocol's: what people shall read goes to stderr.
fn log(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "mcp-auth-model-server: {sentence}");
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    log(&format!("error: {error}"));
    ExitCode::from(code)
}

//! What a login at a remote MCP server has besides: its options, and what the person is told on the way.

use std::path::PathBuf;

use mcp_auth_proto::{Client, ClientKind, ClientSecretRequest, GrantName, LoginRequest, ProviderSummary};

use super::register;
use crate::ask;
use crate::commands::bearer::Stdin;
use crate::commands::target::Target;
use crate::commands::{provider_of, scopes};
use crate::failure::Failure;
use crate::output::{self, field};

/// For the URL of a remote MCP server
#[derive(Debug, clap::Args)]
pub(super) struct RemoteArgs {
    /// With a URL: what the grant is called; else it is named after the server's host
    #[arg(long = "name", value_name = "NAME")]
    grant_name: Option<GrantName>,
    #[command(flatten)]
    client: ClientArgs,
    /// Read the secret of that client from stdin; it is kept
    #[arg(long, requires = "client_id", conflicts_with_all = ["client_secret_file", "private_key_file"])]
    client_secret_stdin: bool,
}

/// A client that was registered by hand, and where. Secrets come from files: arguments are public
#[derive(Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// The client id that the provider, or the server's authorization server, gave you; it is kept
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// A file with the secret of that client; it is kept
    #[arg(long, value_name = "FILE", requires = "client_id")]
    client_secret_file: Option<PathBuf>,
    /// A file with the private key that this client signs with in place of a secret (PEM, JWK); `login` takes - too. It is kept, never sent
    #[arg(long, value_name = "FILE", requires = "client_id", conflicts_with = "client_secret_file")]
    private_key_file: Option<PathBuf>,
    /// With a URL: the client metadata document to show where the authorization server takes one
    #[arg(long, value_name = "URL")]
    client_metadata_url: Option<String>,
    /// With a URL: the issuer that must be the server's authorization server; the login fails where the server names another
    #[arg(long, value_name = "ISSUER")]
    authorization_server: Option<String>,
}

impl ClientArgs {
    /// Puts the client into a request at a remote server.
    pub(crate) fn fill(&self, stdin: Stdin, request: &mut LoginRequest) -> Result<(), Failure> {
        [&self.client_secret_file, &self.private_key_file].into_iter().flatten().try_for_each(|file| stdin.spare(file))?;
        let read = |path: &Option<PathBuf>, what| path.as_deref().map(|path| ask::secret_in(path, what)).transpose();
        request.client_id.clone_from(&self.client_id);
        request.client_secret = read(&self.client_secret_file, "the client secret")?;
        request.private_key = read(&self.private_key_file, "the private key")?;
        request.client_metadata_url.clone_from(&self.client_metadata_url);
        request.authorization_server.clone_from(&self.authorization_server);
        Ok(())
    }
}

impl RemoteArgs {
    /// Puts a client that was given where it belongs: into the request at a remote server, else to the provider.
    pub(super) fn place(&self, target: &Target, client: &Client, request: &mut LoginRequest) -> Result<(), Failure> {
        request.name = self.grant_name.as_ref().map(ToString::to_string);
        self.client.fill(Stdin::Ours, request)?;
        if self.client_secret_stdin {
            request.client_secret = Some(ask::client_secret("client secret (not shown): ")?);
        }
        if request.client_id.is_none() {
            return Ok(());
        }
        let Some(provider) = provider(target, client)? else { return Ok(()) };
        if let Some(client_id) = request.client_id.take() {
            register::keep_client_id(client, &provider, &client_id)?;
        }
        // A provider's key is stored as its secret: the config says which of both it is.
        if let Some(client_secret) = request.client_secret.take().or(request.private_key.take()) {
            client.set_client_secret(&provider.name, &ClientSecretRequest { client_secret })?;
        }
        Ok(())
    }
}

/// The provider that a name stands for; `None`: it stands for a remote server.
fn provider(target: &Target, client: &Client) -> Result<Option<ProviderSummary>, Failure> {
    let Some(name) = target.name() else { return Ok(None) };
    match provider_of(name.base(), client) {
        Ok(provider) => Ok(Some(provider).filter(|provider| provider.resource.is_none())),
        Err(_) if client.grant(name).is_ok_and(|grant| grant.server.is_some()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The server has told who lets people in.
pub(crate) fn tell_server(server: &str, authorization_server: &str) {
    output::note(&format!("found {}; its authorization server is {}", field(server), field(authorization_server)));
}

/// How this program is known there, and what it asks for.
pub(crate) fn tell_client(kind: ClientKind, client_id: &str, asked: &[String]) {
    let id = field(client_id);
    let known = match kind {
        ClientKind::Given => format!("known there as the client {id} that you registered"),
        ClientKind::MetadataDocument => format!("known there by the client metadata at {id}"),
        ClientKind::Registered => format!("registered there as the client {id}"),
        ClientKind::Known => format!("known there as the client {id} of an earlier login"),
    };
    let wish = if asked.is_empty() { "asks for no scopes in particular".to_owned() } else { format!("asks for {}", scopes(asked)) };
    output::note(&format!("{known}; {wish}"));
}

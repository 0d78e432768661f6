//! The options that name what takes the place of a login at a remote MCP server: files, an identity provider. Tokens come by a
//! file or stdin, never as an argument.

use std::path::{Path, PathBuf};

use mcp_auth_proto::{IdentityProvider, LoginRequest, TokenSource};

use crate::ask;
use crate::failure::Failure;

/// Without a page, at the URL of a remote MCP server
#[derive(Debug, clap::Args)]
pub(crate) struct BearerArgs {
    /// Log in with the JWT in this file in place of a person (RFC 7523); the daemon reads it again for every new token
    #[arg(long, value_name = "FILE", conflicts_with = "identity_provider")]
    assertion_file: Option<PathBuf>,
    /// Let this identity provider vouch for you: the name of a provider in the config, or an issuer
    #[arg(long, value_name = "NAME|ISSUER", requires = "identity_token_file")]
    identity_provider: Option<String>,
    /// The file with the ID token that it gave; read again for every new token
    #[arg(long, value_name = "FILE", requires = "identity_provider")]
    identity_token_file: Option<PathBuf>,
    /// With an ISSUER: the client id that the ID token is for
    #[arg(long, value_name = "ID", requires = "identity_provider")]
    identity_client_id: Option<String>,
    /// With an ISSUER: its token endpoint, else its metadata says it
    #[arg(long, value_name = "URL", requires = "identity_provider")]
    identity_token_endpoint: Option<String>,
}

/// Whether a file may be `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// It is a line of stdin.
    Ours,
    /// Stdin is the MCP client's.
    Taken,
}

impl Stdin {
    /// Refuses a file that is `-` where nothing of ours comes by stdin.
    pub(crate) fn spare(self, file: &Path) -> Result<(), Failure> {
        if self == Self::Ours || file != Path::new("-") {
            return Ok(());
        }
        Err(Failure::Usage {
            sentence: "stdin is where the MCP client speaks: secrets and tokens come by a file".to_owned(),
            hint: "mcp-authctl bridge --help".to_owned(),
        })
    }
}

impl BearerArgs {
    /// Puts what was named into the request.
    pub(crate) fn place(&self, stdin: Stdin, request: &mut LoginRequest) -> Result<(), Failure> {
        request.assertion = self.assertion_file.as_deref().map(|file| source(file, stdin)).transpose()?;
        let (Some(provider), Some(file)) = (&self.identity_provider, &self.identity_token_file) else { return Ok(()) };
        request.identity = Some(IdentityProvider {
            provider: provider.clone(),
            client_id: self.identity_client_id.clone(),
            token_endpoint: self.identity_token_endpoint.clone(),
            token: source(file, stdin)?,
        });
        Ok(())
    }
}

/// What the daemon is told: it has a folder of its own to start from.
fn source(file: &Path, stdin: Stdin) -> Result<TokenSource, Failure> {
    stdin.spare(file)?;
    if file == Path::new("-") {
        return ask::token("the token", "token (not shown): ").map(TokenSource::Token);
    }
    let failed = |source| Failure::File { path: file.to_owned(), source };
    let whole = std::path::absolute(file).map_err(failed)?;
    match whole.to_str() {
        Some(whole) => Ok(TokenSource::File(whole.to_owned())),
        None => Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, "its name is not UTF-8"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_from_the_root_and_stdin_is_not_taken_from_the_client() {
        let here = std::env::current_dir().unwrap();
        let expected = TokenSource::File(here.join("a/token").to_str().unwrap().to_owned());
        assert_eq!(source(Path::new("a/token"), Stdin::Taken).unwrap(), expected);
        assert!(matches!(source(Path::new("-"), Stdin::Taken), Err(Failure::Usage { .. })));
    }
}

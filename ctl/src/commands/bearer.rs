//! The options that name what takes the place of a login at a remote MCP server: files, an identity provider. Tokens come by a
//! file or stdin, never as an argument.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use mcp_auth_proto::{IdentityProvider, LoginRequest, TokenFile, TokenSource};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

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
        Some(whole) => Ok(TokenSource::File(TokenFile { path: whole.to_owned(), sha256: None })),
        None => Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8"))),
    }
}

/// Logs in with the files of a request, if there are any: the daemon takes none that its caller cannot read. If that has `failed`
/// and a file is another now, once more: the two may have read it at different moments.
pub(crate) fn with_files<T>(
    request: &LoginRequest,
    log_in: impl Fn(&LoginRequest) -> T,
    failed: impl Fn(&T) -> bool,
) -> Result<T, Failure> {
    let first = read(request)?;
    let outcome = log_in(&first);
    if !failed(&outcome) {
        return Ok(outcome);
    }
    match read(request) {
        Ok(renewed) if renewed != first => Ok(log_in(&renewed)),
        _ => Ok(outcome),
    }
}

/// The request, with what its files hold at this moment.
fn read(request: &LoginRequest) -> Result<LoginRequest, Failure> {
    let mut read = request.clone();
    let id_token = read.identity.as_mut().map(|identity| &mut identity.token);
    for source in read.assertion.iter_mut().chain(id_token) {
        if let TokenSource::File(file) = source {
            file.sha256 = Some(digest(Path::new(&file.path))?);
        }
    }
    Ok(read)
}

fn digest(path: &Path) -> Result<String, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST));
    let read = File::open(path).and_then(|file| file.take(LONGEST as u64).read_to_end(&mut bytes));
    read.map_err(|source| Failure::Unreadable { path: path.to_owned(), source })?;
    Ok(hex::encode(Sha256::digest(&*bytes)))
}

/// More than the daemon takes.
const LONGEST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_from_the_root_and_stdin_is_not_taken_from_the_client() {
        let here = std::env::current_dir().unwrap();
        let expected = TokenSource::File(TokenFile { path: here.join("a/token").to_str().unwrap().to_owned(), sha256: None });
        assert_eq!(source(Path::new("a/token"), Stdin::Taken).unwrap(), expected);
        assert!(matches!(source(Path::new("-"), Stdin::Taken), Err(Failure::Usage { .. })));
    }

    #[test]
    fn a_file_that_was_renewed_meanwhile_is_shown_once_more_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = TokenFile { path: path.to_str().unwrap().to_owned(), sha256: None };
        let request = LoginRequest { assertion: Some(TokenSource::File(file)), ..LoginRequest::default() };
        let calls = std::cell::RefCell::new(Vec::new());
        let run = |renews: bool, fails: bool| {
            std::fs::write(&path, "one").unwrap();
            calls.take();
            let log_in = |request: &LoginRequest| {
                let Some(TokenSource::File(file)) = &request.assertion else { panic!("no file") };
                calls.borrow_mut().push(file.sha256.clone().unwrap());
                if renews {
                    std::fs::write(&path, format!("two{}", calls.borrow().len())).unwrap();
                }
            };
            with_files(&request, log_in, |()| fails).unwrap();
            calls.borrow().len()
        };
        assert_eq!((run(false, false), run(true, false), run(false, true)), (1, 1, 1));
        assert_eq!(run(true, true), 2);
        let one = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
        assert!(calls.borrow()[0] == one && calls.borrow()[1] != one, "{calls:?}");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(with_files(&request, |_| (), |()| false), Err(Failure::Unreadable { .. })));
    }
}

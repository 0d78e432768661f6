//! What takes the place of a login at a remote server: a JWT of somebody else, read from a file or given, and used as it is
//! (RFC 7523 section 2.1) or exchanged for an assertion at the identity provider that has made it (RFC 8693). The same at the
//! login and at every renewal.
//!
//! What such tokens must say before they go anywhere is for `oauth::jwt_bearer` and `oauth::exchange` to know.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};
use tokio::sync::{Semaphore, oneshot};

use crate::clock::Clock;
use crate::grant::record::{AssertionSource, Definition, TokenSource};
use crate::grant::shown;
use crate::oauth::assertion::{self, AssertionError};
use crate::oauth::identity::Identity;
use crate::oauth::jwt::{self, Jwt, JwtError};
use crate::oauth::token::{self, TokenError};
use crate::oauth::{Sent, exchange, jwt_bearer};
use crate::platform::{NotPrivate, trusted_text};
use crate::provider::Provider;
use crate::provider::secret_command::{self, SecretCommandError};
use crate::secret::ClientSecret;
use crate::transport::Transport;

/// How long a file may take: it may lie on a network.
const READING: Duration = Duration::from_secs(5);
/// How many are read at a time; those that their disk holds up count too.
static READERS: Semaphore = Semaphore::const_new(8);

/// What takes the place of a login.
#[derive(Debug)]
pub struct Bearer {
    /// The token that all begins with: a workload's, or the ID token of a person.
    pub token: Token,
    /// Who makes assertions of that ID token; `None`: it is one itself.
    pub identity_provider: Option<IdentityProvider>,
}

/// A token of somebody else.
pub enum Token {
    /// In a file that another program keeps fresh.
    File(PathBuf),
    /// Given by hand, good for this once.
    Given(Jwt),
    /// The ID token of this grant: to be asked for.
    Held(GrantName, Wish),
}

/// Asks for a token that somebody else in this daemon holds.
pub type Wish = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<Jwt, ErrorBody>> + Send>> + Send + Sync>;

/// An identity provider, and the way there.
pub struct IdentityProvider {
    /// How we are its client.
    pub provider: Provider,
    /// Whether it is one of the config, so that it is found there again.
    pub configured: bool,
    /// What was discovered of it; `None`: nothing yet.
    pub definition: Option<Definition>,
    /// The stored secret of our client there.
    pub secret: Option<ClientSecret>,
    /// The way there: none that a server has named.
    pub transport: Arc<dyn Transport>,
}

/// An assertion that may go to the authorization server, and whom it speaks of.
#[derive(Debug)]
pub struct Assertion {
    /// The assertion.
    pub jwt: Jwt,
    /// Whom it speaks of. A workload has no subject: it is no person that could be another one.
    pub identity: Identity,
}

/// What an assertion is to be good for.
#[derive(Clone, Copy)]
pub struct Purpose<'a> {
    /// The authorization server and our client there.
    pub definition: &'a Definition,
    /// The MCP server.
    pub resource: Option<&'a str>,
    /// The scopes.
    pub scopes: &'a [String],
    /// The time.
    pub clock: &'a dyn Clock,
}

/// Why there is no assertion. Holds nothing of a token.
#[derive(Debug, thiserror::Error)]
pub enum BearerError {
    /// The file is not there, or not to be trusted.
    #[error("{} {fault}", shown(.path))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: NotPrivate,
    },
    /// The file's disk does not answer.
    #[error("{} could not be read in {} s", shown(.path), READING.as_secs())]
    Slow {
        /// The file.
        path: PathBuf,
    },
    /// What came is nothing that may be sent there.
    #[error("{whose} {fault}")]
    Jwt {
        /// Which token.
        whose: String,
        /// What is wrong with it.
        fault: JwtError,
    },
    /// The grant with the ID token has none.
    #[error("{0}")]
    Grant(ErrorBody),
    /// The client secret for the identity provider is not to be had.
    #[error("the client of the identity provider: {0}")]
    Secret(#[from] SecretCommandError),
    /// The client cannot sign for the identity provider.
    #[error("the client of the identity provider: {0}")]
    Key(#[from] AssertionError),
    /// It is not known where the identity provider is, or which client we are there.
    #[error("the identity provider has no token endpoint or client id")]
    Undefined,
    /// The identity provider gives none.
    #[error("the identity provider: {0}")]
    IdentityProvider(TokenError),
}

impl fmt::Debug for Purpose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purpose").field("resource", &self.resource).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl Bearer {
    /// What a grant keeps of it.
    pub fn source(&self) -> AssertionSource {
        let token = self.token.source();
        match &self.identity_provider {
            None => AssertionSource::Workload(token),
            Some(one) => AssertionSource::IdentityProvider {
                provider: one.configured.then(|| one.provider.name.clone()),
                definition: Box::new(one.definition.clone().unwrap_or_default()),
                id_token: token,
            },
        }
    }

    /// An assertion that is good for this, once it is seen to be that.
    ///
    /// # Errors
    /// Why there is none. Where the token is for others, nothing was sent.
    pub async fn assertion(self, purpose: Purpose<'_>) -> Result<Assertion, BearerError> {
        let whose = self.token.to_string();
        let of = |fault| BearerError::Jwt { whose: whose.clone(), fault };
        let jwt = self.token.read().await?;
        match self.identity_provider {
            None => {
                jwt_bearer::fits(&jwt, purpose.definition, purpose.clock.now().wall).map_err(of)?;
                let identity = Identity { account: jwt.subject(), subject: None };
                Ok(Assertion { jwt, identity })
            }
            Some(one) => {
                let definition = one.definition.as_ref().ok_or(BearerError::Undefined)?;
                exchange::fits(&jwt, definition, purpose.clock.now().wall).map_err(of)?;
                let identity = jwt.identity(&one.provider.quirks);
                Ok(Assertion { jwt: one.vouch(definition, &jwt, purpose).await?, identity })
            }
        }
    }
}

impl Token {
    /// What a grant keeps of it.
    pub fn source(&self) -> TokenSource {
        match self {
            Self::File(path) => TokenSource::File(path.clone()),
            Self::Given(_) => TokenSource::Given,
            Self::Held(grant, _) => TokenSource::Grant(grant.clone()),
        }
    }

    async fn read(self) -> Result<Jwt, BearerError> {
        match self {
            Self::File(path) => read(&path).await,
            Self::Given(jwt) => Ok(jwt),
            Self::Held(_, wish) => wish().await.map_err(BearerError::Grant),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the token in {}", shown(path)),
            Self::Given(_) => f.write_str("the token that was given"),
            Self::Held(grant, _) => write!(f, "the ID token of `{grant}`"),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl IdentityProvider {
    /// Exchanges an ID token that it has made for an ID-JAG.
    async fn vouch(&self, definition: &Definition, id_token: &Jwt, purpose: Purpose<'_>) -> Result<Jwt, BearerError> {
        let (quirks, now) = (&self.provider.quirks, purpose.clock.now().wall);
        let ask = exchange::Ask {
            audience: purpose.definition.issuer.as_deref().unwrap_or_default(),
            client_id: purpose.definition.client_id.as_deref().unwrap_or_default(),
            resource: purpose.resource,
            scopes: purpose.scopes,
        };
        let secret = secret_command::of(&self.provider, self.secret.as_ref()).await?;
        let request = exchange::request(definition, quirks, secret.as_ref(), id_token, ask).ok_or(BearerError::Undefined)?;
        let request = assertion::prove(request, (definition, quirks), secret.as_ref(), now)?;
        let sent = Sent::of(&request);
        let answer = self.transport.send(request).await.map_err(token::from_transport).map_err(BearerError::IdentityProvider)?;
        let checked = exchange::check(&answer, (definition, quirks), ask, purpose.clock.now().wall);
        checked.map_err(|error| BearerError::IdentityProvider(error.without(&sent)))
    }
}

impl fmt::Debug for IdentityProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityProvider").field("provider", &self.provider.name).finish_non_exhaustive()
    }
}

impl BearerError {
    /// Whether trying again later may help, with everything as it is.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::IdentityProvider(error) => !matches!(error, TokenError::InvalidGrant(_) | TokenError::Refused { .. }),
            Self::Slow { .. } => true,
            Self::Grant(error) => matches!(error.error, ErrorCode::ProviderUnreachable | ErrorCode::TooManyRequests),
            Self::File { .. } | Self::Jwt { .. } | Self::Secret(_) | Self::Key(_) | Self::Undefined => false,
        }
    }
}

/// Reads a JWT from a file as it is now. On a thread of its own: a disk that does not answer keeps it for as long as it likes, and
/// the runtime's few threads look up the names of every server, and are waited for at the end.
async fn read(path: &Path) -> Result<Jwt, BearerError> {
    let of = path.to_owned();
    let reading = async {
        let seat = READERS.acquire().await.ok()?;
        let (tell, told) = oneshot::channel();
        let look = move || {
            let _seat = seat;
            // Whoever asked may have given up.
            let _ = tell.send(trusted_text(&of, jwt::LONGEST));
        };
        std::thread::Builder::new().name("jwt-file".into()).spawn(look).ok()?;
        told.await.ok()
    };
    let text = match tokio::time::timeout(READING, reading).await {
        Ok(Some(text)) => text.map_err(|fault| BearerError::File { path: path.to_owned(), fault })?,
        Ok(None) | Err(_) => return Err(BearerError::Slow { path: path.to_owned() }),
    };
    Jwt::read(&text).map_err(|fault| BearerError::Jwt { whose: format!("the token in {}", shown(path)), fault })
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::oauth::samples;

    fn token(subject: &str) -> String {
        samples::jwt(r#"{"alg":"ES256"}"#, &format!(r#"{{"sub":"{subject}"}}"#))
    }

    #[tokio::test]
    async fn a_file_is_read_as_it_is_now_behind_the_links_of_a_projected_volume() {
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("token");
        symlink("..data/token", &mounted).unwrap();
        for round in ["one", "two"] {
            let version = folder.path().join(round);
            fs::create_dir(&version).unwrap();
            fs::write(version.join("token"), token(round) + "\n").unwrap();
            fs::set_permissions(version.join("token"), Permissions::from_mode(0o644)).unwrap();
            symlink(round, folder.path().join("..next")).unwrap();
            fs::rename(folder.path().join("..next"), folder.path().join("..data")).unwrap();
            assert_eq!(read(&mounted).await.unwrap().subject().as_deref(), Some(round));
        }
    }

    #[tokio::test]
    async fn a_file_that_may_not_be_trusted_or_is_no_token_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let name = path.display().to_string();
        let told = || async { read(&path).await.unwrap_err().to_string() };
        assert!(told().await.starts_with(&format!("{name} cannot be used: No such file")));
        for (text, mode, fault) in [
            (token("w"), 0o666, "can be changed by other users (mode 666)"),
            (token("w"), 0o620, "can be changed by other users (mode 620)"),
            ("zQaT9qz-a-secret-of-another-kind".to_owned(), 0o600, "the token in"),
            (String::new(), 0o600, "is not a JWT"),
            ("x".repeat(jwt::LONGEST + 1), 0o600, "is longer than 16384 bytes"),
        ] {
            fs::write(&path, &text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let told = told().await;
            assert!(told.contains(fault) && told.contains(&name) && !told.contains("zQaT9qz"), "{told}");
        }
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(told().await.ends_with("is not text"));
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        assert!(told().await.ends_with("is not a file"), "a FIFO would hold us");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(told().await.ends_with("is not a file"));
    }
}

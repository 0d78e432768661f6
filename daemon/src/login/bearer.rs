//! What takes the place of a login at a remote server: a JWT of somebody else, read from a file or given, and used as it is
//! (RFC 7523 section 2.1) or exchanged for an assertion at the identity provider that has made it (RFC 8693). The same at the
//! login and at every renewal.
//!
//! What such tokens must say before they go anywhere is for `oauth::jwt_bearer` and `oauth::exchange` to know.

mod file;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};
use tokio::sync::Semaphore;

pub use self::file::FileDigest;
use crate::clock::Clock;
use crate::grant::record::{AssertionSource, Definition, TokenSource};
use crate::grant::shown;
use crate::oauth::assertion::{self, AssertionError};
use crate::oauth::identity::Identity;
use crate::oauth::jwt::{Jwt, JwtError};
use crate::oauth::token::{self, TokenError};
use crate::oauth::{Sent, exchange, jwt_bearer};
use crate::platform::NotPrivate;
use crate::provider::Provider;
use crate::provider::secret_command::{self, SecretCommandError};
use crate::secret::ClientSecret;
use crate::transport::Transport;

/// How long a turn at an identity provider is waited for: nobody waits longer for a token.
const TURN: Duration = Duration::from_secs(30);

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
    /// In a file that another program keeps fresh. Where a program has just named it: what that program has read there. The
    /// config and our own records are believed.
    File(PathBuf, Option<FileDigest>),
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
    /// Who may ask it now.
    pub turns: Arc<Semaphore>,
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
    /// There is nothing that the program that named the file has a right to hear of.
    #[error("{} holds no JWT that the program that asks has read there too", shown(.path))]
    Unread {
        /// The file.
        path: PathBuf,
    },
    /// The file's disk does not answer.
    #[error("{} could not be read in {} s", shown(.path), file::READING.as_secs())]
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
    /// It is asked for others, and does not answer.
    #[error("the identity provider takes its time over other grants")]
    Busy,
    /// Nothing is sent any more.
    #[error("the daemon is stopping, or being locked")]
    Stopping,
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
                // First: what the token says must be so when it is sent.
                let turn = tokio::time::timeout(TURN, one.turns.acquire()).await.map_err(|_| BearerError::Busy)?;
                let _turn = turn.map_err(|_| BearerError::Stopping)?;
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
            Self::File(path, _) => TokenSource::File(path.clone()),
            Self::Given(_) => TokenSource::Given,
            Self::Held(grant, _) => TokenSource::Grant(grant.clone()),
        }
    }

    /// What a program has read in the file that it names.
    pub fn digest(&self) -> Option<&FileDigest> {
        match self {
            Self::File(_, digest) => digest.as_ref(),
            Self::Given(_) | Self::Held(..) => None,
        }
    }

    async fn read(self) -> Result<Jwt, BearerError> {
        match self {
            Self::File(path, digest) => file::read(path, digest).await,
            Self::Given(jwt) => Ok(jwt),
            Self::Held(_, wish) => wish().await.map_err(BearerError::Grant),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, _) => write!(f, "the token in {}", shown(path)),
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
        let quirks = &self.provider.quirks;
        let ask = exchange::Ask {
            audience: purpose.definition.issuer.as_deref().unwrap_or_default(),
            client_id: purpose.definition.client_id.as_deref().unwrap_or_default(),
            resource: purpose.resource,
            scopes: purpose.scopes,
        };
        let secret = secret_command::of(&self.provider, self.secret.as_ref()).await?;
        let request = exchange::request(definition, quirks, secret.as_ref(), id_token, ask).ok_or(BearerError::Undefined)?;
        let request = assertion::prove(request, (definition, quirks), secret.as_ref(), purpose.clock.now().wall)?;
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
            Self::Slow { .. } | Self::Busy | Self::Stopping => true,
            Self::Grant(error) => matches!(error.error, ErrorCode::ProviderUnreachable | ErrorCode::TooManyRequests),
            Self::File { .. } | Self::Unread { .. } | Self::Jwt { .. } | Self::Secret(_) | Self::Key(_) | Self::Undefined => false,
        }
    }
}

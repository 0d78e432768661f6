//! What takes the place of a login at a remote server, as a request, the config or a grant says it: the files, the identity
//! provider and the way there, and the ID token that one of our own grants holds.

use std::path::PathBuf;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, LoginRequest};
use tokio::sync::{mpsc, oneshot};

use super::core::{Core, answer};
use super::logins::invalid;
use super::remote::is_url;
use super::served::Served;
use super::{Message, Reply};
use crate::grant::record::{AssertionSource, Definition, GrantRecord, TokenSource};
use crate::login::bearer::{Bearer, FileDigest, IdentityProvider, Token, Wish};
use crate::oauth::jwt::Jwt;
use crate::oauth::text::clean;
use crate::provider::{Endpoints, Flow, Provider, check};

/// How long another grant may take to get a new ID token.
const PATIENCE: Duration = Duration::from_secs(20);

impl Core {
    /// What takes the place of a login: what the request brings, else what the config says, else what the grant was made with.
    /// `None`: a person logs in.
    pub(super) fn wanted_bearer(
        &self,
        request: &LoginRequest,
        provider: &Provider,
        held: Option<&GrantRecord>,
    ) -> Result<Option<Bearer>, ErrorBody> {
        match (&request.assertion, &request.identity) {
            (Some(_), Some(_)) => return Err(invalid("an assertion and an identity provider exclude each other")),
            (Some(_), None) | (None, Some(_)) if request.flow.is_some() => {
                return Err(invalid("an assertion, or an identity provider, takes the place of every other way to log in"));
            }
            (Some(source), None) => return Ok(Some(Bearer { token: brought(source)?, identity_provider: None })),
            (None, Some(identity)) => return self.asked_identity(identity).map(Some),
            (None, None) if request.flow.is_some() => return Ok(None),
            (None, None) => {}
        }
        if let Some(bearer) = self.configured_bearer(provider)? {
            return Ok(Some(bearer));
        }
        let source = held.and_then(|held| held.definition.assertion.as_deref());
        match source {
            Some(source) => self.bearer_of(source).map(Some),
            None if provider.quirks.flow == Some(Flow::JwtBearer) => Err(no_assertion_file(provider)),
            None => Ok(None),
        }
    }

    fn configured_bearer(&self, provider: &Provider) -> Result<Option<Bearer>, ErrorBody> {
        let own = &provider.identity;
        if let Some(path) = &own.assertion_file {
            return Ok(Some(Bearer { token: Token::File(path.clone(), None), identity_provider: None }));
        }
        let Some(name) = &own.provider else { return Ok(None) };
        let token = match &own.token_file {
            Some(path) => Token::File(path.clone(), None),
            None => self.id_token_of(name.parse().map_err(|_| no_identity_provider(name))?),
        };
        Ok(Some(Bearer { token, identity_provider: Some(self.configured_identity(name)?) }))
    }

    fn configured_identity(&self, name: &str) -> Result<IdentityProvider, ErrorBody> {
        let provider = self.config.provider(name).filter(|provider| provider.server.is_none());
        Ok(self.identity_provider(provider.ok_or_else(|| no_identity_provider(name))?.clone(), true, None))
    }

    /// The identity provider that a person describes beside the login: one of the config, or an issuer.
    fn asked_identity(&self, identity: &wire::IdentityProvider) -> Result<Bearer, ErrorBody> {
        let token = brought(&identity.token)?;
        let named = &identity.provider;
        if !is_url(named) {
            if identity.client_id.is_some() || identity.token_endpoint.is_some() {
                return Err(invalid("the config says the client id and the token endpoint of an identity provider that it names"));
            }
            return Ok(Bearer { token, identity_provider: Some(self.configured_identity(named)?) });
        }
        check::issuer(named).map_err(|fault| invalid(format!("the issuer of the identity provider {}", fault.what)))?;
        let Some(client_id) = &identity.client_id else {
            return Err(invalid("an identity provider wants to know the client id that the ID token is for"));
        };
        check::printable(client_id).map_err(|fault| invalid(format!("the client id at the identity provider {}", fault.what)))?;
        if let Some(endpoint) = &identity.token_endpoint {
            check::endpoint(endpoint).map_err(|fault| invalid(format!("the token endpoint of the identity provider {}", fault.what)))?;
            // As of providers that a program defines: another origin is for the issuer's own metadata, or the config, to name.
            if check::origin(endpoint) != check::origin(named) {
                return Err(invalid("the token endpoint of the identity provider is not on its issuer's origin: leave it out"));
            }
        }
        let provider = described(named.clone(), client_id.clone(), identity.token_endpoint.clone());
        Ok(Bearer { token, identity_provider: Some(self.identity_provider(provider, false, None)) })
    }

    /// What a grant was made with, as far as it can be had again.
    pub(super) fn bearer_of(&self, source: &AssertionSource) -> Result<Bearer, ErrorBody> {
        let token = match source.token() {
            TokenSource::File(path) => Token::File(path.clone(), None),
            TokenSource::Grant(grant) => self.id_token_of(grant.clone()),
            TokenSource::Given => {
                let sentence = "it was got with a token that was given once, and not kept";
                return Err(ErrorBody::new(ErrorCode::LoginRequired, sentence).hint("mcp-authctl login --help"));
            }
        };
        let identity_provider = match source {
            AssertionSource::Workload(_) => None,
            AssertionSource::IdentityProvider { provider, definition, .. } => Some(self.known_identity(provider.as_deref(), definition)?),
        };
        Ok(Bearer { token, identity_provider })
    }

    /// An identity provider as a grant has kept it: if the config names it, that must still say the same.
    fn known_identity(&self, name: Option<&str>, definition: &Definition) -> Result<IdentityProvider, ErrorBody> {
        let provider = match name {
            Some(name) => {
                let known = self.config.provider(name).filter(|provider| provider.accepts(definition));
                known.cloned().ok_or_else(|| {
                    let sentence = format!("the config no longer holds the identity provider `{}` as it was at the login", clean(name));
                    ErrorBody::new(ErrorCode::Conflict, sentence).hint("log in again")
                })?
            }
            None => {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                described(text(&definition.issuer), text(&definition.client_id), definition.token_endpoint.clone())
            }
        };
        Ok(self.identity_provider(provider, name.is_some(), Some(definition.clone())))
    }

    fn identity_provider(&self, provider: Provider, configured: bool, definition: Option<Definition>) -> IdentityProvider {
        let way = self.way(provider);
        let turns = self.turns.at(way.provider.issuer.as_deref().or(way.provider.endpoints.token.as_deref()).unwrap_or_default());
        IdentityProvider { provider: way.provider, configured, definition, secret: way.secret, transport: way.transport, turns }
    }

    // ---- ID tokens of our own grants ----

    fn id_token_of(&self, grant: GrantName) -> Token {
        let (mailbox, name) = (self.mailbox.clone(), grant.clone());
        let ask = |mailbox: mpsc::UnboundedSender<Message>, name: GrantName| async move {
            let (reply, came) = oneshot::channel();
            let of = name.clone();
            // A core that has gone lets the reply go, too.
            let _ = mailbox.send(Box::new(move |core: &mut Self| core.id_token(of, reply)));
            match tokio::time::timeout(PATIENCE, came).await {
                Ok(Ok(told)) => told,
                _ => Err(ErrorBody::new(ErrorCode::ProviderUnreachable, format!("`{name}` has got no new ID token in time"))),
            }
        };
        let wish: Wish = Box::new(move || Box::pin(ask(mailbox, name)));
        Token::Held(grant, wish)
    }

    /// The ID token of a grant; where it has ended the grant is refreshed for a new one.
    fn id_token(&mut self, name: GrantName, reply: Reply<Jwt>) {
        let name = self.meant(&name);
        match self.held_id_token(&name) {
            Ok(Some(jwt)) if !jwt.is_ending(self.now().wall) => return answer(reply, Ok(jwt)),
            Ok(_) => {}
            Err(error) => return answer(reply, Err(error)),
        }
        let (refreshed, then) = oneshot::channel::<Result<Served, ErrorBody>>();
        let asker = self.own_asker();
        self.refresh(asker, name.clone(), false, refreshed);
        self.task(then, move |core, outcome| match outcome.and_then(Result::ok) {
            Some(Ok(_)) => {
                let now = core.now().wall;
                let fresh =
                    core.held_id_token(&name).and_then(|jwt| jwt.filter(|jwt| !jwt.is_ending(now)).ok_or_else(|| no_id_token(&name)));
                answer(reply, fresh);
            }
            Some(Err(error)) => answer(reply, Err(error)),
            None => {}
        });
    }

    fn held_id_token(&self, name: &GrantName) -> Result<Option<Jwt>, ErrorBody> {
        let record = self.held(name)?.newest();
        Ok(record.id_token.as_ref().and_then(|token| Jwt::read(&token.expose()).ok()))
    }
}

/// An identity provider that nobody has configured.
fn described(issuer: String, client_id: String, token_endpoint: Option<String>) -> Provider {
    Provider {
        issuer: Some(issuer),
        client_id: Some(client_id),
        endpoints: Endpoints { token: token_endpoint, ..Endpoints::default() },
        ..Provider::unknown("identity-provider")
    }
}

/// A token of somebody else, as a request brings it.
fn brought(source: &wire::TokenSource) -> Result<Token, ErrorBody> {
    match source {
        wire::TokenSource::File(wire::TokenFile { path, sha256 }) => {
            check::absolute_path(path).map_err(|fault| invalid(format!("the path of the token {}", fault.what)))?;
            let digest = sha256.as_deref().and_then(FileDigest::read);
            let unread = || invalid("a file is named together with the SHA-256 of what it holds, by a program that has read it");
            Ok(Token::File(PathBuf::from(path), Some(digest.ok_or_else(unread)?)))
        }
        wire::TokenSource::Token(token) => {
            Jwt::read(token.expose()).map(Token::Given).map_err(|fault| invalid(format!("the token that was given {fault}")))
        }
    }
}

fn no_assertion_file(provider: &Provider) -> ErrorBody {
    let name = &provider.name;
    ErrorBody::new(ErrorCode::Conflict, format!("{name} wants a JWT in place of a login, and no file with one is named"))
        .hint(format!("set assertion_file under [providers.{name}] in config.toml, or `mcp-authctl login {name} --assertion-file FILE`"))
}

fn no_identity_provider(name: &str) -> ErrorBody {
    let name = clean(name);
    ErrorBody::new(ErrorCode::Conflict, format!("the config knows no identity provider `{name}`"))
        .hint(format!("write [providers.{name}] with its issuer and our client_id there into config.toml, then `mcp-authctl reload`"))
}

fn no_id_token(name: &GrantName) -> ErrorBody {
    ErrorBody::new(ErrorCode::LoginRequired, format!("`{name}` holds no ID token that is still good, and a refresh brings none")).hint(
        format!(
            "mcp-authctl login {name} --scope openid, with the scopes that it has, if it was made without; else mcp-authctl login {name}"
        ),
    )
}

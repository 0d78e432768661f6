//! Which client we are at an authorization server (MCP authorization, "Client Registration Approaches"): one that a person
//! registered, the metadata document where one is set and taken, one that the server made before, a new one; else a person is
//! asked.
//!
//! The listener comes before the registration: what is registered is the very URI that is listened at.

use std::time::Duration;

use mcp_auth_proto::{ClientKind, ErrorBody};
use tokio::sync::oneshot;

use super::{Given, Plan, Remote, failure};
use crate::clock::Clock;
use crate::login::Progress;
use crate::login::redirect::{BindError, Listener};
use crate::oauth::metadata::AuthorizationServerMetadata;
use crate::oauth::register::{self, Asked, RegisterError, Registered};
use crate::oauth::token;
use crate::provider::ClientAuth;
use crate::registration::{self, Origin, Registration};
use crate::secret::ClientSecret;
use crate::transport::Transport;

/// The redirect ports of the client metadata document: a server compares them, so they are fixed.
const DOCUMENT_PORTS: [u16; 3] = [27631, 27632, 27633];
/// The redirect of the client metadata document, but for its port.
const DOCUMENT_HOST: &str = "127.0.0.1";
const DOCUMENT_PATH: &str = "/callback";

/// How long the disk may take.
const KEEP_PATIENCE: Duration = Duration::from_secs(5);

/// Where clients are chosen and made.
pub(super) struct Desk<'a> {
    pub(super) plan: &'a Plan,
    pub(super) remote: &'a Remote,
    /// No person says yes to the server: what is kept for others is not used for it.
    pub(super) alone: bool,
    pub(super) metadata: &'a AuthorizationServerMetadata,
    pub(super) transport: &'a dyn Transport,
    pub(super) clock: &'a dyn Clock,
}

/// The client of a login, and where its redirect comes.
pub(super) struct Chosen {
    pub(super) client: Client,
    /// What a person gave now: kept once the server has taken it, so that a slip of the pen is no more than that.
    pub(super) to_keep: Option<Registration>,
    pub(super) kind: ClientKind,
    pub(super) listener: Listener,
}

/// A client.
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: Option<ClientSecret>,
    pub(super) auth: Option<ClientAuth>,
    /// If the server refuses it, another one may be made.
    pub(super) replaceable: bool,
}

impl Desk<'_> {
    /// Chooses the client. `refused`: the id that the server has just refused.
    pub(super) async fn choose(&self, refused: Option<&str>, progress: &(impl Fn(Progress) + Send)) -> Result<Chosen, ErrorBody> {
        if refused.is_none() {
            if let Some(chosen) = self.given().await? {
                return Ok(chosen);
            }
            if let Some(document) = self.document() {
                let listener = self.listen((DOCUMENT_HOST, DOCUMENT_PATH), &DOCUMENT_PORTS).await?;
                let client = Client { id: document.to_owned(), secret: None, auth: Some(ClientAuth::None), replaceable: true };
                return Ok(Chosen { client, to_keep: None, kind: ClientKind::MetadataDocument, listener });
            }
            if let Some(chosen) = self.known(false).await {
                return Ok(chosen);
            }
        }
        match self.made(refused, progress).await {
            // One that is doubted is better than none.
            Err(error) if refused.is_none() => self.known(true).await.ok_or(error),
            made => made,
        }
    }

    /// The client that a person registered, and where its redirect comes.
    async fn given(&self) -> Result<Option<Chosen>, ErrorBody> {
        let Some((registration, is_new)) = self.by_person()? else { return Ok(None) };
        let quirks = &self.plan.provider.quirks;
        let listener = self.listen((&quirks.redirect_host, &quirks.redirect_path), &quirks.redirect_ports).await?;
        let listed = self.metadata.token_endpoint_auth_methods_supported.as_deref();
        let (id, secret) = (registration.client_id.clone(), registration.client_secret.clone());
        let auth = registration.auth.or_else(|| secret.as_ref().map(|_| token::client_auth(quirks, listed, true)));
        let client = Client { id, secret, auth, replaceable: false };
        Ok(Some(Chosen { client, to_keep: is_new.then_some(registration), kind: ClientKind::Given, listener }))
    }

    /// The client that a person registered: given now, or in the config, or at an earlier login; and whether it is to be kept.
    pub(super) fn by_person(&self) -> Result<Option<(Registration, bool)>, ErrorBody> {
        let (issuer, known) = (self.metadata.issuer.as_str(), &self.remote.registrations);
        let configured = self.plan.provider.client_id.clone().map(|id| Given { id, secret: self.plan.client_secret.clone(), auth: None });
        let Some(Given { id, secret, auth }) = self.remote.given.clone().or(configured) else {
            return Ok(self.earlier().map(|earlier| (earlier.clone(), false)));
        };
        // Where the config says whose client it is, what was shown to another before says nothing.
        let said = self.plan.provider.authorization_server.is_some();
        if let Some(other) = registration::foreign_issuer(known, issuer, &id).filter(|_| !said) {
            return Err(failure::other_issuer(&self.plan.grant, &id, (other, issuer)));
        }
        let before = registration::find(known, issuer, &id).filter(|before| before.origin == Origin::Given && secret.is_none());
        Ok(Some(match before {
            // Its id is no secret: who names it alone gets no token of it at another server.
            Some(before) if self.alone && self.remote.given.is_some() && !self.is_held(before) => {
                (Registration { client_secret: None, ..before.clone() }, false)
            }
            Some(before) => (before.clone(), false),
            None => (Registration { auth, ..Registration::given(issuer, &id, secret, self.clock.now().wall) }, true),
        }))
    }

    /// The client of the grant that is held; else, where a person says yes to it, the one that was given last. What a client gets
    /// for itself goes to the servers that it was given for, and not to any other that names its authorization server.
    fn earlier(&self) -> Option<&Registration> {
        let issuer = self.metadata.issuer.as_str();
        let mut given = self.remote.registrations.iter().rev().filter(|one| one.issuer == issuer && one.origin == Origin::Given);
        let own = given.clone().find(|one| self.is_held(one));
        if self.alone { own } else { own.or_else(|| given.next()) }
    }

    /// Whether it is the client of the grant that is held.
    fn is_held(&self, one: &Registration) -> bool {
        let before = self.remote.before.as_ref().filter(|before| before.issuer.as_deref() == Some(one.issuer.as_str()));
        before.is_some_and(|before| before.client_id.as_deref() == Some(one.client_id.as_str()))
    }

    /// The metadata document, where one is set and the server takes it.
    fn document(&self) -> Option<&str> {
        let document = self.remote.document.as_deref().filter(|_| self.metadata.client_id_metadata_document_supported);
        document.filter(|document| !registration::has_refused(&self.remote.registrations, &self.metadata.issuer, document))
    }

    /// The client that the server has made before, if its redirect can still be listened at. Older ones are no better than the
    /// newest where that is doubted.
    async fn known(&self, though_doubted: bool) -> Option<Chosen> {
        let newest = registration::newest_dynamic(&self.remote.registrations, &self.metadata.issuer, self.clock.now().wall);
        let known = newest.filter(|newest| though_doubted || !newest.doubted)?;
        let registered = known.redirect_uri()?;
        let url = url::Url::parse(registered).ok()?;
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        if self.plan.callback_port.is_some_and(|wanted| wanted != port) {
            return None;
        }
        // Busy, or not ours any more: a new client gets a new redirect.
        let listener = Listener::bind(host, url.path(), Some(port)).await.ok().filter(|bound| bound.redirect_uri() == registered)?;
        let client = Client { id: known.client_id.clone(), secret: known.client_secret.clone(), auth: known.auth, replaceable: true };
        Some(Chosen { client, to_keep: None, kind: ClientKind::Known, listener })
    }

    /// A client that the server makes now.
    async fn made(&self, refused: Option<&str>, progress: &(impl Fn(Progress) + Send)) -> Result<Chosen, ErrorBody> {
        let (name, issuer) = (&self.plan.grant, self.metadata.issuer.as_str());
        let Some(endpoint) = self.metadata.registration_endpoint.as_deref() else {
            return Err(failure::no_client(name, issuer, &self.plan.provider.redirect_uri_for_registration()));
        };
        let path = register::redirect_path(issuer);
        let listed = self.metadata.token_endpoint_auth_methods_supported.as_deref();
        let auth = register::auth(listed).map_err(|error| failure::register(name, issuer, &error))?;
        let mut answer = Err(RegisterError::NoMethod);
        let mut listener = self.listen((DOCUMENT_HOST, &path), &[]).await?;
        for host in [DOCUMENT_HOST, "localhost"] {
            if host != DOCUMENT_HOST {
                drop(listener);
                listener = self.listen((host, &path), &[]).await?;
            }
            let asked = Asked { endpoint, redirect_uri: listener.redirect_uri(), scopes: &self.plan.scopes, auth };
            answer = self.register(asked).await?;
            // There are servers that take this machine by its name only.
            if !matches!(&answer, Err(RegisterError::Refused { code, .. }) if code == "invalid_redirect_uri") {
                break;
            }
        }
        let made = answer.map_err(|error| failure::register(name, issuer, &error))?;
        let document = refused.filter(|id| Some(*id) == self.document());
        let client = Registration::dynamic(issuer, made, listener.redirect_uri(), document, self.clock.now().wall);
        keep(client.clone(), progress).await;
        let client = Client { id: client.client_id, secret: client.client_secret, auth: client.auth, replaceable: false };
        Ok(Chosen { client, to_keep: None, kind: ClientKind::Registered, listener })
    }

    async fn register(&self, asked: Asked<'_>) -> Result<Result<Registered, RegisterError>, ErrorBody> {
        let answer = self.transport.send(register::request(asked)).await;
        let answer = answer.map_err(|error| failure::unreachable(&self.plan.grant, &error))?;
        Ok(register::check(asked, &answer, self.clock.now().wall))
    }

    async fn listen(&self, (host, path): (&str, &str), ports: &[u16]) -> Result<Listener, ErrorBody> {
        let bound = match self.plan.callback_port {
            Some(port) => Listener::bind(host, path, Some(port)).await,
            None => Listener::bind_first(host, path, ports).await,
        };
        bound.map_err(|error: BindError| failure::bind(&self.plan.grant, &error))
    }
}

/// A client is on the disk before its tokens are; a disk that refuses, or does not answer, costs a registration at most, and no
/// login.
pub(super) async fn keep(registration: Registration, progress: &(impl Fn(Progress) + Send)) {
    let (kept, is_kept) = oneshot::channel();
    progress(Progress::Registered(Box::new(registration), kept));
    // Either way the login goes on; the broker has told of a disk that refuses.
    let _ = tokio::time::timeout(KEEP_PATIENCE, is_kept).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_to_copy_names_every_redirect_that_is_listened_at() {
        let document: serde_json::Value = serde_json::from_str(include_str!("../../../../docs/client-metadata.json")).unwrap();
        let uris: Vec<_> = document["redirect_uris"].as_array().unwrap().iter().filter_map(|uri| uri.as_str()).collect();
        for port in DOCUMENT_PORTS {
            assert!(uris.contains(&format!("http://{DOCUMENT_HOST}:{port}{DOCUMENT_PATH}").as_str()), "{port}");
        }
        assert_eq!((&document["token_endpoint_auth_method"], &document["application_type"]), (&"none".into(), &"native".into()));
    }
}

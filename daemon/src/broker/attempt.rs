//! The errands of the broker, each a task of its own: one assertion, one refresh, one probe, one revocation. They hold no state
//! and report to the mailbox.

use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto::{ErrorBody, GrantName};
use tokio::sync::{oneshot, watch};

use crate::clock::{Clock, Now};
use crate::failpoint;
use crate::grant::record::{Definition, GrantRecord};
use crate::grant::{Attempt, AttemptError, Verdict};
use crate::login::bearer::{Bearer, BearerError, Purpose};
use crate::oauth::assertion::AssertionError;
use crate::oauth::jwt::Jwt;
use crate::oauth::token::{TokenError, TokenResponse};
use crate::oauth::{Sent, assertion, identity, jwt_bearer, revoke, token};
use crate::proofs::{NoAnswer, Nonces, Proofs};
use crate::provider::{Provider, Quirks, secret_command};
use crate::secret::{AccessToken, ClientSecret, RefreshToken};
use crate::transport::{Request, Transport};
use crate::vault::{Intent, RecordId, RecordKind, Vault};

/// How long an intent may take to be written.
const INTENT_PATIENCE: Duration = Duration::from_secs(5);
/// What an exchange that was on its way during a suspend still gets.
const AFTER_SUSPEND: Duration = Duration::from_secs(3);

/// What an errand needs.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) provider: Provider,
    /// The stored client secret; a configured command comes first.
    pub(super) secret: Option<ClientSecret>,
    /// What servers have told of their nonces.
    pub(super) nonces: Arc<Nonces>,
}

impl Way {
    /// The client secret, from the command or the vault.
    pub(super) async fn client_secret(&self) -> Result<Option<ClientSecret>, String> {
        secret_command::of(&self.provider, self.secret.as_ref()).await.map_err(|error| error.to_string())
    }
}

/// One refresh, with all that it needs of others.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) grant: GrantName,
    pub(super) attempt: Attempt,
    /// What takes the place of the refresh token, where that is an assertion.
    pub(super) assertion: Option<Jwt>,
}

/// One refresh: intent, request, check. Without a refresh token nothing is used up, so there is no intent. Gives the time at
/// which the request was sent.
pub(super) async fn refresh(
    way: Way,
    vault: Vault,
    record: GrantRecord,
    Errand { attempt, assertion, .. }: Errand,
    mut suspended: watch::Receiver<u64>,
) -> (Now, Result<TokenResponse, AttemptError>) {
    let started = way.clock.now();
    let secret = match way.client_secret().await {
        Ok(secret) => secret,
        Err(reason) => return (started, Err(AttemptError::NoCredentials(reason))),
    };
    failpoint::at(format_args!("refresh begins"));
    if let Some(token) = &attempt.refresh_token
        && let Err(reason) = intend(&vault, intent(&record, &attempt, token)).await
        && !attempt.even_if_not_durable
    {
        return (started, Err(AttemptError::NotDurable(reason)));
    }
    failpoint::at(format_args!("intent synced"));
    suspended.mark_unchanged();
    let sent_at = way.clock.now();
    let result = tokio::select! {
        answer = exchange(&way, &record, &attempt, (secret.as_ref(), assertion.as_ref())) => match answer {
            Ok(result) => result,
            Err(error) => return (started, Err(AttemptError::NoCredentials(error.to_string()))),
        },
        () = overslept(&mut suspended) => Err(TokenError::Lost("the machine was asleep while the provider answered".into())),
    };
    (sent_at, result.and_then(|response| same_subject(&record, response, &way)).map_err(AttemptError::Provider))
}

/// The request and its answer, checked. `Err`: the client cannot sign for itself.
async fn exchange(
    way: &Way,
    record: &GrantRecord,
    attempt: &Attempt,
    (secret, assertion): (Option<&ClientSecret>, Option<&Jwt>),
) -> Result<Result<TokenResponse, TokenError>, AssertionError> {
    let quirks = &way.provider.quirks;
    if request(quirks, (record, attempt), secret, assertion).is_none() {
        return Ok(Err(TokenError::Unusable("the grant has no token endpoint".into())));
    }
    let make = || {
        let request = request(quirks, (record, attempt), secret, assertion).expect("it was there a line before");
        assertion::prove(request, (&record.definition, quirks), secret, way.clock.now().wall)
    };
    let proofs = Proofs { key: record.proof_key.clone(), nonces: way.nonces.clone() };
    match proofs.send((&*way.transport, &*way.clock), make).await {
        Ok(answered) => {
            failpoint::at(format_args!("answer read"));
            Ok(proofs.check(&answered, quirks, way.clock.now().wall))
        }
        Err(NoAnswer::Client(error)) => Err(error),
        Err(error) => Ok(Err(error.into())),
    }
}

/// The refresh, or the client's question for another token, with an assertion or its own credentials.
fn request(
    quirks: &Quirks,
    (record, attempt): (&GrantRecord, &Attempt),
    secret: Option<&ClientSecret>,
    assertion: Option<&Jwt>,
) -> Option<Request> {
    let (definition, scopes, resource) = (&record.definition, &record.requested_scopes, record.resource.as_deref());
    match (&attempt.refresh_token, assertion) {
        (Some(refresh_token), _) => token::refresh(definition, quirks, secret, refresh_token, resource),
        (None, Some(assertion)) => jwt_bearer::request(definition, quirks, secret, jwt_bearer::Ask { assertion, scopes, resource }),
        (None, None) => token::client_credentials(definition, quirks, secret, scopes, resource),
    }
}

/// An assertion for a grant that was made with one. Where others are to blame who may be well again soon, the next who asks has it
/// tried again; what the grant's own server has not said must not count for its other grants.
pub(super) async fn assertion_for(way: Way, record: GrantRecord, bearer: Result<Bearer, ErrorBody>) -> Result<Jwt, AttemptError> {
    let bearer = bearer.map_err(|error| AttemptError::NoCredentials(error.error_description))?;
    let whose = bearer.token.to_string();
    let (resource, scopes) = (record.resource.as_deref(), record.requested_scopes.as_slice());
    let purpose = Purpose { definition: &record.definition, resource, scopes, clock: &*way.clock };
    let found = bearer.assertion(purpose).await.map_err(|error| match error {
        BearerError::Stopping => AttemptError::Stopping,
        error if error.is_transient() => AttemptError::Provider(TokenError::Unusable(error.to_string())),
        error => AttemptError::NoCredentials(error.to_string()),
    })?;
    match (&record.subject, &found.identity.subject) {
        (Some(expected), Some(subject)) if subject != expected => {
            let name = &record.name;
            let sentence = format!("{whose} speaks of another person than the grant, whom `mcp-authctl login {name}` puts in its place");
            Err(AttemptError::NoCredentials(sentence))
        }
        _ => Ok(found.jwt),
    }
}

/// Tries an access token where the provider tells who it belongs to.
pub(super) async fn probe(way: Way, definition: Definition, token: AccessToken) -> Verdict {
    let Some(endpoint) = definition.userinfo_endpoint else { return Verdict::Unknown };
    let Ok(response) = way.transport.send(identity::userinfo(&endpoint, &token, &way.provider.quirks)).await else {
        return Verdict::Unknown;
    };
    match (identity::refused(&response), response.status) {
        (Some(identity::Refused::Token), _) => Verdict::Rejected,
        (None, 200) => Verdict::Alive,
        _ => Verdict::Unknown,
    }
}

/// Who a static token belongs to. `Err`: the provider rejects it; nobody is known where it cannot be asked.
pub(super) async fn identify(way: Way, token: AccessToken) -> Result<identity::Identity, ()> {
    let Some(endpoint) = way.provider.endpoints.userinfo.clone() else { return Ok(identity::Identity::default()) };
    match way.transport.send(identity::userinfo(&endpoint, &token, &way.provider.quirks)).await {
        Ok(response) if identity::refused(&response) == Some(identity::Refused::Token) => Err(()),
        Ok(response) => Ok(identity::from_userinfo(&response, &way.provider.quirks).unwrap_or_default()),
        Err(_) => Ok(identity::Identity::default()),
    }
}

/// Revokes what a grant holds, the refresh token first. `Ok(false)`: the provider has no way to revoke.
pub(super) async fn revoke(way: Way, record: GrantRecord) -> Result<bool, String> {
    let secret = way.client_secret().await?;
    let requests = revoke::requests(
        &record.definition,
        &way.provider.quirks,
        secret.as_ref(),
        Some(&record.token.access_token),
        record.refresh_token.as_ref(),
    );
    let any = !requests.is_empty();
    let mut answers = Vec::new();
    for request in requests {
        let (definition, quirks) = (&record.definition, &way.provider.quirks);
        let proved = assertion::prove(request, (definition, quirks), secret.as_ref(), way.clock.now().wall);
        let request = proved.map_err(|error| error.to_string())?;
        let sent = Sent::of(&request);
        let response = way.transport.send(request).await.map_err(|error| error.to_string())?;
        answers.push(revoke::check(&response).map_err(|error| error.without(&sent)));
    }
    revoke::confirmed(answers).map(|()| any).map_err(|error| error.to_string())
}

fn intent(record: &GrantRecord, attempt: &Attempt, token: &RefreshToken) -> Intent {
    let id = RecordId { kind: RecordKind::Grant, name: record.name.to_string() };
    Intent { id, generation: attempt.generation, fingerprint: token.fingerprint() }
}

async fn intend(vault: &Vault, intent: Intent) -> Result<(), String> {
    let (done, written) = oneshot::channel();
    vault.intend(
        intent,
        Box::new(move |result| {
            // A time-out below has already given up on it.
            let _ = done.send(result);
        }),
    );
    match tokio::time::timeout(INTENT_PATIENCE, written).await {
        Ok(Ok(result)) => result.map_err(|error| error.to_string()),
        Ok(Err(_)) => Err("the vault has stopped".into()),
        Err(_) => Err("the disk has not answered in 5 s".into()),
    }
}

/// Ends some seconds after a suspend: the connection is most likely dead, and its time-outs stood still.
async fn overslept(suspended: &mut watch::Receiver<u64>) {
    if suspended.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(AFTER_SUSPEND).await;
}

/// Tokens of somebody else never replace those of a grant. What an identity provider calls a person is compared before its word
/// is sent: the server has names of its own.
fn same_subject(record: &GrantRecord, response: TokenResponse, way: &Way) -> Result<TokenResponse, TokenError> {
    let subject = record.subject.as_ref().filter(|_| record.definition.vouched_by().is_none());
    let (Some(expected), Some(id_token), Some(client_id)) = (subject, &response.id_token, &record.definition.client_id) else {
        return Ok(response);
    };
    let audience = identity::Audience { issuer: record.definition.issuer.as_deref(), client_id, now: way.clock.now().wall };
    match identity::from_id_token(id_token, audience, &way.provider.quirks) {
        Ok(identity::Identity { subject: Some(subject), .. }) if subject != *expected => {
            Err(TokenError::Unusable("it speaks of another person".into()))
        }
        _ => Ok(response),
    }
}

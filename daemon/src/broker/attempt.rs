//! The errands of the broker, each a task of its own: one refresh, one probe, one revocation. They hold no state and
//! report to the mailbox.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::clock::{Clock, Now};
use crate::failpoint;
use crate::grant::record::{Definition, GrantRecord};
use crate::grant::{Attempt, AttemptError, Verdict};
use crate::oauth::token::{TokenError, TokenResponse};
use crate::oauth::{Sent, assertion, identity, revoke, token};
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
}

impl Way {
    /// The client secret, from the command or the vault.
    pub(super) async fn client_secret(&self) -> Result<Option<ClientSecret>, String> {
        match &self.provider.client_secret_command {
            Some(argv) => secret_command::run(argv).await.map(Some).map_err(|error| error.to_string()),
            None => Ok(self.secret.clone()),
        }
    }
}

/// One refresh: intent, request, check. Where the client asks for itself nothing is used up, so there is no intent. Gives
/// the time at which the request was sent.
pub(super) async fn refresh(
    way: Way,
    vault: Vault,
    record: GrantRecord,
    attempt: Attempt,
    mut suspended: watch::Receiver<u64>,
) -> (Now, Result<TokenResponse, AttemptError>) {
    let started = way.clock.now();
    let secret = match way.client_secret().await {
        Ok(secret) => secret,
        Err(reason) => return (started, Err(AttemptError::NoClientSecret(reason))),
    };
    failpoint::at(format_args!("refresh begins"));
    if let Some(token) = &attempt.refresh_token
        && let Err(reason) = intend(&vault, intent(&record, &attempt, token)).await
        && !attempt.even_if_not_durable
    {
        return (started, Err(AttemptError::NotDurable(reason)));
    }
    failpoint::at(format_args!("intent synced"));
    let quirks = &way.provider.quirks;
    let Some(request) = request(quirks, &record, &attempt, secret.as_ref()) else {
        let error = TokenError::Unusable("the grant has no token endpoint".into());
        return (started, Err(AttemptError::Provider(error)));
    };
    suspended.mark_unchanged();
    let sent_at = way.clock.now();
    let request = match assertion::prove(request, (&record.definition, quirks), secret.as_ref(), sent_at.wall) {
        Ok(request) => request,
        Err(error) => return (started, Err(AttemptError::NoClientSecret(error.to_string()))),
    };
    let sent = Sent::of(&request);
    let result = tokio::select! {
        answer = way.transport.send(request) => match answer {
            Ok(response) => {
                failpoint::at(format_args!("answer read"));
                token::check(&response, quirks).map_err(|error| error.without(&sent))
            }
            Err(error) => Err(token::from_transport(error)),
        },
        () = overslept(&mut suspended) => Err(TokenError::Lost("the machine was asleep while the provider answered".into())),
    };
    (sent_at, result.and_then(|response| same_subject(&record, response, &way)).map_err(AttemptError::Provider))
}

/// The refresh, or the client's question for another token.
fn request(quirks: &Quirks, record: &GrantRecord, attempt: &Attempt, secret: Option<&ClientSecret>) -> Option<Request> {
    let (definition, resource) = (&record.definition, record.resource.as_deref());
    match &attempt.refresh_token {
        Some(refresh_token) => token::refresh(definition, quirks, secret, refresh_token, resource),
        None => token::client_credentials(definition, quirks, secret, &record.requested_scopes, resource),
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

/// Tokens of somebody else never replace those of a grant.
fn same_subject(record: &GrantRecord, response: TokenResponse, way: &Way) -> Result<TokenResponse, TokenError> {
    let (Some(expected), Some(id_token), Some(client_id)) = (&record.subject, &response.id_token, &record.definition.client_id) else {
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

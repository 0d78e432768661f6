//! `/mcp/NAME`: a request of an MCP client goes to the remote server of a grant, with a fresh token, and the answer comes back
//! as it comes. A server at whose URL nobody has logged in is asked without one; it says itself whether that will do. What the
//! messages mean is not known here, but for the ids that our own errors answer.
//!
//! A server that wants another token, or another proof, gets it, once for each reason, if the request was small enough to be
//! kept. The client sees neither the token nor a 401 or 403: it would begin a login of its own at our socket.

pub mod clients;
pub mod door;
mod headers;
mod leased;
mod message;
mod upload;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, StatusCode};
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, TokenRequest};

use self::leased::{Ended, Leased};
use self::message::Sent;
use self::upload::{Held, LARGEST_KEPT, Upload};
use crate::broker::{Broker, Destination, Served};
use crate::caller::Caller;
use crate::clock::Wall;
use crate::grant::mcp::{AUTHENTICATION_REQUIRED, LoginKind, LoginNeeded};
use crate::ipc::{Answer, BodyError, Call, OUR_ERROR, Relayed};
use crate::oauth::challenge::Challenge;
use crate::oauth::dpop;
use crate::oauth::text::clean;
use crate::transport::{Opened, Opening, Prove, TransportError, told_date};

/// Forwards a call to the server of the grant that `target` names, by name or by URL.
pub async fn forward(broker: Broker, call: Call, target: String) -> Answer {
    let Call { caller, method, headers, stream, .. } = call;
    let mut upload = match Upload::begin(stream, LARGEST_KEPT).await {
        Ok(upload) => upload,
        Err(error) => return Answer::Error(Box::new(incomplete(error))),
    };
    let outcome = match broker.destination(target).await {
        Ok(destination) => {
            let trip = Trip { broker, caller, destination, method: &method, headers: &headers };
            trip.run(&mut upload).await
        }
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| refusal(&method, &upload.sent, error))
}

/// Answers a call that goes nowhere.
pub async fn refuse(call: Call, error: ErrorBody) -> Answer {
    match Upload::begin(call.stream, LARGEST_KEPT).await {
        Ok(upload) => refusal(&call.method, &upload.sent, error),
        Err(error) => Answer::Error(Box::new(incomplete(error))),
    }
}

/// What is read of a stranger's request, for the id that its answer needs: bytes, and how long that may take.
const OF_A_STRANGER: (usize, Duration) = (64 * 1024, Duration::from_secs(5));

/// Answers a call of somebody who is not known.
async fn turn_away(call: Call, error: ErrorBody) -> Answer {
    let (most, patience) = OF_A_STRANGER;
    match tokio::time::timeout(patience, Upload::begin(call.stream, most)).await {
        Ok(Ok(upload)) => refusal(&call.method, &upload.sent, error),
        _ => Answer::Error(Box::new(incomplete(BodyError::Broken))),
    }
}

/// One request's way to the server and back.
struct Trip<'a> {
    broker: Broker,
    caller: Arc<Caller>,
    destination: Destination,
    method: &'a Method,
    headers: &'a HeaderMap,
}

/// What a server says of the token.
enum Verdict {
    /// Nothing: this is the answer.
    Fine(Opened),
    /// The proof lacks the server's nonce, which it has told (RFC 9449 section 9). The token may be good.
    WantsNonce,
    /// It does not take the proof, and says by its own clock when that was.
    BadProof(Option<Wall>),
    /// It takes these proofs, and none that we can make.
    OtherProofs(String),
    /// It is not good any more (RFC 6750 section 3.1, `invalid_token`). Scopes in that challenge are no reason to ask for more.
    Rejected(Vec<String>),
    /// It does not reach far enough (`insufficient_scope`), with the challenge.
    Insufficient(String),
    /// The server does not want this request, whatever the token.
    Forbidden,
}

impl Trip<'_> {
    async fn run(&self, upload: &mut Upload) -> Result<Answer, ErrorBody> {
        let mut token = self.token(TokenRequest::default()).await?;
        let (mut rejected, mut widened, mut proved_anew) = (false, false, false);
        loop {
            let mut ended = self.ended(token.as_ref());
            let (opened, held) = tokio::select! {
                biased;
                sent = self.send(upload, token.as_ref()) => sent?,
                error = &mut ended => return Err(unfinished(error)),
            };
            let (request, again) = match judge(opened, token.as_ref()) {
                Verdict::Fine(opened) => return self.pass(opened, held, ended),
                Verdict::Forbidden => return Err(self.forbidden()),
                Verdict::BadProof(date) => return Err(self.bad_proof(date)),
                Verdict::OtherProofs(other) => return Err(self.no_proof(&other)),
                Verdict::WantsNonce if std::mem::replace(&mut proved_anew, true) => return Err(self.bad_proof(None)),
                Verdict::WantsNonce if upload.is_there() => continue,
                Verdict::WantsNonce => return Err(self.not_kept("another proof of")),
                Verdict::Rejected(challenges) => {
                    self.look_again(challenges).await?;
                    let rejected_token = token.as_ref().map(|served| served.answer.access_token.clone());
                    let request = TokenRequest { rejected_token, ..TokenRequest::default() };
                    (request, !std::mem::replace(&mut rejected, true))
                }
                Verdict::Insufficient(challenge) => {
                    let request = TokenRequest { challenge: Some(challenge), ..TokenRequest::default() };
                    (request, !std::mem::replace(&mut widened, true))
                }
            };
            let next = self.token(request).await?;
            if !again || same(next.as_ref(), token.as_ref()) {
                return Err(if rejected { self.rejected() } else { self.insatiable() });
            }
            if !upload.is_there() {
                return Err(self.not_kept("another token of"));
            }
            token = next;
        }
    }

    /// The server may be with another authorization server by now: then the token that we have goes nowhere any more.
    async fn look_again(&self, challenges: Vec<String>) -> Result<(), ErrorBody> {
        self.broker.heard(self.destination.url.clone(), challenges.clone());
        match &self.destination.grant {
            Some(grant) => self.broker.look_again(grant.clone(), challenges).await.map(drop),
            None => Ok(()),
        }
    }

    /// A token of the grant, where there is one: asked for as the client itself would.
    async fn token(&self, request: TokenRequest) -> Result<Option<Served>, ErrorBody> {
        let Some(grant) = &self.destination.grant else { return Ok(None) };
        let request = TokenRequest { grant: Some(grant.to_string()), ..request };
        self.broker.relayed(request, self.caller.clone()).await.map(Some)
    }

    /// Ready when the client may not go on with what it has this token for.
    fn ended(&self, token: Option<&Served>) -> Ended {
        let lease = token.and_then(|served| served.lease.clone());
        let (broker, caller) = (self.broker.clone(), self.caller.clone());
        Box::pin(async move {
            match lease {
                Some(lease) => broker.ended(lease, caller).await,
                // Nobody has logged in, and nobody can take it back.
                None => std::future::pending().await,
            }
        })
    }

    /// Sends the request and waits for the head of its answer. What is returned beside it holds the request open.
    async fn send(&self, upload: &mut Upload, token: Option<&Served>) -> Result<(Opened, Held), ErrorBody> {
        let (body, remainder) = upload.outgoing();
        let carried = token.map(|served| (served.answer.token_type.as_str(), &served.answer.access_token));
        let headers = headers::outward(self.headers, carried).ok_or_else(|| self.odd_token())?;
        let prove = token.and_then(|served| self.prove(served));
        let request = Opening { method: self.method.clone(), url: self.destination.url.clone(), headers, prove, body };
        let mut opening = self.destination.transport.open(request);
        let held = remainder.as_ref().map(upload::Remainder::held);
        let opened = match remainder {
            None => opening.await,
            Some(remainder) => tokio::select! {
                biased;
                opened = &mut opening => opened,
                carried = remainder.carry() => {
                    carried.map_err(incomplete)?;
                    opening.await
                }
            },
        };
        let opened = opened.map_err(|error| self.unreachable(&error))?;
        self.learn(&opened, token);
        Ok((opened, held))
    }

    /// What makes the proofs of a request with this token; `None`: whoever has it may use it.
    fn prove(&self, served: &Served) -> Option<Prove> {
        let (proofs, token) = (served.proofs.clone(), served.answer.access_token.clone());
        let clock = self.destination.clock.clone();
        proofs.binds().then(|| -> Prove { Box::new(move |method, url| proofs.header((method, url), token.expose(), clock.now().wall)) })
    }

    /// A server may change its nonce with any answer (RFC 9449 section 8.2).
    fn learn(&self, opened: &Opened, token: Option<&Served>) {
        let nonce = opened.headers.get(headers::DPOP_NONCE).and_then(|nonce| nonce.to_str().ok());
        if let (Some(nonce), Some(served), Ok(url)) = (nonce, token, url::Url::parse(&self.destination.url)) {
            served.proofs.learn(&url, nonce);
        }
    }

    /// The server's answer as the client gets it.
    fn pass(&self, opened: Opened, held: Held, ended: Ended) -> Result<Answer, ErrorBody> {
        if opened.status.is_redirection() && opened.status != StatusCode::NOT_MODIFIED {
            return Err(self.leads_elsewhere(&opened));
        }
        let headers = headers::homeward(&opened.headers);
        let host = self.host();
        let cut_off = move |error: TransportError| {
            // It goes on as long as the body does.
            let _ = &held;
            tracing::debug!(host, %error, "the server's answer was cut off");
            io::Error::from(io::ErrorKind::ConnectionAborted)
        };
        let body = Leased::new(opened.body.map_err(cut_off), ended).boxed_unsync();
        Ok(Answer::Relayed(Box::new(Relayed { status: opened.status, headers, body })))
    }

    fn host(&self) -> String {
        let url = url::Url::parse(&self.destination.url).ok();
        url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| "the server".to_owned())
    }

    /// What `login` is told: the grant, or the server itself.
    fn name(&self) -> String {
        self.destination.grant.as_ref().map_or_else(|| clean(&self.destination.url), GrantName::to_string)
    }
}

// ---- errors ----

impl Trip<'_> {
    /// Nobody has logged in, and the server wants that.
    fn login_needed(&self) -> ErrorBody {
        let command = format!("mcp-authctl login {}", self.name());
        let mut error = ErrorBody::new(ErrorCode::LoginRequired, format!("nobody is logged in at {}", self.host())).hint(&command);
        let needed = LoginNeeded {
            kind: Some(LoginKind::Code),
            authorization_url: None,
            token_url: None,
            scopes: &[],
            resource: Some(&self.destination.url),
            login_command: &command,
        };
        error.mcp = Some(needed.to_json(AUTHENTICATION_REQUIRED));
        error
    }

    fn rejected(&self) -> ErrorBody {
        if self.destination.grant.is_none() {
            return self.login_needed();
        }
        ErrorBody::new(ErrorCode::LoginRequired, format!("{} rejects the access token of `{}`, which is fresh", self.host(), self.name()))
            .hint(format!("mcp-authctl login {}", self.name()))
    }

    fn insatiable(&self) -> ErrorBody {
        if self.destination.grant.is_none() {
            return self.login_needed();
        }
        let sentence = format!("{} wants scopes of `{}` that its token has, and refuses it all the same", self.host(), self.name());
        ErrorBody::new(ErrorCode::InsufficientScope, sentence).hint(format!("mcp-authctl login {}", self.name()))
    }

    fn forbidden(&self) -> ErrorBody {
        ErrorBody::new(ErrorCode::AccessDenied, format!("{} forbids this request to the account of `{}`", self.host(), self.name()))
            .hint("ask who runs the server, or log in with another account")
    }

    fn not_kept(&self, what: &str) -> ErrorBody {
        let sentence = format!("{} wanted {what} `{}`, and the request was too large to be kept", self.host(), self.name());
        ErrorBody::new(ErrorCode::ProviderUnreachable, sentence).hint("send it again: the next one has what it wanted").retry_after(0)
    }

    /// The server does not believe that we have the key. Another token would not help.
    fn bad_proof(&self, date: Option<Wall>) -> ErrorBody {
        let apart = date.and_then(|date| dpop::apart(self.destination.clock.now().wall, date));
        let sentence = format!("{} does not take the proof of `{}`, whose tokens are bound to a key (DPoP)", self.host(), self.name());
        match apart {
            Some(apart) => {
                ErrorBody::new(ErrorCode::ProviderUnreachable, format!("{sentence}: {apart}")).hint("set the clock: timedatectl")
            }
            None => ErrorBody::new(ErrorCode::ProviderUnreachable, sentence).hint(format!("mcp-authctl login {}", self.name())),
        }
    }

    /// It takes no proof that we can make.
    fn no_proof(&self, other: &str) -> ErrorBody {
        let sentence = format!("{} takes {other}, so that the tokens of `{}` are of no use there", self.host(), self.name());
        ErrorBody::new(ErrorCode::ProviderUnreachable, sentence).hint("tell whoever runs the server")
    }

    fn odd_token(&self) -> ErrorBody {
        ErrorBody::new(ErrorCode::ProviderUnreachable, format!("the token of `{}` is not one that a header can carry", self.name()))
            .hint(format!("mcp-authctl refresh {}", self.name()))
    }

    fn leads_elsewhere(&self, opened: &Opened) -> ErrorBody {
        let location = opened.headers.get(hyper::header::LOCATION).and_then(|value| value.to_str().ok());
        let target = location.and_then(|location| url::Url::parse(&self.destination.url).ok()?.join(location).ok());
        let target = target.and_then(|target| target.host_str().map(str::to_owned)).unwrap_or_else(|| "an unknown place".to_owned());
        let sentence = format!("{} leads this request to {target}, where the token of `{}` does not go", self.host(), self.name());
        ErrorBody::new(ErrorCode::ProviderUnreachable, sentence).hint("log in at the URL that the server has now")
    }

    fn unreachable(&self, error: &TransportError) -> ErrorBody {
        ErrorBody::new(ErrorCode::ProviderUnreachable, format!("`{}`: {error}", self.name())).hint("mcp-authctl doctor")
    }
}

/// The client may not have the answer, which is still to come.
fn unfinished(error: ErrorBody) -> ErrorBody {
    let error_description = format!("{}; whether the request was carried out is not known", error.error_description);
    ErrorBody { error_description, ..error }
}

fn incomplete(error: BodyError) -> ErrorBody {
    let sentence = match error {
        BodyError::TooLarge => "the body is too large",
        BodyError::Broken => "the body does not arrive as its head says",
    };
    ErrorBody::new(ErrorCode::InvalidRequest, sentence)
}

// ---- answers ----

/// Whether two answers are the same token.
fn same(one: Option<&Served>, another: Option<&Served>) -> bool {
    one.map(|served| &served.answer.access_token) == another.map(|served| &served.answer.access_token)
}

fn judge(opened: Opened, token: Option<&Served>) -> Verdict {
    if let Some(verdict) = token.filter(|served| served.proofs.binds()).and_then(|_| of_the_proof(&opened)) {
        return verdict;
    }
    let values = opened.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges: Vec<_> = values.map(str::to_owned).collect();
    match opened.status {
        StatusCode::UNAUTHORIZED => Verdict::Rejected(challenges),
        StatusCode::FORBIDDEN => {
            let challenge = challenges.join(", ");
            let insufficient = challenge.to_ascii_lowercase().contains("insufficient_scope");
            if insufficient { Verdict::Insufficient(challenge) } else { Verdict::Forbidden }
        }
        _ => Verdict::Fine(opened),
    }
}

/// What a server says of the proof, if anything (RFC 9449 sections 7.1 and 9).
fn of_the_proof(opened: &Opened) -> Option<Verdict> {
    let values = opened.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenge = Challenge::read(values).filter(|_| opened.status == StatusCode::UNAUTHORIZED)?;
    let said = challenge.dpop?;
    if let Some(other) = dpop::other_proofs(said.algorithms.as_deref()) {
        return Some(Verdict::OtherProofs(other));
    }
    match said.error?.as_str() {
        "use_dpop_nonce" => Some(Verdict::WantsNonce),
        "invalid_dpop_proof" => Some(Verdict::BadProof(told_date(&opened.headers))),
        _ => None,
    }
}

/// An error as a client of MCP may see it: whoever waits for the answer to a request gets that.
fn refusal(method: &Method, sent: &Sent, error: ErrorBody) -> Answer {
    tracing::debug!(%error, "a relayed request failed");
    let of_login = matches!(error.error.status(), 401 | 403);
    let (status, body) = match (method, sent.failed(&error)) {
        (&Method::POST, Some(answer)) => (StatusCode::OK, Some(answer)),
        _ if !of_login => return Answer::Error(Box::new(error)),
        (&Method::POST, None) => (StatusCode::ACCEPTED, None),
        (&Method::DELETE, _) => (StatusCode::NO_CONTENT, None),
        _ => (StatusCode::METHOD_NOT_ALLOWED, None),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(OUR_ERROR, HeaderValue::from_static(error.error.as_str()));
    let body = match body {
        Some(answer) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Full::new(Bytes::from(answer.to_string())).map_err(|never| match never {}).boxed_unsync()
        }
        None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
    };
    Answer::Relayed(Box::new(Relayed { status, headers, body }))
}

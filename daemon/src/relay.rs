//! `/mcp/NAME`: a request of an MCP client goes to the remote server of a grant, with a fresh token, and the answer comes back
//! as it comes. A server at whose URL nobody has logged in is asked without one; it says itself whether that will do. What the
//! messages mean is not known here, but for the ids that our own errors answer.
//!
//! A server that wants another token gets it, once for each reason, if the request was small enough to be kept. The client
//! sees neither the token nor a 401 or 403: it would begin a login of its own at our socket.

mod headers;
mod message;
mod upload;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, StatusCode};
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, Secret, TokenRequest};

use self::message::Sent;
use self::upload::{Held, Upload};
use crate::broker::{Broker, Destination};
use crate::caller::Caller;
use crate::grant::mcp::{AUTHENTICATION_REQUIRED, LoginKind, LoginNeeded};
use crate::ipc::{Answer, BodyError, Call, Relayed};
use crate::oauth::text::clean;
use crate::transport::{Opened, Opening, TransportError};

/// Forwards a call to the server of the grant that `target` names, by name or by URL.
pub async fn forward(broker: Broker, call: Call, target: String) -> Answer {
    let Call { caller, method, headers, stream, .. } = call;
    let mut upload = match Upload::begin(stream).await {
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
    match Upload::begin(call.stream).await {
        Ok(upload) => refusal(&call.method, &upload.sent, error),
        Err(error) => Answer::Error(Box::new(incomplete(error))),
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
        let (mut rejected, mut widened) = (false, false);
        loop {
            let (opened, held) = self.send(upload, token.as_ref()).await?;
            let (request, again) = match judge(opened) {
                Verdict::Fine(opened) => return self.pass(opened, held),
                Verdict::Forbidden => return Err(self.forbidden()),
                Verdict::Rejected(challenges) => {
                    self.look_again(challenges).await?;
                    let request = TokenRequest { rejected_token: token.clone(), ..TokenRequest::default() };
                    (request, !std::mem::replace(&mut rejected, true))
                }
                Verdict::Insufficient(challenge) => {
                    let request = TokenRequest { challenge: Some(challenge), ..TokenRequest::default() };
                    (request, !std::mem::replace(&mut widened, true))
                }
            };
            let next = self.token(request).await?;
            if !again || next == token {
                return Err(if rejected { self.rejected() } else { self.insatiable() });
            }
            if !upload.is_there() {
                return Err(self.not_kept());
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
    async fn token(&self, request: TokenRequest) -> Result<Option<Secret>, ErrorBody> {
        let Some(grant) = &self.destination.grant else { return Ok(None) };
        let request = TokenRequest { grant: Some(grant.to_string()), ..request };
        let answer = self.broker.token(request, self.caller.clone()).await?;
        if answer.token_type.eq_ignore_ascii_case("bearer") { Ok(Some(answer.access_token)) } else { Err(self.odd_token()) }
    }

    /// Sends the request and waits for the head of its answer. What is returned beside it holds the request open.
    async fn send(&self, upload: &mut Upload, token: Option<&Secret>) -> Result<(Opened, Held), ErrorBody> {
        let (body, remainder) = upload.outgoing();
        let headers = headers::outward(self.headers, token).ok_or_else(|| self.odd_token())?;
        let request = Opening { method: self.method.clone(), url: self.destination.url.clone(), headers, body };
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
        Ok((opened.map_err(|error| self.unreachable(&error))?, held))
    }

    /// The server's answer as the client gets it.
    fn pass(&self, opened: Opened, held: Held) -> Result<Answer, ErrorBody> {
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
        let body = opened.body.map_err(cut_off).boxed_unsync();
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

    fn not_kept(&self) -> ErrorBody {
        let sentence = format!("{} wanted another token of `{}`, and the request was too large to be kept", self.host(), self.name());
        ErrorBody::new(ErrorCode::ProviderUnreachable, sentence).hint("send it again: the next one has the new token").retry_after(0)
    }

    fn odd_token(&self) -> ErrorBody {
        ErrorBody::new(ErrorCode::ProviderUnreachable, format!("the token of `{}` is not one that a Bearer header can carry", self.name()))
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

fn incomplete(error: BodyError) -> ErrorBody {
    let sentence = match error {
        BodyError::TooLarge => "the body is too large",
        BodyError::Broken => "the body does not arrive as its head says",
    };
    ErrorBody::new(ErrorCode::InvalidRequest, sentence)
}

// ---- answers ----

fn judge(opened: Opened) -> Verdict {
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
    headers.insert(headers::OUR_ERROR, HeaderValue::from_static(error.error.as_str()));
    let body = match body {
        Some(answer) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Full::new(Bytes::from(answer.to_string())).map_err(|never| match never {}).boxed_unsync()
        }
        None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
    };
    Answer::Relayed(Box::new(Relayed { status, headers, body }))
}

//! The device flow (RFC 8628), read top to bottom: the code, the person's visit to a page anywhere, the polls.

use std::time::Duration;

use super::{Plan, Progress, failure};
use crate::clock::{Clock, Now};
use crate::grant::record::Definition;
use crate::oauth::Sent;
use crate::oauth::assertion::{self, AssertionError};
use crate::oauth::device::{self, DeviceAuthorization, Poll};
use crate::oauth::token::{TokenError, TokenResponse};
use crate::transport::{Request, Transport};
use mcp_auth_proto::ErrorBody;

/// How much the pause grows when the server asks for it (section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// The longest pause between polls.
const SLOWEST: Duration = Duration::from_secs(120);

/// One device flow.
pub(super) struct Device<'a> {
    pub(super) plan: &'a Plan,
    pub(super) definition: &'a Definition,
    pub(super) endpoint: &'a str,
    pub(super) scopes: &'a [String],
    pub(super) transport: &'a dyn Transport,
    pub(super) clock: &'a dyn Clock,
}

impl Device<'_> {
    /// Runs it to its end; gives when the request that brought the tokens was sent.
    pub(super) async fn run(&self, progress: impl Fn(Progress)) -> Result<(TokenResponse, Now), ErrorBody> {
        let name = &self.plan.grant;
        let device = self.start().await?;
        progress(Progress::EnterCode {
            user_code: device.user_code.clone(),
            verification_uri: device.verification_uri.clone(),
            verification_uri_complete: device.verification_uri_complete.clone(),
            host: device.host.clone(),
            lifetime: device.lifetime,
        });
        match tokio::time::timeout(device.lifetime, self.poll(&device)).await {
            Ok(ended) => ended,
            Err(_) => Err(failure::too_late(name)),
        }
    }

    async fn start(&self) -> Result<DeviceAuthorization, ErrorBody> {
        let name = &self.plan.grant;
        let resource = self.plan.resource.as_deref();
        let (quirks, secret) = (&self.plan.provider.quirks, self.plan.client_secret.as_ref());
        let request = device::request(self.definition, quirks, secret, self.endpoint, (self.scopes, resource))
            .expect("a login's definition has a client");
        let request = self.prove(request).map_err(|error| failure::bad_key(name, &error))?;
        let sent = Sent::of(&request);
        let response = self.transport.send(request).await.map_err(|error| failure::unreachable(name, &error))?;
        device::check(&response).map_err(|error| failure::device(name, &error.without(&sent)))
    }

    fn prove(&self, request: Request) -> Result<Request, AssertionError> {
        let (quirks, secret) = (&self.plan.provider.quirks, self.plan.client_secret.as_ref());
        assertion::prove(request, (self.definition, quirks), secret, self.clock.now().wall)
    }

    /// Asks until the person has decided. Whatever else goes wrong is asked again: the code has its own end.
    async fn poll(&self, device: &DeviceAuthorization) -> Result<(TokenResponse, Now), ErrorBody> {
        let name = &self.plan.grant;
        let mut pause = device.interval;
        loop {
            tokio::time::sleep(pause).await;
            let sent_at = self.clock.now();
            match self.ask(device).await {
                Poll::Pending => {}
                Poll::SlowDown => pause = (pause + SLOWER).min(SLOWEST),
                Poll::Denied => return Err(failure::denied(name)),
                Poll::Expired => return Err(failure::too_late(name)),
                Poll::Ended(Ok(response)) => match response.unusable {
                    None => return Ok((response, sent_at)),
                    Some(fault) => return Err(failure::token(name, &TokenError::Unusable(fault))),
                },
                Poll::Ended(Err(error @ (TokenError::InvalidGrant(_) | TokenError::Refused { .. }))) => {
                    return Err(failure::token(name, &error));
                }
                Poll::Ended(Err(TokenError::Overloaded { retry_after: Some(after), .. })) => tokio::time::sleep(after).await,
                // Section 3.5: a connection that times out makes the pauses longer.
                Poll::Ended(Err(error)) => {
                    tracing::debug!(grant = %name, %error, "a poll failed");
                    pause = (pause * 2).min(SLOWEST);
                }
            }
        }
    }

    async fn ask(&self, device: &DeviceAuthorization) -> Poll {
        let (quirks, secret) = (&self.plan.provider.quirks, self.plan.client_secret.as_ref());
        let make = || {
            let request = device::poll(self.definition, quirks, secret, &device.device_code, self.plan.resource.as_deref());
            self.prove(request.expect("a login's definition has a token endpoint and a client"))
        };
        let proofs = &self.plan.proofs;
        match proofs.send((self.transport, self.clock), make).await {
            Ok((response, sent)) => device::check_poll(&response, quirks, proofs.binds()).without(&sent),
            Err(error) => Poll::Ended(Err(error.into())),
        }
    }
}

//! The proofs of a grant whose tokens are bound to a key (RFC 9449), and the nonces that servers want in them. What a proof looks
//! like is `oauth::dpop`'s; here is what one remembers between requests, in RAM alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::header::HeaderValue;
use url::Url;

use crate::clock::{Clock, Wall};
use crate::oauth::Sent;
use crate::oauth::assertion::AssertionError;
use crate::oauth::dpop::{self, DpopError, Facts};
use crate::oauth::token::{self, TokenError, TokenResponse};
use crate::provider::Quirks;
use crate::secret::ProofKey;
use crate::transport::{Method, Request, Response, Transport, TransportError};

/// The most servers whose nonces are remembered. One that is forgotten costs a request more.
const MOST_SERVERS: usize = 256;

/// The newest nonce of each server, by its origin and by what is asked there: a resource's nonces are not its authorization
/// server's (RFC 9449 section 9).
#[derive(Debug, Default)]
pub struct Nonces(Mutex<HashMap<(Role, String), String>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    TokenEndpoint,
    Resource,
}

impl Nonces {
    fn of(&self, role: Role, url: &Url) -> Option<String> {
        self.lock().get(&(role, url.origin().ascii_serialization())).cloned()
    }

    fn learn(&self, role: Role, url: &Url, nonce: &str) {
        if !dpop::is_nonce(nonce) {
            return;
        }
        let (server, mut held) = ((role, url.origin().ascii_serialization()), self.lock());
        if held.len() >= MOST_SERVERS && !held.contains_key(&server) {
            held.clear();
        }
        held.insert(server, nonce.to_owned());
    }

    /// Held for a look or a change, never while anything is waited for.
    fn lock(&self) -> MutexGuard<'_, HashMap<(Role, String), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the requests of one grant are proved with.
#[derive(Clone, Debug, Default)]
pub struct Proofs {
    /// The key that its tokens are bound to; `None`: bearer tokens, and nothing is proved.
    pub key: Option<ProofKey>,
    /// What servers have told, of all grants.
    pub nonces: Arc<Nonces>,
}

/// Why a token request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The client cannot sign for itself; nothing was sent.
    #[error(transparent)]
    Client(#[from] AssertionError),
    /// There is no proof; nothing was sent.
    #[error(transparent)]
    Proof(#[from] DpopError),
    /// The network.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl From<NoAnswer> for TokenError {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Client(_) | NoAnswer::Proof(_) => Self::NotSent(error.to_string()),
            NoAnswer::Transport(error) => token::from_transport(error),
        }
    }
}

impl Proofs {
    /// Whether its tokens are bound to a key.
    pub fn binds(&self) -> bool {
        self.key.is_some()
    }

    // ---- the token endpoint ----

    /// Sends a token request, and once more where the server only wanted its nonce in the proof (section 8): nothing was used up
    /// then. `make` makes the request anew each time: a client's assertion is good for one.
    pub async fn send(
        &self,
        (transport, clock): (&dyn Transport, &dyn Clock),
        make: impl Fn() -> Result<Request, AssertionError> + Send + Sync,
    ) -> Result<(Response, Sent), NoAnswer> {
        let (first, sent, nonce) = self.send_once((transport, clock), make()?).await?;
        if self.binds() && dpop::wants_nonce(&first) && first.dpop_nonce != nonce {
            let (second, sent, _) = self.send_once((transport, clock), make()?).await?;
            return Ok((second, sent));
        }
        Ok((first, sent))
    }

    async fn send_once(
        &self,
        (transport, clock): (&dyn Transport, &dyn Clock),
        mut request: Request,
    ) -> Result<(Response, Sent, Option<String>), NoAnswer> {
        let sent = Sent::of(&request);
        let Some(key) = &self.key else { return Ok((transport.send(request).await?, sent, None)) };
        // A URL that is none is refused by the transport, in its own words.
        let Ok(url) = Url::parse(&request.url) else { return Ok((transport.send(request).await?, sent, None)) };
        let method = match request.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        };
        let nonce = self.nonces.of(Role::TokenEndpoint, &url);
        let proof = dpop::proof(key, Facts { method, url: &url, token: None, nonce: nonce.as_deref(), now: clock.now().wall })?;
        request.headers.push(("dpop", proof.into()));
        let response = transport.send(request).await?;
        if let Some(new) = &response.dpop_nonce {
            self.nonces.learn(Role::TokenEndpoint, &url, new);
        }
        Ok((response, sent, nonce))
    }

    /// Checks the answer to [`Self::send`]: its token must be of the kind that was asked for. A server that answers with a bearer
    /// token where it was shown a key has let go of the binding that was demanded (section 5).
    pub fn check(&self, (response, sent): &(Response, Sent), quirks: &Quirks, now: Wall) -> Result<TokenResponse, TokenError> {
        token::check_as(response, quirks, self.binds()).map_err(|error| match dpop::clock_complaint(response, now) {
            Some(complaint) if self.binds() => TokenError::Unusable(complaint),
            _ => error.without(sent),
        })
    }

    // ---- a resource server ----

    /// The `DPoP` header of a request that carries this token; `None` where there is nothing to prove with.
    pub fn header(&self, (method, url): (&hyper::Method, &Url), token: &str, now: Wall) -> Option<HeaderValue> {
        let nonce = self.nonces.of(Role::Resource, url);
        let facts = Facts { method: method.as_str(), url, token: Some(token), nonce: nonce.as_deref(), now };
        HeaderValue::try_from(dpop::proof(self.key.as_ref()?, facts).ok()?).ok()
    }

    /// Takes over the nonce that a resource server has sent with an answer.
    pub fn learn(&self, url: &Url, nonce: &str) {
        if self.binds() {
            self.nonces.learn(Role::Resource, url, nonce);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    use super::*;
    use crate::clock::SystemClock;
    use crate::oauth::samples::{definition, header, json, quirks};
    use crate::secret::RefreshToken;
    use crate::transport::Exchange;

    /// A token endpoint that answers by number, and keeps what it was asked.
    struct Endpoint<F> {
        answer: F,
        asked: Mutex<Vec<Value>>,
    }

    impl<F: Fn(usize) -> Response + Send + Sync> Transport for Endpoint<F> {
        fn send(&self, request: Request) -> Exchange<'_> {
            let claims = header(&request, "dpop").map(|proof| URL_SAFE_NO_PAD.decode(proof.split('.').nth(1).unwrap()).unwrap());
            let mut asked = self.asked.lock().unwrap();
            asked.push(claims.map_or(Value::Null, |claims| serde_json::from_slice(&claims).unwrap()));
            let number = asked.len();
            Box::pin(async move { Ok((self.answer)(number)) })
        }
    }

    fn refresh() -> Result<Request, AssertionError> {
        Ok(token::refresh(&definition(), &quirks(), None, &RefreshToken::new("rt".into()), None).unwrap())
    }

    fn wants(nonce: &str) -> Response {
        Response { dpop_nonce: Some(nonce.into()), ..json(400, r#"{"error":"use_dpop_nonce"}"#) }
    }

    fn bound() -> Proofs {
        Proofs { key: Some(dpop::generate().unwrap()), ..Proofs::default() }
    }

    /// The claims of each proof, and the status of the last answer.
    async fn sent(proofs: &Proofs, answer: impl Fn(usize) -> Response + Send + Sync) -> (Vec<Value>, u16) {
        let endpoint = Endpoint { answer, asked: Mutex::default() };
        let (response, _) = proofs.send((&endpoint, &SystemClock), refresh).await.unwrap();
        (endpoint.asked.into_inner().unwrap(), response.status)
    }

    #[tokio::test]
    async fn a_nonce_that_is_wanted_is_sent_once_and_with_a_proof_of_its_own() {
        let proofs = bound();
        let (asked, status) = sent(&proofs, |number| if number == 1 { wants("n-1") } else { json(200, "{}") }).await;
        assert_eq!((asked.len(), status), (2, 200));
        assert_eq!((&asked[0]["nonce"], &asked[1]["nonce"]), (&Value::Null, &Value::from("n-1")));
        assert_ne!(asked[0]["jti"], asked[1]["jti"]);
        let (again, _) = sent(&proofs, |_| Response { dpop_nonce: Some("n-2".into()), ..json(200, "{}") }).await;
        assert_eq!(again[0]["nonce"], "n-1", "it is remembered");
        let (last, _) = sent(&proofs, |_| json(200, "{}")).await;
        assert_eq!(last[0]["nonce"], "n-2", "and taken over from a good answer, too");
    }

    #[tokio::test]
    async fn a_server_that_is_never_content_is_not_asked_for_ever() {
        let (asked, status) = sent(&bound(), |number| wants(&format!("n-{number}"))).await;
        assert_eq!((asked.len(), status), (2, 400));
        let proofs = bound();
        let (asked, _) = sent(&proofs, |_| wants("n")).await;
        assert_eq!(asked.len(), 2);
        let (asked, _) = sent(&proofs, |_| wants("n")).await;
        assert_eq!(asked.len(), 1, "the nonce that it wants is the one that it was sent");
        let (asked, _) = sent(&bound(), |_| wants("no nonce")).await;
        assert_eq!(asked.len(), 1, "what is no nonce is not sent back");
    }

    #[tokio::test]
    async fn without_a_key_nothing_is_proved_and_nothing_asked_again() {
        let (asked, status) = sent(&Proofs::default(), |_| wants("n")).await;
        assert_eq!((asked, status), (vec![Value::Null], 400));
    }

    #[tokio::test]
    async fn a_token_of_another_kind_than_was_asked_for_is_not_taken() {
        let now = SystemClock.now().wall;
        for (proofs, kind, usable) in [
            (bound(), "DPoP", true),
            (bound(), "dpop", true),
            (bound(), "Bearer", false),
            (Proofs::default(), "DPoP", false),
            (Proofs::default(), "bearer", true),
        ] {
            let answer = move |_| json(200, &format!(r#"{{"access_token":"at","token_type":"{kind}","refresh_token":"rt-2"}}"#));
            let endpoint = Endpoint { answer, asked: Mutex::default() };
            let answered = proofs.send((&endpoint, &SystemClock), refresh).await.unwrap();
            let checked = proofs.check(&answered, &quirks(), now).unwrap();
            assert_eq!(checked.unusable.is_none(), usable, "{kind}: {:?}", checked.unusable);
            assert!(checked.refresh_token.is_some(), "the new refresh token counts all the same");
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_off_is_named() {
        let answer = |_| Response {
            date: Some(SystemClock.now().wall + Duration::from_secs(3600)),
            ..json(400, r#"{"error":"invalid_dpop_proof","error_description":"iat"}"#)
        };
        let endpoint = Endpoint { answer, asked: Mutex::default() };
        let proofs = bound();
        let answered = proofs.send((&endpoint, &SystemClock), refresh).await.unwrap();
        let error = proofs.check(&answered, &quirks(), SystemClock.now().wall).unwrap_err().to_string();
        assert!(error.contains("this machine's clock is") && error.contains("behind the server's"), "{error}");
    }

    #[test]
    fn a_resource_and_its_authorization_server_have_nonces_of_their_own_and_few_are_kept() {
        let (nonces, url) = (Nonces::default(), Url::parse("https://a.example/mcp").unwrap());
        nonces.learn(Role::Resource, &url, "r");
        assert_eq!(nonces.of(Role::Resource, &Url::parse("https://a.example/mcp/?x").unwrap()).as_deref(), Some("r"));
        assert_eq!(nonces.of(Role::TokenEndpoint, &url), None);
        for number in 0..10_000 {
            nonces.learn(Role::Resource, &Url::parse(&format!("https://{number}.example")).unwrap(), "x");
        }
        assert!(nonces.lock().len() <= MOST_SERVERS);
    }
}

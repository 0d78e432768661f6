//! The authorization request (RFC 6749 section 4.1.1, RFC 7636, RFC 8707) and the check of the redirect that answers it
//! (RFC 6749 section 4.1.2, RFC 9207). It owns what a login must remember in between.

use std::borrow::Cow;
use std::fmt;

use oauth2::basic::BasicClient;
use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl};
use subtle::ConstantTimeEq;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::text;
use crate::provider::ScopeSeparator;
use crate::transport;

/// What an authorization request is made of.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The authorization endpoint, byte for byte.
    pub endpoint: &'a str,
    /// The client id.
    pub client_id: &'a str,
    /// Where the answer shall come.
    pub redirect_uri: &'a str,
    /// The scopes; none: the parameter is left out.
    pub scopes: &'a [String],
    /// What joins them.
    pub separator: ScopeSeparator,
    /// Whether a code challenge is sent: all but those servers want one that are known to refuse it.
    pub challenge: bool,
    /// The resource indicator (RFC 8707 section 2), byte for byte.
    pub resource: Option<&'a str>,
    /// Who will log in (OpenID Connect Core section 3.1.2.1): the server's parameter for it, and the account.
    pub login_hint: Option<(&'a str, &'a str)>,
    /// The preset's own parameters.
    pub params: &'a [(String, String)],
}

/// A request that is ready to be opened, and what its answer is checked with.
#[derive(Debug)]
pub struct AuthorizationRequest {
    /// The URL to open: one line, https or http on loopback.
    pub url: String,
    /// Its host, in ASCII.
    pub host: String,
    /// What the redirect must carry.
    pub expected: Expected,
    /// The secret half of PKCE.
    pub verifier: CodeVerifier,
}

/// What the redirect must carry.
pub struct Expected {
    state: Zeroizing<String>,
    issuer: Option<String>,
    iss_required: bool,
}

/// The code verifier (RFC 7636 section 4.1). Redacted in `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct CodeVerifier(pub(super) Zeroizing<String>);

/// An authorization code (RFC 6749 section 4.1.2). Redacted in `Debug`, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Code(pub(super) Zeroizing<String>);

/// Why there is no authorization request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeError {
    /// The endpoint is not a URL that a browser may be led to.
    #[error("the authorization endpoint is refused: {0}")]
    Endpoint(&'static str),
    /// The redirect URI is not a URL.
    #[error("the redirect URI is not a URL")]
    RedirectUri,
}

/// Why a redirect brings no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// `state` is missing, wrong or given twice: not the answer to this request, and nothing changes.
    #[error("the redirect does not belong to this login")]
    NotOurs,
    /// RFC 9207 section 2.4: the server promised `iss` and did not send it.
    #[error("the redirect does not tell which server it comes from, though the server promised that it would")]
    IssuerMissing,
    /// RFC 9207 section 2.4: another server's answer. Its error texts are not shown.
    #[error("the redirect comes from another authorization server")]
    IssuerMismatch,
    /// Neither a code nor an error, or one of them twice.
    #[error("the redirect holds no code, or something twice")]
    Malformed,
    /// RFC 6749 section 4.1.2.1, texts sanitised.
    #[error("the provider answered {code}{}", description.as_ref().map_or_else(String::new, |text| format!(": {text}")))]
    Refused {
        /// The error code; `access_denied` when the person said no.
        code: String,
        /// `error_description`.
        description: Option<String>,
    },
}

/// Builds the request. `issuer` is what `iss` is compared with, `iss_required` whether the metadata promised it.
pub fn request(ask: Ask<'_>, issuer: Option<&str>, iss_required: bool) -> Result<AuthorizationRequest, AuthorizeError> {
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let auth_url = endpoint(ask)?;
    let redirect = RedirectUrl::new(ask.redirect_uri.to_owned()).map_err(|_| AuthorizeError::RedirectUri)?;
    let client = BasicClient::new(ClientId::new(ask.client_id.to_owned())).set_auth_uri(auth_url);
    let mut request = client.authorize_url(CsrfToken::new_random).set_redirect_uri(Cow::Owned(redirect));
    if ask.challenge {
        request = request.set_pkce_challenge(challenge);
    }
    if let Some(resource) = ask.resource {
        request = request.add_extra_param("resource", resource);
    }
    // The config's own parameter of that name comes first.
    if let Some((name, account)) = ask.login_hint.filter(|(name, _)| ask.params.iter().all(|(own, _)| own != name)) {
        request = request.add_extra_param(name, account);
    }
    for (name, value) in ask.params {
        request = request.add_extra_param(name, value);
    }
    let (mut url, state) = request.url();
    add_scopes(&mut url, ask);
    Ok(AuthorizationRequest {
        host: url.host_str().unwrap_or_default().to_owned(),
        url: url.into(),
        expected: Expected { state: Zeroizing::new(state.into_secret()), issuer: issuer.map(str::to_owned), iss_required },
        verifier: CodeVerifier::from(verifier),
    })
}

/// By hand, since a form would write every separator its own way.
fn add_scopes(url: &mut url::Url, ask: Ask<'_>) {
    if !ask.scopes.is_empty() {
        let encoded: Vec<String> = ask.scopes.iter().map(|scope| form_urlencoded::byte_serialize(scope.as_bytes()).collect()).collect();
        let query = format!("{}&scope={}", url.query().unwrap_or_default(), encoded.join(ask.separator.in_query()));
        url.set_query(Some(&query));
    }
}

/// Checks the query of a redirect: whose it is (`state`), where it comes from (`iss`), and only then what it says.
pub fn check_redirect(query: &str, expected: &Expected) -> Result<Code, RedirectError> {
    let answer = Answer::read(query);
    let Given::Once(state) = &answer.state else { return Err(RedirectError::NotOurs) };
    if !bool::from(state.as_bytes().ct_eq(expected.state.as_bytes())) {
        return Err(RedirectError::NotOurs);
    }
    match (&answer.iss, &expected.issuer) {
        (Given::Twice, _) => return Err(RedirectError::IssuerMismatch),
        (Given::Once(iss), Some(issuer)) if iss.as_str() != issuer => return Err(RedirectError::IssuerMismatch),
        (Given::Never, Some(_)) if expected.iss_required => return Err(RedirectError::IssuerMissing),
        _ => {}
    }
    match (answer.error, answer.code) {
        (Given::Once(code), Given::Never) => {
            let description = if let Given::Once(text) = &answer.description { text::clean_option(Some(text)) } else { None };
            Err(RedirectError::Refused { code: text::clean_code(&code), description })
        }
        (Given::Never, Given::Once(code)) if !code.is_empty() => Ok(Code(code)),
        _ => Err(RedirectError::Malformed),
    }
}

impl Code {
    /// A code that a person brought: visible ASCII and spaces (RFC 6749 appendix A.11), else `None`.
    pub fn given(text: &str) -> Option<Self> {
        let text = text.trim();
        let well_formed = !text.is_empty() && text.len() <= LONGEST_CODE && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
        well_formed.then(|| Self(Zeroizing::new(text.to_owned())))
    }
}

impl CodeVerifier {
    /// A verifier that a person brought, as RFC 7636 section 4.1 demands it, else `None`.
    pub fn given(text: &str) -> Option<Self> {
        let text = text.trim();
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let well_formed = (43..=128).contains(&text.len()) && text.bytes().all(unreserved);
        well_formed.then(|| Self(Zeroizing::new(text.to_owned())))
    }
}

impl From<PkceCodeVerifier> for CodeVerifier {
    fn from(verifier: PkceCodeVerifier) -> Self {
        Self(Zeroizing::new(verifier.into_secret()))
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expected").field("issuer", &self.issuer).field("iss_required", &self.iss_required).finish_non_exhaustive()
    }
}

impl fmt::Debug for CodeVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeVerifier([redacted])")
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code([redacted])")
    }
}

/// The longest code that is taken from a person.
const LONGEST_CODE: usize = 8 * 1024;

/// The parameters that this request sets itself.
const OURS: [&str; 8] =
    ["response_type", "client_id", "redirect_uri", "state", "scope", "resource", "code_challenge", "code_challenge_method"];

fn endpoint(ask: Ask<'_>) -> Result<AuthUrl, AuthorizeError> {
    let url = transport::check_url(ask.endpoint).map_err(|_| AuthorizeError::Endpoint("it is not an https URL"))?;
    if url.fragment().is_some() {
        return Err(AuthorizeError::Endpoint("it has a fragment"));
    }
    // RFC 6749 section 3.1 keeps the endpoint's own query, and no parameter may come twice: metadata of a hostile server could
    // otherwise point at another server and choose the client or the redirect there.
    let own = url.query_pairs().any(|(name, _)| OURS.contains(&name.as_ref()));
    if own || ask.params.iter().any(|(name, _)| OURS.contains(&name.as_str())) {
        return Err(AuthorizeError::Endpoint("it sets a parameter that belongs to the login"));
    }
    Ok(AuthUrl::from_url(url))
}

/// How often a parameter was given.
enum Given {
    Never,
    Once(Zeroizing<String>),
    Twice,
}

/// The parameters of a redirect that mean something.
struct Answer {
    state: Given,
    iss: Given,
    error: Given,
    description: Given,
    code: Given,
}

impl Answer {
    fn read(query: &str) -> Self {
        let mut answer =
            Self { state: Given::Never, iss: Given::Never, error: Given::Never, description: Given::Never, code: Given::Never };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let slot = match name.as_ref() {
                "state" => &mut answer.state,
                "iss" => &mut answer.iss,
                "error" => &mut answer.error,
                "error_description" => &mut answer.description,
                "code" => &mut answer.code,
                _ => continue,
            };
            *slot = if matches!(slot, Given::Never) { Given::Once(Zeroizing::new(value.into_owned())) } else { Given::Twice };
        }
        answer
    }
}

#[cfg(test)]
#[path = "authorize_tests.rs"]
mod tests;

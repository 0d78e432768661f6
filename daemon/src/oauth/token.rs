//! The token endpoint (RFC 6749 sections 3.2, 4.1.3, 5 and 6): requests, and what every kind of answer means.
//!
//! A request is not proved here where the client signs for itself: `assertion` does that just before it is sent.

mod answer;

use std::time::Duration;

use super::authorize::{Code, CodeVerifier};
use super::form::{self, Client, Field, Sent};
use super::identity::Identity;
use crate::grant::record::Definition;
use crate::provider::{ClientAuth, Pkce, Quirks};
use crate::secret::{AccessToken, ClientSecret, RefreshToken};
use crate::transport::{Request, TransportError};

pub use answer::{check, check_as};
pub(super) use answer::{error_code, granted, members};

/// A successful answer (RFC 6749 section 5.1), as lenient as providers are: checked, not yet merged into a grant.
#[derive(Clone, Debug)]
pub struct TokenResponse {
    /// The access token.
    pub access_token: AccessToken,
    /// Its type as sent; `Bearer` when missing.
    pub token_type: String,
    /// Its lifetime. Zero or negative answers are `Some(ZERO)`; missing ones come from the preset or the JWT's `exp`, else `None`.
    pub lifetime: Option<Duration>,
    /// A new refresh token; `None` keeps the old one.
    pub refresh_token: Option<RefreshToken>,
    /// How long the refresh token lives; `None` when the answer does not say.
    pub refresh_token_lifetime: Option<RefreshTokenLifetime>,
    /// The granted scopes; `None` means those that were asked for.
    pub scopes: Option<Vec<String>>,
    /// Why the access token cannot be served (a type that was not asked for, odd characters); it is empty then. Such an answer
    /// counts only for its new refresh token: the old one is used up.
    pub unusable: Option<String>,
    /// The ID token, for identity only. Redacted in `Debug`.
    pub id_token: Option<AccessToken>,
    /// Who logged in, where the answer tells it (Notion, Sentry).
    pub owner: Box<Identity>,
}

/// What an answer says of its refresh token's life (`refresh_token_expires_in`; Keycloak: `refresh_expires_in`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshTokenLifetime {
    /// Zero or less, as Keycloak says it of offline tokens.
    Endless,
    /// So long from the request on.
    Lasts(Duration),
}

/// Why a token request gave no token. No variant holds a body or a token; texts are sanitised and short.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `invalid_grant`, or the preset's own word for it: the only answer that can end a grant.
    #[error("the provider rejected the grant{}", detail(.0))]
    InvalidGrant(Option<String>),
    /// `invalid_client`, `unauthorized_client`, `interaction_required`, `consent_required`, `invalid_scope` and the like:
    /// kept, and tried again hourly.
    #[error("the provider answered {code}{}", detail(.description))]
    Refused {
        /// The OAuth error code.
        code: String,
        /// `error_description`, sanitised.
        description: Option<String>,
    },
    /// 429 or 503: the whole issuer is left alone for a while.
    #[error("the provider answered {status}")]
    Overloaded {
        /// The status.
        status: u16,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No byte of the request left.
    #[error("{0}")]
    NotSent(String),
    /// The request may have been received, and no whole answer came: the refresh token may be used up.
    #[error("{0}")]
    Lost(String),
    /// Any other answer.
    #[error("the provider's answer is not usable: {0}")]
    Unusable(String),
}

/// Whether a server that answers with this code refuses the client, and not what it asks for (RFC 6749 sections 4.1.2.1 and 5.2).
pub fn is_about_client(code: &str) -> bool {
    matches!(code, "invalid_client" | "unauthorized_client")
}

impl TokenError {
    /// The same, its texts without what the request held.
    #[must_use]
    pub fn without(self, sent: &Sent) -> Self {
        let strike = |text: String| sent.strike(&text);
        match self {
            Self::InvalidGrant(description) => Self::InvalidGrant(description.map(strike)),
            Self::Refused { code, description } => Self::Refused { code: strike(code), description: description.map(strike) },
            Self::Unusable(reason) => Self::Unusable(strike(reason)),
            // These speak of statuses and connections.
            Self::Overloaded { .. } | Self::NotSent(_) | Self::Lost(_) => self,
        }
    }
}

/// How long a code exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How the client proves itself: the preset's word, else what the metadata lists (RFC 8414 section 2: basic when it lists
/// nothing), and never without a secret.
pub fn client_auth(quirks: &Quirks, listed: Option<&[String]>, has_secret: bool) -> ClientAuth {
    if !has_secret {
        return ClientAuth::None;
    }
    let lists = |method: &str| listed.is_none_or(|listed| listed.iter().any(|have| have == method));
    match quirks.client_auth {
        Some(auth) => auth,
        None if lists("client_secret_basic") => ClientAuth::ClientSecretBasic,
        None if lists("client_secret_post") => ClientAuth::ClientSecretPost,
        None if lists("none") => ClientAuth::None,
        None => ClientAuth::ClientSecretBasic,
    }
}

/// The code exchange (RFC 6749 section 4.1.3, RFC 7636 section 4.5), without the verifier where no challenge was sent. `None`
/// where the definition has no token endpoint, client or redirect URI.
pub fn exchange_code(
    definition: &Definition,
    quirks: &Quirks,
    secret: Option<&ClientSecret>,
    (code, verifier): (&Code, &CodeVerifier),
    resource: Option<&str>,
) -> Option<Request> {
    let mut fields = vec![
        ("grant_type", Field::Text("authorization_code")),
        ("code", Field::Hidden(&code.0)),
        ("redirect_uri", Field::Text(definition.redirect_uri.as_deref()?)),
    ];
    if quirks.pkce != Some(Pkce::Off) {
        fields.push(("code_verifier", Field::Hidden(&verifier.0)));
    }
    push_resource(&mut fields, quirks, resource);
    push_params(&mut fields, quirks);
    let endpoint = definition.token_endpoint.as_deref()?;
    Some(form::post_as(quirks.token_request, endpoint, &fields, client(definition, quirks, secret)?, EXCHANGE_TIMEOUT))
}

/// The refresh (RFC 6749 section 6): without `scope`, since it may only narrow. `None` for a static token.
pub fn refresh(
    definition: &Definition,
    quirks: &Quirks,
    secret: Option<&ClientSecret>,
    token: &RefreshToken,
    resource: Option<&str>,
) -> Option<Request> {
    let mut fields = vec![("grant_type", Field::Text("refresh_token")), ("refresh_token", Field::Refresh(token))];
    if let Some(redirect_uri) = definition.redirect_uri.as_deref().filter(|_| quirks.refresh_sends_redirect_uri) {
        fields.push(("redirect_uri", Field::Text(redirect_uri)));
    }
    push_resource(&mut fields, quirks, resource);
    push_params(&mut fields, quirks);
    let endpoint = definition.refresh_endpoint.as_deref().or(definition.token_endpoint.as_deref())?;
    Some(form::post_as(quirks.token_request, endpoint, &fields, client(definition, quirks, secret)?, quirks.answer_timeout()))
}

/// The client asks for itself (RFC 6749 section 4.4.2). `None` where the definition has no token endpoint or client.
pub fn client_credentials(
    definition: &Definition,
    quirks: &Quirks,
    secret: Option<&ClientSecret>,
    scopes: &[String],
    resource: Option<&str>,
) -> Option<Request> {
    let scope = quirks.request_scope_separator.join(scopes);
    let mut fields = vec![("grant_type", Field::Text("client_credentials"))];
    if !scope.is_empty() {
        fields.push(("scope", Field::Text(&scope)));
    }
    push_resource(&mut fields, quirks, resource);
    push_params(&mut fields, quirks);
    let endpoint = definition.token_endpoint.as_deref()?;
    Some(form::post_as(quirks.token_request, endpoint, &fields, client(definition, quirks, secret)?, quirks.answer_timeout()))
}

/// What a token request that got no answer means.
pub fn from_transport(error: TransportError) -> TokenError {
    match &error {
        TransportError::Refused(_) | TransportError::OutOfReach(_) | TransportError::NotSent { .. } => {
            TokenError::NotSent(error.to_string())
        }
        TransportError::Lost { .. } => TokenError::Lost(error.to_string()),
    }
}

/// The client of a definition. `None` for a static token.
pub(super) fn client<'a>(definition: &'a Definition, quirks: &Quirks, secret: Option<&'a ClientSecret>) -> Option<Client<'a>> {
    let auth = match (quirks.client_auth, definition.client_auth) {
        (None, Some(auth)) if secret.is_some() => auth,
        _ => client_auth(quirks, None, secret.is_some()),
    };
    Some(Client { id: definition.client_id.as_deref()?, auth, secret })
}

pub(super) fn push_resource<'a>(fields: &mut Vec<(&str, Field<'a>)>, quirks: &Quirks, resource: Option<&'a str>) {
    if let Some(resource) = resource.filter(|_| quirks.send_resource) {
        fields.push(("resource", Field::Text(resource)));
    }
}

/// The preset's further parameters. None comes twice (RFC 6749 section 3.2): ours stand.
pub(super) fn push_params<'a>(fields: &mut Vec<(&'a str, Field<'a>)>, quirks: &'a Quirks) {
    for (name, value) in &quirks.token_params {
        if fields.iter().all(|(have, _)| have != name) {
            fields.push((name, Field::Text(value)));
        }
    }
}

fn detail(text: &Option<String>) -> String {
    text.as_ref().map_or_else(String::new, |text| format!(": {text}"))
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::oauth::samples::{definition, form, header, quirks};
    use crate::provider::ScopeSeparator;

    fn code() -> (Code, CodeVerifier) {
        (Code(Zeroizing::new("c/1".into())), CodeVerifier(Zeroizing::new("v-1".into())))
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_code_exchange_repeats_redirect_uri_and_resource_and_asks_for_json() {
        let (code, verifier) = code();
        let request = exchange_code(&definition(), &quirks(), None, (&code, &verifier), Some("https://mcp.example")).unwrap();
        assert_eq!((request.method, request.url.as_str()), (crate::transport::Method::Post, "https://as.example/token"));
        assert_eq!(header(&request, "accept"), Some("application/json"));
        assert_eq!(header(&request, "content-type"), Some("application/x-www-form-urlencoded"));
        let expected = [
            ("grant_type", "authorization_code"),
            ("code", "c/1"),
            ("redirect_uri", "http://127.0.0.1:7777/callback"),
            ("code_verifier", "v-1"),
            ("resource", "https://mcp.example"),
            ("client_id", "client-1"),
        ];
        assert_eq!(form(&request), pairs(&expected));
    }

    #[test]
    fn a_refresh_sends_resource_but_never_scope_and_the_redirect_uri_only_where_wanted() {
        let token = RefreshToken::new("rt+1".into());
        let plain = refresh(&definition(), &quirks(), None, &token, Some("https://mcp.example")).unwrap();
        let base = [("grant_type", "refresh_token"), ("refresh_token", "rt+1")];
        assert_eq!(form(&plain), pairs(&[&base[..], &[("resource", "https://mcp.example"), ("client_id", "client-1")]].concat()));

        let gitlab = Quirks { refresh_sends_redirect_uri: true, send_resource: false, ..quirks() };
        let request = refresh(&definition(), &gitlab, None, &token, Some("https://mcp.example")).unwrap();
        let redirect = [("redirect_uri", "http://127.0.0.1:7777/callback"), ("client_id", "client-1")];
        assert_eq!(form(&request), pairs(&[&base[..], &redirect].concat()));
    }

    #[test]
    fn a_server_without_pkce_gets_no_verifier() {
        let (code, verifier) = code();
        let quirks = Quirks { pkce: Some(Pkce::Off), ..quirks() };
        let request = exchange_code(&definition(), &quirks, None, (&code, &verifier), None).unwrap();
        assert!(form(&request).iter().all(|(name, _)| name != "code_verifier"));
    }

    #[test]
    fn further_parameters_go_along_and_never_stand_twice() {
        let (code, verifier) = code();
        let params = [("audience", "api"), ("resource", "theirs"), ("scope", "a b")].map(|(name, value)| (name.into(), value.into()));
        let quirks = Quirks { token_params: params.into(), ..quirks() };
        let exchange = exchange_code(&definition(), &quirks, None, (&code, &verifier), Some("https://mcp.example")).unwrap();
        let refresh = refresh(&definition(), &quirks, None, &RefreshToken::new("rt".into()), None).unwrap();
        for (request, resource) in [(exchange, "https://mcp.example"), (refresh, "theirs")] {
            let sent = form(&request);
            let of = |wanted: &str| sent.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
            assert_eq!((of("audience"), of("resource"), of("scope")), (vec!["api"], vec![resource], vec!["a b"]));
        }
    }

    #[test]
    fn refreshes_go_to_their_own_endpoint_where_there_is_one() {
        let own = Definition { refresh_endpoint: Some("https://as.example/refresh".into()), ..definition() };
        let token = RefreshToken::new("rt".into());
        assert_eq!(refresh(&own, &quirks(), None, &token, None).unwrap().url, "https://as.example/refresh");
        let (code, verifier) = code();
        assert_eq!(exchange_code(&own, &quirks(), None, (&code, &verifier), None).unwrap().url, "https://as.example/token");
    }

    #[test]
    fn a_client_asks_for_itself_with_scope_resource_and_its_own_proof() {
        let (secret, scopes) = (ClientSecret::new("hush".into()), ["read".to_owned(), "write".to_owned()]);
        let request = client_credentials(&definition(), &quirks(), Some(&secret), &scopes, Some("https://mcp.example")).unwrap();
        let expected = [("grant_type", "client_credentials"), ("scope", "read write"), ("resource", "https://mcp.example")];
        assert_eq!((form(&request), request.url.as_str()), (pairs(&expected), "https://as.example/token"));
        assert!(header(&request, "authorization").is_some_and(|value| value.starts_with("Basic ")));
        let plain = client_credentials(&definition(), &quirks(), Some(&secret), &[], None).unwrap();
        assert_eq!(form(&plain), pairs(&expected[..1]), "no scope is not an empty one");

        let audience = vec![("audience".to_owned(), "api".to_owned())];
        let auth0 = Quirks { token_params: audience, request_scope_separator: ScopeSeparator::Comma, ..quirks() };
        let request = client_credentials(&definition(), &auth0, Some(&secret), &scopes, None).unwrap();
        assert_eq!(form(&request), pairs(&[("grant_type", "client_credentials"), ("scope", "read,write"), ("audience", "api")]));
    }

    #[test]
    fn a_refresh_is_hasty_where_the_grace_is_short() {
        let token = RefreshToken::new("rt".into());
        for (grace, expected) in [(None, 10), (Some(0), 4), (Some(14), 4), (Some(15), 10), (Some(600), 10)] {
            let quirks = Quirks { refresh_grace: grace.map(Duration::from_secs), ..quirks() };
            assert_eq!(refresh(&definition(), &quirks, None, &token, None).unwrap().timeout.as_secs(), expected);
        }
    }

    #[test]
    fn a_static_token_has_nothing_to_refresh_with() {
        let token = RefreshToken::new("rt".into());
        for definition in [Definition { token_endpoint: None, ..definition() }, Definition { client_id: None, ..definition() }] {
            assert!(refresh(&definition, &quirks(), None, &token, None).is_none());
        }
    }

    #[test]
    fn the_client_proves_itself_as_the_preset_the_metadata_or_the_rfc_says() {
        use ClientAuth::{ClientSecretBasic as Basic, ClientSecretPost as Post, None as Public};
        let list = |methods: &[&str]| Some(methods.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>());
        for (quirk, listed, has_secret, expected) in [
            (None, None, false, Public),
            (Some(Post), list(&["client_secret_basic"]), false, Public),
            (None, None, true, Basic),
            (Some(Post), list(&["client_secret_basic"]), true, Post),
            (None, list(&["client_secret_post", "client_secret_basic"]), true, Basic),
            (None, list(&["none", "client_secret_post"]), true, Post),
            (None, list(&["none"]), true, Public),
            (None, list(&["private_key_jwt"]), true, Basic),
        ] {
            let quirks = Quirks { client_auth: quirk, ..quirks() };
            assert_eq!(client_auth(&quirks, listed.as_deref(), has_secret), expected, "{quirk:?} {listed:?} {has_secret}");
        }
    }

    #[test]
    fn what_the_login_found_in_the_metadata_holds_for_refreshes() {
        let secret = ClientSecret::new("hush".into());
        let found = Definition { client_auth: Some(ClientAuth::ClientSecretPost), ..definition() };
        let token = RefreshToken::new("rt".into());
        let request = refresh(&found, &quirks(), Some(&secret), &token, None).unwrap();
        assert!(form(&request).contains(&("client_secret".into(), "hush".into())) && header(&request, "authorization").is_none());

        let basic = refresh(&definition(), &quirks(), Some(&secret), &token, None).unwrap();
        assert!(header(&basic, "authorization").is_some() && form(&basic).iter().all(|(name, _)| !name.starts_with("client")));
        let without = refresh(&found, &quirks(), None, &token, None).unwrap();
        assert!(form(&without).contains(&("client_id".into(), "client-1".into())));
    }

    #[test]
    fn only_what_was_never_sent_counts_as_not_sent() {
        let (host, reason) = ("as.example".to_owned(), "refused".to_owned());
        let not_sent = TransportError::NotSent { host: host.clone(), reason: reason.clone() };
        assert!(matches!(from_transport(not_sent), TokenError::NotSent(_)));
        assert!(matches!(from_transport(TransportError::Refused("http://a".into())), TokenError::NotSent(_)));
        assert!(matches!(from_transport(TransportError::Lost { host, reason }), TokenError::Lost(_)));
    }
}

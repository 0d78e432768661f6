//! Where a provider differs from the RFCs: one value for each key, and the RFC's own word as default.
//!
//! Values only. What a key does is told where it is done: `oauth`, `login`, `grant`, `transport`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the client proves itself at the token endpoint (RFC 6749 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// By `client_id` in the body only.
    None,
    /// By HTTP Basic.
    ClientSecretBasic,
    /// By `client_id` and `client_secret` in the body.
    ClientSecretPost,
    /// By a JWT that it signs (RFC 7523 section 2.2); a private key takes the place of the client secret.
    PrivateKeyJwt,
}

/// Who a client assertion is made for: its `aud` (RFC 7523 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssertionAudience {
    /// The issuer.
    Issuer,
    /// The token endpoint.
    TokenEndpoint,
}

/// What is known of PKCE (RFC 7636), whatever the metadata says. `plain` is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Pkce {
    /// S256 is supported.
    S256,
    /// The server refuses `code_challenge`, so none is sent.
    #[serde(rename = "none")]
    Off,
}

/// What joins scopes in requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ScopeSeparator {
    /// RFC 6749 section 3.3.
    #[default]
    #[serde(rename = " ")]
    Space,
    /// A comma.
    #[serde(rename = ",")]
    Comma,
    /// A plus that stands in the query as it is, not as `%2B`.
    #[serde(rename = "+")]
    Plus,
}

impl ScopeSeparator {
    /// Scopes as one parameter of a form, before it is encoded. There a space becomes a plus by itself.
    pub fn join(self, scopes: &[String]) -> String {
        scopes.join(match self {
            Self::Space | Self::Plus => " ",
            Self::Comma => ",",
        })
    }

    /// Itself as it stands in a URL: `%20` is a space to all who read URLs, a plus only to those who read forms.
    pub fn in_query(self) -> &'static str {
        match self {
            Self::Space => "%20",
            Self::Comma => ",",
            Self::Plus => "+",
        }
    }
}

/// How parameters are written in the body of a token request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRequestBody {
    /// As a form (RFC 6749 section 4.1.3).
    #[default]
    Form,
    /// As a JSON object of strings.
    Json,
}

/// The lifetime of a token whose answer does not tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultLifetime {
    /// It lives so long.
    Of(Duration),
    /// It does not expire, so that there is nothing to refresh ahead of.
    Never,
}

/// What a login does when it is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// A browser and a redirect to this machine (RFC 6749 section 4.1).
    AuthorizationCode,
    /// A code that is typed at a page (RFC 8628).
    DeviceCode,
    /// Nobody is asked: the client itself is what is granted (RFC 6749 section 4.4).
    ClientCredentials,
    /// Nobody is asked: a JWT that the platform gives its workload is enough (RFC 7523 section 2.1).
    JwtBearer,
    /// Nobody is asked here: the enterprise's identity provider vouches for a person (RFC 8693, then RFC 7523).
    Enterprise,
}

impl Flow {
    /// Whether a JWT of somebody else takes the place of a login.
    pub fn is_by_assertion(self) -> bool {
        matches!(self, Self::JwtBearer | Self::Enterprise)
    }
}

/// How a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevocationStyle {
    /// RFC 7009.
    Rfc7009,
    /// GitHub: DELETE /applications/CLIENT_ID/grant-or-token with Basic, or the unauthenticated credentials route.
    Github,
    /// Google: the token alone in a form, no client.
    Google,
    /// Slack, Dropbox: a POST with the access token as bearer and no body; it ends the token that it is sent with.
    Bearer,
    /// Notion: the token in JSON, the client by HTTP Basic.
    Notion,
    /// Supabase's Management API: client, secret and refresh token in JSON.
    Supabase,
    /// Not at all.
    None,
}

/// How far a revocation reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revokes {
    /// The tokens of this grant.
    #[default]
    Grant,
    /// Every token of this person for the client.
    Account,
}

/// How the userinfo endpoint is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UserinfoRequest {
    /// OpenID Connect Core section 5.3.1.
    #[default]
    Get,
    /// The same with an empty body.
    Post,
    /// By a GraphQL query of this text, sent as JSON.
    Graphql(String),
}

/// When tokens are refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefreshPlan {
    /// Ahead of expiry, asked for or not.
    Ahead,
    /// When a token is asked for.
    OnDemand,
}

/// Where a provider differs from the RFCs. The default is an RFC-abiding one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quirks {
    /// How the client proves itself; `None`: by what the metadata lists, and by whether a secret is stored.
    pub client_auth: Option<ClientAuth>,
    /// Who a client assertion is made for; `None`: the issuer where it is known, else the token endpoint.
    pub client_assertion_audience: Option<AssertionAudience>,
    /// The `kid` of a client assertion; `None`: the key's own, if it has one.
    pub client_key_id: Option<String>,
    /// The client needs a secret for the code flow.
    pub needs_client_secret: bool,
    /// What a login does when it is not told; `None`: whatever suits provider and person.
    pub flow: Option<Flow>,
    /// What is known of PKCE; `None`: what the metadata says.
    pub pkce: Option<Pkce>,
    /// What joins scopes in requests.
    pub request_scope_separator: ScopeSeparator,
    /// Separates scopes in answers besides the space.
    pub scope_separator: char,
    /// Error codes that mean `invalid_grant`; it is always the first of them.
    pub invalid_grant_codes: Vec<String>,
    /// A refresh invalidates the access token that was served before.
    pub refresh_invalidates_access_token: bool,
    /// How long a used refresh token still works.
    pub refresh_grace: Option<Duration>,
    /// The refresh request repeats the redirect URI.
    pub refresh_sends_redirect_uri: bool,
    /// How long a refresh token lives from the login on, whatever becomes of it.
    pub refresh_token_lifetime: Option<Duration>,
    /// How long a refresh token lives when it is not used.
    pub refresh_token_idle_lifetime: Option<Duration>,
    /// When tokens are refreshed.
    pub refresh: RefreshPlan,
    /// The lifetime of a token that comes without one; `None`: unknown.
    pub default_lifetime: Option<DefaultLifetime>,
    /// Whether tokens are bound to a key (RFC 9449); `None`: as a remote server demands.
    pub dpop: Option<bool>,
    /// Whether RFC 8707 `resource` may be sent.
    pub send_resource: bool,
    /// Further parameters of the authorization request.
    pub authorization_params: Vec<(String, String)>,
    /// How the body of a token request is written.
    pub token_request: TokenRequestBody,
    /// Further parameters of the code exchange and of refreshes.
    pub token_params: Vec<(String, String)>,
    /// The member of the token answer that holds the tokens: names joined by dots.
    pub token_answer_member: Option<String>,
    /// The parameter of the device authorization request that holds the scopes.
    pub device_scope_parameter: String,
    /// The parameter that tells the server who will log in; `None`: it has none.
    pub login_hint_parameter: Option<String>,
    /// How tokens are revoked.
    pub revocation: RevocationStyle,
    /// How far a revocation reaches.
    pub revokes: Revokes,
    /// How the userinfo endpoint is asked.
    pub userinfo_request: UserinfoRequest,
    /// The host of the loopback redirect: `127.0.0.1`, `localhost` or `[::1]`.
    pub redirect_host: String,
    /// The path of the loopback redirect.
    pub redirect_path: String,
    /// The fixed ports of the loopback redirect, of which the first free one is taken; none: any free port.
    pub redirect_ports: Vec<u16>,
    /// Members of the userinfo answer or ID token that name the account, best first: names joined by dots.
    pub account_claims: Vec<String>,
    /// Members that identify the account, best first (`sub`, `id`).
    pub subject_claims: Vec<String>,
}

impl Quirks {
    /// How long a refresh waits for its answer: short enough that the same refresh token can be sent again within the grace.
    pub fn answer_timeout(&self) -> Duration {
        match self.refresh_grace {
            Some(grace) if grace < Duration::from_secs(15) => Duration::from_secs(4),
            _ => Duration::from_secs(10),
        }
    }

    /// The loopback redirect URI with this port, or without one.
    pub fn redirect_uri(&self, port: Option<u16>) -> String {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("http://{}{port}{}", self.redirect_host, self.redirect_path)
    }
}

impl Default for Quirks {
    fn default() -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            client_auth: None,
            client_assertion_audience: None,
            client_key_id: None,
            needs_client_secret: false,
            flow: None,
            pkce: None,
            request_scope_separator: ScopeSeparator::Space,
            scope_separator: ' ',
            invalid_grant_codes: texts(&["invalid_grant"]),
            refresh_invalidates_access_token: false,
            refresh_grace: None,
            refresh_sends_redirect_uri: false,
            refresh_token_lifetime: None,
            refresh_token_idle_lifetime: None,
            refresh: RefreshPlan::Ahead,
            default_lifetime: None,
            dpop: None,
            send_resource: true,
            authorization_params: Vec::new(),
            token_request: TokenRequestBody::Form,
            token_params: Vec::new(),
            token_answer_member: None,
            device_scope_parameter: "scope".to_owned(),
            login_hint_parameter: Some("login_hint".to_owned()),
            revocation: RevocationStyle::Rfc7009,
            revokes: Revokes::Grant,
            userinfo_request: UserinfoRequest::Get,
            redirect_host: "127.0.0.1".to_owned(),
            redirect_path: "/callback".to_owned(),
            redirect_ports: Vec::new(),
            account_claims: texts(&["email", "preferred_username", "name"]),
            subject_claims: texts(&["sub"]),
        }
    }
}

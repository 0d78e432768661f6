//! One login, from its start to its end: `/v1/logins`.

use serde::{Deserialize, Serialize};

use crate::{ErrorBody, GrantName, GrantSummary, Secret};

/// `POST /v1/logins`: start a login, or join the one in flight for the same grant and scopes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The provider's name, the name of a grant (`github`, `github:work`), or the URL of a remote MCP server.
    pub provider: String,
    /// For a URL: the name of the grant; absent: the one that is held for it, else the server's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The account label: the grant becomes `PROVIDER:LABEL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The scopes to ask for; absent: the provider's default ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The port of the loopback redirect; absent: the provider's, else any free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_port: Option<u16>,
    /// The flow; absent: the code flow, or the device flow where that suits better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<LoginFlow>,
    /// The person's browser is on another machine: the device flow suits better where the provider has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
    /// Who will log in, told to the provider; absent: the account that the grant holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_hint: Option<String>,
    /// Do not ask for the scopes that bring expiring tokens and a refresh token (`refresh_scopes` in the config).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_refresh_scopes: bool,
    /// If another account logs in than the grant holds, it takes its place unasked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Whether this subscriber can ask the person: see [`LoginEvent::OtherAccount`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
    /// Finishes an exchange that the person began by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<CodeExchange>,
    /// For a remote MCP server: a client that was registered at its authorization server by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Its secret, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// The private key that it signs with in place of a secret (RFC 7523 section 2.2): PEM, or a JWK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<Secret>,
    /// For a remote MCP server: the URL of a client metadata document, shown where the authorization server takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_metadata_url: Option<String>,
    /// For a remote MCP server: the issuer that must be its authorization server, byte for byte; absent: the one that the config
    /// says, else whichever the server names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_server: Option<String>,
    /// For a remote MCP server: the JWT that takes the place of a login (RFC 7523 section 2.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<TokenSource>,
    /// For a remote MCP server: who vouches for the person in place of a login (RFC 8693, then RFC 7523).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityProvider>,
    /// For a remote MCP server: the raw `WWW-Authenticate` value that it answered. Its scopes are asked for besides those
    /// that the grant has asked for before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// No person asked for this login: a program did, for want of a token. The daemon lets it start only so often, and takes the
    /// scopes that it names for a grant that is held for what the server wants.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unprompted: bool,
    /// Nobody is there who could log in: a login that needs a person is refused with `login_required` and does not begin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unattended: bool,
    /// Whether this subscriber can open a browser.
    #[serde(default)]
    pub browser: bool,
    /// Whether the login ends when this subscriber goes and nobody else waits.
    #[serde(default)]
    pub interactive: bool,
}

/// Where a token of somebody else is: `{"file": {"path": PATH, "sha256": HEX}}` or `{"token": TEXT}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// In this file; the daemon reads it now, and again for every new access token.
    File(TokenFile),
    /// Here; it is used for this login and not kept.
    Token(Secret),
}

/// A file with a token, as a program names it that can read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// An absolute path.
    pub path: String,
    /// The SHA-256 of what the file holds at the moment, as lower-case hex. The daemon uses no file that a request names
    /// without it, or with another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// An identity provider, and the person's ID token that it has made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityProvider {
    /// The name of a provider in the config, or an issuer.
    pub provider: String,
    /// With an issuer: the client that the ID token is for. It is a public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// With an issuer: its token endpoint; absent: its metadata says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// The ID token.
    pub token: TokenSource,
}

/// The code and verifier of an authorization request that a person made by hand (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeExchange {
    /// The code of the redirect.
    pub code: Secret,
    /// The verifier whose challenge was sent.
    pub code_verifier: Secret,
    /// The redirect URI that was sent, byte for byte.
    pub redirect_uri: String,
}

/// `POST /v1/logins/ID/decision`: what becomes of a login after [`LoginEvent::OtherAccount`]. Neither: the new login is revoked
/// and forgotten.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginDecision {
    /// It takes the place of the one that is held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// It becomes `PROVIDER:LABEL`; both are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// How a person logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginFlow {
    /// With a browser that is sent back to this machine (RFC 6749 section 4.1, RFC 7636, RFC 8252).
    Code,
    /// With a code that is typed at a page on any machine (RFC 8628).
    Device,
    /// Without a person: the client asks with its own credentials (RFC 6749 section 4.4).
    ClientCredentials,
}

/// How a client came by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// A person registered it by hand.
    Given,
    /// It is the URL of its metadata document.
    MetadataDocument,
    /// The authorization server has made it now (RFC 7591).
    Registered,
    /// The authorization server has made it for an earlier login.
    Known,
}

/// One event of a login: a JSON line of the answer to `POST /v1/logins`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LoginEvent {
    /// The login runs.
    Started {
        /// The login's id, for `/v1/logins/ID`.
        id: String,
        /// The grant that it will make or replace.
        grant: GrantName,
        /// Whether it was running already.
        joined: bool,
    },
    /// The remote MCP server has told who lets people in.
    ServerFound {
        /// The server's URL, as it was given.
        server: String,
        /// The issuer of its authorization server.
        authorization_server: String,
    },
    /// What this program is to the authorization server, and what it asks for.
    ClientChosen {
        /// How it came by its client id.
        client: ClientKind,
        /// The client id.
        client_id: String,
        /// The scopes; none: whatever the server gives by itself.
        scopes: Vec<String>,
    },
    /// The person must open this URL.
    OpenUrl {
        /// The authorization URL.
        url: String,
        /// The host that it leads to, in ASCII (punycode).
        host: String,
        /// The redirect URI that it carries, as it must be registered.
        redirect_uri: String,
        /// Whether this subscriber shall open the browser.
        open: bool,
    },
    /// The person must type this code at this page, on any machine.
    EnterCode {
        /// The code: visible ASCII.
        user_code: String,
        /// The page.
        verification_uri: String,
        /// The page with the code in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verification_uri_complete: Option<String>,
        /// The host of both, in ASCII (punycode).
        host: String,
        /// The seconds that the code is good.
        expires_in: u64,
        /// Whether this subscriber shall open the browser.
        open: bool,
    },
    /// The redirect has come; the code is being exchanged.
    Exchanging,
    /// Another account has logged in than the grant holds. Nothing was changed; the new login waits for
    /// [`LoginDecision`]s of those who said that they ask, and is revoked when they go or after 5 minutes.
    OtherAccount {
        /// The grant.
        grant: GrantName,
        /// Whose login it holds.
        held: String,
        /// Who has logged in.
        new: String,
    },
    /// The login is done and durable.
    Done {
        /// The grant as it is now.
        grant: Box<GrantSummary>,
        /// Other grants of the provider that hold the same account.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        same_account: Vec<GrantName>,
    },
    /// The login has failed; nothing was changed.
    Failed {
        /// Why.
        error: ErrorBody,
    },
}

/// `POST /v1/logins/ID/redirect`: the URL that the browser was sent to, pasted by a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastedRedirect {
    /// The whole redirect URL.
    pub url: Secret,
}

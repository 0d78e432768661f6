//! A provider: an authorization server and how we are its client. Presets are data in `provider/presets`.
//!
//! Owns the checked value and what follows from it alone. Not its file (`config`), not the metadata that is discovered
//! later (`oauth::metadata`), not the client secret, which lies in the vault or comes from a command.

pub(crate) mod check;
pub mod preset;
pub mod secret_command;
pub mod table;

use std::time::Duration;

use mcp_auth_proto::ProviderSummary;

use crate::grant::record::Definition;

/// A checked provider: a preset, a table of config.toml, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// Whether config.toml has a table for it.
    pub configured: bool,
    /// The preset that it builds on.
    pub preset: Option<String>,
    /// The issuer, byte for byte; its metadata is discovered when endpoints are missing.
    pub issuer: Option<String>,
    /// Endpoints that are fixed.
    pub endpoints: Endpoints,
    /// The client id.
    pub client_id: Option<String>,
    /// A command that prints the client secret: program and arguments, no shell.
    pub client_secret_command: Option<Vec<String>>,
    /// The scopes that a login asks for.
    pub scopes: Vec<String>,
    /// Scopes that a login asks for besides, and that never count as missing (`offline_access`).
    pub refresh_scopes: Vec<String>,
    /// Where it differs from the RFCs.
    pub quirks: Quirks,
    /// Where to register a client.
    pub registration_url: Option<String>,
    /// How to register a client, step by step.
    pub registration_steps: Vec<String>,
}

impl Provider {
    /// A provider that nobody defined: for static tokens, which need none.
    pub fn unknown(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            configured: false,
            preset: None,
            issuer: None,
            endpoints: Endpoints::default(),
            client_id: None,
            client_secret_command: None,
            scopes: Vec::new(),
            refresh_scopes: Vec::new(),
            quirks: Quirks::default(),
            registration_url: None,
            registration_steps: Vec::new(),
        }
    }

    /// Every built-in preset as it is without config, sorted by name.
    pub fn presets() -> Vec<Self> {
        preset::all().iter().map(|preset| preset.provider().clone()).collect()
    }

    /// The redirect URI to register, byte for byte as it is sent; the port is left out where any will do (RFC 8252 section 7.3).
    pub fn redirect_uri_for_registration(&self) -> String {
        self.quirks.redirect_uri(self.quirks.redirect_port)
    }

    /// Whether a login needs a client secret.
    pub fn needs_client_secret(&self) -> bool {
        match self.quirks.client_auth {
            Some(ClientAuth::None) => false,
            Some(ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost) => true,
            None => self.quirks.needs_client_secret,
        }
    }

    /// What is missing before a login can start, as keys of config.toml and `client_secret`; empty when ready.
    /// `has_secret`: the vault holds a client secret for it.
    pub fn missing(&self, has_secret: bool) -> Vec<String> {
        let mut missing = Vec::new();
        if self.client_id.is_none() {
            missing.push("client_id".to_owned());
        }
        if self.needs_client_secret() && !self.has_client_secret(has_secret) {
            missing.push("client_secret".to_owned());
        }
        missing
    }

    /// The provider as `GET /v1/providers` shows it. `has_secret`: the vault holds a client secret for it.
    pub fn summary(&self, has_secret: bool) -> ProviderSummary {
        ProviderSummary {
            name: self.name.clone(),
            configured: self.configured,
            preset: self.preset.clone(),
            issuer: self.issuer.clone(),
            authorization_endpoint: self.endpoints.authorization.clone(),
            token_endpoint: self.endpoints.token.clone(),
            client_id: self.client_id.clone(),
            has_client_secret: self.has_client_secret(has_secret),
            scopes: self.scopes.clone(),
            redirect_uri: self.redirect_uri_for_registration(),
            registration_url: self.registration_url.clone(),
            registration_steps: self.registration_steps.clone(),
            missing: self.missing(has_secret),
        }
    }

    /// Whether a grant that was made with `definition` may still get tokens: same name, issuer, client, and no fixed
    /// endpoint has moved. Endpoints that were merely discovered are not compared; an optional endpoint that the grant
    /// never had is not either, since none of its tokens went there. A static token has no client, only a provider.
    pub fn accepts(&self, definition: &Definition) -> bool {
        if self.name != definition.provider {
            return false;
        }
        if definition.is_static() {
            return true;
        }
        let unmoved = |fixed: &Option<String>, recorded: &Option<String>| fixed.is_none() || recorded.is_none() || fixed == recorded;
        self.issuer == definition.issuer
            && self.client_id == definition.client_id
            && (self.endpoints.token.is_none() || self.endpoints.token == definition.token_endpoint)
            && unmoved(&self.endpoints.revocation, &definition.revocation_endpoint)
            && unmoved(&self.endpoints.userinfo, &definition.userinfo_endpoint)
    }

    fn has_client_secret(&self, in_vault: bool) -> bool {
        in_vault || self.client_secret_command.is_some()
    }
}

/// The endpoints of an authorization server, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// RFC 6749 section 3.1.
    pub authorization: Option<String>,
    /// RFC 6749 section 3.2.
    pub token: Option<String>,
    /// RFC 7009.
    pub revocation: Option<String>,
    /// RFC 8628.
    pub device: Option<String>,
    /// OpenID Connect Core section 5.3, or a preset's own account endpoint.
    pub userinfo: Option<String>,
}

/// How the client proves itself at the token endpoint (RFC 6749 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// By `client_id` in the body only.
    None,
    /// By HTTP Basic.
    ClientSecretBasic,
    /// By `client_id` and `client_secret` in the body.
    ClientSecretPost,
}

/// How a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevocationStyle {
    /// RFC 7009.
    Rfc7009,
    /// GitHub: DELETE /applications/CLIENT_ID/grant-or-token with Basic, or the unauthenticated credentials route.
    Github,
    /// Not at all.
    None,
}

/// When tokens are refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
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
    /// The client needs a secret for the code flow.
    pub needs_client_secret: bool,
    /// S256 is known to be supported, whatever the metadata says.
    pub pkce_s256: bool,
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
    /// When tokens are refreshed.
    pub refresh: RefreshPlan,
    /// The lifetime of a token that comes without one.
    pub default_lifetime: Option<Duration>,
    /// Whether RFC 8707 `resource` may be sent.
    pub send_resource: bool,
    /// Further parameters of the authorization request.
    pub authorization_params: Vec<(String, String)>,
    /// How tokens are revoked.
    pub revocation: RevocationStyle,
    /// The host of the loopback redirect: `127.0.0.1`, `localhost` or `[::1]`.
    pub redirect_host: String,
    /// The path of the loopback redirect.
    pub redirect_path: String,
    /// The fixed port of the loopback redirect; `None`: any free one.
    pub redirect_port: Option<u16>,
    /// Members of the userinfo answer or ID token that name the account, best first.
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
            needs_client_secret: false,
            pkce_s256: false,
            scope_separator: ' ',
            invalid_grant_codes: texts(&["invalid_grant"]),
            refresh_invalidates_access_token: false,
            refresh_grace: None,
            refresh_sends_redirect_uri: false,
            refresh: RefreshPlan::Ahead,
            default_lifetime: None,
            send_resource: true,
            authorization_params: Vec::new(),
            revocation: RevocationStyle::Rfc7009,
            redirect_host: "127.0.0.1".to_owned(),
            redirect_path: "/callback".to_owned(),
            redirect_port: None,
            account_claims: texts(&["email", "preferred_username", "name"]),
            subject_claims: texts(&["sub"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(name: &str, table: &str) -> Provider {
        preset::provider(name, toml::from_str(table).unwrap()).unwrap()
    }

    fn definition() -> Definition {
        Definition {
            provider: "corp".into(),
            issuer: Some("https://corp.example".into()),
            token_endpoint: Some("https://corp.example/token".into()),
            revocation_endpoint: Some("https://corp.example/revoke".into()),
            client_id: Some("c1".into()),
            ..Definition::default()
        }
    }

    #[test]
    fn a_grant_gets_no_tokens_once_its_provider_has_moved() {
        let discovered = "issuer = 'https://corp.example'\nclient_id = 'c1'\n";
        let table = [
            ("corp", "", true),
            ("corp2", "", false),
            ("corp", "token_endpoint = 'https://corp.example/token'", true),
            ("corp", "token_endpoint = 'https://corp.example/token/'", false),
            ("corp", "revocation_endpoint = 'https://corp.example/other'", false),
            ("corp", "userinfo_endpoint = 'https://corp.example/me'", true),
            ("corp", "scopes = ['more']", true),
        ];
        for (name, more, accepted) in table {
            assert_eq!(configured(name, &format!("{discovered}{more}")).accepts(&definition()), accepted, "{name} {more}");
        }
        for other in ["issuer = 'https://corp.example/'\nclient_id = 'c1'", "issuer = 'https://corp.example'\nclient_id = 'c2'"] {
            assert!(!configured("corp", other).accepts(&definition()), "{other}");
        }
        assert!(!configured("corp", "issuer = 'https://corp.example'").accepts(&definition()), "the client id was taken away");
    }

    #[test]
    fn a_static_token_belongs_to_the_provider_of_its_name_whatever_the_client() {
        let recorded = Definition { issuer: None, token_endpoint: None, revocation_endpoint: None, client_id: None, ..definition() };
        assert!(configured("corp", "issuer = 'https://corp.example'\nclient_id = 'c1'").accepts(&recorded));
        assert!(!configured("github", "client_id = 'c1'").accepts(&recorded));
    }

    #[test]
    fn a_refresh_waits_less_where_the_grace_is_short() {
        for (grace, seconds) in [("", 10), ("refresh_grace = 14", 4), ("refresh_grace = 15", 10), ("refresh_grace = 0", 4)] {
            let provider = configured("corp", &format!("issuer = 'https://corp.example'\n{grace}"));
            assert_eq!(provider.quirks.answer_timeout(), Duration::from_secs(seconds), "{grace}");
        }
    }

    #[test]
    fn a_secret_counts_from_the_vault_or_from_a_command() {
        let command = "client_id = 'x'\nclient_secret_command = ['pass', 'github']";
        assert_eq!(configured("github", "client_id = 'x'").missing(false), ["client_secret"]);
        assert!(configured("github", "client_id = 'x'").missing(true).is_empty());
        assert!(configured("github", command).missing(false).is_empty());
        assert!(configured("github", "client_id = 'x'\nclient_auth = 'none'").missing(false).is_empty());
        let summary = configured("github", command).summary(false);
        assert!(summary.has_client_secret && summary.missing.is_empty());
        assert_eq!(summary.redirect_uri, "http://127.0.0.1/callback");
    }

    #[test]
    fn an_issuer_is_kept_byte_for_byte() {
        for issuer in ["https://corp.example", "https://corp.example/", "https://corp.example:443/A/../b"] {
            assert_eq!(configured("corp", &format!("issuer = '{issuer}'")).issuer.as_deref(), Some(issuer));
        }
    }
}

//! A provider: an authorization server and how we are its client. Presets are data in `provider/presets`.
//!
//! Owns the checked value and what follows from it alone. Not its file (`config`), not the metadata that is discovered
//! later (`oauth::metadata`), not the client secret, which lies in the vault or comes from a command.

pub(crate) mod check;
#[cfg(test)]
#[path = "provider/docs_tests.rs"]
mod docs;
mod notes;
pub mod preset;
mod quirks;
pub mod remote;
pub mod secret_command;
pub mod table;

use std::path::PathBuf;

use mcp_auth_proto::ProviderSummary;

use self::preset::Preset;
use crate::grant::record::{AssertionSource, Definition, TokenSource};
use crate::transport::Proxy;

pub use quirks::{
    AssertionAudience, ClientAuth, DefaultLifetime, Flow, Pkce, Quirks, RefreshPlan, RevocationStyle, Revokes, ScopeSeparator,
    TokenRequestBody, UserinfoRequest,
};

/// A checked provider: a preset, a table of config.toml, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// Whether config.toml has a table for it.
    pub configured: bool,
    /// The preset that it builds on.
    pub preset: Option<String>,
    /// The URL of the remote MCP server that it stands for, byte for byte: its authorization server is discovered at each login.
    pub server: Option<String>,
    /// The issuer that must be its authorization server, byte for byte; `None`: whichever the server names.
    pub authorization_server: Option<String>,
    /// Whether that server may name hosts in private networks.
    pub allow_private: bool,
    /// The issuer, byte for byte; its metadata is discovered when endpoints are missing.
    pub issuer: Option<String>,
    /// Endpoints that are fixed.
    pub endpoints: Endpoints,
    /// The MCP server that its tokens are for (RFC 8707), byte for byte.
    pub resource: Option<String>,
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
    /// The label of the grant that the bare name stands for.
    pub default_account: Option<String>,
    /// How it is reached, where that differs from `[network]`.
    pub network: OwnNetwork,
    /// What proves who we are, where nobody logs in.
    pub identity: OwnIdentity,
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
            server: None,
            authorization_server: None,
            allow_private: false,
            issuer: None,
            endpoints: Endpoints::default(),
            resource: None,
            client_id: None,
            client_secret_command: None,
            scopes: Vec::new(),
            refresh_scopes: Vec::new(),
            quirks: Quirks::default(),
            default_account: None,
            network: OwnNetwork::default(),
            identity: OwnIdentity::default(),
            registration_url: None,
            registration_steps: Vec::new(),
        }
    }

    /// Every built-in preset as it is without config, sorted by name.
    pub fn presets() -> Vec<Self> {
        preset::all().map(|preset| preset.provider().clone()).collect()
    }

    /// The redirect URI to register, byte for byte as it is sent; the port is left out where any will do (RFC 8252 section 7.3).
    /// Where several ports are fixed it is the first one's.
    pub fn redirect_uri_for_registration(&self) -> String {
        self.quirks.redirect_uri(self.quirks.redirect_ports.first().copied())
    }

    /// Every redirect URI to register: one for each fixed port.
    pub fn redirect_uris_for_registration(&self) -> Vec<String> {
        match self.quirks.redirect_ports.as_slice() {
            [] => vec![self.redirect_uri_for_registration()],
            ports => ports.iter().map(|port| self.quirks.redirect_uri(Some(*port))).collect(),
        }
    }

    /// Whether a login needs a client secret.
    pub fn needs_client_secret(&self) -> bool {
        match self.quirks.client_auth {
            Some(ClientAuth::None) => false,
            Some(ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost | ClientAuth::PrivateKeyJwt) => true,
            None => self.quirks.needs_client_secret,
        }
    }

    /// Whether the device flow needs the client secret too. Where `needs_client_secret` is set, it is the code flow that does.
    pub fn device_flow_needs_secret(&self) -> bool {
        self.needs_client_secret() && (!self.quirks.needs_client_secret || self.quirks.client_auth == Some(ClientAuth::PrivateKeyJwt))
    }

    /// What is missing before a login can start, as keys of config.toml and `client_secret`; empty when ready. A client that
    /// has the device flow can log in without its secret. `has_secret`: the vault holds a client secret for it.
    pub fn missing(&self, has_secret: bool) -> Vec<String> {
        let mut missing = Vec::new();
        // There a client registers itself, unless it asks for itself.
        if self.server.is_some() && self.quirks.flow != Some(Flow::ClientCredentials) {
            return missing;
        }
        if self.lacks_server() {
            missing.push("base_url".to_owned());
        }
        if self.client_id.is_none() {
            missing.push("client_id".to_owned());
        }
        if self.needs_client_secret() && !self.has_client_secret(has_secret) && !self.has_device_flow_without_secret() {
            missing.push("client_secret".to_owned());
        }
        missing
    }

    /// The provider as `GET /v1/providers` shows it. `has_secret`: the vault holds a client secret for it.
    pub fn summary(&self, has_secret: bool) -> ProviderSummary {
        let preset = self.preset();
        let provenance = preset.map(Preset::provenance);
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
            device_flow: self.has_device_flow_without_secret(),
            default_account: self.default_account.clone(),
            missing: self.missing(has_secret),
            title: preset.map(|preset| preset.title().to_owned()),
            resource: self.server.clone(),
            authorization_server: self.authorization_server.clone(),
            unbound_secret: self.has_unbound_secret(has_secret),
            base_url_example: preset.filter(|_| self.lacks_server()).and_then(Preset::base_url_example).map(str::to_owned),
            flows: self.flows(),
            needs_client_secret: self.needs_client_secret(),
            refresh_scopes: self.refresh_scopes.clone(),
            redirect_uris: self.redirect_uris_for_registration(),
            refresh_endpoint: self.endpoints.refresh.clone(),
            device_authorization_endpoint: self.endpoints.device.clone(),
            revocation_endpoint: self.endpoints.revocation.clone(),
            userinfo_endpoint: self.endpoints.userinfo.clone(),
            notes: notes::of(self),
            verified: provenance.map(|provenance| provenance.verified),
            checked: provenance.and_then(|provenance| provenance.checked.clone()),
            sources: provenance.map(|provenance| provenance.sources.clone()).unwrap_or_default(),
        }
    }

    fn preset(&self) -> Option<&'static Preset> {
        self.preset.as_deref().and_then(preset::find)
    }

    /// Whether it is a preset for servers of one's own, and none is named.
    fn lacks_server(&self) -> bool {
        self.issuer.is_none() && self.endpoints.token.is_none() && self.preset().is_some_and(|preset| preset.base_url_example().is_some())
    }

    /// The ways to log in that are known without asking the server, the usual one first.
    fn flows(&self) -> Vec<String> {
        let device = self.endpoints.device.is_some() || self.lacks_server() && self.preset().is_some_and(Preset::has_device);
        let code = self.endpoints.authorization.is_some() || self.issuer.is_some() || self.lacks_server();
        let mut flows = Vec::from_iter(code.then_some((Flow::AuthorizationCode, "code")));
        flows.extend(device.then_some((Flow::DeviceCode, "device")));
        flows.extend((self.quirks.flow == Some(Flow::ClientCredentials)).then_some((Flow::ClientCredentials, "client_credentials")));
        flows.extend(self.quirks.flow.filter(|flow| flow.is_by_assertion()).map(|flow| match flow {
            Flow::Enterprise => (flow, "enterprise"),
            _ => (flow, "jwt_bearer"),
        }));
        flows.sort_by_key(|(flow, _)| Some(*flow) != self.quirks.flow);
        flows.into_iter().map(|(_, word)| word.to_owned()).collect()
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
            && self.endpoints.refresh == definition.refresh_endpoint
            && unmoved(&self.endpoints.revocation, &definition.revocation_endpoint)
            && unmoved(&self.endpoints.userinfo, &definition.userinfo_endpoint)
    }

    /// Whether this issuer may be the remote server's authorization server, as far as the config says.
    pub fn may_be_at(&self, issuer: Option<&str>) -> bool {
        self.authorization_server.is_none() || self.authorization_server.as_deref() == issuer
    }

    /// Whether a first login would show a secret to whichever authorization server the remote server names. A private key is
    /// shown to nobody.
    fn has_unbound_secret(&self, in_vault: bool) -> bool {
        let shown = !matches!(self.quirks.client_auth, Some(ClientAuth::None | ClientAuth::PrivateKeyJwt));
        self.server.is_some() && self.authorization_server.is_none() && shown && self.has_client_secret(in_vault)
    }

    fn has_device_flow_without_secret(&self) -> bool {
        let may_be_taken = matches!(self.quirks.flow, None | Some(Flow::DeviceCode));
        may_be_taken && self.endpoints.device.is_some() && !self.device_flow_needs_secret()
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
    /// Where refreshes go, if not to the token endpoint. Never discovered.
    pub refresh: Option<String>,
    /// RFC 7009.
    pub revocation: Option<String>,
    /// RFC 8628.
    pub device: Option<String>,
    /// OpenID Connect Core section 5.3, or a preset's own account endpoint.
    pub userinfo: Option<String>,
}

/// How one provider is reached; what is absent is `[network]`'s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnNetwork {
    /// The proxy.
    pub proxy: Option<Proxy>,
    /// A PEM file of certificate authorities that are trusted besides the platform's; absolute.
    pub ca_file: Option<PathBuf>,
}

/// What takes the place of a login at a remote server. Files are absolute, and read again for every token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnIdentity {
    /// A file with a JWT for the authorization server, which the platform keeps fresh.
    pub assertion_file: Option<PathBuf>,
    /// The provider that vouches for a person.
    pub provider: Option<String>,
    /// A file with the person's ID token; `None`: the grant of that provider has it.
    pub token_file: Option<PathBuf>,
}

impl OwnIdentity {
    /// Whether a grant that was made with `definition` is still what the config means.
    pub fn accepts(&self, definition: &Definition) -> bool {
        let Some(source) = definition.assertion.as_deref() else { return true };
        let file = match source {
            AssertionSource::Workload(_) => &self.assertion_file,
            AssertionSource::IdentityProvider { .. } => &self.token_file,
        };
        let same_file = file.as_ref().is_none_or(|path| *source.token() == TokenSource::File(path.clone()));
        match source {
            AssertionSource::IdentityProvider { provider, .. } if self.provider.is_some() => same_file && *provider == self.provider,
            _ => same_file,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            ("corp", "token_endpoint = 'https://corp.example/token'\nrefresh_endpoint = 'https://corp.example/refresh'", false),
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
        let corp = |more: &str| configured("corp", &format!("issuer = 'https://corp.example'\nneeds_client_secret = true\n{more}"));
        assert_eq!(corp("client_id = 'x'").missing(false), ["client_secret"]);
        assert!(corp("client_id = 'x'").missing(true).is_empty());
        assert!(corp(command).missing(false).is_empty());
        assert!(corp("client_id = 'x'\nclient_auth = 'none'").missing(false).is_empty());
        let summary = configured("github", command).summary(false);
        assert!(summary.has_client_secret && summary.missing.is_empty());
        assert_eq!(summary.redirect_uri, "http://127.0.0.1/callback");
    }

    #[test]
    fn a_secret_is_unbound_where_a_remote_server_alone_says_who_is_shown_it() {
        let server = "server = 'https://mcp.corp.example/mcp'\nclient_id = 'x'\n";
        let command = format!("{server}client_secret_command = ['pass', 'corp']\n");
        let bound = "authorization_server = 'https://corp.example'";
        for (table, in_vault, unbound) in [
            (server.to_owned(), false, false),
            (server.to_owned(), true, true),
            (command.clone(), false, true),
            (format!("{command}{bound}"), false, false),
            (format!("{command}client_auth = 'private_key_jwt'"), false, false),
            ("issuer = 'https://corp.example'".to_owned(), true, false),
        ] {
            assert_eq!(configured("corp", &table).summary(in_vault).unbound_secret, unbound, "{table}");
        }
        let bound = configured("corp", &format!("{server}{bound}"));
        assert!(bound.may_be_at(Some("https://corp.example")) && !bound.may_be_at(Some("https://corp.example/")) && !bound.may_be_at(None));
        assert!(configured("corp", server).may_be_at(None));
    }

    #[test]
    fn a_secret_is_not_missing_where_the_device_flow_does_without() {
        assert!(configured("github", "client_id = 'x'").missing(false).is_empty());
        let device = "issuer = 'https://corp.example'\ndevice_authorization_endpoint = 'https://corp.example/device'\nclient_id = 'x'\n";
        for (more, missing) in [
            ("needs_client_secret = true", false),
            ("client_auth = 'client_secret_post'\nneeds_client_secret = true", false),
            ("needs_client_secret = true\nflow = 'authorization_code'", true),
            ("needs_client_secret = true\nflow = 'client_credentials'", true),
            ("client_auth = 'client_secret_post'", true),
            ("client_auth = 'private_key_jwt'\nneeds_client_secret = true", true),
        ] {
            assert_eq!(!configured("corp", &format!("{device}{more}")).missing(false).is_empty(), missing, "{more}");
        }
    }

    #[test]
    fn at_a_remote_server_nothing_is_missing_since_the_rest_is_discovered() {
        let provider = configured("corp", "server = 'https://mcp.corp.example/mcp'");
        let summary = provider.summary(false);
        assert_eq!((summary.resource.as_deref(), summary.missing.len()), (Some("https://mcp.corp.example/mcp"), 0));
    }

    #[test]
    fn an_issuer_is_kept_byte_for_byte() {
        for issuer in ["https://corp.example", "https://corp.example/", "https://corp.example:443/A/../b"] {
            assert_eq!(configured("corp", &format!("issuer = '{issuer}'")).issuer.as_deref(), Some(issuer));
        }
    }
}

//! A provider as it is written down: the one form of presets and of `[providers.NAME]` in config.toml.
//!
//! Owns its keys, what their values must be, and how one table lies over another. It knows positions in the text, so
//! that whoever read the file can name the line.

mod combinations;
mod quirks;
mod values;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

pub(super) use self::combinations::check as combinations;
use self::values::{OneOrMore, SecondsOrNever};
use super::check::{self, Fault};
use super::{
    AssertionAudience, ClientAuth, Endpoints, Flow, Pkce, Provider, RefreshPlan, RevocationStyle, Revokes, ScopeSeparator, TokenRequestBody,
};

type Text = Option<Spanned<String>>;
type Texts = Option<Vec<Spanned<String>>>;
type Params = Option<BTreeMap<Spanned<String>, String>>;

/// A provider's table. Every key is optional; what a preset sets, config.toml overrides key by key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Table {
    pub(super) preset: Text,
    pub(super) base_url: Text,
    pub(super) api_base_url: Text,
    pub(super) server: Text,
    pub(super) authorization_server: Text,
    pub(super) allow_private: Option<Spanned<bool>>,
    pub(super) issuer: Text,
    pub(super) authorization_endpoint: Text,
    pub(super) token_endpoint: Text,
    pub(super) refresh_endpoint: Text,
    pub(super) revocation_endpoint: Text,
    pub(super) userinfo_endpoint: Text,
    pub(super) device_authorization_endpoint: Text,
    pub(super) resource: Text,
    pub(super) client_id: Text,
    default_account: Text,
    client_secret_command: Option<Spanned<Vec<String>>>,
    scopes: Texts,
    refresh_scopes: Texts,
    client_auth: Option<Spanned<ClientAuth>>,
    client_assertion_audience: Option<Spanned<AssertionAudience>>,
    client_key_id: Text,
    pub(super) assertion_file: Text,
    pub(super) identity_provider: Text,
    pub(super) identity_token_file: Text,
    needs_client_secret: Option<bool>,
    pub(super) flow: Option<Spanned<Flow>>,
    pkce: Option<Spanned<Pkce>>,
    request_scope_separator: Option<ScopeSeparator>,
    scope_separator: Text,
    invalid_grant_codes: Texts,
    refresh_invalidates_access_token: Option<bool>,
    refresh_grace: Option<Spanned<i64>>,
    refresh_sends_redirect_uri: Option<bool>,
    refresh_token_lifetime: Option<Spanned<i64>>,
    refresh_token_idle_lifetime: Option<Spanned<i64>>,
    refresh: Option<RefreshPlan>,
    default_lifetime: Option<Spanned<SecondsOrNever>>,
    pub(super) dpop: Option<Spanned<bool>>,
    send_resource: Option<bool>,
    authorization_params: Params,
    token_request: Option<TokenRequestBody>,
    token_params: Params,
    token_answer_member: Text,
    device_scope_parameter: Text,
    login_hint_parameter: Text,
    revocation: Option<RevocationStyle>,
    revokes: Option<Revokes>,
    userinfo_request: Text,
    redirect_host: Text,
    redirect_path: Text,
    redirect_port: Option<Spanned<OneOrMore>>,
    account_claims: Texts,
    subject_claims: Texts,
    pub(super) registration_url: Text,
    registration_steps: Texts,
    proxy: Text,
    ca_file: Text,
}

/// What is wrong with a table, and where in the text. Never holds a value that could be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The bytes that are wrong; `None`: the table as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong, one sentence.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Wrong {
    /// Something wrong with the table as a whole.
    pub fn table(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { span: None, what: what.into(), hint: Some(hint.into()) }
    }

    /// The same at a place.
    #[must_use]
    pub fn at(mut self, span: Range<usize>) -> Self {
        self.span = Some(span);
        self
    }
}

impl Table {
    /// This table over another one: what is not given here is taken from there.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            preset: self.preset.or(below.preset),
            base_url: self.base_url.or(below.base_url),
            api_base_url: self.api_base_url.or(below.api_base_url),
            server: self.server.or(below.server),
            authorization_server: self.authorization_server.or(below.authorization_server),
            allow_private: self.allow_private.or(below.allow_private),
            issuer: self.issuer.or(below.issuer),
            authorization_endpoint: self.authorization_endpoint.or(below.authorization_endpoint),
            token_endpoint: self.token_endpoint.or(below.token_endpoint),
            refresh_endpoint: self.refresh_endpoint.or(below.refresh_endpoint),
            revocation_endpoint: self.revocation_endpoint.or(below.revocation_endpoint),
            userinfo_endpoint: self.userinfo_endpoint.or(below.userinfo_endpoint),
            device_authorization_endpoint: self.device_authorization_endpoint.or(below.device_authorization_endpoint),
            resource: self.resource.or(below.resource),
            client_id: self.client_id.or(below.client_id),
            default_account: self.default_account.or(below.default_account),
            client_secret_command: self.client_secret_command.or(below.client_secret_command),
            scopes: self.scopes.or(below.scopes),
            refresh_scopes: self.refresh_scopes.or(below.refresh_scopes),
            client_auth: self.client_auth.or(below.client_auth),
            client_assertion_audience: self.client_assertion_audience.or(below.client_assertion_audience),
            client_key_id: self.client_key_id.or(below.client_key_id),
            assertion_file: self.assertion_file.or(below.assertion_file),
            identity_provider: self.identity_provider.or(below.identity_provider),
            identity_token_file: self.identity_token_file.or(below.identity_token_file),
            needs_client_secret: self.needs_client_secret.or(below.needs_client_secret),
            flow: self.flow.or(below.flow),
            pkce: self.pkce.or(below.pkce),
            request_scope_separator: self.request_scope_separator.or(below.request_scope_separator),
            scope_separator: self.scope_separator.or(below.scope_separator),
            invalid_grant_codes: self.invalid_grant_codes.or(below.invalid_grant_codes),
            refresh_invalidates_access_token: self.refresh_invalidates_access_token.or(below.refresh_invalidates_access_token),
            refresh_grace: self.refresh_grace.or(below.refresh_grace),
            refresh_sends_redirect_uri: self.refresh_sends_redirect_uri.or(below.refresh_sends_redirect_uri),
            refresh_token_lifetime: self.refresh_token_lifetime.or(below.refresh_token_lifetime),
            refresh_token_idle_lifetime: self.refresh_token_idle_lifetime.or(below.refresh_token_idle_lifetime),
            refresh: self.refresh.or(below.refresh),
            default_lifetime: self.default_lifetime.or(below.default_lifetime),
            dpop: self.dpop.or(below.dpop),
            send_resource: self.send_resource.or(below.send_resource),
            authorization_params: self.authorization_params.or(below.authorization_params),
            token_request: self.token_request.or(below.token_request),
            token_params: self.token_params.or(below.token_params),
            token_answer_member: self.token_answer_member.or(below.token_answer_member),
            device_scope_parameter: self.device_scope_parameter.or(below.device_scope_parameter),
            login_hint_parameter: self.login_hint_parameter.or(below.login_hint_parameter),
            revocation: self.revocation.or(below.revocation),
            revokes: self.revokes.or(below.revokes),
            userinfo_request: self.userinfo_request.or(below.userinfo_request),
            redirect_host: self.redirect_host.or(below.redirect_host),
            redirect_path: self.redirect_path.or(below.redirect_path),
            redirect_port: self.redirect_port.or(below.redirect_port),
            account_claims: self.account_claims.or(below.account_claims),
            subject_claims: self.subject_claims.or(below.subject_claims),
            registration_url: self.registration_url.or(below.registration_url),
            registration_steps: self.registration_steps.or(below.registration_steps),
            proxy: self.proxy.or(below.proxy),
            ca_file: self.ca_file.or(below.ca_file),
        }
    }

    /// Checks every value that is given, each for itself.
    pub fn check(&self) -> Result<(), Wrong> {
        one("base_url", &self.base_url, check::issuer)?;
        one("api_base_url", &self.api_base_url, check::issuer)?;
        one("server", &self.server, check::endpoint)?;
        one("authorization_server", &self.authorization_server, check::issuer)?;
        one("issuer", &self.issuer, check::issuer)?;
        one("authorization_endpoint", &self.authorization_endpoint, check::endpoint)?;
        one("token_endpoint", &self.token_endpoint, check::endpoint)?;
        one("refresh_endpoint", &self.refresh_endpoint, check::endpoint)?;
        one("revocation_endpoint", &self.revocation_endpoint, check::endpoint)?;
        one("userinfo_endpoint", &self.userinfo_endpoint, check::endpoint)?;
        one("device_authorization_endpoint", &self.device_authorization_endpoint, check::endpoint)?;
        one("resource", &self.resource, check::endpoint)?;
        one("registration_url", &self.registration_url, check::page)?;
        one("client_id", &self.client_id, check::printable)?;
        one("default_account", &self.default_account, check::label)?;
        one("assertion_file", &self.assertion_file, check::absolute_path)?;
        one("identity_provider", &self.identity_provider, check::provider_name)?;
        one("identity_token_file", &self.identity_token_file, check::absolute_path)?;
        each("scopes", &self.scopes, check::scope)?;
        each("refresh_scopes", &self.refresh_scopes, check::scope)?;
        each("invalid_grant_codes", &self.invalid_grant_codes, check::printable)?;
        each("registration_steps", &self.registration_steps, check::printable)?;
        one("redirect_host", &self.redirect_host, check::redirect_host)?;
        one("redirect_path", &self.redirect_path, check::redirect_path)?;
        if let Some(command) = &self.client_secret_command {
            check::command(command.get_ref()).map_err(at("client_secret_command", command.span()))?;
        }
        self.check_quirks()
    }

    /// Nobody is led to a page: the endpoint of the code flow is not needed.
    pub(super) fn needs_no_authorization_endpoint(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| *flow.get_ref() != Flow::AuthorizationCode)
    }

    /// The provider that a whole table describes. `preset` is the one that it was laid over.
    pub fn provider(self, name: &str, preset: Option<&str>) -> Result<Provider, Wrong> {
        let (quirks, network, identity) = (self.quirks()?, self.network(), self.identity());
        let steps = texts(self.registration_steps);
        let mut provider = Provider {
            name: name.to_owned(),
            configured: false,
            preset: preset.map(str::to_owned),
            server: text(self.server),
            authorization_server: text(self.authorization_server),
            allow_private: self.allow_private.is_some_and(Spanned::into_inner),
            issuer: text(self.issuer),
            endpoints: Endpoints {
                authorization: text(self.authorization_endpoint),
                token: text(self.token_endpoint),
                refresh: text(self.refresh_endpoint),
                revocation: text(self.revocation_endpoint),
                userinfo: text(self.userinfo_endpoint),
                device: text(self.device_authorization_endpoint),
            },
            resource: text(self.resource),
            client_id: text(self.client_id),
            default_account: text(self.default_account),
            client_secret_command: self.client_secret_command.map(Spanned::into_inner),
            scopes: texts(self.scopes).unwrap_or_default(),
            refresh_scopes: texts(self.refresh_scopes).unwrap_or_default(),
            quirks,
            network,
            identity,
            registration_url: text(self.registration_url),
            registration_steps: Vec::new(),
        };
        let base_url = text(self.base_url).unwrap_or_default();
        let filled = |step: String| fill_step(&step, &provider, &base_url);
        provider.registration_steps = steps.unwrap_or_default().into_iter().map(filled).collect();
        Ok(provider)
    }
}

/// Puts the provider's own values into a registration step, so that a person copies what is really sent.
fn fill_step(step: &str, provider: &Provider, base_url: &str) -> String {
    step.replace("{name}", &provider.name)
        .replace("{base_url}", base_url.trim_end_matches('/'))
        .replace("{registration_url}", provider.registration_url.as_deref().unwrap_or_default())
        .replace("{redirect_uri}", &provider.redirect_uris_for_registration().join(", "))
        .replace("{scopes}", &provider.scopes.join(", "))
}

fn one(key: &str, value: &Text, check: fn(&str) -> Result<(), Fault>) -> Result<(), Wrong> {
    value.as_ref().map_or(Ok(()), |value| check(value.get_ref()).map_err(at(key, value.span())))
}

fn each(key: &str, values: &Texts, check: fn(&str) -> Result<(), Fault>) -> Result<(), Wrong> {
    values.iter().flatten().try_for_each(|value| check(value.get_ref()).map_err(at(key, value.span())))
}

fn at(key: &str, span: Range<usize>) -> impl FnOnce(Fault) -> Wrong {
    move |fault| Wrong { span: Some(span), what: format!("`{key}` {}", fault.what), hint: fault.hint }
}

fn text(value: Text) -> Option<String> {
    value.map(Spanned::into_inner)
}

fn texts(values: Texts) -> Option<Vec<String>> {
    values.map(|values| values.into_iter().map(Spanned::into_inner).collect())
}

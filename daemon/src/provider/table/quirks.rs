//! The keys that say where a server differs from the RFCs, and those of its own network and identity: checked, and as values.

use std::time::Duration;

use toml::Spanned;

use super::values::SecondsOrNever;
use super::{Table, Text, Wrong, at, each, one, text, texts};
use crate::provider::check::{self, Fault};
use crate::provider::{ClientAuth, DefaultLifetime, Flow, OwnIdentity, OwnNetwork, Quirks, UserinfoRequest};
use crate::transport::Proxy;

/// The longest time that a key may name.
const TEN_YEARS: u64 = 315_360_000;
/// The most fixed ports of a redirect: each must be registered by hand.
const MOST_PORTS: usize = 16;

impl Table {
    pub(super) fn check_quirks(&self) -> Result<(), Wrong> {
        one("client_key_id", &self.client_key_id, check::printable)?;
        one("token_answer_member", &self.token_answer_member, check::printable)?;
        one("device_scope_parameter", &self.device_scope_parameter, check::device_param)?;
        one("login_hint_parameter", &self.login_hint_parameter, check::authorization_param)?;
        one("userinfo_request", &self.userinfo_request, check::userinfo_request)?;
        one("proxy", &self.proxy, check::proxy_or_none)?;
        one("ca_file", &self.ca_file, check::absolute_path)?;
        each("account_claims", &self.account_claims, check::printable)?;
        each("subject_claims", &self.subject_claims, check::printable)?;
        for name in self.authorization_params.iter().flatten().map(|(name, _)| name) {
            check::authorization_param(name.get_ref()).map_err(at("authorization_params", name.span()))?;
        }
        for name in self.token_params.iter().flatten().map(|(name, _)| name) {
            check::token_param(name.get_ref()).map_err(at("token_params", name.span()))?;
        }
        self.quirks().map(|_| ())
    }

    pub(super) fn quirks(&self) -> Result<Quirks, Wrong> {
        let plain = Quirks::default();
        let mut codes = plain.invalid_grant_codes;
        codes.extend(texts(self.invalid_grant_codes.clone()).unwrap_or_default().into_iter().filter(|code| code != "invalid_grant"));
        let params = |params: &super::Params| {
            let params = params.iter().flatten();
            params.map(|(name, value)| (name.get_ref().clone(), value.clone())).collect()
        };
        let or = |key: &Text, plain: String| text(key.clone()).unwrap_or(plain);
        Ok(Quirks {
            client_auth: value(&self.client_auth),
            client_assertion_audience: value(&self.client_assertion_audience),
            client_key_id: text(self.client_key_id.clone()),
            needs_client_secret: self.needs_client_secret.unwrap_or_else(|| self.proves_itself()),
            flow: value(&self.flow),
            pkce: value(&self.pkce),
            request_scope_separator: self.request_scope_separator.unwrap_or(plain.request_scope_separator),
            scope_separator: self.separator()?.unwrap_or(plain.scope_separator),
            invalid_grant_codes: codes,
            refresh_invalidates_access_token: self.refresh_invalidates_access_token.unwrap_or(plain.refresh_invalidates_access_token),
            refresh_grace: seconds("refresh_grace", &self.refresh_grace, 0)?,
            refresh_sends_redirect_uri: self.refresh_sends_redirect_uri.unwrap_or(plain.refresh_sends_redirect_uri),
            refresh_token_lifetime: seconds("refresh_token_lifetime", &self.refresh_token_lifetime, 1)?,
            refresh_token_idle_lifetime: seconds("refresh_token_idle_lifetime", &self.refresh_token_idle_lifetime, 1)?,
            refresh: self.refresh.unwrap_or(plain.refresh),
            default_lifetime: self.default_lifetime()?,
            dpop: value(&self.dpop),
            send_resource: self.send_resource.unwrap_or(plain.send_resource),
            authorization_params: params(&self.authorization_params),
            token_request: self.token_request.unwrap_or(plain.token_request),
            token_params: params(&self.token_params),
            token_answer_member: text(self.token_answer_member.clone()),
            device_scope_parameter: or(&self.device_scope_parameter, plain.device_scope_parameter),
            login_hint_parameter: text(self.login_hint_parameter.clone()).or(plain.login_hint_parameter).filter(|name| name != "none"),
            revocation: self.revocation.unwrap_or(plain.revocation),
            revokes: self.revokes.unwrap_or(plain.revokes),
            userinfo_request: self.userinfo_request(),
            redirect_host: or(&self.redirect_host, plain.redirect_host),
            redirect_path: or(&self.redirect_path, plain.redirect_path),
            redirect_ports: self.ports()?,
            account_claims: texts(self.account_claims.clone()).unwrap_or(plain.account_claims),
            subject_claims: texts(self.subject_claims.clone()).unwrap_or(plain.subject_claims),
        })
    }

    pub(super) fn network(&self) -> OwnNetwork {
        let proxy = self.proxy.as_ref().map(Spanned::get_ref);
        OwnNetwork { proxy: proxy.map(|proxy| Proxy::of(proxy)), ca_file: text(self.ca_file.clone()).map(Into::into) }
    }

    pub(super) fn identity(&self) -> OwnIdentity {
        OwnIdentity {
            assertion_file: text(self.assertion_file.clone()).map(Into::into),
            provider: text(self.identity_provider.clone()),
            token_file: text(self.identity_token_file.clone()).map(Into::into),
        }
    }

    /// Whether its other keys say already that the client has a secret.
    fn proves_itself(&self) -> bool {
        value(&self.client_auth) == Some(ClientAuth::PrivateKeyJwt) || value(&self.flow) == Some(Flow::ClientCredentials)
    }

    fn userinfo_request(&self) -> UserinfoRequest {
        match self.userinfo_request.as_ref().map(|text| text.get_ref().as_str()) {
            None | Some("get") => UserinfoRequest::Get,
            Some("post") => UserinfoRequest::Post,
            Some(query) => UserinfoRequest::Graphql(query.to_owned()),
        }
    }

    fn default_lifetime(&self) -> Result<Option<DefaultLifetime>, Wrong> {
        let Some(lifetime) = &self.default_lifetime else { return Ok(None) };
        match lifetime.get_ref() {
            SecondsOrNever::Never => Ok(Some(DefaultLifetime::Never)),
            SecondsOrNever::Seconds(seconds) => check::number(*seconds, 1, TEN_YEARS)
                .map(|seconds| Some(DefaultLifetime::Of(Duration::from_secs(seconds))))
                .map_err(at("default_lifetime", lifetime.span())),
        }
    }

    fn ports(&self) -> Result<Vec<u16>, Wrong> {
        let Some(ports) = &self.redirect_port else { return Ok(Vec::new()) };
        let numbers = &ports.get_ref().0;
        if numbers.is_empty() || numbers.len() > MOST_PORTS {
            let fault = Fault::new(format!("must hold between 1 and {MOST_PORTS} ports"));
            return Err(at("redirect_port", ports.span())(fault.hint("leave it out where any port will do")));
        }
        let checked = numbers.iter().map(|port| check::number(*port, 1, u16::MAX)).collect::<Result<_, _>>();
        checked.map_err(at("redirect_port", ports.span()))
    }

    fn separator(&self) -> Result<Option<char>, Wrong> {
        let Some(text) = &self.scope_separator else { return Ok(None) };
        let mut chars = text.get_ref().chars();
        match (chars.next(), chars.next()) {
            (Some(only), None) => Ok(Some(only)),
            _ => Err(at("scope_separator", text.span())(Fault::new("must be one character"))),
        }
    }
}

fn value<T: Copy>(key: &Option<Spanned<T>>) -> Option<T> {
    key.as_ref().map(|value| *value.get_ref())
}

fn seconds(key: &str, value: &Option<Spanned<i64>>, least: u64) -> Result<Option<Duration>, Wrong> {
    let Some(value) = value else { return Ok(None) };
    let seconds = check::number(*value.get_ref(), least, TEN_YEARS);
    seconds.map(|seconds| Some(Duration::from_secs(seconds))).map_err(at(key, value.span()))
}

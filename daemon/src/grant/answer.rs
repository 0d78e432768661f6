//! What a grant says to askers and to people: the token, the summary, and why there is no token.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantState, GrantSummary, Secret, TokenAnswer};

use super::mcp::{AUTHENTICATION_REQUIRED, INSUFFICIENT_SCOPE, LoginKind, LoginNeeded};
use super::record::{AssertionSource, TokenSource};
use super::{Cause, Grant, Health, Phase};
use crate::clock::{Boot, Now};
use crate::oauth::text::{clean, quoted, visible};
use crate::provider::ClientAuth;

impl Grant {
    /// The grant as people see it, but for its holders: the broker knows those. Never a token.
    pub fn summary(&self, now: Now) -> GrantSummary {
        let until = self.served_until(now);
        let has_token = !self.record.token.access_token.expose().is_empty();
        GrantSummary {
            name: self.record.name.clone(),
            provider: self.record.definition.provider.clone(),
            issuer: self.record.definition.issuer.clone(),
            server: self.record.definition.server.clone(),
            authorization_endpoint: self.record.definition.authorization_endpoint.clone(),
            account: self.record.account.clone(),
            resource: self.record.resource.clone(),
            // The broker knows what a bare name stands for, and the rules.
            default: false,
            closed: false,
            scopes: self.record.scopes.clone(),
            state: self.state(now),
            refreshable: self.is_refreshable(),
            client_credentials: self.record.definition.client_credentials,
            dpop: self.record.proof_key.is_some(),
            assertion: self.record.definition.assertion.as_ref().map(|source| source.to_string()),
            on_demand: self.is_on_demand(),
            never_expires: until.is_none() && self.terms.as_ref().is_some_and(|terms| terms.never_expires),
            refresh_token_expires_at: self.ending.as_ref().map(|ending| ending.wall().rfc3339()),
            refresh_token_expires_in: self.ending.as_ref().map(|ending| ending.remaining(now).as_secs()),
            refresh_token_ending: self.ending.as_ref().is_some_and(|ending| ending.is_near(now)),
            expires_at: until.map(|at| wall_of(at, now).rfc3339()),
            expires_in: until.map(|at| at.since(now.boot).as_secs()),
            refreshed_at: self.record.refreshed_at.map(|at| at.rfc3339()),
            next_refresh_in: self.planned().map(|at| at.since(now.boot).as_secs()),
            last_error: self.complaint(now),
            remedy: self.remedy(),
            not_durable: self.is_not_durable(),
            revokes_account: false,
            fingerprint: has_token.then(|| self.record.token.access_token.fingerprint()),
            holders: Vec::new(),
        }
    }

    pub(super) fn answer(&self, now: Now) -> TokenAnswer {
        let until = self.served_until(now);
        TokenAnswer {
            access_token: Secret::new(self.record.token.access_token.expose()),
            token_type: if self.record.proof_key.is_some() { "DPoP" } else { "Bearer" }.into(),
            expires_at: until.map(|at| wall_of(at, now).rfc3339()),
            expires_in: until.map(|at| at.since(now.boot).as_secs()),
            scopes: self.record.scopes.clone(),
            grant: self.record.name.clone(),
            account: self.record.account.clone(),
            resource: self.record.resource.clone(),
        }
    }

    pub(super) fn covers(&self, scopes: &[String]) -> bool {
        self.missing(scopes).next().is_none()
    }

    fn missing<'a>(&'a self, scopes: &'a [String]) -> impl Iterator<Item = &'a str> {
        let never_missing = self.terms.as_ref().map_or(&[][..], |terms| &terms.refresh_scopes);
        scopes.iter().filter(move |scope| !self.record.scopes.contains(scope) && !never_missing.contains(scope)).map(String::as_str)
    }

    pub(super) fn insufficient_scope(&self, scopes: &[String]) -> ErrorBody {
        let name = &self.record.name;
        let missing: Vec<_> = self.missing(scopes).collect();
        let requested = self.record.requested_scopes.iter().map(String::as_str);
        let mut wider: Vec<&str> = Vec::new();
        // What was asked for and not given is asked for once more, and not twice.
        for scope in requested.chain(missing.iter().copied()) {
            if !wider.contains(&scope) {
                wider.push(scope);
            }
        }
        let command = format!("{} --scope {}", self.login_command(), quoted(&wider.join(" ")));
        let mut error = ErrorBody::new(ErrorCode::InsufficientScope, format!("the token of `{name}` does not cover {}", missing.join(" ")))
            .hint(&command);
        error.mcp = Some(self.mcp_error(INSUFFICIENT_SCOPE, &wider, &command));
        error
    }

    pub(super) fn login_required(&self) -> ErrorBody {
        let name = &self.record.name;
        let mut error = ErrorBody::new(ErrorCode::LoginRequired, format!("`{name}` needs a login: {}", self.reason())).hint(self.remedy());
        let scopes: Vec<_> = self.record.requested_scopes.iter().map(String::as_str).collect();
        error.mcp = Some(self.mcp_error(AUTHENTICATION_REQUIRED, &scopes, &self.login_command()));
        error
    }

    pub(super) fn undefined(&self) -> ErrorBody {
        let mut error = self.login_required();
        if self.record.definition.server.is_some() {
            return error;
        }
        error.hint = Some(format!(
            "restore [providers.{}] in the config and run mcp-authctl reload, or {}",
            self.record.definition.provider,
            self.login_command()
        ));
        error
    }

    pub(super) fn unreachable(&self, until: Boot, now: Now) -> ErrorBody {
        let (name, wait) = (&self.record.name, until.since(now.boot));
        let seconds = (wait.as_secs() + u64::from(wait > Duration::from_secs(wait.as_secs()))).max(1);
        let again = if self.is_on_demand() { "ask again then" } else { "it is tried again by itself" };
        ErrorBody::new(ErrorCode::ProviderUnreachable, format!("no fresh token for `{name}`: {}", self.reason()))
            .hint(format!("{again}; mcp-authctl status {name} tells more"))
            .retry_after(seconds)
    }

    pub(super) fn too_soon(&self, until: Boot, now: Now) -> ErrorBody {
        ErrorBody::new(ErrorCode::TooManyRequests, format!("`{}` was refreshed by hand less than 10 s ago", self.record.name))
            .hint("wait a few seconds")
            .retry_after(until.since(now.boot).as_secs() + 1)
    }

    pub(super) fn not_refreshable(&self) -> ErrorBody {
        ErrorBody::new(ErrorCode::Conflict, format!("`{}` holds no refresh token", self.record.name)).hint(self.login_command())
    }

    /// Its tokens are of no use to whoever has not their key, which nobody gets.
    pub(crate) fn bound(&self) -> Result<(), ErrorBody> {
        if self.record.proof_key.is_none() {
            return Ok(());
        }
        let name = &self.record.name;
        let sentence = format!("the tokens of `{name}` are bound to a key that stays in the daemon (DPoP), and go through its relay only");
        Err(ErrorBody::new(ErrorCode::Conflict, sentence).hint(format!("mcp-authctl bridge {name}")))
    }

    pub(super) fn unknown(&self) -> ErrorBody {
        ErrorBody::new(ErrorCode::UnknownGrant, format!("there is no grant `{}`", self.record.name)).hint(self.login_command())
    }

    /// Why there is no token, or why the last refresh failed: one clause.
    pub(super) fn reason(&self) -> String {
        if self.terms.is_none() && self.record.definition.server.is_some() {
            return "its server, or the config, no longer names the authorization server and client of its login".into();
        }
        if self.terms.is_none() {
            return format!("the config no longer holds the provider `{}` as it was at the login", self.record.definition.provider);
        }
        if let Some(ended) = &self.record.ended {
            return ended.reason.clone();
        }
        if !self.record.is_renewable() {
            let rejected = "a resource server rejected the token";
            let expired = match self.record.definition.assertion {
                Some(_) => "the token has expired, and what it was got with was not kept",
                None => "the token has expired, and the provider gave no refresh token",
            };
            return if self.current.rejected { rejected } else { expired }.into();
        }
        let waits_for =
            if self.is_not_durable() { "the disk has not taken its newest tokens yet" } else { "the provider has not answered yet" };
        self.trouble.error.clone().unwrap_or_else(|| waits_for.into())
    }

    pub(super) fn reason_of_the_end(&self) -> String {
        let said = self.trouble.error.clone().unwrap_or_default();
        if self.trouble.ambiguous { format!("ambiguous rotation: an answer of the provider was lost, and then {said}") } else { said }
    }

    fn complaint(&self, now: Now) -> Option<String> {
        let ailing = self.terms.is_none() || self.record.ended.is_some() || self.trouble.error.is_some();
        let spent = !self.record.is_renewable() && !self.is_servable(now);
        let overdue = self.overdue_since(now).filter(|_| !self.is_servable(now));
        let outlived = || overdue.map(|end| format!("its refresh token ended at {}", end.rfc3339()));
        (ailing || spent).then(|| self.reason()).or_else(outlived)
    }

    /// Whether a new token is asked for only when somebody wants one.
    fn is_on_demand(&self) -> bool {
        let by_token = self.record.refresh_token.is_some();
        self.is_refreshable() && self.terms.as_ref().is_some_and(|terms| !(by_token && terms.refresh_ahead))
    }

    fn state(&self, now: Now) -> GrantState {
        match &self.phase {
            _ if self.terms.is_none() || self.record.ended.is_some() => GrantState::LoginRequired,
            _ if !self.record.is_renewable() && !self.is_servable(now) => GrantState::LoginRequired,
            _ if self.overdue_since(now).is_some() && !self.is_servable(now) => GrantState::LoginRequired,
            Phase::Waiting { cause: Cause::Refused, .. } if !self.is_servable(now) => GrantState::LoginRequired,
            Phase::Waiting { .. } => GrantState::Retrying,
            Phase::Running(_) if self.trouble.failures > 0 => GrantState::Retrying,
            Phase::Running(_) | Phase::Saving { .. } => GrantState::Refreshing,
            Phase::Calm => GrantState::Ok,
        }
    }

    /// How its refreshes go.
    pub fn health(&self, now: Now) -> Health {
        match &self.phase {
            _ if self.terms.is_none() => Health::Undefined,
            _ if self.state(now) == GrantState::LoginRequired => Health::LoginNeeded,
            Phase::Calm => Health::Well,
            // The second word of the provider comes in seconds.
            Phase::Running(_) | Phase::Saving { .. } | Phase::Waiting { cause: Cause::Confirm, .. } => Health::Busy,
            Phase::Waiting { cause: Cause::NotSent, .. } => Health::Unreached,
            Phase::Waiting { .. } => Health::Failing,
        }
    }

    /// What helps: where a client asks for itself and is refused, its secret was mostly changed.
    fn remedy(&self) -> String {
        let definition = &self.record.definition;
        let refused = matches!(self.phase, Phase::Waiting { cause: Cause::Refused, .. });
        match (definition.assertion.as_deref().map(AssertionSource::token), &definition.server, &definition.client_id) {
            _ if !refused || !definition.renews_itself() => self.login_command(),
            (Some(TokenSource::File(path)), ..) => {
                format!("see that {} holds a new token, then mcp-authctl refresh {}", shown(path), self.record.name)
            }
            (Some(TokenSource::Grant(grant)), ..) => format!("mcp-authctl login {grant}"),
            (None, Some(_), Some(client_id)) => {
                let by_key = definition.client_auth == Some(ClientAuth::PrivateKeyJwt);
                let option = if by_key { "--private-key-file" } else { "--client-secret-file" };
                format!("{} --client-id {} {option} FILE", self.login_command(), quoted(client_id))
            }
            _ => format!("mcp-authctl provider set-secret {}", definition.provider),
        }
    }

    pub(super) fn login_command(&self) -> String {
        if self.record.definition.is_static() {
            return format!("mcp-authctl add-token {}", self.record.name);
        }
        let definition = &self.record.definition;
        let how = match definition.assertion.as_deref() {
            Some(AssertionSource::Workload(TokenSource::Given)) => " --assertion-file FILE",
            Some(AssertionSource::IdentityProvider { id_token: TokenSource::Given, .. }) => " --identity-token-file FILE",
            _ if definition.client_credentials => " --client-credentials",
            _ => "",
        };
        format!("mcp-authctl login {}{how}", self.record.name)
    }

    fn mcp_error(&self, message: &str, scopes: &[&str], login_command: &str) -> serde_json::Value {
        let definition = &self.record.definition;
        let kind = match &self.terms {
            _ if definition.is_static() => None,
            _ if definition.client_credentials => Some(LoginKind::Client),
            _ if definition.assertion.is_some() => Some(LoginKind::Assertion),
            terms => Some(terms.as_ref().map(|terms| terms.login).unwrap_or_default()),
        };
        let needed = LoginNeeded {
            kind,
            authorization_url: definition.authorization_endpoint.as_deref(),
            token_url: definition.token_endpoint.as_deref(),
            scopes,
            resource: self.record.resource.as_deref(),
            login_command,
        };
        needed.to_json(message)
    }
}

impl fmt::Display for AssertionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::IdentityProvider { provider, definition, .. } = self {
            let issuer = definition.issuer.as_deref().or(definition.token_endpoint.as_deref()).unwrap_or_default();
            write!(f, "the identity provider {}, by ", clean(provider.as_deref().unwrap_or(issuer)))?;
        }
        match self.token() {
            TokenSource::File(path) => write!(f, "the token in {}", shown(path)),
            TokenSource::Given => f.write_str("a token that was given once"),
            TokenSource::Grant(grant) => write!(f, "the ID token of {grant}"),
        }
    }
}

/// A path as it may be shown.
pub(crate) fn shown(path: &Path) -> String {
    visible(&path.to_string_lossy())
}

fn wall_of(at: Boot, now: Now) -> crate::clock::Wall {
    if at >= now.boot {
        now.wall + at.since(now.boot)
    } else {
        crate::clock::Wall(now.wall.0 - i64::try_from(now.boot.since(at).as_millis()).unwrap_or(i64::MAX))
    }
}

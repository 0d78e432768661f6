//! Questions about grants: a token, a refresh, what is held, a static token, a logout.

use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName, Secret, event};
use tokio::sync::oneshot;

use super::accounts::other_account;
use super::core::{Core, Waiting, answer, grant_id};
use super::holders::Keeper;
use super::policy::{Bound, Wanted};
use super::remote::is_for;
use super::served::{Purpose, Served};
use super::{Reply, attempt};
use crate::caller::Caller;
use crate::grant::mcp::{AUTHENTICATION_REQUIRED, LoginKind, LoginNeeded};
use crate::grant::record::Definition;
use crate::grant::{Asker, Grant, Input, Login, Want};
use crate::oauth::challenge::{self, Challenge};
use crate::oauth::identity::Identity;
use crate::oauth::token::TokenResponse;
use crate::provider::remote;
use crate::provider::{Provider, Quirks, RevocationStyle, Revokes};
use crate::secret::AccessToken;
use crate::vault::VaultError;

/// How long a revocation may take before the answer says that it is not confirmed.
const REVOCATION: Duration = Duration::from_secs(10);

impl Core {
    pub(super) fn token(
        &mut self,
        asker: Asker,
        request: wire::TokenRequest,
        (caller, purpose): (Arc<Caller>, Purpose),
        reply: Reply<Served>,
    ) {
        let keeper = Keeper::of(&request, caller.peer().pid);
        self.when_open(reply, move |core, reply| {
            if reply.is_closed() {
                return;
            }
            match core.find(&request).and_then(|grant| core.fits(&grant, purpose).map(|()| grant)) {
                Ok(grant) => core.look_and_judge(Wanted { asker, grant, request, caller, keeper, purpose, reply }),
                Err(error) => answer(reply, Err(error)),
            }
        });
    }

    /// Where the client says that a remote server has rejected the grant's token, that server's metadata is looked at first.
    /// The policy comes after that, which may take its time: a rule that was added meanwhile counts.
    fn look_and_judge(&mut self, wanted: Wanted) {
        if !self.is_rejected(&wanted) {
            return self.judge(wanted);
        }
        let (looked, then) = oneshot::channel();
        let challenge = wanted.request.challenge.as_deref().and_then(|value| Challenge::read([value]));
        let server = self.grants.get(&wanted.grant).and_then(|grant| grant.newest().definition.server.clone()).unwrap_or_default();
        self.look_again(&wanted.grant, challenge.map(|challenge| challenge.from_client(&server)), looked);
        // Whatever the look has shown, the grant knows it by now. The vault may have been locked meanwhile.
        self.task(then, move |core, _| if core.gate.is_open() { core.judge(wanted) } else { answer(wanted.reply, Err(core.locked())) });
    }

    /// Whether a client says that a remote server has rejected the grant's present token.
    fn is_rejected(&self, wanted: &Wanted) -> bool {
        let held = self.grants.get(&wanted.grant).map(Grant::newest).filter(|held| held.definition.server.is_some());
        let rejected = wanted.request.rejected_token.as_ref().map(Secret::expose);
        held.is_some_and(|held| rejected == Some(held.token.access_token.expose()))
    }

    /// The policy has agreed, up to this bound: the grant decides.
    pub(super) fn serve(&mut self, wanted: Wanted, bound: Option<Bound>) {
        let Wanted { asker, grant, request, keeper, purpose, reply, .. } = wanted;
        if let Err(error) = self.held(&grant) {
            return answer(reply, Err(error));
        }
        let held = !self.keepers(&grant).is_empty();
        self.askers.insert(asker, Waiting { grant: grant.clone(), reply, keeper, bound, purpose });
        self.give(&grant, Input::Wanted(asker, want(request, held)));
    }

    pub(super) fn refresh(&mut self, asker: Asker, name: GrantName, force: bool, reply: Reply<Served>) {
        self.when_open(reply, move |core, reply| {
            let name = core.meant(&name);
            let refused = core.held(&name).err().or_else(|| if force { None } else { core.kept(&name) });
            if let Some(error) = refused {
                return answer(reply, Err(error));
            }
            core.askers.insert(asker, Waiting { grant: name.clone(), reply, keeper: None, bound: None, purpose: Purpose::Refresh });
            core.give(&name, Input::RefreshWanted(asker));
        });
    }

    pub(super) fn grants(&mut self, reply: Reply<Vec<wire::GrantSummary>>) {
        let now = self.now();
        answer(reply, Ok(self.grants.values().map(|grant| self.summary(grant, now)).collect()));
    }

    pub(super) fn grant(&mut self, name: &GrantName, reply: Reply<wire::GrantSummary>) {
        let now = self.now();
        answer(reply, self.held(&self.meant(name)).map(|grant| self.summary(grant, now)));
    }

    /// Stores a token that a person brought, after asking the provider whose it is.
    pub(super) fn add_token(&mut self, name: GrantName, token: wire::StaticToken, reply: Reply<wire::GrantSummary>) {
        let access_token = AccessToken::new(token.access_token.expose().to_owned());
        if access_token.expose().is_empty() || access_token.expose().bytes().any(|byte| !byte.is_ascii_graphic()) {
            let error = ErrorBody::new(ErrorCode::InvalidRequest, "the token is empty or holds a space or a control character");
            return answer(reply, Err(error.hint(format!("mcp-authctl add-token {name} reads it from standard input"))));
        }
        let provider = self.config.provider(name.base()).cloned().unwrap_or_else(|| Provider::unknown(name.base()));
        let errand = attempt::identify(self.way(provider.clone()), access_token.clone());
        self.task(errand, move |core, identity| match identity.unwrap_or(Ok(Identity::default())) {
            Err(()) => {
                let error = ErrorBody::new(ErrorCode::InvalidRequest, format!("{} rejects this token", provider.name));
                answer(reply, Err(error.hint("look whether it is whole, and not revoked or expired")));
            }
            // The vault may have been locked meanwhile.
            Ok(identity) => core.when_open(reply, move |core, reply| {
                let replace = token.replace;
                let login = core.static_login(&provider, token, access_token, identity);
                let other = core.grants.get(&name).and_then(|held| other_account(held.newest(), &login)).filter(|_| !replace);
                if let Some(names) = other {
                    return answer(reply, Err(other_token(&name, &names)));
                }
                core.storing.push((name.clone(), reply));
                core.log_in(&name, login);
            }),
        });
    }

    /// A grant has saved its new tokens: whoever brought them is told.
    pub(super) fn stored(&mut self, name: &GrantName) {
        let (done, waiting) = std::mem::take(&mut self.storing).into_iter().partition(|(stored, _)| stored == name);
        self.storing = waiting;
        for (name, reply) in done {
            self.grant(&name, reply);
        }
    }

    /// A grant goes before it has saved its new tokens: whoever brought them is told.
    pub(super) fn unstored(&mut self, name: &GrantName) {
        let gone = || ErrorBody::new(ErrorCode::Conflict, format!("`{name}` was let go before its new token was stored"));
        let (lost, waiting) = std::mem::take(&mut self.storing).into_iter().partition(|(stored, _)| stored == name);
        self.storing = waiting;
        for (name, reply) in lost {
            answer(reply, Err(gone().hint(format!("mcp-authctl status {name}"))));
        }
        self.login_lost(name, &gone().hint(format!("mcp-authctl login {name}")));
    }

    fn static_login(&self, provider: &Provider, token: wire::StaticToken, access_token: AccessToken, identity: Identity) -> Box<Login> {
        let definition =
            Definition { provider: provider.name.clone(), userinfo_endpoint: provider.endpoints.userinfo.clone(), ..Definition::default() };
        Box::new(Login {
            terms: self.terms_of(&definition).expect("a static token needs no provider"),
            definition,
            response: TokenResponse {
                access_token,
                token_type: "Bearer".into(),
                lifetime: token.expires_in.map(Duration::from_secs),
                refresh_token: None,
                refresh_token_lifetime: None,
                scopes: Some(token.scopes.clone()),
                unusable: None,
                id_token: None,
                owner: Box::default(),
            },
            proof_key: None,
            sent_at: self.now(),
            account: identity.account,
            subject: identity.subject,
            resource: None,
            requested_scopes: token.scopes,
        })
    }

    /// New tokens for a name, whether it is held or not. The grant saves them and tells when that is done.
    pub(super) fn log_in(&mut self, name: &GrantName, login: Box<Login>) {
        if self.grants.contains_key(name) {
            return self.give(name, Input::LoggedIn(login));
        }
        let (now, life) = (self.now(), self.life());
        let (grant, effects) = Grant::logged_in(name.clone(), login, now, life);
        self.admit(name.clone(), grant, effects);
    }

    /// The grant serves nobody from now on, its record is removed, and its tokens are revoked at the provider: whatever
    /// the provider says, nothing is kept. It is not asked to revoke where that ends more than this grant, unless the
    /// request says so.
    pub(super) fn logout(&mut self, name: GrantName, request: &wire::LogoutRequest, reply: Reply<wire::LogoutAnswer>) {
        if let Some((revocation, reason)) = self.undeleted.get(&name).cloned() {
            let id = grant_id(&name);
            let done = self.back(move |core, removed| core.logged_out(name, removed, (revocation, reason), reply));
            return self.edges.vault.delete(id, done);
        }
        if let Err(error) = self.held(&name) {
            return answer(reply, Err(error));
        }
        let Some((way, _)) = self.way_of(&name) else { return };
        let Some(newest) = self.grants.get(&name).map(|grant| (grant.newest().clone(), grant.running())) else { return };
        self.release(&name);
        self.holders.forget(&name);
        let (record, running) = newest;
        self.forget_clients(&record.definition);
        let may_revoke = self.provider_of(&record.definition).is_some() && !record.definition.is_static();
        let skips = may_revoke && skips_revocation(request, &way.provider.quirks);
        // Where the definition is no longer believed, late tokens go no more than the ones that are held.
        if let Some(ticket) = running.filter(|_| may_revoke && !skips) {
            self.leaving.insert(ticket, (way.clone(), record.clone()));
        }
        let (removed, is_removed) = tokio::sync::oneshot::channel();
        let done = Box::new(move |result| {
            // The errand below waits for it.
            let _ = removed.send(result);
        });
        self.edges.vault.delete(grant_id(&name), done);
        let errand = async move {
            let revoked =
                if may_revoke && !skips { tokio::time::timeout(REVOCATION, attempt::revoke(way, record)).await } else { Ok(Ok(false)) };
            (revoked.unwrap_or_else(|_| Err("no answer in 10 s".into())), is_removed.await)
        };
        self.task(errand, move |core, outcome| {
            let (revoked, removed) = outcome.unwrap_or_else(|| (Err("a fault of the daemon".into()), Ok(Ok(()))));
            core.announce(event::LOGGED_OUT, Some(name.clone()), None);
            let revoked = match revoked {
                _ if skips => (wire::Revocation::Skipped, None),
                Ok(true) => (wire::Revocation::Confirmed, None),
                Ok(false) => (wire::Revocation::Unsupported, None),
                Err(reason) => (wire::Revocation::Unconfirmed, Some(reason)),
            };
            core.logged_out(name, removed.unwrap_or(Ok(())), revoked, reply);
        });
    }

    /// The record of a grant that was logged out is gone, or the disk keeps it: then another logout tries again.
    fn logged_out(
        &mut self,
        name: GrantName,
        removed: Result<(), VaultError>,
        (revocation, reason): (wire::Revocation, Option<String>),
        reply: Reply<wire::LogoutAnswer>,
    ) {
        if let Err(error) = removed {
            let sentence = format!("`{name}` is logged out, but its record could not be removed: {error}");
            let hint = format!("mcp-authctl logout {name}, or it is back after a restart");
            if !self.grants.contains_key(&name) {
                self.undeleted.insert(name, (revocation, reason));
            }
            return answer(reply, Err(ErrorBody::new(ErrorCode::InternalError, sentence).hint(hint)));
        }
        self.undeleted.remove(&name);
        answer(reply, Ok(wire::LogoutAnswer { grant: name, revocation, reason }));
    }

    /// A grant that is held, or why not.
    pub(super) fn held(&self, name: &GrantName) -> Result<&Grant, ErrorBody> {
        if self.set_aside.contains(name) {
            return Err(Self::aside(name));
        }
        self.grants.get(name).ok_or_else(|| self.unknown(name))
    }

    /// The grant that a request means: by name, by resource, or both.
    pub(super) fn find(&self, request: &wire::TokenRequest) -> Result<GrantName, ErrorBody> {
        match (&request.grant, &request.resource) {
            (Some(name), resource) => {
                let name: GrantName =
                    name.parse().map_err(|error: wire::NameError| ErrorBody::new(ErrorCode::InvalidRequest, error.to_string()))?;
                let name = self.meant(&name);
                let grant = self.held(&name)?;
                if resource.as_ref().is_some_and(|resource| !is_for(grant, resource)) {
                    return Err(ErrorBody::new(ErrorCode::InvalidRequest, format!("`{name}` is not a grant for that resource")));
                }
                Ok(name)
            }
            (None, Some(resource)) => self.of_resource(resource),
            (None, None) => Err(ErrorBody::new(ErrorCode::InvalidRequest, "the request names neither `grant` nor `resource`")),
        }
    }

    /// Nobody is logged in under this name. What helps depends on what is known by it.
    fn unknown(&self, name: &GrantName) -> ErrorBody {
        let labelled: Vec<_> = self.grants.keys().filter(|held| held.base() == name.base()).cloned().collect();
        if name.label().is_none() && labelled.len() > 1 {
            let error = ambiguous(&format!("`{name}` could be any of several grants"), &labelled);
            let hint = format!(
                "{}; for tokens, `mcp-authctl use {}` lets `{name}` mean one of them",
                error.hint.clone().unwrap_or_default(),
                labelled[0]
            );
            return error.hint(hint);
        }
        if let (None, [held]) = (name.label(), labelled.as_slice()) {
            let hint = format!("did you mean `{held}`? else mcp-authctl login {name}");
            return ErrorBody::new(ErrorCode::UnknownGrant, format!("there is no grant `{name}`")).hint(hint);
        }
        if name.label().is_none() && remote::find(name.base()).is_some() {
            let command = format!("mcp-authctl login {name}");
            return ErrorBody::new(ErrorCode::LoginRequired, format!("nobody is logged in to `{name}`")).hint(command);
        }
        let Some(provider) = self.config.provider(name.base()) else {
            let held = wire::similar(name.as_str(), self.grants.keys().map(GrantName::as_str)).map(str::to_owned);
            let meant = held.or_else(|| self.similar_provider(name.base()));
            let lists = "mcp-authctl status lists the grants, mcp-authctl provider list the providers";
            return ErrorBody::new(ErrorCode::UnknownGrant, format!("there is no grant and no provider `{name}`"))
                .hint(else_try(meant, lists));
        };
        let command = format!("mcp-authctl login {name}");
        let meant = name.label().and_then(|label| wire::similar(label, labelled.iter().filter_map(GrantName::label)));
        let hint = else_try(meant.map(|label| format!("{}:{label}", name.base())), &command);
        let mut error = ErrorBody::new(ErrorCode::LoginRequired, format!("nobody is logged in to `{name}`")).hint(hint);
        let scopes: Vec<_> = provider.scopes.iter().map(String::as_str).collect();
        let needed = LoginNeeded {
            kind: Some(LoginKind::of(&provider.quirks)),
            authorization_url: provider.endpoints.authorization.as_deref(),
            token_url: provider.endpoints.token.as_deref(),
            scopes: &scopes,
            resource: None,
            login_command: &command,
        };
        error.mcp = Some(needed.to_json(AUTHENTICATION_REQUIRED));
        error
    }
}

/// Whether a logout only forgets: the tokens live on at the provider.
fn skips_revocation(request: &wire::LogoutRequest, quirks: &Quirks) -> bool {
    match request.revoke {
        Some(revoke) => !revoke,
        None => ends_account(quirks),
    }
}

/// Whether a revocation ends every login of this person with the client.
pub(super) fn ends_account(quirks: &Quirks) -> bool {
    quirks.revokes == Revokes::Account && quirks.revocation != RevocationStyle::None
}

/// The scopes that a request names, itself or in the challenge that it brings.
pub(super) fn named_scopes(request: &wire::TokenRequest) -> Vec<String> {
    let mut scopes = request.scopes.clone();
    if let Some(challenged) = request.challenge.as_deref().and_then(challenge::scopes) {
        scopes.extend(challenged);
    }
    scopes
}

fn want(request: wire::TokenRequest, held: bool) -> Want {
    Want {
        min_valid_for: request.min_valid_for.map(Duration::from_secs),
        scopes: named_scopes(&request),
        rejected: request.rejected_token.map(|token| AccessToken::new(token.expose().to_owned())),
        held,
    }
}

fn other_token(grant: &GrantName, (held, new): &(String, String)) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("`{grant}` holds a token of {held}, and this one is {new}'s; nothing was changed"))
        .hint(format!("mcp-authctl add-token {grant} --replace, or mcp-authctl add-token {}:LABEL", grant.base()))
}

/// What somebody may have meant, and what to do else.
pub(super) fn else_try(meant: Option<String>, command: &str) -> String {
    meant.map_or_else(|| command.to_owned(), |meant| format!("did you mean `{meant}`? else {command}"))
}

pub(super) fn ambiguous(what: &str, choices: &[GrantName]) -> ErrorBody {
    let mut error = ErrorBody::new(ErrorCode::AmbiguousGrant, what)
        .hint(format!("name one of {}", choices.iter().map(GrantName::as_str).collect::<Vec<_>>().join(", ")));
    error.choices = choices.iter().map(ToString::to_string).collect();
    error
}

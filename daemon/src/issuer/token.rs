//! PURE: what a client gets and gives back: tokens for a code or a refresh token (RFC 6749 sections 4.1.3 and 6, RFC 9068, OpenID
//! Connect Core section 3.1.3), revocation (RFC 7009), and who a token speaks for (OpenID Connect Core section 5.3).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::authorize::{Code as IssuedCode, hash, same};
use super::core::{Change, Core, Outcome};
use super::error::{Code, Refusal};
use super::family::{Birth, Family, Worth};
use super::keys::{ACCESS_TOKEN, ID_TOKEN};
use super::params::Params;
use super::reply::Reply;
use super::{Random, random_text};
use crate::clock::Now;

/// RFC 6749 section 5.1.
#[derive(Serialize)]
struct Tokens<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: &'a str,
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<&'a str>,
}

/// What is asked for: these scopes of the family, for this authorization request.
struct Wanted {
    scopes: Vec<String>,
    nonce: Option<String>,
}

impl Core {
    pub(super) fn token(&mut self, client: &str, params: &Params, now: Now, random: Random<'_>) -> Result<Outcome, Refusal> {
        self.holdings()?;
        match params.get("grant_type") {
            Some("authorization_code") => self.by_code(client, params, now, random),
            Some("refresh_token") => self.by_refresh_token(client, params, now, random),
            Some(_) => Err(Refusal::new(Code::UnsupportedGrantType, "grant_type must be authorization_code or refresh_token")),
            None => Err(Refusal::new(Code::InvalidRequest, "grant_type is missing")),
        }
    }

    fn by_code(&mut self, client: &str, params: &Params, now: Now, random: Random<'_>) -> Result<Outcome, Refusal> {
        let code = params.get("code").ok_or(Refusal::new(Code::InvalidRequest, "code is missing"))?;
        let verifier = params.get("code_verifier").ok_or(Refusal::new(Code::InvalidRequest, "code_verifier is missing"));
        let unknown = Refusal::new(Code::InvalidGrant, "the code is unknown, expired or used");
        let hash = hash(code);
        let at = self.codes.iter().position(|issued| issued.hash == hash).ok_or(unknown)?;
        // One attempt, right or wrong: nobody tries verifiers on a code that was seen on its way.
        let issued = self.codes.remove(at);
        if let Some(family) = &issued.spent {
            // RFC 6749 section 4.1.2: whoever comes second, one of the two is a thief.
            let end = Change::End(family.clone());
            self.codes.push(issued);
            return Ok(self.refused(unknown).after(end));
        }
        check_code(&issued, client, params, verifier?, now).map_err(|description| Refusal::new(Code::InvalidGrant, description))?;
        let IssuedCode { request, approved_at, .. } = issued.clone();
        same_resource(params, &request.audience)?;
        let wanted = Wanted { scopes: request.scopes.clone(), nonce: request.nonce };
        let birth = Birth { client_id: request.client_id, audience: request.audience, scopes: request.scopes, approved_at };
        let born = Family::new(birth, now, random);
        let reply = self.tokens(&born, &wanted, now, random)?;
        let family = born.0;
        let spent = IssuedCode { spent: Some(family.id.clone()), ..issued };
        Ok(Outcome::reply(reply).after(Change::Save(Box::new(family), Some(Box::new(spent)))))
    }

    fn by_refresh_token(&mut self, client: &str, params: &Params, now: Now, random: Random<'_>) -> Result<Outcome, Refusal> {
        let token = params.get("refresh_token").ok_or(Refusal::new(Code::InvalidRequest, "refresh_token is missing"))?;
        let unknown = Refusal::new(Code::InvalidGrant, "the refresh token is unknown, expired or revoked");
        let families = &self.holdings()?.families;
        let family = Family::id_in(token).and_then(|id| families.get(id)).filter(|family| family.client_id == client).ok_or(unknown)?;
        if family.is_stale(now.boot) {
            return Ok(self.refused(unknown).after(Change::End(family.id.clone())));
        }
        match family.worth(token, now.boot) {
            Worth::Good => {}
            Worth::Again => tracing::info!(client, "a refresh token came again within moments: the answer to it may have been lost"),
            Worth::Nothing => {
                tracing::warn!(client, "a used refresh token came again; the login that it belongs to is ended");
                let refusal = Refusal::new(Code::InvalidGrant, "the refresh token was used before: the login has ended");
                return Ok(self.refused(refusal).after(Change::End(family.id.clone())));
            }
        }
        same_resource(params, &family.audience)?;
        let scopes = self.narrowed(family, params)?;
        let next = family.rotated(token, now, random);
        let reply = self.tokens(&next, &Wanted { scopes, nonce: None }, now, random)?;
        Ok(Outcome::reply(reply).after(Change::Save(Box::new(next.0), None)))
    }

    /// The scopes of a refresh: those asked for, else all, as far as the config still allows them.
    fn narrowed(&self, family: &Family, params: &Params) -> Result<Vec<String>, Refusal> {
        let client = self.settings.client(&family.client_id).ok_or(Refusal::new(Code::InvalidClient, "the client is not known here"))?;
        if !self.settings.serves(&family.audience) {
            return Err(Refusal::new(Code::InvalidTarget, "the resource is not known here any more"));
        }
        let asked: Vec<String> = match params.get("scope") {
            Some(scope) => scope.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
            None => family.scopes.clone(),
        };
        if !asked.iter().all(|scope| family.scopes.contains(scope)) {
            return Err(Refusal::new(Code::InvalidScope, "a scope was not approved with this login"));
        }
        Ok(asked.into_iter().filter(|scope| self.settings.may_have(client, &family.audience, scope)).collect())
    }

    /// The answer for a family and its new refresh token.
    fn tokens(&self, new: &(Family, Zeroizing<String>), wanted: &Wanted, now: Now, random: Random<'_>) -> Result<Reply, Refusal> {
        let (family, refresh_token) = new;
        let scope = wanted.scopes.join(" ");
        let access_token = self.access_token(family, &scope, now, random)?;
        let openid = wanted.scopes.iter().any(|scope| scope == "openid");
        let id_token = if openid { Some(self.id_token(family, wanted, &access_token, now)?) } else { None };
        let tokens = Tokens {
            access_token: &access_token,
            token_type: "Bearer",
            expires_in: self.settings.access_token_lifetime.as_secs(),
            refresh_token,
            scope: &scope,
            id_token: id_token.as_ref().map(|token| token.as_str()),
        };
        Ok(Reply::json(200, &tokens))
    }

    /// RFC 9068 section 2.
    fn access_token(&self, family: &Family, scope: &str, now: Now, random: Random<'_>) -> Result<Zeroizing<String>, Refusal> {
        let holdings = self.holdings()?;
        let issued_at = now.wall.0.div_euclid(1000);
        let claims = json!({
            "iss": self.issuer,
            "sub": holdings.subject,
            "aud": family.audience,
            "exp": issued_at.saturating_add_unsigned(self.settings.access_token_lifetime.as_secs()),
            "iat": issued_at,
            "jti": *random_text::<16>(random),
            "client_id": family.client_id,
            "scope": scope,
            "sid": family.sid,
        });
        Ok(holdings.key.sign(ACCESS_TOKEN, &claims)?)
    }

    /// OpenID Connect Core section 2.
    fn id_token(&self, family: &Family, wanted: &Wanted, access_token: &str, now: Now) -> Result<Zeroizing<String>, Refusal> {
        let holdings = self.holdings()?;
        let issued_at = now.wall.0.div_euclid(1000);
        let mut claims = json!({
            "iss": self.issuer,
            "sub": holdings.subject,
            "aud": family.client_id,
            "exp": issued_at.saturating_add_unsigned(self.settings.access_token_lifetime.as_secs()),
            "iat": issued_at,
            "auth_time": family.approved_at,
            "sid": family.sid,
            "at_hash": URL_SAFE_NO_PAD.encode(&hash(access_token)[..16]),
        });
        if let Some(nonce) = &wanted.nonce {
            claims["nonce"] = nonce.as_str().into();
        }
        self.add_profile(&mut claims, &wanted.scopes);
        Ok(holdings.key.sign(ID_TOKEN, &claims)?)
    }

    /// OpenID Connect Core section 5.4.
    fn add_profile(&self, claims: &mut Value, scopes: &[impl AsRef<str>]) {
        if let Some(user) = self.user.as_deref().filter(|_| scopes.iter().any(|scope| scope.as_ref() == "profile")) {
            claims["preferred_username"] = user.into();
        }
    }

    /// Ends the family of a refresh or access token. A token that is not known is none (RFC 7009 section 2.2).
    pub(super) fn revoke(&self, client: &str, params: &Params) -> Result<Outcome, Refusal> {
        let token = params.get("token").ok_or(Refusal::new(Code::InvalidRequest, "token is missing"))?;
        let holdings = self.holdings()?;
        if let Some(id) = Family::id_in(token).filter(|id| self.is_undeleted(id)) {
            return Ok(Outcome::reply(Reply::text(200, "")).after(Change::End(id.to_owned())));
        }
        let by_refresh_token = Family::id_in(token).and_then(|id| holdings.families.get(id));
        let by_access_token = || {
            let claims = holdings.key.verify(ACCESS_TOKEN, token).ok()?;
            holdings.families.values().find(|family| claims["sid"] == family.sid)
        };
        let family = by_refresh_token.or_else(by_access_token).filter(|family| family.client_id == client);
        let done = Outcome::reply(Reply::text(200, ""));
        Ok(match family {
            Some(family) => done.after(Change::End(family.id.clone())),
            None => done,
        })
    }

    pub(super) fn userinfo(&self, token: &str, now: Now) -> Reply {
        self.claims_for(token, now).map_or_else(|refusal| Reply::refusal(refusal, &self.issuer), |claims| Reply::json(200, &claims))
    }

    fn claims_for(&self, token: &str, now: Now) -> Result<Value, Refusal> {
        let invalid = |description| Refusal::new(Code::InvalidToken, description);
        let holdings = self.holdings()?;
        let claims = holdings.key.verify(ACCESS_TOKEN, token).map_err(|_| invalid("the access token is not one of this issuer"))?;
        if claims["iss"] != self.issuer || !claims["aud"].as_str().is_some_and(|audience| self.settings.serves(audience)) {
            return Err(invalid("the access token is for another audience"));
        }
        if claims["exp"].as_i64().is_none_or(|exp| exp <= now.wall.0.div_euclid(1000)) {
            return Err(invalid("the access token has expired"));
        }
        if !holdings.families.values().any(|family| claims["sid"] == family.sid) {
            return Err(invalid("the access token was revoked"));
        }
        let scopes: Vec<&str> = claims["scope"].as_str().unwrap_or_default().split(' ').collect();
        if !scopes.contains(&"openid") {
            return Err(Refusal::new(Code::InsufficientScope, "the access token does not have the scope openid"));
        }
        let mut answer = json!({ "sub": holdings.subject });
        self.add_profile(&mut answer, &scopes);
        Ok(answer)
    }
}

/// Whether a code is good for this client and this attempt (RFC 6749 section 4.1.3, RFC 7636 section 4.6).
fn check_code(issued: &IssuedCode, client: &str, params: &Params, verifier: &str, now: Now) -> Result<(), &'static str> {
    let challenge = URL_SAFE_NO_PAD.encode(hash(verifier));
    match () {
        () if now.boot >= issued.until => Err("the code is unknown, expired or used"),
        () if issued.request.client_id != client => Err("the code was issued to another client"),
        () if params.get("redirect_uri").is_some_and(|uri| uri != issued.request.redirect_uri) => {
            Err("redirect_uri is not that of the authorization request")
        }
        () if !is_verifier(verifier) || !same(&issued.request.challenge, &challenge) => Err("code_verifier is wrong"),
        () => Ok(()),
    }
}

/// RFC 7636 section 4.1.
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
}

/// A token is for the resource that the person saw (RFC 8707 section 2.2).
fn same_resource(params: &Params, audience: &str) -> Result<(), Refusal> {
    match params.get("resource") {
        Some(resource) if resource != audience => Err(Refusal::new(Code::InvalidTarget, "the resource is not the one that was approved")),
        _ => Ok(()),
    }
}

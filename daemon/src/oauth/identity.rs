//! Who logged in: from the ID token (OpenID Connect Core section 2), the token answer itself, or the userinfo endpoint (section
//! 5.3), by the preset's choice of members. For people and for telling accounts apart; nothing is decided by it that the token
//! does not decide.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::form;
use super::members::Members;
use super::text::clean_option;
use crate::clock::Wall;
use crate::provider::{Quirks, UserinfoRequest};
use crate::secret::AccessToken;
use crate::transport::{Method, Request, Response};

/// Who logged in, texts sanitised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// For people: a login name or e-mail address.
    pub account: Option<String>,
    /// For the provider: `sub` or an id. Numbers are written as texts.
    pub subject: Option<String>,
}

/// Why nobody is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The ID token is not a JWT with claims.
    #[error("the ID token cannot be read")]
    Unreadable,
    /// OpenID Connect Core section 3.1.3.7, items 2, 3 and 9.
    #[error("the ID token's {0} is not as it must be")]
    Claim(&'static str),
    /// The userinfo endpoint did not answer with claims.
    #[error("the userinfo endpoint answered status {0} without claims")]
    Userinfo(u16),
}

/// What an ID token is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    /// The issuer, byte for byte; `None` where it is not known.
    pub issuer: Option<&'a str>,
    /// The client id.
    pub client_id: &'a str,
    /// The present time.
    pub now: Wall,
}

/// How wrong our clock, or the provider's, may be.
const LEEWAY: Duration = Duration::from_secs(300);
/// How long the userinfo endpoint may take; a login does not fail without it.
const USERINFO_TIMEOUT: Duration = Duration::from_secs(10);

/// The identity in an ID token. Its signature is not checked: it came over TLS from the token endpoint itself (OpenID Connect
/// Core section 3.1.3.7, item 6).
pub fn from_id_token(token: &AccessToken, audience: Audience<'_>, quirks: &Quirks) -> Result<Identity, IdentityError> {
    let payload = token.expose().split('.').nth(1).ok_or(IdentityError::Unreadable)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).map_err(|_| IdentityError::Unreadable)?;
    let claims = Members::from_json(&Zeroizing::new(payload)).map_err(|_| IdentityError::Unreadable)?;
    if audience.issuer.is_some_and(|issuer| claims.text("iss") != Some(issuer)) {
        return Err(IdentityError::Claim("iss"));
    }
    if !claims.texts("aud").is_some_and(|aud| aud.contains(&audience.client_id)) {
        return Err(IdentityError::Claim("aud"));
    }
    let now = audience.now.0 as f64 / 1000.0;
    if !claims.number("exp").is_some_and(|exp| exp + LEEWAY.as_secs_f64() > now) {
        return Err(IdentityError::Claim("exp"));
    }
    Ok(identity(&claims, quirks))
}

/// Asks the userinfo endpoint (OpenID Connect Core section 5.3.1), or a preset's own account endpoint in its own way.
pub fn userinfo(endpoint: &str, token: &AccessToken, quirks: &Quirks) -> Request {
    let mut headers = vec![("accept", "application/json".into()), ("authorization", form::bearer(token))];
    let (method, body) = match &quirks.userinfo_request {
        UserinfoRequest::Get => (Method::Get, None),
        UserinfoRequest::Post => (Method::Post, None),
        UserinfoRequest::Graphql(query) => {
            headers.push(("content-type", "application/json".into()));
            (Method::Post, Some(serde_json::json!({ "query": query }).to_string().into()))
        }
    };
    Request { headers, body, timeout: USERINFO_TIMEOUT, ..Request::new(method, endpoint) }
}

/// What a userinfo answer says of the token that it was asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The token is not good any more.
    Token,
    /// Something else.
    Other,
}

/// Why an answer is a refusal; `None` where it is none that we understand. Slack refuses with status 200 and `ok: false`.
pub fn refused(response: &Response) -> Option<Refused> {
    const DEAD: [&str; 6] = ["invalid_auth", "not_authed", "token_expired", "token_revoked", "account_inactive", "invalid_token"];
    match response.status {
        401 => Some(Refused::Token),
        200 => {
            let members = Members::from_json(&response.body).ok().filter(|members| members.is_false("ok"))?;
            Some(if members.text("error").is_some_and(|code| DEAD.contains(&code)) { Refused::Token } else { Refused::Other })
        }
        _ => None,
    }
}

/// The identity in a userinfo answer.
pub fn from_userinfo(response: &Response, quirks: &Quirks) -> Result<Identity, IdentityError> {
    let error = IdentityError::Userinfo(response.status);
    if response.status != 200 || refused(response).is_some() {
        return Err(error);
    }
    Ok(identity(&Members::from_json(&response.body).map_err(|_| error)?, quirks))
}

impl Identity {
    /// Adds what userinfo knows, unless it speaks of somebody else (OpenID Connect Core section 5.3.2).
    #[must_use]
    pub fn or(self, userinfo: Self) -> Self {
        match (&self.subject, &userinfo.subject) {
            (Some(mine), Some(theirs)) if mine != theirs => self,
            _ => Self { account: self.account.or(userinfo.account), subject: self.subject.or(userinfo.subject) },
        }
    }
}

/// The identity in any answer that names somebody.
pub(super) fn identity(claims: &Members, quirks: &Quirks) -> Identity {
    let first = |names: &[String]| names.iter().find_map(|name| clean_option(claims.scalar(name).as_deref()));
    Identity { account: first(&quirks.account_claims), subject: first(&quirks.subject_claims) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::samples::{answer, header, json, quirks};

    const AUDIENCE: Audience<'_> = Audience { issuer: Some("https://as.example"), client_id: "client-1", now: Wall(1_000_000_000) };

    fn id_token(claims: &str) -> AccessToken {
        AccessToken::new(format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims)))
    }

    fn who(account: Option<&str>, subject: Option<&str>) -> Identity {
        Identity { account: account.map(str::to_owned), subject: subject.map(str::to_owned) }
    }

    #[test]
    fn an_id_token_names_its_owner() {
        for (claims, expected) in [
            (r#"{"iss":"https://as.example","aud":"client-1","exp":2000000,"sub":"u1","email":"a@b"}"#, who(Some("a@b"), Some("u1"))),
            (r#"{"iss":"https://as.example","aud":["x","client-1"],"exp":999800,"sub":"u1"}"#, who(None, Some("u1"))),
            (
                r#"{"iss":"https://as.example","aud":"client-1","exp":2e6,"sub":"","email":"","preferred_username":"eve\u001b"}"#,
                who(Some("eve"), None),
            ),
        ] {
            assert_eq!(from_id_token(&id_token(claims), AUDIENCE, &quirks()), Ok(expected), "{claims}");
        }
    }

    #[test]
    fn an_id_token_for_somebody_else_or_of_the_past_is_not_believed() {
        for (claims, claim) in [
            (r#"{"iss":"https://as.example/","aud":"client-1","exp":2000000}"#, "iss"),
            (r#"{"aud":"client-1","exp":2000000}"#, "iss"),
            (r#"{"iss":"https://as.example","aud":"client-2","exp":2000000}"#, "aud"),
            (r#"{"iss":"https://as.example","aud":["client-10"],"exp":2000000}"#, "aud"),
            (r#"{"iss":"https://as.example","exp":2000000}"#, "aud"),
            (r#"{"iss":"https://as.example","aud":"client-1","exp":999000}"#, "exp"),
            (r#"{"iss":"https://as.example","aud":"client-1"}"#, "exp"),
        ] {
            assert_eq!(from_id_token(&id_token(claims), AUDIENCE, &quirks()), Err(IdentityError::Claim(claim)), "{claims}");
        }
        for text in ["", "a", "a.b.c", "e30.!!!.x", "e30.W10.x"] {
            assert_eq!(from_id_token(&AccessToken::new(text.into()), AUDIENCE, &quirks()), Err(IdentityError::Unreadable), "{text}");
        }
    }

    #[test]
    fn userinfo_is_asked_with_a_bearer_header_and_numbers_become_texts() {
        let request = userinfo("https://api.github.com/user", &AccessToken::new("gho_1".into()), &quirks());
        assert_eq!((request.method, request.url.as_str()), (Method::Get, "https://api.github.com/user"));
        assert_eq!(header(&request, "authorization"), Some("Bearer gho_1"));
        let github = json(200, r#"{"login":"octocat","id":583231,"plan":{"name":"pro"},"email":null}"#);
        assert_eq!(from_userinfo(&github, &quirks()), Ok(who(Some("octocat"), Some("583231"))));
    }

    #[test]
    fn some_providers_want_a_post_and_linear_a_graphql_query() {
        let token = AccessToken::new("at-1".into());
        let post = userinfo("https://a.example/me", &token, &Quirks { userinfo_request: UserinfoRequest::Post, ..quirks() });
        assert_eq!((post.method, post.body.is_none(), header(&post, "content-type")), (Method::Post, true, None));
        let query = UserinfoRequest::Graphql("{ viewer { id \"x\" } }".into());
        let linear = Quirks { userinfo_request: query, account_claims: vec!["data.viewer.email".into()], ..quirks() };
        let request = userinfo("https://a.example/graphql", &token, &linear);
        assert_eq!((request.method, header(&request, "authorization")), (Method::Post, Some("Bearer at-1")));
        assert_eq!(header(&request, "content-type"), Some("application/json"));
        assert_eq!(request.body.unwrap().0.as_str(), r#"{"query":"{ viewer { id \"x\" } }"}"#);
        let told = json(200, r#"{"data":{"viewer":{"id":"u1","email":"eve@x"}}}"#);
        assert_eq!(from_userinfo(&told, &linear), Ok(who(Some("eve@x"), None)));
        assert_eq!(from_userinfo(&json(200, r#"{"data":null,"errors":[{"message":"no"}]}"#), &linear), Ok(Identity::default()));
    }

    #[test]
    fn a_refusal_with_status_200_is_one_and_only_a_dead_token_is_called_dead() {
        for (response, expected) in [
            (json(401, ""), Some(Refused::Token)),
            (json(200, r#"{"ok":false,"error":"token_revoked"}"#), Some(Refused::Token)),
            (json(200, r#"{"ok":false,"error":"ratelimited"}"#), Some(Refused::Other)),
            (json(200, r#"{"ok":false}"#), Some(Refused::Other)),
            (json(200, r#"{"ok":true,"user":"eve"}"#), None),
            (json(200, r#"{"error":"token_revoked"}"#), None),
            (json(200, "<html>"), None),
            (json(403, r#"{"ok":false,"error":"token_revoked"}"#), None),
            (json(500, ""), None),
        ] {
            assert_eq!(refused(&response), expected, "{response:?}");
            assert!(expected.is_none() || from_userinfo(&response, &quirks()).is_err());
        }
    }

    #[test]
    fn a_userinfo_answer_without_claims_names_nobody() {
        for response in [
            json(401, "{\"login\":\"x\"}"),
            json(200, "[]"),
            answer(200, "text/html", "<html>"),
            answer(200, "application/jwt", "e30.e30.x"),
        ] {
            assert!(matches!(from_userinfo(&response, &quirks()), Err(IdentityError::Userinfo(_))));
        }
        assert_eq!(from_userinfo(&json(200, "{}"), &quirks()), Ok(Identity::default()));
    }

    #[test]
    fn userinfo_fills_gaps_but_never_replaces_the_subject() {
        assert_eq!(who(None, Some("1")).or(who(Some("a"), Some("1"))), who(Some("a"), Some("1")));
        assert_eq!(who(None, Some("1")).or(who(Some("a"), Some("2"))), who(None, Some("1")));
        assert_eq!(who(None, None).or(who(Some("a"), Some("2"))), who(Some("a"), Some("2")));
    }
}

//! Revocation at logout (RFC 7009), and what some providers have in its place.
//!
//! GitHub deletes single tokens here, not the whole grant: `/applications/CLIENT_ID/grant` would end every other login of that
//! person with the same client, on this machine and elsewhere.

use std::time::Duration;

use super::form::{self, Field, Sent};
use super::identity;
use super::members::Members;
use super::text::{clean_code, clean_option};
use super::token;
use crate::grant::record::Definition;
use crate::provider::{Quirks, RevocationStyle};
use crate::secret::{AccessToken, ClientSecret, RefreshToken};
use crate::transport::{Method, Request, Response, check_url};

/// Why a token may still work at the provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// The provider said no, RFC 7009 section 2.2.1; texts sanitised.
    #[error("the provider refused to revoke: {0}")]
    Refused(String),
    /// The provider cannot do it now; trying again later may help.
    #[error("the provider answered {status}")]
    Later {
        /// The status.
        status: u16,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
}

impl RevokeError {
    /// The same, its text without what the request held.
    #[must_use]
    pub fn without(self, sent: &Sent) -> Self {
        match self {
            Self::Refused(text) => Self::Refused(sent.strike(&text)),
            later @ Self::Later { .. } => later,
        }
    }
}

/// How long one revocation may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The requests that revoke a grant's tokens, the refresh token first, to be sent in this order. Empty where the provider has
/// no revocation, or for a static token.
pub fn requests(
    definition: &Definition,
    quirks: &Quirks,
    secret: Option<&ClientSecret>,
    access: Option<&AccessToken>,
    refresh: Option<&RefreshToken>,
) -> Vec<Request> {
    match quirks.revocation {
        RevocationStyle::Rfc7009 => rfc7009(definition, quirks, secret, access, refresh).unwrap_or_default(),
        RevocationStyle::Github => github(definition, secret, access, refresh).unwrap_or_default(),
        RevocationStyle::Google => google(definition, access, refresh).unwrap_or_default(),
        RevocationStyle::Bearer => bearer(definition, access).unwrap_or_default(),
        RevocationStyle::Notion => notion(definition, secret, access, refresh).unwrap_or_default(),
        RevocationStyle::Supabase => supabase(definition, secret, refresh).unwrap_or_default(),
        RevocationStyle::None => Vec::new(),
    }
}

/// Checks the answer to one of them. A token that the provider does not know any more is revoked.
pub fn check(response: &Response) -> Result<(), RevokeError> {
    match response.status {
        // Slack. A token that has merely expired leaves a refresh token behind.
        200..=299 if identity::refused(response).is_some() => match complaint(response) {
            gone if matches!(gone.as_str(), "token_revoked" | "account_inactive") => Ok(()),
            refused => Err(RevokeError::Refused(refused)),
        },
        // GitHub answers 404 for a token that is gone already.
        200..=299 | 404 => Ok(()),
        status @ (408 | 429 | 500..) => Err(RevokeError::Later { status, retry_after: response.retry_after }),
        _ => Err(RevokeError::Refused(complaint(response))),
    }
}

/// Whether the answers to one grant's requests, in their order, say that it is revoked. The refresh token goes first, and
/// access tokens die with it (RFC 7009 section 2.1): a server that then calls the access token wrong (Linear: status 400) has
/// revoked it, unless it says that it revokes no access tokens at all.
pub fn confirmed(answers: Vec<Result<(), RevokeError>>) -> Result<(), RevokeError> {
    let mut first = None;
    for answer in answers {
        match (first.is_some(), answer) {
            (true, Err(RevokeError::Refused(text))) if text != "unsupported_token_type" && !text.starts_with("unsupported_token_type:") => {
            }
            (_, answer) => {
                answer?;
                first = Some(());
            }
        }
    }
    Ok(())
}

fn complaint(response: &Response) -> String {
    let members = Members::from_json(&response.body).ok();
    let code = members.as_ref().and_then(|members| members.text("error")).map(clean_code);
    let description = members.as_ref().and_then(|members| clean_option(members.text("error_description")));
    let text = [code, description].into_iter().flatten().collect::<Vec<_>>().join(": ");
    if text.is_empty() { format!("status {}", response.status) } else { text }
}

fn rfc7009(
    definition: &Definition,
    quirks: &Quirks,
    secret: Option<&ClientSecret>,
    access: Option<&AccessToken>,
    refresh: Option<&RefreshToken>,
) -> Option<Vec<Request>> {
    let endpoint = definition.revocation_endpoint.as_deref()?;
    let client = token::client(definition, quirks, secret)?;
    let tokens =
        [refresh.map(|token| ("refresh_token", Field::Refresh(token))), access.map(|token| ("access_token", Field::Access(token)))];
    let post = |(hint, token)| form::post(endpoint, &[("token", token), ("token_type_hint", Field::Text(hint))], client, TIMEOUT);
    Some(tokens.into_iter().flatten().map(post).collect())
}

/// `POST /credentials/revoke` takes every kind of token from anyone who holds it, and must be unauthenticated. With a secret
/// the access token goes by `DELETE /applications/CLIENT_ID/token`, which GitHub Enterprise Server has too.
fn github(
    definition: &Definition,
    secret: Option<&ClientSecret>,
    access: Option<&AccessToken>,
    refresh: Option<&RefreshToken>,
) -> Option<Vec<Request>> {
    let client_id = definition.client_id.as_deref()?;
    let base = github_api(definition)?;
    let headers = || vec![("accept", "application/vnd.github+json".into()), ("content-type", "application/json".into())];
    let by_holder = |access: Option<&AccessToken>| Request {
        headers: headers(),
        body: Some(form::json_tokens("credentials", access, refresh)),
        timeout: TIMEOUT,
        ..Request::new(Method::Post, format!("{base}/credentials/revoke"))
    };
    let Some((secret, access)) = secret.zip(access) else {
        return Some(if access.is_some() || refresh.is_some() { vec![by_holder(access)] } else { Vec::new() });
    };
    let mut requests = Vec::from_iter(refresh.map(|_| by_holder(None)));
    let mut delete = Request {
        headers: headers(),
        body: Some(form::json_token("access_token", &Field::Access(access))),
        timeout: TIMEOUT,
        ..Request::new(Method::Delete, format!("{base}/applications/{}/token", path_segment(client_id)))
    };
    delete.headers.push(("authorization", form::basic(client_id, secret)));
    requests.push(delete);
    Some(requests)
}

/// Google takes either token, and ends with it every token of this person for all clients of the project.
fn google(definition: &Definition, access: Option<&AccessToken>, refresh: Option<&RefreshToken>) -> Option<Vec<Request>> {
    let token = refresh.map(Field::Refresh).or(access.map(Field::Access))?;
    Some(vec![form::token_alone(definition.revocation_endpoint.as_deref()?, &token, TIMEOUT)])
}

/// The token ends itself, at Dropbox with its refresh token; an expired one cannot.
fn bearer(definition: &Definition, access: Option<&AccessToken>) -> Option<Vec<Request>> {
    let headers = vec![("accept", "application/json".into()), ("authorization", form::bearer(access?))];
    let url = definition.revocation_endpoint.clone()?;
    Some(vec![Request { headers, timeout: TIMEOUT, ..Request::new(Method::Post, url) }])
}

/// The version of Notion's API that this was written for; it refuses requests that name none.
const NOTION_VERSION: &str = "2022-06-28";

fn notion(
    definition: &Definition,
    secret: Option<&ClientSecret>,
    access: Option<&AccessToken>,
    refresh: Option<&RefreshToken>,
) -> Option<Vec<Request>> {
    let (url, client_id, secret) = (definition.revocation_endpoint.as_deref()?, definition.client_id.as_deref()?, secret?);
    let request = |token| Request {
        headers: vec![
            ("accept", "application/json".into()),
            ("content-type", "application/json".into()),
            ("notion-version", NOTION_VERSION.into()),
            ("authorization", form::basic(client_id, secret)),
        ],
        body: Some(form::json_token("token", &token)),
        timeout: TIMEOUT,
        ..Request::new(Method::Post, url)
    };
    let tokens = [refresh.map(Field::Refresh), access.map(Field::Access)];
    Some(tokens.into_iter().flatten().map(request).collect())
}

fn supabase(definition: &Definition, secret: Option<&ClientSecret>, refresh: Option<&RefreshToken>) -> Option<Vec<Request>> {
    let url = definition.revocation_endpoint.clone()?;
    let body = form::json_client(definition.client_id.as_deref()?, secret?, refresh?);
    let headers = vec![("accept", "application/json".into()), ("content-type", "application/json".into())];
    Some(vec![Request { headers, body: Some(body), timeout: TIMEOUT, ..Request::new(Method::Post, url) }])
}

/// The REST API beside the account endpoint: `https://api.github.com/user`, or `https://HOST/api/v3/user`; without one, the
/// token endpoint tells which GitHub it is.
fn github_api(definition: &Definition) -> Option<String> {
    if let Some(base) = definition.userinfo_endpoint.as_deref().and_then(|endpoint| endpoint.strip_suffix("/user")) {
        return Some(base.to_owned());
    }
    let endpoint = check_url(definition.token_endpoint.as_deref()?).ok()?;
    let origin = endpoint.origin().ascii_serialization();
    Some(if origin == "https://github.com" { "https://api.github.com".to_owned() } else { format!("{origin}/api/v3") })
}

fn path_segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::samples::{answer, definition, form, header, json, quirks};

    fn tokens() -> (AccessToken, RefreshToken) {
        (AccessToken::new("at-1".into()), RefreshToken::new("rt-1".into()))
    }

    fn github_definition() -> Definition {
        Definition { userinfo_endpoint: Some("https://api.github.com/user".into()), revocation_endpoint: None, ..definition() }
    }

    fn body(request: &Request) -> &str {
        request.body.as_ref().map_or("", |body| body.0.as_str())
    }

    #[test]
    fn the_refresh_token_goes_first() {
        let (access, refresh) = tokens();
        let requests = requests(&definition(), &quirks(), None, Some(&access), Some(&refresh));
        let sent: Vec<_> =
            requests.iter().map(|request| (request.url.as_str(), form(request)[0].1.clone(), form(request)[1].1.clone())).collect();
        let url = "https://as.example/revoke";
        assert_eq!(sent, [(url, "rt-1".into(), "refresh_token".into()), (url, "at-1".into(), "access_token".to_owned())]);
        assert_eq!(form(&requests[0])[2], ("client_id".into(), "client-1".into()));
    }

    #[test]
    fn nothing_is_sent_where_there_is_nothing_to_revoke_with() {
        let (access, refresh) = tokens();
        let none = Quirks { revocation: RevocationStyle::None, ..quirks() };
        assert!(requests(&definition(), &none, None, Some(&access), Some(&refresh)).is_empty());
        let no_endpoint = Definition { revocation_endpoint: None, ..definition() };
        assert!(requests(&no_endpoint, &quirks(), None, Some(&access), Some(&refresh)).is_empty());
        let github = Quirks { revocation: RevocationStyle::Github, ..quirks() };
        assert!(requests(&Definition { client_id: None, ..definition() }, &github, None, Some(&access), None).is_empty());
        assert!(requests(&github_definition(), &github, None, None, None).is_empty());
    }

    #[test]
    fn github_with_a_secret_deletes_this_token_and_never_the_whole_grant() {
        let (access, refresh) = tokens();
        let github = Quirks { revocation: RevocationStyle::Github, ..quirks() };
        let secret = ClientSecret::new("hush".into());
        let sent = requests(&github_definition(), &github, Some(&secret), Some(&access), Some(&refresh));
        assert_eq!((sent[0].method, sent[0].url.as_str()), (Method::Post, "https://api.github.com/credentials/revoke"));
        assert_eq!((body(&sent[0]), header(&sent[0], "authorization")), (r#"{"credentials":["rt-1"]}"#, None));
        assert_eq!((sent[1].method, sent[1].url.as_str()), (Method::Delete, "https://api.github.com/applications/client-1/token"));
        assert_eq!((body(&sent[1]), header(&sent[1], "authorization")), (r#"{"access_token":"at-1"}"#, Some("Basic Y2xpZW50LTE6aHVzaA==")));
        assert_eq!(requests(&github_definition(), &github, Some(&secret), Some(&access), None).len(), 1);
    }

    #[test]
    fn github_without_a_secret_revokes_as_the_holder_unauthenticated() {
        let (access, refresh) = tokens();
        let github = Quirks { revocation: RevocationStyle::Github, ..quirks() };
        let enterprise = Definition { userinfo_endpoint: Some("https://ghes.example/api/v3/user".into()), ..github_definition() };
        let sent = requests(&enterprise, &github, None, Some(&access), Some(&refresh));
        assert_eq!((sent.len(), sent[0].url.as_str()), (1, "https://ghes.example/api/v3/credentials/revoke"));
        assert_eq!((body(&sent[0]), header(&sent[0], "authorization")), (r#"{"credentials":["rt-1","at-1"]}"#, None));
        for (token, expected) in
            [("https://github.com/login/oauth/access_token", "https://api.github.com"), ("https://g.example/x", "https://g.example/api/v3")]
        {
            let definition = Definition { userinfo_endpoint: None, token_endpoint: Some(token.into()), ..definition() };
            assert_eq!(github_api(&definition).as_deref(), Some(expected));
        }
    }

    #[test]
    fn google_gets_one_token_and_no_client_since_one_ends_all() {
        let (access, refresh) = tokens();
        let google = Quirks { revocation: RevocationStyle::Google, ..quirks() };
        let secret = ClientSecret::new("hush".into());
        let sent = requests(&definition(), &google, Some(&secret), Some(&access), Some(&refresh));
        assert_eq!(sent.iter().map(body).collect::<Vec<_>>(), ["token=rt-1"]);
        assert_eq!((sent[0].url.as_str(), header(&sent[0], "authorization")), ("https://as.example/revoke", None));
        let sent = requests(&definition(), &google, None, Some(&access), None);
        assert_eq!(sent.iter().map(body).collect::<Vec<_>>(), ["token=at-1"]);
    }

    #[test]
    fn slack_and_dropbox_get_the_token_as_bearer_and_no_body() {
        let (access, refresh) = tokens();
        let bearer = Quirks { revocation: RevocationStyle::Bearer, ..quirks() };
        let sent = requests(&definition(), &bearer, None, Some(&access), Some(&refresh));
        assert_eq!((sent.len(), sent[0].method, sent[0].body.is_none()), (1, Method::Post, true));
        assert_eq!(header(&sent[0], "authorization"), Some("Bearer at-1"));
        assert_eq!(header(&sent[0], "content-type"), None, "Dropbox refuses a type without a body");
    }

    #[test]
    fn notion_gets_json_with_basic_and_its_version() {
        let (access, refresh) = tokens();
        let notion = Quirks { revocation: RevocationStyle::Notion, ..quirks() };
        let secret = ClientSecret::new("hush".into());
        let sent = requests(&definition(), &notion, Some(&secret), Some(&access), Some(&refresh));
        assert_eq!(sent.iter().map(body).collect::<Vec<_>>(), [r#"{"token":"rt-1"}"#, r#"{"token":"at-1"}"#]);
        assert_eq!(header(&sent[0], "authorization"), Some("Basic Y2xpZW50LTE6aHVzaA=="));
        assert_eq!((header(&sent[0], "notion-version"), header(&sent[0], "content-type")), (Some("2022-06-28"), Some("application/json")));
        assert!(requests(&definition(), &notion, None, Some(&access), Some(&refresh)).is_empty(), "it cannot be done without the secret");
    }

    #[test]
    fn supabase_gets_client_secret_and_refresh_token_in_json() {
        let (access, refresh) = tokens();
        let supabase = Quirks { revocation: RevocationStyle::Supabase, ..quirks() };
        let secret = ClientSecret::new("hush".into());
        let sent = requests(&definition(), &supabase, Some(&secret), Some(&access), Some(&refresh));
        let expected = r#"{"client_id":"client-1","client_secret":"hush","refresh_token":"rt-1"}"#;
        assert_eq!(sent.iter().map(body).collect::<Vec<_>>(), [expected]);
        assert_eq!(header(&sent[0], "authorization"), None);
        assert!(requests(&definition(), &supabase, Some(&secret), Some(&access), None).is_empty());
    }

    #[test]
    fn a_refused_access_token_counts_as_revoked_once_the_refresh_token_is() {
        let refused = |text: &str| Err(RevokeError::Refused(text.into()));
        let later = || Err(RevokeError::Later { status: 503, retry_after: None });
        for (answers, expected) in [
            (vec![], Ok(())),
            (vec![Ok(()), Ok(())], Ok(())),
            (vec![Ok(()), refused("status 400")], Ok(())),
            (vec![Ok(()), refused("unsupported_token_type: refresh tokens only")], refused("unsupported_token_type: refresh tokens only")),
            (vec![Ok(()), later()], later()),
            (vec![refused("status 400"), Ok(())], refused("status 400")),
            (vec![refused("status 400")], refused("status 400")),
        ] {
            assert_eq!(confirmed(answers.clone()), expected, "{answers:?}");
        }
    }

    #[test]
    fn an_answer_with_status_200_may_be_a_refusal() {
        assert_eq!(check(&json(200, r#"{"ok":true,"revoked":true}"#)), Ok(()));
        assert_eq!(check(&json(200, r#"{"ok":false,"error":"token_revoked"}"#)), Ok(()), "it is dead already");
        for left in ["fatal_error", "token_expired"] {
            let said = format!(r#"{{"ok":false,"error":"{left}"}}"#);
            assert_eq!(check(&json(200, &said)), Err(RevokeError::Refused(left.into())), "its refresh token may live");
        }
    }

    #[test]
    fn an_answer_says_revoked_refused_or_later() {
        for status in [200, 202, 204, 404] {
            assert_eq!(check(&answer(status, "", "")), Ok(()));
        }
        for status in [408, 429, 500, 503] {
            let mut response = json(status, "{}");
            response.retry_after = Some(Duration::from_secs(3));
            assert_eq!(check(&response), Err(RevokeError::Later { status, retry_after: Some(Duration::from_secs(3)) }));
        }
        for (response, expected) in [
            (json(400, r#"{"error":"unsupported_token_type","error_description":"no\u001b"}"#), "unsupported_token_type: no"),
            (json(403, r#"{"error":"forbidden"}"#), "forbidden"),
            (answer(302, "text/html", "<html>"), "status 302"),
        ] {
            assert_eq!(check(&response), Err(RevokeError::Refused(expected.into())));
        }
    }
}

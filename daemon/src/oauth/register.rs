//! Dynamic client registration (RFC 7591): the request of a native client, and the check of an answer that is not trusted.
//!
//! What a registration is kept for, and how long, is `registration`'s.

use std::time::Duration;

use serde_json::json;
use sha2::Digest as _;

use super::members::Members;
use super::text;
use crate::clock::Wall;
use crate::provider::ClientAuth;
use crate::secret::ClientSecret;
use crate::transport::{Method, Request, Response};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The registration endpoint.
    pub endpoint: &'a str,
    /// The one redirect URI, byte for byte.
    pub redirect_uri: &'a str,
    /// The scopes that the login will ask for; none: the member is left out.
    pub scopes: &'a [String],
    /// How the client will prove itself.
    pub auth: ClientAuth,
}

/// The client that a server has made.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Option<ClientSecret>,
    /// When that ends; `None`: not by itself.
    pub secret_ends_at: Option<Wall>,
    /// How it proves itself.
    pub auth: ClientAuth,
}

/// Why there is no client. Texts are sanitised and short.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// RFC 7591 section 3.2.2.
    #[error("the server refused to register a client: {code}{}", description.as_ref().map_or_else(String::new, |text| format!(" ({text})")))]
    Refused {
        /// The error code; `status 403` and the like where it names none.
        code: String,
        /// `error_description`.
        description: Option<String>,
    },
    /// The server does not answer as one should at the moment.
    #[error("the registration was answered with status {0}")]
    Status(u16),
    /// The answer must not be used.
    #[error("the answer to the registration is not usable: {0}")]
    Unusable(&'static str),
    /// Every way in which the server lets clients prove themselves needs something that a registration does not bring.
    #[error("the server takes no client that proves itself by a secret or not at all")]
    NoMethod,
}

/// How long a registration may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest client id, and the longest secret.
const LONGEST_ID: usize = 2048;
const LONGEST_SECRET: usize = 4096;

/// How a client that registers itself will prove itself: not at all where the server allows it, since a secret of a program on a
/// person's machine proves nothing (RFC 8252 section 8.5), else as it lists. What lists nothing wants `client_secret_basic`
/// (RFC 8414 section 2).
pub fn auth(listed: Option<&[String]>) -> Result<ClientAuth, RegisterError> {
    let Some(listed) = listed else { return Ok(ClientAuth::ClientSecretBasic) };
    let known = [ClientAuth::None, ClientAuth::ClientSecretBasic, ClientAuth::ClientSecretPost];
    known.into_iter().find(|auth| listed.iter().any(|method| method == method_name(*auth))).ok_or(RegisterError::NoMethod)
}

/// The registration request (RFC 7591 section 3.1; `application_type`: OpenID Connect Dynamic Client Registration section 2).
pub fn request(asked: Asked<'_>) -> Request {
    let mut metadata = json!({
        "client_name": "mcp-authd",
        "application_type": "native",
        "redirect_uris": [asked.redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method_name(asked.auth),
    });
    if !asked.scopes.is_empty() {
        metadata["scope"] = asked.scopes.join(" ").into();
    }
    let headers = vec![("accept", "application/json".into()), ("content-type", "application/json".into())];
    Request { headers, body: Some(metadata.to_string().into()), timeout: TIMEOUT, ..Request::new(Method::Post, asked.endpoint) }
}

/// Checks the answer (RFC 7591 section 3.2). The server may change what was asked for; a redirect to somewhere else, or another
/// grant type, is none of what it may change.
pub fn check(asked: Asked<'_>, response: &Response, now: Wall) -> Result<Registered, RegisterError> {
    let members = Members::from_json(&response.body);
    if !matches!(response.status, 200 | 201) {
        return Err(refusal(response.status, members.ok().as_ref()));
    }
    let members = members.map_err(|_| RegisterError::Unusable("it is not one JSON object"))?;
    let client_id = members.text("client_id").ok_or(RegisterError::Unusable("it has no client_id"))?;
    if !is_visible(client_id, LONGEST_ID) {
        return Err(RegisterError::Unusable("its client_id is too long or holds a control character"));
    }
    let secret = members.text("client_secret");
    if secret.is_some_and(|secret| !is_visible(secret, LONGEST_SECRET)) {
        return Err(RegisterError::Unusable("its client_secret is too long or holds a control character"));
    }
    // A server that repeats other redirect URIs would send the code there.
    if members.texts("redirect_uris").is_some_and(|uris| uris != [asked.redirect_uri]) {
        return Err(RegisterError::Unusable("it names other redirect URIs than ours"));
    }
    if members.texts("grant_types").is_some_and(|types| !types.contains(&"authorization_code")) {
        return Err(RegisterError::Unusable("the client may not use authorization codes"));
    }
    let secret_ends_at = secret.and_then(|_| ends_at(&members));
    if secret_ends_at.is_some_and(|end| end <= now) {
        return Err(RegisterError::Unusable("its client_secret has expired already"));
    }
    Ok(Registered {
        client_id: client_id.to_owned(),
        client_secret: secret.map(|secret| ClientSecret::new(secret.to_owned())),
        secret_ends_at,
        auth: given_auth(&members, asked.auth, secret.is_some())?,
    })
}

fn method_name(auth: ClientAuth) -> &'static str {
    match auth {
        ClientAuth::None => "none",
        ClientAuth::ClientSecretBasic => "client_secret_basic",
        ClientAuth::ClientSecretPost => "client_secret_post",
        ClientAuth::PrivateKeyJwt => "private_key_jwt",
    }
}

/// The server's word on how the client proves itself, else ours; without a secret there is nothing to prove.
fn given_auth(members: &Members, asked: ClientAuth, has_secret: bool) -> Result<ClientAuth, RegisterError> {
    let given = match members.text("token_endpoint_auth_method") {
        None => asked,
        Some("none") => ClientAuth::None,
        Some("client_secret_basic") => ClientAuth::ClientSecretBasic,
        Some("client_secret_post") => ClientAuth::ClientSecretPost,
        Some(_) => return Err(RegisterError::Unusable("it wants a way to authenticate that was not asked for")),
    };
    Ok(if has_secret { given } else { ClientAuth::None })
}

/// `client_secret_expires_at`: seconds since 1970, and 0 for never.
fn ends_at(members: &Members) -> Option<Wall> {
    let seconds = members.number("client_secret_expires_at").filter(|seconds| *seconds > 0.0)?;
    // As integers saturate: an end beyond all times is none that anybody sees.
    Some(Wall((seconds * 1000.0) as i64))
}

fn refusal(status: u16, members: Option<&Members>) -> RegisterError {
    let code = members.and_then(|members| members.text("error"));
    match (status, code) {
        (429 | 500.., _) => RegisterError::Status(status),
        (_, Some(code)) => {
            let description = text::clean_option(members.and_then(|members| members.text("error_description")));
            RegisterError::Refused { code: text::clean_code(code), description }
        }
        (400..500, None) => RegisterError::Refused { code: format!("status {status}"), description: None },
        _ => RegisterError::Status(status),
    }
}

/// Visible ASCII and spaces (RFC 6749 appendix A.1), not longer than so.
fn is_visible(text: &str, longest: usize) -> bool {
    text.len() <= longest && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

/// The path of the redirect of clients at one issuer: each has its own, so that the answer of one server cannot be taken for
/// that of another (RFC 9700 section 4.4.2.2).
pub fn redirect_path(issuer: &str) -> String {
    let digest = sha2::Sha256::digest(issuer.as_bytes());
    format!("/callback/{}", hex::encode(&digest[..8]))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::oauth::samples::{answer, header};

    const REDIRECT: &str = "http://127.0.0.1:4711/callback/0011223344556677";
    const NOW: Wall = Wall(1_800_000_000_000);

    fn asked() -> Asked<'static> {
        Asked { endpoint: "https://as.example/register", redirect_uri: REDIRECT, scopes: &[], auth: ClientAuth::None }
    }

    fn checked(changes: Value) -> Result<Registered, RegisterError> {
        let mut body = json!({ "client_id": "c-1", "redirect_uris": [REDIRECT] });
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        check(asked(), &answer(201, "application/json", &body.to_string()), NOW)
    }

    #[test]
    fn a_native_client_that_refreshes_is_asked_for() {
        let scopes = ["a".to_owned(), "b".to_owned()];
        let request = request(Asked { scopes: &scopes, ..asked() });
        let body: Value = serde_json::from_str(&request.body.as_ref().unwrap().0).unwrap();
        assert_eq!((request.method, header(&request, "content-type")), (Method::Post, Some("application/json")));
        assert_eq!((&body["application_type"], &body["redirect_uris"]), (&json!("native"), &json!([REDIRECT])));
        assert_eq!(body["grant_types"], json!(["authorization_code", "refresh_token"]));
        assert_eq!((&body["token_endpoint_auth_method"], &body["scope"]), (&json!("none"), &json!("a b")));
    }

    #[test]
    fn the_method_is_one_that_the_server_lists() {
        let listed = |text: &str| auth(Some(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()));
        assert_eq!(listed("client_secret_basic none"), Ok(ClientAuth::None));
        assert_eq!(listed("client_secret_post client_secret_basic"), Ok(ClientAuth::ClientSecretBasic));
        assert_eq!(listed("private_key_jwt client_secret_post"), Ok(ClientAuth::ClientSecretPost));
        assert_eq!(listed("private_key_jwt"), Err(RegisterError::NoMethod));
        assert_eq!(auth(None), Ok(ClientAuth::ClientSecretBasic));
    }

    #[test]
    fn the_servers_word_counts_where_it_may_decide() {
        let plain = checked(json!({})).unwrap();
        assert_eq!((plain.client_id.as_str(), plain.auth, plain.client_secret.is_none()), ("c-1", ClientAuth::None, true));
        let end = NOW.0 / 1000 + 60;
        let secret = json!({ "client_secret": "s", "token_endpoint_auth_method": "client_secret_post", "client_secret_expires_at": end });
        let secret = checked(secret).unwrap();
        assert_eq!((secret.auth, secret.secret_ends_at), (ClientAuth::ClientSecretPost, Some(Wall(end * 1000))));
        assert_eq!(secret.client_secret.unwrap().expose().as_str(), "s");
        let endless =
            checked(json!({ "client_secret": "s", "client_secret_expires_at": 0, "token_endpoint_auth_method": "client_secret_basic" }));
        assert_eq!(endless.unwrap().secret_ends_at, None);
        let without = checked(json!({ "token_endpoint_auth_method": "client_secret_basic" })).unwrap();
        assert_eq!(without.auth, ClientAuth::None, "without a secret there is nothing to prove");
        assert_eq!(checked(json!({ "redirect_uris": null })).unwrap().client_id, "c-1", "it may leave them out");
    }

    #[test]
    fn a_hostile_answer_makes_no_client() {
        for changes in [
            json!({ "client_id": null }),
            json!({ "client_id": "" }),
            json!({ "client_id": 7 }),
            json!({ "client_id": "a\u{1b}[2J" }),
            json!({ "client_id": "x".repeat(3000) }),
            json!({ "client_secret": "a\nb" }),
            json!({ "client_secret": "x".repeat(5000) }),
            json!({ "client_secret": "s", "client_secret_expires_at": 1 }),
            json!({ "redirect_uris": ["https://evil.example/cb"] }),
            json!({ "redirect_uris": [REDIRECT, "https://evil.example/cb"] }),
            json!({ "redirect_uris": [] }),
            json!({ "grant_types": ["client_credentials"] }),
            json!({ "client_secret": "s", "token_endpoint_auth_method": "private_key_jwt" }),
        ] {
            assert!(matches!(checked(changes.clone()), Err(RegisterError::Unusable(_))), "{changes}");
        }
        for body in ["", "[]", "<html>", "{\"client_id\":\"a\",\"client_id\":\"b\"}"] {
            assert!(check(asked(), &answer(201, "application/json", body), NOW).is_err(), "{body}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words_made_safe() {
        let refused = |status, body: &str| check(asked(), &answer(status, "application/json", body), NOW).unwrap_err();
        let said = refused(400, r#"{"error":"invalid_redirect_uri","error_description":"no\u001b[2J loopback"}"#);
        assert_eq!(said.to_string(), "the server refused to register a client: invalid_redirect_uri (no[2J loopback)");
        assert_eq!(refused(403, ""), RegisterError::Refused { code: "status 403".into(), description: None });
        assert_eq!(refused(503, "{}"), RegisterError::Status(503));
        assert_eq!(refused(302, ""), RegisterError::Status(302));
    }

    #[test]
    fn every_issuer_has_a_path_of_its_own() {
        let path = redirect_path("https://as.example");
        assert!(path.starts_with("/callback/") && path.len() == 26, "{path}");
        assert_ne!(path, redirect_path("https://as.example/"));
    }
}

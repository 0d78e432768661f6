//! Answers and providers for the tests of this folder and of the login.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::grant::record::Definition;
use crate::provider::Quirks;
use crate::transport::{Request, Response};

pub(crate) fn answer(status: u16, content_type: &str, body: &str) -> Response {
    Response {
        status,
        content_type: (!content_type.is_empty()).then(|| content_type.to_owned()),
        retry_after: None,
        challenges: Vec::new(),
        dpop_nonce: None,
        date: None,
        body: Zeroizing::new(body.as_bytes().to_vec()),
    }
}

pub(crate) fn json(status: u16, body: &str) -> Response {
    answer(status, "application/json", body)
}

pub(crate) fn quirks() -> Quirks {
    Quirks {
        invalid_grant_codes: Vec::new(),
        account_claims: ["preferred_username", "email", "login"].map(Into::into).into(),
        subject_claims: ["sub", "id"].map(Into::into).into(),
        ..Quirks::default()
    }
}

pub(crate) fn definition() -> Definition {
    Definition {
        provider: "example".into(),
        issuer: Some("https://as.example".into()),
        authorization_endpoint: Some("https://as.example/authorize".into()),
        token_endpoint: Some("https://as.example/token".into()),
        refresh_endpoint: None,
        revocation_endpoint: Some("https://as.example/revoke".into()),
        userinfo_endpoint: Some("https://as.example/userinfo".into()),
        client_id: Some("client-1".into()),
        redirect_uri: Some("http://127.0.0.1:7777/callback".into()),
        client_auth: None,
        server: None,
        client_credentials: false,
        assertion: None,
    }
}

/// A JWT of this header and these claims, whose signature is none.
pub(crate) fn jwt(header: &str, claims: &str) -> String {
    format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims), URL_SAFE_NO_PAD.encode("signature"))
}

/// The fields of a request's form body.
pub(crate) fn form(request: &Request) -> Vec<(String, String)> {
    let body = request.body.as_ref().expect("a form");
    url::form_urlencoded::parse(body.0.as_bytes()).into_owned().collect()
}

pub(crate) fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(have, _)| *have == name).map(|(_, value)| value.0.as_str())
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

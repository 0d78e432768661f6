//! Requests that carry secrets: form bodies, client authentication and bearer headers. Next to `identity`, the only file of
//! `oauth` that looks at a secret.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::provider::ClientAuth;
use crate::secret::{AccessToken, ClientSecret, RefreshToken};
use crate::transport::{Method, Request, SecretText};

/// Room for every usual body, so that growing leaves no copy of a token behind.
const ROOM: usize = 8 * 1024;

/// One field of a form.
#[derive(Debug)]
pub(super) enum Field<'a> {
    Text(&'a str),
    Hidden(&'a Zeroizing<String>),
    Access(&'a AccessToken),
    Refresh(&'a RefreshToken),
}

/// The client as it shows itself to the token endpoint (RFC 6749 section 2.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Client<'a> {
    pub(super) id: &'a str,
    pub(super) auth: ClientAuth,
    pub(super) secret: Option<&'a ClientSecret>,
}

/// A form post to the token or revocation endpoint that asks for JSON.
pub(super) fn post(url: &str, fields: &[(&str, Field<'_>)], client: Client<'_>, timeout: Duration) -> Request {
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(ROOM));
    for (name, field) in fields {
        match field {
            Field::Text(text) => form.append_pair(name, text),
            Field::Hidden(text) => form.append_pair(name, text),
            Field::Access(token) => form.append_pair(name, token.expose()),
            Field::Refresh(token) => form.append_pair(name, &token.expose()),
        };
    }
    let mut headers = vec![("accept", "application/json".into()), ("content-type", "application/x-www-form-urlencoded".into())];
    match (client.auth, client.secret) {
        (ClientAuth::ClientSecretBasic, Some(secret)) => headers.push(("authorization", basic(client.id, secret))),
        (ClientAuth::ClientSecretPost, Some(secret)) => {
            form.append_pair("client_id", client.id).append_pair("client_secret", &secret.expose());
        }
        _ => {
            form.append_pair("client_id", client.id);
        }
    }
    Request { method: Method::Post, url: url.to_owned(), headers, body: Some(form.finish().into()), timeout }
}

/// HTTP Basic as RFC 6749 section 2.3.1 wants it: id and secret are form-encoded before they are joined.
pub(super) fn basic(client_id: &str, secret: &ClientSecret) -> SecretText {
    let mut pair = Zeroizing::new(String::with_capacity(ROOM));
    pair.extend(form_urlencoded::byte_serialize(client_id.as_bytes()));
    pair.push(':');
    pair.extend(form_urlencoded::byte_serialize(secret.expose().as_bytes()));
    let mut header = String::with_capacity(2 * ROOM);
    header.push_str("Basic ");
    STANDARD.encode_string(pair.as_bytes(), &mut header);
    header.into()
}

/// The `Authorization` value of RFC 6750 section 2.1.
pub(super) fn bearer(token: &AccessToken) -> SecretText {
    ["Bearer ", token.expose()].concat().into()
}

/// A JSON body with one member: GitHub's way of naming a token.
pub(super) fn json_token(member: &str, token: &AccessToken) -> SecretText {
    serde_json::json!({ member: token.expose() }).to_string().into()
}

/// A JSON body with a list of tokens: GitHub's way of naming several.
pub(super) fn json_tokens(member: &str, access: Option<&AccessToken>, refresh: Option<&RefreshToken>) -> SecretText {
    let refresh = refresh.map(RefreshToken::expose);
    let tokens: Vec<&str> = refresh.iter().map(|token| token.as_str()).chain(access.map(AccessToken::expose)).collect();
    serde_json::json!({ member: tokens }).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_form_encodes_id_and_secret_before_joining_them() {
        let header = basic("app:1", &ClientSecret::new("s é/+%".into()));
        let encoded = header.0.strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"app%3A1:s+%C3%A9%2F%2B%25");
    }

    #[test]
    fn a_public_client_sends_its_id_and_nothing_else() {
        for auth in [ClientAuth::None, ClientAuth::ClientSecretBasic, ClientAuth::ClientSecretPost] {
            let request =
                post("https://a/token", &[("a", Field::Text("1 2"))], Client { id: "c&d", auth, secret: None }, Duration::from_secs(1));
            assert_eq!(*request.body.unwrap().0, "a=1+2&client_id=c%26d");
            assert!(request.headers.iter().all(|(name, _)| *name != "authorization"));
        }
    }

    #[test]
    fn no_secret_shows_in_a_debug_print() {
        let secret = ClientSecret::new("hush".into());
        let client = Client { id: "c", auth: ClientAuth::ClientSecretPost, secret: Some(&secret) };
        let request =
            post("https://a/token", &[("token", Field::Access(&AccessToken::new("at-1".into())))], client, Duration::from_secs(1));
        let shown = format!("{request:?}");
        assert!(!shown.contains("hush") && !shown.contains("at-1"), "{shown}");
    }
}

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

/// What names a field, or is no secret in it.
const OPEN: [&str; 9] =
    ["grant_type", "redirect_uri", "client_id", "resource", "scope", "token_type_hint", "access_token", "credentials", "refresh_token"];
/// The shortest secret that is looked for in an answer, in bytes: a shorter one could be a word.
const SHORTEST: usize = 6;
/// What stands there instead.
const STRUCK: &str = "[redacted]";

/// One field of a form.
#[derive(Debug)]
pub(super) enum Field<'a> {
    Text(&'a str),
    Hidden(&'a Zeroizing<String>),
    Access(&'a AccessToken),
    Refresh(&'a RefreshToken),
}

impl Field<'_> {
    fn expose(&self) -> Zeroizing<String> {
        match self {
            Self::Text(text) => Zeroizing::new((*text).to_owned()),
            Self::Hidden(text) => (*text).clone(),
            Self::Access(token) => Zeroizing::new(token.expose().to_owned()),
            Self::Refresh(token) => token.expose(),
        }
    }
}

/// The client as it shows itself to the token endpoint (RFC 6749 section 2.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Client<'a> {
    pub(super) id: &'a str,
    pub(super) auth: ClientAuth,
    pub(super) secret: Option<&'a ClientSecret>,
}

/// The secrets of a request. Some providers repeat in their answer what they were sent, and that text is shown and logged.
pub struct Sent(Vec<Zeroizing<String>>);

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sent([redacted])")
    }
}

impl Sent {
    /// What is secret in a request: its tokens, code, verifier and client secret, however they are sent.
    pub fn of(request: &Request) -> Self {
        let body = request.body.as_ref().map(|body| body.0.as_str()).unwrap_or_default();
        let mut secrets: Vec<Zeroizing<String>> = if body.starts_with('{') {
            body.split('"').map(|part| part.to_owned().into()).collect()
        } else {
            form_urlencoded::parse(body.as_bytes())
                .filter(|(name, _)| !OPEN[..6].contains(&&**name))
                .map(|(_, it)| it.into_owned().into())
                .collect()
        };
        for (_, value) in request.headers.iter().filter(|(name, _)| *name == "authorization") {
            secrets.extend(credentials(&value.0));
        }
        let encode = |secret: &Zeroizing<String>| form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>().into();
        let encoded: Vec<_> = secrets.iter().map(encode).collect();
        secrets.extend(encoded);
        secrets.retain(|secret| secret.len() >= SHORTEST && !OPEN.contains(&secret.as_str()));
        Self(secrets)
    }

    /// A provider's text without them, nor the beginning of one where the text was cut short.
    pub fn strike(&self, text: &str) -> String {
        let whole = self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), STRUCK));
        let begins =
            |secret: &str| (SHORTEST..secret.len()).rev().find(|length| secret.get(..*length).is_some_and(|it| whole.ends_with(it)));
        match self.0.iter().filter_map(|secret| begins(secret)).max() {
            Some(length) => format!("{}{STRUCK}", &whole[..whole.len() - length]),
            None => whole,
        }
    }
}

/// What an `Authorization` value holds: a bearer token, or the client secret of HTTP Basic, as sent and as it is.
fn credentials(value: &str) -> Vec<Zeroizing<String>> {
    let Some((scheme, sent)) = value.split_once(' ') else { return Vec::new() };
    let pair = (scheme == "Basic").then(|| STANDARD.decode(sent).ok().map(Zeroizing::new)).flatten();
    let encoded = pair.iter().filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once(':'));
    let secret =
        encoded.flat_map(|(_, secret)| form_urlencoded::parse(secret.as_bytes()).next().map(|(secret, _)| secret.into_owned().into()));
    std::iter::once(sent.to_owned().into()).chain(secret).collect()
}

/// A form post to the token or revocation endpoint that asks for JSON.
pub(super) fn post(url: &str, fields: &[(&str, Field<'_>)], client: Client<'_>, timeout: Duration) -> Request {
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(ROOM));
    for (name, field) in fields {
        form.append_pair(name, &field.expose());
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

/// A form post with one token and no client, as Google wants it for revocations.
pub(super) fn token_alone(url: &str, token: &Field<'_>, timeout: Duration) -> Request {
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(ROOM));
    form.append_pair("token", &token.expose());
    let headers = vec![("accept", "application/json".into()), ("content-type", "application/x-www-form-urlencoded".into())];
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

/// A JSON body with one member: GitHub's and Notion's way of naming a token.
pub(super) fn json_token(member: &str, token: &Field<'_>) -> SecretText {
    serde_json::json!({ member: token.expose().as_str() }).to_string().into()
}

/// A JSON body with client, secret and refresh token: Supabase's way.
pub(super) fn json_client(client_id: &str, secret: &ClientSecret, token: &RefreshToken) -> SecretText {
    let (secret, token) = (secret.expose(), token.expose());
    serde_json::json!({ "client_id": client_id, "client_secret": secret.as_str(), "refresh_token": token.as_str() }).to_string().into()
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
    fn what_a_provider_repeats_of_a_request_is_struck_out() {
        let (token, secret) = (RefreshToken::new("rt/123456".into()), ClientSecret::new("s é/+%".into()));
        let fields = [("grant_type", Field::Text("refresh_token")), ("refresh_token", Field::Refresh(&token))];
        for auth in [ClientAuth::ClientSecretBasic, ClientAuth::ClientSecretPost] {
            let client = Client { id: "client-1", auth, secret: Some(&secret) };
            let sent = Sent::of(&post("https://a/token", &fields, client, Duration::from_secs(1)));
            for (text, struck) in [
                ("the refresh_token rt/123456 is odd", "the refresh_token [redacted] is odd"),
                ("refresh_token=rt%2F123456&x", "refresh_token=[redacted]&x"),
                ("client-1 with s é/+% failed", "client-1 with [redacted] failed"),
                ("cut short: rt/1234", "cut short: [redacted]"),
                ("grant_type refresh_token is fine", "grant_type refresh_token is fine"),
            ] {
                assert_eq!(sent.strike(text), struck);
            }
        }
        let json = Request {
            method: Method::Post,
            url: String::new(),
            headers: vec![("authorization", bearer(&AccessToken::new("at-123456".into())))],
            body: Some(json_tokens("credentials", None, Some(&token))),
            timeout: Duration::from_secs(1),
        };
        assert_eq!(Sent::of(&json).strike("credentials rt/123456, at-123456"), "credentials [redacted], [redacted]");
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

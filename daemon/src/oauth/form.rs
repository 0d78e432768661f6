//! Requests that carry secrets: form and JSON bodies, client authentication and bearer headers. Next to `identity`,
//! `assertion` and `dpop`, the only file of `oauth` that looks at a secret.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::assertion::key::is_meant_as_key;
use crate::provider::{ClientAuth, TokenRequestBody};
use crate::secret::{AccessToken, ClientSecret, RefreshToken};
use crate::transport::{Method, Request, SecretText};

/// Room for every usual body, so that growing leaves no copy of a token behind.
const ROOM: usize = 8 * 1024;

/// Fields that hold no secret.
const OPEN: [&str; 10] = [
    "grant_type",
    "redirect_uri",
    "client_id",
    "resource",
    "audience",
    "scope",
    "token_type_hint",
    "client_assertion_type",
    "requested_token_type",
    "subject_token_type",
];
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
            texts_of(serde_json::from_str(body).unwrap_or_default())
        } else {
            form_urlencoded::parse(body.as_bytes())
                .filter(|(name, _)| !OPEN.contains(&&**name))
                .map(|(_, it)| it.into_owned().into())
                .collect()
        };
        for (_, value) in request.headers.iter().filter(|(name, _)| *name == "authorization") {
            secrets.extend(credentials(&value.0));
        }
        let encode = |secret: &Zeroizing<String>| form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>().into();
        let encoded: Vec<_> = secrets.iter().map(encode).collect();
        secrets.extend(encoded);
        secrets.retain(|secret| secret.len() >= SHORTEST);
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

/// The texts of a JSON body that are secrets.
fn texts_of(value: Value) -> Vec<Zeroizing<String>> {
    match value {
        Value::String(text) => vec![text.into()],
        Value::Array(values) => values.into_iter().flat_map(texts_of).collect(),
        Value::Object(members) => {
            members.into_iter().filter(|(name, _)| !OPEN.contains(&name.as_str())).flat_map(|(_, value)| texts_of(value)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
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
    post_as(TokenRequestBody::Form, url, fields, client, timeout)
}

/// The same, written as the provider wants it.
pub(super) fn post_as(
    written: TokenRequestBody,
    url: &str,
    fields: &[(&str, Field<'_>)],
    client: Client<'_>,
    timeout: Duration,
) -> Request {
    let mut body = Body::new(written);
    for (name, field) in fields {
        body.add(name, &field.expose());
    }
    let mut headers = vec![("accept", "application/json".into()), ("content-type", body.media_type().into())];
    // A private key that the config calls a secret must not leave, whoever forgets to prove the request.
    let secret = client.secret.filter(|secret| !is_meant_as_key(&secret.expose()));
    match (client.auth, secret) {
        (ClientAuth::ClientSecretBasic, Some(secret)) => headers.push(("authorization", basic(client.id, secret))),
        (ClientAuth::ClientSecretPost, Some(secret)) => {
            body.add("client_id", client.id);
            body.add("client_secret", &secret.expose());
        }
        _ => body.add("client_id", client.id),
    }
    Request { headers, body: Some(body.finish()), timeout, ..Request::new(Method::Post, url) }
}

/// A request with further parameters in its body, however that is written.
pub(super) fn with_params(mut request: Request, params: &[(&str, &str)]) -> Request {
    let mut body = request.body.map_or_else(|| Body::new(TokenRequestBody::Form), Body::resume);
    params.iter().for_each(|(name, value)| body.add(name, value));
    request.body = Some(body.finish());
    request
}

/// A body while it is written. It has room, so that growing leaves no copy of a secret behind.
struct Body {
    written: TokenRequestBody,
    text: Zeroizing<String>,
}

impl Body {
    fn new(written: TokenRequestBody) -> Self {
        Self { written, text: Zeroizing::new(String::with_capacity(ROOM)) }
    }

    /// Goes on with a body that was finished.
    fn resume(finished: SecretText) -> Self {
        let mut text = finished.0;
        let written = if text.ends_with('}') { TokenRequestBody::Json } else { TokenRequestBody::Form };
        if written == TokenRequestBody::Json {
            text.pop();
        }
        Self { written, text }
    }

    fn media_type(&self) -> &'static str {
        match self.written {
            TokenRequestBody::Form => "application/x-www-form-urlencoded",
            TokenRequestBody::Json => "application/json",
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        match self.written {
            TokenRequestBody::Form => {
                form_urlencoded::Serializer::for_suffix(&mut *self.text, 0).append_pair(name, value);
            }
            TokenRequestBody::Json => {
                let begun = !self.text.is_empty();
                self.text.push(if begun { ',' } else { '{' });
                self.add_json(name);
                self.text.push(':');
                self.add_json(value);
            }
        }
    }

    fn add_json(&mut self, text: &str) {
        // Room for a text of nothing but escapes.
        let mut quoted = Zeroizing::new(Vec::with_capacity(6 * text.len() + 2));
        serde_json::to_writer(&mut *quoted, text).expect("a text is JSON");
        self.text.push_str(std::str::from_utf8(&quoted).expect("JSON is UTF-8"));
    }

    fn finish(mut self) -> SecretText {
        if self.written == TokenRequestBody::Json {
            self.text.push('}');
        }
        SecretText(self.text)
    }
}

/// A form post with one token and no client, as Google wants it for revocations.
pub(super) fn token_alone(url: &str, token: &Field<'_>, timeout: Duration) -> Request {
    let mut body = Body::new(TokenRequestBody::Form);
    body.add("token", &token.expose());
    let headers = vec![("accept", "application/json".into()), ("content-type", body.media_type().into())];
    Request { headers, body: Some(body.finish()), timeout, ..Request::new(Method::Post, url) }
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
    let mut body = Body::new(TokenRequestBody::Json);
    body.add(member, &token.expose());
    body.finish()
}

/// A JSON body with client, secret and refresh token: Supabase's way.
pub(super) fn json_client(client_id: &str, secret: &ClientSecret, token: &RefreshToken) -> SecretText {
    let mut body = Body::new(TokenRequestBody::Json);
    body.add("client_id", client_id);
    body.add("client_secret", &secret.expose());
    body.add("refresh_token", &token.expose());
    body.finish()
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
            headers: vec![("authorization", bearer(&AccessToken::new("at-123456".into())))],
            body: Some(json_tokens("credentials", None, Some(&token))),
            ..Request::new(Method::Post, "")
        };
        assert_eq!(Sent::of(&json).strike("credentials rt/123456, at-123456"), "credentials [redacted], [redacted]");
    }

    #[test]
    fn a_json_body_says_the_same_as_a_form() {
        let token = RefreshToken::new("rt\"1\\\n/é".into());
        let fields = [("grant_type", Field::Text("refresh_token")), ("refresh_token", Field::Refresh(&token))];
        let secret = ClientSecret::new("hush\"".into());
        let post = |auth| {
            let client = Client { id: "c\"d", auth, secret: Some(&secret) };
            post_as(TokenRequestBody::Json, "https://a/token", &fields, client, Duration::from_secs(1))
        };
        let members = |request: &Request| serde_json::from_str::<Value>(&request.body.as_ref().unwrap().0).unwrap();
        let base = serde_json::json!({ "grant_type": "refresh_token", "refresh_token": "rt\"1\\\n/é" });
        let by_post = post(ClientAuth::ClientSecretPost);
        let mut expected = base.clone();
        expected["client_id"] = "c\"d".into();
        expected["client_secret"] = "hush\"".into();
        assert_eq!(members(&by_post), expected);
        assert!(by_post.headers.iter().any(|(name, value)| *name == "content-type" && *value.0 == "application/json"));
        let by_header = post(ClientAuth::ClientSecretBasic);
        assert_eq!(members(&by_header), base);
        assert!(by_header.headers.iter().any(|(name, _)| *name == "authorization"));
        assert_eq!(Sent::of(&by_post).strike("a refresh_token rt\"1\\\n/é"), "a refresh_token [redacted]");
    }

    #[test]
    fn further_parameters_stand_behind_the_others() {
        let client = Client { id: "c", auth: ClientAuth::None, secret: None };
        for (written, expected) in
            [(TokenRequestBody::Form, "a=1&client_id=c&b=2+3"), (TokenRequestBody::Json, r#"{"a":"1","client_id":"c","b":"2 3"}"#)]
        {
            let request = post_as(written, "https://a/token", &[("a", Field::Text("1"))], client, Duration::from_secs(1));
            assert_eq!(*with_params(request, &[("b", "2 3")]).body.unwrap().0, expected);
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

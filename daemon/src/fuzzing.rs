//! What the fuzz targets in `tests/fuzz` call, one function each: input of an attacker goes in, and a broken promise is a
//! panic. The seeds are replayed by `cargo test`.
//!
//! Texts are as long and as hostile as the fuzzer likes; what the seeds look like is said at each function.

use std::path::Path;
use std::time::Duration;

use mcp_auth_proto::ProviderDefinition;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::clock::Wall;
use crate::config::{Config, define_provider};
use crate::oauth::authorize::{self, Ask};
use crate::oauth::challenge::Challenge;
use crate::oauth::register::{self, Asked};
use crate::oauth::token::{self, TokenError, TokenResponse};
use crate::oauth::{metadata, resource_metadata};
use crate::provider::{ClientAuth, Provider, Quirks, ScopeSeparator};
use crate::transport::{self, Response};

/// An answer of a token endpoint: `STATUS CONTENT-TYPE [PRESET]`, a line break, the body. `-` is no content type.
///
/// No error shows a token or a control character; only an OAuth error can end a grant; a token that is served fits into a
/// header; and the answer, written down plainly, is understood the same way again.
pub fn token(input: &[u8]) {
    let (head, body) = split_line(input);
    let mut words = head.split_ascii_whitespace();
    let status = words.next().and_then(|word| word.parse().ok()).unwrap_or(200);
    let content_type = words.next().filter(|word| *word != "-").map(str::to_ascii_lowercase);
    let quirks = words.next().and_then(preset_quirks).unwrap_or_default();
    let response = answer(status, content_type, body);

    let checked = token::check(&response, &quirks);
    no_token_in(&format!("{checked:?}"), body);
    match &checked {
        Ok(token) => usable_token(token, &quirks),
        Err(error) => {
            assert_printable(&error.to_string());
            no_token_in(&error.to_string(), body);
            if matches!(error, TokenError::InvalidGrant(_)) {
                ends_a_grant(&response, &quirks);
            }
        }
    }
}

/// Authorization server metadata: the issuer, a line break, the document.
///
/// Metadata that is believed is the issuer's own, leads only to places that something may be sent to, and makes an
/// authorization URL that is one printable https word with each of our parameters once.
pub fn metadata(input: &[u8]) {
    let (issuer, body) = split_line(input);
    of_a_remote_server(&issuer, body);
    for url in metadata::well_known_urls(&issuer) {
        let (url, issuer) = (transport::check_url(&url).expect("a URL to ask"), url::Url::parse(&issuer).expect("an issuer"));
        assert_eq!(url.origin(), issuer.origin(), "{url} is not the issuer's");
    }
    let metadata = match metadata::check(&issuer, &answer(200, Some("application/json".into()), body)) {
        Ok(metadata) => metadata,
        Err(error) => {
            if !issuer.contains(is_hidden) {
                assert!(!error.to_string().contains(is_hidden), "{error:?}");
            }
            return;
        }
    };
    let document: Value = serde_json::from_slice(without_bom(body)).expect("what is believed is JSON");
    assert_eq!(document["issuer"].as_str(), Some(issuer.as_str()));
    let optional = [&metadata.revocation_endpoint, &metadata.userinfo_endpoint].into_iter().flatten();
    for endpoint in optional.chain(&metadata.authorization_endpoint).chain([&metadata.token_endpoint]) {
        let url = transport::check_url(endpoint).expect("an endpoint that something may be sent to");
        let at_home = transport::check_url(&issuer).is_ok_and(|issuer| transport::is_loopback(&issuer));
        assert!(at_home || !transport::is_loopback(&url), "{endpoint} leads to this machine");
    }
    if let Some(endpoint) = &metadata.authorization_endpoint {
        authorization_url(endpoint, &issuer);
    }
}

/// The same as the metadata of a resource, as the answer to a registration and as a challenge: what is believed stands for the
/// server and can be sent on, and no error shows a control character.
fn of_a_remote_server(server: &str, body: &[u8]) {
    let json = |status| answer(status, Some("application/json".into()), body);
    match resource_metadata::check(server, &json(200)) {
        Ok(found) => {
            assert!(resource_metadata::covers(&found.resource, server), "{found:?} is not of {server}");
            assert!(!found.authorization_servers.is_empty());
            assert!(found.authorization_servers.iter().all(|issuer| !metadata::well_known_urls(issuer).is_empty()), "{found:?}");
        }
        Err(error) => assert!(!error.to_string().contains(is_hidden), "{error:?}"),
    }
    let redirect_uri = "http://127.0.0.1:1/callback";
    let asked = Asked { endpoint: "https://as.example/register", redirect_uri, scopes: &[], auth: ClientAuth::None };
    match register::check(asked, &json(201), Wall(0)) {
        Ok(client) => assert!(!client.client_id.contains(char::is_control), "{client:?}"),
        Err(error) => assert!(!error.to_string().contains(is_hidden), "{error:?}"),
    }
    let challenge = Challenge::read([String::from_utf8_lossy(body).as_ref()]);
    let scopes = challenge.and_then(|challenge| challenge.scopes).unwrap_or_default();
    assert!(scopes.iter().all(|scope| scope.bytes().all(|byte| byte.is_ascii_graphic())), "{scopes:?}");
}

/// config.toml.
///
/// An error names a line of the file, shows no control character and repeats no value; what passes holds only what may be
/// used; and a provider that is written into the file comes back from it, the others being as they were.
pub fn config(input: &[u8]) {
    let path = Path::new("/config.toml");
    let Ok(text) = std::str::from_utf8(input) else { return };
    let config = match Config::parse(text, path) {
        Ok(config) => config,
        Err(error) => {
            let line = error.line().expect("an error names its line");
            assert!((1..=text.lines().count() + 1).contains(&line), "{error} of {} lines", text.lines().count());
            let told = format!("{error} {}", error.hint().unwrap_or_default());
            assert!(!told.contains(is_hidden), "{told:?}");
            let named = toml::from_str::<toml::Table>(text).is_ok_and(|table| names(&table).any(|name| name.contains(MARK)));
            assert!(named || !told.contains(MARK), "{told:?}");
            return;
        }
    };
    for provider in config.providers() {
        fit_to_use(&provider);
    }
    edited(text, &config);
}

#[doc(inline)]
pub use crate::ipc::fuzz::ipc;
#[doc(inline)]
pub use crate::login::redirect::fuzz::callback;
#[doc(inline)]
pub use crate::vault::fuzz::{record, vault_files};

/// Stands for a secret in the seeds.
pub(crate) const MARK: &str = "s3cret";

/// Characters that reach no terminal and no log.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The first line as text, and what follows it.
pub(crate) fn split_line(input: &[u8]) -> (String, &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (line, rest) = end.map_or((input, &[][..]), |end| (&input[..end], &input[end + 1..]));
    (String::from_utf8_lossy(line).into_owned(), rest)
}

fn assert_printable(text: &str) {
    assert!(!text.contains(is_hidden) && text.chars().count() < 500, "{text:?}");
}

fn answer(status: u16, content_type: Option<String>, body: &[u8]) -> Response {
    Response {
        status,
        content_type,
        retry_after: None,
        challenges: Vec::new(),
        dpop_nonce: None,
        date: None,
        body: Zeroizing::new(body.to_vec()),
    }
}

fn preset_quirks(name: &str) -> Option<Quirks> {
    Provider::presets().into_iter().find(|provider| provider.name == name).map(|provider| provider.quirks)
}

fn without_bom(body: &[u8]) -> &[u8] {
    let body = body.trim_ascii();
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// A token may only be shown where the provider put it into a text that is meant to be shown.
fn no_token_in(told: &str, body: &[u8]) {
    let Ok(Value::Object(members)) = serde_json::from_slice(without_bom(body)) else { return };
    let meant = ["error", "error_description", "token_type", "scope"];
    let shown: String = meant.iter().filter_map(|name| Some(members.get(*name)?.to_string())).collect();
    for secret in ["access_token", "refresh_token", "id_token"] {
        let Some(secret) = members.get(secret).and_then(Value::as_str).filter(|secret| secret.contains(MARK)) else { continue };
        assert!(!told.contains(secret) || shown.contains(MARK), "{told:?}");
    }
}

fn usable_token(token: &TokenResponse, quirks: &Quirks) {
    let text = token.access_token.expose();
    match &token.unusable {
        None => {
            assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()), "not for a header");
            assert!(token.token_type.eq_ignore_ascii_case("bearer"));
        }
        Some(fault) => {
            assert_printable(fault);
            assert!(text.is_empty() && token.refresh_token.is_some() && token.scopes.is_none());
        }
    }
    assert!(token.lifetime.is_none_or(|lifetime| lifetime <= Duration::from_secs(10 * 365 * 86_400)));
    for scope in token.scopes.iter().flatten() {
        assert!(!scope.is_empty() && !scope.contains([' ', quirks.scope_separator]) && !scope.contains(is_hidden), "{scope:?}");
    }
    if token.unusable.is_none() {
        understood_again(token);
    }
}

fn understood_again(token: &TokenResponse) {
    let plain = json!({
        "access_token": token.access_token.expose(),
        "token_type": token.token_type,
        "expires_in": token.lifetime.map(|lifetime| lifetime.as_secs_f64()),
        "refresh_token": token.refresh_token.as_ref().map(|token| token.expose().to_string()),
        "scope": token.scopes.as_ref().map(|scopes| scopes.join(" ")),
        "id_token": token.id_token.as_ref().map(|token| token.expose()),
    });
    let plain = answer(200, Some("application/json".into()), plain.to_string().as_bytes());
    let again = token::check(&plain, &Quirks { scope_separator: ' ', default_lifetime: None, ..Quirks::default() }).expect("a good answer");
    assert_eq!(again.access_token.expose(), token.access_token.expose());
    assert_eq!(again.refresh_token, token.refresh_token);
    assert_eq!(again.scopes.unwrap_or_default(), token.scopes.clone().unwrap_or_default());
    assert_eq!(again.id_token.map(|token| token.expose().to_owned()), token.id_token.as_ref().map(|token| token.expose().to_owned()));
    let apart = |a: Duration, b: Duration| a.abs_diff(b) > Duration::from_micros(1);
    assert!(!apart(again.lifetime.unwrap_or_default(), token.lifetime.unwrap_or_default()));
}

/// Only an OAuth error of the right kind may: not a portal, not a proxy, not a server in trouble.
fn ends_a_grant(response: &Response, quirks: &Quirks) {
    assert!(matches!(response.status, 200..=299 | 400 | 401 | 403), "status {}", response.status);
    let kind = response.content_type.as_deref().unwrap_or("json");
    assert!(kind.ends_with("json") || kind == "application/x-www-form-urlencoded", "{kind}");
    let form =
        || url::form_urlencoded::parse(response.body.trim_ascii()).find(|(name, _)| name == "error").map(|(_, code)| code.into_owned());
    let code = match serde_json::from_slice::<Value>(without_bom(&response.body)) {
        Ok(members) => members["error"].as_str().map(str::to_owned),
        Err(_) => form(),
    };
    let code = code.expect("an error code");
    assert!(code == "invalid_grant" || quirks.invalid_grant_codes.contains(&code), "{code}");
}

fn authorization_url(endpoint: &str, issuer: &str) {
    let scopes = ["openid".to_owned()];
    let redirect_uri = "http://127.0.0.1:7777/callback";
    let ask = Ask {
        endpoint,
        client_id: "client-1",
        redirect_uri,
        scopes: &scopes,
        separator: ScopeSeparator::Space,
        challenge: true,
        resource: Some("https://mcp.example"),
        login_hint: None,
        params: &[],
    };
    let Ok(request) = authorize::request(ask, Some(issuer), true) else { return };
    assert!(request.url.bytes().all(|byte| byte.is_ascii_graphic()), "{}", request.url);
    let url = url::Url::parse(&request.url).expect("a URL");
    assert!(url.scheme() == "https" || transport::is_loopback(&url), "{url}");
    assert_eq!(Some(request.host.as_str()), url.host_str());
    for ours in ["response_type", "client_id", "redirect_uri", "state", "scope", "resource", "code_challenge", "code_challenge_method"] {
        assert_eq!(url.query_pairs().filter(|(name, _)| name == ours).count(), 1, "{ours} in {url}");
    }
}

/// Every name in a table and the tables in it: its keys, and which preset it is like.
fn names(table: &toml::Table) -> Box<dyn Iterator<Item = &str> + '_> {
    Box::new(table.iter().flat_map(|(name, value)| {
        let preset = value.as_str().filter(|_| name == "preset");
        let below = value.as_table().map(names).into_iter().flatten();
        std::iter::once(name.as_str()).chain(preset).chain(below)
    }))
}

fn fit_to_use(provider: &Provider) {
    let endpoints = &provider.endpoints;
    let urls = [&provider.issuer, &endpoints.authorization, &endpoints.token, &endpoints.revocation, &endpoints.userinfo];
    for url in urls.into_iter().flatten() {
        assert!(transport::check_url(url).is_ok(), "{url:?}");
    }
    let redirect = url::Url::parse(&provider.redirect_uri_for_registration()).expect("a redirect URI");
    assert!(transport::is_loopback(&redirect), "{redirect}");
    for text in provider.client_id.iter().chain(&provider.scopes).chain([&provider.name]) {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

fn edited(text: &str, config: &Config) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).expect("a file");
    let of_file = config.providers().into_iter().find(|provider| provider.configured).map(|provider| provider.name);
    let new = ProviderDefinition { issuer: Some("https://as.example".into()), ..definition() };
    let mut before = config.clone();
    for (name, definition) in of_file.map(|name| (name, definition())).into_iter().chain([("fuzzed".to_owned(), new)]) {
        let text = std::fs::read_to_string(&path).expect("the file");
        match define_provider(&path, &name, &definition) {
            Ok(written) => {
                assert_eq!(Config::load(&path).expect("what was written is good"), written);
                let others = |config: &Config| config.providers().into_iter().filter(|provider| provider.name != name).collect::<Vec<_>>();
                assert_eq!(others(&written), others(&before));
                assert_eq!(written.provider(&name).and_then(|provider| provider.client_id.as_ref()), definition.client_id.as_ref());
                before = written;
            }
            Err(error) => {
                assert!(!error.to_string().replace(&*path.to_string_lossy(), "").contains(is_hidden), "{error}");
                assert_eq!(std::fs::read_to_string(&path).expect("the file"), text);
            }
        }
    }
}

fn definition() -> ProviderDefinition {
    ProviderDefinition { client_id: Some("a \"client\" #1".into()), ..ProviderDefinition::default() }
}

#[cfg(test)]
mod tests {
    /// The seeds are beside the targets.
    fn replay(target: &str, run: fn(&[u8])) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
        let mut seeds = 0;
        for seed in std::fs::read_dir(folder).unwrap() {
            let path = seed.unwrap().path();
            eprintln!("{}", path.display());
            run(&std::fs::read(&path).unwrap());
            seeds += 1;
        }
        assert!(seeds > 0, "no seeds");
    }

    macro_rules! replayed {
        ($($target:ident)*) => {
            $(#[test]
            fn $target() {
                replay(stringify!($target), super::$target);
            })*
        };
    }

    replayed! { callback config ipc metadata record token vault_files }
}

//! Whole logins: the real listener, a scripted provider.

#[path = "by_client_tests.rs"]
mod by_client_flow;
#[path = "device_tests.rs"]
mod device_flow;

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_proto::ErrorCode;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::{Boot, Wall};
use crate::oauth::samples::{answer, form, header, json, quirks};
use crate::provider::{ClientAuth, Quirks};
use crate::secret::ClientSecret;
use crate::transport::{Exchange, Request, Response, TransportError};

const ISSUER: &str = "https://as.example";

type Answer = Result<Response, TransportError>;
type Script = Box<dyn Fn(&Request, usize) -> Answer + Send + Sync>;

/// A provider that answers as its script says; it remembers every request.
struct Scripted {
    script: Script,
    seen: Mutex<Vec<Request>>,
}

impl Transport for Scripted {
    fn send(&self, request: Request) -> Exchange<'_> {
        let mut seen = self.seen.lock().unwrap();
        let answer = (self.script)(&request, seen.len());
        seen.push(request);
        Box::pin(async move { answer })
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        Now { boot: Boot::from_start(Duration::from_secs(7)), wall: Wall(1_000_000_000) }
    }
}

/// One login under way.
struct Underway {
    provider: Arc<Scripted>,
    progress: mpsc::UnboundedReceiver<Progress>,
    paste: mpsc::Sender<Pasted>,
    end: JoinHandle<Result<Outcome, ErrorBody>>,
}

/// What the person's browser was sent to.
struct Opened {
    url: String,
    params: HashMap<String, String>,
    port: u16,
}

fn plan() -> Plan {
    Plan {
        grant: "example".parse().unwrap(),
        login_hint: None,
        by_hand: None,
        provider: Provider {
            configured: true,
            issuer: Some(ISSUER.into()),
            client_id: Some("client-1".into()),
            scopes: vec!["read".into()],
            quirks: quirks(),
            ..Provider::unknown("example")
        },
        client_secret: None,
        scopes: vec!["read".into()],
        resource: None,
        callback_port: None,
        flow: None,
        headless: false,
        patience: Duration::from_secs(60),
        proofs: Proofs::default(),
        remote: None,
    }
}

/// A provider with fixed endpoints, so that nothing is discovered.
fn fixed() -> Plan {
    let mut plan = plan();
    plan.provider.endpoints.authorization = Some("https://as.example/authorize".into());
    plan.provider.endpoints.token = Some("https://as.example/token".into());
    plan
}

fn metadata(more: &str) -> Answer {
    Ok(json(
        200,
        &format!(
            r#"{{"issuer":"{ISSUER}","authorization_endpoint":"{ISSUER}/authorize","token_endpoint":"{ISSUER}/token",
            "userinfo_endpoint":"{ISSUER}/userinfo","revocation_endpoint":"{ISSUER}/revoke","code_challenge_methods_supported":["S256"]{more}}}"#
        ),
    ))
}

fn tokens() -> Answer {
    Ok(json(200, r#"{"access_token":"at-1","refresh_token":"rt-1","expires_in":3600,"token_type":"bearer"}"#))
}

/// Discovery at the first well-known address, then tokens.
fn good(request: &Request, _: usize) -> Answer {
    match request.url.strip_prefix(ISSUER) {
        Some("/.well-known/oauth-authorization-server") => metadata(""),
        Some("/token") => tokens(),
        _ => Ok(json(404, "{}")),
    }
}

fn start(plan: Plan, script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Underway {
    let provider = Arc::new(Scripted { script: Box::new(script), seen: Mutex::default() });
    let (told, progress) = mpsc::unbounded_channel();
    let (paste, pasted) = mpsc::channel(4);
    let login = run(plan, provider.clone(), Arc::new(Still), move |step| drop(told.send(step)), pasted);
    Underway { provider, progress, paste, end: tokio::spawn(login) }
}

impl Underway {
    async fn opened(&mut self) -> Opened {
        let Some(Progress::OpenUrl { url, redirect_uri, .. }) = self.progress.recv().await else { panic!("no address to open") };
        let params: HashMap<String, String> = url::Url::parse(&url).unwrap().query_pairs().into_owned().collect();
        assert_eq!(params["redirect_uri"], redirect_uri);
        let port = url::Url::parse(&redirect_uri).unwrap().port().unwrap();
        Opened { url, params, port }
    }

    async fn end(self) -> Result<Outcome, ErrorBody> {
        self.end.await.unwrap()
    }

    async fn paste(&self, text: String) -> Result<(), ErrorBody> {
        let (answer, told) = oneshot::channel();
        self.paste.send(Pasted { url: Secret::new(text), answer }).await.unwrap();
        told.await.unwrap()
    }

    fn seen(&self) -> Vec<Request> {
        std::mem::take(&mut *self.provider.seen.lock().unwrap())
    }
}

impl Opened {
    fn state(&self) -> &str {
        &self.params["state"]
    }

    /// The browser follows the redirect; the page that it is shown comes back.
    async fn redirect(&self, query: &str) -> String {
        self.knock(&format!("GET /callback?{query} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", self.port)).await
    }

    async fn knock(&self, raw: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(raw.as_bytes()).await.unwrap();
        let mut page = String::new();
        let _ = stream.read_to_string(&mut page).await;
        page
    }
}

#[tokio::test]
async fn a_login_discovers_asks_exchanges_and_brings_everything_home() {
    let mut plan = plan();
    plan.resource = Some("https://mcp.example".into());
    let mut login = start(plan, good);
    let opened = login.opened().await;
    assert!(opened.url.starts_with("https://as.example/authorize?"));
    assert_eq!((opened.params["scope"].as_str(), opened.params["resource"].as_str()), ("read", "https://mcp.example"));
    let page = opened.redirect(&format!("code=c-1&state={}", opened.state())).await;
    assert!(page.contains("200 OK") && page.contains("You can close this tab"));
    assert!(matches!(login.progress.recv().await, Some(Progress::Redirected)));
    assert!(matches!(login.progress.recv().await, Some(Progress::Exchanging)));

    let provider = login.provider.clone();
    let outcome = login.end().await.unwrap();
    assert_eq!((outcome.response.access_token.expose(), outcome.sent_at), ("at-1", Still.now()));
    let definition = outcome.definition;
    assert_eq!((definition.provider.as_str(), definition.issuer.as_deref()), ("example", Some(ISSUER)));
    assert_eq!(definition.token_endpoint.as_deref(), Some("https://as.example/token"));
    assert_eq!(definition.revocation_endpoint.as_deref(), Some("https://as.example/revoke"));
    assert_eq!(definition.redirect_uri.as_ref(), Some(&opened.params["redirect_uri"]));
    assert_eq!((outcome.account, outcome.subject), (None, None));

    let sent: HashMap<_, _> = form(&provider.seen.lock().unwrap()[1]).into_iter().collect();
    assert_eq!((sent["code"].as_str(), sent["resource"].as_str()), ("c-1", "https://mcp.example"));
    assert_eq!(sent["redirect_uri"], opened.params["redirect_uri"]);
    assert_eq!(URL_SAFE_NO_PAD.encode(Sha256::digest(&sent["code_verifier"])), opened.params["code_challenge"]);
    assert!(TcpStream::connect(("127.0.0.1", opened.port)).await.is_err(), "the listener is gone");
}

#[tokio::test]
async fn hostile_knocks_change_nothing_and_the_login_still_completes() {
    let mut login = start(fixed(), good);
    let opened = login.opened().await;
    let (state, port) = (opened.state(), opened.port);
    for query in [
        "code=evil&state=wrong".to_owned(),
        "code=evil".into(),
        "".into(),
        format!("code=evil&state={state}&state={state}"),
        format!("code=evil&state={state}x"),
        "error=access_denied".into(),
        "error=access_denied&error_description=<script>alert(1)</script>".into(),
        "error=access_denied&state=wrong".into(),
    ] {
        let page = opened.redirect(&query.replace(['<', '>'], "%3C")).await;
        assert!(page.contains("404 Not Found") && !page.contains("evil") && !page.contains("script"), "{query}: {page}");
    }
    for raw in [
        format!("POST /callback?code=evil&state={state} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\r\n"),
        format!("HEAD /callback?code=evil&state={state} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"),
        format!("GET /other?code=evil&state={state} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"),
        format!("GET /callback?code=evil&state={state} HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n"),
        format!("GET /callback?code=evil&state={state} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: https://evil.example\r\n\r\n"),
    ] {
        assert!(opened.knock(&raw).await.contains("404 Not Found"), "{raw}");
    }
    assert!(login.seen().is_empty() && !login.end.is_finished());
    opened.redirect(&format!("code=right&state={state}")).await;
    let provider = login.provider.clone();
    login.end().await.unwrap();
    assert!(form(&provider.seen.lock().unwrap()[0]).contains(&("code".into(), "right".into())));
}

#[tokio::test]
async fn a_pasted_address_wins_the_race_and_a_wrong_one_only_tells_its_sender() {
    let mut login = start(fixed(), good);
    let opened = login.opened().await;
    let redirect_uri = opened.params["redirect_uri"].clone();
    for (wrong, sentence) in [
        ("hello".to_owned(), "that is not a redirect address"),
        (opened.url.clone(), "that address is not the one that this login waits for"),
        (format!("{redirect_uri}?code=c&state=old"), "the redirect does not belong to this login"),
    ] {
        let error = login.paste(wrong).await.unwrap_err();
        assert_eq!((error.error, error.error_description.as_str()), (ErrorCode::InvalidRequest, sentence));
        assert!(error.hint.unwrap().contains(&redirect_uri));
    }
    login.paste(format!("  '{redirect_uri}?code=c&state={}' ", opened.state())).await.unwrap();
    assert_eq!(login.end().await.unwrap().response.access_token.expose(), "at-1");
}

#[tokio::test]
async fn dropping_the_login_closes_the_listener() {
    let mut login = start(fixed(), good);
    let opened = login.opened().await;
    login.end.abort();
    assert!(login.end.await.unwrap_err().is_cancelled());
    assert!(TcpStream::connect(("127.0.0.1", opened.port)).await.is_err());
}

#[tokio::test]
async fn two_logins_at_once_do_not_take_each_others_redirects() {
    let (mut one, mut two) = (start(fixed(), good), start(fixed(), good));
    let (first, second) = (one.opened().await, two.opened().await);
    assert!(second.redirect(&format!("code=c&state={}", first.state())).await.contains("404"));
    first.redirect(&format!("code=c&state={}", first.state())).await;
    second.redirect(&format!("code=c&state={}", second.state())).await;
    assert!(one.end().await.is_ok() && two.end().await.is_ok());
}

#[tokio::test]
async fn a_code_from_another_server_is_never_sent_anywhere() {
    let promised = |request: &Request, _: usize| {
        if request.url.contains("well-known") { metadata(r#","authorization_response_iss_parameter_supported":true"#) } else { tokens() }
    };
    for iss in ["", "&iss=https://evil.example", "&iss=https://as.example/"] {
        let mut login = start(plan(), promised);
        let opened = login.opened().await;
        let page = opened.redirect(&format!("code=c&error_description=evil&state={}{iss}", opened.state())).await;
        assert!(page.contains("400 Bad Request") && page.contains("The login was not completed"));
        let provider = login.provider.clone();
        let error = login.end().await.unwrap_err();
        assert!(error.error == ErrorCode::LoginRequired && !error.error_description.contains("evil"), "{error}");
        assert_eq!(provider.seen.lock().unwrap().len(), 1);
    }
    let mut login = start(plan(), promised);
    let opened = login.opened().await;
    opened.redirect(&format!("code=c&iss=https://as.example&state={}", opened.state())).await;
    assert!(login.end().await.is_ok());
}

#[tokio::test]
async fn what_is_missing_is_said_before_anything_happens() {
    type Change = dyn Fn(&mut Plan);
    let cases: [(&Change, &str, &str); 5] = [
        (&|plan| plan.provider.client_id = None, "there is no client id for example", "mcp-authctl provider show example"),
        (
            &|plan| plan.provider.quirks.needs_client_secret = true,
            "example wants a client secret, and none is stored",
            "mcp-authctl provider set-secret example",
        ),
        (&|plan| plan.provider.issuer = None, "example has neither an issuer nor", "[providers.example]"),
        (
            &|plan| plan.provider.issuer = Some("http://as.example".into()),
            "the issuer of example is not an https URL",
            "[providers.example]",
        ),
        (&|plan| plan.provider.quirks.redirect_host = "0.0.0.0".into(), "0.0.0.0 is not a loopback host", ""),
    ];
    for (change, sentence, hint) in cases {
        let mut plan = plan();
        change(&mut plan);
        let error = start(plan, good).end().await.unwrap_err();
        assert_eq!(error.error, ErrorCode::Conflict);
        assert!(error.error_description.contains(sentence) && error.hint.as_deref().unwrap_or_default().contains(hint), "{error}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_way_out() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = start(Plan { callback_port: Some(port), ..fixed() }, good).end().await.unwrap_err();
    assert!(error.error_description.contains(&format!("port {port} is taken")) && error.hint.unwrap().contains("--callback-port"));
}

#[tokio::test]
async fn discovery_goes_on_past_what_is_not_there_and_stops_at_what_must_not_be_believed() {
    let second = |request: &Request, count: usize| match count {
        0 => Ok(answer(200, "text/html", "<html>every path is a page here</html>")),
        1 if request.url.ends_with("/.well-known/openid-configuration") => metadata(""),
        _ => tokens(),
    };
    let mut login = start(plan(), second);
    login.opened().await;

    for (script, code, sentence, requests) in [
        (Ok(json(200, r#"{"issuer":"https://evil.example"}"#)), ErrorCode::Conflict, "is that of issuer https://evil.example", 1),
        (Ok(json(404, "{}")), ErrorCode::Conflict, "answered with status 404", 2),
        (Ok(json(503, "{}")), ErrorCode::ProviderUnreachable, "answered with status 503", 2),
        (Ok(answer(200, "text/html", "<html>")), ErrorCode::ProviderUnreachable, "a web page was answered instead of metadata", 2),
        (
            Err(TransportError::NotSent { host: "as.example".into(), reason: "no route".into() }),
            ErrorCode::ProviderUnreachable,
            "cannot connect to as.example: no route",
            1,
        ),
    ] {
        let script = Mutex::new(script);
        let copy = move |_: &Request, _: usize| match &*script.lock().unwrap() {
            Ok(response) => {
                Ok(answer(response.status, response.content_type.as_deref().unwrap(), std::str::from_utf8(&response.body).unwrap()))
            }
            Err(error) => Err(error.clone()),
        };
        let login = start(plan(), copy);
        let provider = login.provider.clone();
        let error = login.end().await.unwrap_err();
        assert!(error.error == code && error.error_description.contains(sentence), "{error:?}");
        assert_eq!(provider.seen.lock().unwrap().len(), requests);
    }
}

#[tokio::test]
async fn a_server_that_does_not_tell_of_s256_is_refused_unless_the_preset_knows() {
    let silent = |_: &Request, _: usize| {
        Ok(json(200, &format!(r#"{{"issuer":"{ISSUER}","authorization_endpoint":"{ISSUER}/a","token_endpoint":"{ISSUER}/t"}}"#)))
    };
    let error = start(plan(), silent).end().await.unwrap_err();
    assert!(error.error_description.contains("S256") && error.hint.unwrap().contains("pkce = \"S256\""));
    let mut known = plan();
    known.provider.quirks.pkce = Some(crate::provider::Pkce::S256);
    start(known, silent).opened().await;
}

#[tokio::test]
async fn what_the_provider_answers_to_the_person_or_the_code_becomes_a_sentence_and_a_hint() {
    for (redirect, exchange, code, sentence, hint) in [
        ("error=access_denied", None, ErrorCode::LoginRequired, "the login with example was refused (access_denied)", "login example"),
        ("error=invalid_scope&error_description=no%1b%20such", None, ErrorCode::Conflict, "invalid_scope: no such", "--scope"),
        ("error=server_error", None, ErrorCode::ProviderUnreachable, "server_error", "login example"),
        ("code=c&code=d", None, ErrorCode::LoginRequired, "holds no code, or something twice", "login example"),
        ("code=c", Some((401, r#"{"error":"invalid_client"}"#)), ErrorCode::Conflict, "invalid_client", "provider show example"),
        ("code=c", Some((400, r#"{"error":"invalid_grant"}"#)), ErrorCode::LoginRequired, "rejected the grant", "login example"),
        (
            "code=c",
            Some((200, r#"{"error":"incorrect_client_credentials"}"#)),
            ErrorCode::Conflict,
            "incorrect_client",
            "set-secret example",
        ),
        ("code=c", Some((503, "")), ErrorCode::ProviderUnreachable, "answered 503", "login example"),
        ("code=c", Some((200, "<html>")), ErrorCode::ProviderUnreachable, "a web page", "login example"),
    ] {
        let mut login = start(fixed(), move |_, _| exchange.map_or_else(tokens, |(status, body)| Ok(json(status, body))));
        let opened = login.opened().await;
        opened.redirect(&format!("{redirect}&state={}", opened.state())).await;
        let error = login.end().await.unwrap_err();
        assert!(
            error.error == code && error.error_description.contains(sentence) && error.hint.as_deref().unwrap().contains(hint),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn nobody_coming_in_time_ends_the_login() {
    let error = start(Plan { patience: Duration::from_millis(10), ..fixed() }, good).end().await.unwrap_err();
    assert_eq!(
        (error.error, error.error_description.as_str()),
        (ErrorCode::LoginRequired, "nobody finished the login with example in time")
    );
}

#[tokio::test]
async fn a_code_that_never_left_is_sent_again_and_one_that_may_have_arrived_is_not() {
    let host = || "as.example".to_owned();
    let mut login = start(fixed(), move |_, count| match count {
        0 => Err(TransportError::NotSent { host: host(), reason: "no route".into() }),
        _ => tokens(),
    });
    let opened = login.opened().await;
    opened.redirect(&format!("code=c&state={}", opened.state())).await;
    assert!(login.end().await.is_ok());

    let mut login = start(fixed(), move |_, _| Err(TransportError::Lost { host: host(), reason: "reset".into() }));
    let opened = login.opened().await;
    opened.redirect(&format!("code=c&state={}", opened.state())).await;
    let provider = login.provider.clone();
    assert_eq!(login.end().await.unwrap_err().error, ErrorCode::ProviderUnreachable);
    assert_eq!(provider.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_account_comes_from_the_id_token_or_from_userinfo_and_may_be_missing() {
    let id_token = |account: &str| {
        let claims = format!(r#"{{"iss":"{ISSUER}","aud":"client-1","exp":2000000,"sub":"u1"{account}}}"#);
        format!(r#"{{"access_token":"at-1","id_token":"e30.{}.x"}}"#, URL_SAFE_NO_PAD.encode(claims))
    };
    let named = id_token(r#","email":"a@b""#);
    for (tokens, userinfo, account, subject, requests) in [
        (named.clone(), json(500, ""), Some("a@b"), Some("u1"), 1),
        (id_token(""), json(200, r#"{"sub":"u1","login":"ann"}"#), Some("ann"), Some("u1"), 2),
        (id_token(""), json(200, r#"{"sub":"u2","login":"eve"}"#), Some("u1"), Some("u1"), 2),
        (r#"{"access_token":"at-1"}"#.into(), json(200, r#"{"id":5,"login":"ann"}"#), Some("ann"), Some("5"), 2),
        (r#"{"access_token":"at-1"}"#.into(), json(401, "{}"), None, None, 2),
    ] {
        let mut plan = fixed();
        plan.provider.endpoints.userinfo = Some("https://api.example/user".into());
        let userinfo = (userinfo.status, String::from_utf8(userinfo.body.to_vec()).unwrap());
        let mut login =
            start(
                plan,
                move |request, _| {
                    if request.url.ends_with("/user") { Ok(json(userinfo.0, &userinfo.1)) } else { Ok(json(200, &tokens)) }
                },
            );
        let opened = login.opened().await;
        opened.redirect(&format!("code=c&state={}", opened.state())).await;
        let provider = login.provider.clone();
        let outcome = login.end().await.unwrap();
        assert_eq!((outcome.account.as_deref(), outcome.subject.as_deref()), (account, subject));
        let seen = provider.seen.lock().unwrap();
        assert_eq!(seen.len(), requests);
        assert!(seen.get(1).is_none_or(|request| header(request, "authorization") == Some("Bearer at-1")));
    }
}

#[tokio::test]
async fn scopes_for_refreshing_are_left_out_where_the_server_does_not_know_them() {
    for (listed, expected) in [
        ("", "read offline_access"),
        (r#","scopes_supported":["read"]"#, "read"),
        (r#","scopes_supported":["offline_access"]"#, "read offline_access"),
    ] {
        let mut plan = plan();
        plan.provider.refresh_scopes = vec!["offline_access".into()];
        plan.scopes.push("offline_access".into());
        let opened = start(plan, move |_, _| metadata(listed)).opened().await;
        assert_eq!(opened.params["scope"], expected);
    }
}

#[tokio::test]
async fn a_secret_is_used_as_the_metadata_says_and_that_is_kept_for_refreshes() {
    let listed = |request: &Request, _: usize| {
        if request.url.contains("well-known") {
            metadata(r#","token_endpoint_auth_methods_supported":["client_secret_post"]"#)
        } else {
            tokens()
        }
    };
    for (secret, expected) in [(Some("hush"), Some(ClientAuth::ClientSecretPost)), (None, None)] {
        let mut plan = plan();
        plan.client_secret = secret.map(|text| ClientSecret::new(text.into()));
        plan.provider.quirks = Quirks { needs_client_secret: secret.is_some(), ..quirks() };
        let mut login = start(plan, listed);
        let opened = login.opened().await;
        opened.redirect(&format!("code=c&state={}", opened.state())).await;
        let provider = login.provider.clone();
        assert_eq!(login.end().await.unwrap().definition.client_auth, expected);
        let sent = form(&provider.seen.lock().unwrap()[1]);
        assert_eq!(sent.iter().any(|(name, value)| name == "client_secret" && value == "hush"), secret.is_some());
    }
}

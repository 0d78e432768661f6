//! Logins at scripted servers: who is asked, in which order, what is shown to whom. The listener is the real one.

#[path = "by_assertion_tests.rs"]
mod by_assertion;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_auth_proto::{ClientKind, ErrorCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::{Boot, Now, Wall};
use crate::login;
use crate::oauth::samples::{answer, form};
use crate::proofs::Proofs;
use crate::provider::{ClientAuth, Provider};
use crate::registration::Origin;
use crate::transport::{Exchange, Method, Request, Response, TransportError};

const SERVER: &str = "https://mcp.example/team/mcp";
const ISSUER: &str = "https://as.example/tenant1";
const NOW: Wall = Wall(1_800_000_000_000);

struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        Now { boot: Boot::from_start(Duration::from_secs(7)), wall: NOW }
    }
}

type Page = Box<dyn Fn(&Request) -> Response + Send + Sync>;

/// Servers that answer at these addresses, and 404 everywhere else; every request is remembered.
#[derive(Default)]
struct World {
    pages: HashMap<String, Page>,
    seen: Mutex<Vec<Request>>,
}

impl Transport for World {
    fn send(&self, request: Request) -> Exchange<'_> {
        let answered = self.pages.get(&request.url).map_or_else(|| answer(404, "", "not here"), |page| page(&request));
        self.seen.lock().unwrap().push(request);
        Box::pin(async move { Ok::<_, TransportError>(answered) })
    }
}

impl World {
    fn with(mut self, url: &str, status: u16, body: Value) -> Self {
        self.pages.insert(url.to_owned(), Box::new(move |_| answer(status, "application/json", &body.to_string())));
        self
    }

    fn door(mut self, status: u16, challenge: &str) -> Self {
        let challenge = challenge.to_owned();
        self.pages.insert(SERVER.to_owned(), Box::new(move |_| Response { challenges: vec![challenge.clone()], ..answer(status, "", "") }));
        self
    }

    /// Registration that repeats what it was asked for, as client `dyn-N`.
    fn registering(mut self, changes: Value) -> Self {
        let count = Mutex::new(0);
        self.pages.insert(
            format!("{ISSUER}/register"),
            Box::new(move |request| {
                let mut body: Value = serde_json::from_str(&request.body.as_ref().unwrap().0).unwrap();
                let mut count = count.lock().unwrap();
                *count += 1;
                body["client_id"] = format!("dyn-{count}").into();
                body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
                answer(201, "application/json", &body.to_string())
            }),
        );
        self
    }

    fn urls(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|request| format!("{:?} {}", request.method, request.url)).collect()
    }

    fn asked(&self, url: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|request| request.url == url).count()
    }

    /// What each registration asked for.
    fn registered_scopes(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let asked = seen.iter().filter(|request| request.url == format!("{ISSUER}/register"));
        let bodies = asked.map(|request| serde_json::from_str::<Value>(&request.body.as_ref().unwrap().0).unwrap());
        bodies.map(|body| body["scope"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The form of the last token request.
    fn token_request(&self) -> HashMap<String, String> {
        let seen = self.seen.lock().unwrap();
        form(seen.iter().rev().find(|request| request.url == format!("{ISSUER}/token")).unwrap()).into_iter().collect()
    }
}

fn metadata(changes: Value) -> Value {
    let mut metadata = json!({
        "issuer": ISSUER, "authorization_endpoint": format!("{ISSUER}/authorize"), "token_endpoint": format!("{ISSUER}/token"),
        "registration_endpoint": format!("{ISSUER}/register"), "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
    });
    metadata.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    metadata
}

const PRM: &str = "https://mcp.example/.well-known/oauth-protected-resource/team/mcp";
const AS_METADATA: &str = "https://as.example/.well-known/oauth-authorization-server/tenant1";

fn resource(changes: Value) -> Value {
    let mut resource = json!({ "resource": "https://mcp.example", "authorization_servers": [ISSUER] });
    resource.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    resource
}

/// An honest server and an honest authorization server.
fn honest() -> World {
    let tokens = json!({ "access_token": "at-1", "refresh_token": "rt-1", "token_type": "Bearer", "expires_in": 3600 });
    World::default()
        .door(401, "Bearer")
        .with(PRM, 200, resource(json!({})))
        .with(AS_METADATA, 200, metadata(json!({})))
        .with(&format!("{ISSUER}/token"), 200, tokens)
        .registering(json!({}))
}

pub(super) fn remote() -> Remote {
    Remote {
        server: SERVER.into(),
        authorization_server: None,
        challenge: None,
        challenged_by_server: false,
        asked: None,
        before: None,
        without_refresh: false,
        given: None,
        document: None,
        bearer: None,
        registrations: Vec::new(),
        command: format!("mcp-authctl login {SERVER}"),
    }
}

/// A client that a person gave.
fn given(id: &str, secret: Option<&str>, auth: Option<ClientAuth>) -> Option<Given> {
    Some(Given { id: id.into(), secret: secret.map(|secret| ClientSecret::new(secret.into())), auth })
}

pub(super) fn plan(remote: Remote) -> Plan {
    Plan {
        grant: "mcp.example".parse().unwrap(),
        provider: Provider { server: Some(remote.server.clone()), ..Provider::unknown("mcp.example") },
        client_secret: None,
        scopes: Vec::new(),
        login_hint: None,
        by_hand: None,
        resource: None,
        callback_port: None,
        flow: None,
        headless: true,
        patience: Duration::from_secs(60),
        proofs: Proofs::default(),
        remote: Some(remote),
    }
}

struct Underway {
    world: Arc<World>,
    progress: mpsc::UnboundedReceiver<Progress>,
    kept: Vec<Registration>,
    chosen: Vec<(ClientKind, String)>,
    end: JoinHandle<Result<Outcome, ErrorBody>>,
}

fn start(world: World, plan: Plan) -> Underway {
    let world = Arc::new(world);
    let (told, progress) = mpsc::unbounded_channel();
    let (_paste, pasted) = mpsc::channel(1);
    let login = login::run(plan, world.clone(), Arc::new(Still), move |step| drop(told.send(step)), pasted);
    Underway { world, progress, kept: Vec::new(), chosen: Vec::new(), end: tokio::spawn(login) }
}

/// What the authorization request said.
struct Opened {
    params: HashMap<String, String>,
    redirect: url::Url,
}

impl Underway {
    /// Up to the page that the person opens; `None`: the login ended before.
    async fn opened(&mut self) -> Option<Opened> {
        while let Some(step) = self.progress.recv().await {
            match step {
                Progress::Registered(registration, kept) => {
                    self.kept.push(*registration);
                    kept.send(()).unwrap();
                }
                Progress::ClientChosen { client, client_id, .. } => self.chosen.push((client, client_id)),
                Progress::OpenUrl { url, redirect_uri, .. } => {
                    let params = url::Url::parse(&url).unwrap().query_pairs().into_owned().collect();
                    return Some(Opened { params, redirect: redirect_uri.parse().unwrap() });
                }
                _ => {}
            }
        }
        None
    }

    async fn refused(mut self) -> ErrorBody {
        assert!(self.opened().await.is_none(), "a page was opened");
        self.end.await.unwrap().map(|_| ()).unwrap_err()
    }

    /// The whole login, with a person who says yes.
    async fn finished(mut self) -> (Outcome, Opened, Vec<Registration>, Arc<World>) {
        let opened = self.opened().await.expect("a page to open");
        opened.answer("code=c-1").await;
        assert!(self.opened().await.is_none(), "a second page");
        (self.end.await.unwrap().unwrap(), opened, self.kept, self.world)
    }
}

impl Opened {
    async fn answer(&self, query: &str) {
        let (host, port) = (self.redirect.host_str().unwrap(), self.redirect.port().unwrap());
        let mut stream = TcpStream::connect((host, port)).await.unwrap();
        let request =
            format!("GET {}?{query}&state={} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n", self.redirect.path(), self.params["state"]);
        stream.write_all(request.as_bytes()).await.unwrap();
        let _ = stream.read_to_string(&mut String::new()).await;
    }
}

#[tokio::test]
async fn a_login_by_url_finds_everything_in_the_order_of_the_spec_and_registers_itself() {
    let (outcome, opened, kept, world) = start(honest(), plan(remote())).finished().await;
    let register = format!("Post {ISSUER}/register");
    let expected =
        [&format!("Post {SERVER}"), &format!("Get {PRM}"), &format!("Get {AS_METADATA}"), &register, &format!("Post {ISSUER}/token")];
    assert_eq!(world.urls().iter().collect::<Vec<_>>(), expected);
    assert_eq!((opened.params["resource"].as_str(), opened.params["client_id"].as_str()), ("https://mcp.example", "dyn-1"));
    assert!(!opened.params.contains_key("scope"), "nobody named a scope");
    assert_eq!(world.token_request()["resource"], "https://mcp.example", "byte for byte, without a slash");
    assert_eq!((outcome.resource.as_deref(), outcome.definition.server.as_deref()), (Some("https://mcp.example"), Some(SERVER)));
    assert_eq!((outcome.definition.issuer.as_deref(), outcome.definition.client_id.as_deref()), (Some(ISSUER), Some("dyn-1")));
    assert_eq!(kept[0].redirect_uri(), Some(opened.params["redirect_uri"].as_str()), "what is registered is what is listened at");
}

#[tokio::test]
async fn the_challenge_names_the_place_and_the_scopes() {
    let place = "https://meta.example/prm";
    let world = honest().door(401, &format!("Bearer scope=\"a b\", resource_metadata=\"{place}\"")).with(
        place,
        200,
        resource(json!({ "scopes_supported": ["x"] })),
    );
    let (outcome, opened, _, world) = start(world, plan(remote())).finished().await;
    assert_eq!((opened.params["scope"].as_str(), world.asked(PRM)), ("a b", 0));
    assert_eq!(outcome.requested_scopes, ["a", "b"]);
}

#[tokio::test]
async fn where_nothing_is_at_one_place_the_next_is_asked_and_no_other() {
    let mut world =
        honest().with("https://mcp.example/.well-known/oauth-protected-resource", 200, resource(json!({ "scopes_supported": ["x"] })));
    world.pages.remove(PRM);
    world.pages.remove(AS_METADATA);
    let world = world.with("https://as.example/tenant1/.well-known/openid-configuration", 200, metadata(json!({})));
    let (_, opened, _, world) = start(world, plan(remote())).finished().await;
    assert_eq!(opened.params["scope"], "x");
    let asked: Vec<_> = world.urls().into_iter().filter(|url| url.contains("well-known")).collect();
    assert_eq!(asked.len(), 5, "{asked:?}");
    assert!(!asked.iter().any(|url| url == "Get https://as.example/.well-known/oauth-authorization-server"), "the issuer has a path");
}

#[tokio::test]
async fn a_server_of_the_first_version_is_its_own_authorization_server() {
    let root = "https://mcp.example/.well-known/oauth-authorization-server";
    let at_root = metadata(json!({ "issuer": "https://mcp.example/" }));
    for (pages, authorize, issuer) in [
        (vec![(root, at_root)], format!("{ISSUER}/authorize"), "https://mcp.example/"),
        (Vec::new(), "https://mcp.example/authorize".to_owned(), "https://mcp.example"),
    ] {
        let mut world = honest();
        world.pages.remove(PRM);
        world = pages.into_iter().fold(world, |world, (url, body)| world.with(url, 200, body));
        let made = json!({ "client_id": "old-1" });
        let mut login = start(world.with("https://mcp.example/register", 201, made), plan(remote()));
        let Some(Progress::ServerFound { authorization_server, .. }) = login.progress.recv().await else { panic!("nothing was found") };
        assert_eq!(authorization_server, issuer);
        let opened = login.opened().await.unwrap();
        assert!(!opened.params.contains_key("resource"), "that version knows none");
        let _ = authorize;
        login.end.abort();
    }
}

#[tokio::test]
async fn what_must_not_be_believed_opens_no_page() {
    let elsewhere = resource(json!({ "resource": "https://evil.example" }));
    let cases: Vec<(World, &str)> = vec![
        (honest().with(PRM, 200, elsewhere), "its metadata is that of https://evil.example"),
        (honest().with(PRM, 200, resource(json!({ "authorization_servers": [] }))), "has no authorization_servers"),
        (honest().with(PRM, 200, resource(json!({ "authorization_servers": ["http://127.0.0.1:1"] }))), "names no authorization server"),
        (honest().with(PRM, 503, json!({})), "status 503"),
        (honest().with(AS_METADATA, 200, metadata(json!({ "issuer": "https://as.example/other" }))), "is that of issuer"),
        (honest().with(AS_METADATA, 200, metadata(json!({ "code_challenge_methods_supported": null }))), "S256"),
        (honest().with(AS_METADATA, 200, metadata(json!({ "authorization_endpoint": "javascript:alert(1)" }))), "authorization_endpoint"),
        (honest().with(AS_METADATA, 200, metadata(json!({ "authorization_endpoint": null }))), "authorization_endpoint"),
        (honest().with(AS_METADATA, 200, metadata(json!({ "registration_endpoint": "https://127.0.0.1/r" }))), "registration_endpoint"),
        (honest().with(AS_METADATA, 200, metadata(json!({ "registration_endpoint": null }))), "registers no clients by itself"),
        (honest().door(401, "Bearer resource_metadata=\"file:///etc/passwd\""), "which is no https URL"),
        (honest().registering(json!({ "redirect_uris": ["https://evil.example"] })), "other redirect URIs"),
        (honest().registering(json!({ "client_id": "a\u{7}b" })), "control character"),
        (World::default(), "does not answer as an MCP server"),
        (World::default().door(200, ""), "lets everybody in"),
        (World::default().door(500, ""), "status 500"),
    ];
    for (world, expected) in cases {
        let error = start(world, plan(remote())).refused().await;
        assert!(error.error_description.contains(expected), "{expected}: {error}");
        let hint = error.hint.unwrap_or_default();
        assert!(hint.contains(' ') && !hint.contains("[providers.mcp.example]") && !hint.contains("provider show"), "{expected}: {hint}");
    }
}

#[tokio::test]
async fn a_server_that_takes_other_proofs_than_ours_alone_opens_no_page_where_it_demands_them() {
    let lists = |algorithm: &str| json!({ "dpop_signing_alg_values_supported": [algorithm] });
    let demands =
        |algorithm: &str| resource(json!({ "dpop_bound_access_tokens_required": true, "dpop_signing_alg_values_supported": [algorithm] }));
    for (world, who) in [
        (honest().door(401, "DPoP algs=\"PS256\""), "the server takes proofs by PS256 alone"),
        (honest().with(PRM, 200, demands("PS256")), "the server takes proofs by PS256 alone"),
        (honest().door(401, "DPoP").with(AS_METADATA, 200, metadata(lists("PS256"))), "its authorization server takes proofs by PS256"),
    ] {
        let error = start(world, plan(remote())).refused().await;
        assert!(error.error == ErrorCode::Conflict && error.error_description.contains(who), "{who}: {error}");
    }
    for world in [
        honest().door(401, "DPoP algs=\"PS256 ES256\"").with(AS_METADATA, 200, metadata(lists("ES256"))),
        honest().with(PRM, 200, demands("ES256")),
        // Bearer tokens will do.
        honest().door(401, "Bearer, DPoP algs=\"PS256\"").with(PRM, 200, resource(lists("PS256"))),
    ] {
        assert!(start(world, plan(remote())).opened().await.is_some());
    }
}

#[tokio::test]
async fn a_client_that_a_person_gave_comes_before_all_others_and_belongs_to_one_issuer() {
    let secret = || Some(ClientSecret::new("hush".into()));
    let world = || honest().with(AS_METADATA, 200, metadata(json!({ "token_endpoint_auth_methods_supported": ["client_secret_post"] })));
    let given_now = Remote { given: given("mine", Some("hush"), None), document: Some("https://doc.example/c.json".into()), ..remote() };
    let (outcome, opened, kept, seen) = start(world(), plan(given_now)).finished().await;
    assert_eq!((opened.params["client_id"].as_str(), seen.token_request()["client_secret"].as_str()), ("mine", "hush"));
    assert_eq!((outcome.definition.client_auth, kept[0].origin == Origin::Given), (Some(ClientAuth::ClientSecretPost), true));
    assert_eq!(seen.asked(&format!("{ISSUER}/register")), 0);
    // A client that the server does not take is not kept.
    let refusing = world().with(&format!("{ISSUER}/token"), 401, json!({ "error": "invalid_client" }));
    let mut wrong = start(refusing, plan(Remote { given: given("slip", None, None), ..remote() }));
    wrong.opened().await.unwrap().answer("code=c-1").await;
    assert!(wrong.opened().await.is_none() && wrong.kept.is_empty());
    // Later nobody gives it, and it is known.
    let (_, opened, _, seen) = start(world(), plan(Remote { registrations: kept, ..remote() })).finished().await;
    assert_eq!((opened.params["client_id"].as_str(), seen.token_request()["client_secret"].as_str()), ("mine", "hush"));
    // The server names another authorization server: it is not shown there.
    let elsewhere = Registration::given("https://old.example", "mine", secret(), NOW);
    let moved = Remote { given: given("mine", None, None), registrations: vec![elsewhere], ..remote() };
    let error = start(world(), plan(moved)).refused().await;
    assert!(error.error_description.contains("was registered at https://old.example"), "{error}");
}

#[tokio::test]
async fn a_known_client_is_used_again_unless_its_redirect_is_taken() {
    let (_, first, kept, _) = start(honest(), plan(remote())).finished().await;
    let again = Remote { registrations: kept.clone(), ..remote() };
    let (_, second, _, world) = start(honest(), plan(again)).finished().await;
    assert_eq!((&second.params["redirect_uri"], world.asked(&format!("{ISSUER}/register"))), (&first.params["redirect_uri"], 0));
    let taken = tokio::net::TcpListener::bind(("127.0.0.1", first.redirect.port().unwrap())).await.unwrap();
    let (_, third, made, world) = start(honest(), plan(Remote { registrations: kept, ..remote() })).finished().await;
    drop(taken);
    assert_eq!(world.asked(&format!("{ISSUER}/register")), 1);
    assert!(third.params["redirect_uri"] != first.params["redirect_uri"] && made[0].redirect_uri() == Some(&third.params["redirect_uri"]));
}

#[tokio::test]
async fn a_client_of_one_issuer_is_never_shown_to_another() {
    let (_, _, kept, _) = start(honest(), plan(remote())).finished().await;
    let other = "https://other.example";
    let endpoints =
        json!({ "issuer": other, "authorization_endpoint": format!("{other}/a"), "registration_endpoint": format!("{ISSUER}/register") });
    let moved = honest().with(PRM, 200, resource(json!({ "authorization_servers": [other] }))).with(
        "https://other.example/.well-known/oauth-authorization-server",
        200,
        metadata(endpoints),
    );
    let before = Some(Before { issuer: Some(ISSUER.into()), client_id: None, scopes: vec!["old".into()], bound: false });
    let mut login = start(moved, plan(Remote { registrations: kept, before, ..remote() }));
    let opened = login.opened().await.unwrap();
    assert_eq!(login.chosen[0].0, ClientKind::Registered);
    assert!(!opened.params.contains_key("scope"), "what was asked of the old server is not asked of the new one");
    opened.answer("code=c-1").await;
    assert_eq!(login.end.await.unwrap().unwrap().definition.issuer.as_deref(), Some(other));
}

#[tokio::test]
async fn a_login_that_must_be_at_one_authorization_server_asks_no_other_for_anything() {
    const EVIL: &str = "https://evil.example";
    let naming = |servers: Value| honest().with(PRM, 200, resource(json!({ "authorization_servers": servers })));
    let bound = |issuer: &str| Remote { authorization_server: Some(issuer.into()), given: given("mine", Some("hush"), None), ..remote() };
    // The one among several, though a grant was made at another since.
    let before = Some(Before { issuer: Some(EVIL.into()), client_id: None, scopes: Vec::new(), bound: false });
    let (outcome, _, _, world) = start(naming(json!([EVIL, ISSUER])), plan(Remote { before, ..bound(ISSUER) })).finished().await;
    assert_eq!(outcome.definition.issuer.as_deref(), Some(ISSUER));
    assert!(world.urls().iter().all(|url| !url.contains("evil")), "{:?}", world.urls());
    // None of them, told by whatever the server challenges with, for a person and for a client that asks for itself.
    let prm = "https://mcp.example/prm";
    let challenge = format!("Bearer resource_metadata=\"{prm}\", scope=\"more\"");
    let told = || honest().door(401, &challenge).with(prm, 200, resource(json!({ "authorization_servers": [EVIL] })));
    for (flow, world) in [(None, naming(json!([EVIL]))), (None, told()), (Some(LoginFlow::ClientCredentials), told())] {
        let login = start(world, Plan { flow, ..plan(bound(ISSUER)) });
        let world = login.world.clone();
        let error = login.refused().await;
        assert!(error.error_description.contains("must be https://as.example/tenant1, and the server names https://evil"), "{error}");
        assert_eq!(world.urls().len(), 2, "the server and its own metadata: {:?}", world.urls());
    }
    // A server of the first version is its own, by one of two spellings.
    let root = "https://mcp.example/.well-known/oauth-authorization-server";
    for (wanted, named, asked) in
        [("https://mcp.example/", "https://mcp.example/", 1), ("https://mcp.example", "https://mcp.example/", 1), (ISSUER, ISSUER, 0)]
    {
        let mut world = honest().with(root, 200, metadata(json!({ "issuer": named })));
        world.pages.remove(PRM);
        let mut login = start(world, plan(bound(wanted)));
        assert_eq!(login.opened().await.is_some(), wanted == named && asked == 1, "{wanted}");
        assert_eq!(login.world.asked(root), asked, "{wanted}");
        login.end.abort();
    }
}

#[tokio::test]
async fn the_config_says_of_which_issuer_a_client_is_though_it_was_shown_to_another() {
    let registrations = vec![Registration::given("https://evil.example", "mine", None, NOW)];
    let bound = Remote { authorization_server: Some(ISSUER.into()), registrations, ..remote() };
    let mut plan = plan(bound);
    plan.provider.client_id = Some("mine".into());
    plan.provider.authorization_server = Some(ISSUER.into());
    let (_, opened, kept, _) = start(honest(), plan).finished().await;
    assert_eq!((opened.params["client_id"].as_str(), kept[0].issuer.as_str()), ("mine", ISSUER));
}

#[tokio::test]
async fn a_document_that_is_refused_gives_way_to_a_registration_that_remembers_it() {
    let document = "https://doc.example/client.json";
    let world = || honest().with(AS_METADATA, 200, metadata(json!({ "client_id_metadata_document_supported": true })));
    let wish = || Remote { document: Some(document.into()), ..remote() };
    let mut login = start(world(), plan(wish()));
    let opened = login.opened().await.unwrap();
    assert_eq!((opened.params["client_id"].as_str(), opened.redirect.path()), (document, "/callback"));
    opened.answer("error=invalid_client").await;
    let second = login.opened().await.unwrap();
    assert_eq!(second.params["client_id"], "dyn-1");
    second.answer("code=c-1").await;
    login.end.await.unwrap().unwrap();
    let mut again = start(world(), plan(Remote { registrations: login.kept, ..wish() }));
    assert_eq!(again.opened().await.unwrap().params["client_id"], "dyn-1", "it is not shown again");
    let mut untaken = start(honest(), plan(wish()));
    assert_eq!(untaken.opened().await.unwrap().params["client_id"], "dyn-1", "the server does not say that it takes documents");
}

#[tokio::test]
async fn a_client_that_the_server_has_forgotten_is_replaced_once() {
    let (_, _, kept, _) = start(honest(), plan(remote())).finished().await;
    let forgetful =
        honest().with(&format!("{ISSUER}/token"), 401, json!({ "error": "invalid_client" })).registering(json!({ "client_id": "new" }));
    let mut login = start(forgetful, plan(Remote { registrations: kept, ..remote() }));
    login.opened().await.unwrap().answer("code=c-1").await;
    let second = login.opened().await.unwrap();
    assert_eq!(login.chosen.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [ClientKind::Known, ClientKind::Registered]);
    second.answer("code=c-2").await;
    assert!(login.opened().await.is_none(), "a third try");
    assert_eq!(login.end.await.unwrap().unwrap_err().error, ErrorCode::Conflict);
}

#[tokio::test]
async fn a_client_that_was_made_for_fewer_scopes_is_replaced_once() {
    let told = |scopes: &[&str]| {
        let scopes = Some(scopes.iter().map(|&scope| scope.to_owned()).collect());
        Some(Challenge { scopes, ..Challenge::default() })
    };
    let first = Remote { challenge: told(&["read"]), challenged_by_server: true, ..remote() };
    let (outcome, _, kept, _) = start(honest(), plan(first)).finished().await;
    let before = Before {
        issuer: outcome.definition.issuer,
        client_id: outcome.definition.client_id,
        scopes: outcome.requested_scopes,
        bound: false,
    };
    let step_up = || Remote {
        challenge: told(&["write"]),
        challenged_by_server: true,
        before: Some(before.clone()),
        registrations: kept.clone(),
        ..remote()
    };
    let kinds = |login: &Underway| login.chosen.iter().map(|(kind, _)| *kind).collect::<Vec<_>>();

    for second in ["code=c-1", "error=invalid_scope"] {
        let mut login = start(honest().registering(json!({ "client_id": "wider" })), plan(step_up()));
        login.opened().await.unwrap().answer("error=invalid_scope").await;
        let opened = login.opened().await.expect("a page for the new client");
        assert_eq!((opened.params["client_id"].as_str(), opened.params["scope"].as_str()), ("wider", "read write"));
        assert_eq!(login.world.registered_scopes(), ["read write"]);
        opened.answer(second).await;
        assert!(login.opened().await.is_none(), "a third try");
        assert_eq!(kinds(&login), [ClientKind::Known, ClientKind::Registered]);
        match login.end.await.unwrap() {
            Ok(outcome) => assert_eq!((second, outcome.definition.client_id.as_deref()), ("code=c-1", Some("wider"))),
            Err(error) => assert!(second != "code=c-1" && error.error_description.contains("invalid_scope"), "{error}"),
        }
    }

    // The token endpoint may be the one that says so.
    let narrow = honest().with(&format!("{ISSUER}/token"), 400, json!({ "error": "invalid_scope" }));
    let mut login = start(narrow, plan(step_up()));
    login.opened().await.unwrap().answer("code=c-1").await;
    login.opened().await.unwrap().answer("code=c-2").await;
    assert!(login.opened().await.is_none(), "a third try");
    assert_eq!(kinds(&login), [ClientKind::Known, ClientKind::Registered]);

    // Where it makes no other client, the scopes are what is wrong, and not that.
    let refusing = json!({ "error": "invalid_client_metadata" });
    for (world, said) in [
        (honest().with(AS_METADATA, 200, metadata(json!({ "registration_endpoint": null }))), "invalid_scope"),
        (honest().with(&format!("{ISSUER}/register"), 400, refusing), "invalid_scope"),
        (honest().with(&format!("{ISSUER}/register"), 503, json!({})), "status 503"),
    ] {
        let mut login = start(world, plan(step_up()));
        login.opened().await.unwrap().answer("error=invalid_scope").await;
        assert!(login.opened().await.is_none(), "a second page");
        let error = login.end.await.unwrap().map(|_| ()).unwrap_err();
        assert!(error.error_description.contains(said), "{error}");
    }

    // One that a person gave, or that was made a moment ago, is not replaced.
    let document = Remote { document: Some("https://doc.example/client.json".into()), ..remote() };
    let taking = || honest().with(AS_METADATA, 200, metadata(json!({ "client_id_metadata_document_supported": true })));
    for (world, remote) in
        [(honest(), Remote { given: given("mine", None, None), ..step_up() }), (honest(), remote()), (taking(), document)]
    {
        let mut login = start(world, plan(remote));
        login.opened().await.unwrap().answer("error=invalid_scope").await;
        assert!(login.opened().await.is_none(), "a second page");
        assert_eq!(login.chosen.len(), 1);
    }
}

#[tokio::test]
async fn a_client_that_may_be_forgotten_gives_way_where_another_is_made() {
    let (_, _, kept, _) = start(honest(), plan(remote())).finished().await;
    let with = |doubted: bool| {
        let made_at = Wall(0);
        let registrations = kept.iter().map(|one| Registration { doubted, made_at, ..one.clone() }).collect();
        Remote { registrations, ..remote() }
    };
    let closed = || honest().with(AS_METADATA, 200, metadata(json!({ "registration_endpoint": null })));
    let refusing = |status: u16| honest().with(&format!("{ISSUER}/register"), status, json!({}));
    for (world, doubted, expected) in [
        (honest(), false, ClientKind::Known),
        (honest(), true, ClientKind::Registered),
        (closed(), true, ClientKind::Known),
        (refusing(403), true, ClientKind::Known),
        (refusing(503), true, ClientKind::Known),
    ] {
        let mut login = start(world, plan(with(doubted)));
        login.opened().await.expect("a page to open");
        assert_eq!(login.chosen.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [expected]);
        login.end.abort();
        assert!(login.end.await.unwrap_err().is_cancelled(), "its port is free again");
    }
    // The next login registers anew: that is said, where it is so.
    for (world, remote, anew) in [(honest(), with(false), true), (closed(), with(false), false), (honest(), remote(), false)] {
        let mut login = start(world, Plan { patience: Duration::ZERO, ..plan(remote) });
        login.opened().await.expect("a page to open");
        let error = login.end.await.unwrap().map(|_| ()).unwrap_err();
        assert_eq!(error.error_description, "nobody finished the login with mcp.example in time");
        assert_eq!(error.hint.unwrap().contains(" tries again, and registers anew"), anew);
    }
}

#[tokio::test]
async fn the_code_of_another_server_goes_nowhere() {
    let promising = || honest().with(AS_METADATA, 200, metadata(json!({ "authorization_response_iss_parameter_supported": true })));
    for (world, iss, sent) in [
        (promising(), "", false),
        (promising(), "&iss=https://evil.example", false),
        (promising(), "&iss=https://as.example/tenant1/", false),
        (promising(), "&iss=https://as.example/tenant1", true),
        (honest(), "", true),
        (honest(), "&iss=https://evil.example", false),
        (honest(), "&iss=https://as.example/tenant1", true),
    ] {
        let mut login = start(world, plan(remote()));
        login.opened().await.unwrap().answer(&format!("code=c-1{iss}")).await;
        let world = login.world.clone();
        assert_eq!(login.end.await.unwrap().is_ok(), sent, "{iss}");
        assert_eq!(world.asked(&format!("{ISSUER}/token")), usize::from(sent), "{iss}");
    }
}

#[tokio::test]
async fn a_step_up_asks_for_the_union_and_offline_access_only_where_it_is_offered() {
    let challenge = Challenge { scopes: Some(vec!["write".into()]), ..Challenge::default() };
    let before =
        Before { issuer: Some(ISSUER.into()), client_id: None, scopes: vec!["read".into(), "offline_access".into()], bound: false };
    let wish = || Remote { challenge: Some(challenge.clone()), challenged_by_server: true, before: Some(before.clone()), ..remote() };
    let mut login = start(honest(), plan(wish()));
    let opened = login.opened().await.unwrap();
    assert_eq!((opened.params["scope"].as_str(), login.world.asked(SERVER)), ("read write", 0), "the daemon has seen the challenge itself");
    assert!(!opened.params.contains_key("prompt"));
    let offering = honest().with(AS_METADATA, 200, metadata(json!({ "scopes_supported": ["offline_access"] })));
    let opened = start(offering, plan(wish())).opened().await.unwrap();
    assert_eq!((opened.params["scope"].as_str(), opened.params["prompt"].as_str()), ("read write offline_access", "consent"));
}

#[tokio::test]
async fn a_server_that_takes_no_post_is_asked_by_get() {
    let mut world = honest();
    world.pages.insert(
        SERVER.to_owned(),
        Box::new(|request| match request.method {
            Method::Get => Response { challenges: vec!["Bearer scope=\"got\"".into()], ..answer(401, "", "") },
            _ => answer(405, "", ""),
        }),
    );
    let (_, opened, _, _) = start(world, plan(remote())).finished().await;
    assert_eq!(opened.params["scope"], "got");
}

#[path = "as_client_tests.rs"]
mod without_person;

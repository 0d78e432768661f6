//! Clients that a server has made for us, and may have forgotten: then its page shows an error, and nothing comes back.

use std::collections::HashMap;
use std::sync::Mutex;

use mcp_auth_proto::ClientKind;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::broker::logins::PATIENCE;
use crate::clock::Wall;
use crate::oauth::samples::{answer, form};

const SERVER: &str = "https://mcp.example/mcp";
const AS: &str = "https://as.example";

/// An MCP server, and its authorization server, which makes clients.
#[derive(Default)]
struct World {
    /// It makes none any more.
    closed: Mutex<bool>,
    /// How many it has made.
    made: Mutex<usize>,
    /// What it refuses renewals with.
    refusal: Mutex<Option<(u16, &'static str)>>,
}

impl World {
    async fn house() -> (House, Arc<Self>) {
        let mut house = House::with_config("", &[]).await;
        let (mut requests, world) = (std::mem::replace(&mut house.requests, mpsc::unbounded_channel().1), Arc::new(Self::default()));
        let at = world.clone();
        tokio::spawn(async move {
            while let Some((request, reply)) = requests.recv().await {
                // A login that was cancelled waits for nothing.
                let _ = reply.send(Ok(at.answer(&request)));
            }
        });
        (house, world)
    }

    fn answer(&self, request: &Request) -> Response {
        let ok = |body: serde_json::Value| answer(200, "application/json", &body.to_string());
        match request.url.as_str() {
            SERVER => Response { challenges: vec!["Bearer".into()], ..answer(401, "", "") },
            "https://mcp.example/.well-known/oauth-protected-resource/mcp" => {
                ok(json!({ "resource": SERVER, "authorization_servers": [AS] }))
            }
            "https://as.example/.well-known/oauth-authorization-server" => ok(json!({
                "issuer": AS, "authorization_endpoint": format!("{AS}/authorize"), "token_endpoint": format!("{AS}/token"),
                "registration_endpoint": (!*self.closed.lock().unwrap()).then(|| format!("{AS}/register")),
                "code_challenge_methods_supported": ["S256"], "token_endpoint_auth_methods_supported": ["none"],
            })),
            "https://as.example/register" => {
                let mut made = self.made.lock().unwrap();
                *made += 1;
                ok(json!({ "client_id": format!("dyn-{made}") }))
            }
            "https://as.example/token" => {
                let renews = form(request).contains(&("grant_type".into(), "refresh_token".into()));
                match self.refusal.lock().unwrap().filter(|_| renews) {
                    Some((status, error)) => answer(status, "application/json", &json!({ "error": error }).to_string()),
                    None => ok(json!({ "access_token": "at", "refresh_token": "rt", "token_type": "Bearer", "expires_in": 3600 })),
                }
            }
            _ => answer(404, "", ""),
        }
    }
}

/// A login whose page is open.
struct AtThePage {
    id: String,
    /// How its client came by its id, and the id.
    client: (ClientKind, String),
    page: HashMap<String, String>,
    events: mpsc::UnboundedReceiver<wire::LoginEvent>,
}

impl AtThePage {
    async fn of(house: &House, request: wire::LoginRequest) -> Self {
        let mut events = house.broker.login(request, process(1)).await.unwrap();
        let (mut id, mut client) = (String::new(), None);
        loop {
            match events.recv().await.expect("a page") {
                wire::LoginEvent::Started { id: given, .. } => id = given,
                wire::LoginEvent::ClientChosen { client: kind, client_id, .. } => client = Some((kind, client_id)),
                wire::LoginEvent::OpenUrl { url, .. } => {
                    let page = url::Url::parse(&url).unwrap().query_pairs().into_owned().collect();
                    return Self { id, client: client.unwrap(), page, events };
                }
                wire::LoginEvent::Failed { error } => panic!("{error}"),
                _ => {}
            }
        }
    }

    /// The page leads back with this.
    async fn answer(self, query: &str) -> Result<(), ErrorBody> {
        let back = url::Url::parse(&self.page["redirect_uri"]).unwrap();
        let (host, port) = (back.host_str().unwrap(), back.port().unwrap());
        let mut stream = TcpStream::connect((host, port)).await.unwrap();
        let request = format!("GET {}?{query}&state={} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n", back.path(), self.page["state"]);
        stream.write_all(request.as_bytes()).await.unwrap();
        let _ = stream.read_to_string(&mut String::new()).await;
        self.end().await
    }

    async fn end(mut self) -> Result<(), ErrorBody> {
        loop {
            match self.events.recv().await.expect("an end") {
                wire::LoginEvent::Done { .. } => return Ok(()),
                wire::LoginEvent::Failed { error } => return Err(error),
                _ => {}
            }
        }
    }
}

fn wish() -> wire::LoginRequest {
    wire::LoginRequest { provider: SERVER.into(), interactive: true, ..Default::default() }
}

/// A day passes for every client.
async fn grow_old(house: &House) {
    let made = |core: &mut Core| core.now().wall.0 - 86_400_000;
    house
        .core(move |core| {
            let at = Wall(made(core));
            core.remote.registrations.iter_mut().for_each(|one| one.made_at = at)
        })
        .await;
}

async fn renew(house: &House) -> Result<(), ErrorBody> {
    house.broker.refresh("mcp.example".parse().unwrap(), wire::RefreshRequest::default()).await.map(|_| ())
}

fn known(id: &str) -> (ClientKind, String) {
    (ClientKind::Known, id.to_owned())
}

fn new(id: &str) -> (ClientKind, String) {
    (ClientKind::Registered, id.to_owned())
}

#[tokio::test]
async fn where_nothing_came_back_from_its_page_a_client_gives_way_to_a_new_one() {
    let (house, _) = World::house().await;
    AtThePage::of(&house, wish()).await.answer("code=c").await.unwrap();

    // A new client has been forgotten by nobody.
    let login = AtThePage::of(&house, wish()).await;
    house.broker.cancel_login(login.id.clone()).await.unwrap();
    login.end().await.unwrap_err();

    // Nobody comes back in time.
    grow_old(&house).await;
    let login = AtThePage::of(&house, wish()).await;
    assert_eq!(login.client, known("dyn-1"));
    tokio::time::pause();
    tokio::time::advance(PATIENCE).await;
    tokio::time::resume();
    assert!(login.end().await.unwrap_err().hint.unwrap().ends_with("`mcp-authctl login mcp.example` tries again, and registers anew"));
    let login = AtThePage::of(&house, wish()).await;
    assert_eq!(login.client, new("dyn-2"));

    // One that was made for this login is none that can have been forgotten.
    house.broker.cancel_login(login.id.clone()).await.unwrap();
    login.end().await.unwrap_err();
    let login = AtThePage::of(&house, wish()).await;
    assert_eq!(login.client, known("dyn-2"));

    // A page that leads back says that the server knows the client, whatever else it says.
    login.answer("error=access_denied").await.unwrap_err();
    grow_old(&house).await;
    let login = AtThePage::of(&house, wish()).await;
    assert_eq!(login.client, known("dyn-2"));

    // Who sees an error there closes the page, and the command.
    house.broker.cancel_login(login.id.clone()).await.unwrap();
    login.end().await.unwrap_err();
    let AtThePage { client, id, events, .. } = AtThePage::of(&house, wish()).await;
    assert_eq!(client, new("dyn-3"));
    house.broker.cancel_login(id).await.unwrap();
    drop(events);
    grow_old(&house).await;
    let AtThePage { client, events, .. } = AtThePage::of(&house, wish()).await;
    assert_eq!(client, known("dyn-3"));
    drop(events);
    while house.core(|core| !core.logins.running.is_empty()).await {
        tokio::task::yield_now().await;
    }
    assert_eq!(AtThePage::of(&house, wish()).await.client, new("dyn-4"));
    renew(&house).await.expect("the grant has its own client still");
}

#[tokio::test]
async fn where_a_renewal_was_refused_because_of_its_client_the_next_login_registers_anew() {
    for (status, error, expected) in
        [(401, "invalid_client", new("dyn-2")), (400, "unauthorized_client", new("dyn-2")), (400, "invalid_scope", known("dyn-1"))]
    {
        let (house, world) = World::house().await;
        AtThePage::of(&house, wish()).await.answer("code=c").await.unwrap();
        *world.refusal.lock().unwrap() = Some((status, error));
        renew(&house).await.unwrap_err();
        assert_eq!(AtThePage::of(&house, wish()).await.client, expected, "{error}");
    }
    // A renewal says that the server knows it, whatever was thought before.
    let (house, _) = World::house().await;
    AtThePage::of(&house, wish()).await.answer("code=c").await.unwrap();
    grow_old(&house).await;
    let login = AtThePage::of(&house, wish()).await;
    house.broker.cancel_login(login.id).await.unwrap();
    renew(&house).await.unwrap();
    assert_eq!(AtThePage::of(&house, wish()).await.client, known("dyn-1"));
}

#[tokio::test]
async fn where_the_server_makes_no_clients_any_more_the_old_one_is_tried_and_trusted_again_if_it_is_taken() {
    let (house, world) = World::house().await;
    AtThePage::of(&house, wish()).await.answer("code=c").await.unwrap();
    grow_old(&house).await;
    let login = AtThePage::of(&house, wish()).await;
    house.broker.cancel_login(login.id).await.unwrap();
    *world.closed.lock().unwrap() = true;
    let login = AtThePage::of(&house, wish()).await;
    assert_eq!(login.client, known("dyn-1"));
    login.answer("code=c").await.unwrap();
    *world.closed.lock().unwrap() = false;
    assert_eq!(AtThePage::of(&house, wish()).await.client, known("dyn-1"));
}

//! Logins at a remote server that need no person: what they ask for, how often they are tried, and whom they do not hold up.

use std::sync::Mutex;

use super::*;
use crate::grant::record::{AssertionSource, TokenSource};
use crate::oauth::samples::{answer, form, jwt};

const SERVER: &str = "https://mcp.example/mcp";

fn config(more: &str) -> String {
    format!("[providers.corp]\nserver = '{SERVER}'\nflow = 'client_credentials'\nclient_id = 'c1'\n{more}")
}

/// An MCP server, and the authorization server that it names.
struct World {
    /// What the MCP server tells whoever has no token.
    challenge: Mutex<String>,
    /// What comes of a token request.
    token: Mutex<(u16, &'static str)>,
    /// What the token requests said.
    asked: Mutex<Vec<Vec<(String, String)>>>,
    /// How many requests there were, of all kinds.
    requests: Mutex<usize>,
}

impl World {
    /// Takes the requests of this house from now on.
    fn of(house: &mut House) -> Arc<Self> {
        let granted = r#"{"access_token":"at-1","token_type":"Bearer","expires_in":3600}"#;
        let world = Arc::new(Self {
            challenge: Mutex::new("Bearer scope=\"read\"".into()),
            token: Mutex::new((200, granted)),
            asked: Mutex::default(),
            requests: Mutex::default(),
        });
        let (mut requests, at) = (std::mem::replace(&mut house.requests, mpsc::unbounded_channel().1), world.clone());
        tokio::spawn(async move {
            while let Some((request, reply)) = requests.recv().await {
                // A login that was cancelled waits for nothing.
                let _ = reply.send(Ok(at.answer(&request)));
            }
        });
        world
    }

    fn answer(&self, request: &Request) -> Response {
        *self.requests.lock().unwrap() += 1;
        match request.url.as_str() {
            SERVER => Response { challenges: vec![self.challenge.lock().unwrap().clone()], ..answer(401, "", "") },
            "https://mcp.example/.well-known/oauth-protected-resource/mcp" => {
                json(200, &format!(r#"{{"resource":"{SERVER}","authorization_servers":["https://corp.example"]}}"#))
            }
            "https://corp.example/.well-known/oauth-authorization-server" => {
                json(200, &format!(r#"{{"issuer":"https://corp.example","token_endpoint":"{TOKEN}"}}"#))
            }
            TOKEN => {
                self.asked.lock().unwrap().push(form(request));
                let (status, body) = *self.token.lock().unwrap();
                json(status, body)
            }
            _ => answer(404, "", ""),
        }
    }

    fn requests(&self) -> usize {
        *self.requests.lock().unwrap()
    }

    fn attempts(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The scopes of the last token request.
    fn scopes(&self) -> String {
        let asked = self.asked.lock().unwrap();
        asked.last().unwrap().iter().find(|(name, _)| name == "scope").map(|(_, scopes)| scopes.clone()).unwrap_or_default()
    }
}

/// A house whose client has a secret, and its world.
async fn client(more: &str) -> (House, Arc<World>) {
    let mut house = House::with_config(&config(more), &[]).await;
    let secret = wire::ClientSecretRequest { client_secret: mcp_auth_proto::Secret::new("cs-1") };
    house.broker.set_client_secret("corp".into(), secret).await.unwrap();
    let world = World::of(&mut house);
    (house, world)
}

/// As a bridge asks for a login.
fn by_bridge(scopes: &[&str]) -> wire::LoginRequest {
    let scopes = (!scopes.is_empty()).then(|| scopes.iter().map(|&scope| scope.to_owned()).collect());
    wire::LoginRequest { provider: "corp".into(), scopes, unprompted: true, unattended: true, ..Default::default() }
}

async fn log_in(house: &House, request: wire::LoginRequest) -> Result<Box<wire::GrantSummary>, ErrorBody> {
    let mut events = house.broker.login(request, process(1)).await?;
    loop {
        match events.recv().await.unwrap() {
            wire::LoginEvent::Done { grant, .. } => return Ok(grant),
            wire::LoginEvent::Failed { error } => return Err(error),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_server_gets_no_scope_asked_for_that_the_config_does_not_list() {
    let (house, world) = client("scopes = ['read']\n").await;
    house.broker.heard(SERVER.into(), vec!["Bearer scope=\"read admin\"".into()]);
    log_in(&house, by_bridge(&[])).await.unwrap();
    assert_eq!(world.scopes(), "read", "whatever it names where it begins");

    let asked = world.requests();
    let challenge = Some(r#"Bearer error="insufficient_scope", scope="read admin""#.to_owned());
    let refused = [
        (by_bridge(&["read", "write", "admin"]), "write admin", "'read write admin'"),
        (wire::LoginRequest { challenge, unprompted: false, ..by_bridge(&[]) }, "admin", "'read admin'"),
    ];
    for (request, missing, wider) in refused {
        let error = log_in(&house, request).await.unwrap_err();
        assert_eq!(error.error, ErrorCode::InsufficientScope);
        assert!(error.error_description.ends_with(&format!("not among them: {missing}")), "{error}");
        let hint = format!("mcp-authctl login corp --scope {wider}, or add them to its `scopes` in config.toml, then mcp-authctl reload");
        assert_eq!(error.hint, Some(hint));
    }
    assert_eq!(world.requests(), asked, "nobody was asked for anything");

    std::fs::write(house.folder.path().join("config.toml"), config("scopes = ['read', 'write']\n")).unwrap();
    house.broker.reload().await.unwrap();
    log_in(&house, by_bridge(&["read", "write"])).await.unwrap();
    assert_eq!(world.scopes(), "read write", "what is listed is asked for");
    let own = wire::LoginRequest { unprompted: false, interactive: true, ..by_bridge(&["admin"]) };
    log_in(&house, own).await.unwrap();
    assert_eq!(world.scopes(), "admin", "a person says it themselves");
}

#[tokio::test]
async fn where_nothing_is_listed_the_server_names_the_scopes_once_and_then_no_more() {
    let (house, world) = client("").await;
    log_in(&house, by_bridge(&[])).await.unwrap();
    assert_eq!(world.scopes(), "read", "the first login goes by what the server says");
    *world.challenge.lock().unwrap() = "Bearer scope=\"read admin\"".into();
    log_in(&house, by_bridge(&[])).await.unwrap();
    assert_eq!(world.scopes(), "read");
    let error = log_in(&house, by_bridge(&["read", "admin"])).await.unwrap_err();
    assert_eq!(error.error, ErrorCode::InsufficientScope, "{error}");
    let own = wire::LoginRequest { unprompted: false, interactive: true, ..by_bridge(&["read", "admin"]) };
    log_in(&house, own).await.unwrap();
    log_in(&house, by_bridge(&["read", "admin"])).await.unwrap();
    assert_eq!(world.scopes(), "read admin", "from then on it may be asked for");
}

#[tokio::test]
async fn a_first_login_that_fails_is_not_tried_anew_with_every_request() {
    let (house, world) = client("").await;
    std::fs::write(house.folder.path().join("config.toml"), config("")).unwrap();
    let granted = std::mem::replace(&mut *world.token.lock().unwrap(), (500, "{}"));
    let first = log_in(&house, by_bridge(&[])).await.unwrap_err();
    for _ in 0..50 {
        let error = log_in(&house, by_bridge(&[])).await.unwrap_err();
        assert_eq!((error.error, &error.hint), (ErrorCode::ProviderUnreachable, &first.hint));
        assert!(error.error_description.starts_with(&first.error_description), "{error}");
    }
    assert!(world.attempts() <= 3, "{} token requests", world.attempts());
    let told = log_in(&house, by_bridge(&[])).await.unwrap_err();
    assert!(told.error_description.contains("is not tried again for") && told.retry_after.is_some(), "{told}");

    let attempts = world.attempts();
    house.broker.reload().await.unwrap();
    log_in(&house, by_bridge(&[])).await.unwrap_err();
    assert_eq!(world.attempts(), attempts + 1, "what the config says may have changed");
    let person = || wire::LoginRequest { provider: "corp".into(), interactive: true, ..Default::default() };
    log_in(&house, person()).await.unwrap_err();
    log_in(&house, person()).await.unwrap_err();
    assert_eq!(world.attempts(), attempts + 3, "a person tries as often as they like");
    *world.token.lock().unwrap() = granted;
    log_in(&house, by_bridge(&[])).await.unwrap();
}

const IDP: &str = "https://idp.example";
const AT_IDP: &str = "https://idp.example/token";

/// A grant for which the identity provider vouches by the ID token in this file.
fn enterprise(name: &str, id_token: &std::path::Path) -> GrantRecord {
    let grant = expired(name);
    let identity = Definition {
        issuer: Some(IDP.into()),
        token_endpoint: Some(AT_IDP.into()),
        client_id: Some("at-idp".into()),
        ..Definition::default()
    };
    let source = AssertionSource::IdentityProvider {
        provider: None,
        definition: Box::new(identity),
        id_token: TokenSource::File(id_token.to_owned()),
    };
    let definition = Definition {
        provider: grant.name.base().into(),
        server: Some(SERVER.into()),
        assertion: Some(Box::new(source)),
        ..grant.definition
    };
    GrantRecord { definition, refresh_token: None, ..grant }
}

fn signed(kind: &str, claims: &str) -> String {
    let ends = SystemClock.now().wall.0 / 1000 + 600;
    jwt(&format!(r#"{{"alg":"ES256","typ":"{kind}"}}"#), &format!(r#"{{"iss":"{IDP}","sub":"u1","exp":{ends},{claims}}}"#))
}

/// The identity provider's answer, with an ID-JAG for the issuer.
fn vouching() -> Response {
    let id_jag = signed("oauth-id-jag+jwt", r#""aud":"https://corp.example","client_id":"c1""#);
    let kind = "urn:ietf:params:oauth:token-type:id-jag";
    json(200, &format!(r#"{{"access_token":"{id_jag}","token_type":"N_A","issued_token_type":"{kind}"}}"#))
}

#[tokio::test]
async fn an_identity_provider_that_hangs_is_asked_two_things_at_a_time_and_holds_up_nobody_who_does_without_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), signed("JWT", r#""aud":"at-idp""#)).unwrap();
    let names = ["acme", "acme:b", "acme:c", "acme:d", "acme:e"];
    let grants = names.iter().map(|name| enterprise(name, file.path())).chain([expired("corp")]);
    let mut house = House::on_demand(grants).await;
    let (mut vouched, mut hanging) = (Vec::new(), Vec::new());
    for name in ["acme", "acme:b", "acme:c"] {
        vouched.push(house.aside(move |broker| token(broker, name)).await);
        if hanging.len() < 2 {
            hanging.push(house.asked(AT_IDP).await);
        }
    }
    let asking = house.aside(|broker| token(broker, "corp")).await;
    let issuer = tokio::time::timeout(Duration::from_secs(10), house.asked(TOKEN)).await.expect("it is held up");
    issuer.send(tokens("at-2", "rt-2")).unwrap();
    assert_eq!(asking.await.unwrap().as_deref(), Ok("at-2"));

    hanging.remove(0).send(Ok(vouching())).unwrap();
    let mut both = [house.requests.recv().await.unwrap(), house.requests.recv().await.unwrap()];
    both.sort_by_key(|(request, _)| request.url == AT_IDP);
    let [(request, issuer), (next, identity_provider)] = both;
    assert!(request.url == TOKEN && form(&request).iter().any(|(name, _)| name == "assertion"), "what it made goes to the issuer");
    assert_eq!(next.url, AT_IDP, "its turn goes to the next");
    hanging.push(identity_provider);
    issuer.send(Ok(json(200, r#"{"access_token":"at-3","token_type":"Bearer","expires_in":3600}"#))).unwrap();
    assert_eq!(vouched.remove(0).await.unwrap().as_deref(), Ok("at-3"));
    // What the identity provider answers says nothing of the issuer.
    hanging.remove(0).send(Ok(json(503, "{}"))).unwrap();
    assert_eq!(vouched.remove(0).await.unwrap(), Err(ErrorCode::ProviderUnreachable));
    assert_eq!(house.core(|core| core.grants.values().filter(|grant| grant.spared_until(core.now()).is_some()).count()).await, 0);

    vouched.push(house.aside(|broker| token(broker, "acme:d")).await);
    hanging.push(house.asked(AT_IDP).await);
    vouched.push(house.aside(|broker| token(broker, "acme:e")).await);
    let stopping = house.aside(|broker| async move { broker.shutdown().await }).await;
    let waiting = tokio::time::timeout(Duration::from_secs(5), vouched.pop().unwrap());
    assert!(waiting.await.expect("told at once").unwrap().is_err(), "it waited for its turn");
    for identity_provider in hanging {
        identity_provider.send(Err(TransportError::Lost { host: "idp.example".into(), reason: "reset".into() })).unwrap();
    }
    stopping.await.unwrap();
    for asking in vouched {
        assert!(asking.await.unwrap().is_err());
    }
    assert!(house.requests.try_recv().is_err());
}

#[tokio::test]
async fn an_assertion_that_comes_while_the_issuer_is_left_alone_is_not_sent() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), signed("JWT", r#""aud":"at-idp""#)).unwrap();
    let grants = [enterprise("acme", file.path()), expired("corp")];
    let mut house = House::on_demand(grants).await;
    let vouched = house.aside(|broker| token(broker, "acme")).await;
    let (_, identity_provider) = house.requests.recv().await.unwrap();
    let asking = house.aside(|broker| token(broker, "corp")).await;
    let (_, issuer) = house.requests.recv().await.unwrap();
    issuer.send(Ok(Response { retry_after: Some(Duration::from_secs(60)), ..json(503, "{}") })).unwrap();
    assert_eq!(asking.await.unwrap(), Err(ErrorCode::ProviderUnreachable));
    identity_provider.send(Ok(vouching())).unwrap();
    assert_eq!(vouched.await.unwrap(), Err(ErrorCode::ProviderUnreachable));
    assert!(house.requests.try_recv().is_err(), "the issuer was asked in its pause");
}

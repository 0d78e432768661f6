//! The broker over a real vault and a network whose answers the test holds back: what happens when a lock, a logout or a
//! reload meets a refresh in flight.

mod clients;
mod doctor;
mod held;
#[cfg(target_os = "linux")]
mod policy;
mod unattended;

use std::cell::RefCell;
use std::time::Duration;

use mcp_auth_proto::KeySourceKind;

use super::*;
use crate::clock::{Boot, Now, SystemClock};
use crate::grant::record::{Definition, GrantRecord, Token};
use crate::grant::{Grant, Input};
use crate::oauth::samples::json;
use crate::secret::{AccessToken, RefreshToken};
use crate::transport::{Exchange, Request, Response, TransportError};
use crate::vault::{Places, Record};

/// A request that waits for its answer.
type Held = (Request, oneshot::Sender<Result<Response, TransportError>>);

struct Holding(mpsc::UnboundedSender<Held>);

impl Transport for Holding {
    fn send(&self, request: Request) -> Exchange<'_> {
        let (answer, answered) = oneshot::channel();
        self.0.send((request, answer)).unwrap();
        Box::pin(async { answered.await.unwrap() })
    }
}

thread_local! {
    static WAY: RefCell<Option<Arc<dyn Transport>>> = const { RefCell::new(None) };
}

/// The other end of a connection of this process.
fn process(pid: u32) -> Arc<Caller> {
    Caller::new(crate::policy::Peer { uid: crate::platform::own_uid(), pid: Some(pid) })
}

struct House {
    broker: Broker,
    vault: Vault,
    requests: mpsc::UnboundedReceiver<Held>,
    folder: tempfile::TempDir,
}

const TOKEN: &str = "https://corp.example/token";
const CONFIG: &str = "[providers.corp]\nissuer = 'https://corp.example'\ntoken_endpoint = 'https://corp.example/token'\n\
    authorization_endpoint = 'https://corp.example/authorize'\nclient_id = 'c1'\n";

/// A grant whose access token expired long ago.
pub(super) fn expired(name: &str) -> GrantRecord {
    GrantRecord {
        name: name.parse().unwrap(),
        generation: 1,
        definition: Definition {
            provider: "corp".into(),
            issuer: Some("https://corp.example".into()),
            token_endpoint: Some("https://corp.example/token".into()),
            client_id: Some("c1".into()),
            ..Definition::default()
        },
        account: None,
        subject: None,
        resource: None,
        requested_scopes: vec![],
        scopes: vec![],
        token: Token {
            access_token: AccessToken::new("at-1".into()),
            token_type: "Bearer".into(),
            issued_at: crate::clock::Wall(1_600_000_000_000),
            lifetime: Some(Duration::from_secs(3600)),
        },
        refresh_token: Some(RefreshToken::new("rt-1".into())),
        refresh_token_life: None,
        proof_key: None,
        id_token: None,
        ended: None,
        logged_in_at: crate::clock::Wall(1_600_000_000_000),
        refreshed_at: None,
    }
}

async fn told<T: Send + 'static>(ask: impl FnOnce(crate::vault::Done<T>)) -> Result<T, crate::vault::VaultError> {
    let (done, result) = oneshot::channel();
    ask(Box::new(move |told| drop(done.send(told))));
    result.await.unwrap()
}

impl House {
    async fn with(grants: &[&str]) -> Self {
        Self::with_config(CONFIG, grants).await
    }

    async fn with_config(config: &str, grants: &[&str]) -> Self {
        Self::with_records(config, grants.iter().map(|name| expired(name))).await
    }

    /// One that refreshes only when somebody asks.
    async fn on_demand(grants: impl IntoIterator<Item = GrantRecord>) -> Self {
        Self::with_records(&format!("{CONFIG}refresh = 'on-demand'\n"), grants).await
    }

    async fn with_records(config: &str, grants: impl IntoIterator<Item = GrantRecord>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (vault, key_file) = (folder.path().join("vault"), folder.path().join("key"));
        let vault = Vault::start(Places { vault, key_file, key_source: Some(KeySourceKind::KeyFile) });
        told(|done| vault.open(false, None, done)).await.unwrap();
        for grant in grants {
            let record = Record { id: core::grant_id(&grant.name), generation: 1, plaintext: grant.to_plaintext() };
            told(|done| vault.save(record, done)).await.unwrap();
        }
        let (sender, requests) = mpsc::unbounded_channel();
        WAY.set(Some(Arc::new(Holding(sender))));
        let connect = |_: &Network| WAY.with_borrow(|way| way.clone().unwrap());
        let (clock, audit) = (Arc::new(SystemClock), crate::audit::Audit::off());
        let edges = Edges { clock, connect, vault: vault.clone(), desktop: Desktop::None, audit };
        let path = folder.path().join("config.toml");
        let broker = Broker::start(edges, Config::parse(config, &path).unwrap(), path).unwrap();
        Self { broker, vault, requests, folder }
    }

    /// Asks for something on the side; the question has reached the mailbox when this returns.
    async fn aside<A, F>(&self, ask: impl FnOnce(Broker) -> F) -> tokio::task::JoinHandle<A>
    where
        A: Send + 'static,
        F: Future<Output = A> + Send + 'static,
    {
        let task = tokio::spawn(ask(self.broker.clone()));
        tokio::task::yield_now().await;
        task
    }

    /// The next request, which must go there; the way to answer it.
    async fn asked(&mut self, url: &str) -> oneshot::Sender<Result<Response, TransportError>> {
        let (request, held) = self.requests.recv().await.unwrap();
        assert_eq!(request.url, url);
        held
    }

    async fn core<T: Send + 'static>(&self, look: impl FnOnce(&mut Core) -> T + Send + 'static) -> T {
        self.broker.ask(|core, reply| drop(reply.send(Ok(look(core))))).await.unwrap()
    }
}

async fn token(broker: Broker, name: &'static str) -> Result<String, ErrorCode> {
    let answer = broker.token(wire::TokenRequest::for_grant(name), process(1)).await;
    answer.map(|token| token.access_token.expose().to_owned()).map_err(|error| error.error)
}

fn tokens(access: &str, refresh: &str) -> Result<Response, TransportError> {
    let body = format!(r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":3600,"refresh_token":"{refresh}"}}"#);
    Ok(json(200, &body))
}

fn unlocking() -> wire::VaultUnlock {
    wire::VaultUnlock { passphrase: None }
}

#[tokio::test]
async fn an_unlock_that_meets_a_lock_waits_until_the_refresh_in_flight_is_saved() {
    let mut house = House::with(&["corp"]).await;
    let asking = house.aside(|broker| token(broker, "corp")).await;
    let (_, provider) = house.requests.recv().await.unwrap();
    let locking = house.aside(async |broker| broker.vault_lock().await).await;
    assert_eq!(asking.await.unwrap(), Err(ErrorCode::VaultLocked));
    let unlocking = house.aside(async |broker| broker.vault_unlock(unlocking()).await).await;
    assert_eq!(house.broker.status().await.unwrap().vault.state, wire::VaultState::Locked);

    provider.send(tokens("at-2", "rt-2")).unwrap();
    assert!(locking.await.unwrap().is_ok());
    assert_eq!(unlocking.await.unwrap().unwrap().state, wire::VaultState::Unlocked);
    assert_eq!(token(house.broker.clone(), "corp").await.as_deref(), Ok("at-2"));
}

#[tokio::test]
async fn a_lock_does_not_lose_what_the_disk_refused_meanwhile() {
    let mut house = House::with(&["corp"]).await;
    let asking = house.aside(|broker| token(broker, "corp")).await;
    let provider = house.asked(TOKEN).await;
    let locking = house.aside(|broker| async move { broker.vault_lock().await }).await;
    assert_eq!(asking.await.unwrap(), Err(ErrorCode::VaultLocked));
    std::fs::remove_dir_all(house.folder.path().join("vault")).unwrap();
    provider.send(tokens("at-2", "rt-2")).unwrap();
    assert_eq!(locking.await.unwrap().unwrap_err().error, ErrorCode::Conflict);
    assert_eq!(token(house.broker.clone(), "corp").await.as_deref(), Ok("at-2"));
}

#[tokio::test]
async fn a_lock_holds_although_the_vault_was_just_being_opened() {
    let house = House::with(&["corp"]).await;
    let locking = house.aside(async |broker| broker.vault_lock().await).await;
    assert!(locking.await.unwrap().is_ok());
    assert_eq!(token(house.broker.clone(), "corp").await, Err(ErrorCode::VaultLocked));
    house.broker.vault_unlock(unlocking()).await.unwrap();
    assert_eq!(house.broker.grants().await.unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_of_a_grant_stays_in_memory_however_its_last_refresh_ends() {
    let lost = || Err(TransportError::Lost { host: "corp.example".into(), reason: "reset".into() });
    for answer in [lost(), tokens("at-2", "rt-2")] {
        let mut house = House::with(&["corp", "corp:b", "corp:c"]).await;
        let mut providers = Vec::new();
        for name in ["corp", "corp:b", "corp:c"] {
            house.aside(move |broker| token(broker, name)).await;
        }
        for _ in 0..2 {
            providers.push(house.requests.recv().await.unwrap().1);
        }
        for name in ["corp", "corp:b", "corp:c"] {
            house.broker.logout(name.parse().unwrap(), wire::LogoutRequest::default()).await.unwrap();
        }
        assert_eq!(house.core(|core| core.leaving.len()).await, 3);
        let mut answer = Some(answer);
        for provider in providers {
            provider.send(answer.take().unwrap_or_else(lost)).unwrap();
        }
        while house.core(|core| core.leaving.len()).await > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn whoever_brought_a_token_is_told_when_its_grant_goes_before_it_is_saved() {
    let house = House::with(&["corp"]).await;
    house.broker.grants().await.unwrap();
    let stored = house.broker.ask(|core, reply| {
        let name: GrantName = "corp".parse().unwrap();
        core.storing.push((name.clone(), reply));
        core.release(&name);
    });
    assert_eq!(stored.await.unwrap_err().error, ErrorCode::Conflict);
}

#[tokio::test]
async fn a_logout_that_the_disk_refused_can_be_repeated() {
    let house = House::with(&["corp"]).await;
    house.broker.grants().await.unwrap();
    told(|done| house.vault.lock(done)).await.unwrap();
    let name = || "corp".parse::<GrantName>().unwrap();
    assert_eq!(house.broker.logout(name(), wire::LogoutRequest::default()).await.unwrap_err().error, ErrorCode::InternalError);
    assert_eq!(
        house.broker.logout(name(), wire::LogoutRequest::default()).await.unwrap_err().error,
        ErrorCode::InternalError,
        "the disk still refuses"
    );
    told(|done| house.vault.open(false, None, done)).await.unwrap();
    house.broker.logout(name(), wire::LogoutRequest::default()).await.unwrap();
    assert!(told(|done| house.vault.open(false, None, done)).await.unwrap().records.is_empty());
    assert_eq!(
        house.broker.logout(name(), wire::LogoutRequest::default()).await.unwrap_err().error,
        ErrorCode::LoginRequired,
        "there is nothing left"
    );
}

#[tokio::test]
async fn a_refresh_that_still_queues_is_not_sent_once_the_config_has_changed() {
    let mut house = House::with(&["corp", "corp:b", "corp:c"]).await;
    let mut asking = Vec::new();
    for name in ["corp", "corp:b", "corp:c"] {
        asking.push(house.aside(move |broker| token(broker, name)).await);
    }
    let providers = [house.requests.recv().await.unwrap().1, house.requests.recv().await.unwrap().1];
    std::fs::write(house.folder.path().join("config.toml"), CONFIG.replace("'c1'", "'c2'")).unwrap();
    house.broker.reload().await.unwrap();
    for asking in asking {
        assert_eq!(asking.await.unwrap(), Err(ErrorCode::LoginRequired));
    }
    for provider in providers {
        provider.send(tokens("at-2", "rt-2")).unwrap();
    }
    let durable = |core: &mut Core| core.grants.values().filter(|grant| grant.record().generation == 2).count();
    while house.core(durable).await < 2 {
        tokio::task::yield_now().await;
    }
    assert!(house.core(|core| core.grants.values().all(Grant::is_at_rest)).await);
    assert!(house.requests.try_recv().is_err(), "a refresh token goes where the config does not lead any more");
}

#[tokio::test]
async fn nobody_leads_a_provider_that_is_there_or_its_secret_to_another_server() {
    let house = House::with(&[]).await;
    std::fs::write(house.folder.path().join("config.toml"), CONFIG).unwrap();
    let secret = wire::ClientSecretRequest { client_secret: mcp_auth_proto::Secret::new("cs-1") };
    assert!(house.broker.set_client_secret("corp".into(), secret).await.unwrap().has_client_secret);
    for definition in [
        wire::ProviderDefinition { token_endpoint: Some("https://evil.example/token".into()), ..Default::default() },
        wire::ProviderDefinition { issuer: Some("https://evil.example".into()), ..Default::default() },
        wire::ProviderDefinition { preset: Some("gitlab".into()), base_url: Some("https://evil.example".into()), ..Default::default() },
    ] {
        assert_eq!(house.broker.define_provider("corp".into(), definition).await.unwrap_err().error, ErrorCode::Conflict);
    }
    let stray = wire::ProviderDefinition {
        issuer: Some("https://new.example".into()),
        token_endpoint: Some("https://evil.example/token".into()),
        ..Default::default()
    };
    assert_eq!(house.broker.define_provider("new".into(), stray).await.unwrap_err().error, ErrorCode::Conflict);
    let client = wire::ProviderDefinition { client_id: Some("c2".into()), ..Default::default() };
    assert!(house.broker.define_provider("corp".into(), client).await.unwrap().has_client_secret);
    let moved = CONFIG.replace("https://corp.example/token", "https://evil.example/token");
    std::fs::write(house.folder.path().join("config.toml"), moved).unwrap();
    house.broker.reload().await.unwrap();
    let providers = house.broker.providers().await.unwrap();
    assert!(!providers.iter().find(|provider| provider.name == "corp").unwrap().has_client_secret, "a secret went along");
}

#[tokio::test]
async fn the_name_of_a_built_in_provider_leads_to_no_other_server() {
    let house = House::with_config("", &[]).await;
    let evil = || Some("https://evil.example/x".to_owned());
    let define = |name: &str, definition| house.broker.define_provider(name.to_owned(), definition);
    for (name, definition) in [
        ("github", wire::ProviderDefinition { userinfo_endpoint: evil(), ..Default::default() }),
        ("github", wire::ProviderDefinition { base_url: evil(), ..Default::default() }),
        ("github", wire::ProviderDefinition { preset: Some("keycloak".into()), base_url: evil(), ..Default::default() }),
        ("google", wire::ProviderDefinition { revocation_endpoint: evil(), ..Default::default() }),
        ("notion", wire::ProviderDefinition { issuer: evil(), ..Default::default() }),
        (
            "work",
            wire::ProviderDefinition {
                preset: Some("keycloak".into()),
                base_url: Some("https://corp.example/realms/a".into()),
                userinfo_endpoint: evil(),
                ..Default::default()
            },
        ),
    ] {
        assert_eq!(define(name, definition.clone()).await.unwrap_err().error, ErrorCode::Conflict, "{name} {definition:?}");
    }
    assert!(!house.folder.path().join("config.toml").exists(), "something was written");
    let tenant = Some("https://login.microsoftonline.com/corp".to_owned());
    define("entra", wire::ProviderDefinition { base_url: tenant, ..Default::default() }).await.unwrap();
    define("github", wire::ProviderDefinition { client_id: Some("c1".into()), ..Default::default() }).await.unwrap();
    let own = Some("https://git.corp.example".to_owned());
    define("work", wire::ProviderDefinition { preset: Some("gitlab".into()), base_url: own, ..Default::default() }).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_was_written_by_hand_and_not_read_yet_is_there_already() {
    let house = House::with_config("", &[]).await;
    std::fs::write(house.folder.path().join("config.toml"), CONFIG).unwrap();
    let stray = wire::ProviderDefinition { token_endpoint: Some("https://evil.example/token".into()), ..Default::default() };
    assert_eq!(house.broker.define_provider("corp".into(), stray).await.unwrap_err().error, ErrorCode::Conflict);
    assert_eq!(std::fs::read_to_string(house.folder.path().join("config.toml")).unwrap(), CONFIG);
}

#[tokio::test]
async fn of_many_providers_that_are_defined_at_once_none_is_lost() {
    let house = House::with_config("", &[]).await;
    let mut defining = Vec::new();
    for number in 0..24 {
        let definition = wire::ProviderDefinition { issuer: Some("https://as.example".into()), ..Default::default() };
        defining.push(house.aside(move |broker| async move { broker.define_provider(format!("p{number}"), definition).await }).await);
    }
    for defining in defining {
        defining.await.unwrap().unwrap();
    }
    let text = std::fs::read_to_string(house.folder.path().join("config.toml")).unwrap();
    let known: Vec<String> = house.broker.providers().await.unwrap().into_iter().map(|provider| provider.name).collect();
    for name in (0..24).map(|number| format!("p{number}")) {
        assert!(text.contains(&format!("[providers.{name}]")) && known.contains(&name), "{name} is lost");
    }
}

#[tokio::test]
async fn a_grant_that_panics_over_its_new_tokens_has_them_on_disk() {
    let mut house = House::with(&["corp"]).await;
    let asking = house.aside(|broker| token(broker, "corp")).await;
    let (_, provider) = house.requests.recv().await.unwrap();
    let name: GrantName = "corp".parse().unwrap();
    let (of, now) = (name.clone(), SystemClock.now());
    let answer = crate::oauth::token::check(&tokens("at-2", "rt-2").unwrap(), &crate::provider::Quirks::default()).unwrap();
    house.core(move |core| core.put_aside(&of, Some((answer, now)))).await;
    assert_eq!(asking.await.unwrap(), Err(ErrorCode::InternalError));
    assert_eq!(token(house.broker.clone(), "corp").await, Err(ErrorCode::InternalError));
    // The answer of the attempt finds nobody, and the end waits for the disk.
    provider.send(tokens("at-3", "rt-3")).unwrap();
    house.broker.shutdown().await;
    let opened = told(|done| house.vault.open(false, None, done)).await.unwrap();
    let record = GrantRecord::from_plaintext(&opened.records[0].plaintext).unwrap();
    assert_eq!((record.generation, record.refresh_token), (2, Some(RefreshToken::new("rt-2".into()))));
}

#[tokio::test]
async fn a_slip_of_a_name_is_told_what_was_meant() {
    let house = House::with(&["corp", "corp:work"]).await;
    let lists = "mcp-authctl status lists the grants, mcp-authctl provider list the providers";
    for (typed, code, hint) in [
        ("crop", ErrorCode::UnknownGrant, format!("did you mean `corp`? else {lists}")),
        ("githbu", ErrorCode::UnknownGrant, format!("did you mean `github`? else {lists}")),
        ("elsewhere", ErrorCode::UnknownGrant, lists.to_owned()),
        ("corp:wrok", ErrorCode::LoginRequired, "did you mean `corp:work`? else mcp-authctl login corp:wrok".to_owned()),
        ("corp:home", ErrorCode::LoginRequired, "mcp-authctl login corp:home".to_owned()),
    ] {
        let error = house.broker.grant(typed.parse().unwrap()).await.unwrap_err();
        assert_eq!((error.error, error.hint.as_deref()), (code, Some(hint.as_str())), "{typed}");
        let told = error.mcp.map(|mcp| mcp["data"]["login_command"].clone());
        assert!(told.is_none_or(|command| command == format!("mcp-authctl login {typed}")), "{typed}");
    }
}

#[tokio::test]
async fn whoever_has_never_logged_in_gets_an_error_that_an_mcp_server_passes_on_as_it_is() {
    let scopes = format!("{CONFIG}scopes = ['read', 'write']\n");
    let house = House::with_config(&scopes, &[]).await;
    let error = house.broker.token(wire::TokenRequest::for_grant("corp:work"), process(1)).await.unwrap_err();
    let expected = r#"{
  "error": "login_required",
  "error_description": "nobody is logged in to `corp:work`",
  "hint": "mcp-authctl login corp:work",
  "mcp": {
    "code": -32001,
    "data": {
      "authorization_url": "https://corp.example/authorize",
      "code_challenge_method": "S256",
      "grant_type": "authorization_code",
      "login_command": "mcp-authctl login corp:work",
      "resource": null,
      "scopes": [
        "read",
        "write"
      ],
      "token_url": "https://corp.example/token",
      "type": "oauth2"
    },
    "message": "Authentication required"
  }
}"#;
    assert_eq!(serde_json::to_string_pretty(&error).unwrap(), expected);
}

#[tokio::test]
async fn whoever_asks_is_not_held_back_for_longer_than_the_grant_says_by_the_pause_of_its_issuer() {
    let mut house = House::on_demand([expired("corp")]).await;
    house.broker.grants().await.unwrap();
    house
        .core(|core| {
            let now = core.now();
            let began = now.boot.since(Boot::from_start(Duration::ZERO)) - Duration::from_secs(16);
            let until = now.boot + Duration::from_secs(300);
            let paused = Input::IssuerPaused { until, not_sent: true, retry_after: false };
            let grant = core.grants.get_mut(&"corp".parse().unwrap()).unwrap();
            grant.handle(paused, Now { boot: Boot::from_start(began), ..now });
        })
        .await;
    let asking = house.aside(|broker| token(broker, "corp")).await;
    let provider = tokio::time::timeout(Duration::from_secs(10), house.asked(TOKEN)).await.expect("it is tried again after 15 s");
    provider.send(tokens("at-2", "rt-2")).unwrap();
    assert_eq!(asking.await.unwrap().as_deref(), Ok("at-2"));
}

#[tokio::test]
async fn a_daemon_that_clears_its_desktop_before_it_ends_sends_nothing_any_more() {
    let mut house = House::on_demand([expired("corp")]).await;
    house.broker.grants().await.unwrap();
    house
        .core(|core| {
            core.finish(oneshot::channel().0);
            let asker = core.own_asker();
            core.refresh(asker, "corp".parse().unwrap(), false, oneshot::channel().0);
        })
        .await;
    let sent = tokio::time::timeout(Duration::from_secs(1), house.requests.recv()).await;
    assert!(!matches!(sent, Ok(Some(_))), "what it brings would be lost");
}

#[tokio::test]
async fn two_refreshes_by_a_button_do_not_take_each_others_answers() {
    let house = House::with(&["corp", "corp:b"]).await;
    house.broker.grants().await.unwrap();
    let waiting = house.core(|core| {
        for name in ["corp", "corp:b"] {
            core.refresh_by_click(name.parse().unwrap());
        }
        core.askers.len()
    });
    assert_eq!(waiting.await, 2);
}

#[tokio::test]
async fn a_fault_of_the_broker_itself_is_heard_of_at_once() {
    let house = House::with(&["corp"]).await;
    let fault = house.broker.ask::<()>(|_, _| panic!("a fault"));
    assert_eq!(fault.await.unwrap_err().error, ErrorCode::InternalError);
    tokio::time::timeout(Duration::from_secs(10), house.broker.gone()).await.expect("it answers nobody any more");
}

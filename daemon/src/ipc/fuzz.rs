//! The fuzz target of the socket, see [`crate::fuzzing`].

use std::cell::RefCell;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, GrantName, KeySourceKind};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::capability::Capabilities;
use super::connection::{Shared, serve};
use super::guard::Names;
use super::{Answer, Answerer, Call, Limits, Stage, read, routes};
use crate::audit::Audit;
use crate::broker::{Broker, Edges};
use crate::caller::Caller;
use crate::clock::SystemClock;
use crate::config::{Config, Network};
use crate::fuzzing::{MARK, is_hidden};
use crate::issuer::Issuer;
use crate::policy::Peer;
use crate::transport::{Exchange, Request, Transport, TransportError};
use crate::vault::{Places, Vault};

/// The bytes of one connection to the socket, over a real broker with an open vault and no network. What would change
/// the vault as a whole is only read.
///
/// Every answer is an error of the closed set or a success, none is `internal_error`, no error shows a control character
/// or a value of the body, and the next client is served.
pub fn ipc(input: &[u8]) {
    let body = input.windows(4).position(|part| part == b"\r\n\r\n").map_or(input, |at| &input[at + 4..]);
    bodies(body);
    HOUSE.with_borrow_mut(|house| {
        if house.as_ref().is_none_or(|house| house.visits > MOST_VISITS) {
            // The old one first: its threads end.
            drop(house.take());
            *house = Some(House::new());
        }
        house.as_mut().expect("a house").visit(input);
    });
}

/// What was stored by earlier inputs goes away after that many.
const MOST_VISITS: usize = 2_000;

/// How long an answer may take: nothing here waits for anything but the disk.
const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    static HOUSE: RefCell<Option<House>> = const { RefCell::new(None) };
}

struct House {
    runtime: Runtime,
    broker: Broker,
    answer: Answerer,
    visits: usize,
    _folder: tempfile::TempDir,
}

/// A network without a route.
struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _: Request) -> Exchange<'_> {
        Box::pin(async { Err(TransportError::NotSent { host: "as.example".into(), reason: "no route".into() }) })
    }
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (vault, key_file) = (folder.path().join("vault"), folder.path().join("key"));
        let vault = Vault::start(Places { vault, key_file, key_source: Some(KeySourceKind::KeyFile) });
        let edges = Edges {
            clock: std::sync::Arc::new(SystemClock),
            connect: |_: &Network| -> std::sync::Arc<dyn Transport> { std::sync::Arc::new(Nowhere) },
            vault,
            desktop: crate::notify::Desktop::None,
            audit: Audit::off(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let path = folder.path().join("config.toml");
        let config = "[providers.work]\nissuer = 'https://as.example'\nclient_id = 'c'\n";
        std::fs::write(&path, config).expect("a file");
        let config = Config::load(&path).expect("a good config");
        let (broker, issuer) = runtime.block_on(async {
            let broker = Broker::start(edges, config, path).expect("a broker");
            let token = serde_json::json!({ "access_token": "s3cret-of-github" });
            let name: GrantName = "github".parse().expect("a name");
            broker.add_token(name, serde_json::from_value(token).expect("a token")).await.expect("an open vault");
            let issuer = Issuer::start(&broker, Vec::new().into());
            (broker, issuer)
        });
        let answer = harmless(routes::answerer(broker.clone(), issuer, Capabilities::new().0, Default::default()));
        Self { runtime, broker, answer, visits: 0, _folder: folder }
    }

    fn visit(&mut self, input: &[u8]) {
        self.visits += 1;
        let (answer, broker) = (self.answer.clone(), self.broker.clone());
        let visit = async {
            let replied = exchange(input, answer).await;
            broker.status().await.expect("the next client is served");
            replied
        };
        let replied = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, visit).await });
        check(&replied.expect("an answer in time"));
    }
}

async fn exchange(input: &[u8], answer: Answerer) -> Vec<u8> {
    let (mut client, stream) = UnixStream::pair().expect("two sockets");
    // The end of a client that sends half a body is only known by the clock.
    let limits = Limits { body_time: Duration::from_millis(10), ..Limits::default() };
    let (_stages, stage) = watch::channel(Stage::Open);
    let serving = serve(
        std::sync::Arc::new(std::sync::Mutex::new(stream)),
        Caller::new(Peer { uid: 1000, pid: Some(7) }),
        std::sync::Arc::new(Shared { answer, limits, stage, names: Names::Socket }),
    );
    let asking = async {
        let (mut from, mut to) = client.split();
        let mut replied = Vec::new();
        let sending = async {
            // The daemon may refuse, and close, before it has read everything.
            let _ = to.write_all(input).await;
            let _ = to.shutdown().await;
        };
        let (_, received) = tokio::join!(sending, from.read_to_end(&mut replied));
        // Closed with unread bytes of ours is closed all the same.
        drop(received);
        replied
    };
    let ((), replied) = tokio::join!(serving, asking);
    replied
}

/// The routes, except that what concerns the vault as a whole (a passphrase takes its quarter of a second, a backup goes
/// anywhere on the disk) ends once it is read.
fn harmless(answer: Answerer) -> Answerer {
    std::sync::Arc::new(move |call: Call| {
        let Some(of_vault) = call.uri.path().strip_prefix("/v1/vault/") else { return answer(call) };
        let read = match of_vault {
            "setup" => read::<wire::VaultSetup>(&call.body).map(drop),
            "unlock" => read::<wire::VaultUnlock>(&call.body).map(drop),
            "rekey" => read::<wire::VaultRekey>(&call.body).map(drop),
            _ => read::<wire::VaultBackup>(&call.body).map(drop),
        };
        Box::pin(async { read.and_then(|()| Answer::json(&"read")).into() })
    })
}

/// Every answer on the connection.
fn check(mut replied: &[u8]) {
    while let Some(end) = replied.windows(4).position(|part| part == b"\r\n\r\n") {
        let head = std::str::from_utf8(&replied[..end]).expect("a head in ASCII");
        let rest = &replied[end + 4..];
        let status: u16 = head.strip_prefix("HTTP/1.").and_then(|head| head.get(2..5)?.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        // A stream of lines is the last of its connection, and so is an answer of hyper's own.
        let length = length.or((status == 204).then_some(0));
        let Some(length) = length else { return assert!(matches!(status, 100 | 200 | 400 | 414 | 431), "{head}") };
        let (body, next) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        judge(status, body);
        replied = next;
    }
    assert!(replied.is_empty(), "half a head");
}

fn judge(status: u16, body: &[u8]) {
    assert!(matches!(status, 200 | 202 | 204 | 400 | 401 | 403 | 404 | 405 | 409 | 413 | 414 | 429 | 431 | 503), "status {status}");
    if status == 200 || body.is_empty() {
        return;
    }
    let error: ErrorBody = serde_json::from_slice(body).expect("an error of the closed set");
    assert_eq!(error.error.status(), status);
    assert!(!error.error_description.contains(is_hidden), "{error:?}");
    // A hint may hold lines for the config file.
    assert!(!error.hint.unwrap_or_default().replace('\n', " ").contains(is_hidden));
}

/// Every body that a route reads, without the rest.
fn bodies(body: &[u8]) {
    let named = serde_json::from_slice(body).is_ok_and(|value| has_name(&value));
    body_of::<wire::TokenRequest>(body, named);
    body_of::<wire::CapabilityRequest>(body, named);
    body_of::<wire::StaticToken>(body, named);
    body_of::<wire::LoginRequest>(body, named);
    body_of::<wire::PastedRedirect>(body, named);
    body_of::<wire::LoginDecision>(body, named);
    body_of::<wire::ProviderDefinition>(body, named);
    body_of::<wire::ClientSecretRequest>(body, named);
    body_of::<wire::VaultSetup>(body, named);
}

fn body_of<T: DeserializeOwned + std::fmt::Debug>(body: &[u8], named: bool) {
    let told = match read::<T>(body) {
        Ok(value) => return drop(value),
        Err(error) => error.error_description,
    };
    assert!(!told.contains(is_hidden) && told.chars().count() < 400, "{told:?}");
    // The name of an unknown field is told; what is not JSON at all is not looked into.
    let whole = serde_json::from_slice::<Value>(body).is_ok();
    assert!(named || !whole || !told.contains(MARK), "{told:?}");
}

fn has_name(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| name.contains(MARK) || has_name(value)),
        Value::Array(items) => items.iter().any(has_name),
        _ => false,
    }
}

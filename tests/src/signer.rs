//! The issuer's key in the hands of a test: tokens that a real issuer would never sign are how a resource server is tried.
//! It answers one route of the daemon's socket, `GET /issuer/keys`, and leads every other request to the daemon.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as ES256, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::room::Room;

/// A key, and the socket that tells its public half. The socket's thread ends with the test's process.
#[derive(Debug)]
pub struct Signer {
    socket: PathBuf,
    key: Key,
    published: Arc<Mutex<Option<Value>>>,
}

/// A P-256 key with its name.
#[derive(Debug)]
pub struct Key {
    pair: EcdsaKeyPair,
    id: String,
}

impl Signer {
    /// Listens in the room, before the room's daemon, which need not run.
    #[track_caller]
    pub fn before(room: &Room) -> Self {
        let socket = room.path("signer.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let key = Key::named("the-issuers");
        let published = Arc::new(Mutex::new(Some(key.jwks())));
        let (keys, daemon) = (published.clone(), room.socket());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (keys, daemon) = (keys.clone(), daemon.clone());
                std::thread::spawn(move || drop(serve(&client, &keys, &daemon)));
            }
        });
        Self { socket, key, published }
    }

    /// Where it listens.
    pub fn socket(&self) -> &str {
        self.socket.to_str().unwrap()
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Publishes another JWK Set from now on; `None`: answers 404, as a daemon without an issuer does.
    pub fn publish(&self, keys: Option<Value>) {
        *self.published.lock().unwrap() = keys;
    }
}

impl Key {
    /// A fresh key.
    #[track_caller]
    pub fn named(id: &str) -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ES256, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ES256, pkcs8.as_ref(), &SystemRandom::new()).unwrap();
        Self { pair, id: id.to_owned() }
    }

    /// The public half, as a JWK Set.
    pub fn jwks(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.id, "use": "sig", "alg": "ES256" }] })
    }

    /// The public half as it is, for whoever mistakes it for a shared secret.
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The header of a good access token.
    pub fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.id })
    }

    /// Signs whatever is said, with ES256 whatever the header says.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Header and claims of a JWT, with nothing after them.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// One connection. What it is for is decided by its first request: a kept one may not change its mind here.
fn serve(client: &UnixStream, keys: &Mutex<Option<Value>>, daemon: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    if first.starts_with("GET /issuer/keys ") {
        let (status, body) = match &*keys.lock().unwrap() {
            Some(keys) => ("200 OK", keys.to_string()),
            None => ("404 Not Found", json!({ "error": "not_found", "error_description": "there is no such route" }).to_string()),
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close", body.len());
        return (&*client).write_all(format!("{head}\r\n\r\n{body}").as_bytes());
    }
    let server = UnixStream::connect(daemon)?;
    (&server).write_all(with_close(&first, &mut reader)?.as_bytes())?;
    let (mut to_client, mut from_server) = (client.try_clone()?, server.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut reader, &mut &server);
    drop(back.join());
    Ok(())
}

/// The head of a request, with the wish that the connection ends after its answer.
fn with_close(first: &str, reader: &mut impl std::io::BufRead) -> std::io::Result<String> {
    let mut head = first.to_owned();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok(head + "connection: close\r\n\r\n");
        }
        head.push_str(&line);
    }
}

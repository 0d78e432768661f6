//! The login that a server's answer asks for, where a person is there to give it: followed on a thread of its own, waited for by
//! every request that needs it. Whether there may be one more is the daemon's to say.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcp_auth_proto::{Client, ErrorBody, LoginEvent, LoginRequest};
use tokio::sync::watch;

use crate::commands::login::remote;
use crate::output::{self, field};
use crate::{browser, commands};

/// How long a request waits for a login. Clients give up on a request after a minute.
const PATIENCE: Duration = Duration::from_secs(45);

/// The logins of one bridge.
#[derive(Debug)]
pub(super) struct Logins {
    socket: PathBuf,
    request: LoginRequest,
    /// Whether a browser may be opened here.
    allowed: bool,
    /// What each of those that run has come to, by the scopes that it asks for.
    running: Arc<Mutex<Running>>,
}

type Running = HashMap<Option<Vec<String>>, watch::Receiver<State>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Over,
}

impl Logins {
    pub(super) fn new(socket: PathBuf, request: LoginRequest, no_browser: bool) -> Self {
        Self { socket, request, allowed: !no_browser && browser::available(), running: Arc::default() }
    }

    /// Waits until a login that asks for these scopes has come to its end, however it ended. False: there is none, or it takes
    /// too long.
    pub(super) async fn happened(&self, scopes: Option<Vec<String>>) -> bool {
        if !self.allowed {
            return false;
        }
        let mut state = self.joined(scopes);
        let over = tokio::time::timeout(PATIENCE, state.wait_for(|state| *state == State::Over));
        over.await.is_ok_and(|over| over.is_ok())
    }

    fn joined(&self, scopes: Option<Vec<String>>) -> watch::Receiver<State> {
        let mut running = lock(&self.running);
        if let Some(state) = running.get(&scopes) {
            return state.clone();
        }
        let (sender, state) = watch::channel(State::Running);
        running.insert(scopes.clone(), state.clone());
        let (socket, running) = (self.socket.clone(), Arc::clone(&self.running));
        let request = LoginRequest { scopes: scopes.clone().or_else(|| self.request.scopes.clone()), ..self.request.clone() };
        std::thread::spawn(move || {
            if let Err(error) = follow(&Client::new(socket), &request) {
                output::note(&error);
            }
            lock(&running).remove(&scopes);
            // Those who wait may have given up.
            let _ = sender.send(State::Over);
        });
        state
    }
}

/// Follows one login to its end. Stderr is what clients keep as the server's log.
fn follow(client: &Client, request: &LoginRequest) -> Result<(), String> {
    for event in client.login(request).map_err(|error| error.to_string())? {
        match event.map_err(|error| error.to_string())? {
            LoginEvent::OpenUrl { url, host, open, .. } => show(&url, &host, open, request.scopes.as_deref())?,
            LoginEvent::EnterCode { user_code, verification_uri, host, open, .. } => {
                output::note(&format!("type this code: {}", field(&user_code)));
                show(&verification_uri, &host, open, request.scopes.as_deref())?;
            }
            LoginEvent::Done { grant, .. } => output::note(&format!("logged in to {}", grant.name)),
            LoginEvent::Failed { error } => return Err(told(&error)),
            LoginEvent::ServerFound { server, authorization_server } => remote::tell_server(&server, &authorization_server),
            LoginEvent::ClientChosen { client, client_id, scopes } => remote::tell_client(client, &client_id, &scopes),
            LoginEvent::Started { .. } | LoginEvent::Exchanging | LoginEvent::OtherAccount { .. } => {}
        }
    }
    Ok(())
}

fn show(url: &str, host: &str, open: bool, scopes: Option<&[String]>) -> Result<(), String> {
    if !browser::is_web_address(url) {
        return Err("the authorization URL of this login is not a web address".to_owned());
    }
    let asked = scopes.map(|scopes| format!(", for the scopes {}", commands::scopes(scopes))).unwrap_or_default();
    output::note(&format!("a login is needed at {}{asked}: open this URL\n{url}", field(host)));
    if open {
        match browser::open(url) {
            // It ends when the person closes it; nobody waits for that.
            Ok(mut child) => _ = std::thread::spawn(move || child.wait()),
            Err(error) => output::note(&format!("no browser could be started ({error}), open the URL yourself")),
        }
    }
    Ok(())
}

fn told(error: &ErrorBody) -> String {
    let hint = error.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{}{hint}", error.error_description)
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

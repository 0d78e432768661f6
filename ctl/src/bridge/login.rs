//! The login that a server's answer asks for, where a person is there to give it or none is needed: followed on a thread of its
//! own, waited for by every request that needs it. Whether there may be one more is the daemon's to say.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcp_auth_proto::{Client, ClientError, ErrorBody, ErrorCode, LoginEvent, LoginFlow, LoginRequest};
use tokio::sync::watch;

use crate::commands::bearer::with_files;
use crate::commands::login::remote;
use crate::failure::Failure;
use crate::output::{self, field};
use crate::{browser, commands};

/// How long a request waits for a login. Clients give up on a request after a minute.
const PATIENCE: Duration = Duration::from_secs(45);

/// The logins of one bridge.
#[derive(Debug)]
pub(super) struct Logins {
    socket: PathBuf,
    request: LoginRequest,
    /// What each of those that run has come to, by the scopes that it asks for.
    running: Arc<Mutex<Running>>,
}

/// By the scopes that are asked for, and whether a client shows the page where nobody else could.
type Running = HashMap<(Option<Vec<String>>, bool), Watched>;

/// How long a login may take to come to its page: the server is looked at, and a client registered there.
const TO_THE_PAGE: Duration = Duration::from_secs(20);

/// A login that runs.
#[derive(Clone, Debug)]
struct Watched {
    state: watch::Receiver<State>,
    page: watch::Receiver<Option<Arc<Page>>>,
}

/// What a person has to open. It is what we would have opened here ourselves: the daemon has made it, for a login that only it
/// can finish.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) url: String,
    pub(super) host: String,
    /// What is to be typed there, with the device flow.
    pub(super) code: Option<String>,
    /// Names it to the client; no other page of this bridge has the same.
    pub(super) id: String,
    claimed: AtomicBool,
}

/// A page, and what becomes of its login.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) page: Arc<Page>,
    state: watch::Receiver<State>,
}

impl Shown {
    /// Waits until the login has brought tokens; false: it has not, or somebody else waits for that.
    pub(super) async fn completed(&mut self) -> bool {
        if self.page.claimed.swap(true, Ordering::Relaxed) {
            return false;
        }
        let over = self.state.wait_for(|state| *state != State::Running).await;
        over.is_ok_and(|state| *state == State::Done)
    }
}

impl Page {
    /// `None` for what is no web address.
    fn new(url: &str, host: &str, code: Option<&str>) -> Option<Arc<Self>> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let id = format!("login-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let page = Self { url: url.to_owned(), host: host.to_owned(), code: code.map(str::to_owned), id, claimed: AtomicBool::new(false) };
        browser::is_web_address(url).then(|| Arc::new(page))
    }
}

/// What has become of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    /// It has brought tokens.
    Done,
    /// It has come to another end, and whoever asked may try again.
    Over,
    /// There is none: it needs a person who is not here, or takes too long.
    Nothing,
    /// It needed nobody, and failed for this reason.
    Failed(Arc<str>),
}

impl Logins {
    /// Where no browser may be opened, those logins are left that need nobody.
    pub(super) fn new(socket: PathBuf, request: LoginRequest, no_browser: bool) -> Self {
        let unattended = no_browser || !browser::available();
        let request = LoginRequest { unattended, browser: !unattended, ..request };
        Self { socket, request, running: Arc::default() }
    }

    /// Waits until a login that asks for these scopes has come to its end.
    pub(super) async fn end(&self, scopes: Option<Vec<String>>) -> State {
        over(self.joined(scopes, false).state, PATIENCE).await
    }

    /// The page of a login that asks for these scopes, for a client that shows it to the person itself. `None`: there is none.
    pub(super) async fn page(&self, scopes: Option<Vec<String>>) -> Option<Shown> {
        // Where no browser opens here, the client's is the one.
        let Watched { state, mut page } = self.joined(scopes, self.request.unattended);
        let arrived = page.wait_for(Option::is_some);
        let page = tokio::time::timeout(TO_THE_PAGE, arrived).await.ok()?.ok()?.clone()?;
        Some(Shown { page, state })
    }

    /// Waits for the end of every login that runs.
    pub(super) async fn ended(&self) {
        let running: Vec<_> = lock(&self.running).values().cloned().collect();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for watched in running {
            over(watched.state, deadline.saturating_duration_since(tokio::time::Instant::now())).await;
        }
    }

    fn joined(&self, scopes: Option<Vec<String>>, shown: bool) -> Watched {
        let mut running = lock(&self.running);
        let key = (scopes, shown);
        if let Some(watched) = running.get(&key) {
            return watched.clone();
        }
        let ((told, state), (tell, page)) = (watch::channel(State::Running), watch::channel(None));
        let watched = Watched { state, page };
        running.insert(key.clone(), watched.clone());
        let (socket, running) = (self.socket.clone(), Arc::clone(&self.running));
        let mut request = LoginRequest { scopes: key.0.clone().or_else(|| self.request.scopes.clone()), ..self.request.clone() };
        if shown {
            request = LoginRequest { unattended: false, headless: browser::absence().is_some(), ..request };
        }
        std::thread::spawn(move || {
            let client = Client::new(socket);
            let end = with_files(&request, |request| follow(&client, request, &tell), |end| matches!(end, State::Failed(_)));
            let end = end.unwrap_or_else(|failure| failed(&in_words(&failure), &request));
            lock(&running).remove(&key);
            // Those who wait may have given up.
            let _ = told.send(end);
        });
        watched
    }
}

/// How a login has come to its end, if it does within this time.
async fn over(mut state: watch::Receiver<State>, patience: Duration) -> State {
    let end = tokio::time::timeout(patience, state.wait_for(|state| *state != State::Running)).await;
    end.ok().and_then(Result::ok).map_or(State::Nothing, |state| state.clone())
}

/// Follows one login to its end. Stderr is what clients keep as the server's log.
fn follow(client: &Client, request: &LoginRequest, page: &watch::Sender<Option<Arc<Page>>>) -> State {
    let events = match client.login(request) {
        Ok(events) => events,
        Err(ClientError::Api(body)) if request.unattended && body.error == ErrorCode::LoginRequired => return State::Nothing,
        Err(ClientError::Api(body)) => return failed(&body, request),
        Err(error) => return said(&error.to_string()),
    };
    for event in events {
        match event {
            Ok(LoginEvent::Failed { error }) => return failed(&error, request),
            Ok(event) => match step(event, request, page) {
                Ok(true) => return State::Done,
                Ok(false) => {}
                Err(why) => return said(&why),
            },
            Err(error) => return said(&error.to_string()),
        }
    }
    State::Over
}

fn said(why: &str) -> State {
    output::note(why);
    State::Over
}

/// What went wrong before the daemon was asked.
fn in_words(failure: &Failure) -> ErrorBody {
    ErrorBody { hint: failure.hint(), ..ErrorBody::new(ErrorCode::Conflict, failure.to_string()) }
}

/// A person who was led to a page knows what went wrong there; else the client is told.
fn failed(error: &ErrorBody, request: &LoginRequest) -> State {
    let hint = |before: &str| error.hint.as_ref().map(|hint| format!("{before}hint: {hint}")).unwrap_or_default();
    output::note(&format!("{}{}", error.error_description, hint("\n")));
    let needs_nobody = request.flow == Some(LoginFlow::ClientCredentials) || request.assertion.is_some() || request.identity.is_some();
    // Of a login that a person can see the daemon never says that.
    if request.unattended || needs_nobody || error.error == ErrorCode::InsufficientScope {
        State::Failed(format!("{}{}", error.error_description, hint("; ")).into())
    } else {
        State::Over
    }
}

/// Whether that was the end.
fn step(event: LoginEvent, request: &LoginRequest, page: &watch::Sender<Option<Arc<Page>>>) -> Result<bool, String> {
    let scopes = request.scopes.as_deref();
    match event {
        LoginEvent::OpenUrl { url, host, open, .. } => {
            page.send_replace(Page::new(&url, &host, None));
            show(&url, &host, open, scopes)?;
        }
        LoginEvent::EnterCode { user_code, verification_uri, host, open, .. } => {
            page.send_replace(Page::new(&verification_uri, &host, Some(&user_code)));
            output::note(&format!("type this code: {}", field(&user_code)));
            show(&verification_uri, &host, open, scopes)?;
        }
        LoginEvent::Done { grant, .. } => {
            output::note(&format!("logged in to {}", grant.name));
            return Ok(true);
        }
        LoginEvent::ServerFound { server, authorization_server } => remote::tell_server(&server, &authorization_server),
        LoginEvent::ClientChosen { client, client_id, scopes } => remote::tell_client(client, &client_id, &scopes),
        LoginEvent::Started { .. } | LoginEvent::Exchanging | LoginEvent::OtherAccount { .. } | LoginEvent::Failed { .. } => {}
    }
    Ok(false)
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

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

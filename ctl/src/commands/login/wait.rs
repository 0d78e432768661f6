//! Waiting for the browser: what the person sees meanwhile, and the redirect URL that they may paste. It does not know how
//! the login goes on.

use std::io::{self, BufRead, IsTerminal, Read};
use std::process::Child;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mcp_auth_proto::{Client, ClientError, ErrorBody, LoginDecision, PastedRedirect, Secret};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::output;

/// Who hears the lines of stdin that are read beside the login.
#[derive(Default)]
enum Ear {
    /// Nobody reads.
    #[default]
    Closed,
    /// They are pasted redirects.
    Pastes,
    /// The next one is an answer.
    Answer(Sender<String>),
}

/// The time between the URL and the redirect.
pub(super) struct Wait {
    client: Arc<Client>,
    /// Whether lines of stdin are pasted redirects.
    pastes: bool,
    id: Option<String>,
    /// Where a line of stdin goes, once it is read.
    ear: Arc<Mutex<Ear>>,
    counter: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Wait {
    /// Nothing is shown or read yet. Stdin is read when it is a terminal, or when the person said that there is no browser:
    /// else it may belong to a script around us.
    pub(super) fn new(client: Arc<Client>, no_browser: bool) -> Self {
        Self { client, pastes: no_browser || io::stdin().is_terminal(), id: None, ear: Arc::default(), counter: None }
    }

    /// The login has an id, so that pasted redirects have somewhere to go.
    pub(super) fn began(&mut self, id: String) {
        self.id = Some(id);
    }

    /// The person has the URL now.
    pub(super) fn begin(&mut self) {
        let typing = self.pastes && io::stdin().is_terminal();
        if typing {
            output::note("waiting for the browser (Ctrl-C cancels); or paste the address of the page it ends on, then Enter");
        } else if output::can_count() {
            self.counter = Some(count());
        } else {
            output::note("waiting for the browser (Ctrl-C cancels)");
        }
        // Once: the thread lives as long as stdin does.
        if let Some(id) = self.id.clone().filter(|_| self.pastes && matches!(*listen(&self.ear), Ear::Closed)) {
            *listen(&self.ear) = Ear::Pastes;
            let (client, ear) = (Arc::clone(&self.client), Arc::clone(&self.ear));
            std::thread::spawn(move || read_pastes(&client, &id, &ear));
        }
    }

    /// Whether lines of stdin are pasted redirects.
    pub(super) fn reads(&self) -> bool {
        self.pastes
    }

    /// A line that the person types; `None` where stdin has ended.
    pub(super) fn answer(&self) -> Option<String> {
        let (sender, answer) = channel();
        {
            let mut ear = listen(&self.ear);
            if matches!(*ear, Ear::Closed) {
                let mut line = String::new();
                return io::stdin().lock().read_line(&mut line).ok().filter(|count| *count > 0).map(|_| line);
            }
            *ear = Ear::Answer(sender);
        }
        answer.recv().ok()
    }

    /// Tells the daemon whose login it shall be.
    pub(super) fn decide(&self, client: &Client, decision: &LoginDecision) -> Result<(), ErrorBody> {
        match client.decide_login(self.id.as_deref().unwrap_or_default(), decision) {
            Err(ClientError::Api(body)) => Err(*body),
            // The login's own events tell how it goes on, or that the daemon has gone.
            _ => Ok(()),
        }
    }

    /// The person is busy at a page that does not come back here.
    pub(super) fn begin_elsewhere(&mut self) {
        if output::can_count() {
            self.counter = Some(count());
        } else {
            output::note("waiting until that is done (Ctrl-C cancels)");
        }
    }

    /// Nothing is waited for any more.
    pub(super) fn over(&mut self) {
        if let Some((stop, thread)) = self.counter.take() {
            drop(stop);
            let _ = thread.join();
            output::progress(None);
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.over();
    }
}

/// Tells when the opener fails; it may as well run as long as the browser does.
pub(super) fn watch(mut child: Child) {
    std::thread::spawn(move || {
        if let Ok(status) = child.wait()
            && !status.success()
        {
            output::warning("the command that opens the browser failed, open the URL yourself");
        }
    });
}

/// The longest redirect URL that is read.
const MAX_LINE: u64 = 64 * 1024;

/// Counts the seconds. Not where a person types: the line that is replaced would be theirs.
fn count() -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = channel::<()>();
    let began = Instant::now();
    let thread = std::thread::spawn(move || {
        loop {
            let seconds = began.elapsed().as_secs();
            output::progress(Some(&format!("waiting for the browser ... {seconds} s (Ctrl-C cancels)")));
            if stopped.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
    });
    (stop, thread)
}

fn listen(ear: &Mutex<Ear>) -> std::sync::MutexGuard<'_, Ear> {
    ear.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_pastes(client: &Client, id: &str, ear: &Mutex<Ear>) {
    let mut stdin = io::stdin().lock();
    loop {
        let mut line = Zeroizing::new(String::new());
        match (&mut stdin).take(MAX_LINE).read_line(&mut line) {
            // Whoever waits for an answer hears that there will be none.
            Ok(0) | Err(_) => return *listen(ear) = Ear::Closed,
            Ok(_) => match std::mem::replace(&mut *listen(ear), Ear::Pastes) {
                // Nobody waits any more: the login has ended.
                Ear::Answer(waiting) => drop(waiting.send(line.to_string())),
                _ if line.trim().is_empty() => {}
                _ => hand_over(client, id, Secret::new(line.trim())),
            },
        }
    }
}

/// A wrong URL changes nothing; the person may try again.
fn hand_over(client: &Client, id: &str, url: Secret) {
    match client.pasted_redirect(id, &PastedRedirect { url }) {
        // The login's own events tell how it goes on.
        Ok(()) => {}
        Err(ClientError::Api(body)) => {
            let failure = Failure::from(*body);
            output::complaint(&failure.to_string(), failure.hint().as_deref());
        }
        Err(error) => output::complaint(&error.to_string(), None),
    }
}

//! `status --watch`: shows the status again whenever the daemon tells of a change. The daemon is not asked in between: the
//! spans that run down are counted here. Ctrl-C needs no code: nothing of the terminal has to be put back.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use mcp_auth_proto::{Client, ClientError, ErrorCode, GrantName, GrantSummary, Malformed};

use super::{Snapshot, description, state};
use crate::commands::vault_line;
use crate::failure::Failure;
use crate::output::{self, field};

/// How it is shown.
pub(super) enum Form {
    /// Drawn again and again, in full (`long`) or as a table.
    Screen {
        /// Every grant in full.
        long: bool,
    },
    /// A line for everything that is other than it was.
    Lines,
    /// The whole status in a line.
    Json,
}

impl Form {
    /// The one that suits stdout.
    pub(super) fn here(long: bool) -> Self {
        if io::stdout().is_terminal() { Self::Screen { long } } else { Self::Lines }
    }
}

/// Between two looks for a daemon that has gone.
const RETURN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often the spans on a terminal are counted down.
const TICK: Duration = Duration::from_secs(1);

pub(super) fn run(client: &Client, only: Option<&GrantName>, form: Form) -> Result<(), Failure> {
    let mut view = View { only, form, shown: String::new(), told: BTreeMap::new() };
    let mut changes = follow(client)?;
    loop {
        match until_gone(client, &changes, &mut view) {
            Err(Failure::Client(error)) if is_gone(&error) => {}
            outcome => return outcome,
        }
        view.gone()?;
        std::thread::sleep(RETURN.0);
        changes = returned(client)?;
    }
}

/// A message for each change, until the daemon goes.
fn follow(client: &Client) -> Result<Receiver<()>, ClientError> {
    let events = client.events()?;
    let (sender, changes) = channel();
    // It ends with the daemon, or with us.
    std::thread::spawn(move || events.map_while(Result::ok).try_for_each(|_| sender.send(())));
    Ok(changes)
}

fn until_gone(client: &Client, changes: &Receiver<()>, view: &mut View<'_>) -> Result<(), Failure> {
    loop {
        // What changed before this look needs no other.
        changes.try_iter().for_each(drop);
        let (snapshot, taken) = (Snapshot::take(client)?, Instant::now());
        view.show(&snapshot)?;
        loop {
            match view.wait(changes) {
                Ok(()) => break,
                Err(RecvTimeoutError::Timeout) => view.show(&snapshot.aged(taken.elapsed().as_secs()))?,
                Err(RecvTimeoutError::Disconnected) => return Err(ClientError::Protocol(Malformed::Truncated).into()),
            }
        }
    }
}

/// Waits until the daemon is there again.
fn returned(client: &Client) -> Result<Receiver<()>, Failure> {
    let mut pause = RETURN.0;
    loop {
        match follow(client) {
            Err(error) if is_gone(&error) => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(RETURN.1);
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// Whether the daemon has ended, or is just ending.
fn is_gone(error: &ClientError) -> bool {
    match error {
        ClientError::NotRunning { .. } | ClientError::Protocol(Malformed::Truncated) | ClientError::Io(_) => true,
        ClientError::Api(body) => body.error == ErrorCode::InternalError,
        _ => false,
    }
}

/// What was shown so far.
struct View<'a> {
    only: Option<&'a GrantName>,
    form: Form,
    shown: String,
    told: BTreeMap<String, String>,
}

impl View<'_> {
    fn wait(&self, changes: &Receiver<()>) -> Result<(), RecvTimeoutError> {
        match self.form {
            Form::Screen { .. } => changes.recv_timeout(TICK),
            Form::Lines | Form::Json => changes.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn show(&mut self, snapshot: &Snapshot) -> Result<(), Failure> {
        match self.form {
            Form::Json => self.json(snapshot),
            Form::Lines => self.lines(snapshot),
            Form::Screen { long } => {
                let text = match self.only {
                    None => snapshot.text(long),
                    Some(name) => self.grants(snapshot).next().map_or_else(|| format!("{name} is not logged in"), description),
                };
                self.draw(text)
            }
        }
    }

    fn grants<'s>(&self, snapshot: &'s Snapshot) -> impl Iterator<Item = &'s GrantSummary> {
        snapshot.grants.iter().filter(|grant| self.only.is_none_or(|only| grant.name == *only))
    }

    fn draw(&mut self, text: String) -> Result<(), Failure> {
        if text != self.shown {
            output::screen(&format!("{text}\n\nthis follows what changes; Ctrl-C ends it"))?;
            self.shown = text;
        }
        Ok(())
    }

    fn json(&self, snapshot: &Snapshot) -> Result<(), Failure> {
        match self.only {
            None => output::json(&snapshot.to_json()),
            Some(_) => self.grants(snapshot).try_for_each(output::json),
        }
    }

    /// One line for each grant, and one for the vault, that is other than it was.
    fn lines(&mut self, snapshot: &Snapshot) -> Result<(), Failure> {
        let mut now: BTreeMap<_, _> = self.grants(snapshot).map(|grant| (grant.name.to_string(), one_line(grant))).collect();
        if snapshot.locked.is_some() {
            // What cannot be seen now has not changed.
            now = self.told.clone();
        }
        now.insert(String::new(), vault_line(&snapshot.status.vault));
        for (name, line) in &now {
            if self.told.get(name) != Some(line) {
                output::line(line)?;
            }
        }
        for name in self.told.keys().filter(|name| !now.contains_key(*name)) {
            output::line(&format!("{name}: logged out"))?;
        }
        self.told = now;
        Ok(())
    }

    fn gone(&mut self) -> Result<(), Failure> {
        const WAITING: &str = "mcp-authd has ended; waiting until it is there again";
        match self.form {
            Form::Screen { .. } => self.draw(WAITING.to_owned()),
            Form::Lines | Form::Json => {
                output::note(WAITING);
                Ok(())
            }
        }
    }
}

fn one_line(grant: &GrantSummary) -> String {
    let until = grant.expires_at.as_ref().map(|at| format!(", valid until {}", field(at))).unwrap_or_default();
    let error = grant.last_error.as_ref().map(|error| format!(": {}", field(error))).unwrap_or_default();
    format!("{}: {}{until}{error}", grant.name, state(grant))
}

impl Snapshot {
    /// As it is so many seconds later, when nothing else has changed.
    fn aged(&self, seconds: u64) -> Self {
        let mut grants = self.grants.clone();
        for span in grants
            .iter_mut()
            .flat_map(|grant| [&mut grant.expires_in, &mut grant.next_refresh_in, &mut grant.refresh_token_expires_in])
            .flatten()
        {
            *span = span.saturating_sub(seconds);
        }
        let mut status = self.status.clone();
        for paused in &mut status.paused {
            paused.retry_after = paused.retry_after.saturating_sub(seconds);
        }
        Self { status, grants, locked: self.locked.clone() }
    }
}

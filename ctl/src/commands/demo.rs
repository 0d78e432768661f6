//! `demo`: the whole job on this machine alone, without an account: a daemon of its own, its issuer as the provider, a real
//! login, and two MCP clients of the model MCP server through several refreshes. This file is the story; what it tells is
//! `beat`, how that looks is `view`.
//!
//! Nothing is left behind even when this process is killed: the daemon and the MCP servers end with their standard input,
//! which is a pipe from here, and the daemon takes its folder with it.

mod beat;
mod failure;
mod github;
mod login;
mod mcp;
mod place;
mod view;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use mcp_auth_proto::{Client, LogoutRequest, Revocation};

use self::beat::{Beat, Tally};
pub(crate) use self::failure::DemoError;
use self::github::GitHub;
use self::mcp::McpClient;
use self::place::Place;
use self::view::View;
use crate::failure::Failure;
use crate::{output, surroundings};

/// See the whole job in a minute, without an account: login, refreshes, two MCP clients
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl demo
  mcp-authctl demo --seconds 300          many more refreshes
  mcp-authctl demo --json | jq -c 'select(.event == \"refreshed\")'

It needs no running daemon and touches none: it starts one of its own, and leaves nothing behind.
It succeeds if there was a refresh and no call failed.")]
pub(crate) struct Args {
    /// How long the two clients call
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(20..=86_400))]
    seconds: u64,
}

/// The grant, the provider and the client id.
const NAME: &str = "demo";
/// The two clients.
const CLIENTS: usize = 2;
/// Between two calls of a client.
const PACE: Duration = Duration::from_secs(1);

/// What the threads tell.
enum Message {
    Beat(Beat),
    Refreshed,
    /// The daemon's events have ended.
    Gone,
    /// A client has made its last call.
    Over,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let found = |name| surroundings::program(name).ok_or(DemoError::Missing(name));
    let (daemon, model_server) = (found("mcp-authd")?, found("mcp-auth-model-server")?);
    let mut view = View::new(json);
    let place = Place::start(&daemon)?;
    let outcome = story(args, &place, &model_server, &mut view);
    let said = place.last_words();
    let nothing_left = place.end();
    let (mut tally, end) = outcome.inspect_err(|_| show_words(&said))?;
    tally.nothing_left = nothing_left;
    view.end(&tally, end)?;
    match end {
        End::Interrupted => Err(Failure::Quiet(Box::new(Failure::Cancelled))),
        End::DaemonGone => {
            show_words(&said);
            Err(DemoError::DaemonGone.into())
        }
        End::InTime if tally.is_as_it_should_be() => Ok(()),
        End::InTime => {
            show_words(&said);
            Err(DemoError::NotAsItShouldBe.into())
        }
    }
}

/// Why it was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    InTime,
    Interrupted,
    DaemonGone,
}

/// What the daemon said last belongs to what went wrong.
fn show_words(said: &[String]) {
    for line in said {
        output::note(&format!("mcp-authd: {}", output::field(line)));
    }
}

fn story(args: &Args, place: &Place, model_server: &Path, view: &mut View) -> Result<(Tally, End), Failure> {
    let client = place.client();
    let issuer = place.open_issuer()?;
    view.show(&Beat::Started { issuer: issuer.clone(), folder: place.folder().to_owned(), lifetime: place::LIFETIME })?;
    let way = login::way();
    view.show(&Beat::LoggingIn { by_browser: way.is_browser(), because: way.because() })?;
    let approved = login::log_in(&client, &issuer, &way)?;
    view.show(&Beat::LoggedIn { code: approved })?;
    let github = Arc::new(GitHub::start(&issuer)?);
    let (tell, told) = channel();
    follow(&client, tell.clone())?;
    let stop = stopped_by_ctrl_c()?;
    let mut clients = Vec::new();
    for number in 1..=CLIENTS {
        clients.push(McpClient::start(model_server, place.socket(), &github.url_for(number))?);
    }
    let began = Instant::now();
    for (number, mcp) in (1..).zip(clients) {
        let caller = Caller { number, mcp, github: Arc::clone(&github), began, seconds: args.seconds, stop: Arc::clone(&stop) };
        let tell = tell.clone();
        std::thread::spawn(move || caller.run(&tell));
    }
    let (mut tally, is_gone) = listen(&told, began, &stop, view)?;
    tally.rejected = github.rejected();
    if is_gone {
        return Ok((tally, End::DaemonGone));
    }
    let answer = client.logout(&NAME.parse().expect("a constant"), &LogoutRequest::default());
    tally.revoked = answer.is_ok_and(|answer| answer.revocation == Revocation::Confirmed);
    view.show(&Beat::LoggedOut { revoked: tally.revoked })?;
    Ok((tally, if stop.load(Ordering::Relaxed) { End::Interrupted } else { End::InTime }))
}

/// Shows what comes, until both clients are done. Whether the daemon has gone: then nothing that comes is worth showing.
fn listen(told: &Receiver<Message>, began: Instant, stop: &AtomicBool, view: &mut View) -> Result<(Tally, bool), Failure> {
    let (mut tally, mut is_gone) = (Tally::default(), false);
    let mut running = CLIENTS;
    while running > 0
        && let Ok(message) = told.recv()
    {
        let beat = match message {
            Message::Beat(beat) => beat,
            Message::Refreshed => Beat::Refreshed { second: began.elapsed().as_secs() },
            Message::Gone => {
                is_gone = true;
                stop.store(true, Ordering::Relaxed);
                continue;
            }
            Message::Over => {
                running -= 1;
                continue;
            }
        };
        tally.take(&beat);
        view.count(&tally);
        view.show(&beat)?;
    }
    tally.seconds = u64::try_from(began.elapsed().as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
    Ok((tally, is_gone))
}

/// Tells the refreshes, for as long as the daemon lives, and its end.
fn follow(client: &Client, tell: Sender<Message>) -> Result<(), Failure> {
    let events = client.events()?;
    std::thread::spawn(move || {
        let mut refreshes = events.map_while(Result::ok).filter(|event| event.event == "refreshed");
        // Whoever does not listen any more has ended.
        refreshes.try_for_each(|_| tell.send(Message::Refreshed)).and_then(|()| tell.send(Message::Gone))
    });
    Ok(())
}

/// Set by the first Ctrl-C from now on; the second one kills.
fn stopped_by_ctrl_c() -> Result<Arc<AtomicBool>, DemoError> {
    let stop = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    {
        use signal_hook::{consts::SIGINT, flag};
        flag::register_conditional_default(SIGINT, Arc::clone(&stop)).map_err(DemoError::System)?;
        flag::register(SIGINT, Arc::clone(&stop)).map_err(DemoError::System)?;
    }
    Ok(stop)
}

/// One of the two clients, on a thread of its own.
struct Caller {
    number: usize,
    mcp: McpClient,
    github: Arc<GitHub>,
    began: Instant,
    seconds: u64,
    stop: Arc<AtomicBool>,
}

impl Caller {
    fn run(self, tell: &Sender<Message>) {
        self.calls(tell);
        // Whoever does not listen any more has ended.
        let _ = tell.send(Message::Over);
    }

    /// The MCP server has ended when this has.
    fn calls(mut self, tell: &Sender<Message>) {
        for second in 0..self.seconds {
            let due = self.began + PACE * u32::try_from(second).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let error = self.mcp.call("get_github_user_info").err().map(|error| error.to_string());
            let token = self.github.last_token(self.number);
            if tell.send(Message::Beat(Beat::Called { second, client: self.number, token, error })).is_err() {
                return;
            }
        }
    }
}

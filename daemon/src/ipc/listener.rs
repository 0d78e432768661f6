//! Accepts connections: who is there, is there a seat left, then off into a task of its own. Also the seats themselves.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcp_auth_proto::{ErrorBody, ErrorCode};
use tokio::sync::{Notify, watch};

use super::capability::{House, Memory, Wishes};
use super::connection::{self, Shared};
use super::guard::Names;
use super::peer::{Standing, standing};
use super::{Answerer, Limits, Stage};
use crate::caller::Caller;
use crate::platform::{self, Listener, Stream};
use crate::policy::{Only, Peer};

/// The ways in.
#[derive(Debug)]
pub struct Doors {
    /// The daemon's own socket.
    pub main: Listener,
    /// What is asked for and remembered of capability sockets, and where the daemon's own is; `None` where there are none.
    pub private: Option<(Wishes, Memory, PathBuf)>,
}

/// Serves the sockets until the stage is no longer open, then waits until the last connection is gone.
pub async fn serve(doors: Doors, answer: Answerer, limits: Limits, stage: watch::Receiver<Stage>) {
    let seats = Arc::new(Seats::new(&limits));
    let hall = Hall { shared: Arc::new(Shared { answer, limits, stage, names: Names::Socket }), seats };
    let private = doors.private.map(|(wishes, Memory { records, vault, broker }, path)| {
        let house = House::new(&path, hall.clone(), vault, broker);
        tokio::spawn(house.serve(wishes, records))
    });
    tokio::select! {
        () = hall.closing() => {}
        () = accept_all(&doors.main, &hall, &Entrance::Main) => {}
    }
    drop(doors.main);
    hall.seats.all_free().await;
    if let Some(private) = private {
        // A panic there is in the log.
        let _ = private.await;
    }
}

/// Where a connection came in.
#[derive(Clone, Debug)]
pub(super) enum Entrance {
    /// By the daemon's own socket.
    Main,
    /// By a capability socket, whose connections are cut off when the sender of `until` goes.
    Private { only: Only, until: watch::Receiver<()> },
}

impl Entrance {
    fn only(&self) -> Option<Only> {
        if let Self::Private { only, .. } = self { Some(only.clone()) } else { None }
    }

    async fn shut(self) {
        match self {
            Self::Main => std::future::pending().await,
            Self::Private { mut until, .. } => while until.changed().await.is_ok() {},
        }
    }
}

/// What the connections of all sockets share.
#[derive(Clone)]
pub(super) struct Hall {
    shared: Arc<Shared>,
    seats: Arc<Seats>,
}

impl Hall {
    /// Returns when nobody is accepted any more.
    pub(super) fn closing(&self) -> impl Future<Output = ()> + use<> {
        let mut stage = self.shared.stage.clone();
        async move {
            // A sender that is gone ends the serving too.
            let _ = stage.wait_for(|stage| *stage != Stage::Open).await;
        }
    }
}

/// How long the loop rests when there is no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// How many refused connections may wait at a time to take their sentence.
const REFUSALS: usize = 64;

/// Takes in whoever comes.
pub(super) async fn accept_all(listener: &Listener, hall: &Hall, entrance: &Entrance) {
    let mut failing = false;
    loop {
        match platform::accept(listener).await {
            Ok(stream) => {
                failing = false;
                admit(stream, hall, entrance);
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot accept connections, trying again");
                }
                failing = true;
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Decides before a byte is read.
fn admit(stream: Stream, hall: &Hall, entrance: &Entrance) {
    let seats = &hall.seats;
    let peer = match standing(&stream) {
        Ok(Standing::Ours(peer)) => peer,
        Ok(Standing::Root) => {
            let error = ErrorBody::new(ErrorCode::AccessDenied, "tokens are for their own user, not for root");
            return refuse(stream, seats, error.hint("run the command as the user whose daemon this is"));
        }
        Ok(Standing::Foreign) => return tracing::debug!("connection of another user closed"),
        Err(error) => return tracing::debug!(%error, "connection closed: the system does not say whose it is"),
    };
    match seats.take(peer.pid) {
        Ok(seat) => receive((stream, peer, seat), hall.shared.clone(), entrance.clone()),
        Err(full) => {
            tracing::debug!(pid = peer.pid, full, "connection refused");
            refuse(stream, seats, ErrorBody::new(ErrorCode::TooManyRequests, full).hint("reuse connections, or close them after use"));
        }
    }
}

fn receive((stream, peer, seat): (Stream, Peer, Seat), shared: Arc<Shared>, entrance: Entrance) {
    let stream = Arc::new(Mutex::new(stream));
    let caller = Caller::of(&stream, peer, entrance.only());
    tokio::spawn(async move {
        tokio::select! {
            () = connection::serve(stream, caller, shared) => {}
            () = entrance.shut() => {}
        }
        drop(seat);
    });
}

fn refuse(stream: Stream, seats: &Arc<Seats>, error: ErrorBody) {
    // Beyond that many the connection is closed without a word.
    if let Some(seat) = seats.take_refusal() {
        tokio::spawn(async move {
            connection::refuse(stream, error).await;
            drop(seat);
        });
    }
}

/// The connections there are, and of whom.
#[derive(Debug)]
pub(super) struct Seats {
    connections: usize,
    per_process: usize,
    occupied: Arc<AtomicUsize>,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    refusals: usize,
    /// Processes that the system does not name share a count.
    by_process: HashMap<Option<u32>, usize>,
}

/// One connection's place, free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    kind: SeatKind,
}

#[derive(Clone, Copy, Debug)]
enum SeatKind {
    Connection(Option<u32>),
    Refusal,
}

impl Seats {
    pub(super) fn new(limits: &Limits) -> Self {
        let Limits { connections, per_process, .. } = *limits;
        Self { connections, per_process, occupied: limits.occupied.clone(), taken: Mutex::default(), freed: Notify::new() }
    }

    /// A seat, or the sentence that there is none.
    pub(super) fn take(self: &Arc<Self>, pid: Option<u32>) -> Result<Seat, &'static str> {
        let mut taken = self.taken();
        if taken.all >= self.connections {
            return Err("the daemon has too many connections");
        }
        let own = taken.by_process.entry(pid).or_default();
        if *own >= self.per_process {
            return Err("this process has too many connections");
        }
        *own += 1;
        taken.all += 1;
        self.occupied.store(taken.all, Ordering::Relaxed);
        Ok(Seat { seats: self.clone(), kind: SeatKind::Connection(pid) })
    }

    pub(super) fn take_refusal(self: &Arc<Self>) -> Option<Seat> {
        let mut taken = self.taken();
        (taken.refusals < REFUSALS).then(|| {
            taken.refusals += 1;
            Seat { seats: self.clone(), kind: SeatKind::Refusal }
        })
    }

    pub(super) async fn all_free(&self) {
        while self.taken().all > 0 {
            self.freed.notified().await;
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        match self.kind {
            SeatKind::Refusal => taken.refusals -= 1,
            SeatKind::Connection(pid) => {
                taken.all -= 1;
                self.seats.occupied.store(taken.all, Ordering::Relaxed);
                if let Some(own) = taken.by_process.get_mut(&pid) {
                    *own -= 1;
                    if *own == 0 {
                        taken.by_process.remove(&pid);
                    }
                }
                // Keeps the permit when nobody waits yet.
                self.seats.freed.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! A port on loopback, served as the socket is: seats, time limits, an orderly end. Any user of the machine may knock, and any
//! page in a browser: who is not ours is let go before a byte is read, where the system tells. What is asked for, and by whom, is
//! its host's business.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use mcp_auth_proto::{ErrorBody, ErrorCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::connection::{self, Shared};
use super::guard::Names;
use super::listener::Seats;
use super::{Answerer, Limits, Stage};
use crate::caller::Caller;
use crate::loopback;
use crate::platform;
use crate::policy::Peer;

/// The most connections: where the system does not tell whose they are, others may take them all.
const MOST_CONNECTIONS: usize = 256;

/// One connection, for its host.
pub struct Guest {
    /// What answers it.
    pub answer: Answerer,
    /// Ready when it is shown out.
    pub out: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guest")
    }
}

/// Serves the port until the stage is no longer open, then waits until the last connection is gone. Dropped before, it cuts off
/// its connections.
pub async fn serve(listener: TcpListener, address: SocketAddr, stage: watch::Receiver<Stage>, receive: impl Fn() -> Guest) {
    let limits = Limits { connections: MOST_CONNECTIONS, per_process: MOST_CONNECTIONS, ..Limits::default() };
    let hall = Hall { address, seats: Arc::new(Seats::new(&limits)), limits, stage };
    let (open, inside) = watch::channel(());
    let mut stage = hall.stage.clone();
    tokio::select! {
        // A sender that is gone ends the serving too.
        () = async { drop(stage.wait_for(|stage| *stage != Stage::Open).await) } => {}
        // Whoever is not answered takes no seat, and crowds nobody out.
        never = loopback::accept_ours(&listener, address, |stream| hall.admit(stream, inside.clone(), receive())) => match never {},
    }
    drop(listener);
    hall.seats.all_free().await;
    drop(open);
}

struct Hall {
    address: SocketAddr,
    seats: Arc<Seats>,
    limits: Limits,
    stage: watch::Receiver<Stage>,
}

impl Hall {
    fn admit(&self, stream: TcpStream, mut inside: watch::Receiver<()>, guest: Guest) {
        let seat = match self.seats.take(None) {
            Ok(seat) => seat,
            Err(full) => return self.refuse(stream, full),
        };
        let shared =
            Shared { answer: guest.answer, limits: self.limits.clone(), stage: self.stage.clone(), names: Names::Port(self.address) };
        // Which process it is the system does not tell.
        let caller = Caller::new(Peer { uid: platform::own_uid(), pid: None });
        tokio::spawn(async move {
            tokio::select! {
                () = connection::serve(Arc::new(Mutex::new(stream)), caller, Arc::new(shared)) => {}
                () = guest.out => {}
                // The port is closed, or another one.
                _ = inside.changed() => {}
            }
            drop(seat);
        });
    }

    fn refuse(&self, stream: TcpStream, full: &'static str) {
        if let Some(seat) = self.seats.take_refusal() {
            let error = ErrorBody::new(ErrorCode::TooManyRequests, full).hint("reuse connections, or close them after use");
            tokio::spawn(async move {
                connection::refuse(stream, error).await;
                drop(seat);
            });
        }
    }
}

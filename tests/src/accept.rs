//! A server in this process: it serves each connection on a thread of its own, until it is dropped.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The accepting thread of a server on a free loopback port. It ends with this value.
#[derive(Debug)]
pub(crate) struct Accepting {
    port: u16,
    ended: Arc<AtomicBool>,
}

impl Accepting {
    /// Binds, makes what serves from the port and a flag that says when all is over, and accepts.
    #[track_caller]
    pub(crate) fn start<S>(make: impl FnOnce(u16, Arc<AtomicBool>) -> Arc<S>, serve: fn(&S, TcpStream)) -> (Self, Arc<S>)
    where
        S: Send + Sync + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let accepting = Self { port: listener.local_addr().unwrap().port(), ended: Arc::default() };
        let shared = make(accepting.port, accepting.ended.clone());
        let (serving, ended) = (shared.clone(), accepting.ended.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = serving.clone();
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        (accepting, shared)
    }

    /// Says that all is over; what serves and waits may then end.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.end();
        // Wakes the accepting thread; if that fails it has gone already.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

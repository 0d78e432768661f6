//! A network cable between a daemon and a server on this machine: unplugged, nobody is reached.

use std::io::copy;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Leads one port of this machine to another, as long as it is plugged in.
#[derive(Debug)]
pub struct Cable {
    port: u16,
    to: u16,
    plugged: Option<Plugged>,
    /// How many connections went through it.
    used: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Plugged {
    ended: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Cable {
    /// A cable to this port, plugged in.
    #[track_caller]
    pub fn to(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut cable = Self { port, to, plugged: None, used: Arc::default() };
        cable.accept(listener);
        cable
    }

    /// The near end.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections went through it so far.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// From now on connections are refused. What goes through it already goes on.
    pub fn unplug(&mut self) {
        let Some(plugged) = self.plugged.take() else { return };
        plugged.ended.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which takes the listener with it.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        drop(plugged.accepting.join());
    }

    /// The way is there again.
    #[track_caller]
    pub fn plug(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        self.accept(listener);
    }

    fn accept(&mut self, listener: TcpListener) {
        let (to, used, ended) = (self.to, self.used.clone(), Arc::new(AtomicBool::new(false)));
        let over = ended.clone();
        let accepting = std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                used.fetch_add(1, Ordering::Relaxed);
                // A client that goes away has its reasons.
                std::thread::spawn(move || drop(lead(&near, to)));
            }
        });
        self.plugged = Some(Plugged { ended, accepting });
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.unplug();
    }
}

fn lead(near: &TcpStream, to: u16) -> std::io::Result<()> {
    let far = TcpStream::connect(("127.0.0.1", to))?;
    let (mut back_from, mut back_to) = (far.try_clone()?, near.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Write);
    });
    copy(&mut &*near, &mut &far)?;
    far.shutdown(Shutdown::Write)?;
    drop(back.join());
    Ok(())
}

//! A forward proxy for https (`CONNECT`, RFC 9110 section 9.3.6) that leads every host to this machine, whatever its name.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use crate::accept::Accepting;

/// The proxy. It ends with this value; tunnels end with their ends.
#[derive(Debug)]
pub struct Proxy {
    _accepting: Accepting,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    asked: Mutex<Vec<String>>,
}

impl Proxy {
    /// A proxy on a free loopback port.
    #[track_caller]
    pub fn start() -> Self {
        let make = |port, _| Arc::new(Shared { port, asked: Mutex::default() });
        // A client that goes away has its reasons.
        let (accepting, shared) = Accepting::start(make, |shared: &Shared, stream| drop(shared.tunnel(stream)));
        Self { _accepting: accepting, shared }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.shared.port)
    }

    /// Where it was asked to lead, `HOST:PORT`, in order.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Shared {
    fn tunnel(&self, client: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let Some(target) = first.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else { return Ok(()) };
        self.asked.lock().unwrap().push(target.to_owned());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        let port: u16 = target.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(443);
        let server = TcpStream::connect(("127.0.0.1", port))?;
        (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let (mut to_client, mut from_server) = (client.try_clone()?, server.try_clone()?);
        let back = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_server, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Write);
        });
        std::io::copy(&mut reader, &mut &server)?;
        server.shutdown(Shutdown::Write)?;
        drop(back.join());
        Ok(())
    }
}

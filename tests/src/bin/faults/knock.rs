//! Knocking at the loopback listener of a login: raw requests over TCP, and who listens where.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use url::Url;

/// Where a login waits for its redirect.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    /// What a browser names it.
    pub(crate) host: String,
}

impl Door {
    /// Where this redirect leads.
    pub(crate) fn of(redirect: &Url) -> Self {
        let port = redirect.port().unwrap();
        let address = match redirect.host_str().unwrap() {
            "[::1]" => IpAddr::V6(Ipv6Addr::LOCALHOST),
            _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        Self { address: SocketAddr::new(address, port), host: format!("{}:{port}", redirect.host_str().unwrap()) }
    }

    /// The request of a browser that follows a redirect to here.
    pub(crate) fn get(&self, redirect: &Url) -> String {
        format!("GET {}?{} HTTP/1.1\r\nhost: {}\r\n\r\n", redirect.path(), redirect.query().unwrap_or_default(), self.host)
    }
}

/// Sends this and reads until the other side closes; nothing where it does not listen or breaks off.
pub(crate) fn knock(request: &str, at: SocketAddr) -> String {
    let Ok(mut stream) = TcpStream::connect(at) else { return String::new() };
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = Vec::new();
    // Whoever is cut off has read what came until then.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer; 0 where there is none.
pub(crate) fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// Whether nobody listens there.
pub(crate) fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_err()
}

/// The addresses at which a process listens for TCP connections, as the kernel lists them.
pub(crate) fn listening(pid: u32) -> BTreeSet<SocketAddr> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let sockets: BTreeSet<String> =
        targets.filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let table = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let text = table("tcp") + &table("tcp6");
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Local address, remote address, state (0A: it listens), ..., inode (proc_pid_net(5)).
    let ours = lines.filter(|words| words.len() > 9 && words[3] == "0A" && sockets.contains(words[9]));
    ours.map(|words| address(words[1])).collect()
}

/// `0100007F:1F90`: each word of 32 bits in the order of the machine.
fn address(text: &str) -> SocketAddr {
    let (host, port) = text.split_once(':').unwrap();
    let words = (0..host.len() / 8).map(|at| u32::from_str_radix(&host[at * 8..at * 8 + 8], 16).unwrap());
    let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
    let host = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::from(four),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).unwrap()),
    };
    SocketAddr::new(host, u16::from_str_radix(port, 16).unwrap())
}

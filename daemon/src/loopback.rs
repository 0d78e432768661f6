//! Ports on loopback: how one is had, and whose the other end of a connection is. Loopback TCP is open to every user of the
//! machine, and a TCP socket has no peer credentials: on Linux the kernel's table of connections tells. What a port is for is
//! not known here.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The port: that of a service manager, which goes on holding it, else one of our own.
///
/// # Errors
/// When somebody else has it.
async fn listen(address: SocketAddr, held: &[std::net::TcpListener]) -> std::io::Result<TcpListener> {
    let Some(held) = held.iter().find(|held| held.local_addr().is_ok_and(|held| held == address)) else {
        return TcpListener::bind(address).await;
    };
    held.set_nonblocking(true)?;
    TcpListener::from_std(held.try_clone()?)
}

/// Between two tries to get a port: doubling.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The same, as soon as it is to be had. `who` listens; `tell` hears each time what is wrong, and in the end what still is.
pub(crate) async fn listen_at_last(
    who: &str,
    address: SocketAddr,
    held: &[std::net::TcpListener],
    tell: impl Fn(Option<String>) + Send,
) -> TcpListener {
    let mut rest = RETRY.0;
    loop {
        match listen(address, held).await {
            Ok(listener) => {
                tell(blindness(who));
                return listener;
            }
            Err(error) => {
                let sentence = format!("{who} cannot listen on {address}: {error}");
                // The log, once.
                if rest == RETRY.0 {
                    tracing::error!("{sentence}");
                }
                tell(Some(sentence));
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(RETRY.1);
            }
        }
    }
}

/// Whether a connection is our own user's. The kernel's table is read on a thread of its own: that takes a while where there
/// are many connections, and the runtime's few threads may all be waiting for a name server.
pub(crate) async fn is_of_us(client: SocketAddr, server: SocketAddr) -> bool {
    let (tell, told) = oneshot::channel();
    let look = move || drop(tell.send(is_ours(client, server)));
    let found = match std::thread::Builder::new().name("loopback-peer".into()).spawn(look) {
        Ok(_) => told.await.ok(),
        Err(_) => None,
    };
    match found {
        Some(Ok(true)) => return true,
        Some(Ok(false)) => tracing::debug!(%server, "connection closed: it is another user's"),
        _ => tracing::debug!(%server, "connection closed: the system does not say whose it is"),
    }
    false
}

/// Where it is told.
#[cfg(target_os = "linux")]
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Why nobody is ours, where the system should tell and does not. Where it never does, the log says so. `who` listens.
fn blindness(who: &str) -> Option<String> {
    #[cfg(target_os = "linux")]
    return std::fs::File::open(TABLES[0])
        .err()
        .map(|error| format!("{who} answers nobody: the system does not say whose a connection is ({}: {error})", TABLES[0]));
    #[cfg(not(target_os = "linux"))]
    {
        tracing::warn!("this system does not tell whose a connection on loopback is: other users of it reach {who}");
        None
    }
}

/// Whether the client's end of a connection belongs to our own user. Where the system does not tell, everybody passes: nothing
/// is given without an approval on the Unix socket, or a secret, all the same.
///
/// # Errors
/// When the kernel's tables cannot be read.
#[cfg(target_os = "linux")]
fn is_ours(client: SocketAddr, server: SocketAddr) -> std::io::Result<bool> {
    for table in TABLES {
        match std::fs::read_to_string(table) {
            Ok(text) => {
                if let Some(owner) = owner(&text, client, server) {
                    return Ok(owner == crate::platform::own_uid());
                }
            }
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

#[cfg(not(target_os = "linux"))]
fn is_ours(_client: SocketAddr, _server: SocketAddr) -> std::io::Result<bool> {
    Ok(true)
}

/// The user of the socket that is `client` on its own side, from the text of `/proc/net/tcp` or `tcp6` (proc(5)).
#[cfg(target_os = "linux")]
fn owner(table: &str, client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let (client, server) = (forms(client), forms(server));
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (columns.next()?, columns.next()?);
        let (uid, inode) = (columns.nth(4)?, columns.nth(1)?);
        // A socket that its process has let go of has no inode, and its user is shown as root.
        let is_it = client.iter().any(|form| form == local) && server.iter().any(|form| form == remote) && inode != "0";
        is_it.then(|| uid.parse().ok())?
    })
}

/// An address as the tables write it: 32-bit words in the machine's own byte order. A client may have connected to an IPv4
/// address through an IPv6 socket.
#[cfg(target_os = "linux")]
fn forms(address: SocketAddr) -> Vec<String> {
    use std::net::IpAddr;
    let hex = |octets: &[u8]| {
        let words = octets.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        format!("{}:{:04X}", words.map(|word| format!("{word:08X}")).collect::<String>(), address.port())
    };
    match address.ip() {
        IpAddr::V4(ip) => vec![hex(&ip.octets()), hex(&ip.to_ipv6_mapped().octets())],
        IpAddr::V6(ip) => vec![hex(&ip.octets())],
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpStream;

    use super::*;

    /// As on a little-endian machine.
    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:221B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 0 100 0 0 10 0
   1: 0100007F:9C40 0100007F:221B 01 00000000:00000000 00:00000000 00000000  1001        0 12 1 0 20 4 30 10 -1
   2: 0100007F:221B 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 13 1 0 20 4 30 10 -1
   3: 0100007F:9C41 0100007F:221B 06 00000000:00000000 03:00001234 00000000     0        0 0 3 0
   4: 0000000000000000FFFF00000100007F:9C42 0000000000000000FFFF00000100007F:221B 01 0:0 00:0 0  1002 0 14 1 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_row_of_the_clients_own_end_counts_and_no_other() {
        let server: SocketAddr = "127.0.0.1:8731".parse().unwrap();
        let of = |port| owner(TABLE, SocketAddr::new(server.ip(), port), server);
        assert_eq!(of(40000), Some(1001));
        assert_eq!(of(40001), None, "a socket that nobody holds");
        assert_eq!(of(40002), Some(1002), "through an IPv6 socket");
        assert_eq!(of(8731), None);
        assert_eq!(of(1), None);
    }

    #[test]
    fn a_connection_of_this_very_process_is_ours_until_it_is_closed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, theirs) = (listener.local_addr().unwrap(), client.local_addr().unwrap());
            assert!(is_ours(theirs, ours).unwrap(), "{address}");
            drop(client);
            assert!(!is_ours(theirs, ours).unwrap(), "{address}: nobody's");
        }
    }
}

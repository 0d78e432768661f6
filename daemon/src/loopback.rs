//! Ports on loopback: how one is had, and whose the other end of a connection is. Loopback TCP is open to every user of the
//! machine, and a TCP socket has no peer credentials: on Linux the kernel's table of connections tells. What a port is for is
//! not known here.

#[cfg(target_os = "linux")]
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// The port: that of a service manager, which goes on holding it, else one of our own.
///
/// # Errors
/// When somebody else has it.
fn listen(address: SocketAddr, held: &[std::net::TcpListener]) -> io::Result<TcpListener> {
    let Some(held) = held.iter().find(|held| held.local_addr().is_ok_and(|held| held == address)) else {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As a port that is bound plainly.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        return socket.listen(BACKLOG);
    };
    held.set_nonblocking(true)?;
    TcpListener::from_std(held.try_clone()?)
}

/// How many may wait in the kernel: a stranger's are among them.
const BACKLOG: u32 = 4096;
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
        match listen(address, held) {
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

/// The most connections that wait to be looked at. Those beyond wait in the kernel, for the next look but one.
const MOST_WAITING: usize = 256;
/// How long a port rests when there is no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// Takes in whoever comes, for as long as it is polled: `admit` gets the connections of our own user as soon as it is known that
/// they are, and all others are closed unread.
pub(crate) async fn accept_ours(listener: &TcpListener, address: SocketAddr, admit: impl FnMut(TcpStream)) -> Infallible {
    accept_known(listener, move |clients: &[SocketAddr]| ours(clients, address), admit).await
}

/// The same, with `look` to say which clients are ours. There is one look at a time, at all who have come before it
/// (of more than `MOST_WAITING`, the first): a stranger's many connections are seen through in the look that one of ours waits for.
async fn accept_known(
    listener: &TcpListener,
    look: impl Fn(&[SocketAddr]) -> io::Result<Vec<bool>> + Clone + Send + 'static,
    mut admit: impl FnMut(TcpStream),
) -> Infallible {
    loop {
        let mut waiting = vec![accept(listener).await];
        while !waiting.is_empty() {
            let mut known = std::pin::pin!(sift(waiting, look.clone()));
            let mut next = Vec::new();
            let ours = loop {
                tokio::select! {
                    biased;
                    ours = &mut known => break ours,
                    connection = accept(listener), if next.len() < MOST_WAITING => next.push(connection),
                }
            };
            ours.into_iter().for_each(&mut admit);
            waiting = next;
        }
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(connection) => return connection,
            // Out of file descriptors, mostly: a moment later some may be free.
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}

/// The connections that are our own user's. The look is made on a thread of its own: it takes a while where there are many
/// connections, and the runtime's few threads may all be waiting for a name server.
async fn sift(
    connections: Vec<(TcpStream, SocketAddr)>,
    look: impl FnOnce(&[SocketAddr]) -> io::Result<Vec<bool>> + Send + 'static,
) -> Vec<TcpStream> {
    let clients: Vec<_> = connections.iter().map(|(_, client)| *client).collect();
    let (tell, told) = oneshot::channel();
    let look = move || drop(tell.send(look(&clients)));
    let found = match std::thread::Builder::new().name("loopback-peer".into()).spawn(look) {
        Ok(_) => told.await.ok(),
        Err(_) => None,
    };
    let Some(Ok(ours)) = found else {
        tracing::debug!(count = connections.len(), "connections closed: the system does not say whose they are");
        return Vec::new();
    };
    let known = connections.into_iter().zip(ours);
    known
        .filter_map(|((stream, client), is_ours)| {
            if !is_ours {
                tracing::debug!(%client, "connection closed: it is another user's");
            }
            is_ours.then_some(stream)
        })
        .collect()
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

/// Whether each client's end of its connection belongs to our own user. Where the system does not tell, everybody passes: nothing
/// is given without an approval on the Unix socket, or a secret, all the same.
///
/// # Errors
/// When the kernel's tables cannot be read.
#[cfg(target_os = "linux")]
fn ours(clients: &[SocketAddr], server: SocketAddr) -> io::Result<Vec<bool>> {
    let mut found = HashMap::new();
    for table in TABLES {
        match std::fs::File::open(table) {
            Ok(file) => found.extend(owners(io::BufReader::new(file), clients, server)?),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let own = crate::platform::own_uid();
    Ok(clients.iter().map(|client| found.get(client) == Some(&own)).collect())
}

#[cfg(not(target_os = "linux"))]
fn ours(clients: &[SocketAddr], _server: SocketAddr) -> io::Result<Vec<bool>> {
    Ok(vec![true; clients.len()])
}

/// The users of the sockets that are `clients` on their own side, from the text of `/proc/net/tcp` or `tcp6` (proc(5)).
#[cfg(target_os = "linux")]
fn owners(mut table: impl io::BufRead, clients: &[SocketAddr], server: SocketAddr) -> io::Result<HashMap<SocketAddr, u32>> {
    let server = forms(server);
    let wanted: HashMap<_, _> = clients.iter().flat_map(|client| forms(*client).into_iter().map(|form| (form, *client))).collect();
    let (mut found, mut line) = (HashMap::new(), String::new());
    // There may be many lines: none is kept, and those after the last that is wanted are not read.
    while found.len() < clients.len() && table.read_line(&mut line)? > 0 {
        if let Some((local, uid)) = held_by(&line, &server)
            && let Some(client) = wanted.get(local)
        {
            found.insert(*client, uid);
        }
        line.clear();
    }
    Ok(found)
}

/// The address and the user of a socket that is connected to `server`. One that its process has let go of has no inode, and its
/// user is shown as root.
#[cfg(target_os = "linux")]
fn held_by<'a>(line: &'a str, server: &[String]) -> Option<(&'a str, u32)> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let local = columns.next()?;
    columns.next().filter(|remote| server.iter().any(|form| form == remote))?;
    let (uid, inode) = (columns.nth(4)?, columns.nth(1)?);
    let uid = uid.parse().ok()?;
    (inode != "0").then_some((local, uid))
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
    use tokio::io::AsyncReadExt as _;
    use tokio::sync::mpsc;

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
        let client = |port| SocketAddr::new(server.ip(), port);
        let of = |port| owners(TABLE.as_bytes(), &[client(port)], server).unwrap().get(&client(port)).copied();
        assert_eq!(of(40000), Some(1001));
        assert_eq!(of(40001), None, "a socket that nobody holds");
        assert_eq!(of(40002), Some(1002), "through an IPv6 socket");
        assert_eq!(of(8731), None);
        assert_eq!(of(1), None);
        let all = owners(TABLE.as_bytes(), &[client(40002), client(1), client(40000)], server).unwrap();
        assert_eq!(all, HashMap::from([(client(40000), 1001), (client(40002), 1002)]));
    }

    #[test]
    fn a_connection_of_this_very_process_is_ours_until_it_is_closed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, theirs) = (listener.local_addr().unwrap(), client.local_addr().unwrap());
            assert_eq!(ours(&[theirs], server).unwrap(), [true], "{address}");
            drop(client);
            assert_eq!(ours(&[theirs], server).unwrap(), [false], "{address}: nobody's");
        }
    }

    #[tokio::test]
    async fn a_slow_look_holds_up_nobody_longer_than_the_next_one_takes_and_strangers_are_closed_unread() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, mut looks) = mpsc::unbounded_channel();
        // A look lasts until it is let go. Every second client is a stranger.
        let look = move |clients: &[SocketAddr]| {
            let (end, ended) = std::sync::mpsc::channel::<()>();
            tell.send((clients.len(), end)).unwrap();
            let _ = ended.recv();
            Ok((0..clients.len()).map(|number| number % 2 == 0).collect())
        };
        let (admit, mut admitted) = mpsc::unbounded_channel();
        tokio::spawn(async move { accept_known(&listener, look, |stream| drop(admit.send(stream))).await });

        let mut clients = vec![TcpStream::connect(address).await.unwrap()];
        let (count, first) = looks.recv().await.unwrap();
        assert_eq!(count, 1);
        for _ in 0..MOST_WAITING + 44 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        until_accepted(address, 1 + MOST_WAITING).await;
        assert!(admitted.try_recv().is_err(), "nobody is served before it is known who it is");
        drop(first);
        let (count, second) = looks.recv().await.unwrap();
        assert_eq!(count, MOST_WAITING, "all that came meanwhile are looked at together");
        until_accepted(address, clients.len()).await;
        drop(second);
        let (count, third) = looks.recv().await.unwrap();
        assert_eq!(count, 44, "and those for whom there was no place");
        drop(third);

        let mut ours = Vec::new();
        for _ in 0..1 + MOST_WAITING / 2 + 22 {
            ours.push(admitted.recv().await.unwrap().peer_addr().unwrap());
        }
        for client in &mut clients {
            if !ours.contains(&client.local_addr().unwrap()) {
                assert!(!matches!(client.read(&mut [0]).await, Ok(1..)), "closed without a word");
            }
        }
        assert!(admitted.try_recv().is_err());
    }

    /// Waits until a port has accepted so many connections: those that wait for it in the kernel have no inode.
    async fn until_accepted(address: SocketAddr, count: usize) {
        let form = &forms(address)[0];
        let is_accepted = |line: &&str| {
            let columns: Vec<_> = line.split_ascii_whitespace().collect();
            columns[1] == form && columns[3] == "01" && columns[9] != "0"
        };
        while std::fs::read_to_string(TABLES[0]).expect("the kernel tells").lines().skip(1).filter(is_accepted).count() != count {
            tokio::task::yield_now().await;
        }
    }
}

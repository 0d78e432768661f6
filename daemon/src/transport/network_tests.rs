//! Against a raw TCP server on loopback that plays a script: one connection, one step.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::transport::SecretText;

/// What the server does with a connection once it has read the request.
enum Step {
    /// Writes this and closes.
    Say(Vec<u8>),
    /// Writes this, then goes on writing zeros until the client has had enough.
    Flood(&'static str),
    /// Writes this and keeps the connection open until the client closes it.
    Hold(&'static str),
    /// Closes with unread input, so that the client sees a reset.
    Reset,
}

struct Server {
    origin: String,
    requests: Receiver<String>,
}

impl Server {
    fn start(steps: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for step in steps {
                let Ok((mut stream, _)) = listener.accept() else { return };
                if !matches!(step, Step::Reset) {
                    let _ = sender.send(read_request(&mut stream));
                }
                play(step, stream);
            }
        });
        Self { origin, requests }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Every request so far; a client that is done has sent them all.
    fn seen(&self) -> Vec<String> {
        self.requests.try_iter().collect()
    }
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        text.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&text).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    let _ = stream.read_exact(&mut body);
    text.extend(body);
    String::from_utf8_lossy(&text).into_owned()
}

fn play(step: Step, mut stream: TcpStream) {
    match step {
        Step::Say(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
        }
        Step::Flood(head) => {
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(&[b'0'; 64 * 1024]).is_ok() {}
        }
        Step::Hold(head) => {
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.read(&mut [0]);
        }
        Step::Reset => {
            let _ = stream.read(&mut [0]);
        }
    }
}

fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

fn ok(body: &str) -> Step {
    say(&format!("HTTP/1.1 200 OK\r\nContent-Type: Application/JSON; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn moved(status: u16, to: &str) -> Step {
    say(&format!("HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"))
}

fn request(method: Method, url: String) -> Request {
    let headers = vec![("accept", "application/json".into()), ("authorization", "Bearer top-secret".into())];
    let body = (method != Method::Get).then(|| SecretText::from("token=top-secret"));
    Request { headers, body, timeout: Duration::from_secs(20), ..Request::new(method, url) }
}

async fn send(request: Request) -> Result<Response, TransportError> {
    Network::new(NetworkConfig::default()).send(request).await
}

fn lost(result: Result<Response, TransportError>) -> String {
    match result {
        Err(TransportError::Lost { reason, .. }) => reason,
        other => panic!("expected a lost answer: {other:?}"),
    }
}

#[tokio::test]
async fn a_request_arrives_as_it_was_built_and_so_does_its_answer() {
    let server = Server::start(vec![ok("{\"a\":1}")]);
    let response = send(request(Method::Post, server.url("/token?x=%2F"))).await.unwrap();
    assert_eq!((response.status, response.content_type.as_deref(), &response.body[..]), (200, Some("application/json"), &b"{\"a\":1}"[..]));
    let sent = server.seen().remove(0);
    assert!(sent.starts_with("POST /token?x=%2F HTTP/1.1\r\n") && sent.ends_with("\r\n\r\ntoken=top-secret"), "{sent}");
    let lower = sent.to_lowercase();
    assert!(
        lower.contains(concat!("user-agent: mcp-authd/", env!("CARGO_PKG_VERSION"))) && lower.contains("authorization: bearer top-secret")
    );
    assert!(!lower.contains("cookie") && !lower.contains("referer"));
}

#[tokio::test]
async fn a_gzipped_answer_is_read_and_a_damaged_one_is_lost() {
    // One stored block, as the format allows (RFC 1951 section 3.2.4).
    let mut stored = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 0xff];
    stored.extend([1, 7, 0, 0xf8, 0xff]);
    stored.extend(b"{\"a\":1}");
    stored.extend(crc32(b"{\"a\":1}").to_le_bytes());
    stored.extend(7_u32.to_le_bytes());
    let zipped = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
        Step::Say([head.as_bytes(), body].concat())
    };
    let server = Server::start(vec![zipped(&stored), zipped(b"garbage that is no gzip"), zipped(&stored[..18])]);
    assert_eq!(&send(request(Method::Get, server.url("/"))).await.unwrap().body[..], b"{\"a\":1}");
    for _ in 0..2 {
        assert_eq!(lost(send(request(Method::Get, server.url("/"))).await), "its answer is damaged");
    }
}

#[tokio::test]
async fn a_gzip_bomb_and_an_endless_body_are_cut() {
    let mut bomb = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\x02\xff".to_vec();
    bomb.extend(deflated_zeros(64));
    let server = Server::start(vec![
        Step::Say(bomb),
        Step::Flood("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"),
        Step::Flood("HTTP/1.1 200 OK\r\n\r\n"),
        Step::Flood("HTTP/1.1 200 OK\r\nX-Long: "),
    ]);
    for _ in 0..3 {
        assert_eq!(lost(send(request(Method::Get, server.url("/"))).await), "its answer is larger than 256 KiB");
    }
    lost(send(request(Method::Get, server.url("/"))).await);
}

#[tokio::test]
async fn a_head_with_very_many_fields_is_cut() {
    let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(100_000));
    let server = Server::start(vec![say(&head)]);
    lost(send(request(Method::Get, server.url("/"))).await);
}

#[tokio::test]
async fn once_the_request_may_have_arrived_a_failure_is_lost() {
    let server = Server::start(vec![
        Step::Reset,
        say(""),
        say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access_token\":"),
        say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        say("no http at all\r\n\r\n"),
    ]);
    for _ in 0..5 {
        let reason = lost(send(request(Method::Post, server.url("/token?code=top-secret"))).await);
        assert!(!reason.contains("secret") && !reason.contains("http://"), "{reason}");
    }
}

#[tokio::test]
async fn a_provider_that_hangs_or_drips_is_given_up_in_time() {
    let server =
        Server::start(vec![Step::Hold(""), Step::Hold("HTTP/1.1 200 OK\r\n"), Step::Hold("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")]);
    for _ in 0..3 {
        let hasty = Request { timeout: Duration::from_millis(100), ..request(Method::Post, server.url("/")) };
        assert_eq!(lost(send(hasty).await), "it took too long");
    }
}

#[tokio::test]
async fn before_a_connection_stands_nothing_was_sent() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plain = Server::start(vec![ok("{}")]);
    for url in [format!("http://{closed}/x?code=top-secret"), format!("https://{closed}/"), plain.url("/").replace("http:", "https:")] {
        // The last one never finishes its handshake, so half of this passes.
        let hasty = Request { timeout: Duration::from_secs(1), ..request(Method::Post, url.clone()) };
        let error = send(hasty).await.unwrap_err();
        assert!(matches!(error, TransportError::NotSent { .. }), "{url}: {error:?}");
        assert!(!error.to_string().contains("secret"));
    }
    assert!(plain.seen().iter().all(|seen| !seen.contains("secret")));
}

#[tokio::test]
async fn nothing_goes_to_plain_http_elsewhere_or_with_a_header_that_breaks_out() {
    let refused = send(request(Method::Post, "http://provider.example/token".into())).await.unwrap_err();
    assert_eq!(refused, TransportError::Refused("http://provider.example".into()));
    let server = Server::start(vec![ok("{}")]);
    let mut split = request(Method::Get, server.url("/"));
    split.headers.push(("x-a", "b\r\nX-Evil: 1".into()));
    assert!(matches!(send(split).await, Err(TransportError::NotSent { .. })));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_of_a_post_or_delete_is_an_answer_and_not_followed() {
    for method in [Method::Post, Method::Delete] {
        for status in [301, 302, 303, 307, 308] {
            let server = Server::start(vec![moved(status, "/elsewhere"), ok("{}")]);
            assert_eq!(send(request(method, server.url("/token"))).await.unwrap().status, status);
            assert_eq!(server.seen().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_get_follows_three_redirects_on_its_origin() {
    let server = Server::start(vec![moved(302, "/b"), moved(301, "c"), moved(308, "/d?x=1"), ok("{}")]);
    assert_eq!(send(request(Method::Get, server.url("/a"))).await.unwrap().status, 200);
    let paths: Vec<_> = server.seen().iter().map(|sent| sent.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/a", "/b", "/c", "/d?x=1"]);

    let endless = Server::start((0..9).map(|_| moved(302, "/again")).collect());
    assert_eq!(send(request(Method::Get, endless.url("/"))).await.unwrap().status, 302);
    assert_eq!(endless.seen().len(), 4);
}

#[tokio::test]
async fn a_get_is_never_led_to_another_origin() {
    let other = Server::start(vec![ok("{}")]);
    for target in [
        other.url("/"),
        "https://evil.example/".into(),
        "//evil.example/".into(),
        "file:///etc/passwd".into(),
        "http://169.254.169.254/".into(),
        "".into(),
    ] {
        let server = Server::start(vec![moved(302, &target), moved(302, &target), moved(302, &target), moved(302, &target)]);
        assert_eq!(send(request(Method::Get, server.url("/a"))).await.unwrap().status, 302, "{target}");
    }
    let localhost = Server::start(vec![ok("{}")]);
    let same_port_other_name = localhost.url("/").replace("127.0.0.1", "localhost");
    let server = Server::start(vec![moved(302, &same_port_other_name)]);
    assert_eq!(send(request(Method::Get, server.url("/"))).await.unwrap().status, 302);
    assert!(other.seen().is_empty() && localhost.seen().is_empty());
}

#[tokio::test]
async fn retry_after_comes_in_seconds_or_as_a_date() {
    for (headers, expected) in [
        ("Retry-After: 120", Some(120)),
        ("Retry-After: 0", Some(0)),
        ("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
        ("Retry-After: Sun, 06 Nov 1994 08:51:37 GMT", Some(0)),
        ("Retry-After: soon", None),
        ("Retry-After: -5", None),
        ("X: y", None),
    ] {
        let server = Server::start(vec![say(&format!("HTTP/1.1 503 Busy\r\n{headers}\r\nContent-Length: 0\r\n\r\n"))]);
        let response = send(request(Method::Post, server.url("/"))).await.unwrap();
        assert_eq!((response.status, response.retry_after), (503, expected.map(Duration::from_secs)), "{headers}");
    }
}

#[tokio::test]
async fn a_wrong_ca_file_or_proxy_is_named_and_nothing_goes_out() {
    let missing = NetworkConfig { ca_file: Some("/does/not/exist.pem".into()), ..NetworkConfig::default() };
    let error = Network::new(missing).send(request(Method::Get, "https://127.0.0.1:1/".into())).await.unwrap_err();
    assert!(matches!(&error, TransportError::NotSent { reason, .. } if reason.contains("/does/not/exist.pem")), "{error}");
    let proxy = NetworkConfig { proxy: Some(crate::transport::Proxy::Through("::no proxy:secret@::".into())), ..NetworkConfig::default() };
    let error = Network::new(proxy).send(request(Method::Get, "https://127.0.0.1:1/".into())).await.unwrap_err();
    assert!(matches!(&error, TransportError::NotSent { reason, .. } if reason == "the configured proxy is not a proxy URL"), "{error}");
}

#[tokio::test]
async fn a_configured_proxy_is_used_for_https_and_never_for_this_machine() {
    let proxy = Server::start(vec![say("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")]);
    let network =
        Network::new(NetworkConfig { proxy: Some(crate::transport::Proxy::Through(proxy.origin.clone())), ..NetworkConfig::default() });
    let target = Server::start(vec![ok("{}")]);
    assert_eq!(network.send(request(Method::Get, target.url("/"))).await.unwrap().status, 200);
    let error = network.send(request(Method::Post, "https://provider.example/token".into())).await.unwrap_err();
    assert!(matches!(error, TransportError::NotSent { .. }), "{error:?}");
    let seen = proxy.seen();
    assert!(seen.len() == 1 && seen[0].starts_with("CONNECT provider.example:443 ") && !seen[0].contains("secret"), "{seen:?}");
}

#[test]
fn a_certificate_that_is_not_trusted_is_told_in_words_however_deep_its_error_lies() {
    for (fault, words) in [
        (CertificateError::Expired, "it has expired, or this machine's clock is wrong"),
        (CertificateError::NotValidForName, "it belongs to another host"),
        (CertificateError::UnknownIssuer, "it is signed by nobody whom this machine trusts"),
        (CertificateError::BadEncoding, "BadEncoding"),
    ] {
        let error = std::io::Error::other(std::io::Error::other(rustls::Error::InvalidCertificate(fault)));
        let Some(rustls::Error::InvalidCertificate(found)) = tls_error(&error) else { panic!("{error:?}") };
        assert_eq!(distrust(found), format!("its certificate is not trusted: {words}"));
    }
    assert!(tls_error(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused)).is_none());
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Deflate's own shorthand for zeros: a fixed-Huffman block, one literal 0, then matches of length 258 at distance 1. Each
/// KiB of it unfolds to more than 160 KiB.
fn deflated_zeros(kib: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = vec![true, true, false];
    let push = |bits: &mut Vec<bool>, code: u16, length: u32| bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    push(&mut bits, 0b0011_0000, 8);
    while bits.len() < kib * 1024 * 8 {
        push(&mut bits, 0b1100_0101, 8);
        push(&mut bits, 0, 5);
    }
    push(&mut bits, 0, 7);
    bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |all, (at, bit)| all | u8::from(*bit) << at)).collect()
}

#[tokio::test]
async fn what_a_server_named_is_not_connected_to_in_a_private_network_by_name_or_address() {
    let server = Server::start(vec![ok("{}"), ok("{}")]);
    let port = server.origin.rsplit_once(':').unwrap().1;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0"] {
        for method in [Method::Get, Method::Post] {
            let named = Request { reach: Reach::Public, ..request(method, format!("https://{host}:{port}/")) };
            let refused = send(named).await;
            assert!(matches!(refused, Err(TransportError::OutOfReach(_))), "{host}: {refused:?}");
        }
    }
    for reach in [Reach::PublicAndLoopback, Reach::Anywhere] {
        let named = Request { reach, ..request(Method::Get, server.url("/").replace("127.0.0.1", "localhost")) };
        assert_eq!(send(named).await.unwrap().status, 200, "{reach:?}");
    }
    assert_eq!(server.seen().len(), 2, "nothing else was connected to");
}

#[tokio::test]
async fn challenges_are_read_and_an_event_stream_is_not_waited_for() {
    let answer = "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\nWWW-Authenticate: Bearer scope=\"a\"\r\nContent-Length: 0\r\n\r\n";
    let server = Server::start(vec![say(answer), Step::Hold("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n")]);
    let refused = send(request(Method::Post, server.url("/mcp"))).await.unwrap();
    assert_eq!(refused.challenges, ["Basic realm=x", "Bearer scope=\"a\""]);
    let streaming = Request { timeout: Duration::from_secs(20), ..request(Method::Post, server.url("/mcp")) };
    assert_eq!(send(streaming).await.unwrap().status, 200);
}

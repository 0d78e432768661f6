use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn listener() -> (Listener, u16) {
    let listener = Listener::bind("127.0.0.1", "/callback", None).await.unwrap();
    let port = listener.sockets[0].local_addr().unwrap().port();
    (listener, port)
}

/// Sends a raw request and reads what comes until the connection is closed.
async fn knock(address: impl tokio::net::ToSocketAddrs, raw: String) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(raw.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Lets the listener work until `client` has its answer; every hit gets `page` and is counted.
async fn during<T>(listener: &mut Listener, page: Page, client: impl Future<Output = T>) -> (T, Vec<String>) {
    let mut client = std::pin::pin!(client);
    let mut hits = Vec::new();
    loop {
        tokio::select! {
            result = &mut client => return (result, hits),
            hit = listener.hit() => {
                hits.push(hit.query.to_string());
                hit.answer(page);
            }
        }
    }
}

#[tokio::test]
async fn a_get_of_the_path_reaches_the_login_and_gets_a_page_that_holds_nothing() {
    for (page, status, title) in
        [(Page::Done, "200 OK", "You can close this tab"), (Page::Failed, "400 Bad Request", "The login was not completed")]
    {
        let (mut listener, port) = listener().await;
        let raw = format!("GET /callback?code=c&state=<b>s HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").replace("<b>", "%3Cb%3E");
        let (answer, hits) = during(&mut listener, page, knock(("127.0.0.1", port), raw)).await;
        assert_eq!(hits, ["code=c&state=%3Cb%3Es"]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(title), "{answer}");
        let lower = answer.to_lowercase();
        for header in [
            "content-type: text/html; charset=utf-8",
            "content-security-policy: default-src 'none'; style-src 'unsafe-inline'",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
        ] {
            assert!(lower.contains(header), "{header}: {answer}");
        }
        assert!(!lower.contains("access-control") && !lower.contains("%3cb") && !lower.contains("<script") && !lower.contains("http://"));
    }
}

#[tokio::test]
async fn everything_else_is_404_and_never_reaches_the_login() {
    let (mut listener, port) = listener().await;
    let host = format!("Host: 127.0.0.1:{port}\r\n");
    for raw in [
        format!("POST /callback?code=c HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n"),
        format!("HEAD /callback?code=c HTTP/1.1\r\n{host}\r\n"),
        format!("OPTIONS /callback HTTP/1.1\r\n{host}\r\n"),
        format!("GET / HTTP/1.1\r\n{host}\r\n"),
        format!("GET /callback/ HTTP/1.1\r\n{host}\r\n"),
        format!("GET /callback/../callback HTTP/1.1\r\n{host}\r\n"),
        format!("GET //callback HTTP/1.1\r\n{host}\r\n"),
        format!("GET /%63allback HTTP/1.1\r\n{host}\r\n"),
        format!("GET /favicon.ico HTTP/1.1\r\n{host}\r\n"),
        format!("GET http://127.0.0.1:{port}/callback HTTP/1.1\r\n{host}\r\n"),
        format!("GET /callback HTTP/1.1\r\n{host}Origin: https://evil.example\r\n\r\n"),
        format!("GET /callback HTTP/1.1\r\n{host}{host}\r\n"),
        "GET /callback HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(),
        "GET /callback HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".into(),
        "GET /callback HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n".into(),
        format!("GET /callback HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"),
        format!("GET /callback HTTP/1.1\r\nHost: 0.0.0.0:{port}\r\n\r\n"),
        "GET /callback HTTP/1.1\r\n\r\n".into(),
        "GET /callback HTTP/1.0\r\n\r\n".into(),
    ] {
        let (answer, hits) = during(&mut listener, Page::Done, knock(("127.0.0.1", port), raw.clone())).await;
        assert!(answer.contains(" 404 Not Found\r\n") && hits.is_empty(), "{raw}: {answer}");
    }
}

#[tokio::test]
async fn nonsense_and_huge_heads_are_turned_away() {
    let (mut listener, port) = listener().await;
    let huge = format!("GET /callback?{} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n", "x".repeat(64 * 1024));
    let many = format!("GET /callback HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{}\r\n", "X: y\r\n".repeat(2000));
    for raw in ["\x16\x03\x01\x02\0".to_owned() + &"\r\n".repeat(4), "GET /callback\r\n\r\n".to_owned(), huge, many] {
        let (answer, hits) = during(&mut listener, Page::Done, knock(("127.0.0.1", port), raw.clone())).await;
        assert!(!answer.contains(" 200 ") && hits.is_empty(), "{raw:.40}: {answer}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_is_given_up() {
    let (mut listener, port) = listener().await;
    let raw = format!("GET /callback HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
    let (answer, hits) = during(&mut listener, Page::Done, knock(("127.0.0.1", port), raw)).await;
    assert!(!answer.contains(" 200 ") && hits.is_empty(), "{answer}");
}

#[tokio::test]
async fn idle_connections_cannot_keep_the_browser_out() {
    let (mut listener, port) = listener().await;
    let mut idle = Vec::new();
    for _ in 0..3 * MOST_CONNECTIONS {
        idle.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let raw = format!("GET /callback?code=c HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let (answer, hits) = during(&mut listener, Page::Done, knock(("127.0.0.1", port), raw)).await;
    assert!(answer.contains("200 OK") && hits.len() == 1 && listener.connections.len() <= MOST_CONNECTIONS);
    // The first of them was closed to make room.
    assert_eq!(idle[0].read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn it_listens_on_loopback_only_and_only_while_it_lives() {
    for (host, expected) in [("127.0.0.1", &["127.0.0.1"][..]), ("localhost", &["127.0.0.1", "::1"]), ("[::1]", &["::1"])] {
        let listener = match Listener::bind(host, "/callback", None).await {
            Ok(listener) => listener,
            // A machine without IPv6.
            Err(BindError::System(address, _)) if address.is_ipv6() => continue,
            Err(error) => panic!("{host}: {error}"),
        };
        let bound: Vec<SocketAddr> = listener.sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        assert!(bound.iter().all(|address| expected.contains(&address.ip().to_string().as_str()) && address.port() == bound[0].port()));
        assert_eq!(listener.redirect_uri(), format!("http://{host}:{}/callback", bound[0].port()));
        drop(listener);
        assert!(TcpStream::connect(bound[0]).await.is_err());
    }
}

#[tokio::test]
async fn a_taken_port_is_named_on_either_family() {
    let (_listener, port) = listener().await;
    assert_eq!(Listener::bind("127.0.0.1", "/", Some(port)).await.unwrap_err(), BindError::Taken(port));
    if let Ok(other) = TcpListener::bind("[::1]:0").await {
        let port = other.local_addr().unwrap().port();
        assert_eq!(Listener::bind("localhost", "/", Some(port)).await.unwrap_err(), BindError::Taken(port));
    }
    for host in ["0.0.0.0", "example.com", ""] {
        assert_eq!(Listener::bind(host, "/", None).await.unwrap_err(), BindError::Host(host.into()));
    }
}

#[tokio::test]
async fn localhost_answers_on_both_families_and_an_empty_path_is_the_root() {
    let mut listener = Listener::bind("localhost", "", None).await.unwrap();
    let port = listener.sockets[0].local_addr().unwrap().port();
    assert_eq!(listener.redirect_uri(), format!("http://localhost:{port}"));
    for address in listener.sockets.iter().map(|socket| socket.local_addr().unwrap()).collect::<Vec<_>>() {
        let raw = format!("GET /?code=c HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
        let (answer, hits) = during(&mut listener, Page::Done, knock(address, raw)).await;
        assert!(answer.contains("200 OK") && hits == ["code=c"], "{address}: {answer}");
    }
}

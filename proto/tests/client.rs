//! The clients against a server that speaks canned HTTP.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test crate; an unwrap is how it fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use mcp_auth_proto::{Client, ClientError, ErrorCode, LoginEvent, LoginRequest, Malformed, Secret, StaticToken, TokenRequest, VaultUnlock};

const TOKEN: &str = r#"{"access_token":"T","token_type":"Bearer","scopes":["repo"],"grant":"github","a_new_field":1}"#;

/// One connection's script: what is answered to its first, second, ... request; then it is closed.
type Script = Vec<String>;

struct Server {
    _folder: tempfile::TempDir,
    path: PathBuf,
    requests: Receiver<(usize, String)>,
}

impl Server {
    /// Serves one connection after another; every request is sent to `requests` with the number of its connection.
    fn new(scripts: Vec<Script>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for (number, script) in scripts.into_iter().enumerate() {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                for answer in script {
                    let Some(request) = read_request(&mut reader) else { break };
                    sender.send((number, request)).unwrap();
                    let _ = reader.get_mut().write_all(answer.as_bytes());
                }
            }
        });
        Self { _folder: folder, path, requests }
    }

    fn client(&self) -> Client {
        Client::new(&self.path).with_patience(Duration::from_secs(20))
    }
}

fn read_request(reader: &mut BufReader<UnixStream>) -> Option<String> {
    let mut request = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        request.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(request + &String::from_utf8(body).unwrap())
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn token_of(client: &Client) -> Result<String, ClientError> {
    client.token(&TokenRequest::for_grant("github")).map(|token| token.access_token.expose().to_owned())
}

#[test]
fn a_connection_is_kept_and_carries_the_next_request() {
    let server = Server::new(vec![vec![answer("200 OK", TOKEN), answer("200 OK", TOKEN)]]);
    let client = server.client();
    assert_eq!(token_of(&client).unwrap(), "T");
    assert_eq!(token_of(&client).unwrap(), "T");
    let (first, request) = server.requests.recv().unwrap();
    assert!(request.starts_with("POST /v1/token HTTP/1.1\r\n") && request.ends_with("{\"grant\":\"github\"}"), "{request}");
    assert_eq!((first, server.requests.recv().unwrap().0), (0, 0));
}

#[test]
fn a_stale_kept_connection_is_replaced_once() {
    let server = Server::new(vec![vec![answer("200 OK", TOKEN)], vec![answer("200 OK", TOKEN)]]);
    let client = server.client();
    assert_eq!(token_of(&client).unwrap(), "T");
    assert_eq!(token_of(&client).unwrap(), "T");
    assert_eq!((server.requests.recv().unwrap().0, server.requests.recv().unwrap().0), (0, 1));
}

#[test]
fn a_request_is_not_sent_again_once_an_answer_has_begun() {
    let server = Server::new(vec![vec![answer("200 OK", TOKEN), "HTTP/1.1 200".into()], vec![answer("200 OK", TOKEN)]]);
    let client = server.client();
    assert_eq!(token_of(&client).unwrap(), "T");
    assert!(matches!(token_of(&client), Err(ClientError::Protocol(Malformed::Truncated))));
}

#[test]
fn a_fresh_connection_that_closes_at_once_is_not_retried() {
    let server = Server::new(vec![vec![String::new()], vec![answer("200 OK", TOKEN)]]);
    assert!(matches!(token_of(&server.client()), Err(ClientError::Protocol(Malformed::Truncated))));
}

#[test]
fn an_error_body_arrives_whole_and_the_connection_stays_usable() {
    let error = r#"{"error":"login_required","error_description":"nobody is logged in to github","hint":"mcp-authctl login github"}"#;
    let server = Server::new(vec![vec![answer("401 Unauthorized", error), answer("200 OK", TOKEN)]]);
    let client = server.client();
    let Err(ClientError::Api(body)) = token_of(&client) else { panic!("an API error") };
    assert_eq!((body.error, body.hint.as_deref()), (ErrorCode::LoginRequired, Some("mcp-authctl login github")));
    assert_eq!(token_of(&client).unwrap(), "T");
}

#[test]
fn an_error_status_without_a_reason_is_told_by_its_number() {
    let server = Server::new(vec![vec!["HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n".into()]]);
    assert!(matches!(token_of(&server.client()), Err(ClientError::Protocol(Malformed::Status(431)))));
}

#[test]
fn chunked_answers_are_read() {
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{TOKEN}\r\n0\r\n\r\n", TOKEN.len());
    let server = Server::new(vec![vec![chunked.clone(), chunked]]);
    let client = server.client();
    assert_eq!(token_of(&client).unwrap(), "T");
    assert_eq!(token_of(&client).unwrap(), "T");
    assert_eq!(server.requests.iter().take(2).map(|(number, _)| number).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn cut_off_huge_and_senseless_answers_are_errors_that_hold_nothing_of_them() {
    let huge = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", format!("10000\r\n{}\r\n", "s".repeat(65536)).repeat(20));
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"access_token\":\"secret".to_owned(), Malformed::Truncated),
        ("secret\r\n\r\n".to_owned(), Malformed::Head),
        (answer("200 OK", "{\"access_token\":\"secret\"}"), Malformed::Content),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n".to_owned(), Malformed::TooLarge),
        (huge, Malformed::TooLarge),
    ] {
        let server = Server::new(vec![vec![text]]);
        let error = token_of(&server.client()).unwrap_err();
        assert!(matches!(error, ClientError::Protocol(found) if found == expected), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("secret"));
    }
}

#[test]
fn nobody_on_the_socket_is_not_running() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    assert!(matches!(token_of(&Client::new(&path)), Err(ClientError::NotRunning { .. })));
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(token_of(&Client::new(&path)), Err(ClientError::NotRunning { path: found }) if found == path));
}

#[test]
fn a_daemon_that_never_answers_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let client = Client::new(&path).with_patience(Duration::from_millis(50));
    assert!(matches!(token_of(&client), Err(ClientError::TimedOut)));
}

#[test]
fn a_person_at_the_keychains_prompt_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let patience = Duration::from_millis(50);
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::thread::sleep(patience * 4);
        stream.write_all(answer("200 OK", r#"{"state":"unlocked"}"#).as_bytes()).unwrap();
    });
    let client = Client::new(&path).with_patience(patience);
    assert!(client.vault_unlock(&VaultUnlock { passphrase: None }).is_ok());
    daemon.join().unwrap();
}

#[test]
fn a_newer_protocol_is_told_before_its_answer_is_read() {
    let server = Server::new(vec![vec![answer("200 OK", r#"{"proto":2,"all":"else"}"#)]]);
    assert!(matches!(server.client().status(), Err(ClientError::TooOld { daemon: 2 })));
}

#[test]
fn a_login_streams_its_events_and_a_paste_goes_over_a_second_connection() {
    let started = r#"{"event":"started","id":"a b","grant":"github","joined":false}"#;
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let whole = format!("{head}{:x}\r\n{started}\n\r\n15\r\n{{\"event\":\"exchanging\"\r\n2\r\n}}\n\r\n0\r\n\r\n", started.len() + 1);
    let server = Server::new(vec![vec![whole], vec!["HTTP/1.1 204 No Content\r\n\r\n".into()]]);
    let client = server.client();
    let mut events = client.login(&LoginRequest { provider: "github".into(), ..LoginRequest::default() }).unwrap();
    let Some(Ok(LoginEvent::Started { id, .. })) = events.next() else { panic!("started") };
    let url = Secret::new("http://127.0.0.1/callback?code=c");
    client.pasted_redirect(&id, &mcp_auth_proto::PastedRedirect { url }).unwrap();
    assert!(matches!(events.next(), Some(Ok(LoginEvent::Exchanging))));
    assert!(events.next().is_none() && events.next().is_none());
    let requests: Vec<_> = server.requests.iter().take(2).collect();
    assert!(requests[1].1.starts_with("POST /v1/logins/a%20b/redirect HTTP/1.1\r\n"), "{requests:?}");
}

#[test]
fn a_stream_that_breaks_off_is_an_error_and_one_that_is_refused_is_its_error() {
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"eve".to_owned();
    let refused = answer("503 X", r#"{"error":"vault_locked","error_description":"the vault is locked"}"#);
    let server = Server::new(vec![vec![broken], vec![refused]]);
    let items: Vec<_> = server.client().events().unwrap().collect();
    assert!(matches!(items[..], [Err(ClientError::Protocol(Malformed::Truncated))]), "{items:?}");
    let error = server.client().events().unwrap_err();
    assert!(matches!(error, ClientError::Api(body) if body.error == ErrorCode::VaultLocked));
}

#[test]
fn names_and_bodies_go_to_their_routes() {
    let grant = r#"{"name":"github:work","provider":"github","scopes":[],"state":"ok","refreshable":false}"#;
    let server = Server::new(vec![vec![answer("200 OK", grant)]]);
    let token = StaticToken { access_token: Secret::new("pat"), expires_in: None, scopes: vec![], replace: false };
    server.client().add_token(&"github:work".parse().unwrap(), &token).unwrap();
    let (_, request) = server.requests.recv().unwrap();
    assert!(request.starts_with("PUT /v1/grants/github:work HTTP/1.1\r\n") && request.ends_with("{\"access_token\":\"pat\"}"), "{request}");
}

/// Needs root, to run a server as somebody else; `tests/run` has it.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_sent_to_a_server_of_another_user() {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    if !rustix::process::geteuid().is_root() || Command::new("socat").arg("-V").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let path = folder.path().join("sock");
    let listen = format!("UNIX-LISTEN:{},mode=0777", path.display());
    let mut server = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "socat", "-d", "-d", "-u", &listen, "STDOUT"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("listening on")));
    let error = token_of(&Client::new(&path)).unwrap_err();
    assert!(matches!(error, ClientError::NotOurDaemon { owner: Some(65534), .. }), "{error:?}");
    // socat ends when its one connection does.
    assert!(server.wait().unwrap().success());
    let mut received = String::new();
    server.stdout.take().unwrap().read_to_string(&mut received).unwrap();
    assert_eq!(received, "");
}

#[cfg(feature = "async")]
mod asynchronous {
    use bytes::Bytes;
    use http_body_util::BodyExt as _;
    use hyper::{HeaderMap, Method};
    use mcp_auth_proto::asynchronous::Client;

    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("an end") })
    }

    #[test]
    fn a_kept_connection_is_used_again_and_replaced_once_when_stale() {
        let server = Server::new(vec![vec![answer("200 OK", TOKEN), answer("200 OK", TOKEN)], vec![answer("200 OK", TOKEN)]]);
        let client = Client::new(&server.path);
        run(async {
            for _ in 0..3 {
                let token = client.token(&TokenRequest::for_grant("github")).await.unwrap();
                assert_eq!(token.access_token.expose(), "T");
            }
        });
        assert_eq!(server.requests.iter().take(3).map(|(number, _)| number).collect::<Vec<_>>(), [0, 0, 1]);
    }

    #[test]
    fn an_answer_that_had_begun_is_not_asked_for_again() {
        let server = Server::new(vec![vec![answer("200 OK", TOKEN), "HTTP/1.1 200".into()], vec![answer("200 OK", TOKEN)]]);
        let client = Client::new(&server.path);
        let request = TokenRequest::for_grant("github");
        let error = run(async {
            client.token(&request).await.unwrap();
            client.token(&request).await.unwrap_err()
        });
        assert!(matches!(error, ClientError::Protocol(Malformed::Truncated)), "{error:?}");
    }

    #[test]
    fn errors_and_huge_answers_are_as_in_the_blocking_client() {
        let error = r#"{"error":"vault_locked","error_description":"the vault is locked"}"#;
        let server = Server::new(vec![vec![answer("503 X", error)], vec![answer("200 OK", &"s".repeat(1024 * 1024 + 1))]]);
        let client = Client::new(&server.path);
        run(async {
            assert!(matches!(client.grants().await, Err(ClientError::Api(body)) if body.error == ErrorCode::VaultLocked));
        });
        run(async {
            assert!(matches!(Client::new(&server.path).status().await, Err(ClientError::Protocol(Malformed::TooLarge))));
        });
        let missing = run(async { Client::new("/nonexistent/sock").call::<u8>("/v1/x", None::<&()>).await });
        assert!(matches!(missing, Err(ClientError::NotRunning { .. })));
    }

    /// Asks the server `of` and reads the answer's body.
    async fn relayed(client: &Client, of: &str) -> String {
        let answer = client.relay(of, Method::POST, HeaderMap::new(), Bytes::from_static(b"{}")).await.unwrap();
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    /// The numbers of the connections on which requests came.
    fn connections(server: &Server, requests: usize) -> Vec<usize> {
        server.requests.iter().take(requests).map(|(number, _)| number).collect()
    }

    #[test]
    fn relayed_requests_one_after_the_other_share_a_connection_until_it_is_closed() {
        let last = answer("404 X\r\nconnection: close", "b");
        let server = Server::new(vec![vec![answer("200 OK", "a"), last], vec![answer("200 OK", "c")]]);
        let client = Client::new(&server.path);
        let said = run(async { [relayed(&client, "s").await, relayed(&client, "s").await, relayed(&client, "s").await] });
        assert_eq!(said.concat(), "abc");
        assert_eq!(connections(&server, 3), [0, 0, 1]);
    }

    #[test]
    fn a_relayed_answer_that_is_not_read_to_its_end_holds_up_no_other_request() {
        let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}", "x".repeat(10));
        let server = Server::new(vec![vec![endless, String::new()], vec![answer("200 OK", "b")]]);
        let client = Client::new(&server.path);
        run(async {
            let streaming = client.relay("s", Method::POST, HeaderMap::new(), Bytes::new()).await.unwrap();
            drop(streaming);
            // The server takes the next connection once this one is gone.
            assert_eq!(relayed(&client, "s").await, "b");
        });
        assert_eq!(connections(&server, 2), [0, 1]);
    }

    #[test]
    fn a_relayed_request_that_was_sent_is_not_sent_again() {
        let server = Server::new(vec![vec![answer("200 OK", "a"), String::new()], vec![answer("200 OK", "b")]]);
        let client = Client::new(&server.path);
        let error = run(async {
            relayed(&client, "s").await;
            client.relay("s", Method::POST, HeaderMap::new(), Bytes::from_static(b"{}")).await.unwrap_err()
        });
        assert!(matches!(error, ClientError::Protocol(Malformed::Truncated)), "{error:?}");
        assert_eq!(connections(&server, 2), [0, 0]);
    }
}

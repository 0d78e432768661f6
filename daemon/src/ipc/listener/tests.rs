//! Raw bytes over a real socket: what the socket's side does, whatever the routes may be.
#![cfg(unix)]

use std::io::{Read, Write};
use std::path::PathBuf;

use mcp_auth_proto::{Event, TokenRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::ipc::{Answer, Call, read};

/// A listener in this process, with answers made for the tests.
struct Socket {
    _folder: tempfile::TempDir,
    path: PathBuf,
    stage: watch::Sender<Stage>,
    serving: JoinHandle<()>,
    /// Lets `/wait` answer.
    release: Arc<Semaphore>,
    /// Hears of every `/wait` that began (true) and that was dropped unanswered (false).
    waits: mpsc::UnboundedReceiver<bool>,
    /// Feeds `/events`.
    events: mpsc::Sender<Event>,
}

impl Socket {
    fn new(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/d.sock");
        let listener = platform::listen(platform::bind(&path).unwrap()).unwrap();
        let (stage, stages) = watch::channel(Stage::Open);
        let release = Arc::new(Semaphore::new(0));
        let (tell, waits) = mpsc::unbounded_channel();
        let (events, source) = mpsc::channel(8);
        let answer = test_answers(release.clone(), tell, source);
        let serving = tokio::spawn(serve(Doors { main: listener, private: None }, answer, limits, stages));
        Self { _folder: folder, path, stage, serving, release, waits, events }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    /// Sends bytes on a connection of their own and reads until the daemon closes it.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // The daemon may refuse before it has read everything.
        let _ = stream.write_all(bytes.as_ref()).await;
        rest(&mut stream).await
    }
}

fn test_answers(release: Arc<Semaphore>, tell: mpsc::UnboundedSender<bool>, events: mpsc::Receiver<Event>) -> Answerer {
    let events = Arc::new(Mutex::new(Some(events)));
    Arc::new(move |call: Call| {
        let (release, tell, events) = (release.clone(), tell.clone(), events.clone());
        Box::pin(async move {
            match call.uri.path() {
                "/wait" => {
                    let mut dropped = TellDropped(Some(tell));
                    dropped.tell(true);
                    release.acquire().await.unwrap().forget();
                    dropped.0 = None;
                    Answer::json(&"waited").into()
                }
                "/mcp/later" => {
                    let mut stream = call.stream.unwrap();
                    release.acquire().await.unwrap().forget();
                    let mut size = 0;
                    while let Ok(Some(piece)) = stream.next().await {
                        size += piece.len();
                    }
                    Answer::json(&size).into()
                }
                "/big" => Answer::json(&"x".repeat(8 << 20)).into(),
                "/events" => Answer::Events(events.lock().unwrap().take().unwrap()),
                _ => read::<TokenRequest>(&call.body).and_then(|request| Answer::json(&request.grant)).into(),
            }
        })
    })
}

struct TellDropped(Option<mpsc::UnboundedSender<bool>>);

impl TellDropped {
    fn tell(&self, began: bool) {
        if let Some(tell) = &self.0 {
            let _ = tell.send(began);
        }
    }
}

impl Drop for TellDropped {
    fn drop(&mut self) {
        self.tell(false);
    }
}

fn request(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: mcp-authd\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A request after which the daemon closes.
fn last(path: &str, body: &str) -> String {
    request(path, "Connection: close\r\n", body)
}

async fn rest(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    // Closed with unread bytes of ours is closed all the same.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}

/// Reads until `end` has come.
async fn until(stream: &mut UnixStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    text
}

fn short() -> Limits {
    let brief = Duration::from_millis(40);
    Limits { head_time: brief, body_time: brief, idle_time: brief, stalled_time: brief, ..Limits::default() }
}

fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_request_is_answered_with_json_that_nobody_stores_and_without_a_date() {
    block_on(async {
        let answer = Socket::new(Limits::default()).exchange(last("/", r#"{"grant":"github"}"#)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n\"github\""), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n") && answer.contains("cache-control: no-store\r\n"), "{answer}");
        assert!(!answer.to_lowercase().contains("\r\ndate:"), "{answer}");
    });
}

#[test]
fn a_half_sent_request_delays_nobody_and_is_closed_when_its_time_is_up() {
    block_on(async {
        let socket = Socket::new(short());
        for beginning in ["", "P", "POST / HTTP/1.1\r\nHost: mcp-", request("/", "", r#"{"grant":"a"}"#).trim_end_matches("a\"}")] {
            let mut slow = socket.connect().await;
            slow.write_all(beginning.as_bytes()).await.unwrap();
            assert!(socket.exchange(last("/", "")).await.contains("200 OK"));
            assert_eq!(rest(&mut slow).await, "", "{beginning:?}");
        }
    });
}

#[test]
fn a_kept_connection_is_closed_when_idle_and_never_while_a_request_waits() {
    block_on(async {
        let mut socket = Socket::new(short());
        let mut waiting = socket.connect().await;
        waiting.write_all(request("/wait", "", "").as_bytes()).await.unwrap();
        assert_eq!(socket.waits.recv().await, Some(true));
        // Its idle time is up four times before the other one gets its answer.
        for _ in 0..4 {
            let mut idle = socket.connect().await;
            idle.write_all(request("/", "", "").as_bytes()).await.unwrap();
            assert!(until(&mut idle, "null").await.contains("200 OK"));
            assert_eq!(rest(&mut idle).await, "");
        }
        socket.release.add_permits(1);
        assert!(until(&mut waiting, "waited").await.contains("200 OK"));
        assert_eq!(rest(&mut waiting).await, "", "idle now");
    });
}

#[test]
fn one_connection_carries_many_requests_one_by_one_or_all_at_once() {
    block_on(async {
        let socket = Socket::new(Limits::default());
        let mut stream = socket.connect().await;
        for _ in 0..3 {
            stream.write_all(request("/", "", r#"{"grant":"kept"}"#).as_bytes()).await.unwrap();
            until(&mut stream, "\"kept\"").await;
        }
        let all = [request("/", "", r#"{"grant":"one"}"#), request("/", "", r#"{"grant":"two"}"#), last("/", r#"{"grant":"three"}"#)];
        stream.write_all(all.concat().as_bytes()).await.unwrap();
        let answers = rest(&mut stream).await;
        let place = |word: &str| answers.find(word).unwrap_or_else(|| panic!("{word} in {answers}"));
        assert!(place("\"one\"") < place("\"two\"") && place("\"two\"") < place("\"three\""));
    });
}

#[test]
fn a_head_or_body_over_the_limit_is_refused_with_a_clear_answer() {
    block_on(async {
        let socket = Socket::new(Limits::default());
        let head = request("/", &format!("X: {}\r\n", "h".repeat(17 * 1024)), "");
        assert!(socket.exchange(head).await.starts_with("HTTP/1.1 431 "));
        for size in [64 * 1024 + 1, 4 << 20] {
            let answer = socket.exchange(request("/", "", &"b".repeat(size))).await;
            assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("payload_too_large"), "{size}: {answer}");
        }
        let chunk = format!("10001\r\n{}\r\n0\r\n\r\n", "c".repeat(0x10001));
        let chunked = format!("POST / HTTP/1.1\r\nHost: mcp-authd\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        assert!(socket.exchange(chunked).await.starts_with("HTTP/1.1 413 "));
        let promised = "POST / HTTP/1.1\r\nHost: mcp-authd\r\nContent-Length: 4000000000\r\n\r\n";
        assert!(socket.exchange(promised).await.starts_with("HTTP/1.1 413 "));
        let most = format!(r#"{{"grant":"{}"}}"#, "g".repeat(64 * 1024 - 12));
        assert!(socket.exchange(last("/", &most)).await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn a_body_that_is_not_as_it_must_be_is_refused_and_the_next_client_is_fine() {
    block_on(async {
        let socket = Socket::new(Limits::default());
        for (body, word) in [
            (r#"{"grant":"a","grants":1}"#, "`grants`"),
            (r#"{"grant":"a","grant":"b"}"#, "duplicate field `grant`"),
            (r#"{"grant":"a"}{}"#, "trailing"),
        ] {
            let answer = socket.exchange(last("/", body)).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("invalid_request") && answer.contains(word), "{answer}");
        }
        for garbage in ["\0\0\0\0\r\n\r\n", "POST / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n"] {
            assert!(socket.exchange(garbage).await.starts_with("HTTP/1.1 400 "), "{garbage:?}");
        }
        assert!(socket.exchange(last("/", "")).await.contains("200 OK"));
    });
}

#[test]
fn a_browser_and_a_foreign_host_are_refused() {
    block_on(async {
        let socket = Socket::new(Limits::default());
        for mark in ["Origin: null", "Sec-Fetch-Site: none", "Sec-Fetch-Dest: empty", "Host: localhost"] {
            let answer = socket.exchange(request("/", &format!("Connection: close\r\n{mark}\r\n"), "")).await;
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("access_denied"), "{mark}: {answer}");
        }
        let answer = socket.exchange("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    });
}

#[test]
fn connections_over_the_limit_are_told_so_and_the_others_go_on() {
    block_on(async {
        for limits in [Limits { per_process: 2, ..Limits::default() }, Limits { connections: 2, ..Limits::default() }] {
            let socket = Socket::new(limits);
            let mut kept = [socket.connect().await, socket.connect().await];
            for _ in 0..3 {
                let answer = socket.exchange(last("/", "")).await;
                assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("too_many_requests"), "{answer}");
            }
            for stream in &mut kept {
                stream.write_all(last("/", "").as_bytes()).await.unwrap();
                assert!(rest(stream).await.contains("200 OK"));
            }
            drop(kept);
            while !socket.exchange(last("/", "")).await.contains("200 OK") {}
        }
    });
}

#[test]
fn a_client_that_never_reads_its_answer_loses_its_connection() {
    block_on(async {
        let socket = Socket::new(Limits { connections: 1, ..short() });
        let mut slow = socket.connect().await;
        slow.write_all(request("/big", "", "").as_bytes()).await.unwrap();
        // Answered at all only when the slow one's seat is free again.
        while !socket.exchange(last("/", "")).await.contains("200 OK") {}
        assert!(rest(&mut slow).await.len() < 8 << 20);
    });
}

#[test]
fn a_slow_reader_that_goes_on_reading_gets_everything() {
    block_on(async {
        let socket = Socket::new(Limits::default());
        assert!(socket.exchange(last("/big", "")).await.len() > 8 << 20);
    });
}

#[test]
fn a_client_that_goes_away_withdraws_its_question() {
    block_on(async {
        let mut socket = Socket::new(Limits::default());
        let mut stream = socket.connect().await;
        stream.write_all(request("/wait", "", "").as_bytes()).await.unwrap();
        assert_eq!(socket.waits.recv().await, Some(true));
        drop(stream);
        assert_eq!(socket.waits.recv().await, Some(false));
    });
}

#[test]
fn a_body_that_is_taken_as_it_comes_has_no_limit_of_size_and_one_of_time_only_while_it_is_waited_for() {
    block_on(async {
        let socket = Socket::new(short());
        let mut whole = socket.connect().await;
        let size = 1024 * 1024;
        let body = "b".repeat(size);
        let sending = request("/mcp/later", "", &body);
        let reading = async {
            // Longer than every time limit, as another connection shows, and nobody takes the body.
            assert_eq!(rest(&mut socket.connect().await).await, "");
            socket.release.add_permits(1);
        };
        let (sent, ()) = tokio::join!(whole.write_all(sending.as_bytes()), reading);
        sent.unwrap();
        assert!(until(&mut whole, &size.to_string()).await.contains("200 OK"));

        let mut half = socket.connect().await;
        half.write_all(&request("/mcp/later", "", &body).as_bytes()[..1000]).await.unwrap();
        socket.release.add_permits(1);
        assert_eq!(rest(&mut half).await, "", "the rest is waited for in vain");
    });
}

#[test]
fn a_client_that_only_stops_sending_still_gets_its_answers() {
    block_on(async {
        let mut socket = Socket::new(Limits::default());
        for _ in 0..50 {
            for (path, body) in [("/", ""), ("/", r#"{"grant":"a"}"#), ("/wait", ""), ("/wait", r#"{"grant":"a"}"#)] {
                let mut stream = socket.connect().await;
                stream.write_all(request(path, "", body).as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                if path == "/wait" {
                    assert_eq!(socket.waits.recv().await, Some(true));
                    socket.release.add_permits(1);
                }
                assert!(rest(&mut stream).await.contains("200 OK"), "{path} {body}");
            }
        }
    });
}

#[test]
fn every_event_of_a_stream_arrives_at_once_and_a_silent_stream_stays_open() {
    block_on(async {
        let socket = Socket::new(short());
        let mut stream = socket.connect().await;
        stream.write_all(request("/events", "", "").as_bytes()).await.unwrap();
        assert!(until(&mut stream, "\r\n\r\n").await.contains("content-type: application/x-ndjson\r\n"));
        for name in ["refreshed", "logged_out"] {
            // Longer than every time limit, as another connection shows.
            assert_eq!(rest(&mut socket.connect().await).await, "");
            socket.events.send(Event { at: String::new(), event: name.into(), grant: None, detail: None }).await.unwrap();
            assert!(until(&mut stream, "}\n").await.contains(name));
        }
        drop(stream);
        socket.events.closed().await;
    });
}

#[test]
fn a_stream_ends_with_its_reader_whatever_came_after_the_request() {
    block_on(async {
        for more in ["", "x", "GET / HTTP/1.1\r\n"] {
            let mut socket = Socket::new(Limits::default());
            let mut stream = socket.connect().await;
            stream.write_all(format!("{}{more}", request("/events", "", "")).as_bytes()).await.unwrap();
            until(&mut stream, "\r\n\r\n").await;
            drop(stream);
            socket.events.closed().await;
            // One that only stops sending has ended its stream too.
            socket = Socket::new(Limits::default());
            let mut stream = socket.connect().await;
            stream.write_all(format!("{}{more}", request("/events", "", "")).as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            rest(&mut stream).await;
            socket.events.closed().await;
        }
    });
}

#[test]
fn the_end_lets_requests_finish_closes_idle_connections_and_cuts_streams() {
    block_on(async {
        let mut socket = Socket::new(Limits::default());
        let (mut idle, mut waiting, mut streaming) = (socket.connect().await, socket.connect().await, socket.connect().await);
        idle.write_all(request("/", "", "").as_bytes()).await.unwrap();
        until(&mut idle, "null").await;
        streaming.write_all(request("/events", "", "").as_bytes()).await.unwrap();
        until(&mut streaming, "\r\n\r\n").await;
        waiting.write_all(request("/wait", "", "").as_bytes()).await.unwrap();
        assert_eq!(socket.waits.recv().await, Some(true));
        let mut fresh = socket.connect().await;
        // Accepted before the end begins, since the listener's task runs first.
        tokio::task::yield_now().await;

        socket.stage.send(Stage::Draining).unwrap();
        assert_eq!(rest(&mut idle).await, "");
        assert!(UnixStream::connect(&socket.path).await.is_err(), "accepts nobody");
        fresh.write_all(request("/", "", "").as_bytes()).await.unwrap();
        assert!(rest(&mut fresh).await.contains("200 OK"), "its request was on the way");
        socket.release.add_permits(1);
        assert!(rest(&mut waiting).await.contains("waited"));
        socket.stage.send(Stage::Ending).unwrap();
        rest(&mut streaming).await;
        socket.serving.await.unwrap();
    });
}

/// Set in the process that plays another user.
const PLAY_FOREIGNER: &str = "IPC_TEST_SOCKET";

#[test]
fn another_user_gets_no_answer_whatever_the_modes_are() {
    if let Some(path) = std::env::var_os(PLAY_FOREIGNER) {
        return be_foreign(path.as_ref());
    }
    if platform::own_uid() != 0 {
        return; // only root can start a process of another user
    }
    block_on(async {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::CommandExt;
        let socket = Socket::new(Limits::default());
        for path in [socket.path.as_path(), socket.path.parent().unwrap(), socket._folder.path()] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
        }
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "ipc::listener::tests::another_user_gets_no_answer_whatever_the_modes_are"]);
        command.env(PLAY_FOREIGNER, &socket.path).uid(65534).gid(65534).current_dir("/");
        let played = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        let output = match played {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return, // it cannot reach this program
            played => played.unwrap(),
        };
        assert_passed(&output);
        assert!(socket.exchange(last("/", "")).await.contains("200 OK"), "we are served");
    });
}

fn be_foreign(path: &std::path::Path) {
    for attempt in 0..200 {
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        let _ = stream.write_all(last("/", r#"{"grant":"github"}"#).as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "attempt {attempt} was answered: {}", String::from_utf8_lossy(&answer));
    }
}

/// Set in the process whose file descriptors run out.
const RUN_OUT: &str = "IPC_TEST_RUN_OUT";

#[test]
fn without_file_descriptors_the_daemon_rests_and_recovers() {
    if std::env::var_os(RUN_OUT).is_some() {
        return run_out();
    }
    // The limit holds for a whole process, so that other tests must not be in it.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ipc::listener::tests::without_file_descriptors_the_daemon_rests_and_recovers"])
        .env(RUN_OUT, "1")
        .output()
        .unwrap();
    assert_passed(&output);
}

/// The one test that the other process was to run has run there.
fn assert_passed(output: &std::process::Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn run_out() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) }).unwrap();
    block_on(async {
        let socket = Socket::new(Limits::default());
        let mut fill = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            fill.push(file);
        }
        fill.pop();
        let mut stream = socket.connect().await;
        stream.write_all(last("/", "").as_bytes()).await.unwrap();
        let used = cpu_time();
        let waited = tokio::time::timeout(Duration::from_millis(350), stream.read_u8()).await;
        assert!(waited.is_err(), "nobody can have accepted");
        let used = cpu_time() - used;
        assert!(used < Duration::from_millis(35), "it spins: {used:?}");
        drop(fill);
        assert!(rest(&mut stream).await.contains("200 OK"));
    });
}

fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap())
}

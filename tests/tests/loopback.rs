//! The relay's port on loopback: clients with a secret of their own get through it what the socket gives, and nobody else gets
//! anything: no client of another name, no page in a browser, no other user.

#![allow(clippy::unwrap_used)]

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use mcp_auth_tests::issuer::{OwnIssuer, issuer_script};
use mcp_auth_tests::{
    AS_STRANGER, Asked, Connection, Daemon, HttpAnswer, OWNER, RemotePlace, Reply, Room, chromium, fingerprint, mcp_python, node, older,
    require_root, result, run, source_folder, wait_until,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;

fn pong(asked: &Asked, reply: &mut Reply) {
    reply.message(&[], &json!({ "jsonrpc": "2.0", "id": asked.message()["id"], "result": { "said": "pong" } }));
}

/// A place whose relay has a port.
struct Loop {
    place: RemotePlace,
    port: u16,
}

impl Loop {
    #[track_caller]
    fn new(answer: impl Fn(&Asked, &mut Reply) + Send + Sync + 'static) -> Self {
        // Free at the moment.
        let port = OwnIssuer::somewhere().port();
        let this = Self { place: RemotePlace::new(answer), port };
        this.place.room.write_config(&this.config(&format!("[relay]\nlisten = \"127.0.0.1:{port}\"\n")));
        this
    }

    fn config(&self, more: &str) -> String {
        let provider = self.place.rogue.provider_table("test", &format!("resource = \"{}\"", self.place.remote.url()));
        format!("{more}{provider}")
    }

    #[track_caller]
    fn start(&self) -> Daemon<'_> {
        let daemon = self.place.start();
        self.wait_for_port();
        daemon
    }

    #[track_caller]
    fn wait_for_port(&self) {
        wait_until("the relay's port", PATIENCE, || self.connect().ok());
    }

    fn room(&self) -> &Room {
        &self.place.room
    }

    fn connect(&self) -> std::io::Result<Connection> {
        Connection::tcp("127.0.0.1", self.port)
    }

    /// Adds a client for `test`: what it sends with every request.
    #[track_caller]
    fn add(&self, name: &str) -> String {
        let added = self.room().ctl(&["relay", "add", name, "--grant", "test", "--json"]).ok().json();
        let server = &added["servers"]["test"];
        assert_eq!(server["url"], format!("http://127.0.0.1:{}/mcp/test", self.port));
        server["headers"]["Authorization"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> HttpAnswer {
        self.connect().and_then(|mut connection| connection.request(method, target, headers, body)).unwrap()
    }

    #[track_caller]
    fn ping(&self, bearer: &str) -> HttpAnswer {
        self.ask("POST", "/mcp/test", &[("authorization", bearer)], PING)
    }
}

/// An error of ours, in the words of MCP: its code, and its sentence.
#[track_caller]
fn error(answer: &HttpAnswer) -> (String, String) {
    assert_eq!((answer.status, answer.header("www-authenticate")), (200, None), "{answer:?}");
    let body = answer.json();
    assert_eq!(body["id"], 7, "{body}");
    (answer.header("mcp-authd-error").unwrap().to_owned(), body["error"]["message"].as_str().unwrap().to_owned())
}

#[test]
fn there_is_no_port_until_the_config_names_one_and_none_any_more_when_it_does_not() {
    let this = Loop::new(pong);
    this.room().write_config(&this.config(""));
    let daemon = this.place.start();
    let refused = this.room().ctl(&["relay", "add", "cursor", "--grant", "test"]).fails_with(1);
    refused.says("the relay has no port on loopback").says("mcp-authctl reload");
    assert!(this.connect().is_err() && daemon.show("/v1/status").get("relay").is_none());
    this.room().write_config(&this.config(&format!("[relay]\nlisten = \"127.0.0.1:{}\"\n", this.port)));
    this.room().ctl(&["reload"]).ok();
    this.wait_for_port();
    let bearer = this.add("cursor");
    let mut kept = this.connect().unwrap();
    assert_eq!(kept.request("POST", "/mcp/test", &[("authorization", &bearer)], PING).unwrap().json()["result"]["said"], "pong");
    this.room().write_config(&this.config(""));
    this.room().ctl(&["reload"]).ok();
    wait_until("the port's end", PATIENCE, || this.connect().is_err().then_some(()));
    assert!(kept.request("POST", "/mcp/test", &[("authorization", &bearer)], PING).is_err(), "and its connections end with it");
}

#[test]
fn a_client_with_a_secret_reaches_its_server_with_our_token_and_without_its_own_secret() {
    let this = Loop::new(|asked, reply| {
        let headers = [("mcp-session-id", "s-1"), ("set-cookie", "a=b"), ("access-control-allow-origin", "*")];
        reply.message(&headers, &json!({ "jsonrpc": "2.0", "id": asked.message()["id"], "result": {} }));
    });
    let daemon = this.start();
    let bearer = this.add("cursor");
    let by = |host: &str| {
        let mut connection = this.connect().unwrap().naming_host(host);
        connection.request("POST", "/mcp/test", &[("authorization", &bearer), ("mcp-method", "ping")], PING).unwrap()
    };
    for host in [format!("127.0.0.1:{}", this.port), format!("localhost:{}", this.port)] {
        let answer = by(&host);
        assert_eq!((answer.status, answer.json()["id"].as_u64()), (200, Some(7)), "{host}");
        assert_eq!(answer.header("mcp-session-id"), Some("s-1"));
        assert_eq!((answer.header("set-cookie"), answer.header("access-control-allow-origin")), (None, None));
    }
    let asked = &this.place.remote.asked()[0];
    assert_eq!(asked.header("authorization"), fingerprint(&daemon.token("test")), "our token, and not the client's secret");
    assert_eq!(asked.header("mcp-method"), "ping");
    // The audit says who it was, and neither it nor the log has the secret.
    let told = wait_until("the audit's line", PATIENCE, || {
        let lines = this.room().ctl(&["audit", "--json", "--event", "token", "--peer", "cursor"]).ok().json();
        lines.as_array().unwrap().first().cloned()
    });
    assert_eq!((&told["program"]["client"], &told["grant"]), (&json!("cursor"), &json!("test")));
    let shown = this.room().ctl(&["audit", "--event", "token"]).ok();
    assert!(shown.stdout.contains("cursor (client of the relay)"), "{shown:?}");
    let secret = bearer.strip_prefix("Bearer ").unwrap();
    assert!(secret.len() > 40 && !daemon.running.said().contains(secret), "the secret is in the log");
    let files = walk(&this.room().path("state"));
    assert!(files.len() > 3 && files.iter().all(|(_, bytes)| !has(bytes, secret.as_bytes())), "the secret is on the disk");
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn walk(folder: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    entries
        .into_iter()
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![(path.clone(), std::fs::read(&path).unwrap_or_default())] })
        .collect()
}

/// A server of both eras with one tool.
fn with_a_tool(asked: &Asked, reply: &mut Reply) {
    let about = json!({ "name": "s", "version": "1" });
    let answer = match asked.message()["method"].as_str() {
        Some("server/discover") => json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": { "tools": {} }, "serverInfo": about, "ttlMs": 0, "cacheScope": "private" }),
        Some("tools/list") => json!({ "resultType": "complete", "tools": [{ "name": "t", "inputSchema": { "type": "object" } }],
            "ttlMs": 0, "cacheScope": "private" }),
        Some("initialize") => json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": about }),
        _ => return older(asked, reply, |_, _| false),
    };
    reply.message(&[], &result(asked, &answer));
}

#[test]
fn the_official_sdks_use_the_port_by_its_url_and_one_header() {
    let this = Loop::new(with_a_tool);
    let _daemon = this.start();
    let bearer = this.add("sdk");
    let url = format!("http://127.0.0.1:{}/mcp/test", this.port);
    for (sdk, program, script, mode) in [
        ("typescript", node(), "client.mjs", ""),
        ("python", mcp_python(), "client.py", "auto"),
        ("python, legacy", mcp_python(), "client.py", "legacy"),
    ] {
        let mut command = this.room().command(&program);
        command.arg(source_folder().join("mcp").join(script)).arg(json!({ "url": url, "mode": mode }).to_string());
        let came = run(command, sdk, bearer.strip_prefix("Bearer ").unwrap(), false).ok().json();
        assert_eq!(came["tools"], json!(["t"]), "{sdk}: {came}");
    }
}

#[test]
fn whoever_has_no_secret_is_told_so_in_the_words_of_mcp_and_never_challenged() {
    let this = Loop::new(pong);
    let daemon = this.start();
    let bearer = this.add("cursor");
    let (code, sentence) = error(&this.ask("POST", "/mcp/test", &[], PING));
    assert!(code == "access_denied" && sentence.contains("Authorization: Bearer") && sentence.contains("relay add"), "{sentence}");
    let token = format!("Bearer {}", daemon.token("test"));
    for wrong in ["Bearer x", &token, &bearer.to_lowercase(), &bearer[..bearer.len() - 1]] {
        let (code, sentence) = error(&this.ping(wrong));
        assert!(code == "access_denied" && sentence.contains("no client of the relay's port has this secret"), "{sentence}");
    }
    let (code, _) = error(&this.ask("POST", "/mcp/test", &[("authorization", &bearer), ("authorization", &bearer)], PING));
    assert_eq!(code, "access_denied", "two secrets are none");
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(this.ask("POST", "/mcp/test", &[], notification).status, 202);
    assert_eq!((this.ask("GET", "/mcp/test", &[], "").status, this.ask("DELETE", "/mcp/test", &[], "").status), (405, 204));
    let large = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"ping","params":"{}"}}"#, "x".repeat(300_000));
    assert_eq!(error(&this.ask("POST", "/mcp/test", &[], &large)).0, "access_denied", "little of it is read");
    assert!(this.place.remote.asked().is_empty(), "nothing went anywhere");
    // Nor is there anything else, with the secret neither: no login of a client's own can begin here.
    for headers in [&[][..], &[("authorization", bearer.as_str())]] {
        for (method, target) in [
            ("GET", "/.well-known/oauth-protected-resource"),
            ("GET", "/.well-known/oauth-protected-resource/mcp/test"),
            ("GET", "/.well-known/oauth-authorization-server"),
            ("POST", "/register"),
            ("POST", "/v1/token"),
            ("GET", "/v1/status"),
            ("GET", "/"),
            ("PUT", "/mcp/test"),
            ("OPTIONS", "/mcp/test"),
            ("POST", "/mcp/test?x=1"),
        ] {
            let answer = this.ask(method, target, headers, "");
            assert_eq!((answer.status, answer.header("www-authenticate")), (404, None), "{method} {target}");
            assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control")), "{answer:?}");
        }
    }
    assert_eq!(this.ping(&bearer).json()["result"]["said"], "pong");
}

#[test]
fn a_secret_is_for_its_own_grants_alone_and_for_nothing_once_it_is_removed() {
    let (told, gone) = mpsc::channel();
    let told = Mutex::new(told);
    let this = Loop::new(move |asked, reply| {
        if asked.method != "GET" {
            return pong(asked, reply);
        }
        reply.events(&[]);
        reply.bytes(b": open\n\n");
        told.lock().unwrap().send(reply.gone()).unwrap();
    });
    let _daemon = this.start();
    let (one, other) = (this.add("cursor"), this.add("zed"));
    this.room().ctl_typing(&["add-token", "static"], "zQaT9qz-static-zQaT9qz").ok();
    let refused = this.room().ctl(&["relay", "add", "third", "--grant", "static"]).fails_with(1);
    refused.says("`static` is not a grant for an MCP server");
    this.room().ctl(&["relay", "add", "cursor", "--grant", "test"]).fails_with(1).says("there is a client `cursor` already");
    this.room().ctl(&["relay", "add", "third", "--grant", "none"]).fails_with(3).says("`none`");
    let (code, sentence) = error(&this.ask("POST", "/mcp/static", &[("authorization", &one)], PING));
    assert!(code == "access_denied" && sentence.contains("`cursor` is for `test` and nothing else"), "{sentence}");
    let list = this.room().ctl(&["relay", "list"]).ok().stdout;
    assert!(list.contains("cursor  test") && list.contains("zed     test") && !list.contains("mcprelay_"), "{list}");
    let mut stream = this.connect().unwrap();
    stream.send("GET", "/mcp/test", &[("authorization", &one)], "").unwrap();
    assert_eq!(stream.read_head().unwrap().0, 200);
    this.room().ctl(&["relay", "remove", "cursor"]).ok();
    assert!(gone.recv_timeout(PATIENCE).unwrap(), "its open stream is cut off");
    assert_eq!(error(&this.ping(&one)).0, "access_denied");
    assert_eq!(this.ping(&other).json()["result"]["said"], "pong", "the other one is not touched");
    this.room().ctl(&["relay", "remove", "cursor"]).fails_with(1).says("no such client");
    let again = this.add("cursor");
    assert!(again != one && error(&this.ping(&one)).0 == "access_denied");
    assert_eq!(this.ping(&again).json()["result"]["said"], "pong");
}

#[test]
fn a_secret_outlives_the_daemon_and_is_good_for_nothing_while_the_vault_is_locked() {
    let this = Loop::new(pong);
    let daemon = this.start();
    let bearer = this.add("cursor");
    assert_eq!(daemon.stop().code, 0);
    let daemon = this.room().start();
    this.wait_for_port();
    assert_eq!(this.ping(&bearer).json()["result"]["said"], "pong");
    this.room().ctl(&["lock"]).ok();
    assert_eq!(error(&this.ping(&bearer)).0, "vault_locked");
    assert_eq!(daemon.show("/v1/status")["relay"], json!({ "url": format!("http://127.0.0.1:{}", this.port) }));
    this.room().ctl(&["unlock"]).ok();
    assert_eq!(this.ping(&bearer).json()["result"]["said"], "pong");
    assert_eq!(daemon.show("/v1/status")["relay"]["clients"], 1);
}

#[test]
fn the_policy_knows_a_client_by_its_name() {
    let this = Loop::new(pong);
    let _daemon = this.start();
    let (one, other) = (this.add("cursor"), this.add("zed"));
    this.room().ctl(&["policy", "add", "test", "--client", "cursor", "--yes"]).ok();
    assert_eq!(this.ping(&one).json()["result"]["said"], "pong");
    let (code, sentence) = error(&this.ping(&other));
    assert_eq!(code, "access_denied");
    assert!(
        sentence.contains("no rule is about the relay's client zed") && sentence.contains("policy add test --client zed"),
        "{sentence}"
    );
    let tested = |name: &str| this.room().ctl(&["policy", "test", "test", "--client", name, "--json"]).json()["outcome"].clone();
    assert_eq!((tested("cursor"), tested("zed")), (json!("allow"), json!("deny")));
    let list = this.room().ctl(&["policy", "list"]).ok().stdout;
    assert!(list.contains("cursor (client of the relay) gets tokens"), "{list}");
    assert_eq!(this.room().ctl(&["token", "test"]).code, 6, "the rule is about nobody else");
    this.room().ctl(&["policy", "add", "test", "--client", "not a name"]).fails_with(1).says("not the name of a client");
    wait_until("the refusal in the audit", PATIENCE, || {
        let lines = this.room().ctl(&["audit", "--json", "--event", "denied", "--peer", "zed"]).ok().json();
        (!lines.as_array().unwrap().is_empty()).then_some(())
    });
}

#[test]
fn a_stream_through_the_port_ends_when_its_client_may_have_the_grant_no_more() {
    let (told, gone) = mpsc::channel();
    let told = Mutex::new(told);
    let this = Loop::new(move |asked, reply| {
        reply.events(&[]);
        reply.bytes(b": open\n\n");
        assert!(reply.gone());
        told.lock().unwrap().send(asked.header("x-who").to_owned()).unwrap();
    });
    let _daemon = this.start();
    let streams = ["cursor", "zed"].map(|name| {
        let (bearer, mut stream) = (this.add(name), this.connect().unwrap());
        stream.send("GET", "/mcp/test", &[("authorization", &bearer), ("x-who", name)], "").unwrap();
        assert_eq!(stream.read_head().unwrap().0, 200);
        stream
    });
    this.room().ctl(&["policy", "add", "test", "--client", "cursor", "--yes"]).ok();
    assert_eq!(gone.recv_timeout(PATIENCE).unwrap(), "zed");
    assert!(gone.try_recv().is_err(), "the rule is about the other one");
    this.room().ctl(&["lock"]).ok();
    assert_eq!(gone.recv_timeout(PATIENCE).unwrap(), "cursor");
    drop(streams);
}

#[test]
fn what_a_browser_could_have_sent_is_refused_whatever_secret_it_has() {
    let this = Loop::new(pong);
    let _daemon = this.start();
    let bearer = this.add("cursor");
    let (own, port) = (format!("http://127.0.0.1:{}", this.port), this.port);
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", own.as_str()),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "none"),
        ("sec-fetch-dest", "empty"),
    ] {
        for method in ["POST", "GET", "OPTIONS"] {
            let answer = this.ask(method, "/mcp/test", &[("authorization", &bearer), (name, value)], "");
            assert_eq!(answer.status, 403, "{method} {name}: {value}");
            assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control")), "{answer:?}");
        }
    }
    for host in [
        format!("evil.example:{port}"),
        "evil.example".into(),
        "127.0.0.1".into(),
        format!("127.0.0.1:{}", port ^ 1),
        "mcp-authd".into(),
        format!("0.0.0.0:{port}"),
        format!("localhost.evil.example:{port}"),
    ] {
        let mut connection = this.connect().unwrap().naming_host(&host);
        let answer = connection.request("POST", "/mcp/test", &[("authorization", &bearer)], PING).unwrap();
        assert_eq!(answer.status, 403, "{host}: the name of somebody else's page");
    }
    assert!(this.place.remote.asked().is_empty());
    assert_eq!(this.ask("POST", "/mcp/test", &[("authorization", &bearer), ("sec-fetch-mode", "cors")], PING).status, 200, "Node's fetch");
}

#[test]
fn a_hostile_page_in_a_real_browser_reaches_nothing_though_its_name_leads_here_and_it_knows_the_secret() {
    chromium();
    let this = Loop::new(pong);
    let _daemon = this.start();
    let bearer = this.add("cursor");
    let (node, script) = issuer_script("rebinding.mjs");
    let mut command = this.room().command(&node);
    command.arg(script).arg(this.port.to_string()).env("SECRET", &bearer);
    let found = run(command, "rebinding", "", true).ok().json();
    let tries = found.as_object().unwrap();
    assert!(tries.len() >= 10, "{found}");
    for (name, came) in tries {
        let said = came.as_str().unwrap();
        assert!(!said.contains("pong") && !said.contains("\"id\""), "{name}: {said}");
    }
    assert!(tries["rebound post"].as_str().unwrap().starts_with("403"), "it did come here: {found}");
    assert!(this.place.remote.asked().is_empty(), "and nothing went on");
    assert_eq!(this.ping(&bearer).json()["result"]["said"], "pong");
}

#[test]
fn guessing_is_slow_for_whoever_guesses_and_for_nobody_else() {
    let this = Loop::new(pong);
    let _daemon = this.start();
    let bearer = this.add("cursor");
    let mut guesses = Vec::new();
    // There already: what is measured is the answer, and not how long a busy machine takes over a new connection.
    let (mut kept, mut right) = (this.connect().unwrap(), Vec::new());
    assert_eq!(kept.request("POST", "/mcp/test", &[("authorization", &bearer)], PING).unwrap().status, 200);
    for round in 0..6 {
        for number in 0..10 {
            let mut guess = this.connect().unwrap();
            guess.send("POST", "/mcp/test", &[("authorization", &format!("Bearer {round}{number}"))], PING).unwrap();
            guesses.push((Instant::now(), guess));
        }
        let started = Instant::now();
        let answer = kept.request("POST", "/mcp/test", &[("authorization", &bearer)], PING).unwrap();
        assert_eq!(answer.json()["result"]["said"], "pong");
        right.push(started.elapsed());
    }
    assert!(right.iter().min().unwrap() < &Duration::from_secs(1), "whoever has a secret waits for nobody: {right:?}");
    let mut told = Vec::new();
    for (sent, guess) in &mut guesses {
        let (code, _) = error(&guess.answer("POST").unwrap());
        assert!(code == "too_many_requests" || code == "access_denied" && sent.elapsed() >= Duration::from_secs(1), "{code} at once");
        told.push(code);
    }
    assert!(told.contains(&"access_denied".to_owned()), "{told:?}");
    let (_, first) = &mut guesses[0];
    assert!(first.request("POST", "/mcp/test", &[("authorization", &bearer)], PING).is_err(), "and it costs the connection");
}

#[test]
fn a_silent_client_is_let_go_and_many_crowd_out_their_own_kind_alone() {
    let this = Loop::new(pong);
    let daemon = this.start();
    let bearer = this.add("cursor");
    let mut silent: Vec<_> = (0..300).map(|_| this.connect().unwrap()).collect();
    assert_eq!(daemon.show("/v1/status")["relay"]["clients"], 1, "the socket is not crowded");
    for connection in &mut silent {
        // There are seats for 256 at a time; the rest is told so, or has one in its turn.
        match connection.answer("GET") {
            Ok(answer) => assert_eq!(answer.status, 429, "{answer:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "closed without a word"),
        }
    }
    assert_eq!(this.ping(&bearer).json()["result"]["said"], "pong");
}

#[test]
fn another_user_of_the_machine_is_not_answered_though_it_knows_the_secret() {
    require_root("become another user");
    let mut this = Loop::new(pong);
    this.place.room.give_to(OWNER);
    let daemon = this.room().start();
    this.room().log_in("test").ok();
    wait_until("the relay's port", PATIENCE, || (!this.knock(&OWNER_WORDS, "").is_empty()).then_some(()));
    let bearer = this.add("cursor");
    let ours = this.knock(&OWNER_WORDS, &bearer);
    assert!(ours.contains("pong"), "our own user: {ours}; {}", daemon.running.said());
    for (who, words) in [("a stranger", &AS_STRANGER[..]), ("root", &["env"][..])] {
        for _ in 0..5 {
            assert_eq!(this.knock(words, &bearer), "", "{who}");
        }
    }
    assert!(this.knock(&OWNER_WORDS, &bearer).contains("pong"));
}

const OWNER_WORDS: [&str; 4] = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];

impl Loop {
    /// What a request brings as somebody else.
    fn knock(&self, words: &[&str], bearer: &str) -> String {
        let length = PING.len();
        let head =
            format!("POST /mcp/test HTTP/1.1\\r\\nHost: 127.0.0.1:{}\\r\\nAuthorization: {bearer}\\r\\nConnection: close\\r\\n", self.port);
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{} && printf '{head}Content-Length: {length}\\r\\n\\r\\n%s' '{PING}' >&3; cat <&3",
            self.port
        );
        let output = std::process::Command::new(words[0]).args(&words[1..]).args(["bash", "-c", &script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn whoever_has_the_port_before_us_is_told_of_and_the_port_is_taken_as_soon_as_it_is_free() {
    let this = Loop::new(pong);
    let impostor = std::net::TcpListener::bind(("127.0.0.1", this.port)).unwrap();
    let daemon = this.place.start();
    let said = wait_until("the error", PATIENCE, || daemon.show("/v1/status")["relay"]["error"].as_str().map(str::to_owned));
    assert!(said.starts_with("the relay cannot listen on 127.0.0.1:"), "{said}");
    assert!(this.room().ctl(&["status"]).stdout.contains("relay: the relay cannot listen on"), "status says it");
    let doctor = this.room().ctl(&["doctor"]);
    assert!(doctor.stdout.contains("[failed]  relay"), "{doctor:?}");
    drop(impostor);
    this.wait_for_port();
    wait_until("the end of the error", PATIENCE, || daemon.show("/v1/status")["relay"].get("error").is_none().then_some(()));
    assert!(this.room().ctl(&["doctor"]).stdout.contains("[ok]      relay"), "doctor says it");
}

#[test]
fn the_secret_is_shown_once_on_stdout_beside_the_url_and_the_audit_tells_who_came_and_went() {
    let this = Loop::new(pong);
    let _daemon = this.start();
    let added = this.room().ctl(&["relay", "add", "cursor", "--grant", "test"]).ok();
    let lines: Vec<_> = added.stdout.lines().collect();
    assert_eq!(lines[0], format!("http://127.0.0.1:{}/mcp/test", this.port));
    let bearer = lines[1].strip_prefix("Authorization: ").unwrap();
    assert!(lines.len() == 2 && bearer.starts_with("Bearer mcprelay_") && !added.stderr.contains("mcprelay_"), "{added:?}");
    assert_eq!(this.ping(bearer).json()["result"]["said"], "pong");
    this.room().ctl(&["relay", "remove", "cursor"]).ok();
    let events = wait_until("both lines", PATIENCE, || {
        let lines: Vec<Value> = serde_json::from_value(this.room().ctl(&["audit", "--json"]).ok().json()).unwrap();
        let of_relay = lines.into_iter().filter(|line| line["event"].as_str().unwrap().starts_with("relay_client"));
        let of_relay: Vec<_> = of_relay.map(|line| (line["event"].clone(), line["about"].clone())).collect();
        (of_relay.len() == 2).then_some(of_relay)
    });
    assert_eq!(events, [(json!("relay_client_added"), json!("cursor: test")), (json!("relay_client_removed"), json!("cursor: test"))]);
}

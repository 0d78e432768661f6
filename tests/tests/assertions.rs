//! Logins at remote MCP servers that nobody makes: a workload's JWT, and an identity provider that vouches for a person. The
//! authorization server and the identity provider are real ones, and check every signature.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcp_auth_proto::{ErrorCode, LoginEvent};
use mcp_auth_tests::{CLIENT_SECRET, Daemon, GrantTypeCounters, Key, McpServer, Room, Server, StdioServer, now_ms, wait_until};
use serde_json::{Value, json};
use sha2::Digest as _;

const PATIENCE: Duration = Duration::from_secs(20);
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// How long a token lives that a test outlives, seconds.
const LIFETIME: u64 = 4;
const PLATFORM: &str = "https://kubernetes.default.svc";

fn asked(server: &Server, grant_type: &str) -> GrantTypeCounters {
    server.counters().token.get(grant_type).cloned().unwrap_or_default()
}

/// Waits until a short-lived token has expired, for the server and for the daemon.
fn outlive(server: &Server, token: &str) {
    let issued = server.counters().issued.last().unwrap().at_ms;
    wait_until("the end of the token", PATIENCE, || (now_ms() > issued + LIFETIME * 1000 && !server.is_active(token)).then_some(()));
}

/// The platform of a workload, whose JWTs an authorization server trusts, and an MCP server that names this one.
struct Cluster {
    server: Server,
    mcp: McpServer,
    key: Key,
}

impl Cluster {
    fn with_lifetime(seconds: u64) -> Self {
        let (server, key) = (Server::with_lifetime(seconds), Key::named("the-clusters"));
        server.tell("trust", &json!({ "issuer": PLATFORM, "jwks": key.jwks() }));
        let mcp = McpServer::start(server.issuer());
        Self { server, mcp, key }
    }

    /// A workload's JWT for this authorization server, changed.
    fn token(&self, changes: &Value) -> String {
        let now = now_ms() / 1000;
        let mut claims = json!({
            "iss": PLATFORM, "sub": "system:serviceaccount:build:runner", "aud": self.server.issuer(), "iat": now, "exp": now + 600,
        });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.key.sign(&json!({ "alg": "ES256", "kid": "the-clusters" }), &claims)
    }

    /// Puts it where the platform does: atomically, readable by others.
    fn project(&self, room: &Room, changes: &Value) -> PathBuf {
        put(room, &self.token(changes))
    }

    fn table(&self, file: &str) -> String {
        format!("[providers.acme]\nserver = \"{}\"\nclient_id = \"workload\"\nflow = \"jwt_bearer\"\n{file}", self.mcp.url())
    }

    fn asked(&self) -> GrantTypeCounters {
        asked(&self.server, JWT_BEARER)
    }
}

fn put(room: &Room, token: &str) -> PathBuf {
    let (fresh, path) = (room.path("token.new"), room.path("token"));
    fs::write(&fresh, token).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(&fresh, &path).unwrap();
    path
}

#[test]
fn a_workload_logs_in_with_the_token_of_its_platform_and_nobody_is_asked() {
    let cluster = Cluster::with_lifetime(300);
    let room = Room::with_config("");
    let daemon = room.start();
    let file = cluster.project(&room, &json!({}));
    let file = file.to_str().unwrap();
    let login = room.ctl(&["login", &cluster.mcp.url(), "--name", "acme", "--client-id", "workload", "--assertion-file", file]).ok();
    assert!(login.stderr.contains("logged in to acme as system:serviceaccount:build:runner"), "{login:?}");
    assert!(cluster.server.is_active(&daemon.token("acme")));
    assert_eq!((cluster.asked().requests, cluster.asked().ok), (1, 1));
    assert_eq!(cluster.server.counters().requests_to("/auth"), 0, "nobody is led to a page");
    let shown = daemon.show("/v1/grants/acme");
    assert_eq!(
        (&shown["resource"], &shown["on_demand"], &shown["scopes"]),
        (&json!(cluster.mcp.url()), &json!(true), &json!(["mcp:read"]))
    );
    let status = room.ctl(&["status", "acme"]).ok().stdout;
    assert!(status.contains(&format!("login: none: the token in {file}")), "{status}");

    let token = daemon.token("acme");
    room.ctl(&["logout", "acme"]).ok();
    assert!(!cluster.server.is_active(&token), "it is revoked as any other");
}

#[test]
fn the_file_is_read_again_for_every_token_since_it_rotates() {
    let cluster = Cluster::with_lifetime(LIFETIME);
    let room = Room::with_config("");
    let file = cluster.project(&room, &json!({}));
    room.write_config(&cluster.table(&format!("assertion_file = \"{}\"\n", file.display())));
    let mut daemon = room.start();
    room.ctl(&["login", "acme"]).ok();
    for round in 1..=3 {
        let old = daemon.token("acme");
        daemon.kill();
        outlive(&cluster.server, &old);
        // The one before would be refused by now.
        cluster.project(&room, &json!({ "jti": round }));
        daemon = room.start();
        let token = daemon.token("acme");
        assert!(token != old && cluster.server.is_active(&token), "round {round}");
    }
    assert_eq!((cluster.asked().requests, cluster.asked().ok), (4, 4), "on demand, and once each");
}

#[test]
fn a_token_that_is_made_for_others_or_has_ended_never_leaves_the_machine() {
    let cluster = Cluster::with_lifetime(300);
    let room = Room::with_config("");
    let file = cluster.project(&room, &json!({}));
    room.write_config(&cluster.table(&format!("assertion_file = \"{}\"\n", file.display())));
    let _daemon = room.start();
    for (changes, told) in [
        (json!({ "aud": PLATFORM }), "is made for https://kubernetes.default.svc, not for"),
        (json!({ "aud": null }), "is made for nobody in particular"),
        (json!({ "exp": now_ms() / 1000 - 600 }), "ended at"),
        (json!({ "exp": null }), "`exp`"),
    ] {
        cluster.project(&room, &changes);
        let refused = room.ctl(&["login", "acme"]).fails_with(1);
        assert!(
            refused.stderr.contains(told) && refused.stderr.contains("hint: see that") && refused.stderr.contains("/token"),
            "{refused:?}"
        );
    }
    put(&room, "zQcS9qz-no-jwt-at-all-zQcS9qz");
    let refused = room.ctl(&["login", "acme"]).fails_with(1).says("is not a JWT");
    assert!(!refused.stderr.contains("zQcS9qz"), "{refused:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    room.ctl(&["login", "acme"]).fails_with(1).says("can be changed by other users").says("chmod go-w");
    fs::remove_file(&file).unwrap();
    room.ctl(&["login", "acme"]).fails_with(1).says("No such file");
    assert_eq!(cluster.asked().requests, 0);
}

#[test]
fn a_refusal_is_told_and_no_other_way_is_tried() {
    let cluster = Cluster::with_lifetime(300);
    let room = Room::with_config("");
    let file = cluster.project(&room, &json!({ "iss": "https://somebody.example" }));
    room.write_config(&cluster.table(&format!("assertion_file = \"{}\"\n", file.display())));
    let _daemon = room.start();
    let refused = room.ctl(&["login", "acme"]).fails_with(1).says("the provider rejected the grant");
    assert!(refused.stderr.contains(&format!("hint: see that {} holds a token for it", file.display())), "{refused:?}");
    let counters = cluster.server.counters();
    assert_eq!((cluster.asked().requests, counters.requests_to("/token"), counters.requests_to("/reg")), (1, 1, 0));
}

#[test]
fn a_grant_whose_file_has_gone_stale_says_so_and_heals_with_the_file() {
    let cluster = Cluster::with_lifetime(LIFETIME);
    let room = Room::with_config("");
    let file = cluster.project(&room, &json!({}));
    room.write_config(&cluster.table(&format!("assertion_file = \"{}\"\n", file.display())));
    let daemon = room.start();
    room.ctl(&["login", "acme"]).ok();
    let token = daemon.token("acme");
    cluster.project(&room, &json!({ "exp": now_ms() / 1000 - 600 }));
    outlive(&cluster.server, &token);
    let told = room.ctl(&["token", "acme"]).fails_with(3);
    assert!(told.stderr.contains("ended at") && told.stderr.contains(&file.display().to_string()), "{told:?}");
    assert_eq!(daemon.refusal("acme"), "login_required");
    assert_eq!(cluster.asked().requests, 1, "what has ended is not shown to anybody");

    cluster.project(&room, &json!({}));
    room.ctl(&["refresh", "acme"]).ok();
    assert!(cluster.server.is_active(&daemon.token("acme")));
}

#[test]
fn a_token_from_stdin_is_good_for_one_login_and_not_kept() {
    let cluster = Cluster::with_lifetime(LIFETIME);
    let room = Room::with_config("");
    let daemon = room.start();
    let options = ["login", &cluster.mcp.url(), "--name", "acme", "--client-id", "workload", "--assertion-file", "-"];
    let login = room.ctl_typing(&options, &cluster.token(&json!({}))).ok();
    assert!(login.stderr.contains("give another when it has expired"), "{login:?}");
    outlive(&cluster.server, &daemon.token("acme"));
    let told = room.ctl(&["token", "acme"]).fails_with(3);
    assert!(told.stderr.contains("was not kept") && told.stderr.contains("mcp-authctl login acme --assertion-file FILE"), "{told:?}");
    assert_eq!(cluster.asked().requests, 1);
}

// ---- files that a program names ----

fn sha256(text: &str) -> String {
    hex::encode(sha2::Sha256::digest(text))
}

/// A file as a program names it that has read this in it.
fn named(path: &Path, read: &str) -> Value {
    json!({ "file": { "path": path, "sha256": sha256(read) } })
}

/// Nothing but the path that the program knows anyway comes back, whatever is there.
#[track_caller]
fn is_not_used(daemon: &Daemon<'_>, request: &Value, path: &Path) {
    let LoginEvent::Failed { error } = daemon.start_login(request).last() else { panic!("{request} was not refused") };
    let sentence = format!("cannot log in at acme: {} holds no JWT that the program that asks has read there too", path.display());
    assert_eq!((error.error, error.error_description), (ErrorCode::Conflict, sentence));
    assert!(error.hint.is_some_and(|hint| hint.contains("renewed just now")));
}

#[test]
fn a_program_gets_no_file_used_that_it_cannot_read() {
    let cluster = Cluster::with_lifetime(LIFETIME);
    let room = Room::with_config("");
    let daemon = room.start();
    let request = |source: Value| json!({ "provider": cluster.mcp.url(), "name": "acme", "client_id": "workload", "assertion": source });
    let jwt = cluster.token(&json!({}));
    let file = put(&room, &jwt);
    for source in [json!({ "file": file }), json!({ "file": { "path": file } }), json!({ "file": { "path": file, "sha256": "yes" } })] {
        let answer = daemon.call("POST", "/v1/logins", &request(source));
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_request")), "{}", answer.body);
    }
    let pin = room.path("pin");
    fs::write(&pin, "1234").unwrap();
    is_not_used(&daemon, &request(named(&file, "a guess")), &file);
    is_not_used(&daemon, &request(named(&pin, "1234")), &pin);
    is_not_used(&daemon, &request(named(&room.path("nothing"), "")), &room.path("nothing"));
    is_not_used(&daemon, &request(named(&room.path(""), "")), &room.path(""));
    assert_eq!(cluster.server.counters().requests_to("/token"), 0);

    assert!(matches!(daemon.start_login(&request(named(&file, &jwt))).last(), LoginEvent::Done { .. }));
    let token = daemon.token("acme");
    cluster.project(&room, &json!({ "jti": "the next" }));
    outlive(&cluster.server, &token);
    assert!(cluster.server.is_active(&daemon.token("acme")), "a renewal is nobody's request");
    assert_eq!((cluster.asked().requests, cluster.asked().ok), (2, 2));
}

#[test]
fn a_bridge_shows_its_file_as_it_is_when_a_login_is_needed() {
    let cluster = Cluster::with_lifetime(300);
    let room = Room::with_config("");
    let _daemon = room.start();
    cluster.mcp.accept(|token| !token.is_empty());
    let (url, file) = (cluster.mcp.url(), room.path("token"));
    let mut bridge = StdioServer::bridge(&room, &[&url, "--client-id", "workload", "--assertion-file", file.to_str().unwrap()]);
    let refused = bridge.ask(1, "ping", &json!({}));
    assert!(refused["error"]["message"].as_str().is_some_and(|said| said.contains("cannot read")), "{refused}");
    cluster.project(&room, &json!({}));
    assert_eq!(bridge.ask(1, "ping", &json!({}))["result"], json!({}));
    assert_eq!((cluster.asked().requests, cluster.asked().ok), (1, 1));
}

/// An enterprise: an identity provider where a person logs in, and an MCP server whose authorization server trusts it.
struct Enterprise {
    identity: Server,
    server: Server,
    mcp: McpServer,
}

impl Enterprise {
    fn with_lifetime(seconds: u64) -> Self {
        let (identity, server) = (Server::with_lifetime(300), Server::with_lifetime(seconds));
        server.tell("trust", &json!({ "issuer": identity.issuer() }));
        let mcp = McpServer::start(server.issuer());
        Self { identity, server, mcp }
    }

    fn room(&self) -> Room {
        Room::with_config(&self.config(""))
    }

    fn config(&self, more: &str) -> String {
        format!(
            "[providers.idp]\nissuer = \"{}\"\nclient_id = \"native\"\nscopes = [\"openid\", \"email\"]\nrefresh_scopes = [\"offline_access\"]\n\
             [providers.acme]\nserver = \"{}\"\nclient_id = \"enterprise\"\nflow = \"enterprise\"\nidentity_provider = \"idp\"\n{more}",
            self.identity.issuer(),
            self.mcp.url()
        )
    }

    fn log_in(&self, room: &Room) {
        let answer = room.ctl_typing(&["login", "acme", "--client-id", "enterprise", "--client-secret-stdin"], CLIENT_SECRET);
        answer.ok();
    }
}

#[test]
fn one_login_at_the_identity_provider_opens_the_mcp_server_without_a_second_one() {
    let enterprise = Enterprise::with_lifetime(LIFETIME);
    let room = enterprise.room();
    let daemon = room.start();
    daemon.log_in("idp", "alice");
    enterprise.log_in(&room);
    let token = daemon.token("acme");
    assert!(enterprise.server.is_active(&token) && !enterprise.identity.is_active(&token));
    let shown = daemon.show("/v1/grants/acme");
    assert_eq!((&shown["account"], &shown["on_demand"]), (&json!("alice"), &json!(true)), "{shown}");
    assert!(room.ctl(&["status", "acme"]).ok().stdout.contains("login: none: the identity provider idp, by the ID token of idp"));
    assert_eq!(enterprise.server.counters().requests_to("/auth"), 0, "nobody is led to a page");

    outlive(&enterprise.server, &token);
    assert_ne!(daemon.token("acme"), token);
    let (exchanged, granted) = (asked(&enterprise.identity, TOKEN_EXCHANGE), asked(&enterprise.server, JWT_BEARER));
    assert_eq!((exchanged.ok, granted.ok, granted.requests), (2, 2, 2), "an ID-JAG is good for one use");
    assert_eq!(enterprise.identity.counters().refreshes().requests, 0, "its ID token is good for long");
}

#[test]
fn an_id_token_that_has_ended_is_renewed_by_refreshing_the_grant_that_holds_it() {
    let enterprise = Enterprise::with_lifetime(LIFETIME);
    let room = enterprise.room();
    let daemon = room.start();
    enterprise.identity.tell("ttl", &json!({ "id": 30 }));
    daemon.log_in("idp", "alice");
    enterprise.identity.tell("ttl", &json!({ "id": 3600 }));
    enterprise.log_in(&room);
    assert_eq!(enterprise.identity.counters().refreshes().ok, 1, "half a minute is as good as nothing");
    outlive(&enterprise.server, &daemon.token("acme"));
    assert!(enterprise.server.is_active(&daemon.token("acme")));
    assert_eq!(enterprise.identity.counters().refreshes().ok, 1);
}

#[test]
fn when_the_login_at_the_identity_provider_is_gone_the_grant_says_which_one_is_needed() {
    let enterprise = Enterprise::with_lifetime(LIFETIME);
    let room = enterprise.room();
    let daemon = room.start();
    let refused = room.ctl_typing(&["login", "acme", "--client-id", "enterprise", "--client-secret-stdin"], CLIENT_SECRET);
    assert!(refused.code != 0 && refused.stderr.contains("mcp-authctl login idp"), "{refused:?}");
    daemon.log_in("idp", "alice");
    enterprise.log_in(&room);
    let token = daemon.token("acme");
    room.ctl(&["logout", "idp"]).ok();
    outlive(&enterprise.server, &token);
    let told = room.ctl(&["token", "acme"]).fails_with(3);
    assert!(told.stderr.contains("nobody is logged in to `idp`") && told.stderr.contains("hint: mcp-authctl login idp"), "{told:?}");
    daemon.log_in("idp", "alice");
    room.ctl(&["refresh", "acme"]).ok();
    assert!(enterprise.server.is_active(&daemon.token("acme")));
}

#[test]
fn another_person_at_the_identity_provider_does_not_slip_into_the_grant() {
    let enterprise = Enterprise::with_lifetime(LIFETIME);
    let room = enterprise.room();
    let daemon = room.start();
    daemon.log_in("idp", "alice");
    enterprise.log_in(&room);
    let token = daemon.token("acme");
    room.ctl(&["logout", "idp"]).ok();
    daemon.log_in("idp", "mallory");
    outlive(&enterprise.server, &token);
    let told = room.ctl(&["token", "acme"]).fails_with(3);
    assert!(told.stderr.contains("speaks of another person than the grant"), "{told:?}");
    assert_eq!(asked(&enterprise.server, JWT_BEARER).requests, 1);
}

#[test]
fn an_id_jag_that_is_not_what_was_asked_for_goes_nowhere() {
    let enterprise = Enterprise::with_lifetime(300);
    let room = enterprise.room();
    let daemon = room.start();
    daemon.log_in("idp", "alice");
    for (lies, told) in [
        (json!({ "aud": "https://other.example" }), "its ID-JAG is made for https://other.example, not for"),
        (json!({ "client_id": "another" }), "`client_id`"),
        (json!({ "iss": "https://other.example" }), "`iss`"),
        (json!({ "resource": "https://other.example/mcp" }), "`resource`"),
    ] {
        enterprise.identity.tell("lie", &lies);
        let refused = room.ctl_typing(&["login", "acme", "--client-id", "enterprise", "--client-secret-stdin"], CLIENT_SECRET);
        assert!(refused.code != 0 && refused.stderr.contains(told), "{lies}: {refused:?}");
    }
    assert_eq!(asked(&enterprise.server, JWT_BEARER).requests, 0);
    enterprise.identity.tell("lie", &json!({}));
    enterprise.log_in(&room);
    assert!(enterprise.server.is_active(&daemon.token("acme")));
}

#[test]
fn an_id_token_goes_to_nobody_but_the_identity_provider_that_has_made_it() {
    let (enterprise, key) = (Enterprise::with_lifetime(300), Key::named("of-nobody"));
    let room = Room::with_config("");
    let file = room.path("token");
    room.write_config(&enterprise.config(&format!("identity_token_file = \"{}\"\n", file.display())));
    let _daemon = room.start();
    let now = now_ms() / 1000;
    for (claims, told) in [
        (json!({ "iss": "https://other.example", "aud": "native", "sub": "alice", "exp": now + 600 }), "`iss`"),
        (
            json!({ "iss": enterprise.identity.issuer(), "aud": "other", "sub": "alice", "exp": now + 600 }),
            "is made for other, not for native",
        ),
        (json!({ "iss": enterprise.identity.issuer(), "aud": "native", "sub": "alice", "exp": now - 600 }), "ended at"),
    ] {
        put(&room, &key.sign(&json!({ "alg": "ES256" }), &claims));
        let refused = room.ctl_typing(&["login", "acme", "--client-id", "enterprise", "--client-secret-stdin"], CLIENT_SECRET);
        assert!(refused.code != 0 && refused.stderr.contains(told), "{refused:?}");
    }
    assert_eq!(enterprise.identity.counters().requests_to("/token") + enterprise.server.counters().requests_to("/token"), 0);
    // One that it could have made: its signature is for the identity provider to see.
    put(
        &room,
        &key.sign(
            &json!({ "alg": "ES256" }),
            &json!({ "iss": enterprise.identity.issuer(), "aud": "native", "sub": "alice", "exp": now + 600 }),
        ),
    );
    let refused = room.ctl_typing(&["login", "acme", "--client-id", "enterprise", "--client-secret-stdin"], CLIENT_SECRET).fails_with(1);
    assert!(refused.stderr.contains("the identity provider: the provider rejected the grant"), "{refused:?}");
    assert_eq!((asked(&enterprise.identity, TOKEN_EXCHANGE).requests, asked(&enterprise.server, JWT_BEARER).requests), (1, 0));
}

#[test]
fn the_id_token_of_another_program_is_exchanged_for_none_that_cannot_read_it() {
    let (enterprise, key) = (Enterprise::with_lifetime(300), Key::named("of-nobody"));
    let room = Room::with_config("");
    let daemon = room.start();
    let claims = json!({ "iss": enterprise.identity.issuer(), "aud": "native", "sub": "alice", "exp": now_ms() / 1000 + 600 });
    let file = put(&room, &key.sign(&json!({ "alg": "ES256" }), &claims));
    let identity = json!({ "provider": enterprise.identity.issuer(), "client_id": "native", "token": named(&file, "a guess") });
    let request = json!({
        "provider": enterprise.mcp.url(), "name": "acme", "client_id": "enterprise", "client_secret": CLIENT_SECRET, "identity": identity,
    });
    is_not_used(&daemon, &request, &file);
    assert_eq!(enterprise.identity.counters().requests_to("/token") + enterprise.server.counters().requests_to("/token"), 0);
}

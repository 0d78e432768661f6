//! Tokens that are bound to a key (RFC 9449): a real authorization server gives them, a server that checks every proof takes them,
//! and nobody but the relay can use them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use mcp_auth_tests::rogue::{Plan, Rogue, Rules};
use mcp_auth_tests::{BoundServer, Daemon, HttpAnswer, McpServer, RemotePlace, Room, Server, StdioServer, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);
const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;

/// A real authorization server, a server for its tokens, and a room.
struct Place {
    server: Server,
    bound: BoundServer,
    room: Room,
}

impl Place {
    fn new(lifetime: u64) -> Self {
        let server = Server::with_lifetime(lifetime);
        Self { bound: BoundServer::start(&server), server, room: Room::with_config("") }
    }

    /// Starts the daemon and logs in by the server's URL.
    #[track_caller]
    fn start(&self) -> Daemon<'_> {
        let daemon = self.room.start();
        self.room.log_in(&self.bound.url()).ok();
        daemon
    }

    #[track_caller]
    fn ping(&self, daemon: &Daemon<'_>) {
        let answer = relayed(daemon, "POST", &self.bound.name(), PING);
        assert_eq!((answer.status, answer.json()["result"].clone()), (200, json!({})), "{}", answer.body);
    }

    /// Refreshes that the authorization server has answered with a token.
    fn refreshes(&self) -> u64 {
        self.server.counters().refreshes().ok
    }
}

fn relayed(daemon: &Daemon<'_>, method: &str, grant: &str, body: &str) -> HttpAnswer {
    daemon.connect().request(method, &format!("/mcp/{grant}"), &[("content-type", "application/json")], body).unwrap()
}

#[test]
fn a_server_that_demands_bound_tokens_gets_them_with_a_proof_for_each_request() {
    let place = Place::new(300);
    let daemon = place.start();
    for _ in 0..3 {
        place.ping(&daemon);
    }
    assert_eq!(relayed(&daemon, "GET", &place.bound.name(), "").status, 405, "the server's own answer");
    assert_eq!(relayed(&daemon, "DELETE", &place.bound.name(), "").status, 200);
    let seen = place.bound.seen();
    let methods = [("DELETE", 1), ("GET", 1), ("POST", 3)].map(|(method, count)| (method.to_owned(), count));
    assert_eq!((seen.methods, seen.keys.len(), seen.tokens.len(), seen.proofs), (BTreeMap::from(methods), 1, 1, 5));
    assert_eq!(seen.refused, BTreeMap::from([("no token".to_owned(), 1)]), "the first look of the login alone");
}

#[test]
fn a_challenge_is_demand_enough_and_a_mere_offer_is_none() {
    let server = Server::with_lifetime(300);
    let bound = BoundServer::demanding(&server, "challenge");
    let bearer = McpServer::start(server.issuer());
    let room = Room::with_config("");
    let daemon = room.start();
    room.log_in(&bound.url()).ok();
    assert_eq!(relayed(&daemon, "POST", &bound.name(), PING).json()["result"], json!({}));
    room.log_in(&bearer.url()).ok();
    daemon.token(&bearer.name());
    assert_eq!(daemon.show(&format!("/v1/grants/{}", bearer.name()))["dpop"], Value::Null, "the authorization server offers it alone");
}

#[test]
fn no_program_gets_such_a_token_and_each_is_told_the_way_that_there_is() {
    let place = Place::new(300);
    let daemon = place.start();
    let name = place.bound.name();
    let refused = daemon.ask(&name);
    let body = refused.json();
    assert_eq!((refused.status, &body["error"]), (409, &json!("conflict")), "{body}");
    assert!(body["error_description"].as_str().unwrap().contains("bound to a key that stays in the daemon"), "{body}");
    assert_eq!(body["hint"], json!(format!("mcp-authctl bridge {name}")));
    let by_url = daemon.call("POST", "/v1/token", &json!({ "resource": place.bound.url() }));
    assert_eq!((by_url.status, by_url.json()["error"].clone()), (409, json!("conflict")));
    let way = format!("hint: mcp-authctl bridge {name}");
    for words in [vec!["token", &name], vec!["headers", &place.bound.url()], vec!["exec", "--set", &format!("T={name}"), "--", "true"]] {
        place.room.ctl(&words).fails_with(1).says(&way);
    }
    let host = place.server.issuer().trim_start_matches("http://").to_owned();
    let question = format!("protocol=http\nhost={host}\n\n");
    let git = place.room.ctl_typing(&["git-credential", &name, "--host", &host, "get"], &question);
    assert_eq!((git.code, git.stdout.as_str()), (1, "quit=1\n"), "{git:?}");
    let status = place.room.ctl(&["status", &name]).ok().stdout;
    assert!(status.contains(&format!("tokens: bound to a key of the daemon (DPoP), for mcp-authctl bridge {name} alone")), "{status}");
    assert!(place.room.ctl(&["status"]).ok().stdout.contains(&format!("no program gets its tokens: mcp-authctl bridge {name}")));
    place.room.ctl(&["refresh", &name]).ok();
    place.ping(&daemon);
    place.room.ctl(&["logout", &name]).ok();
    assert_eq!(place.server.counters().revocations.first().map(String::as_str), Some("refresh_token"));
}

#[test]
fn a_bridge_speaks_to_such_a_server_as_to_any_other() {
    let place = Place::new(300);
    let _daemon = place.start();
    let mut client = StdioServer::bridge(&place.room, &[&place.bound.url()]);
    assert_eq!(client.initialize()["result"]["serverInfo"]["name"], "bound");
    assert_eq!(client.ask(1, "tools/list", &json!({}))["result"], json!({ "tools": [] }));
    assert_eq!(client.end(), 0);
    assert_eq!(place.bound.seen().refused.get("no token"), Some(&1));
}

#[test]
fn servers_that_want_their_nonces_get_them_and_nothing_counts_as_failed() {
    let place = Place::new(300);
    place.server.tell("nonces", &json!({ "wanted": true }));
    place.bound.want_nonce("n-1");
    let daemon = place.start();
    for _ in 0..3 {
        place.ping(&daemon);
    }
    assert_eq!(place.bound.seen().refused.get("nonce"), Some(&1), "it is remembered");
    place.bound.want_nonce("n-2");
    place.ping(&daemon);
    place.ping(&daemon);
    assert_eq!(place.bound.seen().refused.get("nonce"), Some(&2));
    place.room.ctl(&["refresh", &place.bound.name()]).ok();
    place.ping(&daemon);
    let counters = place.server.counters();
    let codes = &counters.token["authorization_code"];
    assert_eq!((codes.ok, codes.errors.clone()), (1, BTreeMap::from([("use_dpop_nonce".to_owned(), 1)])));
    assert_eq!(
        (counters.refreshes().ok, counters.refreshes().errors.len(), counters.reuse),
        (1, 0, 0),
        "the nonce of the exchange is good"
    );
    let metrics = daemon.connect().request("GET", "/metrics", &[], "").unwrap().body;
    assert!(!metrics.lines().any(|line| line.contains("failed") && line.contains("refresh") && line.ends_with(" 1")), "{metrics}");
    assert_eq!(place.bound.seen().tokens.len(), 2, "a nonce is no reason for a refresh");
}

#[test]
fn a_restart_needs_no_nonce_of_before_to_refresh_with_the_same_key() {
    let place = Place::new(300);
    place.server.tell("nonces", &json!({ "wanted": true }));
    let daemon = place.start();
    place.ping(&daemon);
    daemon.kill();
    let daemon = place.room.start();
    place.room.ctl(&["refresh", &place.bound.name()]).ok();
    place.ping(&daemon);
    let (counters, seen) = (place.server.counters(), place.bound.seen());
    assert_eq!((counters.refreshes().ok, counters.refreshes().errors.get("use_dpop_nonce"), counters.reuse), (1, Some(&1), 0));
    assert_eq!((seen.keys.len(), seen.tokens.len()), (1, 2), "one key for both tokens");
}

#[test]
fn thirty_refreshes_and_a_restart_keep_the_key_and_never_reuse_a_refresh_token() {
    let place = Place::new(3);
    let mut daemon = place.start();
    let mut restarted = false;
    while place.refreshes() < 30 {
        let answer = relayed(&daemon, "POST", &place.bound.name(), PING).json();
        // On a busy machine a token of 3 s may expire on its way.
        let late = answer["error"]["message"].as_str().is_some_and(|said| said.contains("rejects the access token"));
        assert!(answer["result"] == json!({}) || late, "{answer}");
        if place.refreshes() >= 15 && !restarted {
            // Not killed: the server counts a refresh before its answer is on our disk.
            assert_eq!(daemon.stop().code, 0);
            daemon = place.room.start();
            restarted = true;
        }
    }
    let (seen, counters) = (place.bound.seen(), place.server.counters());
    assert_eq!((seen.keys.len(), counters.reuse, counters.token["authorization_code"].requests), (1, 0, 1));
    assert!(seen.tokens.len() >= 15, "{} tokens were used", seen.tokens.len());
    assert!(seen.refused.keys().all(|reason| reason == "no token" || reason == "token"), "{:?}", seen.refused);
}

#[test]
fn a_refresh_whose_connection_broke_is_sent_again_with_another_proof() {
    let place = Place::new(300);
    let daemon = place.start();
    place.server.tell("answer", &json!({ "path": "/token", "times": 1, "drop": "before" }));
    place.room.ctl(&["refresh", &place.bound.name()]).ok();
    place.ping(&daemon);
    let counters = place.server.counters();
    assert_eq!((counters.intercepted, counters.refreshes().ok, counters.reuse), (1, 1, 0));
}

#[test]
fn a_new_login_has_a_new_key_and_the_old_one_serves_until_then() {
    let place = Place::new(300);
    let daemon = place.start();
    place.ping(&daemon);
    let mut login = daemon.start_login(&json!({ "provider": place.bound.url() }));
    let url = login.wait_for_url();
    assert!(url.contains("dpop_jkt="), "the code is bound to the key, too: {url}");
    place.ping(&daemon);
    assert_eq!(place.bound.seen().keys.len(), 1);
    mcp_auth_tests::Person::named("alice").browse_to_the_end(&url, mcp_auth_tests::Answer::Yes);
    login.last();
    place.ping(&daemon);
    assert_eq!(place.bound.seen().keys.len(), 2);
}

#[test]
fn a_rejected_token_is_replaced_once_and_a_redirect_gets_a_proof_of_its_own() {
    let server = Server::with_lifetime(300);
    let bound = BoundServer::start(&server);
    let table = format!(
        "[providers.test]\nissuer = \"{}\"\nclient_id = \"native\"\nscopes = [\"mcp:read\", \"offline_access\"]\nresource = \"{}\"\ndpop = true\n",
        server.issuer(),
        bound.old_url()
    );
    let room = Room::with_config(&table);
    let daemon = room.start();
    room.log_in("test").ok();
    let get = relayed(&daemon, "POST", "test", PING);
    assert_eq!((get.status, get.json()["result"].clone()), (200, json!({})), "{}", get.body);
    let seen = bound.seen();
    assert_eq!((seen.good, seen.proofs, seen.refused.len()), (1, 2, 0), "one for each of both requests");
    assert_eq!(daemon.refusal("test"), "conflict");
    bound.reject(true);
    let refused = relayed(&daemon, "POST", "test", PING).json();
    assert_eq!(refused["error"]["data"]["error"], "login_required", "{refused}");
    bound.reject(false);
    assert_eq!(relayed(&daemon, "POST", "test", PING).json()["result"], json!({}));
}

#[test]
fn a_request_too_large_to_be_kept_goes_with_the_nonce_that_is_known() {
    let place = Place::new(300);
    place.bound.want_nonce("n-1");
    let daemon = place.start();
    let large = format!(r#"{{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{{"x":"{}"}}}}"#, "x".repeat(5 << 20));
    let first = relayed(&daemon, "POST", &place.bound.name(), &large).json();
    let said = first["error"]["message"].as_str().unwrap_or_default();
    assert!(said.contains("wanted another proof of") && said.contains("send it again"), "{first}");
    assert_eq!(relayed(&daemon, "POST", &place.bound.name(), &large).json()["result"], json!({}));
}

#[test]
fn a_damaged_record_takes_its_key_with_it_and_a_new_login_mends_that() {
    let place = Place::new(300);
    let daemon = place.start();
    place.ping(&daemon);
    daemon.kill();
    let records = place.room.path("state");
    let sealed = walk(&records).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "sealed"));
    let largest = sealed.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    let daemon = place.room.start();
    let open = || Some(daemon.show("/v1/status")).filter(|status| status["vault"]["state"] == "unlocked");
    assert_eq!(wait_until("an open vault", PATIENCE, open)["vault"]["quarantined"], 1);
    assert_eq!(daemon.refusal(&place.bound.name()), "unknown_grant");
    place.room.log_in(&place.bound.url()).ok();
    place.ping(&daemon);
    assert_eq!(place.bound.seen().keys.len(), 2);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

// ---- servers that cheat or are confused ----

#[test]
fn a_bearer_token_where_a_bound_one_was_demanded_is_not_taken() {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let mcp = McpServer::start(&rogue.issuer());
    mcp.describe(|metadata| metadata["dpop_bound_access_tokens_required"] = json!(true));
    let room = Room::with_config("");
    let daemon = room.start();
    let login = room.log_in(&mcp.url());
    assert_ne!(login.code, 0);
    assert!(login.stderr.contains("of type Bearer and not bound to the key that it was shown (DPoP)"), "{login:?}");
    assert_eq!(daemon.refusal(&mcp.name()), "unknown_grant");
}

#[test]
fn a_server_that_takes_other_proofs_than_ours_opens_no_page() {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let mcp = McpServer::start(&rogue.issuer());
    let table = rogue.provider_table("test", &format!("resource = \"{}\"\ndpop = true", mcp.url()));
    let room = Room::with_config(&table);
    let _daemon = room.start();
    mcp.challenge("DPoP algs=\"RS256 PS256\"");
    room.log_in(&mcp.url()).says("the server takes proofs by RS256, PS256 alone (DPoP), and ours are by ES256");
    mcp.challenge("DPoP");
    let edited = || Plan::edited(|metadata| metadata["dpop_signing_alg_values_supported"] = json!(["RS256"]));
    let other = "its authorization server takes proofs by RS256 alone (DPoP), and ours are by ES256";
    for name in [&mcp.url(), "test"] {
        rogue.plan(edited().path("/.well-known/oauth-authorization-server"));
        room.log_in(name).says(other);
    }
    assert_eq!(rogue.seen().requests_to("/authorize"), 0);
}

/// A room at a server that gives tokens which it calls bound, with a remote server that answers so to each request.
fn called_bound(challenge: &'static str, headers: &'static [(&'static str, &'static str)]) -> RemotePlace {
    let place = RemotePlace::new(move |_, reply| {
        let all = [&[("www-authenticate", challenge)], headers].concat();
        reply.whole(401, &all, "");
    });
    place.rogue.plan(Plan::edited(|answer| answer["token_type"] = json!("DPoP")).path("/token"));
    let table = place.rogue.provider_table("test", &format!("resource = \"{}\"\ndpop = true", place.remote.url()));
    place.room.write_config(&table);
    place
}

#[test]
fn a_server_that_wants_another_nonce_for_ever_is_asked_twice_and_the_token_lives() {
    let place = called_bound("DPoP error=\"use_dpop_nonce\"", &[("dpop-nonce", "n")]);
    let daemon = place.start();
    let answer = relayed(&daemon, "POST", "test", PING).json();
    assert!(answer["error"]["message"].as_str().unwrap().contains("does not take the proof of `test`"), "{answer}");
    assert_eq!((place.remote.asked().len(), place.rogue.seen().refreshes.len()), (2, 0));
    let proofs: Vec<_> = place.remote.asked().iter().map(|asked| asked.header("dpop").to_owned()).collect();
    assert!(proofs[0] != proofs[1] && proofs.iter().all(|proof| proof.split('.').count() == 3), "{proofs:?}");
}

#[test]
fn a_server_that_names_other_proofs_than_ours_is_sent_no_second_one_and_the_token_lives() {
    let place = called_bound("DPoP error=\"invalid_token\", algs=\"PS256\"", &[]);
    let daemon = place.start();
    let answer = relayed(&daemon, "POST", "test", PING).json();
    let said = answer["error"]["message"].as_str().unwrap();
    assert!(said.contains("takes proofs by PS256 alone (DPoP), and ours are by ES256"), "{said}");
    assert_eq!((place.remote.asked().len(), place.rogue.seen().refreshes.len()), (1, 0));
}

#[test]
fn a_proof_that_is_refused_for_the_clock_says_so_and_costs_no_refresh() {
    let place = called_bound("DPoP error=\"invalid_dpop_proof\"", &[("date", "Tue, 01 Jan 2030 00:00:00 GMT")]);
    let daemon = place.start();
    let answer = relayed(&daemon, "POST", "test", PING).json();
    let said = answer["error"]["message"].as_str().unwrap();
    assert!(said.contains("this machine's clock is ") && said.contains("the server's") && said.contains("hint: set the clock"), "{said}");
    assert_eq!((place.remote.asked().len(), place.rogue.seen().refreshes.len()), (1, 0));
}

#[test]
fn what_a_client_proves_itself_and_what_a_server_says_of_proofs_passes_in_neither_direction() {
    let place = called_bound("DPoP error=\"use_dpop_nonce\"", &[("dpop-nonce", "n")]);
    let daemon = place.start();
    let answer = daemon.connect().request("POST", "/mcp/test", &[("dpop", "a.b.c"), ("authorization", "DPoP x")], PING).unwrap();
    assert_eq!((answer.header("dpop-nonce"), answer.header("www-authenticate")), (None, None));
    for asked in place.remote.asked() {
        assert!(asked.header("dpop").len() > 100 && !asked.header("dpop").contains("a.b.c"));
    }
}

#[test]
fn a_config_that_binds_tokens_to_a_key_and_names_no_server_is_refused() {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let room = Room::with_config(&rogue.provider_table("test", "dpop = true"));
    let output = room.spawn().wait();
    assert_eq!(output.code, 78);
    assert!(output.stderr.contains("`dpop` is true, and `resource` is missing"), "{output:?}");
}

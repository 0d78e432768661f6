//! A client that asks for itself at a remote MCP server, known by its URL or by the config: at the real authorization server, by
//! secret and by key, through the command and through a bridge where nobody is.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_auth_proto::LoginEvent;
use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{
    Asked, CLIENT_SECRET, McpServer, RemoteServer, Reply, Room, Server, StdioServer, node, now_ms, older, post_json, wait_until,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
const WRONG: &str = "zQcS9qz-a-wrong-secret-zQcS9qz";

/// A file with this secret.
fn file(room: &Room, name: &str, secret: &str) -> String {
    let path: PathBuf = room.path(name);
    std::fs::write(&path, secret).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The arguments of a client that asks for itself by a secret, before the server.
fn by_secret<'a>(client_id: &'a str, secret: &'a str) -> [&'a str; 5] {
    ["--client-credentials", "--client-id", client_id, "--client-secret-file", secret]
}

fn by_key<'a>(client_id: &'a str, key: &'a str) -> [&'a str; 5] {
    ["--client-credentials", "--client-id", client_id, "--private-key-file", key]
}

/// A client that signs, registered by hand (RFC 7591 stands for the person at the server's desk): its id, and its key as PEM.
fn signing_client(server: &Server) -> (String, String) {
    let script = "const pair = require('crypto').generateKeyPairSync('ec', { namedCurve: 'P-256' });\
                  console.log(JSON.stringify([pair.privateKey.export({ format: 'pem', type: 'pkcs8' }), pair.publicKey.export({ format: 'jwk' })]))";
    let output = Command::new(node()).args(["-e", script]).output().unwrap();
    let (private, public): (String, Value) = serde_json::from_slice(&output.stdout).unwrap();
    let client = json!({
        "application_type": "native", "redirect_uris": [], "response_types": [], "grant_types": ["client_credentials"],
        "scope": "mcp:read mcp:write", "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256",
        "jwks": { "keys": [public] },
    });
    loop {
        let answer = post_json(&server.url("/reg"), &client);
        assert_eq!(answer.status, 201, "{}", answer.body);
        let client_id = answer.json()["client_id"].as_str().unwrap().to_owned();
        // One in 64 begins like an option, and would have to be given as `--client-id=ID`.
        if !client_id.starts_with('-') {
            return (client_id, private);
        }
    }
}

/// Waits until a token of two seconds has expired, for the server and for the daemon.
fn outlive(server: &Server, token: &str) {
    let issued = server.counters().issued.last().unwrap().at_ms;
    wait_until("the end of the token", PATIENCE, || (now_ms() > issued + 2000 && !server.is_active(token)).then_some(()));
}

fn asked_for(server: &Server) -> u64 {
    server.counters().token.get("client_credentials").map_or(0, |counters| counters.requests)
}

// ---- the command ----

#[test]
fn the_command_logs_a_client_in_at_a_url_by_its_secret_and_renews_on_demand() {
    let server = Server::with_lifetime(2);
    let (mcp, room) = (McpServer::start(server.issuer()), Room::with_config(""));
    let daemon = room.start();
    let secret = file(&room, "secret", &format!("{CLIENT_SECRET}\n"));
    let told = room.ctl(&[&["login", &mcp.url()][..], &by_secret("machine", &secret)].concat()).ok();
    for line in [
        format!("found {}; its authorization server is {}\n", mcp.url(), server.issuer()),
        "known there as the client machine that you registered; asks for mcp:read\n".to_owned(),
        format!("logged in to {} as machine", mcp.name()),
    ] {
        assert!(told.stderr.contains(&line), "{line}: {}", told.stderr);
    }
    let seen = server.counters();
    assert_eq!((seen.requests_to("/reg"), seen.requests_to("/auth")), (0, 0), "nothing is registered, nobody is led to a page");
    let shown = daemon.show(&format!("/v1/grants/{}", mcp.name()));
    assert_eq!((&shown["client_credentials"], &shown["on_demand"], &shown["resource"]), (&json!(true), &json!(true), &json!(mcp.url())));
    assert_eq!(shown["scopes"], json!(["mcp:read"]));

    let first = daemon.token(&mcp.name());
    outlive(&server, &first);
    assert_eq!(asked_for(&server), 1, "nobody asked");
    let by_url = room.ctl(&["token", &mcp.url()]).ok();
    assert!(by_url.stdout.trim() != first && server.is_active(by_url.stdout.trim()));
    outlive(&server, by_url.stdout.trim());
    daemon.stop();
    let daemon = room.start();
    assert!(server.is_active(&daemon.token(&mcp.name())), "the secret was kept");
    server.tell("ttl", &json!({ "access": 60 }));
    room.ctl(&["login", &mcp.name()]).ok();
    let token = daemon.token(&mcp.name());
    room.ctl(&["logout", &mcp.url()]).ok();
    assert!(!server.is_active(&token), "a client's token is revoked, too");
    let again = room.ctl(&["login", &mcp.url(), "--client-credentials"]).fails_with(1).says("none is known here");
    assert!(again.stderr.contains(&format!("mcp-authctl login {} --client-credentials --client-id ID", mcp.url())), "{again:?}");
}

#[test]
fn a_key_from_a_file_or_from_stdin_signs_now_and_after_a_restart() {
    let server = Server::with_lifetime(2);
    let (client_id, key) = signing_client(&server);
    let (mcp, room) = (McpServer::start(server.issuer()), Room::with_config(""));
    let daemon = room.start();
    let path = file(&room, "key.pem", &key);
    room.ctl(&[&["login", &mcp.url()][..], &by_key(&client_id, &path)].concat()).ok();
    let first = daemon.token(&mcp.name());
    assert!(server.is_active(&first));
    outlive(&server, &first);
    daemon.stop();
    let daemon = room.start();
    let second = daemon.token(&mcp.name());
    assert!(second != first && server.is_active(&second));
    room.ctl_typing(&[&["login", &mcp.url(), "--name", "other"][..], &by_key(&client_id, "-")].concat(), &key).ok();
    assert!(server.is_active(&daemon.token("other")));
}

#[test]
fn what_is_wrong_is_told_with_the_command_that_helps_and_nothing_is_kept() {
    let server = Server::with_lifetime(300);
    let (client_id, key) = signing_client(&server);
    let (_, other_key) = signing_client(&server);
    let (mcp, room) = (McpServer::start(server.issuer()), Room::with_config(""));
    let daemon = room.start();
    let url = mcp.url();
    let (secret, wrong) = (file(&room, "secret", CLIENT_SECRET), file(&room, "wrong", WRONG));
    let (key, other_key) = (file(&room, "key.pem", &key), file(&room, "other.pem", &other_key));
    let again = |id: &str, option: &str| format!("mcp-authctl login {url} --client-credentials --client-id '{id}' {option} FILE");
    for (client, said, hint) in [
        (by_secret("machine", &wrong), "invalid_client", again("machine", "--client-secret-file")),
        (by_secret("nobody", &secret), "invalid_client", again("nobody", "--client-secret-file")),
        (by_key(&client_id, &other_key), "invalid_client", again(&client_id, "--private-key-file")),
        (by_secret("basic", &secret), "grant type is not allowed", "allow this client the grant type client_credentials".to_owned()),
        (by_secret("machine", &key), "this is a private key", "--private-key-file FILE".to_owned()),
        (by_key("machine", &secret), "PEM or a JWK is wanted", "mcp-authctl login --help".to_owned()),
        (by_secret("machine", "/nowhere"), "cannot read /nowhere", "ls -l '/nowhere'".to_owned()),
    ] {
        let told = room.ctl(&[&["login", &url][..], &client].concat()).fails_with(1);
        assert!(told.stderr.contains(said) && told.stderr.contains(&hint), "{said} ({hint}): {told:?}");
        assert!(!told.stderr.contains("zQcS9qz"), "{told:?}");
    }
    room.ctl(&["login", &url, "--client-credentials", "--client-id", "machine"]).fails_with(1).says("neither a secret nor a private key");
    room.ctl(&["login", &url, "--client-credentials", "--client-id", "x", "--client-secret-file", "a", "--private-key-file", "b"])
        .fails_with(2);
    server.tell("down", &json!({ "on": true, "mode": "closed" }));
    let told = room.ctl(&[&["login", &url][..], &by_secret("machine", &secret)].concat()).fails_with(5);
    assert!(told.stderr.contains(&format!("mcp-authctl login {url}")), "{told:?}");
    assert_eq!(daemon.show("/v1/grants"), json!([]));
}

// ---- the config ----

#[test]
fn a_client_of_the_config_takes_its_secret_from_a_command_or_from_the_vault() {
    let server = Server::with_lifetime(2);
    let mcp = McpServer::start(server.issuer());
    let room = Room::with_config("");
    let path = file(&room, "secret", CLIENT_SECRET);
    let table = format!("[providers.corp]\nserver = \"{}\"\nflow = \"client_credentials\"\nclient_id = \"machine\"\n", mcp.url());
    room.write_config(&format!("{table}client_secret_command = [\"cat\", \"{path}\"]\n"));
    let daemon = room.start();
    room.ctl(&["login", "corp"]).ok();
    let first = daemon.token("corp");
    outlive(&server, &first);
    assert!(server.is_active(&daemon.token("corp")), "the command is asked again");
    room.ctl(&["logout", "corp"]).ok();

    room.write_config(&table);
    room.ctl(&["reload"]).ok();
    room.ctl(&["login", "corp"]).fails_with(1).says("neither a secret nor a private key");
    room.ctl_typing(&["provider", "set-secret", "corp"], CLIENT_SECRET).ok();
    room.ctl(&["login", "corp"]).ok();
    let second = daemon.token("corp");
    room.ctl_typing(&["provider", "set-secret", "corp"], WRONG).ok();
    outlive(&server, &second);
    let told = room.ctl(&["token", "corp"]).fails_with(3);
    let remedy = "mcp-authctl login corp --client-credentials --client-id 'machine' --client-secret-file FILE";
    assert!(told.stderr.contains("invalid_client") && told.stderr.contains(remedy), "{told:?}");
    room.ctl_typing(&["provider", "set-secret", "corp"], CLIENT_SECRET).ok();
    assert!(server.is_active(&daemon.token("corp")), "a new secret is used at once");
}

#[test]
fn what_a_rule_closes_is_not_to_be_had_under_another_name() {
    let server = Server::with_lifetime(300);
    let (mcp, other) = (McpServer::start(server.issuer()), McpServer::start(server.issuer()));
    let room = Room::with_config("");
    let (path, table) = (file(&room, "secret", CLIENT_SECRET), format!("[providers.corp]\nserver = \"{}\"\n", mcp.url()));
    room.write_config(&format!("{table}flow = \"client_credentials\"\nclient_id = \"machine\"\n"));
    let daemon = room.start();
    room.ctl(&[&["login", "corp"][..], &by_secret("machine", &path)].concat()).ok();
    room.ctl(&["login", "corp", "--account", "open"]).ok();
    room.ctl(&["policy", "add", "corp", "--program", "/usr/bin/true", "--yes"]).ok();
    let asked = asked_for(&server);
    room.ctl(&["login", "corp", "--account", "further"]).fails_with(6).says("is closed");
    let id_alone = ["--client-credentials", "--client-id", "machine"];
    for url in [mcp.url(), other.url()] {
        let told = room.ctl(&[&["login", &url, "--name", "copy"][..], &id_alone].concat());
        assert_ne!(told.code, 0, "{url}: {told:?}");
    }
    assert_eq!(asked_for(&server), asked, "nothing was asked for");
    assert!(server.is_active(&daemon.token("corp:open")), "what is there already is not touched");
}

#[test]
fn a_configured_secret_is_shown_to_the_authorization_server_of_the_config_and_another_hears_of_nobody() {
    let (server, evil) = (Server::with_lifetime(300), Rogue::start(Rules::strict(Duration::from_secs(300))));
    let (mcp, room) = (McpServer::start(&evil.issuer()), headless(""));
    let path = file(&room, "secret", CLIENT_SECRET);
    let naming = |issuers: &[&str]| mcp.describe(|metadata| metadata["authorization_servers"] = json!(issuers));
    let table = format!(
        "[providers.corp]\nserver = \"{}\"\nflow = \"client_credentials\"\nclient_id = \"machine\"\n\
         scopes = [\"mcp:read\", \"mcp:write\"]\nclient_secret_command = [\"cat\", \"{path}\"]\n",
        mcp.url()
    );
    let bound_to = |issuer: &str| room.write_config(&format!("{table}authorization_server = \"{issuer}\"\n"));
    room.write_config(&table);
    let daemon = room.start();
    let warned = room.ctl(&["doctor"]).stdout;
    assert!(warned.contains("corp: a first login shows its client secret to whomever the server names"), "{warned}");
    assert!(warned.contains("set authorization_server under [providers.corp]"), "{warned}");

    bound_to(server.issuer());
    room.ctl(&["reload"]).ok();
    let said = format!("its authorization server must be {}, and the server names {}", server.issuer(), evil.issuer());
    let told = room.ctl(&["login", "corp"]).fails_with(1).says(&said);
    assert!(told.stderr.contains("change authorization_server under [providers.corp] in config.toml"), "{told:?}");
    let checked = room.ctl(&["doctor"]).stdout;
    assert!(checked.contains(&said) && !checked.contains("shows its client secret"), "{checked}");
    let mut client = StdioServer::bridge(&room, &["corp"]);
    let error = client.initialize()["error"].clone();
    assert!(error["message"].as_str().unwrap().contains(&said), "{error}");
    client.end();
    room.ctl(&["login", "corp", "--authorization-server", &evil.issuer()]).fails_with(1).says("the config says");

    naming(&[&evil.issuer(), server.issuer()]);
    room.ctl(&["login", "corp"]).ok();
    assert!(server.is_active(&daemon.token("corp")), "it is one of those that the server names");
    let asked = asked_for(&server);
    naming(&[&evil.issuer()]);
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"mcp:write\"";
    for request in [
        json!({ "provider": "corp" }),
        json!({ "provider": "corp", "challenge": challenge, "unprompted": true, "unattended": true }),
        json!({ "provider": "corp", "account": "second" }),
    ] {
        let LoginEvent::Failed { error } = daemon.start_login(&request).last() else { panic!("{request} has brought tokens") };
        assert!(error.error_description.contains(&said), "{request}: {error}");
    }
    bound_to(&evil.issuer());
    room.ctl(&["reload"]).ok();
    room.ctl(&["token", "corp"]).fails_with(3);
    room.ctl(&["refresh", "corp"]).fails_with(3);
    bound_to(server.issuer());
    room.ctl(&["reload"]).ok();
    room.ctl(&["logout", "corp"]).ok();
    room.ctl(&["login", "corp"]).fails_with(1).says(&said);

    // The same without a config.
    let url = mcp.url();
    let by_url =
        [&["login", &url, "--name", "other", "--authorization-server", server.issuer()][..], &by_secret("machine", &path)].concat();
    let told = room.ctl(&by_url).fails_with(1).says("its authorization server must be");
    assert!(told.stderr.contains("name the new one by --authorization-server"), "{told:?}");
    assert_eq!((evil.seen().requests.len(), asked_for(&server)), (0, asked), "nobody was asked for anything");
    naming(&[server.issuer()]);
    room.ctl(&by_url).ok();
}

// ---- the bridge ----

/// An MCP server that takes the tokens of this authorization server, for `write` not the first of them.
fn guarded(server: &Arc<Server>) -> RemoteServer {
    let (server, first) = (Arc::clone(server), Mutex::new(None::<String>));
    RemoteServer::start(move |asked, reply| {
        let url = format!("http://{}/mcp", asked.header("host"));
        if asked.target.starts_with("/.well-known/oauth-protected-resource") {
            let metadata = json!({ "resource": url, "authorization_servers": [server.issuer()], "scopes_supported": ["mcp:read"] });
            return reply.whole(200, &[("content-type", "application/json")], &metadata.to_string());
        }
        if !asked.target.starts_with("/mcp") {
            return reply.whole(404, &[], "");
        }
        if !server.is_active(&reply.token) {
            return reply.whole(401, &[("www-authenticate", "Bearer error=\"invalid_token\"")], "");
        }
        let narrow = *first.lock().unwrap().get_or_insert_with(|| reply.token.clone()) == reply.token;
        judged(asked, reply, narrow);
    })
}

fn judged(asked: &Asked, reply: &mut Reply, narrow: bool) {
    let named = asked.message()["params"]["name"].clone();
    let wanted = if named == "write" && narrow { Some("mcp:write") } else { (named == "never").then_some("mcp:read") };
    match wanted {
        Some(scope) => {
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
            reply.whole(403, &[("www-authenticate", &challenge)], "");
        }
        None => older(asked, reply, |_, _| false),
    }
}

/// A room where no browser can open.
fn headless(config: &str) -> Room {
    let mut room = Room::with_config(config);
    room.unset("BROWSER");
    for absent in ["DISPLAY", "WAYLAND_DISPLAY"] {
        room.set(absent, "");
    }
    room.set("SSH_CONNECTION", "192.0.2.1 1 192.0.2.2 22");
    room
}

#[test]
fn a_bridge_over_ssh_logs_in_by_itself_and_steps_up_to_what_is_listed_but_not_for_ever() {
    let server = Arc::new(Server::with_lifetime(300));
    let (mcp, room) = (guarded(&server), headless(""));
    let listed = |scopes: &str| room.write_config(&format!("[providers.corp]\nserver = \"{}\"\nscopes = [{scopes}]\n", mcp.url()));
    listed("\"mcp:read\"");
    let daemon = room.start();
    let secret = file(&room, "secret", CLIENT_SECRET);
    let mut client = StdioServer::bridge(&room, &[&by_secret("machine", &secret)[..], &["corp"]].concat());
    assert_eq!(client.initialize()["result"]["serverInfo"]["name"], "s");
    assert_eq!(client.ask(1, "tools/call", &json!({ "name": "read" }))["result"], json!({}));
    assert_eq!(asked_for(&server), 1);
    let refused = client.ask(2, "tools/call", &json!({ "name": "write" }))["error"].clone();
    let said = refused["message"].as_str().unwrap();
    let command = "mcp-authctl login corp --scope 'mcp:read mcp:write'";
    assert!(said.contains("not among them: mcp:write") && said.contains(command), "{refused}");
    assert_eq!(asked_for(&server), 1, "nobody has said that it may have that");

    listed("\"mcp:read\", \"mcp:write\"");
    room.ctl(&["reload"]).ok();
    assert_eq!(client.ask(3, "tools/call", &json!({ "name": "write" }))["result"], json!({}), "with a token for both");
    let grant = daemon.show("/v1/grants")[0].clone();
    assert_eq!((&grant["scopes"], &grant["client_credentials"]), (&json!(["mcp:read", "mcp:write"]), &json!(true)), "{grant}");
    for id in 4..8 {
        let refused = client.ask(id, "tools/call", &json!({ "name": "never" }));
        assert!(refused["error"]["message"].is_string(), "{refused}");
    }
    assert!(asked_for(&server) <= 4, "{} tokens for a server that is never content", asked_for(&server));
    assert_eq!(client.end(), 0);

    let mut another = StdioServer::bridge(&room, &[&mcp.url()]);
    assert_eq!(another.initialize()["result"]["serverInfo"]["name"], "s", "the grant is everybody's");
}

#[test]
fn a_bridge_without_a_person_tells_its_client_why_a_login_failed_or_that_it_needs_one() {
    let server = Arc::new(Server::with_lifetime(300));
    let (mcp, room) = (guarded(&server), headless(""));
    let _daemon = room.start();
    let wrong = file(&room, "wrong", WRONG);
    let url = mcp.url();
    let mut client = StdioServer::bridge(&room, &[&by_secret("machine", &wrong)[..], &[&url]].concat());
    let error = client.initialize()["error"].clone();
    let said = error["message"].as_str().unwrap();
    assert!(said.contains("invalid_client") && said.contains("--client-secret-file FILE") && !said.contains("zQcS9qz"), "{error}");
    assert_eq!(asked_for(&server), 1);
    for id in 1..=50 {
        let error = client.ask(id, "tools/list", &json!({}))["error"].clone();
        assert!(error["message"].as_str().unwrap().contains("invalid_client"), "{error}");
    }
    let asked = asked_for(&server);
    assert!(asked <= 4, "{asked} token requests for 50 requests of a client");

    let mut client = StdioServer::bridge(&room, &[&url]);
    assert_eq!(client.initialize()["error"]["code"], -32001, "this one needs a person");
    assert_eq!((asked_for(&server), server.counters().requests_to("/reg")), (asked, 0));

    let right = file(&room, "right", CLIENT_SECRET);
    let mut client = StdioServer::bridge(&room, &[&by_secret("machine", &right)[..], &[&url]].concat());
    assert!(client.initialize()["result"].is_object(), "a slip of the pen costs nothing");
}

#[test]
fn a_bridge_to_a_configured_client_needs_no_option() {
    let server = Arc::new(Server::with_lifetime(300));
    let (mcp, room) = (guarded(&server), headless(""));
    let path = file(&room, "secret", CLIENT_SECRET);
    room.write_config(&format!(
        "[providers.corp]\nserver = \"{}\"\nflow = \"client_credentials\"\nclient_id = \"machine\"\n\
         client_secret_command = [\"cat\", \"{path}\"]\n",
        mcp.url()
    ));
    let _daemon = room.start();
    let mut clients: Vec<_> = (0..5).map(|_| StdioServer::bridge(&room, &["corp"])).collect();
    for client in &mut clients {
        assert!(client.initialize()["result"].is_object());
    }
    // One may ask for a login when that of the others is just over.
    assert!(asked_for(&server) <= 2, "one token for all of them, and not {}", asked_for(&server));
}

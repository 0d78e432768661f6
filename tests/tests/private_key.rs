//! Clients that sign for themselves (RFC 7523): keys in every form at the real server, and what becomes of wrong ones.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use mcp_auth_tests::rogue::{Demands, Proof, Rogue, Rules};
use mcp_auth_tests::{Room, Server, node, post_json};
use serde_json::{Value, json};

fn rogue(demands: Demands) -> Rogue {
    Rogue::start(Rules { demands, ..Rules::strict(Duration::from_secs(300)) })
}

#[test]
fn an_assertion_is_fresh_and_for_the_audience_and_with_the_key_id_that_the_server_wants() {
    let key = key_pair("ec", "{ namedCurve: 'P-256' }", "pkcs8").0;
    for (more, audience, key_id) in [
        ("", "{issuer}/token", None),
        ("client_key_id = \"key-2\"\nissuer = \"{issuer}\"", "{issuer}", Some("key-2")),
        ("client_assertion_audience = \"token_endpoint\"\nissuer = \"{issuer}\"", "{issuer}/token", None),
    ] {
        let rogue = rogue(Demands::default());
        let fill = |text: &str| text.replace("{issuer}", &rogue.issuer());
        rogue.rule(|rules| rules.demands.proof = Proof::Assertion(fill(audience), key_id.map(str::to_owned)));
        let room = Room::with_config(&rogue.endpoints_table("test", &format!("client_auth = \"private_key_jwt\"\n{}", fill(more))));
        let daemon = room.start();
        room.ctl_typing(&["provider", "set-secret", "test"], &key).ok();
        room.log_in("test").ok();
        let first = daemon.token("test");
        room.ctl(&["refresh", "test"]).ok();
        assert_ne!(daemon.token("test"), first);
        assert_eq!(rogue.seen().unmet, [""; 0]);
    }
}

/// A key as Node makes it: the private half as PEM of this form, or as a JWK, and the public half as a JWK.
fn key_pair(kind: &str, options: &str, form: &str) -> (String, Value) {
    let export = match form {
        "jwk" => "JSON.stringify(pair.privateKey.export({ format: 'jwk' }))".to_owned(),
        form => format!("pair.privateKey.export({{ format: 'pem', type: '{form}' }})"),
    };
    let script = format!(
        "const pair = require('crypto').generateKeyPairSync('{kind}', {options});\
         console.log(JSON.stringify([{export}, pair.publicKey.export({{ format: 'jwk' }})]))"
    );
    let output = Command::new(node()).args(["-e", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Registers a client that signs with this key (RFC 7591): its client id.
#[track_caller]
fn register(server: &Server, mut client: Value, algorithm: &str, public: &Value) -> String {
    client["application_type"] = json!("native");
    client["token_endpoint_auth_method"] = json!("private_key_jwt");
    client["token_endpoint_auth_signing_alg"] = json!(algorithm);
    client["jwks"] = json!({ "keys": [public] });
    let answer = post_json(&server.url("/reg"), &client);
    assert_eq!(answer.status, 201, "{algorithm}: {}", answer.body);
    answer.json()["client_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_client_that_signs_gets_tokens_of_its_own() {
    let server = Server::with_lifetime(60);
    let (private, public) = key_pair("ec", "{ namedCurve: 'P-256' }", "pkcs8");
    let machine = json!({ "redirect_uris": [], "response_types": [], "grant_types": ["client_credentials"], "scope": "mcp:read" });
    let client_id = register(&server, machine, "ES256", &public);
    let issuer = server.issuer();
    let room = Room::with_config(&format!(
        "[providers.test]\nissuer = \"{issuer}\"\nclient_id = \"{client_id}\"\nscopes = [\"mcp:read\"]\n\
         flow = \"client_credentials\"\nclient_auth = \"private_key_jwt\"\n"
    ));
    let daemon = room.start();
    room.ctl_typing(&["provider", "set-secret", "test"], &private).ok();
    room.ctl(&["login", "test"]).ok();
    let first = daemon.token("test");
    room.ctl(&["refresh", "test"]).ok();
    assert!(daemon.token("test") != first && server.is_active(&daemon.token("test")));
}

#[test]
fn a_private_key_proves_the_client_at_the_real_server_in_every_form_that_people_have() {
    let server = Server::with_lifetime(300);
    for (kind, options, form, algorithm) in [
        ("ec", "{ namedCurve: 'P-256' }", "pkcs8", "ES256"),
        ("ec", "{ namedCurve: 'P-256' }", "sec1", "ES256"),
        ("ec", "{ namedCurve: 'P-256' }", "jwk", "ES256"),
        ("rsa", "{ modulusLength: 2048 }", "pkcs8", "RS256"),
        ("rsa", "{ modulusLength: 2048 }", "pkcs1", "RS256"),
        ("rsa", "{ modulusLength: 3072 }", "jwk", "PS256"),
        ("ed25519", "{}", "pkcs8", "EdDSA"),
        ("ed25519", "{}", "jwk", "EdDSA"),
    ] {
        let (mut private, public) = key_pair(kind, options, form);
        if algorithm == "PS256" {
            private = private.replacen('{', "{\"alg\":\"PS256\",", 1);
        }
        let person = json!({ "redirect_uris": ["http://127.0.0.1/callback"], "grant_types": ["authorization_code", "refresh_token"] });
        let client_id = register(&server, person, algorithm, &public);
        let table = mcp_auth_tests::provider_table("test", &server, "client_auth = \"private_key_jwt\"");
        let room = Room::with_config(&table.replace("\"native\"", &format!("\"{client_id}\"")));
        let daemon = room.start();
        room.ctl_typing(&["provider", "set-secret", "test"], &private).ok();
        daemon.log_in("test", "alice");
        let before = daemon.token("test");
        room.ctl(&["refresh", "test"]).ok();
        assert_ne!(daemon.token("test"), before, "{kind} {form}");
        // Both tokens are revoked, each by a request with an assertion of its own: the server refuses a `jti` that comes again.
        let revoked = server.counters().revocations.len();
        room.ctl(&["logout", "test"]).ok();
        assert_eq!(server.counters().revocations.len() - revoked, 2, "{kind} {form}");
    }
}

#[test]
fn a_key_that_cannot_sign_is_refused_when_it_is_stored_and_not_repeated() {
    let rogue = rogue(Demands::default());
    let room = Room::with_config(&rogue.endpoints_table("test", "client_auth = \"private_key_jwt\""));
    let _daemon = room.start();
    room.ctl(&["login", "test", "--no-browser"]).fails_with(1).says("set-secret").says("private key");
    for (wrong, words) in [
        ("zQcS9qz-no-key-zQcS9qz", "not a private key"),
        ("-----BEGIN PRIVATE KEY-----\nzQcS9qz\n-----END PRIVATE KEY-----\n", "cannot be used"),
        ("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"zQcS9qz\",\"y\":\"x\"}", "public"),
    ] {
        let refused = room.ctl_typing(&["provider", "set-secret", "test"], wrong).fails_with(1).says(words);
        assert!(!refused.stderr.contains("zQcS9qz") && refused.stderr.contains("private-key.pem"), "{refused:?}");
    }
}

#[test]
fn a_private_key_never_leaves_as_a_client_secret() {
    let key = key_pair("ec", "{ namedCurve: 'P-256' }", "pkcs8").0;
    let rogue = rogue(Demands { proof: Proof::Public, ..Demands::default() });
    let room = Room::with_config(&rogue.endpoints_table("test", "client_auth = \"client_secret_post\""));
    let _daemon = room.start();
    room.ctl_typing(&["provider", "set-secret", "test"], &key).fails_with(1).says("private_key_jwt");
    // Stored while it was right, and then the config is changed.
    room.write_config(&rogue.endpoints_table("test", "client_auth = \"private_key_jwt\""));
    room.ctl(&["reload"]).ok();
    room.ctl_typing(&["provider", "set-secret", "test"], &key).ok();
    room.write_config(&rogue.endpoints_table("test", "client_auth = \"client_secret_basic\""));
    room.ctl(&["reload"]).ok();
    let refused = room.log_in("test");
    assert!(refused.code != 0 && refused.stderr.contains("private_key_jwt"), "{refused:?}");
    assert_eq!(rogue.seen().requests_to("/token"), 0, "nothing was sent");
}

//! config.toml: a typo at start, a bad reload, a definition that changes under a grant and comes back.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mcp_auth_tests::{Room, Server, provider_table, wait_until};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn a_typo_at_start_is_exit_code_78_with_file_and_line() {
    for (config, line, word) in [
        ("[providers.test]\nissuer = \"https://example.test\"\nclient_ident = \"x\"\n", ":3", "client_ident"),
        ("[providers.test]\nissuer = \n", ":2", "config.toml"),
        ("[provider.test]\nissuer = \"https://example.test\"\n", ":1", "provider"),
        ("[providers.\"../../x\"]\nissuer = \"https://example.test\"\n", ":1", "../../x"),
        ("[providers.test]\nissuer = \"http://example.test\"\nclient_id = \"x\"\n", ":2", "https"),
        ("[providers.test]\nclient_secret = \"in plain text\"\n", ":2", "set-secret"),
    ] {
        let output = Room::with_config(config).spawn().wait().fails_with(78).says(word);
        assert!(output.stderr.contains(&format!("config.toml{line}")), "{config}: {output:?}");
        assert!(!output.stderr.contains("in plain text"), "a secret in the wrong place is not repeated: {output:?}");
    }
}

#[test]
fn no_config_file_is_needed() {
    let room = Room::with_config("");
    std::fs::remove_file(room.path("config.toml")).unwrap();
    let _daemon = room.start();
    let providers = room.ctl(&["provider", "list", "--json"]).ok();
    assert!(providers.stdout.contains("github") && providers.stdout.contains("gitlab"), "{providers:?}");
}

#[test]
fn a_bad_reload_keeps_the_old_config_and_says_so() {
    let server = Server::with_lifetime(300);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    room.write_config("[providers.test]\nisuer = \"x\"\n");
    room.ctl(&["reload"]).fails_with(78).says("config.toml:2");
    assert_eq!(daemon.token("test"), token);
    assert!(daemon.show("/v1/status")["config"]["error"].as_str().unwrap().contains("isuer"));
    room.write_config(&provider_table("test", &server, ""));
    room.ctl(&["reload"]).ok();
    assert!(daemon.show("/v1/status")["config"]["error"].is_null());
    assert_eq!(daemon.token("test"), token);
}

#[test]
fn sighup_reloads_too() {
    let server = Server::with_lifetime(300);
    let room = Room::with_config("");
    let daemon = room.start();
    room.ctl(&["login", "test", "--no-browser"]).fails_with(1);
    room.write_config(&provider_table("test", &server, ""));
    daemon.running.signal(Signal::HUP);
    wait_until("the new provider", Duration::from_secs(5), || {
        daemon.show("/v1/providers").to_string().contains(server.issuer()).then_some(())
    });
    daemon.log_in("test", "alice");
}

#[test]
fn a_grant_whose_definition_changed_gets_no_token_and_heals() {
    let (server, other) = (Server::with_lifetime(300), Server::with_lifetime(300));
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let token = daemon.token("test");
    for changed in
        [provider_table("test", &other, ""), provider_table("test", &server, "").replace("\"native\"", "\"another\""), String::new()]
    {
        room.write_config(&changed);
        room.ctl(&["reload"]).ok();
        assert_eq!(daemon.refusal("test"), "login_required", "{changed}");
        room.ctl(&["token", "test"]).fails_with(3);
    }
    assert_eq!(other.counters().requests_to("/token"), 0, "no token of one server is sent to another");
    room.write_config(&provider_table("test", &server, ""));
    room.ctl(&["reload"]).ok();
    assert_eq!(daemon.token("test"), token, "the grant was kept");
}

#[test]
fn a_changed_definition_holds_across_a_restart() {
    let (server, other) = (Server::with_lifetime(5), Server::with_lifetime(5));
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    assert_eq!(daemon.stop().code, 0);
    room.write_config(&provider_table("test", &other, ""));
    let daemon = room.start();
    assert_eq!(daemon.refusal("test"), "login_required");
    assert_eq!(daemon.stop().code, 0);
    room.write_config(&provider_table("test", &server, ""));
    assert!(server.is_active(&room.start().token("test")));
    assert_eq!(other.counters().requests_to("/token"), 0);
}

#[test]
fn a_provider_that_is_defined_over_the_socket_stands_in_the_file_beside_the_comments() {
    let server = Server::with_lifetime(300);
    let room = Room::with_config("# keep me\n");
    let daemon = room.start();
    let definition = json!({ "issuer": server.issuer(), "client_id": "native", "scopes": ["openid"] });
    let answer = daemon.call("PUT", "/v1/providers/added", &definition);
    assert!(answer.status < 300, "{}", answer.body);
    let file = std::fs::read_to_string(room.path("config.toml")).unwrap();
    assert!(file.contains("# keep me") && file.contains("[providers.added]"), "{file}");
    daemon.log_in("added", "alice");
}

#[test]
fn a_client_secret_goes_to_the_vault_and_not_to_the_file() {
    let server = Server::with_lifetime(300);
    let secret = "zQcS9qz-a-client-secret-for-tests-only-zQcS9qz";
    for client in ["basic", "post"] {
        let config = provider_table("test", &server, "").replace("\"native\"", &format!("\"{client}\""));
        let room = Room::with_config(&config);
        let daemon = room.start();
        room.ctl_typing(&["provider", "set-secret", "test"], secret).ok();
        daemon.log_in("test", "alice");
        assert!(server.is_active(&daemon.token("test")), "{client}");
        assert_eq!(std::fs::read_to_string(room.path("config.toml")).unwrap(), config);
    }
}

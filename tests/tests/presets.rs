//! Every preset with its quirks, at a server that takes them: logged in, refreshed, logged out. The servers themselves are
//! somebody else's; what is shown is that no preset contradicts itself, and that its way to revoke is the one that is taken.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::time::Duration;

use mcp_auth_tests::rogue::{Demands, Rogue, Rules, Verdict};
use mcp_auth_tests::{Room, source_folder};
use serde_json::Value;

const SECRET: &str = "zQcS9qz-dialect-zQcS9qz";

/// The endpoints that config may move, and where they are at the misbehaving server, which behaves here.
const ENDPOINTS: [(&str, &str); 5] = [
    ("authorization_endpoint", "/authorize"),
    ("token_endpoint", "/token"),
    ("refresh_endpoint", "/refresh"),
    ("device_authorization_endpoint", "/device"),
    ("userinfo_endpoint", "/me"),
];

/// One line of a preset's file.
fn said(preset: &str, key: &str) -> Option<String> {
    let file = source_folder().join(format!("../daemon/src/provider/presets/{preset}.toml"));
    let text = std::fs::read_to_string(file).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
    Some(value.trim_matches('"').to_owned())
}

fn table(preset: &str, rogue: &Rogue) -> String {
    let issuer = rogue.issuer();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut lines = format!("[providers.{preset}]\nclient_id = \"native\"\nredirect_port = {port}\n");
    for (key, path) in ENDPOINTS {
        if said(preset, key).is_some() || matches!(key, "authorization_endpoint" | "token_endpoint") {
            lines.push_str(&format!("{key} = \"{issuer}{}\"\n", userinfo(preset).filter(|_| path == "/me").unwrap_or(path)));
        }
    }
    if said(preset, "issuer").is_some() {
        lines.push_str(&format!("issuer = \"{issuer}\"\n"));
    }
    if let Some(path) = revocation(preset).filter(|path| !path.is_empty()) {
        lines.push_str(&format!("revocation_endpoint = \"{issuer}{path}\"\n"));
    }
    lines
}

fn userinfo(preset: &str) -> Option<&'static str> {
    said(preset, "userinfo_request").map(|request| if request == "post" { "/slack/me" } else { "/linear/graphql" })
}

/// Where the preset's way to revoke is insisted on; GitHub's is beside the token endpoint.
fn revocation(preset: &str) -> Option<&'static str> {
    match said(preset, "revocation").unwrap().as_str() {
        "rfc7009" => Some("/revoke"),
        "google" => Some("/google/revoke"),
        "bearer" => Some("/slack/revoke"),
        "notion" => Some("/notion/revoke"),
        "supabase" => Some("/supabase/revoke"),
        "github" => Some(""),
        "none" => None,
        other => panic!("{preset}: this test does not know `{other}`"),
    }
}

#[test]
fn every_preset_logs_in_refreshes_and_revokes_as_it_says() {
    let bare = Room::with_config("");
    let daemon = bare.start();
    let known: Vec<Value> = serde_json::from_value(daemon.show("/v1/providers")).unwrap();
    let presets: Vec<_> = known.iter().filter(|provider| provider["resource"].is_null()).collect();
    assert!(presets.len() >= 28);
    drop(daemon);
    for preset in presets {
        let name = preset["name"].as_str().unwrap();
        let demands = Demands {
            own_refresh: said(name, "refresh_endpoint").is_some(),
            json: said(name, "token_request").is_some(),
            ..Demands::default()
        };
        let rogue = Rogue::start(Rules { demands, ..Rules::strict(Duration::from_secs(300)) });
        let room = Room::with_config(&table(name, &rogue));
        let daemon = room.start();
        if preset["needs_client_secret"] == true {
            room.ctl_typing(&["provider", "set-secret", name], SECRET).ok();
        }
        room.log_in(name).ok();
        let first = daemon.token(name);
        room.ctl(&["refresh", name]).ok();
        let second = daemon.token(name);
        assert!(first != second && rogue.is_active(&second), "{name}");
        let output = room.ctl(&["logout", name, "--revoke"]).ok();
        let seen = rogue.seen();
        assert_eq!((seen.count(Verdict::Granted), seen.unmet.as_slice()), (1, &[][..]), "{name}");
        let revokes = revocation(name).is_some();
        assert_eq!(!seen.revoked.is_empty(), revokes, "{name}: {output:?}");
        assert_eq!(output.stderr.contains("warning"), !revokes, "{name}: {output:?}");
    }
}

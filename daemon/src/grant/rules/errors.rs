//! The refusals as they go over the wire, with the error that an MCP server passes on as it is.

use super::super::mcp::LoginKind;
use super::super::record::Ended;
use super::*;

/// A grant of `notion:work`, from a login with a browser.
fn record() -> GrantRecord {
    let definition = Definition {
        provider: "notion".into(),
        issuer: Some("https://mcp.example.com".into()),
        authorization_endpoint: Some("https://mcp.example.com/authorize".into()),
        token_endpoint: Some("https://mcp.example.com/token".into()),
        client_id: Some("c".into()),
        ..Definition::default()
    };
    GrantRecord {
        name: "notion:work".parse().unwrap(),
        definition,
        resource: Some("https://mcp.example.com/mcp".into()),
        requested_scopes: vec!["read".into(), "offline_access".into()],
        scopes: vec!["read".into()],
        ..Scene::new(&PLAIN, Some(HOUR)).grant.record().clone()
    }
}

/// What an asker is refused with.
fn refusal(record: GrantRecord, terms: Terms, want: Want) -> String {
    let issued = record.token.issued_at;
    let now = Now { boot: Boot::from_start(DAY), wall: if want.scopes.is_empty() { issued + HOUR } else { issued } };
    let terms = Terms { refresh_ahead: false, refresh_scopes: vec!["offline_access".into()], ..terms };
    let mut grant = Grant::restore(record, Some(terms), false, now, (1, 0));
    match grant.handle(Input::Wanted(1, want), now).as_slice() {
        [Effect::Reply(1, Err(error))] => serde_json::to_string_pretty(error).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_must_log_in_gets_an_error_that_an_mcp_server_passes_on_as_it_is() {
    let ended = Some(Ended { at: Wall(1_700_000_000_000), reason: "the provider has revoked it".into() });
    let expected = r#"{
  "error": "login_required",
  "error_description": "`notion:work` needs a login: the provider has revoked it",
  "hint": "mcp-authctl login notion:work",
  "mcp": {
    "code": -32001,
    "data": {
      "authorization_url": "https://mcp.example.com/authorize",
      "code_challenge_method": "S256",
      "grant_type": "authorization_code",
      "login_command": "mcp-authctl login notion:work",
      "resource": "https://mcp.example.com/mcp",
      "scopes": [
        "read",
        "offline_access"
      ],
      "token_url": "https://mcp.example.com/token",
      "type": "oauth2"
    },
    "message": "Authentication required"
  }
}"#;
    assert_eq!(refusal(GrantRecord { ended, ..record() }, PLAIN, Want::default()), expected);
}

#[test]
fn whoever_needs_more_scopes_gets_one_that_names_the_old_and_the_new_ones() {
    let want = Want { scopes: vec!["read".into(), "write".into(), "offline_access".into()], ..Want::default() };
    let expected = r#"{
  "error": "insufficient_scope",
  "error_description": "the token of `notion:work` does not cover write",
  "hint": "mcp-authctl login notion:work --scope 'read offline_access write'",
  "mcp": {
    "code": -32001,
    "data": {
      "authorization_url": "https://mcp.example.com/authorize",
      "code_challenge_method": "S256",
      "grant_type": "authorization_code",
      "login_command": "mcp-authctl login notion:work --scope 'read offline_access write'",
      "resource": "https://mcp.example.com/mcp",
      "scopes": [
        "read",
        "offline_access",
        "write"
      ],
      "token_url": "https://mcp.example.com/token",
      "type": "oauth2"
    },
    "message": "Insufficient scope"
  }
}"#;
    assert_eq!(refusal(record(), PLAIN, want), expected);
}

#[test]
fn no_scope_that_a_server_named_breaks_out_of_the_command() {
    let want = Want { scopes: vec!["a';reboot;'".into()], ..Want::default() };
    let said: serde_json::Value = serde_json::from_str(&refusal(record(), PLAIN, want)).unwrap();
    assert_eq!(said["hint"], r"mcp-authctl login notion:work --scope 'read offline_access a'\'';reboot;'\'''");
}

#[test]
fn a_token_that_a_person_brought_has_nothing_to_authorize() {
    let definition = Definition { provider: "notion".into(), ..Definition::default() };
    let brought = GrantRecord { definition, refresh_token: None, requested_scopes: vec![], resource: None, ..record() };
    let expected = r#"{
  "error": "login_required",
  "error_description": "`notion:work` needs a login: the token has expired, and the provider gave no refresh token",
  "hint": "mcp-authctl add-token notion:work",
  "mcp": {
    "code": -32001,
    "data": {
      "authorization_url": null,
      "code_challenge_method": null,
      "grant_type": null,
      "login_command": "mcp-authctl add-token notion:work",
      "resource": null,
      "scopes": [],
      "token_url": null,
      "type": "oauth2"
    },
    "message": "Authentication required"
  }
}"#;
    assert_eq!(refusal(brought, PLAIN, Want::default()), expected);
}

#[test]
fn the_error_tells_how_the_login_is_done() {
    let ended = Some(Ended { at: Wall(1_700_000_000_000), reason: "the provider has revoked it".into() });
    for (login, grant_type, method) in [
        (LoginKind::CodeWithoutPkce, "authorization_code", serde_json::Value::Null),
        (LoginKind::Device, "urn:ietf:params:oauth:grant-type:device_code", serde_json::Value::Null),
        (LoginKind::Client, "client_credentials", serde_json::Value::Null),
    ] {
        let said = refusal(GrantRecord { ended: ended.clone(), ..record() }, Terms { login, ..PLAIN }, Want::default());
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let told = &said["mcp"]["data"];
        assert_eq!((&told["grant_type"], &told["code_challenge_method"]), (&grant_type.into(), &method), "{login:?}");
    }
}

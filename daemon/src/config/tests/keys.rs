//! What single keys of a provider may say, and which may stand together.

use super::*;

#[test]
fn values_of_more_than_one_form_are_told_what_they_may_be() {
    let idp = "[providers.corp]\nissuer = 'https://a.example'\nclient_id = 'x'\n";
    let table = [
        ("redirect_port = []", "`redirect_port` must hold between 1 and 16 ports\nhint: leave it out where any port will do"),
        ("redirect_port = [4000, 70000]", "`redirect_port` is 70000, and must be between 1 and 65535"),
        ("redirect_port = [4000, 'hunter2']", "`redirect_port` must be a whole number, not a string"),
        ("redirect_port = {}", "`redirect_port` must be a whole number or an array of them, not a table"),
        ("default_lifetime = 'hunter2'", "`default_lifetime` must be a whole number or \"never\""),
        ("default_lifetime = 0", "`default_lifetime` is 0, and must be between 1 and 315360000"),
        ("request_scope_separator = ';'", "`request_scope_separator` has an unknown value\nhint: it may be: \" \", \",\", \"+\""),
        ("token_request = 'xml'", "`token_request` has an unknown value\nhint: it may be: \"form\", \"json\""),
        ("token_params = { code_verifier = 'x' }", "`token_params` must not hold `code_verifier`, which the daemon sets itself"),
        ("device_scope_parameter = 'client_id'", "`device_scope_parameter` must not hold `client_id`, which the daemon sets itself"),
        ("login_hint_parameter = 'state'", "`login_hint_parameter` must not hold `state`, which the daemon sets itself"),
        (
            "userinfo_request = 'put'",
            "`userinfo_request` must be \"get\", \"post\" or a GraphQL query\n\
             hint: a query is written in braces: \"{ viewer { id name } }\"",
        ),
        (
            "proxy = 'https://me:hunter2@p'",
            "`proxy` holds a user name or password\nhint: leave it out here and set HTTPS_PROXY for the daemon instead",
        ),
        ("ca_file = 'ca.pem'", "`ca_file` must be an absolute path\nhint: `~` and variables are not expanded here"),
        ("allow_private = true", "`allow_private` means something only beside `server`\nhint: give `server` too, or remove it"),
        (
            "authorization_server = 'https://b.example'",
            "`authorization_server` means something only beside `server`\nhint: give `server` too, or write `issuer` in its place",
        ),
        ("verified = true", "unknown key `verified` in [providers.corp]"),
    ];
    for (line, expected) in table {
        let said = complaint(&format!("{idp}{line}"));
        assert!(said.starts_with(&format!("/c/config.toml:4: {expected}")), "{line}: {said}");
    }
}

#[test]
fn what_cannot_be_meant_together_is_told_with_the_line_that_the_person_wrote() {
    let here = "authorization_endpoint = 'https://a.example/a'\ntoken_endpoint = 'https://a.example/t'\nclient_id = 'x'\n";
    let table = [
        (
            "client_key_id = 'k'",
            "`client_key_id` means something only with client_auth = \"private_key_jwt\"\nhint: add that line, or remove this one",
        ),
        (
            "client_assertion_audience = 'issuer'\nclient_auth = 'private_key_jwt'",
            "`client_assertion_audience` is \"issuer\", and no `issuer` is given\nhint: give `issuer`, or write \"token_endpoint\"",
        ),
        (
            "pkce = 'none'\nclient_auth = 'none'",
            "`pkce` is \"none\" for a client without a secret: whoever catches the code could use it\n\
             hint: give another `client_auth`, or flow = \"device_code\"",
        ),
        (
            "flow = 'client_credentials'\nclient_auth = 'none'",
            "`flow` is \"client_credentials\" for a client without credentials\nhint: give another `client_auth`",
        ),
        (
            "flow = 'device_code'",
            "`flow` is \"device_code\", and `device_authorization_endpoint` is missing\n\
             hint: give it too, or `issuer`, from which it is discovered",
        ),
        (
            "refresh_endpoint = 'https://b.example/r'",
            "`refresh_endpoint` leads to another server than `token_endpoint`\n\
             hint: refresh tokens go only to the server that gave them; give both on one host",
        ),
    ];
    for (lines, expected) in table {
        assert_eq!(complaint(&format!("[providers.corp]\n{here}{lines}")), format!("/c/config.toml:5: {expected}"));
    }
    let half = "issuer = 'https://a.example'\nrefresh_endpoint = 'https://a.example/r'";
    assert_eq!(
        complaint(&format!("[providers.corp]\n{half}")),
        "/c/config.toml:3: `refresh_endpoint` is given without `token_endpoint`\n\
         hint: give both: refresh tokens go only to the server that gave them"
    );
    // The preset says the other half: the line is the person's own.
    assert_eq!(
        complaint("[providers.github]\nclient_id = 'x'\nrefresh_endpoint = 'https://evil.example/r'"),
        "/c/config.toml:3: `refresh_endpoint` leads to another server than `token_endpoint`\n\
         hint: refresh tokens go only to the server that gave them; give both on one host"
    );
    assert_eq!(
        complaint("[providers.gitlab]\nclient_id = 'x'\nallow_private = true"),
        "/c/config.toml:3: `allow_private` means something only beside `server`\nhint: give `server` too, or remove it"
    );
}

#[test]
fn what_takes_the_place_of_a_login_goes_with_its_own_flow_at_a_remote_server() {
    let server = "[providers.corp]\nserver = 'https://mcp.corp.example/mcp'\nclient_id = 'x'\n";
    let parsed = |lines: &str| parse(&format!("{server}{lines}")).unwrap().provider("corp").unwrap().clone();
    let workload = parsed("flow = 'jwt_bearer'\nassertion_file = '/run/token'");
    assert_eq!(workload.identity.assertion_file.as_deref(), Some(std::path::Path::new("/run/token")));
    let person = parsed("flow = 'enterprise'\nidentity_provider = 'okta'\nidentity_token_file = '/run/id'");
    assert_eq!((person.identity.provider.as_deref(), person.identity.token_file.is_some()), (Some("okta"), true));
    for (lines, told) in [
        ("assertion_file = '/run/token'", ":4: `assertion_file` means something only with flow = \"jwt_bearer\""),
        ("assertion_file = '/run/token'\nflow = 'enterprise'\nidentity_provider = 'okta'", ":4: `assertion_file` means something only"),
        ("identity_provider = 'okta'", ":4: `identity_provider` means something only with flow = \"enterprise\""),
        ("identity_token_file = '/run/id'\nflow = 'jwt_bearer'", ":4: `identity_token_file` means something only"),
        ("flow = 'enterprise'", ":4: `flow` is \"enterprise\", and `identity_provider` is missing"),
        ("flow = 'enterprise'\nidentity_provider = 'okta:work'", ":5: `identity_provider` is not the name of a provider"),
        ("flow = 'jwt_bearer'\nassertion_file = 'token'", ":5: `assertion_file` must be an absolute path"),
    ] {
        let said = complaint(&format!("{server}{lines}"));
        assert!(said.contains(told), "{lines}: {said}");
    }
    let elsewhere = complaint("[providers.corp]\nissuer = 'https://a.example'\nflow = 'jwt_bearer'");
    assert!(elsewhere.contains("`server` is missing"), "{elsewhere}");
}

#[test]
fn a_flow_without_a_page_needs_no_authorization_endpoint() {
    let table = "client_id = 'x'\ntoken_endpoint = 'https://a.example/t'\n";
    for more in ["flow = 'client_credentials'", "flow = 'device_code'\ndevice_authorization_endpoint = 'https://a.example/d'"] {
        let config = parse(&format!("[providers.corp]\n{table}{more}")).unwrap();
        assert_eq!(config.provider("corp").unwrap().endpoints.authorization, None, "{more}");
    }
}

#[test]
fn a_provider_may_have_a_network_of_its_own() {
    let common = "[network]\nproxy = 'http://p:1'\nno_proxy = ['.corp']\nca_file = '/a.pem'\n";
    let of = |lines: &str| {
        let config = parse(&format!("{common}[providers.corp]\nissuer = 'https://a.example'\n{lines}")).unwrap();
        let network = config.network_of(config.provider("corp").unwrap());
        (network, config.networks().len())
    };
    let common = parse(common).unwrap().network;
    assert_eq!(of(""), (common.clone(), 1));
    let direct = Network { proxy: Some(Proxy::Direct), no_proxy: None, ..common.clone() };
    assert_eq!(of("proxy = 'none'"), (direct, 2));
    let through = Network { proxy: Some(Proxy::Through("socks5h://q:2".into())), no_proxy: None, ca_file: Some("/b.pem".into()) };
    assert_eq!(of("proxy = 'socks5h://q:2'\nca_file = '/b.pem'"), (through, 2));
    assert_eq!(of("ca_file = '/b.pem'"), (Network { ca_file: Some("/b.pem".into()), ..common }, 2));
}

#[test]
fn a_list_of_ports_is_shown_as_redirect_uris_and_filled_into_the_steps() {
    let text = "[providers.corp]\nissuer = 'https://a.example'\nredirect_port = [4000, 4001]\nregistration_steps = ['Add {redirect_uri}']";
    let config = parse(text).unwrap();
    let provider = config.provider("corp").unwrap();
    assert_eq!(provider.redirect_uri_for_registration(), "http://127.0.0.1:4000/callback");
    assert_eq!(provider.registration_steps, ["Add http://127.0.0.1:4000/callback, http://127.0.0.1:4001/callback"]);
}

#[test]
fn a_remote_server_stands_alone_since_the_rest_is_discovered() {
    let server = "[providers.corp]\nserver = 'https://mcp.corp.example/mcp'\n";
    let issuer = "authorization_server = 'https://login.corp.example/'\n";
    let good = parse(&format!("{server}{issuer}allow_private = true\nclient_id = 'x'\nscopes = ['a']")).unwrap();
    let provider = good.provider("corp").unwrap();
    assert_eq!(provider.authorization_server.as_deref(), Some("https://login.corp.example/"), "byte for byte");
    assert!(complaint(&format!("{server}authorization_server = 'http://a.example'")).contains("`authorization_server` uses http"));
    assert_eq!((provider.server.as_deref(), provider.allow_private), (Some("https://mcp.corp.example/mcp"), true));
    for line in
        ["issuer = 'https://a.example'", "token_endpoint = 'https://a.example/t'", "preset = 'gitlab'", "base_url = 'https://a.example'"]
    {
        let said = complaint(&format!("{server}{line}"));
        assert!(said.contains("means nothing beside `server`") && said.contains(":3: "), "{line}: {said}");
    }
    assert!(complaint("[providers.corp]\nserver = 'http://mcp.corp.example'").contains("`server` uses http"));
    assert!(complaint(&format!("{server}flow = 'device_code'")).contains("which remote MCP servers do not have"));
    let public = complaint(&format!("{server}flow = 'client_credentials'\nclient_auth = 'none'"));
    assert!(public.contains("for a client without credentials"), "{public}");
}

#[test]
fn a_client_that_asks_for_itself_at_a_remote_server_lacks_what_nobody_can_register_for_it() {
    let server = "[providers.corp]\nserver = 'https://mcp.corp.example/mcp'\nflow = 'client_credentials'\n";
    let missing = |more: &str| parse(&format!("{server}{more}")).unwrap().provider("corp").unwrap().missing(false);
    assert_eq!(missing(""), ["client_id", "client_secret"]);
    assert_eq!(missing("client_id = 'x'"), ["client_secret"]);
    assert!(
        missing("client_id = 'x'\nclient_auth = 'private_key_jwt'\nclient_assertion_audience = 'issuer'\nclient_secret_command = ['pass']")
            .is_empty()
    );
}

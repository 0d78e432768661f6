//! What every preset must hold, and how config lies over one.

use super::*;

#[test]
fn every_preset_parses_and_is_checked() {
    for source in &SOURCES {
        parse(source.name, source.text).unwrap_or_else(|error| panic!("{}: {error}", source.name));
    }
    assert!(SOURCES.is_sorted_by_key(|source| source.name));
    assert_eq!(all().count(), SOURCES.len());
}

/// Every preset with a client, at the base URL of its example where it has no server of its own.
fn configured() -> Vec<(&'static Preset, Provider)> {
    let provider = |preset: &'static Preset| {
        let base_url = preset.file.base_url_example.iter().map(|example| format!("base_url = {example:?}\n"));
        let config = base_url.chain(["client_id = 'x'".to_owned()]).collect::<String>();
        (preset, provider(preset.name, toml::from_str(&config).unwrap()).unwrap_or_else(|wrong| panic!("{}: {}", preset.name, wrong.what)))
    };
    all().map(provider).collect()
}

#[test]
fn each_preset_needs_what_its_table_says() {
    // name, missing of the bare preset, the usual flow and the others, redirect to register
    let table = [
        ("asana", "client_id client_secret", "code", "http://localhost:27631/callback"),
        ("atlassian", "client_id client_secret", "code", "http://localhost:27631/callback"),
        ("auth0", "base_url client_id", "code device", "http://127.0.0.1:27631/callback"),
        ("bitbucket", "client_id client_secret", "code", "http://localhost:27631/callback"),
        ("box", "client_id client_secret", "code", "http://127.0.0.1/callback"),
        ("clerk", "base_url client_id", "code", "http://127.0.0.1:27631/callback"),
        ("discord", "client_id", "code", "http://127.0.0.1:27631/callback"),
        ("dropbox", "client_id", "code", "http://localhost:27631/callback"),
        ("entra", "client_id", "code device", "http://localhost/callback"),
        ("figma", "client_id client_secret", "code", "http://localhost:27631/callback"),
        ("github", "client_id", "code device", "http://127.0.0.1/callback"),
        ("github-app", "client_id", "code device", "http://127.0.0.1/callback"),
        ("gitlab", "client_id", "code device", "http://127.0.0.1/callback"),
        ("google", "client_id client_secret", "code device", "http://127.0.0.1/callback"),
        ("hubspot", "client_id client_secret", "code", "http://localhost:27631/callback"),
        ("huggingface", "client_id", "code device", "http://127.0.0.1/callback"),
        ("keycloak", "base_url client_id", "code device", "http://127.0.0.1/callback"),
        ("linear", "client_id", "code", "http://localhost:27631/oauth/callback"),
        ("notion", "client_id client_secret", "code", "http://localhost:27631/callback"),
        ("okta", "base_url client_id", "code", "http://127.0.0.1:27631/callback"),
        ("salesforce", "client_id", "code", "http://localhost:27631/callback"),
        ("sentry", "client_id", "code device", "http://127.0.0.1/callback"),
        ("slack", "client_id", "code", "http://localhost:27631/callback"),
        ("spotify", "client_id", "code", "http://127.0.0.1/callback"),
        ("supabase", "base_url client_id", "code", "http://127.0.0.1:27631/callback"),
        ("supabase-api", "client_id client_secret", "code", "http://localhost:27631/callback"),
        ("twitch", "client_id", "device code", "http://localhost:27631/callback"),
        ("zoom", "client_id", "code", "http://127.0.0.1/callback"),
    ];
    assert_eq!(table.map(|row| row.0).to_vec(), all().map(Preset::name).collect::<Vec<_>>());
    for (name, missing, flows, redirect) in table {
        let summary = find(name).unwrap().provider().summary(false);
        assert_eq!(summary.missing.join(" "), missing, "{name}");
        assert_eq!(summary.flows.join(" "), flows, "{name}");
        assert_eq!(summary.redirect_uri, redirect, "{name}");
        assert!(!summary.configured && !summary.title.unwrap_or_default().is_empty(), "{name}");
    }
    for (preset, provider) in configured() {
        assert!(provider.missing(true).is_empty(), "{}: {:?}", preset.name, provider.missing(true));
    }
}

#[test]
fn every_url_is_https_and_what_is_secret_stays_at_the_server_that_gave_it() {
    // Where one company answers under several domains.
    let relatives = [("google", "googleapis.com"), ("dropbox", "dropboxapi.com"), ("hubspot", "hubapi.com")];
    let domain = |url: &str| {
        let url = url::Url::parse(url).unwrap();
        assert_eq!(url.scheme(), "https", "{url}");
        let labels: Vec<_> = url.host_str().unwrap().split('.').map(str::to_owned).collect();
        labels[labels.len().saturating_sub(2)..].join(".")
    };
    for (preset, provider) in configured() {
        let of = &provider.endpoints;
        let all = [&provider.issuer, &of.authorization, &of.token, &of.refresh, &of.revocation, &of.userinfo, &of.device];
        let domains: Vec<_> = all.into_iter().flatten().map(|url| domain(url)).collect();
        assert!(!domains.is_empty(), "{}", preset.name);
        for other in &domains {
            let related = relatives.contains(&(preset.name, other.as_str()));
            assert!(*other == domains[0] || related, "{}: {other} beside {}", preset.name, domains[0]);
        }
        for url in provider.registration_url.iter().chain(&preset.provenance().sources) {
            domain(url);
        }
    }
}

#[test]
fn every_registration_step_is_ready_to_be_followed() {
    for (preset, provider) in configured() {
        let (name, steps) = (preset.name, &provider.registration_steps);
        assert!(steps.iter().all(|step| !step.contains(['{', '}'])), "{name}: {steps:?}");
        let redirect = provider.redirect_uri_for_registration();
        assert!(steps.iter().any(|step| step.contains(&redirect)), "{name}: no step says what redirect to register");
        let add = format!("mcp-authctl provider add {name} ");
        assert!(steps.iter().any(|step| step.contains(&add) && step.contains("--client-id ")), "{name}: {steps:?}");
        let stores = steps.iter().any(|step| step.contains(&format!("mcp-authctl provider set-secret {name}")));
        assert!(stores || !provider.summary(false).missing.contains(&"client_secret".to_owned()), "{name}: {steps:?}");
        assert!(steps.iter().any(|step| provider.registration_url.as_ref().is_none_or(|url| step.contains(url))), "{name}");
        // `output::field` cuts longer ones.
        assert!(steps.iter().chain(&provider.summary(false).notes).all(|text| text.len() <= 300), "{name}");
    }
}

#[test]
fn every_preset_says_when_and_from_what_it_was_made() {
    for preset in all() {
        let Provenance { verified, checked, sources } = preset.provenance();
        let (year, month) = checked.as_deref().and_then(|checked| checked.split_once('-')).unwrap_or_else(|| panic!("{}", preset.name));
        assert!(year.parse().is_ok_and(|year: u16| year >= 2026) && month.parse().is_ok_and(|month: u8| (1..=12).contains(&month)));
        assert!(!verified, "{}: a login at the real service was made? Then say which and when in the file", preset.name);
        assert!(!sources.is_empty(), "{}", preset.name);
    }
}

#[test]
fn a_preset_for_servers_of_ones_own_asks_for_the_base_url_by_name() {
    let wrong = provider("auth0", toml::from_str("client_id = 'x'").unwrap()).unwrap_err();
    assert_eq!(wrong.what, "`base_url` is missing: the preset `auth0` is for a server of your own");
    assert!(wrong.hint.unwrap().contains("base_url = \"https://TENANT.eu.auth0.com\""));
    let bare = find("auth0").unwrap().provider();
    assert_eq!(bare.summary(false).base_url_example.as_deref(), Some("https://TENANT.eu.auth0.com"));
    assert_eq!(find("gitlab").unwrap().provider().summary(false).base_url_example, None);
    assert_eq!((&bare.issuer, &bare.endpoints.token, &bare.endpoints.userinfo), (&None, &None, &None), "nothing is sent to an example");
    let whole = provider("auth0", toml::from_str("client_id = 'x'\nbase_url = 'https://corp.eu.auth0.com/'").unwrap()).unwrap();
    assert_eq!(whole.issuer.as_deref(), Some("https://corp.eu.auth0.com/"));
    assert_eq!(whole.endpoints.token.as_deref(), Some("https://corp.eu.auth0.com/oauth/token"));
    let okta = provider("okta", toml::from_str("client_id = 'x'\nbase_url = 'https://corp.okta.com/oauth2/default'").unwrap()).unwrap();
    assert_eq!((okta.issuer.as_deref(), okta.endpoints.token), (Some("https://corp.okta.com/oauth2/default"), None));
}

#[test]
fn a_preset_alone_may_send_refreshes_elsewhere_and_says_how_well_it_is_known() {
    let text = "title = 'Test'\n[provider]\nauthorization_endpoint = 'https://a.example/a'\ntoken_endpoint = 'https://a.example/t'\n\
                refresh_endpoint = 'https://b.example/r'\n[provenance]\nverified = true\nchecked = '2026-11'\nsources = ['a page']";
    let preset = parse("test", text).unwrap();
    assert_eq!(preset.provider().endpoints.refresh.as_deref(), Some("https://b.example/r"));
    assert_eq!((preset.provenance().verified, preset.provenance().sources.len()), (true, 1));
    let moved = toml::from_str("token_endpoint = 'https://a.example/other'").unwrap();
    let whole = preset.below(&moved);
    assert!(combinations(&moved, &whole).is_err(), "the person's own endpoints are held together");
}

#[test]
fn endpoints_follow_the_base_url() {
    // preset, base_url, token, userinfo, revocation
    let table = [
        ("github", "", "https://github.com/login/oauth/access_token", "https://api.github.com/user", ""),
        ("github", "https://github.com/", "https://github.com/login/oauth/access_token", "https://api.github.com/user", ""),
        (
            "github-app",
            "https://ghe.corp.example/",
            "https://ghe.corp.example/login/oauth/access_token",
            "https://ghe.corp.example/api/v3/user",
            "",
        ),
        (
            "gitlab",
            "https://corp.example/gitlab",
            "https://corp.example/gitlab/oauth/token",
            "https://corp.example/gitlab/api/v4/user",
            "https://corp.example/gitlab/oauth/revoke",
        ),
    ];
    for (preset, base_url, token, userinfo, revocation) in table {
        let base = if base_url.is_empty() { String::new() } else { format!("base_url = {base_url:?}") };
        let config = toml::from_str(&format!("preset = {preset:?}\n{base}")).unwrap();
        let provider = provider("corp", config).unwrap();
        assert_eq!(provider.endpoints.token.as_deref(), Some(token));
        assert_eq!(provider.endpoints.userinfo.as_deref(), Some(userinfo));
        assert_eq!(provider.endpoints.revocation.as_deref().unwrap_or_default(), revocation);
        assert_eq!((provider.name.as_str(), provider.preset.as_deref()), ("corp", Some(preset)));
    }
}

#[test]
fn config_overrides_a_preset_key_by_key_and_the_steps_follow() {
    let config = toml::from_str("client_id = 'x'\nscopes = ['gist']\nredirect_host = 'localhost'\nredirect_port = 4000").unwrap();
    let provider = provider("github", config).unwrap();
    let preset = find("github").unwrap().provider();
    assert_eq!(provider.scopes, ["gist"]);
    assert_eq!(provider.refresh_scopes, preset.refresh_scopes);
    assert_eq!(provider.endpoints, preset.endpoints);
    assert_eq!(provider.redirect_uri_for_registration(), "http://localhost:4000/callback");
    assert!(provider.registration_steps.contains(&"Authorization callback URL: http://localhost:4000/callback".to_owned()));
    assert_eq!(provider.quirks.invalid_grant_codes, ["invalid_grant", "bad_refresh_token"]);
}

#[test]
fn the_code_or_token_of_one_server_never_goes_to_another() {
    let elsewhere = "authorization_endpoint = 'https://x.example/a'\ntoken_endpoint = 'https://x.example/t'";
    let table = [
        ("issuer = 'https://x.example'", "`issuer` leads to another server than the `authorization_endpoint` of the preset `github`"),
        (
            "token_endpoint = 'https://x.example/t'",
            "`token_endpoint` leads to another server than the `authorization_endpoint` of the preset `github`",
        ),
        (elsewhere, "`token_endpoint` leads to another server than the `userinfo_endpoint` of the preset `github`"),
        ("token_endpoint = 'https://github.com/other'", ""),
    ];
    let google = "issuer = 'https://accounts.google.com'\ntoken_endpoint = 'https://oauth2.googleapis.com/token'";
    assert!(provider("google", toml::from_str(google).unwrap()).is_ok(), "it only repeats the preset");
    for (config, what) in table {
        let wrong = provider("github", toml::from_str(config).unwrap()).err().map(|wrong| wrong.what);
        assert_eq!(wrong.unwrap_or_default(), what, "{config}");
    }
}

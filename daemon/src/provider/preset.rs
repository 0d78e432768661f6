//! The built-in presets, and how a table of config.toml lies over one.
//!
//! Owns the list and the templates `{base_url}` and `{api_base_url}`. What a preset says is in `presets/*.toml`.

use std::sync::LazyLock;

use serde::Deserialize;
use toml::Spanned;

use super::Provider;
use super::check;
use super::table::{Table, Wrong, combinations};

/// A built-in preset.
#[derive(Debug)]
pub struct Preset {
    name: &'static str,
    file: File,
    provider: Provider,
}

/// How well a preset is known to be right.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provenance {
    /// It was checked against the real service, not against documents alone.
    pub verified: bool,
    /// When it was last checked: `YYYY-MM`.
    pub checked: Option<String>,
    /// The documents that it was made from.
    pub sources: Vec<String>,
}

/// Every preset, sorted by name.
pub fn all() -> &'static [Preset] {
    &PRESETS
}

/// The preset of this name.
pub fn find(name: &str) -> Option<&'static Preset> {
    all().iter().find(|preset| preset.name == name)
}

/// Checks a table of config.toml and lays it over its preset: the one that it names, else the one that it is named like.
pub fn provider(name: &str, config: Table) -> Result<Provider, Wrong> {
    config.check()?;
    let preset = match &config.preset {
        Some(named) => Some(find(named.get_ref()).ok_or_else(|| unknown(named))?),
        None => find(name),
    };
    match preset {
        Some(preset) => {
            let whole = preset.below(&config);
            preset.fits(&config, &whole)?;
            combinations(&config, &whole)?;
            whole.provider(name, Some(preset.name))
        }
        None => {
            stands_alone(name, &config)?;
            combinations(&config, &config)?;
            config.provider(name, None)
        }
    }
}

impl Preset {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The provider that it is without config.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// How well it is known to be right.
    pub fn provenance(&self) -> &Provenance {
        &self.file.provenance
    }

    /// The table laid over the preset, templates filled.
    fn below(&self, config: &Table) -> Table {
        below(&self.file, config)
    }

    /// Refuses a mixture of two servers: the code or token of one would be sent to the other.
    fn fits(&self, config: &Table, whole: &Table) -> Result<(), Wrong> {
        let logins = [
            ("issuer", &config.issuer, &whole.issuer),
            ("authorization_endpoint", &config.authorization_endpoint, &whole.authorization_endpoint),
            ("token_endpoint", &config.token_endpoint, &whole.token_endpoint),
        ];
        for (key, given) in logins.iter().filter_map(|(key, given, _)| Some((key, given.as_ref()?))) {
            let elsewhere = |value: &Option<Spanned<String>>| value.as_ref().is_some_and(|value| origin(value) != origin(given));
            let mixed = logins.iter().find(|(_, config, whole)| config.is_none() && elsewhere(whole));
            if let Some((other, ..)) = mixed {
                return Err(self.mixture(key, given, other));
            }
        }
        let Some(token) = &config.token_endpoint else { return Ok(()) };
        if self.provider.endpoints.token.as_deref().and_then(check::origin) == origin(token) {
            return Ok(());
        }
        let held = [
            ("refresh_endpoint", &config.refresh_endpoint, &whole.refresh_endpoint),
            ("userinfo_endpoint", &config.userinfo_endpoint, &whole.userinfo_endpoint),
            ("revocation_endpoint", &config.revocation_endpoint, &whole.revocation_endpoint),
            ("device_authorization_endpoint", &config.device_authorization_endpoint, &whole.device_authorization_endpoint),
        ];
        match held.iter().find(|(_, config, whole)| config.is_none() && whole.is_some()) {
            Some((other, ..)) => Err(self.mixture("token_endpoint", token, other)),
            None => Ok(()),
        }
    }

    fn mixture(&self, key: &str, given: &Spanned<String>, other: &str) -> Wrong {
        let what = format!("`{key}` leads to another server than the `{other}` of the preset `{}`", self.name);
        Wrong::table(what, "for a self-managed server set `base_url`, or give every endpoint").at(given.span())
    }
}

fn origin(url: &Spanned<String>) -> Option<String> {
    check::origin(url.get_ref())
}

/// What a preset's file holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    provider: Table,
    /// `verified`, `checked`, `sources`: they belong to the file, and no config may claim them.
    #[serde(default)]
    provenance: Provenance,
    /// Lies between config and preset where config gives another `base_url`.
    #[serde(default)]
    self_managed: Table,
}

const FILES: [(&str, &str); 3] = [
    ("github", include_str!("presets/github.toml")),
    ("github-app", include_str!("presets/github-app.toml")),
    ("gitlab", include_str!("presets/gitlab.toml")),
];

static PRESETS: LazyLock<Vec<Preset>> =
    LazyLock::new(|| FILES.iter().map(|(name, text)| parse(name, text).expect("a test parses every preset")).collect());

fn parse(name: &'static str, text: &str) -> Result<Preset, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let whole = below(&file, &Table::default());
    let provider = whole
        .check()
        .and_then(|()| combinations(&Table::default(), &whole))
        .and_then(|()| whole.provider(name, Some(name)))
        .map_err(|wrong| wrong.what)?;
    Ok(Preset { name, file, provider })
}

fn below(file: &File, config: &Table) -> Table {
    let get = |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.get_ref().trim_end_matches('/').to_owned());
    let mut preset = file.provider.clone();
    let base_url = get(&config.base_url);
    if base_url.is_some() && base_url != get(&preset.base_url) {
        preset = file.self_managed.clone().over(preset);
    }
    let base_url = base_url.or_else(|| get(&preset.base_url)).unwrap_or_default();
    let api_base_url = get(&config.api_base_url).or_else(|| get(&preset.api_base_url)).unwrap_or_default().replace("{base_url}", &base_url);
    let templates = [
        &mut preset.api_base_url,
        &mut preset.issuer,
        &mut preset.authorization_endpoint,
        &mut preset.token_endpoint,
        &mut preset.refresh_endpoint,
        &mut preset.revocation_endpoint,
        &mut preset.userinfo_endpoint,
        &mut preset.device_authorization_endpoint,
        &mut preset.registration_url,
    ];
    for text in templates.into_iter().flatten() {
        let filled = text.get_ref().replace("{base_url}", &base_url).replace("{api_base_url}", &api_base_url);
        *text.get_mut() = filled;
    }
    config.clone().over(preset)
}

fn stands_alone(name: &str, config: &Table) -> Result<(), Wrong> {
    for (key, value) in [("base_url", &config.base_url), ("api_base_url", &config.api_base_url)] {
        if let Some(value) = value {
            let hint = format!("add preset = \"...\", one of: {}", names());
            return Err(Wrong::table(format!("`{key}` means something only with a preset"), hint).at(value.span()));
        }
    }
    if config.issuer.is_some() || config.needs_no_authorization_endpoint() && config.token_endpoint.is_some() {
        return Ok(());
    }
    match (&config.authorization_endpoint, &config.token_endpoint) {
        (Some(_), Some(_)) => Ok(()),
        (Some(given), None) => {
            Err(Wrong::table("`token_endpoint` is missing", "give it too, or `issuer`, from which it is discovered").at(given.span()))
        }
        (None, Some(given)) => {
            Err(Wrong::table("`authorization_endpoint` is missing", "give it too, or `issuer`, from which it is discovered")
                .at(given.span()))
        }
        (None, None) => Err(Wrong::table(format!("[providers.{name}] names no authorization server"), no_server_hint(name))),
    }
}

fn no_server_hint(name: &str) -> String {
    match check::nearest(name, all().iter().map(Preset::name)) {
        Some(near) => format!("did you mean [providers.{near}]? Else give preset, issuer, or authorization_endpoint and token_endpoint"),
        None => "give preset, issuer, or authorization_endpoint and token_endpoint".to_owned(),
    }
}

fn unknown(named: &Spanned<String>) -> Wrong {
    let shown: String = named.get_ref().escape_debug().take(64).collect();
    Wrong::table(format!("there is no preset `{shown}`"), format!("the presets are: {}", names())).at(named.span())
}

fn names() -> String {
    all().iter().map(Preset::name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Pkce;

    #[test]
    fn every_preset_parses_and_is_checked() {
        for (name, text) in FILES {
            parse(name, text).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(all().is_sorted_by_key(Preset::name));
    }

    #[test]
    fn each_preset_needs_what_its_table_says() {
        // name, missing without secret, missing with one, scopes, refresh scopes, redirect
        let table = [
            ("github", "client_id client_secret", "client_id", "repo read:org read:user", "offline_access", "http://127.0.0.1/callback"),
            ("github-app", "client_id client_secret", "client_id", "", "", "http://127.0.0.1/callback"),
            ("gitlab", "client_id", "client_id", "api read_repository", "", "http://127.0.0.1/callback"),
        ];
        assert_eq!(table.map(|row| row.0).to_vec(), all().iter().map(Preset::name).collect::<Vec<_>>());
        for (name, bare, with_secret, scopes, refresh_scopes, redirect) in table {
            let provider = find(name).unwrap().provider();
            assert_eq!(provider.missing(false).join(" "), bare, "{name}");
            assert_eq!(provider.missing(true).join(" "), with_secret, "{name}");
            assert_eq!(provider.scopes.join(" "), scopes, "{name}");
            assert_eq!(provider.refresh_scopes.join(" "), refresh_scopes, "{name}");
            assert_eq!(provider.redirect_uri_for_registration(), redirect, "{name}");
            assert!(provider.quirks.pkce == Some(Pkce::S256) && provider.quirks.refresh_invalidates_access_token, "{name}");
            assert!(provider.registration_steps.iter().any(|step| step.contains(redirect)), "{name}");
            assert!(provider.registration_steps.iter().all(|step| !step.contains(['{', '}'])), "{name}");
            assert!(provider.registration_url.is_some() && !provider.configured && provider.issuer.is_none(), "{name}");
        }
    }

    #[test]
    fn a_preset_alone_may_send_refreshes_elsewhere_and_says_how_well_it_is_known() {
        let text = "[provider]\nauthorization_endpoint = 'https://a.example/a'\ntoken_endpoint = 'https://a.example/t'\n\
                    refresh_endpoint = 'https://b.example/r'\n[provenance]\nverified = true\nchecked = '2026-11'\nsources = ['a page']";
        let preset = parse("test", text).unwrap();
        assert_eq!(preset.provider().endpoints.refresh.as_deref(), Some("https://b.example/r"));
        assert_eq!((preset.provenance().verified, preset.provenance().sources.len()), (true, 1));
        assert_eq!(find("github").unwrap().provenance(), &Provenance::default());
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
        for (config, what) in table {
            let wrong = provider("github", toml::from_str(config).unwrap()).err().map(|wrong| wrong.what);
            assert_eq!(wrong.unwrap_or_default(), what, "{config}");
        }
    }
}

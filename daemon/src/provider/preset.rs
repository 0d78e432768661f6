//! The built-in presets, and how a table of config.toml lies over one.
//!
//! Owns the list and the templates `{base_url}` and `{api_base_url}`. What a preset says is in `presets/*.toml`.

use std::sync::OnceLock;

use mcp_auth_proto::similar;
use serde::Deserialize;
use toml::Spanned;

use super::check;
use super::table::{Table, Wrong, combinations};
use super::{Flow, Provider};

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
pub fn all() -> impl Iterator<Item = &'static Preset> {
    SOURCES.iter().map(Source::preset)
}

/// The preset of this name.
pub fn find(name: &str) -> Option<&'static Preset> {
    SOURCES.iter().find(|source| source.name == name).map(Source::preset)
}

/// Checks a table of config.toml and lays it over its preset: the one that it names, else the one that it is named like.
pub fn provider(name: &str, config: Table) -> Result<Provider, Wrong> {
    config.check()?;
    if config.server.is_some() {
        discovered(&config)?;
        combinations(&config, &config)?;
        return config.provider(name, None);
    }
    let preset = match &config.preset {
        Some(named) => Some(find(named.get_ref()).ok_or_else(|| unknown(named))?),
        None => find(name),
    };
    match preset {
        Some(preset) => {
            let whole = preset.below(&config);
            preset.has_server(&whole)?;
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

    /// Its file, as it is.
    #[cfg(test)]
    pub(super) fn text(&self) -> &'static str {
        SOURCES.iter().find(|source| source.name == self.name).map_or("", |source| source.text)
    }

    /// What people call it.
    pub fn title(&self) -> &str {
        &self.file.title
    }

    /// What a person should know of it, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.file.notes
    }

    /// What a base URL looks like, where it has no server of its own.
    pub fn base_url_example(&self) -> Option<&str> {
        self.file.base_url_example.as_deref()
    }

    /// Whether its server is known to have a device flow.
    pub fn has_device(&self) -> bool {
        self.file.provider.device_authorization_endpoint.is_some()
    }

    fn has_server(&self, whole: &Table) -> Result<(), Wrong> {
        let given = whole.issuer.is_some() || whole.authorization_endpoint.is_some() && whole.token_endpoint.is_some();
        let Some(example) = self.file.base_url_example.as_ref().filter(|_| !given) else { return Ok(()) };
        let what = format!("`base_url` is missing: the preset `{}` is for a server of your own", self.name);
        Err(Wrong::table(what, format!("set base_url = \"{example}\" with your own words in it (mcp-authctl provider add: --base-url)")))
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
        let of = &self.provider;
        let own = [&of.issuer, &of.endpoints.authorization, &of.endpoints.token];
        let is_own = |given: &Spanned<String>| own.into_iter().flatten().any(|own| own == given.get_ref());
        // What only repeats the preset changes nothing, on however many hosts that is (Google).
        for (key, given) in logins.iter().filter_map(|(key, given, _)| Some((key, given.as_ref().filter(|given| !is_own(given))?))) {
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
    /// What people call it.
    title: String,
    /// What a person should know besides what follows from the table.
    #[serde(default)]
    notes: Vec<String>,
    /// Of a preset without a server of its own: what a base URL looks like.
    base_url_example: Option<String>,
    provider: Table,
    /// `verified`, `checked`, `sources`: they belong to the file, and no config may claim them.
    #[serde(default)]
    provenance: Provenance,
    /// Lies between config and preset where config gives another `base_url`.
    #[serde(default)]
    self_managed: Table,
}

/// A preset's text, read when it is first asked for.
#[derive(Debug)]
struct Source {
    name: &'static str,
    text: &'static str,
    preset: OnceLock<Preset>,
}

impl Source {
    const fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, preset: OnceLock::new() }
    }

    fn preset(&self) -> &Preset {
        self.preset.get_or_init(|| parse(self.name, self.text).expect("a test parses every preset"))
    }
}

static SOURCES: [Source; 28] = [
    Source::new("asana", include_str!("presets/asana.toml")),
    Source::new("atlassian", include_str!("presets/atlassian.toml")),
    Source::new("auth0", include_str!("presets/auth0.toml")),
    Source::new("bitbucket", include_str!("presets/bitbucket.toml")),
    Source::new("box", include_str!("presets/box.toml")),
    Source::new("clerk", include_str!("presets/clerk.toml")),
    Source::new("discord", include_str!("presets/discord.toml")),
    Source::new("dropbox", include_str!("presets/dropbox.toml")),
    Source::new("entra", include_str!("presets/entra.toml")),
    Source::new("figma", include_str!("presets/figma.toml")),
    Source::new("github", include_str!("presets/github.toml")),
    Source::new("github-app", include_str!("presets/github-app.toml")),
    Source::new("gitlab", include_str!("presets/gitlab.toml")),
    Source::new("google", include_str!("presets/google.toml")),
    Source::new("hubspot", include_str!("presets/hubspot.toml")),
    Source::new("huggingface", include_str!("presets/huggingface.toml")),
    Source::new("keycloak", include_str!("presets/keycloak.toml")),
    Source::new("linear", include_str!("presets/linear.toml")),
    Source::new("notion", include_str!("presets/notion.toml")),
    Source::new("okta", include_str!("presets/okta.toml")),
    Source::new("salesforce", include_str!("presets/salesforce.toml")),
    Source::new("sentry", include_str!("presets/sentry.toml")),
    Source::new("slack", include_str!("presets/slack.toml")),
    Source::new("spotify", include_str!("presets/spotify.toml")),
    Source::new("supabase", include_str!("presets/supabase.toml")),
    Source::new("supabase-api", include_str!("presets/supabase-api.toml")),
    Source::new("twitch", include_str!("presets/twitch.toml")),
    Source::new("zoom", include_str!("presets/zoom.toml")),
];

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
    for template in templates {
        // Without a base URL there is no such endpoint yet.
        if base_url.is_empty() && template.as_ref().is_some_and(|text| text.get_ref().contains("{base_url}")) {
            *template = None;
        }
        let Some(text) = template else { continue };
        let filled = text.get_ref().replace("{base_url}", &base_url).replace("{api_base_url}", &api_base_url);
        *text.get_mut() = filled;
    }
    config.clone().over(preset)
}

/// A remote server tells its authorization server itself: what is written beside it would be passed over.
fn discovered(config: &Table) -> Result<(), Wrong> {
    let fixed = [
        ("preset", &config.preset),
        ("base_url", &config.base_url),
        ("api_base_url", &config.api_base_url),
        ("issuer", &config.issuer),
        ("authorization_endpoint", &config.authorization_endpoint),
        ("token_endpoint", &config.token_endpoint),
        ("refresh_endpoint", &config.refresh_endpoint),
        ("revocation_endpoint", &config.revocation_endpoint),
        ("userinfo_endpoint", &config.userinfo_endpoint),
        ("device_authorization_endpoint", &config.device_authorization_endpoint),
    ];
    if let Some((key, value)) = fixed.into_iter().find_map(|(key, value)| Some((key, value.as_ref()?))) {
        let what = format!("`{key}` means nothing beside `server`, whose authorization server is discovered");
        let hint = match key {
            "issuer" => "write `authorization_server` to say which one it must be",
            _ => "remove one of the two",
        };
        return Err(Wrong::table(what, hint).at(value.span()));
    }
    match config.flow.as_ref().filter(|flow| *flow.get_ref() == Flow::DeviceCode) {
        Some(flow) => {
            let hint = "leave `flow` out for the browser, or write \"client_credentials\"";
            Err(Wrong::table("`flow` is \"device_code\", which remote MCP servers do not have", hint).at(flow.span()))
        }
        None => Ok(()),
    }
}

fn stands_alone(name: &str, config: &Table) -> Result<(), Wrong> {
    for (key, value) in [("base_url", &config.base_url), ("api_base_url", &config.api_base_url)] {
        if let Some(value) = value {
            let hint = "add preset = \"NAME\"; `mcp-authctl provider list` shows them";
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
    match similar(name, SOURCES.iter().map(|source| source.name)) {
        Some(near) => format!("did you mean [providers.{near}]? Else give preset, issuer, or authorization_endpoint and token_endpoint"),
        None => "give preset, issuer, or authorization_endpoint and token_endpoint".to_owned(),
    }
}

fn unknown(named: &Spanned<String>) -> Wrong {
    let shown: String = named.get_ref().escape_debug().take(64).collect();
    let near = similar(&shown, SOURCES.iter().map(|source| source.name));
    let meant = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    Wrong::table(format!("there is no preset `{shown}`"), format!("{meant}`mcp-authctl provider list` shows them all")).at(named.span())
}

#[cfg(test)]
#[path = "preset_tests.rs"]
mod tests;

//! Providers and the config file: what is known, what a person defines, client secrets, and the reload.

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode, event};
use zeroize::Zeroizing;

use super::Reply;
use super::core::{Core, answer};
use super::gate::refusal;
use super::tokens::else_try;
use crate::config::{self, Config, ConfigError, ConfigErrorKind};
use crate::grant::Input;
use crate::notices::Occasion;
use crate::oauth::assertion;
use crate::oauth::text::clean;
use crate::provider::preset::{self, Preset};
use crate::provider::remote::{self, RemoteServer};
use crate::provider::{ClientAuth, Provider};
use crate::secret::ClientSecret;
use crate::vault::{Record, RecordId, RecordKind, VaultError};

/// A client secret and the server that it was stored for: it goes nowhere else, whatever the config says later.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct StoredSecret {
    #[serde(skip)]
    generation: u64,
    client_secret: ClientSecret,
    issuer: Option<String>,
    token_endpoint: Option<String>,
}

impl StoredSecret {
    fn new(secret: &str, generation: u64, provider: &Provider) -> Self {
        Self {
            generation,
            client_secret: ClientSecret::new(secret.to_owned()),
            issuer: provider.issuer.clone(),
            token_endpoint: provider.endpoints.token.clone(),
        }
    }

    pub(super) fn from_record(record: &Record) -> Option<Self> {
        let stored: Self = serde_json::from_slice(&record.plaintext).ok()?;
        Some(Self { generation: record.generation, ..stored })
    }

    fn to_plaintext(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self).expect("it has only string keys"))
    }
}

impl Core {
    /// The client secret that is stored for a provider as it is defined now.
    pub(super) fn secret_of(&self, provider: &Provider) -> Option<ClientSecret> {
        if provider.server.is_some() && provider.issuer.is_some() {
            return self.registered_secret(provider);
        }
        let stored = self.secrets.get(&provider.name)?;
        let same_server = stored.issuer == provider.issuer && stored.token_endpoint == provider.endpoints.token;
        same_server.then(|| stored.client_secret.clone())
    }

    pub(super) fn providers(&mut self, reply: Reply<Vec<wire::ProviderSummary>>) {
        let providers = self.config.providers();
        let mut summaries: Vec<_> = providers.iter().map(|provider| provider.summary(self.secret_of(provider).is_some())).collect();
        let is_new = |server: &&RemoteServer| providers.iter().all(|provider| provider.name != server.name);
        summaries.extend(remote::all().iter().filter(is_new).map(RemoteServer::summary));
        answer(reply, Ok(summaries));
    }

    /// What is written is what the file says at that moment, changed by one at a time: of two that change the same text at
    /// once, one would be lost.
    pub(super) fn define_provider(&mut self, name: String, definition: wire::ProviderDefinition, reply: Reply<wire::ProviderSummary>) {
        if let Some(error) = self.redirects_tokens(&self.config, &name, &definition) {
            return answer(reply, Err(error));
        }
        let (path, of, to_write, turns) = (self.config_path.clone(), name.clone(), definition.clone(), self.config_turns.clone());
        let errand = async move {
            let turn = turns.lock_owned().await;
            let read = path.clone();
            // Somebody may have written it by hand, and not had it read yet.
            let found = tokio::task::spawn_blocking(move || Config::load(&read)).await;
            (turn, path, found)
        };
        self.task(errand, move |core, outcome| {
            let broken = || ErrorBody::new(ErrorCode::InternalError, "the config could not be written");
            let Some((turn, path, Ok(found))) = outcome else { return answer(reply, Err(broken())) };
            let refused = match &found {
                Ok(found) => core.redirects_tokens(found, &name, &definition),
                Err(error) => Some(config_refusal(error)),
            };
            if let Some(error) = refused {
                return answer(reply, Err(error));
            }
            let errand = async move { (turn, tokio::task::spawn_blocking(move || config::define_provider(&path, &of, &to_write)).await) };
            core.task(errand, move |core, outcome| match outcome {
                // The turn ends once this config is the one that counts.
                Some((_turn, Ok(Ok(config)))) => {
                    core.adopt_config(config);
                    core.announce(event::PROVIDER_DEFINED, None, Some(name.clone()));
                    core.provider(&name, reply);
                }
                Some((_, Ok(Err(error)))) => answer(reply, Err(config_refusal(&error))),
                _ => answer(reply, Err(broken())),
            });
        });
    }

    /// Whoever may speak on the socket may not lead the next login, or a stored secret, to a server of their own: the URLs
    /// of a provider that is there already are changed in the file alone, endpoints belong to their issuer, and the name of
    /// a built-in provider is its own server's.
    fn redirects_tokens(&self, config: &Config, name: &str, definition: &wire::ProviderDefinition) -> Option<ErrorBody> {
        let there = config.provider(name).filter(|provider| provider.configured);
        let hint = format!("write it into {}, then mcp-authctl reload", self.config_path.display());
        let given = [
            &definition.authorization_endpoint,
            &definition.token_endpoint,
            &definition.revocation_endpoint,
            &definition.userinfo_endpoint,
        ];
        let moved = |given: &Option<String>, present: &Option<String>| given.is_some() && given != present;
        if let Some(present) = there {
            let moves = definition.base_url.is_some()
                || moved(&definition.preset, &present.preset)
                || moved(&definition.issuer, &present.issuer)
                || given.iter().zip(login_endpoints(present)).any(|(given, fixed)| moved(given, fixed));
            let sentence = || format!("the provider `{name}` is there already, and its URLs are changed in the config file only");
            return moves.then(|| ErrorBody::new(ErrorCode::Conflict, sentence()).hint(hint));
        }
        let origin = |url: &str| url::Url::parse(url).ok().map(|url| url.origin());
        let built_in = preset::find(name).map(Preset::provider).filter(|own| own.issuer.is_some() || own.endpoints.token.is_some());
        if let Some(own) = built_in {
            let homes: Vec<_> = [&own.issuer, &own.endpoints.authorization, &own.endpoints.token].into_iter().flatten().collect();
            let at_home = |url: &String| homes.iter().any(|home| origin(home) == origin(url));
            let strays = definition.preset.as_ref().is_some_and(|preset| preset != name)
                || definition.base_url.as_ref().is_some_and(|url| !at_home(url))
                || moved(&definition.issuer, &own.issuer)
                || given.iter().zip(login_endpoints(own)).any(|(given, fixed)| moved(given, fixed));
            let sentence = || format!("`{name}` is the name of a built-in provider; another server gets another name");
            let hint = format!("mcp-authctl provider add NAME --preset {name} --base-url URL, or {hint}");
            return strays.then(|| ErrorBody::new(ErrorCode::Conflict, sentence()).hint(hint));
        }
        let home = definition.issuer.as_deref().or(definition.base_url.as_deref()).and_then(origin)?;
        let strays = given.into_iter().flatten().any(|endpoint| origin(endpoint).as_ref() != Some(&home));
        let sentence =
            || format!("an endpoint of `{name}` is not on its issuer's origin; such a provider is defined in the config file only");
        strays.then(|| ErrorBody::new(ErrorCode::Conflict, sentence()).hint(hint))
    }

    pub(super) fn set_client_secret(&mut self, name: String, request: wire::ClientSecretRequest, reply: Reply<wire::ProviderSummary>) {
        let Some(provider) = self.config.provider(&name).cloned() else { return answer(reply, Err(self.no_provider(&name))) };
        let secret = request.client_secret.expose().trim();
        if let Err(error) = check_secret(secret, &provider) {
            return answer(reply, Err(error));
        }
        let generation = self.secrets.get(&name).map_or(1, |stored| stored.generation + 1);
        let id = RecordId { kind: RecordKind::ProviderSecret, name: name.clone() };
        let secret = StoredSecret::new(secret, generation, &provider);
        let record = Record { id, generation, plaintext: secret.to_plaintext() };
        let done = self.back(move |core, result: Result<(), VaultError>| match result {
            Ok(()) => {
                // The vault may have been locked meanwhile: it keeps the secret then.
                if core.gate.is_loaded() {
                    core.renew_secret(&provider, &secret.client_secret);
                    core.secrets.insert(name.clone(), secret);
                }
                core.redefine(Some(&name));
                core.announce(event::CLIENT_SECRET_STORED, None, Some(name.clone()));
                core.provider(&name, reply);
            }
            Err(error) => answer(reply, Err(refusal(&error))),
        });
        self.edges.vault.save(record, done);
    }

    pub(super) fn reload(&mut self, reply: Reply<wire::ConfigStatus>) {
        let (path, turns) = (self.config_path.clone(), self.config_turns.clone());
        let errand = async move {
            let turn = turns.lock_owned().await;
            (turn, tokio::task::spawn_blocking(move || Config::load(&path)).await)
        };
        self.task(errand, move |core, outcome| match outcome {
            Some((_turn, Ok(Ok(config)))) => {
                core.adopt_config(config);
                answer(reply, Ok(core.config_status()));
            }
            Some((_turn, Ok(Err(error)))) => {
                core.config_error = Some(error.to_string());
                core.announce(event::CONFIG_ERROR, None, Some(error.to_string()));
                answer(reply, Err(config_refusal(&error)));
            }
            _ => answer(reply, Err(ErrorBody::new(ErrorCode::InternalError, "the config could not be read"))),
        });
    }

    pub(super) fn config_status(&self) -> wire::ConfigStatus {
        wire::ConfigStatus { path: self.config_path.display().to_string(), error: self.config_error.clone() }
    }

    /// The new config counts from now on; every grant hears what it says about its definition.
    fn adopt_config(&mut self, config: Config) {
        self.transports = self.transports.adapted(self.edges.connect, &config);
        self.issuer.configured(config.issuer.clone());
        self.relay.configured(config.relay);
        self.config = config;
        self.config_error = None;
        self.doctor.forget();
        self.redefine(None);
        self.notices_configured();
        self.announce(event::CONFIG_RELOADED, None, None);
    }

    /// Every grant, or those of one provider, hear what is said about them now; what failed before may be good now.
    fn redefine(&mut self, provider: Option<&str>) {
        self.logins.firsts.forget();
        let definitions = self.grants.iter().map(|(name, grant)| (name.clone(), grant.newest().definition.clone()));
        let definitions: Vec<_> = definitions.filter(|(_, of)| provider.is_none_or(|provider| of.provider == provider)).collect();
        for (name, definition) in definitions {
            let terms = self.terms_of(&definition);
            self.give(&name, Input::Defined(terms));
            self.notice(&name, &Occasion::Defined);
        }
    }

    fn provider(&mut self, name: &str, reply: Reply<wire::ProviderSummary>) {
        let summary = self.config.provider(name).map(|provider| provider.summary(self.secret_of(provider).is_some()));
        answer(reply, summary.ok_or_else(|| self.no_provider(name)));
    }

    pub(super) fn no_provider(&self, name: &str) -> ErrorBody {
        no_provider(name, self.similar_provider(name))
    }

    /// The provider whose name was mistyped, if one is like it.
    pub(super) fn similar_provider(&self, name: &str) -> Option<String> {
        let providers = self.config.providers();
        let names = providers.iter().map(|it| it.name.as_str()).chain(remote::all().iter().map(|it| it.name.as_str()));
        wire::similar(name, names).map(str::to_owned)
    }
}

/// The endpoints that a definition may name, in its order.
fn login_endpoints(provider: &Provider) -> [&Option<String>; 4] {
    let of = &provider.endpoints;
    [&of.authorization, &of.token, &of.revocation, &of.userinfo]
}

/// A private key has lines, a client secret has none; neither is stored where the other is wanted.
fn check_secret(text: &str, provider: &Provider) -> Result<(), ErrorBody> {
    let invalid = |what: String| ErrorBody::new(ErrorCode::InvalidRequest, what);
    let secret = ClientSecret::new(text.to_owned());
    if provider.quirks.client_auth == Some(ClientAuth::PrivateKeyJwt) {
        let hint = format!("mcp-authctl provider set-secret {} < private-key.pem", provider.name);
        return assertion::check_key(&secret).map_err(|error| invalid(error.to_string()).hint(hint));
    }
    if assertion::is_key(&secret) {
        let hint =
            format!("set client_auth = \"private_key_jwt\" under [providers.{}] in config.toml, then mcp-authctl reload", provider.name);
        return Err(invalid(format!("this is a private key, and {} wants a client secret", provider.name)).hint(hint));
    }
    if text.is_empty() || text.contains(char::is_control) {
        return Err(invalid("the client secret is empty or holds a control character".to_owned()));
    }
    Ok(())
}

fn no_provider(name: &str, meant: Option<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("there is no provider `{}`", clean(name)))
        .hint(else_try(meant, "mcp-authctl provider list, or mcp-authctl provider add --help"))
}

fn config_refusal(error: &ConfigError) -> ErrorBody {
    let code = match error.kind() {
        ConfigErrorKind::Invalid => ErrorCode::InvalidRequest,
        ConfigErrorKind::Unreadable | ConfigErrorKind::Unwritable => ErrorCode::Conflict,
    };
    let mut body = ErrorBody::new(code, error.to_string());
    body.hint = error.hint().map(str::to_owned);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_no_provider_is_shown_without_what_hides_in_it() {
        let said = no_provider("te\u{200b}st\u{1b}[2J", None).error_description;
        assert_eq!(said, "there is no provider `test[2J`");
    }
}

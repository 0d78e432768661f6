//! Providers and the config file: what is known, what a person defines, client secrets, and the reload.

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, ErrorCode};
use zeroize::Zeroizing;

use super::Reply;
use super::core::{Core, answer};
use super::gate::refusal;
use crate::config::{self, Config, ConfigError, ConfigErrorKind};
use crate::grant::Input;
use crate::secret::ClientSecret;
use crate::vault::{Record, RecordId, RecordKind, VaultError};

impl Core {
    pub(super) fn providers(&mut self, reply: Reply<Vec<wire::ProviderSummary>>) {
        let providers = self.config.providers();
        answer(reply, Ok(providers.iter().map(|provider| provider.summary(self.secrets.contains_key(&provider.name))).collect()));
    }

    pub(super) fn define_provider(&mut self, name: String, definition: wire::ProviderDefinition, reply: Reply<wire::ProviderSummary>) {
        let (path, of) = (self.config_path.clone(), name.clone());
        let errand = async move { tokio::task::spawn_blocking(move || config::define_provider(&path, &of, &definition)).await };
        self.task(errand, move |core, outcome| match outcome {
            Some(Ok(Ok(config))) => {
                core.adopt_config(config);
                core.provider(&name, reply);
            }
            Some(Ok(Err(error))) => answer(reply, Err(config_refusal(&error))),
            _ => answer(reply, Err(ErrorBody::new(ErrorCode::InternalError, "the config could not be written"))),
        });
    }

    pub(super) fn set_client_secret(&mut self, name: String, request: wire::ClientSecretRequest, reply: Reply<wire::ProviderSummary>) {
        if self.config.provider(&name).is_none() {
            return answer(reply, Err(no_provider(&name)));
        }
        let secret = request.client_secret.expose().trim();
        if secret.is_empty() || secret.contains(char::is_control) {
            return answer(
                reply,
                Err(ErrorBody::new(ErrorCode::InvalidRequest, "the client secret is empty or holds a control character")),
            );
        }
        let generation = self.secrets.get(&name).map_or(1, |(generation, _)| generation + 1);
        let id = RecordId { kind: RecordKind::ProviderSecret, name: name.clone() };
        let record = Record { id, generation, plaintext: Zeroizing::new(secret.as_bytes().to_vec()) };
        let secret = ClientSecret::new(secret.to_owned());
        let done = self.back(move |core, result: Result<(), VaultError>| match result {
            Ok(()) => {
                core.secrets.insert(name.clone(), (generation, secret));
                core.redefine(Some(&name));
                core.provider(&name, reply);
            }
            Err(error) => answer(reply, Err(refusal(&error))),
        });
        self.edges.vault.save(record, done);
    }

    pub(super) fn reload(&mut self, reply: Reply<wire::ConfigStatus>) {
        let path = self.config_path.clone();
        let errand = async move { tokio::task::spawn_blocking(move || Config::load(&path)).await };
        self.task(errand, move |core, outcome| match outcome {
            Some(Ok(Ok(config))) => {
                core.adopt_config(config);
                answer(reply, Ok(core.config_status()));
            }
            Some(Ok(Err(error))) => {
                core.config_error = Some(error.to_string());
                core.announce("config_error", None, Some(error.to_string()));
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
        if config.network != self.config.network {
            self.transport = (self.edges.connect)(&config.network);
        }
        self.config = config;
        self.config_error = None;
        self.redefine(None);
        self.announce("config_reloaded", None, None);
    }

    /// Every grant, or those of one provider, hear what is said about them now.
    fn redefine(&mut self, provider: Option<&str>) {
        let definitions = self.grants.iter().map(|(name, grant)| (name.clone(), grant.newest().definition.clone()));
        let definitions: Vec<_> = definitions.filter(|(_, of)| provider.is_none_or(|provider| of.provider == provider)).collect();
        for (name, definition) in definitions {
            let terms = self.terms_of(&definition);
            self.give(&name, Input::Defined(terms));
        }
    }

    fn provider(&mut self, name: &str, reply: Reply<wire::ProviderSummary>) {
        let summary = self.config.provider(name).map(|provider| provider.summary(self.secrets.contains_key(name)));
        answer(reply, summary.ok_or_else(|| no_provider(name)));
    }
}

pub(super) fn no_provider(name: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("there is no provider `{name}`"))
        .hint("mcp-authctl provider list, or mcp-authctl provider add --help")
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

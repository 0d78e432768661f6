//! The first login with a provider: a client of one's own, its id and, where it needs one, its secret.

use mcp_auth_proto::{Client, ClientSecretRequest, ProviderDefinition, ProviderSummary};

use crate::ask;
use crate::commands::provider_of;
use crate::failure::Failure;
use crate::output::{self, field};

/// Keeps a client id that was given. One that is there already is not replaced: grants were made with it.
pub(super) fn keep_client_id(client: &Client, provider: &ProviderSummary, client_id: &str) -> Result<(), Failure> {
    match &provider.client_id {
        Some(present) if present == client_id => Ok(()),
        Some(_) => Err(Failure::OtherClientId { provider: provider.name.clone(), given: client_id.to_owned() }),
        None => define(client, &provider.name, None, client_id),
    }
}

/// Asks for what a login failed for want of, and keeps it. Where that is nothing, or nobody is there to be asked, the login's
/// failure stands.
pub(super) fn complete(client: &Client, name: &str, failure: Failure, json: bool) -> Result<(), Failure> {
    let Ok(provider) = provider_of(name, client) else { return Err(failure) };
    let lacks = |what: &str| provider.missing.iter().any(|missing| missing == what);
    let (lacks_id, lacks_secret) = (lacks("client_id"), lacks("client_secret"));
    if !lacks_id && !lacks_secret {
        return Err(failure);
    }
    if !super::may_ask() {
        if !json && lacks_id {
            tell_steps(&provider, false);
        }
        return Err(failure);
    }
    if lacks_id {
        tell_steps(&provider, true);
        output::note(&format!("or, without a client: mcp-authctl add-token {} stores a personal access token", field(name)));
        let base_url = provider.base_url_example.as_deref().map(ask_base_url).transpose()?;
        define(client, name, base_url, &ask::line("the client id", "client id: ")?)?;
    }
    ask_secret(client, &provider)
}

/// A preset without a server of its own stands for nobody's until this is told.
fn ask_base_url(example: &str) -> Result<String, Failure> {
    ask::line("the base URL", &format!("base URL, such as {} with your own words in it: ", field(example)))
}

fn define(client: &Client, name: &str, base_url: Option<String>, client_id: &str) -> Result<(), Failure> {
    let definition = ProviderDefinition { base_url, client_id: Some(client_id.to_owned()), ..ProviderDefinition::default() };
    client.define_provider(name, &definition)?;
    Ok(())
}

/// The steps up to our own commands, whose part is asked for here.
fn tell_steps(provider: &ProviderSummary, asking: bool) {
    output::note(&format!("{} needs a client of your own, once:", field(&provider.name)));
    let steps = provider.registration_steps.iter().filter(|step| !asking || !step.starts_with("Run: "));
    for (step, number) in steps.zip(1..) {
        output::note(&format!("  {number}. {}", field(step)));
    }
    if provider.registration_steps.is_empty() {
        output::note(&format!("  register one with the redirect URI {}", field(&provider.redirect_uri)));
    }
}

fn ask_secret(client: &Client, provider: &ProviderSummary) -> Result<(), Failure> {
    if !provider.needs_client_secret || provider.has_client_secret {
        return Ok(());
    }
    let secret = if provider.device_flow {
        ask::secret_or_nothing("client secret (not shown; empty: log in with a code at a page, if the client's device flow is on): ")?
    } else {
        Some(ask::token("the client secret", "client secret (not shown): ")?)
    };
    if let Some(client_secret) = secret {
        client.set_client_secret(&provider.name, &ClientSecretRequest { client_secret })?;
    }
    Ok(())
}

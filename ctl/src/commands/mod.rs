//! The verbs, one file each: its arguments, what it asks the daemon, and what it tells the person. What several of them
//! say is here.

pub(crate) mod add_token;
pub(crate) mod approve;
mod assignment;
pub(crate) mod audit;
pub(crate) mod bearer;
pub(crate) mod bridge;
pub(crate) mod completions;
mod consent;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod git_credential;
pub(crate) mod headers;
pub(crate) mod lock;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod man;
pub(crate) mod pkce;
pub(crate) mod policy;
pub(crate) mod provider;
pub(crate) mod refresh;
pub(crate) mod relay;
pub(crate) mod reload;
pub(crate) mod service;
pub(crate) mod setup;
pub(crate) mod status;
pub(crate) mod target;
pub(crate) mod token;
pub(crate) mod unlock;
pub(crate) mod use_grant;
pub(crate) mod vault;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use mcp_auth_proto::{
    Client, ClientError, GrantName, GrantState, GrantSummary, KeySourceKind, NameError, ProviderSummary, Status, VaultState, VaultStatus,
    similar,
};

use crate::failure::Failure;
use crate::output::{self, field, span};

/// A provider's name: a grant's name without a label.
fn provider_name(text: &str) -> Result<String, NameError> {
    let name: GrantName = text.parse()?;
    if name.label().is_none() { Ok(name.as_str().to_owned()) } else { Err(NameError) }
}

/// What the daemon knows of a provider.
fn provider_of(name: &str, client: &Client) -> Result<ProviderSummary, Failure> {
    let mut providers = client.providers()?;
    let Some(found) = providers.iter().position(|provider| provider.name == name) else {
        let meant = similar(name, providers.iter().map(|provider| provider.name.as_str())).map(str::to_owned);
        return Err(Failure::NoProvider { name: name.to_owned(), meant });
    };
    Ok(providers.swap_remove(found))
}

/// `, valid until ...` as far as the expiry is known.
fn validity(grant: &GrantSummary) -> String {
    match (&grant.expires_at, grant.expires_in) {
        (_, Some(0)) if grant.on_demand && grant.state != GrantState::LoginRequired => ", renewed on demand".to_owned(),
        (_, Some(0)) => ", expired".to_owned(),
        (Some(at), Some(seconds)) => format!(", valid until {} ({})", field(at), span(seconds)),
        (Some(at), None) => format!(", valid until {}", field(at)),
        (None, _) if grant.never_expires => ", never expires".to_owned(),
        (None, _) => ", of unknown lifetime".to_owned(),
    }
}

/// ` as octocat`, when the provider told.
fn account(grant: &GrantSummary) -> String {
    grant.account.as_ref().map(|account| format!(" as {}", field(account))).unwrap_or_default()
}

/// The most characters of scopes that are shown in one place, but for the last of them: a server may name hundreds.
const MOST_SCOPES: usize = 500;

pub(crate) fn scopes(scopes: &[String]) -> String {
    let mut shown = String::new();
    for (number, scope) in scopes.iter().enumerate() {
        if shown.len() > MOST_SCOPES {
            return format!("{shown} and {} more", scopes.len() - number);
        }
        let comma = if shown.is_empty() { "" } else { ", " };
        shown.push_str(&format!("{comma}{}", field(scope)));
    }
    if shown.is_empty() { "none told".to_owned() } else { shown }
}

/// Tells how the vault is after a verb changed it.
fn show_vault(vault: &VaultStatus, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(vault);
    }
    output::note(&vault_line(vault));
    if let Some(hint) = &vault.hint {
        output::note(&format!("hint: {}", field(hint)));
    }
    Ok(())
}

/// The daemon's status, once it has looked for the vault's key.
fn settled_status(client: &Client) -> Result<Status, ClientError> {
    let status = client.status()?;
    if status.vault.state != VaultState::Opening {
        return Ok(status);
    }
    // Answered when the vault is open or stays closed; which of both, is in the status.
    let _ = client.grants();
    client.status()
}

/// What is damaged, if anything.
fn quarantined(vault: &VaultStatus) -> Option<String> {
    (vault.quarantined > 0).then(|| format!("{} damaged records were put aside", vault.quarantined))
}

/// What the disk has not taken, if anything.
fn not_durable(status: &Status) -> Option<String> {
    let told = || format!("the newest tokens of {} grants are in memory only, the disk refuses them", status.not_durable);
    (status.not_durable > 0).then(told)
}

/// What the disk does not take of the audit, if anything.
fn audit_unwritten(status: &Status) -> Option<String> {
    status.audit_error.as_ref().map(|error| format!("the audit cannot be written: {}", field(error)))
}

/// What to do about it.
const MEND_AUDIT: &str = "make room on the disk, or mend the file's owner and modes; it is tried again within a minute";

/// What to do about a config that does not parse, while the daemon runs.
const MEND_CONFIG: &str = "the last good version is in use; correct the file, then `mcp-authctl reload`";

fn vault_line(vault: &VaultStatus) -> String {
    format!("vault {}", vault_state(vault))
}

fn vault_state(vault: &VaultStatus) -> String {
    let state = match vault.state {
        VaultState::Unlocked => "unlocked",
        VaultState::Locked => "locked",
        VaultState::Opening => "opening",
    };
    let source = vault.key_source.map(|kind| format!(", key source {kind}")).unwrap_or_default();
    let reason = vault.reason.as_ref().map(|reason| format!(": {}", field(reason))).unwrap_or_default();
    format!("{state}{source}{reason}")
}

/// A key source; help, errors and completions list them.
fn key_source() -> impl TypedValueParser<Value = KeySourceKind> {
    PossibleValuesParser::new(KeySourceKind::ALL.map(KeySourceKind::as_str)).try_map(|word| word.parse::<KeySourceKind>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_scopes_the_first_are_shown_and_the_rest_is_counted() {
        assert_eq!(scopes(&[]), "none told");
        assert_eq!(scopes(&["read".to_owned(), "write".to_owned()]), "read, write");
        let many: Vec<String> = (100..600).map(|number| format!("scope-{number}")).collect();
        let shown = scopes(&many);
        assert!(shown.starts_with("scope-100, scope-101") && shown.ends_with(" and 454 more") && shown.len() < 600, "{shown}");
    }
}

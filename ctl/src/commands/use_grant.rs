//! `use`: which account a provider's bare name stands for.

use mcp_auth_proto::{Client, ClientError, ErrorCode, GrantName, ProviderDefinition};

use super::{account, provider_of};
use crate::failure::Failure;
use crate::output;

/// Choose the account that a provider's bare name stands for
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl use github:work      `github` stands for github:work from now on
  mcp-authctl use github           and now for no account")]
pub(crate) struct Args {
    /// The grant with its label; without one the choice is taken back
    name: GrantName,
}

pub(crate) fn run(args: &Args, client: &Client, json: bool) -> Result<(), Failure> {
    let base = args.name.base();
    let Some(label) = args.name.label() else { return take_back(base, client, json) };
    let grant = client.grant(&args.name)?;
    let bare: GrantName = base.parse().map_err(|_| Failure::NoProvider { name: base.to_owned(), meant: None })?;
    match client.grant(&bare) {
        Ok(held) if held.name == bare => return Err(Failure::BareNameTaken(bare.to_string())),
        // It stands for a grant with a label, for none, or for too many.
        Ok(_) => {}
        Err(ClientError::Api(body))
            if matches!(body.error, ErrorCode::UnknownGrant | ErrorCode::LoginRequired | ErrorCode::AmbiguousGrant) => {}
        Err(error) => return Err(error.into()),
    }
    let provider = define(base, label, client)?;
    if json {
        return output::json(&provider);
    }
    output::note(&format!("{base} stands for {}{} from now on", grant.name, account(&grant)));
    Ok(())
}

fn take_back(base: &str, client: &Client, json: bool) -> Result<(), Failure> {
    let provider = provider_of(base, client)?;
    let chosen = provider.default_account.is_some();
    let provider = if chosen { define(base, "", client)? } else { provider };
    if json {
        return output::json(&provider);
    }
    output::note(&format!("{base} stands for no account with a label{}", if chosen { " any more" } else { "" }));
    Ok(())
}

fn define(base: &str, label: &str, client: &Client) -> Result<mcp_auth_proto::ProviderSummary, Failure> {
    let definition = ProviderDefinition { default_account: Some(label.to_owned()), ..ProviderDefinition::default() };
    Ok(client.define_provider(base, &definition)?)
}

//! Keys that are right each for itself and cannot be meant together.

use std::ops::Range;

use toml::Spanned;

use super::{Table, Wrong};
use crate::provider::check;
use crate::provider::{AssertionAudience, ClientAuth, Flow, Pkce};

/// Refuses what cannot be meant. `config` is what the person wrote, `whole` the same laid over its preset; an error names
/// a line of `config`, since the preset's own are not theirs to change.
pub(in crate::provider) fn check(config: &Table, whole: &Table) -> Result<(), Wrong> {
    beside_server(config, whole)?;
    identities(config, whole)?;
    assertions(config, whole)?;
    proofs(config, whole)?;
    device(config, whole)?;
    dpop(config, whole)?;
    refresh_endpoint(config, whole)
}

/// What is said of the hosts that a remote server names would change nothing anywhere else.
fn beside_server(config: &Table, whole: &Table) -> Result<(), Wrong> {
    let keys = [
        ("allow_private", span(&config.allow_private), "give `server` too, or remove it"),
        ("authorization_server", span(&config.authorization_server), "give `server` too, or write `issuer` in its place"),
    ];
    let alone = keys.into_iter().find(|(_, place, _)| place.is_some() && whole.server.is_none());
    let wrongly = |(key, place, hint)| wrong([place], format!("`{key}` means something only beside `server`"), hint);
    alone.map(wrongly).map_or(Ok(()), Err)
}

/// A token that is bound to a key is of use at the one server that the relay leads to.
fn dpop(config: &Table, whole: &Table) -> Result<(), Wrong> {
    if !is(&whole.dpop, true) || whole.resource.is_some() || whole.server.is_some() {
        return Ok(());
    }
    let what = "`dpop` is true, and `resource` is missing: tokens that are bound to a key go through the relay only";
    Err(wrong([span(&config.dpop)], what, "give the URL of the MCP server as `resource`, or as `server`"))
}

/// What takes the place of a login goes with its flow, and with nothing else.
fn identities(config: &Table, whole: &Table) -> Result<(), Wrong> {
    let belongs = [
        ("assertion_file", &whole.assertion_file, Flow::JwtBearer, "jwt_bearer"),
        ("identity_provider", &whole.identity_provider, Flow::Enterprise, "enterprise"),
        ("identity_token_file", &whole.identity_token_file, Flow::Enterprise, "enterprise"),
    ];
    let is_alone = |(_, key, flow, _): &(_, &Option<Spanned<String>>, Flow, _)| key.is_some() && !is(&whole.flow, *flow);
    if let Some((key, place, _, flow)) = belongs.into_iter().find(is_alone) {
        let what = format!("`{key}` means something only with flow = \"{flow}\"");
        return Err(wrong([span(place), span(&config.flow)], what, "add that line, or remove this one"));
    }
    if whole.flow.as_ref().is_some_and(|flow| flow.get_ref().is_by_assertion()) && whole.server.is_none() {
        let what = "`flow` is one for a remote MCP server, and `server` is missing";
        return Err(wrong([span(&config.flow)], what, "give its URL: server = \"https://mcp.example.com/mcp\""));
    }
    if is(&whole.flow, Flow::Enterprise) && whole.identity_provider.is_none() {
        let what = "`flow` is \"enterprise\", and `identity_provider` is missing";
        return Err(wrong([span(&config.flow)], what, "give the name of the provider that vouches for you: identity_provider = \"okta\""));
    }
    Ok(())
}

fn assertions(config: &Table, whole: &Table) -> Result<(), Wrong> {
    let by_jwt = is(&whole.client_auth, ClientAuth::PrivateKeyJwt);
    let of_a_jwt = [
        ("client_assertion_audience", span(&config.client_assertion_audience), whole.client_assertion_audience.is_some()),
        ("client_key_id", span(&config.client_key_id), whole.client_key_id.is_some()),
    ];
    if let Some((key, place, _)) = of_a_jwt.into_iter().find(|(_, _, given)| *given && !by_jwt) {
        let what = format!("`{key}` means something only with client_auth = \"private_key_jwt\"");
        return Err(wrong([place, span(&config.client_auth)], what, "add that line, or remove this one"));
    }
    if is(&whole.client_assertion_audience, AssertionAudience::Issuer) && whole.issuer.is_none() && whole.server.is_none() {
        let what = "`client_assertion_audience` is \"issuer\", and no `issuer` is given";
        return Err(wrong([span(&config.client_assertion_audience)], what, "give `issuer`, or write \"token_endpoint\""));
    }
    Ok(())
}

fn proofs(config: &Table, whole: &Table) -> Result<(), Wrong> {
    let public = is(&whole.client_auth, ClientAuth::None);
    if public && is(&whole.pkce, Pkce::Off) && !is(&whole.flow, Flow::DeviceCode) {
        let what = "`pkce` is \"none\" for a client without a secret: whoever catches the code could use it";
        return Err(wrong([span(&config.pkce), span(&config.client_auth)], what, "give another `client_auth`, or flow = \"device_code\""));
    }
    if public && is(&whole.flow, Flow::ClientCredentials) {
        let what = "`flow` is \"client_credentials\" for a client without credentials";
        return Err(wrong([span(&config.flow), span(&config.client_auth)], what, "give another `client_auth`"));
    }
    Ok(())
}

fn device(config: &Table, whole: &Table) -> Result<(), Wrong> {
    let somewhere = whole.device_authorization_endpoint.is_some() || whole.issuer.is_some();
    if !is(&whole.flow, Flow::DeviceCode) || somewhere {
        return Ok(());
    }
    let hint = "give it too, or `issuer`, from which it is discovered";
    Err(wrong([span(&config.flow)], "`flow` is \"device_code\", and `device_authorization_endpoint` is missing", hint))
}

/// A refresh token goes to the server that gave it. Where a provider really has two, its preset says so.
fn refresh_endpoint(config: &Table, whole: &Table) -> Result<(), Wrong> {
    let Some(refresh) = whole.refresh_endpoint.as_ref().filter(|_| config.refresh_endpoint.is_some() || config.token_endpoint.is_some())
    else {
        return Ok(());
    };
    let places = [span(&config.refresh_endpoint), span(&config.token_endpoint)];
    let Some(token) = &whole.token_endpoint else {
        let what = "`refresh_endpoint` is given without `token_endpoint`";
        return Err(wrong(places, what, "give both: refresh tokens go only to the server that gave them"));
    };
    if check::origin(refresh.get_ref()) == check::origin(token.get_ref()) {
        return Ok(());
    }
    let what = "`refresh_endpoint` leads to another server than `token_endpoint`";
    Err(wrong(places, what, "refresh tokens go only to the server that gave them; give both on one host"))
}

fn is<T: PartialEq>(key: &Option<Spanned<T>>, value: T) -> bool {
    key.as_ref().is_some_and(|given| *given.get_ref() == value)
}

fn span<T>(key: &Option<Spanned<T>>) -> Option<Range<usize>> {
    key.as_ref().map(Spanned::span)
}

fn wrong(places: impl IntoIterator<Item = Option<Range<usize>>>, what: impl Into<String>, hint: &str) -> Wrong {
    Wrong { span: places.into_iter().flatten().next(), ..Wrong::table(what, hint) }
}

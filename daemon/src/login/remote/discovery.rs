//! What a remote MCP server says of itself, and its authorization server of itself: who is asked, in which order, and when to
//! stop. Whether an answer may be believed is `oauth::resource_metadata`'s and `oauth::metadata`'s to say.

use mcp_auth_proto::{ErrorBody, GrantName};

use super::{Plan, Remote, failure};
use crate::login::discovery as of_provider;
use crate::oauth::challenge::Challenge;
use crate::oauth::dpop;
use crate::oauth::metadata::{self, AuthorizationServerMetadata, MetadataError};
use crate::oauth::resource_metadata::{self, ProtectedResourceMetadata, ResourceMetadataError};
use crate::provider::Provider;
use crate::transport::{self, Method, Request, Response, Transport};

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The resource indicator to send; `None`: the server is of a time before it.
    pub(super) resource: Option<String>,
    /// The scopes of the challenge.
    pub(super) challenged: Option<Vec<String>>,
    /// The scopes of the resource's metadata.
    pub(super) supported: Option<Vec<String>>,
    /// Tokens must be bound to a key.
    pub(super) demands_dpop: bool,
    /// What proofs it takes, where ours are not among them.
    pub(super) other_proofs: Option<String>,
    /// The authorization server.
    pub(super) metadata: AuthorizationServerMetadata,
}

/// What a server answered to somebody without a token.
enum Door {
    /// It wants one.
    Closed(Challenge),
    /// It does not.
    Open,
    /// It said something else.
    Unclear,
}

/// Finds the authorization server of a remote MCP server.
pub(super) async fn find(plan: &Plan, remote: &Remote, transport: &dyn Transport) -> Result<Found, ErrorBody> {
    let name = &plan.grant;
    let door = knock(name, remote, transport).await?;
    let told = if let Door::Closed(challenge) = &door { challenge.clone() } else { Challenge::default() };
    let by_challenge = told.demands_dpop();
    let other_proofs = dpop::other_proofs(told.dpop.and_then(|dpop| dpop.algorithms).as_deref());
    let challenged = remote.challenge.as_ref().and_then(|challenge| challenge.scopes.clone()).or(told.scopes);
    match resource((name, &remote.server), told.resource_metadata.as_deref(), transport).await? {
        Some(resource) => {
            let issuer = choose((plan, remote), &resource.authorization_servers)?.clone();
            let provider = Provider { issuer: Some(issuer), ..plan.provider.clone() };
            let fetched = of_provider::fetch((name, &provider), transport).await;
            let metadata = fetched.map_err(|error| failure::in_our_words(error, name))?;
            usable((plan, remote), &metadata)?;
            let demands_dpop = by_challenge || resource.dpop_bound_access_tokens_required;
            let other_proofs = dpop::other_proofs(resource.dpop_signing_alg_values_supported.as_deref()).or(other_proofs);
            let (resource, supported) = (Some(resource.resource), resource.scopes_supported);
            Ok(Found { resource, challenged, supported, demands_dpop, other_proofs, metadata })
        }
        None if matches!(door, Door::Closed(_)) => {
            let metadata = of_an_old_server((plan, remote), transport).await?;
            usable((plan, remote), &metadata)?;
            Ok(Found { resource: None, challenged, supported: None, demands_dpop: by_challenge, other_proofs, metadata })
        }
        None => Err(failure::no_login(name, &remote.server, matches!(door, Door::Open))),
    }
}

/// The issuers that the server names now; `None`: it names none.
pub(crate) async fn authorization_servers(
    server: (&GrantName, &str),
    challenge: Option<&Challenge>,
    transport: &dyn Transport,
) -> Result<Option<Vec<String>>, ErrorBody> {
    let place = challenge.and_then(|challenge| challenge.resource_metadata.as_deref());
    Ok(resource(server, place, transport).await?.map(|found| found.authorization_servers))
}

/// Whether a configured server says of itself what a login needs.
pub(crate) async fn look((name, server): (&GrantName, &str), provider: &Provider, transport: &dyn Transport) -> Result<(), ErrorBody> {
    match (authorization_servers((name, server), None, transport).await?, &provider.authorization_server) {
        (Some(named), Some(wanted)) => named_among(&named, wanted, (name, provider)).map(|_| ()),
        _ => Ok(()),
    }
}

/// Asks as a client without a token does, unless the daemon has just seen what is answered then. A server that does not take
/// the `POST` is asked by `GET`.
async fn knock(name: &GrantName, remote: &Remote, transport: &dyn Transport) -> Result<Door, ErrorBody> {
    if let Some(challenge) = remote.challenge.clone().filter(|found| remote.challenged_by_server || found.resource_metadata.is_some()) {
        return Ok(Door::Closed(challenge));
    }
    for request in [initialize(&remote.server), event_stream(&remote.server)] {
        let answer = transport.send(request).await.map_err(|error| failure::unreachable(name, &error))?;
        match answer.status {
            401 | 403 => return Ok(Door::Closed(challenge(&answer))),
            200..300 => return Ok(Door::Open),
            429 | 500.. => return Err(failure::server_status(name, answer.status)),
            _ => {}
        }
    }
    Ok(Door::Unclear)
}

fn challenge(answer: &Response) -> Challenge {
    Challenge::read(answer.challenges.iter().map(String::as_str)).unwrap_or_default()
}

/// The first message of every client (MCP lifecycle 2025-11-25).
fn initialize(server: &str) -> Request {
    let message = serde_json::json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "mcp-authd", "version": env!("CARGO_PKG_VERSION") },
        },
    });
    let headers = vec![("accept", "application/json, text/event-stream".into()), ("content-type", "application/json".into())];
    Request { headers, body: Some(message.to_string().into()), ..Request::new(Method::Post, server) }
}

fn event_stream(server: &str) -> Request {
    Request { headers: vec![("accept", "text/event-stream".into())], ..Request::new(Method::Get, server) }
}

/// The resource's metadata: where the challenge says, else at the well-known places. `None`: there is none.
async fn resource(
    (name, server): (&GrantName, &str),
    place: Option<&str>,
    transport: &dyn Transport,
) -> Result<Option<ProtectedResourceMetadata>, ErrorBody> {
    if let Some(place) = place.filter(|place| transport::check_url(place).is_err()) {
        return Err(failure::metadata_place(name, place));
    }
    let mut places: Vec<String> = place.map(str::to_owned).into_iter().collect();
    places.extend(resource_metadata::well_known_urls(server).into_iter().filter(|url| Some(url.as_str()) != place));
    for place in places {
        match resource_metadata::check(server, &get(name, place, transport).await?) {
            Ok(found) => return Ok(Some(found)),
            Err(error) if error.is_absence() => {}
            Err(error) => return Err(failure::resource(name, &error)),
        }
    }
    Ok(None)
}

async fn get(name: &GrantName, url: String, transport: &dyn Transport) -> Result<Response, ErrorBody> {
    let request = Request { headers: vec![("accept", "application/json".into())], ..Request::new(Method::Get, url) };
    transport.send(request).await.map_err(|error| failure::unreachable(name, &error))
}

/// Of several authorization servers the one that it must be; else the one that the grant is from, one that knows us, or the first
/// (RFC 9728 section 7.6).
fn choose<'a>((plan, remote): (&Plan, &Remote), servers: &'a [String]) -> Result<&'a String, ErrorBody> {
    if let Some(meant) = meant((plan, remote), servers)? {
        return Ok(meant);
    }
    let before = remote.before.as_ref().and_then(|before| before.issuer.as_ref());
    let is_before = |issuer: &&String| Some(*issuer) == before;
    let knows_us = |issuer: &&String| remote.registrations.iter().any(|registration| registration.issuer == **issuer);
    let chosen = servers.iter().find(is_before).or_else(|| servers.iter().find(knows_us)).or(servers.first());
    chosen.ok_or_else(|| failure::resource(&plan.grant, &ResourceMetadataError::Missing("authorization_servers")))
}

/// The one that it must be, if that is said.
fn meant<'a>((plan, remote): (&Plan, &Remote), servers: &'a [String]) -> Result<Option<&'a String>, ErrorBody> {
    let wanted = remote.authorization_server.as_ref();
    wanted.map(|wanted| named_among(servers, wanted, (&plan.grant, &plan.provider))).transpose()
}

/// This one, byte for byte.
fn named_among<'a>(servers: &'a [String], wanted: &str, of: (&GrantName, &Provider)) -> Result<&'a String, ErrorBody> {
    servers.iter().find(|issuer| *issuer == wanted).ok_or_else(|| failure::other_authorization_server(of, servers, wanted))
}

/// Whether a person can be led there, if one is to be.
fn usable((plan, remote): (&Plan, &Remote), metadata: &AuthorizationServerMetadata) -> Result<(), ErrorBody> {
    if remote.is_alone(plan) {
        return Ok(());
    }
    let page = metadata.authorization_endpoint.as_ref().map(|_| ()).ok_or(MetadataError::Missing("authorization_endpoint"));
    page.and_then(|()| metadata.require_s256(&plan.provider.quirks)).map_err(|error| failure::metadata(&plan.grant, &error))
}

/// MCP authorization 2025-03-26: the server is its own authorization server, by its metadata at the root of its origin, else
/// by fixed paths.
async fn of_an_old_server((plan, remote): (&Plan, &Remote), transport: &dyn Transport) -> Result<AuthorizationServerMetadata, ErrorBody> {
    let name = &plan.grant;
    let url = transport::check_url(&remote.server).map_err(|error| failure::unreachable(name, &error))?;
    let origin = url.origin().ascii_serialization();
    // Both spellings lead to this place, and nobody has told which one is meant.
    let spellings = [origin.clone(), format!("{origin}/")];
    meant((plan, remote), &spellings)?;
    let answer = get(name, format!("{origin}/.well-known/oauth-authorization-server"), transport).await?;
    let checked = metadata::check(&spellings[0], &answer).or_else(|_| metadata::check(&spellings[1], &answer));
    let metadata = match checked {
        Ok(metadata) => metadata,
        Err(error) if error.is_absence() => {
            metadata::fallback(&origin).ok_or_else(|| failure::resource(name, &ResourceMetadataError::Status(404)))?
        }
        Err(_) => {
            let error = metadata::check(&origin, &answer).err().unwrap_or(MetadataError::Html);
            return Err(failure::metadata(name, &error));
        }
    };
    meant((plan, remote), std::slice::from_ref(&metadata.issuer))?;
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{plan, remote};
    use super::*;
    use crate::clock::Wall;
    use crate::login::remote::Before;
    use crate::registration::Registration;

    const SERVERS: [&str; 3] = ["https://a", "https://b", "https://c"];

    fn chosen(remote: Remote, configured: bool) -> Result<String, ErrorBody> {
        let mut plan = plan(super::super::tests::remote());
        plan.provider.authorization_server = remote.authorization_server.clone().filter(|_| configured);
        choose((&plan, &remote), &SERVERS.map(str::to_owned)).cloned()
    }

    #[test]
    fn of_several_authorization_servers_the_one_that_it_must_be_comes_first_whoever_knows_us() {
        let before = Before { issuer: Some("https://c".into()), client_id: None, scopes: Vec::new(), bound: false };
        let known = || Remote { registrations: vec![Registration::given("https://b", "x", None, Wall(1))], ..remote() };
        let held = || Remote { before: Some(before.clone()), ..known() };
        assert_eq!(chosen(remote(), false).unwrap(), "https://a");
        assert_eq!(chosen(known(), false).unwrap(), "https://b");
        assert_eq!(chosen(held(), false).unwrap(), "https://c");
        for wanted in SERVERS {
            assert_eq!(chosen(Remote { authorization_server: Some(wanted.into()), ..held() }, true).unwrap(), wanted);
        }
    }

    #[test]
    fn one_that_the_server_does_not_name_byte_for_byte_is_replaced_by_no_other() {
        for (wanted, configured, hint) in
            [("https://b/", true, "[providers.mcp.example] in config.toml"), ("https://B", false, "--authorization-server")]
        {
            let error = chosen(Remote { authorization_server: Some(wanted.into()), ..remote() }, configured).unwrap_err();
            let said = format!("must be {wanted}, and the server names https://a, https://b, https://c");
            assert!(error.error_description.ends_with(&said) && error.hint.as_ref().unwrap().ends_with(hint), "{error} ({:?})", error.hint);
        }
    }
}

//! `[issuer]`, `[[issuer.clients]]` and `[[issuer.resources]]`: their keys and what their values must be.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::wrong;
use crate::issuer::clients::{Client, DEFAULT_LIFETIME, DEFAULT_LISTEN, Resource, Settings, is_loopback};
use crate::oauth::text::clean;
use crate::provider::check::{self, Fault};
use crate::provider::table::Wrong;

type Texts = Vec<Spanned<String>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct IssuerTable {
    enabled: bool,
    listen: Option<Spanned<String>>,
    access_token_lifetime: Option<Spanned<i64>>,
    clients: Vec<ClientTable>,
    resources: Vec<ResourceTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientTable {
    client_id: Spanned<String>,
    #[serde(default)]
    name: Option<Spanned<String>>,
    #[serde(default)]
    client_secret_command: Option<Spanned<Vec<String>>>,
    redirect_uris: Spanned<Texts>,
    #[serde(default)]
    scopes: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceTable {
    uri: Spanned<String>,
    #[serde(default)]
    scopes: Texts,
}

impl IssuerTable {
    /// What it says, if it is switched on; a table that is not must be right all the same.
    pub(super) fn check(self) -> Result<Option<Settings>, Wrong> {
        let listen = match &self.listen {
            Some(text) => listen(text.get_ref()).map_err(|fault| wrong("listen", text.span(), fault))?,
            None => DEFAULT_LISTEN.parse().expect("a constant"),
        };
        let lifetime = match &self.access_token_lifetime {
            Some(seconds) => {
                check::number(*seconds.get_ref(), 5_u64, 86_400).map_err(|fault| wrong("access_token_lifetime", seconds.span(), fault))?
            }
            None => DEFAULT_LIFETIME,
        };
        distinct("client_id", self.clients.iter().map(|client| &client.client_id))?;
        distinct("uri", self.resources.iter().map(|resource| &resource.uri))?;
        let settings = Settings {
            listen,
            access_token_lifetime: Duration::from_secs(lifetime),
            clients: self.clients.into_iter().map(ClientTable::check).collect::<Result<_, _>>()?,
            resources: self.resources.into_iter().map(ResourceTable::check).collect::<Result<_, _>>()?,
        };
        Ok(self.enabled.then_some(settings))
    }
}

impl ClientTable {
    fn check(self) -> Result<Client, Wrong> {
        one("client_id", &self.client_id, check::printable)?;
        if let Some(shown) = &self.name {
            one("name", shown, name)?;
        }
        if let Some(command) = &self.client_secret_command {
            check::command(command.get_ref()).map_err(|fault| wrong("client_secret_command", command.span(), fault))?;
        }
        if self.redirect_uris.get_ref().is_empty() {
            return Err(wrong("redirect_uris", self.redirect_uris.span(), Fault::new("is empty").hint(REDIRECT_HINT)));
        }
        Ok(Client {
            id: self.client_id.into_inner(),
            name: self.name.map(Spanned::into_inner),
            secret_command: self.client_secret_command.map(Spanned::into_inner),
            redirect_uris: each("redirect_uris", self.redirect_uris.into_inner(), redirect_uri)?,
            scopes: self.scopes.map(|scopes| each("scopes", scopes, check::scope)).transpose()?,
        })
    }
}

impl ResourceTable {
    fn check(self) -> Result<Resource, Wrong> {
        one("uri", &self.uri, check::endpoint)?;
        Ok(Resource { uri: self.uri.into_inner(), scopes: each("scopes", self.scopes, check::scope)? })
    }
}

const REDIRECT_HINT: &str = "write what the client sends, such as [\"http://127.0.0.1/callback\"]; the port of a loopback one may vary";

/// Loopback alone: what is reached from elsewhere needs TLS.
fn listen(text: &str) -> Result<SocketAddr, Fault> {
    match text.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_loopback() => Err(Fault::new("must be a loopback address, such as \"127.0.0.1:8731\"")),
        Ok(address) if address.port() == 0 => {
            Err(Fault::new("must name a port").hint("the port is part of the issuer's name, which clients keep: \"127.0.0.1:8731\""))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(Fault::new("must be an address with a port, such as \"127.0.0.1:8731\"")),
    }
}

/// What a person reads on the page and in the terminal.
fn name(text: &str) -> Result<(), Fault> {
    if text.is_empty() || text.chars().count() > 60 || clean(text) != text {
        return Err(Fault::new("must have 1 to 60 visible characters"));
    }
    Ok(())
}

/// RFC 8252 section 7: https, http on loopback, or a scheme of an app's own, which has a dot in it.
fn redirect_uri(text: &str) -> Result<(), Fault> {
    let odd = |b: u8| !matches!(b, 0x21..=0x7e) || b"\"'<>\\#`{}|^".contains(&b);
    let Ok(url) = Url::parse(text) else { return Err(Fault::new("has an item that is not a URL").hint(REDIRECT_HINT)) };
    if text.bytes().any(odd) {
        return Err(Fault::new("has an item with a fragment, or with a character that no URL has"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::new("must not hold a user name or password"));
    }
    let fits = match url.scheme() {
        "https" => url.has_host() && text.starts_with("https://"),
        "http" => is_loopback(text),
        scheme => scheme.contains('.'),
    };
    if fits {
        Ok(())
    } else {
        Err(Fault::new("has an item that is neither https, nor http on loopback, nor an app's own scheme (com.example.app:)")
            .hint(REDIRECT_HINT))
    }
}

fn one(key: &str, value: &Spanned<String>, check: fn(&str) -> Result<(), Fault>) -> Result<(), Wrong> {
    check(value.get_ref()).map_err(|fault| wrong(key, value.span(), fault))
}

fn each(key: &str, values: Texts, check: fn(&str) -> Result<(), Fault>) -> Result<Vec<String>, Wrong> {
    values.iter().try_for_each(|value| one(key, value, check))?;
    Ok(values.into_iter().map(Spanned::into_inner).collect())
}

fn distinct<'a>(key: &str, values: impl Iterator<Item = &'a Spanned<String>>) -> Result<(), Wrong> {
    let mut seen = HashSet::new();
    for value in values {
        if !seen.insert(value.get_ref()) {
            return Err(wrong(key, value.span(), Fault::new("is there twice").hint("one table for each")));
        }
    }
    Ok(())
}

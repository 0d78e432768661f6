//! PURE: what `[issuer]` says, checked: which clients there are, where they may be sent back to, and what they may ask for.

use std::net::SocketAddr;
use std::time::Duration;

/// Where the issuer listens unless the config says otherwise.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8731";
/// How long an access token lives unless the config says otherwise, in seconds.
pub(crate) const DEFAULT_LIFETIME: u64 = 600;

/// Scopes that every client may ask for, whatever the resource: OpenID Connect Core sections 3.1.2.1, 5.4 and 11.
pub(crate) const IDENTITY_SCOPES: [&str; 3] = ["openid", "profile", "offline_access"];

/// `[issuer]`, switched on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens: a loopback address with a port.
    pub listen: SocketAddr,
    /// How long an access token and an ID token live.
    pub access_token_lifetime: Duration,
    /// `[[issuer.clients]]`, ids distinct.
    pub clients: Vec<Client>,
    /// `[[issuer.resources]]`, URIs distinct.
    pub resources: Vec<Resource>,
}

/// A program that may send a person here (RFC 6749 section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its `client_id`.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// Prints its secret; a client without one is public (RFC 6749 section 2.1).
    pub secret_command: Option<Vec<String>>,
    /// Where it may be sent back to, byte for byte; the port of a loopback one may vary (RFC 8252 section 7.3).
    pub redirect_uris: Vec<String>,
    /// The scopes that it may ask for besides the identity scopes; `None`: those of the resource.
    pub scopes: Option<Vec<String>>,
}

/// An MCP server that tokens are for (RFC 8707).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its URI, byte for byte: the `aud` of the tokens.
    pub uri: String,
    /// The scopes that it knows.
    pub scopes: Vec<String>,
}

impl Settings {
    /// The issuer identifier (RFC 8414 section 2).
    pub fn issuer(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// The client of this id.
    pub fn client(&self, id: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.id == id)
    }

    /// Whether tokens for this audience are made here now.
    pub(crate) fn serves(&self, audience: &str) -> bool {
        self.resource(audience).is_some() || (self.resources.is_empty() && audience == self.issuer())
    }

    /// The audience that is meant when a request names none: the only one there is.
    pub(crate) fn only_audience(&self) -> Option<String> {
        match self.resources.as_slice() {
            [] => Some(self.issuer()),
            [only] => Some(only.uri.clone()),
            _ => None,
        }
    }

    /// The scopes that a client may ask for at an audience, the identity scopes not counted.
    pub(crate) fn scopes_of(&self, client: &Client, audience: &str) -> Vec<&str> {
        let of_resource = self.resource(audience).map(|resource| resource.scopes.as_slice()).unwrap_or_default();
        let allowed = |scope: &&String| client.scopes.as_ref().is_none_or(|scopes| scopes.contains(scope));
        of_resource.iter().filter(allowed).map(String::as_str).collect()
    }

    /// Whether a client may have this scope at an audience.
    pub(crate) fn may_have(&self, client: &Client, audience: &str, scope: &str) -> bool {
        IDENTITY_SCOPES.contains(&scope) || self.scopes_of(client, audience).contains(&scope)
    }

    fn resource(&self, uri: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.uri == uri)
    }
}

impl Client {
    /// What people are shown for it.
    pub(crate) fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }

    /// Whether this is one of its redirect URIs (RFC 8252 sections 7.3 and 8.10).
    pub(crate) fn accepts(&self, asked: &str) -> bool {
        self.redirect_uris.iter().any(|registered| {
            let loopback = without_port(registered);
            registered == asked || loopback.is_some() && loopback == without_port(asked)
        })
    }
}

/// Whether this is a redirect to a program on this machine (RFC 8252 section 7.3).
pub(crate) fn is_loopback(uri: &str) -> bool {
    without_port(uri).is_some()
}

/// Host and the rest of a loopback redirect URI, without its port. `None` for anything else: nothing is decoded or repaired.
fn without_port(uri: &str) -> Option<(&str, &str)> {
    let after_scheme = uri.strip_prefix("http://")?;
    let host = ["127.0.0.1", "[::1]", "localhost"].into_iter().find(|host| after_scheme.starts_with(host))?;
    let rest = &after_scheme[host.len()..];
    let rest = match rest.strip_prefix(':') {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            rest[..digits].parse::<u16>().ok().filter(|port| *port != 0)?;
            &rest[digits..]
        }
        None => rest,
    };
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some((host, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(registered: &str) -> Client {
        Client { id: "c".into(), name: None, secret_command: None, redirect_uris: vec![registered.into()], scopes: None }
    }

    #[test]
    fn a_redirect_uri_is_matched_byte_for_byte_but_for_the_port_of_a_loopback_one() {
        let loopback = client("http://127.0.0.1/callback");
        for same in ["http://127.0.0.1/callback", "http://127.0.0.1:1/callback", "http://127.0.0.1:65535/callback"] {
            assert!(loopback.accepts(same), "{same}");
        }
        for other in [
            "http://127.0.0.2/callback",
            "http://localhost/callback",
            "http://LOCALHOST/callback",
            "http://127.0.0.1.evil.example/callback",
            "http://127.0.0.1@evil.example/callback",
            "http://127.0.0.1:1@evil.example/callback",
            "http://u:p@127.0.0.1/callback",
            "http://127.0.0.1:0/callback",
            "http://127.0.0.1:/callback",
            "http://127.0.0.1:65536/callback",
            "http://127.0.0.1:+80/callback",
            "http://127.0.0.1:80x/callback",
            "http://127.0.0.1/callback/",
            "http://127.0.0.1/Callback",
            "http://127.0.0.1//callback",
            "http://127.0.0.1/../callback",
            "http://127.0.0.1/%63allback",
            "http://127.0.0.1/callback?x=1",
            "http://127.0.0.1/callback#x",
            "http://127.0.0.1\\callback",
            "https://127.0.0.1/callback",
            "HTTP://127.0.0.1/callback",
            "http://127.1/callback",
            "http://[::1]/callback",
            " http://127.0.0.1/callback",
            "",
        ] {
            assert!(!loopback.accepts(other), "{other}");
        }
        let web = client("https://app.example:8443/cb?x=1");
        assert!(web.accepts("https://app.example:8443/cb?x=1"));
        for other in [
            "https://app.example/cb?x=1",
            "https://app.example:8444/cb?x=1",
            "https://app.example:8443/cb",
            "https://app.example:8443/cb?x=1&y=2",
        ] {
            assert!(!web.accepts(other), "{other}");
        }
        assert!(client("http://[::1]:9/cb").accepts("http://[::1]:10/cb"));
        assert!(client("http://localhost:9").accepts("http://localhost:10"));
        assert!(client("com.example.app:/cb").accepts("com.example.app:/cb"));
        assert!(!client("com.example.app:/cb").accepts("com.example.app:/cb2"));
    }

    #[test]
    fn what_a_client_may_ask_for_is_its_part_of_what_the_resource_knows() {
        let resource = Resource { uri: "http://127.0.0.1:9/mcp".into(), scopes: vec!["read".into(), "write".into()] };
        let mut narrow = client("http://127.0.0.1/cb");
        narrow.scopes = Some(vec!["read".into(), "other".into()]);
        let settings = Settings {
            listen: DEFAULT_LISTEN.parse().unwrap(),
            access_token_lifetime: Duration::from_secs(1),
            clients: vec![],
            resources: vec![resource],
        };
        let uri = settings.only_audience().unwrap();
        assert_eq!(settings.scopes_of(&narrow, &uri), ["read"]);
        assert_eq!(settings.scopes_of(&client("x"), &uri), ["read", "write"]);
        assert!(settings.may_have(&narrow, &uri, "openid") && !settings.may_have(&narrow, &uri, "write"));
        assert!(settings.serves(&uri) && !settings.serves("http://127.0.0.1:9/mcp/") && !settings.serves(&settings.issuer()));
    }
}

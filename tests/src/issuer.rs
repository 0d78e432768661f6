//! Our own issuer as a test meets it: its config, its pages without a browser, its token endpoint.

use std::net::TcpListener;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_auth_proto::LoginEvent;
use serde_json::{Value, json};
use sha2::Digest as _;
use url::Url;

use crate::binaries::{require, source_folder};
use crate::http::{HttpAnswer, get, post_form};
use crate::room::{Daemon, Room};

/// The MCP server that its tokens are for.
pub const RESOURCE: &str = "http://127.0.0.1:3999/mcp";
/// Where the client `plain` is sent back to: nobody listens there.
pub const CALLBACK: &str = "http://127.0.0.1:3998/callback";
/// What the client `plain` proves its code with.
pub const VERIFIER: &str = "zQvF9qz-a-code-verifier-for-tests-only-0123456789-zQvF9qz";
/// The secret of the client `confidential`. Without the leak search's mark: the test hands it to a program as an argument.
pub const SECRET: &str = "a-secret-of-the-issuers-client-7f3a";

/// What changes of a request: `None` takes a parameter away.
pub type Changes<'a> = [(&'a str, Option<&'a str>)];

/// An issuer on a port of its own.
#[derive(Clone, Debug)]
pub struct OwnIssuer {
    port: u16,
}

/// The consent page, as its form and its text tell.
#[derive(Clone, Debug)]
pub struct ConsentPage {
    /// The page's own name.
    pub pending: String,
    /// The proof that a form is of this page.
    pub csrf: String,
    /// What the person types.
    pub code: String,
}

impl OwnIssuer {
    /// Picks a port that is free now.
    #[track_caller]
    pub fn somewhere() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap().port();
        Self { port }
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// An address of it.
    pub fn url(&self, path: &str) -> Url {
        Url::parse(&format!("{}{path}", self.issuer())).unwrap()
    }

    /// A config with the issuer, three clients, and the daemon's own provider `local` at it.
    pub fn config(&self, lifetime: u64) -> String {
        let (port, issuer) = (self.port, self.issuer());
        format!(
            "[issuer]\nenabled = true\nlisten = \"127.0.0.1:{port}\"\naccess_token_lifetime = {lifetime}\n\
             [[issuer.clients]]\nclient_id = \"mcp-authd\"\nname = \"The daemon itself\"\nredirect_uris = [\"http://127.0.0.1/callback\"]\n\
             [[issuer.clients]]\nclient_id = \"plain\"\nredirect_uris = [\"http://127.0.0.1/callback\", \"https://app.example/cb\"]\n\
             [[issuer.clients]]\nclient_id = \"confidential\"\nclient_secret_command = [\"printf\", \"{SECRET}\"]\n\
             redirect_uris = [\"http://127.0.0.1/callback\"]\n\
             [[issuer.resources]]\nuri = \"{RESOURCE}\"\nscopes = [\"github\", \"code\"]\n\
             [providers.local]\nissuer = \"{issuer}\"\nclient_id = \"mcp-authd\"\nscopes = [\"openid\", \"profile\", \"github\"]\n"
        )
    }

    /// The authorization URL of the client `plain`, with changes.
    pub fn authorize_url(&self, changes: &Changes<'_>) -> Url {
        let challenge = URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(VERIFIER));
        let usual = [
            ("response_type", "code"),
            ("client_id", "plain"),
            ("redirect_uri", CALLBACK),
            ("scope", "openid github"),
            ("state", "state-1"),
            ("resource", RESOURCE),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let mut url = self.url("/oauth/authorize");
        url.query_pairs_mut().extend_pairs(with(&usual, changes));
        url
    }

    /// Opens the consent page of an authorization URL.
    #[track_caller]
    pub fn open(&self, url: &Url) -> ConsentPage {
        let page = get(url, &[]);
        assert_eq!(page.status, 200, "{}", page.body);
        let after = |start: &str, end: char| {
            let rest = page.body.split_once(start).unwrap_or_else(|| panic!("no {start}: {}", page.body)).1;
            rest.split(end).next().unwrap().to_owned()
        };
        ConsentPage {
            pending: after("name=\"pending\" value=\"", '"'),
            csrf: after("name=\"csrf\" value=\"", '"'),
            code: after("mcp-authctl approve <b>", '<'),
        }
    }

    /// What the page asks by itself.
    pub fn poll_url(&self, page: &ConsentPage) -> Url {
        self.url(&format!("/oauth/authorize?pending={}", page.pending))
    }

    /// A person opens the URL and approves it in the terminal: where the browser is sent.
    #[track_caller]
    pub fn approve(&self, room: &Room, url: &Url) -> Url {
        let page = self.open(url);
        room.ctl(&["approve", &page.code, "--yes"]).ok();
        let answer = get(&self.poll_url(&page), &[]);
        let location = answer.header("location").unwrap_or_else(|| panic!("no redirect: {} {}", answer.status, answer.body));
        Url::parse(location).unwrap()
    }

    /// An authorization code of the client `plain`.
    #[track_caller]
    pub fn code(&self, room: &Room, changes: &Changes<'_>) -> String {
        let redirect = self.approve(room, &self.authorize_url(changes));
        query(&redirect, "code").unwrap_or_else(|| panic!("no code: {redirect}"))
    }

    /// The client `plain` exchanges a code.
    #[track_caller]
    pub fn exchange(&self, code: &str, changes: &Changes<'_>) -> HttpAnswer {
        let usual = [
            ("grant_type", "authorization_code"),
            ("client_id", "plain"),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
            ("resource", RESOURCE),
        ];
        post_form(&self.url("/oauth/token"), &[], &with(&usual, changes))
    }

    /// The client `plain` uses a refresh token.
    #[track_caller]
    pub fn refresh(&self, token: &Value) -> HttpAnswer {
        let token = token["refresh_token"].as_str().unwrap();
        let fields = [("grant_type", "refresh_token"), ("client_id", "plain"), ("refresh_token", token)];
        post_form(&self.url("/oauth/token"), &[], &fields)
    }

    /// A whole login of the client `plain`.
    #[track_caller]
    pub fn tokens(&self, room: &Room) -> Value {
        let answer = self.exchange(&self.code(room, &[]), &[]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// The daemon logs in at its own issuer as `local`, without a browser.
    #[track_caller]
    pub fn log_in(&self, room: &Room, daemon: &Daemon<'_>) {
        let mut login = daemon.start_login(&json!({ "provider": "local" }));
        let redirect = self.approve(room, &login.wait_for_url().parse().unwrap());
        assert_eq!(get(&redirect, &[]).status, 200);
        assert!(matches!(login.last(), LoginEvent::Done { .. }), "{}", daemon.running.said());
    }

    /// What userinfo says to an access token.
    #[track_caller]
    pub fn userinfo(&self, token: &str) -> HttpAnswer {
        get(&self.url("/oauth/userinfo"), &[("authorization", &format!("Bearer {token}"))])
    }
}

/// A parameter of a URL's query.
pub fn query(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

/// The claims of a JWT, unchecked.
#[track_caller]
pub fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// Node and a script of `tests/issuer`, its packages installed.
#[track_caller]
pub fn issuer_script(name: &str) -> (PathBuf, PathBuf) {
    let folder = source_folder().join("issuer");
    assert!(folder.join("node_modules/oauth4webapi").exists(), "the client is not installed: run `npm ci` in tests/issuer");
    (require("node", "nodejs (20 or newer)"), folder.join(name))
}

fn with<'a>(usual: &[(&'a str, &'a str)], changes: &Changes<'a>) -> Vec<(&'a str, &'a str)> {
    let kept = usual.iter().filter(|(name, _)| changes.iter().all(|(other, _)| other != name)).copied();
    kept.chain(changes.iter().filter_map(|(name, value)| Some((*name, (*value)?)))).collect()
}

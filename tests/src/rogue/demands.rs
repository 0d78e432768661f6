//! What the misbehaving server insists on. Each demand is one that a real provider makes, and a request that does not meet
//! it is refused, so that a client can only pass by knowing the quirk.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use url::form_urlencoded::byte_serialize;

use crate::request::{Request, members};

/// How the client must prove itself at the token endpoint.
#[derive(Clone, Debug, Default)]
pub enum Proof {
    /// Any way will do.
    #[default]
    Any,
    /// `client_id` in the body, and nothing else.
    Public,
    /// This secret by HTTP Basic, both halves form-encoded (RFC 6749 section 2.3.1), and nothing in the body.
    Basic(String),
    /// This secret in the body, and no header.
    Post(String),
    /// A client assertion for this audience with this `kid`, unsigned parts only: the real server checks signatures.
    Assertion(String, Option<String>),
}

/// How the token endpoint writes its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writing {
    /// As JSON.
    #[default]
    Json,
    /// As a form.
    Form,
    /// As JSON, the tokens in this member, beside a token that is somebody else's.
    Member(&'static str),
}

/// Everything that is insisted on.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    /// How the client proves itself.
    pub proof: Proof,
    /// PKCE is refused.
    pub no_pkce: bool,
    /// The scope parameter of the authorization URL, as it stands there byte for byte.
    pub scope: Option<String>,
    /// Token requests are JSON.
    pub json: bool,
    /// Every token request holds this parameter.
    pub parameter: Option<(String, String)>,
    /// Refreshes go to `/refresh`, and the code to `/token`.
    pub own_refresh: bool,
    /// The parameter that holds the scopes at `/device`, and what it holds.
    pub device_scope: Option<(String, String)>,
    /// How answers are written.
    pub writing: Writing,
}

impl Demands {
    /// Why an authorization request is refused.
    pub(super) fn authorization(&self, asked: &Request) -> Result<(), String> {
        let challenge = members(asked.query.as_bytes()).contains_key("code_challenge");
        if challenge == self.no_pkce {
            return Err(format!("a code challenge is {}", if challenge { "there" } else { "missing" }));
        }
        let scope = asked.query.split('&').find_map(|parameter| parameter.strip_prefix("scope="));
        match &self.scope {
            Some(wanted) if scope != Some(wanted) => Err(format!("the scope is {scope:?} and not {wanted}")),
            _ => Ok(()),
        }
    }

    /// Why a device authorization request is refused.
    pub(super) fn device(&self, asked: &Request) -> Result<(), String> {
        let fields = asked.fields();
        match &self.device_scope {
            Some((name, value)) if fields.get(name) != Some(value) => Err(format!("{name} is not {value} in {fields:?}")),
            _ => Ok(()),
        }
    }

    /// Why a token request is refused.
    pub(super) fn token(&self, asked: &Request, jtis: &mut BTreeSet<String>) -> Result<(), String> {
        let fields = asked.fields();
        let refresh = fields.get("grant_type").is_some_and(|kind| kind == "refresh_token");
        let place = if refresh && self.own_refresh { "/refresh" } else { "/token" };
        if asked.path != place {
            return Err(format!("this belongs to {place}"));
        }
        let kind = if self.json { "application/json" } else { "application/x-www-form-urlencoded" };
        if asked.header("content-type") != kind {
            return Err(format!("the body is not {kind}"));
        }
        if self.no_pkce && fields.contains_key("code_verifier") {
            return Err("a code verifier is there".into());
        }
        if let Some((name, value)) = &self.parameter
            && fields.get(name) != Some(value)
        {
            return Err(format!("{name} is missing"));
        }
        self.proof.of(asked, jtis)
    }

    /// An answer, as it is written here.
    pub(super) fn written(&self, answer: Value) -> Value {
        let Writing::Member(name) = self.writing else { return answer };
        if answer["access_token"].is_null() {
            return answer;
        }
        let mut whole = serde_json::json!({ "ok": true, "access_token": "zQaT9qz.somebody-else.zQaT9qz", "token_type": "bot" });
        whole[name] = answer;
        whole
    }
}

impl Proof {
    fn of(&self, asked: &Request, jtis: &mut BTreeSet<String>) -> Result<(), String> {
        let (header, fields) = (asked.headers.get("authorization"), asked.fields());
        let id = fields.get("client_id").cloned().unwrap_or_default();
        let secret = fields.get("client_secret");
        let met = match self {
            Self::Any => true,
            Self::Public => header.is_none() && secret.is_none() && !id.is_empty() && !fields.contains_key("client_assertion"),
            Self::Basic(wanted) => {
                let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encode("native"), encode(wanted));
                header == Some(&format!("Basic {}", STANDARD.encode(pair))) && id.is_empty() && secret.is_none()
            }
            Self::Post(wanted) => header.is_none() && id == "native" && secret == Some(wanted),
            Self::Assertion(audience, key_id) => return asserted(asked, (audience, key_id.as_deref()), jtis),
        };
        if met { Ok(()) } else { Err("the client has not proved itself in the way that is wanted".into()) }
    }
}

fn asserted(asked: &Request, (audience, key_id): (&str, Option<&str>), jtis: &mut BTreeSet<String>) -> Result<(), String> {
    let fields = asked.fields();
    let kind = fields.get("client_assertion_type").map(String::as_str);
    if kind != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer") || fields.contains_key("client_secret") {
        return Err(format!("the assertion is of type {kind:?}, or stands beside a secret"));
    }
    let assertion = fields.get("client_assertion").cloned().unwrap_or_default();
    let part = |number| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(assertion.split('.').nth(number)?).ok()?).ok() };
    let (header, claims) = part(0).zip(part(1)).ok_or("the assertion is no JWT")?;
    let lifetime = claims["exp"].as_i64().unwrap_or(0) - claims["iat"].as_i64().unwrap_or(0);
    let wanted = claims["aud"] == audience && claims["iss"] == "native" && claims["sub"] == "native" && header["kid"].as_str() == key_id;
    if !wanted || !(1..=300).contains(&lifetime) {
        return Err(format!("the assertion says {header} {claims}"));
    }
    if jtis.insert(claims["jti"].as_str().unwrap_or_default().to_owned()) { Ok(()) } else { Err("this jti was used before".into()) }
}

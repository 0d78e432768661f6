//! PURE: the authorization endpoint (RFC 6749 section 4.1, OAuth 2.1): what a request must be, the page that waits for its
//! approval, and the way back to the client. A request that is not the client's own is answered here and leads nowhere.

use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::clients::Settings;
use super::core::{Core, LOCKED, Outcome, Said};
use super::error::{Code as ErrorCode, Refusal};
use super::page::{self, Facts};
use super::params::Params;
use super::reply::Reply;
use super::{Random, random_text};
use crate::clock::{Boot, Now};

/// A request that is well-formed and the client's own.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) client_id: String,
    pub(crate) redirect_uri: String,
    state: String,
    pub(crate) scopes: Vec<String>,
    /// The resource, byte for byte.
    pub(crate) audience: String,
    /// RFC 7636 section 4.2, S256.
    pub(crate) challenge: String,
    pub(crate) nonce: Option<String>,
}

/// A request that waits for a person.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Known to the page alone.
    id: String,
    /// Known to the form of the page alone.
    csrf: String,
    /// What the person types.
    pub(crate) code: String,
    pub(crate) request: Request,
    pub(crate) until: Boot,
    pub(crate) verdict: Verdict,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Verdict {
    Open,
    Allowed,
    Refused,
    /// The browser has been sent there, with a code or with an error. A browser may ask twice, and is sent to the same place.
    Sent(Zeroizing<String>, bool),
}

/// An authorization code that was issued.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) hash: [u8; 32],
    pub(crate) request: Request,
    /// Seconds since 1970.
    pub(crate) approved_at: i64,
    pub(crate) until: Boot,
    /// The family that was got with it. One attempt is all there is.
    pub(crate) spent: Option<String>,
}

/// How long a person may take to approve.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a code is good.
const CODE_LIFETIME: Duration = Duration::from_secs(60);
/// Requests that may wait at a time: beyond, the oldest goes.
const MOST_PENDING: usize = 32;
/// The longest `state` or `nonce`.
const LONGEST: usize = 2048;

/// Why there is no request.
enum Wrong {
    /// Who asks, or where the answer goes, is not certain: a page says so, and nobody is sent anywhere.
    Here(&'static str),
    /// The client hears of it.
    Back(Refusal, String, Option<String>),
}

impl Core {
    pub(super) fn authorize(&mut self, params: &Params, now: Now, random: Random<'_>) -> Outcome {
        let request = match read(&self.settings, params) {
            Ok(request) => request,
            Err(Wrong::Here(sentence)) => return Outcome::reply(Reply::page(400, page::error(sentence))),
            Err(Wrong::Back(refusal, redirect_uri, state)) => {
                return Outcome::reply(Reply::redirect(&self.way_back(&redirect_uri, state.as_deref(), refusal)));
            }
        };
        if self.holdings.is_none() {
            return Outcome::reply(Reply::page(503, page::error(LOCKED.description)));
        }
        if self.pending.len() >= MOST_PENDING {
            self.pending.remove(0);
        }
        let (id, csrf) = (random_text::<16>(random).to_string(), random_text::<16>(random).to_string());
        let pending = Pending { id, csrf, code: short_code(random), request, until: now.boot + PATIENCE, verdict: Verdict::Open };
        let html = page::consent(&self.facts(&pending), None);
        self.pending.push(pending);
        Outcome::reply(Reply::page(200, html))
    }

    /// The page asks by itself, again and again.
    pub(super) fn poll(&mut self, id: &str, now: Now, random: Random<'_>) -> Outcome {
        match self.settle(id, now, random) {
            Some((to, _)) => Outcome::reply(Reply::redirect(&to)),
            None => self.waiting(id, None),
        }
    }

    /// "Continue" or "Cancel".
    pub(super) fn press(&mut self, params: &Params, now: Now, random: Random<'_>) -> Outcome {
        let id = params.get("pending").unwrap_or_default();
        let Some(pending) = self.pending.iter_mut().find(|pending| same(&pending.id, id)) else { return gone() };
        if !same(&pending.csrf, params.get("csrf").unwrap_or_default()) {
            return Outcome::reply(Reply::page(403, page::error("this form did not come from the page of the request")));
        }
        if params.get("press") == Some("cancel") && matches!(pending.verdict, Verdict::Open | Verdict::Allowed) {
            pending.verdict = Verdict::Refused;
        }
        match self.settle(id, now, random) {
            // A page and not a redirect: a form may lead only to us (CSP form-action).
            Some((to, allowed)) => Outcome::reply(Reply::page(200, page::done(&to, allowed))),
            None => self.waiting(id, Some("Not approved yet: type the command in a terminal first.")),
        }
    }

    /// Where the browser goes, once the request is decided, and whether with a code.
    fn settle(&mut self, id: &str, now: Now, random: Random<'_>) -> Option<(Zeroizing<String>, bool)> {
        let at = self.pending.iter().position(|pending| same(&pending.id, id))?;
        let Pending { request, verdict, until, .. } = &self.pending[at];
        let description = match verdict {
            Verdict::Sent(to, allowed) => return Some((to.clone(), *allowed)),
            Verdict::Open if now.boot < *until => return None,
            Verdict::Open => Some("nobody approved the request in time"),
            Verdict::Refused => Some("the person refused"),
            Verdict::Allowed => None,
        };
        let request = request.clone();
        let to = match description {
            Some(description) => {
                let refusal = Refusal::new(ErrorCode::AccessDenied, description);
                Zeroizing::new(self.way_back(&request.redirect_uri, Some(&request.state), refusal))
            }
            None => self.issue(request, now, random),
        };
        self.pending[at].verdict = Verdict::Sent(to.clone(), description.is_none());
        Some((to, description.is_none()))
    }

    /// Makes a code, and the URL that takes it to the client.
    fn issue(&mut self, request: Request, now: Now, random: Random<'_>) -> Zeroizing<String> {
        let code = random_text::<32>(random);
        let params = [("code", code.as_str()), ("state", &request.state), ("iss", &self.issuer)];
        let to = with_params(&request.redirect_uri, &params);
        let approved_at = now.wall.0.div_euclid(1000);
        self.codes.push(Code { hash: hash(&code), request, approved_at, until: now.boot + CODE_LIFETIME, spent: None });
        to
    }

    fn waiting(&self, id: &str, notice: Option<&str>) -> Outcome {
        match self.pending.iter().find(|pending| same(&pending.id, id)) {
            Some(pending) => {
                let reply = Reply::page(200, page::consent(&self.facts(pending), notice));
                Outcome { said: Said::Waiting(reply), changes: Vec::new() }
            }
            None => gone(),
        }
    }

    /// An error for the client (RFC 6749 section 4.1.2.1, RFC 9207 section 2).
    fn way_back(&self, redirect_uri: &str, state: Option<&str>, refusal: Refusal) -> String {
        let uri = refusal.uri(&self.issuer);
        let mut params = vec![("error", refusal.code.as_str()), ("error_description", refusal.description), ("error_uri", &uri)];
        params.extend(state.map(|state| ("state", state)));
        params.push(("iss", &self.issuer));
        with_params(redirect_uri, &params).to_string()
    }

    fn facts<'a>(&'a self, pending: &'a Pending) -> Facts<'a> {
        let request = &pending.request;
        let client = self.settings.client(&request.client_id);
        Facts {
            client: client.map_or(request.client_id.as_str(), |client| client.shown()),
            client_id: &request.client_id,
            redirect_uri: &request.redirect_uri,
            resource: Some(request.audience.as_str()).filter(|audience| *audience != self.issuer),
            scopes: &request.scopes,
            code: &pending.code,
            pending: &pending.id,
            csrf: &pending.csrf,
        }
    }
}

fn gone() -> Outcome {
    Outcome::reply(Reply::page(400, page::error("this request has ended; start it again in the program that sent you here")))
}

/// Checks a request: first whose it is and where the answer may go, then the rest.
fn read(settings: &Settings, params: &Params) -> Result<Request, Wrong> {
    let client_id = params.get("client_id").ok_or(Wrong::Here("the request names no client (client_id)"))?;
    let client = settings
        .client(client_id)
        .ok_or(Wrong::Here("the client of this request is not known here: it must be one of [[issuer.clients]] in config.toml"))?;
    let redirect_uri = params.get("redirect_uri").ok_or(Wrong::Here("the request does not say where to go back to (redirect_uri)"))?;
    if !client.accepts(redirect_uri) {
        return Err(Wrong::Here(
            "the redirect URI of this request is not one of the client's: compare redirect_uris in [[issuer.clients]] of config.toml",
        ));
    }
    let state = params.get("state");
    let back = |code, description| Wrong::Back(Refusal::new(code, description), redirect_uri.to_owned(), state.map(str::to_owned));
    let invalid = |description| back(ErrorCode::InvalidRequest, description);
    check_form(params).map_err(|(code, description)| back(code, description))?;
    let audience = match params.get("resource") {
        Some(resource) if settings.serves(resource) => resource.to_owned(),
        Some(_) => return Err(back(ErrorCode::InvalidTarget, "the resource is not known here")),
        None => settings.only_audience().ok_or_else(|| back(ErrorCode::InvalidTarget, "the request must name a resource"))?,
    };
    let scopes: Vec<String> = match params.get("scope") {
        Some(scope) => scope.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
        None => settings.scopes_of(client, &audience).into_iter().map(str::to_owned).collect(),
    };
    if !scopes.iter().all(|scope| settings.may_have(client, &audience, scope)) {
        return Err(back(ErrorCode::InvalidScope, "a scope is not known for this client and resource"));
    }
    Ok(Request {
        client_id: client_id.to_owned(),
        redirect_uri: redirect_uri.to_owned(),
        state: state.ok_or_else(|| invalid("state is missing"))?.to_owned(),
        scopes: distinct(scopes),
        audience,
        challenge: params.get("code_challenge").ok_or_else(|| invalid("code_challenge is missing"))?.to_owned(),
        nonce: params.get("nonce").map(str::to_owned),
    })
}

/// What does not depend on the client.
fn check_form(params: &Params) -> Result<(), (ErrorCode, &'static str)> {
    use ErrorCode::{ConsentRequired, InvalidRequest, RequestNotSupported, RequestUriNotSupported, UnsupportedResponseType};
    let long = |name| params.get(name).is_some_and(|value: &str| value.len() > LONGEST);
    let is_s256 =
        |challenge: &str| challenge.len() == 43 && challenge.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let wrong = match () {
        () if params.get("request").is_some() => (RequestNotSupported, "request objects are not supported"),
        () if params.get("request_uri").is_some() => (RequestUriNotSupported, "request objects are not supported"),
        () if params.get("response_type").is_none() => (InvalidRequest, "response_type is missing"),
        () if params.get("response_type") != Some("code") => (UnsupportedResponseType, "response_type must be code"),
        () if params.get("response_mode").is_some_and(|mode| mode != "query") => (InvalidRequest, "response_mode must be query"),
        () if params.get("state").is_none() => (InvalidRequest, "state is missing"),
        () if long("state") || long("nonce") => (InvalidRequest, "state and nonce may have 2048 characters"),
        () if params.get("code_challenge").is_none() => (InvalidRequest, "code_challenge is missing: PKCE is required"),
        () if params.get("code_challenge_method") != Some("S256") => (InvalidRequest, "code_challenge_method must be S256"),
        () if !params.get("code_challenge").is_some_and(is_s256) => (InvalidRequest, "code_challenge is not one of S256"),
        () if params.get("prompt").is_some_and(|prompt| prompt.split(' ').any(|word| word == "none")) => {
            (ConsentRequired, "every request is approved by a person")
        }
        () => return Ok(()),
    };
    Err(wrong)
}

fn distinct(scopes: Vec<String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::new();
    for scope in scopes {
        if !distinct.contains(&scope) {
            distinct.push(scope);
        }
    }
    distinct
}

/// A redirect URI with parameters behind its own query (RFC 6749 section 3.1.2).
fn with_params(uri: &str, params: &[(&str, &str)]) -> Zeroizing<String> {
    let joint = match uri.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    let query = Zeroizing::new(Serializer::new(String::new()).extend_pairs(params).finish());
    Zeroizing::new(format!("{uri}{joint}{}", *query))
}

/// Eight letters that are hard to mistake for each other and spell no word (RFC 8628 section 6.1): 34 bits, for five minutes,
/// and only on the person's own socket can one be tried.
fn short_code(random: Random<'_>) -> String {
    const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
    let mut code = String::with_capacity(9);
    while code.len() < 9 {
        let mut byte = [0];
        random(&mut byte);
        // 240 is a multiple of 20: every letter is as likely.
        if byte[0] < 240 {
            code.push(char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()]));
        }
        if code.len() == 4 {
            code.push('-');
        }
    }
    code
}

pub(super) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

pub(super) fn same(ours: &str, theirs: &str) -> bool {
    ours.as_bytes().ct_eq(theirs.as_bytes()).into()
}

//! The device flow (RFC 8628): the request that starts it, what may be believed of its answer, and what a poll means.

use std::time::Duration;

use zeroize::Zeroizing;

use super::form::{self, Field, Sent};
use super::text::{clean_code, clean_option};
use super::token::{self, TokenError, TokenResponse};
use crate::grant::record::Definition;
use crate::provider::{ClientAuth, Quirks};
use crate::secret::ClientSecret;
use crate::transport::{Request, Response, check_url};

/// The `grant_type` of a poll (RFC 8628 section 3.4).
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The pause between polls where none is told (section 3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// The longest pause that is believed.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// How long a person has at most, whatever the server says.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 60);
/// The longest user code that a person is asked to type.
const LONGEST_USER_CODE: usize = 32;

/// What a person types where, and what is polled with (RFC 8628 section 3.2), checked.
#[derive(Clone)]
pub struct DeviceAuthorization {
    /// What is polled with.
    pub device_code: Zeroizing<String>,
    /// What the person types: visible ASCII, at most 32 characters.
    pub user_code: String,
    /// Where: https, or http on loopback; as a URL parser writes it.
    pub verification_uri: String,
    /// The same with the code in it, if it leads to the same host.
    pub verification_uri_complete: Option<String>,
    /// The host of both, in ASCII.
    pub host: String,
    /// How long the code is good.
    pub lifetime: Duration,
    /// The pause between polls.
    pub interval: Duration,
}

impl std::fmt::Debug for DeviceAuthorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceAuthorization").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Why a device flow did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The server refused, with a code.
    #[error("the provider answered {code}{}", .description.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// The OAuth error code, sanitised.
        code: String,
        /// `error_description`, sanitised.
        description: Option<String>,
    },
    /// Another answer than a device authorization.
    #[error("the provider's answer is not usable: {0}")]
    Unusable(String),
}

/// What a poll says (RFC 8628 section 3.5).
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart where it arrives")]
pub enum Poll {
    /// The person has not finished.
    Pending,
    /// The same, and the pause grows by 5 s.
    SlowDown,
    /// The person refused.
    Denied,
    /// The code is too old.
    Expired,
    /// Tokens, or any other failure.
    Ended(Result<TokenResponse, TokenError>),
}

impl DeviceError {
    /// The same without what the request held: a hostile server may repeat it.
    #[must_use]
    pub fn without(self, sent: &Sent) -> Self {
        match self {
            Self::Refused { code, description } => {
                Self::Refused { code: sent.strike(&code), description: description.map(|text| sent.strike(&text)) }
            }
            Self::Unusable(what) => Self::Unusable(sent.strike(&what)),
        }
    }
}

impl Poll {
    /// The same without what the request held.
    #[must_use]
    pub fn without(self, sent: &Sent) -> Self {
        match self {
            Self::Ended(Err(error)) => Self::Ended(Err(error.without(sent))),
            other => other,
        }
    }
}

/// The device authorization request (RFC 8628 section 3.1). `None` where the definition has no client.
pub fn request(
    definition: &Definition,
    quirks: &Quirks,
    secret: Option<&ClientSecret>,
    endpoint: &str,
    (scopes, resource): (&[String], Option<&str>),
) -> Option<Request> {
    let scope = quirks.request_scope_separator.join(scopes);
    let mut fields = Vec::new();
    if !scope.is_empty() {
        fields.push((quirks.device_scope_parameter.as_str(), Field::Text(&scope)));
    }
    token::push_resource(&mut fields, quirks, resource);
    let client = token::client(definition, quirks, secret)?;
    // A client of HTTP Basic has nothing else to send, and servers refuse an empty form.
    if client.auth == ClientAuth::ClientSecretBasic && client.secret.is_some() {
        fields.push(("client_id", Field::Text(client.id)));
    }
    Some(form::post(endpoint, &fields, client, TIMEOUT))
}

/// Checks the answer to [`request`].
pub fn check(response: &Response) -> Result<DeviceAuthorization, DeviceError> {
    let unusable = |what: &str| DeviceError::Unusable(what.to_owned());
    let members = token::members(response).map_err(|error| match response.status {
        200 => DeviceError::Unusable(error.to_string()),
        status => DeviceError::Unusable(format!("status {status}, and {error}")),
    })?;
    if let Some(code) = token::error_code(&members) {
        return Err(DeviceError::Refused { code: clean_code(code), description: clean_option(members.text("error_description")) });
    }
    if response.status != 200 {
        return Err(DeviceError::Unusable(format!("status {} without an error code", response.status)));
    }
    let device_code = Zeroizing::new(members.text("device_code").ok_or_else(|| unusable("it holds no device code"))?.to_owned());
    let user_code =
        members.text("user_code").filter(|code| is_typable(code)).ok_or_else(|| unusable("it holds no code to type"))?.to_owned();
    // Google's older name for it.
    let address = members.text("verification_uri").or_else(|| members.text("verification_url"));
    let page = address.and_then(|url| check_url(url).ok()).ok_or_else(|| unusable("it holds no web address to type the code at"))?;
    let complete = members.text("verification_uri_complete").and_then(|url| check_url(url).ok());
    let seconds = |name| members.number(name).filter(|number| *number > 0.0).and_then(|number| Duration::try_from_secs_f64(number).ok());
    Ok(DeviceAuthorization {
        device_code,
        user_code,
        verification_uri_complete: complete.filter(|url| url.origin() == page.origin()).map(String::from),
        host: page.host_str().unwrap_or_default().to_owned(),
        verification_uri: page.into(),
        lifetime: seconds("expires_in").unwrap_or(LONGEST_LIFE).min(LONGEST_LIFE),
        interval: seconds("interval").unwrap_or(INTERVAL).clamp(Duration::from_secs(1), LONGEST_INTERVAL),
    })
}

/// The poll (RFC 8628 section 3.4). `None` where the definition has no token endpoint or client.
pub fn poll(
    definition: &Definition,
    quirks: &Quirks,
    secret: Option<&ClientSecret>,
    device_code: &Zeroizing<String>,
    resource: Option<&str>,
) -> Option<Request> {
    let mut fields = vec![("grant_type", Field::Text(GRANT_TYPE)), ("device_code", Field::Hidden(device_code))];
    token::push_resource(&mut fields, quirks, resource);
    let endpoint = definition.token_endpoint.as_deref()?;
    Some(form::post_as(quirks.token_request, endpoint, &fields, token::client(definition, quirks, secret)?, TIMEOUT))
}

/// Checks the answer to [`poll`]; `bound`: the request showed a key (RFC 9449).
pub fn check_poll(response: &Response, quirks: &Quirks, bound: bool) -> Poll {
    let members = token::members(response);
    match members.as_ref().ok().and_then(token::error_code) {
        Some("authorization_pending") => Poll::Pending,
        Some("slow_down") => Poll::SlowDown,
        // The second words are Entra's.
        Some("access_denied" | "authorization_declined") => Poll::Denied,
        Some("expired_token" | "bad_verification_code") => Poll::Expired,
        _ => Poll::Ended(token::check_as(response, quirks, bound)),
    }
}

fn is_typable(code: &str) -> bool {
    code.len() <= LONGEST_USER_CODE && code.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::samples::{definition, form, json, quirks};
    use crate::provider::ScopeSeparator;

    const GOOD: &str = r#""device_code":"dc-1","user_code":"WDJB-MJHT","verification_uri":"https://as.example/device""#;

    fn of(more: &str) -> Result<DeviceAuthorization, DeviceError> {
        check(&json(200, &format!("{{{GOOD}{more}}}")))
    }

    #[test]
    fn the_request_names_client_scopes_and_resource() {
        let scopes = ["read".to_owned(), "write".to_owned()];
        let request =
            request(&definition(), &quirks(), None, "https://as.example/device/code", (&scopes, Some("https://mcp.example"))).unwrap();
        assert_eq!(request.url, "https://as.example/device/code");
        let expected = [("scope", "read write"), ("resource", "https://mcp.example"), ("client_id", "client-1")];
        assert_eq!(form(&request), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_scopes_go_under_the_name_and_with_the_separator_of_the_server() {
        let scopes = ["read".to_owned(), "write".to_owned()];
        for (separator, expected) in
            [(ScopeSeparator::Space, "read write"), (ScopeSeparator::Plus, "read write"), (ScopeSeparator::Comma, "read,write")]
        {
            let quirks = Quirks { device_scope_parameter: "scopes".into(), request_scope_separator: separator, ..quirks() };
            let request = request(&definition(), &quirks, None, "https://as.example/device/code", (&scopes, None)).unwrap();
            assert_eq!(form(&request)[0], ("scopes".to_owned(), expected.to_owned()));
        }
    }

    #[test]
    fn a_poll_names_the_grant_type_and_the_device_code() {
        let request = poll(&definition(), &quirks(), None, &Zeroizing::new("dc/1".into()), None).unwrap();
        assert_eq!(request.url, "https://as.example/token");
        let expected = [("grant_type", GRANT_TYPE), ("device_code", "dc/1"), ("client_id", "client-1")];
        assert_eq!(form(&request), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn times_are_believed_within_reason() {
        let seconds = |more: &str| of(more).map(|device| (device.interval.as_secs(), device.lifetime.as_secs())).unwrap();
        for (more, expected) in [
            ("", (5, 1800)),
            (r#","interval":7,"expires_in":900"#, (7, 900)),
            (r#","interval":"7","expires_in":"900""#, (7, 900)),
            (r#","interval":0,"expires_in":0"#, (5, 1800)),
            (r#","interval":1000000000,"expires_in":1000000000"#, (60, 1800)),
            (r#","interval":1e300,"expires_in":-5"#, (5, 1800)),
            (r#","interval":0.001"#, (1, 1800)),
        ] {
            assert_eq!(seconds(more), expected, "{more}");
        }
    }

    #[test]
    fn a_page_must_be_a_web_address_and_the_complete_one_at_the_same_place() {
        let complete = |url: &str| of(&format!(r#","verification_uri_complete":"{url}""#)).unwrap().verification_uri_complete;
        assert_eq!(
            complete("https://as.example/device?user_code=WDJB-MJHT").as_deref(),
            Some("https://as.example/device?user_code=WDJB-MJHT")
        );
        for other in ["https://evil.example/device", "javascript:alert(1)", "http://as.example/device", "https://me@as.example/x"] {
            assert_eq!(complete(other), None, "{other}");
        }
        for page in ["javascript:alert(1)", "file:///etc/passwd", "http://as.example/device", "https://me@as.example/", "-flag", ""] {
            let body = format!(r#"{{"device_code":"d","user_code":"U","verification_uri":"{page}"}}"#);
            assert!(matches!(check(&json(200, &body)), Err(DeviceError::Unusable(_))), "{page}");
        }
        let google = check(&json(200, r#"{"device_code":"d","user_code":"U","verification_url":"https://ex\u00e4mple.com/d"}"#)).unwrap();
        assert_eq!((google.host.as_str(), google.verification_uri.as_str()), ("xn--exmple-cua.com", "https://xn--exmple-cua.com/d"));
    }

    #[test]
    fn a_code_that_nobody_can_type_is_refused() {
        for code in [r"\u001b[2J", "\u{202e}ABC", "ÄÖ", &"A".repeat(33), ""] {
            let body = format!(r#"{{"device_code":"d","user_code":"{code}","verification_uri":"https://as.example/"}}"#);
            assert!(matches!(check(&json(200, &body)), Err(DeviceError::Unusable(_))), "{code}");
        }
    }

    #[test]
    fn a_refusal_keeps_its_code_and_loses_its_controls() {
        let refused = check(&json(400, r#"{"error":"unauthorized_client","error_description":"\u001b[31mno"}"#)).unwrap_err();
        assert_eq!(refused.to_string(), "the provider answered unauthorized_client: [31mno");
        assert!(
            matches!(check(&json(200, r#"{"error":"device_flow_disabled"}"#)), Err(DeviceError::Refused { .. })),
            "GitHub says it with 200"
        );
        for (status, body) in [(404, "{}"), (500, "<html>"), (200, "{}"), (200, "")] {
            assert!(matches!(check(&json(status, body)), Err(DeviceError::Unusable(_))), "{status} {body}");
        }
    }

    #[test]
    fn polls_are_told_apart_whatever_their_status() {
        let poll = |status, error: &str| check_poll(&json(status, &format!(r#"{{"error":"{error}"}}"#)), &quirks(), false);
        for status in [200, 400, 403, 428] {
            assert!(matches!(poll(status, "authorization_pending"), Poll::Pending));
            assert!(matches!(poll(status, "slow_down"), Poll::SlowDown));
            assert!(matches!(poll(status, "access_denied"), Poll::Denied));
            assert!(matches!(poll(status, "expired_token"), Poll::Expired));
        }
        assert!(matches!(poll(400, "invalid_grant"), Poll::Ended(Err(TokenError::InvalidGrant(_)))));
        let tokens = check_poll(&json(200, r#"{"access_token":"at-1","token_type":"bearer"}"#), &quirks(), false);
        assert!(matches!(tokens, Poll::Ended(Ok(response)) if response.access_token.expose() == "at-1"));
    }
}

//! What an answer of the token endpoint means (RFC 6749 section 5): lenient with tokens, strict with what ends a grant.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{RefreshTokenLifetime, TokenError, TokenResponse};
use crate::oauth::identity;
use crate::oauth::members::{Members, MembersError};
use crate::oauth::text::{clean, clean_code, clean_option};
use crate::provider::{DefaultLifetime, Quirks};
use crate::secret::{AccessToken, RefreshToken};
use crate::transport::Response;

/// Error codes that a person has to do something about; the grant is kept. The last is GitHub's word for `invalid_client`.
const REFUSALS: [&str; 6] =
    ["invalid_client", "unauthorized_client", "interaction_required", "consent_required", "invalid_scope", "incorrect_client_credentials"];
/// What stands as `token_type` at Slack: whose bearer token it is.
const OWNERS: [&str; 2] = ["bot", "user"];
/// The longest `Retry-After` that is followed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// The longest lifetime that is believed.
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Checks an answer of the token endpoint. Only an OAuth error in 200, 400, 401 or 403 can be [`TokenError::InvalidGrant`]
/// (Auth0 and Atlassian use 403); whatever is not understood is transient.
pub fn check(response: &Response, quirks: &Quirks) -> Result<TokenResponse, TokenError> {
    check_as(response, quirks, false)
}

/// The same, where `bound` says that the request showed a key: then a token that is not bound to it is none that can be served
/// (RFC 9449 section 5).
pub fn check_as(response: &Response, quirks: &Quirks, bound: bool) -> Result<TokenResponse, TokenError> {
    success(&granted(response, quirks)?, quirks, bound)
}

/// The members of an answer that is no refusal.
pub(in crate::oauth) fn granted(response: &Response, quirks: &Quirks) -> Result<Members, TokenError> {
    let status = response.status;
    match status {
        429 | 503 => {
            let retry_after = response.retry_after.map(|delay| delay.min(LONGEST_RETRY_AFTER));
            return Err(TokenError::Overloaded { status, retry_after });
        }
        200..=299 | 400 | 401 | 403 => {}
        300..=399 => return Err(TokenError::Unusable(format!("status {status}, a redirect"))),
        _ => return Err(TokenError::Unusable(format!("status {status}"))),
    }
    let members = members(response).map_err(|error| match status {
        200 => TokenError::Unusable(error.to_string()),
        _ => TokenError::Unusable(format!("status {status}, and {error}")),
    })?;
    if let Some(code) = error_code(&members) {
        return Err(refusal(response, &members, code, quirks));
    }
    if status >= 300 {
        return Err(TokenError::Unusable(format!("status {status} without an error code")));
    }
    Ok(members)
}

/// The error code: RFC 6749 section 5.2, or one level below, as REST APIs write it.
pub(in crate::oauth) fn error_code(members: &Members) -> Option<&str> {
    members.text("error").or_else(|| {
        let error = members.object("error")?;
        error.text("code").or_else(|| error.text("type")).or_else(|| error.text("status"))
    })
}

fn error_description(members: &Members) -> Option<String> {
    clean_option(members.text("error_description").or_else(|| members.object("error")?.text("message")))
}

/// What an answer of the token endpoint holds, whichever way it is written.
pub(in crate::oauth) fn members(response: &Response) -> Result<Members, MembersError> {
    match (Members::from_json(&response.body), response.content_type.as_deref()) {
        (Err(MembersError::NotJson), Some("application/x-www-form-urlencoded" | "text/plain")) => Members::from_form(&response.body),
        (result, _) => result,
    }
}

fn refusal(response: &Response, members: &Members, code: &str, quirks: &Quirks) -> TokenError {
    let description = error_description(members);
    let ends = code == "invalid_grant" || quirks.invalid_grant_codes.iter().any(|own| own == code);
    // A portal or a proxy that answers JSON under another type must not end a grant.
    let plain = response.content_type.as_deref().is_none_or(|kind| kind.ends_with("json") || kind == "application/x-www-form-urlencoded");
    if ends && plain {
        TokenError::InvalidGrant(description)
    } else if REFUSALS.contains(&code) && plain {
        TokenError::Refused { code: code.to_owned(), description }
    } else {
        let code = clean_code(code);
        TokenError::Unusable(description.map_or(code.clone(), |description| format!("{code}: {description}")))
    }
}

fn success(whole: &Members, quirks: &Quirks, bound: bool) -> Result<TokenResponse, TokenError> {
    // Answers to refreshes may lack the member; what stands beside it, where it is there, are somebody else's tokens.
    let members = quirks.token_answer_member.as_deref().and_then(|path| whole.object(path)).unwrap_or(whole);
    let token = members.text("access_token").unwrap_or_default();
    let token_type = members.text("token_type").filter(|kind| !OWNERS.contains(kind)).unwrap_or("Bearer");
    let refresh_token = members.text("refresh_token").map(|token| RefreshToken::new(token.to_owned()));
    let unusable = fault(token, token_type, bound);
    if let (Some(fault), None) = (&unusable, &refresh_token) {
        return Err(TokenError::Unusable(fault.clone()));
    }
    let token = if unusable.is_none() { token } else { "" };
    Ok(TokenResponse {
        access_token: AccessToken::new(token.to_owned()),
        token_type: token_type.to_owned(),
        lifetime: lifetime(members, token, quirks),
        refresh_token,
        refresh_token_lifetime: refresh_token_lifetime(members),
        scopes: scopes(members, quirks.scope_separator).filter(|_| unusable.is_none()),
        unusable,
        id_token: members.text("id_token").or_else(|| whole.text("id_token")).map(|token| AccessToken::new(token.to_owned())),
        owner: Box::new(identity::identity(whole, quirks)),
    })
}

/// Why an access token cannot be served.
fn fault(token: &str, token_type: &str, bound: bool) -> Option<String> {
    if token.is_empty() {
        return Some("it holds no access token".into());
    }
    // RFC 6749 appendix A.12, less the space: a token goes into a header.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("its access token holds characters that no header can carry".into());
    }
    if bound {
        let is_bound = token_type.eq_ignore_ascii_case("dpop");
        return (!is_bound)
            .then(|| format!("its token is of type {} and not bound to the key that it was shown (DPoP)", clean(token_type)));
    }
    (!token_type.eq_ignore_ascii_case("bearer")).then(|| format!("its token is of type {}, not Bearer", clean(token_type)))
}

/// What the answer says, else the preset; what a JWT says of itself may only shorten that.
fn lifetime(members: &Members, token: &str, quirks: &Quirks) -> Option<Duration> {
    let preset = match quirks.default_lifetime {
        Some(DefaultLifetime::Of(lifetime)) => Some(lifetime),
        Some(DefaultLifetime::Never) | None => None,
    };
    let told = members.number("expires_in").map(seconds).or(preset);
    let (Some(told), Some(own)) = (told, jwt_lifetime(token)) else { return told.or_else(|| jwt_lifetime(token)) };
    Some(told.min(own))
}

/// GitHub's and Google's member, else Keycloak's.
fn refresh_token_lifetime(members: &Members) -> Option<RefreshTokenLifetime> {
    let told = members.number("refresh_token_expires_in").or_else(|| members.number("refresh_expires_in"));
    let told = told.filter(|number| !number.is_nan())?;
    Some(if told > 0.0 { RefreshTokenLifetime::Lasts(seconds(told)) } else { RefreshTokenLifetime::Endless })
}

/// NaN, zero and negative numbers mean "expired".
fn seconds(number: f64) -> Duration {
    if number > 0.0 { Duration::try_from_secs_f64(number).unwrap_or(LONGEST_LIFETIME).min(LONGEST_LIFETIME) } else { Duration::ZERO }
}

/// `exp` less `iat` (RFC 7519 section 4.1): a lifetime without a clock. Nonsense counts as nothing said.
fn jwt_lifetime(token: &str) -> Option<Duration> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?);
    let claims = Members::from_json(&payload).ok()?;
    let lifetime = claims.number("exp")? - claims.number("iat")?;
    (lifetime > 0.0).then(|| seconds(lifetime))
}

fn scopes(members: &Members, separator: char) -> Option<Vec<String>> {
    let mut scopes: Vec<String> = Vec::new();
    // Line breaks too: `clean` would make spaces of them, inside one scope.
    let ends = |c: char| c == separator || c.is_ascii_whitespace();
    for scope in members.texts("scope")?.iter().flat_map(|text| text.split(ends)).map(clean) {
        if !scope.is_empty() && !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Some(scopes)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;

//! The JWT bearer grant (RFC 7523 section 2.1): a JWT that somebody whom the authorization server trusts has made, in place of a
//! login. A workload's own (SEP-1933), or one that an identity provider has made of a person's ID token (`exchange`).

use super::form::{self, Field};
use super::jwt::{Jwt, JwtError};
use super::token;
use crate::clock::Wall;
use crate::grant::record::Definition;
use crate::provider::Quirks;
use crate::secret::ClientSecret;
use crate::transport::Request;

/// RFC 7523 section 2.1.
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// What is asked for, and with which assertion.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The assertion.
    pub assertion: &'a Jwt,
    /// The scopes; none: whatever the server gives by itself.
    pub scopes: &'a [String],
    /// The resource indicator (RFC 8707), byte for byte.
    pub resource: Option<&'a str>,
}

/// Whether a workload's assertion may go to this authorization server: whoever gets one that is made for another can show it
/// there. The server that is logged in to has chosen this one, so that its word does not count (RFC 7523 section 3, item 3).
///
/// # Errors
/// What is wrong with it.
pub fn fits(assertion: &Jwt, definition: &Definition, now: Wall) -> Result<(), JwtError> {
    let issuer = definition.issuer.as_deref().unwrap_or_default();
    // Both spellings are in use, and lead to the same place.
    let other = issuer.strip_suffix('/').map_or_else(|| format!("{issuer}/"), str::to_owned);
    let endpoint = definition.token_endpoint.as_deref().unwrap_or_default();
    let wanted: Vec<_> = [issuer, &other, endpoint].into_iter().filter(|name| name.len() > 1).collect();
    assertion.require_audience(&wanted)?;
    assertion.require_life(now)
}

/// The request. The client shows or proves itself besides. `None` where the definition has no token endpoint or client.
pub fn request(definition: &Definition, quirks: &Quirks, secret: Option<&ClientSecret>, ask: Ask<'_>) -> Option<Request> {
    let scope = quirks.request_scope_separator.join(ask.scopes);
    let mut fields = vec![("grant_type", Field::Text(GRANT_TYPE)), ("assertion", Field::Hidden(ask.assertion.text()))];
    if !scope.is_empty() {
        fields.push(("scope", Field::Text(&scope)));
    }
    token::push_resource(&mut fields, quirks, ask.resource);
    token::push_params(&mut fields, quirks);
    let client = token::client(definition, quirks, secret)?;
    Some(form::post_as(quirks.token_request, definition.token_endpoint.as_deref()?, &fields, client, quirks.answer_timeout()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::form::Sent;
    use crate::oauth::samples::{definition, form, header, jwt, quirks};

    fn assertion(claims: &str) -> Jwt {
        Jwt::read(&jwt(r#"{"alg":"ES256"}"#, claims)).unwrap()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_assertion_stands_in_the_body_beside_scope_resource_and_the_client() {
        let (assertion, scopes) = (assertion("{}"), ["read".to_owned(), "write".to_owned()]);
        let ask = Ask { assertion: &assertion, scopes: &scopes, resource: Some("https://mcp.example") };
        let request = super::request(&definition(), &quirks(), None, ask).unwrap();
        let text = assertion.text().as_str();
        let expected = [("grant_type", GRANT_TYPE), ("assertion", text), ("scope", "read write"), ("resource", "https://mcp.example")];
        assert_eq!(form(&request), pairs(&[&expected[..], &[("client_id", "client-1")]].concat()));
        assert_eq!((request.url.as_str(), header(&request, "authorization")), ("https://as.example/token", None));
        assert_eq!(Sent::of(&request).strike(&format!("no good: {text}")), "no good: [redacted]");

        let plain = Ask { assertion: &assertion, scopes: &[], resource: None };
        let secret = ClientSecret::new("hush".into());
        let request = super::request(&definition(), &quirks(), Some(&secret), plain).unwrap();
        assert_eq!(form(&request), pairs(&expected[..2]), "no scope is not an empty one");
        assert!(header(&request, "authorization").is_some_and(|value| value.starts_with("Basic ")));
    }

    #[test]
    fn an_assertion_that_is_made_for_another_or_has_ended_goes_nowhere() {
        let now = Wall(1_000_000_000);
        for aud in ["https://as.example", "https://as.example/", "https://as.example/token"] {
            assert_eq!(fits(&assertion(&format!(r#"{{"aud":"{aud}","exp":1000300}}"#)), &definition(), now), Ok(()), "{aud}");
        }
        for aud in ["https://kubernetes.default.svc", "https://as.example.evil", "https://as.example/token/", "/", ""] {
            let fault = fits(&assertion(&format!(r#"{{"aud":"{aud}","exp":1000300}}"#)), &definition(), now).unwrap_err();
            assert!(matches!(fault, JwtError::Audience { .. }), "{aud}");
        }
        let ended = assertion(r#"{"aud":"https://as.example","exp":999000}"#);
        assert!(matches!(fits(&ended, &definition(), now), Err(JwtError::Ended(_))));
        let unknown = Definition { issuer: None, token_endpoint: None, ..definition() };
        assert!(fits(&assertion(r#"{"aud":["","/"],"exp":1000300}"#), &unknown, now).is_err());
    }
}

//! Token exchange (RFC 8693) as enterprise-managed authorization has it (SEP-990): the identity provider makes of a person's ID
//! token an assertion for one authorization server and one client there (ID-JAG).
//!
//! The ID token goes to the identity provider that has made it, the ID-JAG to the authorization server that it names.

use super::form::{self, Field};
use super::jwt::{Jwt, JwtError};
use super::token::{self, TokenError};
use crate::clock::Wall;
use crate::grant::record::Definition;
use crate::oauth::text::clean;
use crate::provider::Quirks;
use crate::secret::ClientSecret;
use crate::transport::{Request, Response};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
/// The `typ` of an ID-JAG.
const TYPE: &str = "oauth-id-jag+jwt";

/// What an ID-JAG is to be good for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The issuer of the authorization server that it goes to, byte for byte.
    pub audience: &'a str,
    /// Our client there.
    pub client_id: &'a str,
    /// The MCP server, byte for byte.
    pub resource: Option<&'a str>,
    /// The scopes.
    pub scopes: &'a [String],
}

/// Whether an ID token may go to this identity provider: it must have made it, for our client there (OpenID Connect Core section
/// 3.1.3.7), and it must not have ended.
///
/// # Errors
/// What is wrong with it.
pub fn fits(id_token: &Jwt, identity_provider: &Definition, now: Wall) -> Result<(), JwtError> {
    let issuer = identity_provider.issuer.as_deref().ok_or(JwtError::Claim("iss"))?;
    id_token.require_text("iss", issuer)?;
    id_token.require_audience(&[identity_provider.client_id.as_deref().unwrap_or_default()])?;
    id_token.require_life(now)
}

/// The request to the identity provider (RFC 8693 section 2.1). `None` where the definition has no token endpoint or client.
pub fn request(
    identity_provider: &Definition,
    quirks: &Quirks,
    secret: Option<&ClientSecret>,
    id_token: &Jwt,
    ask: Ask<'_>,
) -> Option<Request> {
    let scope = quirks.request_scope_separator.join(ask.scopes);
    let mut fields = vec![
        ("grant_type", Field::Text(GRANT_TYPE)),
        ("requested_token_type", Field::Text(ID_JAG)),
        ("audience", Field::Text(ask.audience)),
        ("subject_token", Field::Hidden(id_token.text())),
        ("subject_token_type", Field::Text(ID_TOKEN)),
    ];
    if let Some(resource) = ask.resource {
        fields.push(("resource", Field::Text(resource)));
    }
    if !scope.is_empty() {
        fields.push(("scope", Field::Text(&scope)));
    }
    token::push_params(&mut fields, quirks);
    let client = token::client(identity_provider, quirks, secret)?;
    let endpoint = identity_provider.token_endpoint.as_deref()?;
    Some(form::post_as(quirks.token_request, endpoint, &fields, client, quirks.answer_timeout()))
}

/// The ID-JAG in the identity provider's answer, once it is seen to be one, and for nothing but what was asked.
///
/// # Errors
/// What the identity provider says, or what is wrong with its answer; nothing of the ID-JAG itself.
pub fn check(response: &Response, (identity_provider, quirks): (&Definition, &Quirks), ask: Ask<'_>, now: Wall) -> Result<Jwt, TokenError> {
    let members = token::granted(response, quirks)?;
    match members.text("issued_token_type") {
        Some(ID_JAG) => {}
        Some(other) => return Err(TokenError::Unusable(format!("it is a token of type {}, not an ID-JAG", clean(other)))),
        None => return Err(TokenError::Unusable("it does not say which type of token it is".into())),
    }
    let fault = |error: JwtError| TokenError::Unusable(format!("its ID-JAG {error}"));
    let id_jag = Jwt::read(members.text("access_token").unwrap_or_default()).map_err(fault)?;
    is_as_asked(&id_jag, identity_provider, ask, now).map_err(fault)?;
    Ok(id_jag)
}

fn is_as_asked(id_jag: &Jwt, identity_provider: &Definition, ask: Ask<'_>, now: Wall) -> Result<(), JwtError> {
    id_jag.require_type(TYPE)?;
    if let Some(issuer) = identity_provider.issuer.as_deref() {
        id_jag.require_text("iss", issuer)?;
    }
    id_jag.require_only_audience(ask.audience)?;
    id_jag.require_text("client_id", ask.client_id)?;
    id_jag.require_some("sub")?;
    if let Some(resource) = ask.resource {
        id_jag.require_among("resource", resource)?;
    }
    id_jag.require_life(now)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::oauth::form::Sent;
    use crate::oauth::samples::{self, definition, form, json, jwt, quirks};

    const NOW: Wall = Wall(1_000_000_000);

    fn identity_provider() -> Definition {
        Definition {
            issuer: Some("https://idp.example".into()),
            token_endpoint: Some("https://idp.example/token".into()),
            client_id: Some("at-idp".into()),
            ..definition()
        }
    }

    fn ask(scopes: &[String]) -> Ask<'_> {
        Ask { audience: "https://as.example", client_id: "client-1", resource: Some("https://mcp.example/mcp"), scopes }
    }

    fn id_token(changes: Value) -> Jwt {
        let mut claims = json!({ "iss": "https://idp.example", "aud": "at-idp", "sub": "u1", "exp": 1_000_300 });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        Jwt::read(&jwt(r#"{"alg":"ES256"}"#, &claims.to_string())).unwrap()
    }

    #[test]
    fn the_request_names_whom_the_id_jag_is_for() {
        let (id_token, scopes) = (id_token(json!({})), ["read".to_owned(), "write".to_owned()]);
        let request = request(&identity_provider(), &quirks(), None, &id_token, ask(&scopes)).unwrap();
        let expected = [
            ("grant_type", GRANT_TYPE),
            ("requested_token_type", ID_JAG),
            ("audience", "https://as.example"),
            ("subject_token", id_token.text()),
            ("subject_token_type", ID_TOKEN),
            ("resource", "https://mcp.example/mcp"),
            ("scope", "read write"),
            ("client_id", "at-idp"),
        ];
        let expected: Vec<_> = expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!((form(&request), request.url.as_str()), (expected, "https://idp.example/token"));
        let told = format!("https://as.example knows no {}", id_token.text().as_str());
        assert_eq!(Sent::of(&request).strike(&told), "https://as.example knows no [redacted]");
    }

    #[test]
    fn an_id_token_goes_only_to_whoever_has_made_it_for_us() {
        let fits = |changes: Value| super::fits(&id_token(changes), &identity_provider(), NOW);
        assert_eq!(fits(json!({})), Ok(()));
        assert_eq!(fits(json!({ "aud": ["other", "at-idp"] })), Ok(()));
        for (changes, fault) in [
            (json!({ "iss": "https://idp.example/" }), JwtError::Claim("iss")),
            (json!({ "iss": null }), JwtError::Claim("iss")),
            (json!({ "exp": null }), JwtError::Claim("exp")),
            (json!({ "exp": 999_000 }), JwtError::Ended(Wall(999_000_000).rfc3339())),
            (json!({ "aud": "other" }), JwtError::Audience { found: "other".into(), wanted: "at-idp".into() }),
        ] {
            assert_eq!(fits(changes), Err(fault));
        }
        let unknown = Definition { issuer: None, ..identity_provider() };
        assert_eq!(super::fits(&id_token(json!({})), &unknown, NOW), Err(JwtError::Claim("iss")));
    }

    fn answered(header: &str, changes: Value, answer: Value) -> Result<Jwt, TokenError> {
        let mut claims = json!({
            "iss": "https://idp.example", "aud": "https://as.example", "client_id": "client-1", "sub": "u1", "exp": 1_000_300,
            "resource": "https://mcp.example/mcp",
        });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let mut body = json!({
            "access_token": jwt(header, &claims.to_string()), "issued_token_type": ID_JAG, "token_type": "N_A", "expires_in": 300,
        });
        body.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
        check(&json(200, &body.to_string()), (&identity_provider(), &quirks()), ask(&[]), NOW)
    }

    const HEADER: &str = r#"{"alg":"ES256","typ":"oauth-id-jag+jwt"}"#;

    #[test]
    fn an_id_jag_is_taken_for_just_what_was_asked() {
        assert!(answered(HEADER, json!({}), json!({})).is_ok());
        assert!(answered(HEADER, json!({ "resource": null, "aud": ["https://as.example"] }), json!({ "token_type": "n_a" })).is_ok());
        for (changes, told) in [
            (json!({ "aud": "https://other.example" }), "its ID-JAG is made for https://other.example, not for https://as.example"),
            (json!({ "aud": ["https://as.example", "https://other.example"] }), "`aud`"),
            (json!({ "aud": "https://as.example/" }), "is made for https://as.example/, not for"),
            (json!({ "client_id": "another" }), "`client_id`"),
            (json!({ "client_id": null }), "`client_id`"),
            (json!({ "iss": "https://evil.example" }), "`iss`"),
            (json!({ "sub": null }), "`sub`"),
            (json!({ "resource": "https://mcp.example" }), "`resource`"),
            (json!({ "exp": 999_000 }), "its ID-JAG ended at"),
            (json!({ "exp": null }), "`exp`"),
        ] {
            let error = answered(HEADER, changes, json!({})).unwrap_err().to_string();
            assert!(error.contains(told), "{error} instead of {told}");
        }
        let id_token = answered(r#"{"alg":"ES256","typ":"JWT"}"#, json!({}), json!({})).unwrap_err().to_string();
        assert!(id_token.ends_with("its ID-JAG is not of the type oauth-id-jag+jwt"), "{id_token}");
    }

    #[test]
    fn an_answer_that_is_none_shows_nothing_of_itself() {
        for (answer, told) in [
            (json!({ "issued_token_type": "urn:ietf:params:oauth:token-type:access_token" }), "token-type:access_token, not an ID-JAG"),
            (json!({ "issued_token_type": null }), "which type of token"),
            (json!({ "access_token": "zQaT9qz-opaque" }), "its ID-JAG is not a JWT"),
            (json!({ "access_token": null }), "its ID-JAG is not a JWT"),
        ] {
            let error = answered(HEADER, json!({}), answer).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("zQaT9qz"), "{error}");
        }
        let refused = samples::json(400, r#"{"error":"invalid_grant","error_description":"the ID token has ended"}"#);
        let error = check(&refused, (&identity_provider(), &quirks()), ask(&[]), NOW).unwrap_err();
        assert_eq!(error, TokenError::InvalidGrant(Some("the ID token has ended".into())));
        let busy = check(&samples::json(503, ""), (&identity_provider(), &quirks()), ask(&[]), NOW).unwrap_err();
        assert!(matches!(busy, TokenError::Overloaded { status: 503, .. }));
    }
}

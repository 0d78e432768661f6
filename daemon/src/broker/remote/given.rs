//! What a person gives with a login at a remote server: a client, the address of a document about it, and the issuer that it must be
//! at. Checked before anything is asked of anybody.

use mcp_auth_proto::{ErrorBody, ErrorCode, LoginRequest, Secret};

use super::super::logins::invalid;
use crate::login::remote::Given;
use crate::oauth::assertion::{self, AssertionError};
use crate::oauth::text::clean;
use crate::provider::{ClientAuth, Provider, check};
use crate::secret::ClientSecret;
use crate::transport;

/// A client that was registered by hand, with its secret or the key that it signs with.
pub(super) fn client(request: &LoginRequest) -> Result<Option<Given>, ErrorBody> {
    let (secret, key) = (request.client_secret.as_ref().map(secret), request.private_key.as_ref().map(key));
    let (secret, auth) = match (secret, key) {
        (Some(_), Some(_)) => return Err(invalid("a client has a secret or a private key, and both were given")),
        (Some(secret), None) => (Some(secret?), None),
        (None, Some(key)) => (Some(key?), Some(ClientAuth::PrivateKeyJwt)),
        (None, None) => (None, None),
    };
    let Some(id) = &request.client_id else {
        return if secret.is_some() { Err(invalid("a client secret or key is of use only with its client id")) } else { Ok(None) };
    };
    check::printable(id).map_err(|fault| invalid(format!("the client id {}", fault.what)))?;
    Ok(Some(Given { id: id.clone(), secret, auth }))
}

/// The metadata document that a request names: an https URL with a path.
pub(super) fn document(request: &LoginRequest) -> Result<Option<String>, ErrorBody> {
    let Some(document) = &request.client_metadata_url else { return Ok(None) };
    let fits = transport::check_url(document).is_ok_and(|url| url.scheme() == "https" && url.path() != "/" && url.fragment().is_none());
    if fits { Ok(Some(document.clone())) } else { Err(invalid("the client metadata URL is not an https URL with a path")) }
}

/// The issuer that the login must be at. No program leads a login past what the config says.
pub(super) fn authorization_server(request: &LoginRequest, provider: &Provider) -> Result<Option<String>, ErrorBody> {
    let (asked, configured) = (&request.authorization_server, &provider.authorization_server);
    if let Some(asked) = asked {
        check::issuer(asked).map_err(|fault| invalid(format!("the issuer of the authorization server {}", fault.what)))?;
    }
    match (asked, configured) {
        (Some(asked), Some(configured)) if asked != configured => {
            let name = &provider.name;
            let sentence = format!("the config says that the authorization server of `{name}` is {}", clean(configured));
            Err(ErrorBody::new(ErrorCode::Conflict, sentence)
                .hint(format!("leave --authorization-server out, or change authorization_server under [providers.{name}] in config.toml")))
        }
        _ => Ok(asked.clone().or_else(|| configured.clone())),
    }
}

fn secret(given: &Secret) -> Result<ClientSecret, ErrorBody> {
    let text = given.expose().trim();
    let secret = ClientSecret::new(text.to_owned());
    if assertion::is_key(&secret) {
        return Err(invalid("this is a private key, and was given as a client secret, which is sent")
            .hint("give it by --private-key-file FILE, and leave --client-secret-file out"));
    }
    if text.is_empty() || text.contains(char::is_control) {
        return Err(invalid("the client secret is empty or holds a control character"));
    }
    Ok(secret)
}

fn key(given: &Secret) -> Result<ClientSecret, ErrorBody> {
    let key = ClientSecret::new(given.expose().trim().to_owned());
    assertion::check_key(&key).map(|()| key).map_err(|error| match error {
        AssertionError::NotAKey => invalid("what was given as the private key is none: PEM or a JWK is wanted"),
        error => invalid(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(client_id: &str, secret: &str, key: &str) -> LoginRequest {
        let given = |text: &str| (!text.is_empty()).then(|| Secret::new(text));
        let client_id = (!client_id.is_empty()).then(|| client_id.to_owned());
        LoginRequest { client_id, client_secret: given(secret), private_key: given(key), ..LoginRequest::default() }
    }

    #[test]
    fn a_secret_is_no_key_and_a_key_no_secret() {
        const CUT: &str = "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n";
        for (request, said) in [
            (request("c", CUT, ""), "this is a private key"),
            (request("c", "{\"kty\":\"EC\"}", ""), "this is a private key"),
            (request("c", "", "hush"), "is none: PEM or a JWK"),
            (request("c", "", CUT), "cannot be used"),
            (request("c", "hush", CUT), "both were given"),
            (request("c", " ", ""), "is empty"),
            (request("", "hush", ""), "only with its client id"),
            (request("a\nb", "hush", ""), "the client id must be printable"),
        ] {
            let error = client(&request).unwrap_err();
            assert!(error.error_description.contains(said) && error.hint.is_some(), "{said}: {error}");
            assert!(!error.error_description.contains("hush"), "{error}");
        }
        assert!(client(&request("", "", "")).unwrap().is_none());
        let given = client(&request("c", " hush\n", "")).unwrap().unwrap();
        assert_eq!((given.id.as_str(), given.secret.unwrap().expose().as_str(), given.auth), ("c", "hush", None));
    }

    #[test]
    fn a_request_may_name_the_issuer_where_the_config_says_nothing_else() {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let at = |asked: &str, configured: &str| {
            let request = LoginRequest { authorization_server: text(asked), ..LoginRequest::default() };
            authorization_server(&request, &Provider { authorization_server: text(configured), ..Provider::unknown("corp") })
        };
        for (asked, configured, found) in [("", "", ""), ("https://a", "", "https://a"), ("", "https://a", "https://a")] {
            assert_eq!(at(asked, configured), Ok(text(found)), "{asked} {configured}");
        }
        assert_eq!(at("https://a", "https://a"), Ok(text("https://a")));
        for (asked, said) in [("https://a/", "the authorization server of `corp` is https://a"), ("http://a", "only https is allowed")] {
            let error = at(asked, "https://a").unwrap_err();
            assert!(error.error_description.contains(said) && error.hint.is_some(), "{asked}: {error}");
        }
    }
}

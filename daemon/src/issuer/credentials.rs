//! Which client asks, and whether it is that client (RFC 6749 sections 2.3 and 3.2.1): public, HTTP Basic, or secret in the form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::clients::Settings;
use super::error::{Code, Refusal};
use super::params::Params;
use crate::provider::secret_command;

/// What a request says of its client.
pub(super) struct Credentials {
    pub(super) client_id: String,
    secret: Option<Zeroizing<String>>,
}

/// Reads them.
pub(super) fn read(authorization: Option<&str>, params: &Params) -> Result<Credentials, Refusal> {
    let in_form = (params.get("client_id"), params.get("client_secret"));
    let Some(authorization) = authorization else {
        let client_id = in_form.0.ok_or(Refusal::new(Code::InvalidClient, "the request names no client"))?;
        return Ok(Credentials { client_id: client_id.to_owned(), secret: in_form.1.map(|secret| secret.to_owned().into()) });
    };
    let basic = basic(authorization).ok_or(Refusal::new(Code::InvalidClient, "the Authorization header is not HTTP Basic"))?;
    if in_form.1.is_some() || in_form.0.is_some_and(|client_id| client_id != basic.client_id) {
        return Err(Refusal::new(Code::InvalidRequest, "the client is named twice"));
    }
    Ok(basic)
}

/// Proves the client: what its command prints is what the request holds; a public client has nothing to show.
pub(super) async fn prove(credentials: &Credentials, settings: &Settings) -> Result<(), Refusal> {
    let wrong = Refusal::new(Code::InvalidClient, "the client is not known here, or its secret is wrong");
    let client = settings.client(&credentials.client_id).ok_or(wrong)?;
    match (&client.secret_command, &credentials.secret) {
        (None, None) => Ok(()),
        (None, Some(_)) | (Some(_), None) => Err(wrong),
        (Some(command), Some(shown)) => {
            let secret = secret_command::run(command).await.map_err(|error| {
                tracing::warn!(client = credentials.client_id, %error, "the secret of a client of the issuer cannot be had");
                Refusal::new(Code::TemporarilyUnavailable, "the secret of the client cannot be looked up")
            })?;
            if secret.expose().as_bytes().ct_eq(shown.as_bytes()).into() { Ok(()) } else { Err(wrong) }
        }
    }
}

/// RFC 7617, with both parts form-encoded as RFC 6749 section 2.3.1 wants it.
fn basic(authorization: &str) -> Option<Credentials> {
    let (scheme, encoded) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let (client_id, secret) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    let secret = decoded(secret);
    Some(Credentials { client_id: decoded(client_id).to_string(), secret: (!secret.is_empty()).then_some(secret) })
}

fn decoded(part: &str) -> Zeroizing<String> {
    // As the value of a field: `=` and `&` of a client that does not encode stay what they are.
    let field = Zeroizing::new(format!("x={}", part.replace('&', "%26")));
    Zeroizing::new(form_urlencoded::parse(field.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(authorization: Option<&str>, form: &str) -> Result<(String, Option<String>), Code> {
        let read = read(authorization, &Params::parse(form.as_bytes()).unwrap());
        read.map(|it| (it.client_id, it.secret.map(|secret| secret.to_string()))).map_err(|refusal| refusal.code)
    }

    fn header(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn a_client_shows_itself_in_one_of_three_ways() {
        let some = |id: &str, secret: &str| Ok((id.to_owned(), Some(secret.to_owned())));
        assert_eq!(told(None, "client_id=a"), Ok(("a".into(), None)));
        assert_eq!(told(None, "client_id=a&client_secret=s"), some("a", "s"));
        assert_eq!(told(Some(&header("a:s")), ""), some("a", "s"));
        assert_eq!(told(Some(&header("a:s")), "client_id=a"), some("a", "s"));
        assert_eq!(told(Some(&header("a%3Ab:s%25+x=%26&")), ""), some("a:b", "s% x=&&"));
        assert_eq!(told(Some(&header("a:")), ""), Ok(("a".into(), None)));
    }

    #[test]
    fn two_ways_at_once_and_none_are_refused() {
        assert_eq!(told(None, ""), Err(Code::InvalidClient));
        assert_eq!(told(Some(&header("a:s")), "client_id=b"), Err(Code::InvalidRequest));
        assert_eq!(told(Some(&header("a:s")), "client_id=a&client_secret=s"), Err(Code::InvalidRequest));
        for odd in ["Bearer x", "Basic", "Basic !!", "Basic YQ=="] {
            assert_eq!(told(Some(odd), "client_id=a"), Err(Code::InvalidClient), "{odd}");
        }
    }
}

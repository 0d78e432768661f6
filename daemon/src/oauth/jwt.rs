//! JWTs that others have made and that pass through us (RFC 7519): their shape, and the claims that say where they may go. Their
//! signatures are for the receiver to check: we know no keys of theirs.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::identity::{self, Identity};
use super::members::Members;
use super::text::{clean, clean_option};
use crate::clock::Wall;
use crate::provider::Quirks;

/// The longest one that is taken, bytes. It has to fit into a request, and in practice is a tenth of this.
pub const LONGEST: usize = 16 * 1024;

/// How long after its end one is still sent: our clock may be ahead of the receiver's.
const LEEWAY: Duration = Duration::from_secs(60);

/// A JWT. Redacted in `Debug`, wiped when dropped.
pub struct Jwt {
    text: Zeroizing<String>,
    header: Members,
    claims: Members,
}

/// Why a text is no JWT that may be sent: the end of a sentence. Holds nothing of the text but claims that name places and times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not three parts of base64url, the first two of them JSON objects; or too long.
    #[error("is not a JWT")]
    Shape,
    /// `alg` is missing or `none`: it proves nothing.
    #[error("is not signed")]
    Unsigned,
    /// `exp` is over (RFC 7519 section 4.1.4).
    #[error("ended at {0}")]
    Ended(String),
    /// `aud` names others: there it would open something else (RFC 7519 section 4.1.3).
    #[error("is made for {found}, not for {wanted}")]
    Audience {
        /// Whom it names.
        found: String,
        /// Who would get it.
        wanted: String,
    },
    /// The `typ` of its header is another one.
    #[error("is not of the type {0}")]
    Type(&'static str),
    /// A claim is missing, or says something else than it must.
    #[error("does not say what it must as `{0}`")]
    Claim(&'static str),
}

impl Jwt {
    /// Takes a JWT as it stands in a file or an answer; white space around it means nothing.
    ///
    /// # Errors
    /// When it is none, or is not signed.
    pub fn read(text: &str) -> Result<Self, JwtError> {
        let text = text.trim_ascii();
        if text.len() > LONGEST {
            return Err(JwtError::Shape);
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else { return Err(JwtError::Shape) };
        let (header, claims) = (members(header)?, members(claims)?);
        URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwtError::Shape)?;
        if signature.is_empty() || header.text("alg").is_none_or(|alg| alg.eq_ignore_ascii_case("none")) {
            return Err(JwtError::Unsigned);
        }
        Ok(Self { text: Zeroizing::new(text.to_owned()), header, claims })
    }

    /// The JWT itself.
    pub(super) fn text(&self) -> &Zeroizing<String> {
        &self.text
    }

    /// Whom it speaks of, fit to be shown.
    pub fn subject(&self) -> Option<String> {
        clean_option(self.claims.text("sub"))
    }

    /// Whom it speaks of, by the provider's choice of members.
    pub fn identity(&self, quirks: &Quirks) -> Identity {
        identity::identity(&self.claims, quirks)
    }

    /// It must have an end (`exp`), and not have ended.
    pub fn require_life(&self, now: Wall) -> Result<(), JwtError> {
        let end = self.end()?;
        if end + LEEWAY > now { Ok(()) } else { Err(JwtError::Ended(end.rfc3339())) }
    }

    /// Whether it is over, or will be before it has arrived anywhere.
    pub fn is_ending(&self, now: Wall) -> bool {
        self.end().map_or(true, |end| end <= now + LEEWAY)
    }

    fn end(&self) -> Result<Wall, JwtError> {
        let seconds = self.claims.number("exp").filter(|exp| exp.is_finite() && *exp > 0.0).ok_or(JwtError::Claim("exp"))?;
        // The cast saturates.
        Ok(Wall((seconds * 1000.0) as i64))
    }

    /// It must be made for one of these (`aud`), of which the first is shown.
    pub(super) fn require_audience(&self, wanted: &[&str]) -> Result<(), JwtError> {
        let named = self.claims.texts("aud").unwrap_or_default();
        if named.iter().any(|named| wanted.contains(named)) {
            return Ok(());
        }
        let found = match named.as_slice() {
            [] => "nobody in particular".to_owned(),
            several => several.iter().take(3).map(|named| clean(named)).collect::<Vec<_>>().join(", "),
        };
        Err(JwtError::Audience { found, wanted: clean(wanted.first().unwrap_or(&"us")) })
    }

    /// It must be made for this one and for nobody else.
    pub(super) fn require_only_audience(&self, wanted: &str) -> Result<(), JwtError> {
        self.require_audience(&[wanted])?;
        if self.claims.texts("aud").is_some_and(|named| named.len() == 1) { Ok(()) } else { Err(JwtError::Claim("aud")) }
    }

    /// Its header must name this type (RFC 7515 section 4.1.9: in any case, `application/` may stand before it).
    pub(super) fn require_type(&self, wanted: &'static str) -> Result<(), JwtError> {
        let found = self.header.text("typ").map(str::to_ascii_lowercase).unwrap_or_default();
        if found.strip_prefix("application/").unwrap_or(&found) == wanted { Ok(()) } else { Err(JwtError::Type(wanted)) }
    }

    /// A claim must say this, byte for byte.
    pub(super) fn require_text(&self, claim: &'static str, wanted: &str) -> Result<(), JwtError> {
        if self.claims.text(claim) == Some(wanted) { Ok(()) } else { Err(JwtError::Claim(claim)) }
    }

    /// A claim must be there.
    pub(super) fn require_some(&self, claim: &'static str) -> Result<(), JwtError> {
        self.claims.text(claim).map(|_| ()).ok_or(JwtError::Claim(claim))
    }

    /// A claim that may be missing must name this one, if it is there.
    pub(super) fn require_among(&self, claim: &'static str, wanted: &str) -> Result<(), JwtError> {
        match self.claims.texts(claim) {
            Some(named) if !named.contains(&wanted) => Err(JwtError::Claim(claim)),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jwt([redacted])")
    }
}

fn members(part: &str) -> Result<Members, JwtError> {
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Shape)?);
    Members::from_json(&decoded).map_err(|_| JwtError::Shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::samples::jwt;

    const NOW: Wall = Wall(1_000_000_000);

    fn read(claims: &str) -> Jwt {
        Jwt::read(&jwt(r#"{"alg":"ES256"}"#, claims)).unwrap()
    }

    #[test]
    fn what_is_no_signed_jwt_is_not_taken() {
        let good = jwt(r#"{"alg":"ES256"}"#, r#"{"sub":"w"}"#);
        assert_eq!(Jwt::read(&format!(" {good}\r\n")).unwrap().text().as_str(), good);
        let wrong = [
            (String::new(), JwtError::Shape),
            ("a-secret-of-another-kind".into(), JwtError::Shape),
            ("-----BEGIN PRIVATE KEY-----\nabc\n".into(), JwtError::Shape),
            (format!("{good}.more"), JwtError::Shape),
            (good.replace('.', "\n."), JwtError::Shape),
            (jwt("[]", "{}"), JwtError::Shape),
            (jwt(r#"{"alg":"ES256"}"#, r#"{"aud":"a","aud":"b"}"#), JwtError::Shape),
            (jwt(r#"{"alg":"ES256"}"#, &format!(r#"{{"sub":"{}"}}"#, "x".repeat(LONGEST))), JwtError::Shape),
            (jwt("{}", "{}"), JwtError::Unsigned),
            (jwt(r#"{"alg":"None"}"#, "{}"), JwtError::Unsigned),
            (good[..=good.rfind('.').unwrap()].to_owned(), JwtError::Unsigned),
        ];
        for (text, expected) in wrong {
            assert_eq!(Jwt::read(&text).unwrap_err(), expected, "{text:.40}");
        }
    }

    #[test]
    fn one_that_has_ended_is_told_by_its_end_and_needs_one() {
        assert_eq!(read(r#"{"exp":1000001}"#).require_life(NOW), Ok(()));
        assert_eq!(read(r#"{"exp":999941}"#).require_life(NOW), Ok(()), "our clock may be ahead");
        assert_eq!(read(r#"{"exp":999940}"#).require_life(NOW), Err(JwtError::Ended(Wall(999_940_000).rfc3339())));
        for claims in ["{}", r#"{"exp":"soon"}"#, r#"{"exp":-1}"#, r#"{"exp":null}"#] {
            assert_eq!(read(claims).require_life(NOW), Err(JwtError::Claim("exp")), "{claims}");
        }
        assert!(read(r#"{"exp":1000060}"#).is_ending(NOW) && !read(r#"{"exp":1000061}"#).is_ending(NOW) && read("{}").is_ending(NOW));
    }

    #[test]
    fn it_goes_to_those_whom_it_names_and_to_nobody_else() {
        let wanted = ["https://as.example", "https://as.example/token"];
        for (aud, fits) in [
            (r#""https://as.example""#, true),
            (r#"["https://other","https://as.example/token"]"#, true),
            (r#""https://as.example/""#, false),
            (r#""https://AS.example""#, false),
            ("[]", false),
            ("null", false),
            ("7", false),
        ] {
            assert_eq!(read(&format!(r#"{{"aud":{aud}}}"#)).require_audience(&wanted).is_ok(), fits, "{aud}");
        }
        let error = read(r#"{"aud":["kubernetes\u001b[2J","b"]}"#).require_audience(&wanted).unwrap_err().to_string();
        assert!(error.starts_with("is made for kubernetes") && !error.contains('\u{1b}'), "{error}");
        let several = read(r#"{"aud":["https://as.example","https://other"]}"#);
        assert_eq!(several.require_only_audience("https://as.example"), Err(JwtError::Claim("aud")));
        assert_eq!(read(r#"{"aud":["https://as.example"]}"#).require_only_audience("https://as.example"), Ok(()));
    }

    #[test]
    fn claims_are_compared_byte_for_byte() {
        let one = read(r#"{"client_id":"c1","resource":["https://a","https://b"]}"#);
        assert_eq!(one.require_text("client_id", "c1"), Ok(()));
        assert_eq!(one.require_text("client_id", "C1"), Err(JwtError::Claim("client_id")));
        assert_eq!(one.require_text("iss", "c1"), Err(JwtError::Claim("iss")));
        assert_eq!((one.require_among("resource", "https://b"), one.require_among("scope", "x")), (Ok(()), Ok(())));
        assert_eq!(one.require_among("resource", "https://b/"), Err(JwtError::Claim("resource")));
        assert_eq!((one.require_some("client_id"), one.require_some("sub")), (Ok(()), Err(JwtError::Claim("sub"))));
        for (typ, fits) in [("oauth-id-jag+jwt", true), ("application/OAuth-ID-JAG+jwt", true), ("JWT", false), ("", false)] {
            let typed = Jwt::read(&jwt(&format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#), "{}")).unwrap();
            assert_eq!(typed.require_type("oauth-id-jag+jwt").is_ok(), fits, "{typ}");
        }
    }

    #[test]
    fn it_never_shows_itself() {
        let text = jwt(r#"{"alg":"ES256"}"#, r#"{"sub":"w"}"#);
        assert_eq!(format!("{:?}", Jwt::read(&text).unwrap()), "Jwt([redacted])");
    }
}

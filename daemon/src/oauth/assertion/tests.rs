use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING as P256, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde_json::Value;

use super::*;
use crate::oauth::samples::{definition, form, quirks};
use crate::provider::TokenRequestBody;
use crate::transport::Method;

const NOW: Wall = Wall(1_700_000_000_500);

/// A P-256 key as PKCS #8, and its public half.
fn p256() -> (Vec<u8>, Vec<u8>) {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&P256, &random).unwrap().as_ref().to_vec();
    let public = EcdsaKeyPair::from_pkcs8(&P256, &pkcs8, &random).unwrap().public_key().as_ref().to_vec();
    (pkcs8, public)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn jwk_of(pkcs8: &[u8], public: &[u8], more: &str) -> String {
    let encode = |bytes| URL_SAFE_NO_PAD.encode(bytes);
    // The private half stands at this place of ring's PKCS #8.
    let (x, y, d) = (encode(&public[1..33]), encode(&public[33..]), encode(&pkcs8[36..68]));
    format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","d":"{d}"{more}}}"#)
}

fn by_key() -> Quirks {
    Quirks { client_auth: Some(ClientAuth::PrivateKeyJwt), ..quirks() }
}

fn request() -> Request {
    Request {
        body: Some("grant_type=refresh_token&client_id=client-1".into()),
        timeout: Duration::from_secs(1),
        ..Request::new(Method::Post, "https://as.example/token")
    }
}

fn proved(quirks: &Quirks, definition: &Definition, key: &str) -> Result<Request, AssertionError> {
    prove(request(), (definition, quirks), Some(&ClientSecret::new(key.to_owned())), NOW)
}

/// What an assertion says, and what was signed, and the signature.
fn opened(request: &Request) -> (Value, Value, String, Vec<u8>) {
    let sent = form(request);
    let of = |wanted: &str| sent.iter().find(|(name, _)| name == wanted).unwrap().1.clone();
    assert_eq!(of("client_assertion_type"), ASSERTION_TYPE);
    let assertion = of("client_assertion");
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    (part(header), part(claims), signed.to_owned(), URL_SAFE_NO_PAD.decode(signature).unwrap())
}

#[test]
fn an_assertion_says_who_signed_it_for_whom_and_for_how_long() {
    let (pkcs8, public) = p256();
    let request = proved(&by_key(), &definition(), &pem("PRIVATE KEY", &pkcs8)).unwrap();
    let (header, claims, signed, signature) = opened(&request);
    assert_eq!(header, json!({ "alg": "ES256", "typ": "JWT" }));
    for (claim, expected) in [
        ("iss", json!("client-1")),
        ("sub", json!("client-1")),
        ("aud", json!("https://as.example")),
        ("iat", json!(1_699_999_970)),
        ("exp", json!(1_700_000_210)),
    ] {
        assert_eq!(claims[claim], expected, "{claim}");
    }
    assert!(claims["jti"].as_str().unwrap().len() >= 22);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(signed.as_bytes(), &signature).unwrap();
    let mut others = form(&request);
    others.retain(|(name, _)| !name.starts_with("client_assertion"));
    assert_eq!(others, [("grant_type", "refresh_token"), ("client_id", "client-1")].map(|(name, value)| (name.into(), value.into())));
}

#[test]
fn every_request_has_an_assertion_of_its_own() {
    let key = pem("PRIVATE KEY", &p256().0);
    let jti = || opened(&proved(&by_key(), &definition(), &key).unwrap()).1["jti"].clone();
    assert_ne!(jti(), jti());
}

#[test]
fn keys_are_read_as_people_have_them() {
    let (pkcs8, public) = p256();
    // The inner OCTET STRING of ring's PKCS #8 is the RFC 5915 form.
    let sec1 = &pkcs8[29..];
    for text in [
        pem("PRIVATE KEY", &pkcs8),
        pem("EC PRIVATE KEY", sec1),
        format!("some words\n{}\n", pem("PRIVATE KEY", &pkcs8).replace('\n', "\r\n")),
        jwk_of(&pkcs8, &public, ""),
        jwk_of(&pkcs8, &public, r#","alg":"ES256","use":"sig","key_ops":["sign"]"#),
    ] {
        let request = proved(&by_key(), &definition(), &text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let (_, _, signed, signature) = opened(&request);
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &public).verify(signed.as_bytes(), &signature).unwrap();
    }
    let ed25519 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let public = Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap().public_key().as_ref().to_vec();
    let (header, _, signed, signature) = opened(&proved(&by_key(), &definition(), &pem("PRIVATE KEY", ed25519.as_ref())).unwrap());
    assert_eq!(header["alg"], "EdDSA");
    UnparsedPublicKey::new(&ED25519, public).verify(signed.as_bytes(), &signature).unwrap();
}

#[test]
fn audience_and_key_id_are_as_configured() {
    let (pkcs8, public) = p256();
    let (plain, named) = (jwk_of(&pkcs8, &public, ""), jwk_of(&pkcs8, &public, r#","kid":"own""#));
    let (issuer, token) = ("https://as.example", "https://as.example/token");
    for (audience, known, key_id, key, expected) in [
        (None, true, None, &plain, (issuer, None)),
        (None, false, None, &named, (token, Some("own"))),
        (Some(AssertionAudience::TokenEndpoint), true, Some("mine"), &named, (token, Some("mine"))),
        (Some(AssertionAudience::Issuer), true, Some("mine"), &plain, (issuer, Some("mine"))),
    ] {
        let quirks = Quirks { client_assertion_audience: audience, client_key_id: key_id.map(str::to_owned), ..by_key() };
        let definition = Definition { issuer: definition().issuer.filter(|_| known), ..definition() };
        let (header, claims, ..) = opened(&proved(&quirks, &definition, key).unwrap());
        assert_eq!((claims["aud"].as_str(), header["kid"].as_str()), (Some(expected.0), expected.1), "{audience:?} {known}");
    }
}

#[test]
fn what_is_no_private_key_is_told_without_any_of_it() {
    let (pkcs8, public) = p256();
    let mut damaged = pkcs8.clone();
    damaged[40] ^= 1;
    for (text, expected) in [
        ("hunter2".to_owned(), AssertionError::NotAKey),
        (String::new(), AssertionError::NotAKey),
        ("{\"a\":1}".to_owned(), AssertionError::NotAKey),
        ("{ hunter2".to_owned(), AssertionError::NotAKey),
        (pem("PUBLIC KEY", &public), AssertionError::Public),
        (pem("ENCRYPTED PRIVATE KEY", &pkcs8), AssertionError::Encrypted),
        (pem("PRIVATE KEY", &damaged), AssertionError::Unusable),
        (pem("PRIVATE KEY", b"hunter2"), AssertionError::Unusable),
        (pem("RSA PRIVATE KEY", b"hunter2"), AssertionError::Unusable),
        (pem("EC PRIVATE KEY", b"hunter2"), AssertionError::Unusable),
        (jwk_of(&pkcs8, &public, "").replace("P-256", "P-384"), AssertionError::Unusable),
        (jwk_of(&pkcs8, &public, r#","alg":"HS256""#), AssertionError::Algorithm),
        (jwk_of(&pkcs8, &public, "").replace(",\"d\":", ",\"public\":"), AssertionError::Public),
        (r#"{"kty":"oct","k":"aHVudGVyMg"}"#.to_owned(), AssertionError::Unusable),
    ] {
        assert_eq!(proved(&by_key(), &definition(), &text).unwrap_err(), expected, "{text}");
        assert_eq!(check_key(&ClientSecret::new(text.clone())), Err(expected));
        assert!(!expected.to_string().contains("hunter2"));
    }
}

#[test]
fn a_private_key_is_never_sent_as_a_secret() {
    let (pkcs8, public) = p256();
    for key in [pem("PRIVATE KEY", &pkcs8), pem("RSA PRIVATE KEY", b"damaged"), jwk_of(&pkcs8, &public, "")] {
        let secret = ClientSecret::new(key.clone());
        for auth in [None, Some(ClientAuth::ClientSecretBasic), Some(ClientAuth::ClientSecretPost)] {
            let quirks = Quirks { client_auth: auth, ..quirks() };
            let token = crate::secret::RefreshToken::new("rt-1".into());
            let request = token::refresh(&definition(), &quirks, Some(&secret), &token, None).unwrap();
            assert!(request.headers.iter().all(|(name, _)| *name != "authorization"), "{auth:?}");
            assert_eq!(form(&request).len(), 3, "{auth:?}");
            assert_eq!(prove(request, (&definition(), &quirks), Some(&secret), NOW).unwrap_err(), AssertionError::SentKey);
        }
    }
}

#[test]
fn a_client_has_what_it_proves_itself_with() {
    let (key, text) = (ClientSecret::new(pem("PRIVATE KEY", &p256().0)), ClientSecret::new("hush".into()));
    for (auth, secret, expected) in [
        (Some(ClientAuth::PrivateKeyJwt), Some(&key), Ok(())),
        (Some(ClientAuth::PrivateKeyJwt), Some(&text), Err(AssertionError::NotAKey)),
        (Some(ClientAuth::PrivateKeyJwt), None, Err(AssertionError::NoKey)),
        (Some(ClientAuth::ClientSecretPost), Some(&key), Err(AssertionError::SentKey)),
        (Some(ClientAuth::None), Some(&key), Ok(())),
        (None, Some(&key), Err(AssertionError::SentKey)),
        (None, Some(&text), Ok(())),
        (None, None, Ok(())),
    ] {
        assert_eq!(fits(secret, &Quirks { client_auth: auth, ..quirks() }), expected, "{auth:?}");
    }
}

#[test]
fn other_clients_and_other_bodies_stay_as_they_are() {
    let key = ClientSecret::new(pem("PRIVATE KEY", &p256().0));
    let body = |request: &Request| request.body.as_ref().map(|body| body.0.to_string());
    let plain = ClientSecret::new("hush".into());
    let public = Quirks { client_auth: Some(ClientAuth::None), ..quirks() };
    for (quirks, secret) in [(quirks(), Some(&plain)), (by_key(), None), (public, Some(&key))] {
        let same = prove(request(), (&definition(), &quirks), secret, NOW).unwrap();
        assert_eq!(body(&same), body(&request()));
    }
    let json_body = Quirks { token_request: TokenRequestBody::Json, ..by_key() };
    let token = crate::secret::RefreshToken::new("rt-1".into());
    let request = token::refresh(&definition(), &json_body, Some(&key), &token, None).unwrap();
    let request = prove(request, (&definition(), &json_body), Some(&key), NOW).unwrap();
    let members: Value = serde_json::from_str(&body(&request).unwrap()).unwrap();
    assert_eq!((members["refresh_token"].as_str(), members["client_assertion_type"].as_str()), (Some("rt-1"), Some(ASSERTION_TYPE)));
    assert!(members["client_assertion"].is_string() && members["client_secret"].is_null());
}

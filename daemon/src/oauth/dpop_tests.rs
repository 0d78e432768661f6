//! Proofs as a server sees them: read here by hand, and checked with the key that they carry.

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use super::*;
use crate::oauth::samples::{answer, json as body};

const NOW: Wall = Wall(1_700_000_000_900);

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn facts(url: &Url) -> Facts<'_> {
    Facts { method: "POST", url, token: None, nonce: None, now: NOW }
}

/// Header and claims of a proof that its own key has signed.
fn opened(proof: &str) -> (Value, Value) {
    let [header, claims, signature] = proof.split('.').collect::<Vec<_>>()[..] else { panic!("{proof}") };
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let head: Value = serde_json::from_slice(&bytes(header)).unwrap();
    let coordinate = |name: &str| bytes(head["jwk"][name].as_str().unwrap());
    let public = [vec![4], coordinate("x"), coordinate("y")].concat();
    let signed = format!("{header}.{claims}");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(signed.as_bytes(), &bytes(signature)).unwrap();
    (head, serde_json::from_slice(&bytes(claims)).unwrap())
}

fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_proof_shows_the_public_key_alone_and_says_which_request_it_is_for() {
    let (key, at) = (generate().unwrap(), url("https://as.example/token"));
    let (header, claims) = opened(&proof(&key, facts(&at)).unwrap());
    assert_eq!((&header["typ"], &header["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
    assert_eq!(names(&header["jwk"]), ["crv", "kty", "x", "y"], "nothing private");
    assert_eq!(names(&claims), ["htm", "htu", "iat", "jti"]);
    assert_eq!(
        (&claims["htm"], &claims["htu"], &claims["iat"]),
        (&json!("POST"), &json!("https://as.example/token"), &json!(1_700_000_000))
    );
}

#[test]
fn a_resource_request_is_tied_to_its_token_and_to_the_servers_nonce() {
    let (key, at) = (generate().unwrap(), url("https://mcp.example/mcp"));
    let with = Facts { method: "DELETE", token: Some("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"), nonce: Some("n-1"), ..facts(&at) };
    let (_, claims) = opened(&proof(&key, with).unwrap());
    // The token and its hash are those of RFC 9449 section 7.1.
    assert_eq!(claims["ath"], "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
    assert_eq!((&claims["nonce"], &claims["htm"]), (&json!("n-1"), &json!("DELETE")));
}

#[test]
fn the_target_is_what_goes_over_the_wire_without_query_and_fragment() {
    let key = generate().unwrap();
    for (written, expected) in [
        ("https://mcp.example/mcp?tenant=1#x", "https://mcp.example/mcp"),
        ("https://MCP.example:443", "https://mcp.example/"),
        ("https://mcp.example:8443/a%20b/", "https://mcp.example:8443/a%20b/"),
        ("http://127.0.0.1:9/mcp?", "http://127.0.0.1:9/mcp"),
    ] {
        let (_, claims) = opened(&proof(&key, facts(&url(written))).unwrap());
        assert_eq!(claims["htu"], expected, "{written}");
    }
}

#[test]
fn no_two_proofs_are_the_same_and_no_two_grants_have_the_same_key() {
    let (key, at) = (generate().unwrap(), url("https://as.example/token"));
    let jti = |key: &ProofKey| opened(&proof(key, facts(&at)).unwrap()).1["jti"].clone();
    assert_ne!(jti(&key), jti(&key));
    assert_ne!(thumbprint(&key).unwrap(), thumbprint(&generate().unwrap()).unwrap());
}

#[test]
fn the_thumbprint_is_that_of_the_key_in_the_proof() {
    let (key, at) = (generate().unwrap(), url("https://as.example/token"));
    let jwk = opened(&proof(&key, facts(&at)).unwrap()).0["jwk"].clone();
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
    assert_eq!(thumbprint(&key).unwrap(), URL_SAFE_NO_PAD.encode(Sha256::digest(canonical)));
}

#[test]
fn a_key_is_kept_as_text_and_one_that_is_none_is_refused_without_a_word_of_it() {
    let key = generate().unwrap();
    let stored = serde_json::to_string(&key).unwrap();
    assert_eq!(serde_json::from_str::<ProofKey>(&stored).unwrap(), key);
    assert_eq!(format!("{key:?}"), "ProofKey([redacted])");
    let at = url("https://as.example/token");
    for bad in ["", "no key", "AAAA"] {
        assert_eq!(proof(&ProofKey::new(bad.into()), facts(&at)), Err(DpopError::Unreadable));
    }
}

#[test]
fn a_nonce_is_one_word_of_bounded_length() {
    for (text, is) in
        [("n-1", true), ("eyJ7S_zG.eyJH0-Z.HX4w-7v", true), ("", false), ("a b", false), ("a\"b", false), ("a\\", false), ("ü", false)]
    {
        assert_eq!(is_nonce(text), is, "{text:?}");
    }
    assert!(is_nonce(&"x".repeat(LONGEST_NONCE)) && !is_nonce(&"x".repeat(LONGEST_NONCE + 1)));
}

#[test]
fn a_nonce_is_wanted_only_where_the_server_says_so_and_sends_one() {
    let with = |status, code: &str, nonce: Option<&str>| Response {
        dpop_nonce: nonce.map(str::to_owned),
        ..body(status, &format!(r#"{{"error":"{code}"}}"#))
    };
    assert!(wants_nonce(&with(400, "use_dpop_nonce", Some("n"))) && wants_nonce(&with(401, "use_dpop_nonce", Some("n"))));
    assert!(!wants_nonce(&with(400, "use_dpop_nonce", None)), "there is nothing to try it with");
    assert!(!wants_nonce(&with(400, "invalid_grant", Some("n"))) && !wants_nonce(&with(200, "use_dpop_nonce", Some("n"))));
    assert!(!wants_nonce(&Response { dpop_nonce: Some("n".into()), ..answer(400, "text/html", "<html>") }));
}

#[test]
fn a_refused_proof_is_put_down_to_the_clock_only_where_that_is_off() {
    let at = |date| Response { date, ..body(400, r#"{"error":"invalid_dpop_proof"}"#) };
    let off = |seconds: i64| Some(Wall(NOW.0 + 1000 * seconds));
    let said = |date| clock_complaint(&at(date), NOW);
    assert_eq!(said(off(600)).unwrap(), "invalid_dpop_proof: this machine's clock is 600 s behind the server's");
    assert_eq!(said(off(-90)).unwrap(), "invalid_dpop_proof: this machine's clock is 90 s ahead of the server's");
    assert_eq!((said(off(9)), said(off(-9)), said(None)), (None, None, None));
    let other = Response { date: off(600), ..body(400, r#"{"error":"invalid_grant"}"#) };
    assert_eq!(clock_complaint(&other, NOW), None);
}

#[test]
fn servers_that_list_their_algorithms_must_list_ours() {
    let list = |algorithms: &[&str]| Some(algorithms.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
    for (listed, others) in [
        (None, None),
        (list(&["RS256", "ES256"]), None),
        (list(&["RS256", "Ed\u{1b}DSA"]), Some("proofs by RS256, EdDSA alone (DPoP), and ours are by ES256")),
        (list(&["es256"]), Some("proofs by es256 alone (DPoP), and ours are by ES256")),
        (list(&[]), Some("proofs by other algorithms alone (DPoP), and ours are by ES256")),
    ] {
        assert_eq!(other_proofs(listed.as_deref()).as_deref(), others, "{listed:?}");
    }
    assert!(other_proofs(list(&["x"; 10_000]).as_deref()).unwrap().len() < 200, "nobody reads that");
}

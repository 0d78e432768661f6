//! `pkce`: a fresh code verifier and its challenge (RFC 7636, section 4), for trying out an authorization server by hand.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::output;

/// Print a fresh PKCE code verifier and its S256 challenge
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl pkce
  mcp-authctl pkce --json | jq -r .code_challenge")]
pub(crate) struct Args {}

pub(crate) fn run(json: bool) -> Result<(), Failure> {
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *random).map_err(|_| Failure::Random)?;
    let verifier = Zeroizing::new(URL_SAFE_NO_PAD.encode(*random));
    let challenge = challenge(&verifier);
    if json {
        return output::json(&serde_json::json!({
            "code_verifier": *verifier,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }));
    }
    output::line(&format!("code_verifier={}\ncode_challenge={challenge}\ncode_challenge_method=S256", *verifier))
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        assert_eq!(challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}

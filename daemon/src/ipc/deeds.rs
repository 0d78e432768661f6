//! PURE: what the audit calls a request that was carried out. Of a token, a login and a decision on the issuer's page more is
//! known elsewhere, and noted there; what only looks is not noted.

use mcp_auth_proto::{ErrorBody, ErrorCode, event};

use crate::audit::Note;

/// What a request of this method to this line of the table is, once it has ended so.
pub(super) fn note<T>((method, path): (&str, &str), name: &str, ended: &Result<T, ErrorBody>) -> Option<Note> {
    let event = match ((method, path), ended) {
        (("POST", "/v1/vault/unlock"), Err(error)) if error.error == ErrorCode::VaultLocked => event::UNLOCK_FAILED,
        (_, Err(_)) => return None,
        (line, Ok(_)) => done(line)?,
    };
    let note = Note::of(event);
    Some(match name.parse() {
        Ok(grant) if path.starts_with("/v1/grants/") => note.grant(&grant),
        _ if path.starts_with("/v1/providers/") => note.about(name),
        _ => note,
    })
}

/// Whether a request to this line is carried out even where nobody waits for its end any more. A refresh is for whoever asks, and
/// given up with it.
pub(super) fn is_carried_out(line: (&str, &str)) -> bool {
    done(line).is_some_and(|event| event != event::REFRESH_ASKED)
}

fn done(line: (&str, &str)) -> Option<&'static str> {
    Some(match line {
        ("PUT", "/v1/grants/*") => event::TOKEN_STORED,
        ("DELETE", "/v1/grants/*") => event::LOGGED_OUT,
        ("POST", "/v1/grants/*/refresh") => event::REFRESH_ASKED,
        ("PUT", "/v1/providers/*") => event::PROVIDER_DEFINED,
        ("PUT", "/v1/providers/*/secret") => event::CLIENT_SECRET_STORED,
        ("POST", "/v1/vault/setup") => event::VAULT_SET_UP,
        ("POST", "/v1/vault/unlock") => event::VAULT_UNLOCKED,
        ("POST", "/v1/vault/lock") => event::VAULT_LOCKED,
        ("POST", "/v1/vault/rekey") => event::VAULT_REKEYED,
        ("POST", "/v1/vault/backup") => event::VAULT_BACKED_UP,
        ("POST", "/v1/reload") => event::CONFIG_RELOADED,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deed_is_noted_with_what_it_was_done_to_and_a_failure_is_none() {
        let failed: Result<(), _> = Err(ErrorBody::new(ErrorCode::VaultLocked, "the vault is locked"));
        let github = "github:work".parse().unwrap();
        let logout = ("DELETE", "/v1/grants/*");
        assert_eq!(note(logout, "github:work", &Ok(())), Some(Note::of(event::LOGGED_OUT).grant(&github)));
        assert_eq!(note(logout, "github:work", &failed), None);
        assert_eq!(note(("PUT", "/v1/providers/*"), "corp", &Ok(())), Some(Note::of(event::PROVIDER_DEFINED).about("corp")));
        assert_eq!(note(("POST", "/v1/vault/unlock"), "", &failed), Some(Note::of(event::UNLOCK_FAILED)));
        assert_eq!(note(("GET", "/v1/grants"), "", &Ok(())), None);
    }
}

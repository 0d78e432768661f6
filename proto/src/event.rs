//! What can happen, by name: the `event` of a line of `GET /v1/events` and of `GET /v1/audit`. Later versions know more.

/// One name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The name.
    pub name: &'static str,
    /// It is a line of `/v1/events`.
    pub told: bool,
    /// It is a line of `/v1/audit`.
    pub kept: bool,
    /// What has happened.
    pub meaning: &'static str,
}

/// A program got an access token.
pub const TOKEN: &str = "token";
/// A program was refused what it asked for.
pub const DENIED: &str = "denied";
/// A login has brought tokens.
pub const LOGGED_IN: &str = "logged_in";
/// A login has come to nothing.
pub const LOGIN_FAILED: &str = "login_failed";
/// A grant's tokens were forgotten.
pub const LOGGED_OUT: &str = "logged_out";
/// A token was stored by hand.
pub const TOKEN_STORED: &str = "token_stored";
/// A refresh was asked for by hand.
pub const REFRESH_ASKED: &str = "refresh_asked";
/// A grant has new tokens.
pub const REFRESHED: &str = "refreshed";
/// A refresh has failed; it is repeated.
pub const REFRESH_FAILED: &str = "refresh_failed";
/// A person must log in.
pub const LOGIN_REQUIRED: &str = "login_required";
/// A refresh token will end by itself.
pub const REFRESH_TOKEN_ENDING: &str = "refresh_token_ending";
/// The newest tokens are in memory only.
pub const NOT_DURABLE: &str = "not_durable";
/// They are on the disk.
pub const DURABLE: &str = "durable";
/// The vault was made.
pub const VAULT_SET_UP: &str = "vault_set_up";
/// The vault is open.
pub const VAULT_UNLOCKED: &str = "vault_unlocked";
/// The vault did not open.
pub const UNLOCK_FAILED: &str = "unlock_failed";
/// The vault is closed.
pub const VAULT_LOCKED: &str = "vault_locked";
/// The vault has another key.
pub const VAULT_REKEYED: &str = "vault_rekeyed";
/// The vault was copied.
pub const VAULT_BACKED_UP: &str = "vault_backed_up";
/// The config was read again.
pub const CONFIG_RELOADED: &str = "config_reloaded";
/// The config was read again and cannot be used.
pub const CONFIG_ERROR: &str = "config_error";
/// A provider was defined.
pub const PROVIDER_DEFINED: &str = "provider_defined";
/// A client secret was stored.
pub const CLIENT_SECRET_STORED: &str = "client_secret_stored";
/// A rule was added or removed.
pub const POLICY_CHANGED: &str = "policy_changed";
/// The policy cannot be read.
pub const POLICY_UNREADABLE: &str = "policy_unreadable";
/// A person is asked whether a program may have a token.
pub const CONSENT_ASKED: &str = "consent_asked";
/// That question has its answer.
pub const CONSENT_DECIDED: &str = "consent_decided";
/// A program has got a socket of its own, for the grants that are named.
pub const CAPABILITY_OPENED: &str = "capability_opened";
/// That socket is gone.
pub const CAPABILITY_CLOSED: &str = "capability_closed";
/// A client of the relay's port has a secret, for the grants that are named.
pub const RELAY_CLIENT_ADDED: &str = "relay_client_added";
/// That secret is good no more.
pub const RELAY_CLIENT_REMOVED: &str = "relay_client_removed";
/// A client of the issuer may have its tokens.
pub const APPROVED: &str = "approved";
/// A client of the issuer gets nothing.
pub const REFUSED: &str = "refused";
/// The daemon has started.
pub const STARTED: &str = "started";
/// The daemon has ended in order.
pub const STOPPED: &str = "stopped";
/// Lines are missing here.
pub const GAP: &str = "gap";

/// Every name.
#[rustfmt::skip]
pub const ALL: &[Kind] = &[
    kept(TOKEN, "a program got an access token, or one was used for it at `/mcp`; `count` of them where there were several"),
    both(DENIED, "a program was refused: by the policy, or because its socket is for other grants alone"),
    both(LOGGED_IN, "a login has brought tokens"),
    both(LOGIN_FAILED, "a login has come to nothing"),
    both(LOGGED_OUT, "a grant's tokens were forgotten"),
    kept(TOKEN_STORED, "a token was stored by hand"),
    kept(REFRESH_ASKED, "a refresh was asked for by hand"),
    told(REFRESHED, "a grant has new tokens"),
    told(REFRESH_FAILED, "a refresh has failed; it is repeated"),
    both(LOGIN_REQUIRED, "a person must log in"),
    told(REFRESH_TOKEN_ENDING, "a refresh token will end by itself, soon"),
    told(NOT_DURABLE, "the newest tokens are in memory only: the disk refuses them"),
    told(DURABLE, "they are on the disk"),
    kept(VAULT_SET_UP, "the vault was made"),
    both(VAULT_UNLOCKED, "the vault is open"),
    kept(UNLOCK_FAILED, "somebody tried to open the vault and could not"),
    both(VAULT_LOCKED, "the vault is closed"),
    kept(VAULT_REKEYED, "the vault has another key"),
    kept(VAULT_BACKED_UP, "the sealed vault was copied"),
    both(CONFIG_RELOADED, "the config was read again"),
    told(CONFIG_ERROR, "the config was read again and cannot be used; the last good one is"),
    both(PROVIDER_DEFINED, "a provider was defined"),
    both(CLIENT_SECRET_STORED, "a client secret was stored"),
    both(POLICY_CHANGED, "a rule, or something that you allowed, was added or removed; after `the last` the grant is open"),
    both(POLICY_UNREADABLE, "the vault's record of the policy cannot be read: nobody gets a token"),
    both(CONSENT_ASKED, "a person is asked whether a program may have a token"),
    both(CONSENT_DECIDED, "that question has its answer, or its time is up"),
    both(CAPABILITY_OPENED, "a program has got a socket of its own, for the grants that are named"),
    both(CAPABILITY_CLOSED, "that socket is gone"),
    both(RELAY_CLIENT_ADDED, "a client of the relay's port has a secret"),
    both(RELAY_CLIENT_REMOVED, "that secret is good no more"),
    both(APPROVED, "a client of the issuer may have its tokens"),
    both(REFUSED, "a client of the issuer gets nothing"),
    kept(STARTED, "the daemon has started; without a `stopped` before it, it had not ended in order"),
    kept(STOPPED, "the daemon has ended in order"),
    kept(GAP, "`count` lines are missing here: more came than could be written"),
];

const fn told(name: &'static str, meaning: &'static str) -> Kind {
    Kind { name, told: true, kept: false, meaning }
}

const fn kept(name: &'static str, meaning: &'static str) -> Kind {
    Kind { name, told: false, kept: true, meaning }
}

const fn both(name: &'static str, meaning: &'static str) -> Kind {
    Kind { name, told: true, kept: true, meaning }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_docs_list_every_name_with_what_it_means_and_no_other() {
        let docs = include_str!("../../docs/audit.md");
        let mark = |yes: bool| if yes { "yes" } else { "" };
        let row = |kind: &Kind| format!("| `{}` | {} | {} | {} |", kind.name, mark(kind.told), mark(kind.kept), kind.meaning);
        let listed: Vec<&str> = docs.lines().filter(|line| line.matches('|').count() == 5 && line.starts_with("| `")).collect();
        assert_eq!(listed, ALL.iter().map(row).collect::<Vec<_>>());
        assert_eq!(ALL.iter().map(|kind| kind.name).collect::<BTreeSet<_>>().len(), ALL.len(), "a name stands there twice");
    }
}

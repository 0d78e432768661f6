//! Every way that a login at a remote server fails which others do not know, in one sentence and with what to do about it.

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};

use crate::grant::record::TokenSource;
use crate::grant::shown;
use crate::login::bearer::BearerError;
use crate::login::failure as shared;
use crate::login::redirect::BindError;
use crate::oauth::assertion::AssertionError;
use crate::oauth::metadata::MetadataError;
use crate::oauth::register::RegisterError;
use crate::oauth::resource_metadata::ResourceMetadataError;
use crate::oauth::text::{clean, quoted};
use crate::oauth::token::TokenError;
use crate::platform::NotPrivate;
use crate::provider::{ClientAuth, Provider};
use crate::registration::Registration;
use crate::transport::TransportError;

/// What is common to all logins, without hints about a config that is not there.
pub(super) fn in_our_words(error: ErrorBody, name: &GrantName) -> ErrorBody {
    let about_config = error
        .hint
        .as_deref()
        .is_some_and(|hint| hint.contains(&format!("[providers.{}]", name.base())) || hint.contains("mcp-authctl provider "));
    if !about_config {
        return error;
    }
    match error.error {
        ErrorCode::ProviderUnreachable => error.hint(again(name)),
        _ => error.hint(format!("{}; if it fails again, tell whoever runs the server", again(name))),
    }
}

/// The same, with the command that really starts the login again.
pub(super) fn with_command(mut error: ErrorBody, name: &GrantName, command: &str) -> ErrorBody {
    error.hint = error.hint.map(|hint| hint.replace(&format!("mcp-authctl login {name}"), command));
    error
}

/// Nothing came back from a page that was opened for a client which the server has made before.
pub(super) fn unanswered(error: ErrorBody, name: &GrantName) -> ErrorBody {
    let sentence = "if the browser showed an error, the server may have forgotten this program";
    error.hint(format!("{sentence}: `mcp-authctl login {name}` tries again, and registers anew"))
}

pub(super) fn unreachable(name: &GrantName, error: &TransportError) -> ErrorBody {
    in_our_words(shared::unreachable(name, error), name)
}

pub(super) fn metadata(name: &GrantName, error: &MetadataError) -> ErrorBody {
    in_our_words(shared::metadata(name, error), name)
}

pub(super) fn bind(name: &GrantName, error: &BindError) -> ErrorBody {
    shared::bind(name, error)
}

pub(super) fn no_proof(name: &GrantName, who: &str, other: &str) -> ErrorBody {
    shared::no_proof(name, who, other)
}

/// The server answers something that is neither a challenge nor an answer.
pub(super) fn server_status(name: &GrantName, status: u16) -> ErrorBody {
    ErrorBody::new(ErrorCode::ProviderUnreachable, format!("cannot log in at {name}: the server answered with status {status}"))
        .hint(again(name))
}

pub(super) fn resource(name: &GrantName, error: &ResourceMetadataError) -> ErrorBody {
    let code = match error {
        ResourceMetadataError::Status(429 | 500..) => ErrorCode::ProviderUnreachable,
        _ => ErrorCode::Conflict,
    };
    let body = ErrorBody::new(code, format!("cannot log in at {name}: {error}"));
    match error {
        ResourceMetadataError::OtherResource(_) => body.hint("look whether the URL is the one that the server's documentation names"),
        ResourceMetadataError::Status(_) => body.hint(again(name)),
        _ => body.hint("tell whoever runs the server; do not trust it until then"),
    }
}

pub(super) fn metadata_place(name: &GrantName, place: &str) -> ErrorBody {
    let sentence = format!("cannot log in at {name}: its challenge leads to {}, which is no https URL", clean(place));
    ErrorBody::new(ErrorCode::Conflict, sentence).hint("tell whoever runs the server; do not trust it until then")
}

/// The server does not name the authorization server that it must be.
pub(super) fn other_authorization_server((name, provider): (&GrantName, &Provider), named: &[String], wanted: &str) -> ErrorBody {
    let (named, wanted) = (clean(&named.join(", ")), clean(wanted));
    let sentence = format!("cannot log in at {name}: its authorization server must be {wanted}, and the server names {named}");
    let where_said = match &provider.authorization_server {
        Some(_) => format!("change authorization_server under [providers.{}] in config.toml", provider.name),
        None => "name the new one by --authorization-server".to_owned(),
    };
    ErrorBody::new(ErrorCode::Conflict, sentence)
        .hint(format!("nothing was sent there; only if whoever runs the server says that it has moved, {where_said}"))
}

/// The server names no authorization server, and does not ask for a login either.
pub(super) fn no_login(name: &GrantName, server: &str, open: bool) -> ErrorBody {
    let server = clean(server);
    let sentence = match open {
        true => format!("{server} lets everybody in and names no authorization server, so there is nothing to log in to"),
        false => format!("{server} names no authorization server, and does not answer as an MCP server that wants a login"),
    };
    let hint = format!(
        "look whether the URL is the one that the server's documentation names; a token that you made there is stored by \
         `mcp-authctl add-token {name}`"
    );
    ErrorBody::new(ErrorCode::Conflict, sentence).hint(hint)
}

/// Nobody can register: a person must.
pub(super) fn no_client(name: &GrantName, issuer: &str, redirect_uri: &str) -> ErrorBody {
    let sentence = format!("{} registers no clients by itself, and this program is not known to it", clean(issuer));
    ErrorBody::new(ErrorCode::Conflict, sentence).hint(format!(
        "register a native client there by hand, with the redirect URI {redirect_uri} on any port, then `mcp-authctl login {name} --client-id ID`; \
         `--client-secret-stdin` reads a secret from stdin"
    ))
}

pub(super) fn register(name: &GrantName, issuer: &str, error: &RegisterError) -> ErrorBody {
    let code = match error {
        RegisterError::Status(_) => ErrorCode::ProviderUnreachable,
        _ => ErrorCode::Conflict,
    };
    let body = ErrorBody::new(code, format!("cannot register at {}: {error}", clean(issuer)));
    match error {
        RegisterError::Status(_) => body.hint(again(name)),
        _ => body.hint(format!("register a native client there by hand, then `mcp-authctl login {name} --client-id ID`")),
    }
}

/// A client that a person gave belongs to another authorization server.
pub(super) fn other_issuer(name: &GrantName, client_id: &str, (known, now): (&str, &str)) -> ErrorBody {
    let sentence = format!(
        "the client {} was registered at {}, and the server names {} now; it is not shown there",
        clean(client_id),
        clean(known),
        clean(now)
    );
    ErrorBody::new(ErrorCode::Conflict, sentence)
        .hint(format!("register a client there and give its id: `mcp-authctl login {name} --client-id ID`"))
}

/// No code is typed, and nothing exchanged by hand.
pub(super) fn other_flow(name: &GrantName) -> ErrorBody {
    let sentence = "a login at a remote server goes by a browser, or is the client's own";
    ErrorBody::new(ErrorCode::InvalidRequest, sentence).hint(format!("mcp-authctl login {name}, or mcp-authctl login --help"))
}

/// Who asks for itself must be known.
pub(super) fn no_own_client(name: &GrantName, issuer: &str) -> ErrorBody {
    let sentence = format!("a client that asks for itself is registered by hand at {}, and none is known here", clean(issuer));
    ErrorBody::new(ErrorCode::Conflict, sentence)
        .hint(format!("mcp-authctl login {name} --client-credentials --client-id ID --client-secret-file FILE, or --private-key-file FILE"))
}

/// Its id alone proves nothing.
pub(super) fn no_credentials(name: &GrantName, client_id: &str) -> ErrorBody {
    let sentence = format!("there is neither a secret nor a private key for the client {}", clean(client_id));
    ErrorBody::new(ErrorCode::Conflict, sentence).hint(format!(
        "mcp-authctl login {name} --client-credentials --client-id {} --client-secret-file FILE, or --private-key-file FILE",
        quoted(client_id)
    ))
}

/// What the client has does not fit how it is to prove itself.
pub(super) fn bad_key(name: &GrantName, error: &AssertionError) -> ErrorBody {
    let hint = match error {
        AssertionError::SentKey => format!("write it under [providers.{}] in config.toml, then `mcp-authctl reload`", name.base()),
        _ => format!("mcp-authctl login {name} --client-credentials --client-id ID --private-key-file FILE"),
    };
    ErrorBody::new(ErrorCode::Conflict, format!("cannot log in at {name}: {error}")).hint(hint)
}

/// The client asked for itself, and got nothing.
pub(super) fn as_client(name: &GrantName, issuer: &str, registration: &Registration, error: &TokenError) -> ErrorBody {
    let issuer = clean(issuer);
    let body = |hint: String| ErrorBody::new(ErrorCode::Conflict, format!("cannot log in at {name}: {error}")).hint(hint);
    match refusal(error) {
        // The second is what some servers say of a grant type that the client may not use.
        Some("unauthorized_client" | "invalid_request") => {
            body(format!("let whoever runs {issuer} allow this client the grant type client_credentials"))
        }
        Some("unsupported_grant_type") => ErrorBody::new(
            ErrorCode::Conflict,
            format!("{issuer} gives no tokens to clients that ask for themselves (unsupported_grant_type)"),
        )
        .hint(format!("`mcp-authctl login {name}` without --client-credentials logs you in with a browser")),
        Some("invalid_scope") => body(format!("name scopes that the client may have: `mcp-authctl login {name} --scope SCOPE`")),
        Some("invalid_target") => body(format!("let whoever runs {issuer} make the server known there as a resource (RFC 8707)")),
        Some(_) => {
            let key = registration.auth == Some(ClientAuth::PrivateKeyJwt);
            let (what, option) = if key { ("the key", "--private-key-file") } else { ("the secret", "--client-secret-file") };
            let id = quoted(&registration.client_id);
            body(format!(
                "compare the client id and {what} with what {issuer} has; other ones: \
                 mcp-authctl login {name} --client-credentials --client-id {id} {option} FILE"
            ))
        }
        None => in_our_words(shared::token(name, error), name),
    }
}

/// The code with which a server refuses this client, or such requests: it will not do better the next time.
fn refusal(error: &TokenError) -> Option<&str> {
    match error {
        TokenError::InvalidGrant(_) => Some("invalid_grant"),
        TokenError::Refused { code, .. } => Some(code),
        TokenError::Unusable(said) => {
            ["unsupported_grant_type", "invalid_target", "invalid_request"].into_iter().find(|code| said.split(':').next() == Some(*code))
        }
        TokenError::Overloaded { .. } | TokenError::NotSent(_) | TokenError::Lost(_) => None,
    }
}

/// Nobody has named a client, and where no page is shown none can be made.
pub(super) fn no_known_client(name: &GrantName, issuer: &str) -> ErrorBody {
    let sentence = format!("no client of {} is known, and without a page none is registered", clean(issuer));
    ErrorBody::new(ErrorCode::Conflict, sentence)
        .hint(format!("`mcp-authctl login {name} --client-id ID`, or client_id under [providers.{}] in config.toml", name.base()))
}

/// The identity provider knows us by no name.
pub(super) fn no_client_at(name: &GrantName, provider: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("cannot log in at {name}: no client of the identity provider {} is known", clean(provider)))
        .hint(format!("set client_id under [providers.{}] in config.toml, then `mcp-authctl reload`", clean(provider)))
}

/// The identity provider does not tell where its token endpoint is.
pub(super) fn at_identity_provider(name: &GrantName, error: ErrorBody, configured: bool) -> ErrorBody {
    match error.error {
        ErrorCode::ProviderUnreachable => error.hint(again(name)),
        // The config has no table of it that could be mended.
        _ if !configured => {
            error.hint("compare --identity-provider with what its documentation says, or add --identity-token-endpoint URL")
        }
        _ => error,
    }
}

/// There is no assertion to send.
pub(super) fn bearer(name: &GrantName, error: &BearerError, source: &TokenSource) -> ErrorBody {
    let body = |code| ErrorBody::new(code, format!("cannot log in at {name}: {error}"));
    match error {
        BearerError::File { path, fault: NotPrivate::Writable(_) } => {
            body(ErrorCode::Conflict).hint(format!("chmod go-w {}", quoted(&shown(path))))
        }
        BearerError::Unread { path } => body(ErrorCode::Conflict).hint(format!(
            "if it was renewed just now, give the same command again; else see that {} holds a token for it, and is the same file for the \
             program and for the daemon",
            shown(path)
        )),
        BearerError::Grant(held) => match &held.hint {
            Some(hint) => body(held.error).hint(hint.clone()),
            None => body(held.error),
        },
        BearerError::Secret(_) | BearerError::Key(_) | BearerError::IdentityProvider(TokenError::Refused { .. }) => {
            body(ErrorCode::Conflict).hint(format!("see that the identity provider takes our client id and secret, then {}", again(name)))
        }
        BearerError::IdentityProvider(TokenError::InvalidGrant(_)) => body(ErrorCode::LoginRequired).hint(anew(name, source)),
        error if error.is_transient() => body(ErrorCode::ProviderUnreachable).hint(again(name)),
        _ => body(ErrorCode::Conflict).hint(anew(name, source)),
    }
}

/// The authorization server does not take the assertion.
pub(super) fn assertion(name: &GrantName, error: &TokenError, source: &TokenSource) -> ErrorBody {
    let plain = in_our_words(shared::token(name, error), name);
    match error {
        TokenError::InvalidGrant(_) => plain.hint(anew(name, source)),
        TokenError::Refused { code, .. } if code != "invalid_scope" => {
            plain.hint(format!("the client may not be allowed to do without a page: ask whoever runs the server, then {}", again(name)))
        }
        _ => plain,
    }
}

/// What brings a token that may be better.
fn anew(name: &GrantName, source: &TokenSource) -> String {
    match source {
        TokenSource::File(path) => format!("see that {} holds a token for it, then give the same command again", shown(path)),
        TokenSource::Given => "give the same command again with a fresh token for it".to_owned(),
        TokenSource::Grant(grant) => format!("`mcp-authctl login {grant}`, then `mcp-authctl login {name}`"),
    }
}

fn again(name: &GrantName) -> String {
    format!("`mcp-authctl login {name}` tries again")
}

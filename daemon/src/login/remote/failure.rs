//! Every way that a login at a remote server fails which others do not know, in one sentence and with what to do about it.

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};

use crate::login::failure as shared;
use crate::login::redirect::BindError;
use crate::oauth::metadata::MetadataError;
use crate::oauth::register::RegisterError;
use crate::oauth::resource_metadata::ResourceMetadataError;
use crate::oauth::text::clean;
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

pub(super) fn unreachable(name: &GrantName, error: &TransportError) -> ErrorBody {
    in_our_words(shared::unreachable(name, error), name)
}

pub(super) fn metadata(name: &GrantName, error: &MetadataError) -> ErrorBody {
    in_our_words(shared::metadata(name, error), name)
}

pub(super) fn bind(name: &GrantName, error: &BindError) -> ErrorBody {
    shared::bind(name, error)
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

/// Only people log in so far.
pub(super) fn other_flow(name: &GrantName) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, "a login at a remote server goes by a browser").hint(format!("mcp-authctl login {name}"))
}

fn again(name: &GrantName) -> String {
    format!("`mcp-authctl login {name}` tries again")
}

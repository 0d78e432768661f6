//! Every way that a login fails, in one sentence and with what to do about it.

use mcp_auth_proto::{ErrorBody, ErrorCode};

use super::pasted::PasteError;
use super::redirect::BindError;
use crate::oauth::assertion::AssertionError;
use crate::oauth::authorize::{AuthorizeError, RedirectError};
use crate::oauth::device::DeviceError;
use crate::oauth::metadata::MetadataError;
use crate::oauth::token::TokenError;
use crate::transport::TransportError;

pub(super) fn no_client_id(provider: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("there is no client id for {provider}")).hint(format!(
        "`mcp-authctl provider show {provider}` tells how to register one; then `mcp-authctl provider add {provider} --client-id ID`"
    ))
}

pub(super) fn no_secret(provider: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("{provider} wants a client secret, and none is stored")).hint(set_secret(provider))
}

/// The stored secret cannot sign.
pub(super) fn bad_key(provider: &str, error: &AssertionError) -> ErrorBody {
    let hint = match error {
        AssertionError::SentKey => format!("write it under [providers.{provider}] in config.toml, then `mcp-authctl reload`"),
        _ => format!("`mcp-authctl provider set-secret {provider} < private-key.pem` stores one"),
    };
    ErrorBody::new(ErrorCode::Conflict, format!("cannot log in with {provider}: {error}")).hint(hint)
}

pub(super) fn no_endpoints(provider: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("{provider} has neither an issuer nor an authorization and a token endpoint"))
        .hint(format!("set issuer under [providers.{provider}] in config.toml"))
}

pub(super) fn bad_issuer(provider: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("the issuer of {provider} is not an https URL without query"))
        .hint(format!("set issuer under [providers.{provider}] in config.toml"))
}

pub(super) fn unreachable(provider: &str, error: &TransportError) -> ErrorBody {
    let code = match error {
        TransportError::Refused(_) => ErrorCode::Conflict,
        TransportError::NotSent { .. } | TransportError::Lost { .. } => ErrorCode::ProviderUnreachable,
    };
    let hint = match code {
        ErrorCode::Conflict => check_endpoints(provider),
        _ => format!("look whether the network and the provider are up, then `mcp-authctl login {provider}` again"),
    };
    ErrorBody::new(code, format!("cannot log in with {provider}: {error}")).hint(hint)
}

fn check_endpoints(provider: &str) -> String {
    format!("compare its URLs in `mcp-authctl provider show {provider}` with the provider's documentation")
}

pub(super) fn metadata(provider: &str, error: &MetadataError) -> ErrorBody {
    let code = match error {
        MetadataError::Status(429 | 500..) | MetadataError::Html => ErrorCode::ProviderUnreachable,
        _ => ErrorCode::Conflict,
    };
    let body = ErrorBody::new(code, format!("cannot log in with {provider}: {error}"));
    match error {
        MetadataError::NoS256 => {
            body.hint(format!("if the server checks it all the same, set pkce = \"S256\" under [providers.{provider}]"))
        }
        MetadataError::IssuerMismatch { found, .. } => {
            body.hint(format!("if {found} is the right one, set it as issuer under [providers.{provider}] in config.toml"))
        }
        MetadataError::Html | MetadataError::Status(_) | MetadataError::Unreadable(_) => body.hint(format!(
            "check the network and the issuer, or set authorization_endpoint and token_endpoint under [providers.{provider}]"
        )),
        MetadataError::Missing(name) | MetadataError::Endpoint { name, .. } => body.hint(format!(
            "if the provider documents its {name}, set that under [providers.{provider}] in config.toml; if not, do not trust it"
        )),
    }
}

pub(super) fn bind(provider: &str, error: &BindError) -> ErrorBody {
    let body = ErrorBody::new(ErrorCode::Conflict, format!("cannot wait for the redirect of {provider}: {error}"));
    match error {
        BindError::Taken(port) => body.hint(format!(
            "end the program on port {port}, or `mcp-authctl login {provider} --callback-port PORT` with one that is registered"
        )),
        BindError::AllTaken(_) => body.hint(format!(
            "end the program on one of them, or `mcp-authctl login {provider} --callback-port PORT` with one that is registered"
        )),
        BindError::Host(_) | BindError::System(..) => body,
    }
}

pub(super) fn authorize(provider: &str, error: &AuthorizeError) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("cannot log in with {provider}: {error}"))
        .hint(format!("`mcp-authctl provider show {provider}` shows where it is configured"))
}

pub(super) fn redirect(provider: &str, error: &RedirectError) -> ErrorBody {
    let again = format!("`mcp-authctl login {provider}` tries again");
    match error {
        RedirectError::Refused { code, .. } if code == "access_denied" => denied(provider),
        RedirectError::Refused { code, .. } if matches!(code.as_str(), "temporarily_unavailable" | "server_error") => {
            ErrorBody::new(ErrorCode::ProviderUnreachable, format!("cannot log in with {provider}: {error}")).hint(again)
        }
        RedirectError::Refused { code, .. } if matches!(code.as_str(), "unauthorized_client" | "invalid_client") => {
            ErrorBody::new(ErrorCode::Conflict, format!("cannot log in with {provider}: {error}")).hint(check_client(provider))
        }
        RedirectError::Refused { code, .. } if code == "invalid_scope" => {
            ErrorBody::new(ErrorCode::Conflict, format!("cannot log in with {provider}: {error}")).hint(check_scopes(provider))
        }
        _ => ErrorBody::new(ErrorCode::LoginRequired, format!("cannot log in with {provider}: {error}")).hint(again),
    }
}

pub(super) fn token(provider: &str, error: &TokenError) -> ErrorBody {
    let again = format!("`mcp-authctl login {provider}` tries again");
    let body = |code| ErrorBody::new(code, format!("cannot log in with {provider}: {error}"));
    match error {
        TokenError::InvalidGrant(_) => body(ErrorCode::LoginRequired).hint(again),
        TokenError::Refused { code, .. } if code == "invalid_scope" => body(ErrorCode::Conflict).hint(check_scopes(provider)),
        TokenError::Refused { .. } => body(ErrorCode::Conflict).hint(check_client(provider)),
        TokenError::Overloaded { retry_after, .. } => {
            let body = body(ErrorCode::ProviderUnreachable).hint(again);
            match retry_after {
                Some(delay) => body.retry_after(delay.as_secs()),
                None => body,
            }
        }
        TokenError::NotSent(_) | TokenError::Lost(_) | TokenError::Unusable(_) => body(ErrorCode::ProviderUnreachable).hint(again),
    }
}

/// A device flow that did not start.
pub(super) fn device(provider: &str, error: &DeviceError) -> ErrorBody {
    let body = |code| ErrorBody::new(code, format!("cannot log in with {provider}: {error}"));
    match error {
        DeviceError::Refused { code, .. } if code == "device_flow_disabled" => {
            body(ErrorCode::Conflict).hint("enable the device flow in the settings of the app that the client id belongs to")
        }
        DeviceError::Refused { code, .. } if code == "invalid_scope" => body(ErrorCode::Conflict).hint(check_scopes(provider)),
        DeviceError::Refused { .. } => body(ErrorCode::Conflict).hint(check_client(provider)),
        DeviceError::Unusable(_) => body(ErrorCode::ProviderUnreachable).hint(format!("`mcp-authctl login {provider}` tries again")),
    }
}

/// There is no device authorization endpoint.
pub(super) fn no_device(provider: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, format!("{provider} has no device flow that is known"))
        .hint(format!("`mcp-authctl login {provider} --no-browser` logs in with a browser on another machine"))
}

/// The person refused, or the server in the person's name.
pub(super) fn denied(provider: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::LoginRequired, format!("the login with {provider} was refused (access_denied)")).hint(format!(
        "`mcp-authctl login {provider}` tries again; if nobody refused it, check its scopes with `mcp-authctl provider show {provider}`"
    ))
}

pub(super) fn too_late(provider: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::LoginRequired, format!("nobody finished the login with {provider} in time"))
        .hint(format!(
            "`mcp-authctl login {provider}` tries again; if the browser showed an error, compare the client id and the redirect URI in `mcp-authctl provider show {provider}`"
        ))
}

pub(super) fn paste(error: PasteError, redirect_uri: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, error.to_string())
        .hint(format!("copy the whole address from the browser's address bar; it begins with {redirect_uri}?"))
}

pub(super) fn pasted_other_login(redirect_uri: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, RedirectError::NotOurs.to_string())
        .hint(format!("open the address that this login shows, and copy the one that it leads to ({redirect_uri}?...)"))
}

fn set_secret(provider: &str) -> String {
    format!("`mcp-authctl provider set-secret {provider}` stores one")
}

fn check_client(provider: &str) -> String {
    format!(
        "check the client id with `mcp-authctl provider show {provider}`; `mcp-authctl provider set-secret {provider}` replaces a wrong secret"
    )
}

fn check_scopes(provider: &str) -> String {
    format!("check the scopes with `mcp-authctl provider show {provider}`, or name others: `mcp-authctl login {provider} --scope SCOPE`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_that_is_refused_comes_with_a_hint() {
        for error in [
            MetadataError::Status(404),
            MetadataError::Html,
            MetadataError::Unreadable("x".into()),
            MetadataError::IssuerMismatch { expected: "https://a".into(), found: "https://b".into() },
            MetadataError::Missing("token_endpoint"),
            MetadataError::Endpoint { name: "authorization_endpoint", reason: "it is not an https URL" },
            MetadataError::NoS256,
        ] {
            assert!(metadata("test", &error).hint.is_some_and(|hint| !hint.is_empty()), "{error}");
        }
    }
}

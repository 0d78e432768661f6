//! Every way that a login fails, in one sentence and with what to do about it. Sentences name the provider, commands the grant.

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};

use super::pasted::PasteError;
use super::redirect::BindError;
use crate::oauth::assertion::AssertionError;
use crate::oauth::authorize::{AuthorizeError, RedirectError};
use crate::oauth::device::DeviceError;
use crate::oauth::dpop::DpopError;
use crate::oauth::metadata::MetadataError;
use crate::oauth::token::{TokenError, is_about_client};
use crate::provider::Provider;
use crate::transport::TransportError;

/// Nobody has registered a client. A token that a person made needs none.
pub(super) fn no_client_id(grant: &GrantName, provider: &Provider) -> ErrorBody {
    let name = &provider.name;
    let place = provider.registration_url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
    let own_server = provider.missing(false).iter().any(|missing| missing == "base_url");
    let command =
        if own_server { format!("provider add {name} --base-url URL --client-id ID") } else { format!("login {grant} --client-id ID") };
    ErrorBody::new(ErrorCode::Conflict, format!("there is no client id for {name}")).hint(format!(
        "register a client{place} (steps: `mcp-authctl provider show {name}`), then `mcp-authctl {command}`; \
         or store a token that you made there: `mcp-authctl add-token {grant}`"
    ))
}

/// The code flow needs a secret; a device login would not.
pub(super) fn no_secret(grant: &GrantName, provider: &Provider) -> ErrorBody {
    let name = &provider.name;
    let device = provider.endpoints.device.as_ref().filter(|_| !provider.device_flow_needs_secret());
    let device = device.map(|_| format!("; `mcp-authctl login {grant} --device` needs none")).unwrap_or_default();
    ErrorBody::new(ErrorCode::Conflict, format!("{name} wants a client secret, and none is stored"))
        .hint(format!("`mcp-authctl provider set-secret {name}` stores one{device}"))
}

/// The stored secret cannot sign.
pub(super) fn bad_key(grant: &GrantName, error: &AssertionError) -> ErrorBody {
    let provider = grant.base();
    let hint = match error {
        AssertionError::SentKey => format!("write it under [providers.{provider}] in config.toml, then `mcp-authctl reload`"),
        _ => format!("`mcp-authctl provider set-secret {provider} < private-key.pem` stores one"),
    };
    ErrorBody::new(ErrorCode::Conflict, format!("cannot log in with {provider}: {error}")).hint(hint)
}

pub(super) fn no_endpoints(grant: &GrantName) -> ErrorBody {
    let provider = grant.base();
    ErrorBody::new(ErrorCode::Conflict, format!("{provider} has neither an issuer nor an authorization and a token endpoint"))
        .hint(format!("set issuer under [providers.{provider}] in config.toml"))
}

pub(super) fn bad_issuer(grant: &GrantName) -> ErrorBody {
    let provider = grant.base();
    ErrorBody::new(ErrorCode::Conflict, format!("the issuer of {provider} is not an https URL without query"))
        .hint(format!("set issuer under [providers.{provider}] in config.toml"))
}

pub(super) fn unreachable(grant: &GrantName, error: &TransportError) -> ErrorBody {
    let provider = grant.base();
    let code = match error {
        TransportError::Refused(_) | TransportError::OutOfReach(_) => ErrorCode::Conflict,
        TransportError::NotSent { .. } | TransportError::Lost { .. } => ErrorCode::ProviderUnreachable,
    };
    let hint = match code {
        _ if matches!(error, TransportError::OutOfReach(_)) => format!(
            "if that host is yours, write [providers.NAME] with server = \"URL\" and allow_private = true into config.toml, then \
             `mcp-authctl reload` and `mcp-authctl login {grant}`"
        ),
        ErrorCode::Conflict => check_endpoints(grant),
        _ => format!("look whether the network and the provider are up, then `mcp-authctl login {grant}` again"),
    };
    ErrorBody::new(code, format!("cannot log in with {provider}: {error}")).hint(hint)
}

fn check_endpoints(grant: &GrantName) -> String {
    let provider = grant.base();
    format!("compare its URLs in `mcp-authctl provider show {provider}` with the provider's documentation")
}

pub(super) fn metadata(grant: &GrantName, error: &MetadataError) -> ErrorBody {
    let provider = grant.base();
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

pub(super) fn bind(grant: &GrantName, error: &BindError) -> ErrorBody {
    let provider = grant.base();
    let body = ErrorBody::new(ErrorCode::Conflict, format!("cannot wait for the redirect of {provider}: {error}"));
    match error {
        BindError::Taken(port) => body.hint(format!(
            "end the program on port {port}, or `mcp-authctl login {grant} --callback-port PORT` with one that is registered"
        )),
        BindError::AllTaken(_) => body.hint(format!(
            "end the program on one of them, or `mcp-authctl login {grant} --callback-port PORT` with one that is registered"
        )),
        BindError::Host(_) | BindError::System(..) => body,
    }
}

pub(super) fn authorize(grant: &GrantName, error: &AuthorizeError) -> ErrorBody {
    let provider = grant.base();
    ErrorBody::new(ErrorCode::Conflict, format!("cannot log in with {provider}: {error}"))
        .hint(format!("`mcp-authctl provider show {provider}` shows where it is configured"))
}

pub(super) fn redirect(grant: &GrantName, error: &RedirectError) -> ErrorBody {
    let provider = grant.base();
    let again = format!("`mcp-authctl login {grant}` tries again");
    match error {
        RedirectError::Refused { code, .. } if code == "access_denied" => denied(grant),
        RedirectError::Refused { code, .. } if matches!(code.as_str(), "temporarily_unavailable" | "server_error") => {
            ErrorBody::new(ErrorCode::ProviderUnreachable, format!("cannot log in with {provider}: {error}")).hint(again)
        }
        RedirectError::Refused { code, .. } if is_about_client(code) => {
            ErrorBody::new(ErrorCode::Conflict, format!("cannot log in with {provider}: {error}")).hint(check_client(grant))
        }
        RedirectError::Refused { code, .. } if code == "invalid_scope" => {
            ErrorBody::new(ErrorCode::Conflict, format!("cannot log in with {provider}: {error}")).hint(check_scopes(grant))
        }
        _ => ErrorBody::new(ErrorCode::LoginRequired, format!("cannot log in with {provider}: {error}")).hint(again),
    }
}

pub(super) fn token(grant: &GrantName, error: &TokenError) -> ErrorBody {
    let provider = grant.base();
    let again = format!("`mcp-authctl login {grant}` tries again");
    let body = |code| ErrorBody::new(code, format!("cannot log in with {provider}: {error}"));
    match error {
        TokenError::InvalidGrant(_) => body(ErrorCode::LoginRequired).hint(again),
        TokenError::Refused { code, .. } if code == "invalid_scope" => body(ErrorCode::Conflict).hint(check_scopes(grant)),
        TokenError::Refused { .. } => body(ErrorCode::Conflict).hint(check_client(grant)),
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

/// A server takes other proofs than ours alone.
pub(super) fn no_proof(grant: &GrantName, who: &str, other: &str) -> ErrorBody {
    let sentence = format!("cannot log in with {}: its tokens are to be bound to a key, and {who} takes {other}", grant.base());
    ErrorBody::new(ErrorCode::Conflict, sentence).hint("tell whoever runs the server")
}

/// There is no key to bind tokens to.
pub(super) fn no_key(grant: &GrantName, error: DpopError) -> ErrorBody {
    ErrorBody::new(ErrorCode::InternalError, format!("cannot log in with {}: {error}", grant.base())).hint("try again")
}

/// A device flow that did not start.
pub(super) fn device(grant: &GrantName, error: &DeviceError) -> ErrorBody {
    let provider = grant.base();
    let body = |code| ErrorBody::new(code, format!("cannot log in with {provider}: {error}"));
    match error {
        DeviceError::Refused { code, .. } if code == "device_flow_disabled" => body(ErrorCode::Conflict).hint(format!(
            "enable the device flow in the settings of the app that the client id belongs to, or `mcp-authctl login {grant} --no-browser`"
        )),
        DeviceError::Refused { code, .. } if code == "invalid_scope" => body(ErrorCode::Conflict).hint(check_scopes(grant)),
        DeviceError::Refused { .. } => body(ErrorCode::Conflict).hint(check_client(grant)),
        DeviceError::Unusable(_) => body(ErrorCode::ProviderUnreachable).hint(format!("`mcp-authctl login {grant}` tries again")),
    }
}

/// There is no device authorization endpoint.
pub(super) fn no_device(grant: &GrantName) -> ErrorBody {
    let provider = grant.base();
    ErrorBody::new(ErrorCode::Conflict, format!("{provider} has no device flow that is known"))
        .hint(format!("`mcp-authctl login {grant} --no-browser` logs in with a browser on another machine"))
}

/// The person refused, or the server in the person's name.
pub(super) fn denied(grant: &GrantName) -> ErrorBody {
    let provider = grant.base();
    ErrorBody::new(ErrorCode::LoginRequired, format!("the login with {provider} was refused (access_denied)")).hint(format!(
        "`mcp-authctl login {grant}` tries again; if nobody refused it, check its scopes with `mcp-authctl provider show {provider}`"
    ))
}

pub(super) fn too_late(grant: &GrantName) -> ErrorBody {
    let provider = grant.base();
    ErrorBody::new(ErrorCode::LoginRequired, format!("nobody finished the login with {provider} in time"))
        .hint(format!(
            "`mcp-authctl login {grant}` tries again; if the browser showed an error, compare the client id and the redirect URI in `mcp-authctl provider show {provider}`"
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

fn check_client(grant: &GrantName) -> String {
    let provider = grant.base();
    format!(
        "check the client id with `mcp-authctl provider show {provider}`; `mcp-authctl provider set-secret {provider}` replaces a wrong secret"
    )
}

fn check_scopes(grant: &GrantName) -> String {
    let provider = grant.base();
    format!("check the scopes with `mcp-authctl provider show {provider}`, or name others: `mcp-authctl login {grant} --scope SCOPE`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_keep_the_label_of_the_grant() {
        let grant: GrantName = "test:work".parse().unwrap();
        let refused = redirect(&grant, &RedirectError::Malformed);
        assert_eq!(refused.hint.as_deref(), Some("`mcp-authctl login test:work` tries again"));
        assert!(refused.error_description.starts_with("cannot log in with test: "), "{refused}");
        let wrong_client = TokenError::Refused { code: "invalid_client".into(), description: None };
        assert!(token(&grant, &wrong_client).hint.unwrap().contains("provider set-secret test`"));
    }

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
            assert!(metadata(&"test".parse().unwrap(), &error).hint.is_some_and(|hint| !hint.is_empty()), "{error}");
        }
    }
}

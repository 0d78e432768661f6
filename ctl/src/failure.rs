//! Why a verb failed: the sentence, the hint with the exact command, and the exit code. Printing is `output`'s.

use std::io;
use std::path::PathBuf;

use mcp_auth_proto::{ClientError, ErrorBody, ErrorCode, SocketPathError};

use crate::commands::demo::DemoError;
use crate::commands::service::ServiceError;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments make no sense.
    #[error("{sentence}")]
    Usage {
        /// What is wrong with them.
        sentence: String,
        /// The command that tells more.
        hint: String,
    },
    /// The daemon could not be asked, or refused.
    #[error(transparent)]
    Client(ClientError),
    /// There is no place for the socket.
    #[error(transparent)]
    Socket(#[from] SocketPathError),
    /// A login ended without a grant. That one is needed is no news then.
    #[error(transparent)]
    LoginFailed(Box<ErrorBody>),
    /// The daemon is not, or cannot be, a service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The demo did not come about.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The daemon ended before what was waited for came.
    #[error("mcp-authd went away before {0}")]
    Gone(&'static str),
    /// Stdout failed.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// A file could not be written.
    #[error("cannot write to {path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A secret or an answer could not be read.
    #[error("cannot read {what}: {source}")]
    Input {
        /// What was to be read.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Nothing was typed, or stdin was empty.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// More came than any secret has.
    #[error("{0} is longer than 64 KiB")]
    TooLong(&'static str),
    /// Ctrl-C at a prompt.
    #[error("cancelled")]
    Cancelled,
    /// The second passphrase was not the first.
    #[error("the two passphrases differ")]
    PassphrasesDiffer,
    /// A token with spaces or control characters, which no header could carry.
    #[error("the access token of {0} holds characters that no access token may have")]
    OddToken(String),
    /// The authorization URL is not one that a browser should be given.
    #[error("the authorization URL of this login is not a web address")]
    OddAddress,
    /// The config file does not parse; the daemon goes on with the last good one.
    #[error("{0}; the last good version stays in use")]
    BadConfig(Box<ErrorBody>),
    /// `setup`: no keychain, and nobody there to choose something else.
    #[error("the keychain cannot keep the vault's key: {reason}")]
    NoKeychain {
        /// What the daemon said of it.
        reason: String,
        /// Whether systemd gave the daemon a credential.
        credential: bool,
    },
    /// `setup`: the daemon does not take what was written to the config.
    #[error("{0}; the file is as it was")]
    NotTaken(Box<ErrorBody>),
    /// `doctor`: something has to be done.
    #[error("{failed} of {all} checks failed")]
    ChecksFailed {
        /// How many of them.
        failed: usize,
        /// All of them.
        all: usize,
        /// What to do about the first.
        hint: Option<String>,
    },
    /// `status --check`: the grant cannot serve a token.
    #[error("{grant} needs a login{reason}")]
    NotLoggedIn {
        /// The grant.
        grant: String,
        /// `: ` and why, or nothing.
        reason: String,
        /// The command that logs in.
        remedy: String,
    },
    /// The exit code tells it all, or what was printed does.
    #[error("{0}")]
    Quiet(Box<Self>),
    /// `status --check`: the token has expired and the provider does not answer.
    #[error("{0} has no valid token and its provider does not answer")]
    NotRefreshed(String),
    /// `add-token`: the name holds a login that works.
    #[error("{0} holds a login, which a static token would replace")]
    WouldReplaceLogin(String),
    /// There is no terminal, and no word on the command line. With the command that has one.
    #[error("there is no terminal to ask on")]
    NobodyToAsk(String),
    /// `policy test`: no.
    #[error("{0}")]
    NotAllowed(String),
    /// A rule must name a file that is there.
    #[error("cannot find the program {path}: {source}")]
    NoProgram {
        /// The path as it was given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No provider of that name.
    #[error("there is no provider {name}")]
    NoProvider {
        /// The name that was given.
        name: String,
        /// The provider that may have been meant.
        meant: Option<String>,
    },
    /// `login --client-id`: the provider has another client already.
    #[error("{provider} has another client id, with which its grants were made")]
    OtherClientId {
        /// The provider.
        provider: String,
        /// The id that was given.
        given: String,
    },
    /// `use`: the bare name is a grant itself.
    #[error("{0} is a grant itself, and a name always stands for the grant that has it")]
    BareNameTaken(String),
    /// The program of `exec` could not be started.
    #[error("cannot start {program}: {source}")]
    NotStarted {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The system's random generator failed.
    #[error("the system's random generator failed")]
    Random,
}

impl Failure {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::LoginFailed(body) if body.error == ErrorCode::LoginRequired => 1,
            Self::LoginFailed(body) => api_exit_code(body.error),
            Self::Client(ClientError::Api(body)) => api_exit_code(body.error),
            Self::Client(ClientError::NotRunning { .. }) | Self::Gone(_) => 4,
            // It did not come up, and the service manager has closed the socket on whoever waited.
            Self::Client(ClientError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => 4,
            // Whoever closed the pipe has what they wanted (`status | head -1`).
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Service(error) => error.exit_code(),
            Self::Usage { .. } => 2,
            Self::Quiet(failure) => failure.exit_code(),
            Self::NotLoggedIn { .. } => 3,
            Self::NotRefreshed(_) => 5,
            Self::NotAllowed(_) => 6,
            Self::BadConfig(_) => 78,
            Self::Cancelled => 130,
            // As a shell tells it.
            Self::NotStarted { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::NotStarted { .. } => 126,
            _ => 1,
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => Some(hint.clone()),
            Self::Client(ClientError::NotRunning { .. }) => Some(start_hint()),
            Self::Gone(_) => Some(format!("the same command again; if it does not run, {}", start_hint())),
            Self::Service(error) => error.hint(),
            Self::Demo(error) => Some(error.hint()),
            Self::Client(ClientError::NotOurDaemon { path, .. }) => {
                Some(format!("look who owns it with `ls -l {}`, or set {} to your own", path.display(), mcp_auth_proto::SOCKET_ENV))
            }
            Self::Client(ClientError::Protocol(_) | ClientError::TooOld { .. }) => {
                Some("compare `mcp-authctl --version` with `mcp-authd --version`".into())
            }
            Self::Client(ClientError::TimedOut) => Some("see what it is doing with `mcp-authctl status`, or restart it".into()),
            Self::Client(ClientError::Io(_)) => Some("`mcp-authctl service status` shows whether it runs".into()),
            Self::Client(ClientError::Api(body)) => api_hint(body),
            Self::LoginFailed(body) => api_hint(body),
            Self::Socket(_) => Some(format!("set {} to a short absolute path in a folder of your own", mcp_auth_proto::SOCKET_ENV)),
            Self::NotLoggedIn { remedy, .. } => Some(remedy.clone()),
            Self::NotRefreshed(_) => Some("mcp-authctl status".into()),
            Self::WouldReplaceLogin(grant) => {
                Some(format!("choose another name, such as {}:pat, or first `mcp-authctl logout {grant}`", base(grant)))
            }
            Self::OtherClientId { provider, given } => Some(format!(
                "leave --client-id out, or mcp-authctl provider add {provider} --client-id {given}; then its grants need a login"
            )),
            Self::BareNameTaken(grant) => Some(format!("mcp-authctl logout {grant}, then mcp-authctl login {grant}:LABEL")),
            Self::NobodyToAsk(command) => Some(command.clone()),
            Self::Empty(_) => Some("type it at the prompt, or pipe it in".into()),
            Self::NoProvider { meant: Some(meant), .. } => Some(format!("did you mean `{meant}`? else mcp-authctl provider list")),
            Self::NoProvider { .. } => Some("mcp-authctl provider list".into()),
            Self::NoProgram { .. } => Some("name the file itself, such as the path that `command -v NAME` prints".into()),
            Self::NoKeychain { credential: true, .. } => Some("mcp-authctl setup --key-source systemd-credential".into()),
            Self::NoKeychain { .. } => Some(
                "mcp-authctl setup --key-source passphrase (typed, or from stdin), or --key-source key-file (no safer than the disk)"
                    .into(),
            ),
            Self::NotTaken(body) => body.hint.clone(),
            Self::ChecksFailed { hint, .. } => hint.clone(),
            Self::BadConfig(body) => Some(body.hint.clone().unwrap_or_else(|| "correct the file, then `mcp-authctl reload`".into())),
            Self::OddAddress => Some("check the provider with `mcp-authctl provider list`".into()),
            Self::File { .. } => Some("look at the folder's owner and modes, and at the room on its disk".into()),
            Self::Unreadable { path, .. } => Some(format!("look who may read it: ls -l '{}'", path.display())),
            Self::PassphrasesDiffer => Some("the same command again; nothing was changed".into()),
            Self::OddToken(grant) => Some(format!("mcp-authctl refresh {grant}, or mcp-authctl login {grant}")),
            Self::NotStarted { .. } => Some("name a program that can be run, with its whole path or on PATH".into()),
            _ => None,
        }
    }

    /// The body that `--json` shows.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        if let Self::Client(ClientError::Api(body)) | Self::LoginFailed(body) = self {
            return serde_json::to_value(body).unwrap_or_default();
        }
        let word = match self {
            Self::Usage { .. } => "usage",
            Self::Service(error) => error.word(),
            Self::Client(ClientError::NotRunning { .. }) | Self::Gone(_) => "not_running",
            Self::Client(ClientError::NotOurDaemon { .. }) => "not_our_daemon",
            Self::Client(ClientError::TooOld { .. }) => "too_old",
            Self::NotLoggedIn { .. } => "login_required",
            Self::NotRefreshed(_) => "provider_unreachable",
            Self::NotAllowed(_) => "access_denied",
            Self::NoProvider { .. } => "not_found",
            Self::WouldReplaceLogin(_) | Self::OtherClientId { .. } | Self::BareNameTaken(_) => "conflict",
            Self::BadConfig(_) => "bad_config",
            Self::Cancelled => "cancelled",
            _ => "failed",
        };
        let mut body = serde_json::json!({ "error": word, "error_description": self.to_string() });
        if let Some(hint) = self.hint() {
            body["hint"] = hint.into();
        }
        body
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<ErrorBody> for Failure {
    fn from(body: ErrorBody) -> Self {
        Self::Client(ClientError::Api(Box::new(body)))
    }
}

fn api_exit_code(code: ErrorCode) -> u8 {
    match code {
        // What a script does about a name that nobody logged in to is to log in.
        ErrorCode::LoginRequired | ErrorCode::InsufficientScope | ErrorCode::UnknownGrant => 3,
        ErrorCode::ProviderUnreachable => 5,
        ErrorCode::AccessDenied | ErrorCode::ConsentRequired => 6,
        ErrorCode::VaultLocked => 7,
        ErrorCode::InvalidRequest
        | ErrorCode::NotFound
        | ErrorCode::AmbiguousGrant
        | ErrorCode::Conflict
        | ErrorCode::PayloadTooLarge
        | ErrorCode::TooManyRequests
        | ErrorCode::InternalError => 1,
    }
}

fn api_hint(body: &ErrorBody) -> Option<String> {
    if let Some(hint) = &body.hint {
        return Some(hint.clone());
    }
    match (body.error, body.retry_after) {
        (ErrorCode::AmbiguousGrant, _) if !body.choices.is_empty() => Some(format!("name one of {}", body.choices.join(", "))),
        (ErrorCode::VaultLocked, _) => Some("mcp-authctl unlock".into()),
        (_, Some(seconds)) => Some(format!("the next attempt is in {seconds} s")),
        _ => None,
    }
}

/// A grant's name without its label.
fn base(grant: &str) -> &str {
    grant.split(':').next().unwrap_or(grant)
}

fn start_hint() -> String {
    let by_hand = "`mcp-authd &`";
    let systemd = std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|folder| PathBuf::from(folder).join("systemd/private").exists());
    if systemd || cfg!(target_os = "macos") {
        format!("start it with `mcp-authctl service start` (once before: `service install`), or with {by_hand}")
    } else {
        format!("start it with {by_hand}")
    }
}

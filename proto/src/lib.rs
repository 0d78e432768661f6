//! The wire between mcp-authd and its clients: HTTP/1.1 with JSON bodies on a Unix socket or a Windows named pipe.
//!
//! This crate owns the request and answer shapes, the closed set of error codes, the rule that finds the socket,
//! and [`Client`], which is all that a Rust program needs to get a fresh access token:
//!
//! ```no_run
//! let client = mcp_auth_proto::Client::new(mcp_auth_proto::socket_path()?);
//! let token = client.token(&mcp_auth_proto::TokenRequest::for_grant("github"))?;
//! println!("Authorization: Bearer {}", token.access_token.expose());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod call;
mod client;
mod connection;
mod error;
pub mod event;
mod name;
mod secret;
mod socket;
mod text;
#[cfg(unix)]
mod user;
mod wire;

#[cfg(feature = "async")]
pub mod asynchronous;

pub use client::{Client, ClientError, Lines, Malformed};
pub use error::{ErrorBody, ErrorCode};
pub use name::{GrantName, NameError};
pub use secret::Secret;
pub use socket::{SOCKET_ENV, SocketPathError, socket_path};
pub use text::{is_hidden, similar};
#[cfg(unix)]
pub use user::{is_nameless, nameless_uid};
pub use wire::*;

/// The version of this protocol, raised when an old client could misread an answer. Shown by `GET /v1/status`.
pub const PROTO_VERSION: u32 = 1;

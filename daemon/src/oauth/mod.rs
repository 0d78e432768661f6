//! OAuth without IO: request builders and answer checkers, a file per RFC. A request is a [`crate::transport::Request`],
//! an answer a [`crate::transport::Response`]; whoever sends is elsewhere. Nothing here reads a clock, a file or a socket.

pub mod assertion;
pub mod authorize;
pub mod challenge;
pub mod device;
pub mod dpop;
pub mod exchange;
pub mod identity;
pub mod jwt;
pub mod jwt_bearer;
pub mod metadata;
pub mod register;
pub mod resource_metadata;
pub mod revoke;
pub mod scopes;
pub mod text;
pub mod token;

mod form;
mod members;
#[cfg(test)]
pub(crate) mod samples;

pub use form::Sent;

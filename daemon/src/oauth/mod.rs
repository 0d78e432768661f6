//! OAuth without IO: request builders and answer checkers, a file per RFC. A request is a [`crate::transport::Request`],
//! an answer a [`crate::transport::Response`]; whoever sends is elsewhere.

pub mod authorize;
pub mod challenge;
pub mod identity;
pub mod metadata;
pub mod revoke;
pub mod token;

//! The map of the crate.

pub mod broker;
pub mod clock;
pub mod config;
pub mod grant;
pub mod ipc;
pub mod login;
pub mod oauth;
pub mod places;
pub mod platform;
pub mod platform_files;
pub mod policy;
pub mod provider;
pub mod secret;
pub mod transport;
pub mod vault;

//! The blocking client.
use crate::*;
/// A client.
#[derive(Debug)]
pub struct Client;
/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ClientError;
impl Client {
    /// A client of the daemon at `path`.
    pub fn new(path: std::path::PathBuf) -> Self {
        let _ = path;
        Self
    }
    /// `POST /v1/token`.
    pub fn token(&self, _r: &TokenRequest) -> Result<TokenAnswer, ClientError> {
        todo!()
    }
}

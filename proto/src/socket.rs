//! Where the socket is.
/// The variable that names the socket.
pub const SOCKET_ENV: &str = "MCP_AUTHD_SOCKET";
/// Why there is no socket path.
#[derive(Clone, Debug, thiserror::Error)]
#[error("x")]
pub struct SocketPathError;
/// The socket's path, by the rule that daemon and clients share.
pub fn socket_path() -> Result<std::path::PathBuf, SocketPathError> {
    todo!()
}

//! Where the programs are that the suites need. A missing one is a failure that says how to get it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One of our own programs, beside the running test (`target/debug` or `target/release`).
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let path = profile_folder().join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace`", path.display());
    path
}

/// The folder `tests/` of the source tree.
pub fn source_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder in the target folder that outlives the test: outputs for the leak search, screenshots.
pub fn kept_folder(name: &str) -> PathBuf {
    let folder = profile_folder().parent().unwrap().join("e2e").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Node, with the packages of `tests/oidc-provider` installed.
#[track_caller]
pub fn node() -> PathBuf {
    let installed = source_folder().join("oidc-provider/node_modules/oidc-provider");
    assert!(installed.exists(), "the authorization server is not installed: run `npm ci` in tests/oidc-provider");
    require("node", "nodejs (20 or newer)")
}

/// The Python of the folder with the official MCP clients, which has the Python SDK.
#[track_caller]
pub fn mcp_python() -> PathBuf {
    let python = source_folder().join("mcp/venv/bin/python");
    assert!(python.exists(), "the MCP Python SDK is not installed: run tests/mcp/install");
    python
}

/// Chromium.
#[track_caller]
pub fn chromium() -> PathBuf {
    require("chromium", "chromium")
}

/// A program on PATH, or a failure that names the package.
#[track_caller]
pub fn require(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.exists())
        .unwrap_or_else(|| panic!("{program} is not installed: this test needs the package {package}"))
}

/// Root, for what only root can cause (another user, a full disk).
#[track_caller]
pub fn require_root(why: &str) {
    assert!(rustix::process::geteuid().is_root(), "this test needs root to {why}: run `sudo -E tests/run`");
}

fn profile_folder() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let folder = exe.parent().unwrap();
    let in_deps = folder.ends_with("deps") || folder.ends_with("examples");
    if in_deps { folder.parent().unwrap() } else { folder }.to_path_buf()
}

/// A command with nothing inherited but PATH.
pub(crate) fn bare_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LANG", "C.UTF-8");
    command
}

//! Named steps at which the fault suite lets the daemon die or the disk fail: in builds with the feature `failpoints` only.
//!
//! The file that `MCP_AUTHD_FAILPOINTS` names is read at every step, so a running daemon can be armed and disarmed. One line
//! each, `STEP=ACTION`, with the actions `kill` (SIGKILL), `panic`, `error CODE` (an OS error) and `wait MILLISECONDS`;
//! `boottime=ahead MILLISECONDS` is a suspend that has just ended. In every other build the functions here are empty.

#[cfg(all(feature = "failpoints", not(test)))]
pub(crate) use armed::at_file;
#[cfg(feature = "failpoints")]
pub(crate) use armed::{at, slept};

/// A step without a failpoint.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn at(_: std::fmt::Arguments<'_>) {}

/// A step with a file, without a failpoint.
#[cfg(all(not(feature = "failpoints"), not(test)))]
#[inline]
pub(crate) fn at_file(_: &str, _: &std::path::Path) -> std::io::Result<()> {
    Ok(())
}

/// How long the machine has slept, besides what it has.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn slept() -> std::time::Duration {
    std::time::Duration::ZERO
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::fmt::Arguments;
    use std::io;
    use std::time::Duration;

    /// A step that cannot fail.
    pub(crate) fn at(step: Arguments<'_>) {
        assert!(meet(step).is_ok(), "this failpoint knows no errors");
    }

    fn meet(step: Arguments<'_>) -> io::Result<()> {
        let step = step.to_string();
        let Some(action) = action(&step) else { return Ok(()) };
        match action.split_once(' ').unwrap_or((&action, "")) {
            ("kill", _) => die(),
            ("panic", _) => panic!("the failpoint `{step}`"),
            ("error", code) => return Err(io::Error::from_raw_os_error(code.parse().expect("an error code"))),
            ("wait", milliseconds) => std::thread::sleep(Duration::from_millis(milliseconds.parse().expect("milliseconds"))),
            _ => panic!("the failpoint `{step}` has the unknown action `{action}`"),
        }
        Ok(())
    }

    fn action(step: &str) -> Option<String> {
        let list = std::fs::read_to_string(std::env::var_os("MCP_AUTHD_FAILPOINTS")?).unwrap_or_default();
        list.lines().find_map(|line| line.split_once('=').filter(|(name, _)| *name == step).map(|(_, action)| action.to_owned()))
    }

    /// What the clock that counts suspend is ahead of the machine's.
    pub(crate) fn slept() -> Duration {
        let ahead = action("boottime").map(|action| action.strip_prefix("ahead ").and_then(|ms| ms.parse().ok()).expect("milliseconds"));
        Duration::from_millis(ahead.unwrap_or(0))
    }

    /// A step with a file or the vault's folder: `record fsync`, `intents append`, `fsync folder`.
    #[cfg(not(test))]
    pub(crate) fn at_file(step: &str, path: &std::path::Path) -> io::Result<()> {
        if step.ends_with("folder") {
            return meet(format_args!("{step}"));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let what = if name.contains(".sealed") {
            "record"
        } else if name.starts_with("intents") {
            "intents"
        } else {
            "other"
        };
        meet(format_args!("{what} {step}"))
    }

    fn die() {
        #[cfg(unix)]
        {
            let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            killed.expect("a process may kill itself");
            loop {
                std::thread::park();
            }
        }
        #[cfg(not(unix))]
        std::process::abort();
    }
}

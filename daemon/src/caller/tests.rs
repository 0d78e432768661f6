//! Real processes and what is found of them.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::{UnixListener, UnixStream};

use super::*;

/// A process that lives until its input ends, or until it is dropped.
struct Living(Child);

impl Living {
    fn new(program: impl AsRef<Path>, arguments: &[&str]) -> Self {
        let mut command = Command::new(program.as_ref());
        Self(command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn process(&self) -> Arc<Process> {
        Arc::new(Process::find(self.0.id()).unwrap())
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks until what is found satisfies: a process that was just started may not yet run its program.
async fn look_until(process: &Arc<Process>, satisfies: impl Fn(&Result<looking::Seen, Weak>) -> bool) -> Result<looking::Seen, Weak> {
    let began = Instant::now();
    loop {
        let found = looking::look(process.clone()).await;
        if satisfies(&found) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "still {found:?}");
    }
}

fn runs(path: &Path) -> impl Fn(&Result<looking::Seen, Weak>) -> bool {
    move |found| found.as_ref().is_ok_and(|seen| seen.program.executable == path)
}

fn cat() -> PathBuf {
    ["/usr/bin/cat", "/bin/cat"].iter().find_map(|path| Path::new(path).canonicalize().ok()).unwrap()
}

fn sh() -> PathBuf {
    Path::new("/bin/sh").canonicalize().unwrap()
}

/// A connection of this very process.
async fn own_connection() -> (tempfile::TempDir, UnixStream, Arc<Mutex<Stream>>, Arc<Caller>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let client = UnixStream::connect(folder.path().join("s")).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let peer = crate::platform::peer(&stream).unwrap();
    let stream = Arc::new(Mutex::new(stream));
    let caller = Caller::of(&stream, peer, None);
    (folder, client, stream, caller)
}

#[tokio::test]
async fn whoever_connects_is_known_by_the_file_that_it_runs() {
    let (_folder, _client, stream, caller) = own_connection().await;
    for _ in 0..2 {
        let who = caller.who().await;
        assert_eq!(who.peer.pid, Some(std::process::id()));
        let program = who.program.unwrap();
        assert_eq!(program.executable, std::env::current_exe().unwrap().canonicalize().unwrap());
        assert_eq!((program.interpreter, program.script), (false, None));
        assert!(who.weak.iter().all(|weak| *weak == Weak::Reused), "{:?}", who.weak);
    }
    assert_eq!(Arc::strong_count(&stream), 1, "whoever knows the caller does not keep the connection open");
}

#[tokio::test]
async fn nobody_is_looked_for_once_the_connection_is_gone() {
    let (_folder, _client, stream, caller) = own_connection().await;
    drop(stream);
    let who = caller.who().await;
    assert_eq!((who.program, who.weak), (None, vec![Weak::Gone]));
}

#[tokio::test]
async fn a_connection_whose_process_is_unknown_has_no_program() {
    for (pid, weak) in [(None, Weak::Elsewhere), (Some(1), Weak::Gone)] {
        let who = Caller::new(Peer { uid: 0, pid }).who().await;
        assert_eq!((who.program, who.weak), (None, vec![weak]));
    }
}

#[tokio::test]
async fn an_interpreter_is_weak_and_its_script_is_its_own_word() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().canonicalize().unwrap().join("a script.sh");
    std::fs::write(&script, "read line").unwrap();
    let bare = Living::new("/bin/sh", &["-c", "read line; :"]);
    let seen = look_until(&bare.process(), runs(&sh())).await.unwrap();
    assert!(seen.program.interpreter && seen.program.script.is_none());
    assert!(seen.weak.contains(&Weak::NoScript));
    let scripted = Living::new("/bin/sh", &["-e", script.to_str().unwrap(), "-c"]);
    let seen = look_until(&scripted.process(), runs(&sh())).await.unwrap();
    assert_eq!(seen.program.script.as_deref(), Some(script.as_path()));
    assert!(seen.weak.contains(&Weak::OwnWord) && !seen.weak.contains(&Weak::NoScript));
    let missing = Living::new("/bin/sh", &["-s", script.to_str().unwrap()]);
    assert!(look_until(&missing.process(), runs(&sh())).await.unwrap().weak.contains(&Weak::NoScript));
}

#[tokio::test]
async fn an_executable_that_was_deleted_or_replaced_is_not_taken_for_what_is_there_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("server");
    let other_file = |found: &Result<_, Weak>| matches!(found, Err(Weak::OtherFile));
    for replaced in [false, true] {
        std::fs::copy(cat(), &path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let server = Living::new(&path, &[]);
        look_until(&server.process(), runs(&path)).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        if replaced {
            std::fs::copy(cat(), &path).unwrap();
        }
        look_until(&server.process(), other_file).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_process_that_has_ended_or_become_another_program_is_not_what_it_was() {
    let mut changing = Living::new("/bin/sh", &["-c", "read line; exec cat"]);
    let process = changing.process();
    let seen = look_until(&process, runs(&sh())).await.unwrap();
    assert_eq!(seen.holds(&process), Ok(()));
    changing.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    look_until(&process, runs(&cat())).await.unwrap();
    assert_eq!(seen.holds(&process), Err(Weak::Changed));
    changing.end();
    assert_eq!(seen.holds(&process), Err(Weak::Gone));
    assert!(matches!(looking::look(process).await, Err(Weak::Gone)));
}

#[tokio::test]
async fn what_has_ended_since_it_was_looked_at_is_told_by_the_record_and_judged_as_nobody() {
    let mut server = Living::new(cat(), &[]);
    let process = server.process();
    look_until(&process, runs(&cat())).await.unwrap();
    let caller = Caller::new(Peer { uid: 0, pid: Some(server.0.id()) });
    caller.process.set(process).unwrap();
    caller.who().await;
    server.end();
    assert_eq!(caller.who().await.program, None);
    let was = caller.who_it_was().await;
    assert_eq!((was.program.map(|program| program.executable), was.weak.contains(&Weak::Gone)), (Some(cat()), false));
    let never = Caller::new(Peer { uid: 0, pid: Some(server.0.id()) });
    assert_eq!(never.who_it_was().await.weak, [Weak::Gone]);
}

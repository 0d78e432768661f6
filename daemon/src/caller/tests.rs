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
        let found = match looking::glance(process) {
            Ok(glance) => looking::look(process.clone(), glance).await,
            Err(weak) => Err(weak),
        };
        if satisfies(&found) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "still {found:?}");
    }
}

fn runs(path: &Path) -> impl Fn(&Result<looking::Seen, Weak>) -> bool {
    move |found| found.as_ref().is_ok_and(|seen| seen.program().executable == path)
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
        assert_eq!((program.interpreter, program.script.as_ref()), (false, None));
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
    assert!(seen.program().interpreter && seen.program().script.is_none());
    assert!(seen.weak().contains(&Weak::NoScript));
    let scripted = Living::new("/bin/sh", &["-e", script.to_str().unwrap(), "-c"]);
    // Its arguments are there a moment after its path.
    let by_script = |found: &Result<looking::Seen, Weak>| found.as_ref().is_ok_and(|seen| seen.program().script.is_some());
    let seen = look_until(&scripted.process(), by_script).await.unwrap();
    assert_eq!(seen.program().script.as_deref(), Some(script.as_path()));
    assert!(seen.weak().contains(&Weak::OwnWord) && !seen.weak().contains(&Weak::NoScript));
    let missing = Living::new("/bin/sh", &["-s", script.to_str().unwrap()]);
    assert!(look_until(&missing.process(), runs(&sh())).await.unwrap().weak().contains(&Weak::NoScript));
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
    assert!(matches!(looking::glance(&process), Err(Weak::Gone)));
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
    assert_eq!((was.program.map(|program| program.executable.clone()), was.weak.contains(&Weak::Gone)), (Some(cat()), false));
    let never = Caller::new(Peer { uid: 0, pid: Some(server.0.id()) });
    assert_eq!(never.who_it_was().await.weak, [Weak::Gone]);
}

/// A connection of that process, as if it were open still.
fn connected(process: &Arc<Process>, only: Option<Only>) -> Arc<Caller> {
    let peer = Peer { uid: 0, pid: Some(process.pid()) };
    let caller = Caller::with(WeakArc::new(), peer, only);
    caller.process.set(process.clone()).unwrap();
    caller
}

#[tokio::test]
async fn what_ends_with_its_answer_is_told_by_its_path_and_judged_as_nobody() {
    let mut server = Living::new(cat(), &[]);
    let process = server.process();
    look_until(&process, runs(&cat())).await.unwrap();
    let caller = connected(&process, None);
    let was = caller.who_it_was();
    server.end();
    let was = was.await;
    assert_eq!((was.program.map(|program| program.executable.clone()), was.weak), (Some(cat()), vec![Weak::Glimpsed]));
    let who = caller.who().await;
    assert_eq!((who.program, who.weak), (None, vec![Weak::Gone]));
}

#[tokio::test]
async fn a_further_connection_of_a_process_is_known_until_that_has_ended_or_become_another_program() {
    let folder = tempfile::tempdir().unwrap();
    // Under this name it is no interpreter.
    let path = folder.path().canonicalize().unwrap().join("server");
    std::fs::copy(sh(), &path).unwrap();
    for ends in [false, true] {
        let mut server = Living::new(&path, &["-c", "read line; exec cat"]);
        let process = server.process();
        look_until(&process, runs(&path)).await.unwrap();
        let (known, first) = (Known::default(), connected(&process, None));
        assert!(known.remember(&first).is_none(), "it was not looked at");
        first.who().await;
        known.remember(&first).unwrap();
        let further = connected(&server.process(), None);
        let who = known.of(&further).unwrap().who(&further);
        assert_eq!((who.peer, who.program.map(|program| program.executable.clone())), (further.peer(), Some(path.clone())));
        if ends {
            server.end();
        } else {
            server.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
            look_until(&process, runs(&cat())).await.unwrap();
        }
        assert!(known.of(&connected(&process, None)).is_none() && known.of(&further).is_none());
        assert!(known.remember(&first).is_none(), "what it was is not what it is");
    }
}

#[tokio::test]
async fn a_process_number_that_went_to_another_leads_to_nobody_who_was_known() {
    let (mut server, other) = (Living::new(cat(), &[]), Living::new(cat(), &[]));
    let (process, other) = (server.process(), other.process());
    look_until(&process, runs(&cat())).await.unwrap();
    let (known, caller) = (Known::default(), connected(&process, None));
    caller.who().await;
    known.remember(&caller).unwrap();
    let late = Caller::new(caller.peer());
    late.process.set(other).unwrap();
    server.end();
    assert!(known.of(&late).is_none(), "the process under this number is another by now");
    assert!(known.of(&connected(&process, None)).is_none(), "its own connection, in other hands");
}

#[tokio::test]
async fn neither_an_interpreter_nor_whoever_has_a_socket_of_its_own_is_known_by_its_process() {
    let (bare, server) = (Living::new("/bin/sh", &["-c", "read line; :"]), Living::new(cat(), &[]));
    look_until(&bare.process(), runs(&sh())).await.unwrap();
    look_until(&server.process(), runs(&cat())).await.unwrap();
    let (known, github) = (Known::default(), "github".parse::<mcp_auth_proto::GrantName>().unwrap());
    let only = Some(Only::new(vec![(github.clone(), github)]));
    for caller in [connected(&bare.process(), None), connected(&server.process(), only.clone())] {
        assert!(caller.who().await.program.is_some());
        assert!(known.remember(&caller).is_none());
    }
    let caller = connected(&server.process(), None);
    caller.who().await;
    assert!(known.remember(&caller).is_some());
    assert!(known.of(&connected(&server.process(), only)).is_none());
}

#[tokio::test]
async fn a_crowd_of_processes_is_not_remembered_for_ever() {
    let known = Known::default();
    let mut crowd: Vec<Living> = (0..70).map(|_| Living::new(cat(), &[])).collect();
    let mut remembered = Vec::new();
    for server in &crowd {
        look_until(&server.process(), runs(&cat())).await.unwrap();
        let caller = connected(&server.process(), None);
        caller.who().await;
        known.remember(&caller).unwrap();
        remembered.push(caller);
    }
    let count = || remembered.iter().filter(|caller| known.of(caller).is_some()).count();
    assert_eq!(count(), 70 - 64, "the living make room too");
    crowd.drain(64..66);
    assert_eq!(count(), 70 - 66);
}

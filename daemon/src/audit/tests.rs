//! The audit over real files: what a reader is told, and what stays when the disk, a crash or a flood gets in between.

use std::path::Path;

use super::ledger::WINDOW;
use super::*;
use crate::clock::{Boot, Now, SystemClock, Wall};
use crate::policy::Peer;

/// A clock that the test sets, in seconds.
#[derive(Default)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Now {
        let since = Duration::from_secs(self.0.load(Ordering::Relaxed));
        Now { boot: Boot::from_start(since), wall: Wall(1_700_000_000_000) + since }
    }
}

/// A thread's work without the thread.
struct Desktop {
    clerk: Clerk,
    hands: Arc<Hands>,
    condition: Arc<Condition>,
}

impl Desktop {
    fn in_folder(folder: &Path) -> Self {
        let (hands, condition) = (Arc::<Hands>::default(), Arc::<Condition>::default());
        Self { clerk: Clerk::new(Files::in_folder(folder.to_owned()), hands.clone(), condition.clone()), hands, condition }
    }

    fn pass(&self, time: Duration) {
        self.hands.0.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    fn keep(&mut self, event: &'static str, program: &str) {
        let program = Program { executable: Some(program.to_owned()), ..Program::default() };
        self.clerk.carry_out(Job::Keep(Entry { note: Note::of(event), program: Some(program), counter: None }));
    }

    fn read(&mut self) -> Vec<AuditLine> {
        let (reply, mut answer) = oneshot::channel();
        self.clerk.carry_out(Job::Read(AuditRequest { limit: Some(1000), ..AuditRequest::default() }, reply));
        answer.try_recv().unwrap()
    }
}

fn caller() -> Arc<Caller> {
    Caller::new(Peer { uid: crate::platform::own_uid(), pid: Some(std::process::id()) })
}

fn text(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("audit.jsonl")).unwrap()
}

fn events(lines: &[AuditLine]) -> Vec<(&str, u64)> {
    lines.iter().map(|line| (line.event.as_str(), line.count)).collect()
}

#[tokio::test]
async fn the_first_token_of_a_connection_is_a_line_at_once_and_the_others_are_a_count() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let audit = Audit::start(state.clone(), Arc::new(SystemClock)).unwrap();
    let (one, other, github) = (caller(), caller(), "github".parse().unwrap());
    for _ in 0..312 {
        audit.served(&one, &github);
    }
    audit.served(&other, &github);
    // Both are looked up on tasks of this runtime.
    while audit.0.as_ref().unwrap().lookups.available_permits() < LOOKUPS as usize {
        tokio::task::yield_now().await;
    }
    let told = audit.read(AuditRequest::default()).await.unwrap();
    assert_eq!(events(&told), [("started", 1), ("token", 1), ("token", 312)]);
    assert_eq!((told[1].grant.as_ref(), told[1].since.as_ref()), (Some(&github), None));
    assert_eq!(told[2].program.as_ref().unwrap().pid, Some(std::process::id()), "both connections are of one process");
    assert!(told[2].since.is_some());
    assert_eq!(text(&state).lines().count(), 2, "what is only counted is not written at each look");
    audit.finish().await;
    let told = audit.read(AuditRequest::default()).await.unwrap();
    assert_eq!(events(&told), [("started", 1), ("token", 1), ("token", 312), ("stopped", 1)]);
    #[cfg(unix)]
    for (path, mode) in [(state.clone(), 0o700), (state.join("audit.jsonl"), 0o600)] {
        let found = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o7777;
        assert_eq!(found, mode, "{}", path.display());
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn further_connections_of_a_process_are_counts_without_a_look_or_a_note_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::start(folder.path().join("state"), Arc::new(SystemClock)).unwrap();
    let (desk, github) = (audit.0.as_ref().unwrap(), "github".parse().unwrap());
    let own = Peer { uid: crate::platform::own_uid(), pid: Some(std::process::id()) };
    for number in 0..100 {
        let (near, _far) = tokio::net::UnixStream::pair().unwrap();
        let near = Arc::new(Mutex::new(near));
        let caller = Caller::of(&near, own, None);
        (0..3).for_each(|_| audit.served(&caller, &github));
        let looks = LOOKUPS as usize - desk.lookups.available_permits();
        assert_eq!(looks, usize::from(number == 0), "looks for connection {number}");
        while desk.lookups.available_permits() < LOOKUPS as usize {
            tokio::task::yield_now().await;
        }
    }
    let told = audit.read(AuditRequest::default()).await.unwrap();
    assert_eq!(events(&told), [("started", 1), ("token", 1), ("token", 299)]);
    let executable = told[1].program.as_ref().unwrap().executable.as_deref();
    assert_eq!(executable, std::env::current_exe().unwrap().canonicalize().unwrap().to_str());
    assert_eq!(told[1].program, told[2].program);
}

#[test]
fn a_reader_follows_what_it_asked_for_and_is_dropped_when_it_lags() {
    let folder = tempfile::tempdir().unwrap();
    let mut desktop = Desktop::in_folder(folder.path());
    desktop.keep(event::LOGGED_OUT, "/usr/bin/a");
    let (reply, mut answer) = oneshot::channel();
    let request = AuditRequest { peer: Some("bin/a".into()), follow: true, ..AuditRequest::default() };
    desktop.clerk.carry_out(Job::Follow(request, reply));
    let mut lines = answer.try_recv().unwrap();
    desktop.keep(event::LOGGED_OUT, "/usr/bin/b");
    desktop.keep(event::LOGGED_IN, "/usr/bin/a");
    for event in ["logged_out", "logged_in"] {
        assert_eq!(lines.try_recv().unwrap().event, event);
    }
    for _ in 0..1000 {
        desktop.pass(WINDOW);
        desktop.keep(event::LOGGED_IN, "/usr/bin/a");
    }
    let mut left = 0;
    while lines.try_recv().is_ok() {
        left += 1;
    }
    assert!((100..1000).contains(&left) && lines.is_closed(), "{left} lines for a reader that did not read");
}

#[test]
fn a_line_that_was_torn_is_left_out_and_harms_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut desktop = Desktop::in_folder(folder.path());
    desktop.keep(event::VAULT_LOCKED, "/usr/bin/a");
    let whole = text(folder.path());
    for end in 1..whole.len() {
        std::fs::write(folder.path().join("audit.jsonl"), format!("{whole}{}", &whole[..end])).unwrap();
        let mut later = Desktop::in_folder(folder.path());
        later.keep(event::VAULT_UNLOCKED, "/usr/bin/b");
        let told = later.read();
        let names: Vec<_> = told.iter().map(|line| line.event.as_str()).filter(|name| *name != "vault_locked").collect();
        assert_eq!(names, ["vault_unlocked"], "torn after {end} bytes");
        // All but the newline makes a whole line.
        let kept = if end == whole.len() - 1 { 2 } else { 1 };
        assert_eq!(told.len(), kept + 1, "torn after {end} bytes: {told:?}");
    }
}

#[test]
fn a_disk_that_refuses_stops_nothing_is_told_once_and_heals_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut desktop = Desktop::in_folder(folder.path());
    let path = folder.path().join("audit.jsonl");
    std::fs::create_dir(&path).unwrap();
    desktop.keep(event::VAULT_LOCKED, "/usr/bin/a");
    let trouble = desktop.condition.trouble().clone().unwrap();
    assert_eq!(trouble, format!("{} is not a file", path.display()));
    desktop.keep(event::VAULT_UNLOCKED, "/usr/bin/a");
    assert_eq!(events(&desktop.read()), [("vault_locked", 1), ("vault_unlocked", 1)], "what waits is read all the same");
    std::fs::remove_dir(&path).unwrap();
    desktop.keep(event::LOGGED_IN, "/usr/bin/a");
    assert!(!path.exists(), "it is tried again after a while, and not at each line");
    assert!(desktop.clerk.wake_in().unwrap() <= Duration::from_secs(61));
    desktop.pass(Duration::from_secs(61));
    desktop.clerk.write(Vec::new());
    assert_eq!((desktop.condition.trouble().clone(), text(folder.path()).lines().count()), (None, 3));
}

#[test]
fn what_a_refusing_disk_leaves_no_room_for_is_told_as_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut desktop = Desktop::in_folder(folder.path());
    std::fs::create_dir(folder.path().join("audit.jsonl")).unwrap();
    // A line each: the last of one kind and the first of the next are as far apart as a day of a person.
    for number in 0..2000 {
        desktop.pass(WINDOW);
        desktop.keep(event::VAULT_LOCKED, &format!("/usr/bin/{number}"));
    }
    std::fs::remove_dir(folder.path().join("audit.jsonl")).unwrap();
    desktop.pass(WINDOW);
    desktop.keep(event::VAULT_UNLOCKED, "/usr/bin/a");
    let told = desktop.read();
    let gap = told.iter().find(|line| line.event == "gap").expect("a gap is told");
    assert_eq!(gap.count as usize + told.len() - 1, 2001);
    desktop.pass(WINDOW);
    desktop.keep(event::VAULT_UNLOCKED, "/usr/bin/b");
    assert_eq!(desktop.read().iter().filter(|line| line.event == "gap").count(), 1, "a gap is told once");
}

#[cfg(unix)]
#[test]
fn a_link_or_a_file_of_anybody_is_not_written_to() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (folder.path().join("audit.jsonl"), folder.path().join("elsewhere"));
    std::fs::write(&elsewhere, "mine\n").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let mut desktop = Desktop::in_folder(folder.path());
    desktop.keep(event::VAULT_LOCKED, "/usr/bin/a");
    assert!(desktop.condition.trouble().clone().unwrap().ends_with("is a symbolic link"));
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "mine\n");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    desktop.pass(WINDOW);
    desktop.keep(event::VAULT_LOCKED, "/usr/bin/a");
    assert!(desktop.condition.trouble().clone().unwrap().ends_with("is open to other users (mode 644)"));
}

#[test]
fn a_full_file_makes_room_and_two_older_ones_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_folder(folder.path().to_owned()).full_at(1000);
    let line = |number: usize| {
        let line = AuditLine {
            at: format!("2026-01-01T00:00:{number:02}Z"),
            event: "started".into(),
            grant: None,
            about: Some("x".repeat(100)),
            program: None,
            count: 1,
            since: None,
        };
        serde_json::to_string(&line).unwrap() + "\n"
    };
    (0..60).for_each(|number| files.append(&line(number)).unwrap());
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]);
    for name in names {
        assert!(folder.path().join(name).metadata().unwrap().len() <= 1000);
    }
    let kept: Vec<String> = files.read().into_iter().map(|line| line.at).collect();
    assert_eq!(kept.last().unwrap(), "2026-01-01T00:00:59Z");
    assert!(kept.len() >= 12 && kept.is_sorted(), "{kept:?}");
}

#[test]
fn a_flood_of_programs_fills_neither_the_disk_nor_the_memory_and_every_token_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut desktop = Desktop::in_folder(folder.path());
    (0..10_000).for_each(|number| desktop.keep(event::TOKEN, &format!("/tmp/{number}")));
    assert!(text(folder.path()).lines().count() < 200);
    desktop.pass(WINDOW);
    desktop.clerk.write(Vec::new());
    let told = desktop.read();
    assert_eq!(told.iter().map(|line| line.count).sum::<u64>(), 10_000);
    desktop.pass(WINDOW);
    desktop.clerk.write(Vec::new());
    assert_eq!(desktop.clerk.wake_in(), None, "nothing is left to be written, and nobody is woken");
}

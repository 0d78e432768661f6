//! T10: the power fails. What the daemon does to the disk is recorded, and for every instant a small model of a disk
//! that keeps nothing but what was synced says what may be found afterwards; a real daemon is started on each.
//!
//! The model is harsher than the file systems in use: a synced file does not keep its own name, names of a folder come
//! back in any combination until the folder is synced, and content that was not synced is gone, half there, or all there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use mcp_auth_tests::rogue::{Plan, Rogue, Rules, generation};
use mcp_auth_tests::{Room, require_root, wait_until};
use serde_json::json;

use crate::report::{Case, Report};
use crate::trace::{self, Step};

pub(crate) const CASES: &[Case] =
    &[Case { id: "T10", title: "power loss at every step: opens with the old record or the new", rounds: 8, quick: 2, run: power_fails }];

const HOUR: Duration = Duration::from_secs(3600);
/// Unsynced names of one instant that are combined in every way; of more, only each alone and all up to each.
const COMBINED: usize = 6;

/// The files of a folder; `None` is a folder.
type Found = BTreeMap<PathBuf, Option<Vec<u8>>>;

#[derive(Clone, Debug, Default)]
struct Content {
    folder: bool,
    synced: Vec<u8>,
    written: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Name {
    Set(PathBuf, usize),
    Gone(PathBuf),
    Moved(PathBuf, PathBuf, usize),
}

/// A disk and what the machine still holds back from it.
#[derive(Clone, Debug, Default)]
struct Disk {
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    synced: BTreeMap<PathBuf, usize>,
    pending: Vec<Name>,
}

impl Disk {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Create(path) if !self.names.contains_key(path) => self.make(path, false),
            Step::MakeFolder(path) => self.make(path, true),
            Step::Append(path, bytes) => self.at(path).written.extend(bytes),
            Step::Empty(path) => self.at(path).written.clear(),
            Step::Sync(path) => self.sync(path),
            Step::Rename(from, to) => {
                let content = self.names.remove(from).expect("a file that is renamed");
                self.names.insert(to.clone(), content);
                self.pending.push(Name::Moved(from.clone(), to.clone(), content));
            }
            Step::Remove(path) => {
                self.names.remove(path);
                self.pending.push(Name::Gone(path.clone()));
            }
            Step::Create(_) | Step::Serve(_) => {}
        }
    }

    fn make(&mut self, path: &Path, folder: bool) {
        self.contents.push(Content { folder, ..Content::default() });
        self.names.insert(path.to_owned(), self.contents.len() - 1);
        self.pending.push(Name::Set(path.to_owned(), self.contents.len() - 1));
    }

    fn at(&mut self, path: &Path) -> &mut Content {
        let at = self.names.get(path).unwrap_or_else(|| panic!("{} was never made", path.display()));
        &mut self.contents[*at]
    }

    fn sync(&mut self, path: &Path) {
        let is_folder = path.as_os_str().is_empty() || self.at(path).folder;
        if !is_folder {
            let content = self.at(path);
            content.synced = content.written.clone();
            return;
        }
        let (now, later): (Vec<Name>, _) = self.pending.drain(..).partition(|name| name.path().parent() == Some(path));
        now.iter().for_each(|name| name.apply(&mut self.synced));
        self.pending = later;
    }

    /// Everything that may be found if the power fails now.
    fn outcomes(&self) -> BTreeSet<Found> {
        let count = self.pending.len();
        let choices: Vec<Vec<usize>> = if count <= COMBINED {
            (0..1_usize << count).map(|bits| (0..count).filter(|at| bits >> at & 1 == 1).collect()).collect()
        } else {
            (0..count).map(|at| vec![at]).chain((0..=count).map(|to| (0..to).collect())).collect()
        };
        let mut outcomes = BTreeSet::new();
        for choice in choices {
            let mut names = self.synced.clone();
            choice.iter().for_each(|at| self.pending[*at].apply(&mut names));
            for share in [0, 1, 2] {
                outcomes.insert(self.found(&names, share));
            }
        }
        outcomes
    }

    /// The files under these names, with so many halves of what was not synced.
    fn found(&self, names: &BTreeMap<PathBuf, usize>, share: usize) -> Found {
        let mut found = Found::new();
        for (path, at) in names {
            let parent = path.parent().unwrap();
            if !parent.as_os_str().is_empty() && !found.contains_key(parent) {
                continue;
            }
            let Content { folder, synced, written } = &self.contents[*at];
            let bytes = match share {
                0 => synced.clone(),
                1 if written.starts_with(synced) => written[..synced.len() + (written.len() - synced.len()) / 2].to_vec(),
                _ => written.clone(),
            };
            found.insert(path.clone(), (!folder).then_some(bytes));
        }
        found
    }
}

impl Name {
    fn path(&self) -> &Path {
        match self {
            Self::Set(path, _) | Self::Gone(path) | Self::Moved(_, path, _) => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Set(path, content) => {
                names.insert(path.clone(), *content);
            }
            Self::Gone(path) => {
                names.remove(path);
            }
            Self::Moved(from, to, content) => {
                names.remove(from);
                names.insert(to.clone(), *content);
            }
        }
    }
}

fn power_fails(report: &mut Report) {
    require_root("trace a process that is not dumpable");
    let rogue = Rogue::start(Rules::strict(HOUR));
    let steps = record(&rogue, report.rounds());
    // A refresh must not make up for an old record.
    rogue.plan(Plan::json(503, &json!({})));
    let wanted = after_a_failure(&steps);
    report.figure(format!(
        "{} daemons recorded, {} instants, {} different folders, each opened",
        report.rounds(),
        steps.len() + 1,
        wanted.len()
    ));
    assert!(wanted.values().any(|least| *least > Some(1)), "nothing was recorded: {steps:?}");
    let (next, reports) = (Mutex::new(wanted.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut one = crate::report::alone();
                while let Some((found, least)) = { next.lock().unwrap().next() } {
                    one.round(|| opens(&rogue, found, *least));
                }
                reports.lock().unwrap().push(one);
            });
        }
    });
    for one in reports.into_inner().unwrap() {
        report.count(one.held(), one.into_failures());
    }
}

/// Every folder that may be found, with the newest generation that may have been served before.
fn after_a_failure(steps: &[Step]) -> BTreeMap<Found, Option<u64>> {
    let (mut disk, mut served, mut wanted) = (Disk::default(), None, BTreeMap::<Found, Option<u64>>::new());
    for step in steps {
        disk.take(step);
        if let Step::Serve(generation) = step {
            served = served.max(Some(*generation));
        }
        for found in disk.outcomes() {
            let least = wanted.entry(found).or_default();
            *least = (*least).max(served);
        }
    }
    wanted
}

/// The life of a vault from its first start: a login, refreshes, restarts, kills, and a new key.
fn record(rogue: &Rogue, lives: u32) -> Vec<Step> {
    let mut room = Room::at_rogue(rogue);
    room.set("MCP_AUTHD_LOG", "info");
    let mut steps = Vec::new();
    for life in 0..lives {
        let trace = room.path(&format!("trace{life}"));
        let daemon = room.start_traced(&trace, trace::CALLS);
        if life == 0 {
            daemon.log_in("test", "alice");
        }
        let before = generation(&daemon.token("test")).unwrap();
        if life % 4 == 3 {
            room.ctl(&["vault", "rekey"]).ok();
        }
        assert_eq!(daemon.call("POST", "/v1/grants/test/refresh", &json!({})).status, 200);
        assert_eq!(generation(&daemon.token("test")), Some(before + 1));
        if life % 2 == 0 {
            daemon.kill();
        } else {
            daemon.stop();
        }
        let whole = |text: &str| text.lines().any(|line| line.contains("+++ killed") || line.contains("+++ exited"));
        wait_until("the end of the trace", HOUR / 60, || std::fs::read_to_string(&trace).is_ok_and(|text| whole(&text)).then_some(()));
        steps.extend(trace::read(&trace, &room.path("state")));
    }
    steps
}

/// A daemon on what the power left: it opens, nothing is damaged, and no token that was ever served is newer than the
/// one that it holds; the refresh token came with that one in one record.
fn opens(rogue: &Rogue, found: &Found, least: Option<u64>) {
    let mut room = Room::at_rogue(rogue);
    room.set("MCP_AUTHD_LOG", "info");
    lay_out(&room.path("state"), found);
    let seen = || format!("served before: {least:?}; found: {}", listed(found));
    let daemon = room.start();
    let status =
        wait_until("an open vault", HOUR / 60, || Some(daemon.show("/v1/status")).filter(|status| status["vault"]["state"] != "opening"));
    assert_eq!(status["vault"]["state"], "unlocked", "{status}; {}", seen());
    assert_eq!(status["vault"]["quarantined"], 0, "{}", seen());
    let Some(least) = least else { return daemon.kill() };
    assert!(!holds_temp(&room.path("state")), "a temp file was left: {}", seen());
    let answer = daemon.ask("test");
    assert_eq!(answer.status, 200, "{}; {}", answer.body, seen());
    let held = generation(answer.json()["access_token"].as_str().unwrap());
    assert!(held >= Some(least), "{held:?} is older; {}", seen());
    daemon.kill();
}

fn holds_temp(folder: &Path) -> bool {
    let paths = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    paths.into_iter().any(|path| if path.is_dir() { holds_temp(&path) } else { path.extension().is_some_and(|ending| ending == "tmp") })
}

fn lay_out(root: &Path, found: &Found) {
    for (path, content) in found {
        let path = root.join(path);
        match content {
            None => std::fs::DirBuilder::new().mode(0o700).create(path).unwrap(),
            Some(bytes) => {
                let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path).unwrap();
                std::io::Write::write_all(&mut file, bytes).unwrap();
            }
        }
    }
}

fn listed(found: &Found) -> String {
    found.iter().map(|(path, content)| format!("\n{} {:?}", path.display(), content.as_ref().map(Vec::len))).collect()
}

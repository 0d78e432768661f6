//! Runs a case and counts: rounds, held, not held, with the figures that the case measured.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Once;
use std::time::{Duration, Instant};

/// One case of the catalogue, or one part of it.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// Its number: `T1`. Several cases may have the same.
    pub(crate) id: &'static str,
    /// What must hold, in a few words.
    pub(crate) title: &'static str,
    /// How many rounds the published figures have.
    pub(crate) rounds: u32,
    /// How many rounds `--quick` does.
    pub(crate) quick: u32,
    /// Does the rounds. A panic outside a round counts as a round that did not hold.
    pub(crate) run: fn(&mut Report),
}

/// What came of one case.
pub(crate) struct Report {
    case: Case,
    wanted: u32,
    held: u32,
    failures: Vec<String>,
    figures: Vec<String>,
    took: Duration,
    peer: Option<Peer>,
}

/// Another program, observed in the same situation. What it does not hold, fails nobody.
struct Peer {
    name: &'static str,
    version: String,
    not_kept: Vec<String>,
}

impl Case {
    pub(crate) fn run(&self, rounds: u32) -> Report {
        quiet_panics();
        let mut report = Report::new(*self, rounds.max(1));
        let began = Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.run)(&mut report))) {
            report.failures.push(message(&*panic));
        }
        report.took = began.elapsed();
        report
    }
}

impl Report {
    fn new(case: Case, wanted: u32) -> Self {
        Self { case, wanted, held: 0, failures: Vec::new(), figures: Vec::new(), took: Duration::ZERO, peer: None }
    }

    /// The rounds from here on are observations of another program, whose name the title begins with. Only a panic outside
    /// a round fails the case then: that is our harness.
    pub(crate) fn peer(&mut self, name: &'static str, version: String) {
        self.peer = Some(Peer { name, version, not_kept: Vec::new() });
    }

    /// How many rounds to do.
    pub(crate) fn rounds(&self) -> u32 {
        self.wanted
    }

    /// One round: it holds if it does not panic. Gives what it gives.
    pub(crate) fn round<T>(&mut self, round: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(round)) {
            Ok(value) => {
                self.held += 1;
                Some(value)
            }
            Err(panic) => {
                self.count(0, [message(&*panic)]);
                None
            }
        }
    }

    /// How many rounds held.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// Why the others did not.
    pub(crate) fn into_failures(self) -> Vec<String> {
        self.failures
    }

    /// Many rounds that were counted by the case itself.
    pub(crate) fn count(&mut self, held: u32, not_held: impl IntoIterator<Item = String>) {
        self.held += held;
        match &mut self.peer {
            Some(peer) => peer.not_kept.extend(not_held),
            None => self.failures.extend(not_held),
        }
    }

    /// A figure for the table: `window p50 2.1 ms`.
    pub(crate) fn figure(&mut self, figure: impl Into<String>) {
        self.figures.push(figure.into());
    }

    /// The title, with the version of the program that it begins with.
    fn title(&self) -> String {
        match &self.peer {
            Some(peer) => self.case.title.replacen(peer.name, &format!("{} {}", peer.name, peer.version), 1),
            None => self.case.title.to_owned(),
        }
    }

    /// How many rounds did not hold, ours or the peer's.
    fn not_held(&self) -> usize {
        self.peer.as_ref().map_or(0, |peer| peer.not_kept.len()) + self.failures.len()
    }

    /// The number of its case.
    pub(crate) fn id(&self) -> &'static str {
        self.case.id
    }

    /// One line of the table, and what there is to say about it.
    pub(crate) fn print(&self) {
        let (title, held, not) = (self.title(), self.held, self.not_held());
        let rounds = held as usize + not;
        println!("{:<4} {title:<66} {rounds:>7} {held:>7} {not:>5}  {:>5.0} s", self.case.id, self.took.as_secs_f64());
        for figure in &self.figures {
            println!("       {figure}");
        }
        if let Some(peer) = &self.peer {
            println!("       an observation of {}: kept {held} of {rounds}", peer.name);
            peer.not_kept.iter().take(3).for_each(|why| println!("       not kept: {why}"));
        }
        for failure in self.failures.iter().take(5) {
            println!("       NOT HELD: {}", failure.replace('\n', "\n         "));
        }
        if self.failures.len() > 5 {
            println!("       and {} more", self.failures.len() - 5);
        }
    }
}

/// The value below which so many per cent of the values lie. Zero of nothing.
pub(crate) fn quantile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0.0)
}

/// A report for rounds on another thread, to be counted into the case's own.
pub(crate) fn alone() -> Report {
    Report::new(Case { id: "", title: "", rounds: 0, quick: 0, run: |_| {} }, 0)
}

/// The head of the table.
pub(crate) fn head() {
    println!("{:<4} {:<66} {:>7} {:>7} {:>5}  {:>7}", "case", "what must hold", "rounds", "held", "not", "took");
}

/// The last lines, and the exit code.
pub(crate) fn summary(reports: &[Report]) -> ExitCode {
    let (ours, peers): (Vec<&Report>, Vec<&Report>) = reports.iter().partition(|report| report.peer.is_none());
    let held: u64 = ours.iter().map(|report| u64::from(report.held)).sum();
    let not: usize = reports.iter().map(|report| report.failures.len()).sum();
    println!("\n{} cases, {} rounds: {held} held, {not} not held", ours.len(), held + not as u64);
    if !peers.is_empty() {
        println!("and {} observations of other programs, which count neither way", peers.len());
    }
    if not == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The table of RELIABILITY.md, with where and how it was made.
pub(crate) fn markdown(reports: &[Report], command: &str) {
    let kernel = ["ostype", "osrelease"].map(|name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default());
    let commit = std::env::var("FAULTS_COMMIT").unwrap_or_else(|_| "unknown".into());
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("\n`{command}`, commit {commit}, {} {}, {build} build\n", kernel[0].trim(), kernel[1].trim());
    println!("| case | what must hold | rounds | held | not held |\n|---|---|---|---|---|");
    for report in reports {
        let rounds = report.held as usize + report.not_held();
        let not_held = match report.not_held() {
            some if report.peer.is_some() => format!("{some} (observed)"),
            0 => format!("0 (<= {})", percent(3.0 / rounds as f64)),
            some => some.to_string(),
        };
        let figures: String = report.figures.iter().map(|figure| format!("<br>{figure}")).collect();
        println!("| {} | {}{figures} | {rounds} | {} | {not_held} |", report.case.id, report.title(), report.held);
    }
}

/// The 95 % upper bound of a rate whose count was zero: three in so many rounds.
fn percent(rate: f64) -> String {
    if rate >= 1.0 { "100 %".into() } else { format!("{:.2} %", rate * 100.0) }
}

/// What there is.
pub(crate) fn list(cases: &[Case]) {
    for case in cases {
        println!("{:<4} {:<66} {:>7} rounds, {} with --quick", case.id, case.title, case.rounds, case.quick);
    }
}

/// A round that does not hold is reported in the table, not on stderr as well.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload().downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.payload().downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let at = panic.location().map(ToString::to_string).unwrap_or_default();
            LAST.with_borrow_mut(|last| *last = format!("{} ({at})", message.unwrap_or_default()));
        }));
    });
}

thread_local! {
    static LAST: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let last = LAST.take();
    if !last.is_empty() {
        return last;
    }
    let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a thread of the round panicked".to_owned())
}

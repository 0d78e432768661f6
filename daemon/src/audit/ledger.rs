//! PURE: what becomes a line. The first of a kind is one at once; what repeats it within five minutes is counted into one line,
//! and programs beyond a limit share theirs, so that no flood fills the disk or the memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto::{AuditLine, Program, event};

use super::Note;
use super::uses::Counter;
use crate::clock::{Boot, Now, Wall};

/// How long repetitions are counted before they are written.
pub(super) const WINDOW: Duration = Duration::from_secs(300);
/// The most kinds that are counted apart. Beyond, programs share one kind, and beyond the double of it grants too.
const KINDS: usize = 128;
/// So many of a kind are lines of their own within a window: a person repeats things too, and wants to see each.
const APART: u64 = 8;
/// Connections whose counters are kept before the ended ones are folded.
const CONNECTIONS: usize = 16;

/// Something that has happened.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) note: Note,
    /// Whose doing it was.
    pub(super) program: Option<Program>,
    /// What counts its repetitions on the same connection.
    pub(super) counter: Option<Arc<Counter>>,
}

/// What is being counted.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<Kind, Tally>);

/// What makes two entries repetitions: everything but the process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    note: Note,
    program: Option<Program>,
}

#[derive(Debug)]
struct Tally {
    since: Wall,
    until: Boot,
    /// The process, while it is but one.
    pid: Option<u32>,
    /// Lines of their own in this window.
    apart: u64,
    counted: u64,
    counters: Vec<Arc<Counter>>,
}

impl Ledger {
    /// One more; the line that it is at once.
    pub(super) fn take(&mut self, entry: Entry, now: Now) -> Option<AuditLine> {
        let pid = entry.program.as_ref().and_then(|program| program.pid);
        let mut kind = Kind { note: entry.note, program: entry.program.map(|program| Program { pid: None, ..program }) };
        let mut named = pid;
        if self.0.len() >= KINDS && !self.0.contains_key(&kind) {
            kind.program = kind.program.map(|_| Program::default());
            kind.note.about = None;
            kind.note.grant = kind.note.grant.filter(|_| self.0.len() < 2 * KINDS);
            named = None;
        }
        let most = if matches!(kind.note.event, event::TOKEN | event::DENIED) { 1 } else { APART };
        let fresh = || Tally { since: now.wall, until: now.boot + WINDOW, pid: named, apart: 0, counted: 0, counters: Vec::new() };
        let tally = self.0.entry(kind.clone()).or_insert_with(fresh);
        tally.pid = tally.pid.filter(|known| Some(*known) == pid);
        tally.counters.extend(entry.counter);
        if tally.counters.len() > CONNECTIONS {
            tally.fold();
        }
        if tally.apart >= most {
            tally.counted += 1;
            return None;
        }
        tally.apart += 1;
        Some(kind.line(1, named, None, now.wall))
    }

    /// Lines for whatever was counted long enough. What has not been repeated is forgotten.
    pub(super) fn sweep(&mut self, now: Now) -> Vec<AuditLine> {
        self.write(now, |tally| tally.until <= now.boot)
    }

    /// Lines for everything that was counted.
    pub(super) fn close(&mut self, now: Now) -> Vec<AuditLine> {
        self.write(now, |_| true)
    }

    /// What [`Self::close`] would write, left as it is.
    pub(super) fn pending(&self, now: Now) -> Vec<AuditLine> {
        let line = |(kind, tally): (&Kind, &Tally)| {
            let count = tally.counted + tally.counters.iter().map(|counter| counter.look()).sum::<u64>();
            (count > 0).then(|| kind.line(count, tally.pid, Some(tally.since), now.wall))
        };
        self.0.iter().filter_map(line).collect()
    }

    /// When there will be something to write or to forget; never while nothing is counted.
    pub(super) fn wake_at(&self) -> Option<Boot> {
        self.0.values().map(|tally| tally.until).min()
    }

    fn write(&mut self, now: Now, due: impl Fn(&Tally) -> bool) -> Vec<AuditLine> {
        let mut lines = Vec::new();
        self.0.retain(|kind, tally| {
            if !due(tally) {
                return true;
            }
            tally.fold();
            let count = tally.counted + tally.counters.iter().map(|counter| counter.take()).sum::<u64>();
            if count > 0 {
                lines.push(kind.line(count, tally.pid, Some(tally.since), now.wall));
                (tally.counted, tally.since, tally.until) = (0, now.wall, now.boot + WINDOW);
                return true;
            }
            tally.counters.retain(|counter| !counter.rest());
            !tally.counters.is_empty()
        });
        lines
    }
}

impl Tally {
    /// Takes in the counts of connections that have ended.
    fn fold(&mut self) {
        let counted = &mut self.counted;
        self.counters.retain_mut(|counter| match Arc::get_mut(counter) {
            Some(ended) => {
                *counted += ended.take();
                false
            }
            None => true,
        });
    }
}

impl Kind {
    fn line(&self, count: u64, pid: Option<u32>, since: Option<Wall>, at: Wall) -> AuditLine {
        AuditLine {
            at: at.rfc3339(),
            event: self.note.event.to_owned(),
            grant: self.note.grant.clone(),
            about: self.note.about.clone(),
            program: self.program.clone().map(|program| Program { pid, ..program }),
            count,
            since: since.map(Wall::rfc3339),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::Uses;

    fn at(seconds: u64) -> Now {
        let since = Duration::from_secs(seconds);
        Now { boot: Boot::from_start(since), wall: Wall(0) + since }
    }

    fn entry(event: &'static str, program: &str, counter: Option<Arc<Counter>>) -> Entry {
        let program = Program { executable: Some(program.to_owned()), ..Program::default() };
        Entry { note: Note::of(event), program: Some(program), counter }
    }

    #[test]
    fn a_persons_deeds_are_lines_of_their_own_and_a_loop_of_them_is_not() {
        let mut ledger = Ledger::default();
        let lines = (0..1000).filter_map(|_| ledger.take(entry(event::LOGGED_OUT, "/usr/bin/x", None), at(0))).count();
        assert_eq!(lines, 8);
        let counted = ledger.sweep(at(300));
        assert_eq!(counted.iter().map(|line| line.count).collect::<Vec<_>>(), [992]);
        assert_eq!(counted[0].since.as_deref(), Some("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn processes_of_one_program_share_a_line_which_then_names_none() {
        let mut ledger = Ledger::default();
        let of = |pid| {
            let mut entry = entry(event::TOKEN, "/usr/bin/x", None);
            entry.program.as_mut().unwrap().pid = Some(pid);
            entry
        };
        let first = ledger.take(of(7), at(0)).unwrap();
        assert_eq!(first.program.unwrap().pid, Some(7));
        assert!(ledger.take(of(7), at(1)).is_none());
        assert_eq!(ledger.pending(at(1))[0].program.as_ref().unwrap().pid, Some(7));
        assert!(ledger.take(of(8), at(2)).is_none());
        let counted = ledger.close(at(3)).remove(0);
        assert_eq!((counted.count, counted.program.unwrap().pid), (2, None));
    }

    proptest! {
        /// Whatever connections come and go, and whenever it is written: every use is told once.
        #[test]
        fn every_use_is_told_exactly_once(steps in prop::collection::vec((0_usize..4, 0_u8..8, 0_u64..400), 1..200)) {
            let (mut ledger, mut clock) = (Ledger::default(), 0);
            let mut connections: Vec<Uses> = (0..4).map(|_| Uses::default()).collect();
            let grant = "github".parse().unwrap();
            let (mut used, mut told) = (0, 0);
            for (number, step, seconds) in steps {
                let count = |lines: Vec<AuditLine>| lines.iter().map(|line| line.count).sum::<u64>();
                match step {
                    0 => connections[number] = Uses::default(),
                    1 => {
                        clock += seconds;
                        told += count(ledger.sweep(at(clock)));
                    }
                    2 => prop_assert_eq!(told + count(ledger.pending(at(clock))), used),
                    _ => {
                        used += 1;
                        let (counter, is_first) = connections[number].another(&grant);
                        if is_first {
                            let line = ledger.take(entry(event::TOKEN, ["a", "b"][number / 2], Some(counter)), at(clock));
                            told += count(line.into_iter().collect());
                        }
                    }
                }
            }
            connections.clear();
            told += ledger.close(at(clock)).iter().map(|line| line.count).sum::<u64>();
            prop_assert_eq!(told, used);
            ledger.sweep(at(clock + 300));
            prop_assert_eq!(ledger.wake_at(), None);
        }
    }
}

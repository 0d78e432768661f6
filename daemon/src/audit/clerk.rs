//! The audit's thread: takes notes in order, writes lines, reads them for whoever asks, and passes new ones on to those who
//! follow. A disk that refuses stops nothing: lines wait in memory, within a limit, and the disk is tried again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use mcp_auth_proto::{AuditLine, AuditRequest, event};
use tokio::sync::{mpsc, oneshot};

use super::file::Files;
use super::filter::Filter;
use super::ledger::{Entry, Ledger};
use super::{Condition, Note};
use crate::clock::{Boot, Clock, Now};

/// The most lines that wait for the disk.
const WAITING: usize = 512;
/// Between two tries of a disk that has refused.
const RETRY: Duration = Duration::from_secs(60);
/// How many lines a reader may lag behind.
const LAG: usize = 256;

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Job {
    Keep(Entry),
    Read(AuditRequest, oneshot::Sender<Vec<AuditLine>>),
    Follow(AuditRequest, oneshot::Sender<mpsc::Receiver<AuditLine>>),
    Finish(oneshot::Sender<()>),
}

pub(super) struct Clerk {
    files: Files,
    clock: Arc<dyn Clock>,
    condition: Arc<Condition>,
    ledger: Ledger,
    /// Lines that the disk has not taken.
    waiting: VecDeque<AuditLine>,
    /// When it is tried again.
    retry_at: Option<Boot>,
    readers: Vec<(Filter, mpsc::Sender<AuditLine>)>,
}

impl Clerk {
    pub(super) fn new(files: Files, clock: Arc<dyn Clock>, condition: Arc<Condition>) -> Self {
        let (ledger, waiting) = (Ledger::default(), VecDeque::new());
        Self { files, clock, condition, ledger, waiting, retry_at: None, readers: Vec::new() }
    }

    /// Works until the last handle is gone.
    pub(super) fn run(mut self, inbox: Receiver<Job>) {
        loop {
            let job = match self.wake_in() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(nap) => inbox.recv_timeout(nap),
            };
            match job {
                Ok(job) => self.carry_out(job),
                Err(RecvTimeoutError::Timeout) => self.write(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// How long there is nothing to do; `None`: until somebody asks.
    pub(super) fn wake_in(&self) -> Option<Duration> {
        let at = self.ledger.wake_at().into_iter().chain(self.retry_at).min()?;
        // Both are counted in milliseconds, and a nap that ends early would be followed by one of no length.
        Some(at.since(self.clock.now().boot) + Duration::from_millis(1))
    }

    pub(super) fn carry_out(&mut self, job: Job) {
        let now = self.clock.now();
        match job {
            Job::Keep(entry) => {
                let line = self.ledger.take(entry, now);
                self.write(line.into_iter().collect());
            }
            // Whoever has gone meanwhile needs no answer.
            Job::Read(request, reply) => drop(reply.send(self.read(&Filter::new(request, now.wall), true))),
            Job::Follow(request, reply) => drop(reply.send(self.follow(Filter::new(request, now.wall)))),
            Job::Finish(done) => {
                let mut lines = self.ledger.close(now);
                lines.extend(self.ledger.take(Entry { note: Note::of(event::STOPPED), program: None, counter: None }, now));
                self.retry_at = None;
                self.write(lines);
                let _ = done.send(());
            }
        }
    }

    /// What stands in the files, what waits for the disk and, where wanted, what is being counted.
    fn read(&self, filter: &Filter, counted: bool) -> Vec<AuditLine> {
        let counted = if counted { self.ledger.pending(self.clock.now()) } else { Vec::new() };
        filter.newest(self.files.read().into_iter().chain(self.waiting.iter().cloned()).chain(counted))
    }

    fn follow(&mut self, filter: Filter) -> mpsc::Receiver<AuditLine> {
        // What is being counted becomes a line of its own later.
        let lines = self.read(&filter, false);
        let (reader, stream) = mpsc::channel(lines.len() + LAG);
        // There is room for all of them, and the receiver is still here.
        lines.into_iter().for_each(|line| drop(reader.try_send(line)));
        self.readers.retain(|(_, reader)| !reader.is_closed());
        self.readers.push((filter, reader));
        stream
    }

    /// Writes these lines, those that are due, and those that the disk has not taken before.
    pub(super) fn write(&mut self, mut lines: Vec<AuditLine>) {
        let now = self.clock.now();
        lines.extend(self.ledger.sweep(now));
        self.readers.retain(|(filter, reader)| {
            lines.iter().filter(|line| filter.passes(line)).all(|line| reader.try_send(line.clone()).is_ok()) && !reader.is_closed()
        });
        let tries = self.retry_at.is_none_or(|at| at <= now.boot);
        self.waiting.extend(lines);
        if tries {
            self.write_waiting(now);
        }
        let too_many = self.waiting.len().saturating_sub(WAITING);
        self.waiting.drain(..too_many);
        self.condition.lost.fetch_add(too_many as u64, Ordering::Relaxed);
    }

    fn write_waiting(&mut self, now: Now) {
        let lost = self.condition.lost.load(Ordering::Relaxed);
        let gap = (lost > 0).then(|| gap(lost, now));
        if self.waiting.is_empty() && gap.is_none() {
            self.retry_at = None;
            return;
        }
        // The oldest are those that were lost.
        let lines = gap.iter().chain(&self.waiting);
        let text: String = lines.filter_map(|line| Some(serde_json::to_string(line).ok()? + "\n")).collect();
        let written = self.files.append(&text);
        let mut trouble = self.condition.trouble();
        match written {
            Ok(()) => {
                self.waiting.clear();
                self.retry_at = None;
                self.condition.lost.fetch_sub(lost, Ordering::Relaxed);
                if trouble.take().is_some() {
                    tracing::info!("the audit is written again");
                }
            }
            Err(error) => {
                self.retry_at = Some(now.boot + RETRY);
                let sentence = error.to_string();
                if trouble.is_none() {
                    tracing::warn!("the audit cannot be written, which stops nothing else: {sentence}");
                }
                *trouble = Some(sentence);
            }
        }
    }
}

fn gap(lost: u64, now: Now) -> AuditLine {
    AuditLine { at: now.wall.rfc3339(), event: event::GAP.to_owned(), grant: None, about: None, program: None, count: lost, since: None }
}

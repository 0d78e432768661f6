//! Rounds side by side, each counted as if it were alone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::report::{Report, alone};

/// Does the case's rounds on so many threads, each round with its number.
pub(crate) fn side_by_side(report: &mut Report, threads: usize, round: impl Fn(usize) + Sync) {
    let name = |number: usize| format!("round {number}");
    side_by_side_in(report, threads, || (), name, |(), number| round(number));
}

/// The same, each thread in a place that it makes once for all its rounds. A round that does not hold is told by its name.
pub(crate) fn side_by_side_in<P>(
    report: &mut Report,
    threads: usize,
    place: impl Fn() -> P + Sync,
    name: impl Fn(usize) -> String + Sync,
    round: impl Fn(&P, usize) + Sync,
) {
    let rounds = report.rounds() as usize;
    let (next, sum) = (AtomicUsize::new(0), Mutex::new((0, Vec::new())));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(rounds) {
            scope.spawn(|| {
                let place = place();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= rounds {
                        return;
                    }
                    let mut one = alone();
                    one.round(|| round(&place, number));
                    let mut sum = sum.lock().unwrap();
                    sum.0 += one.held();
                    sum.1.extend(one.into_failures().into_iter().map(|why| format!("{}: {why}", name(number))));
                }
            });
        }
    });
    let (held, failures) = sum.into_inner().unwrap();
    report.count(held, failures);
}

/// Says that it is over when it goes, after a panic too: whoever goes on until then would go on for ever.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What did not happen in so many askings of the rounds that held: a zero with its 95 % upper bound.
pub(crate) fn none_of(what: &str, asked: usize) -> String {
    format!("{what}: 0 of {asked} (95 % upper bound {:.3} %)", 300.0 / asked.max(1) as f64)
}

//! Rounds side by side, each counted as if it were alone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::report::{Report, alone};

/// Does the case's rounds on so many threads, each round with its number.
pub(crate) fn side_by_side(report: &mut Report, threads: usize, round: impl Fn(usize) + Sync) {
    let rounds = report.rounds() as usize;
    let (next, sum) = (AtomicUsize::new(0), Mutex::new((0, Vec::new())));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(rounds) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= rounds {
                        return;
                    }
                    let mut one = alone();
                    one.round(|| round(number));
                    let mut sum = sum.lock().unwrap();
                    sum.0 += one.held();
                    sum.1.extend(one.into_failures());
                }
            });
        }
    });
    let (held, failures) = sum.into_inner().unwrap();
    report.count(held, failures);
}

/// What did not happen in so many askings of the rounds that held: a zero with its 95 % upper bound.
pub(crate) fn none_of(what: &str, asked: usize) -> String {
    format!("{what}: 0 of {asked} (95 % upper bound {:.3} %)", 300.0 / asked.max(1) as f64)
}

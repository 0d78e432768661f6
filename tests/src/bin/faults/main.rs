//! The fault suite: what must hold when the provider, the disk, the clock, the machine or a neighbour misbehaves. Run it
//! with `tests/faults`. Each case is a function in the file of its subject; the numbers are those of the fault catalogue
//! that RELIABILITY.md repeats.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod crowds;
mod kills;
mod lost;
mod report;

use std::process::ExitCode;

use report::{Case, Report};

const HELP: &str = "\
Usage: tests/faults [--quick] [--case T1,T7] [--rounds N] [--list]

  --case T1,T7   only these cases
  --rounds N     so many rounds of each case instead of the case's own number
  --quick        the few rounds that tests/run does
  --list         what there is, and what cannot be tested here and why
";

/// Every case, in the order of the table.
fn cases() -> Vec<Case> {
    [kills::CASES, crowds::CASES, lost::CASES].concat()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut only, mut rounds, mut quick) = (Vec::new(), None, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--quick" => quick = true,
            "--case" => only.extend(rest.next().into_iter().flat_map(|list| list.split(',')).map(str::to_owned)),
            "--rounds" => rounds = rest.next().and_then(|number| number.parse().ok()),
            "--list" => {
                report::list(&cases());
                return ExitCode::SUCCESS;
            }
            "--help" | "-h" => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("error: unknown option {other}\nhint: tests/faults --help");
                return ExitCode::from(2);
            }
        }
    }
    let cases = cases();
    if let Some(unknown) = only.iter().find(|id| cases.iter().all(|case| case.id != id.as_str())) {
        eprintln!("error: there is no case {unknown}\nhint: tests/faults --list");
        return ExitCode::from(2);
    }
    report::head();
    let chosen = cases.iter().filter(|case| only.is_empty() || only.iter().any(|id| id == case.id));
    let reports: Vec<Report> = chosen.map(|case| case.run(rounds.unwrap_or(if quick { case.quick } else { case.rounds }))).collect();
    report::summary(&reports)
}

//! The fault suite: what must hold when the provider, the disk, the clock, the machine or a neighbour misbehaves. Run it
//! with `tests/faults`. Each case is a function in the file of its subject; the numbers are those of the fault catalogue
//! that RELIABILITY.md repeats.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod answers;
mod bridges;
mod callback;
mod consents;
mod crowds;
mod device;
mod disk;
mod ends;
mod hostile;
mod key_memory;
mod keys;
mod kills;
mod knock;
mod life;
mod listening;
mod lost;
mod names;
mod neighbours;
mod notices;
mod odd;
mod oidc_agent;
mod openers;
mod outage;
mod own_issuer;
mod passphrases;
mod peers;
mod pkce;
mod places;
mod power;
mod provider;
mod relayed;
mod remote;
mod remote_answers;
mod remote_texts;
mod report;
mod side;
mod soak;
mod stalls;
mod texts;
mod time;
mod trace;
mod traces;
mod vault;
mod walls;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use report::{Case, Report};

const HELP: &str = "\
Usage: tests/faults [--quick] [--case T1,T7] [--rounds N] [--markdown] [--list]

  --case T1,T7   only these cases
  --rounds N     so many rounds of each case instead of the case's own number
  --quick        the few rounds that tests/run does, with the debug build
  --markdown     the table of RELIABILITY.md at the end
  --list         what there is; RELIABILITY.md says what cannot be tested here, and why
";

/// Those that wait most of the time, the longest first: they are done side by side.
const WAITING: [&[Case]; 12] = [
    notices::CASES,
    keys::CASES,
    lost::CASES,
    provider::CASES,
    bridges::CASES,
    device::CASES,
    outage::CASES,
    disk::CASES,
    vault::CASES,
    passphrases::CASES,
    answers::CASES,
    ends::CASES,
];

/// Those that need the machine for themselves, since they measure or crowd it.
const ALONE: [&[Case]; 28] = [
    consents::CASES,
    callback::CASES,
    crowds::CASES,
    hostile::CASES,
    key_memory::CASES,
    kills::CASES,
    life::CASES,
    listening::CASES,
    names::CASES,
    neighbours::CASES,
    odd::CASES,
    oidc_agent::CASES,
    openers::CASES,
    peers::CASES,
    pkce::CASES,
    own_issuer::CASES,
    places::CASES,
    power::CASES,
    relayed::CASES,
    remote::CASES,
    remote_answers::CASES,
    remote_texts::CASES,
    soak::CASES,
    stalls::CASES,
    texts::CASES,
    time::CASES,
    traces::CASES,
    walls::CASES,
];

/// How many of [`WAITING`] are done at a time.
const SIDE_BY_SIDE: usize = 4;

/// What the arguments ask for.
#[derive(Default)]
struct Wish {
    only: Vec<String>,
    rounds: Option<u32>,
    quick: bool,
    markdown: bool,
    list: bool,
}

impl Wish {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let mut wish = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--quick" => wish.quick = true,
                "--markdown" => wish.markdown = true,
                "--list" => wish.list = true,
                "--case" => wish.only.extend(rest.next().ok_or("--case needs a list")?.split(',').map(str::to_owned)),
                "--rounds" => wish.rounds = Some(rest.next().and_then(|text| text.parse().ok()).ok_or("--rounds needs a number")?),
                other => return Err(format!("unknown option {other}")),
            }
        }
        let known = |id: &str| WAITING.iter().chain(&ALONE).flat_map(|cases| *cases).any(|case| case.id == id);
        let unknown = wish.only.iter().find(|id| !known(id));
        unknown.map_or(Ok(()), |id| Err(format!("there is no case {id}; --list shows them")))?;
        Ok(wish)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let wish = match Wish::read(&arguments) {
        Ok(wish) => wish,
        Err(error) => {
            eprintln!("error: {error}\nhint: tests/faults --help");
            return ExitCode::from(2);
        }
    };
    let wanted = |case: &&Case| wish.only.is_empty() || wish.only.iter().any(|id| id == case.id);
    let of = |cases: &[&[Case]]| cases.concat().iter().filter(wanted).copied().collect::<Vec<_>>();
    let (waiting, alone) = (of(&WAITING), of(&ALONE));
    if wish.list {
        report::list(&in_order([waiting, alone].concat(), |case| case.id));
        return ExitCode::SUCCESS;
    }
    report::head();
    let run = |case: &Case| case.run(wish.rounds.unwrap_or(if wish.quick { case.quick } else { case.rounds }));
    let mut reports = at_a_time(SIDE_BY_SIDE, &waiting, run);
    reports.extend(at_a_time(1, &alone, run));
    let reports = in_order(reports, Report::id);
    if wish.markdown {
        report::markdown(&reports, &format!("tests/faults {}", arguments.join(" ")));
    }
    report::summary(&reports)
}

/// Runs the cases, so many at a time.
fn at_a_time(threads: usize, cases: &[Case], run: impl Fn(&Case) -> Report + Sync) -> Vec<Report> {
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = run(case);
                    let mut reports = reports.lock().unwrap();
                    report.print();
                    reports.push(report);
                }
            });
        }
    });
    reports.into_inner().unwrap()
}

/// In the order of the table.
fn in_order<T>(mut list: Vec<T>, id: impl Fn(&T) -> &'static str) -> Vec<T> {
    list.sort_by_key(|one| id(one)[1..].parse::<u32>().unwrap());
    list
}

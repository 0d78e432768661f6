//! The fault suite: what must hold when the provider, the disk, the clock, the machine or a neighbour misbehaves. Run it
//! with `tests/faults`. Each case is a function in the file of its subject; the numbers are those of the fault catalogue
//! that RELIABILITY.md repeats.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod answers;
mod callback;
mod consents;
mod crowds;
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
mod places;
mod power;
mod provider;
mod remote;
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

use report::{Case, Report};

const HELP: &str = "\
Usage: tests/faults [--quick] [--case T1,T7] [--rounds N] [--markdown] [--list]

  --case T1,T7   only these cases
  --rounds N     so many rounds of each case instead of the case's own number
  --quick        the few rounds that tests/run does, with the debug build
  --markdown     the table of RELIABILITY.md at the end
  --list         what there is; RELIABILITY.md says what cannot be tested here, and why
";

/// Every case, in the order of the table.
fn cases() -> Vec<Case> {
    let mut cases = [
        answers::CASES,
        consents::CASES,
        callback::CASES,
        crowds::CASES,
        disk::CASES,
        ends::CASES,
        hostile::CASES,
        key_memory::CASES,
        keys::CASES,
        kills::CASES,
        life::CASES,
        listening::CASES,
        lost::CASES,
        names::CASES,
        neighbours::CASES,
        notices::CASES,
        odd::CASES,
        oidc_agent::CASES,
        openers::CASES,
        outage::CASES,
        peers::CASES,
        passphrases::CASES,
        own_issuer::CASES,
        places::CASES,
        power::CASES,
        provider::CASES,
        remote::CASES,
        soak::CASES,
        stalls::CASES,
        texts::CASES,
        time::CASES,
        traces::CASES,
        vault::CASES,
        walls::CASES,
    ]
    .concat();
    cases.sort_by_key(|case| case.id[1..].parse::<u32>().unwrap());
    cases
}

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
        let unknown = wish.only.iter().find(|id| cases().iter().all(|case| case.id != id.as_str()));
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
    let mut cases = cases();
    if wish.list {
        report::list(&cases);
        return ExitCode::SUCCESS;
    }
    cases.retain(|case| wish.only.is_empty() || wish.only.iter().any(|id| id == case.id));
    report::head();
    let rounds = |case: &Case| wish.rounds.unwrap_or(if wish.quick { case.quick } else { case.rounds });
    let reports: Vec<Report> = cases.iter().map(|case| case.run(rounds(case))).collect();
    if wish.markdown {
        report::markdown(&reports, &format!("tests/faults {}", arguments.join(" ")));
    }
    report::summary(&reports)
}

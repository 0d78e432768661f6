//! `service logs`: the journal's lines of the daemon, or those of the file that its log goes to.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use super::Supervisor;
use super::failure::ServiceError;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on as new lines come
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    lines: usize,
}

pub(super) fn run(args: &Args, supervisor: &Supervisor, json: bool) -> Result<(), Failure> {
    let found = supervisor.found()?;
    if found.unit.is_none() {
        return Err(ServiceError::NotInstalled.into());
    }
    match (found.log, supervisor) {
        (Some(file), _) => of_file(&file, args, json),
        (None, Supervisor::Systemd(systemd)) => of_journal(systemd.journal(args.lines, args.follow, json)?),
        (None, Supervisor::Launchd(_)) => Err(ServiceError::NoJournal.into()),
    }
}

/// journalctl writes to our stdout by itself; unprintable bytes it does not show.
fn of_journal(mut command: std::process::Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|source| ServiceError::CannotRun { program: program.clone(), source })?;
    if status.success() { Ok(()) } else { Err(ServiceError::Refused { command: program, said: status.to_string() }.into()) }
}

/// More than anybody reads in a terminal.
const MOST: u64 = 1024 * 1024;
/// How soon a new line is seen.
const PACE: Duration = Duration::from_millis(300);

fn of_file(path: &Path, args: &Args, json: bool) -> Result<(), Failure> {
    let failed = |source| Failure::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST))).map_err(failed)?;
    let mut rest = read_on(&mut file).map_err(failed)?;
    let whole = take_lines(&mut rest);
    print(whole.lines().skip(whole.lines().count().saturating_sub(args.lines)), json)?;
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(PACE);
        rest.push_str(&read_on(&mut file).map_err(failed)?);
        print(take_lines(&mut rest).lines(), json)?;
    }
}

/// The lines that are whole; the beginning of the next one stays.
fn take_lines(text: &mut String) -> String {
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    text.drain(..end).collect()
}

/// What has been written since; from the beginning where the file was cut.
fn read_on(file: &mut File) -> io::Result<String> {
    if file.metadata()?.len() < file.stream_position()? {
        file.rewind()?;
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn print<'a>(lines: impl Iterator<Item = &'a str>, json: bool) -> Result<(), Failure> {
    for line in lines {
        if json {
            output::json(&serde_json::json!({ "line": line }))?;
        } else {
            output::line(line)?;
        }
    }
    Ok(())
}

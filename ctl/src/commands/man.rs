//! `man`: the manual pages, made from the same text as `--help`.

use std::path::PathBuf;

use crate::failure::Failure;
use crate::output;

/// Print the manual page, or write one for every verb to a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl man | man -l -
  mcp-authctl man ~/.local/share/man/man1")]
pub(crate) struct Args {
    /// The folder for the pages; it is made if need be
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, command: clap::Command) -> Result<(), Failure> {
    if let Some(dir) = &args.dir {
        let made = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
        return made.map_err(|source| Failure::File { path: dir.clone(), source });
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(Failure::Output)?;
    output::bytes(&page)
}

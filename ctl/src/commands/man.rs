//! `man`: the manual pages, made from the same text as `--help`; the daemon's too.

use std::io;
use std::path::{Path, PathBuf};

use clap_mangen::roff::{Roff, roman};

use crate::failure::Failure;
use crate::output;

/// Print the manual page, or write one for every verb and the daemon to a folder
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
        return pages(command, dir).map_err(|source| Failure::File { path: dir.clone(), source });
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(Failure::Output)?;
    output::bytes(&page)
}

fn pages(command: clap::Command, dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)?;
    std::fs::write(dir.join("mcp-authd.1"), daemon_page())
}

/// What the daemon says to `--help`.
const DAEMON_HELP: &str = include_str!("../../../daemon/src/help.txt");

fn daemon_page() -> String {
    let mut paragraphs = DAEMON_HELP.splitn(3, "\n\n");
    let mut next = || paragraphs.next().unwrap_or_default();
    let mut page = Roff::new();
    page.control("TH", ["mcp-authd", "1", "", concat!("mcp-authd ", env!("CARGO_PKG_VERSION"))]);
    page.control("SH", ["NAME"]).text([roman(next().replacen(": ", " - ", 1))]);
    page.control("SH", ["SYNOPSIS"]).text([roman(next().trim_start_matches("Usage: "))]);
    // Its columns stay as they are.
    page.control("SH", ["DESCRIPTION"]).control("nf", []);
    for line in next().lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.render()
}

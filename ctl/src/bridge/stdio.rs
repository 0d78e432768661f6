//! The client's end: lines from stdin, lines to stdout, each on a thread of its own, since neither can be waited for otherwise.
//! What the lines mean is not known here.

use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;
use tokio::sync::mpsc;

/// The longest line that is taken in.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;
/// How many lines wait on their way in and out; whoever is faster is held back.
const WAITING: usize = 16;

/// The lines of stdin, without their ends. It ends when stdin does, or with a line that is too long.
pub(super) fn inlet() -> mpsc::Receiver<Bytes> {
    let (sender, lines) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        while let Some(line) = next_line(&mut stdin) {
            if !line.trim_ascii().is_empty() && sender.blocking_send(line.into()).is_err() {
                return;
            }
        }
    });
    lines
}

/// Where the lines for stdout go, with their ends. It is closed when nobody reads stdout any more.
pub(super) fn outlet() -> (mpsc::Sender<Bytes>, std::thread::JoinHandle<()>) {
    let (sender, mut lines) = mpsc::channel::<Bytes>(WAITING);
    let thread = std::thread::spawn(move || {
        let mut stdout = io::stdout().lock();
        while let Some(line) = lines.blocking_recv() {
            if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
                return;
            }
        }
    });
    (sender, thread)
}

fn next_line(input: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    // A client whose stdin fails is gone as well.
    let count = input.take(LONGEST_LINE + 1).read_until(b'\n', &mut line).unwrap_or(0);
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    (count > 0 && line.len() as u64 <= LONGEST_LINE).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_and_the_last_needs_no_end() {
        let mut input = "{\"a\":1}\r\n\n{\"b\":2}".as_bytes();
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input) {
            lines.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(lines, ["{\"a\":1}\r", "", "{\"b\":2}"]);
    }
}

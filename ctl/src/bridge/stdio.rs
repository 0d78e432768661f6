//! The client's end: lines from stdin, lines to stdout, each on a thread of its own, since neither can be waited for otherwise.
//! What the lines mean is not known here.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The longest line that is taken in.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;
/// How many lines wait on their way in and out, and how many bytes of them; whoever is faster is held back. What a request takes
/// after that is not counted here.
const MOST_LINES: usize = 16;
const MOST_BYTES: u32 = 4 * 1024 * 1024;

/// A line on its way. It takes its room until it is dropped.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) text: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Where lines go.
#[derive(Debug)]
pub(super) struct Lines {
    sender: mpsc::Sender<Line>,
    room: Arc<Semaphore>,
}

pub(super) fn lines() -> (Lines, mpsc::Receiver<Line>) {
    let (sender, receiver) = mpsc::channel(MOST_LINES);
    (Lines { sender, room: Arc::new(Semaphore::new(MOST_BYTES as usize)) }, receiver)
}

impl Lines {
    /// Sends a line once there is room for it; false: nobody takes it any more. One that is longer than all the room takes all of
    /// it, and waits alone.
    pub(super) async fn send(&self, text: Bytes) -> bool {
        let part = u32::try_from(text.len()).unwrap_or(MOST_BYTES).min(MOST_BYTES);
        match Arc::clone(&self.room).acquire_many_owned(part).await {
            Ok(room) => self.sender.send(Line { text, _room: room }).await.is_ok(),
            // It is never closed.
            Err(_) => false,
        }
    }

    /// Waits until nobody takes lines any more.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }
}

/// The lines of stdin, without their ends. It ends when stdin does, or with a line that is too long.
pub(super) fn inlet() -> mpsc::Receiver<Line> {
    let (lines, receiver) = lines();
    let runtime = Handle::current();
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        while let Some(line) = next_line(&mut stdin) {
            if !line.trim_ascii().is_empty() && !runtime.block_on(lines.send(line.into())) {
                return;
            }
        }
    });
    receiver
}

/// Where the lines for stdout go, with their ends. It is closed when nobody reads stdout any more.
pub(super) fn outlet() -> (Lines, std::thread::JoinHandle<()>) {
    let (lines, mut receiver) = lines();
    let thread = std::thread::spawn(move || {
        let mut stdout = io::stdout().lock();
        while let Some(line) = receiver.blocking_recv() {
            if stdout.write_all(&line.text).and_then(|()| stdout.flush()).is_err() {
                return;
            }
        }
    });
    (lines, thread)
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

    fn of(size: u32) -> Bytes {
        vec![b'x'; size as usize].into()
    }

    /// Whether a line goes out without waiting.
    async fn goes(lines: &Lines, size: u32) -> bool {
        tokio::select! {
            biased;
            sent = lines.send(of(size)) => sent,
            () = tokio::task::yield_now() => false,
        }
    }

    #[tokio::test]
    async fn a_slow_reader_is_waited_for_by_bytes_and_by_lines_and_the_longest_line_passes() {
        let (lines, mut receiver) = lines();
        assert!(goes(&lines, MOST_BYTES / 2).await && goes(&lines, MOST_BYTES / 2).await);
        assert!(!goes(&lines, 1).await, "as many bytes wait as may");
        let taken = receiver.recv().await.unwrap();
        assert!(!goes(&lines, 1).await, "it is not gone yet");
        drop(taken);
        assert!(goes(&lines, 1).await && !goes(&lines, MOST_BYTES / 2).await);

        let longest = tokio::spawn(async move {
            assert!(lines.send(of(3 * MOST_BYTES)).await, "it waits for all the room, and no longer");
            lines
        });
        for size in [MOST_BYTES / 2, 1, 3 * MOST_BYTES] {
            assert_eq!(receiver.recv().await.unwrap().text.len(), size as usize);
        }
        let lines = longest.await.unwrap();
        for _ in 0..MOST_LINES {
            assert!(goes(&lines, 1).await);
        }
        assert!(!goes(&lines, 1).await, "as many lines wait as may");
        drop(receiver);
        assert!(!lines.send(of(MOST_BYTES)).await, "nobody reads: whoever waits for room hears of it");
    }
}

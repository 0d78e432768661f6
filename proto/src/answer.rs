//! Reading one HTTP/1.1 answer off a blocking connection: head, Content-Length and chunked bodies, and streamed lines.
//! It trusts nothing that it reads: every length is bounded, and what is not HTTP is an error.

use std::io::{self, Read};

use zeroize::Zeroizing;

use crate::{ClientError, Malformed};

/// The largest answer that is read, and the longest line of a streamed one. The daemon's largest is a list of grants.
pub(crate) const MAX_ANSWER: usize = 1024 * 1024;

/// A connection's receiving side, with what was read ahead.
pub(crate) struct Incoming<S> {
    stream: S,
    buffer: Zeroizing<Vec<u8>>,
    taken: usize,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Whether the connection can carry another request.
    pub(crate) keep: bool,
    length: Length,
}

impl<S: Read> Incoming<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Zeroizing::default(), taken: 0 }
    }

    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Reads the head. The flag in the error tells whether a byte of an answer had come.
    pub(crate) fn head(&mut self) -> Result<Head, (ClientError, bool)> {
        loop {
            match parse_head(&self.buffer[self.taken..]) {
                Ok(Some((head, _))) if head.status < 200 => return Err((Malformed::Head.into(), true)),
                Ok(Some((head, size))) => {
                    self.taken += size;
                    return Ok(head);
                }
                Ok(None) if self.buffer.len() - self.taken > MAX_HEAD => return Err((Malformed::TooLarge.into(), true)),
                Ok(None) => {}
                Err(malformed) => return Err((malformed.into(), true)),
            }
            let begun = self.buffer.len() > self.taken;
            self.fill().map_err(|error| (error, begun))?;
        }
    }

    /// Reads the whole body.
    pub(crate) fn body(&mut self, head: &Head) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let room = match head.length {
            Length::Known(length) if length > MAX_ANSWER => return Err(Malformed::TooLarge.into()),
            Length::Known(length) => length,
            Length::Chunked | Length::UntilClose => ROOMY_ANSWER,
        };
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        let mut cursor = Cursor::new(head);
        while cursor.next_piece(self, &mut body)? {
            if body.len() > MAX_ANSWER {
                return Err(Malformed::TooLarge.into());
            }
        }
        Ok(body)
    }

    /// At least one more byte into the buffer.
    fn fill(&mut self) -> Result<(), ClientError> {
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        }
        let read = self.buffer.len();
        make_room(&mut self.buffer, PIECE);
        self.buffer.resize(read + PIECE, 0);
        let outcome = self.read_into(read);
        self.buffer.truncate(read + *outcome.as_ref().unwrap_or(&0));
        outcome.map(drop)
    }

    /// Reads once, into the buffer from `start` on.
    fn read_into(&mut self, start: usize) -> Result<usize, ClientError> {
        loop {
            match self.stream.read(&mut self.buffer[start..]) {
                Ok(0) => return Err(Malformed::Truncated.into()),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A socket's receive time-out.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(ClientError::TimedOut);
                }
                Err(error) => return Err(ClientError::Io(error)),
            }
        }
    }

    /// Moves at most `limit` bytes into `sink`.
    fn take(&mut self, limit: usize, sink: &mut Vec<u8>) -> Result<usize, ClientError> {
        if self.taken == self.buffer.len() {
            self.fill()?;
        }
        let count = limit.min(self.buffer.len() - self.taken);
        sink.extend_from_slice(&self.buffer[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }

    /// One line of the framing itself, without its CRLF.
    fn framing_line(&mut self) -> Result<String, ClientError> {
        loop {
            let unread = &self.buffer[self.taken..];
            if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&unread[..end]).trim_end_matches('\r').to_owned();
                self.taken += end + 1;
                return Ok(line);
            }
            if unread.len() > MAX_FRAMING_LINE {
                return Err(Malformed::Body.into());
            }
            self.fill()?;
        }
    }
}

/// The lines of a streamed body.
pub(crate) struct BodyLines {
    cursor: Cursor,
    pending: Vec<u8>,
    scanned: usize,
}

impl BodyLines {
    pub(crate) fn new(head: &Head) -> Self {
        Self { cursor: Cursor::new(head), pending: Vec::new(), scanned: 0 }
    }

    /// The next line that is not empty, or nothing at the body's end.
    pub(crate) fn next<S: Read>(&mut self, incoming: &mut Incoming<S>) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(end) = self.pending[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(self.scanned + end + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                self.scanned = 0;
                line.truncate(line.trim_ascii_end().len());
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            self.scanned = self.pending.len();
            if self.scanned > MAX_ANSWER {
                return Err(Malformed::TooLarge.into());
            }
            if !self.cursor.next_piece(incoming, &mut self.pending)? {
                // A last line without its end was cut off.
                return if self.pending.is_empty() { Ok(None) } else { Err(Malformed::Truncated.into()) };
            }
        }
    }
}

/// Where in a body we are.
struct Cursor {
    length: Length,
    /// What is left of the body, or of the present chunk.
    left: usize,
    /// Whether the present chunk's closing CRLF is still to come.
    in_chunk: bool,
    done: bool,
}

impl Cursor {
    fn new(head: &Head) -> Self {
        let left = if let Length::Known(length) = head.length { length } else { 0 };
        Self { length: head.length, left, in_chunk: false, done: false }
    }

    /// Appends the next piece of the body; false at its end.
    fn next_piece<S: Read>(&mut self, incoming: &mut Incoming<S>, sink: &mut Vec<u8>) -> Result<bool, ClientError> {
        if self.done {
            return Ok(false);
        }
        match self.length {
            Length::Known(_) => self.done = self.left == 0,
            Length::Chunked if self.left == 0 => self.next_chunk(incoming)?,
            Length::Chunked => {}
            Length::UntilClose => return self.until_close(incoming, sink),
        }
        if !self.done {
            self.left -= incoming.take(self.left, sink)?;
        }
        Ok(!self.done)
    }

    fn next_chunk<S: Read>(&mut self, incoming: &mut Incoming<S>) -> Result<(), ClientError> {
        if self.in_chunk && !incoming.framing_line()?.is_empty() {
            return Err(Malformed::Body.into());
        }
        let line = incoming.framing_line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = valid.then(|| usize::from_str_radix(digits, 16).ok()).flatten().ok_or(Malformed::Body)?;
        if size > MAX_ANSWER {
            return Err(Malformed::TooLarge.into());
        }
        self.left = size;
        self.in_chunk = true;
        if size == 0 {
            self.done = true;
            // Trailers, which nobody sends, up to the empty line.
            while !incoming.framing_line()?.is_empty() {}
        }
        Ok(())
    }

    fn until_close<S: Read>(&mut self, incoming: &mut Incoming<S>, sink: &mut Vec<u8>) -> Result<bool, ClientError> {
        match incoming.take(usize::MAX, sink) {
            Ok(_) => Ok(true),
            Err(ClientError::Protocol(Malformed::Truncated)) => {
                self.done = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

/// The daemon's heads take about 100 bytes.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 32;
const MAX_FRAMING_LINE: usize = 256;
const ROOMY_ANSWER: usize = 8 * 1024;

/// How much is read at a time: more than a usual answer has.
const PIECE: usize = 4096;

/// Moves to a larger buffer where there is too little room, and wipes the old one: a vector that grows by itself leaves copies
/// of a token behind.
fn make_room(buffer: &mut Zeroizing<Vec<u8>>, room: usize) {
    if buffer.capacity() - buffer.len() < room {
        let mut larger = Zeroizing::new(Vec::with_capacity(2 * buffer.len() + room));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
}

/// The head and its size, or nothing while it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(size) = answer.parse(bytes).map_err(|_| Malformed::Head)? else { return Ok(None) };
    let status = answer.code.ok_or(Malformed::Head)?;
    let mut head = Head { status, keep: answer.version == Some(1), length: Length::UntilClose };
    for header in answer.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|_| Malformed::Head)?.trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            head.length = Length::Known(value.parse().map_err(|_| Malformed::Head)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(Malformed::Head);
            }
            head.length = Length::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
            head.keep = false;
        }
    }
    if matches!(status, 204 | 304) {
        head.length = Length::Known(0);
    }
    head.keep &= !matches!(head.length, Length::UntilClose);
    Ok(Some((head, size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<String, ClientError> {
        let mut incoming = Incoming::new(text.as_bytes());
        let head = incoming.head().map_err(|(error, _)| error)?;
        let body = incoming.body(&head)?;
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn bodies_of_every_framing_are_read() {
        assert_eq!(whole("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd").unwrap(), "abc");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        assert_eq!(whole(chunked).unwrap(), "abc0123456789");
        assert_eq!(whole("HTTP/1.0 200 OK\r\n\r\nabc").unwrap(), "abc");
        assert_eq!(whole("HTTP/1.1 204 No Content\r\n\r\n").unwrap(), "");
    }

    #[test]
    fn what_is_cut_off_is_an_error_wherever_the_cut_is() {
        let answers = [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ];
        for answer in answers {
            for end in 0..answer.len() {
                assert!(matches!(whole(&answer[..end]), Err(ClientError::Protocol(Malformed::Truncated))), "{end}");
            }
        }
    }

    #[test]
    fn garbage_and_lies_about_lengths_are_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
        for bad in [
            "SSH-2.0-OpenSSH_9.9\r\n",
            "\0\0\0\0",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            &long,
        ] {
            let error = whole(bad).unwrap_err();
            assert!(matches!(error, ClientError::Protocol(Malformed::Head | Malformed::Body | Malformed::TooLarge)), "{bad:?}: {error:?}");
        }
    }

    #[test]
    fn lines_are_found_across_chunks_and_a_cut_off_line_is_an_error() {
        let lines = |text: &str| {
            let mut incoming = Incoming::new(text.as_bytes());
            let head = incoming.head().unwrap();
            let mut body = BodyLines::new(&head);
            let mut found = Vec::new();
            while let Some(line) = body.next(&mut incoming)? {
                found.push(String::from_utf8(line).unwrap());
            }
            Ok::<_, ClientError>(found)
        };
        let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(lines(&format!("{start}3\r\n{{\"a\r\n6\r\n\"}}\n\nb\n\r\n0\r\n\r\n")).unwrap(), ["{\"a\"}", "b"]);
        assert!(lines(&format!("{start}3\r\n{{\"a\r\n0\r\n\r\n")).is_err());
    }
}

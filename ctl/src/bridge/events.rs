//! PURE: server-sent events, as the HTML standard reads them. What it says to ignore is ignored: no well-kept crate at hand does,
//! and none has a limit.

use std::borrow::Cow;
use std::time::Duration;

use memchr::{memchr, memchr2};

/// The longest event that is taken in.
const LONGEST: usize = 64 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How long a stream that broke off is left alone, where the server does not say, and within which it may say.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// An event with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// `message` where the server does not say.
    pub(super) kind: String,
    pub(super) data: Vec<u8>,
}

/// An event is longer than any that we take in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// A stream of events on its way in.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    after_cr: bool,
    begun: bool,
    kind: String,
    data: Option<Vec<u8>>,
    next_id: Option<String>,
    /// The id of the last event, where to go on after a break.
    pub(super) last_id: Option<String>,
    retry: Option<Duration>,
}

impl Events {
    /// The stream that goes on after this one.
    pub(super) fn next(self) -> Self {
        Self { last_id: self.last_id, retry: self.retry, ..Self::default() }
    }

    /// How long to wait before coming back: as the server wants it, within reason.
    pub(super) fn pause(&self) -> Duration {
        let (least, most) = PAUSES;
        self.retry.unwrap_or(PAUSE).clamp(least, most)
    }

    /// The same after so many failures in a row: it doubles with each but the first, within the same reason.
    pub(super) fn pause_after(&self, failures: u32) -> Duration {
        let times = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.pause().saturating_mul(times).min(PAUSES.1)
    }

    /// Takes in the next bytes: the events that they complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut complete = Vec::new();
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.line.extend_from_slice(bytes);
                break;
            };
            let line = if self.line.is_empty() {
                Cow::Borrowed(&bytes[..end])
            } else {
                self.line.extend_from_slice(&bytes[..end]);
                Cow::Owned(std::mem::take(&mut self.line))
            };
            complete.extend(self.take_line(line));
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.check()?;
        }
        self.check()?;
        Ok(complete)
    }

    fn check(&self) -> Result<(), TooLong> {
        let size = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if size > LONGEST { Err(TooLong) } else { Ok(()) }
    }

    fn take_line(&mut self, line: Cow<'_, [u8]>) -> Option<Event> {
        let begins = !std::mem::replace(&mut self.begun, true);
        let text = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| begins).unwrap_or(&line);
        if text.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match memchr(b':', text) {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                // Most events are one such line, and it may be long.
                None => {
                    let start = line.len() - value.len();
                    self.data = Some(end_of(line, start));
                }
            },
            b"event" => self.kind = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => self.next_id = Some(String::from_utf8_lossy(value).into_owned()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let millis = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.retry = millis.map(Duration::from_millis).or(self.retry);
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        if let Some(id) = self.next_id.take() {
            // With one that no header can carry nobody could say where to go on.
            let sayable = |id: &String| !id.is_empty() && !id.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
            self.last_id = Some(id).filter(sayable);
        }
        let kind = std::mem::take(&mut self.kind);
        let data = self.data.take()?;
        Some(Event { kind: if kind.is_empty() { "message".to_owned() } else { kind }, data })
    }
}

/// What of a line begins at `start`, in the line's own memory where it has one.
fn end_of(line: Cow<'_, [u8]>, start: usize) -> Vec<u8> {
    match line {
        Cow::Borrowed(line) => line[start..].to_vec(),
        Cow::Owned(mut line) => {
            line.drain(..start);
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> (Vec<(String, String)>, Events) {
        let mut events = Events::default();
        let mut found = Vec::new();
        for piece in pieces {
            found.extend(events.feed(piece.as_bytes()).unwrap());
        }
        let shown = |event: Event| (event.kind, String::from_utf8(event.data).unwrap());
        (found.into_iter().map(shown).collect(), events)
    }

    fn one(kind: &str, data: &str) -> (String, String) {
        (kind.to_owned(), data.to_owned())
    }

    #[test]
    fn events_are_found_whatever_their_line_ends_and_wherever_they_are_cut() {
        let text = "\u{feff}: hello\r\ndata: a\r\ndata:b\rdata\n\nevent: x\rid: 7\r\rdata: c\nretry: 250\nunknown: y\nno colon\n\ndata: never ended\n";
        let (whole, events) = read(&[text]);
        assert_eq!(whole, [one("message", "a\nb\n"), one("message", "c")]);
        assert_eq!((events.last_id.as_deref(), events.pause()), (Some("7"), Duration::from_millis(250)));
        assert_eq!(events.next().pause(), Duration::from_millis(250));
        for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            assert_eq!(read(&[&text[..cut], &text[cut..]]).0, whole, "{cut}");
        }
    }

    #[test]
    fn an_id_counts_once_its_event_is_whole() {
        let (_, events) = read(&["id: 1\ndata:\n\nid: 2\ndata: x\n"]);
        assert_eq!(events.last_id.as_deref(), Some("1"));
        assert_eq!(read(&["id: 1\n\nid\n\n"]).1.last_id, None, "an empty one takes it back");
        assert_eq!(read(&["id: 1\n\nid: a\u{7f}b\n\n"]).1.last_id, None, "so does one that cannot be sent back");
        let (_, odd) = read(&["id: a\0b\n\nretry: 1x\n\nretry:\n\n"]);
        assert_eq!((odd.last_id.as_deref(), odd.pause()), (None, PAUSE));
        assert_eq!(read(&["retry: 0\n\n"]).1.pause(), PAUSES.0, "nobody makes us hurry");
        assert_eq!(read(&["retry: 99999999999\n\n"]).1.pause(), PAUSES.1);
    }

    #[test]
    fn an_endless_event_is_given_up() {
        let mut events = Events::default();
        let piece = vec![b'x'; 1024 * 1024];
        let outcome = (0..100).find_map(|_| events.feed(&piece).err());
        assert_eq!(outcome, Some(TooLong));
    }
}

//! Every way out to the terminal: data on stdout, everything else on stderr. Whatever comes from a provider passes here,
//! and no control character of it gets through. It decides how things look, not what is said.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};
use mcp_auth_proto::{Secret, is_hidden};
use serde::Serialize;

use crate::failure::Failure;

/// Prints a line of data, or several that are separated by `\n`.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    bytes(format!("{}\n", printable(text)).as_bytes())
}

/// Prints a line of data in a style, where colours are wanted.
pub(crate) fn styled_line(text: &str, style: Style) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{style}{}{style:#}", field(text)).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Shows these lines on stdout in place of whatever the terminal shows.
pub(crate) fn screen(text: &str) -> Result<(), Failure> {
    bytes(format!("\x1b[H\x1b[2J{}\n", printable(text)).as_bytes())
}

/// Prints one value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = zeroize::Zeroizing::new(as_json(value));
    text.push('\n');
    bytes(text.as_bytes())
}

/// Prints a secret and a newline, nothing else. The caller has checked that it is visible ASCII.
pub(crate) fn secret(secret: &Secret) -> Result<(), Failure> {
    before_secret("", secret)
}

/// Prints a secret after a text of our own, in one line.
pub(crate) fn before_secret(text_before: &str, secret: &Secret) -> Result<(), Failure> {
    let mut text = zeroize::Zeroizing::new(Vec::with_capacity(text_before.len() + secret.expose().len() + 1));
    text.extend_from_slice(text_before.as_bytes());
    text.extend_from_slice(secret.expose().as_bytes());
    text.push(b'\n');
    bytes(&text)
}

/// Writes bytes of our own making to stdout, such as a man page.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Tells the person something, on stderr.
pub(crate) fn note(text: &str) {
    err(format_args!("{}{}\n", clear_line(), printable(text)));
}

/// Asks the person something, on stderr; the answer is typed behind it.
pub(crate) fn prompt(text: &str) {
    err(format_args!("{}{}", clear_line(), printable(text)));
}

/// Warns the person, on stderr.
pub(crate) fn warning(text: &str) {
    let style = AnsiColor::Yellow.on_default().bold();
    err(format_args!("{}{style}warning:{style:#} {}\n", clear_line(), printable(text)));
}

/// Prints why a verb failed and what to do about it. A closed pipe is not a failure.
pub(crate) fn failure(failure: &Failure, json: bool) {
    if failure.exit_code() == 0 || matches!(failure, Failure::Quiet(_)) {
        return;
    }
    if json {
        err(format_args!("{}\n", as_json(&failure.to_json())));
    } else {
        complaint(&failure.to_string(), failure.hint().as_deref());
    }
}

/// An error that does not end the verb.
pub(crate) fn complaint(sentence: &str, hint: Option<&str>) {
    let (red, cyan) = (AnsiColor::Red.on_default().bold(), AnsiColor::Cyan.on_default().bold());
    err(format_args!("{}{red}error:{red:#} {}\n", clear_line(), field(sentence)));
    if let Some(hint) = hint {
        err(format_args!("{cyan}hint:{cyan:#} {}\n", field(hint)));
    }
}

/// Replaces the line that counts the seconds, on a terminal; `None` removes it.
pub(crate) fn progress(text: Option<&str>) {
    COUNTING.store(text.is_some(), Ordering::Relaxed);
    let dim = Style::new().dimmed();
    match text {
        Some(text) => err(format_args!("\r{CLEAR}{dim}{}{dim:#}", field(text))),
        None => err(format_args!("\r{CLEAR}")),
    }
}

/// Whether stderr is a terminal, where a line can be replaced.
pub(crate) fn can_count() -> bool {
    io::stderr().is_terminal()
}

/// A text from elsewhere as one harmless line of at most 300 characters.
pub(crate) fn field(text: &str) -> String {
    let mut line: String = text.chars().take(MAX_FIELD).map(|c| if is_harmful(c) || c == '\n' { '?' } else { c }).collect();
    if text.chars().nth(MAX_FIELD).is_some() {
        line.push_str("...");
    }
    line
}

/// Seconds for people: `90 s`, `59 min`, `8 h`, `12 d`.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

const MAX_FIELD: usize = 300;
const CLEAR: &str = "\x1b[K";

/// Whether the last line on the terminal is one of `progress`.
static COUNTING: AtomicBool = AtomicBool::new(false);

/// Makes room when a counting line stands where a note should go.
fn clear_line() -> &'static str {
    if COUNTING.load(Ordering::Relaxed) { "\r\x1b[K" } else { "" }
}

/// Stderr, with colours where they are wanted. Nobody is left to tell when it fails.
fn err(text: std::fmt::Arguments<'_>) {
    let _ = anstream::stderr().lock().write_fmt(text);
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) { '?' } else { c }).collect()
}

/// JSON escapes what lies below 0x20; the rest of what terminals obey is escaped here, which JSON allows anywhere in a
/// string, and these characters stand nowhere else.
fn as_json(value: &impl Serialize) -> String {
    let plain = serde_json::to_string(value).unwrap_or_default();
    if !plain.chars().any(is_harmful) {
        return plain;
    }
    let escaped = |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    plain.chars().map(|c| if is_harmful(c) { escaped(c) } else { c.to_string() }).collect()
}

/// What may not reach a terminal; a line break may, between lines of our own.
fn is_harmful(c: char) -> bool {
    is_hidden(c) && c != '\n'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let every: String = (0..0xa0).filter_map(char::from_u32).collect();
        let cleaned = field(&every);
        assert!(cleaned.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{cleaned:?}");
        assert_eq!(printable("a\x1b[31m\u{202e}b\r\nc\u{9b}"), "a?[31m?b?\nc?");
        assert_eq!(field("Zoë 東京"), "Zoë 東京");
    }

    #[test]
    fn a_field_is_one_line_and_has_an_end() {
        assert_eq!(field("a\nb"), "a?b");
        assert_eq!(field(&"x".repeat(301)), "x".repeat(300) + "...");
    }

    #[test]
    fn json_stays_the_same_value_without_a_raw_control() {
        let text = "a\x1b\u{9b}\u{202e}\x7f\n\u{e0041}";
        let json = as_json(&text);
        assert_eq!(json, r#""a\u001b\u009b\u202e\u007f\n\udb40\udc41""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn spans_are_short() {
        assert_eq!([0, 119, 120, 7_199, 7_200, 200_000].map(span), ["0 s", "119 s", "2 min", "119 min", "2 h", "2 d"]);
    }
}

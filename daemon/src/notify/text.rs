//! PURE: the texts of a notification as a desktop takes them.

use super::Notification;
use crate::oauth::text::clean;

/// The most lines below the summary.
const MOST_LINES: usize = 8;

/// The summary: one line, never markup (Desktop Notifications Specification, "Basic Design").
pub(super) fn summary(notification: &Notification) -> String {
    clean(&notification.summary)
}

/// The body. Where it is taken for markup, nothing in it is any.
pub(super) fn body(notification: &Notification, markup: bool) -> String {
    let lines = notification.body.iter().take(MOST_LINES).map(|line| clean(line));
    let lines = lines.map(|line| if markup { escaped(&line) } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(body: &[&str]) -> Notification {
        let body = body.iter().map(|line| (*line).to_owned()).collect();
        Notification { summary: "a\u{202e}b\n<b>".into(), body, actions: Vec::new(), urgent: false, lasts: None }
    }

    #[test]
    fn nothing_in_the_body_is_markup_or_a_line_of_its_own() {
        let hostile = notification(&["-u critical <a href=\"https://evil.example\">x</a>\nOK &amp; 'y'", "\u{1b}[31mred\u{202e}\0"]);
        assert_eq!(
            body(&hostile, true),
            "-u critical &lt;a href=&quot;https://evil.example&quot;&gt;x&lt;/a&gt; OK &amp;amp; &apos;y&apos;\n[31mred"
        );
        assert_eq!(body(&hostile, false), "-u critical <a href=\"https://evil.example\">x</a> OK &amp; 'y'\n[31mred");
        assert_eq!(summary(&hostile), "ab <b>");
    }

    #[test]
    fn a_text_has_an_end() {
        let endless = "<".repeat(10_000);
        let long = notification(&[endless.as_str(); 20]);
        assert_eq!(body(&long, true).lines().count(), MOST_LINES);
        assert_eq!(body(&long, true).len(), MOST_LINES * 300 * "&lt;".len() + MOST_LINES - 1);
    }
}

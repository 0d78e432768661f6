//! The words of others, made safe to show: what reaches a terminal, a log or a notification went through here.
//!
//! [`clean`] is for what somebody says, [`visible`] for what something is called: a path, a unit, a program.

use mcp_auth_proto::is_hidden;

/// The longest text of a provider that is kept, in characters.
const LONGEST: usize = 300;

/// A text of a provider without control, bidirectional and invisible characters, at most 300 characters long.
pub fn clean(text: &str) -> String {
    clean_within(text, LONGEST)
}

/// The same with another longest length, in characters: for a sentence of ours with words of others in it.
pub fn clean_within(text: &str, longest: usize) -> String {
    let kept = text.chars().filter_map(|c| match c {
        '\n' | '\r' | '\t' => Some(' '),
        c if is_hidden(c) => None,
        c => Some(c),
    });
    kept.take(longest).collect::<String>().trim().to_owned()
}

/// The same for a text that may be missing; an empty one counts as missing.
pub fn clean_option(text: Option<&str>) -> Option<String> {
    text.map(clean).filter(|text| !text.is_empty())
}

/// Whether this is one scope (RFC 6749 section 3.3: `scope-token`), which can stand in a sentence or a command: at most 300
/// characters, where the longest in use have half of that.
pub fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// A name that tells one thing from another, whole: what [`clean`] would drop is shown as `\u{202e}` instead, so that no two
/// names look the same. Where it is longer than 300 characters its middle is left out: the end of a path says the most.
pub fn visible(name: &str) -> String {
    let shown: Vec<char> = name
        .chars()
        .flat_map(|c| {
            let escaped = is_hidden(c).then(|| c.escape_unicode());
            let itself = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(itself)
        })
        .collect();
    if shown.len() <= LONGEST {
        return shown.into_iter().collect();
    }
    let (head, tail) = (&shown[..LONGEST / 3], &shown[shown.len() - LONGEST / 3 * 2 + 3..]);
    head.iter().chain(['.'; 3].iter()).chain(tail).collect()
}

/// As a shell takes it for one word: scopes may be a server's words, a path a program's, and people copy hints.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// An OAuth error code (RFC 6749 section 5.2): what is outside its alphabet is dropped, at most 64 characters are kept.
pub fn clean_code(code: &str) -> String {
    let kept = code.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/'));
    let code: String = kept.take(64).collect();
    if code.is_empty() { "an unnamed error".to_owned() } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_or_bidi_character_survives() {
        for (text, expected) in [
            ("token expired", "token expired"),
            ("\u{1b}[31mred\u{1b}[0m", "[31mred[0m"),
            ("two\r\nlines\tand a tab", "two  lines and a tab"),
            ("a\0b\u{7f}c\u{85}d\u{9b}e", "abcde"),
            ("evil\u{202e}txt.exe\u{2066}\u{200f}\u{61c}", "eviltxt.exe"),
            ("  naïve 漢字  ", "naïve 漢字"),
        ] {
            assert_eq!(clean(text), expected);
        }
    }

    #[test]
    fn no_two_names_look_the_same_and_none_does_anything() {
        for (name, expected) in [
            ("/usr/bin/claude", "/usr/bin/claude"),
            ("/home/zoë/my tools/東京", "/home/zoë/my tools/東京"),
            ("/tmp/claude\u{200b}", r"/tmp/claude\u{200b}"),
            ("/tmp/\u{202e}edualc", r"/tmp/\u{202e}edualc"),
            ("/tmp/a\nerror: b\u{1b}[2J", r"/tmp/a\u{a}error: b\u{1b}[2J"),
        ] {
            assert_eq!(visible(name), expected);
        }
        let long = format!("/start/{}/end", "\u{200b}x".repeat(2_000));
        let shown = visible(&long);
        assert!(
            shown.starts_with("/start/") && shown.ends_with("x/end") && shown.contains("...") && shown.chars().count() == 300,
            "{shown}"
        );
    }

    #[test]
    fn a_long_text_is_cut_and_an_empty_one_is_missing() {
        assert_eq!(clean(&"ä".repeat(10_000)).chars().count(), 300);
        assert_eq!(clean_option(Some("\u{1b}")), None);
        assert_eq!(clean_code("invalid_grant\u{1b}[2J <b>"), "invalid_grant2Jb");
        assert_eq!(clean_code(" "), "an unnamed error");
    }
}

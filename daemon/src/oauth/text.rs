//! A provider's words, made safe to show: what reaches a terminal, a log or a notification went through here.

/// The longest text of a provider that is kept, in characters.
const LONGEST: usize = 300;

/// A text of a provider without control, bidirectional and invisible characters, at most 300 characters long.
pub fn clean(text: &str) -> String {
    let kept = text.chars().filter_map(|c| match c {
        '\n' | '\r' | '\t' => Some(' '),
        c if is_hidden(c) => None,
        c => Some(c),
    });
    kept.take(LONGEST).collect::<String>().trim().to_owned()
}

/// The same for a text that may be missing; an empty one counts as missing.
pub fn clean_option(text: Option<&str>) -> Option<String> {
    text.map(clean).filter(|text| !text.is_empty())
}

/// An OAuth error code (RFC 6749 section 5.2): what is outside its alphabet is dropped, at most 64 characters are kept.
pub fn clean_code(code: &str) -> String {
    let kept = code.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/'));
    let code: String = kept.take(64).collect();
    if code.is_empty() { "an unnamed error".to_owned() } else { code }
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
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
    fn a_long_text_is_cut_and_an_empty_one_is_missing() {
        assert_eq!(clean(&"ä".repeat(10_000)).chars().count(), 300);
        assert_eq!(clean_option(Some("\u{1b}")), None);
        assert_eq!(clean_code("invalid_grant\u{1b}[2J <b>"), "invalid_grant2Jb");
        assert_eq!(clean_code(" "), "an unnamed error");
    }
}

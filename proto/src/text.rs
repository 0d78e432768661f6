//! Which characters of a text from elsewhere may not reach a terminal, a log or a notification.

/// Whether a character is obeyed by terminals, turns the text around it, or is not seen: controls, and what Unicode calls
/// default-ignorable, such as bidirectional marks, tags and fillers. A line break counts.
///
/// Two texts that differ in nothing else look the same, so where a text says who somebody is, show it escaped.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_obeyed_or_not_seen_is_hidden() {
        for c in (0..0x20).chain(0x7f..0xa0).filter_map(char::from_u32) {
            assert!(is_hidden(c), "{c:?}");
        }
        // Soft hyphen, bidirectional marks and isolates, zero widths, a filler, a byte order mark, a tag, a variation selector.
        for c in "\u{ad}\u{202e}\u{2066}\u{2069}\u{200b}\u{200d}\u{2028}\u{3164}\u{ffa0}\u{feff}\u{e0041}\u{fe0f}\u{fff9}".chars() {
            assert!(is_hidden(c), "{c:?}");
        }
    }

    #[test]
    fn what_people_write_is_not() {
        for c in "Zoë Müller 東京 कि 한글 مرحبا 👩🏽 ~/bin/x (a&b) \u{a0}\u{2010}".chars() {
            assert!(!is_hidden(c), "{c:?}");
        }
    }
}

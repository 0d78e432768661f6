//! Texts for people: which characters of a text from elsewhere may not reach a terminal, a log or a notification, and which
//! name somebody may have meant.

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

/// The one of these names that somebody may have meant who typed another: the nearest that is no more than a third of its
/// letters away. Of several the first.
pub fn similar<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = typed.chars().count();
    let most = (letters / 3).clamp(1, 3);
    // There may be thousands, and most are of another length.
    let alike = names.into_iter().filter(|name| name.chars().count().abs_diff(letters) <= most);
    // Two letters that have changed places are one slip.
    let near = alike.map(|name| (strsim::osa_distance(typed, name), name)).filter(|(slips, _)| (1..=most).contains(slips));
    near.min_by_key(|(slips, _)| *slips).map(|(_, name)| name)
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
    fn the_nearest_name_is_what_was_meant_and_a_far_one_is_not() {
        let names = ["gitlab", "github", "github:work", "notion", "x"];
        let meant = ["gihtub", "github:wrok", "notoin", "githu", "gitbuh"].map(|typed| similar(typed, names));
        assert_eq!(meant, [Some("github"), Some("github:work"), Some("notion"), Some("github"), Some("github")]);
        for typed in ["slack", "linear", "githublogin", "github", ""] {
            assert_eq!(similar(typed, ["github", "notion"]), None, "{typed}");
        }
    }

    #[test]
    fn what_people_write_is_not() {
        for c in "Zoë Müller 東京 कि 한글 مرحبا 👩🏽 ~/bin/x (a&b) \u{a0}\u{2010}".chars() {
            assert!(!is_hidden(c), "{c:?}");
        }
    }
}

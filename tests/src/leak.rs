//! Looks for secrets where none may be. Every secret of the suites starts and ends with a word that occurs nowhere else
//! (tests/oidc-provider/configuration.mjs puts it there), so a token cut at either end is found too.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use memchr::memmem::Finder;

/// What marks a secret, and which kind it is.
pub const MARKS: [(&str, &str); 6] = [
    ("access token", "zQaT9qz"),
    ("refresh token", "zQrT9qz"),
    ("authorization code", "zQaC9qz"),
    ("device code", "zQdC9qz"),
    ("client secret", "zQcS9qz"),
    ("passphrase", "zQpP9qz"),
];

/// A passphrase that the leak search would find.
pub const PASSPHRASE: &str = "zQpP9qz correct horse zQpP9qz";

/// A secret where none may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: usize,
    /// Which secret, and in which encoding.
    pub what: String,
}

/// The search: every mark in every encoding.
#[derive(Debug)]
pub struct LeakSearch {
    finders: Vec<(String, Finder<'static>)>,
}

impl Default for LeakSearch {
    fn default() -> Self {
        let finders = MARKS.iter().flat_map(|(kind, mark)| {
            encodings(mark.as_bytes())
                .into_iter()
                .map(move |(encoding, bytes)| (format!("{kind} ({encoding})"), Finder::new(&bytes).into_owned()))
        });
        Self { finders: finders.collect() }
    }
}

impl LeakSearch {
    /// Searches bytes; `path` is for the report.
    pub fn search(&self, path: &Path, bytes: &[u8]) -> Vec<Finding> {
        let found = |(what, finder): &(String, Finder<'static>)| {
            finder.find(bytes).map(|offset| Finding { path: path.to_owned(), offset, what: what.clone() })
        };
        self.finders.iter().filter_map(found).collect()
    }

    /// Searches every file below a folder, except those that hold a token by purpose (`*.token`). Gives the findings and
    /// how many files and bytes were searched.
    pub fn search_folder(&self, folder: &Path) -> (Vec<Finding>, usize, usize) {
        let (mut findings, mut files, mut size) = (Vec::new(), 0, 0);
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                let (more, inner_files, inner_size) = self.search_folder(&path);
                findings.extend(more);
                files += inner_files;
                size += inner_size;
            } else if kind.is_file() && path.extension().is_none_or(|extension| extension != "token") {
                let bytes = std::fs::read(&path).unwrap_or_default();
                findings.extend(self.search(&path, &bytes));
                files += 1;
                size += bytes.len();
            }
        }
        (findings, files, size)
    }
}

/// The ways in which a text may be written down.
fn encodings(mark: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let each = |format: fn(&u8) -> String| mark.iter().map(format).collect::<String>().into_bytes();
    let mut all = vec![
        ("raw", mark.to_vec()),
        ("reversed", mark.iter().rev().copied().collect()),
        ("hex", each(|byte| format!("{byte:02x}"))),
        ("upper-case hex", each(|byte| format!("{byte:02X}"))),
        ("percent", each(|byte| format!("%{byte:02X}"))),
        ("lower-case percent", each(|byte| format!("%{byte:02x}"))),
        ("list of numbers", mark.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes()),
        ("UTF-16LE", mark.iter().flat_map(|byte| [*byte, 0]).collect()),
        ("UTF-16BE", mark.iter().flat_map(|byte| [0, *byte]).collect()),
    ];
    all.extend((0..3).map(|shift| ("base64", inner_base64(mark, shift))));
    all
}

/// The part of the base64 text that depends on the mark alone, when it stands `shift` bytes after a multiple of three.
fn inner_base64(mark: &[u8], shift: usize) -> Vec<u8> {
    let padded: Vec<u8> = std::iter::repeat_n(0, shift).chain(mark.iter().copied()).collect();
    let text = STANDARD_NO_PAD.encode(&padded).into_bytes();
    let first = (shift * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    text[first..last].to_vec()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE;

    use super::*;

    fn finds(bytes: &[u8]) -> bool {
        !LeakSearch::default().search(Path::new("x"), bytes).is_empty()
    }

    #[test]
    fn a_planted_token_is_found_in_every_encoding_and_at_every_alignment() {
        let token = "zQrT9qzAbCdEfGhIjKlMnOpQrStUvzQrT9qz";
        assert!(finds(format!("refresh_token={token}&").as_bytes()));
        for prefix in ["", "a", "ab", "{\"rt\":\""] {
            let text = format!("{prefix}{token}");
            assert!(finds(URL_SAFE.encode(&text).as_bytes()), "base64 after {prefix:?}");
            assert!(finds(hex::encode(text).as_bytes()));
        }
        assert!(finds(&token.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()));
        assert!(finds(format!("{:?}", token.as_bytes()).as_bytes()), "a debug print of bytes");
    }

    #[test]
    fn a_token_cut_at_either_end_is_found() {
        let token = "zQaT9qzAbCdEfGhIjKlMnOpQrStUvzQaT9qz";
        assert!(finds(&token.as_bytes()[..8]) && finds(&token.as_bytes()[token.len() - 8..]));
    }

    #[test]
    fn ordinary_text_is_left_alone() {
        assert!(!finds(b"GET /v1/status HTTP/1.1 200 fingerprint=1a2b3c4d grant=test"));
    }
}

//! The fuzz targets of this room, see [`crate::fuzzing`].

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::header::Header;
use super::hex::Hex;
use super::intents::{self, Intents, Line};
use super::record::{Keys, open, seal};
use super::{Record, RecordId, RecordKind};
use crate::fuzzing::{is_hidden, split_line};
use crate::grant::record::GrantRecord;

/// A record's file as it is, and the same bytes as `KIND NAME HOW PLACE BITS`, a line break, the content: sealed, damaged, opened.
///
/// Nothing opens that was not sealed with the key, and nothing opens once a bit, a byte, the length, the name or the
/// generation has changed; what was not touched comes back as it was. A grant's content that is read is written the same.
pub fn record(input: &[u8]) {
    let keys = Keys::derive(b"the secret of the key source, 32", &[7; 32], Hex([1; 8]));
    assert!(open(&keys, "00112233445566778899aabbccddeeff", input).is_err(), "forged");

    let (head, content) = split_line(input);
    let mut words = head.split(' ');
    let kind = words.next().unwrap_or_default();
    let kind = RecordKind::ALL.into_iter().find(|known| known.as_str() == kind).unwrap_or(RecordKind::Grant);
    let id = RecordId { kind, name: words.next().unwrap_or_default().to_owned() };
    let how = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse::<usize>().ok()).unwrap_or_default();
    let (place, bits) = (number(), number());

    let record = Record { id: id.clone(), generation: bits as u64, plaintext: Zeroizing::new(content.to_vec()) };
    let (genuine, whole) = (keys.file_name(&id), seal(&keys, &record));
    let (mut name, mut sealed) = (genuine.clone(), whole.clone());
    let opened = open(&keys, &name, &sealed).expect("what was sealed opens");
    assert!(opened.id == record.id && opened.generation == record.generation && opened.plaintext == record.plaintext);

    let place = place % sealed.len();
    match how {
        "cut" => sealed.truncate(place),
        "append" => sealed.push(bits.to_le_bytes()[0]),
        "move" => name = keys.file_name(&RecordId { name: format!("{} ", id.name), ..id }),
        "age" => sealed[13..21].copy_from_slice(&(bits as u64).wrapping_add(1).to_be_bytes()),
        "swap" => sealed.swap(place, bits % whole.len()),
        _ => sealed[place] ^= (bits.to_le_bytes()[0]).max(1),
    }
    if (&name, &sealed) != (&genuine, &whole) {
        assert!(open(&keys, &name, &sealed).is_err(), "a damaged record opened");
    }

    if let Ok(grant) = GrantRecord::from_plaintext(content) {
        let written = grant.to_plaintext();
        let again = GrantRecord::from_plaintext(&written).expect("what was written is read");
        assert_eq!(*again.to_plaintext(), *written);
    }
}

/// The file of intents and the vault's header, each read from the same bytes.
///
/// A whole line of intents is kept and nothing else is; what is appended is there afterwards. A header that is read is
/// written the same, and why another is not read shows no control character.
pub fn vault_files(input: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(intents::FILE), input).expect("a file");
    let line = Line { name: "0123456789abcdef0123456789abcdef".into(), generation: 7, fingerprint: [9; 8] };
    let mut loaded = Intents::load(folder.path());
    let mut expected = loaded.lines().to_vec();
    let text = String::from_utf8_lossy(input);
    assert!(expected.iter().all(|line| text.contains(line.to_string().split(' ').next().unwrap_or_default())));
    let needed: HashMap<String, u64> = expected.iter().chain([&line]).map(|line| (line.name.clone(), 0)).collect();
    loaded.append(vec![line.clone()], &needed).expect("a line more");
    expected.push(line);
    let mut once = std::collections::HashSet::new();
    expected.retain(|line| once.insert(line.clone()));
    let mut kept = Intents::load(folder.path()).lines().to_vec();
    once.clear();
    kept.retain(|line| once.insert(line.clone()));
    assert_eq!(kept, expected);

    std::fs::write(folder.path().join("vault.json"), input).expect("a file");
    match Header::read(folder.path()) {
        Ok(header) => {
            let header = header.expect("there is a file");
            header.write(folder.path()).expect("a file");
            assert_eq!(Header::read(folder.path()).expect("what was written is read"), Some(header.clone()));
            assert!(header.keys(b"not the secret of this vault").is_none());
        }
        Err(error) => assert!(!error.to_string().contains(is_hidden), "{error}"),
    }
}

//! PURE but for the process that it names: who has which capability socket, as the vault keeps it.

use std::ffi::OsStr;

use mcp_auth_proto::GrantName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::platform::Process;
use crate::policy::Only;
use crate::vault::{Record, RecordId, RecordKind};

/// One socket.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Of its file: 128 random bits in hex.
    pub(super) name: String,
    pub(super) only: Only,
    mark: String,
}

#[derive(Serialize, Deserialize)]
struct Content {
    /// [`Process::mark`].
    process: String,
    /// As they were asked for, and by their own names.
    grants: Vec<(GrantName, GrantName)>,
}

impl Kept {
    /// A new one; `None` where the process cannot be found again.
    pub(super) fn new(process: &Process, only: &Only) -> Option<Self> {
        let mut name = [0; 16];
        getrandom::fill(&mut name).ok()?;
        Some(Self { name: hex::encode(name), only: only.clone(), mark: process.mark()? })
    }

    /// What a record says; `None` where it is not of this version.
    pub(super) fn from_record(record: &Record) -> Option<Self> {
        let Content { process, grants } = serde_json::from_slice(&record.plaintext).ok()?;
        is_name(OsStr::new(&record.id.name)).then(|| Self { name: record.id.name.clone(), only: Only::new(grants), mark: process })
    }

    pub(super) fn to_record(&self) -> Record {
        let content = Content { process: self.mark.clone(), grants: self.only.pairs().to_vec() };
        let plaintext = serde_json::to_vec(&content).expect("names and a text");
        Record { id: id(&self.name), generation: 1, plaintext: Zeroizing::new(plaintext) }
    }

    /// Its process, if that lives.
    pub(super) fn process(&self) -> Option<Process> {
        Process::marked(&self.mark)
    }
}

/// The id of a socket's record.
pub(super) fn id(name: &str) -> RecordId {
    RecordId { kind: RecordKind::Capability, name: name.to_owned() }
}

/// Whether a file may be one of ours: half of what lies about after a power cut has our temporary name.
pub(super) fn is_name(name: &OsStr) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.to_str().is_some_and(|name| name.len() == 32 && name.bytes().enumerate().all(|(at, byte)| hex(byte) || (at == 0 && byte == b'~')))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_record_leads_back_to_the_process_and_its_grants_while_it_lives() {
        let name = |text: &str| text.parse::<GrantName>().unwrap();
        let only = Only::new(vec![(name("github"), name("github:work"))]);
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let kept = Kept::new(&Process::find(child.id()).unwrap(), &only).unwrap();
        assert!(is_name(OsStr::new(&kept.name)));
        let again = Kept::from_record(&kept.to_record()).unwrap();
        assert_eq!((&again.name, &again.only), (&kept.name, &only));
        assert_eq!(again.process().map(|process| process.pid()), Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(again.process().is_none());
    }

    #[test]
    fn only_names_of_our_own_making_are_taken_for_sockets() {
        let name = "0123456789abcdef0123456789abcdef";
        assert!(is_name(OsStr::new(name)) && is_name(OsStr::new(&name.replacen('0', "~", 1))));
        for other in ["", "../x", "0123456789abcdef0123456789abcdeF", "0123456789abcdef0123456789abcde", "~~23456789abcdef0123456789abcdef"]
        {
            assert!(!is_name(OsStr::new(other)), "{other}");
        }
    }
}
